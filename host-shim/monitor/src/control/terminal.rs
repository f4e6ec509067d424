// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operator's terminal while it is the console of a cVM.
//!
//! A terminal is in raw mode for that time: keys go to the cVM, whose own terminal driver echoes, edits lines and makes
//! signals of them. [`DETACH`] is the only key that stays here.

use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-], as in telnet.
pub const DETACH: u8 = 0x1d;

/// Raw mode of standard input, until it is dropped.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters it.
    ///
    /// # Errors
    ///
    /// When standard input is no terminal, or gone.
    pub fn enter() -> io::Result<RawMode> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // What was typed before is for the cVM, too.
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Carries bytes between the terminal, or whatever standard input and output are, and a console, until either ends or the operator
/// detaches. The end of an input that is no terminal ends nothing: what the cVM writes is still shown.
///
/// # Errors
///
/// When the terminal cannot be used.
pub fn run(stream: &UnixStream, what: &str) -> io::Result<()> {
    let raw = if io::stdin().is_terminal() {
        let raw = RawMode::enter()?;
        eprint!("[{what}; Ctrl-] leaves it]\r\n");
        Some(raw)
    } else {
        None
    };
    let to_console = stream.try_clone()?;
    let is_terminal = raw.is_some();
    // It may wait for a key for ever; it ends with the process.
    std::thread::spawn(move || send_keys(&to_console, is_terminal));
    let shown = show(stream);
    if raw.is_some() {
        drop(raw);
        eprintln!();
    }
    shown
}

fn send_keys(mut stream: &UnixStream, is_terminal: bool) {
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = io::stdin().lock().read(&mut buffer) {
        let keys = buffer.get(..len).unwrap_or_default();
        let detach = keys.iter().position(|&key| is_terminal && key == DETACH);
        let keys = keys.get(..detach.unwrap_or(len)).unwrap_or_default();
        if stream.write_all(keys).is_err() {
            return;
        }
        if detach.is_some() {
            // Whoever shows the output sees its end, too.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn show(mut stream: &UnixStream) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                output.write_all(buffer.get(..len).unwrap_or_default())?;
                output.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
