// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Results: what was measured, against what, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Nanoseconds,
    /// More is better.
    BytesPerSecond,
    /// Less is better.
    Bytes,
    /// More is better.
    InstructionsPerSecond,
    /// More is better.
    RequestsPerSecond,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::BytesPerSecond => "B/s",
            Unit::Bytes => "B",
            Unit::InstructionsPerSecond => "instructions/s",
            Unit::RequestsPerSecond => "requests/s",
        }
    }

    /// A number that a person can read, with three or four digits.
    fn show(self, value: f64) -> String {
        let scaled = |step: f64, units: &[&str]| {
            let mut value = value;
            let mut unit = 0;
            while value >= step * 0.9995 && unit + 1 < units.len() {
                value /= step;
                unit += 1;
            }
            let digits = if value < 9.995 {
                2
            } else if value < 99.95 {
                1
            } else {
                0
            };
            let unit = units.get(unit).copied().unwrap_or_default();
            format!("{value:.digits$} {unit}")
        };
        match self {
            Unit::Nanoseconds => scaled(1000.0, &["ns", "µs", "ms", "s"]),
            Unit::BytesPerSecond => scaled(1000.0, &["B/s", "kB/s", "MB/s", "GB/s"]),
            Unit::Bytes => scaled(1024.0, &["B", "KiB", "MiB", "GiB"]),
            Unit::InstructionsPerSecond => scaled(1000.0, &["IPS", "kIPS", "MIPS", "GIPS"]),
            Unit::RequestsPerSecond => scaled(1000.0, &["/s", "k/s", "M/s"]),
        }
    }
}

/// All that was measured of one thing, one number for each run.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub fn new() -> Samples {
        Samples(Vec::new())
    }

    /// One more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one, or the mean of the middle two; not a number when there are none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
        if sorted.len() % 2 == 1 {
            return upper;
        }
        let lower = middle.checked_sub(1).and_then(|index| sorted.get(index));
        lower.map_or(f64::NAN, |lower| (lower + upper) / 2.0)
    }
}

/// What a result should reach.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// At most so many times a rival's number.
    Fraction(&'static str, f64),
    /// At least so many times a rival's number.
    Multiple(&'static str, f64),
    /// At most so much.
    Limit(f64),
    /// At least so much.
    Least(f64),
}

/// One thing that was measured in a cVM, and in its rivals.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// What the numbers count.
    pub unit: Unit,
    /// In a cVM.
    pub ours: Samples,
    /// Elsewhere; `None` when the rival is not on this machine.
    pub rivals: Vec<(&'static str, Option<Samples>)>,
    /// What should be reached.
    pub aims: Vec<Aim>,
}

/// Measurements that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its title.
    pub title: &'static str,
    /// What was measured.
    pub measurements: Vec<Measurement>,
}

impl Measurement {
    fn rival(&self, name: &str) -> Option<f64> {
        let (_, samples) = self.rivals.iter().find(|(rival, _)| *rival == name)?;
        samples.as_ref().map(Samples::median)
    }

    /// Whether an aim is reached, as a ratio to what it allows: 1 and less is good. `None` without the rival.
    fn shortfall(&self, aim: Aim) -> Option<f64> {
        let ours = self.ours.median();
        match aim {
            Aim::Limit(limit) => Some(ours / limit),
            Aim::Least(least) => Some(least / ours),
            Aim::Fraction(rival, factor) => self.rival(rival).map(|value| ours / (value * factor)),
            Aim::Multiple(rival, factor) => self.rival(rival).map(|value| value * factor / ours),
        }
    }

    fn aim_text(&self, aim: Aim) -> String {
        let wanted = match aim {
            Aim::Limit(limit) => format!("at most {}", self.unit.show(limit)),
            Aim::Least(least) => format!("at least {}", self.unit.show(least)),
            Aim::Fraction(rival, factor) => format!("at most {factor} × {rival}"),
            Aim::Multiple(rival, factor) => format!("at least {factor} × {rival}"),
        };
        match self.shortfall(aim) {
            None => format!("{wanted}: not measured"),
            Some(ratio) if ratio <= 1.0 => format!("{wanted}: reached"),
            Some(ratio) => format!("{wanted}: missed by a factor of {ratio:.2}"),
        }
    }

    fn json(&self) -> Value {
        let median = self.ours.median();
        let rivals: Vec<_> = self
            .rivals
            .iter()
            .map(|(name, samples)| match samples {
                None => json!({ "name": name, "installed": false }),
                Some(samples) => json!({
                    "name": name,
                    "median": samples.median(),
                    "samples": samples.0,
                    "ratio": median / samples.median(),
                }),
            })
            .collect();
        let aims: Vec<_> = self
            .aims
            .iter()
            .map(|&aim| {
                json!({
                    "aim": self.aim_text(aim),
                    "reached": self.shortfall(aim).map(|ratio| ratio <= 1.0),
                })
            })
            .collect();
        json!({
            "name": self.name,
            "unit": self.unit.name(),
            "median": median,
            "samples": self.ours.0,
            "rivals": rivals,
            "aims": aims,
        })
    }
}

impl Group {
    /// The group as a table: a line for each measurement, with its rivals and the ratio to each, and its aims below.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for measurement in &self.measurements {
            let ours = measurement.ours.median();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  {:<34} {:>11}",
                measurement.name,
                measurement.unit.show(ours)
            );
            for (rival, samples) in &measurement.rivals {
                let _ = match samples {
                    None => writeln!(text, "      {rival:<30} {:>11}", "not here"),
                    Some(samples) => {
                        let theirs = samples.median();
                        let shown = measurement.unit.show(theirs);
                        let ratio = ours / theirs;
                        writeln!(
                            text,
                            "      {rival:<30} {shown:>11}   cVM / rival = {ratio:.2}"
                        )
                    }
                };
            }
            for &aim in &measurement.aims {
                let _ = writeln!(text, "      aim: {}", measurement.aim_text(aim));
            }
        }
        text
    }

    /// The group as JSON.
    pub fn json(&self) -> Value {
        let measurements: Vec<_> = self.measurements.iter().map(Measurement::json).collect();
        json!({ "title": self.title, "measurements": measurements })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn median_is_the_middle_one() {
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Samples::new().median().is_nan());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(Unit::Nanoseconds.show(12.345), "12.3 ns");
        assert_eq!(Unit::Nanoseconds.show(999.9), "1.00 µs");
        assert_eq!(Unit::BytesPerSecond.show(4.4e9), "4.40 GB/s");
        assert_eq!(Unit::Bytes.show(16.0 * 1048576.0), "16.0 MiB");
    }

    #[test]
    fn aims_say_by_how_much_they_are_missed() {
        let measurement = Measurement {
            name: "x".to_owned(),
            unit: Unit::Nanoseconds,
            ours: samples(&[30.0]),
            rivals: vec![("host", Some(samples(&[100.0]))), ("other", None)],
            aims: Vec::new(),
        };
        assert!(
            measurement
                .aim_text(Aim::Fraction("host", 0.5))
                .ends_with("reached")
        );
        assert!(
            measurement
                .aim_text(Aim::Fraction("host", 0.1))
                .ends_with("factor of 3.00")
        );
        assert!(
            measurement
                .aim_text(Aim::Multiple("host", 0.6))
                .ends_with("factor of 2.00")
        );
        assert!(
            measurement
                .aim_text(Aim::Fraction("other", 1.0))
                .ends_with("not measured")
        );
    }
}
