// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The integers that addresses are.

use std::fmt::Debug;
use std::hash::Hash;
use std::ops::{Add, Sub};

/// An unsigned integer that is as wide as the addresses of some address space.
///
/// The monitor's is `u64`. What is computed with addresses is written for any width, so that tests can try everything there is in an
/// address space of a few bits.
pub trait Address: Copy + Ord + Hash + Debug + Into<u64> + Sub<Output = Self> {
    /// What holds the sum of two addresses, and the size of the address space.
    type Size: Copy + Ord + Into<u128> + Add<Output = Self::Size>;

    /// The first address.
    const ZERO: Self;
    /// The one after it.
    const ONE: Self;
    /// The last address.
    const MAX: Self;
    /// How many addresses there are.
    const SPACE: Self::Size;

    /// The same number, with room for sums.
    fn widen(self) -> Self::Size;
}

impl Address for u64 {
    type Size = u128;

    const ZERO: u64 = 0;
    const ONE: u64 = 1;
    const MAX: u64 = u64::MAX;
    const SPACE: u128 = 1 << 64;

    #[inline]
    fn widen(self) -> u128 {
        self.into()
    }
}
