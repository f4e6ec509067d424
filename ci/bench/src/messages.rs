// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages between two cVMs against pipes and UNIX sockets between two processes, and against a copy in memory.
//!
//! cVMs run wherever the host's scheduler puts them. How fast two processes are depends much on whether it puts them on one processor, where a wake-up
//! costs little, or on two: each of the two rivals is measured both ways, and the better counts.

use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use capstream_e2e::{Cvm, Outcome, Running};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::BenchError;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session, result, well};

/// Bytes of a message whose time is measured.
const SMALL: usize = 64;
const ROUNDS: usize = 20_000;
/// Sizes of the messages whose throughput is measured, and how many bytes are sent altogether.
const STREAMS: [(usize, usize); 4] = [
    (SMALL, 32 << 20),
    (4 << 10, 512 << 20),
    (64 << 10, 2 << 30),
    (4 << 20, 4 << 30),
];
/// Receive buffers of the programs, see `BUFFERS` in `channel.h`.
const BUFFERS: usize = 4;
/// What a pipe can be set to without privileges.
const LARGE_PIPE: usize = 1 << 20;

/// A way between two processes of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pipe,
    LargePipe,
    Socket,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Way::Pipe => "pipe",
            Way::LargePipe => "pipe of 1 MiB",
            Way::Socket => "UNIX socket",
        }
    }

    /// Input and output of both ends.
    fn ends(self) -> io::Result<[(OwnedFd, OwnedFd); 2]> {
        if self == Way::Socket {
            let (left, right) = UnixStream::pair()?;
            let (left_again, right_again) = (left.try_clone()?, right.try_clone()?);
            return Ok([
                (left.into(), left_again.into()),
                (right.into(), right_again.into()),
            ]);
        }
        let (left_in, right_out) = io::pipe()?;
        let (right_in, left_out) = io::pipe()?;
        if self == Way::LargePipe {
            for pipe in [&left_out, &right_out] {
                rustix::pipe::fcntl_setpipe_size(pipe, LARGE_PIPE)?;
            }
        }
        Ok([
            (left_in.into(), left_out.into()),
            (right_in.into(), right_out.into()),
        ])
    }
}

/// What both sides printed.
struct Sides {
    send: Outcome,
    receive: Outcome,
}

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    /// Wherever the scheduler puts them.
    Anywhere,
    /// Both on the first processor of those that are allowed.
    OneProcessor,
}

impl Placement {
    const ALL: [Placement; 2] = [Placement::Anywhere, Placement::OneProcessor];

    /// Does something with the calling thread so placed, and with it the processes that it starts.
    fn with<T>(self, act: impl FnOnce() -> Result<T, BenchError>) -> Result<T, BenchError> {
        if self == Placement::Anywhere {
            return act();
        }
        let refused =
            |error: rustix::io::Errno| BenchError::host("sched_setaffinity")(error.into());
        let allowed = sched_getaffinity(None).map_err(refused)?;
        let mut one = CpuSet::new();
        if let Some(first) = (0..CpuSet::MAX_CPU).find(|&processor| allowed.is_set(processor)) {
            one.set(first);
        }
        sched_setaffinity(None, &one).map_err(refused)?;
        let result = act();
        sched_setaffinity(None, &allowed).map_err(refused)?;
        result
    }
}

/// Runs both sides as processes of the host.
fn host(
    session: &Session,
    way: Way,
    placement: Placement,
    arguments: &[String],
) -> Result<Sides, BenchError> {
    let start = |program: &str, (input, output): (OwnedFd, OwnedFd)| {
        let mut command = Command::new(session.program(program));
        command
            .arg("fd")
            .args(arguments)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output));
        Running::from_command(command, &session.environment.output)
    };
    let [left, right] = way.ends().map_err(BenchError::host(way.name()))?;
    let (receive, send) = placement.with(|| {
        let receive = start("bench_recv", left)?;
        Ok((receive, start("bench_send", right)?))
    })?;
    Ok(Sides {
        send: well(send.finish(LIMIT)?, "bench_send")?,
        receive: well(receive.finish(LIMIT)?, "bench_recv")?,
    })
}

/// Runs both sides in cVMs.
fn cvms(session: &Session, mode: &str, arguments: &[String]) -> Result<Outcome, BenchError> {
    let arguments = arguments.join(" ");
    let side = |name: &str, program: &str| {
        Cvm::new(
            name,
            &format!("/ld.so /bench/{program} cap:{mode} {arguments}"),
        )
    };
    session.cvms(
        "messages",
        &[side("receive", "bench_recv"), side("send", "bench_send")],
    )
}

/// Bytes per second of copying to as many buffers in turn as the programs receive into.
fn memcpy(size: usize, total: usize) -> f64 {
    let source = vec![0x5a_u8; size];
    let mut targets = vec![vec![0_u8; size]; BUFFERS];
    let copies = (total / size).max(1);
    // Once for each, so that their memory is there.
    for target in &mut targets {
        target.copy_from_slice(&source);
    }
    let begin = Instant::now();
    for index in 0..copies {
        if let Some(target) = targets.get_mut(index % BUFFERS) {
            target.copy_from_slice(black_box(&source));
            black_box(target);
        }
    }
    (copies * size) as f64 / begin.elapsed().as_secs_f64()
}

