// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The frames that a driver sends: virtio 1.2, section 5.1.6.2.

use std::sync::Arc;

use super::frame::Frame;
use super::header::{HEADER, Header};
use super::receive::Broken;
use crate::chain::Chain;
use crate::device::Session;
use crate::memory::{GuestMemory, OutsideMemory};
use crate::queue::Virtqueue;
use crate::signal::DriverSignal;

/// What is next in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Empty,
    /// Something that is no frame, or has a header that makes no sense. It is to be completed and forgotten.
    Nonsense,
    /// A frame; what is left to be done with it.
    Frame(Header),
}

/// One driver's queue, from when it is ready to its reset.
#[derive(Debug)]
pub(super) struct TransmitQueue {
    queue: Virtqueue,
    memory: GuestMemory,
    signal: Arc<DriverSignal>,
    features: u64,
    chain: Chain,
    unsignalled: bool,
}

impl TransmitQueue {
    pub(super) fn new(
        queue: Virtqueue,
        memory: GuestMemory,
        signal: Arc<DriverSignal>,
        features: u64,
    ) -> TransmitQueue {
        TransmitQueue {
            queue,
            memory,
            signal,
            features,
            chain: Chain::new(),
            unsignalled: false,
        }
    }

    pub(super) fn signal(&self) -> &Arc<DriverSignal> {
        &self.signal
    }

    /// Takes what is next.
    pub(super) fn next(&mut self) -> Result<Next, Broken> {
        if !self.queue.next(&mut self.chain)? {
            return Ok(Next::Empty);
        }
        Ok(self
            .check()
            .unwrap_or(None)
            .map_or(Next::Nonsense, Next::Frame))
    }

    fn check(&mut self) -> Result<Option<Header>, OutsideMemory> {
        if self.chain.defect().is_some() {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        if !self.chain.readable.take_front(&self.memory, &mut bytes)? {
            return Ok(None);
        }
        let plain = self.chain.readable.as_slice().iter();
        let mut plain = plain.map(|part| self.memory.contains_plain(part.address, part.len.into()));
        if !plain.all(|is| is) {
            return Ok(None);
        }
        let len = usize::try_from(self.chain.readable.bytes()).unwrap_or(usize::MAX);
        Ok(Header::from_bytes(&bytes).check(len, self.features))
    }

    /// The frame that was taken.
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame::Guest {
            memory: &self.memory,
            segments: self.chain.readable.as_slice(),
            len: usize::try_from(self.chain.readable.bytes()).unwrap_or(usize::MAX),
        }
    }

    /// Gives back what was taken, so that it is next again.
    pub(super) fn put_back(&mut self) {
        self.queue.put_back();
    }

    /// What was taken is done with.
    pub(super) fn complete(&mut self) -> Result<(), Broken> {
        self.queue.complete(&self.chain, 0)?;
        self.unsignalled = true;
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was completed.
    pub(super) fn tell(&mut self) -> Result<(), Broken> {
        if std::mem::take(&mut self.unsignalled) && self.queue.interrupt_wanted()? {
            self.signal.used_buffers();
        }
        Ok(())
    }

    /// Wants no notifications: whoever has called looks by itself.
    pub(super) fn begin(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notifications()?)
    }

    /// Wants to be notified of the next frame; `true` when there is one already.
    pub(super) fn end(&mut self) -> Result<bool, Broken> {
        Ok(self.queue.enable_notifications()?)
    }
}

/// Both queues of a session; `None` when the driver left one out.
pub(super) fn queues(session: Session) -> Option<(super::receive::ReceiveQueue, TransmitQueue)> {
    let Session {
        features,
        memory,
        queues,
        signal,
    } = session;
    let mut queues = queues.into_iter();
    let (receive, transmit) = (queues.next()??, queues.next()??);
    Some((
        super::receive::ReceiveQueue::new(receive, memory.clone(), Arc::clone(&signal), features),
        TransmitQueue::new(transmit, memory, signal, features),
    ))
}
