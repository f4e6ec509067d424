// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A view that is drawn again and again, on a terminal in the same place.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::terminal::RawMode;

/// Cursor to the upper left corner, and everything below it gone.
const HOME: &str = "\x1b[H\x1b[J";
/// Keys that end it: q, Ctrl-C, Ctrl-D.
const END: [u8; 3] = [b'q', 3, 4];

/// The view. Standard input, if it is a terminal, is in raw mode while there is one.
pub struct View {
    raw: Option<RawMode>,
    clears: bool,
}

impl View {
    /// Takes the terminal, if there is one.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be used.
    pub fn new() -> io::Result<View> {
        let raw = if io::stdin().is_terminal() && io::stdout().is_terminal() {
            Some(RawMode::enter()?)
        } else {
            None
        };
        Ok(View {
            raw,
            clears: io::stdout().is_terminal(),
        })
    }

    /// Draws it.
    ///
    /// # Errors
    ///
    /// When standard output does not take it.
    pub fn show(&mut self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.clears {
            output.write_all(HOME.as_bytes())?;
        }
        for line in text.lines() {
            output.write_all(line.as_bytes())?;
            // A raw terminal does not go to the begin of a line by itself.
            let end = if self.raw.is_some() { "\r\n" } else { "\n" };
            output.write_all(end.as_bytes())?;
        }
        output.flush()
    }

    /// Waits for the time to draw it again, or for a key; returns whether that is one that ends it.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn wait(&mut self, interval: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        if self.raw.is_none() {
            poll(&mut [], Some(&timeout))?;
            return Ok(false);
        }
        let input = io::stdin();
        let mut events = [PollFd::new(&input, PollFlags::IN)];
        if poll(&mut events, Some(&timeout))? == 0 {
            return Ok(false);
        }
        let mut keys = [0; 16];
        let len = rustix::io::read(&input, &mut keys)?;
        let keys = keys.get(..len).unwrap_or_default();
        Ok(len == 0 || keys.iter().any(|key| END.contains(key)))
    }
}
