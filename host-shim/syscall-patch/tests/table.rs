// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a table promises about its memory: what it refuses, what it keeps, what it gives back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod arena;

use arena::Arena;
use capstream_syscall_patch::{Direction, PatchError, PatchKind, PatchTable, TableError};
use std::time::Instant;

/// xor %eax,%eax; syscall; mov %rax,%rdx; ret
const FOLLOWING: [u8; 8] = [0x31, 0xc0, 0x0f, 0x05, 0x48, 0x89, 0xc2, 0xc3];

fn arena() -> Arena {
    Arena::new(16 << 20, 4 << 20)
}

/// `code` behind enough one-byte instructions to recognise the instructions in it; where it begins.
fn put(arena: &Arena, at: u64, code: &[u8]) -> u64 {
    arena.write(at, &[0x90; 160]);
    arena.write(at + 160, code);
    at + 160
}

#[test]
fn refuses_impossible_memory() {
    // SAFETY: the constructor touches nothing, and no table comes out.
    let new = |stubs: u64, len: usize, code| unsafe {
        PatchTable::new(stubs as *mut u8, len, code, 0x1000).unwrap_err()
    };
    let no_stubs = |error| matches!(error, TableError::StubArea { .. });
    assert!(no_stubs(new(0x10_0000, 0, 0..0x1000)));
    assert!(no_stubs(new(0x10_0000, 4095, 0..0x1000)));
    assert!(no_stubs(new(0, 1 << 20, 0x20_0000..0x30_0000)));
    assert!(no_stubs(new(u64::MAX - 4096, 8192, 0..0x1000)));
    let no_code = |error| matches!(error, TableError::CodeRange { .. });
    assert!(no_code(new(0x10_0000, 1 << 20, 0..0x10_0001)));
    assert!(no_code(new(0x10_0000, 1 << 20, 0x1f_ffff..0x30_0000)));
    #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
    let reversed = 2..1;
    assert!(no_code(new(0x10_0000, 1 << 20, reversed)));
}

#[test]
fn refuses_addresses_without_a_system_call() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    let code = arena.code();
    for ip in [0, 1, 2, code.start, code.start + 1, code.end + 2, u64::MAX] {
        assert_eq!(table.patch(ip), Err(PatchError::OutOfRange { ip }));
    }
    for ip in [code.start + 2, code.start + 100, code.end, code.end + 1] {
        assert_eq!(table.patch(ip), Err(PatchError::NotSyscall { ip }));
    }
    // At both ends of the range, where there is nothing to look at on one side.
    arena.write(code.start, &[0x0f, 0x05]);
    arena.write(code.end - 2, &[0x0f, 0x05]);
    for ip in [code.start + 2, code.end] {
        match table.patch(ip) {
            Ok(_) | Err(PatchError::NoPattern { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(arena.read(code.end..code.end + 2).len(), 2);
}

#[test]
fn patches_in_any_bytes_without_panic() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // A generator whose numbers need no quality.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let begin = arena.code().start + 0x10000;
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..2048).map(|_| next() as u8).collect();
        arena.write(begin, &bytes);
        let site = begin + 1024 + next() % 64;
        arena.write(site, &[0x0f, 0x05]);
        let before = arena.read(begin..begin + 2048);
        let result = table.patch(site + 2);
        let after = arena.read(begin..begin + 2048);
        if result.is_err() {
            assert!(before == after);
        }
        for ip in site - 64..site + 64 {
            table.translate(ip, Direction::ToPatched);
            table.on_invalid_opcode(ip);
        }
        table.forget(begin, begin + 2048);
    }
    assert_eq!(table.stats().stub_bytes, 0);
}

#[test]
fn leaves_signal_returns_alone() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // mov $15,%rax; syscall
    let code = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let begin = put(&arena, arena.code().start + 0x1000, &code);
    let ip = begin + 9;
    assert_eq!(table.patch(ip), Err(PatchError::SignalReturn { ip }));
    assert_eq!(arena.read(begin..begin + 9), code);
    // Another number is fine.
    arena.write(begin + 3, &[0x10]);
    assert_eq!(table.patch(ip), Ok(PatchKind::Preceding));
}

#[test]
fn is_patched_a_second_time_when_it_keeps_trapping() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // mov $1,%eax; syscall; ret; int3 ...
    let mut code = vec![0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3];
    code.extend([0xcc; 5]);
    let begin = put(&arena, arena.code().start + 0x1000, &code);
    let kinds: Vec<_> = (0..5).map(|_| table.patch(begin + 7).unwrap()).collect();
    let first = PatchKind::Preceding;
    assert_eq!(kinds, [first, first, first, first, PatchKind::Cave]);
    let ip = begin + 7;
    assert_eq!(table.patch(ip), Err(PatchError::NotSyscall { ip }));
    assert_eq!(table.stats().live, 2);
    assert_eq!(table.stats().traps_after_patch, 4);
}

#[test]
fn hands_out_padding_once() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // xor %eax,%eax; syscall; ret, twice, and padding for one jump
    let mut code = vec![0x31, 0xc0, 0x0f, 0x05, 0xc3, 0x31, 0xc0, 0x0f, 0x05, 0xc3];
    code.extend([0xcc; 5]);
    code.extend([0x31, 0xc0, 0xc3]);
    let begin = put(&arena, arena.code().start + 0x1000, &code);
    assert_eq!(table.patch(begin + 9), Ok(PatchKind::Cave));
    assert_ne!(table.patch(begin + 4), Ok(PatchKind::Cave));
    assert_eq!(arena.read(begin + 10..begin + 11), [0xe9]);
    // What was forgotten can be used again.
    table.forget(begin, begin + 20);
    arena.write(begin, &code);
    assert_eq!(table.patch(begin + 4), Ok(PatchKind::Cave));
}

