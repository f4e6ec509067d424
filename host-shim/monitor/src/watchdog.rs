// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes senders out of portals that do not return.
//!
//! A portal runs on its sender's thread, so a receiver whose portal never returned would keep the sender. A thread of the exchange looks at
//! the senders, [`LOOKS`] times in a receiver's deadline, for as long as there are any that are or were connected. What it looks at
//! costs the message path one store for each message.
//!
//! The deadline is one of the processor time of the sender's thread, so that a busy host takes nobody for stuck: a portal cannot sleep, and
//! what it needs of the monitor is processor time too. By the clock on the wall it may take [`SLOWEST`] times as long. Of what passed between two
//! looks no more counts than lies between them by plan, so a monitor that was stopped, or a clock that leaps, is one look's worth.
//!
//! Lock order: the watchdog's own lock is the last; under it cVMs are only told to end, and portals to be abandoned.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::platform::{PortalRun, VcpuLine};
use crate::receiver::{PortalFailed, Receiver};

/// How often is looked in the time that a portal may take.
const LOOKS: u32 = 8;
/// How many times slower than alone a sender's thread may be.
const SLOWEST: u32 = 10;
/// The least time between two looks.
const SHORTEST: Duration = Duration::from_millis(1);

/// What one sender was seen to do.
#[derive(Debug, Default)]
struct Progress {
    /// The run that the sender was in at the last look, and its thread's processor time then.
    last: Option<(PortalRun, Duration)>,
    /// How much of that time counts for this run.
    spent: Duration,
    /// The same by the clock on the wall.
    passed: Duration,
}

impl Progress {
    /// Looks at a sender, `passed` after the last look. Returns the run that it is in.
    fn look(&mut self, line: &dyn VcpuLine, passed: Duration) -> Option<PortalRun> {
        let now = line.portal_run().zip(line.processor_time());
        match (self.last, now) {
            (Some((before, since)), Some((run, time))) if before == run => {
                self.spent += time.saturating_sub(since).min(passed);
                self.passed += passed;
            }
            _ => (self.spent, self.passed) = (Duration::ZERO, Duration::ZERO),
        }
        self.last = now;
        now.map(|(run, _)| run)
    }

    /// Whether that run takes too long.
    fn is_stuck(&self, deadline: Duration) -> bool {
        self.spent >= deadline || self.passed >= deadline.saturating_mul(SLOWEST)
    }
}

/// A cVM that is connected to another one's stream.
struct Sender {
    receiver: Arc<Receiver>,
    progress: Progress,
}

/// Who is looked at.
#[derive(Default)]
struct Watched {
    /// By their numbers, as are the owners of the portals they run.
    senders: BTreeMap<u64, Sender>,
    owners: BTreeMap<u64, Weak<Receiver>>,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    /// Told when there is a first sender, and at the end.
    changed: Condvar,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Watched> {
    shared
        .watched
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// The watchdog of an exchange.
#[derive(Default)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watchdog {
    /// Starts the thread, unless it was started before. It sleeps until there is something to look at.
    ///
    /// # Errors
    ///
    /// When there is no thread.
    pub fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("watchdog".to_owned());
            *thread = Some(builder.spawn(move || shared.run())?);
        }
        Ok(())
    }

    /// From now on `sender` may be in portals of `owner`'s.
    pub fn watch(&self, sender: &Arc<Receiver>, owner: &Arc<Receiver>) {
        let mut watched = lock(&self.shared);
        watched.owners.insert(owner.number(), Arc::downgrade(owner));
        watched
            .senders
            .entry(sender.number())
            .or_insert_with(|| Sender {
                receiver: Arc::clone(sender),
                progress: Progress::default(),
            });
        self.shared.changed.notify_one();
    }

    /// A cVM has ended: it is in no portal, and nobody is in one of its.
    pub fn forget(&self, number: u64) {
        let mut watched = lock(&self.shared);
        watched.senders.remove(&number);
        watched.owners.remove(&number);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.shared).ending = true;
        self.shared.changed.notify_one();
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It does not panic, and nobody asks for its result.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut watched = lock(self);
        let mut last = Instant::now();
        while !watched.ending {
            watched = match watched.period() {
                None => {
                    let watched = self.changed.wait(watched);
                    last = Instant::now();
                    watched.unwrap_or_else(PoisonError::into_inner)
                }
                Some(period) => {
                    let (mut watched, _) = self
                        .changed
                        .wait_timeout(watched, period)
                        .unwrap_or_else(PoisonError::into_inner);
                    // It comes early when somebody connects.
                    watched.look(last.elapsed().min(period));
                    last = Instant::now();
                    watched
                }
            };
        }
    }
}

