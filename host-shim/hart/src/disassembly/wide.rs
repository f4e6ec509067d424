// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions of 32 bits.

use super::registers::{INTEGER, csr, special};
use super::{Line, bits, signed};

const WIDTHS: [&str; 4] = ["b", "h", "w", "d"];
/// What an explicit access of Xcheri transfers, by its selector.
const LOADS: [&str; 7] = ["lb", "lh", "lw", "ld", "lbu", "lhu", "lwu"];

/// Writes the instruction; none if there is no such instruction.
pub(super) fn write(line: &mut Line, word: u32, pc: u64) -> Option<()> {
    let rd = bits(word, 11, 7);
    let rs1 = bits(word, 19, 15);
    let rs2 = bits(word, 24, 20);
    let funct3 = bits(word, 14, 12);
    let funct7 = bits(word, 31, 25);
    let immediate = signed(word >> 20, 12);
    let store = signed(funct7 << 5 | rd, 12);
    match bits(word, 6, 0) {
        0x37 => {
            let upper = word >> 12;
            line.mnemonic("lui")
                .write_x(rd)
                .operand(format_args!("{upper:#x}"));
        }
        0x17 => {
            let upper = word >> 12;
            line.mnemonic("auipc")
                .write_x(rd)
                .operand(format_args!("{upper:#x}"));
        }
        0x6f => {
            let offset = bits(word, 31, 31) << 20
                | bits(word, 19, 12) << 12
                | bits(word, 20, 20) << 11
                | bits(word, 30, 21) << 1;
            line.mnemonic("jal")
                .write_x(rd)
                .target(pc, signed(offset, 21));
        }
        0x67 if funct3 == 0 => {
            line.mnemonic("jalr").write_x(rd).at(immediate, rs1);
        }
        0x63 => {
            let offset = bits(word, 31, 31) << 12
                | bits(word, 7, 7) << 11
                | bits(word, 30, 25) << 5
                | bits(word, 11, 8) << 1;
            let name = ["beq", "bne", "", "", "blt", "bge", "bltu", "bgeu"][funct3 as usize];
            known(name)?;
            line.mnemonic(name)
                .x(rs1)
                .x(rs2)
                .target(pc, signed(offset, 13));
        }
        0x03 => {
            let name = LOADS.get(funct3 as usize)?;
            line.mnemonic(name).write_x(rd).at(immediate, rs1);
        }
        0x23 if funct3 == 4 => {
            line.mnemonic("sc").c(rs2).at(store, rs1);
        }
        0x23 => {
            let name = ["sb", "sh", "sw", "sd"].get(funct3 as usize)?;
            line.mnemonic(name).x(rs2).at(store, rs1);
        }
        0x07 => {
            let name = ["", "", "flw", "fld"].get(funct3 as usize)?;
            known(name)?;
            line.mnemonic(name).write_f(rd).at(immediate, rs1);
        }
        0x27 => {
            let name = ["", "", "fsw", "fsd"].get(funct3 as usize)?;
            known(name)?;
            line.mnemonic(name).f(rs2).at(store, rs1);
        }
        0x13 => {
            let shift = bits(word, 25, 20);
            let name = match (funct3, bits(word, 31, 26)) {
                (0, _) => "addi",
                (2, _) => "slti",
                (3, _) => "sltiu",
                (4, _) => "xori",
                (6, _) => "ori",
                (7, _) => "andi",
                (1, 0) => "slli",
                (5, 0) => "srli",
                (5, 0x10) => "srai",
                _ => return None,
            };
            line.mnemonic(name).write_x(rd).x(rs1);
            if matches!(funct3, 1 | 5) {
                line.operand(shift);
            } else {
                line.operand(immediate);
            }
        }
        0x1b => {
            let name = match (funct3, funct7) {
                (0, _) => "addiw",
                (1, 0) => "slliw",
                (5, 0) => "srliw",
                (5, 0x20) => "sraiw",
                _ => return None,
            };
            line.mnemonic(name).write_x(rd).x(rs1);
            if funct3 == 0 {
                line.operand(immediate);
            } else {
                line.operand(rs2);
            }
        }
        0x33 => {
            let names = match funct7 {
                0 => ["add", "sll", "slt", "sltu", "xor", "srl", "or", "and"],
                1 => [
                    "mul", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu",
                ],
                0x20 => ["sub", "", "", "", "", "sra", "", ""],
                _ => return None,
            };
            let name = names[funct3 as usize];
            known(name)?;
            line.mnemonic(name).write_x(rd).x(rs1).x(rs2);
        }
        0x3b => {
            let names = match funct7 {
                0 => ["addw", "sllw", "", "", "", "srlw", "", ""],
                1 => ["mulw", "", "", "", "divw", "divuw", "remw", "remuw"],
                0x20 => ["subw", "", "", "", "", "sraw", "", ""],
                _ => return None,
            };
            let name = names[funct3 as usize];
            known(name)?;
            line.mnemonic(name).write_x(rd).x(rs1).x(rs2);
        }
        0x0f => match funct3 {
            0 => fence(line, word),
            1 => {
                line.mnemonic("fence.i");
            }
            2 => {
                line.mnemonic("lc").write_c(rd).at(immediate, rs1);
            }
            _ => return None,
        },
        0x2f => atomic(line, word)?,
        0x73 => system(line, word)?,
        opcode @ (0x43 | 0x47 | 0x4b | 0x4f) => {
            let name = ["fmadd", "fmsub", "fnmsub", "fnmadd"][(opcode as usize - 0x43) / 4];
            let format = format(bits(word, 26, 25))?;
            line.mnemonic(&format!("{name}.{format}"))
                .write_f(rd)
                .f(rs1)
                .f(rs2)
                .f(bits(word, 31, 27));
            rounding(line, funct3);
        }
        0x53 => float(line, word)?,
        0x5b => cheri(line, word)?,
        _ => return None,
    }
    Some(())
}

