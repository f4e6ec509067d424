// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the user's terminal back as it was, however the monitor ends.
//!
//! A process of its own waits for the monitor's end, by a pipe of which the monitor has the other end, and sets the terminal's modes. It is
//! in a session of its own: signals to the monitor's process group do not reach it.

use std::io;
use std::os::fd::AsRawFd;

use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::control::terminal::RawMode;

/// The terminal of standard input, guarded until this is dropped.
pub struct TerminalGuard {
    /// The guard ends when this is closed.
    end: Option<OwnedFd>,
    guard: Pid,
    raw: Option<RawMode>,
}

impl TerminalGuard {
    /// Starts the guard. To be called while there is one thread.
    ///
    /// # Errors
    ///
    /// When standard input is no terminal, or there can be no process.
    pub fn new() -> io::Result<TerminalGuard> {
        let before = tcgetattr(io::stdin())?;
        let (waiting, end) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: there are no other threads, so the child may do what the parent may.
        let guard = unsafe { libc::fork() };
        if guard < 0 {
            return Err(io::Error::last_os_error());
        }
        if guard == 0 {
            guard_terminal(&waiting, &before);
        }
        Ok(TerminalGuard {
            end: Some(end),
            guard: Pid::from_raw(guard).ok_or_else(io::Error::last_os_error)?,
            raw: None,
        })
    }

    /// Hands keys on as they are.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn enter_raw_mode(&mut self) -> io::Result<()> {
        self.raw = Some(RawMode::enter()?);
        Ok(())
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        self.raw = None;
        self.end = None;
        // It may have been ended by somebody else.
        let _ = waitpid(Some(self.guard), WaitOptions::empty());
    }
}

/// The child: waits for the end of the parent. Nothing of the parent's stays open, or whoever reads its output would wait for this process.
fn guard_terminal(waiting: &OwnedFd, before: &rustix::termios::Termios) -> ! {
    // It fails for the leader of a group only, which a new process is not.
    let _ = setsid();
    // SAFETY: the child's own descriptors and signals; nothing of it runs on afterwards.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        libc::dup2(waiting.as_raw_fd(), 1);
        libc::close_range(2, libc::c_uint::MAX, 0);
        let mut byte = 0u8;
        while libc::read(1, std::ptr::from_mut(&mut byte).cast(), 1) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    // The terminal may be gone.
    let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}
