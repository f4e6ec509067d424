// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What comes out of a cVM and goes into it, for operators: kept beside the monitor's standard output and the log files, bounded, and
//! the same over all lives of the cVM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::console::{ConsoleInput, ConsoleWriter};
use crate::journal::{Journal, Record};

/// How many bytes of lines are remembered for each cVM.
const LINES: usize = 128 << 10;
/// How many bytes of output may wait for whoever is attached to the console.
const OUTPUT: usize = 64 << 10;
/// The longest line that is kept together.
const LONGEST_LINE: usize = 4096;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A program, to the console
    Output,
    /// The kernel, to its log
    Kernel,
}

/// A line that came out of a cVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was complete, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who wrote it.
    pub source: Source,
    /// It, without its end.
    pub text: String,
}

impl Record for LogLine {
    fn weight(&self) -> usize {
        size_of::<LogLine>() + self.text.len()
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
}

/// What comes out of one cVM, and what goes into its console.
#[derive(Debug)]
pub struct Outlets {
    /// Lines of its programs and of its kernel.
    pub lines: Journal<LogLine>,
    /// What its programs write, as it comes, while somebody is [attached](Outlets::attach).
    pub output: Journal<Vec<u8>>,
    attached: AtomicUsize,
    /// What its programs read.
    pub input: Arc<ConsoleInput>,
    /// Of the terminal of who was attached last: rows in the upper half, columns in the lower one; 0 when nobody has told.
    terminal_size: AtomicU32,
}

impl Outlets {
    /// For one cVM, whose input is the monitor's standard input or only what operators type.
    pub fn new(standard_input: bool) -> Outlets {
        Outlets {
            lines: Journal::new(LINES),
            output: Journal::new(OUTPUT),
            attached: AtomicUsize::new(0),
            input: Arc::new(ConsoleInput::new(standard_input)),
            terminal_size: AtomicU32::new(0),
        }
    }

    /// The rows and columns of the terminal that is the console, if it is one.
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        let size = self.terminal_size.load(Ordering::Relaxed);
        (size != 0).then_some(((size >> 16) as u16, size as u16))
    }

    /// The terminal has another size; its kernel has to be told to look.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = u32::from(rows) << 16 | u32::from(columns);
        self.terminal_size.store(size, Ordering::Relaxed);
    }

    /// From now on output is kept for whoever is attached, until that is dropped.
    pub fn attach(&self) -> Attached<'_> {
        self.attached.fetch_add(1, Ordering::SeqCst);
        Attached { outlets: self }
    }

    /// There will be no other life of the cVM.
    pub fn close(&self) {
        self.lines.close();
        self.output.close();
    }

    /// There will be another one after all.
    pub fn reopen(&self) {
        self.lines.reopen();
        self.output.reopen();
    }
}

/// Somebody is attached to the console.
pub struct Attached<'a> {
    outlets: &'a Outlets,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.outlets.attached.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Makes lines of bytes.
#[derive(Debug)]
pub struct LineSplitter {
    outlets: Arc<Outlets>,
    source: Source,
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Lines go to `outlets` as coming from `source`.
    pub fn new(outlets: Arc<Outlets>, source: Source) -> LineSplitter {
        LineSplitter {
            outlets,
            source,
            partial: Vec::new(),
        }
    }

    /// More bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                self.complete();
            }
        }
    }

    /// What is left is a line, too.
    pub fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        let text = String::from_utf8_lossy(&self.partial)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        self.partial.clear();
        self.outlets.lines.push(LogLine {
            time_ms: now_ms(),
            source: self.source,
            text,
        });
    }
}

/// What the programs of one life of a cVM write.
#[derive(Debug)]
pub struct ProgramOutput {
    console: ConsoleWriter,
    lines: LineSplitter,
}

impl ProgramOutput {
    /// Goes to the console and to the outlets.
    pub fn new(console: ConsoleWriter, outlets: Arc<Outlets>) -> ProgramOutput {
        ProgramOutput {
            console,
            lines: LineSplitter::new(outlets, Source::Output),
        }
    }

    /// Writes `bytes`; stops waiting for a reader of the console when `is_killed`.
    pub fn write(&mut self, bytes: &[u8], is_killed: &dyn Fn() -> bool) {
        let outlets = &self.lines.outlets;
        if outlets.attached.load(Ordering::SeqCst) > 0 {
            outlets.output.push(bytes.to_vec());
        }
        self.lines.write(bytes);
        self.console.write(bytes, is_killed);
    }

    /// Writes what is left of a line that will not be completed.
    pub fn finish(&mut self) {
        self.lines.finish();
        self.console.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(outlets: &Outlets) -> Vec<String> {
        let batch = outlets.lines.read(0);
        batch.records.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_of_both_sources_in_order() {
        let outlets = Arc::new(Outlets::new(false));
        let mut output = LineSplitter::new(Arc::clone(&outlets), Source::Output);
        let mut kernel = LineSplitter::new(Arc::clone(&outlets), Source::Kernel);
        output.write(b"a");
        kernel.write(b"k\n");
        output.write(b"b\r\nc");
        output.finish();
        kernel.finish();
        assert_eq!(texts(&outlets), ["k", "ab", "c"]);
    }

    #[test]
    fn a_line_without_end_does_not_grow() {
        let outlets = Arc::new(Outlets::new(false));
        let mut output = LineSplitter::new(Arc::clone(&outlets), Source::Output);
        for _ in 0..1000 {
            output.write(&[b'x'; 1000]);
            assert!(output.partial.len() <= LONGEST_LINE + 1000);
        }
        assert!(texts(&outlets).len() > 1);
    }
}
