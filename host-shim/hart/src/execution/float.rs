// SPDX-License-Identifier: Apache-2.0 OR MIT
//! F and D: registers, rounding modes and flags around the arithmetic of [`crate::float`].

use crate::float::{self, Double, Flags, Format, Rounding, Single};
use crate::instruction::{Flow, Op, next};
use crate::state::State;

impl State {
    #[inline(always)]
    pub(crate) fn get_f(&self, n: u8) -> u64 {
        self.f[usize::from(n % 32)]
    }

    #[inline(always)]
    pub(crate) fn set_f(&mut self, n: u8, value: u64) {
        self.f[usize::from(n % 32)] = value;
        self.control.float_written();
    }

    #[inline(always)]
    fn accrue(&mut self, flags: Flags) {
        if !flags.is_empty() {
            self.control.float_flags |= flags.bits();
            self.control.float_written();
        }
    }

    fn give<F: Format>(&mut self, op: &Op, result: (u64, Flags)) {
        self.set_f(op.rd, F::boxed(result.0));
        self.accrue(result.1);
    }

    /// The rounding mode of an instruction; none if floating point is off or the mode is reserved.
    #[inline(always)]
    fn rounding(&self, op: &Op) -> Option<Rounding> {
        if self.control.float == 0 {
            return None;
        }
        match (op.extra >> 12 & 7) as u8 {
            7 => Rounding::from_bits(self.control.float_rounding),
            mode => Rounding::from_bits(mode),
        }
    }

    #[inline(always)]
    fn operand<F: Format>(&self, n: u8) -> u64 {
        F::unbox(self.get_f(n))
    }
}

macro_rules! two_operands {
    ($($name:ident)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let Some(rounding) = state.rounding(op) else {
                return state.illegal(op);
            };
            let result = float::$name::<F>(state.operand::<F>(op.rs1), state.operand::<F>(op.rs2), rounding);
            state.give::<F>(op, result);
            next(state, rest)
        }
    )*};
}

two_operands! { add sub mul div }

pub(crate) fn sqrt<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let Some(rounding) = state.rounding(op) else {
        return state.illegal(op);
    };
    let result = float::sqrt::<F>(state.operand::<F>(op.rs1), rounding);
    state.give::<F>(op, result);
    next(state, rest)
}

macro_rules! fused {
    ($($name:ident)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let Some(rounding) = state.rounding(op) else {
                return state.illegal(op);
            };
            let result = float::$name::<F>(
                state.operand::<F>(op.rs1),
                state.operand::<F>(op.rs2),
                state.operand::<F>(op.rs3),
                rounding,
                Flags::from_bits_truncate(state.control.float_flags),
            );
            state.give::<F>(op, result);
            next(state, rest)
        }
    )*};
}

fused! { fmadd fmsub fnmsub fnmadd }

macro_rules! without_rounding {
    ($($name:ident = |$a:ident, $b:ident| $result:expr;)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            if state.control.float == 0 {
                return state.illegal(op);
            }
            let $a = state.operand::<F>(op.rs1);
            let $b = state.operand::<F>(op.rs2);
            state.give::<F>(op, $result);
            next(state, rest)
        }
    )*};
}

without_rounding! {
    min = |a, b| float::min::<F>(a, b);
    max = |a, b| float::max::<F>(a, b);
    sgnj = |a, b| (a & !F::SIGN | b & F::SIGN, Flags::empty());
    sgnjn = |a, b| (a & !F::SIGN | !b & F::SIGN, Flags::empty());
    sgnjx = |a, b| (a ^ b & F::SIGN, Flags::empty());
}

macro_rules! compare {
    ($($name:ident)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            if state.control.float == 0 {
                return state.illegal(op);
            }
            let (result, flags) =
                float::$name::<F>(state.operand::<F>(op.rs1), state.operand::<F>(op.rs2));
            state.accrue(flags);
            state.set_x(op.rd, u64::from(result));
            next(state, rest)
        }
    )*};
}

compare! { feq flt fle }

pub(crate) fn classify<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let class = float::classify::<F>(state.operand::<F>(op.rs1));
    state.set_x(op.rd, class);
    next(state, rest)
}

macro_rules! to_integer {
    ($($name:ident = |$v:ident| $extended:expr;)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let Some(rounding) = state.rounding(op) else {
                return state.illegal(op);
            };
            let ($v, flags) = float::$name::<F>(state.operand::<F>(op.rs1), rounding);
            state.accrue(flags);
            state.set_x(op.rd, $extended);
            next(state, rest)
        }
    )*};
}

to_integer! {
    to_i32 = |v| i64::from(v) as u64;
    to_u32 = |v| i64::from(v as i32) as u64;
    to_i64 = |v| v as u64;
    to_u64 = |v| v;
}

macro_rules! from_integer {
    ($($name:ident $integer:ty;)*) => {$(
        pub(crate) fn $name<F: Format>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let Some(rounding) = state.rounding(op) else {
                return state.illegal(op);
            };
            let result = float::$name::<F>(state.get_x(op.rs1) as $integer, rounding);
            state.give::<F>(op, result);
            next(state, rest)
        }
    )*};
}

from_integer! {
    from_i32 i32;
    from_u32 u32;
    from_i64 i64;
    from_u64 u64;
}

/// `fcvt.s.d`.
pub(crate) fn narrow(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let Some(rounding) = state.rounding(op) else {
        return state.illegal(op);
    };
    let result = float::narrow(state.operand::<Double>(op.rs1), rounding);
    state.give::<Single>(op, result);
    next(state, rest)
}

/// `fcvt.d.s`.
pub(crate) fn widen(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.rounding(op).is_none() {
        return state.illegal(op);
    }
    let result = float::widen(state.operand::<Single>(op.rs1));
    state.give::<Double>(op, result);
    next(state, rest)
}

/// `fmv.x.w`: the low bits, sign-extended, whatever they are.
pub(crate) fn move_to_word(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let bits = state.get_f(op.rs1) as i32;
    state.set_x(op.rd, i64::from(bits) as u64);
    next(state, rest)
}

/// `fmv.x.d`.
pub(crate) fn move_to_double(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let bits = state.get_f(op.rs1);
    state.set_x(op.rd, bits);
    next(state, rest)
}

/// `fmv.w.x`.
pub(crate) fn move_from_word(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let bits = state.get_x(op.rs1) & 0xffff_ffff;
    state.set_f(op.rd, Single::boxed(bits));
    next(state, rest)
}

/// `fmv.d.x`.
pub(crate) fn move_from_double(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let bits = state.get_x(op.rs1);
    state.set_f(op.rd, bits);
    next(state, rest)
}
