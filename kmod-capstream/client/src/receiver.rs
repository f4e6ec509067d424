// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiving end of a stream.
//!
//! # Lock order
//! 1. The state of a receiver, held while a buffer is registered or taken, never while a message is waited for.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::Error;
use crate::key::Key;
use crate::node::{Node, STREAM};
use crate::requests::{self, Delivered, Queue};
use crate::stats::{Mode, StreamStats};

/// The receiving end of a stream, at a node `/cap/chN`, which is this value's alone.
///
/// Register buffers, publish a key, receive: a [`Message`] is a buffer that a sender in another cVM has filled.
///
/// ```no_run
/// use capstream_client::Receiver;
///
/// # fn main() -> Result<(), capstream_client::Error> {
/// let mut receiver = Receiver::open(1)?;
/// receiver.register_buffers(4, 4096)?;
/// receiver.advertise("greetings")?;
/// loop {
///     let message = receiver.recv()?;
///     println!("{} bytes from {:#x}", message.len(), message.sender());
/// }
/// # }
/// ```
///
/// Several threads may receive at once; each message goes to one of them. When it is dropped, the endpoint is reset: the key is free, senders
/// are told that their peer is gone, and messages that were not received are lost.
pub struct Receiver {
    node: Node,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    /// Why the buffer of a dropped message could not be queued again, for the next call that can tell it.
    unqueued: Option<Error>,
}

impl Receiver {
    /// Opens `/cap/chN`, where N is the number, and resets it: what a program that has ended left there is gone.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::NodeInUse`].
    pub fn open(number: u32) -> Result<Receiver, Error> {
        Receiver::open_path(STREAM.path(number))
    }

