// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What operators do with a monitor that runs, and cVMs that are started again.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Deployment, Running};

/// A monitor that runs, with its socket.
struct Operated {
    running: Running,
    socket: PathBuf,
}

impl Operated {
    /// Starts it, and waits until it says `text`.
    fn start(deployment: &Deployment, text: &str) -> Operated {
        let mut running = deployment.start(Stdio::null());
        running.wait_for_line(text);
        Operated {
            running,
            socket: deployment.control(),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_monitor"));
        command
            .args(words)
            .arg("--control")
            .arg(&self.socket)
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command prints, which has to succeed.
    #[track_caller]
    fn tell(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The state of a cVM, as `ps` tells it.
    #[track_caller]
    fn state(&self, cvm: &str) -> Value {
        let listings: Value =
            serde_json::from_str(&self.tell(&["ps", "--format", "json"])).unwrap();
        let cvms = listings[0]["cvms"].as_array().unwrap();
        cvms.iter()
            .find(|state| state["name"] == cvm)
            .unwrap()
            .clone()
    }
}

#[test]
fn cvms_are_listed() {
    let deployment = Deployment::new()
        .cvm("first", &["waits_for_power_button"])
        .cvm("second", &["sleeps"])
        .with_control();
    let operated = Operated::start(&deployment, "second: ready");
    let state = operated.state("second");
    assert_eq!(state["state"], "running");
    assert_eq!(state["lives"], 1);
    assert_eq!(state["args"][1], "sleeps");
    assert!(state["seconds"].as_f64().unwrap() >= 0.0);
    let table = operated.tell(&["ps"]);
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("MONITOR"), "{table}");
    let line = lines.next().unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let process = operated.running.child.id().to_string();
    assert_eq!(words[..4], [process.as_str(), "first", "running", "1"]);
    operated.tell(&["kill", "second"]);
    operated.tell(&["stop", "first"]);
    operated.running.wait().expect(121);
    assert!(!deployment.control().exists(), "the socket goes");
}

#[test]
fn a_monitor_without_a_socket_of_its_own_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let deployment =
        Deployment::of(&["waits_for_power_button"]).environment("XDG_RUNTIME_DIR", folder.path());
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("ready");
    let operate = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_monitor"))
            .args(words)
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap()
    };
    let capstream = folder.path().join("capstream");
    assert_eq!(std::fs::metadata(&capstream).unwrap().mode() & 0o777, 0o700);
    // What a monitor that was killed leaves is removed.
    let stale = capstream.join("1.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let listed = operate(&["ps"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("only"));
    assert!(!stale.exists());
    let stopped = operate(&["stop", "only"]);
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    running.wait().expect(0);
    let nobody = operate(&["stop", "only"]);
    assert_eq!(nobody.status.code(), Some(3));
    let error = String::from_utf8(nobody.stderr).unwrap();
    assert!(error.contains("no monitor of yours runs"), "{error}");
}

#[test]
fn stop_presses_the_power_button_and_waits() {
    let deployment = Deployment::new()
        .cvm_with(
            "always",
            &["waits_for_power_button"],
            "restart: always\nrestart_delay: 0",
        )
        .cvm("other", &["waits_for_power_button"])
        .with_control();
    let operated = Operated::start(&deployment, "other: ready");
    let said = operated.tell(&["stop", "always"]);
    assert_eq!(said, "cVM `always`: it was powered off\n");
    let state = operated.state("always");
    assert_eq!(state["state"], "ended", "an operator's word is the last");
    assert_eq!(state["lives"], 1);
    assert_eq!(operated.state("other")["state"], "running");
    // Once more is no error.
    operated.tell(&["stop", "always"]);
    operated.tell(&["stop", "other"]);
    operated.running.wait().expect(0);
}

#[test]
fn stop_kills_a_cvm_that_has_had_its_time() {
    let deployment = Deployment::new()
        .cvm_with("deaf", &["loops"], "stop_timeout: 0")
        .with_control();
    let operated = Operated::start(&deployment, "ready");
    let said = operated.tell(&["stop", "deaf", "--format", "json"]);
    assert_eq!(said, "{\"done\":\"cVM `deaf`: it was killed\"}\n");
    operated.running.wait().expect(121);
}

#[test]
fn restart_gives_another_life() {
    let deployment = Deployment::new()
        .cvm("lives", &["waits_for_power_button"])
        .cvm("other", &["waits_for_power_button"])
        .with_control();
    let mut operated = Operated::start(&deployment, "other: ready");
    operated.tell(&["restart", "lives"]);
    operated.running.wait_for_line("lives: ready");
    assert_eq!(operated.state("lives")["lives"], 2);
    // One that has ended, too.
    operated.tell(&["kill", "lives"]);
    assert_eq!(operated.state("lives")["state"], "ended");
    operated.tell(&["restart", "lives"]);
    operated.running.wait_for_line("lives: ready");
    assert_eq!(operated.state("lives")["lives"], 3);
    operated.tell(&["stop", "lives"]);
    operated.tell(&["stop", "other"]);
    operated.running.wait().expect(0);
}

#[test]
fn restart_kills_a_cvm_that_has_had_its_time_and_starts_it() {
    let deployment = Deployment::new()
        .cvm_with("deaf", &["loops"], "stop_timeout: 0")
        .with_control();
    let mut operated = Operated::start(&deployment, "ready");
    let said = operated.tell(&["restart", "deaf"]);
    assert_eq!(said, "cVM `deaf` was started\n");
    operated.running.wait_for_line("ready");
    assert_eq!(operated.state("deaf")["lives"], 2);
    operated.tell(&["kill", "deaf"]);
    operated.running.wait().expect(121);
}

#[test]
fn what_cannot_be_done_is_said() {
    let deployment = Deployment::of(&["waits_for_power_button"]).with_control();
    let operated = Operated::start(&deployment, "ready");
    for words in [
        &["stop", "nobody"][..],
        &["console", "nobody"],
        &["logs", "nobody"],
    ] {
        let output = operated.ask(words);
        assert_eq!(output.status.code(), Some(3), "{words:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            error,
            "monitor: there is no cVM `nobody`; there are: only\n"
        );
    }
    let output = operated.ask(&["revoke", "nokey"]);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("nobody publishes") && error.contains("nokey"),
        "{error}"
    );
    operated.tell(&["stop", "only"]);
    operated.running.wait().expect(0);
}

