// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every instruction that CHERI adds, one at a time, in both generations: what it makes, and every way it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod single;

use capstream_hart::{Capability, Isa, Permissions, Privilege};
use single::*;

const ISAS: [Isa; 2] = [Isa::V8, Isa::V9];

/// Causes.
const LENGTH: u64 = 1;
const TAG: u64 = 2;
const SEAL: u64 = 3;
const TYPE: u64 = 4;
const USER_DEFINED: u64 = 8;
const INEXACT: u64 = 0x0a;
const UNALIGNED_BASE: u64 = 0x0b;
const GLOBAL: u64 = 0x10;
const EXECUTE: u64 = 0x11;
const LOAD: u64 = 0x12;
const STORE: u64 = 0x13;
const LOAD_CAP: u64 = 0x14;
const STORE_CAP: u64 = 0x15;
const STORE_LOCAL: u64 = 0x16;
const PERMIT_SEAL: u64 = 0x17;
const SYSTEM: u64 = 0x18;
const CINVOKE: u64 = 0x19;
const PERMIT_UNSEAL: u64 = 0x1b;

fn data() -> Capability {
    Capability::root().set_bounds(DATA, 0x1000).0
}

fn without(capability: Capability, permissions: Permissions) -> Capability {
    capability.and_permissions(!permissions.bits())
}

fn sealed() -> Capability {
    data().seal(7)
}

/// An authority to seal with `otype`.
fn sealer(otype: u64) -> Capability {
    Capability::root().set_bounds(otype, 1).0
}

/// What comes of an instruction.
#[derive(Debug, PartialEq)]
enum Outcome {
    Capability(Capability),
    Trap(u64, u64),
}

/// Executes `instruction` with capabilities in c10 and c11; the result is in c12.
fn outcome(isa: Isa, instruction: u32, a: Capability, b: Capability) -> Outcome {
    let mut machine = Machine::new(isa);
    machine.hart.set_capability(10, &a);
    machine.hart.set_capability(11, &b);
    machine.hart.set_x(12, 0xdead);
    match machine.execute(instruction) {
        Ok(()) => {
            assert_eq!(machine.hart.capability(10), a);
            assert_eq!(machine.hart.capability(11), b);
            Outcome::Capability(machine.hart.capability(12))
        }
        Err(trap) => {
            assert_eq!(
                machine.hart.capability(12),
                Capability::from_address(0xdead)
            );
            Outcome::Trap(trap.cause, trap.tval)
        }
    }
}

/// Both generations make `result`.
fn gives(instruction: u32, a: Capability, b: Capability, result: Capability) {
    for isa in ISAS {
        let outcome = outcome(isa, instruction, a, b);
        assert_eq!(
            outcome,
            Outcome::Capability(result),
            "{isa:?} {instruction:#x}"
        );
    }
}

/// The older generation raises an exception; the newer one makes what `result` says, without a tag.
fn refuses(
    instruction: u32,
    a: Capability,
    b: Capability,
    (cause, register): (u64, u64),
    result: impl Into<Option<Capability>>,
) {
    let expected = violation(cause, register);
    assert_eq!(
        outcome(Isa::V8, instruction, a, b),
        Outcome::Trap(expected.0, expected.1),
        "{instruction:#x} of {a:?}, {b:?}"
    );
    match outcome(Isa::V9, instruction, a, b) {
        Outcome::Capability(made) => {
            assert!(!made.tag(), "{instruction:#x} made {made:?}");
            if let Some(result) = result.into() {
                assert_eq!(made, result);
            }
        }
        trap => panic!("{trap:?}"),
    }
}

fn integer(value: u64) -> Capability {
    Capability::from_address(value)
}

#[test]
fn fields_are_read() {
    let capability = without(data(), Permissions::STORE).with_address(DATA + 0x123);
    for (selector, value) in [
        (CGETPERM, 0x78ff7),
        (CGETTYPE, u64::MAX),
        (CGETBASE, DATA),
        (CGETLEN, 0x1000),
        (CGETTAG, 1),
        (CGETSEALED, 0),
        (CGETOFFSET, 0x123),
        (CGETFLAGS, 0),
        (CGETADDR, DATA + 0x123),
        (CGETHIGH, capability.high()),
        (CGETTOP, DATA + 0x1000),
    ] {
        gives(
            two(selector, 12, 10),
            capability,
            integer(0),
            integer(value),
        );
    }
    for (selector, capability, value) in [
        (CGETTYPE, sealed(), 7),
        (CGETTYPE, data().seal_entry(), -2i64 as u64),
        (CGETSEALED, sealed(), 1),
        (CGETSEALED, data().seal_entry(), 1),
        (CGETFLAGS, data().with_flag(true), 1),
        (CGETTAG, data().clear_tag(), 0),
        (CGETLEN, Capability::root(), u64::MAX),
        (CGETTOP, Capability::root(), u64::MAX),
        (CGETBASE, integer(55), 0),
        (CGETLEN, integer(55), u64::MAX),
        (CGETPERM, integer(55), 0),
        (CGETTYPE, integer(55), u64::MAX),
    ] {
        gives(
            two(selector, 12, 10),
            capability,
            integer(0),
            integer(value),
        );
    }
}

#[test]
fn lengths_are_rounded() {
    for (length, rounded, mask) in [
        (0, 0, u64::MAX),
        (0xfff, 0xfff, u64::MAX),
        (0x1000, 0x1000, !7),
        (0x1001, 0x1008, !7),
        (0x1fff, 0x2000, !0xf),
        (0x1_0001, 0x1_0080, !0x7f),
        (1 << 40, 1 << 40, u64::MAX << 31),
        (u64::MAX, 0, u64::MAX << 55),
    ] {
        gives(
            two(CRRL, 12, 10),
            integer(length),
            integer(0),
            integer(rounded),
        );
        gives(
            two(CRAM, 12, 10),
            integer(length),
            integer(0),
            integer(mask),
        );
    }
}

#[test]
fn capabilities_are_moved_and_lose_their_tag() {
    for capability in [data(), sealed(), integer(5), data().clear_tag()] {
        gives(two(CMOVE, 12, 10), capability, integer(0), capability);
        gives(
            two(CCLEARTAG, 12, 10),
            capability,
            integer(0),
            capability.clear_tag(),
        );
    }
}

#[test]
fn permissions_are_taken_away() {
    let mask = 0x2_8115;
    gives(
        three(CANDPERM, 12, 10, 11),
        Capability::root(),
        integer(mask),
        Capability::root().and_permissions(mask as u32),
    );
    let narrowed = data().and_permissions(0x115 | 0x28000);
    assert_eq!(narrowed.permissions(), 0x2_8115);
    refuses(
        three(CANDPERM, 12, 10, 11),
        data().clear_tag(),
        integer(mask),
        (TAG, 10),
        narrowed.clear_tag(),
    );
    refuses(
        three(CANDPERM, 12, 10, 11),
        sealed(),
        integer(mask),
        (SEAL, 10),
        None,
    );
}

#[test]
fn flags_are_set() {
    for flag in [0, 1, 2, 3] {
        let result = data().with_flag(flag & 1 != 0);
        gives(three(CSETFLAGS, 12, 10, 11), data(), integer(flag), result);
        gives(
            three(CSETFLAGS, 12, 10, 11),
            data().clear_tag(),
            integer(flag),
            result.clear_tag(),
        );
    }
    gives(
        three(CSETFLAGS, 12, 10, 11),
        sealed().clear_tag(),
        integer(0),
        sealed().clear_tag(),
    );
    refuses(
        three(CSETFLAGS, 12, 10, 11),
        sealed(),
        integer(1),
        (SEAL, 10),
        None,
    );
}

#[test]
fn addresses_are_changed() {
    let (address, offset, increment) = (DATA + 0x800, 0x800, 0x700);
    let from = data().with_address(DATA + 0x100);
    let result = data().with_address(address);
    for (instruction, operand) in [
        (three(CSETADDR, 12, 10, 11), address),
        (three(CSETOFFSET, 12, 10, 11), offset),
        (three(CINCOFFSET, 12, 10, 11), increment),
        (i(0x5b, 1, 12, 10, increment as i32), 0),
    ] {
        gives(instruction, from, integer(operand), result);
        gives(
            instruction,
            from.clear_tag(),
            integer(operand),
            result.clear_tag(),
        );
        let sealed = from.seal(3);
        refuses(instruction, sealed, integer(operand), (SEAL, 10), None);
        // A sealed capability without a tag is only bits.
        gives(
            instruction,
            sealed.clear_tag(),
            integer(operand),
            sealed.clear_tag().with_address(address),
        );
    }
    gives(i(0x5b, 1, 12, 10, -0x100), from, integer(0), data());
    // Integers stay integers.
    gives(
        three(CINCOFFSET, 12, 10, 11),
        integer(3),
        integer(4),
        integer(7),
    );
}

