// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Branches and jumps, within PCC and to other capabilities.

use crate::instruction::{Flow, Op, SINK, next};
use crate::state::{State, Trapped};
use crate::trap::Violation;
use crate::{Capability, Permissions};

macro_rules! branches {
    ($($name:ident = |$a:ident, $b:ident| $taken:expr;)*) => {$(
        pub(crate) fn $name(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let $a = state.get_x(op.rs1);
            let $b = state.get_x(op.rs2);
            if $taken {
                let target = state.here(op).wrapping_add(op.imm());
                return state.jump(op, target);
            }
            next(state, rest)
        }
    )*};
}

branches! {
    beq = |a, b| a == b;
    bne = |a, b| a != b;
    blt = |a, b| (a as i64) < b as i64;
    bge = |a, b| a as i64 >= b as i64;
    bltu = |a, b| a < b;
    bgeu = |a, b| a >= b;
    beqz = |a, _b| a == 0;
    bnez = |a, _b| a != 0;
}

/// `jal` without a link.
pub(crate) fn j(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let target = state.here(op).wrapping_add(op.imm());
    state.jump(op, target)
}

/// `jal` in integer mode.
pub(crate) fn jal(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let target = state.here(op).wrapping_add(op.imm());
    if !state.is_code(target) {
        return state.leave_code(op, target);
    }
    let link = state.after(op).wrapping_sub(state.pc_bias);
    state.set_x(op.rd, link);
    state.jump(op, target)
}

/// `jalr` in integer mode, and `jalr.pcc`: to a PC as software sees it.
pub(crate) fn jalr(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let pc = state.get_x(op.rs1).wrapping_add(op.imm()).wrapping_add(state.pc_bias);
    let target = pc & !1;
    if !state.is_code(target) {
        return state.leave_code(op, target);
    }
    let link = state.after(op).wrapping_sub(state.pc_bias);
    state.set_x(op.rd, link);
    state.jump(op, target)
}

/// The capability to come back with: PCC behind the instruction, as a sentry.
fn link(state: &mut State, op: &Op) {
    if op.rd != SINK {
        let link = state.pcc_at(state.after(op)).seal_entry();
        state.set_capability(op.rd, link);
    }
}

/// `jal` in capability mode.
pub(crate) fn cjal(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let target = state.here(op).wrapping_add(op.imm());
    if !state.is_code(target) {
        return state.leave_code(op, target);
    }
    link(state, op);
    state.jump(op, target)
}

/// Goes on with another PCC. Its address is a valid target.
fn enter(state: &mut State, op: &Op, pcc: &Capability, target: u64) -> Flow {
    let flow = state.end(op, Flow::Jump);
    state.set_pcc(pcc);
    state.target = target;
    flow
}

/// Fails unless code can begin with a capability at an address whose bit 0 is clear.
fn check_target(
    state: &mut State,
    op: &Op,
    code: &Capability,
    register: u8,
    target: u64,
) -> Result<(), Trapped> {
    let violation = if state.older && code.base() & 1 != 0 {
        Violation::UnalignedBase
    } else if !code.contains(target, 2) {
        Violation::Length
    } else {
        return Ok(());
    };
    let _ = state.violation_at(op, violation, register, target);
    Err(Trapped)
}

/// `jalr` in capability mode, and `jalr.cap`.
pub(crate) fn cjalr(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let code = state.capability(op.rs1);
    let target = code.address().wrapping_add(op.imm()) & !1;
    let violation = if !code.tag() {
        Violation::Tag
    } else if code.is_sealed() && (!code.is_sentry() || op.imm != 0) {
        Violation::Seal
    } else if !code.permits(Permissions::EXECUTE.bits()) {
        Violation::Execute
    } else if state.older && !code.permits(Permissions::GLOBAL.bits()) {
        Violation::Global
    } else {
        if check_target(state, op, &code, op.rs1, target).is_err() {
            return Flow::Trap;
        }
        link(state, op);
        return enter(state, op, &code.unseal(), target);
    };
    state.violation(op, violation, op.rs1)
}

/// `cinvoke`.
pub(crate) fn cinvoke(state: &mut State, op: &Op, _rest: &[Op]) -> Flow {
    let code = state.capability(op.rs1);
    let data = state.capability(op.rs2);
    let invoke = Permissions::CINVOKE.bits();
    let execute = Permissions::EXECUTE.bits();
    let (violation, register) = if !code.tag() {
        (Violation::Tag, op.rs1)
    } else if !data.tag() {
        (Violation::Tag, op.rs2)
    } else if code.has_reserved_otype() {
        (Violation::Seal, op.rs1)
    } else if data.has_reserved_otype() {
        (Violation::Seal, op.rs2)
    } else if code.otype() != data.otype() {
        (Violation::Type, op.rs1)
    } else if !code.permits(invoke) {
        (Violation::CInvoke, op.rs1)
    } else if !data.permits(invoke) {
        (Violation::CInvoke, op.rs2)
    } else if !code.permits(execute) {
        (Violation::Execute, op.rs1)
    } else if data.permits(execute) {
        (Violation::Execute, op.rs2)
    } else {
        let target = code.address() & !1;
        if check_target(state, op, &code, op.rs1, target).is_err() {
            return Flow::Trap;
        }
        state.set_capability(31, data.unseal());
        return enter(state, op, &code.unseal(), target);
    };
    state.violation(op, violation, register)
}
