// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The arithmetic against exact rational arithmetic on big integers, which shares nothing with it, for all rounding modes and flags; and
//! against the host's instructions for many more operands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use std::cmp::Ordering;

use capstream_hart::float::{self, Double, Flags, Format, Rounding, Single};
use num_bigint::{BigInt, BigUint, Sign};

/// An exact value: `numerator / denominator * 2^exponent`, or the square root of that.
#[derive(Clone, Debug)]
struct Exact {
    numerator: BigUint,
    denominator: BigUint,
    exponent: i64,
    negative: bool,
    root: bool,
}

impl Exact {
    fn dyadic(value: &BigInt, exponent: i64) -> Exact {
        Exact {
            numerator: value.magnitude().clone(),
            denominator: BigUint::from(1u8),
            exponent,
            negative: value.sign() == Sign::Minus,
            root: false,
        }
    }

    fn scaled(&self, by: i64) -> Exact {
        let by = if self.root { 2 * by } else { by };
        Exact {
            exponent: self.exponent + by,
            ..self.clone()
        }
    }

    /// Compares the magnitude with `mantissa * 2^exponent`.
    fn compare(&self, mantissa: u64, exponent: i64) -> Ordering {
        let (mut other, mut other_exponent) = (BigUint::from(mantissa), exponent);
        if self.root {
            other = &other * &other;
            other_exponent *= 2;
        }
        other *= &self.denominator;
        let least = self.exponent.min(other_exponent);
        (&self.numerator << (self.exponent - least)).cmp(&(other << (other_exponent - least)))
    }
}

/// The value of the magnitude bits as `mantissa * 2^exponent`, infinity as the next power of two.
fn parts<F: Format>(magnitude: u64) -> (u64, i64) {
    let biased = (magnitude >> F::FRACTION) as i64;
    let fraction = magnitude & ((1 << F::FRACTION) - 1);
    let least = 1 - i64::from(F::BIAS) - i64::from(F::FRACTION);
    if biased == 0 {
        (fraction, least)
    } else {
        (fraction | 1 << F::FRACTION, least + biased - 1)
    }
}

fn integer<F: Format>(bits: u64) -> (BigInt, i64) {
    let (mantissa, exponent) = parts::<F>(bits & !F::SIGN);
    let value = BigInt::from(mantissa);
    (if bits & F::SIGN != 0 { -value } else { value }, exponent)
}

/// The largest magnitude that is not above the exact one, and how the exact one compares with the middle between that and the next.
fn enclose<F: Format>(exact: &Exact) -> (u64, bool, Ordering) {
    let (mut low, mut high) = (0, F::INFINITY);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let (mantissa, exponent) = parts::<F>(middle);
        if exact.compare(mantissa, exponent) == Ordering::Less {
            high = middle;
        } else {
            low = middle;
        }
    }
    let (mantissa, exponent) = parts::<F>(low);
    let inexact = exact.compare(mantissa, exponent) != Ordering::Equal;
    (low, inexact, exact.compare(2 * mantissa + 1, exponent - 1))
}

fn choose(low: u64, inexact: bool, middle: Ordering, negative: bool, rounding: Rounding) -> u64 {
    let up = inexact
        && match rounding {
            Rounding::NearestEven => {
                middle == Ordering::Greater || (middle == Ordering::Equal && low & 1 == 1)
            }
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
            Rounding::NearestMaxMagnitude => middle != Ordering::Less,
        };
    low + u64::from(up)
}

