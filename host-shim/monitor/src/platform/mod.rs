// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What carries a cVM: the boundary between the monitor and a processor.
//!
//! A platform is a folder beside this file that implements [`Platform`], [`AddressSpace`] and [`Vcpu`], and one line in
//! [`by_name`]. Nothing above this module knows which platform it works with.
//!
//! Addresses are the monitor's. What a cVM's code calls them, its [`Addressing`] tells. Whoever calls has checked them against a
//! capability; an access that the memory's protection forbids is an error and never a fault of the monitor.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use capstream_abi::{GuestEntries, Layout};
use capstream_capability::Capability;
use capstream_hart::Isa;

use crate::sealed_set::SealedSet;
use crate::vcpu_record::VcpuRecord;
use cheri_riscv64::CheriRiscv64;

mod addressing;
pub mod cheri_riscv64;
mod host_range;
mod thread_clock;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use addressing::Addressing;

/// Names that [`by_name`] knows, the default first.
pub const NAMES: &[&str] = &["x86_64", cheri_riscv64::NAME_V8, cheri_riscv64::NAME_V9];

/// Why a platform could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No platform has this name.
    #[error("there is no platform `{name}`; use one of: {}", NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The host lacks something that the platform is built on.
    #[error("platform {platform}: this host has no {what}; {remedy}")]
    Unsupported {
        /// The platform's name.
        platform: &'static str,
        /// What is missing.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A system call of the host failed.
    #[error("{call} failed for {what}: {source}")]
    Host {
        /// The system call.
        call: &'static str,
        /// On what, and what for.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The range asked for overlaps another one.
    #[error(
        "[{begin:#x}, {end:#x}) is in use, by another cVM or by the monitor; choose another isolation base or leave it out"
    )]
    RangeTaken {
        /// First byte.
        begin: u64,
        /// Byte after the range.
        end: u64,
    },
    /// The range asked for is none that a cVM can have.
    #[error("[{begin:#x}, {end:#x}) cannot be a cVM's range: {why}")]
    RangeUnusable {
        /// First byte.
        begin: u64,
        /// Byte after the range.
        end: u64,
        /// Why not.
        why: &'static str,
    },
    /// There is no room for another range.
    #[error(
        "no {size:#x} free bytes of address space are left for a cVM; give it less, or start fewer cVMs"
    )]
    NoRoom {
        /// Bytes asked for.
        size: u64,
    },
    /// No virtual memory.
    #[error("no virtual memory for programs was started, or this platform has none")]
    NoWindow,
    /// More vCPUs than the platform can have.
    #[error("there are {max} vCPUs already; start fewer cVMs")]
    TooManyVcpus {
        /// How many there can be.
        max: usize,
    },
}

impl PlatformError {
    /// The error that the host left for the calling thread.
    pub(crate) fn host(call: &'static str, what: impl Into<String>) -> PlatformError {
        PlatformError::Host {
            call,
            what: what.into(),
            source: std::io::Error::last_os_error(),
        }
    }
}

/// A part of an address space could not be read or written as it is protected now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Where a cVM's range should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Wherever there is room.
    Anywhere,
    /// Wherever there is room above what is usually asked for by address; for what is large.
    AnywhereHigh,
    /// From this address on.
    At(u64),
}

/// How a part of a range may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Protection {
    /// Nothing at all.
    pub const NONE: Protection = Protection {
        read: false,
        write: false,
        execute: false,
    };

    /// The same for `mmap` and `mprotect`.
    pub(crate) fn flags(self) -> i32 {
        [
            (self.read, libc::PROT_READ),
            (self.write, libc::PROT_WRITE),
            (self.execute, libc::PROT_EXEC),
        ]
        .into_iter()
        .filter(|(allowed, _)| *allowed)
        .fold(libc::PROT_NONE, |flags, (_, flag)| flags | flag)
    }
}

