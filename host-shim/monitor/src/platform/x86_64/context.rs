// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one vCPU, the trampolines, the signal handlers and other threads share.
//!
//! # States
//!
//! [`Context::mode`] says whose code the vCPU's thread runs. Only that thread writes it.
//!
//! ```text
//!   Host --enter--> Guest --gate--> Host --gate's return--> Guest
//!                     |              | ^
//!                     |   call_portal| |portal returns, is abandoned, or faults
//!                     |              v |
//!                     |            Portal <--gate, gate's return--> Host
//!                     +--leave--> Host
//! ```
//!
//! No frame of Rust that belongs to the vCPU is active above `enter` in Guest, nor above `call_portal` in Portal: the thread can be
//! taken out of both at any instruction. In Host it never is.
//!
//! # Attention
//!
//! [`Context::attention`] is set by others, who then send the kick. The kick's handler acts on it in Guest and in Portal. In Host
//! nothing happens then; the gate looks after it has written the mode that it returns to. So a request is seen by the handler or by the gate.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use capstream_abi::GuestEntries;
use capstream_abi::x86_64::VcpuPage;
use capstream_syscall_patch::PatchTable;

use super::shared_page::SharedPage;
use super::{futex, raw_syscall};
use crate::platform::thread_clock::ThreadClock;
use crate::platform::{FaultReport, Hostcalls, PortalRun};
use crate::vcpu_record::VcpuRecord;

/// [`Context::mode`]: the monitor's code.
pub const MODE_HOST: u64 = 0;
/// [`Context::mode`]: the cVM's code.
pub const MODE_GUEST: u64 = 1;
/// [`Context::mode`]: a portal of another cVM.
pub const MODE_PORTAL: u64 = 2;

/// [`Context::attention`]: leave the cVM.
pub const ATTENTION_KILL: u32 = 1;
/// [`Context::attention`]: abandon the portal of [`Context::abandon_owner`].
pub const ATTENTION_ABANDON: u32 = 2;

/// [`Context::idle`]: the vCPU runs.
const RUNNING: u32 = 0;
/// [`Context::idle`]: it sleeps or is about to, and needs a wake-up.
const SLEEPING: u32 = 1;
/// [`Context::idle`]: it looks at its pending word all the time.
const POLLING: u32 = 2;

/// How many timers a vCPU can have.
pub const TIMERS: usize = 4;

/// Why the thread came back from `enter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each cVM, and a signal handler or a hostcall that makes it may not allocate"
)]
pub enum Leaving {
    /// Because of [`ATTENTION_KILL`] by another thread; it says so unless another reason was given.
    Killed,
    /// The cVM asked for it.
    PoweredOff,
    /// Something was refused.
    Faulted(FaultReport),
    /// The monitor's own code panicked in a hostcall.
    Panicked,
}

/// What only the vCPU's own thread touches, its signal handlers included. The fields with a fixed place come first, for the trampolines.
#[repr(C)]
pub struct Own {
    /// Where `enter` left its frame.
    pub enter_rsp: u64,
    /// Where the gate begins its frame.
    pub host_rsp: u64,
    /// The thread pointer of the monitor.
    pub host_fs: u64,
    /// The vCPU page in the cVM's range, as the GS base of its code.
    pub guest_gs: u64,
    /// Whose code runs.
    pub mode: u64,
    /// Whose portal runs, in [`MODE_PORTAL`] and in hostcalls of a portal.
    pub portal_owner: u64,
    /// The part of the thunk page that calls a portal.
    pub portal_thunk: u64,
    /// The part of the thunk page that is a portal's gate.
    pub portal_gate: u64,
    /// Where the vector state goes during a full hostcall.
    pub xsave_area: u64,
    /// Which components of it.
    pub xsave_mask: u64,

    /// First byte of the image.
    pub image_begin: u64,
    /// Byte after it.
    pub image_end: u64,
    /// First byte of the thunk page.
    pub thunk_begin: u64,
    /// Byte after it.
    pub thunk_end: u64,
    /// The kernel's entries, once it has given them.
    pub entries: Option<GuestEntries>,
    /// The kernel's timers, as the host numbers them.
    pub timers: [Option<i32>; TIMERS],
    /// The patches in the cVM's programs, from the moment that its kernel can take system calls until it is left.
    pub patches: Option<PatchTable>,
    /// The patches in programs that are seen through a window. Handlers do not use them: what they would read may not be there.
    pub window_patches: Vec<PatchTable>,
    /// What a portal that was left did.
    pub portal_fault: Option<FaultReport>,
    /// Why the cVM is left.
    pub leaving: Leaving,
    /// How idle periods begin.
    pub polling: Polling,
}

