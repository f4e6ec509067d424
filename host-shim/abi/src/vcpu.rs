// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page that a vCPU and the monitor share. The kernel may write anything into it: the monitor reads nothing
//! from it that it would have to trust.
//!
//! The page and the trap frame end with the registers of a processor, `R`: [`crate::x86_64`] and [`crate::riscv64`] name both for theirs.

use core::sync::atomic::AtomicU64;

/// What a trap frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum TrapKind {
    /// An interrupt is pending and a program was running.
    Interrupt = 0,
    /// A program executed a system call instruction that was not patched; the program counter is behind it, the number
    /// in its register (`rax`, `a7`).
    Syscall = 1,
    /// A processor exception: `vector`, `error`, `address` say which.
    Exception = 2,
}

/// A trap, written by the monitor before it lets the vCPU go on at one of [`GuestEntries`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapFrame<R> {
    /// A [`TrapKind`].
    pub kind: u64,
    /// x86-64: the processor's exception vector, e.g. 14 for a page fault. riscv64: the exception code, as in `scause`.
    pub vector: u64,
    /// x86-64: the vector's error code. riscv64: for a CHERI exception its cause and register, as in `tval`; else 0.
    pub error: u64,
    /// The address that faulted, for a page fault or another fault at an access.
    pub address: u64,
    /// The host's signal number and `si_code`, in the low and the high half.
    pub signal: u64,
    /// All registers.
    pub registers: R,
}

/// The shared page. On x86-64 `gs` points to it whenever the cVM's code runs, on riscv64 `tp` whenever its kernel's does.
#[repr(C)]
pub struct VcpuPage<R> {
    /// Pending interrupts, one bit each; set by the monitor from any thread, taken by the kernel with an exchange.
    pub pending: AtomicU64,
    /// How to call the monitor on this vCPU. x86-64: the address of the hostcall gate. riscv64: the address of the vCPU's capability
    /// store, see [`crate::riscv64::store`].
    pub gate: u64,
    /// For the kernel: where the kernel stack of the current task begins (its highest address).
    pub kernel_sp: u64,
    /// For the kernel: scratch at entries from a program.
    pub user_sp: u64,
    /// For the kernel: scratch at returns to a program.
    pub user_pc: u64,
    /// For the kernel: whether it takes interrupts.
    pub interrupts_on: u64,
    /// Set by the monitor when it redirects a fault of the kernel, cleared by the kernel when it is handled; a fault while it is set ends the cVM.
    pub in_kernel_fault: AtomicU64,
    /// For the kernel: its current task.
    pub current: u64,
    /// For the kernel: whatever else it keeps per vCPU.
    pub guest: [u64; 24],
    /// The last trap.
    pub trap: TrapFrame<R>,
}

/// Where the monitor sends a vCPU; all in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuestEntries {
    /// A trap in a program: registers are in the trap frame, the stack pointer is the program's (riscv64: 0), interrupts of the kernel
    /// count as off.
    pub trap_user: u64,
    /// A trap in the kernel: the stack pointer is the kernel's, lowered past its red zone (x86-64) and aligned to 16 bytes.
    pub trap_kernel: u64,
    /// x86-64: a system call from a patched site: `rax` the number, `rcx` where to return to, all else as the program left it.
    /// riscv64: 0, nothing is patched.
    pub syscall: u64,
    /// First instruction of the last steps of a return to a program, after the last look at the pending word. riscv64: 0, the monitor
    /// takes these steps, see [`crate::riscv64::RESUME_PROGRAM`].
    pub return_begin: u64,
    /// Byte after those instructions. riscv64: 0.
    pub return_end: u64,
    /// Where to go on when an interrupt came instead of the return: the program's registers are where the kernel saved them.
    pub return_again: u64,
}
