// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls of the host without its C library.
//!
//! The C library writes `errno`, which lies where the thread pointer points to. In signal handlers and in light hostcalls that is the
//! cVM's, so they make their system calls by these.

use core::arch::asm;

/// Performs a system call; returns its result, or a negated errno.
///
/// # Safety
///
/// The system call with these arguments must not break memory safety.
#[inline]
pub unsafe fn syscall6(number: i64, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention; it changes rax, rcx and r11 only. What the call
    // itself does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Performs a system call with up to four arguments.
///
/// # Safety
///
/// As [`syscall6`].
#[inline]
pub unsafe fn syscall4(number: i64, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { syscall6(number, [a, b, c, d, 0, 0]) }
}

/// Sends `signal` to the thread `tid` of the process `pid`. A thread that is gone is no error.
#[inline]
pub fn tgkill(pid: i32, tid: i32, signal: i32) {
    // SAFETY: sends a signal, whose handler is this platform's.
    unsafe {
        syscall4(
            libc::SYS_tgkill,
            pid as usize,
            tid as usize,
            signal as usize,
            0,
        );
    }
}

/// The process's number.
#[inline]
pub fn getpid() -> i32 {
    // SAFETY: has no arguments and no effect.
    unsafe { syscall4(libc::SYS_getpid, 0, 0, 0, 0) as i32 }
}

/// The calling thread's number.
#[inline]
pub fn gettid() -> i32 {
    // SAFETY: has no arguments and no effect.
    unsafe { syscall4(libc::SYS_gettid, 0, 0, 0, 0) as i32 }
}

/// Gives the processor to others.
#[inline]
pub fn sched_yield() {
    // SAFETY: has no arguments and no effect on memory.
    unsafe {
        syscall4(libc::SYS_sched_yield, 0, 0, 0, 0);
    }
}

/// Writes to a file descriptor as far as it goes.
pub fn write(fd: i32, bytes: &[u8]) {
    // SAFETY: the kernel reads `bytes` only.
    unsafe {
        syscall4(
            libc::SYS_write,
            fd as usize,
            bytes.as_ptr() as usize,
            bytes.len(),
            0,
        );
    }
}
