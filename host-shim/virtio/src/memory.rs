// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's memory, and file I/O straight into and out of it. The unsafe code about memory is all here.
//!
//! # Why unsafe
//!
//! The range belongs to the guest, which changes it at any time from its own thread; no Rust reference to it may exist. Single words
//! and small copies go through `vm-memory`, which accesses memory as volatile. Whole requests go by `preadv2` and `pwritev2`, for which no safe
//! function takes plain addresses.
//!
//! # Why it is sound
//!
//! Plain accesses go only to the part of the range that was promised to be readable and writable, because a fault in the monitor's own
//! instructions would end all guests. The kernel, which answers a bad address with an error, may access all of the range. An address is turned into a pointer in one place, `GuestMemory::io_vector`, right before the system call that uses it, and only after
//! it was checked against the range. A pointer is not kept.
#![allow(
    unsafe_code,
    reason = "the guest's range is raw memory; see the module's documentation"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

/// How many segments one system call takes.
const IO_VECTOR: usize = 128;
/// How many bytes one system call moves at most, so that a request can be cancelled between two.
const IO_BYTES: u64 = 8 << 20;

/// Why a range cannot be used as a guest's memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// It has no bytes.
    #[error("the guest's memory at {base:#x} is empty; give the range a size")]
    Empty {
        /// Its first address for the guest.
        base: u64,
    },
    /// It goes past the end of the address space.
    #[error(
        "the guest's memory, {len:#x} bytes at {base:#x}, goes past the end of the address space"
    )]
    TooLong {
        /// Its first address for the guest.
        base: u64,
        /// Its size in bytes.
        len: usize,
    },
    /// What plain instructions may access is not a part of it.
    #[error("{:#x} to {:#x} is not a part of the guest's memory, {len:#x} bytes at {base:#x}", part.start, part.end)]
    Part {
        /// The addresses that were to be a part of it.
        part: Range<u64>,
        /// Its first address for the guest.
        base: u64,
        /// Its size in bytes.
        len: usize,
    },
    /// It cannot be mapped, or does not begin at a page.
    #[error("the guest's memory, {len:#x} bytes at {base:#x}, cannot be used")]
    Mapping {
        /// Its first address for the guest.
        base: u64,
        /// Its size in bytes.
        len: usize,
        /// The reason.
        source: MmapRegionError,
    },
}

/// An access that is not inside the guest's memory, or not aligned.
#[derive(Debug, Error)]
#[error("{len} bytes at {address:#x} are not in the guest's memory")]
pub struct OutsideMemory {
    /// Where it begins, as the guest sees it.
    pub address: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// Why a file could not be read into, or written from, the guest's memory.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The guest gave an address that it has no memory at.
    #[error(transparent)]
    OutsideMemory(#[from] OutsideMemory),
    /// The guest has memory there, but does not let it be accessed.
    #[error("the guest's memory cannot be accessed")]
    Inaccessible,
    /// It would have to wait, and was asked not to.
    #[error("the data is not in the host's memory")]
    WouldBlock,
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The host failed.
    #[error(transparent)]
    Host(io::Error),
}

/// Some bytes of the guest's. It is only a claim of the guest's: nothing says that they are in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address, as the guest sees it.
    pub address: u64,
    /// Number of bytes.
    pub len: u32,
}

/// Whether a transfer may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It may.
    Allowed,
    /// It may not, and ends with [`TransferError::WouldBlock`] where it would have to.
    Never,
}

/// The memory of one guest: one range of its addresses, which is one range of the host's. Clones are of the same memory.
///
/// Data of requests can be anywhere in it. Queues, headers and status bytes, and whatever else the device accesses itself, have to be in
/// its plain part, which is all of it unless [`GuestMemory::with_plain_part`] says otherwise.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    /// Only passed to the kernel.
    all: GuestMemoryMmap<()>,
    /// Also accessed by plain instructions.
    plain: GuestMemoryMmap<()>,
}

