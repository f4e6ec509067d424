// SPDX-License-Identifier: GPL-2.0-only
//! Pinned buffers that are not queued at the moment: a program that registers the same buffer for each message pins it once.
//!
//! # Invariants
//! A range is in here at most once. All ranges together have no more than [`IDLE_BYTES`] bytes, or there is just one.

use crate::kernel::{Access, Kernel, Pin, Range};
use crate::{Errno, Result};
use heapless::Vec;

/// How many ranges are remembered.
pub const IDLE: usize = 64;
/// How many bytes they may have together.
pub const IDLE_BYTES: usize = 64 << 20;

/// Memory of one program that stays its own.
#[derive(Debug)]
pub struct Pinned<P> {
    /// The address space it belongs to, see [`Kernel::space`].
    pub space: usize,
    /// Where it is.
    pub range: Range,
    /// What keeps it.
    pub pin: P,
}

/// The ranges that were used last, least recently used first.
pub struct Pins<P> {
    idle: Vec<Pinned<P>, IDLE>,
}

impl<P> Pins<P> {
    /// None.
    pub const fn new() -> Pins<P> {
        Pins { idle: Vec::new() }
    }
}

impl<P> Default for Pins<P> {
    fn default() -> Pins<P> {
        Pins::new()
    }
}

impl<P: Pin> Pins<P> {
    /// Takes the range of the calling task out of here, or pins it. `EFAULT` unless it is mapped writable.
    pub fn take<K: Kernel<Pin = P>>(&mut self, kernel: &K, range: Range) -> Result<Pinned<P>> {
        let space = kernel.space();
        let known = self
            .idle
            .iter()
            .position(|pinned| pinned.space == space && pinned.range == range);
        if let Some(position) = known {
            let pinned = self.idle.remove(position);
            if kernel.holds(range, Access::Write, &pinned.pin) {
                return Ok(pinned);
            }
            // Unmapped, or there is other memory by now.
        }
        self.drop_unmapped(kernel);
        let pin = match kernel.pin(range, Access::Write) {
            Err(Errno::NOMEM) if !self.idle.is_empty() => {
                self.idle.clear();
                kernel.pin(range, Access::Write)?
            }
            other => other?,
        };
        Ok(Pinned { space, range, pin })
    }

    /// Keeps a range that is not queued any more.
    pub fn put(&mut self, pinned: Pinned<P>) {
        if !pinned.pin.alive() {
            return;
        }
        let mut bytes = self.idle.iter().fold(pinned.range.len, |sum, idle| {
            sum.saturating_add(idle.range.len)
        });
        while self.idle.is_full() || (bytes > IDLE_BYTES && !self.idle.is_empty()) {
            let oldest = self.idle.remove(0);
            bytes = bytes.saturating_sub(oldest.range.len);
        }
        // There is room now: dropping the range instead would only cost the next registration some time.
        let _ = self.idle.push(pinned);
    }

    /// Drops ranges whose program is gone, or is the calling one and has unmapped them.
    pub fn drop_unmapped<K: Kernel<Pin = P>>(&mut self, kernel: &K) {
        let space = kernel.space();
        self.idle.retain(|pinned| {
            pinned.pin.alive()
                && (pinned.space != space || kernel.holds(pinned.range, Access::Write, &pinned.pin))
        });
    }

    /// Drops the ranges of a program that has ended.
    pub fn drop_space(&mut self, space: usize) {
        self.idle.retain(|pinned| pinned.space != space);
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}
