// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Control and status registers, interrupts, and how a trap is entered and left.

use std::sync::Arc;
use std::time::Instant;

use crate::state::State;
use crate::{Capability, Config, Privilege, Traps};

/// What the `time` CSR counts.
pub trait TimeSource: Send + Sync {
    /// The counter now.
    fn time(&self) -> u64;
}

/// Tenths of microseconds since it was made.
struct SinceStart(Instant);

impl TimeSource for SinceStart {
    fn time(&self) -> u64 {
        (self.0.elapsed().as_nanos() / 100) as u64
    }
}

/// Numbers of the CSRs that have a function here.
pub mod csr {
    #![allow(missing_docs, reason = "the names are those of the RISC-V manuals")]
    pub const FFLAGS: u16 = 0x001;
    pub const FRM: u16 = 0x002;
    pub const FCSR: u16 = 0x003;
    pub const SSTATUS: u16 = 0x100;
    pub const SIE: u16 = 0x104;
    pub const STVEC: u16 = 0x105;
    pub const SCOUNTEREN: u16 = 0x106;
    pub const SSCRATCH: u16 = 0x140;
    pub const SEPC: u16 = 0x141;
    pub const SCAUSE: u16 = 0x142;
    pub const STVAL: u16 = 0x143;
    pub const SIP: u16 = 0x144;
    pub const SATP: u16 = 0x180;
    pub const MSTATUS: u16 = 0x300;
    pub const MISA: u16 = 0x301;
    pub const MEDELEG: u16 = 0x302;
    pub const MIDELEG: u16 = 0x303;
    pub const MIE: u16 = 0x304;
    pub const MTVEC: u16 = 0x305;
    pub const MCOUNTEREN: u16 = 0x306;
    pub const MCOUNTINHIBIT: u16 = 0x320;
    pub const MSCRATCH: u16 = 0x340;
    pub const MEPC: u16 = 0x341;
    pub const MCAUSE: u16 = 0x342;
    pub const MTVAL: u16 = 0x343;
    pub const MIP: u16 = 0x344;
    pub const UCCSR: u16 = 0x8c0;
    pub const SCCSR: u16 = 0x9c0;
    pub const MCYCLE: u16 = 0xb00;
    pub const MINSTRET: u16 = 0xb02;
    pub const MCCSR: u16 = 0xbc0;
    pub const CYCLE: u16 = 0xc00;
    pub const TIME: u16 = 0xc01;
    pub const INSTRET: u16 = 0xc02;
    pub const MVENDORID: u16 = 0xf11;
    pub const MARCHID: u16 = 0xf12;
    pub const MIMPID: u16 = 0xf13;
    pub const MHARTID: u16 = 0xf14;
}

/// Special capability registers.
pub mod scr {
    #![allow(missing_docs, reason = "the names are those of the CHERI manuals")]
    pub const PCC: usize = 0;
    pub const DDC: usize = 1;
    pub const STCC: usize = 12;
    pub const STDC: usize = 13;
    pub const SSCRATCHC: usize = 14;
    pub const SEPCC: usize = 15;
    pub const MTCC: usize = 28;
    pub const MTDC: usize = 29;
    pub const MSCRATCHC: usize = 30;
    pub const MEPCC: usize = 31;
}

const SIE: u64 = 1 << 1;
const MIE: u64 = 1 << 3;
const SPIE: u64 = 1 << 5;
const MPIE: u64 = 1 << 7;
const SPP: u64 = 1 << 8;
const MPP_SHIFT: u32 = 11;
const MPP: u64 = 3 << MPP_SHIFT;
const FS_SHIFT: u32 = 13;
const FS: u64 = 3 << FS_SHIFT;
const MPRV: u64 = 1 << 17;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
pub(crate) const TVM: u64 = 1 << 20;
pub(crate) const TW: u64 = 1 << 21;
pub(crate) const TSR: u64 = 1 << 22;
/// Register width of user and supervisor mode: 64 bits, for good.
const WIDTHS: u64 = 2 << 32 | 2 << 34;
const SD: u64 = 1 << 63;
const MSTATUS_WRITABLE: u64 =
    SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR;
