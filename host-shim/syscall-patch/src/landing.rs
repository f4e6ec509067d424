// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where to resume after an undefined opcode that a patch put into a program.
//!
//! Readers are signal handlers: they take no lock and allocate nothing. There is one writer at a time, which holds the
//! lock of the patch table. Entries live in open-addressed arrays, each twice as large as the one before; an array is
//! never moved or freed before the whole table is, so a reader may interrupt a writer anywhere.
//!
//! A slot is *empty* (address 0), *live*, or *dead* (an address, target 0). Probing passes live and dead slots and stops at
//! an empty one. The writer turns a dead slot into an empty one when the slot after it is empty, for then no
//! probing has a reason to pass it. A slot's version is odd while it changes; a reader that does not find the same even
//! version before and after has read nothing.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::OnceLock;

/// Slots of the first array.
const FIRST: usize = 256;
/// Arrays. They are used up to one half, so together they hold half a million entries.
const LEVELS: usize = 12;

/// Where to resume, and what has to stand in memory for that to be true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Landing {
    /// Where to resume; never 0.
    pub(crate) target: u64,
    /// Where the jump is in which the address lies.
    pub(crate) jump_at: u64,
    /// The bytes of that jump.
    pub(crate) jump: [u8; 5],
}

#[derive(Debug, Default)]
struct Slot {
    version: AtomicU64,
    address: AtomicU64,
    target: AtomicU64,
    jump_at: AtomicU64,
    jump: AtomicU64,
}

impl Slot {
    fn address(&self) -> u64 {
        self.address.load(SeqCst)
    }

    fn read(&self, address: u64) -> Option<Landing> {
        let version = self.version.load(SeqCst);
        let held = self.address();
        let target = self.target.load(SeqCst);
        let jump_at = self.jump_at.load(SeqCst);
        let [b0, b1, b2, b3, b4, ..] = self.jump.load(SeqCst).to_le_bytes();
        let changed = !version.is_multiple_of(2) || self.version.load(SeqCst) != version;
        if changed || held != address || target == 0 {
            return None;
        }
        Some(Landing {
            target,
            jump_at,
            jump: [b0, b1, b2, b3, b4],
        })
    }

    fn write(&self, address: u64, landing: &Landing) {
        let [b0, b1, b2, b3, b4] = landing.jump;
        let jump = u64::from_le_bytes([b0, b1, b2, b3, b4, 0, 0, 0]);
        self.version.fetch_add(1, SeqCst);
        self.address.store(address, SeqCst);
        self.target.store(landing.target, SeqCst);
        self.jump_at.store(landing.jump_at, SeqCst);
        self.jump.store(jump, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }
}

/// One array.
#[derive(Debug)]
struct Level {
    /// As many as a power of two.
    slots: Box<[Slot]>,
    /// How many of them are not empty.
    taken: AtomicU64,
}

impl Level {
    fn new(level: usize) -> Level {
        Level {
            slots: (0..FIRST << level).map(|_| Slot::default()).collect(),
            taken: AtomicU64::new(0),
        }
    }

    /// The slot at `index`, counted round and round.
    fn at(&self, index: usize) -> Option<&Slot> {
        self.slots.get(index & (self.slots.len() - 1))
    }

    /// The indices where `address` may be, in the order of probing.
    fn probe(&self, address: u64) -> impl Iterator<Item = usize> {
        // Fibonacci hashing: the middle bits of the product depend on all lower bits of the address.
        let first = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let mask = self.slots.len() - 1;
        (first..first + self.slots.len()).map(move |index| index & mask)
    }

