// SPDX-License-Identifier: GPL-2.0-only
//! What programs may rely on at a bell: every unit is taken once, and all that waits is woken.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use capstream_core::bell::MAX_COUNT;
use capstream_core::{Errno, Key};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use world::{BellNode, Cvm, Endpoint, World};

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

#[test]
fn units_add_up_and_are_taken_together() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let owner = BellNode::owner(&a, "k");
    let ringer = BellNode::ringer(&b, "k");
    assert_eq!(owner.take(true), Err(Errno::AGAIN));
    ringer.ring(3, true).unwrap();
    ringer.ring(0, true).unwrap();
    ringer.ring(4, true).unwrap();
    assert_eq!(owner.take(true), Ok(7));
    assert_eq!(owner.take(true), Err(Errno::AGAIN));
    let stats = owner.bell().stats();
    assert_eq!((stats.rings, stats.added), (3, 7));
    assert_eq!((stats.takes, stats.taken, stats.count), (1, 7, 0));
    assert_eq!(ringer.bell().stats().sent_rings, 3);
}

#[test]
fn what_does_not_fit_waits_until_units_are_taken() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let owner = BellNode::owner(&a, "k");
    let ringer = BellNode::ringer(&b, "k");
    assert_eq!(ringer.ring(u64::MAX, true), Err(Errno::INVAL));
    ringer.ring(MAX_COUNT, true).unwrap();
    assert_eq!(ringer.ring(1, true), Err(Errno::AGAIN));
    assert!(!ringer.bell().poll().writable);
    thread::scope(|scope| {
        let rung = scope.spawn(|| ringer.ring(5, false));
        b.await_sleepers(1);
        assert_eq!(owner.take(true), Ok(MAX_COUNT));
        assert_eq!(rung.join().unwrap(), Ok(()));
    });
    assert!(ringer.bell().poll().writable);
    assert_eq!(owner.take(true), Ok(5));
    assert_eq!(owner.bell().stats().no_room, 3);
}

#[test]
fn a_program_that_cannot_be_told_takes_nothing() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let owner = BellNode::owner(&cvm, "k");
    BellNode::ringer(&cvm, "k").ring(2, true).unwrap();
    let refused = owner.bell().take(true, |_| Err(Errno::FAULT));
    assert_eq!(refused, Err(Errno::FAULT));
    assert_eq!(owner.take(true), Ok(2));
}

#[test]
fn waits_end_by_a_ring_a_signal_and_a_reset() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let owner = BellNode::owner(&a, "k");
    let ringer = BellNode::ringer(&b, "k");
    thread::scope(|scope| {
        let taken = scope.spawn(|| owner.take(false));
        a.await_sleepers(1);
        ringer.ring(1, false).unwrap();
        assert_eq!(taken.join().unwrap(), Ok(1));
        let taken = scope.spawn(|| owner.take(false));
        a.await_sleepers(1);
        a.kill();
        assert_eq!(taken.join().unwrap(), Err(Errno::INTR));
        a.signal.store(false, Ordering::SeqCst);
        let taken = scope.spawn(|| owner.take(false));
        a.await_sleepers(1);
        owner.bell().reset().unwrap();
        assert_eq!(taken.join().unwrap(), Err(Errno::CANCELED));
    });
}

#[test]
fn a_bell_that_is_gone_is_a_broken_pipe_until_it_is_probed_again() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let owner = BellNode::owner(&a, "k");
    let ringer = BellNode::ringer(&b, "k");
    assert_eq!(BellNode::new(&b).ring(1, true), Err(Errno::NOTCONN));
    ringer.ring(MAX_COUNT, true).unwrap();
    thread::scope(|scope| {
        let rung = scope.spawn(|| ringer.ring(1, false));
        b.await_sleepers(1);
        owner.bell().reset().unwrap();
        assert_eq!(rung.join().unwrap(), Err(Errno::PIPE));
    });
    assert!(ringer.bell().poll().hangup);
    let next = BellNode::owner(&a, "k");
    assert_eq!(ringer.ring(1, true), Err(Errno::PIPE));
    ringer.bell().connect(&key("k"), true).unwrap();
    ringer.ring(1, true).unwrap();
    assert!(!ringer.bell().poll().hangup);
    assert_eq!(next.take(true), Ok(1));
    assert_eq!(owner.bell().stats(), Default::default());
}

#[test]
fn poll_tells_both_sides() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let owner = BellNode::owner(&a, "k");
    let ringer = BellNode::ringer(&b, "k");
    assert!(!owner.bell().poll().readable);
    assert!(ringer.bell().poll().writable);
    let before = a.interrupts.load(Ordering::SeqCst);
    ringer.ring(1, true).unwrap();
    assert_eq!(a.interrupts.load(Ordering::SeqCst), before + 1);
    assert!(owner.bell().poll().readable);
}

#[test]
fn keys_of_bells_and_of_streams_are_apart() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let _stream = Endpoint::receiver(&cvm, "k", 4);
    assert_eq!(
        BellNode::new(&cvm).bell().connect(&key("k"), true),
        Err(Errno::AGAIN)
    );
    let owner = BellNode::owner(&cvm, "k");
    assert_eq!(
        BellNode::new(&cvm).bell().advertise(key("k")),
        Err(Errno::ADDRINUSE)
    );
    BellNode::ringer(&cvm, "k").ring(1, true).unwrap();
    assert_eq!(owner.take(true), Ok(1));
}

#[test]
fn a_message_of_another_length_is_refused() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let owner = BellNode::owner(&cvm, "k");
    let ringer = BellNode::ringer(&cvm, "k");
    let bytes = [0xff_u8; 16];
    for (len, error) in [(7, Errno::INVAL), (16, Errno::INVAL), (8, Errno::INVAL)] {
        let address = bytes.as_ptr() as usize;
        let sent = ringer.bell().call(
            capstream_core::monitor::Operation::Deliver,
            address,
            len,
            true,
        );
        assert_eq!(sent, Err(error), "{len}");
    }
    assert_eq!(owner.take(true), Err(Errno::AGAIN));
}

/// Several ringers in cVMs of their own, several takers, and signals all the time: the sums agree.
#[test]
fn every_unit_is_taken_once() {
    const RINGERS: u64 = 4;
    const TAKERS: usize = 3;
    let rings = if std::env::var_os("CAPSTREAM_STRESS").is_some() {
        200_000
    } else {
        5_000
    };
    let world = World::new();
    let cvm = Cvm::new(&world);
    let owner = BellNode::owner(&cvm, "k");
    let total = RINGERS * rings * (rings + 1) / 2;
    let taken = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..RINGERS {
            scope.spawn(|| {
                let ringer = BellNode::ringer(&Cvm::new(&world), "k");
                for units in 1..=rings {
                    ringer.ring(units, false).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                cvm.kill();
                thread::yield_now();
                cvm.signal.store(false, Ordering::SeqCst);
                thread::yield_now();
            }
            cvm.kill();
        });
        for _ in 0..TAKERS {
            scope.spawn(|| {
                while taken.load(Ordering::SeqCst) < total {
                    match owner.take(false) {
                        Ok(units) => {
                            taken.fetch_add(units, Ordering::SeqCst);
                        }
                        Err(Errno::INTR) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                done.store(true, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(taken.load(Ordering::SeqCst), total);
    let stats = owner.bell().stats();
    assert_eq!((stats.count, stats.added, stats.taken), (0, total, total));
    assert_eq!(stats.rings, RINGERS * rings);
}
