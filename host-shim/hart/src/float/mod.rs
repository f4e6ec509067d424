// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The arithmetic of the F and D extensions: pure functions on bit patterns, no state.
//!
//! Every function takes and returns the bits of a value of its [`Format`] in the low bits of a `u64`; the bits above are zero. NaN boxing, which is a
//! matter of registers, is in [`Format::unbox`] and [`Format::boxed`]. What RISC-V fixes where IEEE 754 leaves a choice (Unprivileged ISA, "F"
//! and "D" extensions):
//!
//! - a result that is not a number is the canonical one, whatever the operands were;
//! - tininess is detected after rounding;
//! - a conversion to an integer that does not fit gives the nearest integer that does, or the largest for a NaN, and raises only `NV`;
//! - the smaller of -0 and +0 is -0, and a NaN loses against a number in minimum and maximum;
//! - infinity times zero is invalid in a fused operation even when the addend is a quiet NaN.
//!
//! | module | what |
//! |---|---|
//! | `round` | a number as sign, exponent and 64 bits of significand, and its rounding into a format |
//! | `arithmetic` | add, subtract, multiply, divide, square root, fused operations |
//! | `native` | the same with the host's instructions, for ordinary operands rounded to nearest even |
//! | `comparison` | comparisons, minimum and maximum, classification |
//! | `conversion` | to and from integers, and between the formats |
//!
//! # Why not a crate
//!
//! A hart needs all five rounding modes, square root, tininess after rounding and no state shared between threads. No maintained crate has
//! all four.

mod arithmetic;
mod comparison;
mod conversion;
mod native;
mod round;

pub use arithmetic::{add, div, fmadd, fmsub, fnmadd, fnmsub, mul, sqrt, sub};
pub use comparison::{classify, feq, fle, flt, max, min};
pub use conversion::{
    from_i32, from_i64, from_u32, from_u64, narrow, to_i32, to_i64, to_u32, to_u64, widen,
};

bitflags::bitflags! {
    /// The accrued exceptions, as they lie in `fflags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u8 {
        /// Inexact.
        const NX = 1 << 0;
        /// Underflow: tiny and inexact.
        const UF = 1 << 1;
        /// Overflow.
        const OF = 1 << 2;
        /// Division of a number by zero.
        const DZ = 1 << 3;
        /// Invalid operation.
        const NV = 1 << 4;
    }
}

/// A rounding mode, numbered as in `frm` and in the `rm` field of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    NearestEven = 0,
    /// Towards zero.
    Zero = 1,
    /// Towards minus infinity.
    Down = 2,
    /// Towards plus infinity.
    Up = 3,
    /// To nearest, ties away from zero.
    NearestMaxMagnitude = 4,
}

impl Rounding {
    /// All modes.
    pub const ALL: [Rounding; 5] = [
        Rounding::NearestEven,
        Rounding::Zero,
        Rounding::Down,
        Rounding::Up,
        Rounding::NearestMaxMagnitude,
    ];

    /// The mode with this number; `None` for the reserved ones and for 7, which stands for the mode in `frm`.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Rounding> {
        match bits {
            0 => Some(Rounding::NearestEven),
            1 => Some(Rounding::Zero),
            2 => Some(Rounding::Down),
            3 => Some(Rounding::Up),
            4 => Some(Rounding::NearestMaxMagnitude),
            _ => None,
        }
    }
}

/// An interchange format of IEEE 754: [`Single`] or [`Double`].
pub trait Format: native::Native {
    /// Bits of the fraction, without the implicit one.
    const FRACTION: u32;
    /// Bits of the exponent.
    const EXPONENT: u32;

    /// Bits of a value.
    const WIDTH: u32 = 1 + Self::EXPONENT + Self::FRACTION;
    /// The sign.
    const SIGN: u64 = 1 << (Self::WIDTH - 1);
    /// Positive infinity: all exponent bits.
    const INFINITY: u64 = ((1 << Self::EXPONENT) - 1) << Self::FRACTION;
    /// The bit that tells a quiet NaN from a signalling one.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    /// The canonical NaN.
    const NAN: u64 = Self::INFINITY | Self::QUIET;
    /// The smallest normal number.
    const MIN_NORMAL: u64 = 1 << Self::FRACTION;
    /// What is added to the exponent of a normal number.
    const BIAS: i32 = (1 << (Self::EXPONENT - 1)) - 1;
    /// The all-ones exponent.
    const MAX_EXPONENT: i32 = (1 << Self::EXPONENT) - 1;

    /// The value in a floating-point register: the canonical NaN when it is not boxed properly.
    #[inline]
    fn unbox(register: u64) -> u64 {
        let boxing = !0 << (Self::WIDTH - 1) << 1;
        if register & boxing == boxing {
            register & !boxing
        } else {
            Self::NAN
        }
    }

    /// What a floating-point register holds for a value: all ones above it.
    #[inline]
    fn boxed(bits: u64) -> u64 {
        bits | !0 << (Self::WIDTH - 1) << 1
    }

    /// Whether the bits are a NaN.
    #[inline]
    fn is_nan(bits: u64) -> bool {
        bits & !Self::SIGN > Self::INFINITY
    }

    /// Whether the bits are a signalling NaN.
    #[inline]
    fn is_signalling(bits: u64) -> bool {
        Self::is_nan(bits) && bits & Self::QUIET == 0
    }
}

/// Binary32, the F extension.
#[derive(Clone, Copy, Debug)]
pub struct Single;

impl Format for Single {
    const FRACTION: u32 = 23;
    const EXPONENT: u32 = 8;
}

/// Binary64, the D extension.
#[derive(Clone, Copy, Debug)]
pub struct Double;

impl Format for Double {
    const FRACTION: u32 = 52;
    const EXPONENT: u32 = 11;
}