const SSTATUS_WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
const SSTATUS_VISIBLE: u64 = SSTATUS_WRITABLE | 3 << 32 | SD;

/// Supervisor interrupts: software, timer, external.
const SUPERVISOR: u64 = 1 << 1 | 1 << 5 | 1 << 9;
const MACHINE: u64 = SUPERVISOR << 2;
/// From the most urgent on.
const PRIORITY: [u64; 6] = [11, 3, 7, 9, 1, 5];
/// An `ecall` from machine mode cannot be delegated.
const DELEGABLE: u64 = !(1 << 11);
const INTERRUPT: u64 = 1 << 63;

/// RV64, A C D F I M S U X.
const MISA: u64 = 2 << 62
    | 1
    | 1 << 2
    | 1 << 3
    | 1 << 5
    | 1 << 8
    | 1 << 12
    | 1 << 18
    | 1 << 20
    | 1 << 23;

/// `FS`: nothing was written since it was set so.
const FS_INITIAL: u8 = 1;
const FS_DIRTY: u8 = 3;

/// The CSRs that are not capabilities.
pub(crate) struct Control {
    /// `mstatus`, without `FS`, `SD` and what is constant.
    pub(crate) status: u64,
    /// `mstatus.FS`; 0 is off.
    pub(crate) float: u8,
    pub(crate) float_flags: u8,
    pub(crate) float_rounding: u8,
    enabled: u64,
    /// Bits of `mip` that software sets.
    pending: u64,
    delegated_exceptions: u64,
    delegated_interrupts: u64,
    machine_counters: u64,
    supervisor_counters: u64,
    machine_cause: u64,
    supervisor_cause: u64,
    machine_value: u64,
    supervisor_value: u64,
    machine_scratch: u64,
    supervisor_scratch: u64,
    /// What writes to `mcycle` and `minstret` added.
    cycle_offset: u64,
    retired_offset: u64,
    pub(crate) hart_id: u64,
    pub(crate) time: Arc<dyn TimeSource>,
}

impl Control {
    pub(crate) fn new(config: Config) -> Control {
        // A monitor runs user code that finds everything usable; a board's firmware does that itself.
        let (float, counters) = match config.traps {
            Traps::Exit => (FS_INITIAL, 0xffff_ffff),
            Traps::Machine => (0, 0),
        };
        Control {
            status: 0,
            float,
            float_flags: 0,
            float_rounding: 0,
            enabled: 0,
            pending: 0,
            delegated_exceptions: 0,
            delegated_interrupts: 0,
            machine_counters: counters,
            supervisor_counters: counters,
            machine_cause: 0,
            supervisor_cause: 0,
            machine_value: 0,
            supervisor_value: 0,
            machine_scratch: 0,
            supervisor_scratch: 0,
            cycle_offset: 0,
            retired_offset: 0,
            hart_id: 0,
            time: Arc::new(SinceStart(Instant::now())),
        }
    }

    fn full_status(&self) -> u64 {
        let dirty = if self.float == FS_DIRTY { SD } else { 0 };
        self.status | u64::from(self.float) << FS_SHIFT | WIDTHS | dirty
    }

    fn set_status(&mut self, value: u64, writable: u64) {
        let mut new = self.full_status() & !writable | value & writable;
        if new & MPP == 2 << MPP_SHIFT {
            new = new & !MPP | self.status & MPP;
        }
        self.float = (new >> FS_SHIFT & 3) as u8;
        self.status = new & MSTATUS_WRITABLE & !FS;
    }

    /// Notes that a floating-point register or `fcsr` was written.
    #[inline(always)]
    pub(crate) fn float_written(&mut self) {
        self.float = FS_DIRTY;
    }
}

/// What a CSR instruction is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Allowed,
    Illegal,
    /// PCC lacks the permission.
    System,
}

impl State {
    /// The PC that software sees of a code capability.
    fn integer_pc(&self, capability: &Capability) -> u64 {
        if self.older {
            capability.offset()
        } else {
            capability.address()
        }
    }