/// What the exact value, which is not zero, becomes in each rounding mode.
fn rounded<F: Format>(exact: &Exact) -> [(u64, Flags); 5] {
    let (low, inexact, middle) = enclose::<F>(exact);
    let small = low < 2 * F::MIN_NORMAL;
    let shift = i64::from(F::FRACTION) + 10;
    let scaled = small.then(|| enclose::<F>(&exact.scaled(shift)));
    Rounding::ALL.map(|rounding| {
        let mut flags = Flags::empty();
        flags.set(Flags::NX, inexact);
        let mut magnitude = choose(low, inexact, middle, exact.negative, rounding);
        if magnitude == F::INFINITY {
            flags |= Flags::OF | Flags::NX;
        }
        // Above the middle between the largest number and the next power of two is still "towards zero" the largest.
        if low == F::INFINITY - 1 && inexact {
            let (mantissa, exponent) = parts::<F>(F::INFINITY);
            if exact.compare(mantissa, exponent) != Ordering::Less {
                flags |= Flags::OF | Flags::NX;
            }
            if magnitude != F::INFINITY && flags.contains(Flags::OF) {
                magnitude = F::INFINITY - 1;
            }
        }
        if let Some((low, inexact_scaled, middle)) = scaled {
            let unbounded = choose(low, inexact_scaled, middle, exact.negative, rounding);
            let limit = F::MIN_NORMAL + ((shift as u64) << F::FRACTION);
            flags.set(Flags::UF, inexact && unbounded < limit);
        }
        let sign = if exact.negative { F::SIGN } else { 0 };
        (sign | magnitude, flags)
    })
}

/// Pseudo-random numbers: a xorshift, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Operands where things happen: exponents at the ends and close together, fractions of few bits or of almost all ones.
    fn operand<F: Format>(&mut self) -> u64 {
        let sign = if self.next() & 1 != 0 { F::SIGN } else { 0 };
        let fraction_mask = F::MIN_NORMAL - 1;
        let max = F::MAX_EXPONENT as u64;
        let bias = F::BIAS as u64;
        let exponent = match self.below(10) {
            0 => 0,
            1 => 1 + self.below(3),
            2 => max - 1 - self.below(3),
            3 => max,
            4 | 5 => bias - 3 + self.below(7),
            6 => bias / 2 - 3 + self.below(7),
            7 => bias + self.below(70),
            _ => self.below(max),
        };
        let fraction = match self.below(7) {
            0 => 0,
            1 => 1 << self.below(F::FRACTION.into()),
            2 => fraction_mask,
            3 => fraction_mask ^ 1 << self.below(F::FRACTION.into()),
            4 => self.next() << self.below(F::FRACTION.into()),
            5 => (1 << self.below(F::FRACTION.into())) - 1,
            _ => self.next(),
        } & fraction_mask;
        sign | exponent << F::FRACTION | fraction
    }
}

fn is_special<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN >= F::INFINITY
}

fn is_zero<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN == 0
}

fn sum((a, a_exponent): (BigInt, i64), (b, b_exponent): (BigInt, i64)) -> (BigInt, i64) {
    let least = a_exponent.min(b_exponent);
    (
        (a << (a_exponent - least)) + (b << (b_exponent - least)),
        least,
    )
}

/// No flag is set before.
const NONE: Flags = Flags::empty();

/// The exact results where an operation on finite operands has one that is not zero.
type Operation = (
    &'static str,
    fn(u64, u64, u64, Rounding) -> (u64, Flags),
    fn(u64, u64, u64) -> Option<Exact>,
);

fn dyadic((value, exponent): (BigInt, i64)) -> Option<Exact> {
    (value.sign() != Sign::NoSign).then(|| Exact::dyadic(&value, exponent))
}

fn product<F: Format>(a: u64, b: u64) -> (BigInt, i64) {
    let ((a, a_exponent), (b, b_exponent)) = (integer::<F>(a), integer::<F>(b));
    (a * b, a_exponent + b_exponent)
}

