// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Interrupts: bit numbers in the pending word of a vCPU, and interrupt numbers of its kernel.

/// A one-shot timer ran out.
pub const TIMER: u32 = 0;
/// There is console input.
pub const CONSOLE: u32 = 1;
/// Something happened to an endpoint, a peer or a key.
pub const CAPABILITY: u32 = 2;
/// The operator asks the cVM to shut down.
pub const POWER_BUTTON: u32 = 3;
/// The first virtio device; the others follow.
pub const VIRTIO_FIRST: u32 = 8;
/// How many interrupts there are.
pub const COUNT: u32 = 64;