    /// A code capability with another PC, as software sees it.
    fn with_integer_pc(&self, capability: &Capability, pc: u64) -> Capability {
        if self.older {
            capability.with_address(capability.base().wrapping_add(pc))
        } else {
            capability.with_address_exact(pc)
        }
    }

    /// Writes a trap vector, whose low two bits are the mode, 0 or 1.
    fn set_vector(&mut self, n: usize, capability: &Capability, pc: u64) {
        let old = self.integer_pc(&self.special[n]);
        let pc = if pc & 2 != 0 { pc & !3 | old & 3 } else { pc };
        self.special[n] = self.with_integer_pc(capability, pc);
    }

    /// Writes a special capability register (not PCC or DDC) as software does.
    pub(crate) fn write_special(&mut self, n: usize, capability: &Capability) {
        match n {
            scr::STCC | scr::MTCC => {
                if self.older && capability.base() & 3 != 0 {
                    return;
                }
                self.set_vector(n, capability, self.integer_pc(capability));
            }
            _ => {
                if let Some(register) = self.special.get_mut(n) {
                    *register = *capability;
                }
            }
        }
    }

    /// Whether an instruction may read a CSR, and write it if `write`.
    pub(crate) fn csr_access(&self, number: u16, write: bool) -> Access {
        let privilege = u16::from(self.privilege as u8);
        let control = &self.control;
        if number >> 8 & 3 > privilege || (write && number >> 10 == 3) {
            return Access::Illegal;
        }
        let legal = match number {
            csr::FFLAGS | csr::FRM | csr::FCSR => control.float != 0,
            0xc00..=0xc1f => {
                let bit = 1 << (number & 31);
                let machine = control.machine_counters & bit != 0;
                let supervisor = control.supervisor_counters & bit != 0;
                match self.privilege {
                    Privilege::Machine => true,
                    Privilege::Supervisor => machine,
                    Privilege::User => machine && supervisor,
                }
            }
            csr::SATP => self.privilege == Privilege::Machine || control.status & TVM == 0,
            // The address and configuration registers of physical memory protection, which is not there, and of triggers.
            0x3a0..=0x3ef | 0x7a0..=0x7a3 => true,
            _ => self.csr(number).is_some(),
        };
        let open = matches!(number, csr::FFLAGS | csr::FRM | csr::FCSR | 0xc00..=0xc1f);
        if !legal {
            Access::Illegal
        } else if !open && !self.may_access_system_registers() {
            Access::System
        } else {
            Access::Allowed
        }
    }

    pub(crate) fn interrupts_pending(&self) -> u64 {
        self.control.pending | self.pending_lines() & (MACHINE | SUPERVISOR)
    }

    /// The bits of `mip` that software has set.
    pub(crate) fn pending_by_software(&self) -> u64 {
        self.control.pending
    }

