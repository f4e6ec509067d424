// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernels that want to do harm, and their neighbours.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::process::Stdio;

use support::{Deployment, Running, rounds};

/// Seeds of what is fired. A failure says which it was.
const SEEDS: [u64; 4] = [1, 20, 300, 4000];

/// A sender and a receiver that find out about every message.
fn with_neighbours(deployment: Deployment) -> Deployment {
    let count = rounds(20_000).to_string();
    deployment
        .cvm("receiver", &["receiver", "1", &count])
        .cvm("sender", &["sender", "0", &count])
}

fn assert_neighbours_went_on(out: &str, what: &str) {
    let received = format!("receiver: received {}\n", rounds(20_000));
    assert!(out.contains(&received), "{what}: {out}");
}

#[test]
fn any_hostcall_with_any_arguments_harms_nobody() {
    let count = rounds(60_000).to_string();
    for seed in SEEDS {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(1 << 20).unwrap();
        let keys = format!("disk: {}", disk.path().display());
        let ended = with_neighbours(Deployment::new())
            .cvm_with("hostile", &["hostile", &seed.to_string(), &count], &keys)
            .run();
        assert_eq!(ended.code, Some(0), "seed {seed}: {}", ended.err);
        assert!(ended.out.contains("hostile: survived\n"), "seed {seed}");
        assert_neighbours_went_on(&ended.out, &format!("seed {seed}"));
    }
}

#[test]
fn a_hostile_portal_harms_no_sender() {
    let count = rounds(20_000).to_string();
    for seed in SEEDS {
        let deployment = with_neighbours(Deployment::new())
            .cvm("hostile", &["hostile_receiver", &seed.to_string()])
            .cvm("victim", &["victim", &count]);
        let mut running = deployment.start(Stdio::null());
        let mut seen = running.wait_for_lines(&["victim: unharmed", "receiver: received"]);
        running.signal(libc::SIGTERM);
        let ended = running.wait();
        assert_eq!(ended.code, Some(0), "seed {seed}: {}", ended.err);
        seen.push_str(&ended.out);
        assert_neighbours_went_on(&seen, &format!("seed {seed}"));
    }
}

/// Resident memory in KiB.
fn resident(running: &Running) -> u64 {
    let status = format!("/proc/{}/status", running.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn flood(of: &str, count: u64) {
    let deployment = with_neighbours(Deployment::new())
        .cvm("flood", &["flood_of", of, &rounds(count).to_string()]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("flooded 0");
    let before = resident(&running);
    running.wait_for_line("flooded 1");
    let grown = resident(&running).saturating_sub(before);
    running.signal(libc::SIGTERM);
    let ended = running.wait().expect(0);
    assert!(grown < 2048, "a flood of {of}: {grown} KiB");
    assert_neighbours_went_on(&ended.out, of);
}

#[test]
fn a_flood_of_unknown_hostcalls_takes_no_memory() {
    flood("hostcalls", 2_000_000);
}

#[test]
fn a_flood_of_console_lines_takes_no_memory() {
    flood("console", 100_000);
}

#[test]
fn a_line_without_end_takes_no_memory() {
    flood("unended", 100_000);
}

#[test]
fn a_flood_of_log_lines_takes_no_memory() {
    flood("log", 100_000);
}

#[test]
fn a_flood_of_probes_takes_no_memory() {
    flood("probes", 200_000);
}

#[test]
fn a_flood_of_publications_takes_no_memory() {
    flood("advertises", 50_000);
}
