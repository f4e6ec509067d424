// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The buffers that a driver gives for what it receives: virtio 1.2, section 5.1.6.3.
//!
//! Where the driver agreed to it, a frame goes into as many of them as it takes. They are completed together: a driver that finds the first
//! expects the others to be there.

use std::sync::Arc;

use thiserror::Error;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use super::QUEUE_SIZE;
use super::frame::Frame;
use super::header::{HEADER, Header};
use crate::chain::{Chain, Defect};
use crate::memory::{GuestMemory, OutsideMemory, Segment};
use crate::queue::{Completion, QueueError, Virtqueue};
use crate::signal::DriverSignal;

/// How many buffers one frame can have: the queue has no more.
const MOST_BUFFERS: usize = QUEUE_SIZE as usize;

/// Why a queue cannot be used any more.
#[derive(Debug, Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("a buffer for received frames is not usable: {0:?}")]
    Buffer(Defect),
    #[error("a buffer for received frames is not usable: {0}")]
    Memory(#[from] OutsideMemory),
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in the driver's buffers.
    Done,
    /// The driver has to give more buffers first.
    NoRoom,
    /// It does not fit the driver's buffers, or what the driver agreed to.
    Refused,
}

/// One driver's buffers, from when it is ready to its reset.
#[derive(Debug)]
pub(super) struct ReceiveQueue {
    queue: Virtqueue,
    memory: GuestMemory,
    signal: Arc<DriverSignal>,
    features: u64,
    chain: Chain,
    /// The buffers of the frame that is put there at the moment.
    buffers: Box<[Completion; MOST_BUFFERS]>,
    unsignalled: bool,
}

impl ReceiveQueue {
    pub(super) fn new(
        queue: Virtqueue,
        memory: GuestMemory,
        signal: Arc<DriverSignal>,
        features: u64,
    ) -> ReceiveQueue {
        ReceiveQueue {
            queue,
            memory,
            signal,
            features,
            chain: Chain::new(),
            buffers: Box::new([Completion::default(); MOST_BUFFERS]),
            unsignalled: false,
        }
    }

    pub(super) fn signal(&self) -> &Arc<DriverSignal> {
        &self.signal
    }

    /// Puts a frame into the driver's buffers.
    pub(super) fn put(&mut self, header: Header, frame: Frame<'_>) -> Result<Put, Broken> {
        let Some(header) = header.for_driver(self.features) else {
            return Ok(Put::Refused);
        };
        let begin = self.queue.position();
        let put = self.fill(header, frame)?;
        if put != Put::Done {
            self.queue.go_back_to(begin);
        }
        Ok(put)
    }

    fn fill(&mut self, header: Header, frame: Frame<'_>) -> Result<Put, Broken> {
        let mergeable = self.features >> VIRTIO_NET_F_MRG_RXBUF & 1 == 1;
        let mut reader = frame.reader();
        // Written last, when the number of buffers is known; it may be cut into as many pieces as it has bytes.
        let mut places = [Segment { address: 0, len: 0 }; HEADER];
        let mut known = 0;
        let mut header_left = HEADER;
        let mut used = 0;
        for completion in self.buffers.iter_mut() {
            if !self.queue.next(&mut self.chain)? {
                return Ok(Put::NoRoom);
            }
            if let Some(defect) = self.chain.defect() {
                return Err(Broken::Buffer(defect));
            }
            let mut written = 0;
            for segment in self.chain.writable.as_slice() {
                let mut segment = *segment;
                if header_left > 0 {
                    let len = header_left.min(segment.len as usize);
                    if let Some(place) = places.get_mut(known) {
                        *place = Segment {
                            address: segment.address,
                            len: len as u32,
                        };
                    }
                    known += 1;
                    header_left -= len;
                    written += len;
                    segment.address = segment.address.wrapping_add(len as u64);
                    segment.len -= len as u32;
                }
                if reader.left() == 0 {
                    break;
                }
                written += reader.copy_to(&self.memory, segment.address, segment.len as usize)?;
            }
            *completion = Completion {
                head: self.chain.head,
                written: written as u32,
            };
            used += 1;
            if header_left > 0 {
                // Not even that fits.
                return Ok(Put::Refused);
            }
            if reader.left() == 0 || !mergeable {
                break;
            }
        }
        if reader.left() > 0 {
            return Ok(Put::Refused);
        }
        let bytes = header.to_bytes(used);
        let mut rest = &bytes[..];
        for place in places.iter().take(known) {
            let (now, later) = rest.split_at(rest.len().min(place.len as usize));
            self.memory.write(place.address, now)?;
            rest = later;
        }
        self.queue
            .complete_together(self.buffers.get(..usize::from(used)).unwrap_or_default())?;
        self.unsignalled = true;
        Ok(Put::Done)
    }

    /// Asks to be notified of more buffers than there are.
    pub(super) fn want_buffers(&mut self) -> Result<(), Broken> {
        Ok(self.queue.notify_of_more()?)
    }

    /// Wants no notifications.
    pub(super) fn has_buffers(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notifications()?)
    }

    /// Interrupts the driver if it wants to know of what was put there.
    pub(super) fn tell(&mut self) -> Result<(), Broken> {
        if std::mem::take(&mut self.unsignalled) && self.queue.interrupt_wanted()? {
            self.signal.used_buffers();
        }
        Ok(())
    }
}
