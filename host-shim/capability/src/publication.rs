// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What cVMs publish: portals and ranges. The registry keeps any type; these are what the hostcalls carry.

use crate::Capability;

/// A receiver's function and what it is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its address in the receiver.
    pub function: u64,
    /// Its first argument.
    pub cookie: u64,
    /// The device's number, for the log.
    pub device: u64,
}

/// How a published range may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read and written.
    ReadWrite,
    /// Only read.
    ReadOnly,
}

/// A published range. Its capability lacks [`crate::Permissions::STORE`] when it is read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The bytes, derived from the publisher's authority.
    pub range: Capability,
    /// How they may be used.
    pub mode: Mode,
}