fn operations<F: Format>() -> Vec<Operation> {
    vec![
        (
            "add",
            |a, b, _, rm| float::add::<F>(a, b, rm),
            |a, b, _| dyadic(sum(integer::<F>(a), integer::<F>(b))),
        ),
        (
            "sub",
            |a, b, _, rm| float::sub::<F>(a, b, rm),
            |a, b, _| dyadic(sum(integer::<F>(a), integer::<F>(b ^ F::SIGN))),
        ),
        (
            "mul",
            |a, b, _, rm| float::mul::<F>(a, b, rm),
            |a, b, _| dyadic(product::<F>(a, b)),
        ),
        (
            "div",
            |a, b, _, rm| float::div::<F>(a, b, rm),
            |a, b, _| {
                let ((a, a_exponent), (b, b_exponent)) = (integer::<F>(a), integer::<F>(b));
                (a.sign() != Sign::NoSign && b.sign() != Sign::NoSign).then(|| Exact {
                    denominator: b.magnitude().clone(),
                    negative: a.sign() != b.sign(),
                    ..Exact::dyadic(&a, a_exponent - b_exponent)
                })
            },
        ),
        (
            "sqrt",
            |a, _, _, rm| float::sqrt::<F>(a, rm),
            |a, _, _| {
                let (a, exponent) = integer::<F>(a);
                (a.sign() == Sign::Plus).then(|| Exact {
                    root: true,
                    ..Exact::dyadic(&a, exponent)
                })
            },
        ),
        (
            "fmadd",
            |a, b, c, rm| float::fmadd::<F>(a, b, c, rm, NONE),
            |a, b, c| dyadic(sum(product::<F>(a, b), integer::<F>(c))),
        ),
        (
            "fmsub",
            |a, b, c, rm| float::fmsub::<F>(a, b, c, rm, NONE),
            |a, b, c| dyadic(sum(product::<F>(a, b), integer::<F>(c ^ F::SIGN))),
        ),
        (
            "fnmsub",
            |a, b, c, rm| float::fnmsub::<F>(a, b, c, rm, NONE),
            |a, b, c| dyadic(sum(product::<F>(a ^ F::SIGN, b), integer::<F>(c))),
        ),
        (
            "fnmadd",
            |a, b, c, rm| float::fnmadd::<F>(a, b, c, rm, NONE),
            |a, b, c| dyadic(sum(product::<F>(a ^ F::SIGN, b), integer::<F>(c ^ F::SIGN))),
        ),
    ]
}

fn against_exact<F: Format>(name: &str, seed: u64, count: u32) {
    let mut random = Random(seed);
    let (_, run, exact) = operations::<F>()
        .into_iter()
        .find(|operation| operation.0 == name)
        .unwrap();
    let mut checked = 0;
    while checked < count {
        let a = random.operand::<F>();
        let mut b = random.operand::<F>();
        let mut c = random.operand::<F>();
        match random.below(8) {
            // Almost the same, for cancellation.
            0 => b = a ^ F::SIGN ^ random.below(4),
            1 => b = a,
            2 => c = float::mul::<F>(a, b, Rounding::Down).0 ^ F::SIGN ^ random.below(4),
            _ => {}
        }
        if is_special::<F>(a) || is_special::<F>(b) || is_special::<F>(c) {
            continue;
        }
        let Some(value) = exact(a, b, c) else {
            continue;
        };
        checked += 1;
        for (rounding, expected) in Rounding::ALL.into_iter().zip(rounded::<F>(&value)) {
            let found = run(a, b, c, rounding);
            assert_eq!(
                found, expected,
                "{name} {a:#x} {b:#x} {c:#x} {rounding:?}: {:#x} and not {:#x}",
                found.0, expected.0
            );
        }
    }
}

macro_rules! exact {
    ($($test:ident: $name:literal;)*) => {$(
        #[test]
        fn $test() {
            against_exact::<Double>($name, 0x1234_5678_9abc_def1, 6000);
            against_exact::<Single>($name, 0xfedc_ba98_7654_3211, 20000);
        }
    )*};
}

exact! {
    sums_are_exact_and_rounded_once: "add";
    differences_are_exact_and_rounded_once: "sub";
    products_are_exact_and_rounded_once: "mul";
    quotients_are_exact_and_rounded_once: "div";
    roots_are_exact_and_rounded_once: "sqrt";
    fmadd_is_exact_and_rounded_once: "fmadd";
    fmsub_is_exact_and_rounded_once: "fmsub";
    fnmsub_is_exact_and_rounded_once: "fnmsub";
    fnmadd_is_exact_and_rounded_once: "fnmadd";
}

/// The bits of a result on the host, whose NaNs have other bits.
fn canonical<F: Format>(bits: u64) -> u64 {
    if F::is_nan(bits) { F::NAN } else { bits }
}

