// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `monitor` executable; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(capstream_monitor::command_line::main())
}
