// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Patches every system call of the C libraries of this machine, and checks each against the true instructions.
//!
//! The true instructions come from decoding whole sections from their beginnings, which the patcher cannot do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod arena;
mod library;
mod processor;

use capstream_syscall_patch::{Direction, PatchError, PatchKind, PatchTable};
use library::Library;
use processor::UNDEFINED;
use std::collections::BTreeMap;

const MUSL: &str = "/usr/lib/x86_64-linux-musl/libc.so";
const GLIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const GLIBC_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Checks one patch that was just made, where `before` is the code around `site` from `begin` on as it was before.
fn check(library: &Library, table: &PatchTable, site: u64, kind: PatchKind, before: (u64, &[u8])) {
    let (begin, bytes) = before;
    let changes = library.changes(begin, bytes);
    let boundary = |ip: u64| library.instructions.contains_key(&ip);
    let at = |ip: u64| library.arena.read(ip..ip + 5);
    let jump = if kind == PatchKind::Cave {
        let code = at(site);
        assert_eq!(code[0], 0xeb);
        let cave = (site + 2).wrapping_add_signed(i64::from(code[1] as i8));
        let range = cave..cave + 5;
        assert!(
            changes
                .iter()
                .all(|ip| range.contains(ip) || (site..site + 2).contains(ip))
        );
        assert!(library.ends.contains(&cave), "code runs into the cave");
        let mut padding = cave;
        while padding < range.end {
            let len = library.instructions[&padding];
            let offset = (padding - begin) as usize;
            let old = &bytes[offset..offset + len];
            assert!(
                old[0] == 0x90 || old == [0xcc] || old.windows(2).any(|two| two == [0x0f, 0x1f]),
                "{padding:#x}: {old:x?} is no padding"
            );
            padding += len as u64;
        }
        let target_inside = library.targets.range(range.clone()).next();
        assert_eq!(target_inside, None, "something jumps into the cave");
        let function_inside = library
            .functions
            .iter()
            .find(|(_, function)| range.contains(&function.start));
        assert_eq!(function_inside, None, "a function begins in the cave");
        assert_eq!(table.translate(cave, Direction::ToProgram), site);
        cave
    } else {
        let jump = changes[0];
        assert!(boundary(jump), "{site:#x}: {jump:#x} is no instruction");
        assert!(changes.iter().all(|ip| (jump..jump + 5).contains(ip)));
        jump
    };

    let code = at(jump);
    assert_eq!(code[0], 0xe9);
    let displacement = i32::from_le_bytes(code[1..5].try_into().unwrap());
    let stub = (jump + 5).wrapping_add_signed(i64::from(displacement));
    assert!(library.arena.stubs().contains(&stub));

    if kind == PatchKind::Cave {
        assert_eq!(table.translate(stub, Direction::ToProgram), site);
        return;
    }
    let inner: Vec<u64> = (jump + 1..jump + 5).filter(|&ip| boundary(ip)).collect();
    if kind == PatchKind::Preceding {
        assert_eq!(inner, [], "{site:#x}: code can go on inside the jump");
        assert!(jump + 5 <= site && site <= jump + 48);
    } else {
        assert!(!inner.is_empty());
    }
    for ip in inner {
        let opcode = code[(ip - jump) as usize];
        assert!(
            UNDEFINED.contains(&opcode),
            "{ip:#x}: {opcode:#x} may be defined"
        );
        let target = table.on_invalid_opcode(ip).expect("no landing");
        assert!(library.arena.stubs().contains(&target));
        assert_eq!(table.translate(ip, Direction::ToPatched), target);
        assert_eq!(table.translate(target, Direction::ToProgram), ip);
    }
    for ip in jump..site + 8 {
        let there = table.translate(ip, Direction::ToPatched);
        assert_eq!(there, table.on_invalid_opcode(ip).unwrap_or(ip));
    }
}

/// Patches every site by itself, in code where nothing else is patched.
fn each_alone(path: &str) -> BTreeMap<u64, Result<PatchKind, PatchError>> {
    let library = Library::load(path);
    let table = library.arena.table(library.arena.code().start);
    let mut results = BTreeMap::new();
    let mut seconds = 0;
    for &site in &library.sites {
        let begin = site - 300;
        let before = library.arena.read(begin..site + 300);
        let result = table.patch(site + 2);
        match result {
            Ok(kind) => check(&library, &table, site, kind, (begin, &before)),
            Err(_) => assert!(library.changes(begin, &before).is_empty()),
        }
        if result == Ok(PatchKind::Preceding) {
            seconds += usize::from(check_second(&library, &table, site, (begin, &before)));
        }
        table.forget(begin, site + 300);
        assert_eq!(table.stats().live, 0);
        assert_eq!(table.stats().stub_bytes, 0);
        library.arena.write(begin, &before);
        results.insert(site, result);
    }
    println!("{path}: {seconds} second patches");
    assert!(seconds > results.len() / 2);
    results
}

