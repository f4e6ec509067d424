// SPDX-License-Identifier: GPL-2.0-only
//! An endpoint of a stream, on its own kernel: it can receive under a key, send to another endpoint, or both.
//!
//! # Lock order
//! 1. The endpoint's [`Lock`], held while buffers are posted and taken and while the monitor is called, never while a task waits for a
//!    peer. Portals take none, so a call may run a portal of the same kernel.
//!
//! # States
//! Receiving: unpublished, published by [`Stream::advertise`]. Sending: unconnected, connected by [`Stream::connect`]. All four combinations exist;
//! [`Stream::reset`] leads back to the first of both. Buffers may be registered before the endpoint is published. States of a buffer are in
//! [`crate::slots`].

use crate::kernel::{Depth, Event, Range};
use crate::monitor::Operation;
use crate::pins::{Pinned, Pins};
use crate::portal::{Counters, Shared};
use crate::requests::{Message, StreamStats};
use crate::slots::{self, Index, Phase, SLOTS, Ticket};
use crate::{Errno, Kernel, Key, Lock, Monitor, Pin, Result, probe};

/// Bytes of the largest buffer.
pub const MAX_SIZE: usize = 64 << 20;
/// How long [`Mode::Adaptive`] spins, in nanoseconds.
pub const ADAPTIVE_SPIN_NS: u64 = 20_000;
/// Turns of a spinning wait between two looks at something that costs a hostcall.
const SPIN_TURNS: u32 = 16;

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
    /// [`Stream::wait`] would return at once.
    pub readable: bool,
    /// The receiver has a buffer.
    pub writable: bool,
    /// The receiver is gone.
    pub hangup: bool,
}

/// A buffer in a slot.
struct Buffer<P> {
    pinned: Pinned<P>,
    ticket: Ticket,
    direct: bool,
}

/// The part of an endpoint that only its own kernel sees, protected by the endpoint's lock.
///
/// # Invariants
/// `buffers` has an entry for every slot that is not free, and for no other.
pub struct State<P> {
    size: Option<usize>,
    mode: Mode,
    key: Option<Key>,
    connection: Option<u64>,
    buffers: [Option<Buffer<P>>; SLOTS],
    pins: Pins<P>,
    /// The address space that registered last.
    space: usize,
    /// Readers that wait for a registered buffer to be filled.
    readers: u32,
    taken: u64,
    sent: u64,
    sent_bytes: u64,
}

impl<P> State<P> {
    /// The state after boot.
    pub const fn new() -> State<P> {
        State {
            size: None,
            mode: Mode::Sleep,
            key: None,
            connection: None,
            buffers: [const { None }; SLOTS],
            pins: Pins::new(),
            space: 0,
            readers: 0,
            taken: 0,
            sent: 0,
            sent_bytes: 0,
        }
    }

    fn entry(&mut self, index: Index) -> &mut Option<Buffer<P>> {
        &mut self.buffers[index.number()]
    }
}

impl<P> Default for State<P> {
    fn default() -> State<P> {
        State::new()
    }
}

/// An endpoint's parts, together for one operation.
pub struct Stream<'a, K, M, L> {
    /// What portals see.
    pub shared: &'a Shared,
    /// What they don't.
    pub state: &'a L,
    /// The kernel around the endpoint.
    pub kernel: &'a K,
    /// The monitor.
    pub monitor: &'a M,
}

