// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Atomic memory operations, load-reserved and store-conditional.
//!
//! All are sequentially consistent whatever their `aq` and `rl` bits say. A store-conditional compares memory with what was loaded and
//! exchanges it, so that it also succeeds if others changed it and back again; software cannot rely on the difference, because
//! the value is what it expects.

use std::sync::atomic::{Ordering, fence};

use super::access::{destination, needs_to_store};
use crate::capability::CAPABILITY_SIZE;
use crate::instruction::{Flow, Op, next};
use crate::memory::{Operation, Word};
use crate::state::{Reservation, State, Trapped};
use crate::{Capability, Permissions};

const READ_WRITE: Permissions = Permissions::LOAD.union(Permissions::STORE);

/// What an atomic operation does, from its number in an instruction.
pub(crate) const fn operation(code: u32) -> Option<Operation> {
    Some(match code {
        0b00000 => Operation::Add,
        0b00001 => Operation::Swap,
        0b00100 => Operation::Xor,
        0b01000 => Operation::Or,
        0b01100 => Operation::And,
        0b10000 => Operation::Min,
        0b10100 => Operation::Max,
        0b11000 => Operation::MinUnsigned,
        0b11100 => Operation::MaxUnsigned,
        _ => return None,
    })
}

fn update<W: Word>(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let Some(operation) = operation(op.extra >> 27) else {
        let _ = state.illegal(op);
        return Err(Trapped);
    };
    let (address, authority, register) = destination(state, op, through);
    state.authorize(op, &authority, register, address, W::SIZE, READ_WRITE)?;
    state.align(op, address, W::SIZE, true)?;
    let value = W::from_u64(state.get_x(op.rs2));
    let old = state.with_region(op, address, true, |region| {
        region.update::<W>(address, operation, value)
    })?;
    state.set_x(op.rd, old.extend());
    Ok(())
}

/// `amoadd` and its like.
pub(crate) fn amo<W: Word, const THROUGH: bool>(state: &mut State, op: &Op, rest: &[Op]) -> Flow {
    match update::<W>(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}

fn reserve<W: Word>(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let (address, authority, register) = destination(state, op, through);
    state.authorize(op, &authority, register, address, W::SIZE, Permissions::LOAD)?;
    state.align(op, address, W::SIZE, false)?;
    fence(Ordering::SeqCst);
    let value =
        state.with_region(op, address, false, |region| region.load::<W>(address))?;
    fence(Ordering::SeqCst);
    state.reservation = Some(Reservation {
        address,
        size: W::SIZE,
        bits: value.to_u64().into(),
        tag: false,
    });
    state.set_x(op.rd, value.extend());
    Ok(())
}

/// `lr`.
pub(crate) fn load_reserved<W: Word, const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    match reserve::<W>(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}

/// Takes the reservation, if it is for this place.
fn take(state: &mut State, address: u64, size: u64) -> Option<Reservation> {
    state
        .reservation
        .take()
        .filter(|reservation| reservation.address == address && reservation.size == size)
}

fn conditional<W: Word>(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let (address, authority, register) = destination(state, op, through);
    state.authorize(op, &authority, register, address, W::SIZE, Permissions::STORE)?;
    state.align(op, address, W::SIZE, true)?;
    let value = W::from_u64(state.get_x(op.rs2));
    let stored = match take(state, address, W::SIZE) {
        Some(reservation) => state.with_region(op, address, true, |region| {
            region.exchange::<W>(address, W::from_u64(reservation.bits as u64), value)
        })?,
        None => false,
    };
    state.set_x(op.rd, u64::from(!stored));
    Ok(())
}

/// `sc`, store-conditional.
pub(crate) fn store_conditional<W: Word, const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    match conditional::<W>(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}

// The same for capabilities.

fn swap_capability(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let (address, authority, register) = destination(state, op, through);
    let value = state.capability(op.rs2);
    let needs = needs_to_store(&value) | Permissions::LOAD;
    state.authorize(op, &authority, register, address, CAPABILITY_SIZE, needs)?;
    state.align(op, address, CAPABILITY_SIZE, true)?;
    fence(Ordering::SeqCst);
    let (bits, tag) = state.with_region(op, address, true, |region| {
        region.swap_pair(address, value.to_bits(), value.tag())
    })?;
    fence(Ordering::SeqCst);
    let keep = authority.permits(Permissions::LOAD_CAP.bits());
    state.set_capability(op.rd, Capability::from_bits(bits, tag && keep));
    Ok(())
}

/// `amoswap.c`.
pub(crate) fn amoswap_capability<const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    match swap_capability(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}

fn reserve_capability(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let (address, authority, register) = destination(state, op, through);
    state.authorize(op, &authority, register, address, CAPABILITY_SIZE, Permissions::LOAD)?;
    state.align(op, address, CAPABILITY_SIZE, false)?;
    fence(Ordering::SeqCst);
    let (bits, tag) =
        state.with_region(op, address, false, |region| region.load_pair(address))?;
    fence(Ordering::SeqCst);
    state.reservation = Some(Reservation {
        address,
        size: CAPABILITY_SIZE,
        bits,
        tag,
    });
    let keep = authority.permits(Permissions::LOAD_CAP.bits());
    state.set_capability(op.rd, Capability::from_bits(bits, tag && keep));
    Ok(())
}

/// `lr.c`.
pub(crate) fn load_reserved_capability<const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    match reserve_capability(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}

fn conditional_capability(state: &mut State, op: &Op, through: bool) -> Result<(), Trapped> {
    let (address, authority, register) = destination(state, op, through);
    let value = state.capability(op.rs2);
    let needs = needs_to_store(&value);
    state.authorize(op, &authority, register, address, CAPABILITY_SIZE, needs)?;
    state.align(op, address, CAPABILITY_SIZE, true)?;
    fence(Ordering::SeqCst);
    let stored = match take(state, address, CAPABILITY_SIZE) {
        Some(old) => state.with_region(op, address, true, |region| {
            region.exchange_pair(address, (old.bits, old.tag), (value.to_bits(), value.tag()))
        })?,
        None => false,
    };
    fence(Ordering::SeqCst);
    state.set_x(op.rd, u64::from(!stored));
    Ok(())
}

/// `sc.c`.
pub(crate) fn store_conditional_capability<const THROUGH: bool>(
    state: &mut State,
    op: &Op,
    rest: &[Op],
) -> Flow {
    match conditional_capability(state, op, THROUGH) {
        Ok(()) => next(state, rest),
        Err(Trapped) => Flow::Trap,
    }
}
