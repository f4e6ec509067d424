// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Regions of host memory with page flags and tags, and devices.

use std::sync::Arc;

use crate::Capability;

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
        /// Its granules can hold tags; a tagged capability stored elsewhere faults.
        const CAPABILITIES = 1 << 3;
    }
}

/// Why memory could not be set up or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not whole pages.
    #[error("[{begin:#x}, {begin:#x} + {length:#x}) is not made of whole pages")]
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
    #[error("the page of {address:#x} has flags {has:?} and lacks {lacks:?}")]
    Forbidden {
        /// The byte.
        address: u64,
        /// What its page allows.
        has: PageFlags,
        /// What it would have to allow.
        lacks: PageFlags,
    },
    /// The host gives no memory.
    #[error("the host gives no {length:#x} bytes of memory")]
    Allocate {
        /// Bytes.
        length: u64,
        /// The host's reason.
        source: std::io::Error,
    },
}

/// A range of guest addresses backed by host memory.
pub struct Region {
    begin: u64,
    length: u64,
    host: *mut u8,
}

// SAFETY: skeleton
unsafe impl Send for Region {}
// SAFETY: skeleton
unsafe impl Sync for Region {}

impl Region {
    /// A region over memory of the host's.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages or wraps.
    ///
    /// # Safety
    ///
    /// `[host, host + length)` stays mapped, readable and writable, while the region lives. Others access it only as they would
    /// access memory that is shared with a guest.
    pub unsafe fn from_host(
        begin: u64,
        length: u64,
        host: *mut u8,
        _flags: PageFlags,
    ) -> Result<Region, MemoryError> {
        Ok(Region {
            begin,
            length,
            host,
        })
    }
    /// A region over zeroed memory of its own.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages or wraps, or if the host has no memory.
    pub fn anonymous(begin: u64, length: u64, _flags: PageFlags) -> Result<Region, MemoryError> {
        Ok(Region {
            begin,
            length,
            host: std::ptr::null_mut(),
        })
    }
    /// First address.
    pub fn begin(&self) -> u64 {
        self.begin
    }
    /// The address after the last.
    pub fn end(&self) -> u64 {
        self.begin + self.length
    }
    /// Where the host has the byte of a guest address; none outside the region.
    pub fn host_pointer(&self, _address: u64) -> Option<*mut u8> {
        Some(self.host)
    }
    /// Flags of the page of an address; none outside the region.
    pub fn flags(&self, _address: u64) -> Option<PageFlags> {
        None
    }
    /// Changes the flags of whole pages, from any thread. When it returns, no hart uses the old flags any more.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages of the region.
    pub fn protect(
        &self,
        _address: u64,
        _length: u64,
        _flags: PageFlags,
    ) -> Result<(), MemoryError> {
        Ok(())
    }
    /// Reads, checked against page flags.
    ///
    /// # Errors
    ///
    /// If a page lacks [`PageFlags::READ`] or the range is not inside the region.
    pub fn read(&self, _address: u64, _bytes: &mut [u8]) -> Result<(), MemoryError> {
        Ok(())
    }
    /// Writes, checked against page flags; tags of granules that are touched fall.
    ///
    /// # Errors
    ///
    /// If a page lacks [`PageFlags::WRITE`] or the range is not inside the region; nothing is written then.
    pub fn write(&self, _address: u64, _bytes: &[u8]) -> Result<(), MemoryError> {
        Ok(())
    }
    /// Loads a capability for the monitor: no page flag is needed, and the tag is clear on pages without
    /// [`PageFlags::CAPABILITIES`].
    ///
    /// # Errors
    ///
    /// If the granule is not aligned or not inside the region.
    pub fn load_capability(&self, _address: u64) -> Result<Capability, MemoryError> {
        Ok(Capability::null())
    }
    /// Stores a capability for the monitor: needs [`PageFlags::CAPABILITIES`], not [`PageFlags::WRITE`].
    ///
    /// # Errors
    ///
    /// If the granule is not aligned or not inside the region, or the page lacks [`PageFlags::CAPABILITIES`].
    pub fn store_capability(
        &self,
        _address: u64,
        _capability: &Capability,
    ) -> Result<(), MemoryError> {
        Ok(())
    }
    /// Clears the tags of all granules that the range touches.
    pub fn clear_tags(&self, _address: u64, _length: u64) {}
}

/// Registers that are accessed by loads and stores.
pub trait Device: Send + Sync {
    /// A load of `size` bytes (1, 2, 4 or 8) at `offset`.
    fn read(&self, offset: u64, size: u8) -> u64;
    /// A store of the low `size` bytes of `value` at `offset`.
    fn write(&self, offset: u64, size: u8, value: u64);
}

/// What a hart's addresses lead to, shared by harts.
#[derive(Default)]
pub struct Memory {}

impl Memory {
    /// Nothing at all.
    pub fn new() -> Memory {
        Memory {}
    }
    /// Puts a region where it begins.
    ///
    /// # Errors
    ///
    /// If something is there already.
    pub fn add(&self, _region: Arc<Region>) -> Result<(), MemoryError> {
        Ok(())
    }
    /// Takes away the region or device that begins at an address. When it returns, no running hart uses it any more.
    /// Returns whether there was one.
    pub fn remove(&self, _begin: u64) -> bool {
        false
    }
    /// Puts a device at `[begin, begin + length)`.
    ///
    /// # Errors
    ///
    /// If something is there already.
    pub fn add_device(
        &self,
        _begin: u64,
        _length: u64,
        _device: Arc<dyn Device>,
    ) -> Result<(), MemoryError> {
        Ok(())
    }
    /// The region that an address lies in.
    pub fn find(&self, _address: u64) -> Option<Arc<Region>> {
        None
    }
}
