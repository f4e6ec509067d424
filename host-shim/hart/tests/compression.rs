// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The compression of bounds, against a model that computes with integers of any size.
//!
//! The model knows what the format means, not how hardware gets there: bounds are two multiples of 2^E less than 2^(E+14) apart, in
//! the one window of that size around the address that begins an eighth of itself below the base's eighth.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use capstream_hart::Capability;
use capstream_hart::capability::{representable_length, representable_mask};
use num_bigint::BigInt;
use proptest::prelude::*;

const NULL_HIGH: u64 = 0x1fff_fc01_8004;

fn big(value: impl Into<BigInt>) -> BigInt {
    value.into()
}

fn power(exponent: u32) -> BigInt {
    big(1) << exponent
}

fn floor_to(value: &BigInt, unit: &BigInt) -> BigInt {
    // Only for values that are not negative.
    value / unit * unit
}

fn ceil_to(value: &BigInt, unit: &BigInt) -> BigInt {
    floor_to(&(value + unit - 1), unit)
}

fn modulo(value: &BigInt, modulus: &BigInt) -> BigInt {
    ((value % modulus) + modulus) % modulus
}

/// What `[base, base + length)` is rounded to: exponent, base, top. The exponent counts the three bits that it takes from
/// each mantissa; none if it takes no room.
fn rounded(base: u64, length: u64) -> (Option<u32>, BigInt, BigInt) {
    let (base, top) = (big(base), big(base) + length);
    if length < 1 << 12 {
        return (None, base, top);
    }
    for exponent in 0..=52 {
        let unit = power(exponent + 3);
        let (low, high) = (floor_to(&base, &unit), ceil_to(&top, &unit));
        // The length's top bits are 01, so that it has nine bits below them.
        if (&high - &low) / &unit < big(1 << 10) {
            return (Some(exponent), low, high);
        }
    }
    unreachable!("the address space has a length that can be represented");
}

/// The exponent in an encoding, and whether it takes room from the mantissas.
fn exponent_of(capability: &Capability) -> (u32, bool) {
    let raw = capability.high() ^ NULL_HIGH;
    let internal = raw >> 26 & 1 == 1;
    let exponent = (raw >> 14 & 7) << 3 | raw & 7;
    (if internal { exponent as u32 } else { 0 }, internal)
}

/// The window of addresses at which the capability has the bounds that it has.
fn window(capability: &Capability) -> (BigInt, BigInt) {
    let (exponent, _) = exponent_of(capability);
    let eighth = power(exponent + 11);
    let begin = floor_to(&big(capability.base()), &eighth) - &eighth;
    let end = &begin + power(exponent + 14);
    (begin, end)
}

/// Whether an address lies in the window, around the end of the address space if need be.
fn in_window(capability: &Capability, address: u64) -> bool {
    let (begin, end) = window(capability);
    if &end - &begin >= power(64) {
        return true;
    }
    modulo(&(big(address) - &begin), &power(64)) < &end - &begin
}

fn near(values: &'static [u64]) -> impl Strategy<Value = u64> {
    (prop::sample::select(values), -4i64..=4)
        .prop_map(|(value, delta)| value.wrapping_add_signed(delta))
}

/// Numbers of every magnitude, many of them next to a power of two.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift),
        (0u32..64, -3i64..=3).prop_map(|(shift, delta)| (1u64 << shift).wrapping_add_signed(delta)),
        (0u32..64, 0u32..64).prop_map(|(high, low)| (1u64 << high) | (1u64 << low)),
        (0u32..64, 0u32..64).prop_map(|(high, low)| (1u64 << high).wrapping_sub(1u64 << low)),
        near(&[0, 1 << 12, 1 << 13, 1 << 63, u64::MAX - 3, 0x2000_0000]),
    ]
}

