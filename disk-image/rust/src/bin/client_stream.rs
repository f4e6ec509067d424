// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Streams by the client crate.
//!
//! ```text
//! client_stream errors                    in one cVM: what goes wrong says so, and what is dropped comes back
//! client_stream collect SENDERS COUNT     as stream_peer collect
//! client_stream send NAME COUNT SIZE      as stream_peer send
//! client_stream until-gone                sends until the receiver is gone, then to the next one
//! client_stream again COUNT               is that next one: takes the key until it is free, then receives
//! client_stream occupy                    uses a node until its input ends; for errors
//! client_stream hold KEY, taken KEY       the first holds a key until the second, in another cVM, has found it taken
//! ```
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use capstream_client::{Error, KEY_LEN, Key, Message, Mode, Receiver, Sender};
use capstream_programs::{Checks, Failure, equal, fails_with, number, so};

const SIZE: usize = 65536;
const BUFFERS: usize = 8;
const HEAD: usize = 12;
/// Longer than anything takes here; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(30);

/// What stream_peer puts at the begin of each message: the sender's name, the message's number, its size.
fn head(message: &[u8]) -> Option<[u32; 3]> {
    let (words, _) = message.get(..HEAD)?.as_chunks::<4>();
    let [sender, number, size] = words.try_into().ok()?;
    Some([sender, number, size].map(u32::from_ne_bytes))
}

/// The bytes behind it.
fn byte_of(sender: u32, number: u32, index: usize) -> u8 {
    (sender.wrapping_mul(17))
        .wrapping_add(number.wrapping_mul(5))
        .wrapping_add(index as u32) as u8
}

fn collect(checks: &mut Checks, senders: u32, count: u32) -> Result<(), Failure> {
    let receiver = Receiver::open(1)?;
    receiver.register_buffers(BUFFERS, SIZE)?;
    receiver.advertise("peers")?;
    let mut next = vec![0; senders as usize];
    let (mut wrong, mut torn) = (0, 0);
    for sequence in 0..u64::from(senders) * u64::from(count) {
        let message = receiver.recv_timeout(LIMIT)?;
        let Some([sender, number, size]) = head(&message) else {
            wrong += 1;
            continue;
        };
        match next.get_mut(sender as usize) {
            Some(next)
                if *next == number
                    && size as usize == message.len()
                    && message.sequence() == sequence =>
            {
                *next += 1;
                let bytes = message.iter().enumerate().skip(HEAD);
                torn += bytes
                    .filter(|(index, byte)| **byte != byte_of(sender, number, *index))
                    .count();
            }
            _ => wrong += 1,
        }
    }
    checks.check("every message of each sender, in order", || equal(wrong, 0));
    checks.check("every message is whole", || equal(torn, 0));
    Ok(())
}

fn send(checks: &mut Checks, name: u32, count: u32, size: u32) -> Result<(), Failure> {
    let sender = Sender::open(2)?;
    sender.probe("peers")?;
    let mut message = vec![0; size as usize];
    for number in 0..count {
        for (index, byte) in message.iter_mut().enumerate() {
            *byte = byte_of(name, number, index);
        }
        for (place, word) in message.chunks_exact_mut(4).zip([name, number, size]) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        sender.send(&message)?;
    }
    let stats = sender.stats()?;
    checks.check("everything was sent", || {
        equal(stats.sent, u64::from(count))?;
        equal(stats.sent_bytes, u64::from(count) * u64::from(size))
    });
    Ok(())
}

