// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Capabilities of 64 bits against a model that computes with 128.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod model;

use capstream_capability::{Address, Capability, CapabilityError, ObjectType, Permissions};
use model::{
    check_bounds, check_clip, check_invoke, check_permissions, check_sealing, check_subset, wide,
};
use proptest::prelude::*;

const EFAULT: i32 = 14;
const EACCES: i32 = 13;
const EPERM: i32 = 1;

/// Numbers near what can go wrong: zero, the ends, powers of two, and anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..64_u64,
        (0..64_u64).prop_map(|back| u64::MAX - back),
        (0..64_u32, -2..3_i64).prop_map(|(bit, offset)| (1_u64 << bit).wrapping_add_signed(offset)),
        any::<u64>(),
    ]
}

/// Where a number lies as seen from a capability: anywhere, or within a few bytes of its begin, its end, or the place where a sum with its
/// begin wraps around.
#[derive(Clone, Copy, Debug)]
enum Place {
    Anywhere(u64),
    Begin(i64),
    End(i64),
    Length(i64),
    Wrap(i64),
}

impl Place {
    fn of(self, capability: &Capability) -> u64 {
        let length = capability.length();
        match self {
            Place::Anywhere(number) => number,
            Place::Begin(offset) => capability.base().wrapping_add_signed(offset),
            Place::End(offset) => capability
                .base()
                .wrapping_add(length)
                .wrapping_add_signed(offset),
            Place::Length(offset) => length.wrapping_add_signed(offset),
            Place::Wrap(offset) => capability.base().wrapping_neg().wrapping_add_signed(offset),
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        2 => number().prop_map(Place::Anywhere),
        2 => (-2..20_i64).prop_map(Place::Begin),
        1 => (-20..3_i64).prop_map(Place::End),
        1 => (-2..3_i64).prop_map(Place::Length),
        1 => (-2..3_i64).prop_map(Place::Wrap),
    ]
}

/// A step of a derivation.
#[derive(Clone, Copy, Debug)]
enum Step {
    Restrict(Place, Place),
    /// Bounds that lie inside: an offset and a length, both taken modulo what is there.
    Shrink(u64, u64),
    Permissions(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (place(), place()).prop_map(|(ptr, len)| Step::Restrict(ptr, len)),
        (number(), number()).prop_map(|(offset, len)| Step::Shrink(offset, len)),
        any::<u32>().prop_map(|mask| Step::Permissions(mask | 0xc)),
    ]
}

/// `value` folded into `0..=limit`.
fn fold(value: u64, limit: u128) -> u64 {
    u64::try_from(u128::from(value) % (limit + 1)).unwrap()
}

/// A capability for some range, with some permissions.
fn capability() -> impl Strategy<Value = Capability> {
    (number(), number(), any::<u32>()).prop_map(|(base, len, mask)| {
        Capability::root()
            .restrict(base, fold(len, (1 << 64) - u128::from(base) - 1))
            .and_then(|c| c.and_permissions(Permissions::from_bits_truncate(mask)))
            .unwrap()
    })
}

/// A capability for an object type, as often as not one that can be sealed with.
fn object_type() -> impl Strategy<Value = Capability> {
    let otype = prop_oneof![0..8_u64, 0x3fff8..0x40008_u64, number()];
    (otype, 0..3_u64, any::<u32>()).prop_map(|(otype, len, mask)| {
        let len = fold(len, (1 << 64) - u128::from(otype) - 1);
        Capability::root()
            .restrict(otype, len)
            .and_then(|c| c.and_permissions(Permissions::from_bits_truncate(mask)))
            .unwrap()
    })
}

/// A capability that is perhaps sealed, and perhaps has no tag any more.
fn any_capability() -> impl Strategy<Value = Capability> {
    (capability(), prop::option::of(0..3_u64), any::<bool>()).prop_map(|(plain, otype, tag)| {
        let sealed = otype.map_or(plain, |otype| {
            let authority = Capability::root().restrict(otype, 1).unwrap();
            plain.seal(&authority).unwrap()
        });
        if tag { sealed } else { sealed.without_tag() }
    })
}

// The same checks as in `exhaustion.rs`, which tries all there is in narrower address spaces.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn derivation_never_widens(steps in prop::collection::vec(step(), 1..12)) {
        let root = Capability::root();
        let mut now = root;
        for step in steps {
            let derived = match step {
                Step::Permissions(mask) => check_permissions(&now, Permissions::from_bits_truncate(mask)),
                Step::Restrict(ptr, len) => check_bounds(&now, ptr.of(&now), len.of(&now)),
                Step::Shrink(offset, len) => {
                    let room = now.top() - wide(now.base());
                    let base = wide(now.base()) + u128::from(fold(offset, room.min(u64::MAX.into())));
                    // An empty range at 2^64 has no address.
                    let Ok(base) = u64::try_from(base) else { continue };
                    let len = fold(len, (now.top() - u128::from(base)).min(u64::MAX.into()));
                    check_bounds(&now, base, len)
                }
            };
            now = derived.unwrap_or(now);
            prop_assert!(now.is_subset_of(&root));
        }
    }

    #[test]
    fn bounds_are_kept_whatever_the_capability(from in any_capability(), ptr in place(), len in place()) {
        check_bounds(&from, ptr.of(&from), len.of(&from));
    }

    #[test]
    fn subset_is_what_the_model_says(a in any_capability(), b in any_capability()) {
        check_subset(&a, &b);
        check_subset(&a, &a);
    }

    #[test]
    fn clip_stays_inside(range in capability(), offset in place(), want in place()) {
        check_clip(&range, offset.of(&range), want.of(&range));
    }

    #[test]
    fn sealing_keeps_everything_but_the_type(from in any_capability(), with in object_type()) {
        check_sealing(&from, &with);
    }

    #[test]
    fn invoke_is_for_pairs_that_belong_together(code in any_capability(), data in any_capability()) {
        check_invoke(&code, &data);
    }
}

