// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Capability inspection and manipulation.
//!
//! What the newer generation makes is in [`crate::capability`]: a capability that cannot be had comes without its tag. The older
//! generation looks first, in an order of its own, and raises an exception instead. So each instruction here is a result, and a reason
//! to refuse it that counts in the older generation only. What has no such reason is the same in both.

use crate::capability::{OTYPE_MAX, representable_length, representable_mask};
use crate::control::scr;
use crate::instruction::{Flow, Op, SINK, next};
use crate::state::State;
use crate::trap::Violation;
use crate::{Capability, Permissions, Privilege};

/// A reason to refuse, and the register that is to blame.
type Refusal = Option<(Violation, u8)>;

/// Ends a capability-making instruction.
fn give(state: &mut State, op: &Op, rest: &[Op], refusal: Refusal, result: Capability) -> Flow {
    if state.older
        && let Some((violation, register)) = refusal
    {
        return state.violation(op, violation, register);
    }
    state.set_capability(op.rd, result);
    next(state, rest)
}

/// The source has to be tagged and unsealed.
fn usable(source: &Capability, register: u8) -> Refusal {
    if !source.tag() {
        Some((Violation::Tag, register))
    } else {
        unsealed(source, register)
    }
}

/// The source has to be unsealed if it is tagged.
fn unsealed(source: &Capability, register: u8) -> Refusal {
    (source.tag() && source.is_sealed()).then_some((Violation::Seal, register))
}

