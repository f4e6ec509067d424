// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs code natively before and after patching, from every address where it can go on, and compares.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod arena;
mod processor;

use arena::Arena;
use capstream_syscall_patch::{Direction, PatchKind};
use processor::{Processor, R11, RAX, RCX, RSP, Registers};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::HashMap;

/// A system call without effects whose result stays the same.
const GETPPID: u64 = 110;
/// Registers that generated code uses: all but rax, rcx, rsp, r11.
const POOL: [u8; 12] = [2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15];
/// Flags that are compared: carry, parity, adjust, zero, sign, direction, overflow.
const FLAGS: u64 = 0xcd5;

/// One generated instruction.
#[derive(Clone, Copy, Debug)]
enum Code {
    /// `mov $imm32, %r32` or, wide, `mov $imm32, %r64`.
    Immediate { to: u8, value: i32, wide: bool },
    /// `mov $imm64, %r64`.
    Immediate64 { to: u8, value: u64 },
    /// `add`, `sub`, `xor`, `cmp`, `mov` between registers.
    Alu { opcode: u8, to: u8, from: u8 },
    /// The same on 32 bits of the first eight registers, in two bytes.
    Alu32 { opcode: u8, to: u8, from: u8 },
    /// `add $imm8, %r64`.
    AddSmall { to: u8, value: i8 },
    /// A one-byte instruction: `clc`, `stc`, `cmc`, `cltd`, `nop`.
    Single(u8),
    /// `mov` to or from the stack, red zone included.
    Stack { register: u8, slot: i8, store: bool },
    /// `mov` to or from the data, relative to rip.
    Data { register: u8, slot: u8, store: bool },
    /// `lea` of the data, relative to rip.
    Address { to: u8, slot: u8 },
    /// A conditional branch over the next instruction.
    Skip { condition: u8, near: bool },
    /// `syscall`.
    Syscall,
    /// `mov $GETPPID, %eax`.
    Number,
    /// `ret`.
    Return,
}

fn rex(register: u8, base: u8) -> u8 {
    0x48 | (register >> 3) << 2 | base >> 3
}

fn modrm(mode: u8, register: u8, base: u8) -> u8 {
    mode << 6 | (register & 7) << 3 | base & 7
}

impl Code {
    /// Its bytes at `ip`, where data is at `data`; a branch skips `next` bytes.
    fn encode(self, ip: u64, data: u64, next: usize) -> Vec<u8> {
        let relative = |opcode: u8, register: u8, slot: u8| {
            let target = data + 8 * u64::from(slot);
            let displacement = (target as i64 - (ip as i64 + 7)) as i32;
            let mut code = vec![rex(register, 0), opcode, modrm(0, register, 5)];
            code.extend(displacement.to_le_bytes());
            code
        };
        match self {
            Code::Immediate { to, value, wide } => {
                let mut code = match (wide, to) {
                    (true, _) => vec![rex(0, to), 0xc7, modrm(3, 0, to)],
                    (false, 8..) => vec![0x41, 0xb8 + (to & 7)],
                    (false, _) => vec![0xb8 + to],
                };
                code.extend(value.to_le_bytes());
                code
            }
            Code::Immediate64 { to, value } => {
                let mut code = vec![rex(0, to), 0xb8 + (to & 7)];
                code.extend(value.to_le_bytes());
                code
            }
            Code::Alu { opcode, to, from } => vec![rex(from, to), opcode, modrm(3, from, to)],
            Code::Alu32 { opcode, to, from } => vec![opcode, modrm(3, from & 7, to & 7)],
            Code::AddSmall { to, value } => vec![rex(0, to), 0x83, modrm(3, 0, to), value as u8],
            Code::Single(opcode) => vec![opcode],
            Code::Stack {
                register,
                slot,
                store,
            } => {
                let opcode = if store { 0x89 } else { 0x8b };
                let displacement = slot.wrapping_mul(8) as u8;
                vec![
                    rex(register, 4),
                    opcode,
                    modrm(1, register, 4),
                    0x24,
                    displacement,
                ]
            }
            Code::Data {
                register,
                slot,
                store,
            } => relative(if store { 0x89 } else { 0x8b }, register, slot),
            Code::Address { to, slot } => relative(0x8d, to, slot),
            Code::Skip {
                condition,
                near: false,
            } => vec![0x70 + condition, next as u8],
            Code::Skip {
                condition,
                near: true,
            } => {
                let mut code = vec![0x0f, 0x80 + condition];
                code.extend((next as i32).to_le_bytes());
                code
            }
            Code::Syscall => vec![0x0f, 0x05],
            Code::Number => vec![0xb8, GETPPID as u8, 0, 0, 0],
            Code::Return => vec![0xc3],
        }
    }
}

