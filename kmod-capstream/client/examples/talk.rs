// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A receiver and its sender, in two cVMs: `talk receive` and `talk send`.

use capstream_client::{Error, Receiver, Sender};

const COUNT: usize = 3;

fn receive() -> Result<(), Error> {
    let receiver = Receiver::open(1)?;
    receiver.register_buffers(2, 4096)?;
    receiver.advertise("greetings")?;
    for _ in 0..COUNT {
        // Waits for the next message. When it is dropped, its buffer is there for another one.
        let message = receiver.recv()?;
        println!("{} bytes: {}", message.len(), message.escape_ascii());
    }
    Ok(())
}

fn send() -> Result<(), Error> {
    let sender = Sender::open(2)?;
    // Waits up to 30 s for the receiver.
    sender.probe("greetings")?;
    for number in 0..COUNT {
        // One message, all or nothing; waits while the receiver has no buffer.
        sender.send(format!("greeting {number}").as_bytes())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("receive") => receive()?,
        Some("send") => send()?,
        _ => return Err("the argument is receive or send".into()),
    }
    Ok(())
}
