// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process under observation.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::HarnessError;

/// In the folder of the run.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// A line, and when it came.
#[derive(Clone, Debug)]
struct Line {
    stream: Stream,
    text: String,
    at: Instant,
}

/// A process that was started; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    handle: OwnedFd,
    started: Instant,
    folder: PathBuf,
    receiver: Receiver<Line>,
    lines: Vec<Line>,
}

/// How a process ended, and all that it printed.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// From its start to its end.
    pub duration: Duration,
    /// The folder of the run, with logs.
    pub folder: PathBuf,
    lines: Vec<Line>,
}

fn process_error(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HarnessError {
    let what = what.into();
    |source| HarnessError::Process { what, source }
}

/// Sends each line to the channel, without what is not UTF-8 or a carriage return.
fn forward(stream: Stream, from: impl Read + Send + 'static, to: Sender<Line>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            let at = Instant::now();
            let text = String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            if to.send(Line { stream, text, at }).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

impl Running {
    /// Starts a program with the folder as its working directory.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Process`].
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        folder: &Path,
        input: Stdio,
    ) -> Result<Running, HarnessError> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(input);
        command.stdout(Stdio::piped());
        Running::from_command(command, folder)
    }

    /// Starts a command; its error output is observed, and its standard output if it is [`Stdio::piped`].
    ///
    /// # Errors
    ///
    /// [`HarnessError::Process`].
    pub fn from_command(mut command: Command, folder: &Path) -> Result<Running, HarnessError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(process_error(format!("start of {name}")))?;
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| process_error("pidfd_open")(error.into()))?;
        let (sender, receiver) = channel();
        if let Some(output) = child.stdout.take() {
            forward(Stream::Output, output, sender.clone());
        }
        if let Some(error) = child.stderr.take() {
            forward(Stream::Error, error, sender);
        }
        Ok(Running {
            child,
            handle,
            started,
            folder: folder.to_owned(),
            receiver,
            lines: Vec::new(),
        })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line contains the text; tells after what time since the start it came.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Timeout`], also when the process ended without such a line.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<Duration, HarnessError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.receiver.recv_timeout(left) else {
                return Err(self.timeout(format!("there was no line with '{text}'"), limit));
            };
            let found = line.text.contains(text);
            let at = line.at;
            self.lines.push(line);
            if found {
                return Ok(at.duration_since(self.started));
            }
        }
    }

    /// Looks at what is printed for so long.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Timeout`] as soon as a line is `bad`, or the process ended.
    pub fn watch(
        &mut self,
        time: Duration,
        bad: impl Fn(&str) -> bool,
    ) -> Result<(), HarnessError> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(line) => {
                    let is_bad = bad(&line.text);
                    self.lines.push(line);
                    if is_bad {
                        return Err(self.timeout("a line tells of an error".to_owned(), time));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.timeout("it ended".to_owned(), time));
                }
            }
        }
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What an operating command of these words is called with, for a deployment that is [controlled](crate::Deployment::controlled).
    pub fn operating(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.push("--control".into());
        arguments.push(self.folder.join(CONTROL_SOCKET).into());
        arguments
    }

    /// An operating command.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Process`], also when it does not succeed.
    pub fn operate(&self, monitor: &Path, words: &[&str]) -> Result<(), HarnessError> {
        let what = || format!("monitor {}", words.join(" "));
        let output = Command::new(monitor)
            .args(self.operating(words))
            .output()
            .map_err(process_error(what()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(process_error(what())(io::Error::other(
            said.trim().to_owned(),
        )))
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Process`].
    pub fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        pidfd_send_signal(&self.handle, signal)
            .map_err(|error| process_error("sending a signal")(error.into()))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Timeout`] after it was killed, [`HarnessError::Process`].
    pub fn finish(mut self, limit: Duration) -> Result<Outcome, HarnessError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut events = [PollFd::new(&self.handle, PollFlags::IN)];
        let ready = poll(&mut events, Some(&timeout))
            .map_err(|error| process_error("poll")(error.into()))?;
        if ready == 0 {
            return Err(self.timeout("it did not end".to_owned(), limit));
        }
        let duration = self.started.elapsed();
        let status = self.child.wait().map_err(process_error("wait"))?;
        // Both readers end with the process, and the channel with them.
        self.lines.extend(self.receiver.iter());
        Ok(Outcome {
            status,
            duration,
            folder: self.folder.clone(),
            lines: std::mem::take(&mut self.lines),
        })
    }

    fn timeout(&mut self, what: String, limit: Duration) -> HarnessError {
        self.end();
        self.lines.extend(self.receiver.iter());
        HarnessError::Timeout {
            what,
            limit,
            printed: printed(&self.lines),
        }
    }

    fn end(&mut self) {
        // It may have ended by itself: then there is nothing to kill, and nothing that could fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn printed(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(match line.stream {
            Stream::Output => "  | ",
            Stream::Error => "  ! ",
        });
        text.push_str(&line.text);
        text.push('\n');
    }
    text
}

impl Outcome {
    /// The exit status, or 128 and the number of the signal.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Everything that was printed, for a message about a failure.
    pub fn printed(&self) -> String {
        printed(&self.lines)
    }

    /// Whether any line, of either output, contains the text.
    pub fn contains(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.text.contains(text))
    }

    /// The lines of standard output, as they are.
    pub fn output(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(|line| line.stream == Stream::Output)
            .map(|line| line.text.as_str())
    }

    /// The lines of standard error, as they are.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(|line| line.stream == Stream::Error)
            .map(|line| line.text.as_str())
    }

    /// The lines that the program of one of several cVMs printed, without the cVM's name in front.
    pub fn output_of<'a>(&'a self, cvm: &'a str) -> impl Iterator<Item = &'a str> {
        let prefix = format!("{cvm}: ");
        self.output()
            .filter_map(move |line| line.strip_prefix(prefix.as_str()))
    }
}
