// SPDX-License-Identifier: GPL-2.0-only
//! The portal of a stream: a message goes into the oldest posted buffer.

use crate::atomic::{AtomicU64, Ordering, const_unless_loom};
use crate::portal::{Call, Portal};
use crate::slots::{Claim, Slots};
use crate::{Errno, PortalCalls, Result};
use capstream_abi::hostcall::class;

/// Counters that portals add to.
pub(crate) struct Counters {
    /// Messages completed.
    pub(crate) received: AtomicU64,
    /// Bytes of them.
    pub(crate) received_bytes: AtomicU64,
    /// Deliveries that did not fit.
    pub(crate) too_long: AtomicU64,
    /// Deliveries whose message could not be read.
    pub(crate) faults: AtomicU64,
}

impl Counters {
    const_unless_loom! {
        fn new() -> Counters {
            Counters {
                received: AtomicU64::new(0),
                received_bytes: AtomicU64::new(0),
                too_long: AtomicU64::new(0),
                faults: AtomicU64::new(0),
            }
        }
    }

    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        let Counters {
            received,
            received_bytes,
            too_long,
            faults,
        } = self;
        for counter in [received, received_bytes, too_long, faults] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// What a stream's portals and its kernel share.
pub struct Inbox {
    pub(crate) slots: Slots,
    /// Which slots hold buffers for whoever waits, in whatever phase; written by the kernel's side.
    registered: AtomicU64,
    pub(crate) counters: Counters,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::new()
    }
}

impl Inbox {
    const_unless_loom! {
        /// Without buffers.
        pub fn new() -> Inbox {
            Inbox {
                slots: Slots::new(),
                registered: AtomicU64::new(0),
                counters: Counters::new(),
            }
        }
    }

    pub(crate) fn registered(&self) -> u64 {
        self.registered.load(Ordering::SeqCst)
    }

    pub(crate) fn set_registered(&self, slots: u64) {
        self.registered.store(slots, Ordering::SeqCst);
    }
}

impl Portal for Inbox {
    const CLASS: u64 = class::STREAM;

    fn deliver(&self, call: &Call<'_, impl PortalCalls>) -> Result<u64> {
        let len = call.size()?;
        let claimed = match self.slots.claim(len) {
            Claim::Claimed(claimed) => claimed,
            Claim::Empty => return Err(Errno::AGAIN),
            Claim::TooLong => {
                Counters::add(&self.counters.too_long, 1);
                return Err(Errno::MSGSIZE);
            }
        };
        match call.fetch_to(claimed.address, 0, len) {
            Ok(()) => {
                Counters::add(&self.counters.received, 1);
                Counters::add(&self.counters.received_bytes, len as u64);
                self.slots.complete(claimed, len, call.sender());
                Ok(0)
            }
            Err(error) => {
                Counters::add(&self.counters.faults, 1);
                self.slots.give_back(claimed);
                call.gave_room_back();
                Err(error)
            }
        }
    }

    /// Bytes of the oldest posted buffer.
    fn room(&self) -> u64 {
        self.slots.peek().unwrap_or(0) as u64
    }

    fn reset(&self) {
        self.slots.clear();
        self.set_registered(0);
        self.counters.clear();
    }
}
