// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How operators reach a monitor that runs: over a UNIX socket of its own.
//!
//! # Protocol
//!
//! A connection carries one request. Both sides write lines, each a JSON object.
//!
//! ```text
//! operator                                 monitor
//! Request                        ------>
//!                                <------   Reply::Refused, and the end; or
//!                                <------   Reply::Line | Reply::Event | Reply::Missed, any number of times
//!                                <------   Reply::Cvms | Reply::Done, and the end
//! ```
//!
//! `Request::Console` is answered by `Reply::Attached`; after it both directions carry bytes as they are, until either side closes.
//!
//! An operator is whoever runs under the same user as the monitor, or root: the socket has mode 0600, and the peer's
//! credentials are looked at as well.
//!
//! | module | what |
//! |---|---|
//! | [`socket`] | where sockets are, and who may connect |
//! | [`server`] | the monitor's side |
//! | [`client`] | the operator's side: the commands |
//! | [`terminal`] | what `console` does with the operator's terminal |
//! | [`table`], [`live`] | what the commands print for people, once or again and again |

pub mod client;
pub mod live;
pub mod server;
pub mod socket;
pub mod table;
pub mod terminal;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use capstream_capability::{Class, Kind};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::events::EventRecord;
use crate::outlets::{LogLine, Outlets, Source};
use crate::statistics::{ChannelStatistics, CvmStatistics};

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// What cVMs there are.
    List {},
    /// What cVMs and channels did, in numbers.
    Statistics {},
    /// Press the power button of a cVM, and wait for its end.
    Stop {
        /// Its name.
        cvm: String,
    },
    /// End a cVM at once, and wait until it is gone.
    Kill {
        /// Its name.
        cvm: String,
    },
    /// Stop a cVM if it runs, and start it.
    Restart {
        /// Its name.
        cvm: String,
    },
    /// Take back what is published under a key.
    Revoke {
        /// The key.
        key: String,
        /// What of it, if not everything that has the key.
        kind: Option<KindName>,
    },
    /// What a cVM wrote.
    Logs {
        /// Its name.
        cvm: String,
        /// Only lines of this source.
        source: Option<Source>,
        /// Only so many of the latest lines.
        last: Option<usize>,
        /// Go on with what comes.
        follow: bool,
    },
    /// What happened.
    Events {
        /// Only so many of the latest.
        last: Option<usize>,
        /// Go on with what comes.
        follow: bool,
    },
    /// Be the console of a cVM.
    Console {
        /// Its name.
        cvm: String,
    },
    /// The terminal of who is its console has this size.
    Resize {
        /// Its name.
        cvm: String,
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// A kind of things that are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KindName {
    /// The messages of /cap/ch*
    Stream,
    /// Memory, as in /cap/cf*
    File,
    /// The doorbells of /cap/cg*
    Bell,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Kind {
        match name {
            KindName::Stream => Kind::Portal(Class::STREAM),
            KindName::File => Kind::File,
            KindName::Bell => Kind::Portal(Class::BELL),
        }
    }
}

/// A line of what the monitor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To [`Request::List`].
    Cvms(Listing),
    /// To [`Request::Statistics`].
    Statistics(Box<Statistics>),
    /// It is done; this is how.
    Done(String),
    /// It is not done; this is why.
    Refused(String),
    /// A line of a log.
    Line(LogLine),
    /// Something that happened.
    Event(EventRecord),
    /// So many lines or events were forgotten before they could be sent.
    Missed(u64),
    /// From now on bytes of the console.
    Attached(String),
}

/// The cVMs of one monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The monitor's process.
    pub process: u32,
    /// Its deployment.
    pub deployment: PathBuf,
    /// What its cVMs run on.
    pub platform: String,
    /// In the order of the deployment.
    pub cvms: Vec<CvmState>,
}

/// What the cVMs that run and the channels of one monitor did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The monitor's process.
    pub process: u32,
    /// When this was, in milliseconds since 1970.
    pub time_ms: u64,
    /// In the order of the deployment.
    pub cvms: Vec<CvmStatistics>,
    /// By kind and key.
    pub channels: Vec<ChannelStatistics>,
}

/// One cVM, for `ps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CvmState {
    /// Its name.
    pub name: String,
    /// `waiting`, `running`, `stopping`, `killing`, `restarting` or `ended`.
    pub state: String,
    /// How often it was started.
    pub lives: u64,
    /// When it was started last, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// How many seconds it has been running for.
    pub seconds: Option<f64>,
    /// How its last life ended.
    pub outcome: Option<String>,
    /// Bytes of its range.
    pub memory: Option<u64>,
    /// Its disk image.
    pub disk: Option<PathBuf>,
    /// Its program and arguments.
    pub args: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such cVM.
    #[error("there is no cVM `{name}`; there are: {known}")]
    NoSuchCvm {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The cVM was to be started, and was not.
    #[error("{0}")]
    NotStarted(String),
    /// The cVM was killed, and is still there.
    #[error("cVM `{name}` could not be killed; its memory stays taken until the monitor ends")]
    Stuck {
        /// Its name.
        name: String,
    },
    /// The monitor is ending.
    #[error("the monitor is ending its cVMs; start it again instead")]
    Leaving,
    /// Answered elsewhere.
    #[error(
        "the request is not one for the supervisor; this is a bug of the monitor, please report it"
    )]
    NotForTheSupervisor,
    /// The supervisor does not answer any more.
    #[error("the monitor has ended")]
    Ended,
}

/// What the supervisor answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Request::List`].
    Cvms(Vec<CvmState>),
    /// To [`Request::Statistics`].
    Statistics(Vec<CvmStatistics>),
    /// It is done; this is how.
    Done(String),
    /// Where what a cVM writes can be read, and its input be written to.
    Outlets(Arc<Outlets>),
    /// It is not done.
    Refused(Refusal),
}

type Submit = dyn Fn(Request, Sender<Answer>) -> bool + Send + Sync;

/// Hands requests to the supervisor.
#[derive(Clone)]
pub struct Controller {
    submit: Arc<Submit>,
}

impl Controller {
    /// `submit` returns false when there is no supervisor any more.
    pub fn new(
        submit: impl Fn(Request, Sender<Answer>) -> bool + Send + Sync + 'static,
    ) -> Controller {
        Controller {
            submit: Arc::new(submit),
        }
    }

    /// Asks; the answer comes when there is one.
    pub fn ask(&self, request: Request) -> Receiver<Answer> {
        let (reply, answer) = mpsc::channel();
        // When it is not handed over, the sender is gone, which whoever receives is told.
        (self.submit)(request, reply);
        answer
    }
}
