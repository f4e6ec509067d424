// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hart.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// [`Hart::run`] returns [`Exit::Trap`]; PCC still points at the instruction and no CSR has changed.
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

/// A trap that stopped the hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// As in `scause`.
    pub cause: u64,
    /// As in `stval`.
    pub tval: u64,
    /// The absolute address that an access or a fetch went to, if it failed at its address; otherwise 0.
    pub address: u64,
    /// PCC of the instruction.
    pub pcc: Capability,
}

/// Makes a hart's [`Hart::run`] return, from any thread.
#[derive(Debug, Default)]
pub struct Attention {
    raised: AtomicBool,
}

impl Attention {
    /// Makes `run` return [`Exit::Attention`] soon; at once if it is called later.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }
    /// Ends what [`Attention::raise`] began.
    pub fn clear(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }
    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}

/// Interrupt lines into a hart: bits of `mip` that hardware sets.
#[derive(Debug, Default)]
pub struct InterruptLines {
    pending: AtomicU64,
}

impl InterruptLines {
    /// Raises or lowers lines, bits as in `mip` (3 software, 7 timer, 11 external of machine mode), from any thread.
    pub fn set(&self, mask: u64, level: bool) {
        if level {
            self.pending.fetch_or(mask, Ordering::SeqCst);
        } else {
            self.pending.fetch_and(!mask, Ordering::SeqCst);
        }
    }
}

/// What the `time` CSR counts.
pub trait TimeSource: Send + Sync {
    /// The counter now.
    fn time(&self) -> u64;
}

/// A CHERI-RISC-V hart.
pub struct Hart {
    config: Config,
    attention: Arc<Attention>,
    lines: Arc<InterruptLines>,
    pcc: Capability,
    ddc: Capability,
    x: [u64; 32],
    f: [u64; 32],
}

impl Hart {
    /// A hart in its reset state: machine mode, root capabilities in PCC and DDC, PC 0.
    pub fn new(_memory: Arc<Memory>, config: Config) -> Hart {
        Hart {
            config,
            attention: Arc::default(),
            lines: Arc::default(),
            pcc: Capability::root_code(),
            ddc: Capability::root_data(),
            x: [0; 32],
            f: [0; 32],
        }
    }
    /// What kind of hart it is.
    pub fn config(&self) -> Config {
        self.config
    }
    /// The privilege mode.
    pub fn privilege(&self) -> Privilege {
        Privilege::Machine
    }
    /// Sets the privilege mode.
    pub fn set_privilege(&mut self, _privilege: Privilege) {}
    /// Integer register `n` (0 to 31): the address of its capability. 0 if there is no such register.
    pub fn x(&self, n: usize) -> u64 {
        self.x.get(n).copied().unwrap_or(0)
    }
    /// Sets integer register `n`, which clears its tag.
    pub fn set_x(&mut self, n: usize, value: u64) {
        if n != 0
            && let Some(x) = self.x.get_mut(n)
        {
            *x = value;
        }
    }
    /// Capability register `n` (0 to 31).
    pub fn capability(&self, _n: usize) -> Capability {
        Capability::null()
    }
    /// Sets capability register `n`.
    pub fn set_capability(&mut self, _n: usize, _capability: &Capability) {}
    /// PCC; its address is the absolute address of the next instruction.
    pub fn pcc(&self) -> Capability {
        self.pcc
    }
    /// Sets PCC.
    pub fn set_pcc(&mut self, pcc: &Capability) {
        self.pcc = *pcc;
    }
    /// The default data capability.
    pub fn ddc(&self) -> Capability {
        self.ddc
    }
    /// Sets the default data capability.
    pub fn set_ddc(&mut self, ddc: &Capability) {
        self.ddc = *ddc;
    }
    /// Special capability register `n` (0 PCC, 1 DDC, 12 STCC ...); none if there is no such register.
    pub fn scr(&self, _n: usize) -> Option<Capability> {
        None
    }
    /// Sets a special capability register without any check. False if there is none with this number.
    pub fn set_scr(&mut self, _n: usize, _capability: &Capability) -> bool {
        false
    }
    /// Floating-point register `n` (0 to 31), all 64 bits.
    pub fn f(&self, n: usize) -> u64 {
        self.f.get(n).copied().unwrap_or(0)
    }
    /// Sets floating-point register `n`.
    pub fn set_f(&mut self, n: usize, value: u64) {
        if let Some(f) = self.f.get_mut(n) {
            *f = value;
        }
    }
    /// `fcsr`.
    pub fn fcsr(&self) -> u32 {
        0
    }
    /// Sets `fcsr`.
    pub fn set_fcsr(&mut self, _value: u32) {}
    /// A CSR, whatever the privilege mode; none if there is no such CSR.
    pub fn csr(&self, _number: u16) -> Option<u64> {
        None
    }
    /// Writes a CSR, whatever the privilege mode. False if there is none with this number or it is read-only.
    pub fn set_csr(&mut self, _number: u16, _value: u64) -> bool {
        false
    }
    /// Instructions executed since the reset; those that trapped do not count.
    pub fn instructions_retired(&self) -> u64 {
        0
    }
    /// Absolute addresses at which a fetch stops the hart with [`Exit::Native`].
    pub fn set_native_window(&mut self, _window: Range<u64>) {}
    /// What makes `run` return from another thread.
    pub fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.attention)
    }
    /// The interrupt lines; they matter with [`Traps::Machine`] only.
    pub fn interrupt_lines(&self) -> Arc<InterruptLines> {
        Arc::clone(&self.lines)
    }
    /// Sets what the `time` CSR counts. Without it, tenths of microseconds since the hart was made.
    pub fn set_time_source(&mut self, _time: Arc<dyn TimeSource>) {}
    /// Runs up to `max_instructions`.
    pub fn run(&mut self, _max_instructions: u64) -> Exit {
        Exit::Limit
    }
}
