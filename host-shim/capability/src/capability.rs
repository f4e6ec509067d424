// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A range of memory, what may be done with it, and how narrower ones are derived.

use std::fmt;

use crate::errno;
use crate::{Address, ObjectType, Permissions};

/// Why a capability could not be derived or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The capability has no tag.
    #[error(
        "the capability for [{base:#x}, {top:#x}) has no tag; derive one from a tagged capability"
    )]
    Untagged {
        /// Its base.
        base: u64,
        /// The byte after its range.
        top: u128,
    },
    /// The capability is sealed.
    #[error(
        "the capability for [{base:#x}, {top:#x}) is sealed with object type {otype}; unseal it first"
    )]
    Sealed {
        /// Its base.
        base: u64,
        /// The byte after its range.
        top: u128,
        /// Its object type.
        otype: ObjectType,
    },
    /// The capability is not sealed with an object type that can be unsealed or invoked.
    #[error(
        "the capability for [{base:#x}, {top:#x}) is not sealed with an object type (it is {otype})"
    )]
    NotSealed {
        /// Its base.
        base: u64,
        /// The byte after its range.
        top: u128,
        /// Its object type.
        otype: ObjectType,
    },
    /// The range is not inside the capability's.
    #[error("{len:#x} bytes at {ptr:#x} are not inside [{base:#x}, {top:#x})")]
    Bounds {
        /// First byte asked for.
        ptr: u64,
        /// How many bytes.
        len: u64,
        /// The capability's base.
        base: u64,
        /// The byte after its range.
        top: u128,
    },
    /// The capability lacks a permission.
    #[error("the capability for [{base:#x}, {top:#x}) has permissions {has} and lacks {missing:?}")]
    Permission {
        /// The permissions it lacks.
        missing: Permissions,
        /// The permissions it has.
        has: Permissions,
        /// Its base.
        base: u64,
        /// The byte after its range.
        top: u128,
    },
    /// The authority's base is not an object type that can be sealed with.
    #[error("{value:#x} is not an object type to seal with; use 0 to {max}", max = ObjectType::MAX)]
    ObjectType {
        /// The authority's base.
        value: u64,
    },
    /// Two object types should be the same.
    #[error("object type {found} does not match {expected}")]
    ObjectTypeMismatch {
        /// The object type that the authority or the partner has.
        expected: ObjectType,
        /// The object type found.
        found: ObjectType,
    },
    /// The data half of an invoked pair is executable.
    #[error("the data capability for [{base:#x}, {top:#x}) of an invoked pair is executable")]
    ExecutableData {
        /// Its base.
        base: u64,
        /// The byte after its range.
        top: u128,
    },
}

impl CapabilityError {
    /// The Linux errno that a guest is given.
    pub const fn errno(&self) -> i32 {
        match self {
            CapabilityError::Untagged { .. } | CapabilityError::Bounds { .. } => errno::EFAULT,
            CapabilityError::Permission { .. } => errno::EACCES,
            CapabilityError::Sealed { .. }
            | CapabilityError::NotSealed { .. }
            | CapabilityError::ObjectTypeMismatch { .. }
            | CapabilityError::ExecutableData { .. } => errno::EPERM,
            CapabilityError::ObjectType { .. } => errno::EINVAL,
        }
    }
}

/// A range of memory with permissions, as CHERI knows it.
///
/// All of memory belongs to [`CapabilityOf::root`]; every other capability is derived from it, and derivation only ever narrows: bounds
/// to a part of the bounds, permissions to some of the permissions. What the hardware of the older generation
/// refuses with an exception is an error here.
///
/// # Invariants
///
/// - The range ends where the address space does at the latest. Only the whole address space has a length that an address does not hold.
/// - A capability without a tag gives no authority: nothing can be derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CapabilityOf<A> {
    base: A,
    /// The length in bytes, as far as an address holds it.
    length: A,
    permissions: Permissions,
    otype: ObjectType,
    tag: bool,
    /// Whether the length is that of the address space; set only when `base` and `length` are 0.
    whole: bool,
}

/// A capability for the monitor's address space, of 64 bits.
pub type Capability = CapabilityOf<u64>;

impl<A: Address> CapabilityOf<A> {
    /// No authority at all: the capability that zeroed memory holds.
    pub const NULL: CapabilityOf<A> = CapabilityOf {
        base: A::ZERO,
        length: A::ZERO,
        permissions: Permissions::empty(),
        otype: ObjectType::UNSEALED,
        tag: false,
        whole: true,
    };

    /// The whole address space with every permission: what a machine starts with, and the only capability not derived from another.
    /// The monitor makes it once, at its start.
    #[inline]
    pub const fn root() -> CapabilityOf<A> {
        CapabilityOf {
            permissions: Permissions::all(),
            tag: true,
            ..CapabilityOf::NULL
        }
    }

    /// First byte of the range.
    #[inline]
    pub const fn base(&self) -> A {
        self.base
    }

    /// Bytes in the range; one less for the whole address space, as `cgetlen` returns it.
    #[inline]
    pub const fn length(&self) -> A {
        if self.whole { A::MAX } else { self.length }
    }

