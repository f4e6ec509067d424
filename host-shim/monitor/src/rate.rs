// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much goes through in a second, for one thread.
//!
//! What goes through is paid with time: `paid_until` is when all of it would have gone through at the even rate. It may be ahead of the clock by what can
//! be saved up. So there is one word of state, and nothing happens between two looks.

use std::cell::Cell;

const SECOND: u64 = 1_000_000_000;

/// A rate, and how much of it was used.
#[derive(Debug)]
pub struct Rate {
    per_second: u64,
    /// How far ahead of the clock it may be, in nanoseconds.
    saved: u64,
    /// On the clock of whoever asks, in nanoseconds.
    paid_until: Cell<u64>,
}

impl Rate {
    /// So much in a second, of which a second's worth can be saved up, `at_least` if that is more.
    pub fn new(per_second: u64, at_least: u64) -> Rate {
        let per_second = per_second.max(1);
        Rate {
            per_second,
            saved: SECOND.max(cost(at_least, per_second)),
            paid_until: Cell::new(0),
        }
    }

    /// Whether something can go through now.
    #[inline]
    pub fn is_open(&self, now: u64) -> bool {
        self.paid_until.get() < now.saturating_add(self.saved)
    }

    /// Whether all that can be saved up has been.
    #[inline]
    pub fn is_idle(&self, now: u64) -> bool {
        self.paid_until.get() <= now
    }

    /// Something has gone through. It may be more than there was room for: then nothing goes through for the longer.
    #[inline]
    pub fn charge(&self, now: u64, amount: u64) {
        let from = self.paid_until.get().max(now);
        self.paid_until
            .set(from.saturating_add(cost(amount, self.per_second)));
    }
}

/// How long an amount takes at a rate, in nanoseconds, rounded up; `per_second` is not 0.
#[inline]
fn cost(amount: u64, per_second: u64) -> u64 {
    amount.saturating_mul(SECOND).div_ceil(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seconds_worth_goes_through_at_once_and_then_the_rate() {
        let rate = Rate::new(10, 0);
        let mut passed = 0;
        while rate.is_open(5 * SECOND) {
            rate.charge(5 * SECOND, 1);
            passed += 1;
        }
        assert_eq!(passed, 10);
        // A part of one is enough for the next; the rest is paid afterwards.
        for step in 0..5 {
            let due = 5 * SECOND + step * SECOND / 10;
            assert!(!rate.is_open(due));
            assert!(rate.is_open(due + 1));
            rate.charge(due + 1, 1);
        }
        let idle = 6 * SECOND + SECOND / 2;
        assert!(!rate.is_idle(idle - 1));
        assert!(rate.is_idle(idle));
    }

    #[test]
    fn what_is_larger_than_the_rate_goes_through_and_is_paid_for() {
        let rate = Rate::new(1000, 0);
        assert!(rate.is_open(0));
        rate.charge(0, 5000);
        assert!(!rate.is_open(4 * SECOND - 1));
        assert!(rate.is_open(4 * SECOND + 1));
    }

    #[test]
    fn no_amount_opens_it_by_going_around() {
        let rate = Rate::new(1, 0);
        rate.charge(1, u64::MAX);
        assert!(!rate.is_open(u64::MAX / 100));
        rate.charge(u64::MAX / 100, u64::MAX);
        assert!(!rate.is_open(u64::MAX / 100));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_what_was_saved(
            per_second in 1_u64..10_000_000,
            steps in prop::collection::vec((0_u64..SECOND / 4, 1_u64..5000), 1..200),
        ) {
            let rate = Rate::new(per_second, 0);
            let (mut now, mut passed, mut largest) = (SECOND, 0_u64, 0);
            let begin = now;
            for (wait, amount) in steps {
                now += wait;
                if rate.is_open(now) {
                    rate.charge(now, amount);
                    passed += amount;
                    largest = largest.max(amount);
                }
                let allowed = u128::from(now - begin + SECOND) * u128::from(per_second) / u128::from(SECOND);
                prop_assert!(u128::from(passed) <= allowed + u128::from(largest) + 1);
            }
        }
    }
}
