// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System instructions, fences and CSR accesses.

use std::sync::atomic::{Ordering, fence as host_fence};

use crate::Privilege;
use crate::control::{self, Access, csr};
use crate::instruction::{Flow, Op, next};
use crate::state::State;
use crate::trap::{self, Violation, cause};

/// What no decoder knows.
pub(crate) fn illegal(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    state.illegal(op)
}

pub(crate) fn ecall(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    state.raise(op, cause::ECALL_USER + state.privilege as u64, 0, 0)
}

pub(crate) fn ebreak(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let here = state.here(op);
    // No `tval`, as on the CHERI QEMU.
    state.raise(op, cause::BREAKPOINT, 0, here)
}

/// A fence that orders loads after stores, which the host does not do by itself.
pub(crate) fn fence(state: &mut State, _op: &Op, rest: &[Op]) -> Flow {
    host_fence(Ordering::SeqCst);
    next(state, rest)
}

/// Any other fence.
pub(crate) fn light_fence(state: &mut State, _op: &Op, rest: &[Op]) -> Flow {
    host_fence(Ordering::AcqRel);
    next(state, rest)
}

/// Concerns all harts, as a kernel that has no other way to reach them wants it.
pub(crate) fn fence_i(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    state.memory.check_code();
    state.end(op, Flow::Jump)
}

fn xret(state: &mut State, op: &Op, machine: bool) -> Flow {
    let (least, trapped) = if machine {
        (Privilege::Machine, false)
    } else {
        let trapped =
            state.privilege == Privilege::Supervisor && state.control.status & control::TSR != 0;
        (Privilege::Supervisor, trapped)
    };
    if state.privilege < least || trapped {
        return state.illegal(op);
    }
    if !state.may_access_system_registers() {
        return state.violation(op, Violation::AccessSystemRegisters, trap::PCC);
    }
    let flow = state.end(op, Flow::Synchronize);
    state.leave_trap(machine);
    flow
}

pub(crate) fn mret(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    xret(state, op, true)
}

pub(crate) fn sret(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    xret(state, op, false)
}

pub(crate) fn wfi(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let trapped =
        state.privilege == Privilege::Supervisor && state.control.status & control::TW != 0;
    if state.privilege == Privilege::User || trapped {
        return state.illegal(op);
    }
    state.end(op, Flow::Wait)
}

pub(crate) fn sfence_vma(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let trapped =
        state.privilege == Privilege::Supervisor && state.control.status & control::TVM != 0;
    if state.privilege == Privilege::User || trapped {
        return state.illegal(op);
    }
    next(state, rest)
}

/// What a CSR instruction makes of the old value.
#[derive(Clone, Copy)]
enum Change {
    Write,
    Set,
    Clear,
}

fn access(state: &mut State, op: &Op, rest: &[Op], change: Change, source: Option<u64>) -> Flow {
    let number = (op.extra >> 20) as u16;
    match state.csr_access(number, source.is_some()) {
        Access::Allowed => {}
        Access::Illegal => return state.illegal(op),
        Access::System => return state.violation(op, Violation::AccessSystemRegisters, trap::PCC),
    }
    // Counters count what precedes in the block, too.
    let block = state.retired;
    state.retired = state.retired_before(op);
    let old = state.csr(number).unwrap_or(0);
    if let Some(source) = source {
        let new = match change {
            Change::Write => source,
            Change::Set => modifiable(state, number, old) | source,
            Change::Clear => modifiable(state, number, old) & !source,
        };
        state.set_csr(number, new);
    }
    state.retired = block;
    state.set_x(op.rd, old);
    let quiet = matches!(
        number,
        csr::FFLAGS | csr::FRM | csr::FCSR | csr::SSCRATCH | csr::MSCRATCH
    );
    if source.is_none() || quiet {
        return next(state, rest);
    }
    state.end(op, Flow::Synchronize)
}

/// The old value of a CSR as far as setting and clearing bits goes: `mip` without what hardware sets.
fn modifiable(state: &State, number: u16, old: u64) -> u64 {
    if number == csr::MIP {
        old & !state.pending_lines() | state.pending_by_software()
    } else {
        old
    }
}

pub(crate) fn csrrw(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = Some(state.get_x(op.rs1));
    access(state, op, rest, Change::Write, source)
}

pub(crate) fn csrrs(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = (op.rs1 != 0).then_some(state.get_x(op.rs1));
    access(state, op, rest, Change::Set, source)
}

pub(crate) fn csrrc(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = (op.rs1 != 0).then_some(state.get_x(op.rs1));
    access(state, op, rest, Change::Clear, source)
}

pub(crate) fn csrrwi(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    access(state, op, rest, Change::Write, Some(u64::from(op.rs1)))
}

pub(crate) fn csrrsi(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = (op.rs1 != 0).then_some(u64::from(op.rs1));
    access(state, op, rest, Change::Set, source)
}

pub(crate) fn csrrci(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = (op.rs1 != 0).then_some(u64::from(op.rs1));
    access(state, op, rest, Change::Clear, source)
}