/// Which portal a vCPU runs. It has a cache line of its own: the vCPU writes it with each message, and what is around it is what others look
/// at to wake the vCPU.
#[derive(Default)]
#[repr(align(64))]
struct PortalMark {
    /// The owner of the portal, plus one; 0 when none runs. Only the vCPU's thread writes it, and the next.
    of: AtomicU64,
    /// How many portals were begun.
    runs: AtomicU64,
}

/// One vCPU. It stays at its address for as long as its thread or anybody who can reach it lives.
#[repr(C, align(64))]
pub struct Context {
    /// For the vCPU's own thread.
    pub own: UnsafeCell<Own>,
    /// Requests of others: [`ATTENTION_KILL`], [`ATTENTION_ABANDON`].
    pub attention: AtomicU32,
    /// Whose portal is to be abandoned.
    pub abandon_owner: AtomicU64,
    /// The portal that runs.
    portal: PortalMark,
    /// [`RUNNING`], [`SLEEPING`] or [`POLLING`].
    idle: AtomicU32,
    /// Whether the thread is in a hostcall that has all of the monitor's state, which only the thread writes. The kernel that made it looks at the pending word before a program goes on, so that a
    /// kick would do nothing but interrupt the monitor. Devices answer in such hostcalls, with interrupts for the vCPU that asks them.
    in_hostcall: AtomicBool,
    /// Counts wake-ups; the sleeper waits for it to change.
    wake_ups: AtomicU32,
    /// The thread; 0 before it started and after it ended.
    tid: AtomicI32,
    /// Its processor time.
    pub clock: ThreadClock,
    /// The process.
    pid: i32,
    /// The kick's signal number.
    kick: i32,
    /// The vCPU page, by a mapping that belongs to the monitor and stays when the cVM's range is gone.
    page: SharedPage,
    /// What the vCPU did.
    pub record: Arc<VcpuRecord>,
    /// What answers hostcalls while the thread runs.
    pub calls: UnsafeCell<Option<*const dyn Hostcalls>>,
}

// SAFETY: `own` and `calls` are used by the vCPU's thread only; everything else is atomic or a lock.
unsafe impl Sync for Context {}
// SAFETY: as for `Sync`; nothing in it is bound to a thread before the thread runs.
unsafe impl Send for Context {}

/// How many vCPUs are not asleep. Polling takes a processor from others when there are more than processors.
static AWAKE: AtomicU32 = AtomicU32::new(0);

impl Context {
    /// A vCPU whose shared page is `page`.
    pub fn new(own: Own, page: SharedPage, kick: i32, record: Arc<VcpuRecord>) -> Context {
        Context {
            own: UnsafeCell::new(own),
            attention: AtomicU32::new(0),
            abandon_owner: AtomicU64::new(0),
            portal: PortalMark::default(),
            idle: AtomicU32::new(RUNNING),
            in_hostcall: AtomicBool::new(false),
            wake_ups: AtomicU32::new(0),
            tid: AtomicI32::new(0),
            clock: ThreadClock::new(),
            pid: std::process::id() as i32,
            kick,
            page,
            record,
            calls: UnsafeCell::new(None),
        }
    }

    /// The page that the vCPU and the monitor share, by the monitor's mapping.
    #[inline]
    pub fn page(&self) -> *mut VcpuPage {
        self.page.pointer()
    }

    #[inline]
    fn pending(&self) -> &AtomicU64 {
        // SAFETY: the monitor's mapping of the page lives as long as the context; the field is only accessed atomically, by
        // the cVM too.
        unsafe { &(*self.page()).pending }
    }

    /// From now on there is a thread to kick.
    pub fn started(&self) {
        AWAKE.fetch_add(1, Ordering::Relaxed);
        self.clock.start();
        self.tid.store(raw_syscall::gettid(), Ordering::SeqCst);
    }

    /// From now on there is none.
    pub fn ended(&self) {
        self.tid.store(0, Ordering::SeqCst);
        self.clock.stop();
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn send_kick(&self) {
        let tid = self.tid.load(Ordering::SeqCst);
        if tid != 0 {
            raw_syscall::tgkill(self.pid, tid, self.kick);
        }
    }

    #[inline]
    fn send_wake_up(&self) {
        self.wake_ups.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.wake_ups);
    }

    /// Sets bits of the pending word; wakes or kicks the vCPU if it might not notice by itself. Returns whether one was not set before.
    #[inline]
    pub fn set_pending(&self, bits: u64) -> bool {
        let before = self.pending().fetch_or(bits, Ordering::SeqCst);
        match self.idle.load(Ordering::SeqCst) {
            SLEEPING => self.send_wake_up(),
            // Somebody else set a bit and kicked before, and the kernel has not looked since.
            // If the hostcall has ended since, then after the bit was set, which the kernel sees therefore.
            RUNNING if before == 0 && !self.in_hostcall.load(Ordering::SeqCst) => self.send_kick(),
            _ => {}
        }
        before & bits != bits
    }

