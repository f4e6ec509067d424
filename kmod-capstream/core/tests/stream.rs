// SPDX-License-Identifier: GPL-2.0-only
//! What programs may rely on, endpoint by endpoint.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use capstream_core::endpoint::Mode;
use capstream_core::stream::MAX_SIZE;
use capstream_core::{Errno, Key};
use std::sync::atomic::Ordering;
use std::thread;
use world::{Cvm, Endpoint, World};

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

#[test]
fn a_message_waits_for_the_receiver_and_leaves_the_rest_of_the_buffer_alone() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "key1", 32);
    let mut buffer = [b'.'; 32];
    receiver.register(&mut buffer).unwrap();
    let sender = Endpoint::sender(&cvm, "key1");
    assert_eq!(sender.write(b"text for ptr", false), Ok(12));
    let message = receiver.stream().wait(false, false).unwrap();
    assert_eq!(&buffer, b"text for ptr....................");
    assert_eq!(message.address, buffer.as_ptr() as u64);
    assert_eq!(message.length, 12);
    assert_eq!(message.sequence, 0);
    assert_eq!(receiver.stream().wait(true, false), Err(Errno::AGAIN));
}

#[test]
fn buffers_are_filled_oldest_first_and_messages_come_in_order() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 8);
    let mut buffers = [[0_u8; 8]; 5];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    let sender = Endpoint::sender(&cvm, "k");
    for n in 0..5_u8 {
        sender.write(&[n; 3], true).unwrap();
    }
    for (n, buffer) in buffers.iter().enumerate() {
        let message = receiver.stream().wait(true, false).unwrap();
        assert_eq!(message.address, buffer.as_ptr() as u64);
        assert_eq!(message.sequence, n as u64);
        assert_eq!(buffer[..3], [n as u8; 3]);
    }
}

#[test]
fn a_slot_is_used_again_and_order_survives_it() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 8);
    let sender = Endpoint::sender(&cvm, "k");
    let mut buffers = [[0_u8; 8]; 3];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    for n in 0..1000_u64 {
        sender.write(&n.to_ne_bytes(), true).unwrap();
        let message = receiver.stream().wait(true, false).unwrap();
        let buffer = buffers
            .iter_mut()
            .find(|buffer| buffer.as_ptr() as u64 == message.address)
            .unwrap();
        assert_eq!(u64::from_ne_bytes(*buffer), n);
        assert_eq!(message.address, buffers[n as usize % 3].as_ptr() as u64);
        receiver.register(&mut buffers[n as usize % 3]).unwrap();
    }
    // Each buffer was pinned once.
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 3);
}

#[test]
fn registering_refuses_what_it_must() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let endpoint = Endpoint::new(&cvm);
    let stream = endpoint.stream();
    let mut buffer = [0_u8; 100];
    assert_eq!(endpoint.register(&mut buffer), Err(Errno::INVAL));
    for size in [0, -1, i64::from(i32::MIN), MAX_SIZE as i64 + 1] {
        assert_eq!(stream.set_size(size), Err(Errno::INVAL), "{size}");
    }
    stream.set_size(MAX_SIZE as i64).unwrap();
    assert_eq!(stream.register(usize::MAX - 5), Err(Errno::FAULT));
    stream.set_size(50).unwrap();
    cvm.unmap(buffer.as_ptr() as usize + 60, 1);
    assert_eq!(endpoint.register(&mut buffer[20..]), Err(Errno::FAULT));
    endpoint.register(&mut buffer).unwrap();
    assert_eq!(endpoint.register(&mut buffer), Err(Errno::BUSY));
    assert_eq!(endpoint.register(&mut buffer[49..]), Err(Errno::BUSY));
    assert_eq!(stream.stats().queued, 1);
}

