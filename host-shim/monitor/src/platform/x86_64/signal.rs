// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals of vCPU threads: the kick, and whatever the processor refuses.
//!
//! The handlers decide by whose code ran ([`Context`]'s mode) and where. They change the interrupted registers and return; nothing of a
//! handler stays on a stack. They use no thread-local variables, no lock and no allocation, and make system calls without the C library.
//!
//! | mode | program counter | kick | refused |
//! |---|---|---|---|
//! | any, any thread | copy routine | - | the copy ends early |
//! | Host | | nothing: the gate looks | the monitor is broken: it dies |
//! | Portal | | abandons the portal on demand | abandons it, with a report |
//! | Guest | thunk, gates | leaves on demand | leaves, with a report |
//! | Guest | other code of the host | leaves on demand | the program's fault |
//! | Guest | own image | leaves on demand; else back to the last look at the pending word, if behind it | the kernel's fault handler, or leaves with a report |
//! | Guest | elsewhere: a program | leaves on demand; else the kernel's trap entry | the kernel's trap entry |

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use capstream_abi::x86_64::{TrapFrame, TrapRegisters};
use capstream_abi::{TrapKind, irq};

use super::context::{
    ATTENTION_ABANDON, ATTENTION_KILL, Context, Leaving, MODE_GUEST, MODE_PORTAL, Own,
};
use super::trampoline::label;
use super::{raw_syscall, signal_stack};
use crate::platform::{FaultReport, PlatformError, REGISTERS, Registers};

/// Bytes below the stack pointer that a function may use without saying so.
const RED_ZONE: u64 = 256;
const FLAG_TRAP: u64 = 1 << 8;
const FLAG_DIRECTION: u64 = 1 << 10;
const FLAG_ALIGNMENT: u64 = 1 << 18;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Vector and error code of `int 0x80` where that gate does not exist.
const GENERAL_PROTECTION: u64 = 13;
const ERROR_INT80: u64 = 0x80 * 8 + 2;
const SI_KERNEL: i32 = 0x80;
const SI_TIMER: i32 = -2;
const BUS_ADRALN: i32 = 1;

/// From where on all code is the host's.
static CODE_BEGIN: AtomicU64 = AtomicU64::new(u64::MAX);

/// The signals that handlers are installed for, beside the kick.
const REFUSALS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// The kick's signal number.
pub fn kick() -> i32 {
    libc::SIGRTMIN() + 3
}

/// Installs the handlers, once for the process.
///
/// # Errors
///
/// [`PlatformError::Host`].
pub fn install(code_begin: u64) -> Result<(), PlatformError> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    CODE_BEGIN.store(code_begin, Ordering::Relaxed);
    INSTALLED
        .get_or_init(|| {
            for signal in REFUSALS.into_iter().chain([kick()]) {
                // SAFETY: an all-zero sigaction is a valid one.
                let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
                action.sa_sigaction = label::on_signal() as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
                // SAFETY: `action` is valid, and the handler is made for being one.
                let result = unsafe {
                    libc::sigfillset(&mut action.sa_mask);
                    libc::sigaction(signal, &action, core::ptr::null_mut())
                };
                if result != 0 {
                    return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
                }
            }
            Ok(())
        })
        .map_err(|errno| PlatformError::Host {
            call: "sigaction",
            what: "the handlers of vCPUs".to_owned(),
            source: std::io::Error::from_raw_os_error(errno),
        })
}

/// What vCPU threads block: all but the kick and the refusals.
pub fn vcpu_mask() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid one, and it is filled at once.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut set);
        for signal in REFUSALS.into_iter().chain([kick()]) {
            libc::sigdelset(&mut set, signal);
        }
        set
    }
}

/// The interrupted registers.
struct Interrupted<'a> {
    registers: &'a mut [i64; 23],
}

macro_rules! registers {
    ($($name:ident $set:ident $index:ident;)*) => {
        $(
            #[inline]
            fn $name(&self) -> u64 {
                self.registers[libc::$index as usize] as u64
            }
            #[inline]
            #[allow(dead_code, reason = "every register can be set")]
            fn $set(&mut self, value: u64) {
                self.registers[libc::$index as usize] = value as i64;
            }
        )*
    };
}