#[test]
fn addresses_far_outside_lose_the_tag_in_both_generations() {
    for (instruction, operand) in [
        (three(CSETADDR, 12, 10, 11), DATA + 0x10_0000),
        (three(CSETOFFSET, 12, 10, 11), 0x10_0000),
        (three(CINCOFFSET, 12, 10, 11), 0x10_0000),
    ] {
        let result = data().with_address(DATA + 0x10_0000);
        assert!(!result.tag());
        gives(instruction, data(), integer(operand), result);
    }
    // A little outside is representable, so that pointers behind an array work.
    gives(
        three(CINCOFFSET, 12, 10, 11),
        data(),
        integer(0x1000),
        data().with_address(DATA + 0x1000),
    );
    assert!(data().with_address(DATA + 0x1000).tag());
}

#[test]
fn the_generations_differ_where_a_named_address_is_at_the_edge() {
    // The last 2^E bytes of the representable space: E is 1 here (bounds of 2^13 bytes).
    let (capability, exact) = Capability::root().set_bounds(0x4000, 0x2000);
    assert!(exact);
    let last = 0x3000 + 0x8000 - 1;
    assert!(capability.with_address_exact(last).tag());
    assert!(!capability.with_address(last).tag());
    let instruction = three(CSETADDR, 12, 10, 11);
    let result = capability.with_address_exact(last);
    assert_eq!(
        outcome(Isa::V9, instruction, capability, integer(last)),
        Outcome::Capability(result)
    );
    assert_eq!(
        outcome(Isa::V8, instruction, capability, integer(last)),
        Outcome::Capability(result.clear_tag())
    );
    gives(
        three(CINCOFFSET, 12, 10, 11),
        capability,
        integer(last - 0x4000),
        result.clear_tag(),
    );
}

#[test]
fn bounds_are_narrowed() {
    let from = data().with_address(DATA + 0x100);
    let result = data().set_bounds(DATA + 0x100, 0x20).0;
    assert!(result.tag());
    for instruction in [
        three(CSETBOUNDS, 12, 10, 11),
        three(CSETBOUNDSEXACT, 12, 10, 11),
        i(0x5b, 2, 12, 10, 0x20),
    ] {
        gives(instruction, from, integer(0x20), result);
        refuses(
            instruction,
            from.clear_tag(),
            integer(0x20),
            (TAG, 10),
            result.clear_tag(),
        );
        refuses(instruction, from.seal(1), integer(0x20), (SEAL, 10), None);
        let near_end = data().with_address(DATA + 0xff0);
        refuses(instruction, near_end, integer(0x20), (LENGTH, 10), None);
        let before = data().with_address(DATA - 8);
        refuses(instruction, before, integer(0x20), (LENGTH, 10), None);
    }
    // The immediate is unsigned.
    gives(
        i(0x5b, 2, 12, 10, 0xfff),
        data(),
        integer(0),
        data().set_bounds(DATA, 0xfff).0,
    );
    // Rounded, or refused.
    let wide = Capability::root().with_address(0x1001);
    let (rounded, exact) = wide.set_bounds(0x1001, 0x2_0001);
    assert!(!exact && rounded.tag());
    gives(
        three(CSETBOUNDS, 12, 10, 11),
        wide,
        integer(0x2_0001),
        rounded,
    );
    refuses(
        three(CSETBOUNDSEXACT, 12, 10, 11),
        wide,
        integer(0x2_0001),
        (INEXACT, 10),
        rounded.clear_tag(),
    );
    // Nothing is more than everything.
    refuses(
        three(CSETBOUNDS, 12, 10, 11),
        wide,
        integer(u64::MAX),
        (LENGTH, 10),
        None,
    );
}

#[test]
fn capabilities_are_sealed() {
    let instruction = three(CSEAL, 12, 10, 11);
    let authority = sealer(42);
    gives(instruction, data(), authority, data().seal(42));
    refuses(instruction, data().clear_tag(), authority, (TAG, 10), None);
    refuses(instruction, data(), authority.clear_tag(), (TAG, 11), None);
    refuses(instruction, sealed(), authority, (SEAL, 10), None);
    refuses(instruction, data(), authority.seal(1), (SEAL, 11), None);
    refuses(
        instruction,
        data(),
        without(authority, Permissions::SEAL),
        (PERMIT_SEAL, 11),
        None,
    );
    refuses(
        instruction,
        data(),
        authority.with_address(43),
        (LENGTH, 11),
        None,
    );
    let largest = (1 << 18) - 5;
    gives(
        instruction,
        data(),
        Capability::root().with_address(largest),
        data().seal(largest as u32),
    );
    refuses(
        instruction,
        data(),
        Capability::root().with_address(largest + 1),
        (LENGTH, 11),
        None,
    );
    refuses(
        instruction,
        data(),
        Capability::root().with_address(1 << 18),
        (LENGTH, 11),
        None,
    );
}

#[test]
fn capabilities_are_unsealed() {
    let instruction = three(CUNSEAL, 12, 10, 11);
    gives(instruction, data().seal(42), sealer(42), data());
    // The authority's reach is the result's.
    let local = without(sealer(42), Permissions::GLOBAL);
    gives(
        instruction,
        data().seal(42),
        local,
        without(data(), Permissions::GLOBAL),
    );
    refuses(
        instruction,
        data().seal(42).clear_tag(),
        sealer(42),
        (TAG, 10),
        None,
    );
    refuses(
        instruction,
        data().seal(42),
        sealer(42).clear_tag(),
        (TAG, 11),
        None,
    );
    refuses(instruction, data(), sealer(42), (SEAL, 10), None);
    refuses(
        instruction,
        data().seal(42),
        sealer(42).seal(1),
        (SEAL, 11),
        None,
    );
    refuses(
        instruction,
        data().seal_entry(),
        sealer(42),
        (TYPE, 10),
        None,
    );
    refuses(instruction, data().seal(42), sealer(41), (TYPE, 11), None);
    refuses(
        instruction,
        data().seal(42),
        without(sealer(42), Permissions::UNSEAL),
        (PERMIT_UNSEAL, 11),
        None,
    );
    let outside = sealer(41).with_address(42);
    refuses(instruction, data().seal(42), outside, (LENGTH, 11), None);
}

#[test]
fn capabilities_are_sealed_on_condition() {
    let instruction = three(CCSEAL, 12, 10, 11);
    gives(instruction, data(), sealer(42), data().seal(42));
    // Passed through.
    gives(instruction, data(), sealer(42).clear_tag(), data());
    gives(instruction, sealed(), sealer(42), sealed());
    gives(instruction, data(), sealer(42).with_address(43), data());
    gives(
        instruction,
        data(),
        Capability::root().with_address(u64::MAX),
        data(),
    );
    // Refused.
    refuses(instruction, data(), sealer(42).seal(1), (SEAL, 11), None);
    refuses(
        instruction,
        data(),
        without(sealer(42), Permissions::SEAL),
        (PERMIT_SEAL, 11),
        None,
    );
    refuses(
        instruction,
        data(),
        Capability::root().with_address(1 << 18),
        (LENGTH, 11),
        None,
    );
    // The older generation wants something to seal.
    let untagged = data().clear_tag();
    let (cause, tval) = violation(TAG, 10);
    assert_eq!(
        outcome(Isa::V8, instruction, untagged, sealer(42)),
        Outcome::Trap(cause, tval)
    );
    assert_eq!(
        outcome(Isa::V9, instruction, untagged, sealer(42)),
        Outcome::Capability(untagged.seal(42))
    );
}

#[test]
fn sentries_are_made() {
    let instruction = two(CSEALENTRY, 12, 10);
    gives(instruction, data(), integer(0), data().seal_entry());
    refuses(
        instruction,
        data().clear_tag(),
        integer(0),
        (TAG, 10),
        data().clear_tag().seal_entry(),
    );
    refuses(instruction, sealed(), integer(0), (SEAL, 10), None);
    let no_code = without(data(), Permissions::EXECUTE);
    let (cause, tval) = violation(EXECUTE, 10);
    assert_eq!(
        outcome(Isa::V8, instruction, no_code, integer(0)),
        Outcome::Trap(cause, tval)
    );
    assert_eq!(
        outcome(Isa::V9, instruction, no_code, integer(0)),
        Outcome::Capability(no_code.seal_entry())
    );
}

