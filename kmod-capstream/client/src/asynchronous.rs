// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both ends of a stream on tokio's runtime.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::key::Key;
use crate::node::{Looks, Node};
use crate::receiver::{Message, Receiver};
use crate::sender::Sender;
use crate::stats::StreamStats;

/// A [`Receiver`] whose waits are futures. It dereferences to the receiver, for everything else.
///
/// ```no_run
/// use std::time::Duration;
/// use capstream_client::{AsyncReceiver, Receiver};
///
/// # async fn run() -> Result<(), capstream_client::Error> {
/// let commands = Receiver::open(1)?;
/// commands.register_buffers(4, 256)?;
/// commands.advertise("commands")?;
/// let commands = AsyncReceiver::new(commands)?;
/// let mut ticks = tokio::time::interval(Duration::from_secs(1));
/// loop {
///     tokio::select! {
///         message = commands.recv() => println!("{} bytes", message?.len()),
///         _ = ticks.tick() => println!("tick"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncReceiver {
    receiver: Receiver,
    ready: AsyncFd<OwnedFd>,
}

impl AsyncReceiver {
    /// Registers the receiver with the runtime that this is called in.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O.
    pub fn new(receiver: Receiver) -> Result<AsyncReceiver, Error> {
        let ready = register(receiver.node(), Interest::READABLE)?;
        Ok(AsyncReceiver { receiver, ready })
    }

    /// Waits for the next message. When the future is dropped before it is ready, no message is lost.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&self) -> Result<Message<'_>, Error> {
        loop {
            let ready = self.ready.readable().await;
            let mut ready = ready.map_err(|source| runtime_error(self.receiver.node(), source))?;
            match self.receiver.try_recv() {
                Err(Error::WouldBlock { .. }) => ready.clear_ready(),
                done => return done,
            }
        }
    }

    /// The receiver, for calls that wait.
    pub fn into_inner(self) -> Receiver {
        self.receiver
    }
}

impl Deref for AsyncReceiver {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiver
    }
}

/// A [`Sender`] whose waits are futures.
///
/// ```no_run
/// use std::time::Duration;
/// use capstream_client::{AsyncSender, Sender};
///
/// # async fn run() -> Result<(), capstream_client::Error> {
/// let mut sender = AsyncSender::new(Sender::open(2)?);
/// sender.probe("commands", Duration::from_secs(5)).await?;
/// sender.send(b"begin").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncSender {
    sender: Sender,
    /// `None` until it is connected.
    ready: Option<AsyncFd<OwnedFd>>,
}

impl AsyncSender {
    /// A sender that is to be connected by [`AsyncSender::probe`].
    pub fn new(sender: Sender) -> AsyncSender {
        AsyncSender {
            sender,
            ready: None,
        }
    }

    /// Connects to the receiver of the key, instead of the one before, and waits this long for it. The sender is registered with the runtime that this is
    /// called in, which needs I/O and timers.
    ///
    /// # Errors
    /// As [`Sender::probe`].
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O or timers.
    pub async fn probe(&mut self, key: impl AsRef<[u8]>, limit: Duration) -> Result<(), Error> {
        let key = Key::new(key)?;
        let mut looks = Looks::new(limit);
        while !self.sender.node().try_probe(&key)? {
            match looks.pause() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(Error::NoPeer { key, waited: limit }),
            }
        }
        // What the kernel was asked before is about the connection before, so it has to be asked again.
        self.ready = None;
        self.ready = Some(register(self.sender.node(), Interest::WRITABLE)?);
        Ok(())
    }

    /// Sends one message, whole or not at all; waits while the receiver has no buffer. When the future is dropped before it is ready, the message
    /// was not sent.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&self, message: &[u8]) -> Result<(), Error> {
        let Some(ready) = &self.ready else {
            return Err(Error::NotConnected {
                node: self.sender.node().path(),
            });
        };
        loop {
            let ready = ready.writable().await;
            let mut ready = ready.map_err(|source| runtime_error(self.sender.node(), source))?;
            match self.sender.try_send(message) {
                Err(Error::WouldBlock { .. }) => ready.clear_ready(),
                done => return done,
            }
        }
    }

    /// Sends one message if the receiver has a buffer now.
    ///
    /// # Errors
    /// As [`Sender::try_send`].
    pub fn try_send(&self, message: &[u8]) -> Result<(), Error> {
        self.sender.try_send(message)
    }

    /// Counters since the endpoint was opened.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<StreamStats, Error> {
        self.sender.stats()
    }

    /// The sender, for calls that wait.
    pub fn into_inner(self) -> Sender {
        self.sender
    }
}

/// Registers a second descriptor of a node's file with the runtime.
fn register(node: &Node, interest: Interest) -> Result<AsyncFd<OwnedFd>, Error> {
    let error = |source| runtime_error(node, source);
    let file = node.nonblocking().try_clone_to_owned().map_err(error)?;
    // SAFETY: the descriptor is open as long as its owner is there, and nothing exchanges it.
    unsafe { AsyncFd::register_with_interest(file, interest) }
        .map_err(|failed| error(failed.into_parts().1))
}

fn runtime_error(node: &Node, source: io::Error) -> Error {
    Error::Other {
        node: node.path(),
        action: "wait for it in the runtime".to_owned(),
        source,
    }
}
