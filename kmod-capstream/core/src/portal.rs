// SPDX-License-Identifier: GPL-2.0-only
//! The portal of an endpoint: what a caller's thread runs to deliver something, while the endpoint's kernel goes on.
//!
//! A device kind says by [`Portal`] what a delivery does. What all kinds share is here: the two pairs of flags that keep wake-ups from being lost.
//! Each side first publishes its own, then looks at the other's, all sequentially consistent:
//!
//! | who may sleep | says so by | then looks at | is woken by |
//! |---|---|---|---|
//! | a task of the owner | `armed` | what was delivered | a portal that delivered: it takes `armed`, sets `event`, asks for the interrupt, whose handler wakes |
//! | a caller | `callers_waiting`, set by its portal | room for its delivery | the owner's kernel that made room: it takes `callers_waiting` and wakes by hostcall |
//!
//! A portal that gives room back, because the caller's memory could not be read, has made that room available like its kernel would, but may only
//! interrupt its owner: it sets `returned`, and the handler wakes the callers.

use crate::atomic::{
    AtomicBool, AtomicI64, AtomicU64, Ordering, const_unless_loom, publish_then_look,
};
use crate::{Errno, Monitor, PortalCalls, Result};
use capstream_abi::{CALL_DELIVER, CALL_QUERY, CALL_QUERY_NOTIFY};

/// [`Shared::id`] of an endpoint that is not published.
const NO_ID: i64 = -1;

/// What a device kind does on a caller's thread, and what it shares with its own kernel to that end: fixed capacity, atomics only. No method may
/// wait, take a lock or allocate, and nothing is known about which task runs.
pub trait Portal: Sync {
    /// The class of the kind: keys of different classes are apart from each other.
    const CLASS: u64;

    /// Takes what the caller passed. The result, not negative as an `i64`, is the caller's.
    ///
    /// # Errors
    /// `EAGAIN` when there is no room for it: it is asked again when there may be some. All others end the call.
    fn deliver(&self, call: &Call<'_, impl PortalCalls>) -> Result<u64>;

    /// Does an operation of the kind's own, from [`capstream_abi::CALL_KIND`] on; as [`Portal::deliver`]. `EINVAL` for one that it does not have.
    fn perform(&self, _call: &Call<'_, impl PortalCalls>) -> Result<u64> {
        Err(Errno::INVAL)
    }

    /// How much room there is, in a measure of the kind; 0 when a delivery would have to wait.
    fn room(&self) -> u64;

    /// Forgets everything. No call is under way.
    fn reset(&self);
}

/// One call of a portal.
pub struct Call<'a, C> {
    operation: u64,
    len: u64,
    sender: u64,
    calls: &'a C,
    signals: &'a Signals,
}

impl<C: PortalCalls> Call<'_, C> {
    /// Which: [`CALL_DELIVER`], or a number of the kind's own.
    pub fn operation(&self) -> u64 {
        self.operation
    }

    /// Bytes that the caller passed. `EMSGSIZE` when they are more than memory has.
    pub fn size(&self) -> Result<usize> {
        usize::try_from(self.len).map_err(|_| Errno::MSGSIZE)
    }

    /// Names the connection.
    pub fn sender(&self) -> u64 {
        self.sender
    }

    /// Copies what the caller passed, from its byte `offset` on. `EFAULT` when it is not there or cannot be read.
    pub fn fetch(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        self.fetch_to(to.as_mut_ptr() as usize, offset, to.len())
    }

    /// As [`Call::fetch`], to memory of a program of the owner, which the monitor checks.
    pub(crate) fn fetch_to(&self, to: usize, offset: usize, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.calls.fetch(to, offset, len)
    }

    /// To be called when room that this call had taken is there again.
    pub(crate) fn gave_room_back(&self) {
        publish_then_look();
        if self.signals.callers_waiting.load(Ordering::SeqCst) {
            self.signals.returned.store(true, Ordering::SeqCst);
            self.signals.interrupt_owner(self.calls);
        }
        // Somebody of the owner may wait for just that, to take something back.
        self.signals.notify_owner(self.calls);
    }
}

