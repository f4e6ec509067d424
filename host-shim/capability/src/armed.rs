// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which cVMs want to be woken.
//!
//! The protocol, without locks. A cVM that waits: arms, looks once more, sleeps. The one who changes
//! something: changes it, takes the set, wakes those in it. Arming and taking both modify `summary`, so one comes before the other: either the taker
//! finds the bit, or the one who armed has read what the taker wrote there and with it sees the change when it looks.
//!
//! The set has two levels: a bit per cVM in `words`, and a bit per word in `summary`, so that taking an empty set touches one word. A
//! bit in `words` is set before its bit in `summary`, and `summary` is taken before `words`: a bit in `words` is
//! found by the taker that is at work, or its bit in `summary` is still there for the next one.

use crate::owner::MAX_CVMS;
use crate::sync::{AtomicU64, Ordering};

const WORDS: usize = MAX_CVMS as usize / 64;

/// A set of cVMs' indices. On its own cache lines: whoever wakes writes to it, and senders read what lies beside it for every message.
#[derive(Debug)]
#[repr(align(64))]
pub struct ArmedSet {
    summary: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl ArmedSet {
    /// The empty set.
    pub fn new() -> ArmedSet {
        ArmedSet {
            summary: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Adds a cVM. Whoever adds itself looks at its condition once more afterwards. An index of [`MAX_CVMS`] or more, the monitor's, is ignored.
    #[inline]
    pub fn arm(&self, index: u16) {
        let (word, bit) = place(index);
        if let Some(bits) = self.words.get(word) {
            bits.fetch_or(bit, Ordering::AcqRel);
            self.summary.fetch_or(1 << word, Ordering::AcqRel);
        }
    }

    /// Takes a cVM out. It may be in a set that was taken before.
    pub fn disarm(&self, index: u16) {
        let (word, bit) = place(index);
        if let Some(bits) = self.words.get(word) {
            bits.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Takes all out; `None` when there is none. What they wait for has to be changed before.
    #[inline]
    #[must_use = "those in the set sleep until they are woken"]
    pub fn take(&self) -> Option<Armed> {
        match self.summary.swap(0, Ordering::AcqRel) {
            0 => None,
            summary => self.take_words(summary),
        }
    }

    #[cold]
    fn take_words(&self, summary: u64) -> Option<Armed> {
        let mut armed = Armed { words: [0; WORDS] };
        for (index, (taken, bits)) in armed.words.iter_mut().zip(&self.words).enumerate() {
            if summary & (1 << index) != 0 {
                *taken = bits.swap(0, Ordering::AcqRel);
            }
        }
        armed.words.iter().any(|&bits| bits != 0).then_some(armed)
    }
}

impl Default for ArmedSet {
    fn default() -> Self {
        ArmedSet::new()
    }
}

const fn place(index: u16) -> (usize, u64) {
    (index as usize / 64, 1 << (index % 64))
}

/// Those who were in an [`ArmedSet`]: iterates over their indices, ascending.
#[derive(Clone, Debug)]
#[must_use = "those in the set sleep until they are woken"]
pub struct Armed {
    words: [u64; WORDS],
}

impl Iterator for Armed {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        for (word, bits) in (0u16..).zip(&mut self.words) {
            if *bits != 0 {
                let bit = bits.trailing_zeros() as u16;
                *bits &= *bits - 1;
                return Some(word * 64 + bit);
            }
        }
        None
    }
}
