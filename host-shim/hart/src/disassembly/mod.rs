// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions as text, for traces: RV64GC and Xcheri, with the spellings of the assembler.
//!
//! This reads instruction words on its own, independently of the decoder that executes them, so that a trace also shows what the decoder
//! got wrong.

mod compressed;
pub mod registers;
mod wide;

use std::fmt::Write;

use registers::{CAPABILITY, FLOAT, INTEGER};

/// The register that an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An integer or capability register, not the one that is always zero.
    Integer(u8),
    /// A floating-point register.
    Float(u8),
}

/// An instruction as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disassembly {
    /// Mnemonic and operands; `.insn` and the word for what is no instruction.
    pub text: String,
    /// The register that it writes, besides those that the text does not show (`cinvoke`).
    pub destination: Option<Destination>,
    /// Bytes of the instruction: 2 or 4.
    pub length: u8,
}

/// Disassembles the instruction in the low bits of a word. `pc` is its address: targets of branches are absolute.
pub fn disassemble(word: u32, pc: u64) -> Disassembly {
    let mut line = Line::default();
    let length = if word & 3 == 3 { 4 } else { 2 };
    let known = if length == 4 {
        wide::write(&mut line, word, pc)
    } else {
        compressed::write(&mut line, word as u16, pc)
    };
    if known.is_none() {
        line = Line::default();
        line.mnemonic(".insn");
        let digits = 2 + 2 * usize::from(length);
        let word = if length == 4 { word } else { word & 0xffff };
        line.operand(format_args!("{word:#0digits$x}"));
    }
    Disassembly {
        text: line.text,
        destination: line.destination.filter(|&to| to != Destination::Integer(0)),
        length,
    }
}

/// A line of text that grows.
#[derive(Default)]
struct Line {
    text: String,
    operands: usize,
    destination: Option<Destination>,
}

impl Line {
    fn mnemonic(&mut self, name: &str) -> &mut Line {
        self.text.push_str(name);
        self
    }

    fn operand(&mut self, operand: impl std::fmt::Display) -> &mut Line {
        self.text
            .push_str(if self.operands == 0 { " " } else { ", " });
        self.operands += 1;
        // Writing to a string does not fail.
        let _ = write!(self.text, "{operand}");
        self
    }

    fn x(&mut self, number: u32) -> &mut Line {
        self.operand(INTEGER[number as usize & 31])
    }

    fn c(&mut self, number: u32) -> &mut Line {
        self.operand(CAPABILITY[number as usize & 31])
    }

    fn f(&mut self, number: u32) -> &mut Line {
        self.operand(FLOAT[number as usize & 31])
    }

    fn write_x(&mut self, number: u32) -> &mut Line {
        self.destination = Some(Destination::Integer(number as u8 & 31));
        self.x(number)
    }

    fn write_c(&mut self, number: u32) -> &mut Line {
        self.destination = Some(Destination::Integer(number as u8 & 31));
        self.c(number)
    }

    fn write_f(&mut self, number: u32) -> &mut Line {
        self.destination = Some(Destination::Float(number as u8 & 31));
        self.f(number)
    }

    /// `offset(base)`.
    fn at(&mut self, offset: i64, base: u32) -> &mut Line {
        self.operand(format_args!("{offset}({})", INTEGER[base as usize & 31]))
    }

    /// An absolute address.
    fn target(&mut self, pc: u64, offset: i64) -> &mut Line {
        self.operand(format_args!("{:#x}", pc.wrapping_add_signed(offset)))
    }
}

/// Bits `high` to `low` of a word.
const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word << (31 - high) >> (31 - high + low)
}

/// The low `width` bits of a value with their sign.
const fn signed(value: u32, width: u32) -> i64 {
    ((value << (32 - width)) as i32 >> (32 - width)) as i64
}

#[cfg(test)]
mod tests {
    use super::{Destination, disassemble};

    fn text(word: u32) -> String {
        disassemble(word, 0x8000_0000).text
    }