    /// The thread begins a hostcall with all of the monitor's state, or is about to go back to the kernel. Returns what was said before.
    #[inline]
    pub fn set_in_hostcall(&self, is: bool) -> bool {
        self.in_hostcall.swap(is, Ordering::SeqCst)
    }

    /// Whether an interrupt is pending, as the cVM's kernel has left the word.
    #[inline]
    pub fn has_pending(&self) -> bool {
        self.pending().load(Ordering::SeqCst) != 0
    }

    /// As [`Context::set_pending`], on the vCPU's own thread: in a signal handler or a hostcall.
    #[inline]
    pub fn set_own_pending(&self, bits: u64) -> bool {
        let before = self.pending().fetch_or(bits, Ordering::SeqCst);
        // If a handler interrupted the thread between its last look and its sleep, then it does not sleep.
        self.wake_ups.fetch_add(1, Ordering::SeqCst);
        before & bits != bits
    }

    /// Asks the vCPU for `what`.
    pub fn demand(&self, what: u32) {
        self.attention.fetch_or(what, Ordering::SeqCst);
        self.send_wake_up();
        self.send_kick();
    }

    /// Whether the cVM is to be left.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.attention.load(Ordering::SeqCst) & ATTENTION_KILL != 0
    }

    /// Publishes that a portal begins, for [`Context::in_portal_of`]. Those who look do so again until it is as they want: the stores need
    /// not be seen at once.
    #[inline]
    pub fn begin_portal_of(&self, owner: u64) {
        let PortalMark { of, runs } = &self.portal;
        let number = runs.load(Ordering::Relaxed).wrapping_add(1);
        runs.store(number, Ordering::Relaxed);
        of.store(owner.wrapping_add(1), Ordering::Release);
    }

    /// Publishes that it is over.
    #[inline]
    pub fn end_portal(&self) {
        self.portal.of.store(0, Ordering::Release);
    }

    /// Whose portal runs, if any.
    #[inline]
    pub fn in_portal_of(&self) -> Option<u64> {
        self.portal.of.load(Ordering::Acquire).checked_sub(1)
    }

    /// Which portal run that is.
    pub fn portal_run(&self) -> Option<PortalRun> {
        let number = self.portal.runs.load(Ordering::Acquire);
        let owner = self.in_portal_of()?;
        // Whoever published the owner had numbered the run before.
        (self.portal.runs.load(Ordering::Acquire) == number).then_some(PortalRun { owner, number })
    }

    /// Waits until the pending word is not 0 or the cVM is to be left. `poll` says how long to poll first, and adapts.
    ///
    /// No wake-up is lost: before it sleeps the thread declares so, then looks once more, and sleeps only while no wake-up came since
    /// before that look. Whoever sets a bit looks afterwards whether the thread has declared so.
    pub fn wait_for_pending(&self, poll: &mut Polling) {
        let done = || self.pending().load(Ordering::SeqCst) != 0 || self.is_killed();
        if done() {
            return;
        }
        let begin = cycles();
        if poll.now > 0 && AWAKE.load(Ordering::Relaxed) <= poll.processors {
            self.idle.store(POLLING, Ordering::SeqCst);
            while cycles().wrapping_sub(begin) < poll.now {
                if done() {
                    self.idle.store(RUNNING, Ordering::SeqCst);
                    self.record.polled();
                    return;
                }
                core::hint::spin_loop();
            }
        }
        AWAKE.fetch_sub(1, Ordering::Relaxed);
        self.record.falls_asleep();
        self.idle.store(SLEEPING, Ordering::SeqCst);
        loop {
            let seen = self.wake_ups.load(Ordering::SeqCst);
            if done() {
                break;
            }
            futex::wait(&self.wake_ups, seen);
        }
        self.idle.store(RUNNING, Ordering::SeqCst);
        self.record.wakes_up();
        AWAKE.fetch_add(1, Ordering::Relaxed);
        poll.adapt(cycles().wrapping_sub(begin));
    }
}

/// How long an idle vCPU looks at its pending word before it sleeps, in cycles of the time stamp counter.
///
/// It grows while wake-ups come soon enough that polling would have caught them, and shrinks to nothing while they do not.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    now: u64,
    most: u64,
    processors: u32,
}

impl Polling {
    /// What polling begins with, about 8 µs.
    const LEAST: u64 = 1 << 14;

    /// Polls for at most `most` cycles, and only while no more than `processors` vCPUs are awake.
    pub const fn new(most: u64, processors: u32) -> Polling {
        Polling {
            now: 0,
            most,
            processors,
        }
    }

    fn adapt(&mut self, waited: u64) {
        self.now = if waited > self.most {
            let half = self.now / 2;
            if half < Polling::LEAST { 0 } else { half }
        } else {
            (self.now * 2).max(Polling::LEAST).min(self.most)
        };
    }
}

#[inline]
fn cycles() -> u64 {
    // SAFETY: reads the time stamp counter, which every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}
