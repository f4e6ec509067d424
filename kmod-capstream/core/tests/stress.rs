// SPDX-License-Identifier: GPL-2.0-only
//! Many senders on their own threads against one receiver: every message arrives once, whole, and in its sender's order.
//!
//! `CAPSTREAM_STRESS` multiplies how many messages there are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use capstream_core::endpoint::Mode;
use capstream_core::{Errno, Key};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use world::{Cvm, Endpoint, World};

const SENDERS: u64 = 4;
const SIZE: usize = 256;

fn messages() -> u64 {
    let factor = std::env::var("CAPSTREAM_STRESS").ok();
    2000 * factor.map_or(1, |factor| factor.parse().unwrap())
}

/// A message that tells who it is from, and what it must be in every byte.
fn compose(sender: u64, number: u64) -> Vec<u8> {
    let len = 16 + (sender.wrapping_mul(31) + number.wrapping_mul(17)) as usize % (SIZE - 16);
    let mut message = vec![(sender * 16 + number) as u8; len];
    message[..8].copy_from_slice(&sender.to_le_bytes());
    message[8..16].copy_from_slice(&number.to_le_bytes());
    message
}

/// Whom the message is from, and its number; panics when it is not what was sent.
fn check(message: &[u8]) -> (u64, u64) {
    let sender = u64::from_le_bytes(message[..8].try_into().unwrap());
    let number = u64::from_le_bytes(message[8..16].try_into().unwrap());
    assert!(sender < SENDERS);
    assert_eq!(message, compose(sender, number), "torn or overwritten");
    (sender, number)
}

/// Sends all of a sender's messages, some of them after one that cannot be read.
fn send(world: &Arc<World>, sender: u64, mode: Mode, faults: bool) {
    let cvm = Cvm::new(world);
    let endpoint = Endpoint::sender(&cvm, "k");
    endpoint.stream().set_mode(mode);
    let bad = [0_u8; 8];
    if faults {
        world
            .unreadable
            .store(bad.as_ptr() as usize, Ordering::SeqCst);
    }
    for number in 0..messages() {
        if faults && number % 3 == 0 {
            match endpoint.write(&bad, true) {
                Err(Errno::FAULT | Errno::AGAIN) => {}
                other => panic!("{other:?}"),
            }
        }
        let message = compose(sender, number);
        assert_eq!(endpoint.write(&message, false), Ok(message.len()));
    }
}

fn run(senders: &[Mode], receiver_mode: Mode, buffers: usize, faults: bool) {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", SIZE);
    receiver.stream().set_mode(receiver_mode);
    let mut memory = vec![[0_u8; SIZE]; buffers];
    for buffer in &mut memory {
        receiver.register(buffer).unwrap();
    }
    thread::scope(|scope| {
        for (sender, mode) in senders.iter().enumerate() {
            let world = &world;
            // One sender faults: the fake has one unreadable address.
            scope.spawn(move || send(world, sender as u64, *mode, faults && sender == 0));
        }
        let total = senders.len() as u64 * messages();
        let mut next = vec![0; senders.len()];
        let mut connection = vec![None; senders.len()];
        for sequence in 0..total {
            let message = receiver.stream().wait(false, false).unwrap();
            assert_eq!(message.sequence, sequence);
            let buffer = memory
                .iter_mut()
                .find(|buffer| buffer.as_ptr() as u64 == message.address)
                .unwrap();
            let (sender, number) = check(&buffer[..message.length as usize]);
            let sender = sender as usize;
            assert_eq!(number, next[sender], "lost, repeated or out of order");
            next[sender] += 1;
            assert_eq!(
                *connection[sender].get_or_insert(message.sender),
                message.sender
            );
            receiver.register(buffer).unwrap();
        }
    });
    assert_eq!(receiver.stream().wait(true, false), Err(Errno::AGAIN));
    let stats = receiver.stream().stats();
    assert_eq!(stats.queued as usize, buffers);
    assert_eq!(stats.received, stats.taken);
}

