// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the operating commands print for people.

use std::fmt::Write;

use crate::control::{CvmState, Listing, Statistics};
use crate::events::EventRecord;
use crate::outlets::LogLine;
use crate::statistics::CvmStatistics;

/// Columns, each as wide as its widest cell; the last one as it is.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// `5 s`, `2 min 3 s`, `4 h 2 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// Text that a guest had a part in, without what a terminal would act on.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() && letter != '\t' {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

/// All cVMs of these monitors.
pub fn cvms(listings: &[Listing]) -> String {
    let mut rows = vec![cells(&[
        "MONITOR", "NAME", "STATE", "LIVES", "UP", "LAST END", "PROGRAM",
    ])];
    for listing in listings {
        for cvm in &listing.cvms {
            let CvmState {
                name,
                state,
                lives,
                seconds,
                outcome,
                args,
                ..
            } = cvm;
            rows.push(vec![
                listing.process.to_string(),
                name.clone(),
                state.clone(),
                lives.to_string(),
                seconds.map_or("-".to_owned(), duration),
                outcome.as_deref().map_or("-".to_owned(), plain),
                plain(&args.join(" ")),
            ]);
        }
    }
    align(&rows)
}

/// What cVMs and channels did; with what it was `before`, per second.
pub fn statistics(now: &Statistics, before: Option<&Statistics>) -> String {
    let seconds = before
        .map(|before| now.time_ms.saturating_sub(before.time_ms) as f64 / 1000.0)
        .filter(|&seconds| seconds > 0.0);
    // A count, or how much it grew in a second.
    let grew = |now: u64, before: Option<u64>| match (seconds, before) {
        (Some(seconds), Some(before)) => {
            let per_second = now.saturating_sub(before) as f64 / seconds;
            format!("{}/s", scaled(per_second.round() as u64))
        }
        _ => scaled(now),
    };
    let mut rows = vec![cells(&[
        "NAME",
        "CPU",
        "MEMORY",
        "SENT",
        "BYTES",
        "RECEIVED",
        "BYTES",
        "HOSTCALLS",
        "INTERRUPTS",
        "SLEEPS",
    ])];
    for cvm in &now.cvms {
        let old = before.and_then(|before| before.cvms.iter().find(|old| old.number == cvm.number));
        let count = |of: &dyn Fn(&CvmStatistics) -> u64| grew(of(cvm), old.map(of));
        let calls = |cvm: &CvmStatistics| cvm.hostcalls.values().sum::<u64>();
        let busy = match (cvm.busy_ns, old.and_then(|old| old.busy_ns), seconds) {
            (Some(now), Some(before), Some(seconds)) => {
                let share = now.saturating_sub(before) as f64 / seconds / 1e9;
                format!("{:.0} %", 100.0 * share)
            }
            (Some(now), ..) => duration(now as f64 / 1e9),
            (None, ..) => "-".to_owned(),
        };
        rows.push(vec![
            cvm.cvm.clone(),
            busy,
            cvm.resident_bytes.map_or("-".to_owned(), scaled),
            count(&|cvm| cvm.sent.messages),
            count(&|cvm| cvm.sent.bytes),
            count(&|cvm| cvm.received.messages),
            count(&|cvm| cvm.received.bytes),
            count(&calls),
            count(&|cvm| cvm.interrupts.total()),
            count(&|cvm| cvm.sleeps),
        ]);
    }
    let mut text = align(&rows);
    if now.channels.is_empty() {
        return text;
    }
    let mut rows = vec![cells(&[
        "KIND",
        "KEY",
        "OWNER",
        "MESSAGES",
        "BYTES",
        "IN FLIGHT",
        "PEERS",
    ])];
    for channel in &now.channels {
        let old = before.and_then(|before| {
            before.channels.iter().find(|old| {
                (&old.kind, &old.key, &old.owner) == (&channel.kind, &channel.key, &channel.owner)
            })
        });
        rows.push(vec![
            channel.kind.clone(),
            plain(&channel.key),
            channel.owner.clone(),
            grew(channel.messages, old.map(|old| old.messages)),
            grew(channel.bytes, old.map(|old| old.bytes)),
            channel.in_flight.to_string(),
            if channel.peers.is_empty() {
                "-".to_owned()
            } else {
                channel.peers.join(", ")
            },
        ]);
    }
    text.push('\n');
    text.push_str(&align(&rows));
    text
}

/// `999`, `1.0k`, `12M`, `3.4G`: powers of 1000.
pub fn scaled(count: u64) -> String {
    let mut rest = count as f64;
    if count < 1000 {
        return count.to_string();
    }
    for unit in ["k", "M", "G", "T", "P"] {
        rest /= 1000.0;
        if rest < 9.95 {
            return format!("{rest:.1}{unit}");
        }
        if rest < 999.5 {
            return format!("{rest:.0}{unit}");
        }
    }
    format!("{:.0}E", rest / 1000.0)
}

/// A line of a log.
pub fn log_line(line: &LogLine) -> String {
    plain(&line.text)
}

/// Something that happened.
pub fn event(event: &EventRecord) -> String {
    let mut text = format!("{} {:5} ", time(event.time_ms), event.level);
    if let Some(cvm) = &event.cvm {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}: ", plain(cvm));
    }
    text.push_str(&plain(&event.message));
    for (name, value) in &event.fields {
        let _ = write!(text, " {name}={}", plain(value));
    }
    text
}

/// A time of day in UTC: what has to be told apart is minutes old.
fn time(ms: u64) -> String {
    let seconds = ms / 1000 % 86400;
    format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [cells(&["A", "LONG", "C"]), cells(&["aaa", "b", "c"])];
        assert_eq!(align(&rows), "A    LONG  C\naaa  b     c\n");
    }

    #[test]
    fn large_numbers_are_short() {
        let texts = [
            0,
            999,
            1000,
            9960,
            123_456,
            999_600,
            5_000_000_000,
            u64::MAX,
        ]
        .map(scaled);
        assert_eq!(
            texts,
            ["0", "999", "1.0k", "10k", "123k", "1.0M", "5.0G", "18E"]
        );
    }

    #[test]
    fn durations() {
        let texts = [5.9, 123.0, 14_520.0, 273_600.0].map(duration);
        assert_eq!(texts, ["5 s", "2 min 3 s", "4 h 2 min", "3 d 4 h"]);
    }

    #[test]
    fn what_a_guest_wrote_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\tc"), "a\u{fffd}[2Jb\tc");
    }

    #[test]
    fn an_event_is_one_line() {
        let record = EventRecord {
            time_ms: 3_661_007,
            level: "WARN".to_owned(),
            cvm: Some("a".to_owned()),
            message: "refused".to_owned(),
            fields: [("key".to_owned(), "k\n".to_owned())].into(),
        };
        assert_eq!(
            event(&record),
            "01:01:01.007Z WARN  a: refused key=k\u{fffd}"
        );
    }
}
