// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all measurements share: how often they are made, and how programs are run in a cVM and on the host.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use capstream_e2e::{Cvm, Deployment, Environment, Outcome, Running};
use serde_json::Value;

use crate::error::BenchError;

/// Only a hang reaches it.
pub const LIMIT: Duration = Duration::from_secs(300);

/// One session of measuring.
#[derive(Debug)]
pub struct Session {
    /// Where the monitor and the images are.
    pub environment: Environment,
    /// How often each number is measured.
    pub runs: usize,
}

impl Session {
    /// A program of the measurements as a host executable.
    pub fn program(&self, name: &str) -> PathBuf {
        self.environment.images.join("static/bench").join(name)
    }

    /// Runs cVMs to their end; all have to end well.
    ///
    /// # Errors
    ///
    /// [`BenchError::Harness`] and [`BenchError::Failed`].
    pub fn cvms(&self, name: &str, cvms: &[Cvm]) -> Result<Outcome, BenchError> {
        let mut deployment = Deployment::new(name);
        for cvm in cvms {
            deployment = deployment.cvm(cvm.clone());
        }
        let outcome = deployment.start(&self.environment)?.finish(LIMIT)?;
        well(outcome, name)
    }

    /// Runs a program of the measurements on the host to its end.
    ///
    /// # Errors
    ///
    /// [`BenchError::Harness`] and [`BenchError::Failed`].
    pub fn host(&self, name: &str) -> Result<Outcome, BenchError> {
        let mut command = Command::new(self.program(name));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let running = Running::from_command(command, &self.environment.output)?;
        well(running.finish(LIMIT)?, name)
    }

    /// Says on one line, which the next one replaces, what is being measured.
    pub fn progress(&self, what: &str, run: usize) {
        let mut error = std::io::stderr();
        // A progress line that cannot be shown changes no result.
        let _ = if std::io::IsTerminal::is_terminal(&error) {
            write!(error, "\r\x1b[K{what}, run {} of {}", run + 1, self.runs)
                .and_then(|()| error.flush())
        } else if run == 0 {
            writeln!(error, "{what}, {} runs", self.runs)
        } else {
            Ok(())
        };
    }

    /// Takes the progress line away.
    pub fn progress_end(&self) {
        let mut error = std::io::stderr();
        if std::io::IsTerminal::is_terminal(&error) {
            // As above.
            let _ = write!(error, "\r\x1b[K").and_then(|()| error.flush());
        }
    }
}

/// The outcome of a program that ended well.
pub fn well(outcome: Outcome, what: &str) -> Result<Outcome, BenchError> {
    if outcome.code() == 0 {
        return Ok(outcome);
    }
    Err(BenchError::Failed {
        what: what.to_owned(),
        code: outcome.code(),
        printed: outcome.printed(),
    })
}

/// The number `field` of the result `key` in the lines of JSON that a program printed.
pub fn result(
    outcome: &Outcome,
    what: &str,
    key: &'static str,
    field: &str,
) -> Result<f64, BenchError> {
    outcome
        .output()
        .chain(outcome.errors())
        .filter_map(|line| line.find('{').and_then(|at| line.get(at..)))
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .find_map(|value| value.get(key)?.get(field)?.as_f64())
        .ok_or_else(|| BenchError::NoResult {
            what: what.to_owned(),
            key,
            printed: outcome.printed(),
        })
}
