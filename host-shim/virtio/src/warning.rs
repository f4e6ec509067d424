// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Warnings that a guest can cause as often as it likes, and that reach the log now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two warnings of one source.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

/// Lets one warning through per interval.
#[derive(Debug, Default)]
pub(crate) struct WarningLimit {
    state: Mutex<State>,
}

impl WarningLimit {
    /// `None` when the warning should not be written; else how many were not, since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let early = state
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL);
        if early {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_interval_passes_and_the_rest_is_counted() {
        let limit = WarningLimit::default();
        let begin = Instant::now();
        assert_eq!(limit.admit_at(begin), Some(0));
        assert_eq!(limit.admit_at(begin), None);
        assert_eq!(limit.admit_at(begin + INTERVAL / 2), None);
        assert_eq!(limit.admit_at(begin + INTERVAL), Some(2));
        assert_eq!(limit.admit_at(begin + INTERVAL), None);
        assert_eq!(limit.admit_at(begin + INTERVAL * 2), Some(1));
    }
}
