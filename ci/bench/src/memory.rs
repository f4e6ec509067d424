// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resident memory of a cVM that waits.

use std::fs;

use capstream_e2e::{Cvm, Deployment, Running};
use rustix::process::Signal;

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session};

/// How many more cVMs the second deployment has.
const MORE: usize = 10;

/// Resident bytes of a process.
fn resident(id: u32) -> Result<f64, BenchError> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(BenchError::host(path.as_str()))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0).ok_or_else(|| {
        let source = std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "there is no line 'Rss: … kB'",
        );
        BenchError::Host { what: path, source }
    })
}

/// A monitor with so many cVMs whose programs all wait.
fn idle(session: &Session, count: usize) -> Result<Running, BenchError> {
    let mut deployment = Deployment::new("memory");
    for number in 0..count {
        deployment = deployment
            .cvm(Cvm::new(&format!("idle{number}"), "/ld.so /bench/bench_start wait").memory(64));
    }
    let mut running = deployment.start(&session.environment)?;
    for _ in 0..count {
        running.wait_for_line("main is reached", LIMIT)?;
    }
    Ok(running)
}

/// Measures what ten more cVMs of 64 MiB add, a tenth of it each.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    let mut each = Samples::new();
    for run in 0..session.runs {
        session.progress("memory of idle cVMs", run);
        let mut sizes = [0.0; 2];
        for (size, count) in sizes.iter_mut().zip([1, 1 + MORE]) {
            let running = idle(session, count)?;
            *size = resident(running.id())?;
            running.signal(Signal::KILL)?;
        }
        let [one, many] = sizes;
        each.push((many - one) / MORE as f64);
    }
    session.progress_end();
    Ok(Group {
        title: "Memory",
        measurements: vec![Measurement {
            name: "resident per idle cVM of 64 MiB".to_owned(),
            unit: Unit::Bytes,
            ours: each,
            rivals: Vec::new(),
            aims: vec![Aim::Limit(16.0 * 1024.0 * 1024.0)],
        }],
    })
}
