// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Integer computation: I and M.

use crate::instruction::{Flow, Op, next};
use crate::state::State;

macro_rules! registers {
    ($($name:ident = |$a:ident, $b:ident| $value:expr;)*) => {$(
        pub(crate) fn $name(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let $a = state.get_x(op.rs1);
            let $b = state.get_x(op.rs2);
            state.set_x(op.rd, $value);
            next(state, rest)
        }
    )*};
}

macro_rules! immediate {
    ($($name:ident = |$a:ident, $b:ident| $value:expr;)*) => {$(
        pub(crate) fn $name(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let $a = state.get_x(op.rs1);
            let $b = op.imm();
            state.set_x(op.rd, $value);
            next(state, rest)
        }
    )*};
}

#[inline(always)]
fn word(value: u32) -> u64 {
    value as i32 as i64 as u64
}

registers! {
    add = |a, b| a.wrapping_add(b);
    sub = |a, b| a.wrapping_sub(b);
    sll = |a, b| a << (b & 63);
    slt = |a, b| u64::from((a as i64) < b as i64);
    sltu = |a, b| u64::from(a < b);
    xor = |a, b| a ^ b;
    srl = |a, b| a >> (b & 63);
    sra = |a, b| (a as i64 >> (b & 63)) as u64;
    or = |a, b| a | b;
    and = |a, b| a & b;
    addw = |a, b| word((a as u32).wrapping_add(b as u32));
    subw = |a, b| word((a as u32).wrapping_sub(b as u32));
    sllw = |a, b| word((a as u32) << (b & 31));
    srlw = |a, b| word(a as u32 >> (b & 31));
    sraw = |a, b| (a as i32 >> (b & 31)) as i64 as u64;
    mul = |a, b| a.wrapping_mul(b);
    mulh = |a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64;
    mulhsu = |a, b| ((i128::from(a as i64) * i128::from(b)) >> 64) as u64;
    mulhu = |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    div = |a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 };
    divu = |a, b| a.checked_div(b).unwrap_or(u64::MAX);
    rem = |a, b| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 };
    remu = |a, b| a.checked_rem(b).unwrap_or(a);
    mulw = |a, b| word((a as u32).wrapping_mul(b as u32));
    divw = |a, b| if b as u32 == 0 { u64::MAX } else { (a as i32).wrapping_div(b as i32) as i64 as u64 };
    divuw = |a, b| word((a as u32).checked_div(b as u32).unwrap_or(u32::MAX));
    remw = |a, b| if b as u32 == 0 { word(a as u32) } else { (a as i32).wrapping_rem(b as i32) as i64 as u64 };
    remuw = |a, b| word((a as u32).checked_rem(b as u32).unwrap_or(a as u32));
}

immediate! {
    addi = |a, b| a.wrapping_add(b);
    slti = |a, b| u64::from((a as i64) < b as i64);
    sltiu = |a, b| u64::from(a < b);
    xori = |a, b| a ^ b;
    ori = |a, b| a | b;
    andi = |a, b| a & b;
    slli = |a, b| a << (b & 63);
    srli = |a, b| a >> (b & 63);
    srai = |a, b| (a as i64 >> (b & 63)) as u64;
    addiw = |a, b| word((a as u32).wrapping_add(b as u32));
    slliw = |a, b| word((a as u32) << (b & 31));
    srliw = |a, b| word(a as u32 >> (b & 31));
    sraiw = |a, b| (a as i32 >> (b & 31)) as i64 as u64;
    // `addi` to x0: its source does not matter. Also hints.
    li = |_a, b| b;
    mv = |a, _b| a;
}

/// Nothing: hints, and writes to x0 without any other effect.
pub(crate) fn nop(state: &mut State, _op: &Op, rest: &[Op]) -> Flow {
    next(state, rest)
}

/// `auipc` in integer mode: the PC that software sees, and an immediate.
pub(crate) fn auipc(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let pc = state.here(op).wrapping_sub(state.pc_bias);
    state.set_x(op.rd, pc.wrapping_add(op.imm()));
    next(state, rest)
}