impl<K, M, L> Stream<'_, K, M, L>
where
    K: Kernel,
    M: Monitor,
    L: Lock<State<K::Pin>>,
{
    /// Sets the size of the buffers that are registered from now on. `EINVAL` unless in 1 to [`MAX_SIZE`].
    pub fn set_size(&self, size: i64) -> Result<()> {
        let size = usize::try_from(size)
            .ok()
            .filter(|size| (1..=MAX_SIZE).contains(size))
            .ok_or(Errno::INVAL)?;
        self.state.with(|state| state.size = Some(size));
        Ok(())
    }

    /// Sets how tasks wait here, from their next wait on.
    pub fn set_mode(&self, mode: Mode) {
        self.state.with(|state| state.mode = mode);
    }

    /// Publishes the endpoint under the key, instead of the one it may have had. `EADDRINUSE` when another endpoint has the key.
    pub fn advertise(&self, key: Key) -> Result<()> {
        self.state.with(|state| {
            self.drop_dead(state);
            if state.key.as_ref() == Some(&key) {
                return Ok(());
            }
            let old = self.shared.id();
            let id = self.monitor.stream_advertise(self.shared, &key)?;
            self.shared.set_id(Some(id));
            state.key = Some(key);
            if let Some(old) = old {
                self.monitor.revoke(old)?;
            }
            Ok(())
        })?;
        // Senders may have come before the id was known.
        self.interrupt();
        Ok(())
    }

    /// Connects the endpoint to the receiver of the key, instead of the one it may have had; errors as [`probe::probe`].
    pub fn connect(&self, key: &Key, nonblock: bool) -> Result<()> {
        let handle = probe::probe(self.kernel, nonblock, |notify| {
            self.monitor.stream_probe(key, notify)
        })?;
        let old = self.state.with(|state| state.connection.replace(handle));
        if let Some(old) = old {
            self.monitor.disconnect(old);
        }
        Ok(())
    }

    /// Queues a buffer of the calling program.
    ///
    /// # Errors
    /// `EINVAL` without a size, `EFAULT` unless it is the caller's writable memory, `EBUSY` when it overlaps one that is queued or holds a
    /// message that was not taken yet, `ENOBUFS` when all [`SLOTS`] are in use, `ENOMEM`.
    pub fn register(&self, address: usize) -> Result<()> {
        self.state.with(|state| {
            let size = state.size.ok_or(Errno::INVAL)?;
            self.post(state, address, size, false).map(drop)
        })
    }

    /// Takes the next message that is in a registered buffer, and gives that buffer back to the program.
    ///
    /// # Errors
    /// `EAGAIN`, `EINTR`, `ECANCELED` after a reset.
    pub fn wait(&self, nonblock: bool, spin: bool) -> Result<Message> {
        let epoch = self.shared.epoch();
        loop {
            let (message, mode) = self
                .state
                .with(|state| (self.take(state), if spin { Mode::Spin } else { state.mode }));
            if let Some(message) = message {
                return Ok(message);
            }
            if nonblock {
                return Err(Errno::AGAIN);
            }
            self.pause(mode, epoch, &mut || self.shared.slots.any_filled())?;
        }
    }

    /// Takes the next message into `len` bytes at `address`: one from a registered buffer, or, when none is registered, directly. Returns
    /// its length.
    ///
    /// # Errors
    /// `EMSGSIZE` when it is in a registered buffer and longer; it stays. Else as [`Stream::wait`] and [`Stream::register`].
    pub fn read(&self, address: usize, len: usize, nonblock: bool) -> Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        let epoch = self.shared.epoch();
        loop {
            enum Next {
                Done(usize),
                Direct(Ticket, Mode),
                Registered(Mode),
            }
            let next = self.state.with(|state| {
                if let Some(message) = self.shared.slots.oldest_message() {
                    return self.take_into(state, message, address, len).map(Next::Done);
                }
                if nonblock {
                    return Err(Errno::AGAIN);
                }
                if self.shared.registered() != 0 {
                    state.readers += 1;
                    return Ok(Next::Registered(state.mode));
                }
                let ticket = self.post(state, address, len.min(MAX_SIZE), true)?;
                Ok(Next::Direct(ticket, state.mode))
            })?;
            match next {
                Next::Done(len) => return Ok(len),
                Next::Direct(ticket, mode) => return self.await_direct(ticket, mode, epoch),
                Next::Registered(mode) => {
                    let result = self.pause(mode, epoch, &mut || {
                        self.shared.slots.any_filled() || self.shared.registered() == 0
                    });
                    self.state.with(|state| {
                        state.readers = state.readers.saturating_sub(1);
                    });
                    result?;
                }
            }
        }
    }

    /// Delivers one message to the endpoint's peer; returns its length.
    ///
    /// # Errors
    /// `ENOTCONN`, `EPIPE`, `EMSGSIZE`, `EAGAIN`, `EINTR`, `EFAULT` when the message cannot be read.
    pub fn write(&self, address: usize, len: usize, nonblock: bool) -> Result<usize> {
        loop {
            match self.send(address, len, false) {
                Err(Errno::AGAIN) if !nonblock => {}
                Err(Errno::BUSY) if nonblock => return Err(Errno::AGAIN),
                Err(Errno::BUSY) => {
                    // Others are in all the receiver's portals, for no longer than their copies take.
                    self.kernel.spin()?;
                    continue;
                }
                other => return other,
            }
            if self.spin_for_buffer()? {
                continue;
            }
            // Read before the peer is asked for an interrupt, so that one that comes right after it is not missed.
            let seen = self.kernel.peer_events();
            match self.send(address, len, true) {
                Err(Errno::AGAIN) => {}
                Err(Errno::BUSY) => continue,
                other => return other,
            }
            Counters::add(&self.shared.counters.sleeps, 1);
            self.kernel
                .sleep(Event::Peers, Depth::Interruptible, None, &mut || {
                    self.kernel.peer_events() != seen
                })?;
        }
    }

    /// Tells what is possible now, and arranges for [`Kernel::wake`] or an increase of [`Kernel::peer_events`] at the next change. That is
    /// arranged even when something is possible, since an edge-triggered caller does not ask again before the next edge. The caller is on the
    /// queues of both already.
    pub fn poll(&self) -> Readiness {
        self.shared.arm();
        let mut readiness = Readiness {
            readable: self.shared.slots.any_filled(),
            ..Readiness::default()
        };
        let buffer = self.state.with(|state| {
            let handle = state.connection?;
            let size = self
                .monitor
                .wait(handle)
                .and_then(|()| self.monitor.call(handle, 0, 0, Operation::QueryNotify));
            Some(size)
        });
        match buffer {
            None => {}
            Some(Ok(size)) => readiness.writable = size > 0,
            // Nobody would tell when a portal is free: the write finds out.
            Some(Err(Errno::BUSY)) => readiness.writable = true,
            Some(Err(_)) => readiness.hangup = true,
        }
        readiness
    }

    /// Takes the key back, disconnects, drops all buffers and messages, and ends all waits with `ECANCELED`. Nobody writes into
    /// the buffers when it returns; on an error everything is as before.
    pub fn reset(&self) -> Result<()> {
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
            state.size = None;
            state.mode = Mode::Sleep;
            state.key = None;
            state.buffers = [const { None }; SLOTS];
            state.pins.clear();
            state.taken = 0;
            state.sent = 0;
            state.sent_bytes = 0;
            Ok(())
        })?;
        self.kernel.wake();
        Ok(())
    }

    /// To be called when a program closes the node, perhaps because it ends: lets go of memory that nobody can use any more.
    pub fn closed(&self) {
        self.state.with(|state| {
            self.drop_dead(state);
            state.pins.drop_unmapped(self.kernel);
        });
    }

    /// To be called after each capability interrupt; may be called by the handler.
    pub fn interrupt(&self) {
        self.shared.interrupt(|| self.kernel.wake(), self.monitor);
    }

    /// Counters and gauges.
    pub fn stats(&self) -> StreamStats {
        let counters = &self.shared.counters;
        let slots = &self.shared.slots;
        self.state.with(|state| StreamStats {
            received: Counters::get(&counters.received),
            received_bytes: Counters::get(&counters.received_bytes),
            taken: state.taken,
            sent: state.sent,
            sent_bytes: state.sent_bytes,
            no_buffer: Counters::get(&counters.no_buffer),
            too_long: Counters::get(&counters.too_long),
            faults: Counters::get(&counters.faults),
            notifications: Counters::get(&counters.notifications),
            sleeps: Counters::get(&counters.sleeps),
            queued: slots.count_posted(),
            filled: slots.count_filled(),
            advertised: u32::from(state.key.is_some()),
            connected: u32::from(state.connection.is_some()),
        })
    }

    fn post(
        &self,
        state: &mut State<K::Pin>,
        address: usize,
        len: usize,
        direct: bool,
    ) -> Result<Ticket> {
        let space = self.kernel.space();
        if state.space != space {
            state.space = space;
            self.drop_dead(state);
        }
        let range = Range::new(address, len).ok_or(Errno::FAULT)?;
        let mut free = None;
        for (number, entry) in state.buffers.iter().enumerate() {
            match entry {
                None => free = free.or(Index::new(number)),
                Some(buffer) if buffer.pinned.range.overlaps(range) => return Err(Errno::BUSY),
                Some(_) => {}
            }
        }
        let index = free.ok_or(Errno::NOBUFS)?;
        let pinned = state.pins.take(self.kernel, range)?;
        // The slot is free by the invariant of the state.
        let ticket = self
            .shared
            .slots
            .post(index, address, len, direct)
            .ok_or(Errno::NOBUFS)?;
        *state.entry(index) = Some(Buffer {
            pinned,
            ticket,
            direct,
        });
        if !direct {
            self.count_registered(state);
        }
        self.shared.wake_senders(self.monitor);
        Ok(ticket)
    }

    /// Tells readers whether there are buffers for whoever waits.
    fn count_registered(&self, state: &State<K::Pin>) {
        let mut registered = 0;
        for (number, entry) in state.buffers.iter().enumerate() {
            if entry.as_ref().is_some_and(|buffer| !buffer.direct) {
                registered |= 1 << number;
            }
        }
        self.shared.set_registered(registered);
        if registered == 0 && state.readers > 0 {
            self.kernel.wake();
        }
    }

    fn take(&self, state: &mut State<K::Pin>) -> Option<Message> {
        let message = self.shared.slots.oldest_message()?;
        Some(self.finish(state, message))
    }

    /// Frees a filled slot.
    fn finish(&self, state: &mut State<K::Pin>, message: slots::Message) -> Message {
        self.shared.slots.release(message.index);
        if let Some(buffer) = state.entry(message.index).take() {
            let direct = buffer.direct;
            state.pins.put(buffer.pinned);
            if !direct {
                self.count_registered(state);
            }
        }
        let sequence = state.taken;
        state.taken += 1;
        Message {
            address: message.address as u64,
            length: message.len as u64,
            sequence,
            sender: message.sender,
        }
    }

    fn take_into(
        &self,
        state: &mut State<K::Pin>,
        message: slots::Message,
        address: usize,
        len: usize,
    ) -> Result<usize> {
        if message.len > len {
            return Err(Errno::MSGSIZE);
        }
        if let Some(buffer) = state.entry(message.index) {
            // A message that cannot be copied stays.
            self.kernel
                .copy_out(&buffer.pinned.pin, address, message.len)?;
        }
        self.finish(state, message);
        Ok(message.len)
    }

    /// Waits for the message in the caller's own buffer. A signal takes the buffer back, unless a portal was faster.
    fn await_direct(&self, ticket: Ticket, mode: Mode, epoch: u64) -> Result<usize> {
        let slots = &self.shared.slots;
        let mut waited = self.pause(mode, epoch, &mut || slots.phase(ticket) == Phase::Filled);
        loop {
            let done = self.state.with(|state| {
                if let Some(message) = slots.message(ticket) {
                    self.finish(state, message);
                    return Some(Ok(message.len));
                }
                if slots.phase(ticket) == Phase::Gone {
                    return Some(Err(Errno::CANCELED));
                }
                if slots.withdraw(ticket) {
                    if let Some(buffer) = state.entry(ticket.index).take() {
                        state.pins.put(buffer.pinned);
                    }
                    return Some(Err(waited.err().unwrap_or(Errno::INTR)));
                }
                None
            });
            if let Some(done) = done {
                return done;
            }
            // A portal is copying: another processor is at it and will complete or give back.
            waited = waited.and(self.kernel.sleep(
                Event::Endpoint,
                Depth::Uninterruptible,
                None,
                &mut || {
                    self.shared.arm();
                    slots.phase(ticket) != Phase::Claimed
                },
            ));
        }
    }

    /// Withdraws buffers whose program is gone: nobody could read what is delivered to them.
    fn drop_dead(&self, state: &mut State<K::Pin>) {
        let mut withdrawn = false;
        for entry in &mut state.buffers {
            if let Some(buffer) = entry
                && !buffer.pinned.pin.alive()
                && self.shared.slots.withdraw(buffer.ticket)
            {
                *entry = None;
                withdrawn = true;
            }
        }
        if withdrawn {
            self.count_registered(state);
        }
    }

    /// Waits at this endpoint until `ready`; `ECANCELED` when it is reset meanwhile.
    fn pause(&self, mode: Mode, epoch: u64, ready: &mut dyn FnMut() -> bool) -> Result<()> {
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
            Counters::add(&self.shared.counters.sleeps, 1);
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

    /// Looks whether a sleep is over, and if not, sees to being woken when it is. Somebody who is armed without need costs the next sender
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

    fn send(&self, address: usize, len: usize, arm: bool) -> Result<usize> {
        self.state.with(|state| {
            let handle = state.connection.ok_or(Errno::NOTCONN)?;
            if arm {
                self.monitor.wait(handle)?;
            }
            self.monitor
                .call(handle, address, len, Operation::Deliver)?;
            state.sent += 1;
            state.sent_bytes += len as u64;
            Ok(len)
        })
    }

    /// In the modes that spin: waits for the peer to have a buffer. False when it is time to sleep.
    fn spin_for_buffer(&self) -> Result<bool> {
        let mode = self.state.with(|state| state.mode);
        let end = match mode {
            Mode::Sleep => return Ok(false),
            Mode::Spin => None,
            Mode::Adaptive => Some(self.kernel.now_ns().saturating_add(ADAPTIVE_SPIN_NS)),
        };
        loop {
            let size = self.state.with(|state| {
                let handle = state.connection.ok_or(Errno::NOTCONN)?;
                self.monitor.call(handle, 0, 0, Operation::Query)
            });
            match size {
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
}
