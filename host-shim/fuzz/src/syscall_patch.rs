// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The patches of system calls, in code that is any bytes, changes at any time, and is forgotten in any pieces.

use arbitrary::{Result, Unstructured};
use capstream_syscall_patch::{Direction, PatchError};

use crate::arena::{Arena, PAGE};
use crate::number::near;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const CODE_PAGES: u64 = 2;
const STUB_PAGES: u64 = 2;
/// How far from a system call its patch may change bytes.
const LONGEST_SPAN: u64 = 512;
const MOST_STEPS: usize = 64;

/// Patches code made of `bytes`.
pub fn run(bytes: &[u8]) {
    // What is missing at the end of the input is nothing to report.
    let _ = drive(&mut Unstructured::new(bytes));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut arena = Arena::new(CODE_PAGES + STUB_PAGES + 3);
    let begin = arena.begin();
    let code = begin + PAGE..begin + (1 + CODE_PAGES) * PAGE;
    let stubs = code.end + PAGE..code.end + (1 + STUB_PAGES) * PAGE;
    arena.mark(begin..code.start);
    arena.mark(code.end..stubs.start);
    arena.mark(stubs.end..arena.end());
    // A kernel that a stub can jump to: somewhere before the code.
    let table = arena.patch_table(code.clone(), stubs.clone(), begin);
    let size = code.end - code.start;

    // At either end of the code, or in the middle of it.
    let len = input.int_in_range(0..=600_usize)?.min(input.len());
    let text = input.bytes(len)?.to_vec();
    let at = match input.arbitrary::<u8>()? % 4 {
        0 => 0,
        1 => size - len as u64,
        2 => PAGE - (len as u64 / 2).min(PAGE),
        _ => input.int_in_range(0..=size - len as u64)?,
    };
    arena.write(code.start + at, &text);
    let mut patched: Vec<u64> = Vec::new();
    let mut expected = arena.read(code.clone());
    let mut sites = system_calls(code.start, &expected);
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        let mut anchors = vec![
            code.start,
            code.end,
            stubs.start,
            stubs.end,
            code.start + at,
        ];
        anchors.extend(sites.iter().take(16));
        match input.arbitrary::<u8>()? % 8 {
            0..=3 => {
                let ip = match input.choose(&sites) {
                    Ok(&site) => site,
                    Err(_) => near(input, &anchors)?,
                };
                let before = arena.read(code.clone());
                match table.patch(ip) {
                    Ok(_) => patched.push(ip),
                    Err(PatchError::OutOfRange { .. } | PatchError::NotSyscall { .. }) => {
                        assert_eq!(arena.read(code.clone()), before, "refused, but written");
                    }
                    Err(_) => {}
                }
            }
            4 => {
                let ip = near(input, &anchors)?;
                for direction in [Direction::ToProgram, Direction::ToPatched] {
                    let to = table.translate(ip, direction);
                    let known = code.contains(&to) || stubs.contains(&to) || to == code.end;
                    assert!(to == ip || known, "{ip:#x} became {to:#x}");
                }
                if let Some(to) = table.on_invalid_opcode(ip) {
                    assert!(stubs.contains(&to), "{ip:#x} goes on at {to:#x}");
                }
            }
            5 | 6 => {
                let (from, to) = (near(input, &anchors)?, near(input, &anchors)?);
                let before = arena.read(code.clone());
                table.forget(from, to);
                let after = arena.read(code.clone());
                let gone = from.clamp(code.start, code.end)..to.clamp(code.start, code.end);
                if gone.start < gone.end {
                    let part = (gone.start - code.start) as usize..(gone.end - code.start) as usize;
                    assert!(
                        before[part.clone()] == after[part],
                        "{gone:x?} was forgotten, but written"
                    );
                }
            }
            _ => {
                // The program writes to its code, whether it has told so or not.
                let len = input.int_in_range(0..=16_usize)?.min(input.len());
                let bytes = input.bytes(len)?.to_vec();
                let place = near(input, &anchors)?.clamp(code.start, code.end - 16);
                arena.write(place, &bytes);
                let offset = (place - code.start) as usize;
                expected[offset..offset + len].copy_from_slice(&bytes);
                sites = system_calls(code.start, &expected);
            }
        }
        let now = arena.read(code.clone());
        if now == expected {
            continue;
        }
        for (place, (old, new)) in (code.start..).zip(expected.iter().zip(&now)) {
            let close = || {
                patched
                    .iter()
                    .any(|site| site.abs_diff(place) <= LONGEST_SPAN)
            };
            assert!(
                old == new || close(),
                "{place:#x} is far from what was patched"
            );
        }
    }
    drop(table);
    arena.check_marks();
    Ok(())
}

/// The addresses after all that look like system calls.
fn system_calls(begin: u64, code: &[u8]) -> Vec<u64> {
    code.windows(2)
        .enumerate()
        .filter(|(_, pair)| *pair == SYSCALL)
        .map(|(offset, _)| begin + offset as u64 + 2)
        .collect()
}