/// The flags, and what else portals and kernels of all kinds have in common.
struct Signals {
    /// What the monitor calls the endpoint.
    id: AtomicI64,
    armed: AtomicBool,
    event: AtomicBool,
    callers_waiting: AtomicBool,
    returned: AtomicBool,
    /// How often the endpoint was reset.
    epoch: AtomicU64,
    /// How often it was connected.
    connections: AtomicU64,
    /// Deliveries that found no room.
    no_room: AtomicU64,
    /// Interrupts asked for.
    notifications: AtomicU64,
    /// Sleeps of tasks of the endpoint's kernel.
    sleeps: AtomicU64,
}

impl Signals {
    const_unless_loom! {
        fn new() -> Signals {
            Signals {
                id: AtomicI64::new(NO_ID),
                armed: AtomicBool::new(false),
                event: AtomicBool::new(false),
                callers_waiting: AtomicBool::new(false),
                returned: AtomicBool::new(false),
                epoch: AtomicU64::new(0),
                connections: AtomicU64::new(0),
                no_room: AtomicU64::new(0),
                notifications: AtomicU64::new(0),
                sleeps: AtomicU64::new(0),
            }
        }
    }

    fn remember_caller(&self) {
        self.callers_waiting.store(true, Ordering::SeqCst);
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
        self.notifications.fetch_add(1, Ordering::Relaxed);
        publish_then_look();
        let id = self.id.load(Ordering::SeqCst);
        // Without an id the advertise hostcall has not returned yet; what follows it looks at the flags.
        if id != NO_ID {
            calls.wake(id as u64);
        }
    }
}

/// Counters that all kinds have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries that found no room here.
    pub no_room: u64,
    /// Interrupts that callers asked for.
    pub notifications: u64,
    /// Sleeps of tasks of this kernel at this endpoint.
    pub sleeps: u64,
}

/// The part of an endpoint that portals see. Its address is the portal's cookie: it is never moved or freed.
pub struct Shared<P> {
    /// The kind's part.
    pub portal: P,
    signals: Signals,
    device: u32,
}

