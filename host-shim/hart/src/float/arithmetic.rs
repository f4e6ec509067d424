// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Add, subtract, multiply, divide, square root and the fused operations.
//!
//! Each operation tries [`native`](super::native) first, then sorts out NaNs, infinities and zeros, then computes the exact result as a
//! [`Number`] with a sticky bit and rounds once.

use super::round::{Number, shift_right_sticky, shift_right_sticky_wide};
use super::{Flags, Format, Rounding};

/// `fadd`: `a + b`.
#[inline]
pub fn add<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    if rounding == Rounding::NearestEven
        && let Some(sum) = F::add(a, b)
    {
        return sum;
    }
    add_exactly::<F>(a, b, rounding)
}

/// `fsub`: `a - b`.
#[inline]
pub fn sub<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    add::<F>(a, b ^ F::SIGN, rounding)
}

/// `fmul`: `a * b`.
#[inline]
pub fn mul<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    if rounding == Rounding::NearestEven
        && let Some(product) = F::mul(a, b)
    {
        return product;
    }
    mul_exactly::<F>(a, b, rounding)
}

/// `fdiv`: `a / b`.
#[inline]
pub fn div<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    if rounding == Rounding::NearestEven
        && let Some(quotient) = F::div(a, b)
    {
        return quotient;
    }
    div_exactly::<F>(a, b, rounding)
}

/// `fsqrt`: the square root of `a`.
#[inline]
pub fn sqrt<F: Format>(a: u64, rounding: Rounding) -> (u64, Flags) {
    if rounding == Rounding::NearestEven
        && let Some(root) = F::sqrt(a)
    {
        return root;
    }
    sqrt_exactly::<F>(a, rounding)
}

/// `fmadd`: `a * b + c`, rounded once. `accrued` are flags that are set already: of these the result tells only some.
#[inline]
pub fn fmadd<F: Format>(
    a: u64,
    b: u64,
    c: u64,
    rounding: Rounding,
    accrued: Flags,
) -> (u64, Flags) {
    fused::<F>(a, b, c, rounding, accrued)
}

/// `fmsub`: `a * b - c`, rounded once; see [`fmadd`].
#[inline]
pub fn fmsub<F: Format>(
    a: u64,
    b: u64,
    c: u64,
    rounding: Rounding,
    accrued: Flags,
) -> (u64, Flags) {
    fused::<F>(a, b, c ^ F::SIGN, rounding, accrued)
}

/// `fnmsub`: `-(a * b) + c`, rounded once; see [`fmadd`].
#[inline]
pub fn fnmsub<F: Format>(
    a: u64,
    b: u64,
    c: u64,
    rounding: Rounding,
    accrued: Flags,
) -> (u64, Flags) {
    fused::<F>(a ^ F::SIGN, b, c, rounding, accrued)
}

/// `fnmadd`: `-(a * b) - c`, rounded once; see [`fmadd`].
#[inline]
pub fn fnmadd<F: Format>(
    a: u64,
    b: u64,
    c: u64,
    rounding: Rounding,
    accrued: Flags,
) -> (u64, Flags) {
    fused::<F>(a ^ F::SIGN, b, c ^ F::SIGN, rounding, accrued)
}

/// The result of an operation that has a NaN among its operands.
fn nan<F: Format>(operands: &[u64], invalid: bool) -> (u64, Flags) {
    let invalid = invalid || operands.iter().any(|&operand| F::is_signalling(operand));
    (F::NAN, if invalid { Flags::NV } else { Flags::empty() })
}

/// An exact zero that is the sum of two numbers of opposite sign.
fn cancelled<F: Format>(rounding: Rounding) -> (u64, Flags) {
    let sign = if rounding == Rounding::Down {
        F::SIGN
    } else {
        0
    };
    (sign, Flags::empty())
}

fn add_exactly<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    let (magnitude_a, magnitude_b) = (a & !F::SIGN, b & !F::SIGN);
    let opposite = (a ^ b) & F::SIGN != 0;
    if magnitude_a >= F::INFINITY || magnitude_b >= F::INFINITY {
        if F::is_nan(a) || F::is_nan(b) {
            return nan::<F>(&[a, b], false);
        }
        if magnitude_a == magnitude_b && opposite {
            return (F::NAN, Flags::NV);
        }
        let infinity = if magnitude_a == F::INFINITY { a } else { b };
        return (infinity, Flags::empty());
    }
    match (magnitude_a, magnitude_b) {
        (0, 0) if opposite => return cancelled::<F>(rounding),
        (_, 0) => return (a, Flags::empty()),
        (0, _) => return (b, Flags::empty()),
        _ => {}
    }

    // The larger one first. One bit is made free for the carry; a significand of 53 bits has eleven to spare.
    let (large, small) = if magnitude_a >= magnitude_b {
        (a, b)
    } else {
        (b, a)
    };
    let (large, small) = (Number::unpack::<F>(large), Number::unpack::<F>(small));
    let shift = (large.exponent - small.exponent) as u32;
    let addend = shift_right_sticky(small.significand >> 1, shift);
    let significand = if opposite {
        (large.significand >> 1) - addend
    } else {
        (large.significand >> 1) + addend
    };
    if significand == 0 {
        return cancelled::<F>(rounding);
    }
    Number::normalize(large.negative, large.exponent + 1, significand, false).round::<F>(rounding)
}

