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
//! | [`hart`] | registers, and [`Hart::run`] |
//! | [`control`], [`trap`] | numbers of CSRs, of special capability registers and of causes |
//!
//! A hart is used in two ways. A monitor gives it [`Traps::Exit`]: traps stop the hart and the monitor handles them, as a host
//! kernel handles signals. A board gives it [`Traps::Machine`]: traps enter machine or supervisor mode as on hardware.
//!
//! # A hart for a monitor
//!
//! ```
//! use std::sync::Arc;
//!
//! use capstream_hart::trap::cause;
//! use capstream_hart::{
//!     Capability, Config, Exit, Hart, Isa, Memory, PageFlags, Permissions, Privilege, Region, Traps,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cVM's memory: 64 KiB that can be read, written and executed.
//! let (base, size) = (0x2000_0000, 0x1_0000);
//! let flags = PageFlags::READ | PageFlags::WRITE | PageFlags::EXECUTE;
//! let region = Arc::new(Region::anonymous(base, size, flags)?);
//! // li a0, 42; ecall
//! region.write(base, &[0x13, 0x05, 0xa0, 0x02, 0x73, 0, 0, 0])?;
//! let memory = Arc::new(Memory::new());
//! memory.add(Arc::clone(&region))?;
//!
//! let config = Config { isa: Isa::V8, traps: Traps::Exit };
//! let mut hart = Hart::new(memory, config);
//! hart.set_privilege(Privilege::User);
//! let (all, exact) = Capability::root().set_bounds(base, size);
//! assert!(exact);
//! hart.set_pcc(&all.and_permissions(Permissions::CVM_CODE.bits()));
//! hart.set_ddc(&all.and_permissions(Permissions::CVM_DATA.bits()));
//!
//! let Exit::Trap(trap) = hart.run(1000) else {
//!     return Err("no trap".into());
//! };
//! assert_eq!(trap.cause, cause::ECALL_USER);
//! assert_eq!(hart.x(10), 42);
//! // Behind the ecall.
//! hart.set_pcc(&trap.pcc.with_address(trap.pcc.address() + 4));
//! # Ok(())
//! # }
//! ```
//!
//! # What a monitor has to know
//!
//! - Pages that hold tags are written through [`Region`] only: whoever writes the host's memory itself leaves the tags as they are. Take
//!   [`PageFlags::WRITE`] or [`PageFlags::CAPABILITIES`] from pages that the host may be made to write.
//! - Code that was written is executed for certain after a `fence.i` of any hart of the memory, or [`Hart::forget_code`].
//! - [`Region::protect`] and [`Memory::remove`] wait for harts that run, so that what they forbid is over when they return. Call them from
//!   anywhere but holding a lock that a [`Device`] takes.
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

mod attention;
mod blocks;
pub mod board;
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