/// Measures one way and round trip of small messages in each mode.
pub fn times(session: &Session) -> Result<Group, BenchError> {
    const MODES: [&str; 3] = ["sleep", "adaptive", "spin"];
    const WAYS: [Way; 2] = [Way::Pipe, Way::Socket];
    let arguments = [
        "round-trip".to_owned(),
        SMALL.to_string(),
        ROUNDS.to_string(),
    ];
    // For each mode or way: one way, and round trip.
    let mut ours = MODES.map(|mode| (mode, Samples::new(), Samples::new()));
    let mut theirs = WAYS.map(|way| (way, Samples::new(), Samples::new()));
    for run in 0..session.runs {
        session.progress("64 B between two cVMs", run);
        for (mode, one_way, round_trip) in &mut ours {
            let outcome = cvms(session, mode, &arguments)?;
            one_way.push(result(&outcome, "bench_recv", "one_way", "median_ns")?);
            round_trip.push(result(&outcome, "bench_send", "round_trip", "median_ns")?);
        }
        for (way, one_way, round_trip) in &mut theirs {
            let mut best = (f64::INFINITY, f64::INFINITY);
            for placement in Placement::ALL {
                let sides = host(session, *way, placement, &arguments)?;
                let one_way = result(&sides.receive, "bench_recv", "one_way", "median_ns")?;
                let round_trip = result(&sides.send, "bench_send", "round_trip", "median_ns")?;
                best = (best.0.min(one_way), best.1.min(round_trip));
            }
            one_way.push(best.0);
            round_trip.push(best.1);
        }
    }
    session.progress_end();
    let mut measurements = Vec::new();
    for (mode, one_way, round_trip) in ours {
        let rivals = |samples: fn(&(Way, Samples, Samples)) -> &Samples| {
            let both = theirs.iter();
            both.map(|way| (way.0.name(), Some(samples(way).clone())))
                .collect()
        };
        measurements.push(Measurement {
            name: format!("one way, {mode}"),
            unit: Unit::Nanoseconds,
            ours: one_way,
            rivals: rivals(|way| &way.1),
            aims: Vec::new(),
        });
        measurements.push(Measurement {
            name: format!("round trip, {mode}"),
            unit: Unit::Nanoseconds,
            ours: round_trip,
            rivals: rivals(|way| &way.2),
            aims: match mode {
                "sleep" => vec![Aim::Fraction(Way::Pipe.name(), 1.0)],
                "spin" => vec![Aim::Fraction(Way::Pipe.name(), 0.1)],
                _ => Vec::new(),
            },
        });
    }
    Ok(Group {
        title: "64 B between two cVMs",
        measurements,
    })
}

/// A size as it is said.
fn size_name(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{} KiB", size / 1024),
        _ => format!("{} MiB", size / 1_048_576),
    }
}

/// Measures throughput at each size.
pub fn streams(session: &Session) -> Result<Group, BenchError> {
    const MODES: [&str; 2] = ["adaptive", "sleep"];
    const WAYS: [Way; 3] = [Way::Pipe, Way::LargePipe, Way::Socket];
    let mut measurements = Vec::new();
    for (size, total) in STREAMS {
        let arguments = [
            "stream".to_owned(),
            size.to_string(),
            (total / size).to_string(),
        ];
        let mut ours = MODES.map(|mode| (mode, Samples::new()));
        let mut theirs = WAYS.map(|way| (way, Samples::new()));
        let mut copied = Samples::new();
        let rate = |outcome: &Outcome| result(outcome, "bench_send", "stream", "bytes_per_second");
        for run in 0..session.runs {
            session.progress(&format!("stream of {}", size_name(size)), run);
            for (mode, samples) in &mut ours {
                samples.push(rate(&cvms(session, mode, &arguments)?)?);
            }
            for (way, samples) in &mut theirs {
                let mut best = 0.0_f64;
                for placement in Placement::ALL {
                    best = best.max(rate(&host(session, *way, placement, &arguments)?.send)?);
                }
                samples.push(best);
            }
            copied.push(memcpy(size, total));
        }
        session.progress_end();
        let aims = if size >= 64 << 10 {
            vec![
                Aim::Multiple(Way::Pipe.name(), 4.0),
                Aim::Multiple(Way::Socket.name(), 4.0),
                Aim::Multiple("memcpy", 0.6),
            ]
        } else {
            Vec::new()
        };
        let rivals: Vec<_> = theirs
            .into_iter()
            .map(|(way, samples)| (way.name(), Some(samples)))
            .chain([("memcpy", Some(copied))])
            .collect();
        for (mode, samples) in ours {
            measurements.push(Measurement {
                name: format!("{}, {mode}", size_name(size)),
                unit: Unit::BytesPerSecond,
                ours: samples,
                rivals: rivals.clone(),
                aims: aims.clone(),
            });
        }
    }
    Ok(Group {
        title: "Streams between two cVMs",
        measurements,
    })
}