impl GuestMemory {
    /// The `len` bytes at `host`, which the guest sees from the address `base` on. Where guests use host addresses, `base` is `host`'s address.
    ///
    /// # Errors
    ///
    /// When the range is empty, wraps around, or `host` is not at the beginning of a page.
    ///
    /// # Safety
    ///
    /// Until the last clone of the result is dropped, the range stays the guest's, and all of it stays mapped, readable and writable, or that part
    /// which is given to [`GuestMemory::with_plain_part`]. No Rust reference to any of it exists during that time.
    pub unsafe fn from_raw_parts(
        base: u64,
        host: *mut u8,
        len: usize,
    ) -> Result<GuestMemory, MemoryError> {
        // SAFETY: the caller promises that the range is mapped for as long as the region can be used.
        let region = unsafe { raw_region(host, len) };
        GuestMemory::from_region(base, len, region)
    }

    /// `len` bytes of new memory, which the guest sees from the address `base` on. For tests and tools; a monitor has the range already.
    ///
    /// # Errors
    ///
    /// When the range is empty, wraps around, or the host has no memory.
    pub fn anonymous(base: u64, len: usize) -> Result<GuestMemory, MemoryError> {
        GuestMemory::from_region(base, len, MmapRegion::new(len))
    }

    fn from_region(
        base: u64,
        len: usize,
        region: Result<MmapRegion, MmapRegionError>,
    ) -> Result<GuestMemory, MemoryError> {
        if len == 0 {
            return Err(MemoryError::Empty { base });
        }
        let region = region.map_err(|source| MemoryError::Mapping { base, len, source })?;
        let all = GuestRegionMmap::new(region, GuestAddress(base))
            .and_then(|region| GuestMemoryMmap::from_regions(vec![region]).ok())
            .ok_or(MemoryError::TooLong { base, len })?;
        Ok(GuestMemory {
            plain: all.clone(),
            all,
        })
    }

    /// The same memory, of which the device accesses only `part`, addresses as the guest sees them, by itself. For a range in which the guest can have
    /// pages that are not readable and writable, its program text for one: an access there would end the monitor.
    ///
    /// # Errors
    ///
    /// When `part` is empty, not in the range, or does not begin at a page.
    pub fn with_plain_part(self, part: Range<u64>) -> Result<GuestMemory, MemoryError> {
        let whole = self.whole();
        let inside = part.start < part.end && part.start >= whole.start && part.end <= whole.end;
        let not_a_part = || MemoryError::Part {
            part: part.clone(),
            base: whole.start,
            len: (whole.end - whole.start) as usize,
        };
        if !inside {
            return Err(not_a_part());
        }
        let len = (part.end - part.start) as usize;
        let slice = self
            .all
            .get_slice(GuestAddress(part.start), len)
            .map_err(|_| not_a_part())?;
        let host = slice.ptr_guard_mut().as_ptr();
        // SAFETY: the slice is a part of the range, which the one who made this `GuestMemory` keeps mapped.
        let plain = unsafe { GuestMemory::from_raw_parts(part.start, host, len) }?;
        Ok(GuestMemory {
            all: self.all,
            plain: plain.all,
        })
    }

    /// The same memory, of which neither the device nor the host's kernel on its behalf accesses `hole`, addresses as the guest sees them. For
    /// what the guest may change only by its own instructions.
    ///
    /// # Errors
    ///
    /// When the hole is not in the range, or something on one side of it is no memory that begins at a page.
    pub fn without(self, hole: Range<u64>) -> Result<GuestMemory, MemoryError> {
        let whole = self.whole();
        let len = (whole.end - whole.start) as usize;
        let not_a_part = || MemoryError::Part {
            part: hole.clone(),
            base: whole.start,
            len,
        };
        if hole.start > hole.end || hole.start <= whole.start || hole.end >= whole.end {
            return Err(not_a_part());
        }
        let mut regions = Vec::new();
        for side in [whole.start..hole.start, hole.end..whole.end] {
            let len = (side.end - side.start) as usize;
            let slice = self
                .all
                .get_slice(GuestAddress(side.start), len)
                .map_err(|_| not_a_part())?;
            let host = slice.ptr_guard_mut().as_ptr();
            // SAFETY: the slice is a part of the range, which the one who made this `GuestMemory` keeps mapped.
            let region = unsafe { raw_region(host, len) };
            let region = region.map_err(|_| not_a_part())?;
            regions.extend(GuestRegionMmap::new(region, GuestAddress(side.start)));
        }
        Ok(GuestMemory {
            all: GuestMemoryMmap::from_regions(regions).map_err(|_| not_a_part())?,
            plain: self.plain,
        })
    }

