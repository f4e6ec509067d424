// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs in Rust that use the crate for programs, and what they have to do with those in C.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

/// A cVM with the disk of the programs in Rust.
fn cvm(name: &str, args: &str) -> Cvm {
    Cvm::new(name, args).disk("rust.ext4")
}

/// Runs cVMs that check something, each with the least number of checks.
fn checks(name: &str, cvms: &[(&str, &str, u32)]) {
    let mut deployment = Deployment::new(name);
    for (name, args, _) in cvms {
        deployment = deployment.cvm(cvm(name, args));
    }
    let outcome = runs::succeed(&deployment);
    for (name, _, least) in cvms {
        runs::assert_checks(outcome.output_of(name), *least, &outcome.printed());
    }
}

/// The example that the documentation shows.
#[test]
fn talk() {
    let outcome = runs::succeed(
        &Deployment::new("client_talk")
            .cvm(cvm("receiver", "/app/talk receive"))
            .cvm(cvm("sender", "/app/talk send")),
    );
    let received: Vec<_> = outcome.output_of("receiver").collect();
    assert_eq!(
        received,
        [
            "10 bytes: greeting 0",
            "10 bytes: greeting 1",
            "10 bytes: greeting 2"
        ]
    );
}

/// In one cVM: errors say what, where and what to do; dropped messages queue their buffers again; waits end.
#[test]
fn errors_and_buffers() {
    let outcome = runs::succeed(
        &Deployment::new("client_errors").cvm(cvm("alone", "/tests/client_stream errors")),
    );
    runs::assert_checks(outcome.output(), 31, &outcome.printed());
}

/// Senders in Rust and in C, a receiver in Rust.
#[test]
fn receiver_in_rust() {
    let count = runs::volume(1000);
    checks(
        "client_receiver",
        &[
            (
                "collect",
                &format!("/tests/client_stream collect 2 {count}"),
                2,
            ),
            (
                "rust",
                &format!("/tests/client_stream send 0 {count} 65536"),
                1,
            ),
            (
                "c",
                &format!("/ld.so /tests/stream_peer send 1 {count} 777"),
                1,
            ),
        ],
    );
}

/// A sender in Rust, a receiver in C.
#[test]
fn sender_in_rust() {
    let count = runs::volume(1000);
    checks(
        "client_sender",
        &[
            (
                "collect",
                &format!("/ld.so /tests/stream_peer collect 1 {count}"),
                2,
            ),
            (
                "rust",
                &format!("/tests/client_stream send 0 {count} 5001"),
                1,
            ),
        ],
    );
}

/// A key that another cVM has.
#[test]
fn key_taken() {
    checks(
        "client_key_taken",
        &[
            ("holder", "/tests/client_stream hold held", 1),
            ("other", "/tests/client_stream taken held", 1),
        ],
    );
}

/// A sender learns that its receiver's cVM has ended, and connects to the next one.
#[test]
fn peer_gone() {
    let outcome = runs::succeed(
        &Deployment::new("client_peer_gone")
            .cvm(cvm("sender", "/tests/client_stream until-gone"))
            .cvm(cvm("leaver", "/ld.so /tests/stream_peer leave 100").wait(-1))
            .cvm(cvm("next", "/tests/client_stream again")),
    );
    runs::assert_checks(outcome.output_of("sender"), 3, &outcome.printed());
    runs::assert_checks(outcome.output_of("next"), 1, &outcome.printed());
}

/// One thread waits for two streams and a timer.
#[test]
fn two_streams_and_a_timer() {
    let count = runs::volume(2000);
    checks(
        "client_async",
        &[
            (
                "receiver",
                &format!("/tests/client_async receive {count}"),
                3,
            ),
            (
                "first",
                &format!("/tests/client_async send first {count}"),
                3,
            ),
            (
                "second",
                &format!("/tests/client_async send second {count}"),
                3,
            ),
        ],
    );
}

/// Memory of one cVM in another, until it is taken back.
#[test]
fn shared_memory() {
    checks(
        "client_file",
        &[
            ("publisher", "/tests/client_file publish", 4),
            ("user", "/tests/client_file use", 8),
        ],
    );
}

/// A bell of one cVM, rung by another, and back.
#[test]
fn bells() {
    let count = runs::volume(1000);
    checks(
        "client_bells",
        &[
            ("waiter", &format!("/tests/client_bell wait {count}"), 2),
            ("ringer", &format!("/tests/client_bell ring {count}"), 3),
        ],
    );
}
