// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From an instruction's bits to the function that executes it.

mod compressed;

use crate::execution::{access, atomic, capability, float, integer, jump, system};
use crate::float::{Double, Single};
use crate::instruction::{Op, Run, SINK};

/// The fields of an instruction of 32 bits.
#[derive(Clone, Copy)]
struct Fields(u32);

impl Fields {
    const fn bits(self, high: u32, low: u32) -> u32 {
        self.0 >> low & ((1 << (high - low + 1)) - 1)
    }
    const fn opcode(self) -> u32 {
        self.bits(6, 0)
    }
    const fn rd(self) -> u8 {
        self.bits(11, 7) as u8
    }
    const fn funct3(self) -> u32 {
        self.bits(14, 12)
    }
    const fn rs1(self) -> u8 {
        self.bits(19, 15) as u8
    }
    const fn rs2(self) -> u8 {
        self.bits(24, 20) as u8
    }
    const fn rs3(self) -> u8 {
        self.bits(31, 27) as u8
    }
    const fn funct7(self) -> u32 {
        self.bits(31, 25)
    }
    const fn imm_i(self) -> i32 {
        self.0 as i32 >> 20
    }
    const fn imm_s(self) -> i32 {
        (self.0 as i32 >> 25) << 5 | self.bits(11, 7) as i32
    }
    const fn imm_b(self) -> i32 {
        (self.0 as i32 >> 31) << 12
            | (self.bits(7, 7) << 11 | self.bits(30, 25) << 5 | self.bits(11, 8) << 1) as i32
    }
    const fn imm_u(self) -> i32 {
        (self.0 & 0xffff_f000) as i32
    }
    const fn imm_j(self) -> i32 {
        (self.0 as i32 >> 31) << 20
            | (self.bits(19, 12) << 12 | self.bits(20, 20) << 11 | self.bits(30, 21) << 1) as i32
    }
}

/// What a decoder finds out.
struct Found {
    run: Run,
    imm: i32,
    rd: u8,
    rs1: u8,
    rs2: u8,
}

/// Whether nothing can follow an instruction in its block.
pub(crate) fn ends_block(op: &Op) -> bool {
    // Comparing functions would do, but two functions may have the same address.
    op.rs3 == ENDS
}

/// The value of `rs3` in an instruction that does not use it and always leaves its block.
const ENDS: u8 = 0xff;

/// Decodes the instruction that begins with `raw`: its low 16 bits alone if these say so.
pub(crate) fn decode(raw: u32, capability_mode: bool) -> Op {
    let (expanded, raw, size) = if raw & 3 == 3 {
        (Some(raw), raw, 4)
    } else {
        let short = raw as u16;
        (
            compressed::expand(short, capability_mode),
            u32::from(short),
            2,
        )
    };
    let fields = Fields(expanded.unwrap_or(0));
    let mut ends = false;
    let mut fused = false;
    let found = expanded.and_then(|_| {
        let opcode = fields.opcode();
        fused = matches!(opcode, 0x43 | 0x47 | 0x4b | 0x4f);
        find(fields, capability_mode, &mut ends)
    });
    let mut op = Op {
        run: system::illegal,
        imm: 0,
        extra: raw,
        rd: SINK,
        rs1: fields.rs1(),
        rs2: fields.rs2(),
        rs3: 0,
        offset: 0,
        index: 0,
        size,
    };
    match found {
        Some(found) => {
            op.run = found.run;
            op.imm = found.imm;
            op.rd = found.rd;
            op.rs1 = found.rs1;
            op.rs2 = found.rs2;
            if fused {
                op.rs3 = fields.rs3();
            } else if ends {
                op.rs3 = ENDS;
            }
        }
        None => op.rs3 = ENDS,
    }
    op
}

