// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges of the monitor's own address space, one for each cVM, as the host maps them.
//!
//! A range is placed and given back here; what is in it is the platform's.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Placement, PlatformError};

const PAGE: u64 = 4096;
/// Ranges that are placed anywhere begin at a multiple of this.
const STEP: u64 = 2 << 20;
/// Where ranges that are placed anywhere are looked for, from low to high: far below everything that the host
/// maps by itself, and above what is usually asked for by address.
const FIRST: u64 = 0x10_0000_0000;
/// Below this nothing is mapped.
const LOWEST: u64 = 0x1_0000;
/// The same for what is large.
const FIRST_HIGH: u64 = 0x2000_0000_0000;

/// Where the next range is looked for.
struct Search {
    first: u64,
    next: AtomicU64,
}

impl Search {
    const fn new(first: u64) -> Search {
        Search {
            first,
            next: AtomicU64::new(first),
        }
    }
}

static ANYWHERE: Search = Search::new(FIRST);
static HIGH: Search = Search::new(FIRST_HIGH);

/// A range of memory. It is given back when this is dropped.
#[derive(Debug)]
pub struct HostRange {
    begin: u64,
    len: u64,
}

enum Mapped {
    Yes,
    Taken,
}

fn map_at(begin: u64, len: u64, protection: i32) -> Result<Mapped, PlatformError> {
    // SAFETY: `MAP_FIXED_NOREPLACE` changes nothing that is mapped already.
    let address = unsafe {
        libc::mmap(
            begin as *mut libc::c_void,
            len as usize,
            protection,
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

impl HostRange {
    /// Reserves `len` bytes below `limit`, all zero and backed lazily; `protection` as for `mmap`.
    ///
    /// # Errors
    ///
    /// As [`crate::platform::Platform::reserve`].
    pub fn reserve(
        placement: Placement,
        len: u64,
        limit: u64,
        protection: i32,
    ) -> Result<HostRange, PlatformError> {
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
                match map_at(begin, len, protection)? {
                    Mapped::Yes => HostRange { begin, len },
                    Mapped::Taken => {
                        return Err(PlatformError::RangeTaken {
                            begin,
                            end: begin + len,
                        });
                    }
                }
            }
            Placement::Anywhere => HostRange::anywhere(&ANYWHERE, len, limit, protection)?,
            Placement::AnywhereHigh => HostRange::anywhere(&HIGH, len, limit, protection)?,
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

    fn anywhere(
        search: &Search,
        len: u64,
        limit: u64,
        protection: i32,
    ) -> Result<HostRange, PlatformError> {
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
            let begin = search.next.fetch_add(stride, Ordering::Relaxed);
            if begin.checked_add(len).is_none_or(|end| end > limit) {
                if wrapped {
                    return Err(no_room);
                }
                // Ranges that ended meanwhile left room.
                wrapped = true;
                search.next.store(search.first, Ordering::Relaxed);
                continue;
            }
            if let Mapped::Yes = map_at(begin, len, protection)? {
                return Ok(HostRange { begin, len });
            }
        }
    }

    /// First byte.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// Byte after it.
    pub fn end(&self) -> u64 {
        self.begin + self.len
    }

    /// Whether all of `[address, address + len)` is in it.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        address >= self.begin && len <= self.len && address - self.begin <= self.len - len
    }

    /// The error that the host left for the calling thread, for a part of the range.
    pub fn host_error(&self, call: &'static str, address: u64, len: u64) -> PlatformError {
        PlatformError::host(
            call,
            format!("[{address:#x}, {:#x}) of a cVM", address.wrapping_add(len)),
        )
    }

    /// The error for what is not a part of the range.
    pub fn outside(&self, address: u64, len: u64) -> PlatformError {
        PlatformError::RangeUnusable {
            begin: address,
            end: address.saturating_add(len),
            why: "it is not inside the cVM's range",
        }
    }

    /// Puts `len` bytes of `file` from `offset` on at `address`, privately; all three are whole pages.
    ///
    /// # Errors
    ///
    /// [`PlatformError::RangeUnusable`], [`PlatformError::Host`].
    pub fn map_file(
        &self,
        address: u64,
        file: &std::fs::File,
        offset: u64,
        len: u64,
        protection: i32,
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
                protection,
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

    /// Forgets what whole pages hold; they read as zero.
    ///
    /// # Errors
    ///
    /// [`PlatformError::RangeUnusable`], [`PlatformError::Host`].
    pub fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError> {
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
}

impl Drop for HostRange {
    fn drop(&mut self) {
        // SAFETY: the range is this one's, and whoever uses it holds a reference to it or has entered a use that was waited for.
        unsafe { libc::munmap(self.begin as *mut libc::c_void, self.len as usize) };
    }
}
