// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU: a hart on a thread of its own.
//!
//! # States
//!
//! [`Running::mode`] says on whose behalf the hart stands or runs:
//!
//! ```text
//!   Host --capstream_enter--> Guest --gate--> Host --gate's return--> Guest
//!                               |              | ^
//!                               |   call_portal| |portal returns, is abandoned, or faults
//!                               |              v |
//!                               |            Portal <--gate, gate's return--> Host
//!                               +--capstream_leave--> Host
//! ```
//!
//! The hart executes the cVM's code and the trampolines. When the trampolines call one of the monitor's own functions, the fetch stops the
//! hart in the native window, the function is run by this thread, and the hart goes on where the function would have returned to. A
//! portal nests: [`Running::run_until_return`] runs inside of the hostcall that called it.
//!
//! The hart is borrowed only while it runs or its registers are looked at, never while a hostcall is answered.

use std::cell::{Cell, RefCell};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use capstream_abi::boot::{PAGE, PORTAL_STACK_SIZE, PORTAL_STACKS};
use capstream_abi::riscv64::{
    CAPABILITY_SIZE, RESUME_KERNEL, RESUME_PROGRAM, STORE_OFFSET, TrapFrame, TrapRegisters,
    VcpuPage, store,
};
use capstream_abi::{GuestEntries, Layout, TrapKind, irq};
use capstream_hart::trap::cause;
use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, MemoryError, PageFlags, Privilege, Region, Trap, Traps,
};

use super::compartment::Compartment;
use super::context_layout as ctx;
use super::line::Line;
use super::report::{registers, report, signal};
use super::timers::Timers;
use super::trampoline::{
    ContextMemory, Labels, Machine, NATIVE_HOSTCALL, NATIVE_RETURN, NATIVE_WINDOW, memory_error,
    monitor_code, monitor_data,
};
use crate::platform::{
    AddressSpace, Ended, Fault, FaultReport, Hostcalls, PlatformError, PortalCall, PortalFailure,
    Vcpu, VcpuLine,
};
use crate::sealed_set::SealedSet;
use crate::vcpu_record::VcpuRecord;

/// How many instructions a hart executes between two looks at the timers.
const STRETCH: u64 = 20_000;
/// How many while the trampolines, which nobody interrupts, are on their way.
const SHORT_STRETCH: u64 = 64;
/// How many while they are, and somebody waits for the end of that: code that calls the monitor all the time is stopped between two calls.
const STEP: u64 = 1;

// Register numbers.
const RA: usize = 1;
const SP: usize = 2;
const TP: usize = 4;
const T0: usize = 5;
const A0: usize = 10;
const A1: usize = 11;
const A2: usize = 12;
const A3: usize = 13;
const A7: usize = 17;

// CSRs, and what they are set to: floating point is on, counters can be read.
const MSTATUS: u16 = 0x300;
const MSTATUS_FS: u64 = 0b11 << 13;
const MCOUNTEREN: u16 = 0x306;
const SCOUNTEREN: u16 = 0x106;
const ALL_COUNTERS: u64 = 0b111;

/// Words of a trap frame.
const FRAME_WORDS: usize = size_of::<TrapFrame>() / 8;
/// Words of saved registers.
const SAVED_WORDS: usize = size_of::<TrapRegisters>() / 8;
/// The general registers in the order of [`TrapRegisters`], which begins with the program counter.
const SAVED_ORDER: [usize; 31] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    27, 28, 29, 30, 31,
];
/// The word of the argument 0 that a system call may change, at the end of [`TrapRegisters`].
const ORIG_A0: usize = offset_of!(TrapRegisters, orig_a0) / 8;

/// On whose behalf the hart stands or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The monitor's.
    Host,
    /// The cVM's.
    Guest,
    /// A portal of another cVM.
    Portal,
}

/// Why the cVM is left.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each cVM, and a signal handler or a hostcall that makes it may not allocate"
)]
pub enum Leaving {
    /// Somebody demanded it, unless another reason was given.
    Killed,
    /// The cVM asked for it.
    PoweredOff,
    /// Something was refused.
    Faulted(FaultReport),
    /// The monitor's own code panicked in a hostcall.
    Panicked,
}

