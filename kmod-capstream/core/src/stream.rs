// SPDX-License-Identifier: GPL-2.0-only
//! What a stream adds to an endpoint: buffers that its programs register, and messages in them.
//!
//! Buffers may be registered before the endpoint is published. States of a buffer are in [`crate::slots`].

use crate::endpoint::{self, Endpoint, Epoch, Mode, Readiness};
use crate::inbox::{Counters, Inbox};
use crate::kernel::{Depth, Event, Pin, Range};
use crate::monitor::Operation;
use crate::pins::{Pinned, Pins};
use crate::requests::{Message, StreamStats};
use crate::slots::{self, Index, Phase, SLOTS, Slots, Ticket};
use crate::{Errno, Kernel, Lock, Monitor, Result};

/// Bytes of the largest buffer.
pub const MAX_SIZE: usize = 64 << 20;

/// A buffer in a slot.
struct Buffer<K: Kernel> {
    pinned: Pinned<K::Pin>,
    ticket: Ticket,
    direct: bool,
    /// What it uses up of what this cVM may have queued.
    _place: Option<K::Place>,
}

/// A stream's part of the state.
///
/// # Invariants
/// `buffers` has an entry for every slot that is not free, and for no other.
pub struct Buffers<K: Kernel> {
    size: Option<usize>,
    buffers: [Option<Buffer<K>>; SLOTS],
    pins: Pins<K::Pin>,
    /// Readers that wait for a registered buffer to be filled.
    readers: u32,
    taken: u64,
}

impl<K: Kernel> Buffers<K> {
    /// None.
    pub const fn new() -> Buffers<K> {
        Buffers {
            size: None,
            buffers: [const { None }; SLOTS],
            pins: Pins::new(),
            readers: 0,
            taken: 0,
        }
    }

    fn entry(&mut self, index: Index) -> &mut Option<Buffer<K>> {
        &mut self.buffers[index.number()]
    }
}

impl<K: Kernel> Default for Buffers<K> {
    fn default() -> Buffers<K> {
        Buffers::new()
    }
}

/// What portals of a stream see.
pub type Shared = crate::portal::Shared<Inbox>;
/// What they don't.
pub type State<K> = endpoint::State<Buffers<K>>;
/// An endpoint of a stream.
pub type Stream<'a, K, M, L> = Endpoint<'a, Inbox, K, M, L>;

