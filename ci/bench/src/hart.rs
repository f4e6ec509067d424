// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The simulated CHERI-RISC-V hart: how many instructions it executes, and how long a cVM takes to start on it.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use capstream_e2e::{Cvm, Deployment, Environment, Running};

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session, result, well};
use crate::start::LINE;

/// What the harts are called where platforms are named.
const PLATFORM: &str = "cheri-riscv64";

/// A path that `ci/run-bench` passes on.
fn passed(variable: &'static str) -> Result<PathBuf, BenchError> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| BenchError::Usage(format!("{variable} is not set; run make bench")))
}

/// Starts a cVM and takes the time to its program's first line, in nanoseconds.
fn start(environment: &Environment) -> Result<f64, BenchError> {
    let deployment = Deployment::new("start_hart")
        .cvm(Cvm::new("start", "/ld.so /bench/bench_start").memory(64));
    let mut running = deployment.start(environment)?;
    let time = running.wait_for_line(LINE, LIMIT)?;
    well(running.finish(LIMIT)?, "start on a simulated hart")?;
    Ok(time.as_secs_f64() * 1e9)
}

/// Measures instructions in a second in both generations of the ISA, and the way to `main`.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    let mips = passed("CAPSTREAM_MIPS")?;
    let mut simulated = session.environment.clone();
    simulated.platform = PLATFORM.to_owned();
    simulated.runtime = passed("CAPSTREAM_RISCV64_RUNTIME")?;
    simulated.images = passed("CAPSTREAM_RISCV64_IMAGES")?;
    let (mut v8, mut v9) = (Samples::new(), Samples::new());
    let (mut on_hart, mut native) = (Samples::new(), Samples::new());
    for run in 0..session.runs {
        session.progress("simulated hart", run);
        let mut command = Command::new(&mips);
        command
            .arg("--bench")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let running = Running::from_command(command, &session.environment.output)?;
        let outcome = well(running.finish(LIMIT)?, "the hart's own measurement")?;
        v8.push(result(
            &outcome,
            "the hart's own measurement",
            "instructions_per_second",
            "v8",
        )?);
        v9.push(result(
            &outcome,
            "the hart's own measurement",
            "instructions_per_second",
            "v9",
        )?);
        on_hart.push(start(&simulated)?);
        native.push(start(&session.environment)?);
    }
    session.progress_end();
    let executed = |name: &str, ours| Measurement {
        name: name.to_owned(),
        unit: Unit::InstructionsPerSecond,
        ours,
        rivals: Vec::new(),
        aims: vec![Aim::Least(100e6)],
    };
    Ok(Group {
        title: "Simulated CHERI-RISC-V hart",
        measurements: vec![
            executed("integer code, older generation", v8),
            executed("integer code, newer generation", v9),
            Measurement {
                name: "start to main".to_owned(),
                unit: Unit::Nanoseconds,
                ours: on_hart,
                rivals: vec![("platform x86_64", Some(native))],
                aims: vec![Aim::Limit(20e9)],
            },
        ],
    })
}
