// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts the monitor on deployments that a test or a measurement describes, and collects what it printed and how it ended.
//!
//! Nothing here waits for time to pass: lines and the end of the process are events, and each wait has a limit that only a failure reaches.

pub mod deployment;
pub mod environment;
pub mod error;
pub mod program;
pub mod run;

pub use deployment::{Capfile, Cvm, Deployment};
pub use environment::Environment;
pub use error::HarnessError;
pub use program::{Ended, Program};
pub use run::{Outcome, Running};
