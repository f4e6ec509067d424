// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio for guests that live in one range of the monitor's address space.
//!
//! | module | what |
//! |---|---|
//! | [`mmio`] | the register window that a guest's driver reads and writes: virtio-mmio, version 2 |
//! | [`device`] | what a device has to be able to do: the trait to implement for another device |
//! | [`block`] | a disk on an image file of the host |
//! | [`queue`], [`chain`] | a split virtqueue and the requests in it, every word of them checked |
//! | [`signal`] | how a device reaches its driver: interrupt status, interrupt line, "needs reset" |
//! | [`memory`] | the guest's range; all unsafe code of this crate |
//!
//! # A disk for a guest
//!
//! ```
//! use capstream_virtio::{Block, BlockOptions, GuestMemory, MmioTransport};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let image = tempfile::NamedTempFile::new()?;
//! # image.as_file().set_len(1 << 20)?;
//! # let path = image.path();
//! // The monitor has the range already and uses `GuestMemory::from_raw_parts`.
//! let memory = GuestMemory::anonymous(0x10_0000, 1 << 20)?;
//! let disk = Block::open(path, &BlockOptions::default())?;
//!
//! let pending = Arc::new(AtomicU64::new(0));
//! let line = {
//!     let pending = Arc::clone(&pending);
//!     Arc::new(move || {
//!         pending.fetch_or(1 << 8, Ordering::SeqCst);
//!     })
//! };
//! let transport = MmioTransport::new(Box::new(disk), memory, line);
//!
//! assert_eq!(transport.read(0x000, 4), u64::from(u32::from_le_bytes(*b"virt")));
//! assert_eq!(transport.read(0x008, 4), 2, "a block device");
//! # Ok(())
//! # }
//! ```
//!
//! # What a guest cannot do
//!
//! Everything in the guest's memory and every register write is the guest's to choose. Whatever it chooses, the device reads and
//! writes only the range that it was given, ends each request after a bounded number of steps, and does not panic. A request that
//! makes no sense is answered with an error status where it has a place for one; otherwise, and for rings that make no sense, the
//! device stops, sets `DEVICE_NEEDS_RESET`, and works again after the driver has reset it.
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a failed expectation is a failed test"
    )
)]

pub mod block;
pub mod chain;
pub mod device;
pub mod memory;
pub mod mmio;
pub mod queue;
pub mod signal;
mod warning;

pub use block::{Block, BlockError, BlockOptions};
pub use device::{Device, Session};
pub use memory::GuestMemory;
pub use mmio::MmioTransport;
pub use signal::DriverSignal;
