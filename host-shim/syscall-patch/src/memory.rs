// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory of a cVM, byte by byte: all unsafe accesses of this crate.
//!
//! The cVM owns these bytes and may change them at any time; they are read and written with volatile accesses through
//! raw pointers, never through references, and nothing that is read is trusted.

use core::ops::Range;

/// Two ranges of a cVM's memory that the patcher may access: programs and stubs.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    /// Where programs are.
    code: Range<u64>,
    /// Where stubs are.
    stubs: Range<u64>,
}

impl CodeMemory {
    /// Access to `code` and `stubs`.
    ///
    /// # Safety
    ///
    /// As long as the value lives, both ranges are mapped, readable and writable, and hold no Rust objects.
    pub(crate) unsafe fn new(code: Range<u64>, stubs: Range<u64>) -> CodeMemory {
        CodeMemory { code, stubs }
    }

    /// Where programs are.
    pub(crate) fn code(&self) -> &Range<u64> {
        &self.code
    }

    /// Whether `len` bytes at `address` are in one of the two ranges.
    fn contains(&self, address: u64, len: usize) -> bool {
        let Some(end) = address.checked_add(len as u64) else {
            return false;
        };
        [&self.code, &self.stubs]
            .into_iter()
            .any(|range| range.start <= address && end <= range.end)
    }

    /// Fills `to` from `address`; `false`, with nothing read, when that is outside both ranges.
    #[must_use]
    pub(crate) fn read(&self, address: u64, to: &mut [u8]) -> bool {
        if !self.contains(address, to.len()) {
            return false;
        }
        for (at, byte) in (address..).zip(to.iter_mut()) {
            // SAFETY: `at` is in one of the two ranges, which are readable and hold no Rust objects, by the contract
            // of `new`; a byte needs no alignment and every value of it is valid.
            *byte = unsafe { core::ptr::read_volatile(at as *const u8) };
        }
        true
    }

    /// Writes `from` to `address`; `false`, with nothing written, when that is outside both ranges.
    #[must_use]
    pub(crate) fn write(&self, address: u64, from: &[u8]) -> bool {
        if !self.contains(address, from.len()) {
            return false;
        }
        for (at, byte) in (address..).zip(from) {
            // SAFETY: as in `read`, and the ranges are writable by the contract of `new`.
            unsafe { core::ptr::write_volatile(at as *mut u8, *byte) };
        }
        true
    }

    /// Whether the bytes at `address` are `expected`.
    pub(crate) fn holds<const N: usize>(&self, address: u64, expected: &[u8; N]) -> bool {
        let mut bytes = [0; N];
        self.read(address, &mut bytes) && bytes == *expected
    }
}