impl<K, M, L> Stream<'_, K, M, L>
where
    K: Kernel,
    M: Monitor,
    L: Lock<State = State<K>>,
{
    fn slots(&self) -> &Slots {
        &self.shared.portal.slots
    }

    /// Sets the size of the buffers that are registered from now on. `EINVAL` unless in 1 to [`MAX_SIZE`].
    pub fn set_size(&self, size: i64) -> Result<()> {
        let size = usize::try_from(size)
            .ok()
            .filter(|size| (1..=MAX_SIZE).contains(size))
            .ok_or(Errno::INVAL)?;
        self.state.with(|state| state.own.size = Some(size));
        Ok(())
    }

    /// Sets how tasks wait here, from their next wait on.
    pub fn set_mode(&self, mode: Mode) {
        self.state.with(|state| state.mode = mode);
    }

    /// Queues a buffer of the calling program.
    ///
    /// # Errors
    /// `EINVAL` without a size, `EFAULT` unless it is the caller's writable memory, `EBUSY` when it overlaps one that is queued or holds a
    /// message that was not taken yet, `ENOBUFS` when all [`SLOTS`] are in use, `ENOMEM`.
    pub fn register(&self, address: usize) -> Result<()> {
        self.state.with(|state| {
            let size = state.own.size.ok_or(Errno::INVAL)?;
            self.post(state, address, size, false).map(drop)
        })
    }

    /// Takes the next message that is in a registered buffer, and gives that buffer back to the program.
    ///
    /// # Errors
    /// `EAGAIN`, `EINTR`, `ECANCELED` after a reset.
    pub fn wait(&self, nonblock: bool, spin: bool) -> Result<Message> {
        let epoch = self.epoch();
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
            self.pause(epoch, mode, &mut || self.slots().any_filled())?;
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
        let epoch = self.epoch();
        loop {
            enum Next {
                Done(usize),
                Direct(Ticket, Mode),
                Registered(Mode),
            }
            let next = self.state.with(|state| {
                if let Some(message) = self.slots().oldest_message() {
                    return self.take_into(state, message, address, len).map(Next::Done);
                }
                if nonblock {
                    return Err(Errno::AGAIN);
                }
                if self.shared.portal.registered() != 0 {
                    state.own.readers += 1;
                    return Ok(Next::Registered(state.mode));
                }
                let ticket = self.post(state, address, len.min(MAX_SIZE), true)?;
                Ok(Next::Direct(ticket, state.mode))
            })?;
            match next {
                Next::Done(len) => return Ok(len),
                Next::Direct(ticket, mode) => return self.await_direct(ticket, mode, epoch),
                Next::Registered(mode) => {
                    let result = self.pause(epoch, mode, &mut || {
                        self.slots().any_filled() || self.shared.portal.registered() == 0
                    });
                    self.state.with(|state| {
                        state.own.readers = state.own.readers.saturating_sub(1);
                    });
                    result?;
                }
            }
        }
    }

    /// Delivers one message to the endpoint's peer; returns its length. `EMSGSIZE` when it is longer than the buffer; else errors as
    /// [`Endpoint::call`].
    pub fn write(&self, address: usize, len: usize, nonblock: bool) -> Result<usize> {
        self.call(Operation::Deliver, address, len, nonblock)?;
        Ok(len)
    }

    /// [`Endpoint::poll_with`]: readable when [`Stream::wait`] would return at once, writable when the receiver has a buffer.
    pub fn poll(&self) -> Readiness {
        self.poll_with(|| self.slots().any_filled())
    }

    /// [`Endpoint::reset_with`]: drops all buffers and messages. Nobody writes into the buffers when it returns.
    pub fn reset(&self) -> Result<()> {
        self.reset_with(|own| {
            own.size = None;
            own.buffers = [const { None }; SLOTS];
            own.pins.clear();
            own.taken = 0;
        })
    }

    /// To be called when a program closes the node: lets go of memory that it has unmapped.
    pub fn closed(&self) {
        self.state
            .with(|state| state.own.pins.drop_unmapped(self.kernel));
    }

    /// To be called when the last task of a program is leaving its address space, [`Kernel::space`] of which is `space`: takes its queued buffers
    /// back. No portal writes into them when it returns. A message that is in one already stays for whoever reads the endpoint next.
    pub fn left(&self, space: usize) {
        while let Some(claimed) = self.state.with(|state| self.withdraw_all(state, space)) {
            // Ends: another processor is at it and will complete or give back.
            let _ = self.await_portal(claimed);
        }
    }

    /// Withdraws the buffers of a program; returns one that a portal has at the moment.
    fn withdraw_all(&self, state: &mut State<K>, space: usize) -> Option<Ticket> {
        let mut withdrawn = false;
        let mut claimed = None;
        for entry in &mut state.own.buffers {
            let Some(buffer) = entry else { continue };
            if buffer.pinned.space != space {
                continue;
            }
            if self.slots().withdraw(buffer.ticket) {
                *entry = None;
                withdrawn = true;
            } else if self.slots().phase(buffer.ticket) == Phase::Claimed {
                claimed = Some(buffer.ticket);
            }
        }
        if withdrawn {
            self.count_registered(state);
        }
        state.own.pins.drop_space(space);
        claimed
    }

    /// Counters and gauges.
    pub fn stats(&self) -> StreamStats {
        let common = self.shared.counters();
        let counters = &self.shared.portal.counters;
        let slots = self.slots();
        self.state.with(|state| StreamStats {
            received: Counters::get(&counters.received),
            received_bytes: Counters::get(&counters.received_bytes),
            taken: state.own.taken,
            sent: state.sent,
            sent_bytes: state.sent_bytes,
            no_buffer: common.no_room,
            too_long: Counters::get(&counters.too_long),
            faults: Counters::get(&counters.faults),
            notifications: common.notifications,
            sleeps: common.sleeps,
            queued: slots.count_posted(),
            filled: slots.count_filled(),
            advertised: u32::from(state.is_published()),
            connected: u32::from(state.is_connected()),
        })
    }

    fn post(
        &self,
        state: &mut State<K>,
        address: usize,
        len: usize,
        direct: bool,
    ) -> Result<Ticket> {
        let range = Range::new(address, len).ok_or(Errno::FAULT)?;
        let mut free = None;
        for (number, entry) in state.own.buffers.iter().enumerate() {
            match entry {
                None => free = free.or(Index::new(number)),
                Some(buffer) if buffer.pinned.range.overlaps(range) => return Err(Errno::BUSY),
                Some(_) => {}
            }
        }
        let index = free.ok_or(Errno::NOBUFS)?;
        let place = if direct {
            None
        } else {
            Some(self.kernel.place()?)
        };
        let pinned = state.own.pins.take(self.kernel, range)?;
        // The slot is free by the invariant of the state.
        let ticket = self
            .slots()
            .post(index, pinned.pin.address(), len, direct)
            .ok_or(Errno::NOBUFS)?;
        *state.own.entry(index) = Some(Buffer {
            pinned,
            ticket,
            direct,
            _place: place,
        });
        if !direct {
            self.count_registered(state);
        }
        self.shared.wake_callers(self.monitor);
        Ok(ticket)
    }

    /// Tells readers whether there are buffers for whoever waits.
    fn count_registered(&self, state: &State<K>) {
        let mut registered = 0;
        for (number, entry) in state.own.buffers.iter().enumerate() {
            if entry.as_ref().is_some_and(|buffer| !buffer.direct) {
                registered |= 1 << number;
            }
        }
        self.shared.portal.set_registered(registered);
        if registered == 0 && state.own.readers > 0 {
            self.kernel.wake();
        }
    }

    fn take(&self, state: &mut State<K>) -> Option<Message> {
        let message = self.slots().oldest_message()?;
        Some(self.finish(state, message))
    }

    /// Frees a filled slot.
    fn finish(&self, state: &mut State<K>, message: slots::Message) -> Message {
        self.slots().release(message.index);
        let mut address = message.address;
        if let Some(buffer) = state.own.entry(message.index).take() {
            let direct = buffer.direct;
            // As the program calls it.
            address = buffer.pinned.range.address;
            state.own.pins.put(buffer.pinned);
            if !direct {
                self.count_registered(state);
            }
        }
        let sequence = state.own.taken;
        state.own.taken += 1;
        Message {
            address: address as u64,
            length: message.len as u64,
            sequence,
            sender: message.sender,
        }
    }

    fn take_into(
        &self,
        state: &mut State<K>,
        message: slots::Message,
        address: usize,
        len: usize,
    ) -> Result<usize> {
        if message.len > len {
            return Err(Errno::MSGSIZE);
        }
        if let Some(buffer) = state.own.entry(message.index) {
            // A message that cannot be copied stays.
            self.kernel
                .copy_out(&buffer.pinned.pin, address, message.len)?;
        }
        self.finish(state, message);
        Ok(message.len)
    }

    /// Waits for the message in the caller's own buffer. A signal takes the buffer back, unless a portal was faster.
    fn await_direct(&self, ticket: Ticket, mode: Mode, epoch: Epoch) -> Result<usize> {
        let slots = self.slots();
        let mut waited = self.pause(epoch, mode, &mut || slots.phase(ticket) == Phase::Filled);
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
                    if let Some(buffer) = state.own.entry(ticket.index).take() {
                        state.own.pins.put(buffer.pinned);
                    }
                    return Some(Err(waited.err().unwrap_or(Errno::INTR)));
                }
                None
            });
            if let Some(done) = done {
                return done;
            }
            // Another processor is at it and will complete or give back.
            waited = waited.and(self.await_portal(ticket));
        }
    }

    /// Waits until the portal that copies into a buffer is done with it.
    fn await_portal(&self, ticket: Ticket) -> Result<()> {
        self.kernel
            .sleep(Event::Endpoint, Depth::Uninterruptible, None, &mut || {
                self.shared.arm();
                self.slots().phase(ticket) != Phase::Claimed
            })
    }
}