/// None for the name of no instruction.
fn known(name: &str) -> Option<()> {
    (!name.is_empty()).then_some(())
}

fn format(number: u32) -> Option<&'static str> {
    ["s", "d"].get(number as usize).copied()
}

fn rounding(line: &mut Line, mode: u32) {
    let name = ["rne", "rtz", "rdn", "rup", "rmm", "rm5", "rm6", ""][mode as usize & 7];
    if !name.is_empty() {
        line.operand(name);
    }
}

fn fence(line: &mut Line, word: u32) {
    let set = |bits: u32| {
        let mut text = String::new();
        for (bit, letter) in [(8, 'i'), (4, 'o'), (2, 'r'), (1, 'w')] {
            if bits & bit != 0 {
                text.push(letter);
            }
        }
        if text.is_empty() { "0".into() } else { text }
    };
    if word >> 20 == 0x833 {
        line.mnemonic("fence.tso");
    } else {
        line.mnemonic("fence")
            .operand(set(bits(word, 27, 24)))
            .operand(set(bits(word, 23, 20)));
    }
}

fn atomic(line: &mut Line, word: u32) -> Option<()> {
    let funct3 = bits(word, 14, 12);
    let width = match funct3 {
        2 => "w",
        3 => "d",
        4 => "c",
        _ => return None,
    };
    let capability = funct3 == 4;
    let rs2 = bits(word, 24, 20);
    let name = match bits(word, 31, 27) {
        2 if rs2 == 0 => "lr",
        3 => "sc",
        1 => "amoswap",
        0 if !capability => "amoadd",
        4 if !capability => "amoxor",
        8 if !capability => "amoor",
        0x0c if !capability => "amoand",
        0x10 if !capability => "amomin",
        0x14 if !capability => "amomax",
        0x18 if !capability => "amominu",
        0x1c if !capability => "amomaxu",
        _ => return None,
    };
    let order = ["", ".rl", ".aq", ".aqrl"][bits(word, 26, 25) as usize];
    line.mnemonic(&format!("{name}.{width}{order}"));
    let rd = bits(word, 11, 7);
    // A store-conditional writes a number, whatever it stores.
    if capability && name != "sc" {
        line.write_c(rd);
    } else {
        line.write_x(rd);
    }
    if name != "lr" {
        if capability {
            line.c(rs2);
        } else {
            line.x(rs2);
        }
    }
    line.operand(format_args!("({})", INTEGER[bits(word, 19, 15) as usize]));
    Some(())
}

fn system(line: &mut Line, word: u32) -> Option<()> {
    let rd = bits(word, 11, 7);
    let rs1 = bits(word, 19, 15);
    let funct3 = bits(word, 14, 12);
    if funct3 == 0 {
        if bits(word, 31, 25) == 9 && rd == 0 {
            line.mnemonic("sfence.vma").x(rs1).x(bits(word, 24, 20));
            return Some(());
        }
        let name = match word {
            0x0000_0073 => "ecall",
            0x0010_0073 => "ebreak",
            0x0020_0073 => "uret",
            0x1020_0073 => "sret",
            0x3020_0073 => "mret",
            0x1050_0073 => "wfi",
            _ => return None,
        };
        line.mnemonic(name);
        return Some(());
    }
    let name = [
        "", "csrrw", "csrrs", "csrrc", "", "csrrwi", "csrrsi", "csrrci",
    ][funct3 as usize];
    known(name)?;
    let number = (word >> 20) as u16;
    line.mnemonic(name).write_x(rd);
    match csr(number) {
        Some(name) => line.operand(name),
        None => line.operand(format_args!("{number:#x}")),
    };
    if funct3 & 4 != 0 {
        line.operand(rs1);
    } else {
        line.x(rs1);
    }
    Some(())
}