fn find(f: Fields, capability_mode: bool, ends: &mut bool) -> Option<Found> {
    // Writes to x0 go elsewhere; floating-point registers have no such one.
    let rd = if f.rd() == 0 { SINK } else { f.rd() };
    let found = |run: Run| {
        Some(Found {
            run,
            imm: 0,
            rd,
            rs1: f.rs1(),
            rs2: f.rs2(),
        })
    };
    let with_imm = |run: Run, imm: i32| {
        Some(Found {
            run,
            imm,
            rd,
            rs1: f.rs1(),
            rs2: f.rs2(),
        })
    };
    match f.opcode() {
        0x03 => with_imm(load(f.funct3(), capability_mode)?, f.imm_i()),
        0x07 => {
            let run: Run = match (f.funct3(), capability_mode) {
                (2, false) => access::load_single::<false>,
                (2, true) => access::load_single::<true>,
                (3, false) => access::load_double::<false>,
                (3, true) => access::load_double::<true>,
                _ => return None,
            };
            Some(Found {
                rd: f.rd(),
                ..with_imm(run, f.imm_i())?
            })
        }
        0x0f => match f.funct3() {
            0 => {
                // Only a store before and a load after need the host's help.
                let store_load = f.bits(27, 20) & 0b0101_1010;
                let heavy = store_load & 0b0101_0000 != 0 && store_load & 0b1010 != 0;
                found(if heavy {
                    system::fence
                } else {
                    system::light_fence
                })
            }
            1 => {
                *ends = true;
                found(system::fence_i)
            }
            2 => with_imm(
                if capability_mode {
                    access::load_capability::<true>
                } else {
                    access::load_capability::<false>
                },
                f.imm_i(),
            ),
            _ => None,
        },
        0x13 => {
            let shift = f.bits(25, 20) as i32;
            let (run, imm): (Run, i32) = match (f.funct3(), f.bits(31, 26)) {
                (0, _) if f.rs1() == 0 => (integer::li, f.imm_i()),
                (0, _) if f.imm_i() == 0 => (integer::mv, 0),
                (0, _) => (integer::addi, f.imm_i()),
                (1, 0) => (integer::slli, shift),
                (2, _) => (integer::slti, f.imm_i()),
                (3, _) => (integer::sltiu, f.imm_i()),
                (4, _) => (integer::xori, f.imm_i()),
                (5, 0) => (integer::srli, shift),
                (5, 0x10) => (integer::srai, shift),
                (6, _) => (integer::ori, f.imm_i()),
                (7, _) => (integer::andi, f.imm_i()),
                _ => return None,
            };
            with_imm(if rd == SINK { integer::nop } else { run }, imm)
        }
        0x17 if capability_mode => with_imm(capability::auipcc, f.imm_u()),
        0x17 => with_imm(integer::auipc, f.imm_u()),
        0x1b => {
            let shift = f.rs2().into();
            let (run, imm): (Run, i32) = match (f.funct3(), f.funct7()) {
                (0, _) => (integer::addiw, f.imm_i()),
                (1, 0) => (integer::slliw, shift),
                (5, 0) => (integer::srliw, shift),
                (5, 0x20) => (integer::sraiw, shift),
                _ => return None,
            };
            with_imm(if rd == SINK { integer::nop } else { run }, imm)
        }
        0x23 => {
            let run: Run = match (f.funct3(), capability_mode) {
                (0, false) => access::store::<u8>,
                (1, false) => access::store::<u16>,
                (2, false) => access::store::<u32>,
                (3, false) => access::store::<u64>,
                (4, false) => access::store_capability::<false>,
                (0, true) => access::store_through::<u8>,
                (1, true) => access::store_through::<u16>,
                (2, true) => access::store_through::<u32>,
                (3, true) => access::store_through::<u64>,
                (4, true) => access::store_capability::<true>,
                _ => return None,
            };
            with_imm(run, f.imm_s())
        }
        0x27 => {
            let run: Run = match (f.funct3(), capability_mode) {
                (2, false) => access::store_single::<false>,
                (2, true) => access::store_single::<true>,
                (3, false) => access::store_double::<false>,
                (3, true) => access::store_double::<true>,
                _ => return None,
            };
            with_imm(run, f.imm_s())
        }
        0x2f => found(atomics(f, capability_mode)?),
        0x33 | 0x3b => {
            let run = computation(f)?;
            found(if rd == SINK { integer::nop } else { run })
        }
        0x37 => with_imm(
            if rd == SINK { integer::nop } else { integer::li },
            f.imm_u(),
        ),
        0x43 | 0x47 | 0x4b | 0x4f | 0x53 => floating(f, rd),
        0x5b => cheri(f, rd, ends),
        0x63 => {
            let run: Run = match f.funct3() {
                0 if f.rs2() == 0 => jump::beqz,
                1 if f.rs2() == 0 => jump::bnez,
                0 => jump::beq,
                1 => jump::bne,
                4 => jump::blt,
                5 => jump::bge,
                6 => jump::bltu,
                7 => jump::bgeu,
                _ => return None,
            };
            with_imm(run, f.imm_b())
        }
        0x67 if f.funct3() == 0 => {
            *ends = true;
            let run: Run = if capability_mode { jump::cjalr } else { jump::jalr };
            with_imm(run, f.imm_i())
        }
        0x6f => {
            *ends = true;
            let run: Run = match (rd, capability_mode) {
                (SINK, _) => jump::j,
                (_, false) => jump::jal,
                (_, true) => jump::cjal,
            };
            with_imm(run, f.imm_j())
        }
        0x73 => found(system_instruction(f, ends)?),
        _ => None,
    }
}

