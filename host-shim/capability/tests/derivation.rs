// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Capabilities against a model that computes with 128 bits.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use capstream_capability::{Capability, CapabilityError, ObjectType, Permissions};
use proptest::prelude::*;

const EFAULT: i32 = 14;
const EACCES: i32 = 13;
const EPERM: i32 = 1;

/// What a capability allows, as plain numbers: `[base, top)` and permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Model {
    base: u128,
    top: u128,
    permissions: u32,
}

impl Model {
    const ROOT: Model = Model {
        base: 0,
        top: 1 << 64,
        permissions: 0x78fff,
    };

    fn of(capability: &Capability) -> Model {
        Model {
            base: capability.base().into(),
            top: capability.top(),
            permissions: capability.permissions().bits(),
        }
    }

    fn contains(&self, ptr: u64, len: u64) -> bool {
        let (first, last) = (u128::from(ptr), u128::from(ptr) + u128::from(len));
        self.base <= first && last <= self.top
    }

    fn within(&self, other: &Model) -> bool {
        self.base >= other.base
            && self.top <= other.top
            && self.permissions & !other.permissions == 0
    }
}

/// Numbers near what can go wrong: zero, the ends, powers of two, and anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..64_u64,
        (0..64_u64).prop_map(|back| u64::MAX - back),
        (0..64_u32, -2..3_i64).prop_map(|(bit, offset)| (1_u64 << bit).wrapping_add_signed(offset)),
        any::<u64>(),
    ]
}

/// A step of a derivation.
#[derive(Clone, Copy, Debug)]
enum Step {
    Restrict(u64, u64),
    /// Bounds that lie inside: an offset and a length, both taken modulo what is there.
    Shrink(u64, u64),
    Permissions(u32),
    Load(u64, u64),
    Store(u64, u64),
    LoadStore(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (number(), number()).prop_map(|(base, len)| Step::Restrict(base, len)),
        (number(), number()).prop_map(|(offset, len)| Step::Shrink(offset, len)),
        (number(), number()).prop_map(|(offset, len)| Step::Shrink(offset, len)),
        any::<u32>().prop_map(|mask| Step::Permissions(mask | 0xc)),
        (number(), number()).prop_map(|(ptr, len)| Step::Load(ptr, len)),
        (number(), number()).prop_map(|(ptr, len)| Step::Store(ptr, len)),
        (number(), number()).prop_map(|(ptr, len)| Step::LoadStore(ptr, len)),
    ]
}

