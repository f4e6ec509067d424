// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The 128-bit compressed capability of CHERI-RISC-V.
//!
//! Bounds are kept as a 14-bit base and top (B and T) at an exponent E, relative to the address: a range is exact if its ends are
//! multiples of 2^E (of 2^(E+3) when the exponent lies in the low bits of B and T), and it stays known only while the address is in
//! the *representable space*, a window of 2^(E+14) bytes around it. Instructions that move an address far out of bounds lose the
//! tag for this reason. The format and the two ways to test for it are those of the formal model (`cheri_cap_common`).

use std::fmt;

/// Object type of a capability that is not sealed, as `cgettype` returns it.
pub const OTYPE_UNSEALED: i64 = -1;
/// Object type of a sealed entry, a capability that can only be jumped to.
pub const OTYPE_SENTRY: i64 = -2;
/// The largest object type that `cseal` can give; the four above are reserved.
pub const OTYPE_MAX: u64 = (1 << 18) - 5;
/// Bytes of a capability in memory, and of the granule that has one tag.
pub const CAPABILITY_SIZE: u64 = 16;

/// The high half of the null capability before it is XORed away: unsealed, internal exponent, E = 52.
const NULL_HIGH: u64 = 0x1fff_fc01_8004;
const MANTISSA: u32 = 14;
const MAX_EXPONENT: u32 = 52;
const MASK_65: u128 = (1 << 65) - 1;
const OTYPE_SHIFT: u32 = 27;
const OTYPE_MASK: u64 = 0x3_ffff;
const FLAG_BIT: u64 = 1 << 45;
const RESERVED_BITS: u64 = 0b11 << 46;
const PERMISSION_SHIFT: u32 = 48;
const HARDWARE_PERMISSIONS: u32 = 0xfff;
const SOFTWARE_SHIFT: u32 = 15;

/// A capability, decoded.
///
/// # Invariants
///
/// - `base` and `top` are what `high` and `address` decode to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    address: u64,
    /// The high half as memory holds it: XORed with [`NULL_HIGH`].
    high: u64,
    base: u64,
    /// The low 64 bits of the byte after the bounds.
    top_low: u64,
    /// Bit 64 of it.
    top_high: bool,
    tag: bool,
}

/// The fields of an encoding that say where bounds are.
#[derive(Clone, Copy)]
struct Encoded {
    internal: bool,
    /// Not clamped.
    exponent: u32,
    /// 14 bits.
    base: u32,
    /// 14 bits.
    top: u32,
}

impl Encoded {
    const fn of(high: u64) -> Encoded {
        let raw = high ^ NULL_HIGH;
        let internal = raw >> 26 & 1 != 0;
        let mut top = (raw >> 14 & 0xfff) as u32;
        let mut base = (raw & 0x3fff) as u32;
        let mut exponent = 0;
        if internal {
            exponent = (top & 7) << 3 | (base & 7);
            top &= !7;
            base &= !7;
        }
        // The two top bits of T are those of B plus the length's (01 or 00) and the carry from below.
        let carry = (top < base & 0xfff) as u32;
        let high_bits = ((base >> 12) + internal as u32 + carry) & 3;
        Encoded {
            internal,
            exponent,
            base,
            top: top | high_bits << 12,
        }
    }

    /// The bits of an encoding that belong to bounds.
    const fn bits(self) -> u64 {
        let mut top = (self.top & 0xfff) as u64;
        let mut base = (self.base & 0x3fff) as u64;
        if self.internal {
            top = top & !7 | (self.exponent >> 3 & 7) as u64;
            base = base & !7 | (self.exponent & 7) as u64;
        }
        (self.internal as u64) << 26 | top << 14 | base
    }

