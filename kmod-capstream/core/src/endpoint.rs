// SPDX-License-Identifier: GPL-2.0-only
//! An endpoint on its own kernel, as all device kinds with a portal have it: it can be published under a key, be connected to
//! another endpoint, or both. A kind adds what is delivered, and what its own tasks do with it.
//!
//! # Lock order
//! 1. The endpoint's [`Lock`], held while the kind looks at its state and while the monitor is called, never while a task waits for a
//!    peer. Portals take none, so a call may run a portal of the same kernel.
//!
//! # States
//! As owner: unpublished, published by [`Endpoint::advertise`]. As caller: unconnected, connected by [`Endpoint::connect`]. All four combinations
//! exist; [`Endpoint::reset_with`] leads back to the first of both. A connection whose peer is gone stays, and answers `EPIPE`, until it is
//! connected anew.

use crate::kernel::{Depth, Event};
use crate::monitor::Operation;
use crate::portal::{Portal, Shared};
use crate::{Errno, Kernel, Key, Lock, Monitor, Result, probe};

/// How long [`Mode::Adaptive`] spins, in nanoseconds.
pub const ADAPTIVE_SPIN_NS: u64 = 20_000;
/// Turns of a spinning wait between two looks at something that costs a hostcall.
const SPIN_TURNS: u32 = 16;
/// How long a caller that has used up what it may send sleeps before it tries again, in nanoseconds.
pub const QUOTA_STEP_NS: u64 = 1_000_000;

/// How tasks wait at an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They sleep.
    #[default]
    Sleep,
    /// They spin, still looking at signals and giving way to other tasks.
    Spin,
    /// They spin for [`ADAPTIVE_SPIN_NS`], then sleep.
    Adaptive,
}

impl Mode {
    /// The mode with this number in the public header.
    pub const fn from_number(number: i32) -> Result<Mode> {
        match number {
            0 => Ok(Mode::Sleep),
            1 => Ok(Mode::Spin),
            2 => Ok(Mode::Adaptive),
            _ => Err(Errno::INVAL),
        }
    }
}

/// What a poll finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Something was delivered to this endpoint.
    pub readable: bool,
    /// The peer has room.
    pub writable: bool,
    /// The peer is gone.
    pub hangup: bool,
}

/// The part of an endpoint that only its own kernel sees, protected by the endpoint's lock.
pub struct State<X> {
    pub(crate) mode: Mode,
    key: Option<Key>,
    connection: Option<u64>,
    /// Deliveries to the peer.
    pub(crate) sent: u64,
    /// Bytes of them.
    pub(crate) sent_bytes: u64,
    /// The kind's part.
    pub own: X,
}

impl<X> State<X> {
    /// The state after boot.
    pub const fn new(own: X) -> State<X> {
        State {
            mode: Mode::Sleep,
            key: None,
            connection: None,
            sent: 0,
            sent_bytes: 0,
            own,
        }
    }

    /// Whether it is published.
    pub fn is_published(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it is connected, perhaps to a peer that is gone.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Deliveries to the peer since the last reset, and the bytes that were passed with them.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent, self.sent_bytes)
    }
}

/// An endpoint's parts, together for one operation.
pub struct Endpoint<'a, P, K, M, L> {
    /// What portals see.
    pub shared: &'a Shared<P>,
    /// What they don't.
    pub state: &'a L,
    /// The kernel around the endpoint.
    pub kernel: &'a K,
    /// The monitor.
    pub monitor: &'a M,
}

