// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bells by the client crate.
//!
//! ```text
//! client_bell wait COUNT     takes what is rung, until there were COUNT units, then rings back once
//! client_bell ring COUNT     rings as often, with one unit each, then waits to be rung
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use capstream_client::{Bell, Error};
use capstream_programs::{Checks, Failure, equal, fails_with, number};

/// Longer than anything takes here; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(20);

fn wait(checks: &mut Checks, count: u64) -> Result<(), Failure> {
    let bell = Bell::open(1)?;
    checks.check("nobody has rung", || {
        fails_with!(bell.try_wait(), Error::WouldBlock { .. }, "/cap/cg1")?;
        fails_with!(
            bell.wait_timeout(MOMENT),
            Error::TimedOut { .. },
            "/cap/cg1"
        )?;
        fails_with!(bell.ring(1), Error::NotConnected { .. }, "/cap/cg1")
    });
    bell.advertise("door")?;
    let mut units = 0;
    while units < count {
        units += bell.wait_timeout(LIMIT)?;
    }
    checks.check("every unit was taken once", || {
        equal(units, count)?;
        equal(bell.stats()?.rings, count)?;
        equal(bell.stats()?.count, 0)
    });
    bell.probe("back")?;
    bell.ring(u64::MAX - 1)?;
    // The other end takes them before it ends.
    bell.wait_timeout(LIMIT)?;
    Ok(())
}

fn ring(checks: &mut Checks, count: u64) -> Result<(), Failure> {
    let bell = Bell::open(2)?;
    bell.advertise("back")?;
    bell.probe("door")?;
    checks.check("a key of another cVM is KeyTaken", || {
        let other = Bell::open(1)?;
        fails_with!(
            other.advertise("door"),
            Error::KeyTaken { .. },
            "door",
            "/cap/cg1"
        )
    });
    for _ in 0..count {
        bell.ring(1)?;
    }
    checks.check("rung back by as much as a count can be", || {
        equal(bell.wait_readable(Some(LIMIT))?, true)?;
        equal(bell.wait()?, u64::MAX - 1)
    });
    bell.ring(1)?;
    checks.check("a bell that ends is PeerGone", || {
        let gone = loop {
            match bell.try_ring(1) {
                Ok(()) => std::thread::yield_now(),
                other => break other,
            }
        };
        fails_with!(gone, Error::PeerGone { .. }, "/cap/cg2")
    });
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut checks = Checks::new();
    let result = number(&arguments, 1).and_then(|count| match arguments[0].as_str() {
        "wait" => wait(&mut checks, count.into()),
        "ring" => ring(&mut checks, count.into()),
        _ => Err("see the head of client_bell.rs".into()),
    });
    if let Err(error) = result {
        checks.check("it came to its end", || Err(error));
    }
    checks.end()
}