fn until_gone(checks: &mut Checks) -> Result<(), Failure> {
    let sender = Sender::open(2)?;
    sender.probe("peers")?;
    let mut sent = 0;
    let end = loop {
        match sender.send(&[7; 64]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    checks.check("a receiver that ends is PeerGone", || {
        so(sent > 0, "messages were sent")?;
        fails_with!(
            Err::<(), _>(end),
            Error::PeerGone { .. },
            "/cap/ch2",
            "probe its key again"
        )
    });
    checks.check("it stays so, and poll tells", || {
        so(sender.wait_writable(Some(LIMIT))?, "poll returns")?;
        fails_with!(sender.try_send(b"x"), Error::PeerGone { .. }, "/cap/ch2")
    });
    checks.check("probing again connects to the next receiver", || {
        sender.probe("peers")?;
        Ok(sender.send(b"the next one")?)
    });
    Ok(())
}

/// Takes the key as soon as it is free.
fn again(checks: &mut Checks) -> Result<(), Failure> {
    let receiver = Receiver::open(1)?;
    receiver.register_buffers(BUFFERS, SIZE)?;
    receiver.advertise("peers")?;
    let message = receiver.recv_timeout(LIMIT)?;
    checks.check("the sender came back", || equal(&*message, b"the next one"));
    Ok(())
}

fn hold(checks: &mut Checks, key: &str) -> Result<(), Failure> {
    let receiver = Receiver::open(1)?;
    receiver.register_buffers(1, 64)?;
    receiver.advertise(key)?;
    let message = receiver.recv_timeout(LIMIT)?;
    checks.check("the other cVM has come and gone", || {
        equal(&*message, b"it was taken")
    });
    Ok(())
}

fn taken(checks: &mut Checks, key: &str) -> Result<(), Failure> {
    let sender = Sender::open(2)?;
    sender.probe(key)?;
    let receiver = Receiver::open(1)?;
    checks.check("a key of another cVM is KeyTaken", || {
        fails_with!(
            receiver.advertise(key),
            Error::KeyTaken { .. },
            key,
            "/cap/ch1"
        )
    });
    sender.send(b"it was taken")?;
    Ok(())
}

/// A connected pair, the receiver with these buffers.
fn pair(key: &str, buffers: usize, size: usize) -> Result<(Receiver, Sender), Failure> {
    let receiver = Receiver::open(1)?;
    if buffers > 0 {
        receiver.register_buffers(buffers, size)?;
    }
    receiver.advertise(key)?;
    let sender = Sender::open(2)?;
    sender.probe(key)?;
    Ok((receiver, sender))
}

fn nodes(checks: &mut Checks) {
    checks.check("a node that is not there", || {
        fails_with!(
            Receiver::open(1000),
            Error::NoNode { .. },
            "/cap/ch1000",
            "capstream.streams"
        )
    });
    checks.check("a node of another device", || {
        fails_with!(
            Receiver::open_path("/cap/cf1"),
            Error::WrongNode { .. },
            "/cap/cf1",
            "/cap/chN"
        )?;
        fails_with!(
            Sender::open_path("/dev/null"),
            Error::WrongNode { .. },
            "/dev/null"
        )
    });
    checks.check("a node has one user at a time", || {
        let first = Receiver::open(1)?;
        fails_with!(Receiver::open(1), Error::NodeInUse { .. }, "/cap/ch1")?;
        fails_with!(Sender::open(1), Error::NodeInUse { .. }, "/cap/ch1")?;
        drop(first);
        drop(Sender::open(1)?);
        Ok(())
    });
    checks.check("another name of a node is the same node", || {
        std::os::unix::fs::symlink("/cap/ch1", "/tmp/alias")?;
        let first = Receiver::open(1)?;
        fails_with!(
            Receiver::open_path("/tmp/alias"),
            Error::NodeInUse { .. },
            "/tmp/alias"
        )?;
        drop(first);
        drop(Receiver::open_path(Path::new("/tmp/alias"))?);
        Ok(())
    });
}

fn keys(checks: &mut Checks) {
    checks.check("keys have 1 to 10 bytes", || {
        fails_with!(Key::new(""), Error::InvalidKey { .. }, "1 to 10")?;
        fails_with!(
            Key::new("12345678901"),
            Error::InvalidKey { .. },
            "12345678901"
        )?;
        fails_with!(Key::new("a\0b"), Error::InvalidKey { .. }, "NUL")?;
        equal(Key::new([b'k'; KEY_LEN])?.as_bytes(), &[b'k'; KEY_LEN])
    });
    checks.check("a key that another endpoint has", || {
        let (_receiver, sender) = pair("mine", 1, 16)?;
        let other = Receiver::open(3)?;
        fails_with!(
            other.advertise("mine"),
            Error::KeyTaken { .. },
            "mine",
            "/cap/ch3"
        )?;
        drop(sender);
        Ok(())
    });
    checks.check("a key that a dropped receiver had is free", || {
        drop(pair("mine", 1, 16)?);
        drop(pair("mine", 1, 16)?);
        Ok(())
    });
    checks.check("a key that nobody has", || {
        let sender = Sender::open(2)?;
        equal(sender.try_probe("nobody")?, false)?;
        let begin = Instant::now();
        fails_with!(
            sender.probe_timeout("nobody", MOMENT),
            Error::NoPeer { .. },
            "nobody"
        )?;
        so(begin.elapsed() >= MOMENT, "it waited")?;
        fails_with!(
            sender.send(b"x"),
            Error::NotConnected { .. },
            "/cap/ch2",
            "probe"
        )
    });
}

fn sizes(checks: &mut Checks) {
    checks.check("buffers have 1 byte to 64 MiB, 64 of them", || {
        let receiver = Receiver::open(1)?;
        fails_with!(
            receiver.register_buffers(1, 0),
            Error::InvalidSize { .. },
            "0 bytes",
            "67108864"
        )?;
        fails_with!(
            receiver.register(Vec::new()),
            Error::InvalidSize { .. },
            "0 bytes"
        )?;
        fails_with!(
            receiver.register_buffers(1, (64 << 20) + 1),
            Error::InvalidSize { .. },
            "67108865"
        )?;
        fails_with!(
            receiver.register_buffers(65, 16),
            Error::QueueFull { .. },
            "/cap/ch1"
        )?;
        equal(receiver.stats()?.queued, 64)
    });
    checks.check("a message that does not fit", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        fails_with!(
            sender.send(&[0; 17]),
            Error::MessageTooLong { length: 17, .. },
            "17 bytes"
        )?;
        fails_with!(receiver.try_recv(), Error::WouldBlock { .. }, "/cap/ch1")?;
        sender.send(&[5; 16])?;
        equal(&*receiver.recv()?, &[5; 16])
    });
    checks.check("buffers of several sizes, in their order", || {
        let (receiver, sender) = pair("mine", 0, 0)?;
        receiver.register(vec![9; 4])?;
        receiver.register(vec![9; 400])?;
        receiver.register(vec![9; 40])?;
        for len in [4, 400, 40] {
            sender.try_send(&vec![1; len])?;
        }
        for len in [4, 400, 40] {
            equal(receiver.try_recv()?.into_inner(), vec![1; len].into())?;
        }
        Ok(())
    });
    checks.check("what is behind a short message is as it was", || {
        let (receiver, sender) = pair("mine", 0, 0)?;
        receiver.register(*b"abcdefgh")?;
        sender.send(b"XY")?;
        let message = receiver.recv()?;
        equal(message.len(), 2)?;
        equal(&*message.into_inner(), b"XYcdefgh")
    });
    checks.check("an empty message", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        sender.send(b"")?;
        equal(receiver.recv()?.len(), 0)
    });
}

