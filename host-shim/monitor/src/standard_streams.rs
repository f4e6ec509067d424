// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard input, output and error of the monitor, lent to the program of its only cVM: bytes as they are, no more of them read than the
//! program asks for, and errors of the host as the program would get them outside.
//!
//! Nobody waits for the host in here. What is not ready is `EAGAIN`; a thread waits for it with `poll`, and raises an interrupt.
//!
//! A stream that is the terminal goes through the console instead, which has a line discipline: keys make signals, and programs that
//! draw on the screen find a terminal.
//!
//! Lock order: [`Watch::armed`] is the last; interrupts are raised outside of it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use capstream_abi::irq;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::termios::{isatty, tcgetwinsize};

use crate::platform::VcpuLine;

/// Input, output and error.
const COUNT: usize = 3;

/// Which streams somebody waits for, and whom to tell.
struct Armed {
    streams: [PollFlags; COUNT],
    line: Option<Arc<dyn VcpuLine>>,
}

impl Default for Armed {
    fn default() -> Armed {
        Armed {
            streams: [PollFlags::empty(); COUNT],
            line: None,
        }
    }
}

/// What the waiting thread and the others share.
struct Watch {
    armed: Mutex<Armed>,
    /// Written to when there is another stream to wait for.
    bell: OwnedFd,
}

/// The streams.
pub struct StandardStreams {
    /// Which of them are the terminal.
    terminal: [bool; COUNT],
    /// Where the console is.
    console: RawFd,
    watch: Arc<Watch>,
    /// Started once, when something is waited for.
    thread: OnceLock<()>,
}

impl std::fmt::Debug for StandardStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandardStreams")
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// A standard stream; each is open for as long as the process lives, as the standard library sees to before `main`.
fn descriptor(stream: usize) -> BorrowedFd<'static> {
    // SAFETY: nobody closes them.
    unsafe { BorrowedFd::borrow_raw(stream as RawFd) }
}

/// What a stream can be ready for.
fn interest(stream: usize) -> PollFlags {
    if stream == 0 {
        PollFlags::IN
    } else {
        PollFlags::OUT
    }
}

/// What it is ready for now.
fn readiness(stream: usize) -> PollFlags {
    let fd = descriptor(stream);
    let mut events = [PollFd::new(&fd, interest(stream))];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut events, Some(&now)) {
        Ok(_) => events[0].revents(),
        // Whoever tries it learns what is wrong.
        Err(_) => interest(stream),
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits, for as long as the process lives.
    fn serve(&self) {
        loop {
            let wanted = self.lock().streams;
            let fds = [0, 1, 2].map(descriptor);
            let mut events = vec![PollFd::new(&self.bell, PollFlags::IN)];
            let mut places = Vec::new();
            for (stream, fd) in fds.iter().enumerate() {
                let Some(&flags) = wanted.get(stream).filter(|flags| !flags.is_empty()) else {
                    continue;
                };
                places.push(stream);
                events.push(PollFd::new(fd, flags));
            }
            match poll(&mut events, None) {
                Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => {
                    tracing::warn!(%error, "the standard streams cannot be waited for");
                    return;
                }
            }
            let rung = events
                .first()
                .is_some_and(|bell| !bell.revents().is_empty());
            let ready: Vec<usize> = events
                .iter()
                .skip(1)
                .zip(places)
                .filter(|(event, _)| !event.revents().is_empty())
                .map(|(_, stream)| stream)
                .collect();
            if rung {
                // Only that it was rung counts.
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            }
            if ready.is_empty() {
                continue;
            }
            let line = {
                let mut armed = self.lock();
                for stream in ready {
                    if let Some(flags) = armed.streams.get_mut(stream) {
                        *flags = PollFlags::empty();
                    }
                }
                armed.line.clone()
            };
            if let Some(line) = line {
                line.raise(irq::STREAMS);
            }
        }
    }
}

impl StandardStreams {
    /// Those of this process.
    ///
    /// # Errors
    ///
    /// When the host has no event file descriptor left.
    pub fn new() -> io::Result<StandardStreams> {
        let device = |stream| fstat(descriptor(stream)).ok().map(|stat| stat.st_rdev);
        // What is written to the console is best seen where output is, and is never to get into output that is not a terminal.
        let console = [1, 2, 0]
            .into_iter()
            .find(|&stream| isatty(descriptor(stream)));
        let terminal = [0, 1, 2].map(|stream| {
            console.is_some_and(|console| {
                isatty(descriptor(stream)) && device(stream) == device(console)
            })
        });
        Ok(StandardStreams {
            terminal,
            console: console.unwrap_or(2) as RawFd,
            watch: Arc::new(Watch {
                armed: Mutex::default(),
                bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            }),
            thread: OnceLock::new(),
        })
    }

