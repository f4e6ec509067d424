// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's own arithmetic, where it gives what RISC-V asks for.
//!
//! The host rounds to nearest even and its flags are not read: whether a result is inexact is computed from the operands and the result. Everything
//! else that could be raised is excluded beforehand. A function gives `None` when an operand or the result is not ordinary: a NaN,
//! infinite, zero or subnormal (except in sums, which are exact when they are subnormal), or next to that.

use super::{Double, Flags, Single};

/// Operations on ordinary operands, rounded to nearest even.
pub trait Native {
    /// `a + b`.
    fn add(a: u64, b: u64) -> Option<(u64, Flags)>;
    /// `a * b`.
    fn mul(a: u64, b: u64) -> Option<(u64, Flags)>;
    /// `a / b`.
    fn div(a: u64, b: u64) -> Option<(u64, Flags)>;
    /// The square root of `a`.
    fn sqrt(a: u64) -> Option<(u64, Flags)>;
    /// `a * b + c`; `NX` is not told.
    fn fused(a: u64, b: u64, c: u64) -> Option<u64>;
}

/// Whether the host has an instruction for fused operations; without it, the host's library is slower than this one.
#[inline]
fn has_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

macro_rules! native {
    ($format:ident, $float:ident, $bits:ident, $wide:ident, $fraction:literal, $exponent:literal) => {
        impl $format {
            const IMPLICIT: $bits = 1 << $fraction;
            /// The largest biased exponent that is ordinary: two below that of infinity.
            const ORDINARY: $bits = (1 << $exponent) - 3;

            /// Whether the biased exponent is from 2 to [`Self::ORDINARY`].
            #[inline]
            const fn is_ordinary(bits: $bits) -> bool {
                let exponent = bits >> $fraction & ((1 << $exponent) - 1);
                exponent.wrapping_sub(2) <= Self::ORDINARY - 2
            }

            #[inline]
            const fn significand(bits: $bits) -> $wide {
                (bits & (Self::IMPLICIT - 1) | Self::IMPLICIT) as $wide
            }

            #[inline]
            const fn flags(inexact: bool) -> Flags {
                if inexact { Flags::NX } else { Flags::empty() }
            }
        }

        impl Native for $format {
            #[inline]
            fn add(a: u64, b: u64) -> Option<(u64, Flags)> {
                let (a, b) = ($float::from_bits(a as $bits), $float::from_bits(b as $bits));
                let sum = a + b;
                let bits = sum.to_bits();
                if bits >> $fraction & ((1 << $exponent) - 1) > Self::ORDINARY {
                    return None;
                }
                // What the rounding lost, exactly (Knuth's TwoSum): the sum of two floats is exact when it is zero.
                let of_b = sum - a;
                let lost = (a - (sum - of_b)) + (b - of_b);
                Some((bits.into(), Self::flags(lost != 0.0)))
            }

            #[inline]
            fn mul(a: u64, b: u64) -> Option<(u64, Flags)> {
                let (a, b) = (a as $bits, b as $bits);
                let bits = ($float::from_bits(a) * $float::from_bits(b)).to_bits();
                if !Self::is_ordinary(a) || !Self::is_ordinary(b) || !Self::is_ordinary(bits) {
                    return None;
                }
                let product = Self::significand(a) * Self::significand(b);
                let dropped = $fraction + (product >> (2 * $fraction + 1)) as u32;
                let lost = product & ((1 << dropped) - 1);
                Some((bits.into(), Self::flags(lost != 0)))
            }

            #[inline]
            fn div(a: u64, b: u64) -> Option<(u64, Flags)> {
                let (a, b) = (a as $bits, b as $bits);
                let bits = ($float::from_bits(a) / $float::from_bits(b)).to_bits();
                if !Self::is_ordinary(a) || !Self::is_ordinary(b) || !Self::is_ordinary(bits) {
                    return None;
                }
                let (dividend, divisor) = (Self::significand(a), Self::significand(b));
                let shift = $fraction + u32::from(dividend < divisor);
                let product = Self::significand(bits) * divisor;
                Some((bits.into(), Self::flags(product != dividend << shift)))
            }

            #[inline]
            fn sqrt(a: u64) -> Option<(u64, Flags)> {
                let a = a as $bits;
                if !Self::is_ordinary(a) || a >> ($fraction + $exponent) != 0 {
                    return None;
                }
                let bits = $float::from_bits(a).sqrt().to_bits();
                // The bias is odd: an even biased exponent is an odd exponent.
                let shift = $fraction + (!(a >> $fraction) & 1) as u32;
                let root = Self::significand(bits);
                let inexact = root * root != Self::significand(a) << shift;
                Some((bits.into(), Self::flags(inexact)))
            }

            #[inline]
            fn fused(a: u64, b: u64, c: u64) -> Option<u64> {
                if !has_fused() {
                    return None;
                }
                let [a, b, c] = [a, b, c].map(|bits| $float::from_bits(bits as $bits));
                let bits = a.mul_add(b, c).to_bits();
                // An ordinary result is neither invalid nor an overflow nor tiny.
                Self::is_ordinary(bits).then_some(bits.into())
            }
        }
    };
}

native!(Single, f32, u32, u64, 23, 8);
native!(Double, f64, u64, u128, 52, 11);
