// SPDX-License-Identifier: GPL-2.0-only
//! The capability interrupt: something happened to an endpoint of ours, to a peer, or to a key.
//!
//! The handler counts, wakes whoever waits for a peer or a key, and lets each node look at what portals left. It takes no lock but those of
//! wait queues.

use core::sync::atomic::{AtomicU64, Ordering};
use cty::{c_char, c_int, c_uint, c_ulong, c_void};
use kernel::alloc::flags::GFP_KERNEL;
use kernel::c_str;
use kernel::error::to_result;
use kernel::prelude::*;
use spin::Once;

use crate::wait_queue::WaitQueue;
use crate::KINDS;

/// `IRQ_HANDLED`.
const IRQ_HANDLED: c_uint = 1;

type Handler = unsafe extern "C" fn(c_int, *mut c_void) -> c_uint;

extern "C" {
    // `request_irq()` is an inline function around it.
    fn request_threaded_irq(
        irq: c_uint,
        handler: Option<Handler>,
        thread: Option<Handler>,
        flags: c_ulong,
        name: *const c_char,
        device: *mut c_void,
    ) -> c_int;
}

static EVENTS: AtomicU64 = AtomicU64::new(0);
static PEERS: Once<Pin<KBox<WaitQueue>>> = Once::new();

/// Begins to take the interrupt.
pub(crate) fn init() -> Result<()> {
    let queue = KBox::pin_init(WaitQueue::new(), GFP_KERNEL)?;
    PEERS.call_once(|| queue);
    // SAFETY: the handler needs no device; the name lives for ever.
    to_result(unsafe {
        request_threaded_irq(
            capstream_abi::irq::CAPABILITY,
            Some(handle),
            None,
            0,
            c_str!("capability").as_char_ptr().cast(),
            core::ptr::null_mut(),
        )
    })
}

/// How many capability interrupts there were.
pub(crate) fn events() -> u64 {
    EVENTS.load(Ordering::SeqCst)
}

/// Where tasks wait for [`events`] to change. `None` before [`init`], when nobody can ask.
pub(crate) fn peers() -> Option<&'static WaitQueue> {
    PEERS.get().map(|queue| &**queue)
}

/// # Safety
/// Called by the kernel for the capability interrupt.
unsafe extern "C" fn handle(_irq: c_int, _device: *mut c_void) -> c_uint {
    EVENTS.fetch_add(1, Ordering::SeqCst);
    if let Some(queue) = peers() {
        queue.wake_all();
    }
    for kind in KINDS {
        kind.interrupt();
    }
    IRQ_HANDLED
}