    /// The guest's addresses from the first byte of it to the last.
    fn whole(&self) -> Range<u64> {
        let begin = self.all.iter().map(|region| region.start_addr().0).min();
        let end = self
            .all
            .iter()
            .map(|region| region.start_addr().0 + region.len())
            .max();
        begin.unwrap_or(0)..end.unwrap_or(0)
    }

    /// The plain part for `virtio-queue`.
    pub(crate) fn plain(&self) -> &GuestMemoryMmap<()> {
        &self.plain
    }

    /// Whether all `len` bytes at `address` are in the range. No bytes are, wherever they are.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        has(&self.all, address, len)
    }

    /// As [`GuestMemory::contains`], for the plain part.
    pub fn contains_plain(&self, address: u64, len: u64) -> bool {
        has(&self.plain, address, len)
    }

    /// Copies from `address`, in the plain part, into `to`.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), OutsideMemory> {
        let len = to.len() as u64;
        self.plain
            .read_slice(to, GuestAddress(address))
            .map_err(|_| OutsideMemory { address, len })
    }

    /// Copies `from` to `address`, in the plain part.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), OutsideMemory> {
        let len = from.len() as u64;
        self.plain
            .write_slice(from, GuestAddress(address))
            .map_err(|_| OutsideMemory { address, len })
    }

    /// Copies `len` bytes at `address` to the address `to_address` of `to`, which may be another guest's memory; plain parts both.
    pub fn copy(
        &self,
        address: u64,
        to: &GuestMemory,
        to_address: u64,
        len: usize,
    ) -> Result<(), OutsideMemory> {
        let outside = |address| OutsideMemory {
            address,
            len: len as u64,
        };
        let from = self
            .plain
            .get_slice(GuestAddress(address), len)
            .map_err(|_| outside(address))?;
        let target = to
            .plain
            .get_slice(GuestAddress(to_address), len)
            .map_err(|_| outside(to_address))?;
        from.copy_to_volatile_slice(target);
        Ok(())
    }

    /// Reads the 16 bit little-endian word at `address`, which has to be even and in the plain part, at once.
    pub fn load_u16(&self, address: u64, order: Ordering) -> Result<u16, OutsideMemory> {
        self.plain
            .load(GuestAddress(address), order)
            .map(u16::from_le)
            .map_err(|_| OutsideMemory { address, len: 2 })
    }

    /// Writes the 16 bit little-endian word at `address`, which has to be even and in the plain part, at once.
    pub fn store_u16(
        &self,
        address: u64,
        value: u16,
        order: Ordering,
    ) -> Result<(), OutsideMemory> {
        self.plain
            .store(value.to_le(), GuestAddress(address), order)
            .map_err(|_| OutsideMemory { address, len: 2 })
    }

    /// Reads from `file` at `offset` bytes until `segments` are full. When it fails, any of their bytes may have changed.
    ///
    /// # Errors
    ///
    /// [`TransferError`]; the end of the file is a host error of kind `UnexpectedEof`.
    pub fn read_from_file(
        &self,
        file: &File,
        segments: &[Segment],
        offset: u64,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        let flags = match wait {
            Wait::Allowed => 0,
            Wait::Never => libc::RWF_NOWAIT,
        };
        self.transfer(segments, offset, cancel, |vector, offset| {
            // SAFETY: `transfer` hands over addresses and lengths that are inside the guest's range, which the one who made this `GuestMemory`
            // keeps mapped, and to which there are no references.
            unsafe {
                libc::preadv2(
                    file.as_raw_fd(),
                    vector.as_ptr(),
                    vector.len() as libc::c_int,
                    offset,
                    flags,
                )
            }
        })
    }

    /// Writes all of `segments` to `file` at `offset` bytes; with `durable`, the data is on the host's disk when it returns. When it fails, any
    /// part of it may have been written.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub fn write_to_file(
        &self,
        file: &File,
        segments: &[Segment],
        offset: u64,
        durable: bool,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        self.transfer(segments, offset, cancel, |vector, offset| {
            // SAFETY: as for `preadv2` above; the kernel only reads from the range.
            unsafe {
                libc::pwritev2(
                    file.as_raw_fd(),
                    vector.as_ptr(),
                    vector.len() as libc::c_int,
                    offset,
                    flags,
                )
            }
        })
    }

    /// Calls `step` with a vector and a file offset until it has moved all bytes of `segments`.
    fn transfer(
        &self,
        segments: &[Segment],
        offset: u64,
        cancel: &AtomicBool,
        mut step: impl FnMut(&[libc::iovec], libc::off_t) -> libc::ssize_t,
    ) -> Result<(), TransferError> {
        let mut vector = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; IO_VECTOR];
        let mut done = 0;
        loop {
            let vector = self.io_vector(segments, done, &mut vector)?;
            if vector.is_empty() {
                return Ok(());
            }
            if cancel.load(Ordering::Relaxed) {
                return Err(TransferError::Cancelled);
            }
            let at = offset
                .checked_add(done)
                .and_then(|at| libc::off_t::try_from(at).ok())
                .ok_or_else(|| TransferError::Host(libc_error(libc::EOVERFLOW)))?;
            match step(vector, at) {
                0 => return Err(TransferError::Host(io::ErrorKind::UnexpectedEof.into())),
                moved @ 1.. => done += moved as u64,
                _ => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        Some(libc::EINTR) => {}
                        Some(libc::EAGAIN) => return Err(TransferError::WouldBlock),
                        Some(libc::EFAULT) => return Err(TransferError::Inaccessible),
                        _ => return Err(TransferError::Host(error)),
                    }
                }
            }
        }
    }

    /// Fills `vector` with what is left of `segments` after `skip` bytes, as much as fits into one step; returns the part that is used.
    fn io_vector<'v>(
        &self,
        segments: &[Segment],
        mut skip: u64,
        vector: &'v mut [libc::iovec; IO_VECTOR],
    ) -> Result<&'v [libc::iovec], OutsideMemory> {
        let mut used = 0;
        let mut room = IO_BYTES;
        for segment in segments {
            let len = u64::from(segment.len);
            if skip >= len {
                skip -= len;
                continue;
            }
            let Some(entry) = vector.get_mut(used).filter(|_| room > 0) else {
                break;
            };
            let take = (len - skip).min(room);
            let outside = || OutsideMemory {
                address: segment.address,
                len,
            };
            let address = segment.address.checked_add(skip).ok_or_else(outside)?;
            let slice = self
                .all
                .get_slice(GuestAddress(address), take as usize)
                .map_err(|_| outside())?;
            *entry = libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            };
            room -= take;
            skip = 0;
            used += 1;
        }
        Ok(vector.get(..used).unwrap_or_default())
    }
}

/// Memory that somebody else maps.
///
/// # Safety
///
/// It stays mapped for as long as the region can be used.
unsafe fn raw_region(host: *mut u8, len: usize) -> Result<MmapRegion, MmapRegionError> {
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: the caller's promise.
    unsafe { MmapRegion::build_raw(host, len, prot, flags) }
}

fn has(map: &GuestMemoryMmap<()>, address: u64, len: u64) -> bool {
    usize::try_from(len)
        .is_ok_and(|len| len == 0 || map.get_slice(GuestAddress(address), len).is_ok())
}

fn libc_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
