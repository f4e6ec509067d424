// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Senders and receivers that exchange messages of all sizes for a long time, while cVMs are killed and started again at random.
//!
//! `soak SECONDS [SEED]`. The programs check each message (`disk-image/programs/tests/soak.c`). What this adds: cVMs are killed, what
//! the programs said is looked at, and memory, threads and open files of the monitor are measured on the way.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use capstream_e2e::{Cvm, Deployment, Environment, HarnessError};

const SENDERS: usize = 3;
const RECEIVERS: usize = 2;
/// Between two kills, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(2500);
/// How much more memory the monitor may have at the end than after a third of the time: what a few lives have touched more than others.
const SLACK: u64 = 48 << 20;

/// Why a soak failed.
#[derive(Debug, thiserror::Error)]
enum SoakError {
    #[error("usage: soak SECONDS [SEED]")]
    Usage,
    #[error(transparent)]
    Harness(#[from] HarnessError),
    #[error("{0}")]
    Failed(String),
    #[error("{what}: {source}")]
    Host {
        what: String,
        source: std::io::Error,
    },
}

fn failed<T>(why: impl Into<String>) -> Result<T, SoakError> {
    Err(SoakError::Failed(why.into()))
}

/// xorshift64*: the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }
}

/// What the monitor uses of the host.
#[derive(Clone, Copy, Debug)]
struct Usage {
    memory: u64,
    threads: usize,
    files: usize,
}

fn usage(process: u32) -> Result<Usage, SoakError> {
    let host = |what: String| move |source| SoakError::Host { what, source };
    let count = |folder: &str| {
        let path = format!("/proc/{process}/{folder}");
        fs::read_dir(&path).map(Iterator::count).map_err(host(path))
    };
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).map_err(host(path))?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    Ok(Usage {
        memory: memory << 10,
        threads: count("task")?,
        files: count("fd")?,
    })
}

fn names(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{kind}{number}")).collect()
}

/// The number before a word in the last line that has it.
fn last_count<'a>(lines: impl Iterator<Item = &'a str>, word: &str) -> u64 {
    lines
        .filter_map(|line| {
            let (before, _) = line.split_once(word)?;
            before.trim().rsplit(' ').next()?.parse().ok()
        })
        .last()
        .unwrap_or(0)
}

fn soak(time: Duration, seed: u64) -> Result<(), SoakError> {
    let environment = Environment::from_variables()?;
    let senders = names("sender", SENDERS);
    let receivers = names("receiver", RECEIVERS);
    let keys = names("soak", RECEIVERS);
    let again = "restart: always\nrestart_delay: 0\nstop_timeout: 20";
    let mut deployment = Deployment::new("soak").controlled();
    for (name, key) in receivers.iter().zip(&keys) {
        let args = format!("/ld.so /tests/soak receive {key}");
        deployment = deployment.cvm(Cvm::new(name, &args).keys(again));
    }
    for (number, name) in senders.iter().enumerate() {
        let args = format!(
            "/ld.so /tests/soak send {} {seed} {} {}",
            number + 1,
            4 << 20,
            keys.join(" ")
        );
        deployment = deployment.cvm(Cvm::new(name, &args).keys(again));
    }
    let mut running = deployment.start(&environment)?;
    for name in &receivers {
        running.wait_for_line(&format!("{name}: taken"), Duration::from_secs(60))?;
    }
    let process = running.id();
    let mut random = Random(seed | 1);
    let all: Vec<&str> = receivers
        .iter()
        .chain(&senders)
        .map(String::as_str)
        .collect();
    let begin = Instant::now();
    let mut early: Option<Usage> = None;
    let (mut kills, mut restarts) = (0, 0);
    while begin.elapsed() < time {
        let pause = LONGEST_PAUSE.mul_f64(random.below(1000) as f64 / 1000.0);
        running.watch(pause, |line| line.contains("FAIL:"))?;
        let Some(name) = all.get(random.below(all.len())) else {
            continue;
        };
        // Killed at once, or asked to end: both come back.
        if random.below(3) > 0 {
            running.operate(&environment.monitor, &["kill", name])?;
            running.operate(&environment.monitor, &["restart", name])?;
            kills += 1;
        } else {
            running.operate(&environment.monitor, &["restart", name])?;
            restarts += 1;
        }
        if early.is_none() && begin.elapsed() > time / 3 {
            early = Some(usage(process)?);
        }
    }
    let late = usage(process)?;
    println!("soak: the monitor after a third of the time: {early:?}, at the end: {late:?}");
    if let Some(early) = early
        && (late.memory > early.memory + SLACK
            || late.threads > early.threads + 1
            || late.files > early.files + 6)
    {
        return failed(format!(
            "the monitor grew: {early:?} after a third of the time, {late:?} at the end"
        ));
    }
    // Senders first, so that what they sent is taken.
    for name in senders.iter().chain(&receivers) {
        running.operate(&environment.monitor, &["stop", name])?;
    }
    let outcome = running.finish(Duration::from_secs(60))?;
    let mut messages = 0;
    let mut closed = 0;
    for name in &receivers {
        messages += last_count(outcome.output_of(name), " messages,");
        closed += last_count(outcome.output_of(name), " connections closed,");
    }
    if outcome.contains("FAIL:") || outcome.code() != 0 {
        return failed(format!(
            "what the programs and the monitor printed (exit status {}):\n{}",
            outcome.code(),
            outcome.printed()
        ));
    }
    if messages == 0 || closed == 0 {
        return failed(format!(
            "nothing was exchanged; printed:\n{}",
            outcome.printed()
        ));
    }
    println!(
        "soak: {} s, seed {seed}: {kills} kills, {restarts} restarts; in the last lives alone {messages} messages, {closed} connections closed; nothing lost, doubled, out of order or torn",
        begin.elapsed().as_secs()
    );
    Ok(())
}

fn arguments() -> Result<(Duration, u64), SoakError> {
    let mut words = std::env::args().skip(1);
    let seconds = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(SoakError::Usage)?;
    let seed = match words.next() {
        Some(word) => word.parse().map_err(|_| SoakError::Usage)?,
        None => u64::from(std::process::id()),
    };
    Ok((Duration::from_secs(seconds), seed))
}

fn main() -> ExitCode {
    match arguments().and_then(|(time, seed)| {
        println!("soak: {} s with seed {seed}", time.as_secs());
        soak(time, seed)
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
