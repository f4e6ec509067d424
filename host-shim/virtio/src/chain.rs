// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One request in a virtqueue: the guest's buffers in order, those to read before those to write.

use virtio_queue::desc::split::Descriptor;

use crate::memory::{GuestMemory, OutsideMemory, Segment};

/// How many buffers of one direction a request can have.
pub const MAX_SEGMENTS: usize = 256;

/// What is wrong with a chain that nevertheless has an end, and so perhaps a place for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A buffer is not in the guest's memory.
    OutsideMemory,
    /// A buffer to read follows one to write.
    Order,
    /// More than [`MAX_SEGMENTS`] buffers of one direction.
    TooLong,
}

/// Buffers of one direction, without the empty ones.
#[derive(Debug)]
pub struct Segments {
    list: Vec<Segment>,
    first: usize,
    bytes: u64,
}

impl Segments {
    fn new() -> Segments {
        Segments {
            list: Vec::with_capacity(MAX_SEGMENTS),
            first: 0,
            bytes: 0,
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.first = 0;
        self.bytes = 0;
    }

    fn push(&mut self, segment: Segment) {
        self.list.push(segment);
        self.bytes += u64::from(segment.len);
    }

    /// The buffers that are left.
    pub fn as_slice(&self) -> &[Segment] {
        self.list.get(self.first..).unwrap_or_default()
    }

    /// How many bytes are left.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Moves the first bytes into `to`; `false`, and nothing is moved, when there are not enough.
    pub fn take_front(
        &mut self,
        memory: &GuestMemory,
        to: &mut [u8],
    ) -> Result<bool, OutsideMemory> {
        if self.bytes < to.len() as u64 {
            return Ok(false);
        }
        let mut rest = to;
        while let (false, Some(segment)) = (rest.is_empty(), self.list.get_mut(self.first)) {
            let (now, later) = rest.split_at_mut(rest.len().min(segment.len as usize));
            memory.read(segment.address, now)?;
            let taken = now.len() as u32;
            segment.address = segment.address.wrapping_add(u64::from(taken));
            segment.len -= taken;
            self.bytes -= u64::from(taken);
            if segment.len == 0 {
                self.first += 1;
            }
            rest = later;
        }
        Ok(true)
    }

    /// Takes the last byte away and returns its address; `None` when there is none.
    pub fn take_last_byte(&mut self) -> Option<u64> {
        let segment = self.list.get_mut(self.first..)?.last_mut()?;
        segment.len -= 1;
        self.bytes -= 1;
        let address = segment.address.wrapping_add(u64::from(segment.len));
        if segment.len == 0 {
            self.list.pop();
        }
        Some(address)
    }

    /// Copies `from` to the beginning of the buffers, as far as there is room; returns how many bytes were copied.
    pub fn fill(&self, memory: &GuestMemory, from: &[u8]) -> Result<usize, OutsideMemory> {
        let mut rest = from;
        for segment in self.as_slice() {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            memory.write(segment.address, now)?;
            rest = later;
        }
        Ok(from.len() - rest.len())
    }
}

/// One request. Made once per queue and filled again for each: that takes no memory from the host.
#[derive(Debug)]
pub struct Chain {
    /// By which the driver knows it.
    pub(crate) head: u16,
    /// What the driver gives to the device.
    pub readable: Segments,
    /// Where the device answers.
    pub writable: Segments,
    defect: Option<Defect>,
    last_writable: Option<Segment>,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain::new()
    }
}

impl Chain {
    /// A chain without buffers.
    pub fn new() -> Chain {
        Chain {
            head: 0,
            readable: Segments::new(),
            writable: Segments::new(),
            defect: None,
            last_writable: None,
        }
    }

    /// What is wrong with it. A chain with a defect does not have all of its buffers.
    pub fn defect(&self) -> Option<Defect> {
        self.defect
    }

    /// The address of the last byte that the device may write, also with a defect. `None` when there is none in the plain part
    /// of the guest's memory.
    pub fn last_writable_byte(&self, memory: &GuestMemory) -> Option<u64> {
        let segment = self.last_writable?;
        let address = segment
            .address
            .checked_add(u64::from(segment.len).checked_sub(1)?)?;
        memory.contains_plain(address, 1).then_some(address)
    }

    /// Fills it from what the driver wrote. `false` when the chain has no end: it is empty, loops, leaves its table, or has more than
    /// 4 GiB.
    pub(crate) fn fill(
        &mut self,
        memory: &GuestMemory,
        head: u16,
        descriptors: impl Iterator<Item = Descriptor>,
    ) -> bool {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        self.defect = None;
        self.last_writable = None;

        let mut ended = false;
        let mut has_writable = false;
        for descriptor in descriptors {
            // The iterator stops without a word where it cannot go on; a chain is whole when its last descriptor names no next one.
            ended = !descriptor.has_next();
            has_writable |= descriptor.is_write_only();
            let segment = Segment {
                address: descriptor.addr().0,
                len: descriptor.len(),
            };
            if segment.len == 0 {
                continue;
            }
            let segments = if descriptor.is_write_only() {
                self.last_writable = Some(segment);
                &mut self.writable
            } else {
                if has_writable {
                    self.defect = Some(Defect::Order);
                }
                &mut self.readable
            };
            if !memory.contains(segment.address, u64::from(segment.len)) {
                self.defect = Some(Defect::OutsideMemory);
            } else if segments.list.len() == MAX_SEGMENTS {
                self.defect = Some(Defect::TooLong);
            } else {
                segments.push(segment);
            }
        }
        ended
    }
}
