// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory of a cVM, byte by byte: all unsafe accesses of this crate.
//!
//! The cVM owns these bytes and may change them at any time; they are read and written with volatile accesses through
//! raw pointers, never through references, and nothing that is read is trusted.

use core::fmt;
use core::ops::Range;

/// How bytes of a cVM's memory are read and written where that can fail: with virtual memory a page may be absent, and stubs are
/// written at another address than they are executed at.
pub trait CodeAccess: Send + Sync + fmt::Debug {
    /// Fills `to` from `address`, an address as programs know it; `false` when not all of it can be read.
    fn read(&self, address: u64, to: &mut [u8]) -> bool;

    /// Writes `from` to `address`; `false` when not all of it can be written.
    fn write(&self, address: u64, from: &[u8]) -> bool;
}

/// Two ranges of a cVM's memory that the patcher may access: programs and stubs.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    /// Where programs are.
    code: Range<u64>,
    /// Where stubs are.
    stubs: Range<u64>,
    access: Box<dyn CodeAccess>,
}

impl CodeMemory {
    /// Access to `code` and `stubs`.
    pub(crate) fn new(
        code: Range<u64>,
        stubs: Range<u64>,
        access: Box<dyn CodeAccess>,
    ) -> CodeMemory {
        CodeMemory {
            code,
            stubs,
            access,
        }
    }

    /// Where programs are.
    pub(crate) fn code(&self) -> &Range<u64> {
        &self.code
    }

    /// Whether `len` bytes at `address` are in one of the two ranges.
    pub(crate) fn contains(&self, address: u64, len: usize) -> bool {
        let Some(end) = address.checked_add(len as u64) else {
            return false;
        };
        [&self.code, &self.stubs]
            .into_iter()
            .any(|range| range.start <= address && end <= range.end)
    }

    /// Fills `to` from `address`; `false` when that is outside both ranges, or cannot be read.
    #[must_use]
    pub(crate) fn read(&self, address: u64, to: &mut [u8]) -> bool {
        self.contains(address, to.len()) && self.access.read(address, to)
    }

    /// Writes `from` to `address`; `false` when that is outside both ranges, or cannot be written.
    #[must_use]
    pub(crate) fn write(&self, address: u64, from: &[u8]) -> bool {
        self.contains(address, from.len()) && self.access.write(address, from)
    }

    /// Whether the bytes at `address` are `expected`.
    pub(crate) fn holds<const N: usize>(&self, address: u64, expected: &[u8; N]) -> bool {
        let mut bytes = [0; N];
        self.read(address, &mut bytes) && bytes == *expected
    }
}

/// Memory that is always there.
#[derive(Debug)]
pub(crate) struct Mapped(());

impl Mapped {
    /// Access to everything that the caller has.
    ///
    /// # Safety
    ///
    /// As long as the value lives, every address that it is asked for is mapped, readable and writable, and holds no Rust objects.
    pub(crate) unsafe fn new() -> Mapped {
        Mapped(())
    }
}

impl CodeAccess for Mapped {
    fn read(&self, address: u64, to: &mut [u8]) -> bool {
        for (at, byte) in (address..).zip(to.iter_mut()) {
            // SAFETY: `at` is readable and holds no Rust object, by the contract of `new`; a byte needs no alignment and every
            // value of it is valid.
            *byte = unsafe { core::ptr::read_volatile(at as *const u8) };
        }
        true
    }

    fn write(&self, address: u64, from: &[u8]) -> bool {
        for (at, byte) in (address..).zip(from) {
            // SAFETY: as in `read`, and it is writable by the contract of `new`.
            unsafe { core::ptr::write_volatile(at as *mut u8, *byte) };
        }
        true
    }
}
