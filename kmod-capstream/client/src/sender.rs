// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sending end of a stream.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::Error;
use crate::key::Key;
use crate::node::{Node, STREAM};
use crate::requests;
use crate::stats::{Mode, StreamStats};

/// The place of an empty message.
static NOTHING: [u8; 1] = [0];

/// The sending end of a stream, at a node `/cap/chN`, which is this value's alone.
///
/// ```no_run
/// use std::time::Duration;
/// use capstream_client::{Error, Sender};
///
/// # fn main() -> Result<(), Error> {
/// let sender = Sender::open(2)?;
/// sender.probe_timeout("greetings", Duration::from_secs(5))?;
/// match sender.send(b"hello") {
///     // The receiver has ended. Another one may come.
///     Err(Error::PeerGone { .. }) => sender.probe("greetings")?,
///     done => done?,
/// }
/// # Ok(())
/// # }
/// ```
///
/// Several threads may send at once. When it is dropped, the endpoint is disconnected.
pub struct Sender {
    node: Node,
}

impl Sender {
    /// Opens `/cap/chN`, where N is the number, and resets it: what a program that has ended left there is gone.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::NodeInUse`].
    pub fn open(number: u32) -> Result<Sender, Error> {
        Sender::open_path(STREAM.path(number))
    }

    /// Opens a node by its path.
    ///
    /// # Errors
    /// As [`Sender::open`]; [`Error::WrongNode`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Sender, Error> {
        let node = Node::open(&STREAM, path.as_ref())?;
        let sender = Sender { node };
        sender.reset()?;
        Ok(sender)
    }

    /// Connects to the receiver of the key, instead of the one before; waits up to 30 s for it.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::InvalidKey`], [`Error::Refused`], [`Error::Interrupted`] by a signal.
    pub fn probe(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.probe(&Key::new(key)?)
    }

    /// As [`Sender::probe`], with another limit. It looks for the key in intervals of up to 20 ms.
    ///
    /// # Errors
    /// As [`Sender::probe`].
    pub fn probe_timeout(&self, key: impl AsRef<[u8]>, limit: Duration) -> Result<(), Error> {
        self.node.probe_timeout(&Key::new(key)?, limit)
    }

    /// Connects to the receiver of the key if there is one now; false when there is none.
    ///
    /// # Errors
    /// As [`Sender::probe`].
    pub fn try_probe(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.node.try_probe(&Key::new(key)?)
    }

    /// Sends one message, whole or not at all; waits while the receiver has no buffer. When it returns, the message is in the receiver's buffer.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::PeerGone`], [`Error::PeerStuck`], [`Error::MessageTooLong`], [`Error::Interrupted`] by a signal.
    pub fn send(&self, message: &[u8]) -> Result<(), Error> {
        self.write(self.node.waiting(), message)
    }

    /// Sends one message if the receiver has a buffer now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]; else as [`Sender::send`].
    pub fn try_send(&self, message: &[u8]) -> Result<(), Error> {
        self.write(self.node.nonblocking(), message)
    }

    /// Sends one message within a limited time.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; else as [`Sender::send`].
    pub fn send_timeout(&self, message: &[u8], limit: Duration) -> Result<(), Error> {
        self.node
            .within(limit, PollFlags::OUT, || self.try_send(message))
    }

    /// Waits until the receiver has a buffer or is gone; false when the time is over first. Without a limit it waits for ever.
    ///
    /// To wait for several things at once, give [`AsFd::as_fd`] to `poll` or `epoll`: it is writable when the receiver has a buffer, and hung up
    /// when the receiver is gone.
    ///
    /// # Errors
    /// [`Error::Interrupted`] by a signal.
    pub fn wait_writable(&self, limit: Option<Duration>) -> Result<bool, Error> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.node.wait_ready(PollFlags::OUT, deadline)
    }

    /// Sets how [`Sender::send`] waits, from the next call on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_mode(&self, mode: Mode) -> Result<(), Error> {
        requests::stream_set_mode(self.node.waiting(), mode)
            .map_err(|errno| self.node.other("set its mode", errno))
    }

    /// Counters since the endpoint was opened or reset.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<StreamStats, Error> {
        requests::stream_stats(self.node.waiting())
            .map_err(|errno| self.node.other("read its counters", errno))
    }

    /// Disconnects: the endpoint is as after [`Sender::open`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reset(&self) -> Result<(), Error> {
        requests::stream_reset(self.node.waiting())
            .map_err(|errno| self.node.other("reset it", errno))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    fn write(&self, file: BorrowedFd<'_>, message: &[u8]) -> Result<(), Error> {
        // An empty slice may be anywhere, which the device would take for a bad address.
        let message = if message.is_empty() {
            &NOTHING[..0]
        } else {
            message
        };
        match rustix::io::write(file, message) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Error::MessageTooLong {
                length: message.len(),
                node: self.node.path(),
            }),
            Err(errno) => {
                let action = format!("send a message of {} bytes", message.len());
                Err(self.node.other(action, errno))
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.reset();
    }
}

/// Writable when the receiver has a buffer, hung up when it is gone. Nothing that is done with it waits.
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.nonblocking()
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.node.nonblocking().as_raw_fd()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sender")
            .field("node", &self.node.path())
            .finish()
    }
}