/// A way to run cVMs.
pub trait Platform: Send + Sync {
    /// Its name, one of [`NAMES`].
    fn name(&self) -> &'static str;

    /// The machine that images are made for, as `e_machine` of ELF, and the type of its relative relocation.
    fn machine(&self) -> (u16, u32);

    /// What follows the names of runtime images for it, where nobody names one.
    fn runtime_suffix(&self) -> &'static str;

    /// Bytes of the instruction that programs make system calls with.
    fn system_call_len(&self) -> u64;

    /// The vector registers that programs can use.
    fn vector_state(&self) -> VectorState;

    /// Sets `size` bytes aside, read-, writable and executable, all zero, backed lazily. They never overlap another address space.
    ///
    /// # Errors
    ///
    /// [`PlatformError::RangeTaken`], [`PlatformError::RangeUnusable`], [`PlatformError::NoRoom`], [`PlatformError::Host`].
    fn reserve(
        &self,
        placement: Placement,
        size: u64,
    ) -> Result<Arc<dyn AddressSpace>, PlatformError>;

    /// Makes the vCPU of a cVM whose image is in place and is entered at `entry`; with `set`, where the processor knows capabilities. What
    /// it does besides hostcalls is counted in `record`.
    ///
    /// # Errors
    ///
    /// [`PlatformError::TooManyVcpus`], [`PlatformError::RangeUnusable`], [`PlatformError::Host`].
    fn vcpu(
        &self,
        space: &Arc<dyn AddressSpace>,
        layout: &Layout,
        set: &SealedSet,
        entry: u64,
        record: Arc<VcpuRecord>,
    ) -> Result<Box<dyn Vcpu>, PlatformError>;

    /// Starts work that cVMs would otherwise wait for later. To be called when the first of them has been started.
    fn prepare_in_background(&self);

    /// Nanoseconds of a clock that never goes back. Works without the monitor's own thread state.
    fn now_ns(&self) -> u64;

    /// What kernels are told about it on their command line.
    fn kernel_args(&self) -> &'static str {
        ""
    }
}

/// The memory of one cVM. It is given back when the last reference is dropped.
pub trait AddressSpace: Send + Sync {
    /// First byte.
    fn begin(&self) -> u64;

    /// Byte after it.
    fn end(&self) -> u64;

    /// How code in it calls its addresses.
    fn addressing(&self) -> Addressing;

    /// Copies to `buffer`.
    ///
    /// # Errors
    ///
    /// [`Fault`]; a part may have been copied.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Fault>;

    /// Copies from `bytes`.
    ///
    /// # Errors
    ///
    /// [`Fault`]; a part may have been copied.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault>;

    /// Puts `len` bytes of `file` from `offset` on at `address`, privately; all three are whole pages.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    fn map_file(
        &self,
        address: u64,
        file: &std::fs::File,
        offset: u64,
        len: u64,
    ) -> Result<(), PlatformError>;

    /// Changes what whole pages allow.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    fn protect(&self, address: u64, len: u64, protection: Protection) -> Result<(), PlatformError>;

    /// Forgets what whole pages hold; they read as zero.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    fn discard(&self, address: u64, len: u64) -> Result<(), PlatformError>;

    /// Makes `memory`, pages of the range that hold nothing, such that they can be mapped a second time, in a window for which
    /// addresses are reserved. Once.
    ///
    /// # Errors
    ///
    /// [`PlatformError::NoWindow`] where the platform has none, [`PlatformError::RangeUnusable`] when there is one already,
    /// [`PlatformError::NoRoom`], [`PlatformError::Host`].
    fn open_window(&self, memory: Range<u64>) -> Result<Range<u64>, PlatformError> {
        let _ = memory;
        Err(PlatformError::NoWindow)
    }

    /// Reserves these addresses for the window, too. Once.
    ///
    /// # Errors
    ///
    /// [`PlatformError::NoWindow`], [`PlatformError::RangeTaken`], [`PlatformError::RangeUnusable`], [`PlatformError::Host`].
    fn extend_window(&self, range: Range<u64>) -> Result<(), PlatformError> {
        let _ = range;
        Err(PlatformError::NoWindow)
    }

    /// Maps pages of the memory from `physical` on at `address` in the window.
    ///
    /// # Errors
    ///
    /// [`PlatformError::NoWindow`], [`PlatformError::RangeUnusable`] when the window or the memory does not have these pages, [`PlatformError::Host`].
    fn map_page(
        &self,
        address: u64,
        physical: u64,
        len: u64,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        let _ = (address, physical, len, protection);
        Err(PlatformError::NoWindow)
    }

    /// Takes away what was mapped at `[address, address + len)` in the window.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::map_page`].
    fn unmap_page(&self, address: u64, len: u64) -> Result<(), PlatformError> {
        let _ = (address, len);
        Err(PlatformError::NoWindow)
    }

    /// Where the monitor's own devices find `address`.
    fn host_pointer(&self, address: u64) -> *mut u8;
}

