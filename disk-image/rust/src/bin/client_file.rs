// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared memory by the client crate, in two cVMs that tell each other by a stream what they have done.
//!
//! ```text
//! client_file publish     publishes a range for everybody and one that may only be read, then takes them back
//! client_file use         reads and writes them
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use capstream_client::{Access, CapFile, Error, Receiver, Sender};
use capstream_programs::{Checks, Failure, equal, fails_with, so};

/// Longer than anything takes here; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(20);

/// Both directions of a conversation in which each waits for the other.
struct Conversation {
    receiver: Receiver,
    sender: Sender,
}

impl Conversation {
    fn new(own: &str, other: &str) -> Result<Conversation, Failure> {
        let receiver = Receiver::open(1)?;
        receiver.register_buffers(1, 64)?;
        receiver.advertise(own)?;
        let sender = Sender::open(2)?;
        sender.probe(other)?;
        Ok(Conversation { receiver, sender })
    }

    fn say(&self, words: &str) -> Result<(), Failure> {
        Ok(self.sender.send(words.as_bytes())?)
    }

    fn hear(&self, words: &str) -> Result<(), Failure> {
        equal(&*self.receiver.recv_timeout(LIMIT)?, words.as_bytes())
    }
}

fn publish(checks: &mut Checks) -> Result<(), Failure> {
    let other = Conversation::new("publisher", "user")?;
    let shared = CapFile::open(1)?.publish("shared", b"0123456789".to_vec(), Access::ReadWrite)?;
    let constant = CapFile::open(2)?.publish("constant", vec![1; 5000], Access::ReadOnly)?;
    checks.check("a key that is taken, by the same program", || {
        let key = fails_with!(CapFile::open(1), Error::NodeInUse { .. }, "/cap/cf1");
        key.and(equal(shared.size(), 10))
    });
    other.say("published")?;
    other.hear("written")?;
    checks.check("what the user wrote", || {
        let mut bytes = [0; 10];
        shared.read_at(&mut bytes, 0)?;
        equal(&bytes, b"01ABCD6789")
    });
    checks.check("beyond the end of one's own range", || {
        fails_with!(
            shared.read_at(&mut [0; 2], 9),
            Error::OutOfRange { .. },
            "2 bytes at offset 9",
            "10 bytes"
        )?;
        fails_with!(
            shared.write_at(b"x", usize::MAX),
            Error::OutOfRange { .. },
            "/cap/cf1"
        )
    });
    constant.write_at(&[2; 3], 4997)?;
    other.say("changed")?;
    other.hear("seen")?;
    checks.check("what is taken back is one's own again", || {
        equal(shared.revoke()?, b"01ABCD6789".to_vec())
    });
    drop(constant);
    other.say("revoked")?;
    other.hear("stale")
}

fn use_it(checks: &mut Checks) -> Result<(), Failure> {
    let other = Conversation::new("user", "publisher")?;
    other.hear("published")?;
    let mut shared = CapFile::open(1)?;
    let mut constant = CapFile::open(2)?;
    checks.check("a file that is attached to nothing", || {
        fails_with!(
            shared.read_at(&mut [0], 0),
            Error::NotConnected { .. },
            "/cap/cf1"
        )?;
        equal(shared.size()?, 0)
    });
    checks.check("a key that nobody has", || {
        fails_with!(
            shared.attach_timeout("nobody", MOMENT),
            Error::NoPeer { .. },
            "nobody"
        )
    });
    shared.attach("shared")?;
    constant.attach_timeout("constant", LIMIT)?;
    checks.check("a key of another cVM is KeyTaken", || {
        let file = CapFile::open(3);
        fails_with!(file, Error::NoNode { .. }, "/cap/cf3", "capstream.files")
    });
    checks.check("reads", || {
        let mut bytes = [0; 4];
        shared.read_exact_at(&mut bytes, 3)?;
        equal(&bytes, b"3456")?;
        equal(shared.read_at(&mut bytes, 8)?, 2)?;
        equal(shared.read_at(&mut bytes, 10)?, 0)?;
        fails_with!(
            shared.read_exact_at(&mut bytes, 8),
            Error::OutOfRange { .. },
            "4 bytes at offset 8",
            "10 bytes"
        )
    });
    checks.check("writes", || {
        equal(shared.write_at(b"AB", 2)?, 2)?;
        shared.write_all_at(b"CD", 4)?;
        equal(shared.write_at(b"89xy", 8)?, 2)?;
        fails_with!(
            shared.write_all_at(b"89xy", 8),
            Error::OutOfRange { .. },
            "offset 8"
        )?;
        fails_with!(
            constant.write_at(b"x", 0),
            Error::ReadOnly { .. },
            "/cap/cf2"
        )?;
        equal(constant.size()?, 5000)
    });
    other.say("written")?;
    other.hear("changed")?;
    checks.check("the publisher's change is seen", || {
        let mut bytes = [0; 5];
        constant.read_exact_at(&mut bytes, 4995)?;
        equal(&bytes, &[1, 1, 2, 2, 2])
    });
    other.say("seen")?;
    other.hear("revoked")?;
    checks.check("what was taken back is Revoked", || {
        fails_with!(
            shared.read_at(&mut [0], 0),
            Error::Revoked { .. },
            "/cap/cf1"
        )?;
        fails_with!(shared.write_at(&[0], 0), Error::Revoked { .. }, "/cap/cf1")?;
        fails_with!(
            constant.read_at(&mut [0], 0),
            Error::Revoked { .. },
            "/cap/cf2"
        )
    });
    checks.check("the key can be published by another", || {
        let mut file = shared;
        so(
            file.attach_timeout("shared", MOMENT).is_err(),
            "nobody has it",
        )?;
        let publication = file.publish("shared", vec![0; 16], Access::ReadWrite)?;
        fails_with!(
            constant.publish("shared", vec![0; 16], Access::ReadWrite),
            Error::KeyTaken { .. },
            "shared",
            "/cap/cf2"
        )?;
        equal(publication.revoke()?.len(), 16)
    });
    other.say("stale")
}

fn main() -> ExitCode {
    let mut checks = Checks::new();
    let result = match std::env::args().nth(1).as_deref() {
        Some("publish") => publish(&mut checks),
        Some("use") => use_it(&mut checks),
        _ => Err("see the head of client_file.rs".into()),
    };
    if let Err(error) = result {
        checks.check("it came to its end", || Err(error));
    }
    checks.end()
}
