// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs code of an arena on this processor, with something in the place of a kernel.

#![allow(dead_code, reason = "not every user of the module needs all of it")]

use capstream_syscall_patch::PatchTable;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// Registers of code that is run, in the order of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub general: [u64; 16],
    /// The flags.
    pub flags: u64,
}

/// Opcodes that are undefined in 64-bit mode, which the patcher uses.
pub const UNDEFINED: [u8; 19] = [
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce,
    0xd4, 0xd6, 0xea,
];

/// Number of rax.
pub const RAX: usize = 0;
/// Number of rcx.
pub const RCX: usize = 1;
/// Number of rsp.
pub const RSP: usize = 4;
/// Number of r11.
pub const R11: usize = 11;

// capstream_test_run(entry, registers)
//   in:  rdi where to begin, rsi a `Registers`; SysV C function otherwise
//   out: the `Registers` as they were when the code returned
//   Loads all 16 registers, so also the stack pointer, and jumps to the entry. The code returns to capstream_test_back,
//   whose address has to be where the stack pointer points. Not reentrant: its state is static.
//
// capstream_test_kernel
//   in:  rax number, rcx where to return to; as a stub enters a kernel
//   out: as the host's kernel does it; rcx and r11 clobbered, flags kept. Uses no stack. Counts in capstream_test_calls.
//
// capstream_test_restart
//   The same, but returns 2 bytes earlier, with nothing done, if capstream_test_restarts is not 0, which it decrements.
std::arch::global_asm!(
    r#"
    .text
    .globl capstream_test_run
    .type capstream_test_run, @function
capstream_test_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, capstream_test_host_sp(%rip)
    mov %rdi, capstream_test_entry(%rip)
    mov %rsi, capstream_test_registers(%rip)
    mov 128(%rsi), %rax
    push %rax
    popf
    mov %rsi, %rax
    mov 8(%rax), %rcx
    mov 16(%rax), %rdx
    mov 24(%rax), %rbx
    mov 32(%rax), %rsp
    mov 40(%rax), %rbp
    mov 48(%rax), %rsi
    mov 56(%rax), %rdi
    mov 64(%rax), %r8
    mov 72(%rax), %r9
    mov 80(%rax), %r10
    mov 88(%rax), %r11
    mov 96(%rax), %r12
    mov 104(%rax), %r13
    mov 112(%rax), %r14
    mov 120(%rax), %r15
    mov 0(%rax), %rax
    jmp *capstream_test_entry(%rip)
    .size capstream_test_run, . - capstream_test_run

    .globl capstream_test_back
    .type capstream_test_back, @function
capstream_test_back:
    mov %rsp, capstream_test_sp(%rip)
    mov capstream_test_host_sp(%rip), %rsp
    push %rax
    mov capstream_test_registers(%rip), %rax
    mov %rcx, 8(%rax)
    mov %rdx, 16(%rax)
    mov %rbx, 24(%rax)
    mov %rbp, 40(%rax)
    mov %rsi, 48(%rax)
    mov %rdi, 56(%rax)
    mov %r8, 64(%rax)
    mov %r9, 72(%rax)
    mov %r10, 80(%rax)
    mov %r11, 88(%rax)
    mov %r12, 96(%rax)
    mov %r13, 104(%rax)
    mov %r14, 112(%rax)
    mov %r15, 120(%rax)
    pop %rcx
    mov %rcx, 0(%rax)
    mov capstream_test_sp(%rip), %rcx
    mov %rcx, 32(%rax)
    pushf
    pop %rcx
    mov %rcx, 128(%rax)
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size capstream_test_back, . - capstream_test_back

    .globl capstream_test_restart
    .type capstream_test_restart, @function
capstream_test_restart:
    mov capstream_test_restarts(%rip), %r11
    xchg %rcx, %r11
    jrcxz 1f
    lea -1(%rcx), %rcx
    mov %rcx, capstream_test_restarts(%rip)
    lea -2(%r11), %rcx
    jmp *%rcx
1:  xchg %rcx, %r11
    .size capstream_test_restart, . - capstream_test_restart

    .globl capstream_test_kernel
    .type capstream_test_kernel, @function
capstream_test_kernel:
    mov %rcx, %fs:capstream_test_return@tpoff
    mov capstream_test_calls(%rip), %r11
    lea 1(%r11), %r11
    mov %r11, capstream_test_calls(%rip)
    syscall
    mov %fs:capstream_test_return@tpoff, %rcx
    jmp *%rcx
    .size capstream_test_kernel, . - capstream_test_kernel

    .bss
    .balign 8
capstream_test_host_sp: .zero 8
capstream_test_sp: .zero 8
capstream_test_entry: .zero 8
capstream_test_registers: .zero 8
    .globl capstream_test_calls
capstream_test_calls: .zero 8
    .globl capstream_test_restarts
capstream_test_restarts: .zero 8

    .section .tbss, "awT", @nobits
    .balign 8
capstream_test_return: .zero 8
    .text
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    fn capstream_test_run(entry: u64, registers: *mut Registers);
    fn capstream_test_back();
    fn capstream_test_kernel();
    fn capstream_test_restart();
    static capstream_test_calls: AtomicU64;
    static capstream_test_restarts: AtomicU64;
}