fn buffers(checks: &mut Checks) {
    checks.check("a receiver without buffers does not wait for ever", || {
        let (receiver, sender) = pair("mine", 0, 0)?;
        fails_with!(
            receiver.recv(),
            Error::NoBuffer { .. },
            "/cap/ch1",
            "register"
        )?;
        fails_with!(sender.try_send(b"x"), Error::WouldBlock { .. }, "/cap/ch2")?;
        fails_with!(
            sender.send_timeout(b"x", MOMENT),
            Error::TimedOut { .. },
            "/cap/ch2"
        )
    });
    checks.check("a message holds its buffer until it is dropped", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        for number in 0..100u8 {
            sender.try_send(&[number])?;
            let message = receiver.recv()?;
            fails_with!(sender.try_send(b"x"), Error::WouldBlock { .. }, "/cap/ch2")?;
            fails_with!(
                receiver.try_recv(),
                Error::NoBuffer { .. },
                "drop a Message"
            )?;
            equal(&*message, &[number])?;
            equal(message.sequence(), number.into())?;
        }
        equal(receiver.stats()?.queued, 1)
    });
    checks.check("a buffer that is taken out does not come back", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        sender.send(b"kept")?;
        let buffer = receiver.recv()?.into_inner();
        equal(receiver.stats()?.queued, 0)?;
        equal(&buffer[..4], b"kept")?;
        receiver.register(buffer)?;
        sender.try_send(b"more")?;
        equal(&*receiver.recv()?, b"more")
    });
    checks.check("requeue tells that it worked", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        sender.send(b"a")?;
        receiver.recv()?.requeue()?;
        equal(receiver.stats()?.queued, 1)
    });
    checks.check(
        "what a dropped message could not do is told by the next call",
        || {
            let (receiver, sender) = pair("mine", 1, 16)?;
            sender.send(b"a")?;
            let message = receiver.recv()?;
            receiver.register_buffers(64, 16)?;
            drop(message);
            fails_with!(receiver.recv(), Error::QueueFull { .. }, "/cap/ch1")?;
            sender.send(b"b")?;
            equal(&*receiver.recv()?, b"b")
        },
    );
    checks.check("a forgotten message costs its buffer, no more", || {
        let (receiver, sender) = pair("mine", 2, 16)?;
        sender.send(b"a")?;
        std::mem::forget(receiver.recv()?);
        sender.send(b"b")?;
        equal(&*receiver.recv()?, b"b")?;
        equal(receiver.stats()?.queued, 1)
    });
    checks.check(
        "a message can be written to, and its place is clean of it later",
        || {
            let (receiver, sender) = pair("mine", 1, 16)?;
            sender.send(b"aaaa")?;
            let mut message = receiver.recv()?;
            message.make_ascii_uppercase();
            equal(&*message, b"AAAA")?;
            drop(message);
            sender.send(b"bb")?;
            equal(&receiver.recv()?.into_inner()[..4], b"bbAA")
        },
    );
}

