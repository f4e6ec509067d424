// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turns `syscall` instructions of unmodified x86-64 programs into jumps to the kernel of their cVM.

pub mod error;
pub mod table;

pub use error::{PatchError, TableError};
pub use table::{Direction, PatchKind, PatchTable, Stats};
