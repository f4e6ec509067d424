// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs that end a test when they do not go as they should.

use std::time::Duration;

use capstream_e2e::{Cvm, Deployment, Environment, Outcome, Running};

/// Longer than any run here takes on the platform of every day, also on a machine that has other work; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(120);

/// What the environment variables name.
pub fn environment() -> Environment {
    match Environment::from_variables() {
        Ok(environment) => environment,
        Err(error) => panic!("{error}"),
    }
}

/// How many of something there are to be where the number is for volume alone.
pub fn volume(count: usize) -> usize {
    environment().volume(count)
}

/// Starts a deployment.
pub fn start(deployment: &Deployment) -> Running {
    match deployment.start(&environment()) {
        Ok(running) => running,
        Err(error) => panic!("{error}"),
    }
}

/// Runs a deployment to its end, however it ends.
pub fn run(deployment: &Deployment) -> Outcome {
    finish(start(deployment))
}

/// Waits for the end of what was started, however it ends.
pub fn finish(running: Running) -> Outcome {
    match running.finish(environment().limit(LIMIT)) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error}"),
    }
}

/// An operating command, which has to succeed.
pub fn operate(running: &Running, words: &[&str]) {
    if let Err(error) = running.operate(&environment().monitor, words) {
        panic!("{error}");
    }
}

/// Runs a deployment in which every program succeeds.
pub fn succeed(deployment: &Deployment) -> Outcome {
    let outcome = run(deployment);
    assert_eq!(
        outcome.code(),
        0,
        "exit status; printed:\n{}",
        outcome.printed()
    );
    outcome
}

/// Runs a program alone in a cVM, successfully.
pub fn program(name: &str, args: &str) -> Outcome {
    succeed(&Deployment::new(name).cvm(Cvm::new("alone", args)))
}

/// What the last line of a test program says: how many checks it made, and how many failed.
fn verdict(lines: &[&str]) -> Option<(u32, u32)> {
    lines.iter().rev().find_map(|line| {
        let (checks, rest) = line.split_once(" checks, ")?;
        let failures = rest.strip_suffix(" failures")?;
        Some((checks.parse().ok()?, failures.parse().ok()?))
    })
}

/// Asserts that a test program came to its end and found nothing wrong, in at least so many checks.
pub fn assert_checks<'a>(lines: impl Iterator<Item = &'a str>, least: u32, printed: &str) {
    let lines: Vec<_> = lines.collect();
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("FAIL "))
        .collect();
    assert!(
        failed.is_empty(),
        "failed checks: {failed:#?}; printed:\n{printed}"
    );
    let Some((checks, failures)) = verdict(&lines) else {
        panic!("the test program did not come to its end; printed:\n{printed}");
    };
    assert_eq!(failures, 0, "printed:\n{printed}");
    assert!(
        checks >= least,
        "{checks} checks instead of {least} or more; printed:\n{printed}"
    );
}

/// Runs a test program alone in a cVM.
pub fn checks(name: &str, args: &str, least: u32) {
    let outcome = run(&Deployment::new(name).cvm(Cvm::new("alone", args)));
    assert_checks(outcome.output(), least, &outcome.printed());
    assert_eq!(
        outcome.code(),
        0,
        "exit status; printed:\n{}",
        outcome.printed()
    );
}