#[test]
fn nearest_even_gives_the_bits_that_the_host_gives() {
    let mut random = Random(0x0dd0_b1a5_e5ba_11ad);
    for _ in 0..400_000 {
        let (a, b, c) = (
            random.operand::<Double>(),
            random.operand::<Double>(),
            random.operand::<Double>(),
        );
        let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
        let rm = Rounding::NearestEven;
        for (name, found, host) in [
            ("add", float::add::<Double>(a, b, rm).0, x + y),
            ("sub", float::sub::<Double>(a, b, rm).0, x - y),
            ("mul", float::mul::<Double>(a, b, rm).0, x * y),
            ("div", float::div::<Double>(a, b, rm).0, x / y),
            ("sqrt", float::sqrt::<Double>(a, rm).0, x.sqrt()),
            (
                "fmadd",
                float::fmadd::<Double>(a, b, c, rm, NONE).0,
                x.mul_add(y, z),
            ),
        ] {
            assert_eq!(
                found,
                canonical::<Double>(host.to_bits()),
                "{name} {x:e} {y:e} {z:e}"
            );
        }
        let (a, b, c) = (
            random.operand::<Single>(),
            random.operand::<Single>(),
            random.operand::<Single>(),
        );
        let (x, y, z) = (
            f32::from_bits(a as u32),
            f32::from_bits(b as u32),
            f32::from_bits(c as u32),
        );
        for (name, found, host) in [
            ("add", float::add::<Single>(a, b, rm).0, x + y),
            ("sub", float::sub::<Single>(a, b, rm).0, x - y),
            ("mul", float::mul::<Single>(a, b, rm).0, x * y),
            ("div", float::div::<Single>(a, b, rm).0, x / y),
            ("sqrt", float::sqrt::<Single>(a, rm).0, x.sqrt()),
            (
                "fmadd",
                float::fmadd::<Single>(a, b, c, rm, NONE).0,
                x.mul_add(y, z),
            ),
        ] {
            assert_eq!(
                found,
                canonical::<Single>(host.to_bits().into()),
                "{name} {x:e} {y:e} {z:e}"
            );
        }
    }
}

fn with_inexact_accrued<F: Format>(seed: u64) {
    let mut random = Random(seed);
    let mut ordinary = 0;
    for _ in 0..400_000 {
        let (a, b) = (random.operand::<F>(), random.operand::<F>());
        let c = match random.below(4) {
            0 => float::mul::<F>(a, b, Rounding::Down).0 ^ F::SIGN ^ random.below(4),
            _ => random.operand::<F>(),
        };
        for (name, compute) in [
            ("fmadd", float::fmadd::<F> as Fused),
            ("fmsub", float::fmsub::<F>),
            ("fnmsub", float::fnmsub::<F>),
            ("fnmadd", float::fnmadd::<F>),
        ] {
            let (bits, flags) = compute(a, b, c, Rounding::NearestEven, NONE);
            let (found, told) = compute(a, b, c, Rounding::NearestEven, Flags::NX);
            assert_eq!(found, bits, "{name} {a:#x} {b:#x} {c:#x}");
            assert_eq!(
                told | Flags::NX,
                flags | Flags::NX,
                "{name} {a:#x} {b:#x} {c:#x}"
            );
            ordinary += u32::from(told != flags);
        }
    }
    // Otherwise this tests nothing, unless the host has no such instruction.
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        ordinary > 100_000,
        std::arch::is_x86_feature_detected!("fma")
    );
    let _ = ordinary;
}

type Fused = fn(u64, u64, u64, Rounding, Flags) -> (u64, Flags);

#[test]
fn fused_operations_need_not_tell_again_that_they_are_inexact() {
    with_inexact_accrued::<Double>(0x5eed_5eed_5eed_5eed);
    with_inexact_accrued::<Single>(0x1dea_1dea_1dea_1dea);
}

