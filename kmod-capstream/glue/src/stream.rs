// SPDX-License-Identifier: GPL-2.0-only
//! `/cap/chN`: messages into buffers that the receiver registered.

use capstream_core::endpoint::Mode;
use capstream_core::inbox::Inbox;
use capstream_core::requests::{self, stream as request};
use capstream_core::stream::{Buffers, Shared, State};
use capstream_core::{Errno, Result as CoreResult};
use kernel::c_str;
use kernel::error::Error;
use kernel::prelude::*;

use crate::argument;
use crate::chrdev::{Device, Opened, PollMask, PollTable};
use crate::endpoint::EndpointNode;
use crate::exclusive::boxed;
use crate::nodes::Nodes;
use crate::surroundings::Surroundings;

static NODES: Nodes<StreamNode> = Nodes::new();

/// An endpoint.
pub(crate) type StreamNode = EndpointNode<Inbox, Buffers<Surroundings>>;

impl Device for StreamNode {
    const NAME: &'static CStr = c_str!("cap_stream");
    const TITLE: &'static str = "CAP_STREAM_HOST";
    const FIRST_REQUEST: u32 = request::SET_SIZE;
    const MAJOR: u32 = requests::STREAM_MAJOR;
    const NODE: &'static str = "ch";
    const NODE_COUNT: u32 = 4;
    const NODE_COUNT_OPTION: &'static str = "streams";

    fn nodes() -> &'static Nodes<StreamNode> {
        &NODES
    }

    fn new(minor: u32) -> Result<impl PinInit<StreamNode, Error>> {
        let shared = boxed(|| const { Shared::new(Inbox::new()) })?;
        let state = boxed(|| const { State::new(Buffers::new()) })?;
        Ok(EndpointNode::new(minor, shared, state))
    }

    fn request(&'static self, opened: Opened, number: u32, argument: usize) -> CoreResult<()> {
        let stream = self.endpoint();
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
        self.endpoint().read(address, len, opened.nonblock)
    }

    fn write(
        &'static self,
        opened: Opened,
        _offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        self.endpoint().write(address, len, opened.nonblock)
    }

    fn poll(&'static self, table: &PollTable) -> PollMask {
        self.watch(table);
        self.endpoint().poll().into()
    }

    fn closed(&'static self) {
        self.endpoint().closed();
    }

    fn interrupt(&'static self) {
        self.endpoint().interrupt();
    }

    fn left(&'static self, space: usize) {
        self.endpoint().left(space);
    }
}
