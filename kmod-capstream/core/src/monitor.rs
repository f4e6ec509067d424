// SPDX-License-Identifier: GPL-2.0-only
//! What the endpoints need from the monitor: the capability hostcalls of `capstream_abi::hostcall`, with types.

use crate::portal::{Portal, Shared};
use crate::{Key, Result};
use capstream_abi::FileInfo;

/// Whether a probe that fails asks for an interrupt when a key appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// It does not.
    No,
    /// It does: [`capstream_abi::PROBE_NOTIFY`].
    Yes,
}

/// Operations of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Deliver what is passed.
    Deliver,
    /// Tell how much room there is.
    Query,
    /// The same, and remember that a caller waits when there is none.
    QueryNotify,
    /// An operation of the device kind, counted from 0.
    Own(u32),
}

impl Operation {
    /// Its number in the hostcall.
    pub const fn number(self) -> u64 {
        match self {
            Operation::Deliver => capstream_abi::CALL_DELIVER,
            Operation::Query => capstream_abi::CALL_QUERY,
            Operation::QueryNotify => capstream_abi::CALL_QUERY_NOTIFY,
            Operation::Own(number) => capstream_abi::CALL_KIND + number as u64,
        }
    }
}

/// Hostcalls, made on the kernel's own vCPU. None of them blocks for longer than a copy takes.
pub trait Monitor {
    /// Publishes the endpoint's portal among those of its class; returns its id. `EADDRINUSE`, `EACCES`.
    fn advertise<P: Portal>(&self, endpoint: &Shared<P>, key: &Key) -> Result<u64>;
    /// Connects to a portal of the class; returns a handle. `ENOENT`, `EACCES`.
    fn probe(&self, class: u64, key: &Key, notify: Notify) -> Result<u64>;
    /// Asks for an interrupt at the next [`Monitor::wake`] by the owner of the endpoint behind the handle, or at its end.
    fn wait(&self, handle: u64) -> Result<()>;
    /// Interrupts the cVMs that asked for it; harmless when none did.
    fn wake(&self, id: u64);
    /// Runs the portal behind the handle and returns what it returns. `EPIPE`; `EBUSY` when other callers are in all portals of its owner; `EDQUOT`
    /// when this cVM has sent what it may for now; `ETIMEDOUT` when the portal did not return in time.
    fn call(&self, handle: u64, address: usize, len: usize, operation: Operation) -> Result<u64>;
    /// Takes an endpoint or a publication back; when it returns, nothing of it is under way.
    fn revoke(&self, id: u64) -> Result<()>;
    /// Gives a handle back.
    fn disconnect(&self, handle: u64);
    /// Publishes a range; returns its id. `EADDRINUSE`, `EFAULT`.
    fn file_advertise(&self, address: usize, len: usize, key: &Key, read_only: bool)
    -> Result<u64>;
    /// Attaches to a published range; returns a handle and what it is. `ENOENT`.
    fn file_probe(&self, key: &Key, notify: Notify) -> Result<(u64, FileInfo)>;
    /// Copies from a published range; returns the number of bytes. `ESTALE`, `EFAULT`.
    fn file_read(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize>;
    /// Copies to a published range; returns the number of bytes. `ESTALE`, `EFAULT`, `EACCES`.
    fn file_write(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize>;
}

/// Hostcalls that a portal may make.
pub trait PortalCalls {
    /// Copies the sender's message to memory of the portal's owner. `EFAULT`.
    fn fetch(&self, to: usize, offset: usize, len: usize) -> Result<()>;
    /// Interrupts the portal's owner.
    fn wake(&self, id: u64);
}
