// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lets programs start on a kernel without `mprotect`.
//!
//! Before `main`, Rust's library for musl installs a handler for SIGSEGV and SIGBUS that tells a stack overflow from other faults. The stack of that
//! handler gets a guard page by `mprotect`, and when that fails the program ends. A cVM has no memory management unit, and no `mprotect`: there can be no
//! guard page, so the handler is of no use either. The library leaves both signals alone when they do not have their default action. So they are ignored
//! here, which changes nothing about faults: the kernel ends a program that faults while it ignores the signal.

use libc::{SIG_IGN, SIGBUS, SIGSEGV};

/// Called by the C library before the Rust library and `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = ignore_faults_without_mprotect;

extern "C" fn ignore_faults_without_mprotect() {
    // SAFETY: an empty range, of which nothing is changed. No other thread is there yet.
    let missing = unsafe {
        libc::mprotect(std::ptr::null_mut(), 0, libc::PROT_READ) != 0
            && *libc::__errno_location() == libc::ENOSYS
    };
    if missing {
        for number in [SIGSEGV, SIGBUS] {
            // SAFETY: no handler is installed, and none is lost: nothing of the program has run.
            unsafe { libc::signal(number, SIG_IGN) };
        }
    }
}
