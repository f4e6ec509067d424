// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The latest records of something, numbered, for anybody who wants to read or to follow them.
//!
//! Whoever writes never waits for a reader: a reader that is too slow is told how many records it has missed.
//!
//! Lock order: the lock of a journal is taken last, and nothing is called under it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What can be in a journal.
pub trait Record: Clone {
    /// How many bytes of memory it takes, about.
    fn weight(&self) -> usize;
}

impl Record for Vec<u8> {
    fn weight(&self) -> usize {
        self.len() + size_of::<Self>()
    }
}

#[derive(Debug)]
struct State<T> {
    records: VecDeque<T>,
    /// The number of the first of them.
    first: u64,
    weight: usize,
    /// No more will come.
    closed: bool,
}

/// The latest records, as many as weigh no more than a limit.
#[derive(Debug)]
pub struct Journal<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
}

/// Some records, from a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// How many were forgotten before they could be read.
    pub missed: u64,
    /// In order.
    pub records: Vec<T>,
    /// The number of the record after them.
    pub next: u64,
    /// Whether no more will come.
    pub closed: bool,
}

impl<T: Record> Journal<T> {
    /// An empty one for records of up to `limit` bytes in all.
    pub fn new(limit: usize) -> Journal<T> {
        Journal {
            state: Mutex::new(State {
                records: VecDeque::new(),
                first: 0,
                weight: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record; the oldest go when there is no room for it.
    pub fn push(&self, record: T) {
        let mut state = self.lock();
        state.weight += record.weight();
        state.records.push_back(record);
        while state.weight > self.limit {
            let Some(oldest) = state.records.pop_front() else {
                break;
            };
            state.weight -= oldest.weight();
            state.first += 1;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        let state = self.lock();
        state.first + state.records.len() as u64
    }

    /// No more records will come: whoever follows is told.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// More records may come after all.
    pub fn reopen(&self) {
        self.lock().closed = false;
    }

    /// Makes [`Journal::follow`] look at what its caller wants.
    pub fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// What is there, from the record with this number on.
    pub fn read(&self, from: u64) -> Batch<T> {
        batch(&self.lock(), from)
    }

    /// The last `count` of what is there.
    pub fn last(&self, count: usize) -> Batch<T> {
        let state = self.lock();
        let skipped = state.records.len().saturating_sub(count) as u64;
        batch(&state, state.first + skipped)
    }

    /// As [`Journal::read`], but waits until there is something, or the journal is closed, or `give_up` says so when [`Journal::wake`] was called.
    pub fn follow(&self, from: u64, give_up: &dyn Fn() -> bool) -> Batch<T> {
        let mut state = self.lock();
        loop {
            let found = batch(&state, from);
            if !found.records.is_empty() || found.missed > 0 || found.closed || give_up() {
                return found;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn batch<T: Record>(state: &State<T>, from: u64) -> Batch<T> {
    let missed = state.first.saturating_sub(from);
    let skipped = usize::try_from(from.saturating_sub(state.first)).unwrap_or(usize::MAX);
    Batch {
        missed,
        records: state.records.iter().skip(skipped).cloned().collect(),
        next: state.first + state.records.len() as u64,
        closed: state.closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn the_oldest_go_and_readers_are_told() {
        let journal = Journal::new(4 * bytes("a").weight());
        for text in ["a", "b", "c", "d", "e", "f"] {
            journal.push(bytes(text));
        }
        let all = journal.read(0);
        assert_eq!(all.missed, 2);
        assert_eq!(all.records, ["c", "d", "e", "f"].map(bytes));
        assert_eq!(all.next, 6);
        assert_eq!(journal.read(5).records, [bytes("f")]);
        assert_eq!(journal.last(2).records, ["e", "f"].map(bytes));
        assert_eq!(journal.last(100).missed, 0);
        journal.push(vec![0; 10_000]);
        assert_eq!(journal.read(6).missed, 1, "larger than the limit");
    }

    #[test]
    fn a_follower_gets_what_comes_and_the_end() {
        let journal = Journal::new(1 << 20);
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let mut seen = Vec::new();
                let mut from = 0;
                loop {
                    let batch = journal.follow(from, &|| false);
                    seen.extend(batch.records);
                    from = batch.next;
                    if batch.closed {
                        return seen;
                    }
                }
            });
            for number in 0..1000u32 {
                journal.push(number.to_le_bytes().to_vec());
            }
            journal.close();
            let seen = follower.join().unwrap();
            assert_eq!(seen.len(), 1000);
            assert_eq!(seen[999], 999u32.to_le_bytes());
        });
    }

    #[test]
    fn a_follower_that_gives_up_is_let_go() {
        let journal: Journal<Vec<u8>> = Journal::new(1 << 20);
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| journal.follow(0, &|| gone.load(Ordering::SeqCst)));
            gone.store(true, Ordering::SeqCst);
            journal.wake();
            assert!(follower.join().unwrap().records.is_empty());
        });
    }
}