prop_compose! {
    /// A base and a length that end at 2^64 at the latest.
    fn range()(base in number(), length in number()) -> (u64, u64) {
        let length = length.min((u64::MAX - base).saturating_add(1));
        (base, length)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_are_rounded_to_the_smallest_representable_range((base, length) in range()) {
        let (capability, exact) = Capability::root().set_bounds(base, length);
        let (exponent, low, high) = rounded(base, length);
        prop_assert_eq!(big(capability.base()), modulo(&low, &power(64)));
        prop_assert_eq!(big(capability.top()), high.clone());
        prop_assert_eq!(exact, low == big(base) && high == big(base) + length);
        prop_assert_eq!(exponent_of(&capability), (exponent.unwrap_or(0), exponent.is_some()));
        prop_assert!(capability.tag());
        prop_assert_eq!(capability.address(), base);
    }

    #[test]
    fn memory_holds_a_capability_as_it_is((base, length) in range(), address in number(), mask in any::<u32>()) {
        let (capability, _) = Capability::root().set_bounds(base, length);
        let capability = capability.and_permissions(mask).with_address(address);
        let back = Capability::from_bits(capability.to_bits(), capability.tag());
        prop_assert_eq!(back, capability);
        prop_assert_eq!(back.base(), capability.base());
        prop_assert_eq!(back.top(), capability.top());
    }

    #[test]
    fn bounds_stay_in_the_window_and_nowhere_else((base, length) in range(), address in number()) {
        let (capability, _) = Capability::root().set_bounds(base, length);
        let moved = capability.with_address_exact(address);
        prop_assert_eq!(moved.address(), address);
        prop_assert_eq!(moved.tag(), in_window(&capability, address), "{:?}", capability);
        if moved.tag() {
            prop_assert_eq!((moved.base(), moved.top()), (capability.base(), capability.top()));
        } else {
            prop_assert_ne!((moved.base(), moved.top()), (capability.base(), capability.top()));
        }
    }

    #[test]
    fn the_fast_test_misses_only_the_edges_of_the_window(
        (base, length) in range(),
        from in number(),
        to in number(),
    ) {
        let (capability, _) = Capability::root().set_bounds(base, length);
        // Starts somewhere in the window.
        let (begin, end) = window(&capability);
        let size = (&end - &begin).min(power(64));
        let from = u64::try_from(modulo(&(&begin + modulo(&big(from), &size)), &power(64))).unwrap();
        let from = capability.with_address_exact(from);
        prop_assert!(from.tag());
        let moved = from.with_address(to);
        let exact = in_window(&capability, to);
        prop_assert!(exact || !moved.tag(), "a tag outside of the window");
        if moved.tag() {
            prop_assert_eq!((moved.base(), moved.top()), (capability.base(), capability.top()));
        }
        if capability.contains(to, 1) {
            prop_assert!(moved.tag(), "no tag inside of the bounds");
        }
        // Far from the edges the two tests agree.
        let granule = power(exponent_of(&capability).0);
        let place = modulo(&(big(to) - &begin), &power(64));
        let start = modulo(&(big(from.address()) - &begin), &power(64));
        let whole = &end - &begin >= power(64);
        if exact && (whole || (place < &end - &begin - &granule * 2 && place >= granule && start >= granule)) {
            prop_assert!(moved.tag(), "{:?} to {:#x}", from, to);
        }
    }

    #[test]
    fn narrower_bounds_never_leave_wider_ones(
        (base, length) in range(),
        inner_base in number(),
        inner_length in number(),
    ) {
        let (outer, _) = Capability::root().set_bounds(base, length);
        // Often inside: by the remainder.
        for (inner_base, inner_length) in [
            (inner_base, inner_length),
            (
                outer.base().wrapping_add(if length == 0 { 0 } else { inner_base % length }),
                if length == 0 { 0 } else { inner_length % length },
            ),
        ] {
            let at = outer.with_address_exact(inner_base);
            let (inner, exact) = at.set_bounds(inner_base, inner_length);
            let inside = big(inner_base) >= big(outer.base())
                && big(inner_base) + inner_length <= big(outer.top());
            prop_assert_eq!(inner.tag(), inside && at.tag());
            if inner.tag() {
                // Rounding stays inside too, because the outer bounds are multiples of a larger power of two.
                prop_assert!(inner.is_subset_of(&outer), "{:?} of {:?}", inner, outer);
                prop_assert!(big(inner.base()) <= big(inner_base));
                prop_assert!(big(inner.top()) >= big(inner_base) + inner_length);
            }
            if exact {
                prop_assert_eq!(inner.base(), inner_base);
            }
        }
    }

    #[test]
    fn rounded_lengths_at_aligned_bases_are_exact(length in number(), base in number()) {
        let mask = representable_mask(length);
        let rounded = representable_length(length);
        prop_assert_eq!(u128::from(rounded == 0 && length != 0) << 64 | u128::from(rounded) & u128::from(mask), if rounded == 0 && length != 0 { 1 << 64 } else { u128::from(rounded) });
        prop_assert!(rounded >= length || rounded == 0);
        // It is the smallest multiple.
        prop_assert!(rounded.wrapping_sub(length) <= !mask);
        let base = base & mask;
        if rounded != 0 && base.checked_add(rounded - 1).is_some() {
            let (capability, exact) = Capability::root().set_bounds(base, rounded);
            prop_assert!(exact);
            prop_assert_eq!(capability.length(), u128::from(rounded));
            // Whoever asks for the length itself gets the rounded one.
            let (capability, _) = Capability::root().set_bounds(base, length);
            prop_assert_eq!(capability.length(), u128::from(rounded));
        }
    }

    #[test]
    fn any_bits_decode_to_bounds_of_65_bits(high in any::<u64>(), address in number()) {
        let bits = u128::from(high) << 64 | u128::from(address);
        let capability = Capability::from_bits(bits, false);
        prop_assert!(capability.top() < 1 << 65);
        prop_assert!(capability.length() < 1 << 65);
        prop_assert_eq!(capability.to_bits(), bits);
        // Every instruction's result on it, for what must not panic.
        for other in [0, address, u64::MAX] {
            let _ = capability.with_address(other);
            let _ = capability.with_address_exact(other);
            let _ = capability.set_bounds(other, address);
            let _ = capability.rebuild(&Capability::root());
        }
    }

    #[test]
    fn any_bits_that_can_be_rebuilt_could_have_been_derived(high in any::<u64>(), address in number(), mutation in 0u32..27) {
        // Mostly valid encodings, with a bit of their bounds changed.
        let capability = Capability::from_bits(u128::from(high) << 64 | u128::from(address), false);
        let (derived, _) = Capability::root().set_bounds(address, high >> (mutation * 2));
        let derived = derived.and_permissions(high as u32);
        let changed = derived.to_bits() ^ 1 << (64 + mutation);
        for candidate in [capability, derived.clear_tag(), Capability::from_bits(changed, false)] {
            let rebuilt = candidate.rebuild(&Capability::root());
            if !rebuilt.tag() {
                continue;
            }
            let length = candidate.length();
            prop_assert!(candidate.top() <= 1 << 64);
            if length < 1 << 64 {
                let (again, exact) = Capability::root().set_bounds(candidate.base(), length as u64);
                prop_assert!(exact);
                let again = again.with_address_exact(candidate.address());
                prop_assert!(again.tag());
                prop_assert_eq!(again.high() & 0x7ff_ffff, candidate.high() & 0x7ff_ffff);
            }
        }
        prop_assert_eq!(derived.clear_tag().rebuild(&Capability::root()).tag(), derived.tag());
    }
}

#[test]
fn null_is_zero_and_the_root_is_everything() {
    assert_eq!(Capability::null().to_bits(), 0);
    assert_eq!(Capability::from_bits(0, false), Capability::null());
    assert_eq!(Capability::null().length(), 1 << 64);
    assert_eq!(Capability::null().otype(), -1);
    let root = Capability::root();
    assert!(root.tag());
    assert_eq!((root.base(), root.top()), (0, 1 << 64));
    assert_eq!(root.permissions(), 0x78fff);
    assert_eq!(root.otype(), -1);
    assert!(!root.is_sealed());
    assert!(!root.flag());
    assert_eq!(root.high(), 0xffff << 48);
}

#[test]
fn a_known_capability_has_the_published_bits() {
    // [0x20000000, 0x30000000): the length is 2^28, so that its exponent is 16, kept as 0b010 in T and 0b000 in B.
    let (capability, exact) = Capability::root().set_bounds(0x2000_0000, 0x1000_0000);
    assert!(exact);
    let raw = capability.high() ^ NULL_HIGH;
    assert_eq!(raw & 0x3fff, 0x2000, "B is 0x20000000 >> 16");
    assert_eq!(
        raw >> 14 & 0xfff,
        0b010,
        "T is 0x30000000 >> 16, of which twelve bits are kept"
    );
    assert_eq!(raw >> 26 & 1, 1);
    assert_eq!(raw >> 27 & 0x3ffff, 0x3ffff);
}

#[test]
fn sealing_changes_nothing_but_the_type() {
    let (capability, _) = Capability::root().set_bounds(0x1234_5000, 0x800);
    let sealed = capability.seal(42);
    assert!(sealed.tag() && sealed.is_sealed());
    assert_eq!(sealed.otype(), 42);
    assert_eq!(
        (sealed.base(), sealed.top()),
        (capability.base(), capability.top())
    );
    assert_eq!(sealed.unseal(), capability);
    let sentry = capability.seal_entry();
    assert_eq!(sentry.otype(), -2);
    assert!(sentry.is_sentry() && sentry.has_reserved_otype());
    // What is sealed cannot be changed any more.
    assert!(!sealed.seal(1).tag());
    assert!(!sealed.with_address(0x1234_5004).tag());
    assert!(!sealed.and_permissions(!0).tag());
    assert!(!sealed.with_flag(true).tag());
    assert!(!sealed.set_bounds(0x1234_5000, 1).0.tag());
}
