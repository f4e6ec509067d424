// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls in a cVM against the host's.

use capstream_e2e::Cvm;

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{Session, result};

/// Measures getpid and a read of one byte of `/dev/zero`.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    const PROGRAM: &str = "bench_calls";
    let calls = [
        ("getpid", "getpid", 0.2),
        ("zero_read", "read of 1 B from /dev/zero", 0.5),
    ];
    let mut ours = [Samples::new(), Samples::new()];
    let mut host = [Samples::new(), Samples::new()];
    for run in 0..session.runs {
        session.progress("system calls", run);
        let in_cvm = session.cvms("calls", &[Cvm::new("calls", "/ld.so /bench/bench_calls")])?;
        let on_host = session.host(PROGRAM)?;
        for (index, (key, _, _)) in calls.iter().enumerate() {
            for (samples, outcome) in [(&mut ours, &in_cvm), (&mut host, &on_host)] {
                let value = result(outcome, PROGRAM, key, "median_ns")?;
                if let Some(samples) = samples.get_mut(index) {
                    samples.push(value);
                }
            }
        }
    }
    session.progress_end();
    let measurements = calls
        .into_iter()
        .zip(ours.into_iter().zip(host))
        .map(|((_, name, factor), (ours, host))| Measurement {
            name: name.to_owned(),
            unit: Unit::Nanoseconds,
            ours,
            rivals: vec![("host", Some(host))],
            aims: vec![Aim::Fraction("host", factor)],
        })
        .collect();
    Ok(Group {
        title: "System calls",
        measurements,
    })
}