const D: fn(f64) -> u64 = f64::to_bits;
const NAN: u64 = 0x7ff8_0000_0000_0000;
/// A signalling NaN.
const SNAN: u64 = 0x7ff0_0000_0000_0001;
/// A quiet NaN with a sign and a payload.
const QNAN: u64 = 0xfff8_0000_0000_1234;

#[test]
fn invalid_operations_give_the_canonical_nan() {
    let inf = D(f64::INFINITY);
    let minus_inf = D(f64::NEG_INFINITY);
    for rm in Rounding::ALL {
        let invalid = (NAN, Flags::NV);
        assert_eq!(float::add::<Double>(inf, minus_inf, rm), invalid);
        assert_eq!(float::sub::<Double>(inf, inf, rm), invalid);
        assert_eq!(float::mul::<Double>(D(0.0), minus_inf, rm), invalid);
        assert_eq!(float::div::<Double>(D(0.0), D(-0.0), rm), invalid);
        assert_eq!(float::div::<Double>(inf, minus_inf, rm), invalid);
        assert_eq!(float::sqrt::<Double>(D(-1.0), rm), invalid);
        assert_eq!(float::sqrt::<Double>(minus_inf, rm), invalid);
        assert_eq!(
            float::fmadd::<Double>(inf, D(1.0), minus_inf, rm, NONE),
            invalid
        );
        assert_eq!(float::fmsub::<Double>(inf, D(1.0), inf, rm, NONE), invalid);
        // The addend does not matter when the product has no value.
        assert_eq!(float::fmadd::<Double>(inf, D(0.0), QNAN, rm, NONE), invalid);
        assert_eq!(
            float::fmadd::<Double>(inf, D(0.0), D(1.0), rm, NONE),
            invalid
        );
        let quiet = (NAN, Flags::empty());
        for (operand, expected) in [(QNAN, quiet), (SNAN, invalid)] {
            assert_eq!(float::add::<Double>(operand, D(1.0), rm), expected);
            assert_eq!(float::sub::<Double>(inf, operand, rm), expected);
            assert_eq!(float::mul::<Double>(D(0.0), operand, rm), expected);
            assert_eq!(float::div::<Double>(operand, D(0.0), rm), expected);
            assert_eq!(float::sqrt::<Double>(operand, rm), expected);
            assert_eq!(
                float::fmadd::<Double>(D(1.0), inf, operand, rm, NONE),
                expected
            );
            assert_eq!(
                float::fnmadd::<Double>(operand, D(2.0), D(1.0), rm, NONE),
                expected
            );
        }
    }
    assert_eq!(
        float::narrow(QNAN, Rounding::Down),
        (0x7fc0_0000, Flags::empty())
    );
    assert_eq!(float::narrow(SNAN, Rounding::Up), (0x7fc0_0000, Flags::NV));
    assert_eq!(float::widen(0xff80_0001), (NAN, Flags::NV));
    assert_eq!(float::widen(0xffc0_0001), (NAN, Flags::empty()));
}