#[test]
fn the_queue_has_64_places() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 1);
    let mut buffers = [0_u8; 65];
    for buffer in buffers.chunks_mut(1).take(64) {
        receiver.register(buffer).unwrap();
    }
    assert_eq!(receiver.register(&mut buffers[64..]), Err(Errno::NOBUFS));
    let sender = Endpoint::sender(&cvm, "k");
    for n in 0..64_u8 {
        sender.write(&[n], true).unwrap();
    }
    // A buffer that holds a message that was not taken is still in use.
    assert_eq!(receiver.register(&mut buffers[64..]), Err(Errno::NOBUFS));
    assert_eq!(sender.write(&[9], true), Err(Errno::AGAIN));
    for n in 0..64 {
        assert_eq!(receiver.stream().wait(true, false).unwrap().sequence, n);
    }
    assert_eq!(receiver.register(&mut buffers[64..]), Ok(()));
}

#[test]
fn a_message_that_does_not_fit_changes_nothing() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    let mut buffer = [7_u8; 4];
    receiver.register(&mut buffer).unwrap();
    let sender = Endpoint::sender(&cvm, "k");
    assert_eq!(sender.write(&[1; 5], false), Err(Errno::MSGSIZE));
    assert_eq!(world.fetches.load(Ordering::SeqCst), 0);
    assert_eq!(buffer, [7; 4]);
    assert_eq!(sender.write(&[1; 4], false), Ok(4));
    assert_eq!(receiver.stream().wait(true, false).unwrap().length, 4);
    assert_eq!(receiver.stream().stats().too_long, 1);
}

#[test]
fn an_empty_message_is_a_message() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    let mut buffer = [7_u8; 4];
    receiver.register(&mut buffer).unwrap();
    let sender = Endpoint::sender(&cvm, "k");
    assert_eq!(sender.write(&[], false), Ok(0));
    assert_eq!(receiver.stream().wait(true, false).unwrap().length, 0);
    assert_eq!(buffer, [7; 4]);
}

#[test]
fn a_message_that_cannot_be_read_gives_the_buffer_back() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    let mut buffers = [[0_u8; 4]; 2];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    let sender = Endpoint::sender(&cvm, "k");
    let bad = [1_u8; 4];
    world
        .unreadable
        .store(bad.as_ptr() as usize, Ordering::SeqCst);
    assert_eq!(sender.write(&bad, false), Err(Errno::FAULT));
    assert_eq!(sender.write(&[2; 4], false), Ok(4));
    let message = receiver.stream().wait(true, false).unwrap();
    // It kept its place in the queue.
    assert_eq!(message.address, buffers[0].as_ptr() as u64);
    assert_eq!(buffers[0], [2; 4]);
    assert_eq!(receiver.stream().stats().faults, 1);
    assert_eq!(receiver.stream().stats().queued, 1);
}

#[test]
fn a_buffer_that_is_given_back_wakes_a_sender_that_found_none() {
    let world = World::new();
    let (a, b, c) = (Cvm::new(&world), Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    let bad = [1_u8; 4];
    world
        .unreadable
        .store(bad.as_ptr() as usize, Ordering::SeqCst);
    world.hold_fetches(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let sender = Endpoint::sender(&b, "k");
            assert_eq!(sender.write(&bad, false), Err(Errno::FAULT));
        });
        world.await_held(1);
        let other = scope.spawn(|| Endpoint::sender(&c, "k").write(&[2; 4], false));
        c.await_sleepers(1);
        world.hold_fetches(false);
        assert_eq!(other.join().unwrap(), Ok(4));
    });
    assert_eq!(receiver.stream().wait(true, false).unwrap().length, 4);
    assert_eq!(buffer, [2; 4]);
}

#[test]
fn a_sender_waits_for_a_buffer_in_every_mode() {
    for mode in [Mode::Sleep, Mode::Spin, Mode::Adaptive] {
        let world = World::new();
        let (a, b) = (Cvm::new(&world), Cvm::new(&world));
        let receiver = Endpoint::receiver(&a, "k", 4);
        let mut buffer = [0_u8; 4];
        thread::scope(|scope| {
            let sender = Endpoint::sender(&b, "k");
            assert_eq!(sender.write(&[1; 4], true), Err(Errno::AGAIN));
            sender.stream().set_mode(mode);
            let written = scope.spawn(move || sender.write(&[1; 4], false));
            if mode != Mode::Spin {
                b.await_sleepers(1);
            }
            receiver.register(&mut buffer).unwrap();
            assert_eq!(written.join().unwrap(), Ok(4), "{mode:?}");
        });
        assert_eq!(buffer, [1; 4]);
    }
}

