// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One program in a disk image, run by `monitor run --image`: what it reads and writes, byte for byte.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::environment::Environment;
use crate::error::HarnessError;

/// A program and how it is started.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    image: PathBuf,
    options: Vec<OsString>,
    words: Vec<OsString>,
    input: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    /// How the monitor ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub output: Vec<u8>,
    /// All of its standard error.
    pub errors: String,
}

impl Program {
    /// These words, in the disk image of the tests; the name is that of the folder for logs.
    pub fn new(environment: &Environment, name: &str, words: &[&str]) -> Program {
        Program {
            name: name.to_owned(),
            image: environment.images.join("tests.ext4"),
            options: Vec::new(),
            words: words.iter().map(OsString::from).collect(),
            input: Vec::new(),
        }
    }

    /// In another disk image.
    #[must_use]
    pub fn image(mut self, image: &Path) -> Program {
        self.image = image.to_owned();
        self
    }

    /// With more options for the monitor.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Program {
        self.options.extend(options.iter().map(OsString::from));
        self
    }

    /// With these bytes as standard input, which is empty otherwise.
    #[must_use]
    pub fn input(mut self, bytes: Vec<u8>) -> Program {
        self.input = bytes;
        self
    }

    /// The command that runs it.
    ///
    /// # Errors
    ///
    /// [`HarnessError::File`] when there can be no folder for logs.
    pub fn command(&self, environment: &Environment) -> Result<Command, HarnessError> {
        let mut command = Command::new(&environment.monitor);
        command.args(self.arguments(environment)?);
        Ok(command)
    }

    /// What the monitor is called with.
    ///
    /// # Errors
    ///
    /// As [`Program::command`].
    pub fn arguments(&self, environment: &Environment) -> Result<Vec<OsString>, HarnessError> {
        let folder = environment.output.join(&self.name);
        fs::create_dir_all(&folder).map_err(|source| HarnessError::File {
            path: folder.clone(),
            source,
        })?;
        let mut arguments: Vec<OsString> = vec!["run".into(), "--image".into()];
        arguments.push(self.image.clone().into());
        arguments.extend(["--platform".into(), environment.platform.clone().into()]);
        arguments.extend(["--runtime".into(), environment.runtime.clone().into()]);
        arguments.extend(["--log-dir".into(), folder.into()]);
        arguments.extend(self.options.iter().cloned());
        arguments.push("--".into());
        arguments.extend(self.words.iter().cloned());
        Ok(arguments)
    }

    /// Runs it to its end, through pipes.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Timeout`] after it was killed, [`HarnessError::Process`], and as [`Program::command`].
    pub fn run(&self, environment: &Environment, limit: Duration) -> Result<Ended, HarnessError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| HarnessError::Process { what, source }
        };
        let mut child = self
            .command(environment)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed("start of the monitor"))?;
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| failed("pidfd_open")(error.into()))?;
        let (input, bytes) = (child.stdin.take(), self.input.clone());
        let writer = thread::spawn(move || {
            // It may end before it has read all.
            input.map(|mut input| input.write_all(&bytes))
        });
        let output = read_all(child.stdout.take());
        let errors = read_all(child.stderr.take());
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut events = [PollFd::new(&handle, PollFlags::IN)];
        let ready =
            poll(&mut events, Some(&timeout)).map_err(|error| failed("poll")(error.into()))?;
        if ready == 0 {
            // The wait below finds it ended.
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed("wait"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let output = output.join().unwrap_or_default();
        let errors = text(errors.join().unwrap_or_default());
        let _ = writer.join();
        if ready == 0 {
            return Err(HarnessError::Timeout {
                what: "it did not end".to_owned(),
                limit,
                printed: text(output) + &errors,
            });
        }
        Ok(Ended {
            status,
            output,
            errors,
        })
    }
}

fn read_all(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What there was until an error is what there was.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

impl Ended {
    /// The lines of standard output.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.output);
        text.lines().map(str::to_owned).collect()
    }

    /// Whether standard output has this line.
    pub fn has_line(&self, line: &str) -> bool {
        self.lines().iter().any(|known| known == line)
    }
}
