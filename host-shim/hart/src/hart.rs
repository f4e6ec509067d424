// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hart: its registers from outside, and running it.

use std::ops::Range;
use std::sync::Arc;

use crate::attention::{self, Attention, InterruptLines};
use crate::blocks::{Blocks, NoBlock};
use crate::control::{TimeSource, csr, scr};
use crate::instruction::{self, Flow};
use crate::state::{State, register};
use crate::trap::{PCC, Raised, Trap, cause};
use crate::{Capability, Memory};

/// Which generation of CHERI-RISC-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// ISAv8: integer addresses and PCs are relative, an impossible capability is an exception.
    V8,
    /// ISAv9: integer addresses and PCs are absolute, an impossible capability has no tag.
    V9,
}

/// What a trap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traps {
    /// [`Hart::run`] returns [`Exit::Trap`]; PCC still points at the instruction and no CSR has changed. The floating-point unit
    /// and the counters are usable in user mode from the begin.
    Exit,
    /// The hart enters machine or supervisor mode.
    Machine,
}

/// What kind of hart it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The generation of the ISA.
    pub isa: Isa,
    /// What traps do.
    pub traps: Traps,
}

/// A privilege mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// User mode.
    User = 0,
    /// Supervisor mode.
    Supervisor = 1,
    /// Machine mode.
    Machine = 3,
}

/// Why [`Hart::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As many instructions as were allowed have been executed.
    Limit,
    /// [`Attention::raise`] was called.
    Attention,
    /// The next instruction lies in the native window; PCC points at it.
    Native {
        /// Its absolute address.
        address: u64,
    },
    /// A trap, with [`Traps::Exit`].
    Trap(Trap),
    /// `wfi` was executed and no interrupt is pending; PCC points behind it.
    WaitForInterrupt,
}

/// A CHERI-RISC-V hart.
pub struct Hart {
    state: State,
    blocks: Blocks,
    lines: Arc<InterruptLines>,
}

impl Hart {
    /// A hart in its reset state: machine mode, root capabilities in PCC and DDC, PC 0.
    pub fn new(memory: Arc<Memory>, config: Config) -> Hart {
        let state = State::new(memory, config);
        let lines = Arc::new(InterruptLines {
            attention: Arc::clone(&state.attention),
        });
        Hart {
            state,
            blocks: Blocks::new(),
            lines,
        }
    }

    /// What kind of hart it is.
    pub fn config(&self) -> Config {
        self.state.config
    }

