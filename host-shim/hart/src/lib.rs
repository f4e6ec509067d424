// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A simulated CHERI-RISC-V hart: RV64GC with 128-bit capabilities, and the tagged memory it runs on.
//!
//! | module | what |
//! |---|---|
//! | [`capability`] | the 128-bit compressed capability and what instructions do with it |
//! | [`memory`] | regions of host memory with page flags and tags, devices |
//! | [`float`] | the arithmetic of the F and D extensions |
//! | [`board`] | a board for bare programs: RAM, console, timer, and a hart on it |
//! | [`hart`] | registers, traps, and [`Hart::run`] |
//!
//! A hart is used in two ways. A monitor gives it [`Traps::Exit`]: traps stop the hart and the monitor handles them, as a host
//! kernel handles signals. A board gives it [`Traps::Machine`]: traps enter machine or supervisor mode as on hardware.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

pub mod board;
pub mod capability;
pub mod float;
pub mod hart;
pub mod memory;

pub use capability::Capability;
pub use hart::{
    Attention, Config, Exit, Hart, InterruptLines, Isa, Privilege, TimeSource, Trap, Traps,
};
pub use capstream_capability::Permissions;
pub use memory::{Device, Memory, MemoryError, PageFlags, Region};