/// `value` folded into `0..=limit`.
fn fold(value: u64, limit: u128) -> u64 {
    u64::try_from(u128::from(value) % (limit + 1)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn derivation_never_widens(steps in prop::collection::vec(step(), 1..12)) {
        let mut capability = Capability::root();
        let mut model = Model::ROOT;
        for step in steps {
            let (ptr, len, need, keep) = match step {
                Step::Permissions(mask) => {
                    let mask = Permissions::from_bits_truncate(mask);
                    capability = capability.and_permissions(mask).unwrap();
                    model.permissions &= mask.bits();
                    prop_assert_eq!(Model::of(&capability), model);
                    continue;
                }
                Step::Restrict(base, len) => (base, len, 0, u32::MAX),
                Step::Shrink(offset, len) => {
                    let room = model.top - model.base;
                    let offset = fold(offset, room.min(u64::MAX.into()));
                    let base = model.base + u128::from(offset);
                    // An empty range at 2^64 has no address.
                    let Ok(base) = u64::try_from(base) else { continue };
                    (base, fold(len, (model.top - u128::from(base)).min(u64::MAX.into())), 0, u32::MAX)
                }
                Step::Load(ptr, len) => (ptr, len, 4, 5),
                Step::Store(ptr, len) => (ptr, len, 8, 9),
                Step::LoadStore(ptr, len) => (ptr, len, 12, 13),
            };
            let result = match step {
                Step::Load(..) => capability.check_load(ptr, len),
                Step::Store(..) => capability.check_store(ptr, len),
                Step::LoadStore(..) => capability.check_load_store(ptr, len),
                _ => capability.restrict(ptr, len),
            };
            let inside = model.contains(ptr, len);
            prop_assert_eq!(capability.covers(ptr, len), inside);
            match result {
                Ok(derived) => {
                    prop_assert!(inside);
                    prop_assert_eq!(need & !model.permissions, 0);
                    let expected = Model {
                        base: ptr.into(),
                        top: u128::from(ptr) + u128::from(len),
                        permissions: model.permissions & keep,
                    };
                    prop_assert_eq!(Model::of(&derived), expected);
                    prop_assert!(expected.within(&model));
                    prop_assert!(derived.is_subset_of(&capability));
                    prop_assert!(derived.tag());
                    // The checks for data access lead into a dead end; go on from bounds only.
                    if need == 0 {
                        capability = derived;
                        model = expected;
                    }
                }
                Err(CapabilityError::Bounds { ptr: p, len: l, base, top }) => {
                    prop_assert!(!inside);
                    prop_assert_eq!((p, l), (ptr, len));
                    prop_assert_eq!((u128::from(base), top), (model.base, model.top));
                }
                Err(CapabilityError::Permission { missing, .. }) => {
                    prop_assert!(inside);
                    prop_assert_eq!(missing.bits(), need & !model.permissions);
                    prop_assert_ne!(missing.bits(), 0);
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn subset_is_what_the_model_says(
        a in (number(), number(), any::<u32>()),
        b in (number(), number(), any::<u32>()),
    ) {
        let make = |(base, len, mask): (u64, u64, u32)| {
            Capability::root()
                .restrict(base, fold(len, (1 << 64) - u128::from(base) - 1))
                .and_then(|c| c.and_permissions(Permissions::from_bits_truncate(mask)))
                .unwrap()
        };
        let (a, b) = (make(a), make(b));
        prop_assert_eq!(a.is_subset_of(&b), Model::of(&a).within(&Model::of(&b)));
    }

    #[test]
    fn clip_stays_inside(base in number(), len in number(), offset in number(), want in number()) {
        let len = fold(len, (1 << 64) - u128::from(base) - 1);
        let range = Capability::root().restrict(base, len).unwrap();
        let clipped = range.clip(offset, want);
        prop_assert!(clipped <= want);
        if clipped > 0 {
            prop_assert!(range.covers(base + offset, clipped));
        }
        if clipped < want {
            prop_assert_eq!(u128::from(offset.min(len)) + u128::from(clipped), u128::from(len));
        }
    }

    #[test]
    fn sealing_keeps_everything_but_the_type(base in number(), len in number(), otype in number()) {
        let len = fold(len, (1 << 64) - u128::from(base) - 1);
        let capability = Capability::root().restrict(base, len).unwrap();
        let authority = Capability::root().restrict(otype, 1);
        prop_assume!(authority.is_ok());
        let authority = authority.unwrap();
        match capability.seal(&authority) {
            Ok(sealed) => {
                prop_assert!(otype <= 0x3fffb);
                prop_assert!(sealed.is_sealed());
                prop_assert_eq!(u64::from(sealed.object_type().bits()), otype);
                prop_assert_eq!(Model::of(&sealed), Model::of(&capability));
                prop_assert_eq!(sealed.restrict(base, 0).unwrap_err().errno(), EPERM);
                prop_assert_eq!(sealed.and_permissions(Permissions::all()).unwrap_err().errno(), EPERM);
                prop_assert_eq!(sealed.check_load(base, 0).unwrap_err().errno(), EPERM);
                prop_assert_eq!(sealed.seal(&authority).unwrap_err().errno(), EPERM);
                prop_assert_eq!(sealed.unseal(&authority).unwrap(), capability);
            }
            Err(error) => {
                prop_assert!(otype > 0x3fffb);
                prop_assert_eq!(error, CapabilityError::ObjectType { value: otype });
            }
        }
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
