// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the monitor and the kernel inside a cVM agree on.
//!
//! Everything here is plain data with a fixed layout: numbers of hostcalls and interrupts, the boot information page,
//! the vCPU page and the trap frame. What differs between processors is in a module of the processor's name; all are always there, as a monitor
//! can simulate a processor that is not its own. The kernel's C header is printed from this crate by `abi-header`.
#![no_std]

pub mod boot;
pub mod hostcall;
pub mod irq;
pub mod riscv64;
pub mod vcpu;
pub mod x86_64;

pub use boot::{BootInfo, Layout, VirtioDevice};
pub use hostcall::Hostcall;
pub use vcpu::{GuestEntries, TrapKind};

/// Bytes of a key that names an endpoint or a published range; shorter keys end with a NUL byte.
pub const KEY_LEN: usize = 10;

/// Flag of the probe hostcalls: raise [`irq::CAPABILITY`] when any key is advertised.
pub const PROBE_NOTIFY: u64 = 1;

/// Operation of [`Hostcall::Call`]: deliver one message. The portal returns 0, or a negated errno:
/// `EAGAIN` no buffer is queued, `EMSGSIZE` the oldest is too small, `EFAULT` the sender's range cannot be read.
pub const CALL_DELIVER: u64 = 0;
/// Operation of [`Hostcall::Call`]: the portal returns the size of the oldest queued buffer in bytes, 0 when there is none.
pub const CALL_QUERY: u64 = 1;
/// Operation of [`Hostcall::Call`]: as [`CALL_QUERY`]; when there is none the receiver calls [`Hostcall::Wake`] as soon as it queues one,
/// as it does after a [`CALL_DELIVER`] that failed with `EAGAIN`.
pub const CALL_QUERY_NOTIFY: u64 = 2;
/// Operations of [`Hostcall::Call`] from here on belong to the device kind; the caller passes memory as with [`CALL_DELIVER`].
pub const CALL_KIND: u64 = 16;

/// Whether the caller passes memory with this operation of [`Hostcall::Call`]; the others are queries, or none at all.
pub const fn passes_memory(operation: u64) -> bool {
    operation == CALL_DELIVER || operation >= CALL_KIND
}

/// Direction of [`Hostcall::TranslateIp`]: from where the processor is to where an unpatched program would be.
pub const TRANSLATE_TO_PROGRAM: u64 = 0;
/// Direction of [`Hostcall::TranslateIp`]: from an address of the unpatched program to where to resume.
pub const TRANSLATE_TO_PATCHED: u64 = 1;
/// Direction of [`Hostcall::TranslateIp`]: from an instruction that the processor refused to where to resume, if a patch put it there.
pub const TRANSLATE_REFUSED: u64 = 2;

/// The function that a receiver publishes, called by the monitor on the sender's thread in the receiver's compartment.
///
/// Arguments: the cookie given at [`Hostcall::StreamAdvertise`]; the operation ([`CALL_DELIVER`], [`CALL_QUERY`]); the length of
/// the sender's message in bytes; a number that names the sender; the gate to call the monitor through while the portal runs, as
/// [`vcpu::VcpuPage::gate`].
/// It may not sleep, take a lock of its kernel or look at the current task.
pub type Portal =
    unsafe extern "C" fn(cookie: usize, op: u64, len: u64, sender: u64, gate: usize) -> i64;

/// What [`Hostcall::PagingStart`] tells about the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// First byte.
    pub begin: u64,
    /// Byte after it.
    pub end: u64,
}

/// What [`Hostcall::PageMap`] allows, added up.
pub mod page_access {
    /// Loads.
    pub const READ: u64 = 1;
    /// Stores.
    pub const WRITE: u64 = 2;
    /// Instruction fetches.
    pub const EXECUTE: u64 = 4;
    /// All of them.
    pub const ALL: u64 = READ | WRITE | EXECUTE;
}

/// What [`Hostcall::FileProbe`] tells about a published range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileInfo {
    /// Bytes in the range.
    pub size: u64,
    /// 1 when it can only be read.
    pub read_only: u64,
}

/// Why a cVM ended, first argument of [`Hostcall::PowerOff`].
pub mod power_off {
    /// Its program ended; the status is the one of `wait(2)`.
    pub const PROGRAM: u64 = 0;
    /// Power-off or halt was asked for; no status.
    pub const HALT: u64 = 1;
    /// Reboot was asked for; no status.
    pub const REBOOT: u64 = 2;
    /// The kernel panicked; the last lines of the log say why.
    pub const PANIC: u64 = 3;
    /// The program could not be started; the status is the errno.
    pub const NO_PROGRAM: u64 = 4;
}
