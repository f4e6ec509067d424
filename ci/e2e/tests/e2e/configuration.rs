// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's file: what is wrong in it is named with its line before anything is started.

use capstream_e2e::{Cvm, Deployment, Outcome};

use crate::runs;

/// A good file, to be spoiled in one place.
const GOOD: &str = "\
cVMs:
  - name: alone
    disk: DISK
    runtime: RUNTIME
    args: /ld.so /app/hello
    isolation:
      base: 0x100000000000
      size: 0x8000000
";

fn with(name: &str, text: &str) -> Outcome {
    runs::run(&Deployment::new(name).yaml(text))
}

/// Asserts that the monitor refuses a file with status 2, and one error that contains these words.
fn refused(name: &str, text: &str, words: &[&str]) {
    let outcome = with(name, text);
    assert_eq!(outcome.code(), 2, "printed:\n{}", outcome.printed());
    assert!(
        outcome
            .errors()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "an error with {words:?}; printed:\n{}",
        outcome.printed()
    );
    assert!(
        !outcome.contains("panicked"),
        "printed:\n{}",
        outcome.printed()
    );
    assert!(
        !outcome.contains("Hello from"),
        "nothing was started; printed:\n{}",
        outcome.printed()
    );
}

#[test]
fn good() {
    let outcome = with("good", GOOD);
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    assert!(outcome.contains("Hello from Linux"));
}

#[test]
fn unknown_key() {
    refused(
        "unknown_key",
        &GOOD.replace("    args", "    agrs"),
        &["deployment.yaml:5", "agrs"],
    );
}

#[test]
fn unknown_key_at_the_top() {
    refused(
        "unknown_key_at_the_top",
        &format!("{GOOD}capfile:\n  - name: x\n"),
        &["deployment.yaml:9", "capfile"],
    );
}

#[test]
fn unknown_key_of_isolation() {
    refused(
        "unknown_key_of_isolation",
        &GOOD.replace("size:", "length:"),
        &["deployment.yaml:8", "length"],
    );
}

#[test]
fn missing_key() {
    refused(
        "missing_key",
        &GOOD.replace("    args: /ld.so /app/hello\n", ""),
        &["deployment.yaml:", "args"],
    );
}

#[test]
fn duplicate_key() {
    refused(
        "duplicate_key",
        &GOOD.replace("    disk:", "    name: other\n    disk:"),
        &["deployment.yaml:3", "name"],
    );
}

#[test]
fn wrong_number() {
    refused(
        "wrong_number",
        &GOOD.replace("0x8000000", "plenty"),
        &["deployment.yaml:8", "size", "plenty"],
    );
}

#[test]
fn wrong_syntax() {
    refused(
        "wrong_syntax",
        &GOOD.replace("args: ", "args: [\""),
        &["deployment.yaml:"],
    );
}

#[test]
fn empty_file() {
    refused("empty_file", "", &["deployment.yaml", "cVMs"]);
}

#[test]
fn overlapping_ranges() {
    let second = GOOD
        .replace("cVMs:\n", "")
        .replace("alone", "second")
        .replace("0x100000000000", "0x100004000000");
    refused(
        "overlapping_ranges",
        &format!("{GOOD}{second}"),
        &["deployment.yaml:", "second", "alone"],
    );
}

#[test]
fn range_below_the_least_size() {
    refused(
        "range_below_the_least_size",
        &GOOD.replace("0x8000000", "0x1000"),
        &["deployment.yaml:8", "size"],
    );
}

#[test]
fn missing_disk() {
    refused(
        "missing_disk",
        &GOOD.replace("DISK", "/no/such/disk.ext4"),
        &["/no/such/disk.ext4"],
    );
}

#[test]
fn missing_runtime() {
    refused(
        "missing_runtime",
        &GOOD.replace("RUNTIME", "/no/such/runtime"),
        &["/no/such/runtime"],
    );
}

/// A runtime that is no executable at all.
#[test]
fn wrong_runtime() {
    refused(
        "wrong_runtime",
        &GOOD.replace("RUNTIME", "DISK"),
        &["disk.ext4"],
    );
}

/// A disk without a file system: the kernel cannot mount it, and the cVM's end is reported.
#[test]
fn disk_without_file_system() {
    let outcome = with("disk_without_file_system", &GOOD.replace("DISK", "RUNTIME"));
    assert_ne!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    assert!(
        outcome.errors().any(|line| line.contains("alone")),
        "printed:\n{}",
        outcome.printed()
    );
}

/// What existing scripts look for in the verbose log.
#[test]
fn verbose() {
    let outcome = runs::run(
        &Deployment::new("verbose")
            .cvm(Cvm::new("alone", "/ld.so /app/cap_stream 1"))
            .argument("-v"),
    );
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    for expected in [
        "Using yaml.cfg = ",
        "***************** Deploy 'alone' ***************",
        "BUILDING cvm: name=alone",
        "ALL cVMs loaded",
        "MON: STREAM_CAP[0] 0x",
        "lkl: irqs initialized",
        "clocksource: lkl",
        "CAP_FILE INIT 43 4004e201",
        "CAP_STREAM_HOST INIT 45 4004e401",
        "CAP_BELL INIT 50 4004e601",
        "creating /cap/cf1 1",
        "creating /cap/ch1 1",
        "creating /cap/cg1 1",
    ] {
        assert!(
            outcome.contains(expected),
            "no '{expected}'; printed:\n{}",
            outcome.printed()
        );
    }
}

/// Without -v the user sees what the program prints, and nothing else.
#[test]
fn quiet() {
    let outcome = runs::program("quiet", "/ld.so /app/hello");
    let lines: Vec<_> = outcome.output().collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}
