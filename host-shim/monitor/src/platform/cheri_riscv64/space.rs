// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of cVMs on simulated harts: a range of the host's, at the same addresses, with page flags and tags of its own.
//!
//! The host's pages are readable and writable throughout. What a cVM's code may do with a page, its flags in the [`Region`] say; harts and
//! the methods here look at them.

use std::sync::Arc;

use capstream_hart::{Isa, Memory, PageFlags, Region};

use super::trampoline::memory_error;
use crate::platform::host_range::HostRange;
use crate::platform::{AddressSpace, Addressing, Fault, Placement, PlatformError, Protection};

/// Below the addresses where hosts put their own mappings.
const LIMIT: u64 = 0x7000_0000_0000;
/// What the host allows.
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// The range of one cVM.
pub struct TaggedSpace {
    memory: Arc<Memory>,
    region: Arc<Region>,
    addressing: Addressing,
    /// Dropped after the region has left the memory.
    range: HostRange,
}

impl TaggedSpace {
    /// Reserves `len` bytes.
    ///
    /// # Errors
    ///
    /// As [`crate::platform::Platform::reserve`].
    pub fn reserve(
        memory: &Arc<Memory>,
        isa: Isa,
        placement: Placement,
        len: u64,
    ) -> Result<TaggedSpace, PlatformError> {
        let range = HostRange::reserve(placement, len, LIMIT, READ_WRITE)?;
        let begin = range.begin();
        let flags = PageFlags::READ | PageFlags::WRITE | PageFlags::EXECUTE;
        // SAFETY: the range stays mapped, readable and writable, until it is dropped, which is after `drop` below has taken the region out
        // of the memory; harts do not touch it then. No references to what is in it exist.
        let region = unsafe { Region::from_host(begin, len, begin as *mut u8, flags) }
            .map_err(|error| memory_error("the range of a cVM", &error))?;
        let region = Arc::new(region);
        memory
            .add(Arc::clone(&region))
            .map_err(|error| memory_error("the range of a cVM", &error))?;
        Ok(TaggedSpace {
            memory: Arc::clone(memory),
            region,
            addressing: match isa {
                Isa::V8 => Addressing::new(begin, 0),
                Isa::V9 => Addressing::same(begin),
            },
            range,
        })
    }
}

impl AddressSpace for TaggedSpace {
    fn begin(&self) -> u64 {
        self.range.begin()
    }

    fn end(&self) -> u64 {
        self.range.end()
    }

    fn addressing(&self) -> Addressing {
        self.addressing
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.region.read(address, buffer).map_err(|_| Fault)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.region.write(address, bytes).map_err(|_| Fault)
    }

    fn map_file(
        &self,
        address: u64,
        file: &std::fs::File,
        offset: u64,
        len: u64,
    ) -> Result<(), PlatformError> {
        self.range.map_file(address, file, offset, len, READ_WRITE)
    }

    fn protect(&self, address: u64, len: u64, protection: Protection) -> Result<(), PlatformError> {
        let flags = [
            (protection.read, PageFlags::READ),
            (protection.write, PageFlags::WRITE),
            (protection.execute, PageFlags::EXECUTE),
        ]
        .into_iter()
        .filter(|(allowed, _)| *allowed)
        .fold(PageFlags::empty(), |flags, (_, flag)| flags | flag);
        self.region
            .protect(address, len, flags)
            .map_err(|_| self.range.outside(address, len))
    }

    fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        if !self.range.contains(address, len) {
            return Err(self.range.outside(address, len));
        }
        self.region.clear_tags(address, len);
        self.range.discard(address, len)
    }

    fn host_pointer(&self, address: u64) -> *mut u8 {
        address as *mut u8
    }
}

impl Drop for TaggedSpace {
    fn drop(&mut self) {
        self.memory.remove(self.region.begin());
    }
}
