// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A split virtqueue, seen from the device.
//!
//! `virtio-queue` walks the rings; here is what it leaves to its user: whether addresses are usable before it sees them, whether a
//! chain has an end, several requests that are completed at once, and which of all completions the driver wants an interrupt for.

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::memory::{GuestMemory, OutsideMemory};

/// Why a virtqueue cannot be used, or cannot be used any more. The driver has to reset the device.
#[derive(Debug, Error)]
pub enum QueueError {
    /// Its size is not acceptable.
    #[error("queue size {size} is not a power of two from 1 to {max}")]
    Size {
        /// What the driver wrote.
        size: u32,
        /// What the device offers.
        max: u16,
    },
    /// One of its parts is not aligned, or not in the guest's memory.
    #[error("the {part} at {address:#x} is not {align} byte aligned memory of the guest")]
    Address {
        /// Which part.
        part: &'static str,
        /// Where the driver put it.
        address: u64,
        /// The alignment that it needs.
        align: u64,
    },
    /// A chain of descriptors has no end.
    #[error(
        "the descriptor chain that begins at {head} loops, leaves its table, is empty or has more than 4 GiB"
    )]
    Chain {
        /// Its first descriptor.
        head: u16,
    },
    /// The index in the available ring, or an access to a ring, makes no sense.
    #[error("the rings are not usable: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// A ring went out of reach.
    #[error(transparent)]
    Memory(#[from] OutsideMemory),
}

/// What a driver has written about a queue; nothing of it is checked.
#[derive(Clone, Copy, Debug)]
pub struct QueueSetup {
    /// The largest size that the device offers.
    pub max_size: u16,
    /// How many entries it has.
    pub size: u32,
    /// Whether the driver says that it is set up.
    pub ready: bool,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
}

impl QueueSetup {
    /// A queue that the driver has not touched yet.
    pub fn new(max_size: u16) -> QueueSetup {
        QueueSetup {
            max_size,
            size: max_size.into(),
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }
}

/// A virtqueue in use. Not shared: whoever serves it has it behind a lock.
#[derive(Debug)]
pub struct Virtqueue {
    queue: Queue,
    memory: GuestMemory,
    /// The used index when the driver was asked last whether it wants an interrupt.
    asked: u16,
}

/// A request that is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// By which the driver knows it.
    pub head: u16,
    /// How many bytes were written to it.
    pub written: u32,
}