    /// Base, and top in 65 bits, for an address.
    const fn decode(self, address: u64) -> (u64, u128) {
        let e = if self.exponent > MAX_EXPONENT {
            MAX_EXPONENT
        } else {
            self.exponent
        };
        let a3 = (address >> (e + MANTISSA - 3) & 7) as u32;
        let b3 = self.base >> (MANTISSA - 3);
        let t3 = self.top >> (MANTISSA - 3);
        // The representable space begins an eighth below the base's eighth. What lies before that begin is in the space above.
        let r3 = b3.wrapping_sub(1) & 7;
        let address_high = (a3 < r3) as i128;
        let base_correction = (b3 < r3) as i128 - address_high;
        let top_correction = (t3 < r3) as i128 - address_high;
        let shift = e + MANTISSA;
        let above = if shift >= 64 {
            0
        } else {
            (address >> shift) as i128
        };
        let base = (((above + base_correction) << shift) as u128 | (self.base as u128) << e) & MASK_65;
        let mut top = (((above + top_correction) << shift) as u128 | (self.top as u128) << e) & MASK_65;
        // Where the representable space wraps around the address space, bit 64 of top is off by one.
        let base_2 = (base >> 63 & 1) as u32;
        let top_2 = (top >> 63 & 3) as u32;
        if e < MAX_EXPONENT - 1 && top_2.wrapping_sub(base_2) & 3 > 1 {
            top ^= 1 << 64;
        }
        (base as u64, top)
    }

    /// The smallest representable range around `[base, base + length)`; whether it is exactly that.
    const fn around(base: u64, length: u64) -> (Encoded, bool) {
        let wide_base = base as u128;
        let top = (wide_base + length as u128) & MASK_65;
        let exponent = if length >> (MANTISSA - 1) == 0 {
            0
        } else {
            63 - length.leading_zeros() - (MANTISSA - 2)
        };
        let internal = exponent != 0 || length >> (MANTISSA - 2) & 1 != 0;
        if !internal {
            let encoded = Encoded {
                internal,
                exponent: 0,
                base: (base & 0x3fff) as u32,
                top: (top & 0x3fff) as u32,
            };
            return (encoded, true);
        }
        // Three bits less of each mantissa; the rest of base is cut off, the rest of top rounds up.
        let mut exponent = exponent;
        let mut shift = exponent + 3;
        let mut lost = (1u128 << shift) - 1;
        let mut low = ((wide_base >> shift) & 0x7ff) as u32;
        let mut high = ((top >> shift) & 0x7ff) as u32;
        if top & lost != 0 {
            high = (high + 1) & 0x7ff;
        }
        if high.wrapping_sub(low) & 0x7ff & 1 << (MANTISSA - 4) != 0 {
            // The rounded length needs one bit more.
            exponent += 1;
            shift += 1;
            lost = (1u128 << shift) - 1;
            low = ((wide_base >> shift) & 0x7ff) as u32;
            high = ((top >> shift) & 0x7ff) as u32;
            if top & lost != 0 {
                high = (high + 1) & 0x7ff;
            }
        }
        let exact = wide_base & lost == 0 && top & lost == 0;
        let encoded = Encoded {
            internal,
            exponent,
            base: low << 3,
            top: high << 3,
        };
        (encoded, exact)
    }
}

impl Capability {
    /// The capability that zeroed memory holds: untagged, without permissions, with bounds of the whole address space.
    #[inline]
    pub const fn null() -> Capability {
        Capability::from_address(0)
    }

    /// The null capability with an address: what an integer register holds.
    #[inline]
    pub const fn from_address(address: u64) -> Capability {
        Capability {
            address,
            high: 0,
            base: 0,
            top_low: 0,
            top_high: true,
            tag: false,
        }
    }

    /// The whole address space with every permission, as the hart has it in its special registers after a reset.
    #[inline]
    pub const fn root() -> Capability {
        Capability {
            high: (0xffff << PERMISSION_SHIFT),
            tag: true,
            ..Capability::null()
        }
    }

    /// [`Capability::root`], for PCC.
    #[inline]
    pub const fn root_code() -> Capability {
        Capability::root()
    }

    /// [`Capability::root`], for DDC.
    #[inline]
    pub const fn root_data() -> Capability {
        Capability::root()
    }

    /// Whether it is valid.
    #[inline]
    pub const fn tag(&self) -> bool {
        self.tag
    }