impl<P, X, K, M, L> Endpoint<'_, P, K, M, L>
where
    P: Portal,
    K: Kernel,
    M: Monitor,
    L: Lock<State = State<X>>,
{
    /// Publishes the endpoint under the key, instead of the one it may have had. `EADDRINUSE` when another endpoint has the key, `EACCES` when this
    /// cVM may not publish it.
    pub fn advertise(&self, key: Key) -> Result<()> {
        self.state.with(|state| {
            if state.key.as_ref() == Some(&key) {
                return Ok(());
            }
            let old = self.shared.id();
            let id = self.monitor.advertise(self.shared, &key)?;
            self.shared.set_id(Some(id));
            state.key = Some(key);
            if let Some(old) = old {
                self.monitor.revoke(old)?;
            }
            Ok(())
        })?;
        // Callers may have come before the id was known.
        self.interrupt();
        Ok(())
    }

    /// Connects the endpoint to the owner of the key, instead of the one it may have had; errors as [`probe::probe`].
    pub fn connect(&self, key: &Key, nonblock: bool) -> Result<()> {
        let handle = probe::probe(self.kernel, nonblock, |notify| {
            self.monitor.probe(P::CLASS, key, notify)
        })?;
        let old = self.state.with(|state| state.connection.replace(handle));
        if let Some(old) = old {
            self.monitor.disconnect(old);
            // Whoever waits for the old peer has a new one.
            self.shared.count_connection();
            self.kernel.wake_callers();
        }
        Ok(())
    }

    /// Passes `len` bytes at `address` to the peer's portal, once it has room for them; returns what the portal returned.
    ///
    /// # Errors
    /// `ENOTCONN`; `EPIPE` when the peer is gone, `ETIMEDOUT` when its portal did not return in time; `EAGAIN` for one that may not wait;
    /// `EINTR`; `ECANCELED` after a reset of this endpoint; `EFAULT` when the bytes cannot be read; and those of the kind's portal.
    pub fn call(
        &self,
        operation: Operation,
        address: usize,
        len: usize,
        nonblock: bool,
    ) -> Result<u64> {
        let epoch = self.shared.epoch();
        let result = self.call_until(epoch, operation, address, len, nonblock);
        match result {
            Err(Errno::NOTCONN) if self.shared.epoch() != epoch => Err(Errno::CANCELED),
            other => other,
        }
    }

    fn call_until(
        &self,
        epoch: u64,
        operation: Operation,
        address: usize,
        len: usize,
        nonblock: bool,
    ) -> Result<u64> {
        loop {
            match self.send(operation, address, len, false) {
                Err(Errno::AGAIN) if !nonblock => {}
                Err(Errno::BUSY | Errno::DQUOT) if nonblock => return Err(Errno::AGAIN),
                Err(Errno::BUSY) => {
                    // Others are in all the peer's portals, for no longer than their copies take.
                    self.kernel.spin()?;
                    continue;
                }
                Err(Errno::DQUOT) => {
                    self.sleep_for_quota(epoch)?;
                    continue;
                }
                other => return other,
            }
            if self.spin_for_room()? {
                self.kernel.spin()?;
                continue;
            }
            // Read before the peer is asked for an interrupt, so that one that comes right after it is not missed.
            let seen = self.kernel.peer_events();
            let connections = self.shared.connections();
            match self.send(operation, address, len, true) {
                Err(Errno::AGAIN) => {}
                Err(Errno::BUSY | Errno::DQUOT) => continue,
                other => return other,
            }
            self.shared.count_sleep();
            self.kernel
                .sleep(Event::Peers, Depth::Interruptible, None, &mut || {
                    self.kernel.peer_events() != seen
                        || self.shared.connections() != connections
                        || self.shared.epoch() != epoch
                })?;
            if self.shared.epoch() != epoch {
                return Err(Errno::CANCELED);
            }
        }
    }

    fn send(&self, operation: Operation, address: usize, len: usize, arm: bool) -> Result<u64> {
        self.state.with(|state| {
            let handle = state.connection.ok_or(Errno::NOTCONN)?;
            if arm {
                self.monitor.wait(handle)?;
            }
            let result = self.monitor.call(handle, address, len, operation)?;
            state.sent += 1;
            state.sent_bytes += len as u64;
            Ok(result)
        })
    }

    /// Nobody tells when a cVM may send again: it looks from time to time.
    fn sleep_for_quota(&self, epoch: u64) -> Result<()> {
        let deadline = self.kernel.now_ns().saturating_add(QUOTA_STEP_NS);
        let slept = self.kernel.sleep(
            Event::Endpoint,
            Depth::Interruptible,
            Some(deadline),
            &mut || self.shared.epoch() != epoch,
        );
        match slept {
            Err(Errno::TIMEDOUT) => Ok(()),
            other => other,
        }
    }

    /// In the modes that spin: waits for the peer to have room. False when it is time to sleep.
    fn spin_for_room(&self) -> Result<bool> {
        let mode = self.state.with(|state| state.mode);
        let end = match mode {
            Mode::Sleep => return Ok(false),
            Mode::Spin => None,
            Mode::Adaptive => Some(self.kernel.now_ns().saturating_add(ADAPTIVE_SPIN_NS)),
        };
        loop {
            let room = self.state.with(|state| {
                let handle = state.connection.ok_or(Errno::NOTCONN)?;
                self.monitor.call(handle, 0, 0, Operation::Query)
            });
            match room {
                Ok(0) | Err(Errno::BUSY) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error),
            }
            if end.is_some_and(|end| self.kernel.now_ns() >= end) {
                return Ok(false);
            }
            for _ in 0..SPIN_TURNS {
                self.kernel.spin()?;
            }
        }
    }

    /// Waits at this endpoint until `ready`, which does not sleep.
    ///
    /// # Errors
    /// `EINTR`; `ECANCELED` when there was a reset since the epoch was read.
    pub fn pause(&self, epoch: Epoch, mode: Mode, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let Epoch(epoch) = epoch;
        let mut over = || ready() || self.shared.epoch() != epoch;
        let spun = match mode {
            Mode::Sleep => over(),
            Mode::Spin => self.spin(None, &mut over)?,
            Mode::Adaptive => {
                let end = self.kernel.now_ns().saturating_add(ADAPTIVE_SPIN_NS);
                self.spin(Some(end), &mut over)?
            }
        };
        if !spun {
            self.shared.count_sleep();
            self.kernel
                .sleep(Event::Endpoint, Depth::Interruptible, None, &mut || {
                    self.armed(&mut over)
                })?;
        }
        if self.shared.epoch() == epoch {
            Ok(())
        } else {
            Err(Errno::CANCELED)
        }
    }

    /// To be read before the first look at what [`Endpoint::pause`] will wait for.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.shared.epoch())
    }

    /// Looks whether a sleep is over, and if not, sees to being woken when it is. Somebody who is armed without need costs the next caller
    /// a hostcall.
    fn armed(&self, over: &mut dyn FnMut() -> bool) -> bool {
        if over() {
            return true;
        }
        self.shared.arm();
        over()
    }

    /// Spins until `over`, or until the time is `end`; tells which of the two.
    fn spin(&self, end: Option<u64>, over: &mut dyn FnMut() -> bool) -> Result<bool> {
        loop {
            for _ in 0..SPIN_TURNS {
                if over() {
                    return Ok(true);
                }
                self.kernel.spin()?;
            }
            if end.is_some_and(|end| self.kernel.now_ns() >= end) {
                return Ok(over());
            }
        }
    }

    /// Tells what is possible now, and arranges for [`Kernel::wake`] or an increase of [`Kernel::peer_events`] at the next change. That is
    /// arranged even when something is possible, since an edge-triggered caller does not ask again before the next edge. The caller is on the
    /// queues of both already. `delivered` looks whether something is there for tasks of this kernel.
    pub fn poll_with(&self, delivered: impl FnOnce() -> bool) -> Readiness {
        self.shared.arm();
        let mut readiness = Readiness {
            readable: delivered(),
            ..Readiness::default()
        };
        let room = self.state.with(|state| {
            let handle = state.connection?;
            let room = self
                .monitor
                .wait(handle)
                .and_then(|()| self.monitor.call(handle, 0, 0, Operation::QueryNotify));
            Some(room)
        });
        match room {
            None => {}
            Some(Ok(room)) => readiness.writable = room > 0,
            // Nobody would tell when a portal is free: the write finds out.
            Some(Err(Errno::BUSY)) => readiness.writable = true,
            Some(Err(_)) => readiness.hangup = true,
        }
        readiness
    }

    /// Takes the key back, disconnects, forgets what was delivered, and ends all waits with `ECANCELED`; `forget` is for the kind's part of the
    /// state. No portal is running when it is called. On an error everything is as before.
    pub fn reset_with(&self, forget: impl FnOnce(&mut X)) -> Result<()> {
        self.state.with(|state| {
            if let Some(id) = self.shared.id() {
                // Waits for portals that run now.
                self.monitor.revoke(id)?;
                self.shared.set_id(None);
            }
            if let Some(handle) = state.connection.take() {
                self.monitor.disconnect(handle);
            }
            self.shared.reset();
            state.mode = Mode::Sleep;
            state.key = None;
            state.sent = 0;
            state.sent_bytes = 0;
            forget(&mut state.own);
            Ok(())
        })?;
        self.kernel.wake();
        self.kernel.wake_callers();
        Ok(())
    }

    /// To be called after each capability interrupt; may be called by the handler.
    pub fn interrupt(&self) {
        self.shared.interrupt(|| self.kernel.wake(), self.monitor);
    }
}

/// How often an endpoint had been reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);