#[test]
fn a_sender_waits_for_a_portal_in_every_mode() {
    for mode in [Mode::Sleep, Mode::Spin, Mode::Adaptive] {
        let world = World::new();
        let (a, b) = (Cvm::new(&world), Cvm::new(&world));
        let receiver = Endpoint::receiver(&a, "k", 4);
        let mut buffer = [0_u8; 4];
        receiver.register(&mut buffer).unwrap();
        let sender = Endpoint::sender(&b, "k");
        sender.stream().set_mode(mode);
        world.busy.store(1, Ordering::SeqCst);
        assert_eq!(sender.write(&[1; 4], true), Err(Errno::AGAIN));
        world.busy.store(1, Ordering::SeqCst);
        assert!(sender.stream().poll().writable);
        world.busy.store(5, Ordering::SeqCst);
        assert_eq!(sender.write(&[1; 4], false), Ok(4));
        // Also where it waits for a buffer already.
        thread::scope(|scope| {
            let written = scope.spawn(|| sender.write(&[2; 4], false));
            if mode != Mode::Spin {
                b.await_sleepers(1);
            }
            world.busy.store(5, Ordering::SeqCst);
            receiver.stream().wait(true, false).unwrap();
            receiver.register(&mut buffer).unwrap();
            assert_eq!(written.join().unwrap(), Ok(4));
        });
        // Signals are looked at meanwhile.
        world.busy.store(u32::MAX, Ordering::SeqCst);
        b.kill();
        assert_eq!(sender.write(&[1; 4], false), Err(Errno::INTR));
    }
}

#[test]
fn a_receiver_waits_for_a_message_in_every_mode() {
    for (mode, spin) in [
        (Mode::Sleep, false),
        (Mode::Spin, false),
        (Mode::Adaptive, false),
        (Mode::Sleep, true),
    ] {
        let world = World::new();
        let (a, b) = (Cvm::new(&world), Cvm::new(&world));
        let receiver = Endpoint::receiver(&a, "k", 4);
        receiver.stream().set_mode(mode);
        let mut buffer = [0_u8; 4];
        receiver.register(&mut buffer).unwrap();
        thread::scope(|scope| {
            let waited = scope.spawn(|| receiver.stream().wait(false, spin));
            if !spin && mode != Mode::Spin {
                a.await_sleepers(1);
            }
            Endpoint::sender(&b, "k").write(&[3; 2], false).unwrap();
            assert_eq!(waited.join().unwrap().unwrap().length, 2, "{mode:?}");
        });
    }
}

#[test]
fn no_interrupt_is_asked_for_while_nobody_sleeps() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let mut buffer = [0_u8; 4];
    let sender = Endpoint::sender(&b, "k");
    for _ in 0..10 {
        receiver.register(&mut buffer).unwrap();
        sender.write(&[1], false).unwrap();
        receiver.stream().wait(false, false).unwrap();
    }
    assert_eq!(a.interrupts.load(Ordering::SeqCst), 0);
    assert_eq!(b.interrupts.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.stream().stats().notifications, 0);
    assert_eq!(receiver.stream().stats().sleeps, 0);
}

#[test]
fn a_sleep_costs_one_interrupt() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffers = [[0_u8; 4]; 2];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    thread::scope(|scope| {
        let waited = scope.spawn(|| receiver.stream().wait(false, false));
        a.await_sleepers(1);
        // It may not sleep quite yet, and then it needs no interrupt.
        sender.write(&[1], false).unwrap();
        waited.join().unwrap().unwrap();
    });
    let notifications = receiver.stream().stats().notifications;
    assert!(notifications <= 1);
    sender.write(&[1], false).unwrap();
    if notifications == 1 {
        assert_eq!(receiver.stream().stats().notifications, 1);
    }
}

