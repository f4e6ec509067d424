// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the code of a cVM and the monitor call the same byte.

/// Turns addresses as the code of one cVM uses them into the monitor's, and back.
///
/// On most platforms they are the same. Where integer addresses count from the first byte of a compartment, as on the older generation of
/// CHERI-RISC-V, they differ by where the range is. Nothing is checked here: the result is compared with a capability's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    begin: u64,
    code_base: u64,
}

impl Addressing {
    /// The code calls the range's first byte, which the monitor calls `begin`, `code_base`.
    pub const fn new(begin: u64, code_base: u64) -> Addressing {
        Addressing { begin, code_base }
    }

    /// The code uses the monitor's addresses.
    pub const fn same(begin: u64) -> Addressing {
        Addressing::new(begin, begin)
    }

    /// What the code calls the first byte of its range; images are relocated to it.
    #[inline]
    pub const fn code_base(self) -> u64 {
        self.code_base
    }

    /// The monitor's address for one of the code's. One that is not in the range is none of the range's afterwards either.
    #[inline]
    pub const fn to_monitor(self, address: u64) -> u64 {
        address
            .wrapping_sub(self.code_base)
            .wrapping_add(self.begin)
    }

    /// The code's address for one of the monitor's.
    #[inline]
    pub const fn to_code(self, address: u64) -> u64 {
        address
            .wrapping_sub(self.begin)
            .wrapping_add(self.code_base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstream_capability::Capability;

    #[test]
    fn addresses_go_there_and_back() {
        let relative = Addressing::new(0x2000_0000, 0);
        assert_eq!(relative.to_monitor(0x1234), 0x2000_1234);
        assert_eq!(relative.to_code(0x2000_1234), 0x1234);
        // Below the range it stays below the range.
        assert_eq!(relative.to_monitor(u64::MAX), 0x1fff_ffff);
        let same = Addressing::same(0x2000_0000);
        assert_eq!(same.to_monitor(0x2000_0010), 0x2000_0010);
        assert_eq!(same.to_code(7), 7);
    }

    /// For every combination of numbers near what can go wrong: what the bounds of a cVM let through is exactly what its code calls its own.
    #[test]
    fn only_the_code_s_own_addresses_lie_in_the_range() {
        const SIZE: u64 = 0x3000;
        let mut numbers: Vec<u64> = Vec::new();
        for middle in [0, SIZE, 0x2000_0000, 1 << 63] {
            for offset in [0, 1, 0x1000, SIZE] {
                numbers.extend([middle + offset, u64::wrapping_sub(middle, offset)]);
            }
        }
        for &begin in &numbers {
            let Ok(authority) = Capability::root().restrict(begin, SIZE) else {
                continue;
            };
            for &code_base in &numbers {
                let addressing = Addressing::new(begin, code_base);
                for &address in &numbers {
                    let monitors = addressing.to_monitor(address);
                    assert_eq!(addressing.to_code(monitors), address);
                    for &len in &numbers {
                        // Counted from the begin of the range, which the code may see wrap around.
                        let offset = u128::from(address.wrapping_sub(code_base));
                        let own = offset + u128::from(len) <= u128::from(SIZE);
                        let covered = authority.covers(monitors, len);
                        assert!(!covered || own, "{addressing:?} {address:#x} {len:#x}");
                        // No bytes at the end of the address space have no address.
                        assert!(
                            covered == own || len == 0,
                            "{addressing:?} {address:#x} {len:#x}"
                        );
                    }
                }
            }
        }
    }
}