/// A vCPU, before and while it runs; one thread runs it.
pub trait Vcpu: Send {
    /// How others reach it.
    fn line(&self) -> Arc<dyn VcpuLine>;

    /// Runs the cVM from its entry on, with `boot` as its argument, until it ends.
    ///
    /// # Errors
    ///
    /// [`PlatformError`] when the thread could not be prepared; nothing of the cVM has run then.
    fn run(self: Box<Self>, boot: u64, calls: &dyn Hostcalls) -> Result<Ended, PlatformError>;
}

/// How any thread reaches a vCPU. It may outlive the vCPU; then nothing happens.
pub trait VcpuLine: Send + Sync {
    /// Makes an interrupt pending, and the vCPU look. Works without the monitor's own thread state.
    fn raise(&self, irq: u32);

    /// Makes the vCPU leave its cVM as soon as it does not run on behalf of another one.
    fn kill(&self);

    /// Makes the vCPU abandon a portal of `owner` if it runs one: the sender gets an error.
    fn abandon_portal(&self, owner: u64);

    /// Whose portal the vCPU runs now, if any.
    fn in_portal_of(&self) -> Option<u64>;

    /// The same, with which of the vCPU's portal runs it is; `None` also when another one has just begun.
    fn portal_run(&self) -> Option<PortalRun>;

    /// Processor time that the vCPU's thread has used; `None` before it started and after it ended.
    fn processor_time(&self) -> Option<Duration>;

    /// Itself, for the platform that made it.
    fn as_any(&self) -> &dyn Any;
}

/// One run of a portal on a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortalRun {
    /// Whose portal it is.
    pub owner: u64,
    /// The vCPU's portal runs are numbered.
    pub number: u64,
}

/// A portal to run, all addresses in its owner's range.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PortalCall {
    /// The function.
    pub function: u64,
    /// Its first argument.
    pub cookie: u64,
    /// Its second.
    pub operation: u64,
    /// Its third.
    pub len: u64,
    /// Its fourth.
    pub sender: u64,
    /// The highest address of the stack to run on.
    pub stack: u64,
    /// Whose it is, unique for all time.
    pub owner: u64,
}

/// Why a portal did not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortalFailure {
    /// It was abandoned on demand.
    Abandoned,
    /// It did something that the processor or the platform refused; see [`Processor::take_portal_fault`].
    Faulted,
}

/// The processor as hostcalls see it: what the platform does for the cVM that called.
pub trait Processor {
    /// Whether a portal of another cVM made the hostcall, on this thread.
    fn in_portal(&self) -> bool;

    /// Whether somebody wants the vCPU to end; long hostcalls look.
    fn is_killed(&self) -> bool;