#[test]
fn signals_end_every_wait() {
    for mode in [Mode::Sleep, Mode::Spin, Mode::Adaptive] {
        let world = World::new();
        let (a, b) = (Cvm::new(&world), Cvm::new(&world));
        let receiver = Endpoint::receiver(&a, "k", 4);
        let sender = Endpoint::sender(&b, "k");
        receiver.stream().set_mode(mode);
        sender.stream().set_mode(mode);
        thread::scope(|scope| {
            let waited = scope.spawn(|| receiver.stream().wait(false, false));
            let written = scope.spawn(|| sender.write(&[1], false));
            let probed = scope.spawn(|| Endpoint::new(&b).stream().connect(&key("none"), false));
            if mode != Mode::Spin {
                a.await_sleepers(1);
            }
            a.kill();
            b.kill();
            assert_eq!(waited.join().unwrap(), Err(Errno::INTR));
            assert_eq!(written.join().unwrap(), Err(Errno::INTR));
            assert_eq!(probed.join().unwrap(), Err(Errno::INTR));
        });
    }
}

#[test]
fn a_sender_needs_a_connection_and_a_live_receiver() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    assert_eq!(Endpoint::new(&b).write(&[1], false), Err(Errno::NOTCONN));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    receiver.stream().reset().unwrap();
    assert_eq!(sender.write(&[1], false), Err(Errno::PIPE));
    assert!(sender.stream().poll().hangup);
}

#[test]
fn the_end_of_the_receiver_wakes_a_sender() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    thread::scope(|scope| {
        let written = scope.spawn(|| sender.write(&[1], false));
        b.await_sleepers(1);
        receiver.stream().reset().unwrap();
        assert_eq!(written.join().unwrap(), Err(Errno::PIPE));
    });
}

#[test]
fn a_probe_waits_for_the_key() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let sender = Endpoint::new(&b);
    assert_eq!(
        sender.stream().connect(&key("late"), true),
        Err(Errno::AGAIN)
    );
    thread::scope(|scope| {
        let probed = scope.spawn(|| sender.stream().connect(&key("late"), false));
        b.await_sleepers(1);
        let other = Endpoint::receiver(&a, "other", 4);
        let _receiver = Endpoint::receiver(&a, "late", 4);
        assert_eq!(probed.join().unwrap(), Ok(()));
        drop(other);
    });
}

#[test]
fn a_probe_gives_up_after_30_seconds() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let sender = Endpoint::new(&cvm);
    thread::scope(|scope| {
        let probed = scope.spawn(|| sender.stream().connect(&key("never"), false));
        cvm.await_sleepers(1);
        cvm.clock_skew_ns.store(29_000_000_000, Ordering::SeqCst);
        let _other = Endpoint::receiver(&cvm, "other", 4);
        assert!(!probed.is_finished());
        cvm.clock_skew_ns.store(30_000_000_000, Ordering::SeqCst);
        let _other = Endpoint::receiver(&cvm, "another", 4);
        assert_eq!(probed.join().unwrap(), Err(Errno::TIMEDOUT));
    });
}

#[test]
fn a_key_has_one_endpoint_and_an_endpoint_one_key() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let first = Endpoint::receiver(&cvm, "k", 4);
    let second = Endpoint::new(&cvm);
    assert_eq!(second.stream().advertise(key("k")), Err(Errno::ADDRINUSE));
    assert_eq!(first.stream().advertise(key("k")), Ok(()));
    let sender = Endpoint::sender(&cvm, "k");
    first.stream().advertise(key("new")).unwrap();
    assert_eq!(sender.write(&[1], false), Err(Errno::PIPE));
    assert_eq!(second.stream().advertise(key("k")), Ok(()));
    assert_eq!(sender.stream().connect(&key("new"), true), Ok(()));
}

