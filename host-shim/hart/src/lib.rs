// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A simulated CHERI-RISC-V hart: RV64GC with 128-bit capabilities, and the tagged memory it runs on.
//!
//! | module | what |
//! |---|---|
//! | [`capability`] | the 128-bit compressed capability and what instructions do with it |
//! | [`memory`] | regions of host memory with page flags and tags, devices |
//! | [`float`] | the arithmetic of the F and D extensions |
//! | [`disassembly`] | instructions as text |
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
mod attention;
mod blocks;
pub mod capability;
pub mod control;
mod decode;
pub mod disassembly;
mod execution;
pub mod float;
pub mod hart;
mod instruction;
pub mod memory;
mod state;
pub mod trap;

pub use attention::{Attention, InterruptLines};
pub use capability::Capability;
pub use capstream_capability::Permissions;
pub use control::TimeSource;
pub use hart::{Config, Exit, Hart, Isa, Privilege, Traps};
pub use memory::{Device, Memory, MemoryError, PageFlags, Region};
pub use trap::Trap;
