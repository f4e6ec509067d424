// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the parts of a cVM are, against sums that cannot overflow: for every combination of numbers near what can go wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use capstream_abi::Layout;
use capstream_abi::boot::{COMMAND_LINE, HEAD, PAGE, PATCH_AREA, PORTAL_STACK_SIZE, PORTAL_STACKS};

const STACKS: u64 = PORTAL_STACKS * PORTAL_STACK_SIZE;

/// Numbers near zero, near the end of the address space, and near the sizes that are added and taken away.
fn numbers() -> Vec<u64> {
    let mut numbers = Vec::new();
    for middle in [
        0,
        PAGE,
        HEAD + STACKS,
        PATCH_AREA,
        PATCH_AREA + HEAD + STACKS,
        64 << 20,
        1 << 63,
    ] {
        for offset in [0, 1, PAGE, 2 * PAGE] {
            numbers.extend([
                middle + offset,
                middle.wrapping_sub(offset),
                middle.wrapping_neg().wrapping_add(offset),
                middle.wrapping_neg().wrapping_sub(offset),
            ]);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[test]
fn parts_are_inside_the_range_or_there_is_no_layout() {
    let numbers = numbers();
    let wide = u128::from;
    let (mut laid_out, mut refused) = (0_u64, 0_u64);
    for &base in &numbers {
        for &size in &numbers {
            for &image in &numbers {
                for &ram in &numbers {
                    let end = wide(base) + wide(size);
                    let boot = wide(base) + wide(image).next_multiple_of(wide(PAGE));
                    let ram_begin = boot + wide(HEAD + STACKS);
                    let fits = base % PAGE == 0
                        && size % PAGE == 0
                        && end < 1 << 64
                        && ram_begin + wide(ram) + wide(PATCH_AREA) <= end;
                    let layout = Layout::new(base, size, image, ram);
                    assert_eq!(
                        layout.is_some(),
                        fits,
                        "{base:#x} {size:#x} {image:#x} {ram:#x}"
                    );
                    let Some(layout) = layout else {
                        refused += 1;
                        continue;
                    };
                    laid_out += 1;
                    assert_eq!(wide(layout.base), wide(base));
                    assert_eq!(wide(layout.boot), boot);
                    assert_eq!(wide(layout.ram_begin), ram_begin);
                    assert_eq!(wide(layout.ram_end), end - wide(PATCH_AREA));
                    assert_eq!(wide(layout.end), end);
                    // One after the other, without a gap.
                    assert_eq!(layout.boot + PAGE, layout.vcpu);
                    assert_eq!(layout.vcpu + PAGE, layout.command_line);
                    assert_eq!(layout.command_line + COMMAND_LINE, layout.capability_store);
                    assert_eq!(layout.capability_store + PAGE, layout.portal_stacks);
                    assert_eq!(layout.portal_stacks + STACKS, layout.ram_begin);
                    assert!(layout.ram_begin % PAGE == 0 && layout.ram_end % PAGE == 0);
                }
            }
        }
    }
    assert!(laid_out > 1000 && refused > 1000, "{laid_out} {refused}");
}
