// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `monitor run --image` in a terminal: keys, echo, size, and the terminal as it was afterwards.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use capstream_e2e::{Cvm, Deployment, Program};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};

use crate::runs;

const LIMIT: Duration = Duration::from_secs(60);

/// A terminal with the monitor in it.
struct Terminal {
    keys: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
    monitor: Child,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    fn start(name: &str, words: &[&str]) -> Terminal {
        let environment = runs::environment();
        let all = [&["/static/tests/standard"], words].concat();
        let program = Program::new(&environment, name, &all);
        Terminal::of(program.arguments(&environment).unwrap())
    }

    /// The monitor with these arguments.
    fn of(arguments: Vec<OsString>) -> Terminal {
        let environment = runs::environment();
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        tcsetwinsize(&keys, size(40, 100)).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .custom_flags(0o400)
            .open(path)
            .unwrap();
        // It becomes the monitor, in a session whose terminal this is.
        let monitor = Command::new("setsid")
            .arg("--ctty")
            .arg(&environment.monitor)
            .args(arguments)
            .env("TERM", "vt220")
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal)
            .spawn()
            .unwrap();
        let keys = File::from(keys);
        let mut reader = keys.try_clone().unwrap();
        let (sender, screen) = channel();
        // It ends when nobody has the terminal any more.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            keys,
            screen,
            shown: String::new(),
            monitor,
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + runs::environment().limit(LIMIT);
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(_) => {
                    let _ = self.monitor.kill();
                    panic!("'{text}' is not shown, but {:?}", self.shown);
                }
            }
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.keys.as_fd()).unwrap();
        !modes
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !modes.output_modes.contains(OutputModes::OPOST)
    }

    /// Waits until nobody has the terminal any more; the monitor's exit status.
    fn finish(&mut self) -> Option<i32> {
        let status = self.monitor.wait().unwrap();
        while let Ok(bytes) = self.screen.recv_timeout(runs::environment().limit(LIMIT)) {
            self.shown += &String::from_utf8_lossy(&bytes);
        }
        let modes = tcgetattr(self.keys.as_fd()).unwrap();
        assert!(
            modes
                .local_modes
                .contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
        );
        assert!(modes.output_modes.contains(OutputModes::OPOST));
        status.code()
    }
}

#[test]
fn lines_are_edited_and_echoed_inside() {
    let mut terminal = Terminal::start("terminal_lines", &["line"]);
    terminal.wait_for("ready\r\n");
    assert!(terminal.is_raw());
    terminal.press("helpo\x7f\x7flo\r");
    terminal.wait_for("[hello]\r\n");
    assert_eq!(terminal.finish(), Some(0));
    assert!(
        terminal.shown.contains("helpo\x08 \x08\x08 \x08lo\r\n"),
        "{:?}",
        terminal.shown
    );
}

#[test]
fn interrupt_goes_to_the_program() {
    let mut terminal = Terminal::start("terminal_interrupt", &["line"]);
    terminal.wait_for("ready\r\n");
    terminal.press("\x03");
    assert_eq!(terminal.finish(), Some(130));
}

#[test]
fn end_of_input() {
    let mut terminal = Terminal::start("terminal_end", &["line"]);
    terminal.wait_for("ready\r\n");
    terminal.press("\x04");
    assert_eq!(terminal.finish(), Some(1));
}

#[test]
fn the_size_follows() {
    let mut terminal = Terminal::start("terminal_size", &["size"]);
    terminal.wait_for("40 rows, 100 columns\r\n");
    tcsetwinsize(&terminal.keys, size(33, 77)).unwrap();
    terminal.wait_for("33 rows, 77 columns\r\n");
    assert_eq!(terminal.finish(), Some(0));
}

#[test]
fn programs_find_a_terminal() {
    let mut terminal = Terminal::start("terminal_kind", &["terminal"]);
    for stream in ["stdin", "stdout", "stderr"] {
        terminal.wait_for(&format!("/dev/{stream}: terminal, open again\r\n"));
    }
    assert_eq!(terminal.finish(), Some(0));
    let mut terminal = Terminal::start("terminal_name", &["describe"]);
    terminal.wait_for("variable <TERM=vt220>\r\n");
    assert_eq!(terminal.finish(), Some(0));
}

/// However the monitor ends.
#[test]
fn the_terminal_is_given_back_after_a_crash() {
    let mut terminal = Terminal::start("terminal_crash", &["line"]);
    terminal.wait_for("ready\r\n");
    assert!(terminal.is_raw());
    kill_process(Pid::from_child(&terminal.monitor), Signal::KILL).unwrap();
    assert_eq!(terminal.finish(), None);
}

/// A shell as Debian has it.
mod needs_virtual_memory {
    use super::*;

    #[test]
    fn console_is_a_terminal_for_a_shell() {
        let environment = runs::environment();
        let image = environment.images.join("stock.img");
        let cvm = |name, args| {
            Cvm::new(name, args)
                .kept_disk(&image)
                .keys("overlay: memory")
        };
        // Of several cVMs none has the monitor's own input.
        let mut running = runs::start(
            &Deployment::new("console_shell")
                .controlled()
                .cvm(cvm(
                    "shell",
                    r#"[/bin/sh, -c, "echo here; read line; exec busybox sh"]"#,
                ))
                .cvm(cvm("other", "/bin/sleep 1000")),
        );
        running
            .wait_for_line("here", environment.limit(LIMIT))
            .unwrap();
        let mut terminal = Terminal::of(running.operating(&["console", "shell"]));
        terminal.wait_for("console of cVM `shell`");
        // The shell comes when there is a terminal for it.
        terminal.press("\r");
        terminal.wait_for("# ");
        assert!(terminal.is_raw());
        // The answers have no quotes, unlike the echo; after each there is a prompt.
        let mut command = |keys: &str, answer: &str| {
            terminal.shown.clear();
            terminal.press(keys);
            terminal.wait_for(answer);
            let end = terminal.shown.find(answer).unwrap_or_default() + answer.len();
            terminal.shown.drain(..end);
            terminal.wait_for("# ");
        };
        command("stty size; echo 're'ady\r", "40 100\r\nready\r\n");
        // Edited by the shell: to the begin of the line, and a letter taken out.
        command("xecho 'edi'ted\x01\x1b[3~\r", "edited\r\n");
        // In children, which get a signal from their begin.
        terminal.press(
            "sh -c \"trap 'stty size' WINCH; sleep 1000 & echo 'trap'ped; wait; kill \\$!\"\r",
        );
        terminal.wait_for("trapped\r\n");
        tcsetwinsize(&terminal.keys, size(33, 77)).unwrap();
        terminal.wait_for("33 77\r\n");
        terminal.press("sh -c \"echo 'sleep'ing; exec sleep 1000\"\r");
        terminal.wait_for("sleeping\r\n");
        terminal.press("\x03");
        terminal.press("echo 'status' $?\r");
        terminal.wait_for("status 130\r\n");
        terminal.press("exit 5\r");
        assert_eq!(terminal.finish(), Some(0), "{}", terminal.shown);
        runs::operate(&running, &["stop", "other"]);
        let outcome = runs::finish(running);
        assert!(
            outcome
                .errors()
                .any(|line| line.contains("`shell`") && line.contains("status 5")),
            "printed:\n{}",
            outcome.printed()
        );
    }
}
