// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is riscv64's own: its registers, and the crossings between a cVM and the monitor, which are made of sealed capabilities.
//!
//! A crossing loads a pair of sealed capabilities, code and data, from a **capability store** and invokes it (`cinvoke`). Every stack that
//! code of a cVM can call the monitor on has a store: the vCPU's is at [`vcpu::VcpuPage::gate`], that of a portal in its stack, [`STORE_OFFSET`]
//! bytes above the stack's lowest address. A cVM that writes to one clears tags, and has no way out by it any more.
//!
//! The image has three entries at fixed places from the ELF entry: the entry itself, the return point, where a hostcall comes back, and the portal
//! return point, where a portal returns to and which calls the monitor.

use crate::vcpu;

/// Bytes from a portal stack's lowest address to its capability store.
pub const STORE_OFFSET: u64 = 0x1000;

/// Bytes from the image's entry to its return point.
pub const RETURN_POINT_OFFSET: u64 = 16;
/// Bytes from the image's entry to its portal return point.
pub const PORTAL_RETURN_OFFSET: u64 = 32;

/// Number in `a7` of an `ecall` of the kernel: go on in a program with the registers that `a0` points to, [`TrapRegisters`]; or at
/// [`vcpu::GuestEntries::return_again`] when an interrupt is pending.
pub const RESUME_PROGRAM: u64 = 0;
/// The same without a look at the pending interrupts, to go on after a fault of the kernel.
pub const RESUME_KERNEL: u64 = 1;

/// Bytes of a capability.
pub const CAPABILITY_SIZE: u64 = 16;

/// What a capability store holds: places in units of [`CAPABILITY_SIZE`].
pub mod store {
    /// The cVM's data capability, unsealed.
    pub const DATA: u64 = 2;
    /// The monitor's code at the hostcall entry; sealed, a pair with [`MONITOR_DATA`].
    pub const HOSTCALL: u64 = 3;
    /// The monitor's data; sealed.
    pub const MONITOR_DATA: u64 = 4;
    /// The cVM's code at its return point; sealed, a pair with [`RETURN_DATA`].
    pub const RETURN: u64 = 11;
    /// The cVM's data; sealed.
    pub const RETURN_DATA: u64 = 12;
    /// The monitor's code where a portal ends; sealed, a pair with [`MONITOR_DATA`].
    pub const PORTAL_RETURN: u64 = 13;
}

/// Registers of a program or a kernel at a trap, in the order of Linux' `struct pt_regs` of riscv64.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the registers")]
pub struct TrapRegisters {
    pub epc: u64,
    pub ra: u64,
    pub sp: u64,
    pub gp: u64,
    pub tp: u64,
    pub t0: u64,
    pub t1: u64,
    pub t2: u64,
    pub s0: u64,
    pub s1: u64,
    pub a0: u64,
    pub a1: u64,
    pub a2: u64,
    pub a3: u64,
    pub a4: u64,
    pub a5: u64,
    pub a6: u64,
    pub a7: u64,
    pub s2: u64,
    pub s3: u64,
    pub s4: u64,
    pub s5: u64,
    pub s6: u64,
    pub s7: u64,
    pub s8: u64,
    pub s9: u64,
    pub s10: u64,
    pub s11: u64,
    pub t3: u64,
    pub t4: u64,
    pub t5: u64,
    pub t6: u64,
    /// For the kernel: the monitor writes 0 and reads nothing.
    pub status: u64,
    /// For the kernel: the monitor writes 0 and reads nothing.
    pub badaddr: u64,
    /// For the kernel: the monitor writes 0 and reads nothing.
    pub cause: u64,
    /// `a0` at [`vcpu::TrapKind::Syscall`], else 0.
    pub orig_a0: u64,
}

/// [`vcpu::TrapFrame`] with the registers of riscv64.
pub type TrapFrame = vcpu::TrapFrame<TrapRegisters>;

/// [`vcpu::VcpuPage`] with the registers of riscv64.
pub type VcpuPage = vcpu::VcpuPage<TrapRegisters>;
