// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tasks that were elsewhere when a system call was patched: blocked in it, or about to go on inside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod arena;
mod processor;

use arena::Arena;
use capstream_syscall_patch::{PatchKind, PatchTable};
use processor::{Processor, RAX, RSP, Registers, UNDEFINED};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

type Read = extern "C" fn(fd: i32, to: *mut u8, len: usize) -> i64;

fn pipe() -> (OwnedFd, File) {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which belong to nobody else.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    }
}

/// Waits until the thread `id` is in the system call `number`; its program counter there.
fn wait_until_in(id: i32, number: u64) -> u64 {
    let path = format!("/proc/self/task/{id}/syscall");
    loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut words = text.split_whitespace();
        if words.next() == Some(&number.to_string()) {
            let pc = words.next_back().unwrap();
            return u64::from_str_radix(pc.trim_start_matches("0x"), 16).unwrap();
        }
        std::thread::yield_now();
    }
}

/// `code` is a function like read(2), with its system call at `site`; patches that while a thread is blocked in it.
fn blocked_while_patched(code: &[u8], site: usize, expected: PatchKind) {
    let processor = Processor::take();
    let arena = Arena::new(16 << 20, 4 << 20);
    let begin = arena.code().start + 0x1000;
    arena.write(begin, code);
    let site = begin + site as u64;
    let table: PatchTable = arena.table(Processor::kernel());
    // SAFETY: the code follows the C calling convention for this type.
    let read = unsafe { std::mem::transmute::<*const (), Read>(begin as *const ()) };
    let (reader, mut writer) = pipe();
    let id = AtomicI32::new(0);
    let call = || {
        // SAFETY: gettid has no preconditions.
        id.store(unsafe { libc::gettid() }, Ordering::SeqCst);
        let mut buffer = [0_u8; 8];
        let count = read(reader.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
        (count, buffer)
    };
    let tid = || loop {
        match id.swap(0, Ordering::SeqCst) {
            0 => std::thread::yield_now(),
            id => return id,
        }
    };
    processor.with_table(&table, || {
        std::thread::scope(|scope| {
            let thread = scope.spawn(call);
            assert_eq!(wait_until_in(tid(), libc::SYS_read as u64), site + 2);
            assert_eq!(table.patch(site + 2), Ok(expected));
            assert_eq!(table.stats().landings, 0);
            writer.write_all(b"first").unwrap();
            assert_eq!(thread.join().unwrap(), (5, *b"first\0\0\0"));

            // The second one goes through the stub.
            let calls = processor.calls();
            let thread = scope.spawn(call);
            let pc = wait_until_in(tid(), libc::SYS_read as u64);
            assert!(!arena.code().contains(&pc));
            writer.write_all(b"second").unwrap();
            assert_eq!(thread.join().unwrap(), (6, *b"second\0\0"));
            assert_eq!(processor.calls(), calls + 1);
        });
    });
    let landings = u64::from(matches!(expected, PatchKind::Following));
    assert_eq!(table.stats().landings, landings);
}

#[test]
fn blocked_where_following_instructions_move() {
    // xor %eax,%eax; syscall; mov %rax,%rcx; mov %rcx,%rax; ret
    let code = [
        0x31, 0xc0, 0x0f, 0x05, 0x48, 0x89, 0xc1, 0x48, 0x89, 0xc8, 0xc3,
    ];
    blocked_while_patched(&code, 2, PatchKind::Following);
}

#[test]
fn blocked_where_one_instruction_before_moves() {
    // mov $0,%eax; syscall; ret, after what lets the instructions be recognised
    let mut code = vec![0xeb, 0x7e];
    code.extend([0x90; 126]);
    let site = code.len() + 5;
    code.extend([0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    blocked_while_patched(&code, site, PatchKind::Preceding);
}

#[test]
fn blocked_where_padding_is_used() {
    // xor %eax,%eax; syscall; ret; int3 ...
    let mut code = vec![0x31, 0xc0, 0x0f, 0x05, 0xc3];
    code.extend([0xcc; 8]);
    blocked_while_patched(&code, 2, PatchKind::Cave);
}

#[test]
fn blocked_where_several_instructions_before_move() {
    // mov %rsi,%rsi; xor %eax,%eax; syscall; ret and nothing that could be used after it
    let mut code = vec![0xeb, 0x7e];
    code.extend([0x90; 126]);
    let site = code.len() + 5;
    code.extend([
        0x48, 0x89, 0xf6, 0x31, 0xc0, 0x0f, 0x05, 0xc3, 0x31, 0xc0, 0xc3,
    ]);
    blocked_while_patched(&code, site, PatchKind::Several);
}

/// Every byte that the patcher takes for undefined raises SIGILL on this processor, at its own address, whatever follows.
#[test]
fn undefined_opcodes_are_undefined() {
    let processor = Processor::take();
    let arena = Arena::new(16 << 20, 4 << 20);
    let begin = arena.code().start + 0x10000;
    let sp = begin - 0x1000;
    for opcode in UNDEFINED {
        for next in 0..=255 {
            arena.write(begin, &[opcode, next, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3]);
            arena.write(sp, &Processor::back().to_le_bytes());
            let mut registers = Registers::default();
            registers.general[RSP] = sp;
            registers.flags = 0x202;
            // SAFETY: the opcode is redirected to a return, or what follows it soon is one.
            let raised = unsafe { processor.raises_sigill(begin, begin + 2, &mut registers) };
            assert!(raised, "{opcode:#x} {next:#x}");
        }
    }
}

/// A task that goes on inside a patch is led to the stub, wherever that is.
#[test]
fn inside_of_patches_everywhere() {
    let processor = Processor::take();
    let mut seen = BTreeSet::new();
    for step in 0..256_u64 {
        let arena = Arena::new(64 << 20, 4 << 20);
        // xor %eax,%eax; syscall; mov %rax,%rdx; ret
        let begin = arena.code().start + 0x10000 + step * 0x2_f123;
        arena.write(begin, &[0x31, 0xc0, 0x0f, 0x05, 0x48, 0x89, 0xc2, 0xc3]);
        let site = begin + 2;
        let table = arena.table(Processor::kernel());
        assert_eq!(table.patch(site + 2), Ok(PatchKind::Following));
        let opcode = arena.read(site + 2..site + 3)[0];
        assert!(UNDEFINED.contains(&opcode));
        seen.insert(opcode);
        let sp = begin - 0x1000;
        arena.write(sp, &Processor::back().to_le_bytes());
        let mut registers = Registers::default();
        registers.general[RSP] = sp;
        registers.general[RAX] = step;
        registers.flags = 0x202;
        // SAFETY: from there the code copies rax to rdx and returns.
        processor.with_table(&table, || unsafe {
            processor.run(site + 2, &mut registers);
        });
        assert_eq!(registers.general[2], step, "{opcode:#x}");
        assert_eq!(table.stats().landings, 1);
    }
    assert!(seen.len() > 3, "{seen:x?}");
}

/// An invalid opcode of the program itself stays one.
#[test]
fn other_invalid_opcodes_are_left_alone() {
    let _turn = Processor::take();
    let arena = Arena::new(16 << 20, 4 << 20);
    let begin = arena.code().start + 0x1000;
    let code = [0x31, 0xc0, 0x0f, 0x05, 0x48, 0x89, 0xc2, 0xc3];
    arena.write(begin, &code);
    let table = arena.table(Processor::kernel());
    assert_eq!(table.on_invalid_opcode(begin + 4), None);
    assert_eq!(table.patch(begin + 4), Ok(PatchKind::Following));
    assert!(table.on_invalid_opcode(begin + 4).is_some());
    assert_eq!(table.on_invalid_opcode(begin + 2), None);
    assert_eq!(table.on_invalid_opcode(begin + 5), None);
    // The program wrote other code there.
    arena.write(begin + 2, &[0x90, 0x90, 0x06, 0x90, 0x90]);
    assert_eq!(table.on_invalid_opcode(begin + 4), None);
    // And the same again, to which the patch is applied again.
    arena.write(begin, &code);
    assert_eq!(table.patch(begin + 4), Ok(PatchKind::Following));
    assert!(table.on_invalid_opcode(begin + 4).is_some());
    assert_eq!(table.stats().applied_again, 1);
    assert_eq!(table.stats().overwritten, 0);
    table.forget(begin, begin + 8);
    assert_eq!(table.on_invalid_opcode(begin + 4), None);
}