macro_rules! inspect {
    ($($(#[$doc:meta])* $name:ident = |$c:ident| $value:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
            let $c = state.capability(op.rs1);
            state.set_x(op.rd, $value);
            next(state, rest)
        }
    )*};
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

inspect! {
    cgetperm = |c| u64::from(c.permissions());
    cgettype = |c| c.otype() as u64;
    cgetbase = |c| c.base();
    cgetlen = |c| clamp(c.length());
    cgettag = |c| u64::from(c.tag());
    cgetsealed = |c| u64::from(c.is_sealed());
    cgetoffset = |c| c.offset();
    cgetflags = |c| u64::from(c.flag());
    cgetaddr = |c| c.address();
    cgethigh = |c| c.high();
    cgettop = |c| clamp(c.top());
    crrl = |c| representable_length(c.address());
    cram = |c| representable_mask(c.address());
}

pub(crate) fn csub(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let difference = state.get_x(op.rs1).wrapping_sub(state.get_x(op.rs2));
    state.set_x(op.rd, difference);
    next(state, rest)
}

pub(crate) fn cseqx(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let (a, b) = (state.capability(op.rs1), state.capability(op.rs2));
    let equal = a.tag() == b.tag() && a.to_bits() == b.to_bits();
    state.set_x(op.rd, u64::from(equal));
    next(state, rest)
}

pub(crate) fn ctestsubset(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let (whole, _) = state.capability_or_ddc(op.rs1);
    let part = state.capability(op.rs2);
    let subset = whole.tag() == part.tag() && part.is_subset_of(&whole);
    state.set_x(op.rd, u64::from(subset));
    next(state, rest)
}

pub(crate) fn ctoptr(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let (authority, register) = state.capability_or_ddc(op.rs2);
    if state.older && !authority.tag() {
        return state.violation(op, Violation::Tag, register);
    }
    let pointer = if source.tag() {
        source.address().wrapping_sub(authority.base())
    } else {
        0
    };
    state.set_x(op.rd, pointer);
    next(state, rest)
}

pub(crate) fn cmove(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    state.set_capability(op.rd, source);
    next(state, rest)
}

pub(crate) fn ccleartag(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    state.set_capability(op.rd, source.clear_tag());
    next(state, rest)
}

pub(crate) fn csethigh(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let address = state.get_x(op.rs1);
    let bits = u128::from(state.get_x(op.rs2)) << 64 | u128::from(address);
    state.set_capability(op.rd, Capability::from_bits(bits, false));
    next(state, rest)
}

pub(crate) fn candperm(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = source.and_permissions(state.get_x(op.rs2) as u32);
    give(state, op, rest, usable(&source, op.rs1), result)
}

pub(crate) fn csetflags(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = source.with_flag(state.get_x(op.rs2) & 1 != 0);
    give(state, op, rest, unsealed(&source, op.rs1), result)
}

/// With an address that an instruction names outright: the newer generation looks whether the bounds stay exactly, the older one as for
/// every other change of an address.
fn with_named_address(state: &State, source: &Capability, address: u64) -> Capability {
    if state.older {
        source.with_address(address)
    } else {
        source.with_address_exact(address)
    }
}

pub(crate) fn csetaddr(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = with_named_address(state, &source, state.get_x(op.rs2));
    give(state, op, rest, unsealed(&source, op.rs1), result)
}

pub(crate) fn csetoffset(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = source.with_address(source.base().wrapping_add(state.get_x(op.rs2)));
    give(state, op, rest, unsealed(&source, op.rs1), result)
}

pub(crate) fn cincoffset(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = source.with_address(source.address().wrapping_add(state.get_x(op.rs2)));
    give(state, op, rest, unsealed(&source, op.rs1), result)
}

pub(crate) fn cincoffsetimm(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let result = source.with_address(source.address().wrapping_add(op.imm()));
    give(state, op, rest, unsealed(&source, op.rs1), result)
}

/// `auipc` in capability mode.
pub(crate) fn auipcc(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let here = state.here(op);
    let pcc = state.pcc_at(here);
    let result = with_named_address(state, &pcc, here.wrapping_add(op.imm()));
    state.set_capability(op.rd, result);
    next(state, rest)
}

fn bounds(state: &mut State, op: &Op, rest: &[Op], length: u64, must_be_exact: bool) -> Flow {
    let source = state.capability(op.rs1);
    let (result, exact) = source.set_bounds(source.address(), length);
    let refusal = usable(&source, op.rs1)
        .or_else(|| {
            (!source.contains(source.address(), length)).then_some((Violation::Length, op.rs1))
        })
        .or_else(|| (must_be_exact && !exact).then_some((Violation::InexactBounds, op.rs1)));
    give(state, op, rest, refusal, result.tag_if(exact || !must_be_exact))
}

pub(crate) fn csetbounds(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    bounds(state, op, rest, state.get_x(op.rs2), false)
}

pub(crate) fn csetboundsimm(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    bounds(state, op, rest, op.imm(), false)
}

pub(crate) fn csetboundsexact(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    bounds(state, op, rest, state.get_x(op.rs2), true)
}

pub(crate) fn cfromptr(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let (source, register) = state.capability_or_ddc(op.rs1);
    let offset = state.get_x(op.rs2);
    if offset == 0 {
        return give(state, op, rest, None, Capability::null());
    }
    let result = source.with_address(source.base().wrapping_add(offset));
    give(state, op, rest, usable(&source, register), result)
}

// Sealing.

const fn in_bounds(authority: &Capability) -> bool {
    authority.contains(authority.address(), 1)
}

pub(crate) fn cseal(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let authority = state.capability(op.rs2);
    let otype = authority.address();
    let refusal = if !source.tag() {
        Some((Violation::Tag, op.rs1))
    } else if !authority.tag() {
        Some((Violation::Tag, op.rs2))
    } else if source.is_sealed() {
        Some((Violation::Seal, op.rs1))
    } else if authority.is_sealed() {
        Some((Violation::Seal, op.rs2))
    } else if !authority.permits(Permissions::SEAL.bits()) {
        Some((Violation::SealPermission, op.rs2))
    } else if !in_bounds(&authority) || otype > OTYPE_MAX {
        Some((Violation::Length, op.rs2))
    } else {
        None
    };
    let result = source.seal(otype as u32).tag_if(refusal.is_none());
    give(state, op, rest, refusal, result)
}

pub(crate) fn ccseal(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let authority = state.capability(op.rs2);
    let otype = authority.address();
    if state.older && !source.tag() {
        return state.violation(op, Violation::Tag, op.rs1);
    }
    // Nothing to seal with here: another authority's turn.
    if !authority.tag() || source.is_sealed() || !in_bounds(&authority) || otype == u64::MAX {
        return give(state, op, rest, None, source);
    }
    let refusal = if authority.is_sealed() {
        Some((Violation::Seal, op.rs2))
    } else if !authority.permits(Permissions::SEAL.bits()) {
        Some((Violation::SealPermission, op.rs2))
    } else if otype > OTYPE_MAX {
        Some((Violation::Length, op.rs2))
    } else {
        None
    };
    let result = source.seal(otype as u32).tag_if(refusal.is_none());
    give(state, op, rest, refusal, result)
}

pub(crate) fn cunseal(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let authority = state.capability(op.rs2);
    let refusal = if !source.tag() {
        Some((Violation::Tag, op.rs1))
    } else if !authority.tag() {
        Some((Violation::Tag, op.rs2))
    } else if !source.is_sealed() {
        Some((Violation::Seal, op.rs1))
    } else if authority.is_sealed() {
        Some((Violation::Seal, op.rs2))
    } else if source.has_reserved_otype() {
        Some((Violation::Type, op.rs1))
    } else if authority.address() != source.otype() as u64 {
        Some((Violation::Type, op.rs2))
    } else if !authority.permits(Permissions::UNSEAL.bits()) {
        Some((Violation::UnsealPermission, op.rs2))
    } else if !in_bounds(&authority) {
        Some((Violation::Length, op.rs2))
    } else {
        None
    };
    let mut result = source.unseal().tag_if(refusal.is_none());
    if !authority.permits(Permissions::GLOBAL.bits()) {
        result = result.and_permissions(!Permissions::GLOBAL.bits());
    }
    give(state, op, rest, refusal, result)
}

pub(crate) fn csealentry(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let executable = source.permits(Permissions::EXECUTE.bits());
    let refusal = usable(&source, op.rs1)
        .or_else(|| (!executable).then_some((Violation::Execute, op.rs1)));
    give(state, op, rest, refusal, source.seal_entry())
}

// Rebuilding capabilities from their bits.

pub(crate) fn cbuildcap(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let (authority, register) = state.capability_or_ddc(op.rs1);
    let wanted = state.capability(op.rs2);
    let mut result = wanted.rebuild(&authority);
    if state.older && result.is_sentry() && !result.permits(Permissions::EXECUTE.bits()) {
        result = wanted.unseal().rebuild(&authority);
    }
    let refusal = usable(&authority, register).or_else(|| {
        if wanted.base() < authority.base() || wanted.top() > authority.top() {
            Some((Violation::Length, register))
        } else if u128::from(wanted.base()) > wanted.top() {
            Some((Violation::Length, op.rs2))
        } else if wanted.permissions() & !authority.permissions() != 0 {
            Some((Violation::UserDefined, register))
        } else {
            (!result.tag()).then_some((Violation::Length, op.rs2))
        }
    });
    give(state, op, rest, refusal, result)
}

pub(crate) fn ccopytype(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let source = state.capability(op.rs1);
    let typed = state.capability(op.rs2);
    let otype = typed.otype() as u64;
    let reserved = typed.has_reserved_otype();
    let refusal = usable(&source, op.rs1).or_else(|| {
        (!reserved && !source.contains(otype, 1)).then_some((Violation::Length, op.rs1))
    });
    let result = if state.older && reserved {
        Capability::from_address(otype)
    } else {
        with_named_address(state, &source, otype).tag_if(!reserved)
    };
    give(state, op, rest, refusal, result)
}

// Clearing registers; special registers.

/// The registers that an instruction names: a quarter of them, and a mask.
fn named(op: &Op) -> impl Iterator<Item = u8> {
    let quarter = (op.extra >> 18 & 3) as u8;
    let mask = op.extra >> 15 << 5 & 0xe0 | op.extra >> 7 & 0x1f;
    (0..8)
        .filter(move |n| mask >> n & 1 != 0)
        .map(move |n| 8 * quarter + n)
}

pub(crate) fn cclear(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    for n in named(op) {
        if n == 0 {
            state.set_ddc(&Capability::null());
        } else {
            state.set_x(n, 0);
        }
    }
    next(state, rest)
}

pub(crate) fn fpclear(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    for n in named(op) {
        state.set_f(n, 0);
    }
    next(state, rest)
}

/// The least privilege that a special capability register needs; none if there is no such register.
fn privilege_of(n: usize) -> Option<Privilege> {
    match n {
        scr::PCC | scr::DDC => Some(Privilege::User),
        scr::STCC..=scr::SEPCC => Some(Privilege::Supervisor),
        scr::MTCC..=scr::MEPCC => Some(Privilege::Machine),
        _ => None,
    }
}

pub(crate) fn cspecialrw(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let n = usize::from(op.rs2);
    let write = op.rs1 != 0;
    if privilege_of(n).is_none_or(|least| state.privilege < least) || (n == scr::PCC && write) {
        return state.illegal(op);
    }
    if n > scr::DDC && !state.may_access_system_registers() {
        return state.violation(op, Violation::AccessSystemRegisters, 32 + op.rs2);
    }
    let new = state.capability(op.rs1);
    let old = match n {
        scr::PCC => state.pcc_at(state.here(op)),
        scr::DDC => state.ddc(),
        _ => state.special[n % 32],
    };
    if op.rd != SINK {
        state.set_capability(op.rd, old);
    }
    if write {
        if n == scr::DDC {
            state.set_ddc(&new);
        } else {
            state.write_special(n, &new);
        }
    }
    next(state, rest)
}

