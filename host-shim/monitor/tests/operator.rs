// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an operator takes back while cVMs use it.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_capability::{
    Capability, Class, Key, Kind, Mode, Owner, Permissions, Publication, RegistryError,
};
use capstream_monitor::exit_code::Outcome;
use capstream_monitor::platform::{AddressSpace, Placement, Protection};

use support::own_process::Monitor;

/// As in the guest.
const LARGE: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "{what}");
        std::thread::yield_now();
    }
}

fn word(space: &dyn AddressSpace, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    space.read(space.begin() + offset, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn nothing_touches_a_buffer_of_the_monitor_that_was_taken_back() {
    let monitor = Monitor::new();
    let exchange = &monitor.environment.exchange;
    let key = Key::from_name("large").unwrap();
    let space = monitor
        .environment
        .platform
        .reserve(Placement::Anywhere, LARGE)
        .unwrap();
    let data = Protection {
        read: true,
        write: true,
        execute: false,
    };
    space.protect(space.begin(), LARGE, data).unwrap();
    let range = Capability::root()
        .restrict(space.begin(), LARGE)
        .unwrap()
        .and_permissions(Permissions::LOAD_STORE | Permissions::GLOBAL)
        .unwrap();
    for _ in 0..3 {
        space
            .write(space.begin(), &vec![0; LARGE as usize])
            .unwrap();
        let publication = Publication {
            range,
            mode: Mode::ReadWrite,
        };
        let registry = exchange.registry();
        registry
            .advertise_file(registry.monitor(), key, publication.into())
            .unwrap();
        let users = [
            monitor.start(0, &["large_writer", "1"], None),
            monitor.start(1, &["large_reader", "1"], None),
        ];
        until("both users have left their mark", || {
            word(&*space, LARGE - 16) == 1 && word(&*space, LARGE - 8) == 1
        });
        let owner = exchange.revoke_key(Kind::File, key).unwrap();
        assert_eq!(owner, Owner::MONITOR);
        // The users' checks would find it, too.
        let canary: Vec<u8> = 0xca9a_27ca_9a27_ca9a_u64
            .to_le_bytes()
            .repeat(LARGE as usize / 8);
        space.write(space.begin(), &canary).unwrap();
        for _ in &users {
            assert_eq!(monitor.next_end().outcome, Outcome::Exited(0));
        }
        let mut found = vec![0; LARGE as usize];
        space.read(space.begin(), &mut found).unwrap();
        assert!(
            found == canary,
            "somebody wrote to it: {}",
            monitor.output()
        );
        for user in users {
            user.join();
        }
    }
    assert!(matches!(
        exchange.revoke_key(Kind::File, key),
        Err(RegistryError::NoSuchKey { .. })
    ));
}

#[test]
fn nothing_comes_to_a_stream_that_was_taken_back() {
    let monitor = Monitor::new();
    let exchange = &monitor.environment.exchange;
    let key = Key::from_name("large").unwrap();
    let receiver = monitor.start(0, &["large_receiver"], None);
    let senders = [
        monitor.start(1, &["large_sender", "1"], None),
        monitor.start(2, &["large_sender", "1"], None),
    ];
    until("both senders are connected", || {
        exchange
            .registry()
            .objects()
            .iter()
            .any(|object| object.peers.len() == senders.len())
    });
    // Long enough for messages of both.
    std::thread::sleep(Duration::from_millis(100));
    let owner = exchange
        .revoke_key(Kind::Portal(Class::STREAM), key)
        .unwrap();
    assert_eq!(owner, receiver.receiver.owner());
    for _ in &senders {
        let end = monitor.next_end();
        assert_eq!(end.outcome, Outcome::Exited(0), "{}", monitor.output());
    }
    receiver.receiver.line().raise(irq::POWER_BUTTON);
    let end = monitor.next_end();
    assert_eq!(end.outcome, Outcome::Exited(0), "{}", monitor.output());
    receiver.join();
    for sender in senders {
        sender.join();
    }
}
