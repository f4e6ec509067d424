// SPDX-License-Identifier: GPL-2.0-only
//! Memory of the calling program that stays where it is.

use capstream_core::kernel::{Access, Range};
use capstream_core::{Errno, Result};
use core::ptr::NonNull;
use cty::{c_int, c_ulong, c_void};

use crate::KINDS;

extern "C" {
    // In user_pages.c.
    fn capstream_holds(pin: *mut c_void, address: c_ulong, len: c_ulong, write: bool) -> bool;
    fn capstream_pin_address(pin: *const c_void) -> c_ulong;
    fn capstream_fault_in(address: c_ulong, len: c_ulong, write: bool) -> bool;
    fn capstream_pin(address: c_ulong, len: c_ulong, write: bool) -> *mut c_void;
    fn capstream_unpin(pin: *mut c_void);
    fn capstream_pin_alive(pin: *const c_void) -> bool;
    fn capstream_copy_out(pin: *const c_void, to: c_ulong, len: c_ulong) -> c_ulong;
    fn capstream_space() -> c_ulong;
    fn capstream_watch_memory(left: extern "C" fn(c_ulong)) -> c_int;
}

/// Begins to be told when a program has left its memory.
pub(crate) fn init() -> kernel::error::Result<()> {
    // SAFETY: no preconditions; called once.
    kernel::error::to_result(unsafe { capstream_watch_memory(left) })
}

/// The last task of a program left its memory, whose pages are freed next; may sleep.
extern "C" fn left(space: c_ulong) {
    for kind in KINDS {
        kind.left(space as usize);
    }
}

/// Pinned memory, released when it is dropped.
///
/// # Invariants
/// The pointer came from `capstream_pin`, for `len` bytes.
pub(crate) struct UserPages {
    pin: NonNull<c_void>,
    len: usize,
}

// SAFETY: the C side has no ties to the task that pinned.
unsafe impl Send for UserPages {}

impl UserPages {
    /// Pins memory of the calling task. `EFAULT` unless it is mapped for this access, `ENOMEM`.
    pub(crate) fn new(range: Range, access: Access) -> Result<UserPages> {
        // SAFETY: a range is not empty and does not wrap; called by a task.
        let pin = unsafe {
            capstream_pin(
                range.address as c_ulong,
                range.len as c_ulong,
                access == Access::Write,
            )
        };
        // The kernel returns small negative numbers as pointers.
        match capstream_core::errno::from_return(pin as i64) {
            Err(error) if error != Errno::PROTO => Err(error),
            _ => {
                let pin = NonNull::new(pin).ok_or(Errno::NOMEM)?;
                // INVARIANT: it is not an error, so it is a pin.
                Ok(UserPages {
                    pin,
                    len: range.len,
                })
            }
        }
    }

    /// Whether this is still what is mapped at the range of the calling task, for this access.
    pub(crate) fn holds(&self, range: Range, access: Access) -> bool {
        // SAFETY: by the invariant; a range is not empty and does not wrap; called by a task.
        unsafe {
            capstream_holds(
                self.pin.as_ptr(),
                range.address as c_ulong,
                range.len as c_ulong,
                access == Access::Write,
            )
        }
    }

    /// Copies the first `len` bytes to memory of the calling task. `EFAULT`.
    pub(crate) fn copy_out(&self, to: usize, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Errno::INVAL);
        }
        // SAFETY: by the invariant, and no more than was pinned.
        let left = unsafe { capstream_copy_out(self.pin.as_ptr(), to as c_ulong, len as c_ulong) };
        if left == 0 {
            Ok(())
        } else {
            Err(Errno::FAULT)
        }
    }
}

impl capstream_core::Pin for UserPages {
    fn alive(&self) -> bool {
        // SAFETY: by the invariant.
        unsafe { capstream_pin_alive(self.pin.as_ptr()) }
    }

    fn address(&self) -> usize {
        // SAFETY: by the invariant.
        unsafe { capstream_pin_address(self.pin.as_ptr()) as usize }
    }
}

impl Drop for UserPages {
    fn drop(&mut self) {
        // SAFETY: by the invariant, and it is not used afterwards.
        unsafe { capstream_unpin(self.pin.as_ptr()) }
    }
}

/// Has the range of the calling task's memory there, as far as this access goes; false when that cannot be, or is not needed. For
/// accesses of the monitor, which cannot wait for a fault of the program's.
pub(crate) fn fault_in(range: Range, access: Access) -> bool {
    // SAFETY: a range is not empty and does not wrap; called by a task.
    unsafe {
        capstream_fault_in(
            range.address as c_ulong,
            range.len as c_ulong,
            access == Access::Write,
        )
    }
}

/// A number for the address space of the calling task.
pub(crate) fn space() -> usize {
    // SAFETY: no preconditions.
    unsafe { capstream_space() as usize }
}
