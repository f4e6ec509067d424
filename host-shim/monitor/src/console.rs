// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard output and input of the monitor, shared by the programs of all cVMs and the monitor's own lines.
//!
//! Bytes of a single cVM go out as they come. Those of several go out in whole lines, each with the name of its cVM in front.
//!
//! A reader that does not read stops the cVM that writes, but does not keep it from being killed: nothing is written before `poll` says
//! that there is room, and at most as much as then fits.
//!
//! Lock order: [`Console`]'s turn is the last; no other lock is taken during it. What is read ahead has a lock of its own, under which
//! interrupts are raised.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use capstream_abi::irq;

use crate::platform::VcpuLine;

/// What a pipe that is ready takes without waiting.
const CHUNK: usize = libc::PIPE_BUF;
/// How often a blocked writer looks whether it is to end, in milliseconds.
const PATIENCE: libc::c_int = 20;
/// How long the monitor waits for a reader of its own lines.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest line that is kept together.
const LONGEST_LINE: usize = 2048;
/// How many bytes of input are read ahead.
const INPUT_AHEAD: usize = 4096;
/// The character by which a terminal tells that its input ends (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// Whose turn it is to write: one after the other, so that one who writes all the time does not keep others from it.
#[derive(Debug, Default)]
struct Queue {
    /// Whether somebody writes.
    busy: bool,
    /// The numbers of those who wait.
    waiting: VecDeque<u64>,
    next: u64,
}

/// Standard output.
#[derive(Debug)]
pub struct Console {
    fd: RawFd,
    queue: Mutex<Queue>,
    /// Told when somebody's turn is over.
    free: Condvar,
    /// Nobody reads any more.
    closed: AtomicBool,
}

impl Default for Console {
    fn default() -> Self {
        Console::new(std::io::stdout().as_raw_fd())
    }
}

/// Whether whoever writes on the monitor's behalf, and cannot be killed, has waited long enough for others and for a reader.
pub fn given_up() -> impl Fn() -> bool {
    let begin = Instant::now();
    move || begin.elapsed() >= LINE_PATIENCE
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// The console that writes to a file descriptor, which stays open.
    pub fn new(fd: RawFd) -> Console {
        Console {
            fd,
            queue: Mutex::default(),
            free: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Writes a line of the monitor's, or gives up after a while: the monitor goes on although nobody reads.
    pub fn line(&self, text: &str) {
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend(text.as_bytes());
        line.push(b'\n');
        self.write(&line, &given_up());
    }

    /// Writes all of `bytes` with nothing of others between; gives up when `is_killed`.
    fn write(&self, mut bytes: &[u8], is_killed: &dyn Fn() -> bool) {
        let Some(_turn) = self.turn(is_killed) else {
            return;
        };
        while !bytes.is_empty() && !self.closed.load(Ordering::Relaxed) {
            if !self.wait_for_room() {
                if is_killed() {
                    return;
                }
                continue;
            }
            let chunk = bytes.get(..CHUNK).unwrap_or(bytes);
            // SAFETY: `chunk` is readable.
            let written = unsafe { libc::write(self.fd, chunk.as_ptr().cast(), chunk.len()) };
            match usize::try_from(written) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(_) => match std::io::Error::last_os_error().kind() {
                    std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock => {}
                    _ => self.closed.store(true, Ordering::Relaxed),
                },
            }
        }
    }

    /// Waits until nobody else writes; `None` when `is_killed` comes first. One whose reader does not read keeps the others waiting, but not from
    /// being killed.
    fn turn(&self, is_killed: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut queue = lock(&self.queue);
        if queue.busy || !queue.waiting.is_empty() {
            let me = queue.next;
            queue.next += 1;
            queue.waiting.push_back(me);
            while queue.busy || queue.waiting.front() != Some(&me) {
                if self.closed.load(Ordering::Relaxed) || is_killed() {
                    queue.waiting.retain(|&waiting| waiting != me);
                    // Another one may be the first now.
                    self.free.notify_all();
                    return None;
                }
                let patience = Duration::from_millis(PATIENCE as u64);
                queue = match self.free.wait_timeout(queue, patience) {
                    Ok((guard, _)) => guard,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            }
            queue.waiting.pop_front();
        }
        queue.busy = true;
        Some(Turn { console: self })
    }

    /// Waits for a moment until something can be written, an error included.
    fn wait_for_room(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.fd,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut poll, 1, PATIENCE) > 0 }
    }
}

