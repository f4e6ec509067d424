// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A decoded instruction, and how one follows the other.
//!
//! An instruction is executed by a function of its own, which ends by calling that of the next one. The calls are in tail position,
//! so that an optimizing compiler makes jumps of them; without optimization they nest, at most as deep as a block is long.

use crate::state::State;

/// Why the instructions of a slice came to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flow {
    /// All have been executed.
    End,
    /// One of them jumped; [`State`] knows where to, and how many were executed.
    Jump,
    /// As `Jump`, and what decides about interrupts may have changed.
    Synchronize,
    /// One of them trapped; [`State`] knows which and why.
    Trap,
    /// One of them waits for an interrupt and has been executed; otherwise as `Jump`.
    Wait,
}

/// The function that executes an instruction, and then those that follow it in a block.
pub(crate) type Run = fn(&mut State, &Op, &[Op]) -> Flow;

/// A decoded instruction.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) run: Run,
    pub(crate) imm: i32,
    /// What the instruction needs besides: its own bits, a CSR's number ...
    pub(crate) extra: u32,
    /// Registers. A destination that is x0 is [`SINK`].
    pub(crate) rd: u8,
    pub(crate) rs1: u8,
    pub(crate) rs2: u8,
    pub(crate) rs3: u8,
    /// Bytes from the begin of its block.
    pub(crate) offset: u16,
    /// How many precede it in its block.
    pub(crate) index: u8,
    /// Bytes.
    pub(crate) size: u8,
}

/// Where writes to x0 go.
pub(crate) const SINK: u8 = 32;

impl Op {
    /// The immediate, sign-extended.
    #[inline(always)]
    pub(crate) fn imm(&self) -> u64 {
        self.imm as i64 as u64
    }

    /// Bytes from the begin of its block to the next instruction.
    #[inline(always)]
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.size)
    }
}

/// Executes what comes next.
#[inline(always)]
pub(crate) fn next(state: &mut State, rest: &[Op]) -> Flow {
    match rest.split_first() {
        Some((op, rest)) => (op.run)(state, op, rest),
        None => Flow::End,
    }
}
