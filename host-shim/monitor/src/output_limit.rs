// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much a cVM may write in a second: console output, kernel log and lines that the monitor prints on its behalf, all together.
//!
//! What is beyond that is dropped, and where it is missing a line says how much. Dropping goes on until a full second's worth has been saved up again, so that a
//! flood makes a gap now and then and not one between any two lines.

use std::cell::Cell;

use crate::rate::Rate;

/// What is saved up at least, in bytes: the log of a boot fits.
const LEAST: u64 = 64 << 10;

/// The limit of one cVM.
#[derive(Debug)]
pub struct OutputLimit {
    per_second: u64,
    rate: Rate,
    dropping: Cell<bool>,
}

/// Where one of the outputs of a cVM stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    /// How many bytes were dropped since the last that went through.
    dropped: u64,
    /// Whether the last that went through did not end a line.
    in_line: bool,
}

impl OutputLimit {
    /// So many bytes in a second.
    pub fn new(per_second: u64) -> OutputLimit {
        OutputLimit {
            per_second,
            rate: Rate::new(per_second, LEAST),
            dropping: Cell::new(false),
        }
    }

    /// Whether so many bytes may be written now; they count as written then.
    pub fn admit(&self, now: u64, len: u64) -> bool {
        let open = if self.dropping.get() {
            self.rate.is_idle(now)
        } else {
            self.rate.is_open(now)
        };
        self.dropping.set(!open);
        if open {
            self.rate.charge(now, len);
        }
        open
    }

    /// Hands `bytes` to `write`, after a line about what was dropped before; or drops them.
    pub fn pass(&self, gap: &Cell<Gap>, now: u64, bytes: &[u8], mut write: impl FnMut(&[u8])) {
        if !self.admit(now, bytes.len() as u64) {
            let Gap { dropped, in_line } = gap.get();
            let dropped = dropped.saturating_add(bytes.len() as u64);
            gap.set(Gap { dropped, in_line });
            return;
        }
        self.tell(gap, &mut write);
        write(bytes);
        if let Some(&last) = bytes.last() {
            gap.set(Gap {
                dropped: 0,
                in_line: last != b'\n',
            });
        }
    }

    /// Says what was dropped, if that is still to be said.
    pub fn tell(&self, gap: &Cell<Gap>, mut write: impl FnMut(&[u8])) {
        let Gap { dropped, in_line } = gap.take();
        if dropped == 0 {
            return gap.set(Gap { dropped, in_line });
        }
        let begin = if in_line { "\n" } else { "" };
        write(
            format!(
                "{begin}[{dropped} bytes were dropped here: more than {} in a second, the cVM's `log_rate`]\n",
                self.per_second
            )
            .as_bytes(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_flood_is_cut_and_says_where() {
        let limit = OutputLimit::new(1 << 20);
        let (gap, other) = (Cell::default(), Cell::default());
        let mut written: Vec<u8> = Vec::new();
        let piece = [b'x'; 4096];
        // Ten seconds, each with ten times as much as is allowed.
        for step in 0..25_600 {
            let now = 100 * SECOND + step * 10 * SECOND / 25_600;
            limit.pass(&gap, now, &piece, |bytes| written.extend(bytes));
        }
        // Both count together.
        let mut more: Vec<u8> = Vec::new();
        limit.pass(&other, 110 * SECOND - 1, b"more", |bytes| {
            more.extend(bytes)
        });
        limit.tell(&gap, |bytes| written.extend(bytes));
        assert!(written.len() < 12 << 20, "{}", written.len());
        assert!(written.len() > 4 << 20, "{}", written.len());
        let text = String::from_utf8(written).unwrap();
        let told: u64 = text
            .lines()
            .filter_map(|line| line.strip_prefix('['))
            .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        let passed = text.bytes().filter(|&byte| byte == b'x').count() as u64;
        assert_eq!(told + passed, 25_600 * 4096);
        let gaps = text
            .matches("bytes were dropped here: more than 1048576")
            .count();
        assert!((2..=12).contains(&gaps), "{gaps}");
        // A line of its own each.
        assert_eq!(
            text.lines().filter(|line| line.starts_with('[')).count(),
            gaps
        );
    }

    #[test]
    fn a_boot_fits_into_the_smallest_limit() {
        let limit = OutputLimit::new(1024);
        let gap = Cell::default();
        let mut written = 0;
        for _ in 0..64 {
            limit.pass(&gap, 1, &[b'x'; 1024], |bytes| written += bytes.len());
        }
        assert_eq!(written, 64 << 10);
        limit.pass(&gap, 1, b"one more", |_| panic!("it was dropped"));
    }
}