    /// The address it points at, not always inside its bounds.
    #[inline]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// First byte of its bounds.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The byte after its bounds: 2^64 at most if it is tagged, 65 bits always.
    #[inline]
    pub const fn top(&self) -> u128 {
        self.top_low as u128 | (self.top_high as u128) << 64
    }

    /// Bytes in its bounds: 2^64 at most if it is tagged, 65 bits always.
    #[inline]
    pub const fn length(&self) -> u128 {
        self.top().wrapping_sub(self.base as u128) & MASK_65
    }

    /// The distance of its address from its base.
    #[inline]
    pub const fn offset(&self) -> u64 {
        self.address.wrapping_sub(self.base)
    }

    /// Permissions as `cgetperm` returns them: hardware in bits 11:0, software in 18:15. Their names are in
    /// [`Permissions`](crate::Permissions).
    #[inline]
    pub const fn permissions(&self) -> u32 {
        let bits = (self.high >> PERMISSION_SHIFT) as u32;
        bits & HARDWARE_PERMISSIONS | bits >> 12 << SOFTWARE_SHIFT
    }

    /// Whether it has all of these hardware permissions.
    #[inline]
    pub const fn permits(&self, permissions: u32) -> bool {
        !(self.high >> PERMISSION_SHIFT) as u32 & permissions & HARDWARE_PERMISSIONS == 0
    }

    /// Object type as `cgettype` returns it: -1 unsealed, -2 sentry, otherwise 0 to [`OTYPE_MAX`].
    #[inline]
    pub const fn otype(&self) -> i64 {
        let otype = ((self.high ^ NULL_HIGH) >> OTYPE_SHIFT) & OTYPE_MASK;
        if otype > OTYPE_MAX {
            otype as i64 - (1 << 18)
        } else {
            otype as i64
        }
    }

    /// Whether it is sealed, as a sentry or with an object type.
    #[inline]
    pub const fn is_sealed(&self) -> bool {
        self.high >> OTYPE_SHIFT & OTYPE_MASK != 0
    }

    /// Whether it is a sealed entry.
    #[inline]
    pub const fn is_sentry(&self) -> bool {
        self.otype() == OTYPE_SENTRY
    }

    /// Whether its object type is one of the reserved ones; "unsealed" is one of them.
    #[inline]
    pub const fn has_reserved_otype(&self) -> bool {
        self.otype() < 0
    }

    /// Capability mode, if this becomes PCC.
    #[inline]
    pub const fn flag(&self) -> bool {
        self.high & FLAG_BIT != 0
    }

    /// Whether `size` bytes at `address` are inside its bounds.
    #[inline]
    pub const fn contains(&self, address: u64, size: u64) -> bool {
        address >= self.base && address as u128 + size as u128 <= self.top()
    }

    /// Whether its bounds and permissions are a part of `other`'s. Tags and object types do not matter.
    pub const fn is_subset_of(&self, other: &Capability) -> bool {
        self.base >= other.base
            && self.top() <= other.top()
            && self.permissions() & !other.permissions() == 0
    }

    /// Whether the bounds would stay with another address, by the test that hardware makes of the difference: it holds for
    /// every address inside the bounds, and fails for the last 2^E bytes of the representable space.
    pub const fn is_representable_at(&self, address: u64) -> bool {
        let encoded = Encoded::of(self.high);
        let e = encoded.exponent;
        if e >= MAX_EXPONENT - 2 {
            return true;
        }
        let increment = address.wrapping_sub(self.address);
        let mask = (1u64 << MANTISSA) - 1;
        let increment_high = if e + MANTISSA >= 64 {
            increment as i64 >> 63
        } else {
            increment as i64 >> (e + MANTISSA)
        };
        let increment_middle = increment >> e & mask;
        let address_middle = self.address >> e & mask;
        let begin = (((encoded.base >> (MANTISSA - 3)).wrapping_sub(1) & 7) as u64) << (MANTISSA - 3);
        let distance = begin.wrapping_sub(address_middle) & mask;
        if increment_high == 0 {
            increment_middle < distance.wrapping_sub(1) & mask
        } else {
            increment_high == -1 && increment_middle >= distance && begin != address_middle
        }
    }