#[test]
fn read_takes_a_filled_buffer_first() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 8);
    let mut registered = [0_u8; 8];
    receiver.register(&mut registered).unwrap();
    let sender = Endpoint::sender(&cvm, "k");
    sender.write(b"abc", false).unwrap();
    let mut short = [0_u8; 2];
    assert_eq!(receiver.read(&mut short, false), Err(Errno::MSGSIZE));
    assert_eq!(short, [0; 2]);
    let mut buffer = [b'.'; 6];
    assert_eq!(receiver.read(&mut buffer, false), Ok(3));
    assert_eq!(&buffer, b"abc...");
    assert_eq!(receiver.read(&mut buffer, true), Err(Errno::AGAIN));
    assert_eq!(receiver.read(&mut [], false), Ok(0));
}

#[test]
fn a_read_that_faults_keeps_the_message() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 8);
    let mut registered = [0_u8; 8];
    receiver.register(&mut registered).unwrap();
    Endpoint::sender(&cvm, "k").write(b"abc", false).unwrap();
    let mut bad = [0_u8; 8];
    cvm.unmap(bad.as_ptr() as usize, 1);
    assert_eq!(receiver.read(&mut bad, false), Err(Errno::FAULT));
    assert_eq!(receiver.stream().wait(true, false).unwrap().length, 3);
}

#[test]
fn read_receives_directly_when_nothing_is_registered() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 8);
    let sender = Endpoint::sender(&b, "k");
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [b'.'; 6];
            let len = receiver.read(&mut buffer, false);
            (len, buffer)
        });
        a.await_sleepers(1);
        assert_eq!(sender.write(b"toolong", false), Err(Errno::MSGSIZE));
        assert_eq!(sender.write(b"abc", false), Ok(3));
        assert_eq!(reader.join().unwrap(), (Ok(3), *b"abc..."));
    });
    assert_eq!(sender.write(b"abc", true), Err(Errno::AGAIN));
}

#[test]
fn read_waits_for_a_registered_buffer_rather_than_overtake_it() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 8);
    let sender = Endpoint::sender(&b, "k");
    let mut registered = [0_u8; 8];
    receiver.register(&mut registered).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [b'.'; 6];
            let len = receiver.read(&mut buffer, false);
            (len, buffer)
        });
        a.await_sleepers(1);
        sender.write(b"abc", false).unwrap();
        assert_eq!(reader.join().unwrap(), (Ok(3), *b"abc..."));
    });
    assert_eq!(&registered[..3], b"abc");
}

#[test]
fn a_signal_takes_the_readers_buffer_back() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 8);
    let sender = Endpoint::sender(&b, "k");
    thread::scope(|scope| {
        let reader = scope.spawn(|| receiver.read(&mut [0; 8], false));
        a.await_sleepers(1);
        a.kill();
        assert_eq!(reader.join().unwrap(), Err(Errno::INTR));
    });
    assert_eq!(sender.write(b"abc", true), Err(Errno::AGAIN));
    assert_eq!(receiver.stream().stats().queued, 0);
}

#[test]
fn a_signal_during_a_delivery_loses_nothing() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 8);
    let sender = Endpoint::sender(&b, "k");
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = [0; 8];
            (receiver.read(&mut buffer, false), buffer)
        });
        a.await_sleepers(1);
        world.hold_fetches(true);
        let written = scope.spawn(|| sender.write(b"abcdefgh", false));
        world.await_held(1);
        a.kill();
        world.hold_fetches(false);
        assert_eq!(written.join().unwrap(), Ok(8));
        assert_eq!(reader.join().unwrap(), (Ok(8), *b"abcdefgh"));
    });
}

#[test]
fn a_signal_during_a_delivery_that_fails_ends_the_read() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 8);
    let sender = Endpoint::sender(&b, "k");
    let bad = [1_u8; 8];
    world
        .unreadable
        .store(bad.as_ptr() as usize, Ordering::SeqCst);
    thread::scope(|scope| {
        let reader = scope.spawn(|| receiver.read(&mut [0; 8], false));
        a.await_sleepers(1);
        world.hold_fetches(true);
        let written = scope.spawn(|| sender.write(&bad, false));
        world.await_held(1);
        a.kill();
        world.hold_fetches(false);
        assert_eq!(written.join().unwrap(), Err(Errno::FAULT));
        assert_eq!(reader.join().unwrap(), Err(Errno::INTR));
    });
    assert_eq!(receiver.stream().stats().queued, 0);
}