fn endings(checks: &mut Checks) {
    checks.check("a dropped receiver is PeerGone for its senders", || {
        let (receiver, sender) = pair("mine", 1, 16)?;
        drop(receiver);
        fails_with!(sender.send(b"x"), Error::PeerGone { .. }, "/cap/ch2")
    });
    checks.check("reset begins anew", || {
        let (mut receiver, sender) = pair("mine", 2, 16)?;
        sender.send(b"lost")?;
        receiver.reset()?;
        fails_with!(receiver.try_recv(), Error::NoBuffer { .. }, "/cap/ch1")?;
        fails_with!(sender.send(b"x"), Error::PeerGone { .. }, "/cap/ch2")?;
        receiver.register_buffers(1, 8)?;
        receiver.advertise("mine")?;
        sender.probe("mine")?;
        sender.send(b"new")?;
        let message = receiver.recv()?;
        equal(&*message, b"new")?;
        equal(message.sequence(), 0)
    });
    checks.check(
        "a node that another program uses, and what it leaves there",
        || {
            let mut occupant = Command::new("/tests/client_stream")
                .arg("occupy")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = [0; 6];
            occupant
                .stdout
                .take()
                .ok_or("no output")?
                .read_exact(&mut line)?;
            fails_with!(Receiver::open(1), Error::NodeInUse { .. }, "/cap/ch1")?;
            fails_with!(Sender::open(1), Error::NodeInUse { .. }, "/cap/ch1")?;
            drop(occupant.stdin.take());
            so(occupant.wait()?.success(), "it ended well")?;
            // It ended without a reset: its key and its buffers are still there.
            let receiver = Receiver::open(1)?;
            equal(receiver.stats()?.queued, 0)?;
            Receiver::open(3)?.advertise("occupied")?;
            Ok(())
        },
    );
}

/// Sets an endpoint up, tells so, and ends without a word when its input does.
fn occupy() -> Result<(), Failure> {
    let receiver = Receiver::open(1)?;
    receiver.register_buffers(3, 16)?;
    receiver.advertise("occupied")?;
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    std::process::exit(0);
}

