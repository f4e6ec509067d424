// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bells between cVMs.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

fn peer(name: &str, role: &str) -> Cvm {
    Cvm::new(name, &format!("/ld.so /tests/bell_peer {role}"))
}

/// Several cVMs ring one bell: every unit arrives once.
#[test]
fn several_ringers() {
    const RINGERS: usize = 3;
    let rings = runs::volume(5000);
    let total = RINGERS * rings * (rings + 1) / 2;
    let mut deployment =
        Deployment::new("several_ringers").cvm(peer("owner", &format!("collect {total}")));
    for ringer in 0..RINGERS {
        deployment = deployment.cvm(peer(&format!("ringer{ringer}"), &format!("ring {rings}")));
    }
    let outcome = runs::succeed(&deployment);
    runs::assert_checks(outcome.output_of("owner"), 2, &outcome.printed());
    for ringer in 0..RINGERS {
        let name = format!("ringer{ringer}");
        runs::assert_checks(outcome.output_of(&name), 1, &outcome.printed());
    }
}

/// A ringer learns that the owner's cVM ended.
#[test]
fn owner_leaves() {
    let outcome = runs::succeed(
        &Deployment::new("owner_leaves")
            .cvm(peer("owner", "leave 20"))
            .cvm(peer("ringer", "until-hangup")),
    );
    runs::assert_checks(outcome.output_of("ringer"), 4, &outcome.printed());
}

/// The end of the owner's cVM wakes a ringer that waits for room.
#[test]
fn owner_ends_while_a_ringer_waits() {
    let outcome = runs::succeed(
        &Deployment::new("owner_ends_while_a_ringer_waits")
            .cvm(peer("owner", "full"))
            .cvm(peer("ringer", "blocked")),
    );
    runs::assert_checks(outcome.output_of("ringer"), 1, &outcome.printed());
}
