// SPDX-License-Identifier: GPL-2.0-only
//! Every interleaving of the portal protocol, up to a number of preemptions, explored by loom:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p capstream-core --lib interleavings`.
//!
//! Sleeping is not modelled; what is asserted instead is that whoever would have slept was asked for.

use crate::inbox::Inbox;
use crate::monitor::{Notify, Operation};
use crate::portal::Portal;
use crate::slots::{Index, Phase};
use crate::stream::Shared;
use crate::{Errno, Key, Monitor, PortalCalls, Result, bell, portal};
use capstream_abi::{CALL_DELIVER, CALL_QUERY_NOTIFY, FileInfo};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;

const ID: u64 = 5;

/// What interrupts and hostcalls did.
struct Seen {
    /// Interrupts of the owner.
    owner: AtomicUsize,
    /// Wakes of the senders.
    senders: AtomicUsize,
    /// What the next fetch answers: 0, or that the message cannot be read.
    faulty: AtomicUsize,
    /// Who wrote last into each of the buffers, whose addresses are their numbers.
    memory: [AtomicU64; 2],
}

impl Seen {
    fn new() -> Arc<Seen> {
        Arc::new(Seen {
            owner: AtomicUsize::new(0),
            senders: AtomicUsize::new(0),
            faulty: AtomicUsize::new(0),
            memory: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }
}

struct Sender<'a>(&'a Seen, u64);

impl PortalCalls for Sender<'_> {
    fn fetch(&self, to: usize, _offset: usize, _len: usize) -> Result<()> {
        if self.0.faulty.swap(0, Ordering::SeqCst) != 0 {
            return Err(Errno::FAULT);
        }
        // Relaxed: it is the protocol that has to order the copy and its reader.
        self.0.memory[to].store(self.1, Ordering::Relaxed);
        Ok(())
    }

    fn wake(&self, id: u64) {
        assert_eq!(id, ID);
        self.0.owner.fetch_add(1, Ordering::SeqCst);
    }
}

struct Owner<'a>(&'a Seen);

impl Monitor for Owner<'_> {
    fn wake(&self, id: u64) {
        assert_eq!(id, ID);
        self.0.senders.fetch_add(1, Ordering::SeqCst);
    }
    fn advertise<P: Portal>(&self, _: &portal::Shared<P>, _: &Key) -> Result<u64> {
        Err(Errno::NOSYS)
    }
    fn probe(&self, _: u64, _: &Key, _: Notify) -> Result<u64> {
        Err(Errno::NOSYS)
    }
    fn wait(&self, _: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }
    fn call(&self, _: u64, _: usize, _: usize, _: Operation) -> Result<u64> {
        Err(Errno::NOSYS)
    }
    fn revoke(&self, _: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }
    fn disconnect(&self, _: u64) {}
    fn file_advertise(&self, _: usize, _: usize, _: &Key, _: bool) -> Result<u64> {
        Err(Errno::NOSYS)
    }
    fn file_probe(&self, _: &Key, _: Notify) -> Result<(u64, FileInfo)> {
        Err(Errno::NOSYS)
    }
    fn file_read(&self, _: u64, _: u64, _: usize, _: usize) -> Result<usize> {
        Err(Errno::NOSYS)
    }
    fn file_write(&self, _: u64, _: u64, _: usize, _: usize) -> Result<usize> {
        Err(Errno::NOSYS)
    }
}

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn published() -> Arc<Shared> {
    let shared = Arc::new(Shared::new(Inbox::new()));
    shared.set_id(Some(ID));
    shared
}

fn deliver(shared: &Shared, seen: &Seen, sender: u64) -> i64 {
    shared.portal(CALL_DELIVER, 1, sender, &Sender(seen, sender))
}

fn index(number: usize) -> Index {
    Index::new(number).unwrap()
}

#[test]
fn two_senders_get_two_buffers() {
    explore(4, || {
        let (shared, seen) = (published(), Seen::new());
        shared.portal.slots.post(index(0), 0, 1, false).unwrap();
        shared.portal.slots.post(index(1), 1, 1, false).unwrap();
        let other = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(deliver(&shared, &seen, 1), 0))
        };
        assert_eq!(deliver(&shared, &seen, 2), 0);
        other.join().unwrap();
        let mut senders = 0;
        for _ in 0..2 {
            let message = shared.portal.slots.oldest_message().unwrap();
            let written = seen.memory[message.address].load(Ordering::Relaxed);
            assert_eq!(written, message.sender);
            senders += message.sender;
            assert!(shared.portal.slots.release(message.index));
        }
        assert_eq!(senders, 3);
        assert!(shared.portal.slots.oldest_message().is_none());
    });
}

