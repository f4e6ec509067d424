// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hart to execute single instructions on, and the encodings of instructions.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, Memory, PageFlags, Privilege, Region, Trap, Traps,
};

/// Where memory is. Code is in the first page.
pub const BASE: u64 = 0x2000_0000;
pub const SIZE: u64 = 0x10_0000;
/// Data that can hold capabilities.
pub const DATA: u64 = BASE + 0x1_0000;
/// Data that cannot.
pub const PLAIN: u64 = BASE + 0x2_0000;

pub struct Machine {
    pub hart: Hart,
    pub region: Arc<Region>,
    pub memory: Arc<Memory>,
    pub isa: Isa,
}

pub fn flags(text: &str) -> PageFlags {
    text.chars().fold(PageFlags::empty(), |flags, letter| {
        flags
            | match letter {
                'r' => PageFlags::READ,
                'w' => PageFlags::WRITE,
                'x' => PageFlags::EXECUTE,
                'c' => PageFlags::CAPABILITIES,
                _ => panic!("{letter}"),
            }
    })
}

impl Machine {
    /// A hart in user mode with the root capabilities, at the begin of memory.
    pub fn new(isa: Isa) -> Machine {
        let region = Arc::new(Region::anonymous(BASE, SIZE, flags("rwxc")).unwrap());
        region.protect(PLAIN, 0x1_0000, flags("rw")).unwrap();
        let memory = Arc::new(Memory::new());
        memory.add(Arc::clone(&region)).unwrap();
        let mut machine = Machine {
            hart: Machine::hart(&memory, isa),
            region,
            memory,
            isa,
        };
        machine
            .hart
            .set_pcc(&Capability::root_code().with_address(BASE));
        machine
    }

    pub fn hart(memory: &Arc<Memory>, isa: Isa) -> Hart {
        let config = Config {
            isa,
            traps: Traps::Exit,
        };
        let mut hart = Hart::new(Arc::clone(memory), config);
        hart.set_privilege(Privilege::User);
        hart
    }

    /// Executes one instruction at the begin of memory, with the PCC that there is.
    pub fn execute(&mut self, instruction: u32) -> Result<(), Trap> {
        self.execute_at(BASE, instruction)
    }

    pub fn execute_at(&mut self, address: u64, instruction: u32) -> Result<(), Trap> {
        self.region
            .poke(address, &instruction.to_le_bytes())
            .unwrap();
        self.hart.forget_code();
        let pcc = self.hart.pcc();
        let at = pcc.with_address(address);
        assert_eq!(at.tag(), pcc.tag(), "{address:#x} is too far from PCC");
        self.hart.set_pcc(&at);
        let before = self.hart.instructions_retired();
        match self.hart.run(1) {
            Exit::Limit => {
                assert_eq!(self.hart.instructions_retired(), before + 1);
                Ok(())
            }
            Exit::Trap(trap) => {
                assert_eq!(self.hart.instructions_retired(), before);
                assert_eq!(self.hart.pcc(), at, "a trap leaves PCC where it was");
                assert_eq!(trap.pcc, at);
                Err(trap)
            }
            exit => panic!("{exit:?}"),
        }
    }

    /// The cause and value of the trap that an instruction has to raise.
    pub fn trap(&mut self, instruction: u32) -> (u64, u64) {
        let trap = self.execute(instruction).expect_err("no trap");
        (trap.cause, trap.tval)
    }
}

/// Cause and value of a CHERI exception.
pub fn violation(cause: u64, register: u64) -> (u64, u64) {
    (28, register << 5 | cause)
}

// Encodings.

pub fn r(opcode: u32, funct3: u32, funct7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

pub fn i(opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    (imm as u32 & 0xfff) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

pub fn s(opcode: u32, funct3: u32, rs1: u32, rs2: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 0x1f) << 7 | opcode
}

pub fn b(funct3: u32, rs1: u32, rs2: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    (imm >> 12 & 1) << 31
        | (imm >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | funct3 << 12
        | (imm >> 1 & 0xf) << 8
        | (imm >> 11 & 1) << 7
        | 0x63
}

pub fn jal(rd: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    (imm >> 20 & 1) << 31
        | (imm >> 1 & 0x3ff) << 21
        | (imm >> 11 & 1) << 20
        | (imm >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}

pub fn jalr(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x67, 0, rd, rs1, imm)
}

pub fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x13, 0, rd, rs1, imm)
}

pub fn auipc(rd: u32, imm: u32) -> u32 {
    imm << 12 | rd << 7 | 0x17
}

/// `cgetperm` and the others with two operands.
pub fn two(selector: u32, rd: u32, rs1: u32) -> u32 {
    r(0x5b, 0, 0x7f, rd, rs1, selector)
}

