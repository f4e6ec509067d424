// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a hart's addresses lead to: regions of host memory with page flags and tags, and devices.
//!
//! There is no paging: addresses are what the capabilities say. A region's pages have flags all the same, so that whoever owns the
//! memory can take permissions away from everybody.

#[allow(
    unsafe_code,
    reason = "memory that guests and the host share is not a Rust object"
)]
mod host;
mod presence;
mod region;
mod tags;
#[allow(
    unsafe_code,
    reason = "an access of a guest's has to be a handful of instructions"
)]
mod window;

use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use host::{Operation, Word};
pub(crate) use presence::Presence;
pub(crate) use region::Fault;
pub use region::Region;
pub(crate) use window::Window;

use crate::Attention;
use presence::Generations;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

bitflags::bitflags! {
    /// What a page may be used for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PageFlags: u8 {
        /// Loads.
        const READ = 1 << 0;
        /// Stores.
        const WRITE = 1 << 1;
        /// Fetches.
        const EXECUTE = 1 << 2;
        /// Its granules can hold tags. Without it, a tagged capability cannot be stored (cause 0x1b). Stores to a page are slower once it has
        /// held a tag.
        const CAPABILITIES = 1 << 3;
    }
}

/// Why memory could not be set up or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not whole pages, or not a granule.
    #[error("[{begin:#x}, {begin:#x} + {length:#x}) is not made of whole pages or granules")]
    Unaligned {
        /// First byte.
        begin: u64,
        /// Bytes.
        length: u64,
    },
    /// Nothing is there, or it ends too early.
    #[error("{length:#x} bytes at {address:#x} are not all inside the region")]
    Outside {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Something is there already.
    #[error("[{begin:#x}, {begin:#x} + {length:#x}) overlaps what is there already")]
    Overlap {
        /// First byte.
        begin: u64,
        /// Bytes.
        length: u64,
    },
    /// A page forbids it.
    #[error("the page at {address:#x} has flags {has:?} and lacks {lacks:?}")]
    Forbidden {
        /// Where the page begins.
        address: u64,
        /// What it allows.
        has: PageFlags,
        /// What it would have to allow.
        lacks: PageFlags,
    },
    /// The host gives no memory.
    #[error("the host gives no {length:#x} bytes of memory: {source}")]
    Allocate {
        /// Bytes.
        length: u64,
        /// The host's reason.
        source: std::io::Error,
    },
}

/// Registers that are accessed by loads and stores.
///
/// It is called on the thread of a hart, and may call [`Memory`] and [`Region`] freely; the hart counts as not running meanwhile.
pub trait Device: Send + Sync {
    /// A load of `size` bytes (1, 2, 4 or 8) at `offset`, a multiple of the size. The low bytes of the result count.
    fn read(&self, offset: u64, size: u8) -> u64;
    /// A store of the low `size` bytes of `value` at `offset`, a multiple of the size.
    fn write(&self, offset: u64, size: u8, value: u64);
}

/// What lies at a range of addresses.
#[derive(Clone)]
pub(crate) enum Target {
    Region(Arc<Region>),
    Device(Arc<dyn Device>),
}

/// A range of addresses that leads somewhere.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) begin: u64,
    pub(crate) length: u64,
    pub(crate) target: Target,
}

/// All of them, in the order of addresses, without overlaps.
pub(crate) type Map = [Slot];

/// What lies at an address.
pub(crate) fn lookup(map: &Map, address: u64) -> Option<&Slot> {
    let after = map.partition_point(|slot| slot.begin <= address);
    let slot = map.get(after.checked_sub(1)?)?;
    (address - slot.begin < slot.length).then_some(slot)
}

/// What a hart's addresses lead to, shared by harts.
pub struct Memory {
    map: RwLock<Arc<Map>>,
    generations: Arc<Generations>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Memory {
    /// Nothing at all.
    pub fn new() -> Memory {
        Memory {
            map: RwLock::new(Arc::new([])),
            generations: Arc::default(),
        }
    }

    fn insert(&self, slot: Slot) -> Result<(), MemoryError> {
        let (begin, length) = (slot.begin, slot.length);
        if length == 0 || begin.checked_add(length - 1).is_none() {
            return Err(MemoryError::Unaligned { begin, length });
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let last = begin + (length - 1);
        let at = map.partition_point(|slot| slot.begin <= begin);
        let before = at.checked_sub(1).and_then(|at| map.get(at));
        let overlaps = before.is_some_and(|slot| begin - slot.begin < slot.length)
            || map.get(at).is_some_and(|slot| slot.begin <= last);
        if overlaps {
            return Err(MemoryError::Overlap { begin, length });
        }
        let mut slots = map.to_vec();
        slots.insert(at, slot);
        *map = slots.into();
        drop(map);
        self.generations.advance();
        Ok(())
    }

    /// Puts a region where it begins.
    ///
    /// # Errors
    ///
    /// If something is there already.
    pub fn add(&self, region: Arc<Region>) -> Result<(), MemoryError> {
        region.add_user(Arc::downgrade(&self.generations));
        self.insert(Slot {
            begin: region.begin(),
            length: region.end() - region.begin(),
            target: Target::Region(region),
        })
    }

    /// Puts a device at `[begin, begin + length)`.
    ///
    /// # Errors
    ///
    /// If something is there already, or the range is empty or wraps.
    pub fn add_device(
        &self,
        begin: u64,
        length: u64,
        device: Arc<dyn Device>,
    ) -> Result<(), MemoryError> {
        self.insert(Slot {
            begin,
            length,
            target: Target::Device(device),
        })
    }

    /// Takes away the region or device that begins at an address; whether there was one. When it returns, no running hart uses it any
    /// more. A hart that is not running keeps a reference to a region until it runs again, without using it.
    pub fn remove(&self, begin: u64) -> bool {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(at) = map.binary_search_by_key(&begin, |slot| slot.begin) else {
            return false;
        };
        let mut slots = map.to_vec();
        slots.remove(at);
        *map = slots.into();
        drop(map);
        self.generations.advance_and_wait();
        true
    }

    /// The region that an address lies in.
    pub fn find(&self, address: u64) -> Option<Arc<Region>> {
        match &lookup(&self.map(), address)?.target {
            Target::Region(region) => Some(Arc::clone(region)),
            Target::Device(_) => None,
        }
    }

    /// What is where now.
    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes all harts look whether code has changed.
    pub(crate) fn check_code(&self) {
        self.generations.check_code();
    }

    /// Another hart, which is told through its attention when it has to look again.
    pub(crate) fn join(&self, attention: Arc<Attention>) -> Presence {
        self.generations.join(attention)
    }

    /// A hart begins to run, or looks again: the generation that it may rely on.
    pub(crate) fn enter(&self, presence: &Presence) -> u64 {
        presence.enter(&self.generations)
    }
}
