// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions of 16 bits.

use super::{Line, bits, signed};

/// Writes the instruction; none if there is no such instruction.
pub(super) fn write(line: &mut Line, half: u16, pc: u64) -> Option<()> {
    let word = u32::from(half);
    let rd = bits(word, 11, 7);
    let rs2 = bits(word, 6, 2);
    // Registers 8 to 15.
    let low = 8 + bits(word, 4, 2);
    let high = 8 + bits(word, 9, 7);
    let immediate = signed(bits(word, 12, 12) << 5 | bits(word, 6, 2), 6);
    let shift = bits(word, 12, 12) << 5 | bits(word, 6, 2);
    let offset_4 =
        i64::from(bits(word, 5, 5) << 6 | bits(word, 12, 10) << 3 | bits(word, 6, 6) << 2);
    let offset_8 = i64::from(bits(word, 6, 5) << 6 | bits(word, 12, 10) << 3);
    let from_stack_4 =
        i64::from(bits(word, 3, 2) << 6 | bits(word, 12, 12) << 5 | bits(word, 6, 4) << 2);
    let from_stack_8 =
        i64::from(bits(word, 4, 2) << 6 | bits(word, 12, 12) << 5 | bits(word, 6, 5) << 3);
    let to_stack_4 = i64::from(bits(word, 8, 7) << 6 | bits(word, 12, 9) << 2);
    let to_stack_8 = i64::from(bits(word, 9, 7) << 6 | bits(word, 12, 10) << 3);
    let branch = signed(
        bits(word, 12, 12) << 8
            | bits(word, 6, 5) << 6
            | bits(word, 2, 2) << 5
            | bits(word, 11, 10) << 3
            | bits(word, 4, 3) << 1,
        9,
    );
    const SP: u32 = 2;
    match (word & 3, bits(word, 15, 13)) {
        (0, 0) => {
            let offset = bits(word, 10, 7) << 6
                | bits(word, 12, 11) << 4
                | bits(word, 5, 5) << 3
                | bits(word, 6, 6) << 2;
            if offset == 0 {
                return None;
            }
            line.mnemonic("c.addi4spn")
                .write_x(low)
                .x(SP)
                .operand(offset);
        }
        (0, 1) => _ = line.mnemonic("c.fld").write_f(low).at(offset_8, high),
        (0, 2) => _ = line.mnemonic("c.lw").write_x(low).at(offset_4, high),
        (0, 3) => _ = line.mnemonic("c.ld").write_x(low).at(offset_8, high),
        (0, 5) => _ = line.mnemonic("c.fsd").f(low).at(offset_8, high),
        (0, 6) => _ = line.mnemonic("c.sw").x(low).at(offset_4, high),
        (0, 7) => _ = line.mnemonic("c.sd").x(low).at(offset_8, high),
        (1, 0) if rd == 0 => _ = line.mnemonic("c.nop"),
        (1, 0) => _ = line.mnemonic("c.addi").write_x(rd).operand(immediate),
        (1, 1) if rd != 0 => _ = line.mnemonic("c.addiw").write_x(rd).operand(immediate),
        (1, 2) => _ = line.mnemonic("c.li").write_x(rd).operand(immediate),
        (1, 3) if rd == SP => {
            let offset = signed(
                bits(word, 12, 12) << 9
                    | bits(word, 4, 3) << 7
                    | bits(word, 5, 5) << 6
                    | bits(word, 2, 2) << 5
                    | bits(word, 6, 6) << 4,
                10,
            );
            if offset == 0 {
                return None;
            }
            line.mnemonic("c.addi16sp").write_x(SP).operand(offset);
        }
        (1, 3) if immediate != 0 => {
            let upper = immediate & 0xf_ffff;
            line.mnemonic("c.lui")
                .write_x(rd)
                .operand(format_args!("{upper:#x}"));
        }
        (1, 4) => arithmetic(line, word, high, low, shift, immediate)?,
        (1, 5) => {
            let offset = bits(word, 12, 12) << 11
                | bits(word, 8, 8) << 10
                | bits(word, 10, 9) << 8
                | bits(word, 6, 6) << 7
                | bits(word, 7, 7) << 6
                | bits(word, 2, 2) << 5
                | bits(word, 11, 11) << 4
                | bits(word, 5, 3) << 1;
            line.mnemonic("c.j").target(pc, signed(offset, 12));
        }
        (1, 6) => _ = line.mnemonic("c.beqz").x(high).target(pc, branch),
        (1, 7) => _ = line.mnemonic("c.bnez").x(high).target(pc, branch),
        (2, 0) => _ = line.mnemonic("c.slli").write_x(rd).operand(shift),
        (2, 1) => _ = line.mnemonic("c.fldsp").write_f(rd).at(from_stack_8, SP),
        (2, 2) if rd != 0 => _ = line.mnemonic("c.lwsp").write_x(rd).at(from_stack_4, SP),
        (2, 3) if rd != 0 => _ = line.mnemonic("c.ldsp").write_x(rd).at(from_stack_8, SP),
        (2, 4) => match (bits(word, 12, 12), rd, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => _ = line.mnemonic("c.jr").x(rd),
            (0, ..) => _ = line.mnemonic("c.mv").write_x(rd).x(rs2),
            (_, 0, 0) => _ = line.mnemonic("c.ebreak"),
            (_, _, 0) => {
                line.mnemonic("c.jalr").x(rd);
                line.destination = Some(super::Destination::Integer(1));
            }
            _ => _ = line.mnemonic("c.add").write_x(rd).x(rs2),
        },
        (2, 5) => _ = line.mnemonic("c.fsdsp").f(rs2).at(to_stack_8, SP),
        (2, 6) => _ = line.mnemonic("c.swsp").x(rs2).at(to_stack_4, SP),
        (2, 7) => _ = line.mnemonic("c.sdsp").x(rs2).at(to_stack_8, SP),
        _ => return None,
    }
    Some(())
}

fn arithmetic(
    line: &mut Line,
    word: u32,
    high: u32,
    low: u32,
    shift: u32,
    immediate: i64,
) -> Option<()> {
    match bits(word, 11, 10) {
        0 => _ = line.mnemonic("c.srli").write_x(high).operand(shift),
        1 => _ = line.mnemonic("c.srai").write_x(high).operand(shift),
        2 => _ = line.mnemonic("c.andi").write_x(high).operand(immediate),
        _ => {
            let name = match (bits(word, 12, 12), bits(word, 6, 5)) {
                (0, 0) => "c.sub",
                (0, 1) => "c.xor",
                (0, 2) => "c.or",
                (0, _) => "c.and",
                (_, 0) => "c.subw",
                (_, 1) => "c.addw",
                _ => return None,
            };
            line.mnemonic(name).write_x(high).x(low);
        }
    }
    Some(())
}
