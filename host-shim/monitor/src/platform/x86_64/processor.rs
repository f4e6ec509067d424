// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Rust side of the gate: hostcalls come in here, and what they need of the processor is done here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use capstream_abi::GuestEntries;
use capstream_syscall_patch::{CodeAccess, Direction, PatchTable};

use super::context::{ATTENTION_ABANDON, ATTENTION_KILL, Context, Leaving, Own};
use super::trampoline::{capstream_call_portal, capstream_with_host_fs, capstream_with_host_state};
use super::{address_space, raw_syscall, timer};
use crate::platform::{
    Fault, FaultReport, Hostcalls, PortalCall, PortalFailure, Processor, VcpuLine,
};

/// The processor as the vCPU's own thread sees it.
struct Native<'a> {
    context: &'a Context,
}

impl Native<'_> {
    /// For single fields, as the signal handlers do it.
    #[inline]
    fn own(&self) -> *mut Own {
        self.context.own.get()
    }

    /// The patches in programs at `address`.
    fn patches(&self, address: u64) -> Option<&PatchTable> {
        // SAFETY: only this thread uses `own`; the patches are set once, before anybody asks for them.
        let all = unsafe { (*self.own()).patches.as_ref() };
        self.window_patches()
            .iter()
            .chain(all)
            .find(|patches| patches.concerns(address))
    }

    fn window_patches(&self) -> &[PatchTable] {
        // SAFETY: only this thread uses `own`, and not while `add_patches` changes it.
        unsafe { &(*self.own()).window_patches }
    }

    fn timer(&self, id: u64) -> Option<i32> {
        let id = usize::try_from(id).ok()?;
        // SAFETY: only this thread uses `own`, and no handler changes the timers.
        let timers = unsafe { &(*self.own()).timers };
        timers.get(id).copied().flatten()
    }
}

/// Memory of programs that are seen through a window: whether it is there, only an attempt can tell. Whoever makes a table with it has
/// checked that all of its addresses are the cVM's.
#[derive(Debug)]
struct WindowAccess {
    /// Where stubs are executed.
    stubs: core::ops::Range<u64>,
    /// Where they are written.
    stubs_at: u64,
}

impl WindowAccess {
    fn place(&self, address: u64) -> u64 {
        if self.stubs.contains(&address) {
            address - self.stubs.start + self.stubs_at
        } else {
            address
        }
    }
}

impl CodeAccess for WindowAccess {
    fn read(&self, address: u64, to: &mut [u8]) -> bool {
        let place = self.place(address);
        address_space::copy(to.as_mut_ptr() as u64, place, to.len() as u64).is_ok()
    }

    fn write(&self, address: u64, from: &[u8]) -> bool {
        let place = self.place(address);
        address_space::copy(place, from.as_ptr() as u64, from.len() as u64).is_ok()
    }
}

/// Answers a hostcall; called by the gate.
pub(super) extern "C" fn hostcall(
    context: *const Context,
    number: u64,
    arguments: *const [u64; 6],
) -> i64 {
    // SAFETY: the gate passes the context of the thread that runs, and an array on its own stack.
    let (context, arguments) = unsafe { (&*context, &*arguments) };
    let processor = Native { context };
    // SAFETY: set by `run` on this thread, and valid until the cVM is left.
    let Some(calls) = (unsafe { (*context.calls.get()).map(|calls| &*calls) }) else {
        return -i64::from(libc::ENOSYS);
    };
    match calls.light(&processor, number, arguments) {
        Some(result) => result,
        None => processor.full(calls, number, arguments),
    }
}

/// A closure with its result, as data of an `extern "C"` function.
type Work<'a> = &'a mut dyn FnMut() -> i64;

