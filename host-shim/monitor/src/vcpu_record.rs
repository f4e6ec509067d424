// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a vCPU did, in numbers that any thread can read while it runs.
//!
//! Every counter of the message path has one writer, the vCPU's thread: adding is a load and a store, without a locked instruction, in
//! cache lines that nobody else writes to. A signal handler of that thread has a counter of its own, since it may come between the two.
//! Interrupts are raised by anybody; that costs system calls or another processor's cache line anyway, and they are counted by atomic
//! additions.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use capstream_abi::{Hostcall, irq};

use crate::trace::ring::{Event, Ring, VcpuState};

/// A number that one thread adds to, and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. One thread at a time may do so, or something is lost.
    #[inline]
    pub fn add(&self, n: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// The number now, or a moment ago.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What only the vCPU's thread adds to, outside of signal handlers.
#[derive(Debug)]
#[repr(align(64))]
struct Own {
    /// By the place in [`Hostcall::ALL`].
    hostcalls: [Counter; Hostcall::COUNT],
    unknown_hostcalls: Counter,
    messages: Counter,
    message_bytes: Counter,
    portal_runs: Counter,
    polls: Counter,
    sleeps: Counter,
    awakenings: Counter,
    console_bytes: Counter,
    log_bytes: Counter,
}

/// What the thread's signal handlers add to.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InHandlers {
    kicks: Counter,
}

/// [`HostThread::id`] before it runs the vCPU.
const NOT_YET: u64 = 0;
/// [`HostThread::id`] of one that the host does not tell the number of.
const UNKNOWN: u64 = u64::MAX;

/// Sources of interrupts that are told apart.
const SOURCES: usize = 5;

/// By source: timer, console, capability, power button, devices.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Raised([AtomicU64; SOURCES]);

/// The thread of the host that runs the vCPU.
#[derive(Debug, Default)]
#[repr(align(64))]
struct HostThread {
    /// [`NOT_YET`], [`UNKNOWN`], or the host's number of it.
    id: AtomicU64,
    /// What it had used when it ended.
    used_ns: AtomicU64,
    ended: AtomicBool,
}

/// What one vCPU did.
#[derive(Debug)]
pub struct VcpuRecord {
    own: Own,
    in_handlers: InHandlers,
    raised: Raised,
    thread: HostThread,
    /// Where what it does is recorded for a trace, if there is one.
    ring: Option<Arc<Ring>>,
}

impl Default for VcpuRecord {
    fn default() -> VcpuRecord {
        VcpuRecord::new(None)
    }
}

/// Interrupts that became pending, by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Interrupts {
    /// From its timers.
    pub timer: u64,
    /// From console input and standard streams.
    pub console: u64,
    /// From portals, peers, new keys and revocations.
    pub capability: u64,
    /// From the operator.
    pub power_button: u64,
    /// From virtio devices.
    pub devices: u64,
}

impl Interrupts {
    /// From whatever.
    pub const fn total(&self) -> u64 {
        self.timer + self.console + self.capability + self.power_button + self.devices
    }
}

impl VcpuRecord {
    /// Of a vCPU that has not run; with `ring`, where there is a trace.
    pub fn new(ring: Option<Arc<Ring>>) -> VcpuRecord {
        VcpuRecord {
            own: Own {
                hostcalls: [const { Counter(AtomicU64::new(0)) }; Hostcall::COUNT],
                unknown_hostcalls: Counter::default(),
                messages: Counter::default(),
                message_bytes: Counter::default(),
                portal_runs: Counter::default(),
                polls: Counter::default(),
                sleeps: Counter::default(),
                awakenings: Counter::default(),
                console_bytes: Counter::default(),
                log_bytes: Counter::default(),
            },
            in_handlers: InHandlers::default(),
            raised: Raised::default(),
            thread: HostThread::default(),
            ring,
        }
    }

    // By the vCPU's thread.

    /// Its kernel, or a portal on its thread, made this hostcall; `None` for a number that is none.
    #[inline]
    pub fn hostcall(&self, call: Option<Hostcall>) {
        let counter = call.and_then(|call| self.own.hostcalls.get(call.index()));
        counter.unwrap_or(&self.own.unknown_hostcalls).add(1);
    }