impl Interrupted<'_> {
    registers! {
        r8 set_r8 REG_R8; r9 set_r9 REG_R9; r10 set_r10 REG_R10; r11 set_r11 REG_R11;
        r12 set_r12 REG_R12; r13 set_r13 REG_R13; r14 set_r14 REG_R14; r15 set_r15 REG_R15;
        rdi set_rdi REG_RDI; rsi set_rsi REG_RSI; rbp set_rbp REG_RBP; rbx set_rbx REG_RBX;
        rdx set_rdx REG_RDX; rax set_rax REG_RAX; rcx set_rcx REG_RCX; rsp set_rsp REG_RSP;
        rip set_rip REG_RIP; flags set_flags REG_EFL; selectors set_selectors REG_CSGSFS;
        error set_error REG_ERR; vector set_vector REG_TRAPNO; address set_address REG_CR2;
    }

    /// Goes on at a label of the trampolines, which finds its context in r11.
    fn go_to_label(&mut self, label: u64, context: &Context) {
        self.set_r11(core::ptr::from_ref(context) as u64);
        self.go_to(label);
    }

    fn go_to(&mut self, address: u64) {
        self.set_rip(address);
        self.clear_flags(FLAG_TRAP | FLAG_DIRECTION | FLAG_ALIGNMENT);
    }

    fn clear_flags(&mut self, flags: u64) {
        self.set_flags(self.flags() & !flags);
    }

    fn trap_registers(&self) -> TrapRegisters {
        TrapRegisters {
            r15: self.r15(),
            r14: self.r14(),
            r13: self.r13(),
            r12: self.r12(),
            rbp: self.rbp(),
            rbx: self.rbx(),
            r11: self.r11(),
            r10: self.r10(),
            r9: self.r9(),
            r8: self.r8(),
            rax: self.rax(),
            rcx: self.rcx(),
            rdx: self.rdx(),
            rsi: self.rsi(),
            rdi: self.rdi(),
            orig_rax: u64::MAX,
            rip: self.rip(),
            cs: self.selectors() & 0xffff,
            rflags: self.flags(),
            rsp: self.rsp(),
            ss: self.selectors() >> 48,
        }
    }

    fn report_registers(&self) -> Registers {
        const NAMES: &[&str] = &[
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        let mut values = [0; REGISTERS];
        let all = [
            self.rax(),
            self.rcx(),
            self.rdx(),
            self.rbx(),
            self.rsp(),
            self.rbp(),
            self.rsi(),
            self.rdi(),
            self.r8(),
            self.r9(),
            self.r10(),
            self.r11(),
            self.r12(),
            self.r13(),
            self.r14(),
            self.r15(),
        ];
        for (place, value) in values.iter_mut().zip(all) {
            *place = value;
        }
        Registers {
            names: NAMES,
            values,
        }
    }

    fn report(&self, signal: i32, code: i32) -> FaultReport {
        FaultReport {
            signal,
            code,
            pc: self.rip(),
            address: self.address(),
            sp: self.rsp(),
            registers: self.report_registers(),
            capability: None,
        }
    }
}

/// Whose code a program counter is in, in mode Guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The thunk or the gates: on the way between the kernel and the monitor.
    Crossing,
    /// Other code of the host.
    Host,
    /// The kernel.
    Image,
    /// A program, or nothing.
    Program,
}

/// The vCPU that a signal interrupted.
struct Vcpu<'a> {
    context: &'a Context,
    own: *mut Own,
}

