// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much processor time a thread has used, read by another one.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// No thread's clock: the wall's.
const NONE: libc::clockid_t = libc::CLOCK_REALTIME;

/// The clock of a thread, from its start to its end.
#[derive(Debug)]
pub(super) struct ThreadClock(AtomicI32);

impl ThreadClock {
    /// Of no thread yet.
    pub(super) const fn new() -> ThreadClock {
        ThreadClock(AtomicI32::new(NONE))
    }

    /// From now on it is the calling thread's.
    pub(super) fn start(&self) {
        let mut clock = NONE;
        // SAFETY: the calling thread exists, and there is room for the number of its clock.
        if unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) } == 0 {
            self.0.store(clock, Ordering::Release);
        }
    }

    /// From now on it is no thread's.
    pub(super) fn stop(&self) {
        self.0.store(NONE, Ordering::Release);
    }

    /// What the thread has used; `None` when there is no thread.
    pub(super) fn read(&self) -> Option<Duration> {
        let clock = self.0.load(Ordering::Acquire);
        if clock == NONE {
            return None;
        }
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: there is room for the time. The clock of a thread that has just ended is an error.
        if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
            return None;
        }
        Some(Duration::new(
            u64::try_from(time.tv_sec).ok()?,
            u32::try_from(time.tv_nsec).ok()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_thread_itself_uses_counts() {
        let clock = ThreadClock::new();
        assert_eq!(clock.read(), None);
        let (begun, busy) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let clock = &clock;
            scope.spawn(move || {
                clock.start();
                while clock.read() < Some(Duration::from_millis(20)) {
                    std::hint::spin_loop();
                }
                begun.send(()).unwrap();
                ended.recv().unwrap();
                clock.stop();
            });
            busy.recv().unwrap();
            let used = clock.read().unwrap();
            assert!(used >= Duration::from_millis(20), "{used:?}");
            // It waits for us, and uses nothing while it does.
            std::thread::sleep(Duration::from_millis(50));
            let later = clock.read().unwrap();
            assert!(
                later < used + Duration::from_millis(40),
                "{used:?} {later:?}"
            );
            end.send(()).unwrap();
        });
        assert_eq!(clock.read(), None);
    }
}