#[test]
fn pointers_and_capabilities_are_converted() {
    let from = three(CFROMPTR, 12, 10, 11);
    gives(from, data(), integer(0), Capability::null());
    gives(
        from,
        data(),
        integer(0x10),
        data().with_address(DATA + 0x10),
    );
    gives(from, sealed(), integer(0), Capability::null());
    refuses(from, data().clear_tag(), integer(0x10), (TAG, 10), None);
    refuses(from, sealed(), integer(0x10), (SEAL, 10), None);
    let far = data().with_address(DATA + 0x100_0000);
    assert!(!far.tag());
    gives(from, data(), integer(0x100_0000), far);

    let to = three(CTOPTR, 12, 10, 11);
    gives(to, data().with_address(DATA + 0x44), data(), integer(0x44));
    gives(to, data().clear_tag(), data(), integer(0));
    gives(to, data(), sealed(), integer(0));
    let (cause, tval) = violation(TAG, 11);
    let untagged = data().clear_tag();
    assert_eq!(
        outcome(Isa::V8, to, data(), untagged),
        Outcome::Trap(cause, tval)
    );
    assert_eq!(
        outcome(Isa::V9, to, data(), untagged),
        Outcome::Capability(integer(0))
    );
}

#[test]
fn register_0_is_the_default_capability_where_the_isa_says_so() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let ddc = data();
        machine.hart.set_ddc(&ddc);
        machine.hart.set_x(11, 0x10);
        machine.execute(three(CFROMPTR, 12, 0, 11)).unwrap();
        assert_eq!(machine.hart.capability(12), ddc.with_address(DATA + 0x10));
        machine.execute(three(CTOPTR, 13, 12, 0)).unwrap();
        assert_eq!(machine.hart.x(13), 0x10);
        machine.execute(three(CTESTSUBSET, 13, 0, 12)).unwrap();
        assert_eq!(machine.hart.x(13), 1);
        machine.hart.set_capability(10, &data().clear_tag());
        machine.execute(three(CBUILDCAP, 12, 0, 10)).unwrap();
        assert_eq!(machine.hart.capability(12), data());
        // Elsewhere it is null.
        machine.execute(two(CGETTAG, 13, 0)).unwrap();
        assert_eq!(machine.hart.x(13), 0);
        // What the default capability is blamed for.
        machine.hart.set_ddc(&data().clear_tag());
        if isa == Isa::V8 {
            assert_eq!(machine.trap(three(CFROMPTR, 12, 0, 11)), violation(TAG, 33));
            assert_eq!(machine.trap(three(CTOPTR, 12, 10, 0)), violation(TAG, 33));
            assert_eq!(
                machine.trap(three(CBUILDCAP, 12, 0, 10)),
                violation(TAG, 33)
            );
        }
    }
}

#[test]
fn differences_and_comparisons_are_computed() {
    gives(
        three(CSUB, 12, 10, 11),
        data().with_address(DATA + 9),
        data(),
        integer(9),
    );
    gives(
        three(CSUB, 12, 10, 11),
        integer(1),
        integer(2),
        integer(u64::MAX),
    );

    let equal = three(CSEQX, 12, 10, 11);
    gives(equal, data(), data(), integer(1));
    gives(equal, data(), data().clear_tag(), integer(0));
    gives(equal, data(), data().with_address(DATA + 1), integer(0));
    gives(equal, data(), sealed(), integer(0));
    gives(equal, integer(4), integer(4), integer(1));

    let subset = three(CTESTSUBSET, 12, 10, 11);
    let inner = data().set_bounds(DATA + 0x10, 0x10).0;
    gives(subset, data(), inner, integer(1));
    gives(subset, data(), data(), integer(1));
    gives(subset, inner, data(), integer(0));
    gives(subset, data(), inner.clear_tag(), integer(0));
    gives(subset, data().clear_tag(), inner.clear_tag(), integer(1));
    gives(
        subset,
        without(data(), Permissions::LOAD),
        inner,
        integer(0),
    );
    gives(subset, data(), inner.seal(3), integer(1));
}

#[test]
fn the_high_half_is_set_without_a_tag() {
    gives(
        three(CSETHIGH, 12, 10, 11),
        integer(DATA),
        integer(data().high()),
        data().clear_tag(),
    );
    gives(
        three(CSETHIGH, 12, 10, 11),
        data(),
        integer(0),
        integer(DATA),
    );
    gives(
        three(CSETHIGH, 12, 10, 11),
        data(),
        integer(data().high()),
        data().clear_tag(),
    );
}

#[test]
fn capabilities_are_rebuilt() {
    let instruction = three(CBUILDCAP, 12, 10, 11);
    let inner = without(data().set_bounds(DATA + 0x10, 0x10).0, Permissions::STORE);
    for wanted in [inner, inner.clear_tag(), inner.with_flag(true).clear_tag()] {
        gives(
            instruction,
            data(),
            wanted,
            wanted.rebuild(&Capability::root()),
        );
        assert!(wanted.rebuild(&Capability::root()).tag());
    }
    gives(instruction, data(), inner.clear_tag(), inner);
    gives(
        instruction,
        Capability::root(),
        Capability::root().clear_tag(),
        Capability::root(),
    );
    // Sealing is lost, except for sentries.
    gives(instruction, data(), inner.seal(9).clear_tag(), inner);
    gives(
        instruction,
        data(),
        inner.seal_entry().clear_tag(),
        inner.seal_entry(),
    );
    // More than the authority has.
    refuses(instruction, data().clear_tag(), inner, (TAG, 10), None);
    refuses(instruction, sealed(), inner, (SEAL, 10), None);
    let below = Capability::root().set_bounds(DATA - 0x10, 0x20).0;
    refuses(instruction, data(), below, (LENGTH, 10), None);
    let above = Capability::root().set_bounds(DATA + 0xff0, 0x20).0;
    refuses(instruction, data(), above, (LENGTH, 10), None);
    let authority = without(data(), Permissions::LOAD);
    refuses(
        instruction,
        authority,
        inner,
        (USER_DEFINED, 10),
        inner.clear_tag(),
    );
    let authority = without(data(), Permissions::SOFTWARE_2);
    refuses(instruction, authority, inner, (USER_DEFINED, 10), None);
    // Bits that no capability has.
    let reserved = Capability::from_bits(inner.to_bits() | 1 << 110, false);
    refuses(instruction, data(), reserved, (LENGTH, 11), reserved);
    // The root's bounds with an exponent that no bounds need: it decodes to the same.
    let odd = Capability::from_bits(
        Capability::root().to_bits() ^ (0b001 << 14 | 0b011) << 64,
        false,
    );
    assert_eq!((odd.base(), odd.top()), (0, 1 << 64));
    refuses(instruction, Capability::root(), odd, (LENGTH, 11), odd);
}

#[test]
fn types_are_copied() {
    let instruction = three(CCOPYTYPE, 12, 10, 11);
    let types = Capability::root().set_bounds(0, 0x100).0;
    gives(instruction, types, sealed(), types.with_address(7));
    refuses(instruction, types.clear_tag(), sealed(), (TAG, 10), None);
    refuses(instruction, types.seal(1), sealed(), (SEAL, 10), None);
    // Nothing to copy.
    for (typed, otype) in [(data(), -1i64), (data().seal_entry(), -2)] {
        let otype = otype as u64;
        assert_eq!(
            outcome(Isa::V8, instruction, types, typed),
            Outcome::Capability(integer(otype))
        );
        let Outcome::Capability(made) = outcome(Isa::V9, instruction, types, typed) else {
            panic!("no capability");
        };
        assert!(!made.tag());
        assert_eq!(made.address(), otype);
    }
    // A type that the authority does not cover: refused, or an address outside.
    let (cause, tval) = violation(LENGTH, 10);
    let other = Capability::root().set_bounds(0x100, 0x100).0;
    assert_eq!(
        outcome(Isa::V8, instruction, other, sealed()),
        Outcome::Trap(cause, tval)
    );
    let Outcome::Capability(made) = outcome(Isa::V9, instruction, other, sealed()) else {
        panic!("no capability");
    };
    assert_eq!((made.address(), made.base()), (7, 0x100));
}

#[test]
fn registers_are_cleared() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        for n in 1..32 {
            machine.hart.set_capability(n, &data());
            machine.hart.set_f(n, 1.5f64.to_bits());
        }
        machine.hart.set_f(0, 1);
        // Quarter 1, registers 8, 10 and 15.
        let mask = 0b1000_0101;
        let clear = |selector, quarter: u32, mask: u32| {
            two(selector, mask & 0x1f, quarter << 3 | mask >> 5)
        };
        machine.execute(clear(CLEAR, 1, mask)).unwrap();
        for n in 1..32 {
            let cleared = [8, 10, 15].contains(&n);
            let expected = if cleared { Capability::null() } else { data() };
            assert_eq!(machine.hart.capability(n), expected, "c{n}");
        }
        machine.execute(clear(FPCLEAR, 3, 0b10)).unwrap();
        machine.execute(clear(FPCLEAR, 0, 0b1)).unwrap();
        for n in 1..32 {
            let expected = if n == 25 { 0 } else { 1.5f64.to_bits() };
            assert_eq!(machine.hart.f(n), expected, "f{n}");
        }
        assert_eq!(machine.hart.f(0), 0);
        // Register 0 stands for DDC.
        machine.execute(clear(CLEAR, 0, 0b11)).unwrap();
        assert_eq!(machine.hart.ddc(), Capability::null());
        assert_eq!(machine.hart.capability(1), Capability::null());
        assert_eq!(machine.hart.capability(2), data());
    }
}