#[test]
fn no_operations_at_function_entries_are_no_padding() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // xor %eax,%eax; syscall; ret, and a function that begins with room for a tracer's call
    let begin = (arena.code().start + 0x1000).next_multiple_of(16) + 160 + 11;
    let code = [0x31, 0xc0, 0x0f, 0x05, 0xc3, 0x0f, 0x1f, 0x44, 0, 0, 0xc3];
    assert_eq!(put(&arena, begin - 160, &code), begin);
    assert_eq!((begin + 5) % 16, 0);
    assert_ne!(table.patch(begin + 4), Ok(PatchKind::Cave));
    assert_eq!(arena.read(begin + 5..begin + 11), code[5..]);
}

#[test]
fn forgetting_a_part_puts_the_rest_back() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    // The jump lies across the end of a page.
    let page = arena.code().start + 0x4000;
    let begin = put(&arena, page - 164, &FOLLOWING);
    assert_eq!(begin + 4, page);
    assert_eq!(table.patch(begin + 4), Ok(PatchKind::Following));
    let patched = arena.read(begin..begin + 8);
    let stub = table.translate(begin + 4, Direction::ToPatched);
    table.forget(page, page + 4096);
    let mut expected = FOLLOWING;
    expected[4..].copy_from_slice(&patched[4..]);
    assert_eq!(arena.read(begin..begin + 8), expected);
    assert_eq!(table.on_invalid_opcode(begin + 4), None);
    assert_eq!(table.stats().live, 0);
    // A task in the stub is still known there, until the rest goes too.
    assert_eq!(table.translate(stub, Direction::ToProgram), begin + 4);
    assert_ne!(table.stats().stub_bytes, 0);
    table.forget(page - 4096, page);
    assert_eq!(table.translate(stub, Direction::ToProgram), stub);
    assert_eq!(table.stats().stub_bytes, 0);
}

#[test]
fn forgets_only_what_it_is_told() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    let sites: Vec<u64> = (0..50)
        .map(|index| {
            put(
                &arena,
                arena.code().start + 0x10000 + index * 0x3000,
                &FOLLOWING,
            ) + 4
        })
        .collect();
    for &ip in &sites {
        assert_eq!(table.patch(ip), Ok(PatchKind::Following));
    }
    let (first, rest) = sites.split_at(20);
    table.forget(first[0] - 4, first[19] + 4);
    assert!(
        first
            .iter()
            .all(|&ip| table.on_invalid_opcode(ip).is_none())
    );
    assert!(rest.iter().all(|&ip| table.on_invalid_opcode(ip).is_some()));
    assert_eq!((table.stats().live, table.stats().forgotten), (30, 20));
    table.forget(0, 0);
    table.forget(u64::MAX, 0);
    assert_eq!(table.stats().live, 30);
    table.forget(0, u64::MAX);
    assert_eq!((table.stats().live, table.stats().stub_bytes), (0, 0));
}

#[test]
fn a_full_area_is_an_error_and_nothing_else() {
    let arena = Arena::new(8 << 20, 4096);
    let table = arena.table(arena.code().start);
    let code = [0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3];
    let mut full = None;
    for index in 0..1000 {
        let begin = put(&arena, arena.code().start + 0x10000 + index * 0x1000, &code);
        match table.patch(begin + 7) {
            Ok(kind) => assert_eq!(kind, PatchKind::Preceding),
            Err(error) => {
                assert_eq!(error, PatchError::AreaFull { ip: begin + 7 });
                assert_eq!(arena.read(begin..begin + 8), code);
                full = Some(begin);
                break;
            }
        }
    }
    let full = full.expect("the area never filled up");
    assert!(table.stats().live >= 4096 / 64);
    // Asking again is answered from memory.
    assert_eq!(
        table.patch(full + 7),
        Err(PatchError::AreaFull { ip: full + 7 })
    );
    assert_eq!(table.stats().no_room, 1);
    // Room that comes back is used.
    table.forget(arena.code().start, arena.code().start + 0x20000);
    assert_eq!(table.patch(full + 7), Ok(PatchKind::Preceding));
}

#[test]
fn stubs_out_of_reach_are_refused() {
    // More than 2 GiB between the program and the stubs.
    let arena = Arena::new(5 << 30, 4 << 20);
    let table = arena.table(arena.code().start);
    let code = [0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3];
    let far = put(&arena, arena.code().start + 0x1000, &code);
    assert_eq!(
        table.patch(far + 7),
        Err(PatchError::NoPattern { ip: far + 7 })
    );
    let near = put(&arena, arena.code().end - 0x10000, &code);
    // The kernel is far from the stub, which needs another jump then.
    assert_eq!(table.patch(near + 7), Ok(PatchKind::Preceding));
}

#[test]
fn patching_is_quick() {
    let arena = arena();
    let table = arena.table(arena.code().start);
    let code = [0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3];
    let sites: Vec<u64> = (0..1000)
        .map(|index| put(&arena, arena.code().start + 0x1000 + index * 0x400, &code) + 7)
        .collect();
    let begin = Instant::now();
    for &ip in &sites {
        assert_eq!(table.patch(ip), Ok(PatchKind::Preceding));
    }
    println!("{:?} per patch", begin.elapsed() / 1000);
    let begin = Instant::now();
    for &ip in &sites {
        assert_eq!(table.translate(ip, Direction::ToProgram), ip);
    }
    println!("{:?} per translation", begin.elapsed() / 1000);
    let begin = Instant::now();
    for &ip in &sites {
        assert_eq!(table.on_invalid_opcode(ip), None);
    }
    println!("{:?} per invalid opcode", begin.elapsed() / 1000);
}
