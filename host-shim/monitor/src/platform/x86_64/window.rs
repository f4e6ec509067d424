// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A window: addresses at which a cVM's kernel shows pages of its memory to its programs, as a memory management unit would.
//!
//! The kernel's memory becomes a file without a name, mapped as a whole where it was. A page of it can be mapped again inside of the
//! window, at any address and as often as the kernel likes. What it asks for is checked here: pages of its own memory, in its own window.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::platform::host_range::HostRange;
use crate::platform::{Placement, PlatformError, Protection};

/// Bytes of a window. A number that leaves room for a hundred of them.
const SIZE: u64 = 512 << 30;
/// Programs that are linked at an address have it below this.
const LOW_END: u64 = 1 << 30;
/// The host's limit to the mappings of a process, where it does not say.
const USUAL_MAPPINGS: u64 = 65530;
/// How many of them are left to the monitor itself.
const OWN_MAPPINGS: u64 = 8192;
/// By how many one call can increase their number: it replaces the middle of one.
const MAPPINGS_OF_A_CALL: u64 = 2;

/// How many windows there are: they share the host's limit.
static WINDOWS: AtomicU64 = AtomicU64::new(0);

/// How many mappings all windows can have together.
fn most_mappings() -> u64 {
    static MOST: OnceLock<u64> = OnceLock::new();
    *MOST.get_or_init(|| {
        let most = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(USUAL_MAPPINGS);
        most.saturating_sub(OWN_MAPPINGS).max(OWN_MAPPINGS / 2)
    })
}

/// The window of one cVM, and the memory that is seen through it.
#[derive(Debug)]
pub struct Window {
    range: HostRange,
    /// What else belongs to it.
    extension: OnceLock<HostRange>,
    /// How many mappings it has, at most, since programs saw nothing in it.
    mappings: AtomicU64,
    memory: Range<u64>,
    file: File,
}

impl Window {
    /// Makes `memory`, whole pages of the cVM's range that hold nothing yet, a file, and reserves a window below `limit`.
    ///
    /// # Errors
    ///
    /// [`PlatformError`].
    pub fn open(memory: Range<u64>, limit: u64) -> Result<Window, PlatformError> {
        let len = memory.end.saturating_sub(memory.start);
        let what = || format!("memory of {len} bytes for a cVM");
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"cvm-memory".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(PlatformError::host("memfd_create", what()));
        }
        // SAFETY: the descriptor was made just now and is nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len).map_err(|source| PlatformError::Host {
            call: "ftruncate",
            what: what(),
            source,
        })?;
        let range = HostRange::reserve(Placement::AnywhereHigh, SIZE, limit, libc::PROT_NONE)?;
        // SAFETY: these are pages of the cVM's range, as the caller says, and its code is not running.
        let mapped = unsafe {
            libc::mmap(
                memory.start as *mut libc::c_void,
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(PlatformError::host("mmap", what()));
        }
        WINDOWS.fetch_add(1, Ordering::Relaxed);
        Ok(Window {
            range,
            extension: OnceLock::new(),
            mappings: AtomicU64::new(0),
            memory,
            file,
        })
    }

    /// Reserves `range`, below `limit`, too. Once.
    ///
    /// # Errors
    ///
    /// [`PlatformError`].
    pub fn extend(&self, range: Range<u64>, limit: u64) -> Result<(), PlatformError> {
        let len = range.end.saturating_sub(range.start);
        if self.extension.get().is_some() || range.end > LOW_END {
            return Err(self.range.outside(range.start, len));
        }
        let extension =
            HostRange::reserve(Placement::At(range.start), len, limit, libc::PROT_NONE)?;
        self.extension
            .set(extension)
            .map_err(|extension| extension.outside(range.start, len))
    }

    fn contains(&self, address: u64, len: u64) -> bool {
        self.range.contains(address, len)
            || self
                .extension
                .get()
                .is_some_and(|range| range.contains(address, len))
    }

    /// Where it is.
    pub fn range(&self) -> Range<u64> {
        self.range.begin()..self.range.end()
    }

    /// The memory that is seen through it.
    pub fn memory(&self) -> &Range<u64> {
        &self.memory
    }

    /// Shows `len` bytes of the memory from `physical` on at `address`; all three are whole pages.
    ///
    /// # Errors
    ///
    /// [`PlatformError::RangeUnusable`] when one of the ranges is not the cVM's, [`PlatformError::Host`]; with `ENOMEM` when the window has its share
    /// of the mappings that the host allows: those of a window that was unmapped in a large part do not count any more.
    pub fn map(
        &self,
        address: u64,
        physical: u64,
        len: u64,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        let inside = physical >= self.memory.start
            && physical
                .checked_add(len)
                .is_some_and(|end| end <= self.memory.end);
        if !inside || !self.contains(address, len) {
            return Err(self.range.outside(address, len));
        }
        let share = most_mappings() / WINDOWS.load(Ordering::Relaxed).max(1);
        let mappings = self.mappings.load(Ordering::Relaxed) + MAPPINGS_OF_A_CALL;
        if mappings > share {
            return Err(PlatformError::Host {
                call: "mmap",
                what: "one more mapping in a window".to_owned(),
                source: std::io::Error::from_raw_os_error(libc::ENOMEM),
            });
        }
        self.mappings.store(mappings, Ordering::Relaxed);
        // SAFETY: replaces pages of the window, which belongs to the cVM.
        let mapped = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                len as usize,
                protection.flags(),
                libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE,
                self.file.as_raw_fd(),
                (physical - self.memory.start) as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(self.range.host_error("mmap", address, len));
        }
        Ok(())
    }

    /// Shows nothing any more at `[address, address + len)`, whole pages.
    ///
    /// # Errors
    ///
    /// As [`Window::map`].
    pub fn unmap(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        if !self.contains(address, len) {
            return Err(self.range.outside(address, len));
        }
        // SAFETY: as above.
        let mapped = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                len as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(self.range.host_error("mmap", address, len));
        }
        if len >= SIZE / 2 {
            self.mappings.store(0, Ordering::Relaxed);
        } else {
            // It may have been the middle of one.
            self.mappings
                .fetch_add(MAPPINGS_OF_A_CALL, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets what whole pages of the memory hold; they read as zero.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        // SAFETY: changes pages of the memory, which belongs to the cVM.
        let result = unsafe {
            libc::madvise(
                address as *mut libc::c_void,
                len as usize,
                libc::MADV_REMOVE,
            )
        };
        if result != 0 {
            return Err(self.range.host_error("madvise", address, len));
        }
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        WINDOWS.fetch_sub(1, Ordering::Relaxed);
    }
}
