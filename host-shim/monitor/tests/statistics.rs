// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What cVMs and channels did, in numbers that are read while they run.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use capstream_capability::{Capability, Key, Mode, Permissions, Publication};
use capstream_monitor::console::Console;
use capstream_monitor::cvm::{self, Cvm, CvmSpec, EndOfCvm, Environment};
use capstream_monitor::exchange::Exchange;
use capstream_monitor::exit_code::Outcome;
use capstream_monitor::image::Image;
use capstream_monitor::outlets::Outlets;
use capstream_monitor::platform::{self, Options, Placement, Protection};
use capstream_monitor::traffic::Traffic;

/// Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a message of the guest `sender`.
const MESSAGE: u64 = 64;

/// A monitor within this process.
struct Monitor {
    environment: Environment,
    image: Image,
    sender: Sender<EndOfCvm>,
    ended: Receiver<EndOfCvm>,
    started: usize,
    _output: std::fs::File,
}

impl Monitor {
    fn new() -> Monitor {
        let platform = platform::by_name(support::platform(), &Options::default()).unwrap();
        let image = Image::open(support::guest(), &*platform).unwrap();
        let output = std::fs::File::create("/dev/null").unwrap();
        let environment = Environment {
            platform,
            exchange: Arc::new(Exchange::new()),
            console: Arc::new(Console::new(output.as_raw_fd())),
            run_directory: None,
            verbose: false,
            single: false,
            start: Instant::now(),
            kernel_args: String::new(),
            trace: None,
        };
        let (sender, ended) = mpsc::channel();
        Monitor {
            environment,
            image,
            sender,
            ended,
            started: 0,
            _output: output,
        }
    }

    fn start(&mut self, name: &str, args: &[&str]) -> Cvm {
        let all = ["/guest"].iter().chain(args);
        let spec = CvmSpec {
            name: name.to_owned(),
            disk: None,
            args: all.map(|&word| word.to_owned()).collect(),
            placement: Placement::Anywhere,
            size: Some(64 << 20),
            begin: None,
            end: None,
            portal_deadline: Duration::from_secs(1),
            clean_room: false,
            grants: capstream_config::Grants::All,
            limits: capstream_config::Limits::default(),
            outlets: Arc::new(Outlets::new(false)),
            again: false,
        };
        self.started += 1;
        cvm::start(
            self.started,
            &spec,
            &self.image,
            &self.environment,
            self.sender.clone(),
            |end| end,
        )
        .unwrap()
    }

    /// Waits for the end of a cVM.
    fn wait(&self) -> Outcome {
        self.ended.recv_timeout(LIMIT).unwrap().outcome
    }
}

/// Waits for what no event tells.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "it never happened that {what}");
        std::thread::yield_now();
    }
}

#[test]
fn messages_are_counted_where_they_leave_and_where_they_arrive() {
    let count = support::rounds(5000);
    let mut monitor = Monitor::new();
    // It waits for one more than there will be.
    let receiver = monitor.start("receiver", &["receiver", "1", &(count + 1).to_string()]);
    let idle = monitor.start("idle", &["waits_for_power_button"]);
    let sender = monitor.start("sender", &["sender", "0", &count.to_string()]);
    assert_eq!(monitor.wait(), Outcome::Exited(0));
    eventually("the receiver sleeps", || receiver.statistics().asleep);

    let all = Traffic {
        messages: count,
        bytes: count * MESSAGE,
    };
    let sent = sender.statistics();
    assert_eq!((sent.cvm.as_str(), sent.sent), ("sender", all));
    assert_eq!(sent.received, Traffic::default());
    // Those that found no room are calls too, and run the portal.
    assert!(sent.hostcalls["Call"] >= count);
    assert_eq!(sent.portal_runs, sent.hostcalls["Call"]);
    assert_eq!(sent.hostcalls["CallFetch"], count);
    assert!(!sent.hostcalls.contains_key("StreamAdvertise"));
    assert!(!sent.asleep);
    assert_eq!(sent.resident_bytes, Some(0));

    let received = receiver.statistics();
    assert_eq!(received.received, all);
    assert_eq!(received.sent, Traffic::default());
    assert_eq!(received.hostcalls["StreamAdvertise"], 1);
    assert!(!received.hostcalls.contains_key("Call"));
    assert!(received.interrupts.capability >= 1);
    assert!(received.sleeps >= 1 && received.hostcalls["WaitForInterrupt"] >= 1);
    assert_eq!(received.memory_bytes, 64 << 20);
    let resident = received.resident_bytes.unwrap();
    assert!(resident > 0 && resident < received.memory_bytes);

    let channels = monitor.environment.exchange.channels();
    let [channel] = channels.as_slice() else {
        panic!("{channels:?}");
    };
    assert_eq!(
        (channel.kind.as_str(), channel.key.as_str()),
        ("stream", "key1")
    );
    assert_eq!(channel.owner, "receiver");
    assert_eq!((channel.messages, channel.bytes), (count, count * MESSAGE));
    assert_eq!((channel.in_flight, channel.revoked), (0, false));
    // The sender has ended.
    assert!(channel.peers.is_empty());

    for cvm in [&receiver, &idle] {
        cvm.receiver.line().kill();
        assert_eq!(monitor.wait(), Outcome::Killed);
    }
    // What it received stays with it; the channel is gone.
    assert_eq!(receiver.statistics().received, all);
    assert!(monitor.environment.exchange.channels().is_empty());
    for cvm in [receiver, idle, sender] {
        cvm.join();
    }
}