impl Vcpu<'_> {
    // The interrupted code may have a place inside `own` in its hands, so only single fields are read and written here.

    fn mode(&self) -> u64 {
        // SAFETY: only this thread uses `own`.
        unsafe { (*self.own).mode }
    }

    fn place(&self, pc: u64) -> Place {
        // SAFETY: only this thread uses `own`; these fields do not change while it runs.
        let (image, thunk) = unsafe {
            (
                (*self.own).image_begin..(*self.own).image_end,
                (*self.own).thunk_begin..(*self.own).thunk_end,
            )
        };
        if thunk.contains(&pc) || (label::gates_begin()..label::gates_end()).contains(&pc) {
            Place::Crossing
        } else if pc >= CODE_BEGIN.load(Ordering::Relaxed) {
            Place::Host
        } else if image.contains(&pc) {
            Place::Image
        } else {
            Place::Program
        }
    }

    fn entries(&self) -> Option<capstream_abi::GuestEntries> {
        // SAFETY: only this thread uses `own`; the entries are set as a whole in mode Host.
        unsafe { (*self.own).entries }
    }

    fn fault(&self, report: FaultReport, interrupted: &mut Interrupted<'_>) {
        // SAFETY: only this thread uses `own`.
        unsafe { (*self.own).leaving = Leaving::Faulted(report) };
        interrupted.go_to_label(label::leave(), self.context);
    }

    /// Abandons the portal that runs if that was demanded.
    fn abandon_on_demand(&self, interrupted: &mut Interrupted<'_>) {
        // SAFETY: only this thread uses `own`.
        let owner = unsafe { (*self.own).portal_owner };
        if self.context.attention.load(Ordering::SeqCst) & ATTENTION_ABANDON != 0
            && self.context.abandon_owner.load(Ordering::SeqCst) == owner
        {
            interrupted.go_to_label(label::portal_abandon(), self.context);
        }
    }

    /// Leaves a trap for the kernel.
    fn set_trap(&self, trap: TrapFrame) {
        // SAFETY: the page is mapped for as long as the context lives; the cVM's code, which also writes there, is not running.
        unsafe { (&raw mut (*self.context.page()).trap).write_volatile(trap) };
    }

    fn restore_gs(&self) {
        // SAFETY: sets the base that the cVM's code is entered with. The processor has the instruction: it was looked for.
        unsafe {
            asm!("wrgsbase {}", in(reg) (*self.own).guest_gs, options(nomem, nostack, preserves_flags))
        };
    }

    fn gs_is_wrong(&self) -> bool {
        let gs: u64;
        // SAFETY: as above.
        unsafe {
            asm!("rdgsbase {}", out(reg) gs, options(nomem, nostack, preserves_flags));
            gs != (*self.own).guest_gs
        }
    }

    /// A program runs: its kernel takes over.
    fn trap_to_kernel(&self, entry: u64, trap: TrapFrame, interrupted: &mut Interrupted<'_>) {
        self.set_trap(trap);
        self.restore_gs();
        interrupted.go_to(entry);
    }

    fn on_kick(&self, code: i32, interrupted: &mut Interrupted<'_>) {
        self.context.record.was_kicked();
        if code == SI_TIMER && self.context.set_own_pending(1 << irq::TIMER) {
            self.context.record.raised(irq::TIMER);
        }
        match self.mode() {
            MODE_GUEST => {}
            MODE_PORTAL => return self.abandon_on_demand(interrupted),
            _ => return,
        }
        if self.context.attention.load(Ordering::SeqCst) & ATTENTION_KILL != 0 {
            return interrupted.go_to_label(label::leave(), self.context);
        }
        let Some(entries) = self.entries() else {
            return;
        };
        let pc = interrupted.rip();
        match self.place(pc) {
            Place::Crossing | Place::Host => {}
            Place::Image => {
                if (entries.return_begin..entries.return_end).contains(&pc) {
                    interrupted.go_to(entries.return_again);
                }
            }
            Place::Program => {
                if self.context.has_pending() {
                    let trap = TrapFrame {
                        kind: TrapKind::Interrupt as u64,
                        registers: interrupted.trap_registers(),
                        ..TrapFrame::default()
                    };
                    self.trap_to_kernel(entries.trap_user, trap, interrupted);
                }
            }
        }
    }

    fn on_refusal(&self, signal: i32, info: &SignalInfo, interrupted: &mut Interrupted<'_>) {
        let pc = interrupted.rip();
        let mode = self.mode();
        let place = self.place(pc);
        let by_program = mode == MODE_GUEST && matches!(place, Place::Program | Place::Host);
        if !by_program && self.forgive(signal, info.code, interrupted) {
            return;
        }
        let report = interrupted.report(signal, info.code);
        match mode {
            MODE_GUEST => {}
            MODE_PORTAL => {
                // SAFETY: only this thread uses `own`.
                unsafe { (*self.own).portal_fault = Some(report) };
                return interrupted.go_to_label(label::portal_abandon(), self.context);
            }
            _ => return die(&report),
        }
        let Some(entries) = self.entries() else {
            return self.fault(report, interrupted);
        };
        let exception = TrapFrame {
            kind: TrapKind::Exception as u64,
            vector: interrupted.vector(),
            error: interrupted.error(),
            address: interrupted.address(),
            signal: u64::from(signal as u32) | u64::from(info.code as u32) << 32,
            registers: interrupted.trap_registers(),
        };
        match (place, signal) {
            (Place::Crossing, _) | (Place::Image, libc::SIGSYS) => {
                self.fault(report, interrupted);
            }
            (Place::Image, _) => self.kernel_fault(&entries, exception, report, interrupted),
            (_, libc::SIGSYS) => {
                let trap = if info.architecture == AUDIT_ARCH_X86_64 {
                    let mut registers = interrupted.trap_registers();
                    registers.orig_rax = registers.rax;
                    TrapFrame {
                        kind: TrapKind::Syscall as u64,
                        registers,
                        ..TrapFrame::default()
                    }
                } else {
                    // A system call of 32-bit programs: as on a kernel that has none, the instruction is refused.
                    let mut registers = interrupted.trap_registers();
                    registers.rip = registers.rip.wrapping_sub(2);
                    TrapFrame {
                        vector: GENERAL_PROTECTION,
                        error: ERROR_INT80,
                        address: 0,
                        signal: u64::from(libc::SIGSEGV as u32) | u64::from(SI_KERNEL as u32) << 32,
                        registers,
                        ..exception
                    }
                };
                self.trap_to_kernel(entries.trap_user, trap, interrupted);
            }
            (_, libc::SIGILL) => {
                // SAFETY: only this thread uses `own`, and it changes the patches in mode Host.
                let patches = unsafe { &(*self.own).patches };
                let resume = patches
                    .as_ref()
                    .and_then(|patches| patches.on_invalid_opcode(pc));
                match resume {
                    Some(resume) => interrupted.set_rip(resume),
                    None => self.trap_to_kernel(entries.trap_user, exception, interrupted),
                }
            }
            _ => self.trap_to_kernel(entries.trap_user, exception, interrupted),
        }
    }

    /// Whether the refusal came from what a program left behind in a register that its kernel and the monitor do not look at: the
    /// flags for single steps and alignment checks, the GS base. Then that is put right, and the instruction is tried again.
    fn forgive(&self, signal: i32, code: i32, interrupted: &mut Interrupted<'_>) -> bool {
        if signal == libc::SIGTRAP && interrupted.flags() & FLAG_TRAP != 0 {
            interrupted.clear_flags(FLAG_TRAP);
            return true;
        }
        if signal == libc::SIGBUS && code == BUS_ADRALN && interrupted.flags() & FLAG_ALIGNMENT != 0
        {
            interrupted.clear_flags(FLAG_ALIGNMENT);
            return true;
        }
        if self.mode() == MODE_GUEST && self.gs_is_wrong() {
            self.restore_gs();
            return true;
        }
        false
    }

    fn kernel_fault(
        &self,
        entries: &capstream_abi::GuestEntries,
        exception: TrapFrame,
        report: FaultReport,
        interrupted: &mut Interrupted<'_>,
    ) {
        // SAFETY: the page is mapped for as long as the context lives.
        let in_fault = unsafe { &(*self.context.page()).in_kernel_fault };
        if in_fault.swap(1, Ordering::SeqCst) != 0 {
            return self.fault(report, interrupted);
        }
        self.set_trap(exception);
        interrupted.set_rsp(interrupted.rsp().wrapping_sub(RED_ZONE) & !15);
        interrupted.go_to(entries.trap_kernel);
    }
}