    /// Whether standard input is the terminal.
    pub fn input_is_terminal(&self) -> bool {
        self.terminal[0]
    }

    /// Whether any stream is the terminal.
    pub fn has_terminal(&self) -> bool {
        self.terminal.contains(&true)
    }

    /// Where the console is: the terminal, or standard error when there is none.
    pub fn console(&self) -> RawFd {
        self.console
    }

    /// What process 1 is told: for each stream a letter, `t` the terminal, `s` one of its own.
    pub fn kinds(&self) -> String {
        let letter = |is_terminal: bool| if is_terminal { 't' } else { 's' };
        self.terminal.into_iter().map(letter).collect()
    }

    /// Rows and columns of the terminal.
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        if !self.has_terminal() {
            return None;
        }
        // SAFETY: a standard stream, which nobody closes.
        let terminal = unsafe { BorrowedFd::borrow_raw(self.console) };
        let size = tcgetwinsize(terminal).ok()?;
        Some((size.ws_row, size.ws_col))
    }

    /// Takes what there is, `buffer.len()` bytes at most; 0 at the end.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is nothing yet: `line` is told when there may be. `EBADF` when it is no stream to read from; else the host's.
    pub fn read(
        &self,
        stream: u64,
        buffer: &mut [u8],
        line: &Arc<dyn VcpuLine>,
    ) -> Result<usize, Errno> {
        if stream != 0 {
            return Err(Errno::BADF);
        }
        self.attempt(0, line, || rustix::io::read(descriptor(0), &mut *buffer))
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    ///
    /// As [`StandardStreams::read`]; `EPIPE` when nobody reads any more.
    pub fn write(
        &self,
        stream: u64,
        bytes: &[u8],
        line: &Arc<dyn VcpuLine>,
    ) -> Result<usize, Errno> {
        let stream = match stream {
            1 => 1,
            2 => 2,
            _ => return Err(Errno::BADF),
        };
        // A pipe that is ready takes so much without waiting.
        let bytes = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
        self.attempt(stream, line, || {
            rustix::io::write(descriptor(stream), bytes)
        })
    }

    /// What a stream is ready for, as `poll` has it; `line` is told when that may be more.
    ///
    /// # Errors
    ///
    /// `EBADF` when there is no such stream.
    pub fn poll(&self, stream: u64, line: &Arc<dyn VcpuLine>) -> Result<PollFlags, Errno> {
        let stream = usize::try_from(stream)
            .ok()
            .filter(|&stream| stream < COUNT)
            .ok_or(Errno::BADF)?;
        let ready = readiness(stream);
        if ready.is_empty() {
            self.arm(stream, line);
        }
        Ok(ready)
    }

    /// The vCPU is gone.
    pub fn forget_line(&self) {
        *self.watch.lock() = Armed::default();
    }

    fn attempt(
        &self,
        stream: usize,
        line: &Arc<dyn VcpuLine>,
        mut transfer: impl FnMut() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        if readiness(stream).is_empty() {
            self.arm(stream, line);
            return Err(Errno::AGAIN);
        }
        match transfer() {
            // It was made not to wait by whoever gave it to us, or a signal came first: this vCPU looks what is up, and tries again.
            Err(Errno::AGAIN | Errno::INTR) => {
                self.arm(stream, line);
                Err(Errno::AGAIN)
            }
            result => result,
        }
    }

    /// Has the thread wait for a stream.
    fn arm(&self, stream: usize, line: &Arc<dyn VcpuLine>) {
        let mut armed = self.watch.lock();
        if let Some(flags) = armed.streams.get_mut(stream) {
            *flags = interest(stream);
        }
        if !armed
            .line
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, line))
        {
            armed.line = Some(Arc::clone(line));
        }
        drop(armed);
        // A counter that is full has been rung.
        let _ = rustix::io::write(&self.watch.bell, &1u64.to_ne_bytes());
        self.thread.get_or_init(|| {
            let watch = Arc::clone(&self.watch);
            let thread = std::thread::Builder::new().name("standard streams".to_owned());
            if let Err(error) = thread.spawn(move || watch.serve()) {
                tracing::warn!(%error, "the standard streams cannot be waited for");
            }
        });
    }
}
