// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many cVMs in one process.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

/// Ten cVMs at once, each with work of its own.
#[test]
fn ten_at_once() {
    let mut deployment = Deployment::new("ten_at_once");
    for number in 0..10 {
        deployment =
            deployment.cvm(Cvm::new(&format!("cvm{number}"), "/ld.so /tests/threads").memory(64));
    }
    let outcome = runs::succeed(&deployment);
    for number in 0..10 {
        runs::assert_checks(
            outcome.output_of(&format!("cvm{number}")),
            13,
            &outcome.printed(),
        );
    }
}

/// A cVM that has ended leaves nothing behind: the next one finds the key free.
#[test]
fn one_after_the_other() {
    let mut deployment = Deployment::new("one_after_the_other");
    for number in 0..10 {
        deployment = deployment.cvm(
            Cvm::new(&format!("cvm{number}"), "/ld.so /app/cap_stream 1")
                .memory(64)
                .wait(-1),
        );
    }
    let outcome = runs::succeed(&deployment);
    let received = outcome
        .output()
        .filter(|line| line.ends_with("after wait: 'text for ptr'"))
        .count();
    assert_eq!(
        received,
        10,
        "each finds the key free again; printed:\n{}",
        outcome.printed()
    );
}