    /// Runs a portal of the cVM behind `owner`, see [`capstream_abi::Portal`]; its hostcalls come to the same [`Hostcalls`].
    ///
    /// # Errors
    ///
    /// [`PortalFailure`]: it was left where it was.
    fn call_portal(&self, call: &PortalCall, owner: &dyn VcpuLine) -> Result<i64, PortalFailure>;

    /// What the last portal that [`PortalFailure::Faulted`] did.
    fn take_portal_fault(&self) -> Option<FaultReport>;

    /// Copies `len` bytes from `source` to `destination`, both in address spaces of this platform, which exist for as long as this
    /// takes. Works without the monitor's own thread state: see [`Hostcalls::light`].
    ///
    /// # Errors
    ///
    /// [`Fault`]; a part may have been copied.
    fn copy(&self, destination: u64, source: u64, len: u64) -> Result<(), Fault>;

    /// Gives the processor the entries of the cVM's kernel. Returns false when it has them already.
    fn set_entries(&self, entries: &GuestEntries) -> bool;

    /// Makes an interrupt pending for the cVM that called; it looks after the hostcall.
    fn raise(&self, irq: u32);

    /// Waits until an interrupt is pending, or somebody wants the vCPU to end.
    fn wait_for_interrupt(&self);

    /// Makes a timer; `None` when there are too many.
    fn timer_alloc(&self) -> Option<u64>;

    /// Raises [`capstream_abi::irq::TIMER`] in `ns` nanoseconds, or never if 0. Returns false when there is no such timer.
    fn timer_set(&self, timer: u64, ns: u64) -> bool;

    /// Gives a timer back. Returns false when there is no such timer.
    fn timer_free(&self, timer: u64) -> bool;

    /// Lets other threads run for a moment.
    fn relax(&self);

    /// Has the cVM left when the hostcall returns.
    fn power_off(&self);

    /// Patches the system call instruction that ends at `ip`; negated errno.
    fn patch_syscall(&self, ip: u64) -> i64;

    /// See [`capstream_abi::Hostcall::TranslateIp`].
    fn translate_ip(&self, ip: u64, direction: u64) -> i64;

    /// Forgets patches of what is no code any more.
    fn forget_code(&self, begin: u64, end: u64);

    /// To be called once. From now on system call instructions in `code` can be patched to jump to `entry`, by stubs in the `stubs_len` bytes at
    /// `stubs`. Returns whether it is so.
    fn set_patches(&self, stubs: u64, stubs_len: u64, code: Range<u64>, entry: u64) -> bool;

    /// The same for addresses in the cVM's window, where pages come and go: stubs are behind `code`, as many bytes as `stubs_at` has, where they are
    /// written. Returns whether it is so.
    fn add_patches(&self, code: Range<u64>, stubs_at: Range<u64>) -> bool;

    /// Runs `work` with everything the monitor has, as in [`Hostcalls::full`]; for what [`Hostcalls::light`] seldom does, and not on behalf
    /// of a portal.
    fn with_monitor_state(&self, work: &mut dyn FnMut() -> i64) -> i64;

    /// Runs `work` with the monitor's own thread state, its vector registers excepted: thread-local variables and locks can be used. For
    /// [`Hostcalls::light`].
    fn with_thread_state(&self, work: &mut dyn FnMut() -> i64) -> i64;
}

/// What answers hostcalls. Its methods are called on the vCPU's thread; they nest when a portal makes hostcalls.
pub trait Hostcalls {
    /// Answers a hostcall with as little as possible between it and the cVM: the thread pointer is still the cVM's and the upper
    /// parts of vector registers hold a program's values. So nothing in here may use thread-local variables, allocate, lock, panic or call
    /// the C library. `None` hands it to [`Hostcalls::full`].
    fn light(&self, processor: &dyn Processor, number: u64, arguments: &[u64; 6]) -> Option<i64>;

    /// Answers a hostcall with everything the monitor has.
    fn full(&self, processor: &dyn Processor, number: u64, arguments: &[u64; 6]) -> i64;
}

