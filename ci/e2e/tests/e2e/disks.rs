// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks that fail, and monitors that are killed while they write.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use capstream_e2e::{Cvm, Deployment, Outcome, Running};
use rustix::process::Signal;

use crate::runs;

const LIMIT: Duration = Duration::from_secs(60);

/// A fresh disk image in a folder of its own.
fn fresh_disk(name: &str) -> PathBuf {
    let environment = runs::environment();
    let folder = environment.output.join(format!("{name}.disk"));
    fs::create_dir_all(&folder).unwrap();
    let disk = folder.join("disk.ext4");
    fs::copy(environment.images.join("tests.ext4"), &disk).unwrap();
    disk
}

fn deployment(name: &str, what: &str, disk: &Path) -> Deployment {
    Deployment::new(name)
        .cvm(Cvm::new("alone", &format!("/ld.so /tests/disk {what}")).kept_disk(disk))
}

fn wait_for_line(running: &mut Running, text: &str) {
    let limit = runs::environment().limit(LIMIT);
    if let Err(error) = running.wait_for_line(text, limit) {
        panic!("{error}");
    }
}

/// The number behind the last line that begins so.
fn last_number(outcome: &Outcome, begin: &str) -> Option<u32> {
    outcome
        .output()
        .filter_map(|line| line.strip_prefix(begin)?.parse().ok())
        .last()
}

fn assert_file_system_is_clean(disk: &Path) {
    let checked = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(disk)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "e2fsck: {}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

fn assert_said(outcome: &Outcome, words: &[&str]) {
    assert!(
        outcome
            .errors()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "an error with {words:?}; printed:\n{}",
        outcome.printed()
    );
    assert!(
        !outcome.contains("panicked at"),
        "the monitor lives; printed:\n{}",
        outcome.printed()
    );
}

/// The file system is refused by the kernel, and the monitor says what to look at.
fn assert_cannot_be_mounted(name: &str, disk: &Path) {
    let outcome = runs::run(&deployment(name, "go-on", disk));
    assert_eq!(outcome.code(), 126, "printed:\n{}", outcome.printed());
    assert!(
        outcome.contains("cannot mount /dev/vda"),
        "printed:\n{}",
        outcome.printed()
    );
    assert_said(&outcome, &["cVM `alone`", "disk image"]);
}

/// The monitor is killed at any point of its writing. What a program was told is on the disk is there when the disk is used again, and the
/// file system is whole.
#[test]
fn killed_while_writing() {
    let disk = fresh_disk("killed_while_writing");
    let mut seed = u64::from(std::process::id()) << 16 | 1;
    println!("seed {seed}");
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut synced = 0;
    for round in 0..runs::volume(8).max(3) {
        let mut running = runs::start(&deployment(
            &format!("killed_while_writing_{round}"),
            "records",
            &disk,
        ));
        wait_for_line(&mut running, "found ");
        for _ in 0..random(30) {
            wait_for_line(&mut running, "synced ");
        }
        // Somewhere between two lines.
        let until = Instant::now() + Duration::from_micros(random(3000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        running.signal(Signal::KILL).unwrap();
        let outcome = runs::finish(running);
        let found = last_number(&outcome, "found ").unwrap();
        assert!(
            found >= synced,
            "round {round}: {found} records of {synced} that were synced; printed:\n{}",
            outcome.printed()
        );
        synced = last_number(&outcome, "synced ").map_or(found, |number| number + 1);
    }
    let outcome = runs::succeed(&deployment(
        "killed_while_writing_at_last",
        &format!("records-at-least {synced}"),
        &disk,
    ));
    runs::assert_checks(outcome.output(), 1, &outcome.printed());
    assert_file_system_is_clean(&disk);
}

/// The file system inside is full: that is `ENOSPC`, and no more.
#[test]
fn full() {
    runs::checks("full", "/ld.so /tests/disk fill", 6);
}

/// The host has no room for what is written: `EIO` inside, and a word from the monitor. A neighbour goes on.
#[test]
fn no_room_on_the_host() {
    let count = runs::volume(500);
    let outcome = runs::run(
        &Deployment::new("no_room_on_the_host")
            // Their memory is a file, too: it has to be below the limit.
            .cvm(Cvm::new("writer", "/ld.so /tests/disk write-until-error").memory(32))
            .cvm(Cvm::new("worker", &format!("/ld.so /app/cap_stream 2 {count}")).memory(32))
            .file_limit(28 << 20),
    );
    let printed = outcome.printed();
    runs::assert_checks(outcome.output_of("writer"), 1, &printed);
    let received = outcome
        .output_of("worker")
        .filter(|line| line.contains("recv = "))
        .count();
    assert_eq!(received, count, "printed:\n{printed}");
    assert_said(&outcome, &["writer.ext4", "I/O error"]);
    let complaints = outcome
        .errors()
        .filter(|line| line.contains("writer.ext4"))
        .count();
    assert!(complaints < 10, "printed:\n{printed}");
}

/// The image is cut off while it is used.
#[test]
fn truncated_while_used() {
    let disk = fresh_disk("truncated_while_used");
    let mut running = runs::start(&deployment(
        "truncated_while_used",
        "read-until-error",
        &disk,
    ));
    wait_for_line(&mut running, "reading");
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.set_len(64 << 10).unwrap();
    let outcome = runs::finish(running);
    assert!(
        outcome.contains("ok a disk that fails is EIO"),
        "printed:\n{}",
        outcome.printed()
    );
    assert_said(&outcome, &["disk.ext4", "I/O error"]);
}

/// The image was cut off before.
#[test]
fn truncated_before() {
    let disk = fresh_disk("truncated_before");
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.set_len(8 << 20).unwrap();
    assert_cannot_be_mounted("truncated_before", &disk);
}

/// There is no file system where one should begin.
#[test]
fn without_superblock() {
    let disk = fresh_disk("without_superblock");
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(&[0xa5; 8192], 0).unwrap();
    assert_cannot_be_mounted("without_superblock", &disk);
}

/// The image is removed while it is used: the cVM keeps what it has.
#[test]
fn removed_while_used() {
    let disk = fresh_disk("removed_while_used");
    let mut running = runs::start(&deployment("removed_while_used", "go-on", &disk));
    wait_for_line(&mut running, "going on");
    fs::remove_file(&disk).unwrap();
    let outcome = runs::finish(running);
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    runs::assert_checks(outcome.output(), 1, &outcome.printed());
}

/// Two monitors cannot have the same disk.
#[test]
fn used_by_another_monitor() {
    let disk = fresh_disk("used_by_another_monitor");
    let mut first = runs::start(&deployment("used_by_another_monitor_1", "go-on", &disk));
    wait_for_line(&mut first, "going on");
    let second = runs::run(&deployment("used_by_another_monitor_2", "go-on", &disk));
    assert_ne!(second.code(), 0, "printed:\n{}", second.printed());
    assert_said(&second, &["disk.ext4", "use"]);
    let outcome = runs::finish(first);
    runs::assert_checks(outcome.output(), 1, &outcome.printed());
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
}
