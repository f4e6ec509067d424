// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every capability that there is in an address space of a few bits, with every derivation. The code is the one that computes with 64 bits.
//!
//! Numbers of these widths do not wrap around: what leaves them is a failed test, as an overflow of `u64` is in a build with checks.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod model;

use capstream_capability::{Address, CapabilityOf, ObjectType, Permissions};
use model::{
    Model, check_bounds, check_clip, check_invoke, check_permissions, check_sealing, check_subset,
    wide,
};

/// An address of so many bits, seven at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Narrow<const BITS: u32>(u8);

impl<const BITS: u32> Narrow<BITS> {
    fn all() -> impl Iterator<Item = Self> + Clone {
        (0..=Self::MAX.0).map(Narrow)
    }
}

impl<const BITS: u32> From<Narrow<BITS>> for u64 {
    fn from(address: Narrow<BITS>) -> u64 {
        address.0.into()
    }
}

impl<const BITS: u32> std::ops::Sub for Narrow<BITS> {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Narrow(self.0.checked_sub(other.0).expect("no wrap-around"))
    }
}

impl<const BITS: u32> Address for Narrow<BITS> {
    type Size = Sum<BITS>;

    const ZERO: Self = Narrow(0);
    const ONE: Self = Narrow(1);
    const MAX: Self = Narrow((1 << BITS) - 1);
    const SPACE: Sum<BITS> = Sum(1 << BITS);

    fn widen(self) -> Sum<BITS> {
        Sum(self.0)
    }
}

/// One bit more, as 128 bits are not needed for sums of two numbers of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sum<const BITS: u32>(u8);

impl<const BITS: u32> std::ops::Add for Sum<BITS> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = self.0.checked_add(other.0).expect("no wrap-around");
        assert!(
            u32::from(sum) < 1 << (BITS + 1),
            "{sum} has more than one bit more"
        );
        Sum(sum)
    }
}

impl<const BITS: u32> From<Sum<BITS>> for u128 {
    fn from(sum: Sum<BITS>) -> u128 {
        sum.0.into()
    }
}

type Cap<const BITS: u32> = CapabilityOf<Narrow<BITS>>;

/// Every range, the whole address space among them, with every permission.
fn ranges<const BITS: u32>() -> Vec<Cap<BITS>> {
    let root = Cap::<BITS>::root();
    let mut ranges = vec![root];
    for base in Narrow::all() {
        for len in Narrow::all() {
            ranges.extend(root.restrict(base, len));
        }
    }
    // In a space of n addresses those from `base` on have n - base + 1 lengths. The longest one from 0 is the root.
    let n = 1_usize << BITS;
    assert_eq!(ranges.len(), n * (n + 3) / 2);
    ranges
}

/// Every set of some of these permissions.
fn subsets(of: Permissions) -> Vec<Permissions> {
    let bits: Vec<_> = of.iter().collect();
    (0..1_u32 << bits.len())
        .map(|which| {
            bits.iter()
                .enumerate()
                .filter(|(index, _)| which >> index & 1 == 1)
                .map(|(_, &bit)| bit)
                .collect()
        })
        .collect()
}

/// Every range with every set of these permissions, as it is, sealed with every object type that the address space has, and all of that with and
/// without a tag.
fn capabilities<const BITS: u32>(permissions: Permissions) -> Vec<Cap<BITS>> {
    let mut all = Vec::new();
    for range in ranges::<BITS>() {
        for permissions in subsets(permissions) {
            let plain = range.and_permissions(permissions).unwrap();
            all.push(plain);
            for otype in Narrow::all() {
                let authority = Cap::<BITS>::root().restrict(otype, Narrow(1)).unwrap();
                all.push(plain.seal(&authority).unwrap());
            }
        }
    }
    let untagged: Vec<_> = all
        .iter()
        .map(|capability| capability.without_tag())
        .collect();
    all.extend(untagged);
    all
}

#[test]
fn every_range_of_every_range_is_derived_or_refused_exactly() {
    let mut derived = 0_u32;
    for from in ranges::<6>() {
        let mut inside = 0;
        for ptr in Narrow::all() {
            for len in Narrow::all() {
                inside += u32::from(check_bounds(&from, ptr, len).is_some());
            }
        }
        // Every range of n bytes contains so many, if addresses and lengths can name them.
        let n = u32::try_from(from.top() - wide(from.base())).unwrap();
        let ends_at_top = from.top() == 64;
        let named = (n + 1) * (n + 2) / 2 - u32::from(ends_at_top) - u32::from(n == 64);
        assert_eq!(inside, named, "{from:?}");
        derived += inside;
    }
    assert!(derived > 0);
}