#[test]
fn integer_instructions_clear_tags() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        machine.hart.set_capability(10, &data());
        machine.execute(addi(10, 10, 0)).unwrap();
        assert_eq!(machine.hart.capability(10), integer(DATA));
        machine.hart.set_capability(10, &data());
        machine.execute(r(0x33, 0, 0, 10, 10, 0)).unwrap();
        assert_eq!(machine.hart.capability(10), integer(DATA));
        // Reading does not.
        machine.hart.set_capability(10, &data());
        machine.execute(addi(11, 10, 4)).unwrap();
        assert_eq!(machine.hart.capability(10), data());
        assert_eq!(machine.hart.x(11), DATA + 4);
        // Nothing changes register 0.
        machine.execute(two(CMOVE, 0, 10)).unwrap();
        machine.execute(addi(0, 10, 4)).unwrap();
        assert_eq!(machine.hart.capability(0), Capability::null());
    }
}

#[test]
fn special_registers_need_privilege_and_permission() {
    let stcc = 12;
    let mtcc = 28;
    for isa in ISAS {
        let read = |scr| three(CSPECIALRW, 12, 0, scr);
        let write = |scr| three(CSPECIALRW, 0, 10, scr);
        let mut machine = Machine::new(isa);
        machine.hart.set_capability(10, &data());
        // User mode has two.
        machine.execute(read(0)).unwrap();
        assert_eq!(
            machine.hart.capability(12),
            Capability::root().with_address(BASE)
        );
        machine.execute(read(1)).unwrap();
        assert_eq!(machine.hart.capability(12), Capability::root());
        machine.execute(three(CSPECIALRW, 10, 10, 1)).unwrap();
        assert_eq!(machine.hart.capability(10), Capability::root());
        assert_eq!(machine.hart.ddc(), data());
        let illegal = |machine: &mut Machine, instruction| {
            assert_eq!(
                machine.trap(instruction),
                (2, u64::from(instruction)),
                "{instruction:#x}"
            );
        };
        illegal(&mut machine, write(0));
        for scr in (2..32).filter(|scr| *scr != 1) {
            illegal(&mut machine, read(scr));
        }
        machine.hart.set_privilege(Privilege::Supervisor);
        machine.execute(read(stcc)).unwrap();
        illegal(&mut machine, read(mtcc));
        machine.hart.set_privilege(Privilege::Machine);
        machine.execute(read(mtcc)).unwrap();
        for scr in [2, 4, 11, 16, 27] {
            illegal(&mut machine, read(scr));
        }
        let pcc = without(Capability::root(), Permissions::ACCESS_SYSTEM_REGISTERS);
        machine.hart.set_pcc(&pcc.with_address(BASE));
        machine.execute(read(1)).unwrap();
        for scr in [12u32, 13, 14, 15, 28, 29, 30, 31] {
            assert_eq!(
                machine.trap(read(scr)),
                violation(SYSTEM, u64::from(32 + scr))
            );
        }
        // CSRs, too, but not those of user mode.
        assert_eq!(machine.trap(csr(2, 0x300, 12, 0)), violation(SYSTEM, 32));
        machine.execute(csr(2, 0xc00, 12, 0)).unwrap();
        machine.execute(csr(1, 0x003, 12, 0)).unwrap();
        assert_eq!(machine.trap(0x3020_0073), violation(SYSTEM, 32), "mret");
    }
}

#[test]
fn special_registers_keep_what_is_written() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        machine.hart.set_privilege(Privilege::Machine);
        for scr in [13u32, 14, 15, 29, 30, 31] {
            machine.hart.set_capability(10, &sealed());
            machine.execute(three(CSPECIALRW, 11, 10, scr)).unwrap();
            machine.execute(three(CSPECIALRW, 12, 0, scr)).unwrap();
            assert_eq!(machine.hart.capability(12), sealed(), "{scr}");
        }
        // Trap vectors have a mode in their low bits, of which there are two.
        for scr in [12u32, 28] {
            for (mode, kept) in [(0, 0), (1, 1), (2, 1), (3, 1)] {
                machine
                    .hart
                    .set_capability(10, &data().with_address(DATA + 0x40 + mode));
                machine.execute(three(CSPECIALRW, 0, 10, scr)).unwrap();
                machine.execute(three(CSPECIALRW, 12, 0, scr)).unwrap();
                assert_eq!(
                    machine.hart.capability(12),
                    data().with_address(DATA + 0x40 + kept)
                );
            }
        }
        // As software sees them: relative to their base, or absolute.
        let base = if isa == Isa::V8 { 0 } else { DATA };
        assert_eq!(machine.hart.csr(0x305), Some(base + 0x41));
        machine.hart.set_x(10, base + 0x80);
        machine.execute(csr(1, 0x305, 0, 10)).unwrap();
        assert_eq!(machine.hart.scr(28), Some(data().with_address(DATA + 0x80)));
    }
}

// Jumps.

#[test]
fn jumps_stay_inside_the_program_counter_capability() {
    for isa in ISAS {
        let base = BASE + 0x1000;
        let (pcc, exact) = Capability::root().set_bounds(base, 0x100);
        assert!(exact);
        let seen = |address: u64| {
            if isa == Isa::V8 {
                address - base
            } else {
                address
            }
        };
        let mut machine = Machine::new(isa);
        machine.hart.set_pcc(&pcc);
        let mut go = |instruction: u32, from: u64, register: u64| {
            machine.hart.set_x(10, register);
            machine.hart.set_x(1, 0);
            machine.hart.set_pcc(&pcc);
            let result = machine.execute_at(from, instruction);
            (
                result.map_err(|trap| (trap.cause, trap.tval)),
                machine.hart.pcc(),
                machine.hart.x(1),
            )
        };
        let length = Err(violation(LENGTH, 32));
        // The PC that software sees.
        let (_, _, pc) = go(auipc(1, 0x12), base + 0x10, 0);
        assert_eq!(pc, seen(base + 0x10).wrapping_add(0x12000));
        for (instruction, register) in [
            (jal(1, 0x20), 0),
            (jalr(1, 10, 4), seen(base + 0x2c)),
            (jalr(1, 10, 5), seen(base + 0x2c)),
            (two(JALR_PCC, 1, 10), seen(base + 0x31)),
        ] {
            let (result, now, link) = go(instruction, base + 0x10, register);
            assert_eq!(result, Ok(()));
            assert_eq!(now, pcc.with_address(base + 0x30));
            assert_eq!(link, seen(base + 0x14));
        }
        // The last two bytes are inside, what lies behind them is not.
        for (offset, expected) in [(0xfe, Ok(())), (0x100, length), (-2i64 as u64, length)] {
            let target = base.wrapping_add(offset);
            let distance = target.wrapping_sub(base + 0x80) as i32;
            assert_eq!(go(jal(1, distance), base + 0x80, 0).0, expected);
            let register = seen(base).wrapping_add(offset);
            let (result, _, link) = go(jalr(1, 10, 0), base + 0x80, register);
            assert_eq!(result, expected);
            if expected.is_err() {
                assert_eq!(link, 0, "no link from a jump that failed");
            }
            // A branch that is taken.
            assert_eq!(go(b(0, 0, 0, distance), base + 0x80, 0).0, expected);
            // And one that is not.
            assert_eq!(go(b(1, 0, 0, distance), base + 0x80, 0).0, Ok(()));
        }
        // Behind the end the fetch fails.
        let (result, ..) = go(addi(0, 0, 0), base + 0xfc, 0);
        assert_eq!(result, Ok(()));
        machine.hart.set_pcc(&pcc.with_address(base + 0x100));
        match machine.hart.run(1) {
            capstream_hart::Exit::Trap(trap) => {
                assert_eq!((trap.cause, trap.tval), violation(LENGTH, 32));
                assert_eq!(trap.pcc.address(), base + 0x100);
            }
            exit => panic!("{exit:?}"),
        }
        // An instruction that is half outside fails where it begins.
        machine.region.poke(base + 0xfe, &[0x13, 0, 0, 0]).unwrap();
        machine.hart.forget_code();
        machine.hart.set_pcc(&pcc.with_address(base + 0xfe));
        match machine.hart.run(1) {
            capstream_hart::Exit::Trap(trap) => {
                assert_eq!((trap.cause, trap.tval), violation(LENGTH, 32));
                assert_eq!(trap.pcc.address(), base + 0xfe);
            }
            exit => panic!("{exit:?}"),
        }
    }
}

