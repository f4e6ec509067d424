// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A range of memory, what may be done with it, and how narrower ones are derived.

use std::fmt;

use crate::errno;
use crate::{ObjectType, Permissions};

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
/// All of memory belongs to [`Capability::root`]; every other capability is derived from it, and derivation only ever narrows: bounds
/// to a part of the bounds, permissions to some of the permissions. What the hardware of the older generation
/// refuses with an exception is an error here.
///
/// # Invariants
///
/// - The range ends at 2^64 at the latest. Only the whole address space has a length that 64 bits do not hold.
/// - A capability without a tag gives no authority: nothing can be derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    base: u64,
    /// The low 64 bits of the length in bytes.
    length: u64,
    permissions: Permissions,
    otype: ObjectType,
    tag: bool,
    /// Bit 64 of the length; set only when `base` and `length` are 0.
    whole: bool,
}

impl Capability {
    /// No authority at all: the capability that zeroed memory holds.
    pub const NULL: Capability = Capability {
        base: 0,
        length: 0,
        permissions: Permissions::empty(),
        otype: ObjectType::UNSEALED,
        tag: false,
        whole: true,
    };

    /// The whole address space with every permission: what a machine starts with, and the only capability not derived from another.
    /// The monitor makes it once, at its start.
    #[inline]
    pub const fn root() -> Capability {
        Capability {
            permissions: Permissions::all(),
            tag: true,
            ..Capability::NULL
        }
    }

    /// First byte of the range.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Bytes in the range; 2^64 - 1 for the whole address space, as `cgetlen` returns it.
    #[inline]
    pub const fn length(&self) -> u64 {
        if self.whole { u64::MAX } else { self.length }
    }

