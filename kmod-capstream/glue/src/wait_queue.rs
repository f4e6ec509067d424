// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's wait queues.

use capstream_core::kernel::Depth;
use capstream_core::{Errno, Result};
use core::mem::MaybeUninit;
use core::ptr;
use cty::c_int;
use kernel::bindings;
use kernel::c_str;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The time counts from now.
const HRTIMER_MODE_REL: c_int = 1;
/// `TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE`: whom a wake is for.
const TASK_NORMAL: u32 = bindings::TASK_INTERRUPTIBLE | bindings::TASK_UNINTERRUPTIBLE;

extern "C" {
    // A `ktime_t` is a 64 bit number of nanoseconds.
    fn schedule_hrtimeout(expires: *mut i64, mode: c_int) -> c_int;
}

/// A queue of sleeping tasks.
///
/// # Invariants
/// It is initialised when its initialiser is done, and not moved.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: the kernel protects a wait queue by a lock inside it.
unsafe impl Send for WaitQueue {}
// SAFETY: as above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<WaitQueue> {
        let class = ptr::from_ref(kernel::static_lock_class!())
            .cast_mut()
            .cast();
        pin_init!(WaitQueue {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: the slot is memory for a queue head; name and lock class live for ever.
                unsafe {
                    bindings::__init_waitqueue_head(slot, c_str!("capstream").as_char_ptr(), class)
                }
            }),
        })
    }

    /// The kernel's name for it.
    pub(crate) fn as_ptr(&self) -> *mut bindings::wait_queue_head {
        self.head.get()
    }

    /// Wakes all tasks in it; also in interrupts.
    pub(crate) fn wake_all(&self) {
        // SAFETY: the queue is initialised, by the invariant.
        unsafe { bindings::__wake_up(self.as_ptr(), TASK_NORMAL, 0, ptr::null_mut()) };
    }

    /// Sleeps until `ready`, which is called before the first sleep and after each wake and does not sleep.
    ///
    /// # Errors
    /// `EINTR` when a signal came, only with [`Depth::Interruptible`]; `ETIMEDOUT` once `now` is not before `deadline`.
    pub(crate) fn wait(
        &self,
        depth: Depth,
        deadline: Option<u64>,
        now: impl Fn() -> u64,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let state = match depth {
            Depth::Interruptible => bindings::TASK_INTERRUPTIBLE,
            Depth::Uninterruptible => bindings::TASK_UNINTERRUPTIBLE,
        };
        let mut entry = MaybeUninit::<bindings::wait_queue_entry>::uninit();
        let entry = entry.as_mut_ptr();
        // SAFETY: the entry is memory of this function, which takes it off the queue before it returns.
        unsafe { bindings::init_wait_entry(entry, 0) };
        let result = loop {
            // SAFETY: queue and entry are initialised.
            let signal =
                unsafe { bindings::prepare_to_wait_event(self.as_ptr(), entry, state as _) };
            if ready() {
                break Ok(());
            }
            if signal != 0 {
                break Err(Errno::INTR);
            }
            match deadline {
                // SAFETY: a task in process context, as all callers are.
                None => unsafe { bindings::schedule() },
                Some(deadline) => {
                    let left = deadline.saturating_sub(now());
                    if left == 0 {
                        break Err(Errno::TIMEDOUT);
                    }
                    let mut left = i64::try_from(left).unwrap_or(i64::MAX);
                    // SAFETY: as above; the time is memory of this function.
                    unsafe { schedule_hrtimeout(&mut left, HRTIMER_MODE_REL) };
                }
            }
        };
        // SAFETY: the entry was prepared on this queue; finishing it twice is allowed.
        unsafe { bindings::finish_wait(self.as_ptr(), entry) };
        result
    }
}
