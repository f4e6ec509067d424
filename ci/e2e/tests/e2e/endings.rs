// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How programs end, and what the monitor says about it.

use std::thread;
use std::time::{Duration, Instant};

use capstream_e2e::{Cvm, Deployment, Outcome, Running};

use crate::runs;

fn ending(name: &str, how: &str) -> Outcome {
    let outcome = runs::run(
        &Deployment::new(name).cvm(Cvm::new("alone", &format!("/ld.so /tests/ending {how}"))),
    );
    let said = format!("about to end by {}", how.split(' ').next().unwrap_or(how));
    assert!(
        outcome.output().any(|line| line == said),
        "the program ran; printed:\n{}",
        outcome.printed()
    );
    outcome
}

/// Asserts the monitor's exit status: the only program's, or 1 when one of several failed.
fn assert_status(outcome: &Outcome, code: i32) {
    assert_eq!(
        outcome.code(),
        code,
        "exit status; printed:\n{}",
        outcome.printed()
    );
}

/// Asserts that the monitor said how a cVM ended.
fn assert_reported(outcome: &Outcome, cvm: &str, report: &str) {
    assert!(
        outcome
            .errors()
            .any(|line| line.contains(cvm) && line.contains(report)),
        "a report of {cvm}'s end with '{report}'; printed:\n{}",
        outcome.printed()
    );
}

#[test]
fn exit_zero() {
    assert_eq!(ending("exit_zero", "exit 0").code(), 0);
}

#[test]
fn exit_three() {
    assert_status(&ending("exit_three", "exit 3"), 3);
}

#[test]
fn exit_with_other_threads() {
    assert_status(&ending("exit_with_other_threads", "threads-exit 7"), 7);
}

#[test]
fn crash() {
    assert_status(&ending("crash", "segv"), 128 + 11);
}

#[test]
fn crash_of_a_thread() {
    assert_status(&ending("crash_of_a_thread", "thread-segv"), 128 + 11);
}

#[test]
fn crash_by_a_jump() {
    assert_status(&ending("crash_by_a_jump", "jump"), 128 + 11);
}

#[test]
fn crash_by_an_instruction() {
    assert_status(&ending("crash_by_an_instruction", "ill"), 128 + 4);
}

/// A division by zero is a fault on some processors, and gives a number on others.
mod needs_division_faults {
    use super::{assert_status, ending};

    #[test]
    fn crash_by_a_division() {
        assert_status(&ending("crash_by_a_division", "fpe"), 128 + 8);
    }
}

#[test]
fn abort() {
    assert_status(&ending("abort", "abort"), 128 + 6);
}

#[test]
fn killed_by_a_signal() {
    assert_status(&ending("killed_by_a_signal", "kill 15"), 128 + 15);
}

/// A program that is not on the disk: the report names it.
#[test]
fn no_such_program() {
    let outcome =
        runs::run(&Deployment::new("no_such_program").cvm(Cvm::new("alone", "/no/such/program")));
    assert_eq!(outcome.code(), 127, "printed:\n{}", outcome.printed());
    assert!(
        outcome.contains("/no/such/program"),
        "printed:\n{}",
        outcome.printed()
    );
    assert_reported(&outcome, "alone", "could not be started");
}

/// A program that wants too much memory in one piece is refused, and goes on.
#[test]
fn too_much_memory_is_refused() {
    runs::checks(
        "too_much_memory_is_refused",
        "/ld.so /tests/memory large",
        2,
    );
}

/// A program that takes all memory bit by bit is ended by its kernel; its neighbours have theirs.
#[test]
fn out_of_memory() {
    let outcome = runs::run(
        &Deployment::new("out_of_memory")
            .cvm(Cvm::new("greedy", "/ld.so /tests/memory small").memory(64))
            .cvm(Cvm::new("worker", "/ld.so /tests/memory large")),
    );
    runs::assert_checks(outcome.output_of("worker"), 2, &outcome.printed());
    assert_reported(&outcome, "greedy", "signal 9");
    assert_reported(&outcome, "greedy", "out of memory");
}

/// A stack that overflows ends its program or its cVM, and no other.
#[test]
fn stack_overflow() {
    let outcome = runs::run(
        &Deployment::new("stack_overflow")
            .cvm(Cvm::new("deep", "/ld.so /tests/ending stack"))
            .cvm(Cvm::new("worker", "/ld.so /tests/threads")),
    );
    runs::assert_checks(outcome.output_of("worker"), 13, &outcome.printed());
    assert_ne!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    assert_reported(&outcome, "deep", "");
}

/// The power button ends a cVM at any time of its start, and is not forgotten.
#[test]
fn power_button_during_the_start() {
    let limit = runs::environment().limit(Duration::from_secs(30));
    let keys = format!("restart: always\nstop_timeout: {}", limit.as_secs());
    let mut running = runs::start(
        &Deployment::new("power_button")
            .controlled()
            .cvm(Cvm::new("alone", "/ld.so /tests/soak receive nobody").keys(&keys)),
    );
    let receiving = |running: &mut Running| running.wait_for_line("receiving", limit).unwrap();
    receiving(&mut running);
    let begin = Instant::now();
    runs::operate(&running, &["restart", "alone"]);
    receiving(&mut running);
    let start = begin.elapsed();
    let presses = u32::try_from(runs::volume(60).max(6)).unwrap();
    for press in 0..presses {
        runs::operate(&running, &["restart", "alone"]);
        // Not for something to happen: this is when the button is pressed.
        thread::sleep(start * press / presses);
    }
    let begin = Instant::now();
    runs::operate(&running, &["stop", "alone"]);
    let outcome = runs::finish(running);
    assert!(
        begin.elapsed() < limit && !outcome.contains("did not power off"),
        "printed:\n{}",
        outcome.printed()
    );
    assert!(
        [0, 128 + 15].contains(&outcome.code()),
        "{}; printed:\n{}",
        outcome.code(),
        outcome.printed()
    );
}

/// One cVM that crashes takes no other with it.
#[test]
fn others_go_on() {
    let outcome = runs::run(
        &Deployment::new("others_go_on")
            .cvm(Cvm::new("crasher", "/ld.so /tests/ending segv"))
            .cvm(Cvm::new("worker", "/ld.so /tests/threads")),
    );
    runs::assert_checks(outcome.output_of("worker"), 13, &outcome.printed());
    assert_status(&outcome, 1);
    assert_reported(&outcome, "crasher", "signal 11");
    // In place of a core dump: the fault, and where the program was.
    assert_reported(&outcome, "ld.so[", "signal 11 at ip");
    assert_reported(&outcome, "ld.so: ", "fatal signal 11");
    if runs::environment().platform == "x86_64" {
        assert_reported(&outcome, " in ending[", "");
        assert_reported(&outcome, "r13 ", "");
    } else {
        // Without virtual memory there is no list of mappings to find it in.
        assert_reported(&outcome, "s11 ", "");
    }
}

/// The monitor's exit status is not 0 as soon as one program's is not, whichever.
#[test]
fn worst_of_several() {
    let outcome = runs::run(
        &Deployment::new("worst_of_several")
            .cvm(Cvm::new("good", "/ld.so /app/hello").wait(-1))
            .cvm(Cvm::new("bad", "/ld.so /tests/ending exit 3").wait(-1))
            .cvm(Cvm::new("last", "/ld.so /app/hello")),
    );
    assert_status(&outcome, 1);
    assert_reported(&outcome, "bad", "status 3");
    assert!(
        outcome
            .output_of("last")
            .any(|line| line.starts_with("Hello from Linux")),
        "printed:\n{}",
        outcome.printed()
    );
}