fn float(line: &mut Line, word: u32) -> Option<()> {
    let rd = bits(word, 11, 7);
    let rs1 = bits(word, 19, 15);
    let rs2 = bits(word, 24, 20);
    let mode = bits(word, 14, 12);
    let format = format(bits(word, 26, 25))?;
    let operation = bits(word, 31, 27);
    match operation {
        0..=3 => {
            let name = ["fadd", "fsub", "fmul", "fdiv"][operation as usize];
            line.mnemonic(&format!("{name}.{format}"))
                .write_f(rd)
                .f(rs1)
                .f(rs2);
            rounding(line, mode);
        }
        0x0b if rs2 == 0 => {
            line.mnemonic(&format!("fsqrt.{format}")).write_f(rd).f(rs1);
            rounding(line, mode);
        }
        4 | 5 => {
            let names: &[&str] = if operation == 4 {
                &["fsgnj", "fsgnjn", "fsgnjx"]
            } else {
                &["fmin", "fmax"]
            };
            let name = names.get(mode as usize)?;
            line.mnemonic(&format!("{name}.{format}"))
                .write_f(rd)
                .f(rs1)
                .f(rs2);
        }
        0x14 => {
            let name = ["fle", "flt", "feq"].get(mode as usize)?;
            line.mnemonic(&format!("{name}.{format}"))
                .write_x(rd)
                .f(rs1)
                .f(rs2);
        }
        8 => {
            let from = super::wide::format(rs2)?;
            if from == format {
                return None;
            }
            line.mnemonic(&format!("fcvt.{format}.{from}"))
                .write_f(rd)
                .f(rs1);
            if format == "s" {
                rounding(line, mode);
            }
        }
        0x18 | 0x1a => {
            let integer = ["w", "wu", "l", "lu"].get(rs2 as usize)?;
            if operation == 0x18 {
                line.mnemonic(&format!("fcvt.{integer}.{format}"))
                    .write_x(rd)
                    .f(rs1);
            } else {
                line.mnemonic(&format!("fcvt.{format}.{integer}"))
                    .write_f(rd)
                    .x(rs1);
            }
            rounding(line, mode);
        }
        0x1c if rs2 == 0 && mode == 1 => {
            line.mnemonic(&format!("fclass.{format}"))
                .write_x(rd)
                .f(rs1);
        }
        0x1c if rs2 == 0 && mode == 0 => {
            let width = if format == "s" { "w" } else { "d" };
            line.mnemonic(&format!("fmv.x.{width}")).write_x(rd).f(rs1);
        }
        0x1e if rs2 == 0 && mode == 0 => {
            let width = if format == "s" { "w" } else { "d" };
            line.mnemonic(&format!("fmv.{width}.x")).write_f(rd).x(rs1);
        }
        _ => return None,
    }
    Some(())
}

fn cheri(line: &mut Line, word: u32) -> Option<()> {
    let rd = bits(word, 11, 7);
    let rs1 = bits(word, 19, 15);
    let rs2 = bits(word, 24, 20);
    match bits(word, 14, 12) {
        0 => {}
        1 => {
            let immediate = signed(word >> 20, 12);
            line.mnemonic("cincoffset")
                .write_c(rd)
                .c(rs1)
                .operand(immediate);
            return Some(());
        }
        2 => {
            line.mnemonic("csetbounds")
                .write_c(rd)
                .c(rs1)
                .operand(word >> 20);
            return Some(());
        }
        _ => return None,
    }
    match bits(word, 31, 25) {
        0x01 => {
            line.mnemonic("cspecialrw")
                .write_c(rd)
                .operand(special(rs2 as u8)?)
                .c(rs1);
        }
        funct7 @ (0x08 | 0x09 | 0x0d..=0x11 | 0x16) => {
            let name = match funct7 {
                0x08 => "csetbounds",
                0x09 => "csetboundsexact",
                0x0d => "candperm",
                0x0e => "csetflags",
                0x0f => "csetoffset",
                0x10 => "csetaddr",
                0x11 => "cincoffset",
                _ => "csethigh",
            };
            line.mnemonic(name).write_c(rd).c(rs1).x(rs2);
        }
        funct7 @ (0x0b | 0x0c | 0x1d..=0x1f) => {
            let name = match funct7 {
                0x0b => "cseal",
                0x0c => "cunseal",
                0x1d => "cbuildcap",
                0x1e => "ccopytype",
                _ => "ccseal",
            };
            line.mnemonic(name).write_c(rd).c(rs1).c(rs2);
        }
        0x13 => {
            line.mnemonic("cfromptr").write_c(rd).c(rs1).x(rs2);
        }
        funct7 @ (0x12 | 0x14 | 0x20 | 0x21) => {
            let name = match funct7 {
                0x12 => "ctoptr",
                0x14 => "csub",
                0x20 => "ctestsubset",
                _ => "cseqx",
            };
            line.mnemonic(name).write_x(rd).c(rs1).c(rs2);
        }
        0x7c => explicit_store(line, rd, rs1, rs2)?,
        0x7d => explicit_load(line, rd, rs1, rs2)?,
        0x7e if rd == 1 => {
            line.mnemonic("cinvoke").c(rs1).c(rs2);
        }
        0x7f => one_source(line, rd, rs1, rs2)?,
        _ => return None,
    }
    Some(())
}

