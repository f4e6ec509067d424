// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page that a vCPU and the monitor share. The kernel may write anything into it: the monitor reads nothing
//! from it that it would have to trust.

use core::sync::atomic::AtomicU64;

/// Registers of a program or a kernel at a trap, in the order of Linux' `struct pt_regs` of x86-64.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the registers")]
pub struct TrapRegisters {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// System call number at [`TrapKind::Syscall`], else -1.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// What a trap frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum TrapKind {
    /// An interrupt is pending and a program was running.
    Interrupt = 0,
    /// A program executed a system call instruction that was not patched; `rip` is behind it, `rax` the number.
    Syscall = 1,
    /// A processor exception: `vector`, `error`, `address` say which.
    Exception = 2,
}

/// A trap, written by the monitor before it lets the vCPU go on at one of [`GuestEntries`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapFrame {
    /// A [`TrapKind`].
    pub kind: u64,
    /// The processor's exception vector, e.g. 14 for a page fault.
    pub vector: u64,
    /// Its error code.
    pub error: u64,
    /// The address that faulted (`cr2`), for a page fault.
    pub address: u64,
    /// The host's signal number and `si_code`, in the low and the high half.
    pub signal: u64,
    /// All registers.
    pub registers: TrapRegisters,
}

/// The shared page. `gs` points to it whenever the cVM's code runs.
#[repr(C)]
pub struct VcpuPage {
    /// Pending interrupts, one bit each; set by the monitor from any thread, taken by the kernel with an exchange.
    pub pending: AtomicU64,
    /// The hostcall gate of this vCPU.
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
    pub trap: TrapFrame,
}

/// Where the monitor sends a vCPU; all in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuestEntries {
    /// A trap in a program: registers are in the trap frame, the stack pointer is the program's, interrupts of the kernel count as off.
    pub trap_user: u64,
    /// A trap in the kernel: the stack pointer is the kernel's, lowered past its red zone and aligned to 16 bytes.
    pub trap_kernel: u64,
    /// A system call from a patched site: `rax` the number, `rcx` where to return to, all else as the program left it.
    pub syscall: u64,
    /// First instruction of the last steps of a return to a program, after the last look at the pending word.
    pub return_begin: u64,
    /// Byte after those instructions.
    pub return_end: u64,
    /// Where to go on when an interrupt came between the two.
    pub return_again: u64,
}
