// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What deriving a capability may do, for addresses of any width: computed with 128 bits, where nothing can overflow.
//!
//! Each check takes a capability, derives from it and fails when the result is not exactly what the model says. The same checks are called with
//! everything that a narrow address space has, and with chosen numbers of 64 bits.

#![allow(dead_code, reason = "not every test file needs all of it")]

use capstream_capability::{Address, CapabilityError, CapabilityOf, ObjectType, Permissions};

/// What a capability allows, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    pub base: u128,
    pub top: u128,
    pub permissions: Permissions,
    pub otype: ObjectType,
    pub tag: bool,
}

impl Model {
    /// All of the address space, and all permissions.
    pub fn root<A: Address>() -> Model {
        Model {
            base: 0,
            top: A::SPACE.into(),
            permissions: Permissions::all(),
            otype: ObjectType::UNSEALED,
            tag: true,
        }
    }

    pub fn of<A: Address>(capability: &CapabilityOf<A>) -> Model {
        Model {
            base: wide(capability.base()),
            top: capability.top(),
            permissions: capability.permissions(),
            otype: capability.object_type(),
            tag: capability.tag(),
        }
    }

    pub fn contains<A: Address>(&self, ptr: A, len: A) -> bool {
        self.base <= wide(ptr) && wide(ptr) + wide(len) <= self.top
    }

    /// Whether it allows nothing that `other` does not.
    pub fn within(&self, other: &Model) -> bool {
        (!self.tag || other.tag)
            && self.base >= other.base
            && self.top <= other.top
            && other.permissions.contains(self.permissions)
    }

    pub fn usable(&self) -> bool {
        self.tag && self.otype == ObjectType::UNSEALED
    }

    /// The object type that this authority gives with a permission, if it does.
    fn authority(&self, need: Permissions) -> Option<ObjectType> {
        let given = self.usable() && self.permissions.contains(need) && self.base < self.top;
        let otype = u64::try_from(self.base).ok().and_then(ObjectType::new);
        otype.filter(|_| given)
    }
}

pub fn wide<A: Address>(address: A) -> u128 {
    address.widen().into()
}

/// That what was derived is what the model says, or refused.
#[track_caller]
fn agree<A: Address>(
    from: &CapabilityOf<A>,
    result: Result<CapabilityOf<A>, CapabilityError>,
    expected: Option<Model>,
) -> Option<CapabilityOf<A>> {
    match (result, expected) {
        (Ok(derived), Some(expected)) => {
            assert_eq!(Model::of(&derived), expected, "from {from:?}");
            assert!(
                expected.within(&Model::of(from)),
                "{derived:?} from {from:?}"
            );
            assert!(derived.is_subset_of(from), "{derived:?} from {from:?}");
            assert!(derived.top() <= A::SPACE.into(), "{derived:?}");
            assert_eq!(derived.is_empty(), expected.base == expected.top);
            let length = expected.top - expected.base;
            assert_eq!(wide(derived.length()), length.min(wide(A::MAX)));
            Some(derived)
        }
        (Err(_), None) => None,
        (result, expected) => panic!("{result:?} instead of {expected:?}, from {from:?}"),
    }
}

/// `covers`, `restrict` and the three checks for access, of `[ptr, ptr + len)`. Returns what `restrict` made.
pub fn check_bounds<A: Address>(from: &CapabilityOf<A>, ptr: A, len: A) -> Option<CapabilityOf<A>> {
    let model = Model::of(from);
    let inside = model.contains(ptr, len);
    assert_eq!(from.covers(ptr, len), inside, "{from:?} {ptr:?} {len:?}");
    let (base, top) = (wide(ptr), wide(ptr) + wide(len));
    let narrowed = (inside && model.usable()).then_some(Model { base, top, ..model });
    for (need, result) in [
        (Permissions::LOAD, from.check_load(ptr, len)),
        (Permissions::STORE, from.check_store(ptr, len)),
        (Permissions::LOAD_STORE, from.check_load_store(ptr, len)),
    ] {
        if let Err(CapabilityError::Permission { missing, .. }) = result {
            assert!(narrowed.is_some(), "{from:?} {ptr:?} {len:?}");
            assert_eq!(missing, need.difference(model.permissions));
            assert!(!missing.is_empty());
        }
        let expected = narrowed.filter(|model| model.permissions.contains(need));
        let expected = expected.map(|model| Model {
            permissions: model.permissions & (need | Permissions::GLOBAL),
            ..model
        });
        agree(from, result, expected);
    }
    let result = from.restrict(ptr, len);
    if let Err(CapabilityError::Bounds {
        ptr: p,
        len: l,
        base,
        top,
    }) = result
    {
        assert!(!inside);
        assert_eq!((p, l), (ptr.into(), len.into()));
        assert_eq!((u128::from(base), top), (model.base, model.top));
    }
    agree(from, result, narrowed)
}

