// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One-shot timers of a vCPU: timers of the host that send the kick to its thread.

use super::raw_syscall::{self, syscall4};
use super::signal;

/// Makes a timer for the calling thread.
pub fn create() -> Option<i32> {
    // SAFETY: an all-zero sigevent is a valid one.
    let mut event: libc::sigevent = unsafe { core::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal::kick();
    event.sigev_notify_thread_id = raw_syscall::gettid();
    let mut timer = 0i32;
    // SAFETY: the kernel reads `event` and writes `timer`.
    let result = unsafe {
        syscall4(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC as usize,
            &raw const event as usize,
            &raw mut timer as usize,
            0,
        )
    };
    (result == 0).then_some(timer)
}

/// Has a timer run out in `ns` nanoseconds, or never if 0.
#[inline]
pub fn set(timer: i32, ns: u64) {
    const SECOND: u64 = 1_000_000_000;
    let value = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: (ns / SECOND) as i64,
            tv_nsec: (ns % SECOND) as i64,
        },
    };
    // SAFETY: the kernel reads `value`.
    unsafe {
        syscall4(
            libc::SYS_timer_settime,
            timer as usize,
            0,
            &raw const value as usize,
            0,
        );
    }
}

/// Gives a timer back.
pub fn delete(timer: i32) {
    // SAFETY: the timer is none of the C library's.
    unsafe {
        syscall4(libc::SYS_timer_delete, timer as usize, 0, 0, 0);
    }
}
