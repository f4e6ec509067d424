// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Causes of traps.

use crate::Capability;

/// A trap that stopped the hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// As in `scause`.
    pub cause: u64,
    /// As in `stval`.
    pub tval: u64,
    /// The absolute address that a load, store or fetch went to, if it failed there; otherwise 0.
    pub address: u64,
    /// PCC of the instruction.
    pub pcc: Capability,
}

/// Values of `mcause` for exceptions.
pub mod cause {
    /// A fetch from an odd address.
    pub const FETCH_MISALIGNED: u64 = 0;
    /// A fetch from where nothing is.
    pub const FETCH_ACCESS: u64 = 1;
    /// An instruction that does not exist, or not in this mode; `tval` has its bits.
    pub const ILLEGAL_INSTRUCTION: u64 = 2;
    /// `ebreak`.
    pub const BREAKPOINT: u64 = 3;
    /// A load that has to be aligned and is not.
    pub const LOAD_MISALIGNED: u64 = 4;
    /// A load from where nothing is.
    pub const LOAD_ACCESS: u64 = 5;
    /// A store or atomic operation that has to be aligned and is not.
    pub const STORE_MISALIGNED: u64 = 6;
    /// A store or atomic operation where nothing is.
    pub const STORE_ACCESS: u64 = 7;
    /// `ecall` from user mode; one more from supervisor mode, three more from machine mode.
    pub const ECALL_USER: u64 = 8;
    /// A fetch from a page that must not be executed.
    pub const FETCH_PAGE: u64 = 12;
    /// A load from a page that must not be read.
    pub const LOAD_PAGE: u64 = 13;
    /// A store or atomic operation on a page that must not be written.
    pub const STORE_PAGE: u64 = 15;
    /// `cloadtags` from a page that cannot hold tags.
    pub const LOAD_CAPABILITY_PAGE: u64 = 0x1a;
    /// A tagged capability stored to a page that cannot hold tags.
    pub const STORE_CAPABILITY_PAGE: u64 = 0x1b;
    /// What CHERI does not allow; `tval` has the cause in bits 4:0 and the register in bits 10:5.
    pub const CHERI: u64 = 0x1c;
}

/// Why CHERI does not allow something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// Outside the bounds.
    Length = 1,
    /// No tag.
    Tag = 2,
    /// Sealed, or not sealed where it has to be.
    Seal = 3,
    /// Object types differ.
    Type = 4,
    /// More permissions than the authority has.
    UserDefined = 8,
    /// Bounds that cannot be represented exactly (older generation).
    InexactBounds = 0x0a,
    /// A base of code that is not aligned (older generation).
    UnalignedBase = 0x0b,
    /// No [`GLOBAL`](crate::Permissions::GLOBAL) (older generation).
    Global = 0x10,
    /// No [`EXECUTE`](crate::Permissions::EXECUTE), or where it must not be.
    Execute = 0x11,
    /// No [`LOAD`](crate::Permissions::LOAD).
    Load = 0x12,
    /// No [`STORE`](crate::Permissions::STORE).
    Store = 0x13,
    /// No [`LOAD_CAP`](crate::Permissions::LOAD_CAP).
    LoadCapability = 0x14,
    /// No [`STORE_CAP`](crate::Permissions::STORE_CAP).
    StoreCapability = 0x15,
    /// No [`STORE_LOCAL_CAP`](crate::Permissions::STORE_LOCAL_CAP).
    StoreLocalCapability = 0x16,
    /// No [`SEAL`](crate::Permissions::SEAL) (older generation).
    SealPermission = 0x17,
    /// No [`ACCESS_SYSTEM_REGISTERS`](crate::Permissions::ACCESS_SYSTEM_REGISTERS).
    AccessSystemRegisters = 0x18,
    /// No [`CINVOKE`](crate::Permissions::CINVOKE).
    CInvoke = 0x19,
    /// No [`UNSEAL`](crate::Permissions::UNSEAL) (older generation).
    UnsealPermission = 0x1b,
}

/// What [`Violation`]s call PCC.
pub const PCC: u8 = 32;
/// What they call DDC.
pub const DDC: u8 = 33;

impl Violation {
    /// `tval` for a register: 0 to 31 general, 32 + n special capability register n.
    pub const fn tval(self, register: u8) -> u64 {
        self as u64 | (register as u64) << 5
    }
}

/// A trap that has been raised and not yet taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raised {
    pub(crate) cause: u64,
    pub(crate) tval: u64,
    pub(crate) address: u64,
    /// Where the instruction is in its block.
    pub(crate) offset: u64,
    /// How many instructions of its block were executed before it.
    pub(crate) index: u64,
}
