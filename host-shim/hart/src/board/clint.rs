// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The core-local interruptor: software and timer interrupts of machine mode, and the time.
//!
//! | offset | register |
//! |---|---|
//! | 0x0000 | `msip`: not zero raises the software interrupt |
//! | 0x4000 | `mtimecmp`, 64 bits |
//! | 0xbff8 | `mtime`, 64 bits, counts with [`FREQUENCY`]; writes are ignored |
//!
//! The timer's line is raised when `mtime` reaches `mtimecmp`, and lowered when a later `mtimecmp` is written. Before the first write there
//! is no timer interrupt. The hart's thread sets the line when `mtimecmp` is written; afterwards the timer's thread, which sleeps
//! until the time has come, raises it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wiring::Wiring;
use crate::{Device, TimeSource};

/// Where the registers are.
pub const CLINT_BASE: u64 = 0x200_0000;
/// Bytes of the registers' window.
pub const CLINT_LENGTH: u64 = 0x1_0000;
/// How often `mtime` counts, in hertz.
pub const FREQUENCY: u64 = 10_000_000;

const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / FREQUENCY;
const MSIP: u64 = 0;
const MTIMECMP: u64 = 0x4000;
const MTIMECMP_HIGH: u64 = MTIMECMP + 4;
const MTIME: u64 = 0xbff8;
const MTIME_HIGH: u64 = MTIME + 4;
const LOW: u64 = 0xffff_ffff;
/// Machine software interrupt, as in `mip`.
const SOFTWARE_INTERRUPT: u64 = 1 << 3;
/// Machine timer interrupt, as in `mip`.
const TIMER_INTERRUPT: u64 = 1 << 7;

/// Counts from the moment it was made.
#[derive(Debug)]
pub(super) struct Clock {
    begin: Instant,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            begin: Instant::now(),
        }
    }

    /// When the counter reaches a value; none when that is further away than the host can say.
    fn instant(&self, ticks: u64) -> Option<Instant> {
        let nanoseconds = ticks.checked_mul(NANOSECONDS_PER_TICK)?;
        self.begin.checked_add(Duration::from_nanos(nanoseconds))
    }
}

impl TimeSource for Clock {
    fn time(&self) -> u64 {
        (self.begin.elapsed().as_nanos() / u128::from(NANOSECONDS_PER_TICK)) as u64
    }
}

/// The registers, and the thread that waits for `mtimecmp`.
pub(super) struct Clint {
    timer: Arc<Timer>,
    thread: Option<JoinHandle<()>>,
}

struct Timer {
    clock: Arc<Clock>,
    wiring: Arc<Wiring>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    msip: bool,
    mtimecmp: u64,
    /// The time that the thread waits for; none when the line is up or nothing was set.
    deadline: Option<Instant>,
    ended: bool,
}

impl Clint {
    /// Starts the timer's thread.
    pub(super) fn new(clock: Arc<Clock>, wiring: Arc<Wiring>) -> std::io::Result<Clint> {
        let timer = Arc::new(Timer {
            clock,
            wiring,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("timer".into()).spawn({
            let timer = Arc::clone(&timer);
            move || timer.run()
        })?;
        Ok(Clint {
            timer,
            thread: Some(thread),
        })
    }

    /// Puts it into its reset state.
    pub(super) fn reset(&self) {
        let mut state = self.timer.lock();
        *state = State::default();
        self.timer
            .wiring
            .set_lines(SOFTWARE_INTERRUPT | TIMER_INTERRUPT, false);
        self.timer.changed.notify_all();
    }

    /// Whether a timer interrupt will come without anybody doing anything.
    pub(super) fn is_armed(&self) -> bool {
        self.timer.lock().deadline.is_some()
    }
}

impl Drop for Clint {
    fn drop(&mut self) {
        self.timer.lock().ended = true;
        self.timer.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by itself.
            let _ = thread.join();
        }
    }
}

impl Timer {
    /// Raises the line whenever the deadline has come, until the device is dropped.
    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            let rest = state
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match rest {
                Some(Duration::ZERO) => {
                    // The line before the deadline: who sees no deadline has to see the line.
                    self.wiring.set_lines(TIMER_INTERRUPT, true);
                    state.deadline = None;
                    state
                }
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

    fn compare(&self, state: &mut State, mtimecmp: u64) {
        state.mtimecmp = mtimecmp;
        let due = mtimecmp <= self.clock.time();
        state.deadline = if due {
            None
        } else {
            self.clock.instant(mtimecmp)
        };
        self.wiring.set_lines(TIMER_INTERRUPT, due);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Clint {
    fn read(&self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (MSIP, 4 | 8) => self.timer.lock().msip.into(),
            (MTIMECMP, 8) => self.timer.lock().mtimecmp,
            (MTIMECMP, 4) => self.timer.lock().mtimecmp & LOW,
            (MTIMECMP_HIGH, 4) => self.timer.lock().mtimecmp >> 32,
            (MTIME, 8) => self.timer.clock.time(),
            (MTIME, 4) => self.timer.clock.time() & LOW,
            (MTIME_HIGH, 4) => self.timer.clock.time() >> 32,
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let mut state = self.timer.lock();
        let low = value & LOW;
        match (offset, size) {
            (MSIP, 4 | 8) => {
                state.msip = low != 0;
                self.timer.wiring.set_lines(SOFTWARE_INTERRUPT, state.msip);
            }
            (MTIMECMP, 8) => self.timer.compare(&mut state, value),
            (MTIMECMP, 4) => {
                let mtimecmp = state.mtimecmp & !LOW | low;
                self.timer.compare(&mut state, mtimecmp);
            }
            (MTIMECMP_HIGH, 4) => {
                let mtimecmp = state.mtimecmp & LOW | low << 32;
                self.timer.compare(&mut state, mtimecmp);
            }
            _ => {}
        }
    }
}
