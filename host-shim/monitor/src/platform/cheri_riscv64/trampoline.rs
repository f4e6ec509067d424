// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trampolines as bytes, and where the monitor's memory is on a simulated machine.
//!
//! Everything of the monitor that a hart executes or touches lies above all addresses that a process of the host can have, so it never
//! overlaps a cVM:
//!
//! ```text
//! CODE         the trampolines, shared by all vCPUs
//! NATIVE       no memory: a fetch here stops the hart, and the monitor's own code does what a function at this place would do
//! CONTEXTS     one piece for each vCPU: its context, and the stack of the trampolines
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capstream_hart::{Capability, Memory, MemoryError, PageFlags, Region};

use crate::platform::PlatformError;

/// Where the trampolines are.
const CODE: u64 = 0x8000_0000_0000;
/// Where fetches stop a hart.
const NATIVE: u64 = 0x8000_1000_0000;
/// The function that answers hostcalls.
pub const NATIVE_HOSTCALL: u64 = NATIVE;
/// Where a function returns to that the monitor had the hart call.
pub const NATIVE_RETURN: u64 = NATIVE + 16;
/// All of these places.
pub const NATIVE_WINDOW: Range<u64> = NATIVE..NATIVE + 0x1000;
/// Where the first context is.
const CONTEXTS: u64 = 0x8001_0000_0000;
/// From one context to the next.
const CONTEXT_STRIDE: u64 = 0x1_0000;
/// Bytes of a context and the stack behind it.
const CONTEXT_SIZE: u64 = 0x4000;

const PAGE: u64 = 4096;

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trampoline.bin"));

/// The monitor's PCC: everything, as the published log shows it.
const MONITOR_CODE: u32 = 0x68117;
/// The monitor's DDC.
const MONITOR_DATA: u32 = 0x7817d;

/// Addresses of the trampolines' labels.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the names are those of the labels, which have their contracts"
)]
pub struct Labels {
    pub enter: u64,
    pub leave: u64,
    pub gate: u64,
    pub call_portal: u64,
    pub portal_return: u64,
    pub portal_abandon: u64,
    pub copy: u64,
    pub copy_from_cap: u64,
    pub copy_to_cap: u64,
    pub copy_fault: u64,
    pub end: u64,
}

impl Labels {
    /// From the table that the trampolines begin with.
    fn read() -> Option<Labels> {
        let mut words = BYTES.chunks_exact(8).map(|word| {
            let offset = word
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
            CODE + offset
        });
        Some(Labels {
            enter: words.next()?,
            leave: words.next()?,
            gate: words.next()?,
            call_portal: words.next()?,
            portal_return: words.next()?,
            portal_abandon: words.next()?,
            copy: words.next()?,
            copy_from_cap: words.next()?,
            copy_to_cap: words.next()?,
            copy_fault: words.next()?,
            end: words.next()?,
        })
    }

    /// Whether the monitor's code is at this address, or one of its own functions is about to be called or to return.
    pub fn contain(&self, pc: u64) -> bool {
        (CODE..self.end).contains(&pc) || NATIVE_WINDOW.contains(&pc)
    }

    /// Whether one of the copy routines is at this address.
    pub fn in_copy(&self, pc: u64) -> bool {
        (self.copy..self.copy_fault).contains(&pc)
    }
}

/// The memory of the machine, with the monitor's code in it.
pub struct Machine {
    /// What harts see.
    pub memory: Arc<Memory>,
    /// Where the trampolines are.
    pub labels: Labels,
    next_context: AtomicU64,
}

/// A piece of memory could not be had.
pub fn memory_error(what: &'static str, error: &MemoryError) -> PlatformError {
    PlatformError::Host {
        call: "mmap",
        what: what.to_owned(),
        source: std::io::Error::other(error.to_string()),
    }
}

impl Machine {
    /// A machine that has the trampolines only.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn new() -> Result<Machine, PlatformError> {
        let failed = |error: MemoryError| memory_error("the trampolines", &error);
        let memory = Arc::new(Memory::new());
        let len = (BYTES.len() as u64).next_multiple_of(PAGE);
        let all = PageFlags::READ | PageFlags::WRITE;
        let code = Region::anonymous(CODE, len, all).map_err(failed)?;
        code.write(CODE, BYTES).map_err(failed)?;
        code.protect(CODE, len, PageFlags::READ | PageFlags::EXECUTE)
            .map_err(failed)?;
        memory.add(Arc::new(code)).map_err(failed)?;
        let labels = Labels::read().ok_or_else(|| PlatformError::Host {
            call: "reading",
            what: "the trampolines, which are too short".to_owned(),
            source: std::io::ErrorKind::InvalidData.into(),
        })?;
        Ok(Machine {
            memory,
            labels,
            next_context: AtomicU64::new(CONTEXTS),
        })
    }

    /// Memory for a context, at an address that no other context has or had.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn context(&self) -> Result<ContextMemory, PlatformError> {
        let failed = |error: MemoryError| memory_error("a vCPU's context", &error);
        let begin = self
            .next_context
            .fetch_add(CONTEXT_STRIDE, Ordering::Relaxed);
        let flags = PageFlags::READ | PageFlags::WRITE | PageFlags::CAPABILITIES;
        let region = Arc::new(Region::anonymous(begin, CONTEXT_SIZE, flags).map_err(failed)?);
        self.memory.add(Arc::clone(&region)).map_err(failed)?;
        Ok(ContextMemory {
            memory: Arc::clone(&self.memory),
            region,
        })
    }
}

/// A context and its stack; gone when this is dropped.
pub struct ContextMemory {
    memory: Arc<Memory>,
    region: Arc<Region>,
}

impl ContextMemory {
    /// The context's address.
    pub fn address(&self) -> u64 {
        self.region.begin()
    }

    /// The byte after the stack.
    pub fn stack(&self) -> u64 {
        self.region.end()
    }

    /// The memory.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl Drop for ContextMemory {
    fn drop(&mut self) {
        self.memory.remove(self.region.begin());
    }
}

/// The monitor's PCC at `address`.
pub fn monitor_code(address: u64) -> Capability {
    Capability::root_code()
        .and_permissions(MONITOR_CODE)
        .with_address(address)
}

/// The monitor's DDC with `address`.
pub fn monitor_data(address: u64) -> Capability {
    Capability::root_data()
        .and_permissions(MONITOR_DATA)
        .with_address(address)
}