#[test]
fn fetches_need_a_usable_program_counter_capability() {
    for isa in ISAS {
        for (pcc, cause) in [
            (data().clear_tag(), TAG),
            (sealed(), SEAL),
            (data().seal_entry(), SEAL),
            (without(data(), Permissions::EXECUTE), EXECUTE),
            (data().with_address(DATA + 0x1000), LENGTH),
        ] {
            let mut machine = Machine::new(isa);
            machine.hart.set_pcc(&pcc);
            match machine.hart.run(1) {
                capstream_hart::Exit::Trap(trap) => {
                    assert_eq!((trap.cause, trap.tval), violation(cause, 32));
                    assert_eq!(trap.pcc, pcc);
                }
                exit => panic!("{exit:?}"),
            }
        }
    }
}

#[test]
fn jumps_to_capabilities_unseal_sentries_and_make_them() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let (code, _) = Capability::root().set_bounds(BASE + 0x1000, 0x100);
        let target = code.with_address(BASE + 0x1010);
        let link = Capability::root().with_address(BASE + 4).seal_entry();
        for to in [
            target,
            target.seal_entry(),
            target.with_address(BASE + 0x1011),
        ] {
            machine.hart.set_pcc(&Capability::root().with_address(BASE));
            machine.hart.set_capability(10, &to);
            machine.execute(two(CJALR, 1, 10)).unwrap();
            assert_eq!(machine.hart.pcc(), target);
            assert_eq!(machine.hart.capability(1), link);
            // And back.
            machine
                .region
                .poke(BASE + 0x1010, &two(CJALR, 0, 1).to_le_bytes())
                .unwrap();
            machine.hart.forget_code();
            assert_eq!(machine.hart.run(1), capstream_hart::Exit::Limit);
            assert_eq!(
                machine.hart.pcc(),
                Capability::root().with_address(BASE + 4)
            );
            assert_eq!(machine.hart.capability(1), link);
        }
        let mut fails = |to: Capability, cause| {
            machine.hart.set_pcc(&Capability::root().with_address(BASE));
            machine.hart.set_capability(10, &to);
            machine.hart.set_x(1, 77);
            assert_eq!(
                machine.trap(two(CJALR, 1, 10)),
                violation(cause, 10),
                "{to:?}"
            );
            assert_eq!(machine.hart.x(1), 77);
        };
        fails(target.clear_tag(), TAG);
        fails(target.seal(3), SEAL);
        fails(without(target, Permissions::EXECUTE), EXECUTE);
        fails(code.with_address(BASE + 0x1100), LENGTH);
        fails(code.with_address(BASE + 0xffe), LENGTH);
        if isa == Isa::V8 {
            fails(without(target, Permissions::GLOBAL), GLOBAL);
            let odd = Capability::root().set_bounds(BASE + 0x1001, 0x100).0;
            fails(odd.with_address(BASE + 0x1010), UNALIGNED_BASE);
        }
        // The last two bytes are a valid target.
        machine.hart.set_pcc(&Capability::root().with_address(BASE));
        machine
            .hart
            .set_capability(10, &code.with_address(BASE + 0x10fe));
        machine.execute(two(CJALR, 1, 10)).unwrap();
    }
}

#[test]
fn a_pair_is_invoked() {
    let code = Capability::root()
        .set_bounds(BASE + 0x1000, 0x100)
        .0
        .and_permissions(0x107);
    let stack = data().and_permissions(0x11d);
    let (code_at, pair) = (code.with_address(BASE + 0x1011), 5);
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let mut attempt = |a: Capability, b: Capability| {
            machine.hart.set_pcc(&Capability::root().with_address(BASE));
            machine.hart.set_capability(10, &a);
            machine.hart.set_capability(11, &b);
            machine.hart.set_x(31, 0);
            let result = machine
                .execute(cinvoke(10, 11))
                .map_err(|trap| (trap.cause, trap.tval));
            if result.is_err() {
                assert_eq!(machine.hart.x(31), 0, "nothing is changed by a failure");
            }
            (result, machine.hart.pcc(), machine.hart.capability(31))
        };
        let (result, pcc, c31) = attempt(code_at.seal(pair), stack.seal(pair));
        assert_eq!(result, Ok(()));
        assert_eq!(pcc, code.with_address(BASE + 0x1010));
        assert_eq!(c31, stack);

        let good = (code_at.seal(pair), stack.seal(pair));
        let no_invoke = Permissions::CINVOKE;
        let no_code = without(code_at, Permissions::EXECUTE);
        let code_as_data = code.seal(pair);
        let outside = code.with_address(BASE + 0x1100);
        for (a, b, cause, register) in [
            (good.0.clear_tag(), good.1, TAG, 10),
            (good.0, good.1.clear_tag(), TAG, 11),
            (code_at, good.1, SEAL, 10),
            (code_at.seal_entry(), good.1, SEAL, 10),
            (good.0, stack, SEAL, 11),
            (good.0, stack.seal_entry(), SEAL, 11),
            (good.0, stack.seal(6), TYPE, 10),
            (without(code_at, no_invoke).seal(pair), good.1, CINVOKE, 10),
            (good.0, without(stack, no_invoke).seal(pair), CINVOKE, 11),
            (no_code.seal(pair), good.1, EXECUTE, 10),
            (good.0, code_as_data, EXECUTE, 11),
            (outside.seal(pair), good.1, LENGTH, 10),
            // The order: each of these fails in two ways.
            (good.0.clear_tag(), good.1.clear_tag(), TAG, 10),
            (code_at, stack, SEAL, 10),
            (code_at, stack.seal(6), SEAL, 10),
            (
                without(code_at, no_invoke).seal(pair),
                stack.seal(6),
                TYPE,
                10,
            ),
            (
                no_code.seal(pair),
                without(stack, no_invoke).seal(pair),
                CINVOKE,
                11,
            ),
            (
                without(outside, Permissions::EXECUTE).seal(pair),
                code_as_data,
                EXECUTE,
                10,
            ),
        ] {
            let (result, ..) = attempt(a, b);
            assert_eq!(result, Err(violation(cause, register)), "{a:?} and {b:?}");
        }
        if isa == Isa::V8 {
            let odd = Capability::root()
                .set_bounds(BASE + 0x1001, 0x100)
                .0
                .and_permissions(0x107);
            let odd = odd.with_address(BASE + 0x1010).seal(pair);
            assert_eq!(attempt(odd, good.1).0, Err(violation(UNALIGNED_BASE, 10)));
        }
    }
}

#[test]
fn capability_mode_jumps_with_capabilities() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let (code, _) = Capability::root().set_bounds(BASE, 0x1000);
        let code = code.with_flag(true);
        machine.hart.set_pcc(&code);
        machine.execute(jal(1, 0x20)).unwrap();
        assert_eq!(machine.hart.pcc(), code.with_address(BASE + 0x20));
        assert_eq!(
            machine.hart.capability(1),
            code.with_address(BASE + 4).seal_entry()
        );
        machine.execute(auipc(10, 1)).unwrap();
        assert_eq!(
            machine.hart.capability(10),
            code.with_address(BASE + 0x1000)
        );
        machine.execute(auipc(10, 0x1000)).unwrap();
        assert!(!machine.hart.capability(10).tag(), "far outside");
        // `jalr` with an immediate, to a capability in integer mode.
        let other = code.with_flag(false);
        machine
            .hart
            .set_capability(10, &other.with_address(BASE + 0x100));
        machine.execute(jalr(1, 10, 0x10)).unwrap();
        assert_eq!(machine.hart.pcc(), other.with_address(BASE + 0x110));
        assert_eq!(
            machine.hart.capability(1),
            code.with_address(BASE + 4).seal_entry()
        );
        // A sentry has no immediate.
        machine.hart.set_pcc(&code);
        machine.hart.set_capability(10, &other.seal_entry());
        assert_eq!(machine.trap(jalr(1, 10, 0x10)), violation(SEAL, 10));
        machine.execute(jalr(1, 10, 0)).unwrap();
        assert_eq!(machine.hart.pcc(), other);
    }
}

// Loads and stores.

/// Loads and stores of 1 << size bytes through a capability register: explicit, or in capability mode with an immediate.
fn accesses_through(size: u32) -> Vec<(bool, u32, bool)> {
    vec![
        (false, load(8 + size, 12, 10), false),
        (false, i(0x03, size, 12, 10, 0), true),
        (true, store(8 + size, 13, 10), false),
        (true, s(0x23, size, 10, 13, 0), true),
    ]
}

