// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device has to be able to do.
//!
//! # Adding one
//!
//! One folder with the files that [`crate::block`] has: `mod` (what it is), `device` (the type that implements [`Device`]), `request`
//! (what the driver can ask for), `worker` (the thread that does it), `error`. The transport needs no change. [`crate::net`] is the one with two queues and
//! with something outside that speaks first.

use std::sync::Arc;

use crate::memory::GuestMemory;
use crate::queue::Virtqueue;
use crate::signal::DriverSignal;

/// What a driver has set up, handed to the device when the driver says that it is ready.
#[derive(Debug)]
pub struct Session {
    /// The features that both sides have.
    pub features: u64,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// One entry for each of [`Device::queue_sizes`]; `None` where the driver left a queue unused.
    pub queues: Vec<Option<Virtqueue>>,
    /// How to reach the driver.
    pub signal: Arc<DriverSignal>,
}

/// A virtio device, without its transport. Dropping it stops it as [`Device::stop`] does.
///
/// The transport calls [`Device::start`] and [`Device::stop`] one at a time; [`Device::notify`] comes at any time, from any thread.
pub trait Device: Send + Sync {
    /// The kind of device, a `VIRTIO_ID_` number.
    fn device_id(&self) -> u32;

    /// The features it offers, bits as in the virtio specification. `VIRTIO_F_VERSION_1` is one of them.
    fn features(&self) -> u64;

    /// The largest size of each of its queues: powers of two, up to 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Its configuration space, as the driver reads it. What changes while the device lives is told by
    /// [`DriverSignal::configuration_changed`], and is read whole by one access.
    fn config(&self) -> &[u8];

    /// The driver is ready: serve the queues. A device that cannot says so by [`DriverSignal::needs_reset`].
    fn start(&self, session: Session);

    /// The driver has put something into queue number `queue`. That number is the driver's choice and may be of no queue.
    fn notify(&self, queue: u16);

    /// Lets go of the session. When this returns, the device touches neither memory nor signal of it again. Requests that were
    /// not complete are forgotten. Without a session it does nothing.
    fn stop(&self);
}
