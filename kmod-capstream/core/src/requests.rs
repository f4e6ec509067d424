// SPDX-License-Identifier: GPL-2.0-only
//! What `include/capstream.h` says, for the driver.

/// Major number of files.
pub const FILE_MAJOR: u32 = 43;
/// Major number of streams.
pub const STREAM_MAJOR: u32 = 45;
/// Major number of bells.
pub const BELL_MAJOR: u32 = 50;
/// Minors of each.
pub const MINORS: u32 = 1024;

/// Direction of a request without argument.
pub const NONE: u32 = 0;
/// Direction of a request that tells the driver something.
pub const WRITE: u32 = 1;
/// Direction of a request that asks the driver for something.
pub const READ: u32 = 2;

/// A request number as Linux composes it on all our platforms: direction, type, number, and bytes of the argument.
pub const fn request(direction: u32, kind: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | kind << 8 | number
}

/// Requests of streams.
pub mod stream {
    use super::{NONE, READ, WRITE, request};

    const KIND: u32 = 0xE4;
    /// `CAP_STREAM_SET_SIZE`.
    pub const SET_SIZE: u32 = request(WRITE, KIND, 1, 4);
    /// `CAP_STREAM_ADV`.
    pub const ADV: u32 = request(WRITE, KIND, 2, 4);
    /// `CAP_STREAM_PRB`.
    pub const PRB: u32 = request(WRITE, KIND, 3, 4);
    /// `CAP_STREAM_SET_MODE`.
    pub const SET_MODE: u32 = request(WRITE, KIND, 4, 4);
    /// `CAP_STREAM_REG_BUF`.
    pub const REG_BUF: u32 = request(WRITE, KIND, 5, 4);
    /// `CAP_STREAM_WAIT`.
    pub const WAIT: u32 = request(WRITE, KIND, 6, 4);
    /// `CAP_STREAM_SPIN_READ`.
    pub const SPIN_READ: u32 = request(WRITE, KIND, 7, 4);
    /// `CAP_STREAM_WAIT_INFO`.
    pub const WAIT_INFO: u32 = request(READ, KIND, 0x10, size_of::<super::Message>());
    /// `CAP_STREAM_RESET`.
    pub const RESET: u32 = request(NONE, KIND, 0x11, 0);
    /// `CAP_STREAM_STATS`.
    pub const STATS: u32 = request(READ, KIND, 0x12, size_of::<super::StreamStats>());
}

/// Requests of files.
pub mod file {
    use super::{NONE, READ, WRITE, request};

    const KIND: u32 = 0xE2;
    /// `CAP_FILE_SET_CAP`.
    pub const SET_CAP: u32 = request(WRITE, KIND, 0, 4);
    /// `CAP_FILE_SET_SIZE`.
    pub const SET_SIZE: u32 = request(WRITE, KIND, 1, 4);
    /// `CAP_FILE_ADV`.
    pub const ADV: u32 = request(WRITE, KIND, 2, 4);
    /// `CAP_FILE_PRB`.
    pub const PRB: u32 = request(WRITE, KIND, 3, 4);
    /// `CAP_FILE_SET_MODE`.
    pub const SET_MODE: u32 = request(WRITE, KIND, 4, 4);
    /// `CAP_FILE_REVOKE`.
    pub const REVOKE: u32 = request(NONE, KIND, 0x10, 0);
    /// `CAP_FILE_STATS`.
    pub const STATS: u32 = request(READ, KIND, 0x11, size_of::<super::FileStats>());
}

/// Requests of bells.
pub mod bell {
    use super::{NONE, READ, WRITE, request};

    const KIND: u32 = 0xE6;
    /// `CAP_BELL_ADV`.
    pub const ADV: u32 = request(WRITE, KIND, 1, 4);
    /// `CAP_BELL_PRB`.
    pub const PRB: u32 = request(WRITE, KIND, 2, 4);
    /// `CAP_BELL_RESET`.
    pub const RESET: u32 = request(NONE, KIND, 0x10, 0);
    /// `CAP_BELL_STATS`.
    pub const STATS: u32 = request(READ, KIND, 0x11, size_of::<super::BellStats>());
}

/// `struct cap_stream_message`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    /// Of the buffer.
    pub address: u64,
    /// Bytes of the message.
    pub length: u64,
    /// Its number since the last reset.
    pub sequence: u64,
    /// Who sent it.
    pub sender: u64,
}

/// `struct cap_stream_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the header describes them")]
pub struct StreamStats {
    pub received: u64,
    pub received_bytes: u64,
    pub taken: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub no_buffer: u64,
    pub too_long: u64,
    pub faults: u64,
    pub notifications: u64,
    pub sleeps: u64,
    pub queued: u32,
    pub filled: u32,
    pub advertised: u32,
    pub connected: u32,
}

/// `struct cap_file_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the header describes them")]
pub struct FileStats {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub size: u64,
    pub read_only: u32,
    pub published: u32,
}

/// `struct cap_bell_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the header describes them")]
pub struct BellStats {
    pub count: u64,
    pub rings: u64,
    pub added: u64,
    pub takes: u64,
    pub taken: u64,
    pub sent_rings: u64,
    pub no_room: u64,
    pub notifications: u64,
    pub sleeps: u64,
    pub advertised: u32,
    pub connected: u32,
}
