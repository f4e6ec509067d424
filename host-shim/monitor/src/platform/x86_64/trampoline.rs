// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Declares what `trampoline.S` defines. The contracts are there, above each label.

use core::arch::global_asm;
use core::mem::offset_of;

use super::context::{
    ATTENTION_ABANDON, ATTENTION_KILL, Context, MODE_GUEST, MODE_HOST, MODE_PORTAL, Own,
};
use crate::platform::PortalCall;

// The offsets of `Own` are used as offsets of `Context`.
const _: () = assert!(offset_of!(Context, own) == 0);

global_asm!(
    include_str!("trampoline.S"),
    ENTER_RSP = const offset_of!(Own, enter_rsp),
    HOST_RSP = const offset_of!(Own, host_rsp),
    HOST_FS = const offset_of!(Own, host_fs),
    GUEST_GS = const offset_of!(Own, guest_gs),
    MODE = const offset_of!(Own, mode),
    PORTAL_OWNER = const offset_of!(Own, portal_owner),
    PORTAL_THUNK = const offset_of!(Own, portal_thunk),
    PORTAL_GATE = const offset_of!(Own, portal_gate),
    XSAVE_AREA = const offset_of!(Own, xsave_area),
    XSAVE_MASK = const offset_of!(Own, xsave_mask),
    ATTENTION = const offset_of!(Context, attention),
    ABANDON_OWNER = const offset_of!(Context, abandon_owner),
    CALL_FUNCTION = const offset_of!(PortalCall, function),
    CALL_COOKIE = const offset_of!(PortalCall, cookie),
    CALL_OPERATION = const offset_of!(PortalCall, operation),
    CALL_LEN = const offset_of!(PortalCall, len),
    CALL_SENDER = const offset_of!(PortalCall, sender),
    CALL_STACK = const offset_of!(PortalCall, stack),
    MODE_HOST = const MODE_HOST,
    MODE_GUEST = const MODE_GUEST,
    MODE_PORTAL = const MODE_PORTAL,
    ATTENTION_KILL = const ATTENTION_KILL,
    ATTENTION_ABANDON = const ATTENTION_ABANDON,
    NOT_ALIGNMENT = const !(1i32 << 18),
    ON_SIGNAL = sym super::signal::on_signal,
    HOSTCALL = sym super::processor::hostcall,
);

/// What `capstream_call_portal` returns.
#[repr(C)]
pub struct PortalResult {
    /// What the portal returned.
    pub value: i64,
    /// 0, or 1 when it was abandoned.
    pub abandoned: u64,
}

#[allow(
    improper_ctypes,
    reason = "the trampolines use the fields of `Context` by offsets that Rust computes"
)]
unsafe extern "C" {
    /// Runs a cVM until it is left.
    pub fn capstream_enter(context: *const Context, entry: u64, boot: u64, stack: u64);
    /// Runs a portal of another cVM.
    pub fn capstream_call_portal(context: *const Context, call: *const PortalCall) -> PortalResult;
    /// Calls `work` with all of the monitor's thread state, keeping the program's vector state.
    pub fn capstream_with_host_state(
        context: *const Context,
        work: extern "C" fn(*mut u8) -> i64,
        data: *mut u8,
    ) -> i64;
    /// Calls `work` with the monitor's thread pointer.
    pub fn capstream_with_host_fs(
        context: *const Context,
        work: extern "C" fn(*mut u8) -> i64,
        data: *mut u8,
    ) -> i64;
    /// Copies; returns how many bytes could not be copied.
    pub fn capstream_copy(destination: *mut u8, source: *const u8, len: usize) -> usize;

    // Labels, never called from Rust.
    static capstream_on_signal: u8;
    static capstream_leave: u8;
    static capstream_gate: u8;
    static capstream_portal_gate: u8;
    static capstream_gates_begin: u8;
    static capstream_gates_end: u8;
    static capstream_portal_return: u8;
    static capstream_portal_abandon: u8;
    static capstream_copy_fault: u8;
}

/// Addresses of labels in `trampoline.S`.
pub mod label {
    macro_rules! labels {
        ($($(#[$doc:meta])* $name:ident $label:ident;)*) => {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name() -> u64 {
                    &raw const super::$label as u64
                }
            )*
        };
    }

    labels! {
        /// The signal handler.
        on_signal capstream_on_signal;
        /// Where to go on to leave a cVM.
        leave capstream_leave;
        /// The gate of a kernel.
        gate capstream_gate;
        /// The gate of a portal.
        portal_gate capstream_portal_gate;
        /// First instruction of the gates.
        gates_begin capstream_gates_begin;
        /// Byte after the gates.
        gates_end capstream_gates_end;
        /// Where a portal returns to.
        portal_return capstream_portal_return;
        /// Where to go on to leave a portal.
        portal_abandon capstream_portal_abandon;
        /// Where the copy routine goes on after a fault.
        copy_fault capstream_copy_fault;
    }

    /// First instruction of the copy routine.
    #[inline]
    pub fn copy_begin() -> u64 {
        super::capstream_copy as *const () as u64
    }
}
