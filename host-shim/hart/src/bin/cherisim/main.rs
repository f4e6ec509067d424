// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `cherisim` executable: a bare program on a simulated board with one CHERI-RISC-V hart.
//!
//! | module | what |
//! |---|---|
//! | `command_line` | options, and what is done with them |
//! | `exit_code` | the status to exit with |
//! | `trace` | a line for each instruction |
//! | `cause` | what traps are called |
//! | `debugger`, `target_description` | gdb's remote protocol |
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

mod cause;
mod command_line;
mod debugger;
mod exit_code;
mod target_description;
mod trace;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(command_line::main())
}