/// What went wrong in a cVM, with the registers at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultReport {
    /// The host's signal.
    pub signal: i32,
    /// Its `si_code`.
    pub code: i32,
    /// Where it happened.
    pub pc: u64,
    /// The address that could not be accessed, if that was it.
    pub address: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The general registers.
    pub registers: Registers,
    /// What a capability did not allow, if that was it.
    pub capability: Option<CapabilityFault>,
}

/// How many general registers a processor has at the most.
pub const REGISTERS: usize = 32;

/// General registers, each with its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The names, in the processor's order.
    pub names: &'static [&'static str],
    /// The values, in the same order; what has no name is not there.
    pub values: [u64; REGISTERS],
}

/// What a capability did not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityFault {
    /// Why, as the processor numbers it.
    pub cause: u64,
    /// Why, in words.
    pub what: &'static str,
    /// The register that held the capability.
    pub register: &'static str,
    /// What it held.
    pub held: Capability,
    /// What its code could be fetched by.
    pub code: Capability,
    /// What its integer addresses went through.
    pub data: Capability,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.signal {
            libc::SIGSEGV => "access to memory that is not there or not allowed",
            libc::SIGBUS => "access to memory that cannot be provided",
            libc::SIGILL => "illegal instruction",
            libc::SIGFPE => "arithmetic error",
            libc::SIGTRAP => "breakpoint or single step",
            libc::SIGSYS => "system call instruction",
            _ => "unexpected signal",
        };
        write!(
            f,
            "{what} (signal {}, code {}) at {:#x}, address {:#x}, stack {:#x}",
            self.signal, self.code, self.pc, self.address, self.sp
        )?;
        if let Some(fault) = &self.capability {
            write!(
                f,
                "\n    capability exception: cause {:#x} ({}), register {}, pc {:#x}\n    {}\n    {}\n    {}",
                fault.cause,
                fault.what,
                fault.register,
                self.pc,
                fault.held.named(fault.register),
                fault.code.named("pcc"),
                fault.data.named("ddc"),
            )?;
        }
        let Registers { names, values } = &self.registers;
        for (index, (name, value)) in names.iter().zip(values).enumerate() {
            let separator = if index % 4 == 0 { "\n    " } else { " " };
            write!(f, "{separator}{name:<3} {value:016x}")?;
        }
        Ok(())
    }
}

/// How a vCPU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each cVM, and a signal handler or a hostcall that makes it may not allocate"
)]
pub enum Ended {
    /// By [`Processor::power_off`].
    PoweredOff,
    /// By [`VcpuLine::kill`].
    Killed,
    /// Its kernel did something that the processor or the platform refused.
    Faulted(FaultReport),
    /// The monitor panicked in one of its hostcalls.
    MonitorPanicked,
}

/// How a platform is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether idle vCPUs look for interrupts for a moment before they sleep.
    pub poll: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { poll: true }
    }
}

/// What a kernel has to know to keep a program's vector registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorState {
    /// Bytes.
    pub size: u64,
    /// Components, as [`capstream_abi::BootInfo::xsave_mask`].
    pub mask: u64,
}

/// The platform with this name.
///
/// # Errors
///
/// [`PlatformError::Unknown`], and whatever the platform finds missing on this host.
pub fn by_name(name: &str, options: &Options) -> Result<Arc<dyn Platform>, PlatformError> {
    match name {
        #[cfg(target_arch = "x86_64")]
        "x86_64" => Ok(Arc::new(x86_64::NativeX86::new(options)?)),
        cheri_riscv64::NAME_V8 => Ok(Arc::new(CheriRiscv64::new(Isa::V8, options)?)),
        cheri_riscv64::NAME_V9 => Ok(Arc::new(CheriRiscv64::new(Isa::V9, options)?)),
        _ => Err(PlatformError::Unknown {
            name: name.to_owned(),
        }),
    }
}
