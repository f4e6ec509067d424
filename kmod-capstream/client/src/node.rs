// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An open device node.
//!
//! State belongs to the node, not to the open file. Two users of one node would get each other's messages, and one could change the size that the
//! other registers its next buffer with, which would then be written beyond its end. So a node has one user at a time: in this
//! process by [`IN_USE`], in the cVM by a lock of the file, which programs that do not use this crate know nothing of.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, major, open};
use rustix::io::Errno;

use crate::error::{Error, other};
use crate::key::Key;
use crate::requests;

/// Device numbers of the nodes that this process uses.
static IN_USE: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// How long the kernel waits for a key.
const KERNEL_LIMIT: Duration = Duration::from_secs(30);
/// The pauses between two looks for a key where the kernel's limit does not do: the first and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// A kind of device.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its major number.
    pub(crate) major: u32,
    /// What one is called.
    pub(crate) name: &'static str,
    /// What its nodes are called.
    pub(crate) pattern: &'static str,
    /// Path of a node without its number.
    pub(crate) prefix: &'static str,
    /// The request that connects a node to a key.
    pub(crate) probe: fn(BorrowedFd<'_>, &Key) -> Result<(), Errno>,
    /// The request that publishes a node under a key.
    pub(crate) advertise: fn(BorrowedFd<'_>, &Key) -> Result<(), Errno>,
}

impl Kind {
    /// The path of the node with this number.
    pub(crate) fn path(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}{number}", self.prefix))
    }
}

/// An open node, and this process is its user.
#[derive(Debug)]
pub(crate) struct Node {
    kind: &'static Kind,
    path: PathBuf,
    device: u64,
    waiting: OwnedFd,
    /// The same node, opened again so that nothing waits.
    nonblocking: OwnedFd,
}

