// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Comparisons, minimum and maximum, classification.

use super::{Flags, Format};

/// `feq`: whether `a == b`. A quiet comparison: only a signalling NaN is invalid.
#[inline]
pub fn feq<F: Format>(a: u64, b: u64) -> (bool, Flags) {
    if F::is_nan(a) || F::is_nan(b) {
        return (false, signalling::<F>(a, b));
    }
    (a == b || (a | b) & !F::SIGN == 0, Flags::empty())
}

/// `flt`: whether `a < b`. Every NaN is invalid.
#[inline]
pub fn flt<F: Format>(a: u64, b: u64) -> (bool, Flags) {
    if F::is_nan(a) || F::is_nan(b) {
        return (false, Flags::NV);
    }
    let zeros = (a | b) & !F::SIGN == 0;
    (!zeros && order::<F>(a) < order::<F>(b), Flags::empty())
}

/// `fle`: whether `a <= b`. Every NaN is invalid.
#[inline]
pub fn fle<F: Format>(a: u64, b: u64) -> (bool, Flags) {
    if F::is_nan(a) || F::is_nan(b) {
        return (false, Flags::NV);
    }
    let zeros = (a | b) & !F::SIGN == 0;
    (zeros || order::<F>(a) <= order::<F>(b), Flags::empty())
}

/// `fmin`: the smaller one; -0 is smaller than +0; the number if the other one is a NaN.
#[inline]
pub fn min<F: Format>(a: u64, b: u64) -> (u64, Flags) {
    select::<F>(a, b, order::<F>(a) <= order::<F>(b))
}

/// `fmax`: the larger one; +0 is larger than -0; the number if the other one is a NaN.
#[inline]
pub fn max<F: Format>(a: u64, b: u64) -> (u64, Flags) {
    select::<F>(a, b, order::<F>(a) >= order::<F>(b))
}

/// `fclass`: one bit for the class: from bit 0 -inf, negative normal, negative subnormal, -0, +0, positive subnormal, positive
/// normal, +inf, signalling NaN, quiet NaN.
#[inline]
pub fn classify<F: Format>(a: u64) -> u64 {
    let negative = a & F::SIGN != 0;
    let (negative_bit, positive_bit) = match a & !F::SIGN {
        0 => (3, 4),
        magnitude if magnitude < F::MIN_NORMAL => (2, 5),
        magnitude if magnitude < F::INFINITY => (1, 6),
        magnitude if magnitude == F::INFINITY => (0, 7),
        magnitude if magnitude & F::QUIET == 0 => (8, 8),
        _ => (9, 9),
    };
    1 << if negative { negative_bit } else { positive_bit }
}

/// A number that is ordered as the values are, with -0 below +0; for values that are not NaN.
#[inline]
fn order<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & !F::SIGN) as i64;
    if bits & F::SIGN != 0 {
        !magnitude
    } else {
        magnitude
    }
}

#[inline]
fn signalling<F: Format>(a: u64, b: u64) -> Flags {
    if F::is_signalling(a) || F::is_signalling(b) {
        Flags::NV
    } else {
        Flags::empty()
    }
}

#[inline]
fn select<F: Format>(a: u64, b: u64, first: bool) -> (u64, Flags) {
    let flags = signalling::<F>(a, b);
    let selected = match (F::is_nan(a), F::is_nan(b)) {
        (true, true) => F::NAN,
        (true, false) => b,
        (false, true) => a,
        (false, false) => {
            if first {
                a
            } else {
                b
            }
        }
    };
    (selected, flags)
}
