// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong around a run of the monitor.

use std::path::PathBuf;
use std::time::Duration;

/// Why a deployment could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// Something that was to be built is not there.
    #[error("{variable}: {path} is not there; run `make build`, or name it by that variable")]
    Missing {
        /// The environment variable that names it.
        variable: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A variable of the environment that has to be a whole number, 1 or more, is none.
    #[error("{variable} is '{value}': it has to be a whole number, 1 or more")]
    Factor {
        /// Which.
        variable: &'static str,
        /// What it is.
        value: String,
    },
    /// A file or folder of the run cannot be made.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A process cannot be started or waited for.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// What was waited for did not come.
    #[error("{what} within {limit:?}; the process was killed. What it printed:\n{printed}")]
    Timeout {
        /// What did not happen.
        what: String,
        /// The limit.
        limit: Duration,
        /// Everything that was printed until then.
        printed: String,
    },
}