fn load(funct3: u32, through: bool) -> Option<Run> {
    Some(match (funct3, through) {
        (0, false) => access::load::<u8>,
        (1, false) => access::load::<u16>,
        (2, false) => access::load::<u32>,
        (3, false) => access::load::<u64>,
        (4, false) => access::load_unsigned::<u8>,
        (5, false) => access::load_unsigned::<u16>,
        (6, false) => access::load_unsigned::<u32>,
        (0, true) => access::load_through::<u8>,
        (1, true) => access::load_through::<u16>,
        (2, true) => access::load_through::<u32>,
        (3, true) => access::load_through::<u64>,
        (4, true) => access::load_unsigned_through::<u8>,
        (5, true) => access::load_unsigned_through::<u16>,
        (6, true) => access::load_unsigned_through::<u32>,
        _ => return None,
    })
}

fn load_reserved(size: u32, through: bool) -> Option<Run> {
    Some(match (size, through) {
        (0, false) => atomic::load_reserved::<u8, false>,
        (1, false) => atomic::load_reserved::<u16, false>,
        (2, false) => atomic::load_reserved::<u32, false>,
        (3, false) => atomic::load_reserved::<u64, false>,
        (4, false) => atomic::load_reserved_capability::<false>,
        (0, true) => atomic::load_reserved::<u8, true>,
        (1, true) => atomic::load_reserved::<u16, true>,
        (2, true) => atomic::load_reserved::<u32, true>,
        (3, true) => atomic::load_reserved::<u64, true>,
        (4, true) => atomic::load_reserved_capability::<true>,
        _ => return None,
    })
}

fn store_conditional(size: u32, through: bool) -> Option<Run> {
    Some(match (size, through) {
        (0, false) => atomic::store_conditional::<u8, false>,
        (1, false) => atomic::store_conditional::<u16, false>,
        (2, false) => atomic::store_conditional::<u32, false>,
        (3, false) => atomic::store_conditional::<u64, false>,
        (4, false) => atomic::store_conditional_capability::<false>,
        (0, true) => atomic::store_conditional::<u8, true>,
        (1, true) => atomic::store_conditional::<u16, true>,
        (2, true) => atomic::store_conditional::<u32, true>,
        (3, true) => atomic::store_conditional::<u64, true>,
        (4, true) => atomic::store_conditional_capability::<true>,
        _ => return None,
    })
}

fn atomics(f: Fields, through: bool) -> Option<Run> {
    match f.rs3() {
        0b00010 if f.rs2() == 0 => load_reserved(f.funct3(), through),
        0b00011 => store_conditional(f.funct3(), through),
        code => {
            atomic::operation(code.into())?;
            Some(match (f.funct3(), through) {
                (2, false) => atomic::amo::<u32, false>,
                (2, true) => atomic::amo::<u32, true>,
                (3, false) => atomic::amo::<u64, false>,
                (3, true) => atomic::amo::<u64, true>,
                (4, false) if code == 1 => atomic::amoswap_capability::<false>,
                (4, true) if code == 1 => atomic::amoswap_capability::<true>,
                _ => return None,
            })
        }
    }
}

