// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a cVM that ended is started again, and when.

use std::time::Duration;

use capstream_config::{MAX_RESTART_DELAY, RestartPolicy};

use crate::exit_code::Outcome;

/// A cVM that ran for so long is not one that fails at once: the next delay is the first again.
const SETTLED: Duration = Duration::from_secs(60);

/// Whether the policy wants another life after this end.
pub fn is_wanted(policy: RestartPolicy, outcome: &Outcome) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => !outcome.is_success(),
        RestartPolicy::Always => true,
    }
}

/// Doubles from delay to delay.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    first: Duration,
    next: Duration,
}

impl BackOff {
    /// Begins with `first`.
    pub fn new(first: Duration) -> BackOff {
        let first = first.min(MAX_RESTART_DELAY);
        BackOff { first, next: first }
    }

    /// How long to wait after a life that lasted for `lived`.
    pub fn delay(&mut self, lived: Duration) -> Duration {
        if lived >= SETTLED {
            self.next = self.first;
        }
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(MAX_RESTART_DELAY);
        delay
    }

    /// The next delay is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_begin_again() {
        let mut back_off = BackOff::new(Duration::from_secs(3));
        let short = Duration::from_millis(10);
        let delays: Vec<u64> = (0..7).map(|_| back_off.delay(short).as_secs()).collect();
        assert_eq!(delays, [3, 6, 12, 24, 48, 60, 60]);
        assert_eq!(back_off.delay(SETTLED).as_secs(), 3);
        assert_eq!(back_off.delay(short).as_secs(), 6);
        back_off.reset();
        assert_eq!(back_off.delay(short).as_secs(), 3);
    }

    #[test]
    fn no_delay_stays_none() {
        let mut back_off = BackOff::new(Duration::ZERO);
        for _ in 0..100 {
            assert_eq!(back_off.delay(Duration::ZERO), Duration::ZERO);
        }
    }

    #[test]
    fn policies() {
        let wanted = |policy| {
            [
                Outcome::Exited(0),
                Outcome::Exited(3),
                Outcome::Signaled(9),
                Outcome::Panicked,
                Outcome::NotStarted("x".to_owned()),
            ]
            .map(|outcome| is_wanted(policy, &outcome))
        };
        assert_eq!(wanted(RestartPolicy::Never), [false; 5]);
        assert_eq!(wanted(RestartPolicy::Always), [true; 5]);
        assert_eq!(
            wanted(RestartPolicy::OnFailure),
            [false, true, true, true, true]
        );
    }
}
