// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of cVMs whose code the host's processor runs.

use std::ops::Range;
use std::sync::OnceLock;

use super::host::ADDRESS_END;
use super::trampoline::capstream_copy;
use super::window::Window;
use crate::platform::host_range::HostRange;
use crate::platform::{AddressSpace, Addressing, Fault, Placement, PlatformError, Protection};

/// Distance to the host's own code that is kept.
const MARGIN: u64 = 16 << 30;
/// What a range allows at first.
const ALL: i32 = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;

/// The range of one cVM, and the window of its programs when its kernel has asked for one.
#[derive(Debug)]
pub struct NativeSpace {
    range: HostRange,
    /// Below this, addresses can be a cVM's.
    limit: u64,
    window: OnceLock<Window>,
}

impl NativeSpace {
    /// Reserves `len` bytes below `code_begin`.
    ///
    /// # Errors
    ///
    /// As [`crate::platform::Platform::reserve`].
    pub fn reserve(
        placement: Placement,
        len: u64,
        code_begin: u64,
    ) -> Result<NativeSpace, PlatformError> {
        let limit = code_begin.min(ADDRESS_END).saturating_sub(MARGIN);
        let range = HostRange::reserve(placement, len, limit, ALL)?;
        Ok(NativeSpace {
            range,
            limit,
            window: OnceLock::new(),
        })
    }

    fn open(&self) -> Result<&Window, PlatformError> {
        self.window.get().ok_or(PlatformError::NoWindow)
    }
}

impl AddressSpace for NativeSpace {
    fn begin(&self) -> u64 {
        self.range.begin()
    }

    fn end(&self) -> u64 {
        self.range.end()
    }

    fn addressing(&self) -> Addressing {
        Addressing::same(self.range.begin())
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        if !self.range.contains(address, buffer.len() as u64) {
            return Err(Fault);
        }
        copy(buffer.as_mut_ptr() as u64, address, buffer.len() as u64)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        if !self.range.contains(address, bytes.len() as u64) {
            return Err(Fault);
        }
        copy(address, bytes.as_ptr() as u64, bytes.len() as u64)
    }

    fn map_file(
        &self,
        address: u64,
        file: &std::fs::File,
        offset: u64,
        len: u64,
    ) -> Result<(), PlatformError> {
        self.range.map_file(address, file, offset, len, ALL)
    }

    fn protect(&self, address: u64, len: u64, protection: Protection) -> Result<(), PlatformError> {
        if !self.range.contains(address, len) {
            return Err(self.range.outside(address, len));
        }
        let flags = protection.flags();
        // SAFETY: changes pages of this range, which belongs to the cVM.
        if unsafe { libc::mprotect(address as *mut libc::c_void, len as usize, flags) } != 0 {
            return Err(self.range.host_error("mprotect", address, len));
        }
        Ok(())
    }

    fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        match self.window.get() {
            Some(window)
                if address >= window.memory().start
                    && address.saturating_add(len) <= window.memory().end =>
            {
                window.discard(address, len)
            }
            _ => self.range.discard(address, len),
        }
    }

    fn open_window(&self, memory: Range<u64>) -> Result<Range<u64>, PlatformError> {
        if self.window.get().is_some()
            || !self
                .range
                .contains(memory.start, memory.end.saturating_sub(memory.start))
        {
            return Err(self.range.outside(memory.start, 0));
        }
        let window = Window::open(memory, self.limit)?;
        Ok(self.window.get_or_init(|| window).range())
    }

    fn extend_window(&self, range: Range<u64>) -> Result<(), PlatformError> {
        self.open()?.extend(range, self.limit)
    }

    fn map_page(
        &self,
        address: u64,
        physical: u64,
        len: u64,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        self.open()?.map(address, physical, len, protection)
    }

    fn unmap_page(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        self.open()?.unmap(address, len)
    }

    fn host_pointer(&self, address: u64) -> *mut u8 {
        address as *mut u8
    }
}

/// Copies between ranges, or between a range and a buffer of the monitor's. Needs no thread state of the monitor's.
#[inline]
pub fn copy(destination: u64, source: u64, len: u64) -> Result<(), Fault> {
    // SAFETY: the caller has checked both sides: each is a buffer of the monitor's or inside a cVM's range, to which no
    // references of Rust exist. A fault ends the routine early.
    let rest = unsafe { capstream_copy(destination as *mut u8, source as *const u8, len as usize) };
    if rest == 0 { Ok(()) } else { Err(Fault) }
}