#[test]
fn every_access_needs_its_permission_a_tag_and_no_seal() {
    let permissions = Permissions::LOAD_STORE | Permissions::GLOBAL | Permissions::EXECUTE;
    for from in capabilities::<3>(permissions) {
        for ptr in Narrow::all() {
            for len in Narrow::all() {
                check_bounds(&from, ptr, len);
            }
        }
    }
}

#[test]
fn no_mask_adds_a_permission() {
    let some = Permissions::LOAD_STORE
        | Permissions::GLOBAL
        | Permissions::EXECUTE
        | Permissions::SEAL
        | Permissions::UNSEAL
        | Permissions::CINVOKE;
    let masks = subsets(some);
    for from in capabilities::<2>(some) {
        for &mask in &masks {
            check_permissions(&from, mask);
            check_permissions(&from, mask.complement());
        }
    }
    // Every set of all permissions, against each single one and against all but one.
    for set in subsets(Permissions::all()) {
        let from = Cap::<2>::root().and_permissions(set).unwrap();
        assert_eq!(from.permissions(), set);
        for bit in Permissions::all().iter() {
            check_permissions(&from, bit);
            check_permissions(&from, bit.complement());
        }
    }
}

#[test]
fn every_capability_is_sealed_and_unsealed_by_every_authority_exactly() {
    let all = capabilities::<3>(Permissions::SEAL | Permissions::UNSEAL | Permissions::GLOBAL);
    for from in &all {
        for with in &all {
            check_sealing(from, with);
        }
    }
}

#[test]
fn every_pair_is_invoked_or_refused_exactly() {
    let all = capabilities::<3>(Permissions::CINVOKE | Permissions::EXECUTE | Permissions::LOAD);
    for code in &all {
        for data in &all {
            check_invoke(code, data);
        }
    }
}

#[test]
fn being_a_subset_is_what_the_model_says() {
    let all = capabilities::<3>(Permissions::LOAD | Permissions::STORE);
    for a in &all {
        for b in &all {
            check_subset(a, b);
        }
    }
}

#[test]
fn clipping_leaves_exactly_what_is_there() {
    for range in ranges::<6>() {
        for offset in Narrow::all() {
            for want in Narrow::all() {
                check_clip(&range, offset, want);
            }
        }
    }
}

/// What can be reached from the root by any number of derivations, authorities to seal with among them, is what is listed above: nothing
/// else has to be tried.
#[test]
fn nothing_else_can_be_derived_from_the_root() {
    const BITS: u32 = 2;
    let permissions = Permissions::SEAL | Permissions::UNSEAL | Permissions::GLOBAL;
    let listed = capabilities::<BITS>(permissions);
    let listed: std::collections::HashSet<_> = listed.into_iter().collect();
    let root = Cap::<BITS>::root().and_permissions(permissions).unwrap();
    let mut reached = std::collections::HashSet::from([root]);
    loop {
        let now: Vec<_> = reached.iter().copied().collect();
        for from in &now {
            for base in Narrow::all() {
                for len in Narrow::all() {
                    reached.extend(from.restrict(base, len));
                    reached.extend(from.check_load(base, len));
                }
            }
            for mask in subsets(permissions) {
                reached.extend(from.and_permissions(mask));
            }
            reached.insert(from.without_tag());
            for with in &now {
                reached.extend(from.seal(with));
                reached.extend(from.unseal(with));
            }
        }
        if reached.len() == now.len() {
            break;
        }
    }
    assert_eq!(reached, listed);
    assert!(
        reached
            .iter()
            .all(|one| Model::of(one).within(&Model::root::<Narrow<BITS>>()))
    );
}

/// The object types themselves have 18 bits, so all of them can be tried.
#[test]
fn every_object_type_is_sealable_or_reserved() {
    for value in 0..1_u64 << 19 {
        let otype = ObjectType::new(value);
        assert_eq!(otype.is_some(), value < 0x3fffc, "{value:#x}");
        if let Some(otype) = otype {
            assert!(!otype.is_reserved());
            assert_eq!(u64::from(otype.bits()), value);
        }
    }
}