    #[test]
    fn words_read_as_the_assembler_writes_them() {
        for (word, expected) in [
            (0x0000_0297, "auipc t0, 0x0"),
            (0x0282_8613, "addi a2, t0, 40"),
            (0xf140_2573, "csrrs a0, mhartid, zero"),
            (0x0202_b583, "ld a1, 32(t0)"),
            (0x0002_8067, "jalr zero, 0(t0)"),
            (0xfe05_0ee3, "beq a0, zero, 0x7ffffffc"),
            (0x0080_00ef, "jal ra, 0x80000008"),
            (0x02b5_0533, "mul a0, a0, a1"),
            (0x43f5_5513, "srai a0, a0, 63"),
            (0x00b5_3023, "sd a1, 0(a0)"),
            (0x1005_352f, "lr.d a0, (a0)"),
            (0x0eb5_252f, "amoswap.w.aqrl a0, a1, (a0)"),
            (0x02b5_7553, "fadd.d fa0, fa0, fa1"),
            (0x02b5_1553, "fadd.d fa0, fa0, fa1, rtz"),
            (0xc205_1553, "fcvt.w.d a0, fa0, rtz"),
            (0x6ab5_7543, "fmadd.d fa0, fa0, fa1, fa3"),
            (0x3020_0073, "mret"),
            (0x0330_000f, "fence rw, rw"),
            (0x0220_005b, ".insn 0x0220005b"),
            (0xfe35_04db, "cgetlen s1, ca0"),
            (0x0210_055b, "cspecialrw ca0, ddc, cnull"),
            (0x10b5_055b, "csetbounds ca0, ca0, a1"),
            (0xfcc5_80db, "cinvoke ca1, ca2"),
            (0x0005_250f, "lc ca0, 0(a0)"),
            (0x00a5_4823, "sc ca0, 16(a0)"),
            (0x0205_155b, "cincoffset ca0, ca0, 32"),
            (0xfaa5_055b, "lw.cap a0, (ca0)"),
            (0xf8b5_055b, "sw.cap a1, (ca0)"),
            (0xffff_ffff, ".insn 0xffffffff"),
        ] {
            assert_eq!(text(word), expected, "{word:#010x}");
        }
    }

    #[test]
    fn short_words_are_read_too() {
        for (word, expected) in [
            (0x4501, "c.li a0, 0"),
            (0x1141, "c.addi sp, -16"),
            (0xe406, "c.sdsp ra, 8(sp)"),
            (0x60a2, "c.ldsp ra, 8(sp)"),
            (0x8082, "c.jr ra"),
            (0x9002, "c.ebreak"),
            (0x0800, "c.addi4spn s0, sp, 16"),
            (0x6108, "c.ld a0, 0(a0)"),
            (0xa001, "c.j 0x80000000"),
            (0xc111, "c.beqz a0, 0x80000004"),
            (0x852e, "c.mv a0, a1"),
            (0x952e, "c.add a0, a1"),
            (0x0000, ".insn 0x0000"),
        ] {
            assert_eq!(text(word), expected, "{word:#06x}");
        }
    }

    #[test]
    fn destinations_are_what_is_written() {
        let destination = |word| disassemble(word, 0).destination;
        assert_eq!(destination(0x0282_8613), Some(Destination::Integer(12)));
        assert_eq!(destination(0x02b5_7553), Some(Destination::Float(10)));
        assert_eq!(destination(0x00b5_3023), None);
        assert_eq!(destination(0x0000_0013), None, "a nop");
        assert_eq!(destination(0x4501), Some(Destination::Integer(10)));
    }

    #[test]
    fn no_word_is_too_odd() {
        let mut word = 1u32;
        for _ in 0..2_000_000 {
            word ^= word << 13;
            word ^= word >> 17;
            word ^= word << 5;
            let line = disassemble(word, 0);
            assert!(!line.text.is_empty());
        }
    }
}
