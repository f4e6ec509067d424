// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong.

/// Why a patch table cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The stub area is empty, too small, or wraps around.
    #[error(
        "stub area of {len:#x} bytes at {begin:#x} cannot be used: it needs at least {least:#x} bytes and must not wrap around"
    )]
    StubArea {
        /// First address.
        begin: u64,
        /// Bytes.
        len: u64,
        /// Bytes that are needed.
        least: u64,
    },
    /// The code range is reversed or overlaps the stub area.
    #[error(
        "code range {begin:#x}..{end:#x} is reversed or overlaps the stub area; give the memory that holds programs"
    )]
    CodeRange {
        /// First address.
        begin: u64,
        /// Byte after it.
        end: u64,
    },
}

/// Why a system call instruction stays as it is; the program goes on by traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The address is not in the code range.
    #[error("{ip:#x} is outside the memory where programs can be patched")]
    OutOfRange {
        /// The address after the instruction.
        ip: u64,
    },
    /// There is no `syscall` instruction before the address.
    #[error(
        "no system call instruction ends at {ip:#x}; the code has changed or the kernel passed a wrong address"
    )]
    NotSyscall {
        /// The address after the instruction.
        ip: u64,
    },
    /// No pattern applies to the surrounding instructions.
    #[error(
        "no pattern fits the instructions around the system call that ends at {ip:#x}; it keeps trapping"
    )]
    NoPattern {
        /// The address after the instruction.
        ip: u64,
    },
    /// A page that the patch concerns is not there at the moment.
    #[error(
        "memory around the system call that ends at {ip:#x} cannot be accessed now; it may be patched later"
    )]
    Absent {
        /// The address after the instruction.
        ip: u64,
    },
    /// The stub area has no suitable room.
    #[error("no room in the stub area for the system call that ends at {ip:#x}; it keeps trapping")]
    AreaFull {
        /// The address after the instruction.
        ip: u64,
    },
    /// It is the signal return of a C library, whose bytes unwinders look for.
    #[error(
        "the system call that ends at {ip:#x} returns from signal handlers; unwinders know it by its bytes, so it keeps trapping"
    )]
    SignalReturn {
        /// The address after the instruction.
        ip: u64,
    },
}