#[test]
fn two_senders_and_one_buffer_that_is_posted_again() {
    explore(3, || {
        let (shared, seen) = (published(), Seen::new());
        shared.portal.slots.post(index(0), 0, 1, false).unwrap();
        let senders: [_; 2] = [1, 2].map(|sender| {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || deliver(&shared, &seen, sender))
        });
        let mut received = 0;
        if let Some(message) = shared.portal.slots.oldest_message() {
            let written = seen.memory[0].load(Ordering::Relaxed);
            assert_eq!(written, message.sender);
            received += 1;
            shared.portal.slots.release(message.index);
            shared.portal.slots.post(index(0), 0, 1, false).unwrap();
            shared.wake_callers(&Owner(&seen));
        }
        let results = senders.map(|sender| sender.join().unwrap());
        let delivered = results.iter().filter(|result| **result == 0).count();
        if let Some(message) = shared.portal.slots.oldest_message() {
            assert_eq!(seen.memory[0].load(Ordering::Relaxed), message.sender);
            received += 1;
            shared.portal.slots.release(message.index);
        }
        assert_eq!(received, delivered);
        assert!(shared.portal.slots.oldest_message().is_none());
        for result in results {
            assert!(result == 0 || result == Errno::AGAIN.negated());
        }
    });
}

#[test]
fn a_receiver_that_sleeps_is_woken() {
    explore(6, || {
        let (shared, seen) = (published(), Seen::new());
        shared.portal.slots.post(index(0), 0, 1, false).unwrap();
        let sender = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(deliver(&shared, &seen, 1), 0))
        };
        shared.arm();
        let sleeps = !shared.portal.slots.any_filled();
        sender.join().unwrap();
        if sleeps {
            assert_eq!(seen.owner.load(Ordering::SeqCst), 1);
            let mut woken = false;
            shared.interrupt(|| woken = true, &Owner(&seen));
            assert!(woken);
        }
        assert!(shared.portal.slots.any_filled());
    });
}

#[test]
fn a_reader_that_sleeps_at_its_own_buffer_is_woken() {
    explore(6, || {
        let (shared, seen) = (published(), Seen::new());
        let ticket = shared.portal.slots.post(index(0), 0, 1, true).unwrap();
        let sender = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(deliver(&shared, &seen, 1), 0))
        };
        shared.arm();
        let sleeps = shared.portal.slots.phase(ticket) != Phase::Filled;
        sender.join().unwrap();
        if sleeps {
            assert_eq!(seen.owner.load(Ordering::SeqCst), 1);
        }
        assert_eq!(shared.portal.slots.message(ticket).unwrap().sender, 1);
        assert!(!shared.portal.slots.any_filled());
    });
}

#[test]
fn a_withdrawn_buffer_gets_no_message_and_a_claimed_one_cannot_be_withdrawn() {
    explore(6, || {
        let (shared, seen) = (published(), Seen::new());
        let ticket = shared.portal.slots.post(index(0), 0, 1, true).unwrap();
        let sender = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || deliver(&shared, &seen, 1))
        };
        let withdrawn = shared.portal.slots.withdraw(ticket);
        let written = withdrawn.then(|| seen.memory[0].load(Ordering::Relaxed));
        let result = sender.join().unwrap();
        if withdrawn {
            assert_eq!(result, Errno::AGAIN.negated());
            assert_eq!(written, Some(0));
            assert_eq!(seen.memory[0].load(Ordering::Relaxed), 0);
        } else {
            assert_eq!(result, 0);
            assert!(shared.portal.slots.message(ticket).is_some());
        }
    });
}

#[test]
fn a_sender_that_found_no_buffer_is_woken_by_the_next() {
    for operation in [CALL_DELIVER, CALL_QUERY_NOTIFY] {
        explore(6, move || {
            let (shared, seen) = (published(), Seen::new());
            let sender = {
                let (shared, seen) = (shared.clone(), seen.clone());
                thread::spawn(move || {
                    let result = shared.portal(operation, 1, 1, &Sender(&seen, 1));
                    match operation {
                        CALL_DELIVER => result == Errno::AGAIN.negated(),
                        _ => result == 0,
                    }
                })
            };
            shared.portal.slots.post(index(0), 0, 1, false).unwrap();
            shared.wake_callers(&Owner(&seen));
            if sender.join().unwrap() {
                assert_eq!(seen.senders.load(Ordering::SeqCst), 1);
            }
        });
    }
}

