// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What registers are called.

/// Integer registers, by number.
pub const INTEGER: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];

/// Capability registers, by number.
pub const CAPABILITY: [&str; 32] = [
    "cnull", "cra", "csp", "cgp", "ctp", "ct0", "ct1", "ct2", "cs0", "cs1", "ca0", "ca1", "ca2",
    "ca3", "ca4", "ca5", "ca6", "ca7", "cs2", "cs3", "cs4", "cs5", "cs6", "cs7", "cs8", "cs9",
    "cs10", "cs11", "ct3", "ct4", "ct5", "ct6",
];

/// Floating-point registers, by number.
pub const FLOAT: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2",
    "fa3", "fa4", "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9",
    "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

/// Special capability registers and their numbers.
pub const SPECIAL: [(u8, &str); 10] = [
    (0, "pcc"),
    (1, "ddc"),
    (12, "stcc"),
    (13, "stdc"),
    (14, "sscratchc"),
    (15, "sepcc"),
    (28, "mtcc"),
    (29, "mtdc"),
    (30, "mscratchc"),
    (31, "mepcc"),
];

/// The name of a special capability register.
pub fn special(number: u8) -> Option<&'static str> {
    SPECIAL
        .iter()
        .find(|(of, _)| *of == number)
        .map(|(_, name)| *name)
}

/// CSRs and their numbers.
pub const CSRS: [(u16, &str); 37] = [
    (0x001, "fflags"),
    (0x002, "frm"),
    (0x003, "fcsr"),
    (0x100, "sstatus"),
    (0x104, "sie"),
    (0x105, "stvec"),
    (0x106, "scounteren"),
    (0x140, "sscratch"),
    (0x141, "sepc"),
    (0x142, "scause"),
    (0x143, "stval"),
    (0x144, "sip"),
    (0x180, "satp"),
    (0x300, "mstatus"),
    (0x301, "misa"),
    (0x302, "medeleg"),
    (0x303, "mideleg"),
    (0x304, "mie"),
    (0x305, "mtvec"),
    (0x306, "mcounteren"),
    (0x340, "mscratch"),
    (0x341, "mepc"),
    (0x342, "mcause"),
    (0x343, "mtval"),
    (0x344, "mip"),
    (0x3a0, "pmpcfg0"),
    (0x3b0, "pmpaddr0"),
    (0x8c0, "uccsr"),
    (0x9c0, "sccsr"),
    (0xb00, "mcycle"),
    (0xb02, "minstret"),
    (0xbc0, "mccsr"),
    (0xc00, "cycle"),
    (0xc01, "time"),
    (0xc02, "instret"),
    (0xf11, "mvendorid"),
    (0xf14, "mhartid"),
];

/// The name of a CSR.
pub fn csr(number: u16) -> Option<&'static str> {
    CSRS.iter()
        .find(|(of, _)| *of == number)
        .map(|(_, name)| *name)
}
