// SPDX-License-Identifier: GPL-2.0-only
//! What the core needs from this kernel, for one node.

use capstream_core::kernel::{Access, Depth, Event, Range};
use capstream_core::{Errno, Kernel, Result};
use kernel::prelude::*;
use kernel::time::Ktime;

use crate::user_pages::{self, UserPages};
use crate::wait_queue::WaitQueue;
use crate::{interrupt, processor};

/// The kernel around a node.
#[pin_data]
pub(crate) struct Surroundings {
    /// Where tasks wait for the node.
    #[pin]
    pub(crate) queue: WaitQueue,
}

impl Surroundings {
    /// Nobody waits.
    pub(crate) fn new() -> impl PinInit<Surroundings> {
        pin_init!(Surroundings { queue <- WaitQueue::new() })
    }
}

impl Kernel for Surroundings {
    type Pin = UserPages;

    fn wake(&self) {
        self.queue.wake_all();
    }

    fn sleep(
        &self,
        event: Event,
        depth: Depth,
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let queue = match event {
            Event::Endpoint => &self.queue,
            Event::Peers => interrupt::peers().ok_or(Errno::INVAL)?,
        };
        queue.wait(depth, deadline, || self.now_ns(), ready)
    }

    fn spin(&self) -> Result<()> {
        if processor::spin() {
            Err(Errno::INTR)
        } else {
            Ok(())
        }
    }

    fn now_ns(&self) -> u64 {
        Ktime::ktime_get().to_ns().unsigned_abs()
    }

    fn peer_events(&self) -> u64 {
        interrupt::events()
    }

    fn space(&self) -> usize {
        user_pages::space()
    }

    fn mapped(&self, range: Range, access: Access) -> bool {
        user_pages::mapped(range, access)
    }

    fn pin(&self, range: Range, access: Access) -> Result<UserPages> {
        UserPages::new(range, access)
    }

    fn copy_out(&self, from: &UserPages, to: usize, len: usize) -> Result<()> {
        from.copy_out(to, len)
    }
}