/// What is needed of `siginfo_t`.
struct SignalInfo {
    code: i32,
    /// For SIGSYS.
    architecture: u32,
}

/// The signal handler, called by `capstream_on_signal`.
pub(super) extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    ucontext: *mut libc::c_void,
) {
    /// Where `si_arch` is.
    const ARCHITECTURE: usize = 28;
    // SAFETY: the kernel passes valid pointers; `siginfo_t` has 128 bytes.
    let (info, registers) = unsafe {
        (
            SignalInfo {
                code: (*info).si_code,
                architecture: info.byte_add(ARCHITECTURE).cast::<u32>().read(),
            },
            &mut (*ucontext.cast::<libc::ucontext_t>()).uc_mcontext.gregs,
        )
    };
    let mut interrupted = Interrupted { registers };
    let pc = interrupted.rip();
    if (signal == libc::SIGSEGV || signal == libc::SIGBUS)
        && (label::copy_begin()..label::copy_fault()).contains(&pc)
    {
        // An unaligned access with alignment checks on is tried again without.
        if signal == libc::SIGBUS
            && info.code == BUS_ADRALN
            && interrupted.flags() & FLAG_ALIGNMENT != 0
        {
            interrupted.clear_flags(FLAG_ALIGNMENT);
        } else {
            interrupted.set_rip(label::copy_fault());
        }
        return;
    }
    let Some(context) = signal_stack::context_at(ucontext as u64) else {
        if signal != kick() {
            die(&interrupted.report(signal, info.code));
        }
        return;
    };
    let vcpu = Vcpu {
        context,
        own: context.own.get(),
    };
    if signal == kick() {
        vcpu.on_kick(info.code, &mut interrupted);
    } else {
        vcpu.on_refusal(signal, &info, &mut interrupted);
    }
}

