// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is x86-64's own: its registers.

use crate::vcpu;

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
    /// System call number at [`vcpu::TrapKind::Syscall`], else -1.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// [`vcpu::TrapFrame`] with the registers of x86-64.
pub type TrapFrame = vcpu::TrapFrame<TrapRegisters>;

/// [`vcpu::VcpuPage`] with the registers of x86-64.
pub type VcpuPage = vcpu::VcpuPage<TrapRegisters>;