#[test]
fn accesses_through_a_capability_need_its_authority() {
    for isa in ISAS {
        for size in 0..4 {
            for (is_store, instruction, mode) in accesses_through(size) {
                let mut machine = Machine::new(isa);
                machine
                    .hart
                    .set_pcc(&Capability::root().with_flag(mode).with_address(BASE));
                machine.hart.set_x(13, 0x8877_6655_4433_2281);
                machine.region.write(DATA + 0x100, &[0xf1; 16]).unwrap();
                let mut attempt = |authority: Capability| {
                    machine.hart.set_capability(10, &authority);
                    machine
                        .execute(instruction)
                        .map_err(|trap| (trap.cause, trap.tval, trap.address))
                };
                let bytes = 1u64 << size;
                let at = |address: u64| data().with_address(address);
                let permission = if is_store {
                    Permissions::STORE
                } else {
                    Permissions::LOAD
                };
                let permission_cause = if is_store { STORE } else { LOAD };
                assert_eq!(attempt(at(DATA + 0x100)), Ok(()));
                assert_eq!(attempt(at(DATA + 0x1000 - bytes)), Ok(()));
                assert_eq!(attempt(at(DATA)), Ok(()));
                for (authority, cause) in [
                    (at(DATA + 0x100).clear_tag(), TAG),
                    (at(DATA + 0x100).seal(3), SEAL),
                    (at(DATA + 0x100).seal_entry(), SEAL),
                    (without(at(DATA + 0x100), permission), permission_cause),
                    (at(DATA + 0x1000 - bytes + 1), LENGTH),
                    (at(DATA + 0x1000), LENGTH),
                    (at(DATA - 1), LENGTH),
                    (without(at(DATA - 1), permission), permission_cause),
                    (without(at(DATA - 1), permission).seal(3), SEAL),
                    (integer(DATA), TAG),
                ] {
                    let (cause, tval) = violation(cause, 10);
                    assert_eq!(
                        attempt(authority),
                        Err((cause, tval, authority.address())),
                        "{authority:?}"
                    );
                }
                if is_store {
                    let mut bytes = [0; 8];
                    machine.region.read(DATA + 0x100, &mut bytes).unwrap();
                    let mut expected = [0xf1; 8];
                    expected[..1 << size]
                        .copy_from_slice(&0x8877_6655_4433_2281u64.to_le_bytes()[..1 << size]);
                    assert_eq!(bytes, expected);
                }
            }
        }
    }
}

#[test]
fn explicit_loads_extend_as_their_names_say() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        machine
            .region
            .write(DATA, &0x8182_8384_8586_8788u64.to_le_bytes())
            .unwrap();
        machine.hart.set_capability(10, &data());
        for (selector, value) in [
            (0u32, 0xffff_ffff_ffff_ff88u64),
            (1, 0xffff_ffff_ffff_8788),
            (2, 0xffff_ffff_8586_8788),
            (3, 0x8182_8384_8586_8788),
            (4, 0x88),
            (5, 0x8788),
            (6, 0x8586_8788),
        ] {
            // Through the capability, and through DDC, whose address counts in the older generation only.
            machine.execute(load(8 + selector, 12, 10)).unwrap();
            assert_eq!(machine.hart.capability(12), integer(value));
            machine.execute(load(selector, 12, 10)).unwrap();
            assert_eq!(machine.hart.capability(12), integer(value));
        }
        for selector in [7, 15, 0x15, 0x16, 0x1d, 0x1e] {
            let instruction = load(selector, 12, 10);
            assert_eq!(machine.trap(instruction), (2, u64::from(instruction)));
        }
    }
}

#[test]
fn integer_addresses_go_through_the_default_capability() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let seen = |address: u64| {
            if isa == Isa::V8 {
                address.wrapping_sub(DATA)
            } else {
                address
            }
        };
        let ddc = data();
        for size in 0..4 {
            let bytes = 1u64 << size;
            for (is_store, instruction) in [
                (false, i(0x03, size, 12, 10, 0)),
                (false, load(size, 12, 10)),
                (true, s(0x23, size, 10, 13, 0)),
                (true, store(size, 13, 10)),
            ] {
                let mut attempt = |ddc: Capability, address: u64| {
                    machine.hart.set_ddc(&ddc);
                    machine.hart.set_x(10, seen(address));
                    machine
                        .execute(instruction)
                        .map_err(|trap| (trap.cause, trap.tval, trap.address))
                };
                assert_eq!(attempt(ddc, DATA), Ok(()));
                assert_eq!(attempt(ddc, DATA + 0x1000 - bytes), Ok(()));
                for address in [
                    DATA + 0x1000 - bytes + 1,
                    DATA + 0x1000,
                    DATA - 1,
                    DATA - 0x1000,
                ] {
                    let (cause, tval) = violation(LENGTH, 33);
                    assert_eq!(attempt(ddc, address), Err((cause, tval, address)));
                }
                let permission = if is_store {
                    Permissions::STORE
                } else {
                    Permissions::LOAD
                };
                let cause = if is_store { STORE } else { LOAD };
                for (ddc, cause) in [
                    (ddc.clear_tag(), TAG),
                    (ddc.seal(1), SEAL),
                    (without(ddc, permission), cause),
                ] {
                    let (cause, tval) = violation(cause, 33);
                    assert_eq!(attempt(ddc, DATA), Err((cause, tval, DATA)));
                }
            }
        }
        // The older generation adds DDC's address, not its base.
        machine.hart.set_ddc(&ddc.with_address(DATA + 0x20));
        machine
            .region
            .write(DATA + 0x20, &[0x20, 0, 0, 0, 0, 0, 0, 0])
            .unwrap();
        machine
            .region
            .write(DATA, &[0x11, 0, 0, 0, 0, 0, 0, 0])
            .unwrap();
        machine
            .hart
            .set_x(10, if isa == Isa::V8 { 0 } else { DATA + 0x20 });
        machine.execute(i(0x03, 3, 12, 10, 0)).unwrap();
        assert_eq!(machine.hart.x(12), 0x20);
    }
}

/// `lc` and `sc` in all their forms, with the address in register 10.
fn capability_accesses() -> [(bool, u32, u64, bool); 8] {
    // Whether it stores, the instruction, what is blamed, capability mode.
    [
        (false, load(0x1f, 12, 10), 10, false),
        (false, load(0x17, 12, 10), 33, false),
        (false, i(0x0f, 2, 12, 10, 0), 33, false),
        (false, i(0x0f, 2, 12, 10, 0), 10, true),
        (true, store(0x0c, 13, 10), 10, false),
        (true, store(0x04, 13, 10), 33, false),
        (true, s(0x23, 4, 10, 13, 0), 33, false),
        (true, s(0x23, 4, 10, 13, 0), 10, true),
    ]
}

#[test]
fn capabilities_are_loaded_and_stored() {
    for isa in ISAS {
        for (is_store, instruction, blamed, mode) in capability_accesses() {
            let mut machine = Machine::new(isa);
            machine
                .hart
                .set_pcc(&Capability::root().with_flag(mode).with_address(BASE));
            let mut attempt = |authority: Capability, value: Capability, offset: u64| {
                let address = authority.address().wrapping_add(offset);
                machine
                    .region
                    .store_capability(DATA + 0x40, &value)
                    .unwrap();
                machine.hart.set_capability(13, &value);
                machine.hart.set_x(12, 0);
                if blamed == 33 {
                    machine.hart.set_ddc(&authority);
                    machine
                        .hart
                        .set_x(10, if isa == Isa::V8 { offset } else { address });
                } else {
                    machine.hart.set_ddc(&Capability::null());
                    machine.hart.set_capability(
                        10,
                        &authority.with_address(address).tag_if(authority.tag()),
                    );
                    if authority.is_sealed() {
                        machine.hart.set_capability(10, &authority);
                    }
                }
                let result = machine
                    .execute(instruction)
                    .map_err(|trap| (trap.cause, trap.tval));
                let found = if is_store {
                    machine
                        .region
                        .load_capability(DATA + 0x40 + (offset.wrapping_sub(0x40) & 0xf0))
                        .unwrap()
                } else {
                    machine.hart.capability(12)
                };
                (result, found)
            };
            let local = without(data(), Permissions::GLOBAL);
            for value in [
                data(),
                sealed(),
                data().seal_entry(),
                local,
                integer(99),
                data().clear_tag(),
            ] {
                assert_eq!(attempt(data(), value, 0x40), (Ok(()), value), "{value:?}");
            }
            let (permission, cause) = if is_store {
                (Permissions::STORE, STORE)
            } else {
                (Permissions::LOAD, LOAD)
            };
            for (authority, cause) in [
                (data().clear_tag(), TAG),
                (data().seal(3), SEAL),
                (without(data(), permission), cause),
            ] {
                assert_eq!(
                    attempt(authority, data(), 0x40).0,
                    Err(violation(cause, blamed))
                );
            }
            assert_eq!(
                attempt(data(), data(), 0x1000).0,
                Err(violation(LENGTH, blamed))
            );
            assert_eq!(
                attempt(data(), data(), 0xff8).0,
                Err(violation(LENGTH, blamed)),
                "bounds before alignment"
            );
            let misaligned = if is_store { 6 } else { 4 };
            assert_eq!(
                attempt(data(), data(), 0x48).0,
                Err((misaligned, DATA + 0x48))
            );
            if is_store {
                let no_capabilities = without(data(), Permissions::STORE_CAP);
                assert_eq!(
                    attempt(no_capabilities, data(), 0x40).0,
                    Err(violation(STORE_CAP, blamed))
                );
                assert_eq!(
                    attempt(no_capabilities, integer(5), 0x40),
                    (Ok(()), integer(5))
                );
                let no_local = without(data(), Permissions::STORE_LOCAL_CAP);
                assert_eq!(
                    attempt(no_local, local, 0x40).0,
                    Err(violation(STORE_LOCAL, blamed))
                );
                assert_eq!(attempt(no_local, local.clear_tag(), 0x40).0, Ok(()));
                assert_eq!(attempt(no_local, data(), 0x40).0, Ok(()));
                // Permissions before bounds.
                assert_eq!(
                    attempt(no_capabilities, data(), 0x1000).0,
                    Err(violation(STORE_CAP, blamed))
                );
            } else {
                let no_capabilities = without(data(), Permissions::LOAD_CAP);
                assert_eq!(
                    attempt(no_capabilities, data(), 0x40),
                    (Ok(()), data().clear_tag())
                );
            }
        }
    }
}

