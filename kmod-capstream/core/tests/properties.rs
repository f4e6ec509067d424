// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of operations does what a simple model of the interface does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use capstream_core::{Errno, Key};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use world::{Cvm, Endpoint, World};

const AREA: usize = 4096;

#[derive(Clone, Debug)]
enum Step {
    SetSize(usize),
    Register(usize),
    Write { sender: usize, len: usize },
    WriteUnreadable { len: usize },
    Wait,
    Read(usize),
    Poll,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..80_usize).prop_map(Step::SetSize),
        8 => (0..AREA + 20).prop_map(Step::Register),
        8 => (0..2_usize, 0..80_usize).prop_map(|(sender, len)| Step::Write { sender, len }),
        2 => (1..80_usize).prop_map(|len| Step::WriteUnreadable { len }),
        5 => Just(Step::Wait),
        3 => (0..80_usize).prop_map(Step::Read),
        1 => Just(Step::Poll),
        1 => Just(Step::Reset),
    ]
}

#[derive(Default)]
struct Model {
    size: Option<usize>,
    posted: VecDeque<(usize, usize)>,
    filled: VecDeque<(usize, usize, Vec<u8>)>,
    taken: u64,
}

impl Model {
    fn overlaps(&self, address: usize, size: usize) -> bool {
        let used = self.posted.iter().copied().chain(
            self.filled
                .iter()
                .map(|(address, size, _)| (*address, *size)),
        );
        used.into_iter()
            .any(|(other, len)| address < other + len && other < address + size)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_endpoint_does_what_the_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let world = World::new();
        let (a, b) = (Cvm::new(&world), Cvm::new(&world));
        let receiver = Endpoint::new(&a);
        let senders = [Endpoint::new(&a), Endpoint::new(&b)];
        let key = Key::new(b"k").unwrap();
        let connect = || {
            receiver.stream().advertise(key.clone()).unwrap();
            for sender in &senders {
                sender.stream().connect(&key, true).unwrap();
            }
        };
        connect();
        // What follows the area is not the program's.
        let mut area = vec![0_u8; AREA + 200];
        let base = area.as_mut_ptr() as usize;
        a.unmap(base + AREA, 200);
        let mut shadow = vec![0_u8; AREA + 200];
        let unreadable = [9_u8; 80];
        world.unreadable.store(unreadable.as_ptr() as usize, Ordering::SeqCst);
        let mut model = Model::default();
        let mut fill = 0_u8;

        for step in steps {
            match step {
                Step::SetSize(size) => {
                    let expected = if size == 0 { Err(Errno::INVAL) } else { Ok(()) };
                    prop_assert_eq!(receiver.stream().set_size(size as i64), expected);
                    if size > 0 {
                        model.size = Some(size);
                    }
                }
                Step::Register(address) => {
                    let expected = match model.size {
                        None => Err(Errno::INVAL),
                        Some(size) if model.overlaps(address, size) => Err(Errno::BUSY),
                        Some(_) if model.posted.len() + model.filled.len() == 64 => Err(Errno::NOBUFS),
                        Some(size) if address + size > AREA => Err(Errno::FAULT),
                        Some(size) => {
                            model.posted.push_back((address, size));
                            Ok(())
                        }
                    };
                    prop_assert_eq!(receiver.stream().register(base + address), expected);
                }
                Step::Write { sender, len } => {
                    fill = fill.wrapping_add(1);
                    let message = vec![fill; len];
                    let expected = match model.posted.front() {
                        None => Err(Errno::AGAIN),
                        Some((_, size)) if len > *size => Err(Errno::MSGSIZE),
                        Some((address, size)) => {
                            shadow[*address..address + len].copy_from_slice(&message);
                            model.filled.push_back((*address, *size, message.clone()));
                            model.posted.pop_front();
                            Ok(len)
                        }
                    };
                    prop_assert_eq!(senders[sender].write(&message, true), expected);
                }
                Step::WriteUnreadable { len } => {
                    let expected = match model.posted.front() {
                        None => Err(Errno::AGAIN),
                        Some((_, size)) if len > *size => Err(Errno::MSGSIZE),
                        Some(_) => Err(Errno::FAULT),
                    };
                    prop_assert_eq!(senders[0].write(&unreadable[..len], true), expected);
                }
                Step::Wait => {
                    let result = receiver.stream().wait(true, false);
                    match model.filled.pop_front() {
                        None => prop_assert_eq!(result, Err(Errno::AGAIN)),
                        Some((address, _, message)) => {
                            let result = result.unwrap();
                            prop_assert_eq!(result.address as usize, base + address);
                            prop_assert_eq!(result.length as usize, message.len());
                            prop_assert_eq!(result.sequence, model.taken);
                            model.taken += 1;
                        }
                    }
                }
                Step::Read(len) => {
                    let mut buffer = vec![0; len];
                    let result = receiver.read(&mut buffer, true);
                    match model.filled.front() {
                        _ if len == 0 => prop_assert_eq!(result, Ok(0)),
                        None => prop_assert_eq!(result, Err(Errno::AGAIN)),
                        Some((_, _, message)) if message.len() > len => {
                            prop_assert_eq!(result, Err(Errno::MSGSIZE));
                        }
                        Some((_, _, message)) => {
                            prop_assert_eq!(result, Ok(message.len()));
                            prop_assert_eq!(&buffer[..message.len()], &message[..]);
                            model.filled.pop_front();
                            model.taken += 1;
                        }
                    }
                }
                Step::Poll => {
                    prop_assert_eq!(receiver.stream().poll().readable, !model.filled.is_empty());
                    let room = model.posted.front().is_some();
                    prop_assert_eq!(senders[1].stream().poll().writable, room);
                }
                Step::Reset => {
                    receiver.stream().reset().unwrap();
                    prop_assert_eq!(senders[0].write(&[1], true), Err(Errno::PIPE));
                    model = Model::default();
                    connect();
                }
            }
            let stats = receiver.stream().stats();
            prop_assert_eq!(stats.queued as usize, model.posted.len());
            prop_assert_eq!(stats.filled as usize, model.filled.len());
            prop_assert_eq!(&area, &shadow, "memory changed that no message is in");
        }
    }
}