#[test]
fn reset_waits_for_deliveries_and_forgets_everything() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffers = [[0_u8; 4]; 3];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    sender.write(&[1], false).unwrap();
    world.hold_fetches(true);
    thread::scope(|scope| {
        let written = scope.spawn(|| sender.write(&[2], false));
        world.await_held(1);
        let reset = scope.spawn(|| receiver.stream().reset());
        // It cannot be over while a portal is at a buffer.
        for _ in 0..1000 {
            assert!(!reset.is_finished());
            thread::yield_now();
        }
        world.hold_fetches(false);
        assert_eq!(written.join().unwrap(), Ok(1));
        assert_eq!(reset.join().unwrap(), Ok(()));
    });
    assert_eq!(a.pins.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.stream().stats(), Default::default());
    assert_eq!(receiver.register(&mut buffers[0]), Err(Errno::INVAL));
    assert_eq!(receiver.stream().wait(true, false), Err(Errno::AGAIN));
    // And everything works again.
    receiver.stream().set_size(4).unwrap();
    receiver.stream().advertise(key("k")).unwrap();
    receiver.register(&mut buffers[0]).unwrap();
    Endpoint::sender(&b, "k").write(&[5; 4], false).unwrap();
    assert_eq!(receiver.stream().wait(true, false).unwrap().sequence, 0);
    assert_eq!(buffers[0], [5; 4]);
}

#[test]
fn reset_ends_waits() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    thread::scope(|scope| {
        let waited = scope.spawn(|| receiver.stream().wait(false, false));
        let read = scope.spawn(|| receiver.read(&mut [0; 4], false));
        cvm.await_sleepers(2);
        receiver.stream().reset().unwrap();
        assert_eq!(waited.join().unwrap(), Err(Errno::CANCELED));
        assert_eq!(read.join().unwrap(), Err(Errno::CANCELED));
    });
}

#[test]
fn poll_tells_what_would_not_wait_and_wakes_at_changes() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    assert_eq!(Endpoint::new(&b).stream().poll(), Default::default());
    assert!(!receiver.stream().poll().readable);
    assert!(!sender.stream().poll().writable);
    let woken = |cvm: &Cvm| cvm.interrupts.swap(0, Ordering::SeqCst) > 0;
    assert!(!woken(&a) && !woken(&b));
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    assert!(woken(&b));
    assert!(sender.stream().poll().writable);
    sender.write(&[1], true).unwrap();
    assert!(woken(&a));
    assert!(receiver.stream().poll().readable);
    assert!(!sender.stream().poll().writable);
    assert!(!woken(&b));
    receiver.stream().reset().unwrap();
    assert!(woken(&b));
    assert!(sender.stream().poll().hangup);
}

#[test]
fn an_edge_after_a_drain_is_seen() {
    // What an edge-triggered epoll does: it polls once after each wake, and not when its user finds nothing more.
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffers = [[0_u8; 4]; 3];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    sender.write(&[1], true).unwrap();
    assert!(receiver.stream().poll().readable);
    receiver.stream().wait(true, false).unwrap();
    assert_eq!(receiver.stream().wait(true, false), Err(Errno::AGAIN));
    let before = a.interrupts.load(Ordering::SeqCst);
    sender.write(&[1], true).unwrap();
    assert_eq!(a.interrupts.load(Ordering::SeqCst), before + 1);
}

#[test]
fn an_endpoint_can_send_and_receive() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let left = Endpoint::receiver(&a, "to left", 4);
    let right = Endpoint::receiver(&b, "to right", 4);
    left.stream().connect(&key("to right"), true).unwrap();
    right.stream().connect(&key("to left"), true).unwrap();
    let (mut at_left, mut at_right) = ([0_u8; 4], [0_u8; 4]);
    left.register(&mut at_left).unwrap();
    right.register(&mut at_right).unwrap();
    left.write(&[1; 4], true).unwrap();
    right.write(&[2; 4], true).unwrap();
    left.stream().wait(true, false).unwrap();
    right.stream().wait(true, false).unwrap();
    assert_eq!((at_left, at_right), ([2; 4], [1; 4]));
    // Even to itself.
    left.stream().connect(&key("to left"), true).unwrap();
    left.register(&mut at_left).unwrap();
    left.write(&[3; 4], true).unwrap();
    left.stream().wait(true, false).unwrap();
    assert_eq!(at_left, [3; 4]);
}