#[test]
fn tags_fall_when_bytes_are_written() {
    for isa in ISAS {
        for (instruction, touched) in [
            (store(0x08, 13, 10), 0x48u64),
            (store(0x09, 13, 10), 0x4e),
            (store(0x0a, 13, 10), 0x40),
            (store(0x0b, 13, 10), 0x48),
            (amo(ADD, 3, 12, 10, 13), 0x40),
            (amo(SWAP, 2, 12, 10, 13), 0x4c),
        ] {
            let mut machine = Machine::new(isa);
            for granule in [0x30, 0x40, 0x50] {
                machine
                    .region
                    .store_capability(DATA + granule, &data())
                    .unwrap();
            }
            machine
                .hart
                .set_capability(10, &Capability::root().with_address(DATA + touched));
            machine.hart.set_ddc(&Capability::root().with_address(0));
            machine.execute(instruction).unwrap();
            let tags = [0x30, 0x40, 0x50].map(|granule| {
                machine
                    .region
                    .load_capability(DATA + granule)
                    .unwrap()
                    .tag()
            });
            assert_eq!(tags, [true, false, true], "{instruction:#x}");
        }
        // Over the edge of a granule, both fall.
        let mut machine = Machine::new(isa);
        for granule in [0x30, 0x40, 0x50] {
            machine
                .region
                .store_capability(DATA + granule, &data())
                .unwrap();
        }
        machine
            .hart
            .set_capability(10, &data().with_address(DATA + 0x3c));
        machine.execute(store(0x0b, 13, 10)).unwrap();
        let tags = [0x30, 0x40, 0x50].map(|granule| {
            machine
                .region
                .load_capability(DATA + granule)
                .unwrap()
                .tag()
        });
        assert_eq!(tags, [false, false, true]);
    }
}

#[test]
fn tags_are_loaded_by_the_line() {
    for isa in ISAS {
        let instruction = two(CLOADTAGS, 12, 10);
        let mut machine = Machine::new(isa);
        for granule in [0x40, 0x60, 0x70, 0x80] {
            machine
                .region
                .store_capability(DATA + granule, &data())
                .unwrap();
        }
        machine
            .hart
            .set_capability(10, &data().with_address(DATA + 0x40));
        machine.execute(instruction).unwrap();
        assert_eq!(machine.hart.capability(12), integer(0b1101));
        let mut fails = |authority: Capability| {
            machine.hart.set_capability(10, &authority);
            machine.trap(instruction)
        };
        let at = data().with_address(DATA + 0x40);
        assert_eq!(fails(at.clear_tag()), violation(TAG, 10));
        assert_eq!(fails(at.seal(1)), violation(SEAL, 10));
        assert_eq!(fails(without(at, Permissions::LOAD)), violation(LOAD, 10));
        assert_eq!(
            fails(without(at, Permissions::LOAD_CAP)),
            violation(LOAD_CAP, 10)
        );
        assert_eq!(
            fails(data().set_bounds(DATA, 0x30).0),
            violation(LENGTH, 10)
        );
        assert_eq!(fails(at.with_address(DATA + 0x50)), (4, DATA + 0x50));
        // A page that cannot hold tags.
        assert_eq!(fails(Capability::root().with_address(PLAIN)), (0x1a, PLAIN));
    }
}

#[test]
fn pages_limit_everybody() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let page = BASE + 0x4_0000;
        let (byte, word, capability) = (load(8, 12, 10), store(0x0a, 13, 10), store(0x0c, 13, 10));
        let (load_capability, swap) = (load(0x1f, 12, 10), amo(SWAP, 3, 12, 10, 13));
        machine
            .hart
            .set_capability(10, &Capability::root().with_address(page));
        machine.hart.set_capability(13, &data());
        let ok = (0, 0);
        for (protection, expected) in [
            (
                "",
                [(13, page), (15, page), (15, page), (13, page), (15, page)],
            ),
            ("r", [ok, (15, page), (15, page), ok, (15, page)]),
            ("w", [(13, page), ok, (0x1b, page), (13, page), (15, page)]),
            ("rw", [ok, ok, (0x1b, page), ok, ok]),
            ("rwc", [ok, ok, ok, ok, ok]),
            ("rc", [ok, (15, page), (15, page), ok, (15, page)]),
        ] {
            machine
                .region
                .protect(page, 0x1000, flags(protection))
                .unwrap();
            for (instruction, expected) in [byte, word, capability, load_capability, swap]
                .into_iter()
                .zip(expected)
            {
                // `amoswap` needs an integer address.
                machine.hart.set_ddc(&Capability::root());
                let result = machine
                    .execute(instruction)
                    .map_or_else(|trap| (trap.cause, trap.tval), |()| ok);
                assert_eq!(result, expected, "{protection} {instruction:#x}");
            }
        }
        // Untagged capabilities are data.
        machine.region.protect(page, 0x1000, flags("rw")).unwrap();
        machine.hart.set_capability(13, &data().clear_tag());
        machine.execute(capability).unwrap();
        // Fetches.
        machine.hart.set_pcc(&Capability::root().with_address(page));
        assert!(
            matches!(machine.hart.run(1), capstream_hart::Exit::Trap(trap) if (trap.cause, trap.tval) == (12, page))
        );
        // Where nothing is.
        let nowhere = BASE + SIZE;
        machine.hart.set_pcc(&Capability::root().with_address(BASE));
        machine
            .hart
            .set_capability(10, &Capability::root().with_address(nowhere));
        for (instruction, cause) in [
            (byte, 5),
            (word, 7),
            (capability, 7),
            (load_capability, 5),
            (swap, 7),
        ] {
            assert_eq!(
                machine.trap(instruction),
                (cause, nowhere),
                "{instruction:#x}"
            );
        }
        machine
            .hart
            .set_pcc(&Capability::root().with_address(nowhere));
        assert!(
            matches!(machine.hart.run(1), capstream_hart::Exit::Trap(trap) if (trap.cause, trap.tval) == (1, nowhere))
        );
    }
}

// Atomics.

#[test]
fn capabilities_are_exchanged() {
    for isa in ISAS {
        for (mode, blamed) in [(false, 33), (true, 10)] {
            let instruction = amo(SWAP, 4, 12, 10, 13);
            let mut machine = Machine::new(isa);
            machine
                .hart
                .set_pcc(&Capability::root().with_flag(mode).with_address(BASE));
            let mut attempt =
                |authority: Capability, old: Capability, new: Capability, offset: u64| {
                    machine.region.store_capability(DATA, &old).unwrap();
                    machine.hart.set_capability(13, &new);
                    machine.hart.set_ddc(&authority);
                    let address = authority.address().wrapping_add(offset);
                    if mode {
                        machine
                            .hart
                            .set_capability(10, &authority.with_address(address));
                    } else {
                        machine
                            .hart
                            .set_x(10, if isa == Isa::V8 { offset } else { address });
                    }
                    let result = machine
                        .execute(instruction)
                        .map_err(|trap| (trap.cause, trap.tval));
                    (
                        result,
                        machine.hart.capability(12),
                        machine.region.load_capability(DATA).unwrap(),
                    )
                };
            let other = data().set_bounds(DATA + 0x10, 0x10).0;
            assert_eq!(attempt(data(), data(), other, 0), (Ok(()), data(), other));
            assert_eq!(
                attempt(data(), other, integer(3), 0),
                (Ok(()), other, integer(3))
            );
            assert_eq!(
                attempt(data(), integer(3), other, 0),
                (Ok(()), integer(3), other)
            );
            let no_tags = without(data(), Permissions::LOAD_CAP);
            assert_eq!(
                attempt(no_tags, data(), other, 0),
                (Ok(()), data().clear_tag(), other)
            );
            for (authority, cause) in [
                (data().clear_tag(), TAG),
                (without(data(), Permissions::LOAD), LOAD),
                (without(data(), Permissions::STORE), STORE),
                (without(data(), Permissions::STORE_CAP), STORE_CAP),
            ] {
                assert_eq!(
                    attempt(authority, data(), other, 0).0,
                    Err(violation(cause, blamed))
                );
            }
            let local = without(data(), Permissions::GLOBAL);
            let no_local = without(data(), Permissions::STORE_LOCAL_CAP);
            assert_eq!(
                attempt(no_local, data(), local, 0).0,
                Err(violation(STORE_LOCAL, blamed))
            );
            assert_eq!(
                attempt(data(), data(), other, 0x1000).0,
                Err(violation(LENGTH, blamed))
            );
            assert_eq!(attempt(data(), data(), other, 8).0, Err((6, DATA + 8)));
            // Which of two comes first depends on the generation.
            let no_store = without(data(), Permissions::STORE);
            let first = if isa == Isa::V8 { LENGTH } else { STORE };
            assert_eq!(
                attempt(no_store, data(), other, 0x1000).0,
                Err(violation(first, blamed))
            );
        }
    }
}

