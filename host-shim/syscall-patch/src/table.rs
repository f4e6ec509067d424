// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The patches of one cVM.

use crate::error::{PatchError, TableError};
use core::ops::Range;

/// How a system call instruction was patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchKind {
    /// One instruction before it became the jump; the instruction itself is still there.
    Preceding,
    /// It became a short jump to unused padding nearby, which holds the jump.
    Cave,
    /// It and instructions after it became the jump.
    Following,
    /// Several instructions before it, perhaps with itself and some after it, became the jump.
    Several,
}

/// Which way [`PatchTable::translate`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From where the processor is to where an unpatched program would be.
    ToProgram,
    /// From an address of the unpatched program to where to resume.
    ToPatched,
}

impl Direction {
    /// The direction with this number in the hostcall `TranslateIp`.
    pub const fn from_number(number: u64) -> Option<Direction> {
        match number {
            capstream_abi::TRANSLATE_TO_PROGRAM => Some(Direction::ToProgram),
            capstream_abi::TRANSLATE_TO_PATCHED => Some(Direction::ToPatched),
            _ => None,
        }
    }
}

/// What a table did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Patches in place, all kinds.
    pub live: u64,
    /// Bytes of the stub area in use.
    pub stub_bytes: u64,
}

/// The patches of one cVM.
#[derive(Debug)]
pub struct PatchTable {
    _entry: u64,
}

impl PatchTable {
    /// Makes an empty table which writes stubs to the `len` bytes at `stub_area`, patches instructions in `code`
    /// only, and enters the kernel at `kernel_syscall_entry`.
    ///
    /// # Safety
    ///
    /// Until the table is dropped, all of the stub area and of `code` is mapped, readable and writable, nothing of it
    /// belongs to Rust objects, and no code in `code` runs on another processor during [`PatchTable::patch`] and
    /// [`PatchTable::forget`].
    pub unsafe fn new(
        stub_area: *mut u8,
        len: usize,
        code: Range<u64>,
        kernel_syscall_entry: u64,
    ) -> Result<PatchTable, TableError> {
        let _ = (stub_area, len, code);
        Ok(PatchTable {
            _entry: kernel_syscall_entry,
        })
    }

    /// Patches the system call instruction which ends at `ip_after_syscall`, and which a program just executed.
    pub fn patch(&self, ip_after_syscall: u64) -> Result<PatchKind, PatchError> {
        Err(PatchError::NoPattern {
            ip: ip_after_syscall,
        })
    }

    /// Translates a program counter; one which no patch concerns comes back unchanged.
    pub fn translate(&self, ip: u64, direction: Direction) -> u64 {
        let _ = direction;
        ip
    }

    /// Where to resume when the processor refused the instruction at `ip`, if it is one which a patch put there.
    ///
    /// Takes no lock and allocates nothing: it can be called from a signal handler.
    pub fn on_invalid_opcode(&self, ip: u64) -> Option<u64> {
        let _ = ip;
        None
    }

    /// Forgets the patches in `begin..end`, which hold no code from now on.
    pub fn forget(&self, begin: u64, end: u64) {
        let _ = (begin, end);
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