    /// The value of a CSR; none if there is no such CSR.
    pub(crate) fn csr(&self, number: u16) -> Option<u64> {
        let control = &self.control;
        Some(match number {
            csr::FFLAGS => u64::from(control.float_flags),
            csr::FRM => u64::from(control.float_rounding),
            csr::FCSR => u64::from(control.float_flags | control.float_rounding << 5),
            csr::SSTATUS => control.full_status() & SSTATUS_VISIBLE,
            csr::SIE => control.enabled & control.delegated_interrupts,
            csr::STVEC => self.integer_pc(&self.special[scr::STCC]),
            csr::SCOUNTEREN => control.supervisor_counters,
            csr::SSCRATCH => control.supervisor_scratch,
            csr::SEPC => self.integer_pc(&self.special[scr::SEPCC]) & !1,
            csr::SCAUSE => control.supervisor_cause,
            csr::STVAL => control.supervisor_value,
            csr::SIP => self.interrupts_pending() & control.delegated_interrupts,
            csr::SATP => 0,
            csr::MSTATUS => control.full_status(),
            csr::MISA => MISA,
            csr::MEDELEG => control.delegated_exceptions,
            csr::MIDELEG => control.delegated_interrupts,
            csr::MIE => control.enabled,
            csr::MTVEC => self.integer_pc(&self.special[scr::MTCC]),
            csr::MCOUNTEREN => control.machine_counters,
            csr::MSCRATCH => control.machine_scratch,
            csr::MEPC => self.integer_pc(&self.special[scr::MEPCC]) & !1,
            csr::MCAUSE => control.machine_cause,
            csr::MTVAL => control.machine_value,
            csr::MIP => self.interrupts_pending(),
            // Always enabled; the newer generation says that it clears tags and relocates nothing.
            csr::UCCSR | csr::SCCSR | csr::MCCSR if self.older => 1,
            csr::UCCSR | csr::SCCSR | csr::MCCSR => 1 | 1 << 30 | 1 << 31,
            csr::MCYCLE => self.retired.wrapping_add(control.cycle_offset),
            csr::MINSTRET => self.retired.wrapping_add(control.retired_offset),
            csr::CYCLE => self.retired.wrapping_add(control.cycle_offset),
            csr::TIME => control.time.time(),
            csr::INSTRET => self.retired.wrapping_add(control.retired_offset),
            csr::MHARTID => control.hart_id,
            // No physical memory protection, no triggers, no events.
            csr::MVENDORID | csr::MARCHID | csr::MIMPID | csr::MCOUNTINHIBIT => 0,
            0x3a0..=0x3ef | 0x7a0..=0x7a3 | 0x323..=0x33f | 0xb03..=0xb1f | 0xc03..=0xc1f => 0,
            _ => return None,
        })
    }

    /// Writes a CSR; false if there is none with this number or it cannot be written.
    pub(crate) fn set_csr(&mut self, number: u16, value: u64) -> bool {
        let retired = self.retired;
        let control = &mut self.control;
        match number {
            csr::FFLAGS | csr::FRM | csr::FCSR => {
                match number {
                    csr::FFLAGS => control.float_flags = value as u8 & 0x1f,
                    csr::FRM => control.float_rounding = value as u8 & 7,
                    _ => {
                        control.float_flags = value as u8 & 0x1f;
                        control.float_rounding = (value >> 5) as u8 & 7;
                    }
                }
                control.float_written();
            }
            csr::SSTATUS => control.set_status(value, SSTATUS_WRITABLE),
            csr::SIE => {
                let mask = control.delegated_interrupts;
                control.enabled = control.enabled & !mask | value & mask;
            }
            csr::STVEC => {
                let vector = self.special[scr::STCC];
                self.set_vector(scr::STCC, &vector, value);
            }
            csr::SCOUNTEREN => control.supervisor_counters = value & 0xffff_ffff,
            csr::SSCRATCH => control.supervisor_scratch = value,
            csr::SEPC => {
                self.special[scr::SEPCC] = self.with_integer_pc(&self.special[scr::SEPCC], value);
            }
            csr::SCAUSE => control.supervisor_cause = value,
            csr::STVAL => control.supervisor_value = value,
            csr::SIP => {
                let mask = control.delegated_interrupts & 1 << 1;
                control.pending = control.pending & !mask | value & mask;
            }
            csr::MSTATUS => control.set_status(value, MSTATUS_WRITABLE),
            csr::MEDELEG => control.delegated_exceptions = value & DELEGABLE,
            csr::MIDELEG => control.delegated_interrupts = value & SUPERVISOR,
            csr::MIE => control.enabled = value & (MACHINE | SUPERVISOR),
            csr::MTVEC => {
                let vector = self.special[scr::MTCC];
                self.set_vector(scr::MTCC, &vector, value);
            }
            csr::MCOUNTEREN => control.machine_counters = value & 0xffff_ffff,
            csr::MSCRATCH => control.machine_scratch = value,
            csr::MEPC => {
                self.special[scr::MEPCC] = self.with_integer_pc(&self.special[scr::MEPCC], value);
            }
            csr::MCAUSE => control.machine_cause = value,
            csr::MTVAL => control.machine_value = value,
            csr::MIP => control.pending = value & SUPERVISOR,
            csr::MCYCLE => control.cycle_offset = value.wrapping_sub(retired),
            csr::MINSTRET => control.retired_offset = value.wrapping_sub(retired),
            // What is written is ignored.
            csr::SATP | csr::MISA | csr::MCOUNTINHIBIT => {}
            csr::UCCSR | csr::SCCSR | csr::MCCSR => {}
            0x3a0..=0x3ef | 0x7a0..=0x7a3 | 0x323..=0x33f | 0xb03..=0xb1f => {}
            _ => return false,
        }
        true
    }

