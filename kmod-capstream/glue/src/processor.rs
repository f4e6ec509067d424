// SPDX-License-Identifier: GPL-2.0-only
//! The processor, for tasks that spin.

use core::sync::atomic::{AtomicU32, Ordering};

extern "C" {
    // In processor.c.
    fn capstream_spin(yield_now: bool) -> bool;
}

/// Every how many turns the processor is offered to other tasks even if it is not their turn.
const YIELD_TURNS: u32 = 256;

/// One turn: interrupts are taken and other tasks get their chance. Returns whether the calling task has a signal.
pub(crate) fn spin() -> bool {
    // How many of the turns are whose does not matter.
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: called by tasks that hold no lock.
    unsafe { capstream_spin(turn % YIELD_TURNS == 0) }
}