/// `and_permissions`. Returns what it made.
pub fn check_permissions<A: Address>(
    from: &CapabilityOf<A>,
    mask: Permissions,
) -> Option<CapabilityOf<A>> {
    let model = Model::of(from);
    let expected = model.usable().then_some(Model {
        permissions: model.permissions & mask,
        ..model
    });
    agree(from, from.and_permissions(mask), expected)
}

/// `seal` and `unseal` by `with`, and what can be done with what was sealed: nothing but to unseal it by an authority of the same number.
pub fn check_sealing<A: Address>(from: &CapabilityOf<A>, with: &CapabilityOf<A>) {
    let (model, authority) = (Model::of(from), Model::of(with));
    let otype = authority
        .authority(Permissions::SEAL)
        .filter(|_| model.usable());
    let sealed = agree(
        from,
        from.seal(with),
        otype.map(|otype| Model { otype, ..model }),
    );
    let otype = authority
        .authority(Permissions::UNSEAL)
        .filter(|&otype| model.tag && model.otype == otype);
    let expected = otype.map(|_| {
        let mut permissions = model.permissions;
        if !authority.permissions.contains(Permissions::GLOBAL) {
            permissions.remove(Permissions::GLOBAL);
        }
        Model {
            permissions,
            otype: ObjectType::UNSEALED,
            ..model
        }
    });
    agree(from, from.unseal(with), expected);
    if let Some(sealed) = sealed {
        assert!(sealed.is_sealed());
        assert!(check_bounds(&sealed, sealed.base(), A::ZERO).is_none());
        assert!(check_permissions(&sealed, Permissions::all()).is_none());
        assert!(sealed.seal(with).is_err());
        if authority.authority(Permissions::UNSEAL).is_some() {
            let back = sealed.unseal(with).unwrap();
            assert!(back.is_subset_of(from), "{back:?} from {from:?}");
        }
    }
}

/// `invoke` of a pair: both halves are what was sealed, and only pairs that belong together can be.
pub fn check_invoke<A: Address>(code: &CapabilityOf<A>, data: &CapabilityOf<A>) {
    let (c, d) = (Model::of(code), Model::of(data));
    let both = Permissions::CINVOKE;
    let allowed = c.tag
        && d.tag
        && !c.otype.is_reserved()
        && c.otype == d.otype
        && c.permissions.contains(both | Permissions::EXECUTE)
        && d.permissions.contains(both)
        && !d.permissions.contains(Permissions::EXECUTE)
        && c.base < c.top;
    match CapabilityOf::invoke(code, data) {
        Ok((code, data)) => {
            assert!(allowed, "{code:?} {data:?}");
            let otype = ObjectType::UNSEALED;
            assert_eq!(Model::of(&code), Model { otype, ..c });
            assert_eq!(Model::of(&data), Model { otype, ..d });
        }
        Err(error) => assert!(!allowed, "{error}: {code:?} {data:?}"),
    }
}

/// `clip`: no byte that is not there, and all of those asked for that are. Where the range is the address space, its last byte does not count.
pub fn check_clip<A: Address>(range: &CapabilityOf<A>, offset: A, want: A) {
    let there = wide(range.length()).saturating_sub(wide(offset));
    let clipped = range.clip(offset, want);
    assert_eq!(
        wide(clipped),
        there.min(wide(want)),
        "{range:?} {offset:?} {want:?}"
    );
    if clipped > A::ZERO {
        let first = wide(range.base()) + wide(offset);
        assert!(first + wide(clipped) <= range.top(), "{range:?} {offset:?}");
    }
}

/// Being a subset is having no byte and no permission that the other does not have.
pub fn check_subset<A: Address>(a: &CapabilityOf<A>, b: &CapabilityOf<A>) {
    let (x, y) = (Model::of(a), Model::of(b));
    let expected = x.tag == y.tag && x.within(&y);
    assert_eq!(a.is_subset_of(b), expected, "{a:?} {b:?}");
}
