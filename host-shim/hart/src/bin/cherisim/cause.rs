// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What traps are called.

use std::fmt::{self, Display};

use capstream_hart::disassembly::registers::{CAPABILITY, special};

/// The bit of a cause that tells an interrupt from an exception.
const INTERRUPT: u64 = 1 << 63;
/// The cause of a CHERI exception.
const CHERI: u64 = 28;

/// A trap in words: its cause, and what its value says.
pub(crate) struct Cause {
    /// As in `mcause`.
    pub(crate) cause: u64,
    /// As in `mtval`.
    pub(crate) value: u64,
}

impl Cause {
    pub(crate) fn is_interrupt(&self) -> bool {
        self.cause & INTERRUPT != 0
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Cause { cause, value } = self;
        if cause & INTERRUPT != 0 {
            let number = cause & !INTERRUPT;
            return match interrupt(number) {
                Some(name) => write!(f, "interrupt {number} ({name})"),
                None => write!(f, "interrupt {number}"),
            };
        }
        match exception(cause) {
            Some(name) => write!(f, "exception {cause} ({name})")?,
            None => write!(f, "exception {cause}")?,
        }
        if cause == CHERI {
            let register = (value >> 5 & 0x3f) as u8;
            f.write_str(", ")?;
            match violation(value & 0x1f) {
                Some(name) => f.write_str(name)?,
                None => write!(f, "cause {:#x}", value & 0x1f)?,
            }
            f.write_str(" of ")?;
            if let Some(name) = CAPABILITY.get(usize::from(register)) {
                f.write_str(name)?;
            } else if let Some(name) = special(register - 32) {
                f.write_str(name)?;
            } else {
                write!(f, "register {register}")?;
            }
        }
        write!(f, ", value {value:#x}")
    }
}

fn interrupt(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "supervisor software",
        3 => "machine software",
        5 => "supervisor timer",
        7 => "machine timer",
        9 => "supervisor external",
        11 => "machine external",
        _ => return None,
    })
}

fn exception(cause: u64) -> Option<&'static str> {
    Some(match cause {
        0 => "instruction address misaligned",
        1 => "instruction access fault",
        2 => "illegal instruction",
        3 => "breakpoint",
        4 => "load address misaligned",
        5 => "load access fault",
        6 => "store address misaligned",
        7 => "store access fault",
        8 => "ecall from user mode",
        9 => "ecall from supervisor mode",
        11 => "ecall from machine mode",
        12 => "instruction page fault",
        13 => "load page fault",
        15 => "store page fault",
        26 => "load capability page fault",
        27 => "store capability page fault",
        CHERI => "CHERI",
        _ => return None,
    })
}

fn violation(cause: u64) -> Option<&'static str> {
    Some(match cause {
        0x01 => "length violation",
        0x02 => "tag violation",
        0x03 => "seal violation",
        0x04 => "type violation",
        0x08 => "user-defined permission violation",
        0x0a => "inexact bounds",
        0x0b => "unaligned base",
        0x10 => "global violation",
        0x11 => "permit-execute violation",
        0x12 => "permit-load violation",
        0x13 => "permit-store violation",
        0x14 => "permit-load-capability violation",
        0x15 => "permit-store-capability violation",
        0x16 => "permit-store-local-capability violation",
        0x17 => "permit-seal violation",
        0x18 => "access-system-registers violation",
        0x19 => "permit-cinvoke violation",
        0x1a => "cinvoke of unsuitable capabilities",
        0x1b => "permit-unseal violation",
        0x1c => "permit-set-CID violation",
        _ => return None,
    })
}
