// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many cVMs, one after the other, leave nothing behind in the process. The only test here: it counts what the whole process has.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::fs;

use capstream_abi::irq;
use capstream_monitor::exit_code::Outcome;

use support::own_process::Monitor;

/// How many are started and ended in all.
const CVMS: usize = 100;
/// After how many everything is there that stays.
const WARM: usize = 20;

/// What a process has.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    mappings: usize,
    published: usize,
}

fn holdings(monitor: &Monitor) -> Holdings {
    let entries = |folder| fs::read_dir(folder).unwrap().count();
    Holdings {
        descriptors: entries("/proc/self/fd"),
        threads: entries("/proc/self/task"),
        mappings: fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count(),
        published: monitor.environment.exchange.registry().objects().len(),
    }
}

/// The memory the process has of its own, in KiB. Without what is free and the allocator keeps, which depends on the order in which threads
/// end; and without pages of files: which of the program's own are in memory is the host's affair, and not before the last line of code has
/// run all are.
fn resident() -> u64 {
    // SAFETY: it only gives free memory back.
    unsafe { libc::malloc_trim(0) };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    ["RssAnon:", "RssShmem:"]
        .iter()
        .map(|kind| {
            let line = status.lines().find_map(|line| line.strip_prefix(kind));
            let number = line.unwrap().split_whitespace().next().unwrap();
            number.parse::<u64>().unwrap()
        })
        .sum()
}

/// How much more it may have at the end, in KiB. What all turns of one kind leave would be far more than that.
fn allowed() -> u64 {
    if support::is_native() {
        1024
    } else {
        // In one of some ten runs what one simulated hart had is still there, 0.5 to 2 MiB; after five times as many turns it is no more.
        4096
    }
}

/// Starts two that talk, or one that ends in another way; with a disk, whose device has a thread.
fn turn(monitor: &Monitor, number: usize, disk: &std::path::Path) {
    match number % 5 {
        0 => {
            let receiver = monitor.start(0, &["receiver", "1", "50"], Some(disk));
            let sender = monitor.start(1, &["sender", "0", "50"], None);
            for _ in 0..2 {
                let end = monitor.next_end();
                assert_eq!(end.outcome, Outcome::Exited(0), "{}", monitor.output());
            }
            receiver.join();
            sender.join();
        }
        1 => {
            let cvm = monitor.start(0, &["kernel_faults_early"], Some(disk));
            assert!(matches!(monitor.next_end().outcome, Outcome::Faulted(_)));
            cvm.join();
        }
        2 => {
            let cvm = monitor.start(0, &["sleeps"], Some(disk));
            cvm.receiver.line().kill();
            assert_eq!(monitor.next_end().outcome, Outcome::Killed);
            cvm.join();
        }
        3 => {
            let cvm = monitor.start(0, &["waits_for_power_button"], Some(disk));
            cvm.receiver.line().raise(irq::POWER_BUTTON);
            assert_eq!(monitor.next_end().outcome, Outcome::Halted);
            cvm.join();
        }
        _ => {
            // Ends while others still have handles to what it published.
            let receiver = monitor.start(0, &["receiver_for_a_while", "20"], None);
            let senders = [
                monitor.start(1, &["sender_for_ever"], None),
                monitor.start(2, &["sender_for_ever"], Some(disk)),
            ];
            for _ in 0..3 {
                let end = monitor.next_end();
                assert_eq!(end.outcome, Outcome::Exited(0), "{}", monitor.output());
            }
            receiver.join();
            for sender in senders {
                sender.join();
            }
        }
    }
}

#[test]
fn a_hundred_cvms_in_turn_leave_nothing_behind() {
    let monitor = Monitor::new();
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    for number in 0..WARM {
        turn(&monitor, number, disk.path());
    }
    let (before, memory) = (holdings(&monitor), resident());
    for number in WARM..CVMS {
        turn(&monitor, number, disk.path());
    }
    let after = holdings(&monitor);
    // A thread that only prepared something may end meanwhile.
    assert!(
        after.descriptors <= before.descriptors
            && after.threads <= before.threads
            && after.mappings <= before.mappings
            && after.published == before.published,
        "{before:?}, then {after:?}"
    );
    let grown = resident().saturating_sub(memory);
    assert!(grown < allowed(), "{grown} KiB");
}