    /// A portal has run on it; `None` when it did not return.
    #[inline]
    pub fn portal_ran(&self, result: Option<i64>) {
        self.own.portal_runs.add(1);
        if let Some(ring) = &self.ring {
            ring.end(Event::PortalEnds { result });
        }
    }

    /// It has sent a message.
    #[inline]
    pub fn sent(&self, bytes: u64) {
        self.own.messages.add(1);
        self.own.message_bytes.add(bytes);
    }

    /// An interrupt came while it polled.
    #[inline]
    pub fn polled(&self) {
        self.own.polls.add(1);
    }

    /// It is about to sleep.
    #[inline]
    pub fn falls_asleep(&self) {
        self.own.sleeps.add(1);
        self.changes(VcpuState::Asleep);
    }

    /// It does not sleep any more.
    #[inline]
    pub fn wakes_up(&self) {
        self.own.awakenings.add(1);
        self.changes(VcpuState::Running);
    }

    #[inline]
    fn changes(&self, state: VcpuState) {
        if let Some(ring) = &self.ring {
            ring.instant(Event::Changes { state });
        }
    }

    /// A hostcall begins; only a trace wants to know.
    #[inline]
    pub fn hostcall_begins(&self, number: u64) {
        if let Some(ring) = &self.ring {
            ring.begin(Event::HostcallBegins { number });
        }
    }

    /// The hostcall that began ends.
    #[inline]
    pub fn hostcall_ends(&self, result: i64) {
        if let Some(ring) = &self.ring {
            ring.end(Event::HostcallEnds { result });
        }
    }

    /// A portal begins.
    #[inline]
    pub fn portal_begins(&self, owner: u64, delivers: bool, len: u64) {
        if let Some(ring) = &self.ring {
            ring.begin(Event::PortalBegins {
                owner,
                delivers,
                len,
            });
        }
    }

    /// Its programs wrote this much.
    pub fn wrote_to_console(&self, bytes: u64) {
        self.own.console_bytes.add(bytes);
    }

    /// Its kernel logged this much.
    pub fn logged(&self, bytes: u64) {
        self.own.log_bytes.add(bytes);
    }

    /// Its thread was interrupted so that it looks; in the handler, which nothing interrupts.
    #[inline]
    pub fn was_kicked(&self) {
        self.in_handlers.kicks.add(1);
    }

