// SPDX-License-Identifier: GPL-2.0-only
//! `/cap/cgN`: a doorbell with a counter.

use capstream_core::bell::{Counter, Shared, State, Taken, SIZE};
use capstream_core::requests::{self, bell as request};
use capstream_core::{Errno, Result as CoreResult};
use kernel::c_str;
use kernel::error::Error;
use kernel::prelude::*;

use crate::argument;
use crate::chrdev::{Device, Opened, PollMask, PollTable};
use crate::endpoint::EndpointNode;
use crate::exclusive::boxed;
use crate::nodes::Nodes;

static NODES: Nodes<BellNode> = Nodes::new();

/// A bell.
pub(crate) type BellNode = EndpointNode<Counter, Taken>;

impl Device for BellNode {
    const NAME: &'static CStr = c_str!("cap_bell");
    const TITLE: &'static str = "CAP_BELL";
    const FIRST_REQUEST: u32 = request::ADV;
    const MAJOR: u32 = requests::BELL_MAJOR;
    const NODE: &'static str = "cg";
    const NODE_COUNT: u32 = 2;
    const NODE_COUNT_OPTION: &'static str = "bells";

    fn nodes() -> &'static Nodes<BellNode> {
        &NODES
    }

    fn new(minor: u32) -> Result<impl PinInit<BellNode, Error>> {
        let shared = boxed(|| const { Shared::new(Counter::new()) })?;
        let state = boxed(|| const { State::new(Taken::new()) })?;
        Ok(EndpointNode::new(minor, shared, state))
    }

    fn request(&'static self, opened: Opened, number: u32, argument: usize) -> CoreResult<()> {
        let bell = self.endpoint();
        match number {
            request::ADV => bell.advertise(argument::key(argument)?),
            request::PRB => bell.connect(&argument::key(argument)?, opened.nonblock),
            request::RESET => bell.reset(),
            request::STATS => argument::answer(argument, bell.stats()),
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
        if len < SIZE {
            return Err(Errno::INVAL);
        }
        // Units are not taken for somebody who cannot be told about them.
        self.endpoint()
            .take(opened.nonblock, |units| argument::answer(address, units))?;
        Ok(SIZE)
    }

    fn write(
        &'static self,
        opened: Opened,
        _offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        if len < SIZE {
            return Err(Errno::INVAL);
        }
        self.endpoint()
            .ring(argument::number(address)?, opened.nonblock)?;
        Ok(SIZE)
    }

    fn poll(&'static self, table: &PollTable) -> PollMask {
        self.watch(table);
        self.endpoint().poll().into()
    }

    fn interrupt(&'static self) {
        self.endpoint().interrupt();
    }
}
