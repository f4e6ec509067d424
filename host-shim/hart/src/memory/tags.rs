// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tags, and the locks that keep a tag together with its 16 bytes.
//!
//! A granule of a careful page (see [`super::region`]) is written only under the lock of its stripe, which covers its tag and its bytes.
//! So nobody can come by the tag of one write with the bytes of another. Other pages have no tags, and no lock.
//!
//! Lock order: a stripe's lock is the last, and nobody holds two.

use std::hint;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::PAGE_SIZE;
use crate::capability::CAPABILITY_SIZE;

const GRANULES: u64 = PAGE_SIZE / CAPABILITY_SIZE;
const WORDS: usize = (GRANULES / 64) as usize;
const STRIPES: usize = 64;
/// Bytes that share a lock: a cache line's.
const STRIPE_SHIFT: u32 = 6;
/// How often a hart looks at a lock before it lets another thread run.
const SPINS: u32 = 64;

type Page = OnceLock<Box<[AtomicU64; WORDS]>>;

#[repr(align(64))]
#[derive(Default)]
struct Stripe(AtomicBool);

/// The tags of a region.
pub(super) struct Tags {
    /// By page; made when a page gets its first tag.
    pages: Box<[Page]>,
    stripes: Box<[Stripe]>,
}

/// The lock of a granule.
pub(super) struct Locked<'a>(&'a Stripe);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

impl Tags {
    pub(super) fn new(pages: usize) -> Tags {
        Tags {
            pages: (0..pages).map(|_| Page::new()).collect(),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
        }
    }

    /// Locks the granule of an offset.
    #[inline]
    pub(super) fn lock(&self, offset: u64) -> Locked<'_> {
        let stripe = &self.stripes[(offset >> STRIPE_SHIFT) as usize % STRIPES];
        let mut spins = 0;
        while stripe
            .0
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            spins += 1;
            if spins < SPINS {
                hint::spin_loop();
            } else {
                // Its holder may be waiting for this processor.
                thread::yield_now();
            }
        }
        Locked(stripe)
    }

    #[inline]
    fn place(offset: u64) -> (usize, usize, u64) {
        let granule = offset % PAGE_SIZE / CAPABILITY_SIZE;
        (
            (offset / PAGE_SIZE) as usize,
            (granule / 64) as usize,
            1 << (granule % 64),
        )
    }

    /// The tag of a granule; meaningful under its lock.
    #[inline]
    pub(super) fn get(&self, offset: u64) -> bool {
        let (page, word, bit) = Tags::place(offset);
        self.pages
            .get(page)
            .and_then(OnceLock::get)
            .is_some_and(|words| words[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Whether a page ever had a tag.
    #[inline]
    pub(super) fn had_any(&self, offset: u64) -> bool {
        self.pages
            .get((offset / PAGE_SIZE) as usize)
            .is_some_and(|page| page.get().is_some())
    }

    /// Sets the tag of a granule, under its lock.
    pub(super) fn set(&self, _locked: &Locked<'_>, offset: u64) {
        let (page, word, bit) = Tags::place(offset);
        if let Some(page) = self.pages.get(page) {
            // Granules of other stripes share the word.
            page.get_or_init(Box::default)[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Clears the tag of a granule, under its lock.
    #[inline]
    pub(super) fn clear(&self, _locked: &Locked<'_>, offset: u64) {
        let (page, word, bit) = Tags::place(offset);
        if let Some(words) = self.pages.get(page).and_then(OnceLock::get)
            && words[word].load(Ordering::Relaxed) & bit != 0
        {
            words[word].fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Clears the tags of all granules that the range touches.
    pub(super) fn clear_range(&self, offset: u64, length: u64) {
        let mut at = offset - offset % CAPABILITY_SIZE;
        let end = offset.saturating_add(length);
        while at < end {
            if !self.had_any(at) {
                at = (at / PAGE_SIZE + 1) * PAGE_SIZE;
                continue;
            }
            self.clear(&self.lock(at), at);
            at += CAPABILITY_SIZE;
        }
    }
}
