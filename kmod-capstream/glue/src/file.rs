// SPDX-License-Identifier: GPL-2.0-only
//! `/cap/cfN`: memory that somebody published, as a file.

use capstream_core::file::{State, Whence};
use capstream_core::requests::{self, file as request};
use capstream_core::{Errno, File, Result as CoreResult};
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

static NODES: Nodes<FileNode> = Nodes::new();

/// A node.
#[pin_data]
pub(crate) struct FileNode {
    #[pin]
    state: Exclusive<State<UserPages>>,
    #[pin]
    surroundings: Surroundings,
}

impl FileNode {
    fn file(&self) -> File<'_, Surroundings, Host, Exclusive<State<UserPages>>> {
        File {
            state: &self.state,
            kernel: &self.surroundings,
            monitor: &Host,
        }
    }
}

impl Device for FileNode {
    const NAME: &'static CStr = c_str!("cap_file");
    const TITLE: &'static str = "CAP_FILE";
    const FIRST_REQUEST: u32 = request::SET_SIZE;
    const MAJOR: u32 = requests::FILE_MAJOR;
    const NODE: &'static str = "cf";
    const NODE_COUNT: u32 = 2;
    const NODE_COUNT_OPTION: &'static str = "files";
    const SEEKABLE: bool = true;

    fn nodes() -> &'static Nodes<FileNode> {
        &NODES
    }

    fn new(_minor: u32) -> Result<impl PinInit<FileNode, Error>> {
        let state = boxed(|| const { State::new() })?;
        Ok(try_pin_init!(FileNode {
            state <- Exclusive::new(state),
            surroundings <- Surroundings::new(),
        }))
    }

    fn request(&'static self, opened: Opened, number: u32, argument: usize) -> CoreResult<()> {
        let file = self.file();
        match number {
            request::SET_CAP => {
                file.set_address(argument);
                Ok(())
            }
            request::SET_SIZE => file.set_size(argument::int(argument).into()),
            request::ADV => file.advertise(argument::key(argument)?),
            request::PRB => file.attach(&argument::key(argument)?, opened.nonblock),
            request::SET_MODE => file.set_mode(argument::int(argument)),
            request::REVOKE => file.revoke(),
            request::STATS => argument::answer(argument, file.stats()),
            _ => Err(Errno::NOTTY),
        }
    }

    fn read(
        &'static self,
        _opened: Opened,
        offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        let done = self.file().read(*offset, address, len)?;
        *offset = offset.saturating_add(done as i64);
        Ok(done)
    }

    fn write(
        &'static self,
        _opened: Opened,
        offset: &mut i64,
        address: usize,
        len: usize,
    ) -> CoreResult<usize> {
        let done = self.file().write(*offset, address, len)?;
        *offset = offset.saturating_add(done as i64);
        Ok(done)
    }

    fn seek(&'static self, current: i64, offset: i64, whence: i32) -> CoreResult<i64> {
        self.file()
            .seek(current, offset, Whence::from_number(whence)?)
    }

    fn poll(&'static self, table: &PollTable) -> PollMask {
        if let Some(peers) = interrupt::peers() {
            table.watch(peers);
        }
        PollMask::READABLE | PollMask::WRITABLE | PollMask::HANGUP.when(self.file().is_stale())
    }

    fn left(&'static self, space: usize) {
        self.file().left(space);
    }
}
