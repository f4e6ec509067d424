// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers apart, and back into a format.

use super::{Flags, Format, Rounding};

/// A finite number that is not zero: `significand * 2^(exponent - 63)`.
///
/// # Invariants
///
/// Bit 63 of the significand is set. Bit 0 of a result that is not exact also stands for everything below it ("sticky"), which is
/// enough to round: no format keeps more than 53 bits.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u64,
}

impl Number {
    /// Takes the bits of a finite number other than zero apart.
    #[inline]
    pub(super) fn unpack<F: Format>(bits: u64) -> Number {
        let magnitude = bits & !F::SIGN;
        let fraction = magnitude << (63 - F::FRACTION);
        let biased = (magnitude >> F::FRACTION) as i32;
        let (exponent, significand) = if biased != 0 {
            (biased - F::BIAS, fraction | 1 << 63)
        } else {
            let zeros = fraction.leading_zeros();
            (1 - F::BIAS - zeros as i32, fraction << zeros)
        };
        Number {
            negative: bits & F::SIGN != 0,
            exponent,
            significand,
        }
    }

    /// The number `significand * 2^(exponent - 63)`, `sticky` when there is more below it; the significand is not zero, and when
    /// there is more below it, has at least 56 bits.
    #[inline]
    pub(super) fn normalize(
        negative: bool,
        exponent: i32,
        significand: u64,
        sticky: bool,
    ) -> Number {
        let zeros = significand.leading_zeros();
        Number {
            negative,
            exponent: exponent - zeros as i32,
            significand: significand << zeros | u64::from(sticky),
        }
    }

    /// The number `significand * 2^(exponent - 127)`; the significand is not zero.
    #[inline]
    pub(super) fn normalize_wide(negative: bool, exponent: i32, significand: u128) -> Number {
        let zeros = significand.leading_zeros();
        let significand = significand << zeros;
        Number {
            negative,
            exponent: exponent - zeros as i32,
            significand: (significand >> 64) as u64 | u64::from(significand as u64 != 0),
        }
    }

    /// Rounds into a format.
    #[inline]
    pub(super) fn round<F: Format>(self, rounding: Rounding) -> (u64, Flags) {
        let sign = if self.negative { F::SIGN } else { 0 };
        let biased = self.exponent + F::BIAS;
        if biased <= 0 {
            return self.round_tiny::<F>(rounding, sign, biased);
        }
        let (kept, inexact) = self.keep::<F>(self.significand, rounding);
        // The implicit bit counts the exponent up by one, and so does a carry out of the fraction.
        let magnitude = (((biased - 1) as u64) << F::FRACTION).wrapping_add(kept);
        if biased >= F::MAX_EXPONENT || magnitude >= F::INFINITY {
            let infinite = match rounding {
                Rounding::NearestEven | Rounding::NearestMaxMagnitude => true,
                Rounding::Zero => false,
                Rounding::Down => self.negative,
                Rounding::Up => !self.negative,
            };
            let magnitude = F::INFINITY - u64::from(!infinite);
            return (sign | magnitude, Flags::OF | Flags::NX);
        }
        let flags = if inexact { Flags::NX } else { Flags::empty() };
        (sign | magnitude, flags)
    }

    /// Rounds a number below the smallest normal one.
    #[cold]
    fn round_tiny<F: Format>(self, rounding: Rounding, sign: u64, biased: i32) -> (u64, Flags) {
        // Tiny after rounding: rounded as if the exponent had no limit, it is still below the smallest normal number.
        let reaches_normal =
            biased == 0 && self.keep::<F>(self.significand, rounding).0 >> (F::FRACTION + 1) != 0;
        let shifted = shift_right_sticky(self.significand, (1 - biased) as u32);
        let (magnitude, inexact) = self.keep::<F>(shifted, rounding);
        let mut flags = Flags::empty();
        if inexact {
            flags |= Flags::NX;
            if !reaches_normal {
                flags |= Flags::UF;
            }
        }
        (sign | magnitude, flags)
    }

    /// The upper bits of a significand that a format keeps, rounded, and whether something was lost. One bit wider when
    /// it was rounded up to the next power of two.
    #[inline]
    fn keep<F: Format>(self, significand: u64, rounding: Rounding) -> (u64, bool) {
        let dropped = 63 - F::FRACTION;
        let kept = significand >> dropped;
        let rest = significand & ((1 << dropped) - 1);
        let up = rounds_up(
            rounding,
            self.negative,
            kept & 1 != 0,
            rest << (64 - dropped),
        );
        (kept + u64::from(up), rest != 0)
    }
}

/// Whether a magnitude is rounded up, given its last bit and the bits behind it as a fraction of 2^64.
#[inline]
pub(super) fn rounds_up(rounding: Rounding, negative: bool, odd: bool, rest: u64) -> bool {
    const HALF: u64 = 1 << 63;
    match rounding {
        Rounding::NearestEven => rest > HALF || (rest == HALF && odd),
        Rounding::Zero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::NearestMaxMagnitude => rest >= HALF,
    }
}

/// Shifts right; bit 0 also stands for all that was shifted out.
#[inline]
pub(super) fn shift_right_sticky(value: u64, by: u32) -> u64 {
    match by {
        0 => value,
        1..64 => value >> by | u64::from(value << (64 - by) != 0),
        _ => u64::from(value != 0),
    }
}

/// Shifts right; bit 0 also stands for all that was shifted out.
#[inline]
pub(super) fn shift_right_sticky_wide(value: u128, by: u32) -> u128 {
    match by {
        0 => value,
        1..128 => value >> by | u128::from(value << (128 - by) != 0),
        _ => u128::from(value != 0),
    }
}