    /// Whether the range has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.whole && self.length == A::ZERO
    }

    /// The byte after the range; for a range that ends where the address space does, it is no address.
    #[inline]
    pub fn top(&self) -> u128 {
        self.wide_top().into()
    }

    #[inline]
    fn wide_top(&self) -> A::Size {
        // INVARIANT: at most the size of the address space.
        self.base.widen() + self.wide_length()
    }

    #[inline]
    fn wide_length(&self) -> A::Size {
        if self.whole {
            A::SPACE
        } else {
            self.length.widen()
        }
    }

    /// What it allows.
    #[inline]
    pub const fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Its object type.
    #[inline]
    pub const fn object_type(&self) -> ObjectType {
        self.otype
    }

    /// Whether it gives authority.
    #[inline]
    pub const fn tag(&self) -> bool {
        self.tag
    }

    /// Whether it has to be unsealed or invoked before anything can be done with it.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.otype != ObjectType::UNSEALED
    }

    /// The same without a tag, for good.
    #[inline]
    pub const fn without_tag(self) -> CapabilityOf<A> {
        CapabilityOf { tag: false, ..self }
    }

    /// Whether `[ptr, ptr + len)` lies inside the range. An empty range lies inside when `ptr` is inside or at the end;
    /// a range that goes past the last address never does.
    #[inline]
    pub fn covers(&self, ptr: A, len: A) -> bool {
        ptr >= self.base && (ptr - self.base).widen() + len.widen() <= self.wide_length()
    }

    /// Whether everything that this capability allows is allowed by `other` too (`ctestsubset`).
    #[inline]
    pub fn is_subset_of(&self, other: &CapabilityOf<A>) -> bool {
        self.tag == other.tag
            && self.base >= other.base
            && self.wide_top() <= other.wide_top()
            && other.permissions.contains(self.permissions)
    }

    /// How many of `len` bytes from `offset` on are there: fewer than `len` only at the end of the range.
    #[inline]
    pub fn clip(&self, offset: A, len: A) -> A {
        let length = self.length();
        if offset >= length {
            return A::ZERO;
        }
        len.min(length - offset)
    }

    /// The capability for `[base, base + len)`, with the same permissions (`csetbounds`, exact).
    ///
    /// # Errors
    ///
    /// [`CapabilityError::Untagged`], [`CapabilityError::Sealed`], and [`CapabilityError::Bounds`] when the range is not
    /// [covered](CapabilityOf::covers).
    #[inline]
    pub fn restrict(&self, base: A, len: A) -> Result<CapabilityOf<A>, CapabilityError> {
        self.usable()?;
        if !self.covers(base, len) {
            return Err(self.out_of_bounds(base, len));
        }
        // INVARIANT: covered ranges end where this one does at the latest, and `len` is no longer than an address.
        Ok(CapabilityOf {
            base,
            length: len,
            whole: false,
            ..*self
        })
    }

    /// The capability with those permissions only that are in `mask` too (`candperm`).
    ///
    /// # Errors
    ///
    /// [`CapabilityError::Untagged`], [`CapabilityError::Sealed`].
    #[inline]
    pub fn and_permissions(&self, mask: Permissions) -> Result<CapabilityOf<A>, CapabilityError> {
        self.usable()?;
        Ok(CapabilityOf {
            permissions: self.permissions.intersection(mask),
            ..*self
        })
    }

    /// The capability sealed with the object type that `with` points to, its base (`cseal`).
    ///
    /// # Errors
    ///
    /// [`CapabilityError::Untagged`] or [`CapabilityError::Sealed`] for either; [`CapabilityError::Permission`] when `with` lacks
    /// [`Permissions::SEAL`]; [`CapabilityError::Bounds`] when `with` has no bytes; [`CapabilityError::ObjectType`] when its base is
    /// reserved or too large.
    pub fn seal(&self, with: &CapabilityOf<A>) -> Result<CapabilityOf<A>, CapabilityError> {
        let otype = with.object_type_authority(Permissions::SEAL)?;
        self.usable()?;
        Ok(CapabilityOf { otype, ..*self })
    }

    /// The capability unsealed by the authority `with`, whose base is its object type (`cunseal`). It is global only if both are.
    ///
    /// # Errors
    ///
    /// As [`CapabilityOf::seal`] for `with`, needing [`Permissions::UNSEAL`]; [`CapabilityError::NotSealed`] when there is nothing to unseal;
    /// [`CapabilityError::ObjectTypeMismatch`].
    pub fn unseal(&self, with: &CapabilityOf<A>) -> Result<CapabilityOf<A>, CapabilityError> {
        let expected = with.object_type_authority(Permissions::UNSEAL)?;
        self.sealed_with()?;
        if self.otype != expected {
            return Err(CapabilityError::ObjectTypeMismatch {
                expected,
                found: self.otype,
            });
        }
        let mut permissions = self.permissions;
        if !with.permissions.contains(Permissions::GLOBAL) {
            permissions.remove(Permissions::GLOBAL);
        }
        Ok(CapabilityOf {
            otype: ObjectType::UNSEALED,
            permissions,
            ..*self
        })
    }

    /// What `cinvoke` makes of a sealed pair of code and data: both unsealed.
    ///
    /// # Errors
    ///
    /// The first of these that fails: both tagged, both sealed with an object type that is not reserved, with the same one, both with
    /// [`Permissions::CINVOKE`], code with [`Permissions::EXECUTE`], data without it, code not empty.
    pub fn invoke(
        code: &CapabilityOf<A>,
        data: &CapabilityOf<A>,
    ) -> Result<(CapabilityOf<A>, CapabilityOf<A>), CapabilityError> {
        code.tagged()?;
        data.tagged()?;
        code.sealed_with()?;
        data.sealed_with()?;
        if code.otype != data.otype {
            return Err(CapabilityError::ObjectTypeMismatch {
                expected: code.otype,
                found: data.otype,
            });
        }
        code.permits(Permissions::CINVOKE)?;
        data.permits(Permissions::CINVOKE)?;
        code.permits(Permissions::EXECUTE)?;
        if data.permissions.contains(Permissions::EXECUTE) {
            return Err(CapabilityError::ExecutableData {
                base: data.base.into(),
                top: data.top(),
            });
        }
        if code.is_empty() {
            return Err(code.out_of_bounds(code.base, A::ONE));
        }
        let unsealed = |capability: &CapabilityOf<A>| CapabilityOf {
            otype: ObjectType::UNSEALED,
            ..*capability
        };
        Ok((unsealed(code), unsealed(data)))
    }

    /// The capability to load data from `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`CapabilityOf::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub fn check_load(&self, ptr: A, len: A) -> Result<CapabilityOf<A>, CapabilityError> {
        self.check(Permissions::LOAD, ptr, len)
    }

    /// The capability to store data to `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`CapabilityOf::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub fn check_store(&self, ptr: A, len: A) -> Result<CapabilityOf<A>, CapabilityError> {
        self.check(Permissions::STORE, ptr, len)
    }

    /// The capability to load data from and store data to `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`CapabilityOf::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub fn check_load_store(&self, ptr: A, len: A) -> Result<CapabilityOf<A>, CapabilityError> {
        self.check(Permissions::LOAD_STORE, ptr, len)
    }

    #[inline]
    fn check(&self, need: Permissions, ptr: A, len: A) -> Result<CapabilityOf<A>, CapabilityError> {
        let mut derived = self.restrict(ptr, len)?;
        self.permits(need)?;
        derived.permissions = self
            .permissions
            .intersection(Permissions::GLOBAL.union(need));
        Ok(derived)
    }

    #[inline]
    fn tagged(&self) -> Result<(), CapabilityError> {
        if self.tag {
            Ok(())
        } else {
            Err(CapabilityError::Untagged {
                base: self.base.into(),
                top: self.top(),
            })
        }
    }

    #[inline]
    fn usable(&self) -> Result<(), CapabilityError> {
        self.tagged()?;
        if self.otype.bits() != ObjectType::UNSEALED.bits() {
            return Err(CapabilityError::Sealed {
                base: self.base.into(),
                top: self.top(),
                otype: self.otype,
            });
        }
        Ok(())
    }

    #[inline]
    fn permits(&self, need: Permissions) -> Result<(), CapabilityError> {
        if self.permissions.contains(need) {
            return Ok(());
        }
        Err(CapabilityError::Permission {
            missing: need.difference(self.permissions),
            has: self.permissions,
            base: self.base.into(),
            top: self.top(),
        })
    }

    fn sealed_with(&self) -> Result<(), CapabilityError> {
        self.tagged()?;
        if self.otype.is_reserved() {
            return Err(CapabilityError::NotSealed {
                base: self.base.into(),
                top: self.top(),
                otype: self.otype,
            });
        }
        Ok(())
    }

    fn object_type_authority(&self, need: Permissions) -> Result<ObjectType, CapabilityError> {
        self.usable()?;
        self.permits(need)?;
        if self.is_empty() {
            return Err(self.out_of_bounds(self.base, A::ONE));
        }
        let value = self.base.into();
        ObjectType::new(value).ok_or(CapabilityError::ObjectType { value })
    }

    #[cold]
    fn out_of_bounds(&self, ptr: A, len: A) -> CapabilityError {
        CapabilityError::Bounds {
            ptr: ptr.into(),
            len: len.into(),
            base: self.base.into(),
            top: self.top(),
        }
    }

    /// Prints it as a line of the log, with its name.
    pub const fn named<'a>(&'a self, name: &'a str) -> Named<'a, A> {
        Named {
            name,
            capability: self,
        }
    }
}

impl<A: Address> fmt::Display for CapabilityOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tag {}, sealed {}, perms {}, base {:#x}, length {:#x}",
            u8::from(self.tag),
            u8::from(self.is_sealed()),
            self.permissions,
            self.base.into(),
            self.wide_length().into()
        )
    }
}

/// A capability with a name, for the log: `ca0: tag 1, sealed 1, perms 0x107, base 0x20000000, length 0x10000000`.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a, A> {
    name: &'a str,
    capability: &'a CapabilityOf<A>,
}

impl<A: Address> fmt::Display for Named<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.capability)
    }
}