fn one_source(line: &mut Line, rd: u32, rs1: u32, selector: u32) -> Option<()> {
    let to_integer = match selector {
        0x00 => "cgetperm",
        0x01 => "cgettype",
        0x02 => "cgetbase",
        0x03 => "cgetlen",
        0x04 => "cgettag",
        0x05 => "cgetsealed",
        0x06 => "cgetoffset",
        0x07 => "cgetflags",
        0x0f => "cgetaddr",
        0x12 => "cloadtags",
        0x17 => "cgethigh",
        0x18 => "cgettop",
        _ => "",
    };
    if !to_integer.is_empty() {
        line.mnemonic(to_integer).write_x(rd).c(rs1);
        return Some(());
    }
    match selector {
        0x08 => line.mnemonic("crrl").write_x(rd).x(rs1),
        0x09 => line.mnemonic("cram").write_x(rd).x(rs1),
        0x0a => line.mnemonic("cmove").write_c(rd).c(rs1),
        0x0b => line.mnemonic("ccleartag").write_c(rd).c(rs1),
        0x0c => line.mnemonic("cjalr").write_c(rd).c(rs1),
        0x11 => line.mnemonic("csealentry").write_c(rd).c(rs1),
        0x14 => line.mnemonic("jalr.pcc").write_x(rd).x(rs1),
        // Quarter and mask take the place of registers.
        0x0e => line
            .mnemonic("cclear")
            .operand(rs1 >> 3)
            .operand((rs1 & 7) << 5 | rd),
        0x10 => line
            .mnemonic("fpclear")
            .operand(rs1 >> 3)
            .operand((rs1 & 7) << 5 | rd),
        _ => return None,
    };
    Some(())
}

/// `(address)` of an explicit access, through the default data capability or a register.
fn address(line: &mut Line, capability: bool, rs1: u32) {
    let names = if capability {
        super::registers::CAPABILITY
    } else {
        INTEGER
    };
    line.operand(format_args!("({})", names[rs1 as usize]));
}

fn explicit_load(line: &mut Line, rd: u32, rs1: u32, selector: u32) -> Option<()> {
    let capability = selector & 8 != 0;
    let through = if capability { "cap" } else { "ddc" };
    let (name, is_capability) = match selector & !8 {
        plain @ 0x00..=0x06 => (LOADS[plain as usize].to_owned(), false),
        0x17 => ("lc".to_owned(), true),
        reserved @ 0x10..=0x13 => (format!("lr.{}", WIDTHS[reserved as usize & 3]), false),
        0x14 => ("lr.c".to_owned(), true),
        _ => return None,
    };
    line.mnemonic(&format!("{name}.{through}"));
    if is_capability {
        line.write_c(rd);
    } else {
        line.write_x(rd);
    }
    address(line, capability, rs1);
    Some(())
}

fn explicit_store(line: &mut Line, selector: u32, rs1: u32, rs2: u32) -> Option<()> {
    let capability = selector & 8 != 0;
    let through = if capability { "cap" } else { "ddc" };
    let index = selector & 7;
    let conditional = selector & 0x10 != 0;
    let is_capability = index == 4;
    let name = match (conditional, index) {
        (false, 4) => "sc".to_owned(),
        (false, 0..=3) => format!("s{}", WIDTHS[index as usize]),
        (true, 4) => "sc.c".to_owned(),
        (true, 0..=3) => format!("sc.{}", WIDTHS[index as usize]),
        _ => return None,
    };
    line.mnemonic(&format!("{name}.{through}"));
    // A store-conditional puts its result into the register that held the value.
    match (is_capability, conditional) {
        (true, true) => line.write_c(rs2),
        (true, false) => line.c(rs2),
        (false, true) => line.write_x(rs2),
        (false, false) => line.x(rs2),
    };
    address(line, capability, rs1);
    Some(())
}
