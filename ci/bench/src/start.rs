// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the start of a process to the first line of a program: the monitor against gVisor and user-mode Linux, where they are installed.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use capstream_e2e::{Cvm, Deployment, Running};

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session, well};

/// The line that the program prints first.
pub const LINE: &str = "main is reached";

/// An executable of the host, if it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The time from the start of a command to the line.
fn time(session: &Session, command: Command, what: &str) -> Result<f64, BenchError> {
    let mut running = Running::from_command(command, &session.environment.output)?;
    let time = running.wait_for_line(LINE, LIMIT)?;
    well(running.finish(LIMIT)?, what)?;
    Ok(time.as_secs_f64() * 1e9)
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Measures the way to `main`, dynamically linked as the examples are, with the ext4 disk mounted.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    let program = session.program("bench_start");
    let disk = session.environment.images.join("tests.ext4");
    let runsc = installed("runsc");
    let uml = installed("linux.uml");
    let mut ours = Samples::new();
    let mut host = Samples::new();
    let mut of_runsc = runsc.as_ref().map(|_| Samples::new());
    let mut of_uml = uml.as_ref().map(|_| Samples::new());
    for run in 0..session.runs {
        session.progress("start to main", run);
        let deployment =
            Deployment::new("start").cvm(Cvm::new("start", "/ld.so /bench/bench_start").memory(64));
        let mut running = deployment.start(&session.environment)?;
        ours.push(running.wait_for_line(LINE, LIMIT)?.as_secs_f64() * 1e9);
        well(running.finish(LIMIT)?, "start")?;
        host.push(time(session, command(&program), "the program on the host")?);
        if let (Some(runsc), Some(samples)) = (&runsc, &mut of_runsc) {
            let mut command = command(runsc);
            command
                .args(["--rootless", "--network=none", "do"])
                .arg(&program);
            samples.push(time(session, command, "runsc do")?);
        }
        if let (Some(uml), Some(samples)) = (&uml, &mut of_uml) {
            let mut command = command(uml);
            command
                .args([
                    "mem=64M",
                    "quiet",
                    "root=/dev/ubda",
                    "rootfstype=ext4",
                    "ro",
                    "con=null",
                    "con0=null,fd:1",
                ])
                .arg(format!("ubd0r={}", disk.display()))
                .arg("init=/static/bench/bench_start");
            // Its init ends and it panics: how it ends says nothing, and it is killed when the line has come.
            let mut running = Running::from_command(command, &session.environment.output)?;
            samples.push(running.wait_for_line(LINE, LIMIT)?.as_secs_f64() * 1e9);
        }
    }
    session.progress_end();
    Ok(Group {
        title: "Start to main",
        measurements: vec![Measurement {
            name: "monitor, kernel, ext4, program".to_owned(),
            unit: Unit::Nanoseconds,
            ours,
            rivals: vec![
                ("process on the host", Some(host)),
                ("runsc do", of_runsc),
                ("linux.uml", of_uml),
            ],
            aims: vec![Aim::Limit(40e6), Aim::Fraction("runsc do", 0.2)],
        }],
    })
}
