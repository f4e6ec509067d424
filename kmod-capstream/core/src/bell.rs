// SPDX-License-Identifier: GPL-2.0-only
//! A doorbell with a counter: callers add units, the owner's tasks wait for some and take them all.
//!
//! No unit is lost or taken twice. Portals only add to the counter, and only what fits; the owner's kernel only subtracts, and only what
//! it has handed to a program, one task at a time under the endpoint's lock.

use crate::atomic::{AtomicU64, Ordering, const_unless_loom};
use crate::endpoint::{self, Endpoint, Mode, Readiness};
use crate::monitor::Operation;
use crate::portal::{Call, Portal};
use crate::requests::BellStats;
use crate::{Errno, Kernel, Lock, Monitor, PortalCalls, Result};
use capstream_abi::hostcall::class;

/// The largest count. As with an eventfd, the largest number cannot be added.
pub const MAX_COUNT: u64 = u64::MAX - 1;
/// Bytes of what is read and written.
pub const SIZE: usize = size_of::<u64>();

/// What a bell's portals and its kernel share.
pub struct Counter {
    /// Units that were added and not taken yet.
    units: AtomicU64,
    /// Units that were ever added, modulo 2^64.
    added: AtomicU64,
    /// How often some were added.
    rings: AtomicU64,
}

impl Default for Counter {
    fn default() -> Counter {
        Counter::new()
    }
}

impl Counter {
    const_unless_loom! {
        /// At 0.
        pub fn new() -> Counter {
            Counter {
                units: AtomicU64::new(0),
                added: AtomicU64::new(0),
                rings: AtomicU64::new(0),
            }
        }
    }

    pub(crate) fn units(&self) -> u64 {
        self.units.load(Ordering::SeqCst)
    }

    /// Adds the units, all or none: `EAGAIN` when the count would be too large.
    fn add(&self, units: u64) -> Result<()> {
        let mut now = self.units.load(Ordering::SeqCst);
        loop {
            let sum = now
                .checked_add(units)
                .filter(|sum| *sum <= MAX_COUNT)
                .ok_or(Errno::AGAIN)?;
            match self
                .units
                .compare_exchange(now, sum, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => break,
                // Somebody else has made progress.
                Err(other) => now = other,
            }
            crate::atomic::yield_to_model();
        }
        self.added.fetch_add(units, Ordering::Relaxed);
        self.rings.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn subtract(&self, units: u64) {
        self.units.fetch_sub(units, Ordering::SeqCst);
    }
}

impl Portal for Counter {
    const CLASS: u64 = class::BELL;

    /// Adds the number that the caller passed. `EINVAL` unless it is one of [`SIZE`] bytes, up to [`MAX_COUNT`].
    fn deliver(&self, call: &Call<'_, impl PortalCalls>) -> Result<u64> {
        if call.size()? != SIZE {
            return Err(Errno::INVAL);
        }
        let mut units = [0; SIZE];
        call.fetch(0, &mut units)?;
        let units = u64::from_ne_bytes(units);
        if units > MAX_COUNT {
            return Err(Errno::INVAL);
        }
        self.add(units)?;
        Ok(0)
    }

    /// Whether a unit can be added.
    fn room(&self) -> u64 {
        u64::from(self.units() < MAX_COUNT)
    }

    fn reset(&self) {
        for counter in [&self.units, &self.added, &self.rings] {
            counter.store(0, Ordering::SeqCst);
        }
    }
}

/// A bell's part of the state.
#[derive(Default)]
pub struct Taken {
    units: u64,
    takes: u64,
}

impl Taken {
    /// Nothing yet.
    pub const fn new() -> Taken {
        Taken { units: 0, takes: 0 }
    }
}

/// What portals of a bell see.
pub type Shared = crate::portal::Shared<Counter>;
/// What they don't.
pub type State = endpoint::State<Taken>;
/// An endpoint of a bell.
pub type Bell<'a, K, M, L> = Endpoint<'a, Counter, K, M, L>;

impl<K, M, L> Bell<'_, K, M, L>
where
    K: Kernel,
    M: Monitor,
    L: Lock<State = State>,
{
    /// Adds units to the peer's count, once they fit. `EINVAL` above [`MAX_COUNT`]; else errors as [`Endpoint::call`].
    pub fn ring(&self, units: u64, nonblock: bool) -> Result<()> {
        if units > MAX_COUNT {
            return Err(Errno::INVAL);
        }
        let units = units.to_ne_bytes();
        let address = units.as_ptr() as usize;
        self.call(Operation::Deliver, address, SIZE, nonblock)
            .map(drop)
    }

    /// Waits until the count is not 0, hands it to `give`, and subtracts it when that succeeded. `give` may sleep.
    ///
    /// # Errors
    /// `EAGAIN`, `EINTR`, `ECANCELED` after a reset, and those of `give`.
    pub fn take(&self, nonblock: bool, mut give: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let counter = &self.shared.portal;
        let epoch = self.epoch();
        loop {
            let taken = self.state.with(|state| {
                let units = counter.units();
                if units == 0 {
                    return Ok(false);
                }
                give(units)?;
                counter.subtract(units);
                state.own.units = state.own.units.wrapping_add(units);
                state.own.takes += 1;
                Ok(true)
            })?;
            if taken {
                self.shared.wake_callers(self.monitor);
                return Ok(());
            }
            if nonblock {
                return Err(Errno::AGAIN);
            }
            self.pause(epoch, Mode::Sleep, &mut || counter.units() != 0)?;
        }
    }

    /// [`Endpoint::poll_with`]: readable when the count is not 0, writable when a unit fits the peer's.
    pub fn poll(&self) -> Readiness {
        self.poll_with(|| self.shared.portal.units() != 0)
    }

    /// [`Endpoint::reset_with`]: the count is 0 afterwards.
    pub fn reset(&self) -> Result<()> {
        self.reset_with(|own| *own = Taken::new())
    }

    /// Counters and gauges.
    pub fn stats(&self) -> BellStats {
        let common = self.shared.counters();
        let counter = &self.shared.portal;
        self.state.with(|state| {
            let (sent_rings, _) = state.sent();
            BellStats {
                count: counter.units(),
                rings: counter.rings.load(Ordering::Relaxed),
                added: counter.added.load(Ordering::Relaxed),
                takes: state.own.takes,
                taken: state.own.units,
                sent_rings,
                no_room: common.no_room,
                notifications: common.notifications,
                sleeps: common.sleeps,
                advertised: u32::from(state.is_published()),
                connected: u32::from(state.is_connected()),
            }
        })
    }
}