impl Virtqueue {
    /// Checks what the driver has set up, and takes it into use.
    ///
    /// # Errors
    ///
    /// [`QueueError::Size`], [`QueueError::Address`].
    pub fn new(
        setup: &QueueSetup,
        event_idx: bool,
        memory: GuestMemory,
    ) -> Result<Virtqueue, QueueError> {
        let bad_size = || QueueError::Size {
            size: setup.size,
            max: setup.max_size,
        };
        let size = u16::try_from(setup.size).map_err(|_| bad_size())?;
        let mut queue = Queue::new(setup.max_size).map_err(|_| bad_size())?;
        queue.try_set_size(size).map_err(|_| bad_size())?;

        // Both rings end with an event index, which is there whether it is in use or not.
        let entries = u64::from(size);
        for (part, address, align, len) in [
            ("descriptor table", setup.descriptors, 16, 16 * entries),
            ("available ring", setup.available, 2, 6 + 2 * entries),
            ("used ring", setup.used, 4, 6 + 8 * entries),
        ] {
            // Zero is what `virtio-queue` takes for "not set up".
            if address == 0 || address % align != 0 || !memory.contains_plain(address, len) {
                return Err(QueueError::Address {
                    part,
                    address,
                    align,
                });
            }
        }
        queue.try_set_desc_table_address(GuestAddress(setup.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(setup.available))?;
        queue.try_set_used_ring_address(GuestAddress(setup.used))?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(Virtqueue {
            queue,
            memory,
            asked: 0,
        })
    }

    /// Takes the next request into `chain`; `false` when there is none.
    ///
    /// # Errors
    ///
    /// [`QueueError::Ring`] when the driver's index is out of bounds, [`QueueError::Chain`] for a chain without an end.
    pub fn next(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let Some(descriptors) = self.queue.iter(self.memory.plain())?.next() else {
            return Ok(false);
        };
        let head = descriptors.head_index();
        if !chain.fill(&self.memory, head, descriptors) {
            return Err(QueueError::Chain { head });
        }
        Ok(true)
    }

    /// Gives the request that was taken last back, so that it is the next again.
    pub fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a request back to the driver, after `written` bytes were written to it.
    ///
    /// # Errors
    ///
    /// [`QueueError::Ring`]; not for a chain that [`Virtqueue::next`] has filled.
    pub fn complete(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        Ok(self
            .queue
            .add_used(self.memory.plain(), chain.head, written)?)
    }

    /// Where the next request is, for [`Virtqueue::go_back_to`].
    pub fn position(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Gives back every request that was taken since [`Virtqueue::position`] was `position`, and that was not completed.
    pub fn go_back_to(&mut self, position: u16) {
        self.queue.set_next_avail(position);
    }

    /// Gives requests back to the driver, which sees either none of them or all.
    ///
    /// # Errors
    ///
    /// [`QueueError::Memory`]; not for a ring that was checked, and heads that [`Virtqueue::next`] has filled.
    pub fn complete_together(&mut self, completions: &[Completion]) -> Result<(), QueueError> {
        let size = self.queue.size();
        let mut index = self.queue.next_used();
        for completion in completions {
            let mut element = [0; 8];
            let (id, len) = element.split_at_mut(4);
            id.copy_from_slice(&u32::from(completion.head).to_le_bytes());
            len.copy_from_slice(&completion.written.to_le_bytes());
            // The size of a queue is never zero.
            let at = 4 + 8 * u64::from(index.checked_rem(size).unwrap_or(0));
            self.memory
                .write(self.queue.used_ring().wrapping_add(at), &element)?;
            index = index.wrapping_add(1);
        }
        self.queue.set_next_used(index);
        let at = self.queue.used_ring().wrapping_add(2);
        Ok(self.memory.store_u16(at, index, Ordering::Release)?)
    }

    /// Whether the driver wants an interrupt for what was completed since the last call.
    ///
    /// # Errors
    ///
    /// [`QueueError::Memory`]; not for a ring that was checked.
    pub fn interrupt_wanted(&mut self) -> Result<bool, QueueError> {
        // Between publishing used buffers and reading what the driver wants.
        fence(Ordering::SeqCst);
        let used = self.queue.next_used();
        let before = std::mem::replace(&mut self.asked, used);
        let ring = self.queue.avail_ring();
        if self.queue.event_idx_enabled() {
            let at = ring.wrapping_add(4 + 2 * u64::from(self.queue.size()));
            let event = self.memory.load_u16(at, Ordering::Relaxed)?;
            // virtio 1.2, 2.7.7.1: whether the event is among the completions.
            return Ok(used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(before));
        }
        let flags = self.memory.load_u16(ring, Ordering::Relaxed)?;
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver for no notifications, while requests are taken anyway.
    ///
    /// # Errors
    ///
    /// [`QueueError::Ring`]; not for a ring that was checked.
    pub fn disable_notifications(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(self.memory.plain())?)
    }

    /// Asks the driver to notify about the next request. `true` when that came already, and there will be no notification about it.
    ///
    /// # Errors
    ///
    /// [`QueueError::Ring`]; not for a ring that was checked.
    pub fn enable_notifications(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(self.memory.plain())?)
    }

    /// Asks the driver to notify about what it adds from now on, though there may be requests that were not taken. What came before has to be looked at after
    /// this.
    ///
    /// # Errors
    ///
    /// [`QueueError::Ring`]; not for a ring that was checked.
    pub fn notify_of_more(&mut self) -> Result<(), QueueError> {
        let position = self.queue.next_avail();
        let memory = self.memory.plain();
        let end = self.queue.avail_idx(memory, Ordering::Acquire)?.0;
        // It is where the queue is said to be that the driver notifies from.
        self.queue.set_next_avail(end);
        let asked = self.queue.enable_notification(memory);
        self.queue.set_next_avail(position);
        asked?;
        Ok(())
    }
}
