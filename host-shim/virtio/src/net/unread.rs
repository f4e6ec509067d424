// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much of what was sent the other side has not read.
//!
//! # Why unsafe
//!
//! No crate here has SIOCOUTQ (`unix(7)`) as a safe function.
#![allow(unsafe_code, reason = "one ioctl; see the module's documentation")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether the other end of a UNIX stream socket has read all that was sent.
pub(super) fn is_all_read(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut unread: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one `int`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(unread == 0)
}