#[test]
fn a_channel_shows_who_uses_it_while_messages_flow() {
    let mut monitor = Monitor::new();
    let receiver = monitor.start("receiver", &["receiver_for_a_while", "1000000000"]);
    let senders = ["one", "two"].map(|name| monitor.start(name, &["sender_for_ever"]));
    let exchange = Arc::clone(&monitor.environment.exchange);
    eventually("both have sent", || {
        senders
            .iter()
            .all(|sender| sender.statistics().sent.messages > 0)
    });
    let first = exchange.channels().remove(0);
    assert_eq!(first.peers, ["one", "two"]);
    eventually("more has arrived", || {
        exchange.channels().remove(0).messages > first.messages
    });
    for sender in &senders {
        sender.receiver.line().kill();
        assert_eq!(monitor.wait(), Outcome::Killed);
    }
    let total: u64 = senders
        .iter()
        .map(|sender| sender.statistics().sent.messages)
        .sum();
    let last = exchange.channels().remove(0);
    assert_eq!((last.messages, last.bytes), (total, total * MESSAGE));
    assert_eq!(receiver.statistics().received.messages, total);
    receiver.receiver.line().kill();
    assert_eq!(monitor.wait(), Outcome::Killed);
}

#[test]
fn time_output_and_interrupts_are_those_of_the_cvm() {
    let mut monitor = Monitor::new();
    let timers = monitor.start("timers", &["timers", &support::rounds(2000).to_string()]);
    assert_eq!(monitor.wait(), Outcome::Exited(0));
    let looping = monitor.start("looping", &["loops"]);
    let timers = timers.statistics();
    assert!(timers.interrupts.timer > 0);
    assert!(timers.hostcalls["TimerSet"] >= support::rounds(2000));
    // It loops without a hostcall, and is not asleep: the time of its thread grows.
    let begin = looping.statistics().busy_ns.unwrap();
    eventually("its thread had 20 ms", || {
        looping.statistics().busy_ns.unwrap() >= begin + 20_000_000
    });
    assert!(!looping.statistics().asleep);
    looping.receiver.line().kill();
    assert_eq!(monitor.wait(), Outcome::Killed);
    assert!(looping.statistics().busy_ns.unwrap() >= begin + 20_000_000);

    let counts = monitor.start("counts", &["counts", "100", "name"]);
    assert_eq!(monitor.wait(), Outcome::Exited(0));
    let expected: usize = (0..100).map(|n| format!("name counts {n}\n").len()).sum();
    assert_eq!(counts.statistics().console_bytes, expected as u64);
    let unknown = monitor.start("unknown", &["unknown_numbers"]);
    assert_eq!(monitor.wait(), Outcome::Exited(0));
    assert!(unknown.statistics().unknown_hostcalls >= 15);
}

#[test]
fn uses_of_a_published_range_are_counted() {
    const SIZE: u64 = 0x20;
    let mut monitor = Monitor::new();
    let platform = &monitor.environment.platform;
    let space = platform.reserve(Placement::Anywhere, 4096).unwrap();
    let data = Protection {
        read: true,
        write: true,
        execute: false,
    };
    space.protect(space.begin(), 4096, data).unwrap();
    space
        .write(
            space.begin(),
            b"Hello world\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        )
        .unwrap();
    let range = Capability::root()
        .restrict(space.begin(), SIZE)
        .and_then(|range| range.and_permissions(Permissions::LOAD_STORE | Permissions::GLOBAL))
        .unwrap();
    let publication = Publication {
        range,
        mode: Mode::ReadWrite,
    };
    let registry = monitor.environment.exchange.registry();
    registry
        .advertise_file(
            registry.monitor(),
            Key::from_name("test1").unwrap(),
            publication.into(),
        )
        .unwrap();
    let reader = monitor.start("reader", &["file_reader"]);
    assert_eq!(monitor.wait(), Outcome::Exited(0));
    let channel = monitor.environment.exchange.channels().remove(0);
    assert_eq!(
        (channel.kind.as_str(), channel.owner.as_str()),
        ("file", "monitor")
    );
    // What that guest reads and writes, without what is at the end of the range.
    assert_eq!((channel.messages, channel.bytes), (5, 32 + 12 + 28 + 1 + 2));
    assert_eq!(reader.statistics().hostcalls["FileWrite"], 2);
}
