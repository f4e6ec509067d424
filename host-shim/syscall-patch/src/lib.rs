// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turns `syscall` instructions of unmodified x86-64 programs into jumps to the kernel of their cVM.
//!
//! A system call that is not patched traps to the monitor, which costs a signal delivery by the host. The first
//! trap of each instruction is the occasion to patch it, so that only code which is really executed is touched, and
//! the patcher knows for certain that the two bytes are an instruction.
//!
//! ```text
//! program                                   stub
//!
//! mov $1, %eax      becomes  jmp stub       mov $1, %eax
//! syscall           stays                   lea after(%rip), %rcx
//! after:                                    jmp kernel
//! ```
//!
//! The kernel is entered with the number in `rax`, the address to return to in `rcx`, and everything else as the
//! program left it, red zone included.
//!
//! What stands around the instruction decides the pattern, in this order of preference:
//!
//! | [`PatchKind`] | bytes that change | addresses inside them where a program could go on |
//! |---|---|---|
//! | `Preceding` | one instruction of 5 bytes or more, closely before | none |
//! | `Cave` | the `syscall`, and padding between functions nearby | none |
//! | `Following` | the `syscall` and instructions after it | the one after it, perhaps others |
//! | `Several` | several instructions before it, perhaps with itself and others after it | one or more |
//!
//! An address inside changed bytes can be reached by a jump from elsewhere, by a task that was stopped there, and
//! by every task that is blocked in this very system call. Therefore the stub is put where the bytes of the jump's
//! displacement that lie at such addresses are opcodes which no x86-64 processor defines: who lands there gets
//! `SIGILL`, and [`PatchTable::on_invalid_opcode`] says where in the stub to go on.
//!
//! Tasks can be interrupted in a stub. [`PatchTable::translate`] converts program counters between the two views, so
//! that signal handlers of the program only ever see addresses of the program.

#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a panic is how a test fails"
    )
)]

mod area;
mod boundary;
mod cave;
mod instruction;
mod landing;
#[allow(unsafe_code, reason = "programs and stubs are not Rust objects")]
mod memory;
mod plan;
mod stub;

pub mod error;
pub mod table;

pub use error::{PatchError, TableError};
pub use memory::CodeAccess;
pub use table::{Direction, PatchKind, PatchTable, Stats};
