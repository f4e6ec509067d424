// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong while measuring.

use std::path::PathBuf;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A run could not be made.
    #[error(transparent)]
    Harness(#[from] capstream_e2e::HarnessError),
    /// A program did not end well.
    #[error("{what} ended with status {code}; it printed:\n{printed}")]
    Failed {
        /// Which.
        what: String,
        /// Its exit status.
        code: i32,
        /// What it printed.
        printed: String,
    },
    /// A program did not print what it measured.
    #[error("{what} printed no '{key}'; it printed:\n{printed}")]
    NoResult {
        /// Which.
        what: String,
        /// The name of the missing result.
        key: &'static str,
        /// What it printed.
        printed: String,
    },
    /// The host refused something.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The results cannot be written.
    #[error("{path}: {source}; name another file with --output")]
    Output {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
}

impl BenchError {
    /// An error of the host at something.
    pub fn host(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let what = what.into();
        |source| BenchError::Host { what, source }
    }
}
