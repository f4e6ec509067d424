// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is in a guest's memory, against sums that cannot overflow: every hole, and ranges that begin and end near every border.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::Range;

use capstream_virtio::GuestMemory;

const PAGE: u64 = 4096;
const PAGES: u64 = 6;
const SIZE: u64 = PAGES * PAGE;

/// At the begin of the address space, in the middle, and as far up as there is room.
const BASES: [u64; 3] = [0, 0x2000_0000, u64::MAX - SIZE - PAGE + 1];

fn memory(base: u64) -> GuestMemory {
    GuestMemory::anonymous(base, SIZE as usize).unwrap()
}

/// Numbers near each border of a page, and near what wraps around.
fn numbers(base: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..=PAGES)
        .flat_map(|page| {
            [0, 1, u64::MAX].map(|offset| base.wrapping_add(page * PAGE).wrapping_add(offset))
        })
        .collect();
    numbers.extend([0, 1, PAGE, SIZE, 1 << 63, u64::MAX - 1, u64::MAX]);
    numbers.extend([base.wrapping_neg(), base.wrapping_neg().wrapping_add(1)]);
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Whether all bytes of `[address, address + len)` are in one of the parts.
fn inside(parts: &[Range<u128>], address: u64, len: u64) -> bool {
    let (begin, end) = (u128::from(address), u128::from(address) + u128::from(len));
    len == 0
        || parts
            .iter()
            .any(|part| part.start <= begin && end <= part.end)
}

fn check(memory: &GuestMemory, base: u64, all: &[Range<u128>], plain: &[Range<u128>]) {
    let lengths: Vec<u64> = numbers(0);
    for address in numbers(base) {
        for &len in &lengths {
            assert_eq!(
                memory.contains(address, len),
                inside(all, address, len),
                "{len:#x} bytes at {address:#x} of {all:x?}"
            );
            assert_eq!(
                memory.contains_plain(address, len),
                inside(plain, address, len),
                "{len:#x} bytes at {address:#x} of {plain:x?}"
            );
        }
        // What is there can be read, and nothing else can.
        for len in [1, 2, 16] {
            let mut bytes = vec![0; len];
            let there = inside(plain, address, len as u64);
            assert_eq!(
                memory.read(address, &mut bytes).is_ok(),
                there,
                "{address:#x}"
            );
            assert_eq!(memory.write(address, &bytes).is_ok(), there, "{address:#x}");
        }
    }
}

fn wide(range: Range<u64>) -> Range<u128> {
    range.start.into()..range.end.into()
}

#[test]
fn what_is_in_a_range_is_exact_at_every_border() {
    for base in BASES {
        let all = [wide(base..base + SIZE)];
        check(&memory(base), base, &all, &all);
    }
}

#[test]
fn every_hole_is_outside_and_nothing_else() {
    for base in BASES {
        for first in 0..=PAGES {
            for last in 0..=PAGES {
                let hole = base + first * PAGE..base + last * PAGE;
                let result = memory(base).without(hole.clone());
                let fits = 0 < first && first <= last && last < PAGES;
                assert_eq!(result.is_ok(), fits, "{hole:x?}");
                let Ok(memory) = result else { continue };
                let all = wide(base..base + SIZE);
                // Without a hole between them, two parts are still two: no access goes across.
                let parts = [wide(base..hole.start), wide(hole.end..base + SIZE)];
                let lengths = numbers(0);
                for address in numbers(base) {
                    for &len in &lengths {
                        let expected = if first == last {
                            inside(std::slice::from_ref(&all), address, len)
                        } else {
                            inside(&parts, address, len)
                        };
                        let found = memory.contains(address, len);
                        assert!(
                            !found || expected,
                            "{len:#x} bytes at {address:#x}, hole {hole:x?}"
                        );
                        assert_eq!(
                            found,
                            inside(&parts, address, len),
                            "{address:#x} {len:#x} {hole:x?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_plain_part_is_exact() {
    for base in BASES {
        for first in 0..=PAGES {
            for last in 0..=PAGES {
                let part = base + first * PAGE..base + last * PAGE;
                let result = memory(base).with_plain_part(part.clone());
                assert_eq!(result.is_ok(), first < last, "{part:x?}");
                if let Ok(memory) = result {
                    check(&memory, base, &[wide(base..base + SIZE)], &[wide(part)]);
                }
            }
        }
    }
}

#[test]
fn memory_does_not_go_past_the_end_of_the_address_space() {
    for base in [u64::MAX - SIZE + 2, u64::MAX - PAGE + 1, u64::MAX] {
        assert!(
            GuestMemory::anonymous(base, SIZE as usize).is_err(),
            "{base:#x}"
        );
    }
    assert!(GuestMemory::anonymous(0x1000, 0).is_err());
}