#[test]
fn sums_of_addresses_have_room() {
    assert_eq!(u64::MAX.widen() + u64::MAX.widen(), (1 << 65) - 2);
    assert_eq!(<u64 as Address>::SPACE, u64::MAX.widen() + 1);
}

#[test]
fn a_sealed_capability_is_eperm() {
    let authority = authority(7, Permissions::all());
    let sealed = cvm().seal(&authority).unwrap();
    assert_eq!(sealed.object_type(), ObjectType::new(7).unwrap());
    for result in [
        sealed.restrict(0x2000_0000, 0),
        sealed.and_permissions(Permissions::all()),
        sealed.check_load(0x2000_0000, 0),
        sealed.seal(&authority),
    ] {
        assert_eq!(result.unwrap_err().errno(), EPERM);
    }
    assert_eq!(sealed.unseal(&authority), Ok(cvm()));
    for reserved in [0x3fffc, 0x3fffe, 0x3ffff, 1 << 32] {
        let authority = Capability::root().restrict(reserved, 1).unwrap();
        let error = cvm().seal(&authority).unwrap_err();
        assert_eq!(error, CapabilityError::ObjectType { value: reserved });
    }
}

fn cvm() -> Capability {
    Capability::root()
        .restrict(0x2000_0000, 0x1000_0000)
        .unwrap()
}

fn authority(otype: u64, permissions: Permissions) -> Capability {
    Capability::root()
        .restrict(otype, 1)
        .unwrap()
        .and_permissions(permissions)
        .unwrap()
}

#[test]
fn root_is_the_whole_address_space() {
    let root = Capability::root();
    assert_eq!(
        (root.base(), root.top(), root.length()),
        (0, 1 << 64, u64::MAX)
    );
    assert!(root.covers(u64::MAX, 1));
    assert!(!root.covers(u64::MAX, 2));
    assert!(root.covers(0, u64::MAX));
    assert!(!root.is_empty());
    assert!(size_of::<Capability>() <= 32);
}

#[test]
fn wrap_around_is_out_of_bounds() {
    let last = Capability::root().restrict(u64::MAX - 15, 16).unwrap();
    assert_eq!(last.top(), 1 << 64);
    assert!(last.check_load(u64::MAX, 1).is_ok());
    // Its end has no address, and 0 is not it.
    assert!(last.check_load(0, 0).is_err());
    for (ptr, len) in [
        (u64::MAX, 2),
        (u64::MAX - 15, 17),
        (u64::MAX - 15, u64::MAX),
    ] {
        let error = last.check_load(ptr, len).unwrap_err();
        assert!(matches!(error, CapabilityError::Bounds { .. }));
        assert_eq!(error.errno(), EFAULT);
    }
    assert!(cvm().check_store(0x2000_0000, u64::MAX).is_err());
    assert!(cvm().check_store(u64::MAX, 0x2000_0001).is_err());
}

#[test]
fn an_empty_range_is_inside_up_to_the_end() {
    let cvm = cvm();
    for ptr in [0x2000_0000, 0x2800_0000, 0x3000_0000] {
        let empty = cvm.check_load_store(ptr, 0).unwrap();
        assert!(empty.is_empty());
        assert_eq!(empty.base(), ptr);
        assert!(empty.check_load(ptr, 1).is_err());
    }
    for ptr in [0, 0x1fff_ffff, 0x3000_0001, u64::MAX] {
        assert_eq!(cvm.check_load(ptr, 0).unwrap_err().errno(), EFAULT);
    }
}

#[test]
fn a_missing_permission_is_eacces_and_named() {
    let read_only = cvm().check_load(0x2000_0000, 0x1000).unwrap();
    let error = read_only.check_store(0x2000_0000, 1).unwrap_err();
    assert_eq!(error.errno(), EACCES);
    assert_eq!(
        error.to_string(),
        "the capability for [0x20000000, 0x20001000) has permissions 0x5 and lacks Permissions(STORE)"
    );
}

