// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sleeping until a word changes, without the host's C library.

use core::sync::atomic::AtomicU32;

use super::raw_syscall::syscall4;

/// Sleeps until [`wake`] unless `word` is not `expected`. Also returns when a signal came, or for no reason.
#[inline]
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel only reads `word`, which outlives the call.
    unsafe {
        syscall4(
            libc::SYS_futex,
            word.as_ptr() as usize,
            (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize,
            expected as usize,
            0,
        );
    }
}

/// Wakes who sleeps on `word`.
#[inline]
pub fn wake(word: &AtomicU32) {
    // SAFETY: the kernel uses the address of `word` as a name.
    unsafe {
        syscall4(
            libc::SYS_futex,
            word.as_ptr() as usize,
            (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize,
            i32::MAX as usize,
            0,
        );
    }
}
