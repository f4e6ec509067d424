// SPDX-License-Identifier: GPL-2.0-only
//! Waiting until somebody publishes a key.

use crate::kernel::{Depth, Event};
use crate::monitor::Notify;
use crate::{Errno, Kernel, Result};

/// How long a probe waits, in nanoseconds.
pub const LIMIT_NS: u64 = 30_000_000_000;

/// Repeats `attempt` until it returns anything but `ENOENT`.
///
/// # Errors
/// Those of `attempt`; `EAGAIN` instead of `ENOENT` for one that may not wait; `ETIMEDOUT` after [`LIMIT_NS`]; `EINTR`.
pub fn probe<K: Kernel, T>(
    kernel: &K,
    nonblock: bool,
    mut attempt: impl FnMut(Notify) -> Result<T>,
) -> Result<T> {
    if nonblock {
        return match attempt(Notify::No) {
            Err(Errno::NOENT) => Err(Errno::AGAIN),
            other => other,
        };
    }
    let deadline = kernel.now_ns().saturating_add(LIMIT_NS);
    loop {
        // Read before the attempt, so that a key that appears right after it is not missed.
        let seen = kernel.peer_events();
        match attempt(Notify::Yes) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        kernel.sleep(
            Event::Peers,
            Depth::Interruptible,
            Some(deadline),
            &mut || kernel.peer_events() != seen,
        )?;
    }
}