/// The only processor: one user at a time.
pub struct Processor {
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static HANDLER: Once = Once::new();
/// Where an invalid opcode is expected, and where to go on then.
static EXPECTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static TABLE: AtomicPtr<PatchTable> = AtomicPtr::new(std::ptr::null_mut());

/// Leads code that landed inside a patch to where it has to go on.
extern "C" fn on_sigill(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the host passes a valid context, which belongs to this handler while it runs.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let ip = &mut registers[libc::REG_RIP as usize];
    let [expected, target] = &EXPECTED;
    if expected
        .compare_exchange(*ip as u64, 0, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
    {
        *ip = target.load(Ordering::SeqCst) as i64;
        return;
    }
    // SAFETY: `Processor::with_table` keeps the table alive while the pointer is set.
    let table = unsafe { TABLE.load(Ordering::SeqCst).as_ref() };
    match table.and_then(|table| table.on_invalid_opcode(*ip as u64)) {
        Some(target) => *ip = target as i64,
        // SAFETY: a plain system call; the instruction is executed again and ends the process.
        None => unsafe {
            libc::signal(libc::SIGILL, libc::SIG_DFL);
        },
    }
}

impl Processor {
    /// Waits for the turn.
    pub fn take() -> Processor {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        HANDLER.call_once(|| {
            // SAFETY: all-zero is a valid sigaction; the handler has the signature that SA_SIGINFO asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_sigill as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(
                    libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()),
                    0
                );
            }
        });
        Processor { _turn: turn }
    }

    /// An entry that does the system call.
    pub fn kernel() -> u64 {
        capstream_test_kernel as *const () as u64
    }

    /// An entry that restarts system calls as often as [`Processor::set_restarts`] says, before it does them.
    pub fn restarting_kernel() -> u64 {
        capstream_test_restart as *const () as u64
    }

    /// Where code has to return to.
    pub fn back() -> u64 {
        capstream_test_back as *const () as u64
    }

    /// How many system calls came by stubs.
    pub fn calls(&self) -> u64 {
        // SAFETY: the static is defined above, with that layout.
        unsafe { capstream_test_calls.load(Ordering::SeqCst) }
    }

    /// How many system calls are still to be restarted.
    pub fn restarts(&self) -> u64 {
        // SAFETY: as in `calls`.
        unsafe { capstream_test_restarts.load(Ordering::SeqCst) }
    }

    /// Sets how many system calls will be restarted.
    pub fn set_restarts(&self, count: u64) {
        // SAFETY: as in `calls`.
        unsafe { capstream_test_restarts.store(count, Ordering::SeqCst) }
    }

    /// Does `work` while invalid opcodes are looked up in `table`.
    pub fn with_table<R>(&self, table: &PatchTable, work: impl FnOnce() -> R) -> R {
        TABLE.store(std::ptr::from_ref(table).cast_mut(), Ordering::SeqCst);
        let result = work();
        TABLE.store(std::ptr::null_mut(), Ordering::SeqCst);
        result
    }

    /// Runs the code at `entry` until it returns; whether its first instruction is an invalid opcode, after which it goes
    /// on at `target`.
    ///
    /// # Safety
    ///
    /// As for [`Processor::run`].
    pub unsafe fn raises_sigill(&self, entry: u64, target: u64, registers: &mut Registers) -> bool {
        let [expected, to] = &EXPECTED;
        to.store(target, Ordering::SeqCst);
        expected.store(entry, Ordering::SeqCst);
        // SAFETY: by the contract of this function.
        unsafe { self.run(entry, registers) };
        expected.swap(0, Ordering::SeqCst) == 0
    }

    /// Runs the code at `entry` until it returns.
    ///
    /// # Safety
    ///
    /// The code returns to [`Processor::back`], changes no memory of Rust objects and does only system calls that do not
    /// disturb this process.
    pub unsafe fn run(&self, entry: u64, registers: &mut Registers) {
        // SAFETY: by the contract of this function.
        unsafe { capstream_test_run(entry, registers) }
    }
}