/// Nobody else writes until it is dropped.
struct Turn<'a> {
    console: &'a Console,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.console.queue).busy = false;
        self.console.free.notify_all();
    }
}

/// What one cVM writes.
#[derive(Debug)]
pub struct ConsoleWriter {
    console: Arc<Console>,
    /// In front of each line; `None` when the bytes go out as they come.
    prefix: Option<String>,
    /// The begin of a line that is not complete.
    partial: Vec<u8>,
}

impl ConsoleWriter {
    /// Writes whole lines with `prefix` in front, or bytes as they come.
    pub fn new(console: Arc<Console>, prefix: Option<String>) -> ConsoleWriter {
        ConsoleWriter {
            console,
            prefix,
            partial: Vec::new(),
        }
    }

    /// Writes `bytes`; gives up when `is_killed`.
    pub fn write(&mut self, bytes: &[u8], is_killed: &dyn Fn() -> bool) {
        let Some(prefix) = &self.prefix else {
            return self.console.write(bytes, is_killed);
        };
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                let mut line = Vec::with_capacity(prefix.len() + self.partial.len() + 1);
                line.extend(prefix.as_bytes());
                line.append(&mut self.partial);
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                self.console.write(&line, is_killed);
            }
        }
    }

    /// Writes what is left of a line that will not be completed.
    pub fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.write(b"\n", &given_up());
        }
    }
}

/// What the programs of one cVM read: standard input, what operators type, or both. Standard input is read from the first time on
/// that the cVM asks for it: a monitor whose cVM does not read leaves its input to others.
pub struct ConsoleInput {
    state: Arc<InputState>,
    /// Started once; `None` when standard input belongs to nobody.
    standard_input: Option<OnceLock<()>>,
}

impl std::fmt::Debug for ConsoleInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleInput").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct InputState {
    ahead: Mutex<Ahead>,
    /// Something was taken.
    taken: Condvar,
}

#[derive(Default)]
struct Ahead {
    bytes: VecDeque<u8>,
    /// Who took last, and is told when there is more.
    line: Option<Arc<dyn VcpuLine>>,
}

impl ConsoleInput {
    /// Of standard input, or only of what is [pushed](ConsoleInput::push).
    pub fn new(standard_input: bool) -> ConsoleInput {
        ConsoleInput {
            state: Arc::default(),
            standard_input: standard_input.then(OnceLock::new),
        }
    }

    /// Takes up to `buffer.len()` bytes that are there. Whenever some come later, the vCPU behind `line` gets an interrupt.
    pub fn take(&self, buffer: &mut [u8], line: &Arc<dyn VcpuLine>) -> usize {
        let mut ahead = lock(&self.state.ahead);
        if !ahead
            .line
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, line))
        {
            ahead.line = Some(Arc::clone(line));
        }
        let len = buffer.len().min(ahead.bytes.len());
        for (place, byte) in buffer.iter_mut().zip(ahead.bytes.drain(..len)) {
            *place = byte;
        }
        drop(ahead);
        self.state.taken.notify_all();
        if let Some(started) = &self.standard_input {
            started.get_or_init(|| {
                let state = Arc::clone(&self.state);
                let thread = std::thread::Builder::new().name("console input".to_owned());
                if let Err(error) = thread.spawn(move || state.read_all()) {
                    tracing::warn!(%error, "standard input is not read");
                }
            });
        }
        len
    }

    /// Adds as much of `bytes` as there is room for; returns how much that was. The cVM is told.
    pub fn push(&self, bytes: &[u8]) -> usize {
        self.state.push(&mut lock(&self.state.ahead), bytes)
    }

    /// Waits for room, unless there is some, `limit` long.
    pub fn wait_for_room(&self, limit: Duration) {
        let ahead = lock(&self.state.ahead);
        if ahead.bytes.len() >= INPUT_AHEAD {
            // Whether there is room is looked at by the next push.
            drop(self.state.taken.wait_timeout(ahead, limit));
        }
    }

    /// The life of the cVM that took is over.
    pub fn forget_line(&self) {
        lock(&self.state.ahead).line = None;
    }
}

