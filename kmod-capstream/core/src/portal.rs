// SPDX-License-Identifier: GPL-2.0-only
//! The portal of an endpoint: what a sender's thread runs to deliver a message, while the endpoint's kernel goes on.
//!
//! Two pairs of flags keep wake-ups from being lost; each side first publishes its own, then looks at the other's, all
//! sequentially consistent:
//!
//! | who may sleep | says so by | then looks at | is woken by |
//! |---|---|---|---|
//! | a task of the receiver | `armed` | filled slots | a portal that completed: it takes `armed`, sets `event`, asks for the interrupt, whose handler wakes |
//! | a sender | `senders_waiting`, set by its portal | posted slots | the receiver's kernel that posted: it takes `senders_waiting` and wakes by hostcall |
//!
//! A portal that gives a buffer back, because the sender's memory could not be read, has made that buffer available like a post, but may only
//! interrupt its owner: it sets `returned`, and the handler wakes the senders.

use crate::atomic::{
    AtomicBool, AtomicI64, AtomicU64, Ordering, const_unless_loom, publish_then_look,
};
use crate::slots::{Claim, Slots};
use crate::{Errno, Monitor, PortalCalls, Result};
use capstream_abi::{CALL_DELIVER, CALL_QUERY, CALL_QUERY_NOTIFY};

/// [`Shared::id`] of an endpoint that is not published.
const NO_ID: i64 = -1;

/// Counters that portals and the endpoint's kernel add to.
pub struct Counters {
    /// Messages completed.
    pub received: AtomicU64,
    /// Bytes of them.
    pub received_bytes: AtomicU64,
    /// Deliveries that found no buffer.
    pub no_buffer: AtomicU64,
    /// Deliveries that did not fit.
    pub too_long: AtomicU64,
    /// Deliveries whose message could not be read.
    pub faults: AtomicU64,
    /// Interrupts asked for.
    pub notifications: AtomicU64,
    /// Sleeps of tasks of the endpoint's kernel.
    pub sleeps: AtomicU64,
}