#[test]
fn nonsense_on_the_socket_is_refused() {
    let deployment = Deployment::of(&["waits_for_power_button"]).with_control();
    let operated = Operated::start(&deployment, "ready");
    let mode = std::fs::metadata(&operated.socket).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    let long = vec![b'x'; 1 << 20];
    for nonsense in [
        &b"\n"[..],
        b"{\"request\":\"format\"}\n",
        b"\xff\0\n",
        &long,
    ] {
        let mut stream = UnixStream::connect(&operated.socket).unwrap();
        // The monitor may have stopped reading.
        let _ = stream.write_all(nonsense);
        let mut reply = String::new();
        let _ = BufReader::new(&stream).read_line(&mut reply);
        assert!(
            reply.is_empty() || reply.starts_with("{\"refused\":"),
            "{reply}"
        );
    }
    // Many that say nothing keep nobody out.
    let silent: Vec<UnixStream> = (0..30)
        .map(|_| UnixStream::connect(&operated.socket).unwrap())
        .collect();
    operated.tell(&["stop", "only"]);
    drop(silent);
    operated.running.wait().expect(0);
}

#[test]
fn a_cvm_that_fails_is_started_again() {
    let deployment = Deployment::new()
        .cvm_with(
            "only",
            &["fails_until", "3"],
            "restart: on-failure\nrestart_delay: 0",
        )
        .top_level("capfiles:\n  - { name: lives, size: 0x10 }\n");
    let ended = deployment.run().expect(0);
    assert_eq!(ended.out, "life 1\nlife 2\nlife 3\n");
    let log = std::fs::read_to_string(deployment.logs().join("only.log")).unwrap();
    assert_eq!(log, "", "its kernel logs nothing");
}

#[test]
fn a_cvm_that_may_not_be_started_again_is_not() {
    let ended = Deployment::new()
        .cvm_with("only", &["fails_until", "3"], "restart: never")
        .top_level("capfiles:\n  - { name: lives, size: 0x10 }\n")
        .run()
        .expect(7);
    assert_eq!(ended.out, "life 1\n");
}

#[test]
fn a_signal_ends_what_would_be_started_again_for_ever() {
    let deployment =
        Deployment::new().cvm_with("only", &["panics"], "restart: always\nrestart_delay: 30");
    let mut running = deployment.start(Stdio::null());
    running.wait_for_error("is started again in 30.0 s");
    running.signal(libc::SIGTERM);
    running.wait().expect(122);
}

