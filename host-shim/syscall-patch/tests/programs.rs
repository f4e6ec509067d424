// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs whole programs, linked statically with musl and glibc, on the host's kernel, and patches each system call when
//! it traps, as a monitor does: counts how many of the calls that a program makes go through stubs.
//!
//! The program runs in a child of the test: the test binary starts itself again with the program's path in the environment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod arena;
mod processor;

use arena::Arena;
use capstream_syscall_patch::{PatchError, PatchTable};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use processor::{Processor, RSP, Registers};
use std::process::Command;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Names the program to run in the child.
const PROGRAM: &str = "CAPSTREAM_TEST_PROGRAM";
/// How often the program does everything.
const ROUNDS: &str = "200";
/// Everything below is the program's, and its system calls trap.
const HOST_BEGIN: u64 = 1 << 30;
/// Memory of the program.
const ARENA: std::ops::Range<u64> = 0x40_0000..0x2000_0000;

// capstream_test_host: the place of a kernel.
//   in:  rax number, rcx where to return to; as a stub enters a kernel
//   out: as the host's kernel does it, except that signal masks stay as they are, for SIGSYS must not be blocked.
//        rcx, r11 and flags clobbered. No stack is used: addresses to return to are kept in a stack of their own, because signals nest.
//   Counts in capstream_test_served.
// capstream_test_sigreturn: the same for a call that does not return.
std::arch::global_asm!(
    r#"
    .text
    .globl capstream_test_host
    .type capstream_test_host, @function
capstream_test_host:
    incq capstream_test_served(%rip)
    cmp $14, %eax
    je 1f
    mov capstream_test_depth(%rip), %r11
    mov %rcx, (%r11)
    lea 8(%r11), %r11
    mov %r11, capstream_test_depth(%rip)
    syscall
    mov capstream_test_depth(%rip), %r11
    lea -8(%r11), %r11
    mov %r11, capstream_test_depth(%rip)
    mov (%r11), %rcx
    jmp *%rcx
1:  xor %eax, %eax
    jmp *%rcx
    .size capstream_test_host, . - capstream_test_host

    .globl capstream_test_sigreturn
    .type capstream_test_sigreturn, @function
capstream_test_sigreturn:
    incq capstream_test_served(%rip)
    syscall
    ud2
    .size capstream_test_sigreturn, . - capstream_test_sigreturn

    .data
    .balign 8
capstream_test_depth: .quad capstream_test_returns
    .globl capstream_test_served
capstream_test_served: .quad 0
    .bss
    .balign 8
capstream_test_returns: .zero 8192
    .text
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    fn capstream_test_host();
    fn capstream_test_sigreturn();
    static capstream_test_served: AtomicU64;
}

static TABLE: AtomicPtr<PatchTable> = AtomicPtr::new(std::ptr::null_mut());
static HOST_FS: AtomicU64 = AtomicU64::new(0);
static TRAPS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// A system call of the program trapped: patches it, and goes on in the place of a kernel.
extern "C" fn on_sigsys(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the host has these instructions, or its libc would not set AT_HWCAP2; the program's value is put back below, and
    // in between this code uses no storage of the program's thread.
    let program_fs = unsafe { swap_fs(HOST_FS.load(Ordering::SeqCst)) };
    // SAFETY: the host passes a valid context, which belongs to this handler while it runs.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as u64;
    let number = registers[libc::REG_RAX as usize];
    TRAPS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: set before the program starts, and never freed.
    let table = unsafe { &*TABLE.load(Ordering::SeqCst) };
    match table.patch(ip) {
        Ok(_) | Err(PatchError::SignalReturn { .. }) => {}
        Err(error) => {
            REFUSED.fetch_add(1, Ordering::SeqCst);
            eprintln!("{error}");
        }
    }
    if number == libc::SYS_exit_group {
        // SAFETY: defined above, with that layout.
        let served = unsafe { capstream_test_served.load(Ordering::SeqCst) };
        let traps = TRAPS.load(Ordering::SeqCst);
        let refused = REFUSED.load(Ordering::SeqCst);
        println!("served {served} traps {traps} refused {refused}");
        println!("{:?}", table.stats());
    }
    registers[libc::REG_RCX as usize] = ip as i64;
    let entry = if number == libc::SYS_rt_sigreturn {
        capstream_test_sigreturn as *const ()
    } else {
        capstream_test_host as *const ()
    };
    registers[libc::REG_RIP as usize] = entry as i64;
    // SAFETY: as above.
    unsafe { swap_fs(program_fs) };
}

/// A program landed inside a patch.
extern "C" fn on_sigill(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: as in `on_sigsys`. The lookup uses no thread-local storage.
    let (registers, table) = unsafe {
        (
            &mut (*context).uc_mcontext.gregs,
            &*TABLE.load(Ordering::SeqCst),
        )
    };
    let ip = &mut registers[libc::REG_RIP as usize];
    match table.on_invalid_opcode(*ip as u64) {
        Some(target) => *ip = target as i64,
        // SAFETY: ends the process.
        None => unsafe { libc::_exit(98) },
    }
}