#[test]
fn sleeping_senders_share_one_buffer() {
    run(&[Mode::Sleep; SENDERS as usize], Mode::Sleep, 1, false);
}

#[test]
fn sleeping_senders_share_few_buffers() {
    run(&[Mode::Sleep; SENDERS as usize], Mode::Sleep, 3, false);
}

#[test]
fn all_modes_with_all_buffers() {
    let modes = [Mode::Sleep, Mode::Spin, Mode::Adaptive, Mode::Sleep];
    for receiver in [Mode::Sleep, Mode::Spin, Mode::Adaptive] {
        run(&modes, receiver, 64, false);
    }
}

#[test]
fn faults_in_between() {
    run(&[Mode::Sleep; SENDERS as usize], Mode::Sleep, 1, true);
    run(&[Mode::Sleep; SENDERS as usize], Mode::Adaptive, 2, true);
}

#[test]
fn one_sender_one_buffer_ping_pong() {
    run(&[Mode::Sleep], Mode::Sleep, 1, false);
}

/// Reads, without registered buffers, by several tasks whose reads are interrupted all the time.
#[test]
fn interrupted_reads_lose_nothing() {
    const READERS: usize = 3;
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::receiver(&cvm, "k", SIZE);
    let total = SENDERS * messages();
    let taken = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let mut seen = vec![false; total as usize];
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let world = &world;
            scope.spawn(move || send(world, sender, Mode::Sleep, sender == 0));
        }
        let signals = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                cvm.kill();
                thread::yield_now();
                cvm.signal.store(false, Ordering::SeqCst);
                thread::yield_now();
            }
            cvm.kill();
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut got = Vec::new();
                    let mut last = [None; SENDERS as usize];
                    let mut buffer = [0; SIZE];
                    while taken.load(Ordering::SeqCst) < total {
                        match receiver.read(&mut buffer, false) {
                            Ok(len) => {
                                taken.fetch_add(1, Ordering::SeqCst);
                                let (sender, number) = check(&buffer[..len]);
                                // One task sees each sender's messages in order.
                                assert!(last[sender as usize] < Some(number));
                                last[sender as usize] = Some(number);
                                got.push(sender * messages() + number);
                            }
                            Err(Errno::INTR) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    done.store(true, Ordering::SeqCst);
                    got
                })
            })
            .collect();
        for reader in readers {
            for message in reader.join().unwrap() {
                assert!(!seen[message as usize], "twice");
                seen[message as usize] = true;
            }
        }
        signals.join().unwrap();
    });
    assert!(seen.iter().all(|seen| *seen), "lost");
    assert_eq!(receiver.stream().stats().queued, 0);
}

/// After a reset nothing is written into the buffers that were registered before.
#[test]
fn resets_in_between() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let receiver = Endpoint::new(&cvm);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                let cvm = Cvm::new(&world);
                let endpoint = Endpoint::new(&cvm);
                while !done.load(Ordering::SeqCst) {
                    let key = Key::new(b"k").unwrap();
                    if endpoint.stream().connect(&key, true).is_err() {
                        thread::yield_now();
                        continue;
                    }
                    loop {
                        match endpoint.write(&[1; 64], false) {
                            Ok(_) => {}
                            Err(Errno::PIPE) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
        for _ in 0..messages() / 4 {
            let mut buffers = [[0_u8; 64]; 4];
            receiver.stream().set_size(64).unwrap();
            receiver
                .stream()
                .advertise(Key::new(b"k").unwrap())
                .unwrap();
            for buffer in &mut buffers {
                receiver.register(buffer).unwrap();
            }
            receiver.stream().wait(false, false).unwrap();
            receiver.stream().reset().unwrap();
            buffers = [[2; 64]; 4];
            thread::yield_now();
            assert_eq!(buffers, [[2; 64]; 4]);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 0);
}