#[test]
fn buffers_of_a_program_that_ended_get_no_messages() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    let mut buffers = [[0_u8; 4]; 3];
    receiver.register(&mut buffers[0]).unwrap();
    receiver.register(&mut buffers[1]).unwrap();
    let sender = Endpoint::sender(&cvm, "k");
    sender.write(&[1], true).unwrap();
    cvm.exec();
    // What arrived before can still be read; the pin of its buffer is the only one left.
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 1);
    assert_eq!(sender.write(&[2], true), Err(Errno::AGAIN));
    receiver.register(&mut buffers[2]).unwrap();
    sender.write(&[2], true).unwrap();
    let mut read = [0; 4];
    assert_eq!(receiver.read(&mut read, true), Ok(1));
    assert_eq!(read[0], 1);
    assert_eq!(
        receiver.stream().wait(true, false).unwrap().address,
        buffers[2].as_ptr() as u64
    );
    assert_eq!(buffers[2][0], 2);
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 1);
}

#[test]
fn the_end_of_a_program_waits_for_a_delivery_and_takes_its_buffers_back() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffers = [[0_u8; 4]; 2];
    for buffer in &mut buffers {
        receiver.register(buffer).unwrap();
    }
    world.hold_fetches(true);
    thread::scope(|scope| {
        let written = scope.spawn(|| sender.write(&[2], false));
        world.await_held(1);
        let ended = scope.spawn(|| a.exec());
        // It cannot be over while a portal is at a buffer of the program.
        a.await_sleepers(1);
        for _ in 0..1000 {
            assert!(!ended.is_finished());
            thread::yield_now();
        }
        world.hold_fetches(false);
        assert_eq!(written.join().unwrap(), Ok(1));
        ended.join().unwrap();
    });
    // Only what holds the message is kept, without any further request.
    assert_eq!(a.pins.load(Ordering::SeqCst), 1);
    assert_eq!(receiver.stream().stats().queued, 0);
    assert_eq!(receiver.read(&mut [0; 4], true), Ok(1));
    assert_eq!(a.pins.load(Ordering::SeqCst), 0);
}

#[test]
fn the_buffers_of_a_kernel_are_limited_together() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    cvm.most_places.store(3, Ordering::SeqCst);
    let first = Endpoint::receiver(&cvm, "a", 1);
    let second = Endpoint::receiver(&cvm, "b", 1);
    let mut bytes = [0_u8; 4];
    let [one, two, three, four] = &mut bytes;
    first.register(std::slice::from_mut(one)).unwrap();
    first.register(std::slice::from_mut(two)).unwrap();
    second.register(std::slice::from_mut(three)).unwrap();
    let refused = second.register(std::slice::from_mut(four));
    assert_eq!(refused, Err(Errno::NOBUFS));
    Endpoint::sender(&cvm, "a").write(&[1], true).unwrap();
    // One that holds a message is still in use.
    let refused = second.register(std::slice::from_mut(four));
    assert_eq!(refused, Err(Errno::NOBUFS));
    first.stream().wait(true, false).unwrap();
    second.register(std::slice::from_mut(four)).unwrap();
    first.stream().reset().unwrap();
    assert_eq!(cvm.places.load(Ordering::SeqCst), 2);
    cvm.exec();
    assert_eq!(cvm.places.load(Ordering::SeqCst), 0);
}

