// SPDX-License-Identifier: Apache-2.0 OR MIT
//! x86-64 without hardware help: a cVM is a range of the monitor's address space, its vCPU a thread. The monitor keeps the bounds in
//! hostcalls; nothing keeps a program from touching what is outside.
//!
//! | file | what |
//! |---|---|
//! | `trampoline.S`, `trampoline` | the ways between the monitor and a cVM |
//! | `context` | what a vCPU, the trampolines, the handlers and other threads share; the state machine |
//! | `processor` | the Rust side of the gate |
//! | `signal`, `signal_stack` | the kick, faults, system calls of programs |
//! | `vcpu`, `thunk`, `shared_page`, `timer` | the parts of a vCPU |
//! | `address_space` | the ranges |
//! | `host` | what the host offers |
//! | `raw_syscall`, `futex` | system calls without the C library |

use std::sync::Arc;

use capstream_abi::Layout;

use super::{AddressSpace, Fault, Options, Placement, Platform, PlatformError, Vcpu, VectorState};

mod address_space;
mod context;
mod futex;
mod host;
mod processor;
mod raw_syscall;
mod shared_page;
mod signal;
mod signal_stack;
mod thunk;
mod timer;
mod trampoline;
mod vcpu;

use address_space::NativeSpace;
use context::Polling;
use host::Host;
use vcpu::NativeVcpu;

/// The platform's name.
const NAME: &str = "x86_64";

/// The longest that an idle vCPU polls, in cycles: about 50 µs.
const POLL_CYCLES: u64 = 1 << 17;

/// The platform.
#[derive(Debug)]
pub struct NativeX86 {
    host: Host,
    poll_cycles: u64,
}

impl NativeX86 {
    /// Looks at the host and installs the signal handlers.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Unsupported`], [`PlatformError::Host`].
    pub fn new(options: &Options) -> Result<NativeX86, PlatformError> {
        let host = Host::detect()?;
        signal::install(host.code_begin)?;
        Ok(NativeX86 {
            host,
            poll_cycles: if options.poll { POLL_CYCLES } else { 0 },
        })
    }

    fn polling(&self) -> Polling {
        Polling::new(self.poll_cycles, self.host.processors)
    }
}

impl Platform for NativeX86 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relocation_base(&self, base: u64) -> u64 {
        base
    }

    fn machine(&self) -> (u16, u32) {
        (object::elf::EM_X86_64, object::elf::R_X86_64_RELATIVE)
    }

    fn vector_state(&self) -> VectorState {
        VectorState {
            size: self.host.xsave_size,
            mask: self.host.xsave_mask,
        }
    }

    fn reserve(
        &self,
        placement: Placement,
        size: u64,
    ) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let space = NativeSpace::reserve(placement, size, self.host.code_begin)?;
        Ok(Arc::new(space))
    }

    fn vcpu(
        &self,
        space: &Arc<dyn AddressSpace>,
        layout: &Layout,
    ) -> Result<Box<dyn Vcpu>, PlatformError> {
        Ok(Box::new(NativeVcpu::new(self, space, layout)?))
    }

    #[inline]
    fn copy(&self, destination: u64, source: u64, len: u64) -> Result<(), Fault> {
        address_space::copy(destination, source, len)
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.host.now_ns()
    }
}