    /// The calling thread runs it from now on.
    pub fn thread_begins(&self) {
        self.thread
            .id
            .store(thread_id().unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.changes(VcpuState::Running);
    }

    /// The calling thread, which is the vCPU's, does not run it any more.
    pub fn thread_ends(&self) {
        let used = processor_time(self.thread.id.load(Ordering::Relaxed));
        self.thread
            .used_ns
            .store(used.unwrap_or(0), Ordering::Relaxed);
        self.thread.ended.store(true, Ordering::Release);
        self.changes(VcpuState::Ended);
        if let Some(ring) = &self.ring {
            ring.close();
        }
    }

    // By any thread.

    /// An interrupt became pending.
    #[inline]
    pub fn raised(&self, irq: u32) {
        let source = match irq {
            irq::TIMER => 0,
            irq::CONSOLE | irq::STREAMS => 1,
            irq::CAPABILITY => 2,
            irq::POWER_BUTTON => 3,
            _ => 4,
        };
        if let Some(counter) = self.raised.0.get(source) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each hostcall was made, in the order of the table, without those that were not.
    pub fn hostcalls(&self) -> impl Iterator<Item = (Hostcall, u64)> {
        Hostcall::ALL
            .iter()
            .zip(&self.own.hostcalls)
            .map(|(call, counter)| (*call, counter.get()))
            .filter(|(_, count)| *count > 0)
    }

    /// How many hostcalls had a number that is none.
    pub fn unknown_hostcalls(&self) -> u64 {
        self.own.unknown_hostcalls.get()
    }

    /// Messages that it has sent, and their bytes.
    pub fn messages(&self) -> (u64, u64) {
        (self.own.messages.get(), self.own.message_bytes.get())
    }

    /// How often a portal has run on it.
    pub fn portal_runs(&self) -> u64 {
        self.own.portal_runs.get()
    }

    /// Idle periods that ended while it polled.
    pub fn polls(&self) -> u64 {
        self.own.polls.get()
    }

    /// Idle periods in which it slept.
    pub fn sleeps(&self) -> u64 {
        self.own.sleeps.get()
    }

    /// Whether it sleeps.
    pub fn is_asleep(&self) -> bool {
        let awakenings = self.own.awakenings.get();
        !self.has_ended() && self.own.sleeps.get() != awakenings
    }

    /// What its programs wrote, and what its kernel logged, in bytes.
    pub fn output_bytes(&self) -> (u64, u64) {
        (self.own.console_bytes.get(), self.own.log_bytes.get())
    }

    /// How often its thread was interrupted so that it looks.
    pub fn kicks(&self) -> u64 {
        self.in_handlers.kicks.get()
    }

    /// The interrupts that became pending.
    pub fn interrupts(&self) -> Interrupts {
        let [timer, console, capability, power_button, devices] = &self.raised.0;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Interrupts {
            timer: get(timer),
            console: get(console),
            capability: get(capability),
            power_button: get(power_button),
            devices: get(devices),
        }
    }

    /// Whether its thread has left it.
    pub fn has_ended(&self) -> bool {
        self.thread.ended.load(Ordering::Acquire)
    }

    /// Nanoseconds that its thread has had a processor; `None` where the host does not tell.
    pub fn processor_time(&self) -> Option<u64> {
        if !self.has_ended() {
            let used = processor_time(self.thread.id.load(Ordering::Relaxed));
            // It may have ended in between; then its number says nothing.
            if !self.has_ended() {
                return used;
            }
        }
        Some(self.thread.used_ns.load(Ordering::Relaxed))
    }
}

/// The host's number of the calling thread.
fn thread_id() -> Option<u64> {
    let path = fs::read_link("/proc/thread-self").ok()?;
    path.file_name()?.to_str()?.parse().ok()
}

fn processor_time(thread: u64) -> Option<u64> {
    if thread == NOT_YET {
        return Some(0);
    }
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn hostcalls_are_counted_by_number() {
        let record = VcpuRecord::default();
        for (place, call) in Hostcall::ALL.iter().enumerate() {
            assert_eq!(call.index(), place);
            for _ in 0..=place {
                record.hostcall(Some(*call));
            }
        }
        record.hostcall(Hostcall::from_number(4711));
        let counted: Vec<_> = record.hostcalls().collect();
        let expected: Vec<_> = Hostcall::ALL.iter().copied().zip(1..).collect();
        assert_eq!(counted, expected);
        assert_eq!(record.unknown_hostcalls(), 1);
    }

    #[test]
    fn processor_time_is_that_of_the_thread_and_stays_when_it_ended() {
        let record = VcpuRecord::default();
        let busy = Duration::from_millis(20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                record.thread_begins();
                let begin = record.processor_time().unwrap();
                let started = Instant::now();
                while record.processor_time().unwrap() - begin < busy.as_nanos() as u64 {
                    assert!(started.elapsed() < Duration::from_secs(60));
                }
                record.thread_ends();
            });
        });
        let used = record.processor_time().unwrap();
        assert!(used >= busy.as_nanos() as u64);
        assert_eq!(record.processor_time(), Some(used));
    }

    #[test]
    fn a_vcpu_is_asleep_between_two_calls() {
        let record = VcpuRecord::default();
        assert!(!record.is_asleep());
        record.falls_asleep();
        assert!(record.is_asleep());
        record.wakes_up();
        assert!(!record.is_asleep());
        assert_eq!(record.sleeps(), 1);
    }

    #[test]
    fn interrupts_are_counted_by_source() {
        let record = VcpuRecord::default();
        record.raised(irq::TIMER);
        record.raised(irq::CAPABILITY);
        record.raised(irq::VIRTIO_FIRST);
        record.raised(irq::VIRTIO_FIRST + 3);
        let expected = Interrupts {
            timer: 1,
            capability: 1,
            devices: 2,
            ..Interrupts::default()
        };
        assert_eq!(record.interrupts(), expected);
    }
}