#[test]
fn who_has_sent_all_it_may_waits_or_is_told() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    world.over_quota.store(1, Ordering::SeqCst);
    assert_eq!(sender.write(&[1], true), Err(Errno::AGAIN));
    world.over_quota.store(5, Ordering::SeqCst);
    let before = std::time::Instant::now();
    assert_eq!(sender.write(&[1], false), Ok(1));
    // Not by spinning.
    assert!(before.elapsed() >= std::time::Duration::from_millis(5));
    world.over_quota.store(u32::MAX, Ordering::SeqCst);
    thread::scope(|scope| {
        let written = scope.spawn(|| sender.write(&[1], false));
        b.await_sleepers(1);
        b.kill();
        assert_eq!(written.join().unwrap(), Err(Errno::INTR));
    });
}

#[test]
fn a_portal_that_does_not_return_is_a_timeout_then_a_broken_pipe() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    world.stuck.store(true, Ordering::SeqCst);
    assert_eq!(sender.write(&[1], false), Err(Errno::TIMEDOUT));
    assert_eq!(sender.write(&[1], false), Err(Errno::PIPE));
    assert!(sender.stream().poll().hangup);
}

#[test]
fn a_key_that_this_kernel_may_not_use_is_refused_at_once() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    world.refused.store(u32::from(b'x'), Ordering::SeqCst);
    let endpoint = Endpoint::new(&cvm);
    let stream = endpoint.stream();
    assert_eq!(stream.connect(&key("x1"), false), Err(Errno::ACCES));
    assert_eq!(stream.connect(&key("x1"), true), Err(Errno::ACCES));
    assert_eq!(stream.advertise(key("x1")), Err(Errno::ACCES));
    assert_eq!(stream.stats().advertised, 0);
}

#[test]
fn a_sender_whose_receiver_is_gone_probes_again() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let receiver = Endpoint::receiver(&a, "k", 4);
    let sender = Endpoint::sender(&b, "k");
    receiver.stream().reset().unwrap();
    let next = Endpoint::receiver(&a, "k", 4);
    let mut buffer = [0_u8; 4];
    next.register(&mut buffer).unwrap();
    assert_eq!(sender.write(&[1], false), Err(Errno::PIPE));
    sender.stream().connect(&key("k"), false).unwrap();
    assert_eq!(sender.write(&[1], false), Ok(1));
    assert!(!sender.stream().poll().hangup);
}

#[test]
fn a_blocked_sender_notices_a_reset_and_a_new_peer() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let _full = Endpoint::receiver(&a, "full", 4);
    let free = Endpoint::receiver(&a, "free", 4);
    let mut buffer = [0_u8; 4];
    free.register(&mut buffer).unwrap();
    let sender = Endpoint::sender(&b, "full");
    thread::scope(|scope| {
        let written = scope.spawn(|| sender.write(&[1], false));
        b.await_sleepers(1);
        sender.stream().connect(&key("free"), true).unwrap();
        assert_eq!(written.join().unwrap(), Ok(1));
        let written = scope.spawn(|| sender.write(&[1], false));
        b.await_sleepers(1);
        sender.stream().reset().unwrap();
        assert_eq!(written.join().unwrap(), Err(Errno::CANCELED));
    });
}

#[test]
fn an_unmapped_buffer_is_not_registered_again() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    Endpoint::sender(&cvm, "k").write(&[1], true).unwrap();
    receiver.stream().wait(true, false).unwrap();
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 1);
    cvm.unmap(buffer.as_ptr() as usize, 4);
    assert_eq!(receiver.register(&mut buffer), Err(Errno::FAULT));
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 0);
}

#[test]
fn an_unknown_operation_is_refused() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", 4);
    struct Nothing;
    impl capstream_core::PortalCalls for Nothing {
        fn fetch(&self, _: usize, _: usize, _: usize) -> capstream_core::Result<()> {
            panic!("nothing is to be copied");
        }
        fn wake(&self, _: u64) {}
    }
    let mut buffer = [0_u8; 4];
    receiver.register(&mut buffer).unwrap();
    for operation in [3, u64::MAX] {
        let result = receiver.shared.portal(operation, 4, 0, &Nothing);
        assert_eq!(result, Errno::INVAL.negated());
    }
    let result = receiver.shared.portal(0, u64::MAX, 0, &Nothing);
    assert_eq!(result, Errno::MSGSIZE.negated());
}
