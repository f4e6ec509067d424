// SPDX-License-Identifier: GPL-2.0-only
//! `/cap/chN`: messages into buffers that the receiver registered.

use capstream_core::requests::{self, stream as request};
use capstream_core::stream::{Mode, State};
use capstream_core::{Errno, Result as CoreResult, Shared, Stream};
use kernel::c_str;
use kernel::error::Error;
use kernel::prelude::*;

use crate::argument;
use crate::chrdev::{Device, Opened, PollMask, PollTable};
use crate::exclusive::{boxed, Exclusive};
use crate::interrupt;
use crate::monitor::Host;
use crate::nodes::Nodes;
use crate::surroundings::Surroundings;
use crate::user_pages::UserPages;

static NODES: Nodes<StreamNode, { requests::MINORS as usize }> = Nodes::new();

/// An endpoint.
#[pin_data]
pub(crate) struct StreamNode {
    /// In a box, since portals know its address.
    shared: KBox<Shared>,
    #[pin]
    state: Exclusive<State<UserPages>>,
    #[pin]
    surroundings: Surroundings,
}

impl StreamNode {
    fn new(minor: u32) -> Result<impl PinInit<StreamNode, Error>> {
        let mut shared = boxed(|| const { Shared::new() })?;
        shared.set_device(minor);
        let state = boxed(|| const { State::new() })?;
        Ok(try_pin_init!(StreamNode {
            shared,
            state <- Exclusive::new(state),
            surroundings <- Surroundings::new(),
        }))
    }

    fn stream(&self) -> Stream<'_, Surroundings, Host, Exclusive<State<UserPages>>> {
        Stream {
            shared: &self.shared,
            state: &self.state,
            kernel: &self.surroundings,
            monitor: &Host,
        }
    }
}

/// Lets every endpoint look at what portals left; called by the interrupt handler.
pub(crate) fn interrupt() {
    for node in NODES.opened() {
        node.stream().interrupt();
    }
}

impl Device for StreamNode {
    const NAME: &'static CStr = c_str!("cap_stream");
    const TITLE: &'static str = "CAP_STREAM_HOST";
    const FIRST_REQUEST: u32 = request::SET_SIZE;
    const MAJOR: u32 = requests::STREAM_MAJOR;
    const MINORS: u32 = requests::MINORS;
    const SEEKABLE: bool = false;

    fn node(minor: u32) -> Result<&'static StreamNode> {
        NODES.get(minor, || StreamNode::new(minor))
    }

    fn request(&'static self, opened: Opened, number: u32, argument: usize) -> CoreResult<()> {
        let stream = self.stream();
        match number {
            request::SET_SIZE => stream.set_size(argument::int(argument).into()),
            request::ADV => stream.advertise(argument::key(argument)?),
            request::PRB => stream.connect(&argument::key(argument)?, opened.nonblock),
            request::SET_MODE => {
                stream.set_mode(Mode::from_number(argument::int(argument))?);
                Ok(())
            }
            request::REG_BUF => stream.register(argument),
            request::WAIT => stream.wait(opened.nonblock, false).map(drop),
            request::SPIN_READ => stream.wait(opened.nonblock, true).map(drop),
            request::WAIT_INFO => {
                // A message is not taken for somebody who cannot be told about it.
                argument::answer(argument, requests::Message::default())?;
                let message = stream.wait(opened.nonblock, false)?;
                argument::answer(argument, message)
            }
            request::RESET => stream.reset(),
            request::STATS => argument::answer(argument, stream.stats()),
            _ => Err(Errno::NOTTY),
        }
    }

    fn read(
        &'static self,
        opened: Opened,
        _offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        self.stream().read(address, len, opened.nonblock)
    }

    fn write(
        &'static self,
        opened: Opened,
        _offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        self.stream().write(address, len, opened.nonblock)
    }

    fn seek(&'static self, _current: i64, _offset: i64, _whence: i32) -> CoreResult<i64> {
        Err(Errno::INVAL)
    }

    fn poll(&'static self, table: &PollTable) -> PollMask {
        table.watch(&self.surroundings.queue);
        if let Some(peers) = interrupt::peers() {
            table.watch(peers);
        }
        let readiness = self.stream().poll();
        PollMask::READABLE.when(readiness.readable)
            | PollMask::WRITABLE.when(readiness.writable)
            | PollMask::HANGUP.when(readiness.hangup)
    }

    fn closed(&'static self) {
        self.stream().closed();
    }
}
