// SPDX-License-Identifier: GPL-2.0-only
//! The nodes of one device kind, made when they are first opened and never freed.

use capstream_core::requests::MINORS;
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::alloc::flags::GFP_KERNEL;
use kernel::error::Error;
use kernel::prelude::*;
use spin::Once;

/// A node for each minor.
pub(crate) struct Nodes<T> {
    nodes: [Once<Pin<KBox<T>>>; MINORS as usize],
    /// No node at or above this minor was ever opened.
    end: AtomicUsize,
}

impl<T> Nodes<T> {
    /// None made yet.
    pub(crate) const fn new() -> Nodes<T> {
        Nodes {
            nodes: [const { Once::new() }; MINORS as usize],
            end: AtomicUsize::new(0),
        }
    }

    /// The node with this minor. `ENXIO` if there can't be one, `ENOMEM`.
    pub(crate) fn get<I: PinInit<T, Error>>(
        &'static self,
        minor: u32,
        make: impl FnOnce() -> Result<I>,
    ) -> Result<&'static T> {
        let minor = minor as usize;
        let slot = self.nodes.get(minor).ok_or(ENXIO)?;
        if let Some(node) = slot.get() {
            return Ok(node);
        }
        // Made before the slot is touched, since that may sleep, and others would spin. Of two tasks that open at the same time,
        // one makes it in vain.
        let new = KBox::pin_init(make()?, GFP_KERNEL)?;
        let node = slot.call_once(|| new);
        self.end.fetch_max(minor + 1, Ordering::SeqCst);
        Ok(node)
    }

    /// The nodes that were opened.
    pub(crate) fn opened(&'static self) -> impl Iterator<Item = &'static T> {
        let end = self.end.load(Ordering::SeqCst);
        self.nodes
            .iter()
            .take(end)
            .filter_map(|slot| slot.get().map(|node| &**node))
    }
}
