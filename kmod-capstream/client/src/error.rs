// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong, and what to do then.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::key::{KEY_LEN, Key};

/// Why an operation failed. The message says what, where, and what to do.
///
/// As an [`io::Error`] it keeps its message and has the kind that fits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such node.
    #[error(
        "{node} is not there: either this program does not run in a cVM, or the cVM has fewer nodes; the words capstream.streams=N and capstream.files=N on its kernel's command line say how many"
    )]
    NoNode {
        /// Its path.
        node: PathBuf,
    },
    /// The node is not of the kind that is wanted.
    #[error("{node} is no {expected}: name a node {pattern}")]
    WrongNode {
        /// Its path.
        node: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// How such nodes are called.
        pattern: &'static str,
    },
    /// The node is in use, here or in another program of this cVM.
    #[error(
        "{node} is in use, by this program or another one of this cVM: take another node, or drop what uses it"
    )]
    NodeInUse {
        /// Its path.
        node: PathBuf,
    },
    /// The bytes are no key.
    #[error("'{key}' is no key: it has to have 1 to {KEY_LEN} bytes, none of them NUL")]
    InvalidKey {
        /// What was given.
        key: String,
    },
    /// Somebody else has published the key.
    #[error(
        "the key '{key}' is taken, so {node} cannot be published under it: choose another one, or wait until its owner is gone"
    )]
    KeyTaken {
        /// Which.
        key: Key,
        /// The node that was to have it.
        node: PathBuf,
    },
    /// Nobody published the key in time.
    #[error(
        "nobody has published the key '{key}' within {waited:?}: is the other program running, and is the key the same?"
    )]
    NoPeer {
        /// Which.
        key: Key,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The deployment does not allow it.
    #[error("{node} may not {action}: the deployment does not grant it to this cVM")]
    Refused {
        /// The node.
        node: PathBuf,
        /// What was tried.
        action: String,
    },
    /// The cVM has published as much as the deployment allows.
    #[error(
        "{node} was not {action}: this cVM has published as much as the limits of its deployment allow"
    )]
    LimitReached {
        /// The node.
        node: PathBuf,
        /// What was tried.
        action: String,
    },
    /// Nothing was probed, or the endpoint was reset since.
    #[error("{node} is not connected to anything: probe a key first")]
    NotConnected {
        /// Its node.
        node: PathBuf,
    },
    /// The other side is gone: its program took its key back, or its cVM has ended.
    #[error("what {node} was connected to is gone: probe its key again to connect to the next one")]
    PeerGone {
        /// Our node.
        node: PathBuf,
    },
    /// The kernel of the other side did not take a call within its deadline. Its cVM is ended.
    #[error(
        "what {node} is connected to did not answer in time, and its cVM is ended: probe the key again to connect to the next one"
    )]
    PeerStuck {
        /// Our node.
        node: PathBuf,
    },
    /// The message does not fit the receiver's next buffer. Nothing was delivered.
    #[error(
        "a message of {length} bytes was not sent from {node}: the receiver's next buffer is smaller; send it in parts, or let the receiver register larger buffers"
    )]
    MessageTooLong {
        /// Bytes of the message.
        length: usize,
        /// The sender's node.
        node: PathBuf,
    },
    /// It would have to wait.
    #[error("{node} would have to wait: try again when poll says that it is ready")]
    WouldBlock {
        /// The node.
        node: PathBuf,
    },
    /// The time is over.
    #[error("{node} was not ready within {waited:?}")]
    TimedOut {
        /// The node.
        node: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A signal came while it waited.
    #[error("a signal interrupted a wait at {node}: nothing was lost, call again")]
    Interrupted {
        /// The node.
        node: PathBuf,
    },
    /// Another program has reset the endpoint.
    #[error(
        "another program of this cVM has reset {node}: its key, its connection and its buffers are gone; set it up again"
    )]
    Reset {
        /// The node.
        node: PathBuf,
    },
    /// Another program has queued buffers at this endpoint: a message is in one of those.
    #[error(
        "a message at {node} is in a buffer of another program: let one program at a time use the node"
    )]
    ForeignBuffer {
        /// The node.
        node: PathBuf,
    },
    /// A receiver without a queued buffer waits for ever.
    #[error(
        "no buffer is queued at {node}, so no message can come: register one, or drop a Message that is not needed any more"
    )]
    NoBuffer {
        /// The node.
        node: PathBuf,
    },
    /// All places of the queue are taken.
    #[error(
        "{node} has as many buffers as it, or the limits of the deployment, allow: receive messages first"
    )]
    QueueFull {
        /// The node.
        node: PathBuf,
    },
    /// A buffer or a range has a size that the device does not take.
    #[error("{size} bytes are not possible at {node}: it has to be 1 to {limit}")]
    InvalidSize {
        /// How many there were.
        size: usize,
        /// The node.
        node: PathBuf,
        /// The largest possible.
        limit: usize,
    },
    /// The range was taken back by who published it.
    #[error(
        "the memory that {node} was attached to was taken back: attach again when it is published anew"
    )]
    Revoked {
        /// The node.
        node: PathBuf,
    },
    /// The range may only be read.
    #[error("the memory that {node} is attached to may only be read")]
    ReadOnly {
        /// The node.
        node: PathBuf,
    },
    /// There is nothing at this offset.
    #[error("{len} bytes at offset {offset} are not all within the {size} bytes of {node}")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
        /// Bytes of the range.
        size: u64,
        /// The node.
        node: PathBuf,
    },
    /// Anything else that the kernel says.
    #[error("{node}: cannot {action}: {source}")]
    Other {
        /// The node.
        node: PathBuf,
        /// What was tried.
        action: String,
        /// What the kernel says.
        source: io::Error,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        use io::ErrorKind;
        let kind = match &error {
            Error::NoNode { .. } => ErrorKind::NotFound,
            Error::WrongNode { .. }
            | Error::InvalidKey { .. }
            | Error::InvalidSize { .. }
            | Error::MessageTooLong { .. }
            | Error::OutOfRange { .. } => ErrorKind::InvalidInput,
            Error::KeyTaken { .. } | Error::NodeInUse { .. } => ErrorKind::AddrInUse,
            Error::NoPeer { .. } | Error::TimedOut { .. } | Error::PeerStuck { .. } => {
                ErrorKind::TimedOut
            }
            Error::Refused { .. } | Error::ReadOnly { .. } => ErrorKind::PermissionDenied,
            Error::NotConnected { .. } => ErrorKind::NotConnected,
            Error::PeerGone { .. } | Error::Revoked { .. } => ErrorKind::BrokenPipe,
            Error::WouldBlock { .. } => ErrorKind::WouldBlock,
            Error::Interrupted { .. } => ErrorKind::Interrupted,
            Error::Reset { .. } => ErrorKind::ConnectionReset,
            Error::Other { source, .. } => source.kind(),
            Error::ForeignBuffer { .. }
            | Error::NoBuffer { .. }
            | Error::QueueFull { .. }
            | Error::LimitReached { .. } => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// What the kernel says, where nothing more is known about it.
pub(crate) fn other(node: PathBuf, action: impl Into<String>, errno: Errno) -> Error {
    match errno {
        Errno::AGAIN => Error::WouldBlock { node },
        Errno::INTR => Error::Interrupted { node },
        Errno::CANCELED => Error::Reset { node },
        Errno::NOTCONN => Error::NotConnected { node },
        Errno::PIPE => Error::PeerGone { node },
        // The kernel's limit of a probe is dealt with there.
        Errno::TIMEDOUT => Error::PeerStuck { node },
        Errno::STALE => Error::Revoked { node },
        Errno::NOBUFS => Error::QueueFull { node },
        _ => Error::Other {
            node,
            action: action.into(),
            source: errno.into(),
        },
    }
}