/// Lets a patched system call trap until it is patched a second time, and checks that; whether that was possible.
fn check_second(library: &Library, table: &PatchTable, site: u64, before: (u64, &[u8])) -> bool {
    let (begin, bytes) = before;
    let first = library.arena.read(begin..begin + bytes.len() as u64);
    for _ in 0..3 {
        assert_eq!(table.patch(site + 2), Ok(PatchKind::Preceding));
        assert!(library.changes(begin, &first).is_empty());
    }
    match table.patch(site + 2) {
        Ok(PatchKind::Preceding) => {
            assert!(library.changes(begin, &first).is_empty());
            false
        }
        // Both patches stay.
        Ok(PatchKind::Cave) => {
            check(library, table, site, PatchKind::Cave, (begin, &first));
            true
        }
        // The first patch is taken back.
        Ok(kind) => {
            check(library, table, site, kind, before);
            true
        }
        Err(error) => panic!("{error}"),
    }
}

/// What is left unpatched: only signal returns, and at most `others` more.
fn assert_patchable(results: &BTreeMap<u64, Result<PatchKind, PatchError>>, others: usize) {
    assert!(results.len() > 40);
    let refused: Vec<_> = results
        .iter()
        .filter_map(|(site, result)| Some((site, result.err()?)))
        .collect();
    let signal_return = |error: &PatchError| matches!(error, PatchError::SignalReturn { .. });
    let unexpected = refused.iter().filter(|(_, error)| !signal_return(error));
    assert!(unexpected.count() <= others, "{refused:x?}");
    assert!(refused.len() <= others + 1, "{refused:x?}");
}

#[test]
fn musl_each_alone() {
    // The other one ends threads: its instructions are so short that a byte which cannot be chosen would be an address to go on at.
    assert_patchable(&each_alone(MUSL), 1);
}

#[test]
fn glibc_each_alone() {
    assert_patchable(&each_alone(GLIBC), 0);
}

#[test]
fn glibc_loader_each_alone() {
    assert_patchable(&each_alone(GLIBC_LOADER), 0);
}

#[test]
fn all_of_a_library_together() {
    for (path, others) in [(MUSL, 1), (GLIBC, 0)] {
        assert_patchable(&Library::load(path).patch_all(), others);
    }
}

#[test]
fn cancellation_points_of_musl_keep_their_system_call() {
    let library = Library::load(MUSL);
    let results = library.patch_all();
    // mov %r11,8(%rsp); syscall; ret: the end of the routine that read, write, open, poll and futex waits go through.
    let end = [0x4c, 0x89, 0x5c, 0x24, 0x08, 0x0f, 0x05, 0xc3];
    let fresh = Library::load(MUSL);
    let sites: Vec<u64> = fresh
        .sites
        .iter()
        .copied()
        .filter(|&site| fresh.arena.read(site - 5..site + 3) == end)
        .map(|site| site - fresh.arena.code().start + library.arena.code().start)
        .collect();
    assert_eq!(sites.len(), 1);
    assert_eq!(results[&sites[0]], Ok(PatchKind::Preceding));
}

#[test]
fn wrappers_of_musl_are_patchable() {
    let library = Library::load(MUSL);
    let results = library.patch_all();
    // Cancellation points have their system call elsewhere, see above.
    let mut checked = 0;
    for name in [
        "ioctl",
        "open",
        "close",
        "lseek",
        "mmap",
        "munmap",
        "getpid",
        "clock_gettime",
        "pthread_mutex_unlock",
        "pthread_cond_timedwait",
        "sem_post",
        "fstat",
        "dup2",
        "pipe2",
        "socket",
        "epoll_create1",
    ] {
        let range = library
            .functions
            .get(name)
            .unwrap_or_else(|| panic!("musl has no {name}"));
        for site in library.sites.iter().filter(|site| range.contains(site)) {
            assert!(results[site].is_ok(), "{name}: {:?}", results[site]);
            checked += 1;
        }
    }
    assert!(checked >= 16, "only {checked} system calls found");
}
