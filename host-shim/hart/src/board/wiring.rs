// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How devices and other threads reach the hart of a board.
//!
//! Lock order: the lock of a device may be held when [`Wiring`]'s lock is taken, never the other way round.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Power;
use crate::{Attention, Hart, InterruptLines};

/// The interrupt lines of the hart, what asks the board to stop, and what wakes the hart when it waits for an interrupt.
pub(super) struct Wiring {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: Arc<InterruptLines>,
    attention: Arc<Attention>,
    requests: Requests,
}

/// What was asked of the board.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The program ended or wants a reset.
    pub(super) power: Option<Power>,
    /// Somebody wants the board to stop.
    pub(super) interrupt: bool,
    /// The console's output cannot be written.
    pub(super) output: Option<std::io::Error>,
}

impl Requests {
    fn any(&self) -> bool {
        self.power.is_some() || self.interrupt || self.output.is_some()
    }
}

/// Makes a board stop, from any thread.
#[derive(Clone)]
pub struct Interrupter {
    wiring: Arc<Wiring>,
}

impl Interrupter {
    pub(super) fn new(wiring: Arc<Wiring>) -> Interrupter {
        Interrupter { wiring }
    }

    /// Makes [`Board::run`](super::Board::run) return [`Stop::Interrupted`](super::Stop::Interrupted), at once if it is called later.
    pub fn interrupt(&self) {
        self.wiring.request(|requests| requests.interrupt = true);
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").finish_non_exhaustive()
    }
}

impl Wiring {
    pub(super) fn new(hart: &Hart) -> Wiring {
        Wiring {
            state: Mutex::new(State {
                lines: hart.interrupt_lines(),
                attention: hart.attention(),
                requests: Requests::default(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Leads to another hart, which takes the place of the one before it.
    pub(super) fn connect(&self, hart: &Hart) {
        let mut state = self.lock();
        state.lines = hart.interrupt_lines();
        state.attention = hart.attention();
        if state.requests.any() {
            state.attention.raise();
        }
    }

    /// Raises or lowers lines, bits as in `mip`.
    pub(super) fn set_lines(&self, mask: u64, level: bool) {
        let state = self.lock();
        state.lines.set(mask, level);
        self.changed.notify_all();
    }

    /// Asks for something; the hart stops soon.
    pub(super) fn request(&self, ask: impl FnOnce(&mut Requests)) {
        let mut state = self.lock();
        ask(&mut state.requests);
        state.attention.raise();
        self.changed.notify_all();
    }

    /// What was asked for since the last time.
    pub(super) fn take_requests(&self) -> Requests {
        let mut state = self.lock();
        state.attention.clear();
        std::mem::take(&mut state.requests)
    }

    /// Waits until a line changes so that `ready`, or something is asked for, or the deadline. True when it is ready.
    pub(super) fn wait(&self, deadline: Option<Instant>, ready: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if ready() {
                return true;
            }
            if state.requests.any() {
                return false;
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match rest {
                Some(Duration::ZERO) => return false,
                Some(rest) => match self.changed.wait_timeout(state, rest) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
