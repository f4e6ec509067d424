// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which harts may still be using what memory looked like before.
//!
//! Everything that takes something away from running harts (a region, a flag) does so in three steps: change the state, advance the
//! generation, wait until every hart has seen the new generation or is not running. A hart looks at the generation between blocks of
//! instructions, where it holds no result of an earlier look at memory; its [`Attention`] tells it to. Harts count as not running while they are in a
//! device, so that a device may change memory too, and while they wait themselves.
//!
//! Lock order: `harts` is held only while the list is copied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{hint, thread};

use crate::Attention;

/// The generation that a hart which is not running has seen.
const ABSENT: u64 = u64::MAX;
const SPINS: u32 = 256;

/// The generations of one memory.
#[derive(Default)]
pub(super) struct Generations {
    now: AtomicU64,
    harts: Mutex<Vec<Weak<Member>>>,
}

struct Member {
    /// The generation that the hart has seen.
    seen: AtomicU64,
    attention: Arc<Attention>,
}

impl Generations {
    fn members(&self) -> Vec<Arc<Member>> {
        self.harts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Makes harts look again, without waiting for them.
    pub(super) fn advance(&self) {
        self.now.fetch_add(1, Ordering::SeqCst);
        for member in self.members() {
            member.attention.check_memory();
        }
    }

    /// Makes harts look again, and waits until all have.
    pub(super) fn advance_and_wait(&self) {
        let generation = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        let members = self.members();
        for member in &members {
            member.attention.check_memory();
        }
        for member in members {
            let mut spins = 0;
            while member.seen.load(Ordering::SeqCst) < generation {
                spins += 1;
                if spins < SPINS {
                    hint::spin_loop();
                } else {
                    thread::yield_now();
                }
            }
        }
    }

    /// Makes all harts look whether code has changed.
    pub(super) fn check_code(&self) {
        for member in self.members() {
            member.attention.check_code();
        }
    }

    /// Another hart.
    pub(super) fn join(&self, attention: Arc<Attention>) -> Presence {
        let member = Arc::new(Member {
            seen: AtomicU64::new(ABSENT),
            attention,
        });
        let mut harts = self.harts.lock().unwrap_or_else(PoisonError::into_inner);
        harts.retain(|hart| hart.strong_count() > 0);
        harts.push(Arc::downgrade(&member));
        Presence { member }
    }
}

/// What one hart has seen.
pub(crate) struct Presence {
    member: Arc<Member>,
}

impl Presence {
    /// The hart begins to run, or looks again: the generation that it may rely on until it looks again.
    pub(super) fn enter(&self, generations: &Generations) -> u64 {
        let mut generation = generations.now.load(Ordering::SeqCst);
        loop {
            self.member.seen.store(generation, Ordering::SeqCst);
            let now = generations.now.load(Ordering::SeqCst);
            if now == generation {
                return generation;
            }
            generation = now;
        }
    }

    /// The hart stops running.
    pub(crate) fn leave(&self) {
        self.member.seen.store(ABSENT, Ordering::Release);
    }
}
