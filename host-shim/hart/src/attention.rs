// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How other threads reach a hart that runs.
//!
//! A hart looks at one word between blocks. The word says that somebody wants its attention, that its interrupt lines changed, or that
//! memory did. It is changed before whoever waits in [`InterruptLines::wait`] is woken, under the lock that the waiter holds while it looks, so that no
//! change is missed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// [`Attention::raise`] was called.
pub(crate) const RAISED: u32 = 1 << 0;
/// What decides about interrupts may have changed.
pub(crate) const INTERRUPT: u32 = 1 << 1;
/// Memory has another generation.
pub(crate) const MEMORY: u32 = 1 << 2;
/// Code may have changed.
pub(crate) const CODE: u32 = 1 << 3;

/// Makes a hart's [`Hart::run`](crate::Hart::run) return, from any thread.
#[derive(Debug, Default)]
pub struct Attention {
    word: AtomicU32,
    /// Bits of `mip` that hardware sets.
    pub(crate) lines: AtomicU64,
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Attention {
    fn wake(&self) {
        drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Makes `run` return [`Exit::Attention`](crate::Exit::Attention) soon, at the latest after some hundred instructions; at once if it
    /// is called later. Stays until [`Attention::clear`].
    pub fn raise(&self) {
        self.word.fetch_or(RAISED, Ordering::SeqCst);
        self.wake();
    }

    /// Ends what [`Attention::raise`] began.
    pub fn clear(&self) {
        self.word.fetch_and(!RAISED, Ordering::SeqCst);
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.word.load(Ordering::SeqCst) & RAISED != 0
    }

    /// What the hart looks at between blocks; 0 if there is nothing to do.
    #[inline(always)]
    pub(crate) fn word(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Makes the hart look at interrupts.
    pub(crate) fn check_interrupts(&self) {
        self.word.fetch_or(INTERRUPT, Ordering::SeqCst);
    }

    /// Makes the hart look at memory.
    pub(crate) fn check_memory(&self) {
        self.word.fetch_or(MEMORY, Ordering::SeqCst);
    }

    /// Makes the hart look whether its decoded instructions are still what memory holds.
    pub(crate) fn check_code(&self) {
        self.word.fetch_or(CODE, Ordering::SeqCst);
    }

    /// The hart is about to look at what the word said.
    pub(crate) fn checking(&self) {
        self.word.fetch_and(RAISED, Ordering::SeqCst);
    }
}

/// Interrupt lines into a hart: the bits of `mip` that hardware sets. They matter with
/// [`Traps::Machine`](crate::Traps::Machine) only.
#[derive(Clone, Debug, Default)]
pub struct InterruptLines {
    pub(crate) attention: Arc<Attention>,
}

impl InterruptLines {
    /// Raises or lowers lines, bits as in `mip` (3 software, 7 timer, 11 external of machine mode; 9 external of supervisor mode), from any
    /// thread.
    pub fn set(&self, mask: u64, level: bool) {
        let lines = &self.attention.lines;
        if level {
            lines.fetch_or(mask, Ordering::SeqCst);
        } else {
            lines.fetch_and(!mask, Ordering::SeqCst);
        }
        self.attention.check_interrupts();
        self.attention.wake();
    }

    /// The lines that are up.
    pub fn get(&self) -> u64 {
        self.attention.lines.load(Ordering::SeqCst)
    }

    /// Waits until a line of `mask` is up or the hart's [`Attention`] is raised, `limit` at most if there is one. Whether it came to
    /// that: for a hart that waits for an interrupt.
    pub fn wait(&self, mask: u64, limit: Option<Duration>) -> bool {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let attention = &self.attention;
        let mut waiting = attention
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.get() & mask != 0 || attention.is_raised() {
                return true;
            }
            waiting = match deadline {
                None => attention
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let rest = deadline.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        return false;
                    }
                    attention
                        .changed
                        .wait_timeout(waiting, rest)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}