    /// The interrupt to take now, if there is one.
    pub(crate) fn interrupt(&self) -> Option<u64> {
        let control = &self.control;
        let pending = self.interrupts_pending() & control.enabled;
        let machine = pending & !control.delegated_interrupts;
        let supervisor = pending & control.delegated_interrupts;
        let machine_enabled = self.privilege < Privilege::Machine || control.status & MIE != 0;
        let supervisor_enabled = self.privilege < Privilege::Supervisor
            || self.privilege == Privilege::Supervisor && control.status & SIE != 0;
        let first = |set: u64| PRIORITY.into_iter().find(|n| set >> n & 1 != 0);
        first(if machine_enabled { machine } else { 0 })
            .or_else(|| first(if supervisor_enabled { supervisor } else { 0 }))
    }

    /// Whether `wfi` has nothing to wait for.
    pub(crate) fn is_awake(&self) -> bool {
        self.interrupts_pending() & self.control.enabled != 0
    }

    /// Enters machine or supervisor mode. `pc` is the address of the instruction that trapped or was interrupted.
    pub(crate) fn enter_trap(&mut self, interrupt: bool, number: u64, tval: u64, pc: u64) {
        let epcc = self.pcc_at(pc);
        let control = &mut self.control;
        let delegated = if interrupt {
            control.delegated_interrupts
        } else {
            control.delegated_exceptions
        };
        let cause = if interrupt { number | INTERRUPT } else { number };
        let from = self.privilege as u64;
        let vector = if self.privilege < Privilege::Machine && delegated >> (number & 63) & 1 != 0 {
            let was = control.status & SIE;
            control.status = control.status & !(SIE | SPIE | SPP) | was << 4 | (from & 1) << 8;
            control.supervisor_cause = cause;
            control.supervisor_value = tval;
            self.special[scr::SEPCC] = epcc;
            self.privilege = Privilege::Supervisor;
            self.special[scr::STCC]
        } else {
            let was = control.status & MIE;
            control.status = control.status & !(MIE | MPIE | MPP) | was << 4 | from << MPP_SHIFT;
            control.machine_cause = cause;
            control.machine_value = tval;
            self.special[scr::MEPCC] = epcc;
            self.privilege = Privilege::Machine;
            self.special[scr::MTCC]
        };
        let mut target = vector.address() & !3;
        if interrupt && vector.address() & 3 == 1 {
            target = target.wrapping_add(4 * number);
        }
        self.set_pcc(&vector.at(target));
        self.reservation = None;
    }

    /// Goes back to where `mret` (or `sret`) goes.
    pub(crate) fn leave_trap(&mut self, machine: bool) {
        let control = &mut self.control;
        let epcc = if machine {
            let to = control.status & MPP;
            let was = control.status & MPIE;
            control.status = control.status & !(MIE | MPP) | was >> 4 | MPIE;
            self.privilege = match to >> MPP_SHIFT {
                3 => Privilege::Machine,
                1 => Privilege::Supervisor,
                _ => Privilege::User,
            };
            self.special[scr::MEPCC]
        } else {
            let to = control.status & SPP;
            let was = control.status & SPIE;
            control.status = control.status & !(SIE | SPP) | was >> 4 | SPIE;
            self.privilege = if to != 0 {
                Privilege::Supervisor
            } else {
                Privilege::User
            };
            self.special[scr::SEPCC]
        };
        if self.privilege != Privilege::Machine {
            self.control.status &= !MPRV;
        }
        let pcc = if epcc.is_sentry() { epcc.unseal() } else { epcc };
        self.set_pcc(&pcc);
        self.pc &= !1;
        self.target = self.pc;
        self.reservation = None;
    }
}