#[test]
fn senders_of_a_receiver_that_is_started_again_reconnect() {
    let deployment = Deployment::new()
        .cvm_with(
            "receiver",
            &["receiver_of_some"],
            "restart: always\nrestart_delay: 0",
        )
        .cvm("sender", &["sender_over_lives", "3"])
        .with_control();
    let operated = Operated::start(&deployment, "sender: connection 3 is over");
    assert!(operated.state("receiver")["lives"].as_u64().unwrap() >= 3);
    operated.tell(&["kill", "receiver"]);
    operated.tell(&["stop", "sender"]);
    operated.running.wait().expect(121);
}

#[test]
fn more_lives_than_there_are_indices() {
    // Slow on simulated processors, and the indices are the same.
    if !support::is_native() {
        return;
    }
    let ended = Deployment::new()
        .cvm_with(
            "only",
            &["fails_until_many", "1100"],
            "restart: on-failure\nrestart_delay: 0",
        )
        .top_level("capfiles:\n  - { name: lives, size: 0x10 }\n")
        .run()
        .expect(0);
    assert_eq!(ended.out, "1100 lives\n");
}

#[test]
fn logs_show_what_was_written_and_follow() {
    let deployment = Deployment::new()
        .cvm("talker", &["logs_and_waits"])
        .cvm("other", &["waits_for_power_button"])
        .with_control();
    let operated = Operated::start(&deployment, "talker: a line of a program");
    let all = operated.tell(&["logs", "talker"]);
    assert_eq!(all, "a line of the kernel\na line of a program\n");
    let of_kernel = operated.tell(&["logs", "talker", "--source", "kernel"]);
    assert_eq!(of_kernel, "a line of the kernel\n");
    let last = operated.tell(&["logs", "talker", "-n", "1", "--format", "json"]);
    let line: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(line["source"], "output");
    assert_eq!(line["text"], "a line of a program");
    let mut follower = operated
        .command(&["logs", "talker", "--follow", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    followed.read_line(&mut line).unwrap();
    assert_eq!(line, "a line of a program\n");
    operated.tell(&["stop", "talker"]);
    let mut rest = String::new();
    followed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "power button\n", "until the end, and the end is told");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    operated.tell(&["stop", "other"]);
    operated.running.wait().expect(0);
}

#[test]
fn events_tell_what_happened() {
    let deployment = Deployment::new()
        .cvm("first", &["ends_with", "0", "3"])
        .cvm("second", &["waits_for_power_button"])
        .with_control();
    let operated = Operated::start(&deployment, "second: ready");
    let mut follower = operated
        .command(&["events", "--follow", "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(follower.stdout.take().unwrap()).lines();
    // It is there when it tells what was before.
    let first = events.next().unwrap();
    operated.tell(&["stop", "second"]);
    operated.running.wait().expect(1);
    let seen: Vec<(String, String)> = std::iter::once(first)
        .chain(events)
        .map(|line| {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&event["cvm"]), text(&event["message"]))
        })
        .collect();
    for (cvm, message) in [
        ("first", "started"),
        ("second", "started"),
        ("first", "ended"),
        ("second", "ended"),
    ] {
        let count = seen
            .iter()
            .filter(|seen| (seen.0.as_str(), seen.1.as_str()) == (cvm, message))
            .count();
        assert_eq!(count, 1, "{cvm} {message}: {seen:?}");
    }
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn a_console_is_connected_to_the_programs() {
    let deployment = Deployment::new()
        .cvm("echo", &["echoes"])
        .cvm("other", &["waits_for_power_button"])
        .with_control();
    let operated = Operated::start(&deployment, "other: ready");
    let mut console = operated
        .command(&["console", "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = console.stdin.take().unwrap();
    let mut output = BufReader::new(console.stdout.take().unwrap());
    for text in ["one\n", "two\n"] {
        input.write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    }
    // The program ends by this, and the console with it.
    input.write_all(b"!").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(console.wait().unwrap().code(), Some(0));
    operated.tell(&["stop", "other"]);
    operated.running.wait().expect(0);
}

#[test]
fn an_operator_takes_back_what_is_published() {
    let deployment = Deployment::new()
        .cvm("reader", &["reads_until_revoked"])
        .top_level("capfiles:\n  - { name: shared, size: 0x10 }\n")
        .with_control();
    let mut operated = Operated::start(&deployment, "reading");
    let said = operated.tell(&["revoke", "shared"]);
    assert_eq!(said, "file `shared` was taken back\n");
    operated.running.wait_for_line("revoked");
    operated.running.wait().expect(0);
}