    /// Whether the range has no bytes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        !self.whole && self.length == 0
    }

    /// The byte after the range, at most 2^64.
    #[inline]
    pub const fn top(&self) -> u128 {
        self.base as u128 + self.wide_length()
    }

    #[inline]
    const fn wide_length(&self) -> u128 {
        (self.whole as u128) << 64 | self.length as u128
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
    pub const fn without_tag(self) -> Capability {
        Capability { tag: false, ..self }
    }

    /// Whether `[ptr, ptr + len)` lies inside the range. An empty range lies inside when `ptr` is inside or at the end;
    /// a range that goes past 2^64 never does.
    #[inline]
    pub const fn covers(&self, ptr: u64, len: u64) -> bool {
        ptr >= self.base && (ptr - self.base) as u128 + len as u128 <= self.wide_length()
    }

    /// Whether everything that this capability allows is allowed by `other` too (`ctestsubset`).
    #[inline]
    pub fn is_subset_of(&self, other: &Capability) -> bool {
        self.tag == other.tag
            && self.base >= other.base
            && self.top() <= other.top()
            && other.permissions.contains(self.permissions)
    }

    /// How many of `len` bytes from `offset` on are there: fewer than `len` only at the end of the range.
    #[inline]
    pub const fn clip(&self, offset: u64, len: u64) -> u64 {
        let available = self.length().saturating_sub(offset);
        if len < available { len } else { available }
    }

    /// The capability for `[base, base + len)`, with the same permissions (`csetbounds`, exact).
    ///
    /// # Errors
    ///
    /// [`CapabilityError::Untagged`], [`CapabilityError::Sealed`], and [`CapabilityError::Bounds`] when the range is not
    /// [covered](Capability::covers).
    #[inline]
    pub const fn restrict(&self, base: u64, len: u64) -> Result<Capability, CapabilityError> {
        if let Err(error) = self.usable() {
            return Err(error);
        }
        if !self.covers(base, len) {
            return Err(self.out_of_bounds(base, len));
        }
        // INVARIANT: covered ranges end at 2^64 at the latest, and `len` has 64 bits.
        Ok(Capability {
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
    pub const fn and_permissions(&self, mask: Permissions) -> Result<Capability, CapabilityError> {
        if let Err(error) = self.usable() {
            return Err(error);
        }
        Ok(Capability {
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
    pub fn seal(&self, with: &Capability) -> Result<Capability, CapabilityError> {
        let otype = with.object_type_authority(Permissions::SEAL)?;
        self.usable()?;
        Ok(Capability { otype, ..*self })
    }

    /// The capability unsealed by the authority `with`, whose base is its object type (`cunseal`). It is global only if both are.
    ///
    /// # Errors
    ///
    /// As [`Capability::seal`] for `with`, needing [`Permissions::UNSEAL`]; [`CapabilityError::NotSealed`] when there is nothing to unseal;
    /// [`CapabilityError::ObjectTypeMismatch`].
    pub fn unseal(&self, with: &Capability) -> Result<Capability, CapabilityError> {
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
        Ok(Capability {
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
        code: &Capability,
        data: &Capability,
    ) -> Result<(Capability, Capability), CapabilityError> {
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
                base: data.base,
                top: data.top(),
            });
        }
        if code.is_empty() {
            return Err(code.out_of_bounds(code.base, 1));
        }
        let unsealed = |capability: &Capability| Capability {
            otype: ObjectType::UNSEALED,
            ..*capability
        };
        Ok((unsealed(code), unsealed(data)))
    }

    /// The capability to load data from `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`Capability::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub const fn check_load(&self, ptr: u64, len: u64) -> Result<Capability, CapabilityError> {
        self.check(Permissions::LOAD, ptr, len)
    }

    /// The capability to store data to `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`Capability::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub const fn check_store(&self, ptr: u64, len: u64) -> Result<Capability, CapabilityError> {
        self.check(Permissions::STORE, ptr, len)
    }

    /// The capability to load data from and store data to `[ptr, ptr + len)`, and for nothing else.
    ///
    /// # Errors
    ///
    /// As [`Capability::restrict`], and [`CapabilityError::Permission`].
    #[inline]
    pub const fn check_load_store(
        &self,
        ptr: u64,
        len: u64,
    ) -> Result<Capability, CapabilityError> {
        self.check(Permissions::LOAD_STORE, ptr, len)
    }

    #[inline]
    const fn check(
        &self,
        need: Permissions,
        ptr: u64,
        len: u64,
    ) -> Result<Capability, CapabilityError> {
        let mut derived = match self.restrict(ptr, len) {
            Ok(derived) => derived,
            Err(error) => return Err(error),
        };
        if let Err(error) = self.permits(need) {
            return Err(error);
        }
        derived.permissions = self
            .permissions
            .intersection(Permissions::GLOBAL.union(need));
        Ok(derived)
    }

    #[inline]
    const fn tagged(&self) -> Result<(), CapabilityError> {
        if self.tag {
            Ok(())
        } else {
            Err(CapabilityError::Untagged {
                base: self.base,
                top: self.top(),
            })
        }
    }

    #[inline]
    const fn usable(&self) -> Result<(), CapabilityError> {
        if let Err(error) = self.tagged() {
            return Err(error);
        }
        if self.otype.bits() != ObjectType::UNSEALED.bits() {
            return Err(CapabilityError::Sealed {
                base: self.base,
                top: self.top(),
                otype: self.otype,
            });
        }
        Ok(())
    }

    #[inline]
    const fn permits(&self, need: Permissions) -> Result<(), CapabilityError> {
        if self.permissions.contains(need) {
            return Ok(());
        }
        Err(CapabilityError::Permission {
            missing: need.difference(self.permissions),
            has: self.permissions,
            base: self.base,
            top: self.top(),
        })
    }

    fn sealed_with(&self) -> Result<(), CapabilityError> {
        self.tagged()?;
        if self.otype.is_reserved() {
            return Err(CapabilityError::NotSealed {
                base: self.base,
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
            return Err(self.out_of_bounds(self.base, 1));
        }
        ObjectType::new(self.base).ok_or(CapabilityError::ObjectType { value: self.base })
    }

    #[cold]
    const fn out_of_bounds(&self, ptr: u64, len: u64) -> CapabilityError {
        CapabilityError::Bounds {
            ptr,
            len,
            base: self.base,
            top: self.top(),
        }
    }

    /// Prints it as a line of the log, with its name.
    pub const fn named<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named {
            name,
            capability: self,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tag {}, sealed {}, perms {}, base {:#x}, length {:#x}",
            u8::from(self.tag),
            u8::from(self.is_sealed()),
            self.permissions,
            self.base,
            self.wide_length()
        )
    }
}

/// A capability with a name, for the log: `ca0: tag 1, sealed 1, perms 0x107, base 0x20000000, length 0x10000000`.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    name: &'a str,
    capability: &'a Capability,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.capability)
    }
}
