// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one-shot timers of a vCPU. Its thread looks at them between two stretches of its hart, and sleeps until the next one runs out.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How many timers a vCPU can have.
const TIMERS: usize = 4;

/// A timer that exists.
#[derive(Clone, Copy)]
struct Timer {
    /// When it runs out; `None` while it is not armed.
    deadline: Option<Instant>,
}

/// The timers of a vCPU.
#[derive(Default)]
pub struct Timers {
    timers: [Cell<Option<Timer>>; TIMERS],
}

impl Timers {
    fn existing(&self, id: u64) -> Option<&Cell<Option<Timer>>> {
        let timer = self.timers.get(usize::try_from(id).ok()?)?;
        timer.get().map(|_| timer)
    }

    /// Makes a timer; `None` when there are too many.
    pub fn alloc(&self) -> Option<u64> {
        let index = self.timers.iter().position(|timer| timer.get().is_none())?;
        self.timers.get(index)?.set(Some(Timer { deadline: None }));
        Some(index as u64)
    }

    /// Arms a timer, or disarms it if `ns` is 0. Returns whether it exists.
    pub fn set(&self, id: u64, ns: u64) -> bool {
        let Some(timer) = self.existing(id) else {
            return false;
        };
        // What lies beyond the clock's end never comes.
        let deadline = (ns > 0)
            .then(|| Instant::now().checked_add(Duration::from_nanos(ns)))
            .flatten();
        timer.set(Some(Timer { deadline }));
        true
    }

    /// Gives a timer back. Returns whether it existed.
    pub fn free(&self, id: u64) -> bool {
        self.existing(id)
            .is_some_and(|timer| timer.take().is_some())
    }

    /// When the first timer runs out.
    pub fn next(&self) -> Option<Instant> {
        self.timers
            .iter()
            .filter_map(|timer| timer.get()?.deadline)
            .min()
    }

    /// Whether a timer has run out; disarms those that have.
    pub fn take_expired(&self) -> bool {
        let Some(next) = self.next() else {
            return false;
        };
        let now = Instant::now();
        if next > now {
            return false;
        }
        for timer in &self.timers {
            let deadline = timer.get().and_then(|timer| timer.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                timer.set(Some(Timer { deadline: None }));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_run_out_once() {
        let timers = Timers::default();
        let ids: Vec<_> = (0..TIMERS).map(|_| timers.alloc().unwrap()).collect();
        assert_eq!(timers.alloc(), None);
        assert!(!timers.take_expired());
        assert!(timers.set(ids[1], 1));
        assert!(timers.set(ids[2], u64::MAX / 4));
        while !timers.take_expired() {
            std::hint::spin_loop();
        }
        assert!(!timers.take_expired());
        assert!(timers.set(ids[2], 0));
        assert_eq!(timers.next(), None);
        assert!(timers.free(ids[0]) && !timers.free(ids[0]) && !timers.set(ids[0], 1));
        assert_eq!(timers.alloc(), Some(ids[0]));
        assert!(!timers.set(77, 1) && !timers.free(u64::MAX));
    }
}