impl InputState {
    fn push(&self, ahead: &mut Ahead, bytes: &[u8]) -> usize {
        let room = INPUT_AHEAD.saturating_sub(ahead.bytes.len());
        let len = bytes.len().min(room);
        ahead.bytes.extend(bytes.iter().take(len));
        if len > 0
            && let Some(line) = &ahead.line
        {
            line.raise(irq::CONSOLE);
        }
        len
    }

    fn read_all(&self) {
        use std::io::Read;
        let mut buffer = [0; 1024];
        let mut in_line = false;
        let mut ended = false;
        while !ended {
            let len = match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => {
                    // A terminal tells the end by a character; behind an incomplete line the first one ends only that.
                    ended = true;
                    buffer[..2].fill(END_OF_INPUT);
                    if in_line { 2 } else { 1 }
                }
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read");
                    return;
                }
            };
            in_line = buffer.get(len - 1).is_some_and(|&byte| byte != b'\n');
            let mut rest = buffer.get(..len).unwrap_or_default();
            let mut ahead = lock(&self.ahead);
            loop {
                let pushed = self.push(&mut ahead, rest);
                rest = rest.get(pushed..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
                ahead = self
                    .taken
                    .wait(ahead)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::FromRawFd;

    fn pipe() -> (File, File) {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors, which nobody else owns.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
        }
    }

    fn written(prefix: Option<&str>, pieces: &[&[u8]]) -> String {
        let (mut output, input) = pipe();
        let console = Arc::new(Console::new(input.as_raw_fd()));
        let mut writer = ConsoleWriter::new(console, prefix.map(str::to_owned));
        for piece in pieces {
            writer.write(piece, &|| false);
        }
        writer.finish();
        drop(input);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn one_cvm_writes_bytes_as_they_are() {
        assert_eq!(written(None, &[b"a", b"b\nc"]), "ab\nc");
    }

    #[test]
    fn several_cvms_write_whole_lines_with_their_names() {
        assert_eq!(
            written(Some("n: "), &[b"a", b"b\nc\n\n", b"d"]),
            "n: ab\nn: c\nn: \nn: d\n"
        );
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let text = written(Some("n: "), &[&[b'x'; 3 * LONGEST_LINE]]);
        assert_eq!(text.lines().count(), 1);
        let pieces = vec![&[b'x'; 100][..]; 30];
        let text = written(Some("n: "), &pieces);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_full_pipe_does_not_keep_a_killed_cvm() {
        let (_output, input) = pipe();
        let console = Arc::new(Console::new(input.as_raw_fd()));
        let mut writer = ConsoleWriter::new(console, None);
        // More than a pipe holds; the call has to come back although nobody reads.
        writer.write(&vec![b'x'; 8 << 20], &|| true);
    }

    #[test]
    fn one_that_waits_for_another_writer_can_be_killed() {
        let (mut output, input) = pipe();
        let console = Arc::new(Console::new(input.as_raw_fd()));
        let blocked = AtomicBool::new(false);
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| {
                let mut first = ConsoleWriter::new(Arc::clone(&console), None);
                // Asked when the pipe is full: from then on this one has its turn and waits.
                first.write(&vec![b'x'; 8 << 20], &|| {
                    blocked.store(true, Ordering::Release);
                    end.load(Ordering::Acquire)
                });
            });
            while !blocked.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // These come back although it is never their turn.
            ConsoleWriter::new(Arc::clone(&console), None).write(b"killed", &|| true);
            console.line("given up");
            end.store(true, Ordering::Release);
            stuck.join().unwrap();
        });
        // Afterwards the console is free again.
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            output.read_to_end(&mut text).unwrap();
            text
        });
        ConsoleWriter::new(Arc::clone(&console), None).write(b"the last", &|| false);
        drop(input);
        let text = reader.join().unwrap();
        assert!(text.ends_with(b"the last"));
        assert!(
            !text
                .windows(6)
                .any(|bytes| bytes == b"killed" || bytes == b"given ")
        );
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let (output, input) = pipe();
        drop(output);
        let console = Arc::new(Console::new(input.as_raw_fd()));
        console.line("nobody reads this");
        assert!(console.closed.load(Ordering::Relaxed));
    }
}