#[test]
fn infinities_and_zeros_have_the_signs_of_ieee_754() {
    let inf = D(f64::INFINITY);
    let none = Flags::empty();
    for rm in Rounding::ALL {
        let zero = if rm == Rounding::Down {
            D(-0.0)
        } else {
            D(0.0)
        };
        assert_eq!(float::add::<Double>(D(1.5), D(-1.5), rm), (zero, none));
        assert_eq!(float::add::<Double>(D(0.0), D(-0.0), rm), (zero, none));
        assert_eq!(float::sub::<Double>(D(-0.0), D(-0.0), rm), (zero, none));
        assert_eq!(float::add::<Double>(D(-0.0), D(-0.0), rm), (D(-0.0), none));
        assert_eq!(
            float::fmadd::<Double>(D(2.0), D(3.0), D(-6.0), rm, NONE),
            (zero, none)
        );
        assert_eq!(
            float::fmadd::<Double>(D(0.0), D(3.0), D(-0.0), rm, NONE),
            (zero, none)
        );
        assert_eq!(
            float::fnmadd::<Double>(D(0.0), D(3.0), D(0.0), rm, NONE),
            (D(-0.0), none)
        );
        assert_eq!(float::mul::<Double>(D(0.0), D(-3.0), rm), (D(-0.0), none));
        assert_eq!(float::div::<Double>(D(0.0), D(-3.0), rm), (D(-0.0), none));
        assert_eq!(
            float::div::<Double>(D(3.0), D(f64::NEG_INFINITY), rm),
            (D(-0.0), none)
        );
        assert_eq!(
            float::div::<Double>(D(3.0), D(-0.0), rm),
            (D(f64::NEG_INFINITY), Flags::DZ)
        );
        assert_eq!(float::div::<Double>(inf, D(0.0), rm), (inf, none));
        assert_eq!(float::sqrt::<Double>(D(-0.0), rm), (D(-0.0), none));
        assert_eq!(float::sqrt::<Double>(inf, rm), (inf, none));
        assert_eq!(float::add::<Double>(inf, D(-1.0), rm), (inf, none));
        assert_eq!(
            float::fmadd::<Double>(D(1.0), D(1.0), inf, rm, NONE),
            (inf, none)
        );
        assert_eq!(float::widen(0xff80_0000), (D(f64::NEG_INFINITY), none));
        assert_eq!(float::widen(0x8000_0000), (D(-0.0), none));
        assert_eq!(float::narrow(D(-0.0), rm), (0x8000_0000, none));
    }
}

#[test]
fn comparisons_signal_as_their_kind_says() {
    let none = Flags::empty();
    for (a, b, equal, less) in [
        (1.0, 2.0, false, true),
        (2.0, 1.0, false, false),
        (-1.0, 1.0, false, true),
        (-2.0, -1.0, false, true),
        (-1.0, -2.0, false, false),
        (0.0, -0.0, true, false),
        (-0.0, 0.0, true, false),
        (f64::NEG_INFINITY, -f64::MAX, false, true),
        (f64::INFINITY, f64::INFINITY, true, false),
        (-f64::from_bits(1), f64::from_bits(1), false, true),
    ] {
        let (a, b) = (D(a), D(b));
        assert_eq!(float::feq::<Double>(a, b), (equal, none), "{a:#x} {b:#x}");
        assert_eq!(float::flt::<Double>(a, b), (less, none), "{a:#x} {b:#x}");
        assert_eq!(
            float::fle::<Double>(a, b),
            (equal || less, none),
            "{a:#x} {b:#x}"
        );
    }
    for (a, b) in [(QNAN, D(1.0)), (D(1.0), QNAN), (QNAN, QNAN)] {
        assert_eq!(float::feq::<Double>(a, b), (false, none));
        assert_eq!(float::flt::<Double>(a, b), (false, Flags::NV));
        assert_eq!(float::fle::<Double>(a, b), (false, Flags::NV));
    }
    assert_eq!(float::feq::<Double>(SNAN, D(1.0)), (false, Flags::NV));
    assert_eq!(float::feq::<Double>(D(1.0), SNAN), (false, Flags::NV));
}

#[test]
fn minimum_and_maximum_prefer_numbers() {
    let none = Flags::empty();
    let (min, max) = (float::min::<Double>, float::max::<Double>);
    assert_eq!(min(D(1.0), D(-2.0)), (D(-2.0), none));
    assert_eq!(max(D(1.0), D(-2.0)), (D(1.0), none));
    for (a, b) in [(D(0.0), D(-0.0)), (D(-0.0), D(0.0))] {
        assert_eq!(min(a, b), (D(-0.0), none));
        assert_eq!(max(a, b), (D(0.0), none));
    }
    for operation in [min, max] {
        assert_eq!(operation(QNAN, D(1.0)), (D(1.0), none));
        assert_eq!(operation(D(1.0), QNAN), (D(1.0), none));
        assert_eq!(operation(SNAN, D(1.0)), (D(1.0), Flags::NV));
        assert_eq!(operation(D(1.0), SNAN), (D(1.0), Flags::NV));
        assert_eq!(operation(QNAN, QNAN), (NAN, none));
        assert_eq!(operation(QNAN, SNAN), (NAN, Flags::NV));
    }
}