/// What [`Running::run_until_return`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The function that the monitor had the hart call has returned.
    Returned,
    /// The cVM is to be left.
    Leave,
}

/// A vCPU that has not run yet.
pub struct HartVcpu {
    hart: Hart,
    line: Arc<Line>,
    context: ContextMemory,
    labels: Labels,
    layout: Layout,
    region: Arc<Region>,
    /// The memory stays while the vCPU runs in it.
    _space: Arc<dyn AddressSpace>,
}

impl HartVcpu {
    /// Makes the vCPU of a cVM whose image is entered at `entry`: its context and its capability store are filled then.
    ///
    /// # Errors
    ///
    /// As [`crate::platform::Platform::vcpu`].
    pub fn new(
        machine: &Machine,
        isa: Isa,
        space: &Arc<dyn AddressSpace>,
        (layout, set, entry): (&Layout, &SealedSet, u64),
        record: Arc<VcpuRecord>,
    ) -> Result<HartVcpu, PlatformError> {
        let failed = |error: MemoryError| memory_error("the memory of a vCPU", &error);
        let region = machine
            .memory
            .find(layout.base)
            .ok_or(PlatformError::RangeUnusable {
                begin: layout.base,
                end: layout.end,
                why: "it is not a range of this platform",
            })?;
        let compartment = Compartment::new(set, isa, space.addressing(), layout, entry)?;
        let context = machine.context()?;
        let monitor_sealed = set.monitor_data.object_type().bits();
        let stores = PageFlags::READ | PageFlags::WRITE | PageFlags::CAPABILITIES;
        region
            .protect(layout.capability_store, PAGE, stores)
            .map_err(failed)?;
        for index in 0..PORTAL_STACKS {
            let lowest = layout.portal_stacks + index * PORTAL_STACK_SIZE;
            region
                .protect(lowest + STORE_OFFSET, PAGE, stores)
                .map_err(failed)?;
        }

        let labels = machine.labels;
        let gate = monitor_code(labels.gate).seal(monitor_sealed);
        let data = monitor_data(context.address()).seal(monitor_sealed);
        let portal_return = monitor_code(labels.portal_return).seal(monitor_sealed);
        for (place, capability) in [
            (store::DATA, compartment.data),
            (store::HOSTCALL, gate),
            (store::MONITOR_DATA, data),
            (store::RETURN, compartment.return_code),
            (store::RETURN_DATA, compartment.sealed_data),
            (store::PORTAL_RETURN, portal_return),
        ] {
            let address = layout.capability_store + place * CAPABILITY_SIZE;
            region
                .store_capability(address, &capability)
                .map_err(failed)?;
        }
        let base = context.address();
        for (place, capability) in [
            (ctx::DATA, compartment.data),
            (ctx::RETURN, compartment.return_code),
            (ctx::RETURN_DATA, compartment.sealed_data),
            (ctx::ENTRY, compartment.entry_code),
            (ctx::GATE, gate),
            (ctx::MONITOR_DATA, data),
            (ctx::PORTAL_RETURN, portal_return),
        ] {
            context
                .region()
                .store_capability(base + place, &capability)
                .map_err(failed)?;
        }
        context
            .region()
            .write(base + ctx::HOSTCALL, &NATIVE_HOSTCALL.to_le_bytes())
            .map_err(failed)?;
        let gate_word = space.addressing().to_code(layout.capability_store);
        region
            .write(
                layout.vcpu + offset_of!(VcpuPage, gate) as u64,
                &gate_word.to_le_bytes(),
            )
            .map_err(failed)?;

        let config = Config {
            isa,
            traps: Traps::Exit,
        };
        let mut hart = Hart::new(Arc::clone(&machine.memory), config);
        hart.set_native_window(NATIVE_WINDOW);
        hart.set_csr(MSTATUS, MSTATUS_FS);
        hart.set_csr(MCOUNTEREN, ALL_COUNTERS);
        hart.set_csr(SCOUNTEREN, ALL_COUNTERS);
        hart.set_privilege(Privilege::User);
        Ok(HartVcpu {
            line: Arc::new(Line::new(hart.attention(), compartment, record)),
            hart,
            context,
            labels,
            layout: *layout,
            region,
            _space: Arc::clone(space),
        })
    }
}