    /// What its addresses lead to.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.state.memory
    }

    /// The privilege mode.
    pub fn privilege(&self) -> Privilege {
        self.state.privilege
    }

    /// Sets the privilege mode.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.state.privilege = privilege;
    }

    /// Integer register `n` (0 to 31): the address of its capability. 0 if there is no such register.
    pub fn x(&self, n: usize) -> u64 {
        register(n).map_or(0, |n| self.state.get_x(n))
    }

    /// Sets integer register `n`, which clears its tag. Nothing happens to x0.
    pub fn set_x(&mut self, n: usize, value: u64) {
        if let Some(n @ 1..) = register(n) {
            self.state.set_x(n, value);
        }
    }

    /// Capability register `n` (0 to 31). Null if there is no such register.
    pub fn capability(&self, n: usize) -> Capability {
        register(n).map_or(Capability::null(), |n| self.state.capability(n))
    }

    /// Sets capability register `n`. Nothing happens to c0.
    pub fn set_capability(&mut self, n: usize, capability: &Capability) {
        if let Some(n @ 1..) = register(n) {
            self.state.set_capability(n, *capability);
        }
    }

    /// PCC; its address is the absolute address of the next instruction.
    pub fn pcc(&self) -> Capability {
        self.state.pcc_at(self.state.pc)
    }

    /// The absolute address of the next instruction.
    pub fn pc(&self) -> u64 {
        self.state.pc
    }

    /// Sets PCC.
    pub fn set_pcc(&mut self, pcc: &Capability) {
        self.state.set_pcc(pcc);
    }

    /// The default data capability.
    pub fn ddc(&self) -> Capability {
        self.state.ddc()
    }

    /// Sets the default data capability.
    pub fn set_ddc(&mut self, ddc: &Capability) {
        self.state.set_ddc(ddc);
    }

    /// Special capability register `n` (0 PCC, 1 DDC, 12 STCC ...); none if there is no such register.
    pub fn scr(&self, n: usize) -> Option<Capability> {
        match n {
            scr::PCC => Some(self.pcc()),
            scr::DDC => Some(self.ddc()),
            scr::STCC..=scr::SEPCC | scr::MTCC..=scr::MEPCC => self.state.special.get(n).copied(),
            _ => None,
        }
    }

    /// Sets a special capability register without any check. False if there is none with this number.
    pub fn set_scr(&mut self, n: usize, capability: &Capability) -> bool {
        match n {
            scr::PCC => self.set_pcc(capability),
            scr::DDC => self.set_ddc(capability),
            scr::STCC..=scr::SEPCC | scr::MTCC..=scr::MEPCC => {
                if let Some(register) = self.state.special.get_mut(n) {
                    *register = *capability;
                }
            }
            _ => return false,
        }
        true
    }

    /// Floating-point register `n` (0 to 31), all 64 bits. 0 if there is no such register.
    pub fn f(&self, n: usize) -> u64 {
        self.state.f.get(n).copied().unwrap_or(0)
    }

    /// Sets floating-point register `n`.
    pub fn set_f(&mut self, n: usize, value: u64) {
        if let Some(f) = self.state.f.get_mut(n) {
            *f = value;
        }
    }

    /// `fcsr`.
    pub fn fcsr(&self) -> u32 {
        self.csr(csr::FCSR).unwrap_or(0) as u32
    }

    /// Sets `fcsr`.
    pub fn set_fcsr(&mut self, value: u32) {
        self.set_csr(csr::FCSR, value.into());
    }

    /// A CSR, whatever the privilege mode; none if there is no such CSR.
    pub fn csr(&self, number: u16) -> Option<u64> {
        self.state.csr(number)
    }

    /// Writes a CSR, whatever the privilege mode. False if there is none with this number or it cannot be written.
    pub fn set_csr(&mut self, number: u16, value: u64) -> bool {
        let written = self.state.set_csr(number, value);
        self.state.attention.check_interrupts();
        written
    }

    /// Sets what `mhartid` reads.
    pub fn set_hart_id(&mut self, id: u64) {
        self.state.control.hart_id = id;
    }

    /// Instructions executed since the reset; those that trapped do not count.
    pub fn instructions_retired(&self) -> u64 {
        self.state.retired
    }

    /// Absolute addresses at which a fetch stops the hart with [`Exit::Native`].
    pub fn set_native_window(&mut self, window: Range<u64>) {
        self.blocks.set_native(window);
    }

    /// What makes `run` return from another thread.
    pub fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.state.attention)
    }

    /// The interrupt lines; they matter with [`Traps::Machine`] only.
    pub fn interrupt_lines(&self) -> Arc<InterruptLines> {
        Arc::clone(&self.lines)
    }

    /// Sets what the `time` CSR counts. Without it, tenths of microseconds since the hart was made.
    pub fn set_time_source(&mut self, time: Arc<dyn TimeSource>) {
        self.state.control.time = time;
    }

    /// Forgets decoded instructions whose code has changed, on all harts of this memory, as `fence.i` does: for whoever writes code from
    /// outside.
    pub fn forget_code(&mut self) {
        self.state.memory.check_code();
    }

    /// Runs up to `max_instructions`; entering a trap counts as one.
    pub fn run(&mut self, max_instructions: u64) -> Exit {
        self.state.enter_memory();
        let exit = self.execute(max_instructions);
        self.state.leave_memory();
        exit
    }

    fn execute(&mut self, max_instructions: u64) -> Exit {
        let (state, blocks) = (&mut self.state, &mut self.blocks);
        let mut left = max_instructions;
        // Registers may have been set from outside.
        if !state.attention.is_raised() {
            interrupt(state, &mut left);
        }
        loop {
            let word = state.attention.word();
            if word != 0
                && let Some(exit) = attend(state, blocks, word, &mut left)
            {
                return exit;
            }
            if left == 0 {
                return Exit::Limit;
            }
            let pc = state.pc;
            let (ops, bytes) = match fetch(state, blocks, pc, left) {
                Ok(found) => found,
                Err(refused) => match refuse(state, refused, pc, &mut left) {
                    Some(exit) => return exit,
                    None => continue,
                },
            };
            state.block = pc;
            let flow = instruction::next(state, ops);
            // The usual ways to leave a block come first.
            if flow == Flow::Jump {
                state.pc = state.target;
                state.retired = state.retired.wrapping_add(state.executed);
                left -= state.executed;
            } else if flow == Flow::End {
                state.pc = pc.wrapping_add(bytes);
                state.retired = state.retired.wrapping_add(ops.len() as u64);
                left -= ops.len() as u64;
            } else if let Some(exit) = leave(state, flow, &mut left) {
                return exit;
            }
        }
    }
}