    /// With an address and whatever bounds the encoding has there.
    const fn moved(&self, address: u64) -> Capability {
        let (base, top) = Encoded::of(self.high).decode(address);
        Capability {
            address,
            base,
            top_low: top as u64,
            top_high: top >> 64 != 0,
            ..*self
        }
    }

    /// With another address. The tag falls if the bounds are not representable there, by the test that hardware makes
    /// ([`Capability::is_representable_at`]), or if it is sealed.
    #[must_use]
    pub const fn with_address(&self, address: u64) -> Capability {
        let kept = self.is_representable_at(address) && !self.is_sealed();
        if self.tag && kept {
            return Capability { address, ..*self };
        }
        let mut moved = self.moved(address);
        moved.tag = moved.tag && kept;
        moved
    }

    /// With another address. The tag falls if the bounds change, which is looked at exactly, or if it is sealed.
    #[must_use]
    pub const fn with_address_exact(&self, address: u64) -> Capability {
        let mut moved = self.moved(address);
        moved.tag = self.tag
            && !self.is_sealed()
            && moved.base == self.base
            && moved.top_low == self.top_low
            && moved.top_high == self.top_high;
        moved
    }

    /// With another address, sealed or not: PCC as an instruction's. The tag falls if the bounds change.
    #[inline]
    pub(crate) const fn at(&self, address: u64) -> Capability {
        // Every address inside the bounds is representable.
        if self.contains(address, 1) {
            return Capability { address, ..*self };
        }
        let mut moved = self.moved(address);
        moved.tag = self.tag
            && moved.base == self.base
            && moved.top_low == self.top_low
            && moved.top_high == self.top_high;
        moved
    }

    /// With another capability mode flag. The tag falls if it is sealed.
    #[must_use]
    pub const fn with_flag(&self, flag: bool) -> Capability {
        Capability {
            high: self.high & !FLAG_BIT | if flag { FLAG_BIT } else { 0 },
            tag: self.tag && !self.is_sealed(),
            ..*self
        }
    }

    /// With bounds `[base, base + length)`, rounded outwards to what can be represented, and address `base`; true if no rounding was
    /// needed. The tag falls if the range asked for is not inside this capability's bounds, or if this one is sealed.
    #[must_use]
    pub const fn set_bounds(&self, base: u64, length: u64) -> (Capability, bool) {
        let (encoded, exact) = Encoded::around(base, length);
        let (new_base, new_top) = encoded.decode(base);
        let field = (1u64 << OTYPE_SHIFT) - 1;
        let high = (self.high ^ NULL_HIGH) & !field | encoded.bits();
        let capability = Capability {
            address: base,
            high: high ^ NULL_HIGH,
            base: new_base,
            top_low: new_top as u64,
            top_high: new_top >> 64 != 0,
            tag: self.tag && !self.is_sealed() && self.contains(base, length),
        };
        (capability, exact)
    }

    /// With only the permissions that are in `mask` too. The tag falls if it is sealed.
    #[must_use]
    pub const fn and_permissions(&self, mask: u32) -> Capability {
        let bits = (mask & HARDWARE_PERMISSIONS | mask >> SOFTWARE_SHIFT << 12) as u64 & 0xffff;
        Capability {
            high: self.high & (bits << PERMISSION_SHIFT | (1 << PERMISSION_SHIFT) - 1),
            tag: self.tag && !self.is_sealed(),
            ..*self
        }
    }

    const fn with_otype(&self, otype: u64) -> Capability {
        let high = (self.high ^ NULL_HIGH) & !(OTYPE_MASK << OTYPE_SHIFT)
            | (otype & OTYPE_MASK) << OTYPE_SHIFT;
        Capability {
            high: high ^ NULL_HIGH,
            ..*self
        }
    }

