// SPDX-License-Identifier: Apache-2.0 OR MIT
//! cVMs that overstep, where the processor knows capabilities: each gets a capability exception, whose report says what it was, and dies
//! alone.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use support::{Deployment, is_native};

/// How far apart cVMs are in a [`Deployment`].
const STRIDE: u64 = 0x400_0000;
/// Where its second one begins.
const SECOND: u64 = 0x2000_0000 + STRIDE;

/// A guest that does `what` is ended with this in the report. A neighbour that was there before, and one that starts afterwards, exchange
/// messages then.
fn is_ended(what: &str, reports: &[&str]) {
    if is_native() {
        return;
    }
    let ended = Deployment::new()
        .cvm("before", &["receiver", "1", "200"])
        .cvm_with(
            "hostile",
            &["overstep", what, &STRIDE.to_string()],
            "wait: -1",
        )
        .cvm("behind", &["sender", "0", "200"])
        .run()
        .expect(123);
    assert!(
        ended.err.contains("cVM `hostile`: its kernel was stopped"),
        "{what}: {ended:?}"
    );
    for report in reports {
        assert!(ended.err.contains(report), "{what}: {ended:?}");
    }
    assert!(!ended.out.contains("nothing stopped it"), "{ended:?}");
    assert!(ended.out.contains("before: received 200\n"), "{ended:?}");
    for other in ["before", "behind"] {
        assert!(!ended.err.contains(&format!("cVM `{other}`")), "{ended:?}");
    }
}

/// It is ended by a capability exception of this cause in this register.
fn is_stopped(what: &str, cause: u64, words: &str, register: &str) {
    let report =
        format!("capability exception: cause {cause:#x} ({words}), register {register}, pc");
    let bounds = format!("ddc: tag 1, sealed 0, perms 0x11d, base {SECOND:#x}, length {STRIDE:#x}");
    is_ended(what, &[&report, &bounds]);
}

const LENGTH: &str = "length violation";

#[test]
fn reading_a_neighbour_is_stopped() {
    is_stopped("load_neighbour", 1, LENGTH, "ddc");
}

#[test]
fn writing_to_a_neighbour_is_stopped() {
    is_stopped("store_neighbour", 1, LENGTH, "ddc");
}

#[test]
fn jumping_into_a_neighbour_is_stopped() {
    is_stopped("jump_neighbour", 1, LENGTH, "pcc");
}

#[test]
fn reading_the_monitor_is_stopped() {
    is_stopped("load_monitor", 1, LENGTH, "ddc");
}

#[test]
fn writing_to_the_monitor_is_stopped() {
    is_stopped("store_monitor", 1, LENGTH, "ddc");
}

#[test]
fn jumping_into_the_monitor_is_stopped() {
    is_stopped("jump_monitor", 1, LENGTH, "pcc");
}

#[test]
fn reading_beyond_the_end_is_stopped() {
    is_stopped("load_beyond", 1, LENGTH, "ddc");
}

#[test]
fn reading_across_the_end_is_stopped() {
    is_stopped("load_across", 1, LENGTH, "ddc");
}

#[test]
fn writing_before_the_begin_is_stopped() {
    is_stopped("store_before", 1, LENGTH, "ddc");
}

#[test]
fn a_forged_copy_of_a_capability_is_none() {
    is_stopped("forge", 2, "tag violation", "ct0");
}

#[test]
fn a_capability_made_of_integers_is_none() {
    is_stopped("forge_bounds", 2, "tag violation", "ct0");
}

#[test]
fn a_sealed_capability_cannot_be_used() {
    is_stopped("use_sealed", 3, "seal violation", "ct0");
}

#[test]
fn code_of_the_monitor_cannot_be_invoked_with_other_data() {
    is_stopped("mix", 4, "type violation", "ct0");
}

#[test]
fn a_capability_cannot_be_kept_in_memory() {
    is_stopped("keep", 0x15, "no permission to store a capability", "ddc");
}

/// User mode has no such instruction, whatever its capabilities.
#[test]
fn registers_of_the_machine_are_out_of_reach() {
    is_ended("system", &["illegal instruction (signal 4, code 1)"]);
}

/// The newer generation clears the tag, and the use of it is what traps.
#[test]
fn bounds_cannot_be_widened() {
    if support::platform() == "cheri-riscv64" {
        is_stopped("widen", 1, LENGTH, "ct0");
    } else {
        is_stopped("widen", 2, "tag violation", "ct0");
    }
}

#[test]
fn a_capability_of_the_monitor_cannot_be_unsealed() {
    if support::platform() == "cheri-riscv64" {
        is_stopped("unseal", 4, "type violation", "ct1");
    } else {
        is_stopped("unseal", 2, "tag violation", "ct0");
    }
}

#[test]
fn what_a_portal_was_given_is_gone_when_it_is_over() {
    if is_native() {
        return;
    }
    let ended = Deployment::new()
        .cvm("receiver", &["use_stale_grant"])
        .cvm("sender", &["send_once"])
        .run()
        .expect(123);
    assert!(
        ended.out.contains("sender: the sender goes on\n"),
        "{ended:?}"
    );
    assert!(
        ended.err.contains("cVM `receiver`: its kernel was stopped")
            && ended
                .err
                .contains("cause 0x2 (tag violation), register ct1"),
        "{ended:?}"
    );
    assert!(!ended.err.contains("cVM `sender`"), "{ended:?}");
}
