// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How to interrupt each cVM, by its index. An index is used again when a cVM has ended and another starts.
//!
//! Whoever interrupts takes no lock, uses no thread-local variable and allocates nothing, since portals do it. So a place holds a
//! pointer, and beside it how many are looking at what it points to:
//!
//! ```text
//! raise:    looking += 1;  line = place;  raise it, if there is one;  looking -= 1
//! replace:  old = swap(place, new);  until looking is 0: wait;  drop old
//! ```
//!
//! Both sides are sequentially consistent, so a `raise` that found the old line has counted itself before the swap, and is
//! waited for. The wait is short: nobody holds a handle to what an ended cVM published when its place is cleared, so what comes in
//! at the same time are a few late wake-ups.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use capstream_capability::MAX_CVMS;

use crate::platform::VcpuLine;

type Line = Arc<dyn VcpuLine>;

/// The place of one index. It has a cache line of its own: two cVMs that exchange messages raise each other's, on two processors.
#[derive(Default)]
#[repr(align(64))]
struct Place {
    looking: AtomicUsize,
    /// From `Box::into_raw`, or null.
    line: AtomicPtr<Line>,
}

impl Place {
    #[inline]
    fn with<T>(&self, act: impl FnOnce(&Line) -> T) -> Option<T> {
        self.looking.fetch_add(1, Ordering::SeqCst);
        let line = self.line.load(Ordering::SeqCst);
        // SAFETY: null, or from `Box::into_raw`; whoever takes it away waits until nobody is looking before it is freed, and we are.
        let result = unsafe { line.as_ref() }.map(act);
        self.looking.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn replace(&self, line: Option<Line>) {
        let new = line.map_or(std::ptr::null_mut(), |line| Box::into_raw(Box::new(line)));
        let old = self.line.swap(new, Ordering::SeqCst);
        while self.looking.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        if !old.is_null() {
            // SAFETY: from `Box::into_raw`, taken out once, and nobody looks at it any more.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// The lines of all cVMs.
pub struct Lines {
    places: Box<[Place]>,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::new()
    }
}

impl Lines {
    /// Nobody can be interrupted yet.
    pub fn new() -> Lines {
        Lines {
            places: (0..MAX_CVMS).map(|_| Place::default()).collect(),
        }
    }

    /// From now on this is how the cVM with the index is interrupted.
    pub fn set(&self, index: u16, line: Line) {
        self.replace(index, Some(line));
    }

    /// The cVM with the index has ended. When this returns, nobody uses its line through here.
    pub fn clear(&self, index: u16) {
        self.replace(index, None);
    }

    fn replace(&self, index: u16, line: Option<Line>) {
        if let Some(place) = self.places.get(usize::from(index)) {
            place.replace(line);
        }
    }

    /// Makes an interrupt pending in the cVM with the index, if there is one. Works without thread state.
    #[inline]
    pub fn raise(&self, index: u16, irq: u32) {
        if let Some(place) = self.places.get(usize::from(index)) {
            place.with(|line| line.raise(irq));
        }
    }

    /// Calls `act` with each line that there is. It must not call back here.
    pub fn for_each(&self, mut act: impl FnMut(&dyn VcpuLine)) {
        for place in &self.places {
            place.with(|line| act(&**line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::Any;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use crate::platform::PortalRun;

    /// Counts interrupts, and tells when one came after its end.
    struct Counter {
        raised: AtomicU32,
        dropped: Arc<AtomicU32>,
    }

    impl VcpuLine for Counter {
        fn raise(&self, irq: u32) {
            self.raised.fetch_add(irq, Ordering::Relaxed);
        }

        fn kill(&self) {}

        fn abandon_portal(&self, _: u64) {}

        fn in_portal_of(&self) -> Option<u64> {
            None
        }

        fn portal_run(&self) -> Option<PortalRun> {
            None
        }

        fn processor_time(&self) -> Option<Duration> {
            None
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    impl Drop for Counter {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter(dropped: &Arc<AtomicU32>) -> Arc<Counter> {
        Arc::new(Counter {
            raised: AtomicU32::new(0),
            dropped: Arc::clone(dropped),
        })
    }

    #[test]
    fn an_index_is_used_again() {
        let lines = Lines::new();
        let dropped = Arc::new(AtomicU32::new(0));
        let (first, second) = (counter(&dropped), counter(&dropped));
        lines.raise(7, 1);
        lines.set(7, first.clone());
        lines.raise(7, 1);
        lines.raise(8, 1);
        lines.raise(u16::MAX, 1);
        lines.clear(7);
        lines.raise(7, 1);
        assert_eq!(first.raised.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&first), 1);
        lines.set(7, second.clone());
        lines.raise(7, 1);
        assert_eq!(second.raised.load(Ordering::Relaxed), 1);
        assert_eq!(first.raised.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_is_not_freed_under_those_who_use_it() {
        let lines = Lines::new();
        let dropped = Arc::new(AtomicU32::new(0));
        let rounds = 2000;
        let stop = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while stop.load(Ordering::Relaxed) == 0 {
                        lines.raise(3, 1);
                        lines.for_each(|line| line.raise(0));
                    }
                });
            }
            for _ in 0..rounds {
                lines.set(3, counter(&dropped));
                lines.clear(3);
            }
            stop.store(1, Ordering::Relaxed);
        });
        assert_eq!(dropped.load(Ordering::Relaxed), rounds);
    }
}
