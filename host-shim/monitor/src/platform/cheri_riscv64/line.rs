// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How any thread reaches a vCPU.
//!
//! Others only set words here, then call the vCPU's attention, which stops its hart soon, and wake its thread if it sleeps. The vCPU's
//! thread looks at the words when its hart has stopped, before it lets the cVM's code go on after a hostcall, and around its sleep. A
//! thread's wake-up is remembered until its next sleep, so none is lost.

use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use capstream_hart::Attention;

use super::compartment::Compartment;
use crate::platform::thread_clock::ThreadClock;
use crate::platform::{PortalRun, VcpuLine};
use crate::vcpu_record::VcpuRecord;

/// Demand: leave the cVM.
const KILL: u32 = 1;
/// Demand: abandon a portal.
const ABANDON: u32 = 2;

/// One vCPU as others see it.
pub struct Line {
    /// Interrupts that the vCPU's thread has not taken yet.
    posted: AtomicU64,
    demands: AtomicU32,
    /// Whose portal is to be abandoned.
    abandon_owner: AtomicU64,
    /// The owner of the portal that runs, plus one; 0 when none does.
    portal_of: AtomicU64,
    /// How many portals were begun.
    portal_runs: AtomicU64,
    attention: Arc<Attention>,
    thread: OnceLock<Thread>,
    clock: ThreadClock,
    compartment: Compartment,
    record: Arc<VcpuRecord>,
}

impl Line {
    /// The line of a vCPU whose hart has this attention.
    pub fn new(
        attention: Arc<Attention>,
        compartment: Compartment,
        record: Arc<VcpuRecord>,
    ) -> Line {
        Line {
            posted: AtomicU64::new(0),
            demands: AtomicU32::new(0),
            abandon_owner: AtomicU64::new(0),
            portal_of: AtomicU64::new(0),
            portal_runs: AtomicU64::new(0),
            attention,
            thread: OnceLock::new(),
            clock: ThreadClock::new(),
            compartment,
            record,
        }
    }

    /// From now on this thread runs the vCPU.
    pub fn started(&self) {
        // A vCPU is run once.
        let _ = self.thread.set(std::thread::current());
        self.clock.start();
    }

    /// From now on no thread does.
    pub fn ended(&self) {
        self.clock.stop();
    }

    /// The capabilities of the vCPU's cVM.
    pub fn compartment(&self) -> &Compartment {
        &self.compartment
    }

    /// What the vCPU did.
    pub fn record(&self) -> &VcpuRecord {
        &self.record
    }

    fn notice(&self) {
        self.attention.raise();
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// An interrupt for the vCPU's own thread, which looks anyway.
    pub fn post(&self, irq: u32) {
        if let Some(bit) = 1u64.checked_shl(irq)
            && self.posted.fetch_or(bit, Ordering::SeqCst) & bit == 0
        {
            self.record.raised(irq);
        }
    }

    /// Takes what was posted.
    pub fn take_posted(&self) -> u64 {
        // Most of the time there is nothing.
        if self.posted.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        self.posted.swap(0, Ordering::SeqCst)
    }

    /// Has the vCPU's own thread leave the cVM at its next look.
    pub fn leave(&self) {
        self.demands.fetch_or(KILL, Ordering::SeqCst);
    }

    /// Whether the cVM is to be left.
    pub fn is_killed(&self) -> bool {
        self.demands.load(Ordering::SeqCst) & KILL != 0
    }

    /// Whether the portal that runs is to be abandoned.
    pub fn is_abandoned(&self) -> bool {
        self.demands.load(Ordering::SeqCst) & ABANDON != 0
            && self.in_portal_of() == Some(self.abandon_owner.load(Ordering::SeqCst))
    }

    /// Says whose portal runs, if any. A demand to abandon one ends with it.
    pub fn set_portal_of(&self, owner: Option<u64>) {
        let word = owner.map_or(0, |owner| owner.wrapping_add(1));
        if owner.is_some() {
            self.portal_runs.fetch_add(1, Ordering::SeqCst);
        }
        self.portal_of.store(word, Ordering::SeqCst);
        if owner.is_none() {
            self.demands.fetch_and(!ABANDON, Ordering::SeqCst);
        }
    }
}

impl VcpuLine for Line {
    fn raise(&self, irq: u32) {
        self.post(irq);
        self.notice();
    }

    fn kill(&self) {
        self.leave();
        self.notice();
    }

    fn abandon_portal(&self, owner: u64) {
        self.abandon_owner.store(owner, Ordering::SeqCst);
        self.demands.fetch_or(ABANDON, Ordering::SeqCst);
        self.notice();
    }

    fn in_portal_of(&self) -> Option<u64> {
        self.portal_of.load(Ordering::SeqCst).checked_sub(1)
    }

    fn portal_run(&self) -> Option<PortalRun> {
        let number = self.portal_runs.load(Ordering::SeqCst);
        let owner = self.in_portal_of()?;
        // Whoever published the owner had numbered the run before.
        (self.portal_runs.load(Ordering::SeqCst) == number).then_some(PortalRun { owner, number })
    }

    fn processor_time(&self) -> Option<Duration> {
        self.clock.read()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
