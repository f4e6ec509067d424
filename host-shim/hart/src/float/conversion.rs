// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Conversions to and from integers, and between the formats.

use super::round::{Number, rounds_up, shift_right_sticky_wide};
use super::{Double, Flags, Format, Rounding, Single};

/// `fcvt.w`.
#[inline]
pub fn to_i32<F: Format>(a: u64, rounding: Rounding) -> (i32, Flags) {
    let (value, flags) = to_integer::<F>(a, rounding, i32::MIN.into(), i32::MAX.into());
    (value as i32, flags)
}

/// `fcvt.wu`. The instruction sign-extends the result.
#[inline]
pub fn to_u32<F: Format>(a: u64, rounding: Rounding) -> (u32, Flags) {
    let (value, flags) = to_integer::<F>(a, rounding, 0, u32::MAX.into());
    (value as u32, flags)
}

/// `fcvt.l`.
#[inline]
pub fn to_i64<F: Format>(a: u64, rounding: Rounding) -> (i64, Flags) {
    let (value, flags) = to_integer::<F>(a, rounding, i64::MIN.into(), i64::MAX.into());
    (value as i64, flags)
}

/// `fcvt.lu`.
#[inline]
pub fn to_u64<F: Format>(a: u64, rounding: Rounding) -> (u64, Flags) {
    let (value, flags) = to_integer::<F>(a, rounding, 0, u64::MAX.into());
    (value as u64, flags)
}

/// Conversion from `w`.
#[inline]
pub fn from_i32<F: Format>(a: i32, rounding: Rounding) -> (u64, Flags) {
    from_integer::<F>(a < 0, a.unsigned_abs().into(), rounding)
}

/// Conversion from `wu`.
#[inline]
pub fn from_u32<F: Format>(a: u32, rounding: Rounding) -> (u64, Flags) {
    from_integer::<F>(false, a.into(), rounding)
}

/// Conversion from `l`.
#[inline]
pub fn from_i64<F: Format>(a: i64, rounding: Rounding) -> (u64, Flags) {
    from_integer::<F>(a < 0, a.unsigned_abs(), rounding)
}

/// Conversion from `lu`.
#[inline]
pub fn from_u64<F: Format>(a: u64, rounding: Rounding) -> (u64, Flags) {
    from_integer::<F>(false, a, rounding)
}

/// `fcvt.s.d`: a [`Double`] as a [`Single`].
#[inline]
pub fn narrow(a: u64, rounding: Rounding) -> (u64, Flags) {
    convert::<Double, Single>(a, rounding)
}

/// `fcvt.d.s`: a [`Single`] as a [`Double`]; always exact.
#[inline]
pub fn widen(a: u64) -> (u64, Flags) {
    convert::<Single, Double>(a, Rounding::NearestEven)
}

fn convert<From: Format, To: Format>(a: u64, rounding: Rounding) -> (u64, Flags) {
    let magnitude = a & !From::SIGN;
    let sign = if a & From::SIGN != 0 { To::SIGN } else { 0 };
    if From::is_nan(a) {
        let invalid = From::is_signalling(a);
        return (To::NAN, if invalid { Flags::NV } else { Flags::empty() });
    }
    match magnitude {
        0 => (sign, Flags::empty()),
        magnitude if magnitude == From::INFINITY => (sign | To::INFINITY, Flags::empty()),
        _ => Number::unpack::<From>(a).round::<To>(rounding),
    }
}

#[inline]
fn from_integer<F: Format>(negative: bool, magnitude: u64, rounding: Rounding) -> (u64, Flags) {
    if magnitude == 0 {
        return (0, Flags::empty());
    }
    Number::normalize(negative, 63, magnitude, false).round::<F>(rounding)
}

/// The integer from `least` to `most` that is nearest in the direction of the rounding.
#[inline]
fn to_integer<F: Format>(a: u64, rounding: Rounding, least: i128, most: i128) -> (i128, Flags) {
    let magnitude = a & !F::SIGN;
    let negative = a & F::SIGN != 0;
    if magnitude >= F::INFINITY {
        let saturated = if negative && !F::is_nan(a) {
            least
        } else {
            most
        };
        return (saturated, Flags::NV);
    }
    if magnitude == 0 {
        return (0, Flags::empty());
    }
    let number = Number::unpack::<F>(a);
    if number.exponent > 63 {
        return (if negative { least } else { most }, Flags::NV);
    }
    // Integer part above bit 64, fraction below.
    let fixed = shift_right_sticky_wide(
        u128::from(number.significand) << 64,
        (63 - number.exponent) as u32,
    );
    let (whole, rest) = ((fixed >> 64) as i128, fixed as u64);
    let whole = whole + i128::from(rounds_up(rounding, negative, whole & 1 != 0, rest));
    let value = if negative { -whole } else { whole };
    if value < least || value > most {
        return (if negative { least } else { most }, Flags::NV);
    }
    let flags = if rest != 0 { Flags::NX } else { Flags::empty() };
    (value, flags)
}