#[test]
fn classes_are_numbered_as_in_the_specification() {
    for (class, double, single) in [
        (0, D(f64::NEG_INFINITY), 0xff80_0000),
        (1, D(-1.0), 0xbf80_0000),
        (2, D(-5e-324), 0x8000_0001),
        (3, D(-0.0), 0x8000_0000),
        (4, D(0.0), 0),
        (5, D(5e-324), 0x007f_ffff),
        (6, D(f64::MIN_POSITIVE), 0x0080_0000),
        (7, D(f64::INFINITY), 0x7f80_0000),
        (8, SNAN, 0xffa0_0000),
        (9, QNAN, 0x7fc0_0000),
    ] {
        assert_eq!(float::classify::<Double>(double), 1 << class, "{double:#x}");
        assert_eq!(float::classify::<Single>(single), 1 << class, "{single:#x}");
    }
}

#[test]
fn registers_hold_singles_boxed() {
    assert_eq!(Single::boxed(0x3f80_0000), 0xffff_ffff_3f80_0000);
    assert_eq!(Single::unbox(0xffff_ffff_3f80_0000), 0x3f80_0000);
    assert_eq!(Single::unbox(0xffff_fffe_3f80_0000), 0x7fc0_0000);
    assert_eq!(Double::boxed(0x3f80_0000), 0x3f80_0000);
    assert_eq!(Double::unbox(0x8000_0000_3f80_0000), 0x8000_0000_3f80_0000);
}

#[test]
fn conversions_between_formats_are_rounded_once() {
    let mut random = Random(0xc0de_c0de_1234_4321);
    for _ in 0..20_000 {
        // Doubles around the range of singles, and everywhere.
        let mut a = random.operand::<Double>();
        if random.below(3) != 0 {
            let exponent = 1023 - 155 + random.below(290);
            a = a & !Double::INFINITY | exponent << 52;
        }
        if is_special::<Double>(a) || is_zero::<Double>(a) {
            continue;
        }
        let (value, exponent) = integer::<Double>(a);
        let expected = rounded::<Single>(&Exact::dyadic(&value, exponent));
        for (rounding, expected) in Rounding::ALL.into_iter().zip(expected) {
            assert_eq!(float::narrow(a, rounding), expected, "{a:#x} {rounding:?}");
        }
        let single = random.operand::<Single>();
        if !is_special::<Single>(single) {
            let wide = f64::from(f32::from_bits(single as u32)).to_bits();
            assert_eq!(float::widen(single), (wide, Flags::empty()), "{single:#x}");
        }
    }
}

/// The integer that an exact value is rounded to, and whether it was one.
fn rounded_integer<F: Format>(a: u64, rounding: Rounding) -> (BigInt, bool) {
    let (value, exponent) = integer::<F>(a);
    if exponent >= 0 {
        return (value << exponent, false);
    }
    let negative = value.sign() == Sign::Minus;
    let magnitude = value.magnitude();
    let whole = magnitude >> -exponent;
    let rest = magnitude - (&whole << -exponent);
    let inexact = rest != BigUint::ZERO;
    let middle = (rest << 1u32).cmp(&(BigUint::from(1u8) << -exponent));
    let odd = whole.bit(0);
    let step = choose(u64::from(odd), inexact, middle, negative, rounding) - u64::from(odd);
    let whole = BigInt::from(whole + step);
    (if negative { -whole } else { whole }, inexact)
}