impl Counters {
    const_unless_loom! {
        fn new() -> Counters {
            Counters {
                received: AtomicU64::new(0),
                received_bytes: AtomicU64::new(0),
                no_buffer: AtomicU64::new(0),
                too_long: AtomicU64::new(0),
                faults: AtomicU64::new(0),
                notifications: AtomicU64::new(0),
                sleeps: AtomicU64::new(0),
            }
        }
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        let Counters {
            received,
            received_bytes,
            no_buffer,
            too_long,
            faults,
            notifications,
            sleeps,
        } = self;
        for counter in [
            received,
            received_bytes,
            no_buffer,
            too_long,
            faults,
            notifications,
            sleeps,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// The part of an endpoint that portals see. Its address is the portal's cookie: it is never moved or freed.
pub struct Shared {
    pub(crate) slots: Slots,
    /// What the monitor calls the endpoint.
    id: AtomicI64,
    armed: AtomicBool,
    event: AtomicBool,
    senders_waiting: AtomicBool,
    returned: AtomicBool,
    /// Which slots hold buffers for whoever waits, in whatever phase; written by the kernel's side.
    registered: AtomicU64,
    /// How often the endpoint was reset.
    epoch: AtomicU64,
    pub(crate) counters: Counters,
    device: u32,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared::new()
    }
}

impl Shared {
    const_unless_loom! {
        /// An unpublished endpoint without buffers.
        pub fn new() -> Shared {
            Shared {
                slots: Slots::new(),
                id: AtomicI64::new(NO_ID),
                armed: AtomicBool::new(false),
                event: AtomicBool::new(false),
                senders_waiting: AtomicBool::new(false),
                returned: AtomicBool::new(false),
                registered: AtomicU64::new(0),
                epoch: AtomicU64::new(0),
                counters: Counters::new(),
                device: 0,
            }
        }
    }

    /// Sets the number that names the endpoint in the monitor's log.
    pub fn set_device(&mut self, device: u32) {
        self.device = device;
    }

    /// The number for the log.
    pub fn device(&self) -> u32 {
        self.device
    }

    // The portal's side.

    /// What the portal does; returns what it returns, see [`capstream_abi::Portal`].
    pub fn portal(&self, operation: u64, len: u64, sender: u64, calls: &impl PortalCalls) -> i64 {
        match operation {
            CALL_DELIVER => match self.deliver(len, sender, calls) {
                Ok(()) => 0,
                Err(error) => error.negated(),
            },
            CALL_QUERY => self.query(false),
            CALL_QUERY_NOTIFY => self.query(true),
            _ => Errno::INVAL.negated(),
        }
    }

    fn deliver(&self, len: u64, sender: u64, calls: &impl PortalCalls) -> Result<()> {
        let Ok(len) = usize::try_from(len) else {
            return Err(Errno::MSGSIZE);
        };
        let claim = match self.slots.claim(len) {
            Claim::Empty => {
                self.remember_sender();
                self.slots.claim(len)
            }
            other => other,
        };
        let claimed = match claim {
            Claim::Claimed(claimed) => claimed,
            Claim::Empty => {
                Counters::add(&self.counters.no_buffer, 1);
                return Err(Errno::AGAIN);
            }
            Claim::TooLong => {
                Counters::add(&self.counters.too_long, 1);
                return Err(Errno::MSGSIZE);
            }
        };
        let fetched = if len == 0 {
            Ok(())
        } else {
            calls.fetch(claimed.address, 0, len)
        };
        match fetched {
            Ok(()) => {
                Counters::add(&self.counters.received, 1);
                Counters::add(&self.counters.received_bytes, len as u64);
                self.slots.complete(claimed, len, sender);
                self.notify_owner(calls);
                Ok(())
            }
            Err(error) => {
                Counters::add(&self.counters.faults, 1);
                self.slots.give_back(claimed);
                publish_then_look();
                if self.senders_waiting.load(Ordering::SeqCst) {
                    self.returned.store(true, Ordering::SeqCst);
                    self.interrupt_owner(calls);
                }
                // Somebody may wait for this very buffer to leave the portal, to take it back.
                self.notify_owner(calls);
                Err(error)
            }
        }
    }

    fn query(&self, notify: bool) -> i64 {
        let size = match self.slots.peek() {
            None if notify => {
                self.remember_sender();
                self.slots.peek()
            }
            other => other,
        };
        i64::try_from(size.unwrap_or(0)).unwrap_or(i64::MAX)
    }

    fn remember_sender(&self) {
        self.senders_waiting.store(true, Ordering::SeqCst);
        publish_then_look();
    }

    fn notify_owner(&self, calls: &impl PortalCalls) {
        publish_then_look();
        // The load keeps the common case, nobody sleeps, free of a locked exchange.
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.event.store(true, Ordering::SeqCst);
            self.interrupt_owner(calls);
        }
    }

    fn interrupt_owner(&self, calls: &impl PortalCalls) {
        Counters::add(&self.counters.notifications, 1);
        publish_then_look();
        let id = self.id.load(Ordering::SeqCst);
        // Without an id the advertise hostcall has not returned yet; what follows it looks at the flags.
        if id != NO_ID {
            calls.wake(id as u64);
        }
    }

    // The kernel's side.

    /// Does what portals left to the owner's interrupt handler: `wake` when tasks of this kernel have something to look at,
    /// and the hostcall when senders have. May be called at any time.
    pub fn interrupt(&self, wake: impl FnOnce(), monitor: &impl Monitor) {
        if self.event.load(Ordering::SeqCst) && self.event.swap(false, Ordering::SeqCst) {
            wake();
        }
        if self.returned.load(Ordering::SeqCst) && self.returned.swap(false, Ordering::SeqCst) {
            self.wake_senders(monitor);
        }
    }

    /// To be called after a buffer was posted.
    pub(crate) fn wake_senders(&self, monitor: &impl Monitor) {
        publish_then_look();
        if self.senders_waiting.load(Ordering::SeqCst)
            && self.senders_waiting.swap(false, Ordering::SeqCst)
            && let Some(id) = self.id()
        {
            monitor.wake(id);
        }
    }

    /// To be called before the last look at the slots that precedes a sleep.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
        publish_then_look();
    }

    /// What the monitor calls the endpoint, while it is published.
    pub fn id(&self) -> Option<u64> {
        u64::try_from(self.id.load(Ordering::SeqCst)).ok()
    }

    pub(crate) fn set_id(&self, id: Option<u64>) {
        let id = id.and_then(|id| i64::try_from(id).ok()).unwrap_or(NO_ID);
        self.id.store(id, Ordering::SeqCst);
        publish_then_look();
    }

    pub(crate) fn registered(&self) -> u64 {
        self.registered.load(Ordering::SeqCst)
    }

    pub(crate) fn set_registered(&self, slots: u64) {
        self.registered.store(slots, Ordering::SeqCst);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Forgets all buffers, messages and flags. No portal may be running and the endpoint may not be published.
    pub(crate) fn reset(&self) {
        self.slots.clear();
        for flag in [
            &self.armed,
            &self.event,
            &self.senders_waiting,
            &self.returned,
        ] {
            flag.store(false, Ordering::SeqCst);
        }
        self.set_registered(0);
        self.counters.clear();
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}
