// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking something back while others use it.
//!
//! States of the one atomic word: a count of users inside, and the bit [`REVOKED`].
//!
//! ```text
//!            enter / leave               enter gives None
//!             +--------+                   +--------+
//!             v        |                   v        |
//!            live, n inside  --revoke-->  revoked, n inside  --last leaves-->  drained
//! ```
//!
//! A late user that finds [`REVOKED`] has counted itself for a moment and counts itself out again, so the count can be above zero
//! after the last real user left. That is why `drained` is a latch: the count was zero once after the bit
//! was set, so all who had entered before are gone.

use std::time::Instant;

use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, lock};

/// Set in the state when nobody may enter any more.
const REVOKED: u64 = 1 << 63;

/// Counts who is inside, and lets nobody in once revoked. On its own cache line, because every message writes to it.
#[derive(Debug)]
#[repr(align(64))]
pub struct Revocation {
    /// [`REVOKED`], and in the other bits how many are inside.
    state: AtomicU64,
    /// Whether the count was zero after [`REVOKED`] was set.
    drained: Mutex<bool>,
    /// Told when `drained` becomes true.
    changed: Condvar,
}

impl Revocation {
    /// Live, with nobody inside.
    pub fn new() -> Revocation {
        Revocation {
            state: AtomicU64::new(0),
            drained: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Goes inside until the guard is dropped; `None` once revoked. Never blocks.
    #[inline]
    pub fn enter(&self) -> Option<InFlight<'_>> {
        self.enter_bare()
            .map_err(|last| last.map(LastOut::tell))
            .ok()
    }

    /// The same for code that cannot tell those who wait where it stands: once revoked, somebody else has to if there is a [`LastOut`].
    #[inline]
    pub fn enter_bare(&self) -> Result<InFlight<'_>, Option<LastOut<'_>>> {
        let before = self.state.fetch_add(1, Ordering::Acquire);
        if before & REVOKED == 0 {
            return Ok(InFlight {
                revocation: Some(self),
            });
        }
        Err(self.leave())
    }

    /// Lets nobody in any more. Returns whether this call did it.
    pub fn revoke(&self) -> bool {
        self.state.fetch_or(REVOKED, Ordering::AcqRel) & REVOKED == 0
    }

    /// Whether it is revoked.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.state.load(Ordering::Acquire) & REVOKED != 0
    }

    /// How many are inside now.
    pub fn in_flight(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !REVOKED
    }

    /// Whether it is revoked and all who had entered before have left.
    pub fn is_drained(&self) -> bool {
        self.wait_drained(Instant::now())
    }

    /// Waits until all who had entered before the revocation have left; false when that was not so at `deadline`, or
    /// it is not revoked.
    pub fn wait_drained(&self, deadline: Instant) -> bool {
        let mut drained = lock(&self.drained);
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & REVOKED == 0 {
                return false;
            }
            if *drained || state == REVOKED {
                *drained = true;
                return true;
            }
            let Some(rest) = deadline
                .checked_duration_since(Instant::now())
                .filter(|rest| !rest.is_zero())
            else {
                return false;
            };
            drained = match self.changed.wait_timeout(drained, rest) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    #[inline]
    fn leave(&self) -> Option<LastOut<'_>> {
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        (before == REVOKED | 1).then_some(LastOut { revocation: self })
    }
}

impl Default for Revocation {
    fn default() -> Self {
        Revocation::new()
    }
}

/// Somebody is inside: a revocation does not complete before this is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the use"]
pub struct InFlight<'a> {
    /// `None` once it has been left.
    revocation: Option<&'a Revocation>,
}

impl<'a> InFlight<'a> {
    /// Ends the use, for code that cannot tell those who wait for that where it stands: somebody else has to if there is a [`LastOut`].
    #[inline]
    pub fn leave(mut self) -> Option<LastOut<'a>> {
        self.revocation.take().and_then(Revocation::leave)
    }
}

impl Drop for InFlight<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(last) = self.revocation.take().and_then(Revocation::leave) {
            last.tell();
        }
    }
}

/// The last one has left what is revoked, and whoever waits for that does not know yet.
#[derive(Debug)]
#[must_use = "somebody waits for this"]
pub struct LastOut<'a> {
    revocation: &'a Revocation,
}

impl LastOut<'_> {
    /// Tells those who wait. It takes a lock.
    #[cold]
    pub fn tell(self) {
        *lock(&self.revocation.drained) = true;
        self.revocation.changed.notify_all();
    }
}