fn integers_from<F: Format>(seed: u64) {
    let mut random = Random(seed);
    for _ in 0..20_000 {
        let mut a = random.operand::<F>();
        match random.below(3) {
            // Around the ends of the integer types.
            0 => {
                let exponent = [30, 31, 32, 62, 63, 64][random.below(6) as usize];
                a = a & !F::INFINITY | (F::BIAS as u64 + exponent) << F::FRACTION;
            }
            // Around one.
            1 => {
                a = a & !F::INFINITY | (F::BIAS as u64 - 3 + random.below(10)) << F::FRACTION;
            }
            _ => {}
        }
        if is_special::<F>(a) {
            continue;
        }
        for rounding in Rounding::ALL {
            let (value, inexact) = rounded_integer::<F>(a, rounding);
            let expect = |least: i128, most: i128| {
                let saturated = value.clone().clamp(least.into(), most.into());
                let flags = if saturated != value {
                    Flags::NV
                } else if inexact {
                    Flags::NX
                } else {
                    Flags::empty()
                };
                (i128::try_from(saturated).unwrap(), flags)
            };
            let found = float::to_i32::<F>(a, rounding);
            let expected = expect(i32::MIN.into(), i32::MAX.into());
            assert_eq!(
                (found.0.into(), found.1),
                expected,
                "i32 {a:#x} {rounding:?}"
            );
            let found = float::to_u32::<F>(a, rounding);
            let expected = expect(0, u32::MAX.into());
            assert_eq!(
                (found.0.into(), found.1),
                expected,
                "u32 {a:#x} {rounding:?}"
            );
            let found = float::to_i64::<F>(a, rounding);
            let expected = expect(i64::MIN.into(), i64::MAX.into());
            assert_eq!(
                (found.0.into(), found.1),
                expected,
                "i64 {a:#x} {rounding:?}"
            );
            let found = float::to_u64::<F>(a, rounding);
            let expected = expect(0, u64::MAX.into());
            assert_eq!(
                (found.0.into(), found.1),
                expected,
                "u64 {a:#x} {rounding:?}"
            );
        }
    }
}

#[test]
fn conversions_to_integers_saturate() {
    integers_from::<Double>(0x7777_1111_2222_3333);
    integers_from::<Single>(0x1357_9bdf_0246_8ace);
    for rm in Rounding::ALL {
        for nan in [QNAN, SNAN] {
            assert_eq!(float::to_i32::<Double>(nan, rm), (i32::MAX, Flags::NV));
            assert_eq!(float::to_u32::<Double>(nan, rm), (u32::MAX, Flags::NV));
            assert_eq!(float::to_i64::<Double>(nan, rm), (i64::MAX, Flags::NV));
            assert_eq!(float::to_u64::<Double>(nan, rm), (u64::MAX, Flags::NV));
        }
        let inf = D(f64::INFINITY);
        assert_eq!(float::to_i32::<Double>(inf, rm), (i32::MAX, Flags::NV));
        assert_eq!(float::to_u64::<Double>(inf, rm), (u64::MAX, Flags::NV));
        let inf = D(f64::NEG_INFINITY);
        assert_eq!(float::to_i64::<Double>(inf, rm), (i64::MIN, Flags::NV));
        assert_eq!(float::to_u32::<Double>(inf, rm), (0, Flags::NV));
    }
}

/// A conversion from the integer in the low bits.
type FromBits = fn(u64, Rounding) -> (u64, Flags);

fn integers_to<F: Format>(seed: u64) {
    let mut random = Random(seed);
    for _ in 0..10_000 {
        let value = (random.next() >> random.below(64)).wrapping_add(random.below(3));
        let cases: [(i128, FromBits); 4] = [
            (value as i32 as i128, |v, rm| {
                float::from_i32::<F>(v as i32, rm)
            }),
            (value as u32 as i128, |v, rm| {
                float::from_u32::<F>(v as u32, rm)
            }),
            (value as i64 as i128, |v, rm| {
                float::from_i64::<F>(v as i64, rm)
            }),
            (value as i128, |v, rm| float::from_u64::<F>(v, rm)),
        ];
        for (exact, run) in cases {
            let expected = if exact == 0 {
                [(0, Flags::empty()); 5]
            } else {
                rounded::<F>(&Exact::dyadic(&BigInt::from(exact), 0))
            };
            for (rounding, expected) in Rounding::ALL.into_iter().zip(expected) {
                assert_eq!(run(value, rounding), expected, "{exact} {rounding:?}");
            }
        }
    }
}

#[test]
fn conversions_from_integers_are_rounded_once() {
    integers_to::<Double>(0xabcd_ef01_2345_6789);
    integers_to::<Single>(0x0fed_cba9_8765_4321);
}
