// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every interleaving of the two protocols without locks. Run with `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use capstream_capability::{ArmedSet, Revocation};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// What is used inside. Loom reports a use that is not ordered before or after its end.
struct Shared {
    revocation: Revocation,
    memory: UnsafeCell<u32>,
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        revocation: Revocation::new(),
        memory: UnsafeCell::new(0),
    })
}

/// One attempt to use it; returns whether it got inside.
fn attempt(shared: &Shared) -> bool {
    let Some(_inside) = shared.revocation.enter() else {
        return false;
    };
    shared.memory.with(|_| ());
    true
}

/// Every interleaving with so many preemptions at most: with three threads there are too many of all.
fn check(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(body);
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn nobody_is_inside_after_a_revocation() {
    check(3, || {
        let shared = shared();
        let users: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || attempt(&shared))
            })
            .collect();
        shared.revocation.revoke();
        assert!(shared.revocation.wait_drained(far()));
        shared.memory.with_mut(|_| ());
        assert!(shared.revocation.enter().is_none());
        for user in users {
            user.join().unwrap();
        }
        assert_eq!(shared.revocation.in_flight(), 0);
    });
}

#[test]
fn late_users_do_not_keep_a_revocation_waiting() {
    loom::model(|| {
        let shared = shared();
        let user = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                attempt(&shared);
                attempt(&shared);
            })
        };
        shared.revocation.revoke();
        assert!(shared.revocation.wait_drained(far()));
        shared.memory.with_mut(|_| ());
        user.join().unwrap();
    });
}

#[test]
fn two_revocations_both_wait() {
    loom::model(|| {
        let shared = shared();
        let user = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || attempt(&shared))
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let first = shared.revocation.revoke();
                assert!(shared.revocation.wait_drained(far()));
                shared.memory.with(|_| ());
                first
            })
        };
        let first = shared.revocation.revoke();
        assert!(shared.revocation.wait_drained(far()));
        shared.memory.with(|_| ());
        user.join().unwrap();
        assert_ne!(first, other.join().unwrap());
        shared.memory.with_mut(|_| ());
    });
}

/// Waits by the protocol; returns whether it would go to sleep.
fn sleeps(set: &ArmedSet, changed: &AtomicBool, index: u16) -> bool {
    set.arm(index);
    !changed.load(Ordering::Relaxed)
}

/// Changes by the protocol; returns whom it wakes.
fn change(set: &ArmedSet, changed: &AtomicBool) -> Vec<u16> {
    changed.store(true, Ordering::Relaxed);
    set.take().into_iter().flatten().collect()
}

#[test]
fn a_waiter_sees_the_change_or_is_woken() {
    loom::model(|| {
        let set = Arc::new(ArmedSet::new());
        let changed = Arc::new(AtomicBool::new(false));
        let waiter = {
            let (set, changed) = (Arc::clone(&set), Arc::clone(&changed));
            thread::spawn(move || sleeps(&set, &changed, 70))
        };
        let woken = change(&set, &changed);
        if waiter.join().unwrap() {
            assert_eq!(woken, [70]);
        }
    });
}

#[test]
fn two_waiters_in_one_word_are_both_woken() {
    check(3, || {
        let set = Arc::new(ArmedSet::new());
        let changed = Arc::new(AtomicBool::new(false));
        let waiters: Vec<_> = [64, 70]
            .into_iter()
            .map(|index| {
                let (set, changed) = (Arc::clone(&set), Arc::clone(&changed));
                thread::spawn(move || sleeps(&set, &changed, index).then_some(index))
            })
            .collect();
        let woken = change(&set, &changed);
        for waiter in waiters {
            if let Some(index) = waiter.join().unwrap() {
                assert!(
                    woken.contains(&index),
                    "{index} sleeps, woken are {woken:?}"
                );
            }
        }
    });
}

#[test]
fn of_two_changers_one_wakes() {
    check(3, || {
        let set = Arc::new(ArmedSet::new());
        let changes = [
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        ];
        let waiter = {
            let (set, changed) = (Arc::clone(&set), Arc::clone(&changes[0]));
            thread::spawn(move || sleeps(&set, &changed, 70))
        };
        let other = {
            let (set, changed) = (Arc::clone(&set), Arc::clone(&changes[1]));
            thread::spawn(move || change(&set, &changed))
        };
        let mut woken = change(&set, &changes[0]);
        woken.extend(other.join().unwrap());
        if waiter.join().unwrap() {
            assert_eq!(woken, [70]);
        }
    });
}

/// What `Wait` does while its endpoint is taken back: whoever would sleep is told.
#[test]
fn a_waiter_sees_the_revocation_or_is_woken() {
    loom::model(|| {
        let (set, revocation) = (Arc::new(ArmedSet::new()), Arc::new(Revocation::new()));
        let waiter = {
            let (set, revocation) = (Arc::clone(&set), Arc::clone(&revocation));
            thread::spawn(move || {
                set.arm(70);
                !revocation.is_revoked()
            })
        };
        revocation.revoke();
        assert!(revocation.wait_drained(far()));
        let woken: Vec<u16> = set.take().into_iter().flatten().collect();
        if waiter.join().unwrap() {
            assert_eq!(woken, [70]);
        }
    });
}

/// A cVM that gives its last handle back does not take others out of the set.
#[test]
fn who_stops_waiting_leaves_others_in_the_set() {
    check(3, || {
        let set = Arc::new(ArmedSet::new());
        let changed = Arc::new(AtomicBool::new(false));
        set.arm(64);
        let waiter = {
            let (set, changed) = (Arc::clone(&set), Arc::clone(&changed));
            thread::spawn(move || sleeps(&set, &changed, 70))
        };
        let leaver = {
            let set = Arc::clone(&set);
            thread::spawn(move || set.disarm(64))
        };
        let woken = change(&set, &changed);
        leaver.join().unwrap();
        if waiter.join().unwrap() {
            assert!(woken.contains(&70), "70 sleeps, woken are {woken:?}");
        }
        assert!(woken.iter().all(|index| [64, 70].contains(index)));
    });
}