fn computation(f: Fields) -> Option<Run> {
    Some(match (f.opcode(), f.funct7(), f.funct3()) {
        (0x33, 0, 0) => integer::add,
        (0x33, 0, 1) => integer::sll,
        (0x33, 0, 2) => integer::slt,
        (0x33, 0, 3) => integer::sltu,
        (0x33, 0, 4) => integer::xor,
        (0x33, 0, 5) => integer::srl,
        (0x33, 0, 6) => integer::or,
        (0x33, 0, 7) => integer::and,
        (0x33, 0x20, 0) => integer::sub,
        (0x33, 0x20, 5) => integer::sra,
        (0x33, 1, 0) => integer::mul,
        (0x33, 1, 1) => integer::mulh,
        (0x33, 1, 2) => integer::mulhsu,
        (0x33, 1, 3) => integer::mulhu,
        (0x33, 1, 4) => integer::div,
        (0x33, 1, 5) => integer::divu,
        (0x33, 1, 6) => integer::rem,
        (0x33, 1, 7) => integer::remu,
        (0x3b, 0, 0) => integer::addw,
        (0x3b, 0, 1) => integer::sllw,
        (0x3b, 0, 5) => integer::srlw,
        (0x3b, 0x20, 0) => integer::subw,
        (0x3b, 0x20, 5) => integer::sraw,
        (0x3b, 1, 0) => integer::mulw,
        (0x3b, 1, 4) => integer::divw,
        (0x3b, 1, 5) => integer::divuw,
        (0x3b, 1, 6) => integer::remw,
        (0x3b, 1, 7) => integer::remuw,
        _ => return None,
    })
}

fn system_instruction(f: Fields, ends: &mut bool) -> Option<Run> {
    Some(match f.funct3() {
        0 => {
            if f.funct7() == 0x09 && f.rd() == 0 {
                return Some(system::sfence_vma);
            }
            *ends = true;
            match f.0 {
                0x0000_0073 => system::ecall,
                0x0010_0073 => system::ebreak,
                0x1020_0073 => system::sret,
                0x3020_0073 => system::mret,
                0x1050_0073 => system::wfi,
                _ => return None,
            }
        }
        1 => system::csrrw,
        2 => system::csrrs,
        3 => system::csrrc,
        5 => system::csrrwi,
        6 => system::csrrsi,
        7 => system::csrrci,
        _ => return None,
    })
}

/// `rd` is the destination if it is an integer register.
fn floating(f: Fields, rd: u8) -> Option<Found> {
    macro_rules! formats {
        ($($function:ident)::+) => {
            match f.bits(26, 25) {
                0 => $($function)::+::<Single> as Run,
                1 => $($function)::+::<Double> as Run,
                _ => return None,
            }
        };
    }
    let mut to_integer = false;
    let run: Run = match f.opcode() {
        0x43 => formats!(float::fmadd),
        0x47 => formats!(float::fmsub),
        0x4b => formats!(float::fnmsub),
        0x4f => formats!(float::fnmadd),
        _ => match (f.rs3(), f.funct3(), f.rs2()) {
            (0x00, _, _) => formats!(float::add),
            (0x01, _, _) => formats!(float::sub),
            (0x02, _, _) => formats!(float::mul),
            (0x03, _, _) => formats!(float::div),
            (0x0b, _, 0) => formats!(float::sqrt),
            (0x04, 0, _) => formats!(float::sgnj),
            (0x04, 1, _) => formats!(float::sgnjn),
            (0x04, 2, _) => formats!(float::sgnjx),
            (0x05, 0, _) => formats!(float::min),
            (0x05, 1, _) => formats!(float::max),
            (0x08, _, 1) if f.bits(26, 25) == 0 => float::narrow,
            (0x08, _, 0) if f.bits(26, 25) == 1 => float::widen,
            (0x14, 0, _) => {
                to_integer = true;
                formats!(float::fle)
            }
            (0x14, 1, _) => {
                to_integer = true;
                formats!(float::flt)
            }
            (0x14, 2, _) => {
                to_integer = true;
                formats!(float::feq)
            }
            (0x18, _, 0) => {
                to_integer = true;
                formats!(float::to_i32)
            }
            (0x18, _, 1) => {
                to_integer = true;
                formats!(float::to_u32)
            }
            (0x18, _, 2) => {
                to_integer = true;
                formats!(float::to_i64)
            }
            (0x18, _, 3) => {
                to_integer = true;
                formats!(float::to_u64)
            }
            (0x1a, _, 0) => formats!(float::from_i32),
            (0x1a, _, 1) => formats!(float::from_u32),
            (0x1a, _, 2) => formats!(float::from_i64),
            (0x1a, _, 3) => formats!(float::from_u64),
            (0x1c, 0, 0) => {
                to_integer = true;
                match f.bits(26, 25) {
                    0 => float::move_to_word,
                    1 => float::move_to_double,
                    _ => return None,
                }
            }
            (0x1c, 1, 0) => {
                to_integer = true;
                formats!(float::classify)
            }
            (0x1e, 0, 0) => match f.bits(26, 25) {
                0 => float::move_from_word,
                1 => float::move_from_double,
                _ => return None,
            },
            _ => return None,
        },
    };
    Some(Found {
        run,
        imm: 0,
        rd: if to_integer { rd } else { f.rd() },
        rs1: f.rs1(),
        rs2: f.rs2(),
    })
}

