// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Measures cVMs against what a user would take instead, in the same session on the same machine: `make bench`.
//!
//! Each number is the median of several runs, in which cVMs and rivals take turns. A table goes to standard output, all samples to a file of JSON.

mod calls;
mod error;
mod hart;
mod memory;
mod messages;
mod network;
mod programs;
mod report;
mod session;
mod start;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use capstream_e2e::Environment;
use serde_json::{Value, json};

use crate::error::BenchError;
use crate::report::Group;
use crate::session::Session;

const USAGE: &str = "\
usage: bench [--runs N] [--output FILE] [GROUP...]

  --runs N        how often each number is measured (5)
  --output FILE   where the results go as JSON (bench.json)
  GROUP           calls, start, times, streams, net, programs, memory, hart (all of them)";

type Measure = fn(&Session) -> Result<Group, BenchError>;

/// Every group by its name on the command line.
const GROUPS: [(&str, Measure); 8] = [
    ("calls", calls::measure),
    ("start", start::measure),
    ("times", messages::times),
    ("streams", messages::streams),
    ("net", network::measure),
    ("programs", programs::measure),
    ("memory", memory::measure),
    ("hart", hart::measure),
];

struct Options {
    runs: usize,
    output: PathBuf,
    groups: Vec<(&'static str, Measure)>,
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, BenchError> {
    let usage = |what: String| BenchError::Usage(format!("{what}\n{USAGE}"));
    let mut options = Options {
        runs: 5,
        output: PathBuf::from("bench.json"),
        groups: Vec::new(),
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = usage(format!("{argument} needs a value"));
            arguments.next().ok_or(missing)
        };
        match argument.as_str() {
            "--runs" => {
                let text = value()?;
                options.runs = match text.parse() {
                    Ok(runs @ 1..=1000) => runs,
                    _ => {
                        return Err(usage(format!(
                            "--runs takes a number from 1 to 1000, not '{text}'"
                        )));
                    }
                };
            }
            "--output" => options.output = value()?.into(),
            name => match GROUPS.iter().find(|(group, _)| *group == name) {
                Some(group) => options.groups.push(*group),
                None => return Err(usage(format!("there is no '{name}'"))),
            },
        }
    }
    if options.groups.is_empty() {
        options.groups = GROUPS.to_vec();
    }
    Ok(options)
}

/// What the numbers depend on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.to_owned());
    json!({
        "processor": processor,
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": load(),
    })
}

/// How many tasks wanted a processor during the last minute.
fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Says so when other work disturbs what is measured here.
fn warn_of_load() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    if let Some(load) = load().filter(|load| *load > processors / 2.0) {
        eprintln!("warning: the machine has other work (load {load}): the results will vary");
    }
}

fn run() -> Result<(), BenchError> {
    let options = options(std::env::args().skip(1))?;
    let session = Session {
        environment: Environment::from_variables()?,
        runs: options.runs,
    };
    fs::create_dir_all(&session.environment.output).map_err(BenchError::host(
        session.environment.output.display().to_string(),
    ))?;
    warn_of_load();
    let machine = machine();
    let mut results = Vec::new();
    for (_, measure) in options.groups {
        let group = measure(&session)?;
        println!("{}", group.table());
        results.push(group.json());
    }
    let all = json!({ "machine": machine, "runs": options.runs, "groups": results });
    fs::write(&options.output, format!("{all:#}\n")).map_err(|source| BenchError::Output {
        path: options.output.clone(),
        source,
    })?;
    println!("All samples are in {}", options.output.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
