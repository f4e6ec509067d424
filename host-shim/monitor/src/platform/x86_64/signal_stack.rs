// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The stacks that signal handlers of vCPU threads run on, and how a handler finds its vCPU.
//!
//! A handler cannot use thread-local variables: the thread pointer may be the cVM's. So all signal stacks lie in one
//! arena, in slots aligned to their size, with the address of the [`Context`] at the top of each:
//!
//! ```text
//! slot        PAGE of nothing: an overflow is a fault
//! + PAGE      stack, growing down from the header
//! + SLOT - HEADER   address of the Context
//! + SLOT
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::context::Context;
use crate::platform::PlatformError;

const SLOT: u64 = 64 << 10;
const PAGE: u64 = 4096;
const HEADER: u64 = 64;
/// How many vCPUs there can be at the same time.
pub const MAX_VCPUS: usize = 1024;
const SLOTS: u64 = MAX_VCPUS as u64;

static ARENA: AtomicU64 = AtomicU64::new(0);
/// First slots of the arena that are free.
static FREE: OnceLock<Mutex<Vec<u64>>> = OnceLock::new();

/// The vCPU whose signal stack `address` is on; `None` when it is on none. For signal handlers.
#[inline]
pub fn context_at(address: u64) -> Option<&'static Context> {
    let arena = ARENA.load(Ordering::Relaxed);
    if arena == 0 || address.wrapping_sub(arena) >= SLOTS * SLOT {
        return None;
    }
    let header = (address & !(SLOT - 1)) + SLOT - HEADER;
    // SAFETY: the slot is in use, because somebody runs on it, so its header is mapped and holds the address of a context or 0.
    let context = unsafe { (header as *const *const Context).read() };
    // SAFETY: `SignalStack::new` was promised that the context lives until the stack is dropped, and it is not
    // dropped while something runs on it.
    unsafe { context.as_ref() }
}

/// One slot, in use.
pub struct SignalStack {
    slot: u64,
}

fn map_arena() -> Result<u64, PlatformError> {
    let len = (SLOTS + 1) * SLOT;
    // SAFETY: a new mapping, of nothing yet.
    let address = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            len as usize,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(PlatformError::host("mmap", "the signal stacks"));
    }
    Ok((address as u64).next_multiple_of(SLOT))
}

impl SignalStack {
    /// Takes a slot for `context`.
    ///
    /// # Safety
    ///
    /// `context` lives until the stack is dropped.
    ///
    /// # Errors
    ///
    /// [`PlatformError::TooManyVcpus`], [`PlatformError::Host`].
    pub unsafe fn new(context: *const Context) -> Result<SignalStack, PlatformError> {
        let free = FREE.get_or_init(|| Mutex::new((0..SLOTS).rev().collect()));
        let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arena = ARENA.load(Ordering::Relaxed);
        if arena == 0 {
            arena = map_arena()?;
            ARENA.store(arena, Ordering::Relaxed);
        }
        let Some(index) = free.pop() else {
            return Err(PlatformError::TooManyVcpus { max: MAX_VCPUS });
        };
        let slot = arena + index * SLOT;
        // SAFETY: the slot is inside the arena and nobody else's.
        let result = unsafe {
            libc::mprotect(
                (slot + PAGE) as *mut libc::c_void,
                (SLOT - PAGE) as usize,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if result != 0 {
            let error = PlatformError::host("mprotect", "a signal stack");
            free.push(index);
            return Err(error);
        }
        // SAFETY: the top of the slot is writable now.
        unsafe { ((slot + SLOT - HEADER) as *mut *const Context).write(context) };
        Ok(SignalStack { slot })
    }

    /// What `sigaltstack` wants.
    pub fn as_stack(&self) -> libc::stack_t {
        libc::stack_t {
            ss_sp: (self.slot + PAGE) as *mut libc::c_void,
            ss_flags: 0,
            ss_size: (SLOT - PAGE - HEADER) as usize,
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: the slot is this stack's and nothing runs on it any more. The pages go back; the header reads as null.
        unsafe {
            libc::madvise(
                (self.slot + PAGE) as *mut libc::c_void,
                (SLOT - PAGE) as usize,
                libc::MADV_DONTNEED,
            );
        }
        let index = (self.slot - ARENA.load(Ordering::Relaxed)) / SLOT;
        if let Some(free) = FREE.get() {
            free.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(index);
        }
    }
}
