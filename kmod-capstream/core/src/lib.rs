// SPDX-License-Identifier: GPL-2.0-only
//! What `/cap/chN`, `/cap/cfN` and `/cap/cgN` do, without a kernel: state machines of endpoints, the queue of posted buffers, the
//! portals that callers run, keys and requests.
//!
//! Two traits connect it to the world: [`Kernel`], what it needs from the kernel it is in, and [`Monitor`], the hostcalls.
//! A third, [`PortalCalls`], is the part of the monitor that a portal may use: it runs on a sender's thread while this kernel runs on
//! its own, so everything the two share is in [`portal::Shared`] and is made of atomics.
//!
//! | module | what |
//! |---|---|
//! | [`portal`] | what all kinds share of delivery, on the caller's thread |
//! | [`endpoint`] | what they share on their own kernel: keys, connections, waiting |
//! | [`slots`] | lock-free table of receive buffers |
//! | [`inbox`], [`stream`] | a stream's portal, and its kernel's side |
//! | [`bell`] | a doorbell with a counter, both sides |
//! | [`mod@file`] | a published or attached range |
//! | [`pins`] | buffers that must not go away while somebody may write into them |
//! | [`probe`] | waiting for a key |
//! | `gate` | calling the monitor from a portal, on processors that cVMs run on |
//! | [`requests`] | numbers and structures of the public header |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test that cannot go on has failed"
    )
)]

mod atomic;
pub mod bell;
pub mod endpoint;
pub mod errno;
pub mod file;
#[cfg(any(target_arch = "riscv64", target_arch = "x86_64"))]
pub mod gate;
pub mod inbox;
#[cfg(all(loom, test))]
mod interleavings;
pub mod kernel;
pub mod key;
pub mod monitor;
pub mod pins;
pub mod portal;
pub mod probe;
pub mod requests;
pub mod slots;
pub mod stream;

pub use bell::Bell;
pub use endpoint::Endpoint;
pub use errno::{Errno, Result};
pub use file::File;
pub use kernel::{Kernel, Lock, Pin};
pub use key::Key;
pub use monitor::{Monitor, PortalCalls};
pub use portal::{Call, Portal, Shared};
pub use stream::Stream;
