// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be published. Each kind has a space of keys of its own.

use std::fmt;

use capstream_abi::hostcall::class;

use crate::Key;

/// What a portal is for: the number that the device kind's driver publishes it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// Messages.
    pub const STREAM: Class = Class(class::STREAM as u8);
    /// Doorbells.
    pub const BELL: Class = Class(class::BELL as u8);

    /// The class with this number; `None` when it is greater than [`class::MAX`].
    pub const fn new(number: u64) -> Option<Class> {
        if number > class::MAX {
            return None;
        }
        Some(Class(number as u8))
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0 as u64
    }
}

const _: () = assert!(class::MAX <= u8::MAX as u64);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Class::STREAM => f.write_str("stream"),
            Class::BELL => f.write_str("bell"),
            Class(number) => write!(f, "portal of class {number}"),
        }
    }
}

/// The kinds of things that can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A function that the monitor runs for whoever is connected to it.
    Portal(Class),
    /// A range of memory.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Portal(class) => class.fmt(f),
            Kind::File => f.write_str("file"),
        }
    }
}

/// What a portal is published under. A key alone is that of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortalKey {
    /// What the portal is for.
    pub class: Class,
    /// Its key among those of the class.
    pub key: Key,
}

impl From<Key> for PortalKey {
    fn from(key: Key) -> PortalKey {
        PortalKey {
            class: Class::STREAM,
            key,
        }
    }
}

impl From<(Class, Key)> for PortalKey {
    fn from((class, key): (Class, Key)) -> PortalKey {
        PortalKey { class, key }
    }
}
