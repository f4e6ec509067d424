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

use std::sync::{Arc, Once};

use capstream_abi::Layout;
use capstream_syscall_patch::PatchTable;

use super::{AddressSpace, Options, Placement, Platform, PlatformError, Vcpu, VectorState};
use crate::sealed_set::SealedSet;
use crate::vcpu_record::VcpuRecord;

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
mod window;

pub use address_space::copy;

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

/// Has another thread make the patcher's decoding tables, which otherwise happens, once for the process and for about a millisecond,
/// when the first program makes its first system call.
fn prepare_patches() {
    const LEN: usize = 4096;
    /// `mov eax, 39; syscall; ret`
    const PROGRAM: [u8; 8] = [0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3];
    /// Where the instruction ends.
    const IP: u64 = 7;
    let prepare = || {
        let mut stubs = vec![0u8; LEN];
        let mut code = vec![0u8; LEN];
        for (place, byte) in code.iter_mut().zip(PROGRAM) {
            *place = byte;
        }
        let begin = code.as_mut_ptr() as u64;
        // SAFETY: both buffers are this thread's, outlive the table and are never executed.
        let table =
            unsafe { PatchTable::new(stubs.as_mut_ptr(), LEN, begin..begin + LEN as u64, begin) };
        if let Ok(table) = table {
            // It does not matter whether this patch is made.
            let _ = table.patch(begin + IP);
        }
    };
    // Without the thread it happens later.
    let _ = std::thread::Builder::new()
        .name("patch tables".to_owned())
        .spawn(prepare);
}

impl Platform for NativeX86 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn machine(&self) -> (u16, u32) {
        (object::elf::EM_X86_64, object::elf::R_X86_64_RELATIVE)
    }

    fn runtime_suffix(&self) -> &'static str {
        ""
    }

    fn system_call_len(&self) -> u64 {
        2
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
        _set: &SealedSet,
        entry: u64,
        record: Arc<VcpuRecord>,
    ) -> Result<Box<dyn Vcpu>, PlatformError> {
        let vcpu = NativeVcpu::new(self, space, layout, entry, record)?;
        Ok(Box::new(vcpu))
    }

    fn prepare_in_background(&self) {
        static ONCE: Once = Once::new();
        if self.host.processors > 1 {
            ONCE.call_once(prepare_patches);
        }
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.host.now_ns()
    }

    fn kernel_args(&self) -> &'static str {
        if self.host.tsc_counts_time {
            "capstream.tsc"
        } else {
            ""
        }
    }
}