/// Any instruction shorter than a jump.
fn short() -> impl Strategy<Value = Code> {
    let register = || prop::sample::select(POOL.to_vec());
    let low = || prop::sample::select(vec![2_u8, 3, 5, 6, 7]);
    let alu = || prop::sample::select(vec![0x01_u8, 0x29, 0x31, 0x39, 0x89, 0x85]);
    prop_oneof![
        (alu(), register(), register()).prop_map(|(opcode, to, from)| Code::Alu {
            opcode,
            to,
            from
        }),
        (alu(), low(), low()).prop_map(|(opcode, to, from)| Code::Alu32 { opcode, to, from }),
        (register(), any::<i8>()).prop_map(|(to, value)| Code::AddSmall { to, value }),
        prop::sample::select(vec![0xf8_u8, 0xf9, 0xf5, 0x99, 0x90]).prop_map(Code::Single),
        (0_u8..16).prop_map(|condition| Code::Skip {
            condition,
            near: false
        }),
    ]
}

/// Any instruction.
fn code() -> impl Strategy<Value = Code> {
    let register = || prop::sample::select(POOL.to_vec());
    // The return address is at slot 0.
    let slot = || (-16_i8..=15).prop_map(|slot| if slot == 0 { 1 } else { slot });
    prop_oneof![
        short(),
        (register(), any::<i32>(), any::<bool>()).prop_map(|(to, value, wide)| Code::Immediate {
            to,
            value,
            wide
        }),
        (register(), any::<u64>()).prop_map(|(to, value)| Code::Immediate64 { to, value }),
        (register(), slot(), any::<bool>()).prop_map(|(register, slot, store)| Code::Stack {
            register,
            slot,
            store
        }),
        (register(), 0_u8..32, any::<bool>()).prop_map(|(register, slot, store)| Code::Data {
            register,
            slot,
            store
        }),
        (register(), 0_u8..32).prop_map(|(to, slot)| Code::Address { to, slot }),
        (0_u8..16).prop_map(|condition| Code::Skip {
            condition,
            near: true
        }),
    ]
}

/// What follows the function.
#[derive(Clone, Copy, Debug)]
enum After {
    /// No-operations up to an aligned address.
    Aligned,
    /// Breakpoints.
    Breakpoints,
    /// Another function at once.
    Nothing,
}

#[derive(Clone, Debug)]
struct Case {
    filler: Vec<Code>,
    before: Vec<Code>,
    after: Vec<Code>,
    padding: After,
    offset: u64,
    registers: [u64; 16],
}

fn case() -> impl Strategy<Value = Case> {
    let near = prop_oneof![
        3 => prop::collection::vec(short(), 0..12),
        1 => prop::collection::vec(code(), 0..12),
    ];
    let number = any::<prop::sample::Index>();
    let before = (near, any::<bool>(), number).prop_map(|(mut code, number, at)| {
        if number {
            code.insert(at.index(code.len() + 1), Code::Number);
        }
        code
    });
    let padding = prop::sample::select(vec![After::Aligned, After::Breakpoints, After::Nothing]);
    (
        prop_oneof![
            prop::collection::vec(code(), 60),
            // Nothing long enough: the patch has to be elsewhere.
            prop::collection::vec(short(), 120),
        ],
        before,
        prop_oneof![
            prop::collection::vec(short(), 0..6),
            prop::collection::vec(code(), 0..12),
        ],
        padding,
        0_u64..48 << 20,
        any::<[u64; 16]>(),
    )
        .prop_map(|(filler, before, after, padding, offset, registers)| Case {
            filler,
            before,
            after,
            padding,
            offset,
            registers,
        })
}

