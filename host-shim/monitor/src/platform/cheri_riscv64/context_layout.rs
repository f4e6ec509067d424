// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where things are in a vCPU's context. The trampolines get these numbers too: the build script reads this file.
//!
//! A context begins a piece of the monitor's memory that no cVM has a capability to; the stack that the trampolines use ends it. Names without a
//! comment of their own are capabilities.

/// Offsets in bytes, each with the name that the trampolines know it by.
pub const OFFSETS: &[(&str, u64)] = &[
    ("CTX_DATA", DATA),
    ("CTX_RETURN", RETURN),
    ("CTX_RETURN_DATA", RETURN_DATA),
    ("CTX_ENTRY", ENTRY),
    ("CTX_GATE", GATE),
    ("CTX_MONITOR_DATA", MONITOR_DATA),
    ("CTX_PORTAL_RETURN", PORTAL_RETURN),
    ("CTX_STACK", STACK),
    ("CTX_ENTER_STACK", ENTER_STACK),
    ("CTX_HOSTCALL", HOSTCALL),
    ("CTX_CALL_DATA", CALL_DATA),
    ("CTX_CALL_RETURN", CALL_RETURN),
    ("CTX_CALL_RETURN_DATA", CALL_RETURN_DATA),
    ("CTX_CALL_FUNCTION", CALL_FUNCTION),
    ("CTX_CALL_STORE", CALL_STORE),
    ("CTX_CALL_ARGUMENTS", CALL_ARGUMENTS),
    ("CTX_CALL_STACK", CALL_STACK),
    ("CTX_CALL_RETURN_ADDRESS", CALL_RETURN_ADDRESS),
];

/// The DDC of the compartment that runs or has made the hostcall, not sealed.
pub const DATA: u64 = 0x00;
/// Its PCC where hostcalls return to; sealed, a pair with the next.
pub const RETURN: u64 = 0x10;
/// Its DDC.
pub const RETURN_DATA: u64 = 0x20;
/// The cVM's PCC at its entry; sealed.
pub const ENTRY: u64 = 0x30;
/// The monitor's PCC at the gate; sealed, a pair with [`MONITOR_DATA`].
pub const GATE: u64 = 0x40;
/// The monitor's DDC; its address is the context's. Sealed.
pub const MONITOR_DATA: u64 = 0x50;
/// The monitor's PCC where portals return to; sealed, a pair with [`MONITOR_DATA`].
pub const PORTAL_RETURN: u64 = 0x60;
/// Where the gate begins its frame; an address.
pub const STACK: u64 = 0x70;
/// Where `capstream_enter` left its frame; an address.
pub const ENTER_STACK: u64 = 0x78;
/// The function that answers hostcalls; an address.
pub const HOSTCALL: u64 = 0x80;
/// The portal's DDC, not sealed. This and what follows says which portal to call.
pub const CALL_DATA: u64 = 0x90;
/// The portal's PCC where its hostcalls return to; sealed, a pair with the next.
pub const CALL_RETURN: u64 = 0xa0;
/// The portal's DDC, sealed.
pub const CALL_RETURN_DATA: u64 = 0xb0;
/// The portal's PCC at its function; sealed, a pair with [`CALL_RETURN_DATA`].
pub const CALL_FUNCTION: u64 = 0xc0;
/// The capability store of the portal's stack; an address of the monitor's.
pub const CALL_STORE: u64 = 0xd0;
/// Five words: the portal's arguments.
pub const CALL_ARGUMENTS: u64 = 0xd8;
/// The portal's stack pointer, as its code calls it.
pub const CALL_STACK: u64 = 0x100;
/// Where the portal returns to, as its code calls it.
pub const CALL_RETURN_ADDRESS: u64 = 0x108;
