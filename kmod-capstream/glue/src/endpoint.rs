// SPDX-License-Identifier: GPL-2.0-only
//! What a node with a portal is made of.

use capstream_core::endpoint::{Readiness, State};
use capstream_core::{Endpoint, Portal, Shared};
use kernel::error::Error;
use kernel::prelude::*;

use crate::chrdev::{PollMask, PollTable};
use crate::exclusive::Exclusive;
use crate::interrupt;
use crate::monitor::Host;
use crate::surroundings::Surroundings;

/// A node whose portal is a `P`, and whose kernel side keeps an `X`.
#[pin_data]
pub(crate) struct EndpointNode<P, X> {
    /// In a box, since portals know its address.
    shared: KBox<Shared<P>>,
    #[pin]
    state: Exclusive<State<X>>,
    #[pin]
    surroundings: Surroundings,
}

impl<P: Portal, X> EndpointNode<P, X> {
    /// The node with this minor.
    pub(crate) fn new(
        minor: u32,
        mut shared: KBox<Shared<P>>,
        state: KBox<State<X>>,
    ) -> impl PinInit<EndpointNode<P, X>, Error> {
        shared.set_device(minor);
        try_pin_init!(EndpointNode {
            shared,
            state <- Exclusive::new(state),
            surroundings <- Surroundings::new(),
        }? Error)
    }

    /// Its operations.
    pub(crate) fn endpoint(&self) -> Endpoint<'_, P, Surroundings, Host, Exclusive<State<X>>> {
        Endpoint {
            shared: &self.shared,
            state: &self.state,
            kernel: &self.surroundings,
            monitor: &Host,
        }
    }

    /// Has a poll's caller woken when something happens to the node or to its peer; to be called before it is looked at.
    pub(crate) fn watch(&'static self, table: &PollTable) {
        table.watch(&self.surroundings.queue);
        if let Some(peers) = interrupt::peers() {
            table.watch(peers);
        }
    }
}

impl From<Readiness> for PollMask {
    fn from(readiness: Readiness) -> PollMask {
        PollMask::READABLE.when(readiness.readable)
            | PollMask::WRITABLE.when(readiness.writable)
            | PollMask::HANGUP.when(readiness.hangup)
    }
}
