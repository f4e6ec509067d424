// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio for guests that live in one range of the monitor's address space.
//!
//! | module | what |
//! |---|---|
//! | [`mmio`] | the register window that a guest's driver reads and writes: virtio-mmio, version 2 |
//! | [`device`] | what a device has to be able to do: the trait to implement for another device |
//! | [`block`] | a disk on an image file of the host |
//! | [`net`] | a network interface, on a socket or a tap device of the host, or on a switch between guests |
//! | [`queue`], [`chain`] | a split virtqueue and the requests in it, every word of them checked |
//! | [`signal`] | how a device reaches its driver: interrupt status, interrupt line, "needs reset" |
//! | [`memory`] | the guest's range; all unsafe code of this crate, but for the `ioctl`s of `net/tap.rs` |
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
//! # What a monitor has to do
//!
//! - One [`MmioTransport`] for each device of a guest. Its window is `MMIO_STRIDE` bytes at `MMIO_BASE + n * MMIO_STRIDE`; a register access of the guest
//!   becomes [`MmioTransport::read`] or [`MmioTransport::write`] with the offset into the window.
//! - The interrupt line sets the device's bit in the vCPU's pending word and wakes the vCPU, from any thread. Called on the vCPU's own
//!   thread, which happens within `write`, there is nobody to wake.
//! - [`GuestMemory::from_raw_parts`] with the guest's range, and [`GuestMemory::with_plain_part`] with the part of it that stays readable and writable
//!   whatever the guest does: its RAM, not its image.
//! - Drop the transport before the range is unmapped. That ends and joins the device's thread, and unlocks its file. It
//!   waits for at most one system call of the host's.
//! - A device's thread is started by the first notification that needs it, and has the signal mask of the thread which that came from. It
//!   needs no signals.
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
pub mod net;
pub mod queue;
pub mod signal;
mod warning;

pub use block::{Block, BlockError, BlockOptions};
pub use device::{Device, Session};
pub use memory::GuestMemory;
pub use mmio::MmioTransport;
pub use net::{MacAddress, Net, NetCounters, NetError, NetOptions, Switch, SwitchPort, Tap};
pub use signal::DriverSignal;
