// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The region that a hart used last, with what is needed for an access in a handful of instructions.
//!
//! Integer addresses are checked against DDC and the region by one comparison: the window holds the part of the region that DDC
//! authorizes. A page's flags are looked at for every access.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::host::{AtomicWord, Word};
use super::region::{CAREFUL, Region};
use super::{PAGE_SIZE, PageFlags};
use crate::{Capability, Permissions};

/// How many offsets an access of each size may have.
type Spans = [u64; 4];

/// # Invariants
///
/// - `host` and `flags` belong to `region`; there is none only if all spans are 0.
/// - `limit[n] + 2^n - 1`, `low + load[n] + 2^n - 1` and `low + store[n] + 2^n - 1` are at most the region's length, or the span is 0.
pub(crate) struct Window {
    host: *mut u8,
    flags: *const AtomicU8,
    /// Added to an integer address, gives its offset in the region.
    to_offset: u64,
    /// The first offset that DDC authorizes.
    low: u64,
    load: Spans,
    store: Spans,
    begin: u64,
    limit: Spans,
    region: Option<Arc<Region>>,
}

// SAFETY: the pointers are to what `region` keeps alive, and a region may be used from any thread.
unsafe impl Send for Window {}

fn spans(length: u64) -> Spans {
    [1, 2, 4, 8].map(|size: u64| (length + 1).saturating_sub(size))
}

impl Window {
    pub(crate) fn none() -> Window {
        Window {
            host: std::ptr::null_mut(),
            flags: std::ptr::null(),
            to_offset: 0,
            low: 0,
            load: [0; 4],
            store: [0; 4],
            begin: 0,
            limit: [0; 4],
            region: None,
        }
    }

    /// A window on `region` for integer addresses that lie `bias` below absolute ones and are authorized by `ddc`.
    pub(crate) fn new(region: Arc<Region>, ddc: &Capability, bias: u64) -> Window {
        let begin = region.begin();
        let (host, flags) = region.raw();
        let low = ddc.base().max(begin);
        // A region ends below 2^64.
        let high = ddc.top().min(u128::from(region.end())) as u64;
        let usable = ddc.tag() && !ddc.is_sealed() && low < high;
        let span = |permission: Permissions| {
            if usable && ddc.permits(permission.bits()) {
                spans(high - low)
            } else {
                [0; 4]
            }
        };
        Window {
            host,
            flags,
            to_offset: bias.wrapping_sub(begin),
            low: low.wrapping_sub(begin),
            load: span(Permissions::LOAD),
            store: span(Permissions::STORE),
            begin,
            limit: spans(region.end() - begin),
            region: Some(region),
        }
    }

    pub(crate) fn region(&self) -> Option<&Arc<Region>> {
        self.region.as_ref()
    }

    /// The region, if an absolute address lies in it.
    #[inline]
    pub(crate) fn region_of(&self, address: u64) -> Option<&Region> {
        self.region
            .as_deref()
            .filter(|region| address >= region.begin() && address < region.end())
    }

    /// An aligned word in a page with these flags, of which `mask` matters.
    ///
    /// # Safety
    ///
    /// `W::SIZE` bytes at `offset` are inside the region, and there is one.
    #[inline(always)]
    unsafe fn word<W: Word>(&self, offset: u64, mask: u8, wanted: u8) -> Option<&W::Atomic> {
        if offset & (W::SIZE - 1) != 0 {
            return None;
        }
        // SAFETY: there is a flag for each page of the region, and the offset is inside.
        let flags = unsafe { &*self.flags.add((offset / PAGE_SIZE) as usize) };
        if flags.load(Ordering::Relaxed) & mask != wanted {
            return None;
        }
        // SAFETY: inside the region, which is alive and mapped; aligned, as the region begins at a page. All accesses are atomic.
        Some(unsafe { &*self.host.add(offset as usize).cast::<W::Atomic>() })
    }

    #[inline(always)]
    fn readable<W: Word>(&self, offset: u64, low: u64, spans: &Spans) -> Option<W> {
        if offset.wrapping_sub(low) >= spans[W::LOG as usize] {
            return None;
        }
        let read = PageFlags::READ.bits();
        // SAFETY: `offset` is less than `low + spans[LOG]`, so that the word ends inside the region by the invariant.
        let word = unsafe { self.word::<W>(offset, read, read) }?;
        Some(word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn writable<W: Word>(&self, offset: u64, low: u64, spans: &Spans) -> Option<&W::Atomic> {
        if offset.wrapping_sub(low) >= spans[W::LOG as usize] {
            return None;
        }
        let write = PageFlags::WRITE.bits();
        // SAFETY: `offset` is less than `low + spans[LOG]`, so that the word ends inside the region by the invariant.
        unsafe { self.word::<W>(offset, write | CAREFUL, write) }
    }

    /// The word at an integer address, if it is aligned and may be loaded without further ado.
    #[inline(always)]
    pub(crate) fn load<W: Word>(&self, address: u64) -> Option<W> {
        self.readable(address.wrapping_add(self.to_offset), self.low, &self.load)
    }

    /// Stores a word at an integer address, if it is aligned and that may be done without further ado; whether it was done.
    #[inline(always)]
    pub(crate) fn store<W: Word>(&self, address: u64, value: W) -> bool {
        let offset = address.wrapping_add(self.to_offset);
        let Some(word) = self.writable::<W>(offset, self.low, &self.store) else {
            return false;
        };
        word.store(value, Ordering::Relaxed);
        true
    }

    /// The word at an absolute address whose authority was checked, on the same conditions.
    #[inline(always)]
    pub(crate) fn load_checked<W: Word>(&self, address: u64) -> Option<W> {
        self.readable(address.wrapping_sub(self.begin), 0, &self.limit)
    }

    /// Stores a word at an absolute address whose authority was checked, on the same conditions; whether it was done.
    #[inline(always)]
    pub(crate) fn store_checked<W: Word>(&self, address: u64, value: W) -> bool {
        let offset = address.wrapping_sub(self.begin);
        let Some(word) = self.writable::<W>(offset, 0, &self.limit) else {
            return false;
        };
        word.store(value, Ordering::Relaxed);
        true
    }
}
