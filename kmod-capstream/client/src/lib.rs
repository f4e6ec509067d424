// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages and shared memory between CapStream cVMs, for programs in them.
//!
//! | | node | what |
//! |---|---|---|
//! | [`Receiver`], [`Sender`] | `/cap/chN` | messages, put by the sender directly into a buffer of the receiver |
//! | [`CapFile`], [`Publication`] | `/cap/cfN` | memory of one cVM, read and written by others |
//! | [`Bell`] | `/cap/cgN` | a doorbell with a counter |
//!
//! A receiver publishes a *key*, a sender *probes* it:
//!
//! ```no_run
//! use capstream_client::{Error, Receiver, Sender};
//!
//! fn receive() -> Result<(), Error> {
//!     let receiver = Receiver::open(1)?;
//!     receiver.register_buffers(2, 4096)?;
//!     receiver.advertise("greetings")?;
//!     for _ in 0..3 {
//!         // Waits for the next message. When it is dropped, its buffer is there for another one.
//!         let message = receiver.recv()?;
//!         println!("{} bytes: {}", message.len(), message.escape_ascii());
//!     }
//!     Ok(())
//! }
//!
//! fn send() -> Result<(), Error> {
//!     let sender = Sender::open(2)?;
//!     // Waits up to 30 s for the receiver.
//!     sender.probe("greetings")?;
//!     for number in 0..3 {
//!         // One message, all or nothing; waits while the receiver has no buffer.
//!         sender.send(format!("greeting {number}").as_bytes())?;
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     match std::env::args().nth(1).as_deref() {
//!         Some("receive") => receive()?,
//!         Some("send") => send()?,
//!         _ => return Err("the argument is receive or send".into()),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Waiting
//!
//! Each operation that can wait has a form that does not (`try_…`) and one with a limit (`…_timeout`). [`Receiver`] and [`Sender`] are files for
//! `poll` and `epoll`. With the feature `tokio`, `AsyncReceiver` and `AsyncSender` are for its runtime, the single-threaded one too. A wait that a
//! signal ends is [`Error::Interrupted`].
//!
//! # Nodes
//!
//! State belongs to a node, not to an open file. So a node has one user at a time, see [`Error::NodeInUse`], and opening it begins anew. Programs that use
//! the device without this crate do not see that lock: do not use a node from both at once, for what the other one sets up there, above all
//! its size of buffers, would be taken for this crate's.
//!
//! # Memory
//!
//! A registered buffer is written to by another cVM while this program goes on, so it belongs to the kernel until it comes back as a [`Message`], or until
//! the endpoint is reset. What the kernel does not give back is never freed. Published memory is read and written by bytes that may change at any
//! time.
//!
//! # Programs in a cVM
//!
//! A cVM runs programs for musl, as `--target x86_64-unknown-linux-musl` makes them. It has no `mprotect`, without which Rust's standard library for musl ends a program
//! at its start unless SIGSEGV and SIGBUS are ignored. A program that this crate is linked into ignores them from its start on if the kernel has no `mprotect`; a
//! fault still ends it.
#![deny(unsafe_code)]

#[cfg(feature = "tokio")]
#[allow(unsafe_code, reason = "a runtime wants to know that a file stays open")]
mod asynchronous;
mod bell;
mod error;
mod file;
mod key;
mod node;
mod receiver;
#[allow(
    unsafe_code,
    reason = "requests take addresses, and others write to registered buffers"
)]
mod requests;
mod sender;
#[cfg(all(target_os = "linux", target_env = "musl"))]
#[allow(unsafe_code, reason = "runs before main, where there is only C")]
mod start;
mod stats;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncReceiver, AsyncSender};
pub use bell::Bell;
pub use error::Error;
pub use file::{Access, CapFile, Publication};
pub use key::{KEY_LEN, Key};
pub use receiver::{Message, Receiver};
pub use sender::Sender;
pub use stats::{BellStats, FileStats, Mode, StreamStats};