extern "C" fn call_work(data: *mut u8) -> i64 {
    // SAFETY: the callers below pass a pointer to a `Work` that they keep until this returns.
    let work = unsafe { &mut *data.cast::<Work<'_>>() };
    work()
}

impl Native<'_> {
    #[cold]
    fn full(&self, calls: &dyn Hostcalls, number: u64, arguments: &[u64; 6]) -> i64 {
        if self.in_portal() {
            return -i64::from(libc::EPERM);
        }
        let mut work = || {
            let call = AssertUnwindSafe(|| calls.full(self, number, arguments));
            match catch_unwind(call) {
                Ok(result) => result,
                Err(_) => {
                    self.end(Leaving::Panicked);
                    -i64::from(libc::EIO)
                }
            }
        };
        self.with_monitor_state(&mut work)
    }

    fn end(&self, why: Leaving) {
        // SAFETY: only this thread uses `own`.
        unsafe { (*self.own()).leaving = why };
        self.context
            .attention
            .fetch_or(ATTENTION_KILL, core::sync::atomic::Ordering::SeqCst);
    }
}

impl Processor for Native<'_> {
    #[inline]
    fn in_portal(&self) -> bool {
        self.context.in_portal_of().is_some()
    }

    #[inline]
    fn is_killed(&self) -> bool {
        self.context.is_killed()
    }

    #[inline]
    fn call_portal(&self, call: &PortalCall, _owner: &dyn VcpuLine) -> Result<i64, PortalFailure> {
        use core::sync::atomic::Ordering;
        // SAFETY: only this thread uses `own`.
        unsafe { (*self.own()).portal_owner = call.owner };
        self.context.begin_portal_of(call.owner);
        // SAFETY: the caller has checked that function and stack are its owner's and stay until this returns; what the portal does is
        // contained by the platform.
        let result = unsafe { capstream_call_portal(self.context, call) };
        self.context.end_portal();
        if self.context.attention.load(Ordering::Relaxed) & ATTENTION_ABANDON != 0 {
            self.context
                .attention
                .fetch_and(!ATTENTION_ABANDON, Ordering::SeqCst);
        }
        if result.abandoned == 0 {
            return Ok(result.value);
        }
        // SAFETY: only this thread uses `own`.
        let faulted = unsafe { (*self.own()).portal_fault.is_some() };
        Err(if faulted {
            PortalFailure::Faulted
        } else {
            PortalFailure::Abandoned
        })
    }

    fn take_portal_fault(&self) -> Option<FaultReport> {
        // SAFETY: only this thread uses `own`, and no portal runs that a handler could write about.
        unsafe { (*self.own()).portal_fault.take() }
    }

    #[inline]
    fn copy(&self, destination: u64, source: u64, len: u64) -> Result<(), Fault> {
        address_space::copy(destination, source, len)
    }

    fn set_entries(&self, entries: &GuestEntries) -> bool {
        // SAFETY: only this thread uses `own`; handlers read the entries in mode Guest only.
        let known = unsafe { &mut (*self.own()).entries };
        if known.is_some() {
            return false;
        }
        *known = Some(*entries);
        true
    }

    #[inline]
    fn raise(&self, irq: u32) {
        if let Some(bit) = 1u64.checked_shl(irq)
            && self.context.set_own_pending(bit)
        {
            self.context.record.raised(irq);
        }
    }

    #[inline]
    fn wait_for_interrupt(&self) {
        // SAFETY: only this thread uses `own`, and handlers do not use this field.
        let polling = unsafe { &mut (*self.own()).polling };
        self.context.wait_for_pending(polling);
    }

    fn timer_alloc(&self) -> Option<u64> {
        // SAFETY: only this thread uses `own`, and no handler changes the timers.
        let timers = unsafe { &mut (*self.own()).timers };
        let (id, place) = timers
            .iter_mut()
            .enumerate()
            .find(|(_, timer)| timer.is_none())?;
        *place = Some(timer::create()?);
        Some(id as u64)
    }

    #[inline]
    fn timer_set(&self, id: u64, ns: u64) -> bool {
        let Some(timer) = self.timer(id) else {
            return false;
        };
        timer::set(timer, ns);
        true
    }

    fn timer_free(&self, id: u64) -> bool {
        let Some(timer) = self.timer(id) else {
            return false;
        };
        timer::delete(timer);
        // SAFETY: only this thread uses `own`, and no handler changes the timers.
        let timers = unsafe { &mut (*self.own()).timers };
        if let Some(place) = usize::try_from(id).ok().and_then(|id| timers.get_mut(id)) {
            *place = None;
        }
        true
    }

    #[inline]
    fn relax(&self) {
        raw_syscall::sched_yield();
    }

    fn power_off(&self) {
        self.end(Leaving::PoweredOff);
    }

    fn patch_syscall(&self, ip: u64) -> i64 {
        match self.patches(ip) {
            Some(patches) => match patches.patch(ip) {
                Ok(_) => 0,
                Err(error) => {
                    tracing::debug!(%error, "a system call instruction was not patched");
                    -i64::from(libc::EOPNOTSUPP)
                }
            },
            None => -i64::from(libc::EAGAIN),
        }
    }

    fn translate_ip(&self, ip: u64, direction: u64) -> i64 {
        let Some(direction) = Direction::from_number(direction) else {
            return -i64::from(libc::EINVAL);
        };
        self.patches(ip)
            .map_or(ip, |patches| patches.translate(ip, direction)) as i64
    }

    fn forget_code(&self, begin: u64, end: u64) {
        if let Some(patches) = self.patches(begin) {
            patches.forget(begin, end);
        }
    }

    fn add_patches(&self, code: core::ops::Range<u64>, stubs_at: core::ops::Range<u64>) -> bool {
        // SAFETY: only this thread uses `own`, and the entries do not change once they are set.
        let Some(entries) = (unsafe { (*self.own()).entries }) else {
            return false;
        };
        let Some(stubs_end) = code
            .end
            .checked_add(stubs_at.end.saturating_sub(stubs_at.start))
        else {
            return false;
        };
        let stubs = code.end..stubs_end;
        let access = WindowAccess {
            stubs: stubs.clone(),
            stubs_at: stubs_at.start,
        };
        match PatchTable::with_access(stubs, code, entries.syscall, Box::new(access)) {
            Ok(table) => {
                // SAFETY: only this thread uses `own`, nobody has a reference to these, and handlers do not use them.
                unsafe { &mut (*self.own()).window_patches }.push(table);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "system calls of programs will not be patched, so they are slow");
                false
            }
        }
    }

    fn set_patches(
        &self,
        stubs: u64,
        stubs_len: u64,
        code: core::ops::Range<u64>,
        entry: u64,
    ) -> bool {
        // SAFETY: the caller gives parts of the cVM's range, which is mapped while its vCPU runs. No code of it runs now: its
        // only vCPU is in a hostcall.
        let table = unsafe { PatchTable::new(stubs as *mut u8, stubs_len as usize, code, entry) };
        match table {
            Ok(table) => {
                // SAFETY: only this thread uses `own`, and handlers read the patches in mode Guest only. There are none yet: the
                // entries, which come before them, are set once.
                unsafe { (*self.own()).patches = Some(table) };
                true
            }
            Err(error) => {
                tracing::warn!(%error, "system calls of programs will not be patched, so they are slow");
                false
            }
        }
    }

    #[inline]
    fn with_thread_state(&self, mut work: &mut dyn FnMut() -> i64) -> i64 {
        let data: *mut Work<'_> = &raw mut work;
        // SAFETY: `data` is what `call_work` expects.
        unsafe { capstream_with_host_fs(self.context, call_work, data.cast()) }
    }

    fn with_monitor_state(&self, mut work: &mut dyn FnMut() -> i64) -> i64 {
        if self.context.set_in_hostcall(true) {
            return work();
        }
        let data: *mut Work<'_> = &raw mut work;
        // SAFETY: `data` is what `call_work` expects, and this does not nest.
        let result = unsafe { capstream_with_host_state(self.context, call_work, data.cast()) };
        self.context.set_in_hostcall(false);
        result
    }
}