    fn find(&self, address: u64) -> Option<usize> {
        for index in self.probe(address) {
            match self.at(index)?.address() {
                0 => return None,
                held if held == address => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// A slot where `address`, which is in no slot, may be put.
    fn place(&self, address: u64) -> Option<&Slot> {
        for index in self.probe(address) {
            let slot = self.at(index)?;
            if slot.address() == 0 {
                if self.taken.load(SeqCst) >= self.slots.len() as u64 / 2 {
                    return None;
                }
                self.taken.fetch_add(1, SeqCst);
                return Some(slot);
            }
            if slot.target.load(SeqCst) == 0 {
                return Some(slot);
            }
        }
        None
    }

    /// Makes the slot at `index` dead, and all dead slots empty that nothing follows.
    fn remove(&self, index: usize) {
        let Some(slot) = self.at(index) else { return };
        slot.write(slot.address(), &Landing::default());
        let followed = self
            .at(index.wrapping_add(1))
            .is_some_and(|slot| slot.address() != 0);
        if followed {
            return;
        }
        for back in 0..self.slots.len() {
            let Some(slot) = self.at(index.wrapping_sub(back)) else {
                return;
            };
            if slot.address() == 0 || slot.target.load(SeqCst) != 0 {
                return;
            }
            slot.write(0, &Landing::default());
            self.taken.fetch_sub(1, SeqCst);
        }
    }
}

/// All landings of one cVM.
#[derive(Debug, Default)]
pub(crate) struct Landings {
    levels: [OnceLock<Level>; LEVELS],
}

impl Landings {
    fn levels(&self) -> impl Iterator<Item = &Level> {
        self.levels.iter().map_while(OnceLock::get)
    }

    fn find(&self, address: u64) -> Option<(&Level, usize)> {
        if address == 0 {
            return None;
        }
        self.levels()
            .find_map(|level| Some((level, level.find(address)?)))
    }

    /// What is known about `address`.
    pub(crate) fn get(&self, address: u64) -> Option<Landing> {
        let (level, index) = self.find(address)?;
        level.at(index)?.read(address)
    }

    /// Makes `landing` known for `address`. Callers take turns. `false` when the table is full.
    #[must_use]
    pub(crate) fn insert(&self, address: u64, landing: &Landing) -> bool {
        if address == 0 || landing.target == 0 {
            return false;
        }
        let slot = match self.find(address) {
            Some((level, index)) => level.at(index),
            None => self.levels.iter().enumerate().find_map(|(number, level)| {
                level.get_or_init(|| Level::new(number)).place(address)
            }),
        };
        let Some(slot) = slot else { return false };
        slot.write(address, landing);
        true
    }

    /// Forgets `address`. Callers take turns.
    pub(crate) fn remove(&self, address: u64) {
        if let Some((level, index)) = self.find(address) {
            level.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn landing(target: u64) -> Landing {
        Landing {
            target,
            jump_at: target ^ 0xffff,
            jump: [0xe9, target as u8, (target >> 8) as u8, 0, 0xff],
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0_u64..600, 0_u64..3), 0..4000)) {
            let landings = Landings::default();
            let mut model = HashMap::new();
            for (key, what) in steps {
                let address = 0x7f00_0000_0000 + key * 3;
                if what == 0 {
                    landings.remove(address);
                    model.remove(&address);
                } else {
                    let value = landing(key * 8 + what);
                    prop_assert!(landings.insert(address, &value));
                    model.insert(address, value);
                }
            }
            for key in 0..600 {
                let address = 0x7f00_0000_0000 + key * 3;
                prop_assert_eq!(landings.get(address), model.get(&address).copied());
            }
        }
    }

    #[test]
    fn does_not_grow_by_coming_and_going() {
        let landings = Landings::default();
        for address in 1..200_000_u64 {
            assert!(landings.insert(address * 7919, &landing(address)));
            if let Some(old) = address.checked_sub(100).filter(|&old| old > 0) {
                landings.remove(old * 7919);
            }
        }
        assert!(landings.levels().count() <= 2);
    }

    #[test]
    fn refuses_what_cannot_be_told_from_nothing() {
        let landings = Landings::default();
        assert!(!landings.insert(0, &landing(1)));
        assert!(!landings.insert(1, &landing(0)));
        assert_eq!(landings.get(0), None);
        assert_eq!(landings.get(1), None);
    }
}
