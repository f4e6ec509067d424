// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages: the published example in all its modes, and several cVMs.

use capstream_e2e::{Cvm, Deployment, Outcome};

use crate::runs;

/// How many messages the example sends.
fn messages() -> usize {
    runs::volume(10_000)
}

/// Asserts that these lines are the receiver's, one for each message, in order.
fn assert_in_order<'a>(lines: impl Iterator<Item = &'a str>, count: usize, outcome: &Outcome) {
    let received: Vec<_> = lines.filter(|line| line.contains("recv = ")).collect();
    assert_eq!(
        received.len(),
        count,
        "number of messages; printed:\n{}",
        outcome.printed()
    );
    for (number, line) in received.iter().enumerate() {
        let expected = format!("{:<7} recv = 'send {number}'", format!("{number}:"));
        assert_eq!(*line, expected);
    }
}

/// Mode 1, with the lines that the published run prints.
#[test]
fn single() {
    let outcome = runs::program("single", "/ld.so /app/cap_stream 1");
    let lines: Vec<_> = outcome.output().collect();
    let at = lines
        .iter()
        .position(|line| *line == "Testing CF_STREAMs, single thread")
        .expect("the first line");
    let between =
        |line: &str, begin: &str, end: &str| line.starts_with(begin) && line.ends_with(end);
    let expected = [
        (
            "RECV:   clear ('') and publish ptr(0x",
            ") with key 'key1' via /cap/ch1",
        ),
        (
            "SEND:   sending ptr (0x",
            ") with 'text for ptr' via /cap/ch2 (3)",
        ),
        ("RECV:   Check ptr (0x", ") after wait: 'text for ptr'"),
    ];
    let mut rest = lines[at + 1..].iter();
    for (begin, end) in expected {
        assert!(
            rest.any(|line| between(line, begin, end)),
            "no line '{begin}…{end}' in its place: {lines:#?}"
        );
    }
}

/// Mode 1 as a static executable.
#[test]
fn single_static() {
    let outcome = runs::program("single_static", "/static/app/cap_stream 1");
    assert!(
        outcome
            .output()
            .any(|line| line.ends_with(") after wait: 'text for ptr'")),
        "{}",
        outcome.printed()
    );
}

/// Mode 2: receiver and sender as threads of one program.
#[test]
fn two_threads() {
    let count = messages();
    let outcome = runs::program("two_threads", &format!("/ld.so /app/cap_stream 2 {count}"));
    assert_in_order(outcome.output(), count, &outcome);
}

fn dual(name: &str, receiver_first: bool, wait: i64) {
    let count = messages();
    let receiver = Cvm::new("receiver", &format!("/ld.so /app/cap_stream 3 {count}"));
    let sender = Cvm::new("sender", &format!("/ld.so /app/cap_stream 4 {count}"));
    let (first, second) = if receiver_first {
        (receiver, sender)
    } else {
        (sender, receiver)
    };
    let outcome = runs::succeed(&Deployment::new(name).cvm(first.wait(wait)).cvm(second));
    assert_in_order(outcome.output_of("receiver"), count, &outcome);
}

/// Modes 3 and 4 in two cVMs that start at the same time.
#[test]
fn dual_at_once() {
    dual("dual_at_once", true, 0);
}

/// The sender is listed first, at the same time.
#[test]
fn dual_at_once_sender_first() {
    dual("dual_at_once_sender_first", false, 0);
}

/// The receiver is there long before the sender.
#[test]
fn dual_receiver_first() {
    dual("dual_receiver_first", true, 1);
}

/// The sender waits for a key that comes later.
#[test]
fn dual_sender_first() {
    dual("dual_sender_first", false, 1);
}

/// Several cVMs send to one.
#[test]
fn several_senders() {
    const SENDERS: usize = 3;
    let count = runs::volume(2000);
    let mut deployment = Deployment::new("several_senders").cvm(Cvm::new(
        "collect",
        &format!("/ld.so /tests/stream_peer collect {SENDERS} {count}"),
    ));
    for sender in 0..SENDERS {
        // Sizes that are no multiple of anything.
        let size = 12 + sender * 3001;
        deployment = deployment.cvm(Cvm::new(
            &format!("send{sender}"),
            &format!("/ld.so /tests/stream_peer send {sender} {count} {size}"),
        ));
    }
    let outcome = runs::succeed(&deployment);
    runs::assert_checks(outcome.output_of("collect"), 2, &outcome.printed());
    for sender in 0..SENDERS {
        runs::assert_checks(
            outcome.output_of(&format!("send{sender}")),
            1,
            &outcome.printed(),
        );
    }
}

/// A sender learns that its receiver's cVM ended.
#[test]
fn receiver_leaves() {
    let outcome = runs::succeed(
        &Deployment::new("receiver_leaves")
            .cvm(Cvm::new("leaver", "/ld.so /tests/stream_peer leave 100"))
            .cvm(Cvm::new("sender", "/ld.so /tests/stream_peer until-hangup")),
    );
    runs::assert_checks(outcome.output_of("sender"), 4, &outcome.printed());
}

/// A sender whose receiver's cVM ended probes again, at the same node, and goes on with the next receiver.
#[test]
fn sender_reconnects() {
    const RECEIVERS: usize = 3;
    let mut deployment = Deployment::new("sender_reconnects").cvm(Cvm::new(
        "sender",
        &format!("/ld.so /tests/stream_peer reconnect {RECEIVERS}"),
    ));
    for receiver in 0..RECEIVERS {
        // Each after the one before has ended.
        let name = format!("receiver{receiver}");
        deployment =
            deployment.cvm(Cvm::new(&name, "/ld.so /tests/stream_peer leave 100").wait(-1));
    }
    let outcome = runs::succeed(&deployment);
    runs::assert_checks(outcome.output_of("sender"), 14, &outcome.printed());
}

/// A receiver goes on when one of its senders crashed, and its key and buffers still serve the next.
#[test]
fn sender_crashes() {
    let count = runs::volume(1000);
    let collect = format!("/ld.so /tests/stream_peer collect 1 {count}");
    let send = format!("/ld.so /tests/stream_peer send 0 {count} 100");
    let outcome = runs::run(
        &Deployment::new("sender_crashes")
            .cvm(Cvm::new("collect", &collect))
            .cvm(Cvm::new("crasher", "/ld.so /tests/ending segv").wait(-1))
            .cvm(Cvm::new("sender", &send)),
    );
    runs::assert_checks(outcome.output_of("collect"), 2, &outcome.printed());
    assert_ne!(
        outcome.code(),
        0,
        "one program crashed; printed:\n{}",
        outcome.printed()
    );
}
