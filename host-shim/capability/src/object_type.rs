// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Object types: which capabilities belong together once they are sealed.

use std::fmt;

/// The object type of a capability, 18 bits. The four highest values are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectType(u32);

impl ObjectType {
    /// -1: not sealed.
    pub const UNSEALED: ObjectType = ObjectType(0x3ffff);
    /// -2: a sealed entry, unsealed by jumping to it.
    pub const SENTRY: ObjectType = ObjectType(0x3fffe);
    /// The highest value that a capability can be sealed with.
    pub const MAX: ObjectType = ObjectType(0x3fffb);

    /// The object type with this value; `None` when it is reserved or has more than 18 bits.
    #[inline]
    pub const fn new(value: u64) -> Option<ObjectType> {
        if value <= ObjectType::MAX.0 as u64 {
            Some(ObjectType(value as u32))
        } else {
            None
        }
    }

    /// The 18 bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether no capability can be sealed or unsealed with it.
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 > ObjectType::MAX.0
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ObjectType::UNSEALED => f.write_str("unsealed"),
            ObjectType::SENTRY => f.write_str("sentry"),
            ObjectType(value) => write!(f, "{value:#x}"),
        }
    }
}