impl Vcpu for HartVcpu {
    fn line(&self) -> Arc<dyn VcpuLine> {
        Arc::clone(&self.line) as Arc<dyn VcpuLine>
    }

    fn run(self: Box<Self>, boot: u64, calls: &dyn Hostcalls) -> Result<Ended, PlatformError> {
        let vcpu = *self;
        vcpu.line.started();
        let running = Running {
            hart: RefCell::new(vcpu.hart),
            line: &vcpu.line,
            compartment: *vcpu.line.compartment(),
            context: &vcpu.context,
            labels: vcpu.labels,
            layout: vcpu.layout,
            region: &vcpu.region,
            calls,
            mode: Cell::new(Mode::Host),
            in_program: Cell::new(false),
            look_again: Cell::new(true),
            entries: Cell::new(None),
            timers: Timers::default(),
            leaving: Cell::new(Leaving::Killed),
            portal_fault: Cell::new(None),
        };
        running.enter(boot);
        vcpu.line.ended();
        Ok(match running.leaving.get() {
            Leaving::Killed => Ended::Killed,
            Leaving::PoweredOff => Ended::PoweredOff,
            Leaving::Faulted(report) => Ended::Faulted(report),
            Leaving::Panicked => Ended::MonitorPanicked,
        })
    }
}

/// A vCPU while it runs, for its own thread.
pub struct Running<'a> {
    hart: RefCell<Hart>,
    /// How others reach it.
    pub line: &'a Line,
    compartment: Compartment,
    context: &'a ContextMemory,
    labels: Labels,
    layout: Layout,
    region: &'a Region,
    calls: &'a dyn Hostcalls,
    mode: Cell<Mode>,
    /// Whether the kernel has left to a program: it does so by the monitor, and comes back by the monitor. Where the program jumps to does
    /// not matter.
    in_program: Cell<bool>,
    /// Whether the trampolines were on their way at the last look.
    look_again: Cell<bool>,
    /// The kernel's entries, once it has given them; the monitor's addresses.
    pub entries: Cell<Option<GuestEntries>>,
    /// The kernel's timers.
    pub timers: Timers,
    leaving: Cell<Leaving>,
    /// What a portal that was left did.
    pub portal_fault: Cell<Option<FaultReport>>,
}