/// Does what other threads have asked for.
#[cold]
#[inline(never)]
fn attend(state: &mut State, blocks: &mut Blocks, word: u32, left: &mut u64) -> Option<Exit> {
    if word & attention::RAISED != 0 {
        return Some(Exit::Attention);
    }
    state.attention.checking();
    state.enter_memory();
    if word & attention::CODE != 0 {
        blocks.invalidate();
    } else if word & attention::MEMORY != 0 {
        blocks.forget_recent();
    }
    interrupt(state, left);
    None
}

/// Takes an interrupt if one is due.
fn interrupt(state: &mut State, left: &mut u64) {
    if state.config.traps == Traps::Machine
        && *left != 0
        && let Some(number) = state.interrupt()
    {
        state.enter_trap(true, number, 0, state.pc);
        *left -= 1;
    }
}

/// Ends a block that was left in an unusual way.
#[inline(never)]
fn leave(state: &mut State, flow: Flow, left: &mut u64) -> Option<Exit> {
    if flow == Flow::Trap {
        state.pc = state.block.wrapping_add(state.raised.offset);
        state.retired = state.retired.wrapping_add(state.raised.index);
        *left -= state.raised.index;
        return trap(state, left);
    }
    state.pc = state.target;
    state.retired = state.retired.wrapping_add(state.executed);
    *left -= state.executed;
    if flow == Flow::Wait && !state.is_awake() {
        return Some(Exit::WaitForInterrupt);
    }
    interrupt(state, left);
    None
}

/// Does what a trap does: it stops the hart or is entered.
fn trap(state: &mut State, left: &mut u64) -> Option<Exit> {
    let raised = state.raised;
    match state.config.traps {
        Traps::Machine => {
            state.enter_trap(false, raised.cause, raised.tval, state.pc);
            *left = left.saturating_sub(1);
            interrupt(state, left);
            None
        }
        Traps::Exit => {
            state.reservation = None;
            Some(Exit::Trap(Trap {
                cause: raised.cause,
                tval: raised.tval,
                address: raised.address,
                pcc: state.pcc_at(state.pc),
            }))
        }
    }
}

/// Goes on after a fetch that did not succeed.
#[cold]
#[inline(never)]
fn refuse(state: &mut State, refused: Refused, pc: u64, left: &mut u64) -> Option<Exit> {
    match refused {
        Refused::Native => Some(Exit::Native { address: pc }),
        Refused::Trap(raised) => {
            state.raised = raised;
            trap(state, left)
        }
    }
}

/// Why there is no instruction to execute.
enum Refused {
    /// It lies in the native window.
    Native,
    Trap(Raised),
}

/// The instructions at `pc`, `limit` at most, and how many bytes of code they are.
#[inline(always)]
fn fetch<'a>(
    state: &State,
    blocks: &'a mut Blocks,
    pc: u64,
    limit: u64,
) -> Result<(&'a [instruction::Op], u64), Refused> {
    let allowed = state.fetchable_bytes(pc);
    let found = if allowed < 2 {
        None
    } else {
        match blocks.find(state, pc, state.capability_mode()) {
            Ok(found) => Some(found),
            Err(NoBlock::Native) => return Err(Refused::Native),
            Err(NoBlock::Fault { cause, address }) => return Err(fault(cause, address)),
        }
    };
    let Some(found) = found else {
        return Err(violation(state, blocks, pc));
    };
    let ops = blocks.ops(found);
    if u64::from(found.count) <= limit && u64::from(found.bytes) <= allowed {
        return Ok((ops, found.bytes.into()));
    }
    // Only as many as are allowed, and none that ends beyond PCC.
    let fit = ops
        .iter()
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .take_while(|op| op.end() <= allowed)
        .count();
    match ops
        .get(..fit)
        .and_then(|ops| Some((ops, ops.last()?.end())))
    {
        Some(some) => Ok(some),
        None => Err(violation(state, blocks, pc)),
    }
}

#[cold]
fn fault(cause: u64, address: u64) -> Refused {
    Refused::Trap(Raised {
        cause,
        tval: address,
        address,
        ..Raised::default()
    })
}

/// PCC does not allow a fetch at `pc`. The native window comes first.
#[cold]
fn violation(state: &State, blocks: &Blocks, pc: u64) -> Refused {
    if blocks.is_native(pc) {
        return Refused::Native;
    }
    Refused::Trap(Raised {
        cause: cause::CHERI,
        tval: state.fetch_violation().tval(PCC),
        address: pc,
        ..Raised::default()
    })
}
