// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges of the monitor's own address space, one for each cVM.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::host::ADDRESS_END;
use super::trampoline::capstream_copy;
use crate::platform::{AddressSpace, Addressing, Fault, Placement, PlatformError, Protection};

const PAGE: u64 = 4096;
/// Ranges that are placed anywhere begin at a multiple of this.
const STEP: u64 = 2 << 20;
/// Where ranges that are placed anywhere are looked for, from low to high: far below everything that the host
/// maps by itself, and above what is usually asked for by address.
const FIRST: u64 = 0x10_0000_0000;
/// Below this nothing is mapped.
const LOWEST: u64 = 0x1_0000;
/// Distance to the host's own code that is kept.
const MARGIN: u64 = 16 << 30;

static NEXT: AtomicU64 = AtomicU64::new(FIRST);

/// The range of one cVM.
#[derive(Debug)]
pub struct NativeSpace {
    begin: u64,
    len: u64,
}

enum Mapped {
    Yes,
    Taken,
}

fn map_at(begin: u64, len: u64) -> Result<Mapped, PlatformError> {
    // SAFETY: `MAP_FIXED_NOREPLACE` changes nothing that is mapped already.
    let address = unsafe {
        libc::mmap(
            begin as *mut libc::c_void,
            len as usize,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE
                | libc::MAP_ANONYMOUS
                | libc::MAP_NORESERVE
                | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        let error = PlatformError::host(
            "mmap",
            format!("the range [{begin:#x}, {:#x}) of a cVM", begin + len),
        );
        return match &error {
            PlatformError::Host { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => {
                Ok(Mapped::Taken)
            }
            _ => Err(error),
        };
    }
    if address as u64 != begin {
        // A kernel that does not know the flag takes the address as a hint.
        // SAFETY: the mapping was made just now.
        unsafe { libc::munmap(address, len as usize) };
        return Ok(Mapped::Taken);
    }
    Ok(Mapped::Yes)
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
        let unusable = |begin: u64, why| PlatformError::RangeUnusable {
            begin,
            end: begin.saturating_add(len),
            why,
        };
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(unusable(0, "its size is not a number of whole pages"));
        }
        let space = match placement {
            Placement::At(begin) => {
                if !begin.is_multiple_of(PAGE) {
                    return Err(unusable(begin, "it does not begin at a page"));
                }
                if begin < LOWEST {
                    return Err(unusable(begin, "it begins too low"));
                }
                if begin.checked_add(len).is_none_or(|end| end > limit) {
                    return Err(unusable(
                        begin,
                        "it ends where the monitor's own code may be",
                    ));
                }
                match map_at(begin, len)? {
                    Mapped::Yes => NativeSpace { begin, len },
                    Mapped::Taken => {
                        return Err(PlatformError::RangeTaken {
                            begin,
                            end: begin + len,
                        });
                    }
                }
            }
            Placement::Anywhere => NativeSpace::anywhere(len, limit)?,
        };
        // SAFETY: advice about the range that was mapped just now.
        unsafe {
            libc::madvise(
                space.begin as *mut libc::c_void,
                len as usize,
                libc::MADV_NOHUGEPAGE,
            );
        }
        Ok(space)
    }

    fn anywhere(len: u64, limit: u64) -> Result<NativeSpace, PlatformError> {
        let no_room = PlatformError::NoRoom { size: len };
        // One page at least stays free between two ranges.
        let Some(stride) = len
            .checked_add(PAGE)
            .and_then(|len| len.checked_next_multiple_of(STEP))
        else {
            return Err(no_room);
        };
        let mut wrapped = false;
        loop {
            let begin = NEXT.fetch_add(stride, Ordering::Relaxed);
            if begin.checked_add(len).is_none_or(|end| end > limit) {
                if wrapped {
                    return Err(no_room);
                }
                // Ranges that ended meanwhile left room.
                wrapped = true;
                NEXT.store(FIRST, Ordering::Relaxed);
                continue;
            }
            if let Mapped::Yes = map_at(begin, len)? {
                return Ok(NativeSpace { begin, len });
            }
        }
    }

    fn contains(&self, address: u64, len: u64) -> bool {
        address >= self.begin && len <= self.len && address - self.begin <= self.len - len
    }

    fn host_error(&self, call: &'static str, address: u64, len: u64) -> PlatformError {
        PlatformError::host(
            call,
            format!("[{address:#x}, {:#x}) of a cVM", address.wrapping_add(len)),
        )
    }

    fn outside(&self, address: u64, len: u64) -> PlatformError {
        PlatformError::RangeUnusable {
            begin: address,
            end: address.saturating_add(len),
            why: "it is not inside the cVM's range",
        }
    }
}

impl AddressSpace for NativeSpace {
    fn begin(&self) -> u64 {
        self.begin
    }

    fn end(&self) -> u64 {
        self.begin + self.len
    }

    fn addressing(&self) -> Addressing {
        Addressing::same(self.begin)
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        if !self.contains(address, buffer.len() as u64) {
            return Err(Fault);
        }
        copy(buffer.as_mut_ptr() as u64, address, buffer.len() as u64)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        if !self.contains(address, bytes.len() as u64) {
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
        if !self.contains(address, len) {
            return Err(self.outside(address, len));
        }
        let Ok(offset) = libc::off_t::try_from(offset) else {
            return Err(self.outside(address, len));
        };
        // SAFETY: replaces pages of this range, which belongs to the cVM.
        let mapped = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(self.host_error("mmap", address, len));
        }
        Ok(())
    }

    fn protect(&self, address: u64, len: u64, protection: Protection) -> Result<(), PlatformError> {
        if !self.contains(address, len) {
            return Err(self.outside(address, len));
        }
        let flags = [
            (protection.read, libc::PROT_READ),
            (protection.write, libc::PROT_WRITE),
            (protection.execute, libc::PROT_EXEC),
        ]
        .into_iter()
        .filter(|(allowed, _)| *allowed)
        .fold(libc::PROT_NONE, |flags, (_, flag)| flags | flag);
        // SAFETY: changes pages of this range, which belongs to the cVM.
        if unsafe { libc::mprotect(address as *mut libc::c_void, len as usize, flags) } != 0 {
            return Err(self.host_error("mprotect", address, len));
        }
        Ok(())
    }

    fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        if !self.contains(address, len) {
            return Err(self.outside(address, len));
        }
        // SAFETY: changes pages of this range, which belongs to the cVM.
        let result = unsafe {
            libc::madvise(
                address as *mut libc::c_void,
                len as usize,
                libc::MADV_DONTNEED,
            )
        };
        if result != 0 {
            return Err(self.host_error("madvise", address, len));
        }
        Ok(())
    }

    fn host_pointer(&self, address: u64) -> *mut u8 {
        address as *mut u8
    }
}

impl Drop for NativeSpace {
    fn drop(&mut self) {
        // SAFETY: the range is this space's, and whoever uses it holds a reference to it or has entered a use that was waited for.
        unsafe { libc::munmap(self.begin as *mut libc::c_void, self.len as usize) };
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