fn mul_exactly<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    let sign = (a ^ b) & F::SIGN;
    let (magnitude_a, magnitude_b) = (a & !F::SIGN, b & !F::SIGN);
    let zero = magnitude_a == 0 || magnitude_b == 0;
    if magnitude_a >= F::INFINITY || magnitude_b >= F::INFINITY {
        if F::is_nan(a) || F::is_nan(b) {
            return nan::<F>(&[a, b], false);
        }
        if zero {
            return (F::NAN, Flags::NV);
        }
        return (sign | F::INFINITY, Flags::empty());
    }
    if zero {
        return (sign, Flags::empty());
    }
    let (a, b) = (Number::unpack::<F>(a), Number::unpack::<F>(b));
    let product = u128::from(a.significand) * u128::from(b.significand);
    Number::normalize_wide(sign != 0, a.exponent + b.exponent + 1, product).round::<F>(rounding)
}

fn div_exactly<F: Format>(a: u64, b: u64, rounding: Rounding) -> (u64, Flags) {
    let sign = (a ^ b) & F::SIGN;
    let (magnitude_a, magnitude_b) = (a & !F::SIGN, b & !F::SIGN);
    if F::is_nan(a) || F::is_nan(b) {
        return nan::<F>(&[a, b], false);
    }
    if magnitude_a == magnitude_b && (magnitude_a == 0 || magnitude_a == F::INFINITY) {
        return (F::NAN, Flags::NV);
    }
    if magnitude_a == F::INFINITY {
        return (sign | F::INFINITY, Flags::empty());
    }
    if magnitude_b == 0 {
        return (sign | F::INFINITY, Flags::DZ);
    }
    if magnitude_a == 0 || magnitude_b == F::INFINITY {
        return (sign, Flags::empty());
    }
    let (a, b) = (Number::unpack::<F>(a), Number::unpack::<F>(b));
    // The quotient of the significands is in (1/2, 2), so this one has 63 or 64 bits.
    let dividend = u128::from(a.significand) << 63;
    let divisor = u128::from(b.significand);
    let quotient = (dividend / divisor) as u64;
    let sticky = dividend != u128::from(quotient) * divisor;
    Number::normalize(sign != 0, a.exponent - b.exponent, quotient, sticky).round::<F>(rounding)
}

fn sqrt_exactly<F: Format>(a: u64, rounding: Rounding) -> (u64, Flags) {
    if F::is_nan(a) {
        return nan::<F>(&[a], false);
    }
    if a & !F::SIGN == 0 || a == F::INFINITY {
        return (a, Flags::empty());
    }
    if a & F::SIGN != 0 {
        return (F::NAN, Flags::NV);
    }
    let a = Number::unpack::<F>(a);
    // An even exponent, so that it can be halved; the root then has 64 bits.
    let odd = a.exponent & 1;
    let square = u128::from(a.significand) << (63 + odd);
    let root = square.isqrt();
    let sticky = root * root != square;
    Number::normalize(false, (a.exponent - odd) / 2, root as u64, sticky).round::<F>(rounding)
}

#[inline]
fn fused<F: Format>(a: u64, b: u64, c: u64, rounding: Rounding, accrued: Flags) -> (u64, Flags) {
    if rounding == Rounding::NearestEven
        && accrued.contains(Flags::NX)
        && let Some(result) = F::fused(a, b, c)
    {
        return (result, Flags::empty());
    }
    fused_exactly::<F>(a, b, c, rounding)
}

fn fused_exactly<F: Format>(a: u64, b: u64, c: u64, rounding: Rounding) -> (u64, Flags) {
    let sign = (a ^ b) & F::SIGN;
    let (magnitude_a, magnitude_b, magnitude_c) = (a & !F::SIGN, b & !F::SIGN, c & !F::SIGN);
    let opposite = (sign ^ c) & F::SIGN != 0;
    let zero = magnitude_a == 0 || magnitude_b == 0;
    if magnitude_a >= F::INFINITY || magnitude_b >= F::INFINITY || magnitude_c >= F::INFINITY {
        let infinite = magnitude_a == F::INFINITY || magnitude_b == F::INFINITY;
        if F::is_nan(a) || F::is_nan(b) || F::is_nan(c) {
            return nan::<F>(&[a, b, c], infinite && zero);
        }
        if infinite && (zero || (magnitude_c == F::INFINITY && opposite)) {
            return (F::NAN, Flags::NV);
        }
        let infinity = if infinite { sign | F::INFINITY } else { c };
        return (infinity, Flags::empty());
    }
    if zero {
        return match magnitude_c {
            0 if opposite => cancelled::<F>(rounding),
            _ => (c, Flags::empty()),
        };
    }

    let (a, b) = (Number::unpack::<F>(a), Number::unpack::<F>(b));
    let product = u128::from(a.significand) * u128::from(b.significand);
    let mut exponent = a.exponent + b.exponent + 1;
    if magnitude_c == 0 {
        return Number::normalize_wide(sign != 0, exponent, product).round::<F>(rounding);
    }

    // Both with bit 126 as their highest one, which leaves a bit for the carry. The product has at least 22 zeros at its end.
    let top = product.leading_zeros();
    let product = product << top >> 1;
    exponent -= top as i32;
    let addend = Number::unpack::<F>(c);
    let wide = u128::from(addend.significand) << 63;
    let shift = exponent - addend.exponent;
    let (product, wide) = if shift >= 0 {
        (product, shift_right_sticky_wide(wide, shift as u32))
    } else {
        exponent = addend.exponent;
        (shift_right_sticky_wide(product, shift.unsigned_abs()), wide)
    };
    let (negative, significand) = if !opposite {
        (sign != 0, product + wide)
    } else if product >= wide {
        (sign != 0, product - wide)
    } else {
        (sign == 0, wide - product)
    };
    if significand == 0 {
        return cancelled::<F>(rounding);
    }
    Number::normalize_wide(negative, exponent + 1, significand).round::<F>(rounding)
}