fn waits(checks: &mut Checks) -> Result<(), Failure> {
    let (receiver, sender) = pair("mine", 2, 16)?;
    checks.check("recv_timeout ends", || {
        let begin = Instant::now();
        fails_with!(
            receiver.recv_timeout(MOMENT),
            Error::TimedOut { .. },
            "/cap/ch1"
        )?;
        so(begin.elapsed() >= MOMENT, "it waited")
    });
    checks.check("wait_readable tells whether there is a message", || {
        equal(receiver.wait_readable(Some(Duration::ZERO))?, false)?;
        sender.send(b"x")?;
        equal(receiver.wait_readable(None)?, true)?;
        drop(receiver.recv()?);
        equal(receiver.wait_readable(Some(MOMENT))?, false)
    });
    for mode in [Mode::Sleep, Mode::Spin, Mode::Adaptive] {
        checks.check(
            &format!("threads hand over messages in mode {mode:?}"),
            || {
                receiver.set_mode(mode)?;
                sender.set_mode(mode)?;
                thread::scope(|scope| {
                    let sending =
                        scope.spawn(|| (0..200u32).try_for_each(|n| sender.send(&n.to_ne_bytes())));
                    for n in 0..200u32 {
                        equal(&*receiver.recv()?, &n.to_ne_bytes())?;
                    }
                    sending.join().map_err(|_| "the sender panicked")??;
                    Ok(())
                })
            },
        );
    }
    checks.check("messages of several threads go to one of them each", || {
        let shares = thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let take = || {
                            receiver
                                .recv_timeout(LIMIT)
                                .map(|message: Message<'_>| message[0])
                        };
                        let mut seen = Vec::new();
                        loop {
                            match take() {
                                // The others hold the buffers: they are about to come back.
                                Err(Error::NoBuffer { .. }) => thread::yield_now(),
                                Ok(255) => return Ok(seen),
                                Ok(number) => seen.push(number),
                                Err(error) => return Err(error),
                            }
                        }
                    })
                })
                .collect();
            for number in (0..150u8).chain([255; 3]) {
                sender.send(&[number])?;
            }
            takers
                .into_iter()
                .map(|taker| Ok(taker.join().map_err(|_| "a receiver panicked")??))
                .collect::<Result<Vec<Vec<u8>>, Failure>>()
        })?;
        let mut all = shares.concat();
        all.sort_unstable();
        equal(all, (0..150).collect())
    });
    checks.check("the file of an endpoint can be lent to other calls", || {
        so(
            receiver.as_fd().try_clone_to_owned().is_ok(),
            "it is a file",
        )
    });
    checks.check("a panic unwinds and leaves the endpoint usable", || {
        sender.send(b"first")?;
        let caught = std::panic::catch_unwind(|| {
            let message = receiver.recv();
            assert!(message.is_err(), "the message is dropped by this panic");
        });
        so(caught.is_err(), "it panicked")?;
        equal(receiver.stats()?.queued, 2)?;
        sender.send(b"second")?;
        equal(&*receiver.recv()?, b"second")
    });
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut checks = Checks::new();
    let word = |index: usize| arguments.get(index).map(String::as_str).unwrap_or_default();
    let result = match word(0) {
        "errors" => {
            nodes(&mut checks);
            keys(&mut checks);
            sizes(&mut checks);
            buffers(&mut checks);
            endings(&mut checks);
            waits(&mut checks)
        }
        "collect" => number(&arguments, 1)
            .and_then(|senders| collect(&mut checks, senders, number(&arguments, 2)?)),
        "send" => number(&arguments, 1).and_then(|name| {
            send(
                &mut checks,
                name,
                number(&arguments, 2)?,
                number(&arguments, 3)?,
            )
        }),
        "occupy" => occupy(),
        "until-gone" => until_gone(&mut checks),
        "again" => again(&mut checks),
        "hold" => hold(&mut checks, word(1)),
        "taken" => taken(&mut checks, word(1)),
        _ => Err("see the head of client_stream.rs".into()),
    };
    if let Err(error) = result {
        checks.check("it came to its end", || Err(error));
    }
    checks.end()
}
