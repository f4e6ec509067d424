// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A network interface: virtio 1.2, section 5.1.
//!
//! | file | what |
//! |---|---|
//! | `device` | [`Net`]: the interface as the transport sees it |
//! | `header` | the twelve bytes in front of each frame, and checksums that were left to the device |
//! | `frame` | a frame, in the monitor's memory or in a sender's |
//! | `receive` | the queue of buffers that frames go into, several for a long one |
//! | `transmit` | the queue of frames that the driver sends |
//! | `worker` | who moves frames: the notifying thread where it is quick, else a thread of the interface's own |
//! | `stream` | a link over a stream socket, as `passt` has it: a length of four bytes, then the frame |
//! | `handshake`, `unread` | openings of connections that `passt` must not read twice at once |
//! | `tap` | a link over a tap device of the host |
//! | `switch` | links between the guests of one process |
//! | `backlog` | frames that wait for buffers |
//! | `error` | why there is no interface |
//!
//! # Where frames are moved
//!
//! What the driver sends is moved by the thread that notifies, as far as it is little, and the rest by the interface's thread. That thread also
//! waits for what comes from the host. Frames are taken and given in batches: one system call or one interrupt for all that there are. On a switch
//! there is no thread between sender and receiver: a frame is copied once, from the sender's buffers to the receiver's.
//!
//! # What is left to whom
//!
//! A frame that was not given its checksum, or that is to be cut into segments, is told from others by its header. On a tap device and on a switch it is passed on as it
//! is. A stream socket has no such headers: the checksum is computed here, and a packet that is to be cut stays whole, as whoever is there takes any length. Nothing comes uncut
//! from there, so a driver is not offered to be left segments; its frames are as long as its MTU allows.
//!
//! # What gets lost
//!
//! A frame that makes no sense, and one for which there is no room: a guest that takes nothing does not keep others waiting. What comes from
//! a stream socket or a tap device waits there.

mod backlog;
mod device;
mod error;
mod frame;
mod handshake;
mod header;
mod receive;
mod stream;
mod switch;
mod tap;
mod transmit;
mod unread;
mod worker;

pub use device::{Net, NetCounters, NetOptions};
pub use error::NetError;
pub use switch::{Switch, SwitchPort};
pub use tap::Tap;

/// The address of an interface, as it is in frames.
pub type MacAddress = [u8; 6];

/// Bytes of a frame's own header: two addresses and a type.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// The longest frame: the longest packet, its header, and a tag of a virtual network.
pub(crate) const MAX_FRAME: usize = 65_535 + ETHERNET_HEADER + 4;
/// The queue of buffers for what is received.
pub(crate) const RECEIVE: u16 = 0;
/// The queue of what is sent.
pub(crate) const TRANSMIT: u16 = 1;
/// How many descriptors each queue has, at most.
pub(crate) const QUEUE_SIZE: u16 = 256;