#[test]
fn stores_succeed_while_the_reservation_holds() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        machine.hart.set_capability(10, &data());
        machine.hart.set_x(11, DATA);
        for (size, explicit) in [
            (0u32, true),
            (1, true),
            (2, true),
            (3, true),
            (0, false),
            (1, false),
            (2, false),
            (3, false),
        ] {
            machine.region.write(DATA, &[0x91; 16]).unwrap();
            let (reserve, conditional) = if explicit {
                (load(0x18 + size, 12, 10), store(0x18 + size, 13, 10))
            } else {
                (amo(LR, size, 12, 11, 0), amo(SC, size, 13, 11, 13))
            };
            machine.execute(reserve).unwrap();
            let expected = 0x9191_9191_9191_9191u64 as i64 >> (64 - (8 << size));
            assert_eq!(machine.hart.x(12), expected as u64, "{size}");
            machine.hart.set_x(13, 0x55);
            machine.execute(conditional).unwrap();
            assert_eq!(machine.hart.x(13), 0, "it was stored");
            let mut bytes = [0; 1];
            machine.region.read(DATA, &mut bytes).unwrap();
            assert_eq!(bytes, [0x55]);
            // A reservation is good for one store.
            machine.hart.set_x(13, 0x56);
            machine.execute(conditional).unwrap();
            assert_eq!(machine.hart.x(13), 1);
            // Not if somebody else was there.
            machine.execute(reserve).unwrap();
            machine.region.write(DATA, &[0x57]).unwrap();
            machine.hart.set_x(13, 0x58);
            machine.execute(conditional).unwrap();
            assert_eq!(machine.hart.x(13), 1);
            machine.region.read(DATA, &mut bytes).unwrap();
            assert_eq!(bytes, [0x57]);
        }
        // Not at another place.
        machine.execute(amo(LR, 2, 12, 11, 0)).unwrap();
        machine.hart.set_x(14, DATA + 4);
        machine.execute(amo(SC, 2, 13, 14, 13)).unwrap();
        assert_eq!(machine.hart.x(13), 1);
        // Misaligned.
        machine.hart.set_x(14, DATA + 2);
        assert_eq!(machine.trap(amo(LR, 2, 12, 14, 0)), (4, DATA + 2));
        assert_eq!(machine.trap(amo(SC, 2, 12, 14, 0)), (6, DATA + 2));
        assert_eq!(machine.trap(amo(ADD, 2, 12, 14, 0)), (6, DATA + 2));
    }
}

#[test]
fn capabilities_are_stored_while_the_reservation_holds() {
    for isa in ISAS {
        for explicit in [true, false] {
            let (reserve, conditional, result) = if explicit {
                (load(0x1c, 12, 10), store(0x1c, 13, 10), 13)
            } else {
                (amo(LR, 4, 12, 11, 0), amo(SC, 4, 14, 11, 13), 14)
            };
            let mut machine = Machine::new(isa);
            machine.hart.set_capability(10, &data());
            machine.hart.set_x(11, DATA);
            machine.region.store_capability(DATA, &data()).unwrap();
            let other = data().with_address(DATA + 4);
            machine.execute(reserve).unwrap();
            assert_eq!(machine.hart.capability(12), data());
            machine.hart.set_capability(13, &other);
            machine.execute(conditional).unwrap();
            assert_eq!(machine.hart.capability(result), integer(0));
            assert_eq!(machine.region.load_capability(DATA).unwrap(), other);
            // The tag counts as part of the value.
            machine.execute(reserve).unwrap();
            machine.region.clear_tags(DATA, 1);
            machine.hart.set_capability(13, &data());
            machine.execute(conditional).unwrap();
            assert_eq!(machine.hart.capability(result), integer(1));
            assert_eq!(
                machine.region.load_capability(DATA).unwrap(),
                other.clear_tag()
            );
        }
    }
}

#[test]
#[allow(
    clippy::unusual_byte_groupings,
    reason = "the groups are the fields of instructions"
)]
fn compressed_instructions_of_capability_mode_use_capabilities() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        let code = Capability::root().with_flag(true).with_address(BASE);
        machine.hart.set_pcc(&code);
        machine.hart.set_ddc(&Capability::null());
        machine
            .hart
            .set_capability(2, &data().with_address(DATA + 0x100));
        machine.hart.set_capability(8, &data());
        machine.hart.set_capability(9, &sealed());
        let two_nops = 0x0001_0000u32;
        let run = |machine: &mut Machine, short: u16| machine.execute(two_nops | u32::from(short));
        // c.csc cs1, 16(cs0); c.clc ca0, 16(cs0)
        run(&mut machine, 0b101_010_000_00_001_00).unwrap();
        assert_eq!(
            machine.region.load_capability(DATA + 0x10).unwrap(),
            sealed()
        );
        run(&mut machine, 0b001_010_000_00_010_00).unwrap();
        assert_eq!(machine.hart.capability(10), sealed());
        // c.cscsp cs1, 32(csp); c.clcsp ca1, 32(csp)
        run(&mut machine, 0b101_10_0000_01001_10).unwrap();
        assert_eq!(
            machine.region.load_capability(DATA + 0x120).unwrap(),
            sealed()
        );
        run(&mut machine, 0b001_1_01011_00000_10).unwrap();
        assert_eq!(machine.hart.capability(11), sealed());
        // c.cincoffset16csp -32; c.cincoffset4cspn ca2, 16
        run(&mut machine, 0b011_1_00010_01111_01).unwrap();
        assert_eq!(machine.hart.capability(2), data().with_address(DATA + 0xe0));
        run(&mut machine, 0b000_01_0000_0_0_100_00).unwrap();
        assert_eq!(
            machine.hart.capability(12),
            data().with_address(DATA + 0xf0)
        );
        // c.cjalr ca3, c.cjr ca3
        machine
            .hart
            .set_capability(13, &code.with_address(BASE + 0x200).seal_entry());
        run(&mut machine, 0b100_1_01101_00000_10).unwrap();
        assert_eq!(machine.hart.pcc(), code.with_address(BASE + 0x200));
        assert_eq!(
            machine.hart.capability(1),
            code.with_address(BASE + 2).seal_entry()
        );
        run(&mut machine, 0b100_0_01101_00000_10).unwrap();
        assert_eq!(machine.hart.pcc(), code.with_address(BASE + 0x200));
        // c.lw a4, 0(cs0)
        run(&mut machine, 0b010_000_000_00_110_00).unwrap();
        // c.clcsp cnull is reserved.
        let reserved = 0b001_0_00000_00000_10u16;
        let trap = run(&mut machine, reserved).unwrap_err();
        assert_eq!((trap.cause, trap.tval), (2, u64::from(reserved)));
    }
}

#[test]
fn encodings_that_do_not_exist_are_illegal() {
    for isa in ISAS {
        let mut machine = Machine::new(isa);
        for instruction in [
            three(0x02, 12, 10, 11),
            three(0x15, 12, 10, 11),
            two(0x0d, 12, 10),
            two(0x13, 12, 10),
            two(0x1f, 12, 10),
            r(0x5b, 0, 0x7e, 0, 10, 11),
            r(0x5b, 0, 0x7e, 2, 10, 11),
            i(0x5b, 3, 12, 10, 0),
            store(0x05, 13, 10),
            store(0x15, 13, 10),
            amo(ADD, 4, 12, 10, 13),
            amo(ADD, 1, 12, 10, 13),
            i(0x0f, 3, 12, 10, 0),
            s(0x23, 5, 10, 13, 0),
        ] {
            assert_eq!(
                machine.trap(instruction),
                (2, u64::from(instruction)),
                "{instruction:#x}"
            );
        }
    }
}