fn cheri(f: Fields, rd: u8, ends: &mut bool) -> Option<Found> {
    let (rs1, rs2) = (f.rs1(), f.rs2());
    let mut found = Found {
        run: system::illegal,
        imm: 0,
        rd,
        rs1,
        rs2,
    };
    found.run = match (f.funct3(), f.funct7()) {
        (1, _) => {
            found.imm = f.imm_i();
            capability::cincoffsetimm
        }
        (2, _) => {
            found.imm = f.bits(31, 20) as i32;
            capability::csetboundsimm
        }
        (0, 0x01) => capability::cspecialrw,
        (0, 0x08) => capability::csetbounds,
        (0, 0x09) => capability::csetboundsexact,
        (0, 0x0b) => capability::cseal,
        (0, 0x0c) => capability::cunseal,
        (0, 0x0d) => capability::candperm,
        (0, 0x0e) => capability::csetflags,
        (0, 0x0f) => capability::csetoffset,
        (0, 0x10) => capability::csetaddr,
        (0, 0x11) => capability::cincoffset,
        (0, 0x12) => capability::ctoptr,
        (0, 0x13) => capability::cfromptr,
        (0, 0x14) => capability::csub,
        (0, 0x16) => capability::csethigh,
        (0, 0x1d) => capability::cbuildcap,
        (0, 0x1e) => capability::ccopytype,
        (0, 0x1f) => capability::ccseal,
        (0, 0x20) => capability::ctestsubset,
        (0, 0x21) => capability::cseqx,
        (0, 0x7c) => {
            // Stores. A store-conditional's result goes where its value came from.
            let selector = f.bits(11, 7);
            let through = selector & 8 != 0;
            if selector & 0x10 != 0 {
                found.rd = if rs2 == 0 { SINK } else { rs2 };
                store_conditional(selector & 7, through)?
            } else {
                match (selector & 7, through) {
                    (0, false) => access::store::<u8>,
                    (1, false) => access::store::<u16>,
                    (2, false) => access::store::<u32>,
                    (3, false) => access::store::<u64>,
                    (4, false) => access::store_capability::<false>,
                    (0, true) => access::store_through::<u8>,
                    (1, true) => access::store_through::<u16>,
                    (2, true) => access::store_through::<u32>,
                    (3, true) => access::store_through::<u64>,
                    (4, true) => access::store_capability::<true>,
                    _ => return None,
                }
            }
        }
        (0, 0x7d) => {
            let through = rs2 & 8 != 0;
            match rs2 {
                0x17 => access::load_capability::<false>,
                0x1f => access::load_capability::<true>,
                0x00..=0x0f => load((rs2 & 7).into(), through)?,
                _ => load_reserved((rs2 & 7).into(), through)?,
            }
        }
        (0, 0x7e) if f.rd() == 1 => {
            *ends = true;
            jump::cinvoke
        }
        (0, 0x7f) => match rs2 {
            0x00 => capability::cgetperm,
            0x01 => capability::cgettype,
            0x02 => capability::cgetbase,
            0x03 => capability::cgetlen,
            0x04 => capability::cgettag,
            0x05 => capability::cgetsealed,
            0x06 => capability::cgetoffset,
            0x07 => capability::cgetflags,
            0x08 => capability::crrl,
            0x09 => capability::cram,
            0x0a => capability::cmove,
            0x0b => capability::ccleartag,
            0x0c => {
                *ends = true;
                jump::cjalr
            }
            0x0e => capability::cclear,
            0x0f => capability::cgetaddr,
            0x10 => capability::fpclear,
            0x11 => capability::csealentry,
            0x12 => access::load_tags,
            0x14 => {
                *ends = true;
                jump::jalr
            }
            0x17 => capability::cgethigh,
            0x18 => capability::cgettop,
            _ => return None,
        },
        _ => return None,
    };
    Some(found)
}