#[test]
fn a_sender_that_found_no_buffer_is_woken_by_one_that_is_given_back() {
    explore(4, || {
        let (shared, seen) = (published(), Seen::new());
        seen.faulty.store(1, Ordering::SeqCst);
        shared.portal.slots.post(index(0), 0, 1, false).unwrap();
        let senders: [_; 2] = [1, 2].map(|sender| {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || deliver(&shared, &seen, sender))
        });
        let results = senders.map(|sender| sender.join().unwrap());
        assert!(results.contains(&Errno::FAULT.negated()));
        if results.contains(&Errno::AGAIN.negated()) {
            assert_eq!(seen.owner.load(Ordering::SeqCst), 1);
            shared.interrupt(|| (), &Owner(&seen));
            assert_eq!(seen.senders.load(Ordering::SeqCst), 1);
            assert_eq!(shared.portal.slots.peek(), Some(1));
        } else {
            assert!(results.contains(&0));
        }
    });
}

#[test]
fn nothing_is_missed_before_the_id_is_known() {
    explore(6, || {
        let (shared, seen) = (Arc::new(Shared::new(Inbox::new())), Seen::new());
        shared.portal.slots.post(index(0), 0, 1, false).unwrap();
        // A task sleeps already.
        shared.arm();
        let sender = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(deliver(&shared, &seen, 1), 0))
        };
        shared.set_id(Some(ID));
        let mut woken = false;
        shared.interrupt(|| woken = true, &Owner(&seen));
        sender.join().unwrap();
        assert!(woken || seen.owner.load(Ordering::SeqCst) == 1);
    });
}

/// A ringer passes its units as they are in its memory.
struct Ringer<'a>(&'a Seen, u64);

impl PortalCalls for Ringer<'_> {
    fn fetch(&self, to: usize, offset: usize, len: usize) -> Result<()> {
        let bytes = self.1.to_ne_bytes();
        // SAFETY: the portal of a bell asks for as many bytes as it passes memory for; the slice is in bounds.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes[offset..offset + len].as_ptr(), to as *mut u8, len)
        };
        Ok(())
    }

    fn wake(&self, id: u64) {
        assert_eq!(id, ID);
        self.0.owner.fetch_add(1, Ordering::SeqCst);
    }
}

fn published_bell() -> Arc<bell::Shared> {
    let shared = Arc::new(portal::Shared::new(bell::Counter::new()));
    shared.set_id(Some(ID));
    shared
}

fn ring(shared: &bell::Shared, seen: &Seen, units: u64) -> i64 {
    shared.portal(CALL_DELIVER, bell::SIZE as u64, units, &Ringer(seen, units))
}

fn take(shared: &bell::Shared, seen: &Seen) -> u64 {
    let units = shared.portal.units();
    shared.portal.subtract(units);
    shared.wake_callers(&Owner(seen));
    units
}

#[test]
fn every_unit_of_two_ringers_is_taken_once() {
    explore(4, || {
        let (shared, seen) = (published_bell(), Seen::new());
        let ringers: [_; 2] = [1, 2].map(|units| {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(ring(&shared, &seen, units), 0))
        });
        let early = take(&shared, &seen);
        for ringer in ringers {
            ringer.join().unwrap();
        }
        assert_eq!(early + take(&shared, &seen), 3);
        assert_eq!(take(&shared, &seen), 0);
    });
}

#[test]
fn a_task_that_sleeps_at_a_bell_is_woken() {
    explore(6, || {
        let (shared, seen) = (published_bell(), Seen::new());
        let ringer = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || assert_eq!(ring(&shared, &seen, 1), 0))
        };
        shared.arm();
        let sleeps = shared.portal.units() == 0;
        ringer.join().unwrap();
        if sleeps {
            assert_eq!(seen.owner.load(Ordering::SeqCst), 1);
            let mut woken = false;
            shared.interrupt(|| woken = true, &Owner(&seen));
            assert!(woken);
        }
    });
}

#[test]
fn a_ringer_whose_units_do_not_fit_is_woken_when_they_do() {
    explore(6, || {
        let (shared, seen) = (published_bell(), Seen::new());
        assert_eq!(ring(&shared, &seen, bell::MAX_COUNT), 0);
        let ringer = {
            let (shared, seen) = (shared.clone(), seen.clone());
            thread::spawn(move || ring(&shared, &seen, 1))
        };
        let taken = take(&shared, &seen);
        let result = ringer.join().unwrap();
        if result == Errno::AGAIN.negated() {
            assert_eq!(taken, bell::MAX_COUNT);
            assert_eq!(seen.senders.load(Ordering::SeqCst), 1);
        } else {
            assert_eq!(result, 0);
            assert_eq!(take(&shared, &seen), 1);
        }
    });
}
