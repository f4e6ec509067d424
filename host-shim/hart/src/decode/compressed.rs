// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The C extension: each compressed instruction as the instruction of 32 bits that it stands for.

const fn bits(raw: u32, high: u32, low: u32) -> u32 {
    raw >> low & ((1 << (high - low + 1)) - 1)
}

const fn sign_extend(value: u32, width: u32) -> u32 {
    ((value << (32 - width)) as i32 >> (32 - width)) as u32
}

/// Instruction formats, by their fields.
const fn i(opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: u32) -> u32 {
    imm << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const fn s(opcode: u32, funct3: u32, rs1: u32, rs2: u32, imm: u32) -> u32 {
    bits(imm, 11, 5) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | bits(imm, 4, 0) << 7 | opcode
}

const fn r(opcode: u32, funct3: u32, funct7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const fn b(funct3: u32, rs1: u32, imm: u32) -> u32 {
    bits(imm, 12, 12) << 31
        | bits(imm, 10, 5) << 25
        | rs1 << 15
        | funct3 << 12
        | bits(imm, 4, 1) << 8
        | bits(imm, 11, 11) << 7
        | 0x63
}

const fn jal(rd: u32, imm: u32) -> u32 {
    bits(imm, 20, 20) << 31
        | bits(imm, 10, 1) << 21
        | bits(imm, 11, 11) << 20
        | bits(imm, 19, 12) << 12
        | rd << 7
        | 0x6f
}

const LOAD: u32 = 0x03;
const LOAD_FP: u32 = 0x07;
/// `lc` shares it with the fences.
const LOAD_CAPABILITY: u32 = 0x0f;
const OP_IMM: u32 = 0x13;
const OP_IMM_32: u32 = 0x1b;
const STORE: u32 = 0x23;
const STORE_FP: u32 = 0x27;
const OP: u32 = 0x33;
const LUI: u32 = 0x37;
const OP_32: u32 = 0x3b;
const CHERI: u32 = 0x5b;
const JALR: u32 = 0x67;
const EBREAK: u32 = 0x0010_0073;
const SP: u32 = 2;

/// The instruction that a compressed one stands for; none if it is illegal.
pub(super) fn expand(raw: u16, capability_mode: bool) -> Option<u32> {
    let raw = u32::from(raw);
    // The registers x8 to x15 of the short fields.
    let short_rd = 8 + bits(raw, 4, 2);
    let short_rs1 = 8 + bits(raw, 9, 7);
    let rd = bits(raw, 11, 7);
    let rs2 = bits(raw, 6, 2);
    let imm6 = sign_extend(bits(raw, 12, 12) << 5 | bits(raw, 6, 2), 6);
    let word = bits(raw, 5, 5) << 6 | bits(raw, 12, 10) << 3 | bits(raw, 6, 6) << 2;
    let double = bits(raw, 6, 5) << 6 | bits(raw, 12, 10) << 3;
    let granule = bits(raw, 10, 10) << 8 | bits(raw, 6, 5) << 6 | bits(raw, 12, 11) << 4;
    Some(match (raw & 3, bits(raw, 15, 13)) {
        (0, 0) => {
            let imm = bits(raw, 10, 7) << 6
                | bits(raw, 12, 11) << 4
                | bits(raw, 5, 5) << 3
                | bits(raw, 6, 6) << 2;
            if imm == 0 {
                return None;
            }
            if capability_mode {
                i(CHERI, 1, short_rd, SP, imm)
            } else {
                i(OP_IMM, 0, short_rd, SP, imm)
            }
        }
        (0, 1) if capability_mode => i(LOAD_CAPABILITY, 2, short_rd, short_rs1, granule),
        (0, 1) => i(LOAD_FP, 3, short_rd, short_rs1, double),
        (0, 2) => i(LOAD, 2, short_rd, short_rs1, word),
        (0, 3) => i(LOAD, 3, short_rd, short_rs1, double),
        (0, 5) if capability_mode => s(STORE, 4, short_rs1, short_rd, granule),
        (0, 5) => s(STORE_FP, 3, short_rs1, short_rd, double),
        (0, 6) => s(STORE, 2, short_rs1, short_rd, word),
        (0, 7) => s(STORE, 3, short_rs1, short_rd, double),
        (1, 0) => i(OP_IMM, 0, rd, rd, imm6 & 0xfff),
        (1, 1) if rd != 0 => i(OP_IMM_32, 0, rd, rd, imm6 & 0xfff),
        (1, 2) => i(OP_IMM, 0, rd, 0, imm6 & 0xfff),
        (1, 3) if rd == SP => {
            let imm = bits(raw, 12, 12) << 9
                | bits(raw, 4, 3) << 7
                | bits(raw, 5, 5) << 6
                | bits(raw, 2, 2) << 5
                | bits(raw, 6, 6) << 4;
            if imm == 0 {
                return None;
            }
            let imm = sign_extend(imm, 10) & 0xfff;
            if capability_mode {
                i(CHERI, 1, SP, SP, imm)
            } else {
                i(OP_IMM, 0, SP, SP, imm)
            }
        }
        (1, 3) if imm6 != 0 => (imm6 << 12) | rd << 7 | LUI,
        (1, 4) => match (bits(raw, 11, 10), bits(raw, 12, 12), bits(raw, 6, 5)) {
            (0, high, _) => i(OP_IMM, 5, short_rs1, short_rs1, high << 5 | rs2),
            (1, high, _) => i(OP_IMM, 5, short_rs1, short_rs1, 0x400 | high << 5 | rs2),
            (2, _, _) => i(OP_IMM, 7, short_rs1, short_rs1, imm6 & 0xfff),
            (_, 0, 0) => r(OP, 0, 0x20, short_rs1, short_rs1, short_rd),
            (_, 0, 1) => r(OP, 4, 0, short_rs1, short_rs1, short_rd),
            (_, 0, 2) => r(OP, 6, 0, short_rs1, short_rs1, short_rd),
            (_, 0, _) => r(OP, 7, 0, short_rs1, short_rs1, short_rd),
            (_, _, 0) => r(OP_32, 0, 0x20, short_rs1, short_rs1, short_rd),
            (_, _, 1) => r(OP_32, 0, 0, short_rs1, short_rs1, short_rd),
            _ => return None,
        },
        (1, 5) => {
            let imm = bits(raw, 12, 12) << 11
                | bits(raw, 8, 8) << 10
                | bits(raw, 10, 9) << 8
                | bits(raw, 6, 6) << 7
                | bits(raw, 7, 7) << 6
                | bits(raw, 2, 2) << 5
                | bits(raw, 11, 11) << 4
                | bits(raw, 5, 3) << 1;
            jal(0, sign_extend(imm, 12))
        }
        (1, funct3 @ (6 | 7)) => {
            let imm = bits(raw, 12, 12) << 8
                | bits(raw, 6, 5) << 6
                | bits(raw, 2, 2) << 5
                | bits(raw, 11, 10) << 3
                | bits(raw, 4, 3) << 1;
            b(funct3 - 6, short_rs1, sign_extend(imm, 9))
        }
        (2, 0) => i(OP_IMM, 1, rd, rd, bits(raw, 12, 12) << 5 | rs2),
        (2, 1) if capability_mode => {
            if rd == 0 {
                return None;
            }
            let imm = bits(raw, 5, 2) << 6 | bits(raw, 12, 12) << 5 | bits(raw, 6, 6) << 4;
            i(LOAD_CAPABILITY, 2, rd, SP, imm)
        }
        (2, 1) => {
            let imm = bits(raw, 4, 2) << 6 | bits(raw, 12, 12) << 5 | bits(raw, 6, 5) << 3;
            i(LOAD_FP, 3, rd, SP, imm)
        }
        (2, 2) if rd != 0 => {
            let imm = bits(raw, 3, 2) << 6 | bits(raw, 12, 12) << 5 | bits(raw, 6, 4) << 2;
            i(LOAD, 2, rd, SP, imm)
        }
        (2, 3) if rd != 0 => {
            let imm = bits(raw, 4, 2) << 6 | bits(raw, 12, 12) << 5 | bits(raw, 6, 5) << 3;
            i(LOAD, 3, rd, SP, imm)
        }
        (2, 4) => match (bits(raw, 12, 12), rd, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => i(JALR, 0, 0, rd, 0),
            (0, _, _) => r(OP, 0, 0, rd, 0, rs2),
            (_, 0, 0) => EBREAK,
            (_, _, 0) => i(JALR, 0, 1, rd, 0),
            _ => r(OP, 0, 0, rd, rd, rs2),
        },
        (2, 5) if capability_mode => {
            let imm = bits(raw, 10, 7) << 6 | bits(raw, 12, 11) << 4;
            s(STORE, 4, SP, rs2, imm)
        }
        (2, 5) => {
            let imm = bits(raw, 9, 7) << 6 | bits(raw, 12, 10) << 3;
            s(STORE_FP, 3, SP, rs2, imm)
        }
        (2, 6) => {
            let imm = bits(raw, 8, 7) << 6 | bits(raw, 12, 9) << 2;
            s(STORE, 2, SP, rs2, imm)
        }
        (2, 7) => {
            let imm = bits(raw, 9, 7) << 6 | bits(raw, 12, 10) << 3;
            s(STORE, 3, SP, rs2, imm)
        }
        _ => return None,
    })
}
