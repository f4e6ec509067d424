// SPDX-License-Identifier: GPL-2.0-only
//! What the core needs from this kernel, for one node.

use capstream_core::kernel::{Access, Depth, Event, Range};
use capstream_core::{Errno, Kernel, Result};
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::prelude::*;
use kernel::time::Ktime;
use spin::Once;

use crate::user_pages::{self, UserPages};
use crate::wait_queue::WaitQueue;
use crate::{command_line, interrupt, processor};

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

/// Receive buffers that are queued at all nodes of this cVM.
static QUEUED: AtomicU32 = AtomicU32::new(0);

/// One of them.
pub(crate) struct Place(());

impl Place {
    /// One more, up to what `capstream.buffers=NUMBER` on the command line allows.
    fn take() -> Result<Place> {
        static MOST: Once<u32> = Once::new();
        let most = *MOST.call_once(|| command_line::number("buffers").unwrap_or(u32::MAX));
        QUEUED
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                (queued < most).then_some(queued + 1)
            })
            .map(|_| Place(()))
            .map_err(|_| Errno::NOBUFS)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        QUEUED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Kernel for Surroundings {
    type Pin = UserPages;
    type Place = Place;

    fn wake(&self) {
        self.queue.wake_all();
    }

    fn wake_callers(&self) {
        if let Some(peers) = interrupt::peers() {
            peers.wake_all();
        }
    }

    fn place(&self) -> Result<Place> {
        Place::take()
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

    fn holds(&self, range: Range, access: Access, pin: &UserPages) -> bool {
        pin.holds(range, access)
    }

    fn pin(&self, range: Range, access: Access) -> Result<UserPages> {
        UserPages::new(range, access)
    }

    fn copy_out(&self, from: &UserPages, to: usize, len: usize) -> Result<()> {
        from.copy_out(to, len)
    }
}