#[test]
fn errors_name_the_bounds() {
    assert_eq!(
        cvm().check_load(0x10, 4).unwrap_err().to_string(),
        "0x4 bytes at 0x10 are not inside [0x20000000, 0x30000000)"
    );
}

#[test]
fn without_a_tag_there_is_no_authority() {
    let dead = cvm().without_tag();
    let seal = authority(1, Permissions::SEAL);
    for result in [
        dead.restrict(0x2000_0000, 1),
        dead.and_permissions(Permissions::all()),
        dead.check_load(0x2000_0000, 1),
        dead.check_store(0x2000_0000, 1),
        dead.check_load_store(0x2000_0000, 1),
        dead.seal(&seal),
        cvm().seal(&seal.without_tag()),
        Capability::NULL.restrict(0, 0),
    ] {
        assert!(matches!(result, Err(CapabilityError::Untagged { .. })));
    }
}

#[test]
fn sealing_needs_the_permission_and_a_byte() {
    let no_permission = authority(5, Permissions::UNSEAL);
    assert_eq!(cvm().seal(&no_permission).unwrap_err().errno(), EACCES);
    let empty = authority(5, Permissions::SEAL).restrict(5, 0).unwrap();
    assert!(matches!(
        cvm().seal(&empty),
        Err(CapabilityError::Bounds { .. })
    ));
    let sealed = cvm().seal(&authority(5, Permissions::SEAL)).unwrap();
    assert_eq!(
        sealed.unseal(&authority(6, Permissions::all())),
        Err(CapabilityError::ObjectTypeMismatch {
            expected: ObjectType::new(6).unwrap(),
            found: ObjectType::new(5).unwrap(),
        })
    );
    assert_eq!(
        sealed
            .unseal(&authority(5, Permissions::SEAL))
            .unwrap_err()
            .errno(),
        EACCES
    );
    assert!(matches!(
        cvm().unseal(&authority(5, Permissions::all())),
        Err(CapabilityError::NotSealed { .. })
    ));
    // A local authority makes the result local.
    let local = sealed.unseal(&authority(5, Permissions::UNSEAL)).unwrap();
    assert!(!local.permissions().contains(Permissions::GLOBAL));
    assert!(local.is_subset_of(&cvm()));
}

#[test]
fn invoke_takes_a_matching_pair_only() {
    let seal = |capability: Capability, otype| {
        capability
            .seal(&authority(otype, Permissions::SEAL))
            .unwrap()
    };
    let code = cvm().and_permissions(Permissions::CVM_CODE).unwrap();
    let data = cvm().and_permissions(Permissions::CVM_DATA).unwrap();
    let pair = Capability::invoke(&seal(code, 4), &seal(data, 4)).unwrap();
    assert_eq!(pair, (code, data));

    let kind = |code: &Capability, data: &Capability| Capability::invoke(code, data).unwrap_err();
    assert!(matches!(
        kind(&seal(code, 4), &seal(data, 5)),
        CapabilityError::ObjectTypeMismatch { .. }
    ));
    assert!(matches!(
        kind(&code, &seal(data, 4)),
        CapabilityError::NotSealed { .. }
    ));
    assert!(matches!(
        kind(&seal(code, 4), &data),
        CapabilityError::NotSealed { .. }
    ));
    assert!(matches!(
        kind(&seal(code, 4).without_tag(), &seal(data, 4)),
        CapabilityError::Untagged { .. }
    ));
    assert!(matches!(
        kind(&seal(data, 4), &seal(data, 4)),
        CapabilityError::Permission { missing, .. } if missing == Permissions::EXECUTE
    ));
    assert!(matches!(
        kind(&seal(code, 4), &seal(code, 4)),
        CapabilityError::ExecutableData { .. }
    ));
    let no_invoke = code
        .and_permissions(Permissions::CINVOKE.complement())
        .unwrap();
    assert!(matches!(
        kind(&seal(no_invoke, 4), &seal(data, 4)),
        CapabilityError::Permission { missing, .. } if missing == Permissions::CINVOKE
    ));
    let empty = code.restrict(0x2000_0000, 0).unwrap();
    assert!(matches!(
        kind(&seal(empty, 4), &seal(data, 4)),
        CapabilityError::Bounds { .. }
    ));
}

#[test]
fn the_log_shows_what_the_published_one_shows() {
    let ca0 = cvm()
        .and_permissions(Permissions::CVM_CODE)
        .unwrap()
        .seal(&authority(4, Permissions::SEAL))
        .unwrap();
    assert_eq!(
        ca0.named("ca0").to_string(),
        "ca0: tag 1, sealed 1, perms 0x107, base 0x20000000, length 0x10000000"
    );
    assert_eq!(
        Capability::root().to_string(),
        "tag 1, sealed 0, perms 0x78fff, base 0x0, length 0x10000000000000000"
    );
}
