// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Traps as signals and as reports.

use capstream_hart::trap::cause;
use capstream_hart::{Capability, Hart, Trap};

use super::compartment::to_model;
use crate::platform::{CapabilityFault, FaultReport, REGISTERS, Registers};

/// The cause of a CHERI exception: an access outside of bounds.
const LENGTH: u64 = 1;

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const ILL_ILLOPC: i32 = 1;
const TRAP_BRKPT: i32 = 1;

/// Names of the general registers.
const NAMES: [&str; REGISTERS] = [
    "x0", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
    "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5",
    "t6",
];
/// Names of the general registers as capabilities.
const CAPABILITY_NAMES: [&str; REGISTERS] = [
    "cnull", "cra", "csp", "cgp", "ctp", "ct0", "ct1", "ct2", "cs0", "cs1", "ca0", "ca1", "ca2",
    "ca3", "ca4", "ca5", "ca6", "ca7", "cs2", "cs3", "cs4", "cs5", "cs6", "cs7", "cs8", "cs9",
    "cs10", "cs11", "ct3", "ct4", "ct5", "ct6",
];
/// Register number of PCC in the trap value of a CHERI exception.
const PCC: usize = 32;
/// Register number of DDC there.
const DDC: usize = 33;

/// The signal and its code for a trap of a program, as on a host with this processor.
pub fn signal(trap: &Trap) -> (i32, i32) {
    match trap.cause {
        cause::ILLEGAL_INSTRUCTION => (libc::SIGILL, ILL_ILLOPC),
        cause::BREAKPOINT => (libc::SIGTRAP, TRAP_BRKPT),
        cause::FETCH_MISALIGNED | cause::LOAD_MISALIGNED | cause::STORE_MISALIGNED => {
            (libc::SIGBUS, BUS_ADRALN)
        }
        cause::FETCH_ACCESS | cause::LOAD_ACCESS | cause::STORE_ACCESS => {
            (libc::SIGSEGV, SEGV_MAPERR)
        }
        cause::CHERI if trap.tval & 0x1f == LENGTH => (libc::SIGSEGV, SEGV_MAPERR),
        cause::ECALL_USER => (libc::SIGSYS, 0),
        _ => (libc::SIGSEGV, SEGV_ACCERR),
    }
}

/// The cause of a CHERI exception in words, after the ISA's list.
fn in_words(cause: u64) -> &'static str {
    match cause {
        0x01 => "length violation",
        0x02 => "tag violation",
        0x03 => "seal violation",
        0x04 => "type violation",
        0x08 => "user-defined permission violation",
        0x0a => "bounds that cannot be held exactly",
        0x0b => "unaligned base",
        0x10 => "global violation",
        0x11 => "no permission to execute",
        0x12 => "no permission to load",
        0x13 => "no permission to store",
        0x14 => "no permission to load a capability",
        0x15 => "no permission to store a capability",
        0x16 => "no permission to store a local capability",
        0x17 => "no permission to seal",
        0x18 => "no permission to access system registers",
        0x19 => "no permission to be invoked",
        0x1a => "no permission to be invoked with this data",
        0x1b => "no permission to unseal",
        0x1c => "no permission to set the compartment's identifier",
        _ => "another violation",
    }
}

/// The general registers.
pub fn registers(hart: &Hart) -> [u64; REGISTERS] {
    let mut values = [0; REGISTERS];
    for (n, value) in values.iter_mut().enumerate() {
        *value = hart.x(n);
    }
    values
}

/// What a capability did not allow, if that was it.
pub fn capability_fault(hart: &Hart, trap: &Trap) -> Option<CapabilityFault> {
    if trap.cause != cause::CHERI {
        return None;
    }
    let cause = trap.tval & 0x1f;
    let number = (trap.tval >> 5 & 0x3f) as usize;
    let (register, held): (&'static str, Capability) = match number {
        PCC => ("pcc", trap.pcc),
        DDC => ("ddc", hart.ddc()),
        _ => match CAPABILITY_NAMES.get(number) {
            Some(name) => (name, hart.capability(number)),
            None => (
                "special",
                hart.scr(number - PCC).unwrap_or(Capability::null()),
            ),
        },
    };
    Some(CapabilityFault {
        cause,
        what: in_words(cause),
        register,
        held: to_model(&held),
        code: to_model(&trap.pcc),
        data: to_model(&hart.ddc()),
    })
}

/// Everything about a trap.
pub fn report(hart: &Hart, trap: &Trap) -> FaultReport {
    let (signal, code) = signal(trap);
    let values = registers(hart);
    FaultReport {
        signal,
        code,
        pc: trap.pcc.address(),
        address: trap.address,
        sp: hart.x(2),
        registers: Registers {
            names: &NAMES,
            values,
        },
        capability: capability_fault(hart, trap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap(cause: u64, tval: u64) -> Trap {
        Trap {
            cause,
            tval,
            address: 0,
            pcc: Capability::null(),
        }
    }

    #[test]
    fn traps_are_the_signals_that_programs_know() {
        for (cause, tval, expected) in [
            (2, 0, (libc::SIGILL, 1)),
            (3, 0, (libc::SIGTRAP, 1)),
            (5, 0, (libc::SIGSEGV, 1)),
            (6, 0, (libc::SIGBUS, 1)),
            (13, 0, (libc::SIGSEGV, 2)),
            (15, 0, (libc::SIGSEGV, 2)),
            (28, 33 << 5 | 1, (libc::SIGSEGV, 1)),
            (28, 33 << 5 | 0x12, (libc::SIGSEGV, 2)),
        ] {
            assert_eq!(signal(&trap(cause, tval)), expected, "{cause} {tval:#x}");
        }
    }
}