impl Running<'_> {
    /// Runs the cVM until it is left.
    fn enter(&self, boot: u64) {
        let to_code = |address| self.compartment.addressing.to_code(address);
        {
            let mut hart = self.hart.borrow_mut();
            hart.set_x(A1, to_code(boot));
            hart.set_x(A2, to_code(self.layout.vcpu));
            hart.set_x(A3, to_code(self.layout.portal_stacks + PORTAL_STACK_SIZE));
            hart.set_x(SP, self.context.stack());
            self.call(&mut hart, self.labels.enter);
        }
        self.mode.set(Mode::Guest);
        self.run_until_return();
        self.mode.set(Mode::Host);
        if self.was_entered() {
            self.call(&mut self.hart.borrow_mut(), self.labels.leave);
            self.run_until_return();
        }
    }

    /// Whether there is something to leave: a cVM may be killed before its first instruction, and before that of the trampolines.
    fn was_entered(&self) -> bool {
        let mut word = [0; 8];
        let place = self.context.address() + ctx::ENTER_STACK;
        self.context.region().read(place, &mut word).is_ok() && word != [0; 8]
    }

    /// Prepares the call of one of the monitor's functions, with the context as its first argument.
    fn call(&self, hart: &mut Hart, function: u64) {
        hart.set_x(A0, self.context.address());
        hart.set_x(RA, NATIVE_RETURN);
        self.go_to_monitor(hart, function);
    }

    fn go_to_monitor(&self, hart: &mut Hart, address: u64) {
        hart.set_pcc(&monitor_code(address));
        hart.set_ddc(&monitor_data(0));
    }

    /// Lets the hart run until the function that was called has returned, or the cVM is to be left. The latter only happens in the outermost
    /// call, in mode Guest.
    fn run_until_return(&self) -> Stop {
        loop {
            let limit = match (self.look_again.get(), self.is_awaited()) {
                (true, true) => STEP,
                (true, false) => SHORT_STRETCH,
                (false, _) => STRETCH,
            };
            let exit = self.hart.borrow_mut().run(limit);
            if self.timers.take_expired() {
                self.line.post(irq::TIMER);
            }
            match exit {
                Exit::Native { address } => {
                    if !self.is_monitor() {
                        self.refuse_place();
                    } else if address == NATIVE_RETURN {
                        return Stop::Returned;
                    } else if address == NATIVE_HOSTCALL {
                        self.hostcall();
                    } else {
                        self.refuse_place();
                    }
                }
                Exit::Trap(trap) => self.trap(&trap),
                Exit::Attention => {
                    self.line.record().was_kicked();
                    self.hart.borrow().attention().clear();
                }
                Exit::Limit | Exit::WaitForInterrupt => {}
            }
            if self.look() == Stop::Leave {
                return Stop::Leave;
            }
        }
    }

    /// Whether the monitor's own code runs, by its capability: a cVM's does not reach this far.
    fn is_monitor(&self) -> bool {
        let pcc = self.hart.borrow().pcc();
        pcc.base() == 0 && pcc.top() > u128::from(u64::MAX)
    }

    /// Whether the code that called the monitor is not to go on when the trampolines are through.
    fn is_awaited(&self) -> bool {
        match self.mode.get() {
            Mode::Host => false,
            Mode::Guest => self.in_program.get() && self.take_interrupts() != 0,
            Mode::Portal => self.line.is_abandoned(),
        }
    }

    /// Looks at what others want, and at interrupts.
    fn look(&self) -> Stop {
        let pc = self.hart.borrow().pcc().address();
        let crossing = self.labels.contain(pc) && self.is_monitor();
        self.look_again.set(crossing);
        match self.mode.get() {
            Mode::Host => {}
            Mode::Guest => {
                if self.line.is_killed() {
                    return Stop::Leave;
                }
                let pending = self.take_interrupts();
                if pending != 0
                    && !crossing
                    && self.in_program.get()
                    && let Some(entries) = self.entries.get()
                {
                    self.trap_to_kernel(&entries, TrapKind::Interrupt, None);
                }
            }
            Mode::Portal => {
                if !crossing && self.line.is_abandoned() {
                    self.abandon_portal();
                }
            }
        }
        Stop::Returned
    }

    fn read_word(&self, address: u64) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.region.read(address, &mut bytes).map_err(|_| Fault)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write_word(&self, address: u64, value: u64) {
        // The vCPU page and the context are writable, whatever a cVM does.
        if self.region.write(address, &value.to_le_bytes()).is_err() {
            tracing::error!(address, "a page of a vCPU cannot be written");
            self.line.leave();
        }
    }

    /// Makes posted interrupts pending. Returns what is. Only this thread changes the word, as the cVM's code and as the monitor.
    pub fn take_interrupts(&self) -> u64 {
        let address = self.layout.vcpu + offset_of!(VcpuPage, pending) as u64;
        let pending = self.read_word(address).unwrap_or(0);
        let posted = self.line.take_posted();
        if posted == 0 {
            return pending;
        }
        self.write_word(address, pending | posted);
        pending | posted
    }

    /// Has the cVM left for this reason.
    pub fn leave(&self, why: Leaving) {
        self.leaving.set(why);
        self.line.leave();
    }

    /// Whether a portal made the hostcall that is being answered.
    pub fn in_portal(&self) -> bool {
        self.line.in_portal_of().is_some()
    }

    // Hostcalls and what they call.

    /// The trampolines have called the function that answers hostcalls.
    fn hostcall(&self) {
        let (context, number, arguments, back) = {
            let hart = self.hart.borrow();
            (hart.x(A0), hart.x(A1), hart.x(A2), hart.x(RA))
        };
        if context != self.context.address() {
            // The capability of another vCPU, which lies in a portal's store while that vCPU is in the portal.
            return self.refuse_place();
        }
        let mut words = [0u64; 6];
        for (index, word) in (0..).zip(&mut words) {
            let mut bytes = [0; 8];
            if self
                .context
                .region()
                .read(arguments + 8 * index, &mut bytes)
                .is_err()
            {
                return self.refuse_place();
            }
            *word = u64::from_le_bytes(bytes);
        }
        let mode = self.mode.replace(Mode::Host);
        let result = match self.calls.light(self, number, &words) {
            Some(result) => result,
            None => self.full(number, &words),
        };
        self.mode.set(mode);
        let mut hart = self.hart.borrow_mut();
        hart.set_x(A0, result as u64);
        self.go_to_monitor(&mut hart, back);
    }

    #[cold]
    fn full(&self, number: u64, arguments: &[u64; 6]) -> i64 {
        if self.in_portal() {
            return -i64::from(libc::EPERM);
        }
        let call = AssertUnwindSafe(|| self.calls.full(self, number, arguments));
        catch_unwind(call).unwrap_or_else(|_| {
            self.leave(Leaving::Panicked);
            -i64::from(libc::EIO)
        })
    }

    /// Runs a portal. See [`crate::platform::Processor::call_portal`].
    pub fn call_portal(
        &self,
        call: &PortalCall,
        owner: &dyn VcpuLine,
    ) -> Result<i64, PortalFailure> {
        let Some(owner_line) = owner.as_any().downcast_ref::<Line>() else {
            return Err(PortalFailure::Abandoned);
        };
        if self.describe_call(call, owner_line.compartment()).is_err() {
            tracing::error!("the context of a vCPU cannot be written");
            return Err(PortalFailure::Abandoned);
        }
        let (back, stack) = {
            let hart = self.hart.borrow();
            (hart.x(RA), hart.x(SP))
        };
        self.line.set_portal_of(Some(call.owner));
        self.call(&mut self.hart.borrow_mut(), self.labels.call_portal);
        self.mode.set(Mode::Portal);
        self.run_until_return();
        self.mode.set(Mode::Host);
        self.line.set_portal_of(None);
        let mut hart = self.hart.borrow_mut();
        let (result, abandoned) = (hart.x(A0) as i64, hart.x(A1) != 0);
        debug_assert_eq!(hart.x(SP), stack, "the trampolines keep the stack");
        hart.set_x(RA, back);
        if !abandoned {
            return Ok(result);
        }
        Err(if self.portal_fault.get().is_some() {
            PortalFailure::Faulted
        } else {
            PortalFailure::Abandoned
        })
    }

    /// Writes into the context which portal the trampolines are to call.
    fn describe_call(
        &self,
        call: &PortalCall,
        compartment: &Compartment,
    ) -> Result<(), MemoryError> {
        let region = self.context.region();
        let base = self.context.address();
        let to_code = |address| compartment.addressing.to_code(address);
        let store = call.stack - PORTAL_STACK_SIZE + STORE_OFFSET;
        for (place, capability) in [
            (ctx::CALL_DATA, compartment.data),
            (ctx::CALL_RETURN, compartment.return_code),
            (ctx::CALL_RETURN_DATA, compartment.sealed_data),
            (
                ctx::CALL_FUNCTION,
                compartment.sealed_code_at(call.function),
            ),
        ] {
            region.store_capability(base + place, &capability)?;
        }
        let words = [
            (ctx::CALL_STORE, store),
            (ctx::CALL_ARGUMENTS, call.cookie),
            (ctx::CALL_ARGUMENTS + 8, call.operation),
            (ctx::CALL_ARGUMENTS + 16, call.len),
            (ctx::CALL_ARGUMENTS + 24, call.sender),
            (ctx::CALL_ARGUMENTS + 32, to_code(store)),
            (ctx::CALL_STACK, to_code(call.stack)),
            (ctx::CALL_RETURN_ADDRESS, to_code(compartment.portal_return)),
        ];
        for (place, word) in words {
            region.write(base + place, &word.to_le_bytes())?;
        }
        Ok(())
    }

    fn abandon_portal(&self) {
        let mut hart = self.hart.borrow_mut();
        self.go_to_monitor(&mut hart, self.labels.portal_abandon);
        hart.set_x(T0, self.context.address());
    }

    /// Has the hart copy, by the trampolines' routine, with capabilities to both sides.
    pub fn copy(&self, destination: u64, source: u64, len: u64) -> Result<(), Fault> {
        let bounded = |address| Capability::root_data().set_bounds(address, len).0;
        let back = {
            let mut hart = self.hart.borrow_mut();
            let back = hart.x(RA);
            hart.set_x(RA, NATIVE_RETURN);
            self.go_to_monitor(&mut hart, self.labels.copy);
            hart.set_capability(A0, &bounded(destination));
            hart.set_capability(A1, &bounded(source));
            hart.set_x(A2, len);
            back
        };
        self.run_until_return();
        let mut hart = self.hart.borrow_mut();
        hart.set_x(RA, back);
        if hart.x(A0) == 0 { Ok(()) } else { Err(Fault) }
    }

    // Traps.

    /// The hart has refused an instruction, or was asked for something by `ecall`.
    fn trap(&self, trap: &Trap) {
        let pc = trap.pcc.address();
        if self.is_monitor() {
            if self.labels.in_copy(pc) && trap.cause != cause::ECALL_USER {
                let mut hart = self.hart.borrow_mut();
                return self.go_to_monitor(&mut hart, self.labels.copy_fault);
            }
            return self.refuse(trap);
        }
        if self.mode.get() != Mode::Guest {
            return self.refuse(trap);
        }
        let Some(entries) = self.entries.get() else {
            return self.refuse(trap);
        };
        match (self.in_program.get(), trap.cause) {
            (false, cause::ECALL_USER) => self.resume(trap, &entries),
            (false, _) => self.kernel_fault(trap, &entries),
            (true, cause::ECALL_USER) => self.trap_to_kernel(&entries, TrapKind::Syscall, None),
            (true, _) => self.trap_to_kernel(&entries, TrapKind::Exception, Some(trap)),
        }
    }

    /// The hart is where nobody should be: in the native window with a cVM's capability, or there on behalf of another vCPU.
    fn refuse_place(&self) {
        let trap = Trap {
            cause: cause::FETCH_ACCESS,
            tval: 0,
            address: self.hart.borrow().pcc().address(),
            pcc: self.hart.borrow().pcc(),
        };
        self.refuse(&trap);
    }

    /// Whoever runs has done something that is refused: leaves the cVM, or the portal.
    fn refuse(&self, trap: &Trap) {
        let report = report(&self.hart.borrow(), trap);
        if self.mode.get() == Mode::Host {
            // In a function that the monitor has called itself: it is broken, and ends here.
            tracing::error!(%report, "the trampolines did something that is refused; this is a bug of the monitor, please report it");
            self.leave(Leaving::Faulted(report));
            self.go_to_monitor(&mut self.hart.borrow_mut(), NATIVE_RETURN);
        } else if self.line.in_portal_of().is_some() {
            self.portal_fault.set(Some(report));
            self.abandon_portal();
        } else {
            self.leave(Leaving::Faulted(report));
        }
    }

    /// The kernel goes on in a program, or where it faulted.
    fn resume(&self, trap: &Trap, entries: &GuestEntries) {
        let (kind, saved) = {
            let hart = self.hart.borrow();
            (hart.x(A7), hart.x(A0))
        };
        match kind {
            RESUME_PROGRAM if self.take_interrupts() != 0 => {
                return self.go_to_kernel(entries.return_again, 0);
            }
            RESUME_PROGRAM | RESUME_KERNEL => {}
            _ => return self.kernel_fault(trap, entries),
        }
        let mut bytes = [0; 8 * SAVED_WORDS];
        let address = self.compartment.addressing.to_monitor(saved);
        let readable = self.compartment.data.contains(address, bytes.len() as u64)
            && self.region.read(address, &mut bytes).is_ok();
        if !readable {
            return self.kernel_fault(trap, entries);
        }
        let mut words = bytes.chunks_exact(8).map(|word| {
            word.iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        });
        let pc = words.next().unwrap_or(0);
        let mut hart = self.hart.borrow_mut();
        for (n, value) in SAVED_ORDER.into_iter().zip(words) {
            hart.set_x(n, value);
        }
        self.go_to_cvm(&mut hart, self.compartment.addressing.to_monitor(pc));
        if kind == RESUME_PROGRAM {
            self.in_program.set(true);
        }
    }

    /// The cVM's code goes on at the monitor's address `pc`, with the capabilities that it has.
    fn go_to_cvm(&self, hart: &mut Hart, pc: u64) {
        hart.set_pcc(&self.compartment.code_at(pc));
        hart.set_ddc(&self.compartment.data);
    }

    /// The kernel takes over at one of its entries. Every register but `tp` and `sp` is 0.
    fn go_to_kernel(&self, entry: u64, sp: u64) {
        let mut hart = self.hart.borrow_mut();
        for n in SAVED_ORDER {
            hart.set_x(n, 0);
        }
        hart.set_x(SP, sp);
        hart.set_x(TP, self.compartment.addressing.to_code(self.layout.vcpu));
        self.go_to_cvm(&mut hart, entry);
        self.in_program.set(false);
    }

    /// A program runs: its kernel takes over.
    fn trap_to_kernel(&self, entries: &GuestEntries, kind: TrapKind, trap: Option<&Trap>) {
        self.write_frame(kind, trap);
        self.go_to_kernel(entries.trap_user, 0);
    }

    fn kernel_fault(&self, trap: &Trap, entries: &GuestEntries) {
        let address = self.layout.vcpu + offset_of!(VcpuPage, in_kernel_fault) as u64;
        if self.read_word(address) != Ok(0) {
            return self.refuse(trap);
        }
        self.write_word(address, 1);
        self.write_frame(TrapKind::Exception, Some(trap));
        let sp = self.hart.borrow().x(SP);
        self.go_to_kernel(entries.trap_kernel, sp & !15);
    }

    /// Leaves a trap for the kernel in the vCPU page.
    fn write_frame(&self, kind: TrapKind, trap: Option<&Trap>) {
        /// Bytes of `ecall`.
        const ECALL: u64 = 4;
        let to_code = |address| self.compartment.addressing.to_code(address);
        let mut frame = [0u64; FRAME_WORDS];
        let [kind_word, vector, error, address, signal_word, saved @ ..] = &mut frame;
        *kind_word = kind as u64;
        if let Some(trap) = trap {
            let (signal, code) = signal(trap);
            *vector = trap.cause;
            if trap.cause == cause::CHERI {
                *error = trap.tval;
            }
            *address = to_code(trap.address);
            *signal_word = u64::from(signal as u32) | u64::from(code as u32) << 32;
        }
        {
            let hart = self.hart.borrow();
            let x = registers(&hart);
            let pc = to_code(hart.pcc().address());
            let [epc, registers @ ..] = saved;
            *epc = pc;
            for (place, n) in registers.iter_mut().zip(SAVED_ORDER) {
                *place = x.get(n).copied().unwrap_or(0);
            }
        }
        if kind == TrapKind::Syscall {
            let [epc, ..] = saved;
            *epc = epc.wrapping_add(ECALL);
            let a0 = self.hart.borrow().x(A0);
            if let Some(place) = saved.get_mut(ORIG_A0) {
                *place = a0;
            }
        }
        let bytes: Vec<u8> = frame.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = self.layout.vcpu + offset_of!(VcpuPage, trap) as u64;
        if self.region.write(at, &bytes).is_err() {
            tracing::error!("the vCPU page cannot be written");
            self.line.leave();
        }
    }
}
