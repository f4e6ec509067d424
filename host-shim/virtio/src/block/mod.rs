// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk on an image file of the host.
//!
//! | file | what |
//! |---|---|
//! | `device` | [`Block`]: the disk as the transport sees it |
//! | `request` | what the driver can ask for, and how each request is checked |
//! | `worker` | who carries requests out: the notifying thread where it is quick, else a thread of the disk's own |
//! | `image` | the file |
//! | `error` | why there is no disk |
//!
//! # Where requests run
//!
//! A read of data that the host has in memory costs about a microsecond; waking a thread for it, and the guest for its end, costs ten times
//! that. So the thread that notifies tries reads itself, in a way that never waits for the disk (`RWF_NOWAIT`). What is not in memory, large
//! reads, and everything that writes go to the disk's worker thread, which is started when it is first needed. After
//! its work the worker looks out for more for a few microseconds before it sleeps, as long as that proves worthwhile.
//!
//! # What a completed request means
//!
//! A flush is complete when what was written before it is on the host's disk. Once a flush has failed, every later one fails
//! too: the host reports lost data once, and which data it was is not known. Where the driver does not know flushes, each write is on
//! the disk when it is complete.

mod device;
mod error;
mod image;
mod request;
mod worker;

pub use device::{Block, BlockOptions};
pub use error::BlockError;

/// Bytes of a sector, the unit of every position and size in the protocol.
pub const SECTOR: u64 = 512;
