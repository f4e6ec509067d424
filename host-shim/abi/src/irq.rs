// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Interrupts: bit numbers in the pending word of a vCPU, and interrupt numbers of its kernel.

/// A one-shot timer ran out.
pub const TIMER: u32 = 0;
/// There is console input, or the terminal at the monitor's end has another size.
pub const CONSOLE: u32 = 1;
/// Something happened to an endpoint, a peer or a key.
pub const CAPABILITY: u32 = 2;
/// The operator asks the cVM to shut down.
pub const POWER_BUTTON: u32 = 3;
/// A standard stream of the monitor that was not ready may be.
pub const STREAMS: u32 = 4;
/// The first virtio device; the others follow.
pub const VIRTIO_FIRST: u32 = 8;
/// How many interrupts there are.
pub const COUNT: u32 = 64;