/// The monitor did something wrong itself. Says so, and has the process end by the signal when the handler returns.
#[cold]
fn die(report: &FaultReport) {
    let mut line = Line::new();
    line.text(b"monitor: internal error: signal ");
    line.decimal(report.signal as u64);
    line.text(b" at ");
    line.hexadecimal(report.pc);
    line.text(b" (");
    line.hexadecimal(report.pc.wrapping_sub(CODE_BEGIN.load(Ordering::Relaxed)));
    line.text(b" from the begin of its code), address ");
    line.hexadecimal(report.address);
    line.text(b"; this is a bug of the monitor, please report it\n");
    line.write();
    /// The kernel's own `struct sigaction`.
    #[repr(C)]
    struct KernelAction {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let default = KernelAction {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    // SAFETY: `default` is a valid action of the kernel's format.
    unsafe {
        raw_syscall::syscall4(
            libc::SYS_rt_sigaction,
            report.signal as usize,
            &raw const default as usize,
            0,
            size_of::<u64>(),
        );
    }
    // It is blocked until the handler returns.
    raw_syscall::tgkill(raw_syscall::getpid(), raw_syscall::gettid(), report.signal);
}

/// A line of text in a buffer of its own, without allocation.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Line {
    fn new() -> Line {
        Line {
            bytes: [0; 256],
            len: 0,
        }
    }

    fn text(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn decimal(&mut self, value: u64) {
        let mut divisor = 1;
        while value / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.text(&[b'0' + (value / divisor % 10) as u8]);
            divisor /= 10;
        }
    }

    fn hexadecimal(&mut self, value: u64) {
        self.text(b"0x");
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let value = (value >> (4 * digit) & 15) as u8;
            self.text(&[if value < 10 {
                b'0' + value
            } else {
                b'a' + value - 10
            }]);
        }
    }

    fn write(&self) {
        raw_syscall::write(2, self.bytes.get(..self.len).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn lines_are_formatted_without_the_standard_library() {
        let mut line = Line::new();
        line.text(b"a ");
        line.decimal(0);
        line.text(b" ");
        line.decimal(1090);
        line.text(b" ");
        line.hexadecimal(0);
        line.text(b" ");
        line.hexadecimal(0xdead_beef_0012_3456);
        assert_eq!(&line.bytes[..line.len], b"a 0 1090 0x0 0xdeadbeef00123456");
        for _ in 0..100 {
            line.text(b"more than fits");
        }
        assert_eq!(line.len, line.bytes.len());
    }
}
