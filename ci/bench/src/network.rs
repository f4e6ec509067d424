// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TCP through a published port, and between two cVMs on a switch, against the host's loopback.
//!
//! The server is the same program everywhere. Through a published port the client is on the host, as a user's would be.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use capstream_e2e::{Cvm, Deployment, Outcome, Running};

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session, result, well};

/// Bytes that are sent each way.
const BYTES: u64 = 512 << 20;
const ROUNDS: u64 = 5000;
const PROGRAM: &str = "bench_net";
/// In cVMs.
const PORT: u16 = 7000;
const LOOPBACK: &str = "loopback of the host";
const RESULTS: [(&str, &str, &str, Unit); 3] = [
    (
        "to_server",
        "bytes_per_second",
        "to the server",
        Unit::BytesPerSecond,
    ),
    (
        "from_server",
        "bytes_per_second",
        "from the server",
        Unit::BytesPerSecond,
    ),
    (
        "round_trip",
        "median_ns",
        "64 B there and back",
        Unit::Nanoseconds,
    ),
];

/// A port that nobody has at the moment.
pub fn free_port() -> Result<u16, BenchError> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::host("a port"))?;
    Ok(listener
        .local_addr()
        .map_err(BenchError::host("a port"))?
        .port())
}

fn on_host(session: &Session, arguments: &[String]) -> Result<Running, BenchError> {
    let mut command = Command::new(session.program(PROGRAM));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(Running::from_command(command, &session.environment.output)?)
}

/// Measures against a server that says when it listens at a port of the host.
fn against(session: &Session, mut server: Running, port: u16) -> Result<Outcome, BenchError> {
    server.wait_for_line("listening", LIMIT)?;
    let arguments = [
        "measure".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        port.to_string(),
        BYTES.to_string(),
        ROUNDS.to_string(),
    ];
    let outcome = well(on_host(session, &arguments)?.finish(LIMIT)?, PROGRAM)?;
    well(server.finish(LIMIT)?, PROGRAM)?;
    Ok(outcome)
}

fn cvm(name: &str, arguments: &str, net: &str) -> Cvm {
    Cvm::new(name, &format!("/ld.so /bench/{PROGRAM} {arguments}")).keys(&format!("net: {net}"))
}

fn published(session: &Session) -> Result<Outcome, BenchError> {
    let port = free_port()?;
    let net = format!("{{ kind: user, ports: \"127.0.0.1:{port}:{PORT}\" }}");
    let server = Deployment::new("net-published")
        .cvm(cvm("server", &format!("serve {PORT}"), &net))
        .start(&session.environment)?;
    against(session, server, port)
}

fn switched(session: &Session) -> Result<Outcome, BenchError> {
    let net = |last| format!("{{ kind: switch lan, address: 10.1.0.{last}/24 }}");
    session.cvms(
        "net-switch",
        &[
            cvm("server", &format!("serve {PORT}"), &net(1)),
            cvm(
                "client",
                &format!("measure 10.1.0.1 {PORT} {BYTES} {ROUNDS}"),
                &net(2),
            ),
        ],
    )
}

fn loopback(session: &Session) -> Result<Outcome, BenchError> {
    let port = free_port()?;
    let server = on_host(session, &["serve".to_owned(), port.to_string()])?;
    against(session, server, port)
}

/// Measures throughput both ways and round trips.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    type Way = fn(&Session) -> Result<Outcome, BenchError>;
    let ways: [(&str, Way); 3] = [
        ("published port", published),
        ("switch between cVMs", switched),
        (LOOPBACK, loopback),
    ];
    let mut samples: Vec<Vec<Samples>> = ways
        .iter()
        .map(|_| RESULTS.iter().map(|_| Samples::new()).collect())
        .collect();
    for run in 0..session.runs {
        session.progress("TCP", run);
        for ((_, way), samples) in ways.iter().zip(&mut samples) {
            let outcome = way(session)?;
            for ((key, field, _, _), samples) in RESULTS.iter().zip(samples) {
                samples.push(result(&outcome, PROGRAM, key, field)?);
            }
        }
    }
    session.progress_end();
    let rival = samples.pop().unwrap_or_default();
    let mut measurements = Vec::new();
    for ((way, _), ours) in ways.iter().zip(samples) {
        for ((ours, theirs), (_, _, name, unit)) in ours.into_iter().zip(&rival).zip(RESULTS) {
            measurements.push(Measurement {
                name: format!("{way}, {name}"),
                unit,
                ours,
                rivals: vec![(LOOPBACK, Some(theirs.clone()))],
                aims: match unit {
                    Unit::BytesPerSecond => vec![Aim::Multiple(LOOPBACK, 0.5)],
                    _ => vec![Aim::Fraction(LOOPBACK, 4.0)],
                },
            });
        }
    }
    Ok(Group {
        title: "TCP of cVMs",
        measurements,
    })
}