/// Sets the FS base; the one before.
///
/// # Safety
///
/// Until it is set back, nothing uses thread-local storage of the one before.
#[inline(always)]
unsafe fn swap_fs(fs: u64) -> u64 {
    let old: u64;
    // SAFETY: by the contract of this function.
    unsafe {
        std::arch::asm!(
            "rdfsbase {old}", "wrfsbase {new}",
            old = out(reg) old, new = in(reg) fs, options(nostack, preserves_flags)
        );
    }
    old
}

/// Loads the program at `path` and runs it; does not return.
fn become_program(path: &str) -> ! {
    let data = std::fs::read(path).unwrap();
    let file = ElfFile64::<LittleEndian>::parse(&*data).unwrap();
    let header = file.elf_header();
    let arena = Arena::at(ARENA, 4 << 20);
    for segment in file.elf_program_headers() {
        if segment.p_type(LittleEndian) == elf::PT_LOAD {
            let bytes = segment.data(LittleEndian, &*data).unwrap();
            arena.write(segment.p_vaddr(LittleEndian), bytes);
        }
    }
    let first = file
        .elf_program_headers()
        .iter()
        .find(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD)
        .unwrap();
    let entry = header.e_entry(LittleEndian);
    let table = arena.table(capstream_test_host as *const () as u64);
    TABLE.store(Box::leak(Box::new(table)), Ordering::SeqCst);

    // Arguments and the auxiliary vector at the top of the stack.
    let top = arena.code().end - 0x1000;
    arena.write(top, b"program\0");
    arena.write(top + 16, ROUNDS.as_bytes());
    let auxiliary = [
        (
            libc::AT_PHDR,
            first.p_vaddr(LittleEndian) + header.e_phoff(LittleEndian),
        ),
        (libc::AT_PHENT, u64::from(header.e_phentsize(LittleEndian))),
        (libc::AT_PHNUM, u64::from(header.e_phnum(LittleEndian))),
        (libc::AT_PAGESZ, 4096),
        (libc::AT_ENTRY, entry),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, top + 64),
        (libc::AT_NULL, 0),
    ];
    let mut words = vec![2, top, top + 16, 0, 0];
    words.extend(auxiliary.iter().flat_map(|&(key, value)| [key, value]));
    let sp = top - 0x1000;
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word: &u64| word.to_le_bytes())
        .collect();
    arena.write(sp, &bytes);

    let mut registers = Registers::default();
    registers.general[RSP] = sp;
    registers.flags = 0x202;
    let processor = Processor::take();
    // SAFETY: handlers have the signature that SA_SIGINFO asks for; the host's system calls stay allowed, because all of its
    // code is above `HOST_BEGIN`; the program has its own memory, and this thread is its own from here on.
    unsafe {
        HOST_FS.store(host_fs(), Ordering::SeqCst);
        for (signal, handler) in [
            (libc::SIGSYS, on_sigsys as *const ()),
            (libc::SIGILL, on_sigill as *const ()),
        ] {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigfillset(&mut action.sa_mask);
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
        const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
        let on = libc::prctl(
            PR_SET_SYSCALL_USER_DISPATCH,
            1_u64,
            HOST_BEGIN,
            (1_u64 << 47) - HOST_BEGIN,
            0_u64,
        );
        assert_eq!(on, 0, "the host has no syscall user dispatch");
        processor.run(entry, &mut registers);
    }
    unreachable!("a program ends by exit_group");
}

/// This thread's FS base.
fn host_fs() -> u64 {
    let fs: u64;
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("rdfsbase {}", out(reg) fs, options(nostack, nomem, preserves_flags));
    }
    fs
}

/// Compiles the program with `compiler`, and runs it in a child, which executes the test `name`.
fn run(name: &str, compiler: &str) {
    if let Ok(path) = std::env::var(PROGRAM) {
        become_program(&path);
    }
    let source = format!(
        "{}/tests/programs/calls.c",
        std::env::var("CARGO_MANIFEST_DIR").unwrap()
    );
    let program = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    let compiled = Command::new(compiler)
        .args(["-static", "-no-pie", "-O2", "-o", &program, &source])
        .status()
        .unwrap_or_else(|error| {
            panic!("cannot run {compiler}, a prerequisite of the tests: {error}")
        });
    assert!(compiled.success());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(PROGRAM, &program)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{text}{errors}");
    assert!(output.status.success(), "{:?}", output.status);
    assert!(text.contains("200 rounds, 13 signals"));
    let counts = text
        .lines()
        .find(|line| line.starts_with("served"))
        .unwrap();
    let counts: Vec<u64> = counts
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [served, traps, refused] = counts[..] else {
        panic!("{counts:?}");
    };
    assert!(served > 200 * 30, "{served}");
    assert!(
        traps * 100 < served * 5,
        "{traps} of {served} calls trapped"
    );
    assert_eq!(refused, 0);
}

#[test]
fn with_musl() {
    run("with_musl", "musl-gcc");
}

#[test]
fn with_glibc() {
    run("with_glibc", "gcc");
}
