// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Loads and stores of integers, floating-point values and capabilities.
//!
//! Each comes in up to three forms: with an integer address (through DDC), with a capability register in capability mode, and the
//! explicit ones, which are either of the two without an immediate.

use crate::capability::CAPABILITY_SIZE;
use crate::float::{Format, Single};
use crate::instruction::{Flow, Op, next};
use crate::memory::Word;
use crate::state::{State, Trapped};
use crate::{Capability, Permissions};

/// Sign-extending load from an integer address.
pub(crate) fn load<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let address = state.get_x(op.rs1).wrapping_add(op.imm());
    let value = match state.window.load::<W>(address) {
        Some(value) => value,
        None => match state.load_integer::<W>(op, address) {
            Ok(value) => value,
            Err(Trapped) => return Flow::Trap,
        },
    };
    state.set_x(op.rd, value.extend());
    next(state, rest)
}

/// Zero-extending load from an integer address.
pub(crate) fn load_unsigned<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let address = state.get_x(op.rs1).wrapping_add(op.imm());
    let value = match state.window.load::<W>(address) {
        Some(value) => value,
        None => match state.load_integer::<W>(op, address) {
            Ok(value) => value,
            Err(Trapped) => return Flow::Trap,
        },
    };
    state.set_x(op.rd, value.to_u64());
    next(state, rest)
}

/// Store to an integer address.
pub(crate) fn store<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let address = state.get_x(op.rs1).wrapping_add(op.imm());
    let value = W::from_u64(state.get_x(op.rs2));
    if !state.window.store::<W>(address, value)
        && state.store_integer::<W>(op, address, value).is_err()
    {
        return Flow::Trap;
    }
    next(state, rest)
}

/// Sign-extending load through a capability register.
pub(crate) fn load_through<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    match state.load_through::<W>(op, op.rs1, op.imm()) {
        Ok(value) => state.set_x(op.rd, value.extend()),
        Err(Trapped) => return Flow::Trap,
    }
    next(state, rest)
}

/// Zero-extending load through a capability register.
pub(crate) fn load_unsigned_through<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    match state.load_through::<W>(op, op.rs1, op.imm()) {
        Ok(value) => state.set_x(op.rd, value.to_u64()),
        Err(Trapped) => return Flow::Trap,
    }
    next(state, rest)
}

/// Store through a capability register.
pub(crate) fn store_through<W: Word>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let value = W::from_u64(state.get_x(op.rs2));
    if state
        .store_through::<W>(op, op.rs1, op.imm(), value)
        .is_err()
    {
        return Flow::Trap;
    }
    next(state, rest)
}

// Floating point. A word that is loaded is boxed: all bits above it are 1.

fn load_any<W: Word>(state: &mut State, op: &Op, through: bool) -> Result<W, Trapped> {
    if through {
        return state.load_through::<W>(op, op.rs1, op.imm());
    }
    let address = state.get_x(op.rs1).wrapping_add(op.imm());
    match state.window.load::<W>(address) {
        Some(value) => Ok(value),
        None => state.load_integer::<W>(op, address),
    }
}

fn store_any<W: Word>(
    state: &mut State,
    op: &Op,
    through: bool,
    value: W,
) -> Result<(), Trapped> {
    if through {
        return state.store_through::<W>(op, op.rs1, op.imm(), value);
    }
    let address = state.get_x(op.rs1).wrapping_add(op.imm());
    if state.window.store::<W>(address, value) {
        return Ok(());
    }
    state.store_integer::<W>(op, address, value)
}

/// `flw`.
pub(crate) fn load_single<const THROUGH: bool>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    match load_any::<u32>(state, op, THROUGH) {
        Ok(value) => state.set_f(op.rd, Single::boxed(value.into())),
        Err(Trapped) => return Flow::Trap,
    }
    next(state, rest)
}

/// `fld`.
pub(crate) fn load_double<const THROUGH: bool>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    match load_any::<u64>(state, op, THROUGH) {
        Ok(value) => state.set_f(op.rd, value),
        Err(Trapped) => return Flow::Trap,
    }
    next(state, rest)
}

/// `fsw`.
pub(crate) fn store_single<const THROUGH: bool>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let value = state.get_f(op.rs2) as u32;
    if store_any::<u32>(state, op, THROUGH, value).is_err() {
        return Flow::Trap;
    }
    next(state, rest)
}

/// `fsd`.
pub(crate) fn store_double<const THROUGH: bool>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    if state.control.float == 0 {
        return state.illegal(op);
    }
    let value = state.get_f(op.rs2);
    if store_any::<u64>(state, op, THROUGH, value).is_err() {
        return Flow::Trap;
    }
    next(state, rest)
}

// Capabilities.

/// The absolute address of an access, the authority for it and what a violation calls that.
pub(crate) fn destination(state: &State, op: &Op, through: bool) -> (u64, Capability, u8) {
    if through {
        let authority = state.capability(op.rs1);
        let address = authority.address().wrapping_add(op.imm());
        (address, authority, op.rs1)
    } else {
        state.through_ddc(state.get_x(op.rs1).wrapping_add(op.imm()))
    }
}

/// What an authority has to permit so that a capability may be stored.
pub(crate) fn needs_to_store(capability: &Capability) -> Permissions {
    let mut needs = Permissions::STORE;
    if capability.tag() {
        needs |= Permissions::STORE_CAP;
        if !capability.permits(Permissions::GLOBAL.bits()) {
            needs |= Permissions::STORE_LOCAL_CAP;
        }
    }
    needs
}

/// `lc`.
pub(crate) fn load_capability<const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    let (address, authority, register) = destination(state, op, THROUGH);
    let loaded = state
        .authorize(op, &authority, register, address, CAPABILITY_SIZE, Permissions::LOAD)
        .and_then(|()| state.align(op, address, CAPABILITY_SIZE, false))
        .and_then(|()| state.with_region(op, address, false, |region| region.load_pair(address)));
    let Ok((bits, tag)) = loaded else {
        return Flow::Trap;
    };
    let keep = authority.permits(Permissions::LOAD_CAP.bits());
    state.set_capability(op.rd, Capability::from_bits(bits, tag && keep));
    next(state, rest)
}

/// `sc`.
pub(crate) fn store_capability<const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    let (address, authority, register) = destination(state, op, THROUGH);
    let value = state.capability(op.rs2);
    let needs = needs_to_store(&value);
    let stored = state
        .authorize(op, &authority, register, address, CAPABILITY_SIZE, needs)
        .and_then(|()| state.align(op, address, CAPABILITY_SIZE, true))
        .and_then(|()| {
            state.with_region(op, address, true, |region| {
                region.store_pair(address, value.to_bits(), value.tag())
            })
        });
    if stored.is_err() {
        return Flow::Trap;
    }
    next(state, rest)
}

/// How many granules `cloadtags` looks at: those of a cache line.
const LINE: u64 = 4;

/// `cloadtags`.
pub(crate) fn load_tags(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    let (address, authority, register) = destination(state, op, true);
    let size = LINE * CAPABILITY_SIZE;
    let needs = Permissions::LOAD | Permissions::LOAD_CAP;
    let loaded = state
        .authorize(op, &authority, register, address, size, needs)
        .and_then(|()| state.align(op, address, size, false))
        .and_then(|()| {
            state.with_region(op, address, false, |region| region.load_tags(address, LINE))
        });
    let Ok(tags) = loaded else {
        return Flow::Trap;
    };
    state.set_x(op.rd, tags);
    next(state, rest)
}
