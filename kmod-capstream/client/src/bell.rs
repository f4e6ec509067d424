// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Doorbells with a counter.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::Error;
use crate::key::Key;
use crate::node::{BELL, Node};
use crate::requests;
use crate::stats::BellStats;

/// A doorbell with a counter, at a node `/cap/cgN`, which is this value's alone.
///
/// It can be rung by others, under the key that it publishes, and ring another one, whose key it has probed.
///
/// ```no_run
/// use capstream_client::Bell;
///
/// # fn main() -> Result<(), capstream_client::Error> {
/// let bell = Bell::open(1)?;
/// bell.advertise("door")?;
/// // In another cVM: bell.probe("door")?; bell.ring(1)?;
/// let times = bell.wait()?;
/// # let _ = times;
/// # Ok(())
/// # }
/// ```
///
/// When it is dropped, the node is reset: the key is free, and who rings is told that the bell is gone.
pub struct Bell {
    node: Node,
}

impl Bell {
    /// Opens `/cap/cgN`, where N is the number, and resets it: what a program that has ended left there is gone.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::NodeInUse`].
    pub fn open(number: u32) -> Result<Bell, Error> {
        Bell::open_path(BELL.path(number))
    }

    /// Opens a node by its path.
    ///
    /// # Errors
    /// As [`Bell::open`]; [`Error::WrongNode`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Bell, Error> {
        let bell = Bell {
            node: Node::open(&BELL, path.as_ref())?,
        };
        bell.reset()?;
        Ok(bell)
    }

    /// Publishes the bell under the key, instead of the one that it may have had. Keys of bells are apart from those of streams.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::KeyTaken`], [`Error::Refused`].
    pub fn advertise(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.advertise(&Key::new(key)?)
    }

    /// Connects to the bell of the key, instead of the one before; waits up to 30 s for it.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::InvalidKey`], [`Error::Refused`], [`Error::Interrupted`] by a signal.
    pub fn probe(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.probe(&Key::new(key)?)
    }

    /// As [`Bell::probe`], with another limit. It looks for the key in intervals of up to 20 ms.
    ///
    /// # Errors
    /// As [`Bell::probe`].
    pub fn probe_timeout(&self, key: impl AsRef<[u8]>, limit: Duration) -> Result<(), Error> {
        self.node.probe_timeout(&Key::new(key)?, limit)
    }

    /// Adds units to the count of the bell that this one is connected to; waits while they do not fit.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::PeerGone`], [`Error::Interrupted`] by a signal. `u64::MAX` units are never possible.
    pub fn ring(&self, units: u64) -> Result<(), Error> {
        self.add(self.node.waiting(), units)
    }

    /// Adds units to the count of the other bell if they fit now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]; else as [`Bell::ring`].
    pub fn try_ring(&self, units: u64) -> Result<(), Error> {
        self.add(self.node.nonblocking(), units)
    }

    /// Waits until the count of this bell is not 0, and takes it: every unit is taken once.
    ///
    /// # Errors
    /// [`Error::Interrupted`] by a signal.
    pub fn wait(&self) -> Result<u64, Error> {
        self.take(self.node.waiting())
    }

    /// Takes the count of this bell if it is not 0.
    ///
    /// # Errors
    /// [`Error::WouldBlock`].
    pub fn try_wait(&self) -> Result<u64, Error> {
        self.take(self.node.nonblocking())
    }

    /// As [`Bell::wait`], for a limited time.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; else as [`Bell::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<u64, Error> {
        self.node.within(limit, PollFlags::IN, || self.try_wait())
    }

    /// Waits until the count is not 0, without taking it; false when the time is over first. Without a limit it waits for ever.
    ///
    /// To wait for several things at once, give [`AsFd::as_fd`] to `poll` or `epoll`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] by a signal.
    pub fn wait_readable(&self, limit: Option<Duration>) -> Result<bool, Error> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.node.wait_ready(PollFlags::IN, deadline)
    }

    /// Counters since the bell was opened or reset.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<BellStats, Error> {
        requests::bell_stats(self.node.waiting())
            .map_err(|errno| self.node.other("read its counters", errno))
    }

    /// Takes the key back, disconnects, and sets the count to 0. Calls of other threads that wait end with [`Error::Reset`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reset(&self) -> Result<(), Error> {
        requests::bell_reset(self.node.waiting())
            .map_err(|errno| self.node.other("reset it", errno))
    }

    fn add(&self, file: BorrowedFd<'_>, units: u64) -> Result<(), Error> {
        rustix::io::write(file, &units.to_ne_bytes())
            .map(drop)
            .map_err(|errno| self.node.other(format!("add {units} units"), errno))
    }

    fn take(&self, file: BorrowedFd<'_>) -> Result<u64, Error> {
        let mut units = [0; size_of::<u64>()];
        match rustix::io::read(file, &mut units) {
            Ok(len) if len == units.len() => Ok(u64::from_ne_bytes(units)),
            Ok(_) => Err(self.node.other("read its count", Errno::IO)),
            Err(errno) => Err(self.node.other("read its count", errno)),
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.reset();
    }
}

/// Readable when the count is not 0, writable when a unit can be added to the other bell, hung up when that is gone. Nothing that is done with it waits.
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.nonblocking()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.node.nonblocking().as_raw_fd()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bell")
            .field("node", &self.node.path())
            .finish()
    }
}