impl Node {
    pub(crate) fn open(kind: &'static Kind, path: &Path) -> Result<Node, Error> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let open_node = |flags| match open(path, flags, Mode::empty()) {
            Ok(file) => Ok(file),
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Err(Error::NoNode {
                node: path.to_owned(),
            }),
            Err(errno) => Err(other(path.to_owned(), "open it", errno)),
        };
        let device_of = |file: &OwnedFd| {
            let status =
                fstat(file).map_err(|errno| other(path.to_owned(), "look at it", errno))?;
            let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
            if is_device && major(status.st_rdev) == kind.major {
                Ok(status.st_rdev)
            } else {
                Err(Error::WrongNode {
                    node: path.to_owned(),
                    expected: kind.name,
                    pattern: kind.pattern,
                })
            }
        };
        let waiting = open_node(flags)?;
        let device = device_of(&waiting)?;
        let in_use = || Error::NodeInUse {
            node: path.to_owned(),
        };
        match flock(&waiting, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use()),
            Err(errno) => return Err(other(path.to_owned(), "lock it", errno)),
        }
        let nonblocking = open_node(flags | OFlags::NONBLOCK)?;
        if device_of(&nonblocking)? != device {
            return Err(in_use());
        }
        // From here on dropping the node gives the number back.
        if !in_use_here().insert(device) {
            return Err(in_use());
        }
        Ok(Node {
            kind,
            path: path.to_owned(),
            device,
            waiting,
            nonblocking,
        })
    }

    /// The file whose requests wait.
    pub(crate) fn waiting(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }

    /// The file whose requests do not.
    pub(crate) fn nonblocking(&self) -> BorrowedFd<'_> {
        self.nonblocking.as_fd()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub(crate) fn other(&self, action: impl Into<String>, errno: Errno) -> Error {
        other(self.path(), action, errno)
    }

    /// Publishes the node under the key.
    pub(crate) fn advertise(&self, key: &Key) -> Result<(), Error> {
        (self.kind.advertise)(self.waiting(), key).map_err(|errno| match errno {
            Errno::ADDRINUSE => Error::KeyTaken {
                key: *key,
                node: self.path(),
            },
            Errno::ACCESS => Error::Refused {
                node: self.path(),
                action: format!("publish the key '{key}'"),
            },
            Errno::MFILE => Error::LimitReached {
                node: self.path(),
                action: format!("published under the key '{key}'"),
            },
            _ => self.other(format!("publish it under the key '{key}'"), errno),
        })
    }

    /// Connects the node to the key; waits as long as the kernel does.
    pub(crate) fn probe(&self, key: &Key) -> Result<(), Error> {
        (self.kind.probe)(self.waiting(), key).map_err(|errno| match errno {
            Errno::TIMEDOUT => Error::NoPeer {
                key: *key,
                waited: KERNEL_LIMIT,
            },
            _ => self.probe_error(key, errno),
        })
    }

    /// Connects the node to the key if somebody has published it; false when nobody has.
    pub(crate) fn try_probe(&self, key: &Key) -> Result<bool, Error> {
        match (self.kind.probe)(self.nonblocking(), key) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(self.probe_error(key, errno)),
        }
    }

    /// Connects the node to the key within the time.
    pub(crate) fn probe_timeout(&self, key: &Key, limit: Duration) -> Result<(), Error> {
        let mut looks = Looks::new(limit);
        loop {
            if self.try_probe(key)? {
                return Ok(());
            }
            match looks.pause() {
                // No request has a limit of its own, and there is no event that could be waited for together with one.
                Some(pause) => std::thread::sleep(pause),
                None => {
                    return Err(Error::NoPeer {
                        key: *key,
                        waited: limit,
                    });
                }
            }
        }
    }

    fn probe_error(&self, key: &Key, errno: Errno) -> Error {
        match errno {
            Errno::ACCESS => Error::Refused {
                node: self.path(),
                action: format!("connect to the key '{key}'"),
            },
            _ => self.other(format!("connect to the key '{key}'"), errno),
        }
    }

    /// Waits until one of the events is there, or a hangup; false when the time is over first.
    pub(crate) fn wait_ready(
        &self,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let mut entries = [PollFd::new(&self.nonblocking, events)];
        poll(&mut entries, left.as_ref())
            .map(|ready| ready > 0)
            .map_err(|errno| self.other("wait for it", errno))
    }

    /// Repeats an operation that does not wait, each time that the node is ready, until the time is over.
    pub(crate) fn within<T>(
        &self,
        limit: Duration,
        events: PollFlags,
        mut attempt: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            match attempt() {
                Err(Error::WouldBlock { .. }) => {}
                done => return done,
            }
            if !self.wait_ready(events, deadline)? {
                return Err(Error::TimedOut {
                    node: self.path(),
                    waited: limit,
                });
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        in_use_here().remove(&self.device);
    }
}

fn in_use_here() -> std::sync::MutexGuard<'static, BTreeSet<u64>> {
    // Each change is one call: nobody leaves it half done.
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pauses of a repeated look for a key.
#[derive(Debug)]
pub(crate) struct Looks {
    deadline: Option<Instant>,
    next: Duration,
}

impl Looks {
    pub(crate) fn new(limit: Duration) -> Looks {
        Looks {
            deadline: Instant::now().checked_add(limit),
            next: PAUSES[0],
        }
    }

    /// How long to wait before the next look; `None` when the time is over.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let mut pause = self.next;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            pause = pause.min(left);
        }
        self.next = (self.next * 2).min(PAUSES[1]);
        Some(pause)
    }
}

/// Messages.
pub(crate) static STREAM: Kind = Kind {
    major: requests::STREAM_MAJOR,
    name: "endpoint of streams",
    pattern: "/cap/chN",
    prefix: "/cap/ch",
    probe: requests::stream_probe,
    advertise: requests::stream_advertise,
};

/// Memory as a file.
pub(crate) static FILE: Kind = Kind {
    major: requests::FILE_MAJOR,
    name: "file of shared memory",
    pattern: "/cap/cfN",
    prefix: "/cap/cf",
    probe: requests::file_probe,
    advertise: requests::file_advertise,
};

/// Doorbells.
pub(crate) static BELL: Kind = Kind {
    major: requests::BELL_MAJOR,
    name: "bell",
    pattern: "/cap/cgN",
    prefix: "/cap/cg",
    probe: requests::bell_probe,
    advertise: requests::bell_advertise,
};