impl Watched {
    /// How long to wait for the next look; `None` while there is nobody to look at.
    fn period(&self) -> Option<Duration> {
        if self.senders.is_empty() {
            return None;
        }
        let owners = self.owners.values().filter_map(Weak::upgrade);
        let deadlines = owners.map(|owner| owner.portal_deadline());
        Some((deadlines.min()? / LOOKS).max(SHORTEST))
    }

    fn look(&mut self, passed: Duration) {
        // One that ended just when somebody connected to it was forgotten before it was known.
        self.owners.retain(|_, owner| owner.strong_count() > 0);
        for Sender { receiver, progress } in self.senders.values_mut() {
            let line = &**receiver.line();
            let Some(run) = progress.look(line, passed) else {
                continue;
            };
            if let Some(owner) = self.owners.get(&run.owner).and_then(Weak::upgrade)
                && progress.is_stuck(owner.portal_deadline())
            {
                // In this order: the sender that comes out of the portal looks why.
                owner.fail(PortalFailed::Stuck);
                line.abandon_portal(run.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vCPU that is in this run, with this processor time.
    #[derive(Default)]
    struct Line(Option<PortalRun>, Option<Duration>);

    impl VcpuLine for Line {
        fn raise(&self, _irq: u32) {}
        fn kill(&self) {}
        fn abandon_portal(&self, _owner: u64) {}
        fn in_portal_of(&self) -> Option<u64> {
            self.0.map(|run| run.owner)
        }
        fn portal_run(&self) -> Option<PortalRun> {
            self.0
        }
        fn processor_time(&self) -> Option<Duration> {
            self.1
        }
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    const PERIOD: Duration = Duration::from_millis(100);

    fn line(number: u64, milliseconds: u64) -> Line {
        Line(
            Some(PortalRun { owner: 7, number }),
            Some(Duration::from_millis(milliseconds)),
        )
    }

    fn spent(progress: &mut Progress, line: &Line) -> Option<u128> {
        progress.look(line, PERIOD)?;
        Some(progress.spent.as_millis())
    }

    #[test]
    fn time_in_one_run_adds_up() {
        let mut progress = Progress::default();
        assert_eq!(spent(&mut progress, &Line::default()), None);
        for (time, expected) in [(1000, 0), (1060, 60), (1160, 160), (1160, 160), (1161, 161)] {
            assert_eq!(spent(&mut progress, &line(1, time)), Some(expected));
        }
    }

    #[test]
    fn another_run_begins_anew() {
        let mut progress = Progress::default();
        for number in 1..100 {
            assert_eq!(spent(&mut progress, &line(number, 90 * number)), Some(0));
        }
        assert_eq!(spent(&mut progress, &Line::default()), None);
        assert_eq!(spent(&mut progress, &line(99, 9000)), Some(0));
    }

    #[test]
    fn processor_time_counts_and_ten_times_that_by_the_clock() {
        let deadline = 10 * PERIOD;
        let looks_until_stuck = |milliseconds_each: u64| {
            let mut progress = Progress::default();
            (0..).position(|look| {
                progress.look(&line(1, look * milliseconds_each), PERIOD);
                progress.is_stuck(deadline)
            })
        };
        assert_eq!(looks_until_stuck(100), Some(10));
        assert_eq!(looks_until_stuck(50), Some(20));
        assert_eq!(looks_until_stuck(0), Some(100));
    }

    #[test]
    fn a_leap_of_the_clock_is_one_look() {
        let mut progress = Progress::default();
        for (time, expected) in [(0, 0), (100_000, 100), (100_001, 101), (5, 101)] {
            assert_eq!(spent(&mut progress, &line(1, time)), Some(expected));
        }
    }
}
