// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the operating commands print for people.

use std::fmt::Write;

use crate::control::{CvmState, Listing};
use crate::events::EventRecord;
use crate::outlets::LogLine;

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
