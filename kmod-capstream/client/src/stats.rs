// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a node tells about itself, and how it waits.

/// How calls wait at an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// They sleep.
    #[default]
    Sleep,
    /// They spin on the processor: the lowest latency, at the price of a processor for each side.
    Spin,
    /// They spin a little, then sleep.
    Adaptive,
}

impl Mode {
    /// As the device takes it.
    pub(crate) const fn number(self) -> usize {
        match self {
            Mode::Sleep => 0,
            Mode::Spin => 1,
            Mode::Adaptive => 2,
        }
    }
}

/// Counters of an endpoint since its last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StreamStats {
    /// Messages that senders completed.
    pub received: u64,
    /// Bytes of those.
    pub received_bytes: u64,
    /// Messages that were handed to the program.
    pub taken: u64,
    /// Messages that this endpoint delivered to its peer.
    pub sent: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Times a sender found no buffer here.
    pub no_buffer: u64,
    /// Times a sender's message did not fit the oldest buffer here.
    pub too_long: u64,
    /// Times a sender's memory could not be read.
    pub faults: u64,
    /// Interrupts that senders asked for.
    pub notifications: u64,
    /// Times a task of this cVM slept at this endpoint.
    pub sleeps: u64,
    /// Buffers that wait for a message now.
    pub queued: u32,
    /// Messages that wait for the program now.
    pub filled: u32,
    /// 1 while the endpoint is published under a key.
    pub advertised: u32,
    /// 1 while it is connected to a receiver, which may be gone.
    pub connected: u32,
}

/// Counters of a file node since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileStats {
    /// Reads that returned data.
    pub reads: u64,
    /// Bytes of those.
    pub read_bytes: u64,
    /// Writes that stored data.
    pub writes: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// Bytes of the range that it is attached to, 0 when it is not.
    pub size: u64,
    /// 1 when that range can only be read.
    pub read_only: u32,
    /// 1 while it publishes a range.
    pub published: u32,
}

/// Counters of a bell since its last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BellStats {
    /// Units that wait to be taken now.
    pub count: u64,
    /// Times units were added to this bell.
    pub rings: u64,
    /// Units of those, modulo 2^64.
    pub added: u64,
    /// Times units were taken.
    pub takes: u64,
    /// Units of those, modulo 2^64.
    pub taken: u64,
    /// Times this bell added units to another one.
    pub sent_rings: u64,
    /// Times units did not fit here.
    pub no_room: u64,
    /// Interrupts that callers asked for.
    pub notifications: u64,
    /// Times a task of this cVM slept at this bell.
    pub sleeps: u64,
    /// 1 while the bell is published under a key.
    pub advertised: u32,
    /// 1 while it is connected to another one, which may be gone.
    pub connected: u32,
}
