// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who owns an object, or uses it.

use std::fmt;

/// How many cVMs there can be at the same time; their indices are below it.
pub const MAX_CVMS: u16 = 1024;

/// One life of a cVM, or the monitor. The index is reused when a cVM ended; the generation never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    index: u16,
    generation: u64,
}

impl Owner {
    /// The monitor itself.
    pub const MONITOR: Owner = Owner {
        index: u16::MAX,
        generation: 0,
    };

    pub(crate) const fn new(index: u16, generation: u64) -> Owner {
        Owner { index, generation }
    }

    /// The cVM's index, below [`MAX_CVMS`]; `u16::MAX` for the monitor.
    #[inline]
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// Which life of that index.
    #[inline]
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Owner::MONITOR {
            f.write_str("the monitor")
        } else {
            write!(f, "cVM {}", self.index)
        }
    }
}