    /// Opens a node by its path.
    ///
    /// # Errors
    /// As [`Receiver::open`]; [`Error::WrongNode`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Receiver, Error> {
        let node = Node::open(&STREAM, path.as_ref())?;
        requests::stream_reset(node.waiting()).map_err(|errno| node.other("reset it", errno))?;
        Ok(Receiver {
            node,
            state: Mutex::new(State {
                queue: Queue::new(),
                unqueued: None,
            }),
        })
    }

    /// Queues a buffer. It is the senders' until it comes back as a [`Message`].
    ///
    /// Buffers are filled in the order in which they were queued. They may differ in size; a sender's message has to fit the next one.
    ///
    /// # Errors
    /// [`Error::InvalidSize`], [`Error::QueueFull`] with 64 of them. The buffer is freed then.
    pub fn register(&self, buffer: impl Into<Box<[u8]>>) -> Result<(), Error> {
        self.post(buffer.into())
    }

    /// Queues this many buffers of this many bytes, filled with zeros.
    ///
    /// # Errors
    /// As [`Receiver::register`].
    pub fn register_buffers(&self, count: usize, size: usize) -> Result<(), Error> {
        if !(1..=requests::MAX_SIZE).contains(&size) {
            return Err(self.invalid_size(size));
        }
        (0..count).try_for_each(|_| self.post(vec![0; size].into()))
    }

    /// Publishes the endpoint under the key, instead of the one that it may have had.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::KeyTaken`], [`Error::Refused`].
    pub fn advertise(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.advertise(&Key::new(key)?)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] when none is queued: nothing could come, and if all are in messages that this thread has not dropped, nothing ever
    /// would. [`Error::Interrupted`] by a signal. An error of a dropped message whose buffer could not be queued again.
    pub fn recv(&self) -> Result<Message<'_>, Error> {
        self.check()?;
        self.finish(requests::wait(self.node.waiting()))
    }

    /// Takes the next message, if there is one.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]; else as [`Receiver::recv`].
    pub fn try_recv(&self) -> Result<Message<'_>, Error> {
        self.check()?;
        self.finish(requests::wait(self.node.nonblocking()))
    }

    /// Waits for the next message for a limited time.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; else as [`Receiver::recv`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Message<'_>, Error> {
        self.node.within(limit, PollFlags::IN, || self.try_recv())
    }

    /// Waits until there is a message; false when the time is over first. Without a limit it waits for ever.
    ///
    /// To wait for several things at once, give [`AsFd::as_fd`] to `poll` or `epoll`: it is readable when there is a message.
    ///
    /// # Errors
    /// [`Error::Interrupted`] by a signal.
    pub fn wait_readable(&self, limit: Option<Duration>) -> Result<bool, Error> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.node.wait_ready(PollFlags::IN, deadline)
    }

    /// Sets how [`Receiver::recv`] waits, from the next call on.
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

    /// Takes the key back and drops all buffers and messages: the endpoint is as after [`Receiver::open`].
    ///
    /// # Errors
    /// What the kernel says; everything is as before then.
    pub fn reset(&mut self) -> Result<(), Error> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state
            .queue
            .reset(self.node.waiting())
            .map_err(|errno| self.node.other("reset it", errno))?;
        state.unqueued = None;
        Ok(())
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Its operations leave it whole at each point where they could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invalid_size(&self, size: usize) -> Error {
        Error::InvalidSize {
            size,
            node: self.node.path(),
            limit: requests::MAX_SIZE,
        }
    }

    fn post(&self, buffer: Box<[u8]>) -> Result<(), Error> {
        let size = buffer.len();
        if !(1..=requests::MAX_SIZE).contains(&size) {
            return Err(self.invalid_size(size));
        }
        self.state()
            .queue
            .register(self.node.waiting(), buffer)
            .map_err(|(_, errno)| {
                self.node
                    .other(format!("queue a buffer of {size} bytes"), errno)
            })
    }

    /// Tells what went wrong unseen, and whether a message can come at all.
    fn check(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(error) = state.unqueued.take() {
            return Err(error);
        }
        if state.queue.len() == 0 {
            return Err(Error::NoBuffer {
                node: self.node.path(),
            });
        }
        Ok(())
    }

    fn finish(&self, delivered: Result<Delivered, Errno>) -> Result<Message<'_>, Error> {
        let delivered = delivered.map_err(|errno| self.node.other("receive a message", errno))?;
        let taken = self.state().queue.take(delivered);
        let taken = taken.ok_or_else(|| Error::ForeignBuffer {
            node: self.node.path(),
        })?;
        Ok(Message {
            receiver: self,
            buffer: taken.buffer,
            length: taken.length,
            sequence: taken.sequence,
            sender: taken.sender,
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // If it fails, the buffers stay where the kernel may write to them. There is nobody to tell.
        let _ = self.reset();
    }
}

/// Readable when there is a message. Nothing that is done with it waits.
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.nonblocking()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.node.nonblocking().as_raw_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("node", &self.node.path())
            .field("queued", &self.state().queue.len())
            .finish()
    }
}

/// A message that arrived, in the buffer that its sender wrote it to. It dereferences to its bytes.
///
/// Dropping it queues the buffer again, for a later message. If that fails, the next call of [`Receiver::recv`] tells why.
pub struct Message<'r> {
    receiver: &'r Receiver,
    /// Empty once the buffer was given away.
    buffer: Box<[u8]>,
    length: usize,
    sequence: u64,
    sender: u64,
}

impl Message<'_> {
    /// Its number at this endpoint since the last reset, from 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Names the connection that sent it; no two live ones have the same.
    pub fn sender(&self) -> u64 {
        self.sender
    }

    /// The whole buffer, with the message in its first [`Message::len`](slice::len) bytes. It is not queued again, unless by [`Receiver::register`].
    pub fn into_inner(mut self) -> Box<[u8]> {
        std::mem::take(&mut self.buffer)
    }

    /// Queues the buffer again, and tells whether that worked.
    ///
    /// # Errors
    /// As [`Receiver::register`].
    pub fn requeue(mut self) -> Result<(), Error> {
        self.receiver.post(std::mem::take(&mut self.buffer))
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl DerefMut for Message<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }
}

impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("length", &self.length)
            .field("sequence", &self.sequence)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if let Err(error) = self.receiver.post(std::mem::take(&mut self.buffer)) {
            self.receiver.state().unqueued = Some(error);
        }
    }
}
