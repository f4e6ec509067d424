// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What hostcalls need of the processor, on a simulated hart.
//!
//! The monitor's own code runs on the host as everywhere else: its thread state is always its own.

use std::ops::Range;
use std::time::Instant;

use capstream_abi::{GuestEntries, irq};

use super::vcpu::{Leaving, Running};
use crate::platform::{Fault, FaultReport, PortalCall, PortalFailure, Processor, VcpuLine};

impl Processor for Running<'_> {
    fn in_portal(&self) -> bool {
        Running::in_portal(self)
    }

    fn is_killed(&self) -> bool {
        self.line.is_killed()
    }

    fn call_portal(&self, call: &PortalCall, owner: &dyn VcpuLine) -> Result<i64, PortalFailure> {
        Running::call_portal(self, call, owner)
    }

    fn take_portal_fault(&self) -> Option<FaultReport> {
        self.portal_fault.take()
    }

    fn copy(&self, destination: u64, source: u64, len: u64) -> Result<(), Fault> {
        Running::copy(self, destination, source, len)
    }

    fn set_entries(&self, entries: &GuestEntries) -> bool {
        if self.entries.get().is_some() {
            return false;
        }
        self.entries.set(Some(*entries));
        true
    }

    fn raise(&self, irq: u32) {
        self.line.post(irq);
    }

    fn wait_for_interrupt(&self) {
        loop {
            if self.timers.take_expired() {
                self.line.post(irq::TIMER);
            }
            if self.take_interrupts() != 0 || self.line.is_killed() {
                return;
            }
            // A wake-up since the look above is remembered: then neither of these waits.
            self.line.record().falls_asleep();
            match self.timers.next() {
                Some(deadline) => {
                    std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
                }
                None => std::thread::park(),
            }
            self.line.record().wakes_up();
        }
    }

    fn timer_alloc(&self) -> Option<u64> {
        self.timers.alloc()
    }

    fn timer_set(&self, timer: u64, ns: u64) -> bool {
        self.timers.set(timer, ns)
    }

    fn timer_free(&self, timer: u64) -> bool {
        self.timers.free(timer)
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn power_off(&self) {
        self.leave(Leaving::PoweredOff);
    }

    fn patch_syscall(&self, _ip: u64) -> i64 {
        // A system call traps to the monitor, which costs a few hundred instructions' time on a simulated hart.
        -i64::from(libc::ENOSYS)
    }

    fn translate_ip(&self, ip: u64, _direction: u64) -> i64 {
        ip as i64
    }

    fn forget_code(&self, _begin: u64, _end: u64) {}

    fn add_patches(&self, _code: Range<u64>, _stubs_at: Range<u64>) -> bool {
        false
    }

    fn set_patches(&self, _stubs: u64, _stubs_len: u64, _code: Range<u64>, _entry: u64) -> bool {
        false
    }

    fn with_monitor_state(&self, work: &mut dyn FnMut() -> i64) -> i64 {
        work()
    }

    fn with_thread_state(&self, work: &mut dyn FnMut() -> i64) -> i64 {
        work()
    }
}