/// Code in memory.
struct Laid {
    site: u64,
    /// Where it can be entered.
    entries: Vec<u64>,
    end: u64,
}

/// Addresses of the parts of an arena, from its beginning: data, stack, code.
const STACK: u64 = 0x1000;
const STACK_SIZE: u64 = 0x1000;
const TEXT: u64 = 0x10000;

fn lay(case: &Case, arena: &Arena) -> Laid {
    let data = arena.code().start;
    let function = case
        .before
        .iter()
        .chain([&Code::Syscall])
        .chain(&case.after)
        .chain([&Code::Return]);
    let all: Vec<Code> = case.filler.iter().chain(function).copied().collect();
    let mut ip = data + TEXT + case.offset;
    let mut laid = Laid {
        site: 0,
        entries: Vec::new(),
        end: 0,
    };
    for (index, code) in all.iter().enumerate() {
        let next = all
            .get(index + 1)
            .filter(|next| !matches!(next, Code::Return));
        let skipped = next.map_or(0, |next| next.encode(1 << 20, 0, 0).len());
        let bytes = code.encode(ip, data, skipped);
        arena.write(ip, &bytes);
        if matches!(code, Code::Syscall) {
            laid.site = ip;
        }
        if index >= case.filler.len() {
            laid.entries.push(ip);
        }
        ip += bytes.len() as u64;
    }
    match case.padding {
        After::Aligned => {
            let gap = (ip.next_multiple_of(16) - ip) as usize;
            // Prefixes make the longest no-operation of nine bytes as long as needed.
            let nop: Vec<u8> = match gap {
                0 => vec![],
                1 => vec![0x90],
                2 => vec![0x66, 0x90],
                3 => vec![0x0f, 0x1f, 0x00],
                4 => vec![0x0f, 0x1f, 0x40, 0x00],
                5 => vec![0x0f, 0x1f, 0x44, 0x00, 0x00],
                6 => vec![0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
                7 => vec![0x0f, 0x1f, 0x80, 0, 0, 0, 0],
                more => {
                    let mut nop = vec![0x66; more - 8];
                    nop.extend([0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]);
                    nop
                }
            };
            arena.write(ip, &nop);
            ip += nop.len() as u64;
        }
        After::Breakpoints => {
            arena.write(ip, &[0xcc; 8]);
            ip += 8;
        }
        After::Nothing => {}
    }
    arena.write(ip, &[0x48, 0x89, 0xc3, 0xc3]);
    laid.end = ip + 4;
    laid
}

/// Everything that a run can change.
#[derive(Debug, PartialEq)]
struct Outcome {
    registers: Registers,
    data: Vec<u8>,
    stack: Vec<u8>,
}

fn run(case: &Case, arena: &Arena, processor: &Processor, entry: u64) -> Outcome {
    let begin = arena.code().start;
    let data = begin..begin + 0x100;
    let stack = begin + STACK..begin + STACK + STACK_SIZE;
    let pattern = |range: &std::ops::Range<u64>| -> Vec<u8> {
        (range.start..range.end)
            .map(|at| ((at * 37) >> 3) as u8)
            .collect()
    };
    arena.write(data.start, &pattern(&(0..0x100)));
    arena.write(stack.start, &pattern(&(0..STACK_SIZE)));
    let sp = stack.start + STACK_SIZE / 2;
    arena.write(sp, &Processor::back().to_le_bytes());
    let mut registers = Registers {
        general: case.registers,
        flags: 0x202,
    };
    registers.general[RAX] = GETPPID;
    registers.general[RSP] = sp;
    // SAFETY: generated code changes only the data, the stack from 128 bytes below its pointer to 128 above except the
    // return address, and registers; it does only the system call getppid.
    unsafe { processor.run(entry, &mut registers) };
    // The instruction itself leaves other values there than a kernel that is jumped to.
    registers.general[RCX] = 0;
    registers.general[R11] = 0;
    registers.flags &= FLAGS;
    // Signals use the stack below the red zone.
    Outcome {
        registers,
        data: arena.read(data),
        stack: arena.read(sp - 128..stack.end),
    }
}

/// Runs one case; the pattern of the first patch, if there is one.
fn check(case: &Case, arena: &Arena, restart: bool) -> Result<Option<PatchKind>, TestCaseError> {
    let processor = Processor::take();
    let laid = lay(case, arena);
    let kernel = if restart {
        Processor::restarting_kernel()
    } else {
        Processor::kernel()
    };
    let table = arena.table(kernel);
    let expected: Vec<(u64, Outcome)> = laid
        .entries
        .iter()
        .map(|&entry| (entry, run(case, arena, &processor, entry)))
        .collect();
    let original = arena.read(laid.site - 200..laid.end);

    let mut first = None;
    // The fifth patches a second time.
    for round in 0..5 {
        let Ok(kind) = table.patch(laid.site + 2) else {
            prop_assert!(round > 0 || arena.read(laid.site - 200..laid.end) == original);
            break;
        };
        first.get_or_insert(kind);
        if (1..4).contains(&round) {
            continue;
        }
        processor.with_table(&table, || {
            for (entry, expected) in &expected {
                let calls = processor.calls();
                processor.set_restarts(u64::from(restart));
                let outcome = run(case, arena, &processor, *entry);
                prop_assert_eq!(&outcome, expected, "{:?} from {:#x}", kind, entry);
                if processor.calls() != calls {
                    // It came by the stub, so it was restarted before.
                    prop_assert_eq!(processor.restarts(), 0);
                }
                processor.set_restarts(0);
                // Where a signal handler sent it back to.
                let patched = table.translate(*entry, Direction::ToPatched);
                prop_assert_eq!(table.translate(patched, Direction::ToProgram), *entry);
                let resumed = run(case, arena, &processor, patched);
                prop_assert_eq!(&resumed, expected, "{:?} resumed at {:#x}", kind, entry);
            }
            // What goes through the patch must not trap any more.
            let now = arena.read(laid.site - 200..laid.end);
            let changed = original.iter().zip(&now).position(|(old, new)| old != new);
            let patch = laid.site - 200 + changed.map_or(0, |offset| offset as u64);
            let straight = !case
                .before
                .iter()
                .any(|code| matches!(code, Code::Skip { .. }));
            if straight && patch >= laid.entries[0] {
                let calls = processor.calls();
                let landings = table.stats().landings;
                run(case, arena, &processor, laid.entries[0]);
                prop_assert_eq!(processor.calls(), calls + 1);
                let skips = case
                    .after
                    .iter()
                    .any(|code| matches!(code, Code::Skip { .. }));
                prop_assert!(skips || table.stats().landings == landings);
            }
            Ok(())
        })?;
    }
    table.forget(arena.code().start, arena.code().end);
    prop_assert_eq!(table.stats().stub_bytes, 0);
    // Nothing is written on forgetting: the next case must find no trace.
    arena.write(laid.site - 200, &original);
    Ok(first)
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

fn arena() -> Arena {
    Arena::new(64 << 20, 4 << 20)
}

#[test]
fn patched_code_does_the_same() {
    let arena = arena();
    let mut runner = TestRunner::new(config(1500));
    runner
        .run(&case(), |case| check(&case, &arena, false).map(|_| ()))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn restarted_system_calls_do_the_same() {
    let arena = arena();
    let mut runner = TestRunner::new(config(700));
    runner
        .run(&case(), |case| check(&case, &arena, true).map(|_| ()))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn generated_code_needs_every_pattern() {
    let arena = arena();
    let kinds = std::cell::RefCell::new(HashMap::new());
    let mut runner = TestRunner::new_with_rng(
        config(600),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    runner
        .run(&case(), |case| {
            let kind = check(&case, &arena, false)?;
            *kinds.borrow_mut().entry(kind).or_insert(0_usize) += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let kinds = kinds.into_inner();
    println!("{kinds:?}");
    for kind in [
        PatchKind::Preceding,
        PatchKind::Cave,
        PatchKind::Following,
        PatchKind::Several,
    ] {
        assert!(kinds.get(&Some(kind)).copied() > Some(20), "{kinds:?}");
    }
}
