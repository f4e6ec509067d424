// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When what happened to a cVM, for measurements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The events, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Image, pages and devices are in place.
    Loaded,
    /// The vCPU's thread goes to the image's entry.
    Entered,
    /// The kernel can take traps.
    Ready,
    /// The first byte that a program wrote.
    FirstOutput,
    /// The cVM ended.
    Ended,
}

const NAMES: [&str; 5] = ["loaded", "entered", "ready", "first_output", "ended"];

/// Microseconds from the monitor's start to each event of one cVM.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    /// One more than the microseconds; 0 when it has not happened.
    events: [AtomicU64; NAMES.len()],
}

impl Timings {
    /// Nothing has happened since `start`.
    pub fn new(start: Instant) -> Timings {
        Timings {
            start,
            events: [const { AtomicU64::new(0) }; NAMES.len()],
        }
    }

    /// It happens now; only the first time counts.
    pub fn record(&self, event: Event) {
        let Some(place) = self.events.get(event as usize) else {
            return;
        };
        if place.load(Ordering::Relaxed) == 0 {
            let passed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
            // Whoever comes second finds another value and leaves it.
            let _ = place.compare_exchange(0, passed + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// One line of JSON: the name, and for each event that has happened its microseconds.
    pub fn to_json(&self, cvm: &str) -> String {
        let mut json = String::from("{\"cvm\":\"");
        for letter in cvm.chars() {
            match letter {
                '"' | '\\' => json.extend(['\\', letter]),
                control if control.is_control() => {
                    json.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                _ => json.push(letter),
            }
        }
        json.push('"');
        for (name, event) in NAMES.iter().zip(&self.events) {
            if let Some(passed) = event.load(Ordering::Relaxed).checked_sub(1) {
                json.push_str(&format!(",\"{name}_us\":{passed}"));
            }
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_what_happened_once() {
        let timings = Timings::new(Instant::now());
        timings.record(Event::Loaded);
        let first = timings.to_json("a\"b");
        std::thread::sleep(std::time::Duration::from_millis(2));
        timings.record(Event::Loaded);
        assert_eq!(timings.to_json("a\"b"), first);
        assert!(
            first.starts_with("{\"cvm\":\"a\\\"b\",\"loaded_us\":"),
            "{first}"
        );
        assert!(!first.contains("ended"));
    }
}