impl<P> Shared<P> {
    const_unless_loom! {
        /// An unpublished endpoint.
        pub fn new(portal: P) -> Shared<P> {
            Shared {
                portal,
                signals: Signals::new(),
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
}

impl<P: Portal> Shared<P> {
    // The portal's side.

    /// What the portal does; returns what it returns, see [`capstream_abi::Portal`].
    pub fn portal(&self, operation: u64, len: u64, sender: u64, calls: &impl PortalCalls) -> i64 {
        let result = match operation {
            CALL_QUERY => Ok(self.portal.room()),
            CALL_QUERY_NOTIFY => Ok(self.room_or_remember()),
            _ => self.take(&Call {
                operation,
                len,
                sender,
                calls,
                signals: &self.signals,
            }),
        };
        match result {
            Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
            Err(error) => error.negated(),
        }
    }

    fn take(&self, call: &Call<'_, impl PortalCalls>) -> Result<u64> {
        let attempt = || match call.operation {
            CALL_DELIVER => self.portal.deliver(call),
            _ => self.portal.perform(call),
        };
        let result = match attempt() {
            Err(Errno::AGAIN) => {
                self.signals.remember_caller();
                attempt()
            }
            other => other,
        };
        match result {
            Ok(_) => self.signals.notify_owner(call.calls),
            Err(Errno::AGAIN) => {
                self.signals.no_room.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        result
    }

    fn room_or_remember(&self) -> u64 {
        match self.portal.room() {
            0 => {
                self.signals.remember_caller();
                self.portal.room()
            }
            room => room,
        }
    }

    // The kernel's side.

    /// Does what portals left to the owner's interrupt handler: `wake` when tasks of this kernel have something to look at,
    /// and the hostcall when callers have. May be called at any time.
    pub fn interrupt(&self, wake: impl FnOnce(), monitor: &impl Monitor) {
        let Signals {
            event, returned, ..
        } = &self.signals;
        if event.load(Ordering::SeqCst) && event.swap(false, Ordering::SeqCst) {
            wake();
        }
        if returned.load(Ordering::SeqCst) && returned.swap(false, Ordering::SeqCst) {
            self.wake_callers(monitor);
        }
    }

    /// To be called after room was made.
    pub fn wake_callers(&self, monitor: &impl Monitor) {
        let waiting = &self.signals.callers_waiting;
        publish_then_look();
        if waiting.load(Ordering::SeqCst)
            && waiting.swap(false, Ordering::SeqCst)
            && let Some(id) = self.id()
        {
            monitor.wake(id);
        }
    }

    /// Says that a task is about to sleep until something is delivered. What was delivered is to be looked at afterwards, before it sleeps.
    pub(crate) fn arm(&self) {
        self.signals.armed.store(true, Ordering::SeqCst);
        publish_then_look();
    }

    /// What the monitor calls the endpoint, while it is published.
    pub fn id(&self) -> Option<u64> {
        u64::try_from(self.signals.id.load(Ordering::SeqCst)).ok()
    }

    pub(crate) fn set_id(&self, id: Option<u64>) {
        let id = id.and_then(|id| i64::try_from(id).ok()).unwrap_or(NO_ID);
        self.signals.id.store(id, Ordering::SeqCst);
        publish_then_look();
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.signals.epoch.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.signals.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn count_connection(&self) {
        self.signals.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn count_sleep(&self) {
        self.signals.sleeps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counters since the last reset.
    pub fn counters(&self) -> Counters {
        let Signals {
            no_room,
            notifications,
            sleeps,
            ..
        } = &self.signals;
        Counters {
            no_room: no_room.load(Ordering::Relaxed),
            notifications: notifications.load(Ordering::Relaxed),
            sleeps: sleeps.load(Ordering::Relaxed),
        }
    }

    /// Forgets what was delivered, flags and counters. No portal may be running and the endpoint may not be published.
    pub(crate) fn reset(&self) {
        self.portal.reset();
        let Signals {
            id: _,
            armed,
            event,
            callers_waiting,
            returned,
            epoch,
            connections: _,
            no_room,
            notifications,
            sleeps,
        } = &self.signals;
        for flag in [armed, event, callers_waiting, returned] {
            flag.store(false, Ordering::SeqCst);
        }
        for counter in [no_room, notifications, sleeps] {
            counter.store(0, Ordering::Relaxed);
        }
        epoch.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::monitor::Operation;
    use core::cell::Cell;

    /// A kind with an operation of its own, number 3, which tells what it was passed; nothing is ever delivered.
    struct Echo;

    impl Portal for Echo {
        const CLASS: u64 = 99;

        fn deliver(&self, _call: &Call<'_, impl PortalCalls>) -> Result<u64> {
            Err(Errno::AGAIN)
        }

        fn perform(&self, call: &Call<'_, impl PortalCalls>) -> Result<u64> {
            if call.operation() != Operation::Own(3).number() {
                return Err(Errno::INVAL);
            }
            let mut byte = [0];
            call.fetch(call.size()? - 1, &mut byte)?;
            Ok(u64::from(byte[0]))
        }

        fn room(&self) -> u64 {
            0
        }

        fn reset(&self) {}
    }

    #[derive(Default)]
    struct Calls {
        fetches: Cell<u32>,
        wakes: Cell<u32>,
    }

    impl PortalCalls for Calls {
        fn fetch(&self, to: usize, offset: usize, len: usize) -> Result<()> {
            self.fetches.set(self.fetches.get() + 1);
            for at in 0..len {
                // SAFETY: the portal passes memory of its own for that many bytes.
                unsafe { *((to + at) as *mut u8) = (offset + at) as u8 };
            }
            Ok(())
        }

        fn wake(&self, _id: u64) {
            self.wakes.set(self.wakes.get() + 1);
        }
    }

    #[test]
    fn operations_of_the_kind_reach_it_with_what_is_passed() {
        let (shared, calls) = (Shared::new(Echo), Calls::default());
        shared.set_id(Some(1));
        let own = |number| Operation::Own(number).number();
        assert_eq!(shared.portal(own(3), 43, 0, &calls), 42);
        assert_eq!(calls.fetches.get(), 1);
        assert_eq!(shared.portal(own(2), 43, 0, &calls), -22);
        // The numbers in between are nobody's.
        assert_eq!(shared.portal(CALL_QUERY_NOTIFY + 1, 43, 0, &calls), -22);
        assert_eq!(calls.wakes.get(), 0);
        shared.arm();
        assert_eq!(shared.portal(own(3), 43, 0, &calls), 42);
        assert_eq!(calls.wakes.get(), 1);
    }

    #[test]
    fn a_portal_without_room_is_asked_twice_and_its_caller_is_remembered() {
        let (shared, calls) = (Shared::new(Echo), Calls::default());
        assert_eq!(shared.portal(CALL_DELIVER, 1, 0, &calls), -11);
        assert_eq!(shared.counters().no_room, 1);
        assert!(shared.signals.callers_waiting.load(Ordering::SeqCst));
    }
}
