// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory for code and stubs, as the range of a cVM has it.

#![allow(dead_code, reason = "not every user of the module needs all of it")]

use capstream_syscall_patch::PatchTable;
use std::ops::Range;

/// Readable, writable and executable memory: code first, the stub area last.
pub struct Arena {
    base: u64,
    len: usize,
    stub_len: usize,
}

impl Arena {
    /// `len` bytes, of which the last `stub_len` are the stub area.
    pub fn new(len: usize, stub_len: usize) -> Arena {
        Arena::map(0, len, stub_len)
    }

    /// This range, of which the last `stub_len` bytes are the stub area.
    pub fn at(range: Range<u64>, stub_len: usize) -> Arena {
        Arena::map(range.start, (range.end - range.start) as usize, stub_len)
    }

    fn map(base: u64, len: usize, stub_len: usize) -> Arena {
        let fixed = if base == 0 {
            0
        } else {
            libc::MAP_FIXED_NOREPLACE
        };
        // SAFETY: a new mapping that replaces none touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                base as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "cannot map {len} bytes");
        Arena {
            base: base as u64,
            len,
            stub_len,
        }
    }

    /// Where code goes.
    pub fn code(&self) -> Range<u64> {
        self.base..self.base + (self.len - self.stub_len) as u64
    }

    /// Where stubs go.
    pub fn stubs(&self) -> Range<u64> {
        self.code().end..self.base + self.len as u64
    }

    /// A table for this memory.
    pub fn table(&self, kernel_entry: u64) -> PatchTable {
        // SAFETY: the memory is mapped until the arena is dropped, and tests drop it last; nothing else writes to the
        // stubs; tests patch only while no other thread runs in the arena.
        unsafe {
            PatchTable::new(
                self.stubs().start as *mut u8,
                self.stub_len,
                self.code(),
                kernel_entry,
            )
        }
        .unwrap()
    }

    /// Puts `bytes` at `address`.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        assert!(self.base <= address);
        assert!(address + bytes.len() as u64 <= self.base + self.len as u64);
        // SAFETY: inside the mapping, which belongs to this value and which no reference points to.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len());
        }
    }

    /// The bytes in `range`.
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        assert!(self.base <= range.start && range.end <= self.base + self.len as u64);
        let len = (range.end - range.start) as usize;
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(range.start as *const u8, bytes.as_mut_ptr(), len);
        }
        bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and nobody runs in it any more.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.len) };
    }
}