/// `csetbounds` and the others with three operands.
pub fn three(funct7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    r(0x5b, 0, funct7, rd, rs1, rs2)
}

/// Explicit loads.
pub fn load(selector: u32, rd: u32, rs1: u32) -> u32 {
    r(0x5b, 0, 0x7d, rd, rs1, selector)
}

/// Explicit stores.
pub fn store(selector: u32, rs2: u32, rs1: u32) -> u32 {
    r(0x5b, 0, 0x7c, selector, rs1, rs2)
}

pub fn cinvoke(cs1: u32, cs2: u32) -> u32 {
    r(0x5b, 0, 0x7e, 1, cs1, cs2)
}

/// Atomic operations: 2 words, 3 doublewords, 4 capabilities.
pub fn amo(code: u32, size: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    code << 27 | rs2 << 20 | rs1 << 15 | size << 12 | rd << 7 | 0x2f
}

pub const LR: u32 = 2;
pub const SC: u32 = 3;
pub const ADD: u32 = 0;
pub const SWAP: u32 = 1;

pub fn csr(funct3: u32, number: u32, rd: u32, rs1: u32) -> u32 {
    number << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x73
}

pub const CGETPERM: u32 = 0x00;
pub const CGETTYPE: u32 = 0x01;
pub const CGETBASE: u32 = 0x02;
pub const CGETLEN: u32 = 0x03;
pub const CGETTAG: u32 = 0x04;
pub const CGETSEALED: u32 = 0x05;
pub const CGETOFFSET: u32 = 0x06;
pub const CGETFLAGS: u32 = 0x07;
pub const CRRL: u32 = 0x08;
pub const CRAM: u32 = 0x09;
pub const CMOVE: u32 = 0x0a;
pub const CCLEARTAG: u32 = 0x0b;
pub const CJALR: u32 = 0x0c;
pub const CLEAR: u32 = 0x0e;
pub const CGETADDR: u32 = 0x0f;
pub const FPCLEAR: u32 = 0x10;
pub const CSEALENTRY: u32 = 0x11;
pub const CLOADTAGS: u32 = 0x12;
pub const JALR_PCC: u32 = 0x14;
pub const CGETHIGH: u32 = 0x17;
pub const CGETTOP: u32 = 0x18;

pub const CSPECIALRW: u32 = 0x01;
pub const CSETBOUNDS: u32 = 0x08;
pub const CSETBOUNDSEXACT: u32 = 0x09;
pub const CSEAL: u32 = 0x0b;
pub const CUNSEAL: u32 = 0x0c;
pub const CANDPERM: u32 = 0x0d;
pub const CSETFLAGS: u32 = 0x0e;
pub const CSETOFFSET: u32 = 0x0f;
pub const CSETADDR: u32 = 0x10;
pub const CINCOFFSET: u32 = 0x11;
pub const CTOPTR: u32 = 0x12;
pub const CFROMPTR: u32 = 0x13;
pub const CSUB: u32 = 0x14;
pub const CSETHIGH: u32 = 0x16;
pub const CBUILDCAP: u32 = 0x1d;
pub const CCOPYTYPE: u32 = 0x1e;
pub const CCSEAL: u32 = 0x1f;
pub const CTESTSUBSET: u32 = 0x20;
pub const CSEQX: u32 = 0x21;

pub fn lw(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x03, 2, rd, rs1, imm)
}

pub fn ld(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x03, 3, rd, rs1, imm)
}

pub fn sw(rs2: u32, rs1: u32, imm: i32) -> u32 {
    s(0x23, 2, rs1, rs2, imm)
}

pub fn sd(rs2: u32, rs1: u32, imm: i32) -> u32 {
    s(0x23, 3, rs1, rs2, imm)
}

/// `lc` and `sc`, whose address goes through DDC or is a capability, as the mode says.
pub fn lc(cd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x0f, 2, cd, rs1, imm)
}

pub fn sc(cs2: u32, rs1: u32, imm: i32) -> u32 {
    s(0x23, 4, rs1, cs2, imm)
}

pub fn beq(rs1: u32, rs2: u32, imm: i32) -> u32 {
    b(0, rs1, rs2, imm)
}

pub fn bne(rs1: u32, rs2: u32, imm: i32) -> u32 {
    b(1, rs1, rs2, imm)
}

pub const EBREAK: u32 = 0x0010_0073;
pub const FENCE: u32 = 0x0ff0_000f;
pub const FENCE_I: u32 = 0x0000_100f;

/// Writes a program.
pub fn write(region: &Region, address: u64, program: &[u32]) {
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    region.poke(address, &bytes).unwrap();
}