    /// Sealed with the low 18 bits of `otype`, without a check of any authority: for the monitor, which holds the root. The tag
    /// falls if it is sealed already.
    #[must_use]
    pub const fn seal(&self, otype: u32) -> Capability {
        Capability {
            tag: self.tag && !self.is_sealed(),
            ..self.with_otype(otype as u64)
        }
    }

    /// Sealed as a sentry. The tag falls if it is sealed already.
    #[must_use]
    pub const fn seal_entry(&self) -> Capability {
        self.seal(OTYPE_SENTRY as u32)
    }

    /// Unsealed, without a check of any authority.
    #[must_use]
    pub const fn unseal(&self) -> Capability {
        self.with_otype(OTYPE_MASK)
    }

    /// Without its tag.
    #[must_use]
    #[inline]
    pub const fn clear_tag(&self) -> Capability {
        self.tag_if(false)
    }

    /// Without its tag unless `keep`.
    #[must_use]
    #[inline]
    pub const fn tag_if(&self, keep: bool) -> Capability {
        Capability {
            tag: self.tag && keep,
            ..*self
        }
    }

    /// What `cbuildcap` makes of this bit pattern under an authority: tagged if the authority is tagged and unsealed, covers its
    /// bounds and permissions, and could have been narrowed to exactly this encoding. A sentry stays one, other sealing is lost.
    #[must_use]
    pub const fn rebuild(&self, authority: &Capability) -> Capability {
        let wanted = if self.is_sentry() {
            *self
        } else {
            self.unseal()
        };
        let length = wanted.length();
        let derivable = authority.tag
            && !authority.is_sealed()
            && wanted.is_subset_of(authority)
            && wanted.base as u128 <= wanted.top()
            && wanted.high & RESERVED_BITS == 0
            && {
                // Only the canonical encoding of bounds can have been derived; 2^64 bytes are what the root has.
                let canonical = if length >> 64 != 0 {
                    Encoded::of(0).bits()
                } else {
                    Encoded::around(wanted.base, length as u64).0.bits()
                };
                Encoded::of(wanted.high).bits() == canonical
            };
        Capability {
            tag: derivable,
            ..wanted
        }
    }

    /// The high half, as memory holds it.
    #[inline]
    pub const fn high(&self) -> u64 {
        self.high
    }

    /// Whether bits are set that the format reserves.
    pub const fn has_reserved_bits(&self) -> bool {
        self.high & RESERVED_BITS != 0
    }

    /// The 16 bytes that memory holds for it, the address in the low half; the tag is not among them. Null is 0.
    #[inline]
    pub const fn to_bits(&self) -> u128 {
        self.address as u128 | (self.high as u128) << 64
    }

    /// The capability that memory holds as `bits`.
    #[inline]
    pub const fn from_bits(bits: u128, tag: bool) -> Capability {
        let capability = Capability {
            high: (bits >> 64) as u64,
            tag,
            ..Capability::null()
        };
        if capability.high == 0 {
            // Integers are the usual case.
            Capability {
                address: bits as u64,
                ..capability
            }
        } else {
            capability.moved(bits as u64)
        }
    }
}

/// The mask that aligns a base so that `length` bytes, rounded up by it, are exactly representable (`cram`).
pub const fn representable_mask(length: u64) -> u64 {
    let (encoded, _) = Encoded::around(0, length);
    if !encoded.internal {
        return u64::MAX;
    }
    u64::MAX << (encoded.exponent + 3)
}

/// The smallest representable length of at least `length` bytes; 0 if that is 2^64 (`crrl`).
pub const fn representable_length(length: u64) -> u64 {
    let mask = representable_mask(length);
    length.wrapping_add(!mask) & mask
}

impl Default for Capability {
    fn default() -> Capability {
        Capability::null()
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#x} [{:#x}, {:#x}) permissions {:#x} otype {}{}{}",
            self.address,
            self.base,
            self.top(),
            self.permissions(),
            self.otype(),
            if self.flag() { " capability-mode" } else { "" },
            if self.tag { "" } else { " untagged" },
        )
    }
}
