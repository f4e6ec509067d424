// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel of a cVM logs: to a file, and the last of it in memory for a report when it panics.

use std::collections::VecDeque;
use std::fs::File;
use std::time::{Duration, Instant};

use crate::console::ConsoleWriter;
use crate::log_file::LogFile;
use crate::outlets::LineSplitter;

/// How many bytes are remembered.
const REMEMBERED: usize = 8 << 10;
/// What a kernel logs when it ends a program for want of memory.
const OUT_OF_MEMORY: &[u8] = b"Out of memory: Killed process";
/// How long a program may take to end after that, and still be taken for the one that was meant.
const DYING: Duration = Duration::from_secs(10);

/// The log of one cVM.
#[derive(Debug, Default)]
pub struct KernelLog {
    file: Option<LogFile>,
    /// Shows it as it comes.
    echo: Option<ConsoleWriter>,
    /// For operators.
    lines: Option<LineSplitter>,
    recent: VecDeque<u8>,
    /// When it ended a program for want of memory, the last time.
    out_of_memory: Option<Instant>,
}

impl KernelLog {
    /// Writes to all of these that there are.
    pub fn new(
        file: Option<File>,
        echo: Option<ConsoleWriter>,
        lines: Option<LineSplitter>,
    ) -> KernelLog {
        KernelLog {
            file: file.map(LogFile::new),
            echo,
            lines,
            recent: VecDeque::with_capacity(REMEMBERED),
            out_of_memory: None,
        }
    }

    /// Keeps bytes for a report.
    pub fn remember(&mut self, bytes: &[u8]) {
        let last = bytes
            .get(bytes.len().saturating_sub(REMEMBERED)..)
            .unwrap_or_default();
        let excess = (self.recent.len() + last.len()).saturating_sub(REMEMBERED);
        self.recent.drain(..excess);
        self.recent.extend(last);
        // As it comes: a long report about the same want may follow, and push this out.
        let new = last.len() + OUT_OF_MEMORY.len() - 1;
        let begin = self.recent.len().saturating_sub(new);
        let recent: Vec<u8> = self.recent.range(begin..).copied().collect();
        if recent
            .windows(OUT_OF_MEMORY.len())
            .any(|window| window == OUT_OF_MEMORY)
        {
            self.out_of_memory = Some(Instant::now());
        }
    }

    /// Whether the kernel has just ended a program for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        self.out_of_memory
            .is_some_and(|time| time.elapsed() < DYING)
    }

    /// Shows bytes; stops when `is_killed`.
    pub fn write(&mut self, bytes: &[u8], is_killed: &dyn Fn() -> bool) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(bytes)
        {
            tracing::warn!(%error, "the kernel's log is not written to its file any more");
            self.file = None;
        }
        if let Some(lines) = &mut self.lines {
            lines.write(bytes);
        }
        if let Some(echo) = &mut self.echo {
            echo.write(bytes, is_killed);
        }
    }

    /// The last `count` lines.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.recent.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let skip = lines.len().saturating_sub(count);
        lines
            .iter()
            .skip(skip)
            .map(|&line| line.to_owned())
            .collect()
    }

    /// Ends a line that is being shown.
    pub fn finish(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.finish();
        }
        if let Some(echo) = &mut self.echo {
            echo.finish();
        }
    }
}

/// What a kernel logs of a program that ends by a signal for which others dump core.
const FATAL: &str = "potentially unexpected fatal signal";

/// The lines that tell where a program was when such a signal ended it, the last one that did: the fault, if it was one, and its registers.
pub fn crash(lines: &[String]) -> &[String] {
    let Some(at) = lines.iter().rposition(|line| line.contains(FATAL)) else {
        return &[];
    };
    let is_fault = |line: &String| line.contains("]: signal ");
    let begin = match at.checked_sub(1) {
        Some(before) if lines.get(before).is_some_and(is_fault) => before,
        _ => at,
    };
    let registers = lines.iter().skip(at + 1).take_while(|line| {
        let mut words = line.split(' ');
        let value = words.nth(1).unwrap_or_default();
        line.starts_with("CPU: ")
            || (value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    let end = at + 1 + registers.count();
    lines.get(begin..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_remembered_and_nothing_more() {
        let mut log = KernelLog::default();
        for number in 0..10_000 {
            log.remember(format!("line {number}\n").as_bytes());
        }
        assert!(log.recent.len() <= REMEMBERED);
        assert_eq!(log.last_lines(2), ["line 9998", "line 9999"]);
        log.remember(&[b'x'; 3 * REMEMBERED]);
        assert_eq!(log.recent.len(), REMEMBERED);
    }

    #[test]
    fn want_of_memory_is_seen_whatever_follows() {
        let mut log = KernelLog::default();
        log.remember(b"Out of memory: Killed nobody\n");
        assert!(!log.was_out_of_memory());
        log.remember(b"[1.0] Out of memory: Kil");
        assert!(!log.was_out_of_memory());
        log.remember(b"led process 17 (greedy)\n");
        assert!(log.was_out_of_memory());
        log.remember(&[b'x'; 3 * REMEMBERED]);
        assert!(log.was_out_of_memory());
    }

    #[test]
    fn crash_is_the_last_ones() {
        let lines = |text: &[&str]| text.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let log = lines(&[
            "a[1]: signal 11 at ip 1",
            "a: a: potentially unexpected fatal signal 11.",
            "ip 0000000000000001 (image + 1)",
            "something else",
            "b: b: potentially unexpected fatal signal 6.",
            "CPU: 0 UID: 0 PID: 2 Comm: b",
            "ax 0000000000000000 bx 0000000000000000",
            "EXT4-fs (vda): re-mounted",
        ]);
        assert_eq!(crash(&log), &log[4..7]);
        assert_eq!(crash(&log[..4]), &log[..3]);
        assert!(crash(&log[2..4]).is_empty());
    }

    #[test]
    fn file_gets_everything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = KernelLog::new(Some(file.reopen().unwrap()), None, None);
        log.write(b"one\n", &|| false);
        log.write(b"two", &|| false);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"one\ntwo");
    }
}
