// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many messages a cVM has received, by stream and by connection.
//!
//! Several cVMs send into one stream at the same time. So each of their connections has counters of its own, which only the sender's
//! vCPU adds to; whoever wants to know adds them up. A [`Ledger`] belongs to the receiver. Its lock is taken when a connection begins or ends and
//! when somebody reads, never by a message. Under the lock a connection that ends is moved to the sums of those that ended, so the
//! numbers never go back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vcpu_record::Counter;

/// How much has gone somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Messages, or uses of a published range.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.messages = self.messages.wrapping_add(other.messages);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// What one connection has carried. It has cache lines of its own: its writer is the sender.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Tally {
    messages: Counter,
    bytes: Counter,
}

impl Tally {
    fn traffic(&self) -> Traffic {
        Traffic {
            messages: self.messages.get(),
            bytes: self.bytes.get(),
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    /// Each with the number of its stream.
    live: Vec<(u64, Arc<Tally>)>,
    /// Of connections that ended, by the number of their streams.
    ended: BTreeMap<u64, Traffic>,
    /// Of streams that are gone.
    gone: Traffic,
    next_stream: u64,
}

/// What one cVM has received.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream.
    pub fn stream(self: &Arc<Self>) -> StreamTraffic {
        let mut entries = self.lock();
        let number = entries.next_stream;
        entries.next_stream += 1;
        entries.ended.insert(number, Traffic::default());
        StreamTraffic {
            ledger: Arc::clone(self),
            number,
        }
    }

    /// All of it.
    pub fn total(&self) -> Traffic {
        let entries = self.lock();
        let mut total = entries.gone;
        for (_, tally) in &entries.live {
            total += tally.traffic();
        }
        for traffic in entries.ended.values() {
            total += *traffic;
        }
        total
    }
}

/// What one stream has carried.
#[derive(Debug)]
pub struct StreamTraffic {
    ledger: Arc<Ledger>,
    number: u64,
}

impl StreamTraffic {
    /// Begins a connection.
    pub fn connect(&self) -> ConnectionTraffic {
        let tally = Arc::new(Tally::default());
        let mut entries = self.ledger.lock();
        entries.live.push((self.number, Arc::clone(&tally)));
        ConnectionTraffic {
            ledger: Arc::clone(&self.ledger),
            tally,
        }
    }

    /// All of it.
    pub fn total(&self) -> Traffic {
        let entries = self.ledger.lock();
        let mut total = entries.ended.get(&self.number).copied().unwrap_or_default();
        for (number, tally) in &entries.live {
            if *number == self.number {
                total += tally.traffic();
            }
        }
        total
    }
}

impl Drop for StreamTraffic {
    fn drop(&mut self) {
        let mut entries = self.ledger.lock();
        if let Some(traffic) = entries.ended.remove(&self.number) {
            entries.gone += traffic;
        }
    }
}

/// What one connection carries, for the sender's vCPU.
#[derive(Debug)]
pub struct ConnectionTraffic {
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
}

impl ConnectionTraffic {
    /// A message was delivered.
    #[inline]
    pub fn delivered(&self, bytes: u64) {
        self.tally.messages.add(1);
        self.tally.bytes.add(bytes);
    }
}

impl Drop for ConnectionTraffic {
    fn drop(&mut self) {
        let mut entries = self.ledger.lock();
        let place = entries
            .live
            .iter()
            .position(|(_, tally)| Arc::ptr_eq(tally, &self.tally));
        if let Some(place) = place {
            let (number, tally) = entries.live.swap_remove(place);
            let traffic = tally.traffic();
            match entries.ended.get_mut(&number) {
                Some(ended) => *ended += traffic,
                None => entries.gone += traffic,
            }
        }
    }
}

/// What has gone into and out of a published range. Several cVMs add to it, in hostcalls that are not on the message path.
#[derive(Debug, Default)]
pub struct FileTraffic {
    uses: AtomicU64,
    bytes: AtomicU64,
}

impl FileTraffic {
    /// Something was read or written.
    pub fn used(&self, bytes: u64) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of it.
    pub fn total(&self) -> Traffic {
        Traffic {
            messages: self.uses.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(messages: u64, bytes: u64) -> Traffic {
        Traffic { messages, bytes }
    }

    #[test]
    fn streams_are_told_apart_and_nothing_is_lost_when_they_end() {
        let ledger = Arc::new(Ledger::default());
        let (one, two) = (ledger.stream(), ledger.stream());
        let (first, second, other) = (one.connect(), one.connect(), two.connect());
        first.delivered(10);
        second.delivered(20);
        second.delivered(5);
        other.delivered(1);
        assert_eq!(one.total(), traffic(3, 35));
        assert_eq!(two.total(), traffic(1, 1));
        drop(second);
        assert_eq!(one.total(), traffic(3, 35));
        assert_eq!(ledger.total(), traffic(4, 36));
        // A connection may outlive its stream, and end later.
        drop(one);
        assert_eq!(ledger.total(), traffic(4, 36));
        first.delivered(100);
        assert_eq!(ledger.total(), traffic(5, 136));
        drop(first);
        drop(other);
        drop(two);
        assert_eq!(ledger.total(), traffic(5, 136));
        let entries = ledger.lock();
        assert!(entries.live.is_empty() && entries.ended.is_empty());
    }

    #[test]
    fn numbers_never_go_back_while_connections_come_and_go() {
        let ledger = Arc::new(Ledger::default());
        let stream = ledger.stream();
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            let connection = stream.connect();
                            connection.delivered(2);
                        }
                    })
                })
                .collect();
            let mut last = Traffic::default();
            while !senders.iter().all(|sender| sender.is_finished()) {
                let now = stream.total();
                assert!(now.messages >= last.messages && now.bytes >= last.bytes);
                last = now;
            }
        });
        assert_eq!(ledger.total(), traffic(3000, 6000));
    }
}
