// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What programs see of grants and limits.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

/// Two cVMs that may do what they do, and nothing else.
#[test]
fn granted_streams_work() {
    let outcome = runs::succeed(
        &Deployment::new("granted_streams_work")
            .cvm(
                Cvm::new("receiver", "/ld.so /app/cap_stream 3 10")
                    .keys("grants: [{ kind: stream, keys: key1, may: advertise }]"),
            )
            .cvm(
                Cvm::new("sender", "/ld.so /app/cap_stream 4 10")
                    .keys("grants: [{ kind: stream, keys: \"k*1\", may: probe }]"),
            ),
    );
    assert_eq!(
        outcome.output_of("receiver").last(),
        Some("9:      recv = 'send 9'"),
        "{}",
        outcome.printed()
    );
}

/// A program gets `EACCES` at once, and the monitor says why.
#[test]
fn refused_probe() {
    let outcome = runs::run(
        &Deployment::new("refused_probe")
            .cvm(
                Cvm::new("user", "/ld.so /app/cap_file test1")
                    .keys("grants: [{ kind: file, keys: other }]"),
            )
            .capfile("test1", 0x20, "secret"),
    );
    assert_eq!(outcome.code(), 1, "{}", outcome.printed());
    assert!(
        outcome.contains("Permission denied"),
        "{}",
        outcome.printed()
    );
    assert!(!outcome.contains("secret"), "{}", outcome.printed());
    let refusals = outcome
        .errors()
        .filter(|line| line.contains("use the file `test1`"));
    assert_eq!(refusals.count(), 1, "{}", outcome.printed());
}

/// A file that may be read only is read, and not written, though whoever publishes it would allow that.
#[test]
fn read_only_file() {
    let outcome = runs::run(
        &Deployment::new("read_only_file")
            .cvm(
                Cvm::new("user", "/ld.so /app/cap_file test1")
                    .keys("grants: [{ kind: file, keys: test1, access: read-only }]"),
            )
            .capfile("test1", 0x20, "before"),
    );
    assert_eq!(outcome.code(), 1, "{}", outcome.printed());
    assert!(
        outcome.contains("read 32 bytes ('before')"),
        "{}",
        outcome.printed()
    );
    assert!(
        outcome.contains("write: Permission denied"),
        "{}",
        outcome.printed()
    );
}

/// The kernel has no more memory than its limit, and its image.
#[test]
fn memory_limit() {
    runs::succeed(
        &Deployment::new("memory_limit").cvm(
            Cvm::new("small", "/ld.so /app/hello")
                .memory(256)
                .keys("limits: { memory: 64M }"),
        ),
    );
    let log = runs::environment().output.join("memory_limit/small.log");
    let log = std::fs::read_to_string(log).unwrap();
    // Memory: 63184K/70752K available
    let (before, _) = log.split_once("K available").expect(&log);
    let (_, total) = before.rsplit_once('/').unwrap();
    let total: u64 = total.parse().unwrap();
    assert!((64 << 10..80 << 10).contains(&total), "{total}");
}

/// A program that writes without end is cut, in the middle of its output and not at its end only.
#[test]
fn output_limit() {
    let outcome =
        runs::succeed(&Deployment::new("output_limit").cvm(
            Cvm::new("loud", "/ld.so /app/cap_stream 2 5000").keys("limits: { log_rate: 1K }"),
        ));
    assert!(
        outcome.contains("bytes were dropped here: more than 1024 in a second"),
        "{}",
        outcome.printed()
    );
    assert!(outcome.output().count() < 5000);
}

/// A program waits, or is told so, when its cVM has sent what it may in a second.
#[test]
fn message_limit() {
    let outcome = runs::succeed(&Deployment::new("message_limit").cvm(
        Cvm::new("limited", "/ld.so /tests/stream_quota 10").keys("limits: { messages: 10 }"),
    ));
    runs::assert_checks(outcome.output(), 11, &outcome.printed());
}

/// The number of buffers of all streams together is a limit of the cVM.
#[test]
fn buffer_limit() {
    let outcome =
        runs::succeed(&Deployment::new("buffer_limit").cvm(
            Cvm::new("limited", "/ld.so /tests/stream_buffers 5").keys("limits: { buffers: 5 }"),
        ));
    runs::assert_checks(outcome.output(), 14, &outcome.printed());
}
