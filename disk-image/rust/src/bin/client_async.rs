// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Streams by the client crate on tokio's runtime.
//!
//! ```text
//! client_async receive COUNT      receives COUNT messages from each of two streams while a timer ticks, in one thread
//! client_async send KEY COUNT     sends COUNT messages to one of them
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use capstream_client::{AsyncReceiver, AsyncSender, Error, Receiver, Sender};
use capstream_programs::{Checks, Failure, equal, fails_with, number, so};

const KEYS: [&str; 2] = ["first", "second"];
/// Longer than anything takes here; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(20);

fn endpoint(node: u32, key: &str) -> Result<AsyncReceiver, Error> {
    let receiver = Receiver::open(node)?;
    receiver.register_buffers(2, 64)?;
    receiver.advertise(key)?;
    AsyncReceiver::new(receiver)
}

async fn receive(checks: &mut Checks, count: u32) -> Result<(), Failure> {
    let [first, second] = [endpoint(1, KEYS[0])?, endpoint(2, KEYS[1])?];
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut ticked = 0u64;
    let mut next = [0u32; 2];
    let mut wrong = 0;
    let ending = tokio::time::sleep(LIMIT);
    tokio::pin!(ending);
    // The timer goes on until it has ticked a few times, however fast the messages came.
    while next != [count; 2] || ticked < 3 {
        let (stream, message) = tokio::select! {
            message = first.recv() => (0, message?),
            message = second.recv() => (1, message?),
            _ = ticks.tick() => {
                ticked += 1;
                continue;
            }
            () = &mut ending => return Err(format!("{next:?} of {count} messages came in time").into()),
        };
        if *message != next[stream].to_ne_bytes() {
            wrong += 1;
        }
        next[stream] += 1;
    }
    checks.check("every message of both streams, in order", || {
        equal(wrong, 0)
    });
    checks.check("a timer ticked meanwhile", || so(ticked >= 3, ticked));
    let late = tokio::time::timeout(MOMENT, first.recv()).await;
    checks.check("a wait for nothing can be given up", || {
        so(late.is_err(), "it timed out")
    });
    Ok(())
}

async fn send(checks: &mut Checks, key: &str, count: u32) -> Result<(), Failure> {
    let mut sender = AsyncSender::new(Sender::open(3)?);
    let unconnected = sender.send(b"x").await;
    checks.check("a sender without a connection says so", || {
        fails_with!(unconnected, Error::NotConnected { .. }, "/cap/ch3")
    });
    let nobody = sender.probe("nobody", MOMENT).await;
    checks.check("a key that nobody has", || {
        fails_with!(nobody, Error::NoPeer { .. }, "nobody")
    });
    sender.probe(key, LIMIT).await?;
    for number in 0..count {
        sender.send(&number.to_ne_bytes()).await?;
    }
    // The receiver ends when it has everything; both of its buffers are filled at most, then there is no room.
    let end = loop {
        match tokio::time::timeout(LIMIT, sender.send(&[0; 65])).await? {
            Err(Error::MessageTooLong { .. }) => tokio::time::sleep(MOMENT).await,
            other => break other,
        }
    };
    checks.check("everything was sent, then the receiver went", || {
        fails_with!(end, Error::PeerGone { .. }, "/cap/ch3")?;
        equal(sender.stats()?.sent, count.into())
    });
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut checks = Checks::new();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                match arguments.first().map(String::as_str) {
                    Some("receive") => receive(&mut checks, number(&arguments, 1)?).await,
                    Some("send") => {
                        let key = arguments.get(1).ok_or("the key is missing")?;
                        send(&mut checks, key, number(&arguments, 2)?).await
                    }
                    _ => Err("see the head of client_async.rs".into()),
                }
            })
        });
    if let Err(error) = result {
        checks.check("it came to its end", || Err(error));
    }
    checks.end()
}
