// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CHERI-RISC-V on simulated harts: the cVM's code and the trampolines are executed instruction by instruction, with capabilities and tags;
//! the monitor's own code is the host's.
//!
//! | file | what |
//! |---|---|
//! | `trampoline.S`, `context_layout` | the ways in and out, and the memory that they work on |
//! | `trampoline` | where they and the contexts are on the simulated machine |
//! | `space` | the memory of a cVM: the host's, with page flags and tags |
//! | `compartment` | the capabilities that a cVM is entered with |
//! | `vcpu` | runs a hart: hostcalls, portals, traps |
//! | `processor` | what hostcalls need of it |
//! | `line`, `timers` | interrupts, demands of others, time |
//! | `report` | traps as signals and in words |

mod compartment;
pub mod context_layout;
mod line;
mod processor;
mod report;
mod space;
mod timers;
pub mod trampoline;
mod vcpu;

use std::sync::Arc;
use std::time::Instant;

use capstream_abi::Layout;
use capstream_hart::Isa;

use super::{AddressSpace, Options, Placement, Platform, PlatformError, Vcpu, VectorState};
use crate::sealed_set::SealedSet;
use crate::vcpu_record::VcpuRecord;
use space::TaggedSpace;
use trampoline::Machine;
use vcpu::HartVcpu;

/// The name of the platform with the older generation of the ISA, whose integer addresses are relative.
pub const NAME_V8: &str = "cheri-riscv64";
/// The name of the one with the newer generation, whose integer addresses are absolute.
pub const NAME_V9: &str = "cheri-riscv64-v9";

/// The platform.
pub struct CheriRiscv64 {
    isa: Isa,
    machine: Machine,
    start: Instant,
}

impl CheriRiscv64 {
    /// A machine without cVMs.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn new(isa: Isa, _options: &Options) -> Result<CheriRiscv64, PlatformError> {
        Ok(CheriRiscv64 {
            isa,
            machine: Machine::new()?,
            start: Instant::now(),
        })
    }
}

impl Platform for CheriRiscv64 {
    fn name(&self) -> &'static str {
        match self.isa {
            Isa::V8 => NAME_V8,
            Isa::V9 => NAME_V9,
        }
    }

    fn machine(&self) -> (u16, u32) {
        (object::elf::EM_RISCV, object::elf::R_RISCV_RELATIVE)
    }

    fn runtime_suffix(&self) -> &'static str {
        "-riscv64"
    }

    fn system_call_len(&self) -> u64 {
        4
    }

    fn vector_state(&self) -> VectorState {
        // Floating-point registers are not saved by a mask.
        VectorState { size: 0, mask: 0 }
    }

    fn reserve(
        &self,
        placement: Placement,
        size: u64,
    ) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let space = TaggedSpace::reserve(&self.machine.memory, self.isa, placement, size)?;
        Ok(Arc::new(space))
    }

    fn vcpu(
        &self,
        space: &Arc<dyn AddressSpace>,
        layout: &Layout,
        set: &SealedSet,
        entry: u64,
        record: Arc<VcpuRecord>,
    ) -> Result<Box<dyn Vcpu>, PlatformError> {
        let image = (layout, set, entry);
        let vcpu = HartVcpu::new(&self.machine, self.isa, space, image, record)?;
        Ok(Box::new(vcpu))
    }

    fn prepare_in_background(&self) {}

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
