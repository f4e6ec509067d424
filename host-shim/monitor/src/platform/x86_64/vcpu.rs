// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU from its making to its end.

use std::sync::Arc;
use std::time::Duration;

use capstream_abi::Layout;

use super::NativeX86;
use super::context::{Context, Leaving, MODE_HOST, Own, TIMERS};
use super::host::{ADDRESS_END, Host};
use super::shared_page::SharedPage;
use super::signal_stack::SignalStack;
use super::thunk::Thunk;
use super::trampoline::capstream_enter;
use super::{NAME, signal, timer};
use crate::platform::{AddressSpace, Ended, Hostcalls, PlatformError, PortalRun, Vcpu, VcpuLine};
use crate::vcpu_record::VcpuRecord;

// From the host's uapi/linux/prctl.h.
const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
const PR_SYS_DISPATCH_OFF: libc::c_ulong = 0;
const PR_SYS_DISPATCH_ON: libc::c_ulong = 1;

/// A part of the area for vector state.
#[derive(Clone)]
#[repr(C, align(64))]
struct XsaveBlock([u8; 64]);

/// A vCPU that has not run yet.
pub struct NativeVcpu {
    context: Arc<Context>,
    host: Host,
    /// Where the cVM starts.
    entry: u64,
    /// Its stack then.
    stack: u64,
    _thunk: Thunk,
    _xsave: Vec<XsaveBlock>,
    /// The memory stays while the vCPU runs in it.
    _space: Arc<dyn AddressSpace>,
}

impl NativeVcpu {
    /// Makes the vCPU of a cVM; its page is mapped and knows the gate then.
    ///
    /// # Errors
    ///
    /// As [`crate::platform::Platform::vcpu`].
    pub fn new(
        platform: &NativeX86,
        space: &Arc<dyn AddressSpace>,
        layout: &Layout,
        entry: u64,
        record: Arc<VcpuRecord>,
    ) -> Result<NativeVcpu, PlatformError> {
        let host = platform.host;
        let blocks = usize::try_from(host.xsave_size.div_ceil(64)).unwrap_or(usize::MAX);
        let xsave = vec![XsaveBlock([0; 64]); blocks];
        let own = Own {
            enter_rsp: 0,
            host_rsp: 0,
            host_fs: 0,
            guest_gs: layout.vcpu,
            mode: MODE_HOST,
            portal_owner: 0,
            portal_thunk: 0,
            portal_gate: 0,
            xsave_area: xsave.as_ptr() as u64,
            xsave_mask: host.xsave_mask,
            image_begin: layout.base,
            image_end: layout.boot,
            thunk_begin: 0,
            thunk_end: 0,
            entries: None,
            timers: [None; TIMERS],
            patches: None,
            window_patches: Vec::new(),
            portal_fault: None,
            leaving: Leaving::Killed,
            polling: platform.polling(),
        };
        // SAFETY: the layout's vCPU page is in the cVM's range, which `space` is, and nothing has run there yet.
        let page = unsafe { SharedPage::new(layout.vcpu)? };
        let context = Arc::new(Context::new(own, page, signal::kick(), record));
        let thunk = Thunk::new(Arc::as_ptr(&context))?;
        // SAFETY: nobody else knows the context and the page yet.
        unsafe {
            let own = context.own.get();
            (*own).thunk_begin = thunk.begin();
            (*own).thunk_end = thunk.end();
            (*own).portal_thunk = thunk.portal_call();
            (*own).portal_gate = thunk.portal_gate();
            (*context.page()).gate = thunk.gate();
        }
        Ok(NativeVcpu {
            context,
            host,
            entry,
            stack: layout.portal_stacks + capstream_abi::boot::PORTAL_STACK_SIZE,
            _thunk: thunk,
            _xsave: xsave,
            _space: Arc::clone(space),
        })
    }
}

impl VcpuLine for Context {
    #[inline]
    fn raise(&self, irq: u32) {
        if let Some(bit) = 1u64.checked_shl(irq)
            && self.set_pending(bit)
        {
            self.record.raised(irq);
        }
    }

    fn kill(&self) {
        self.demand(super::context::ATTENTION_KILL);
    }

    fn abandon_portal(&self, owner: u64) {
        self.abandon_owner
            .store(owner, std::sync::atomic::Ordering::SeqCst);
        self.demand(super::context::ATTENTION_ABANDON);
    }

    fn in_portal_of(&self) -> Option<u64> {
        Context::in_portal_of(self)
    }

    fn portal_run(&self) -> Option<PortalRun> {
        Context::portal_run(self)
    }

    fn processor_time(&self) -> Option<Duration> {
        self.clock.read()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// What a thread is changed back to when it stops being a vCPU's.
struct Prepared<'a> {
    context: &'a Context,
    previous_stack: libc::stack_t,
    _signal_stack: SignalStack,
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: `mask` is a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, core::ptr::null_mut()) };
}

fn block_all() {
    // SAFETY: an all-zero set is a valid one, and it is filled at once.
    let mask = unsafe {
        let mut mask: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut mask);
        mask
    };
    set_mask(&mask);
}

impl Prepared<'_> {
    fn new<'a>(context: &'a Arc<Context>, host: &Host) -> Result<Prepared<'a>, PlatformError> {
        block_all();
        // SAFETY: the context lives longer than the stack: `context` is borrowed for as long.
        let signal_stack = unsafe { SignalStack::new(Arc::as_ptr(context))? };
        // SAFETY: an all-zero stack_t is a valid one.
        let mut previous_stack: libc::stack_t = unsafe { core::mem::zeroed() };
        // SAFETY: the stack is this thread's until it is changed back below.
        if unsafe { libc::sigaltstack(&signal_stack.as_stack(), &mut previous_stack) } != 0 {
            return Err(PlatformError::host("sigaltstack", "a vCPU's thread"));
        }
        let prepared = Prepared {
            context,
            previous_stack,
            _signal_stack: signal_stack,
        };
        context.started();
        // SAFETY: system calls outside the host's own code become signals, for this thread only.
        let dispatch = unsafe {
            libc::prctl(
                PR_SET_SYSCALL_USER_DISPATCH,
                PR_SYS_DISPATCH_ON,
                host.code_begin,
                ADDRESS_END - host.code_begin,
                core::ptr::null::<u8>(),
            )
        };
        if dispatch != 0 {
            return Err(PlatformError::Unsupported {
                platform: NAME,
                what: "syscall user dispatch",
                remedy: "use Linux 5.11 or later with CONFIG_GENERIC_ENTRY, or a sandbox that allows prctl(PR_SET_SYSCALL_USER_DISPATCH)",
            });
        }
        Ok(prepared)
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        block_all();
        self.context.ended();
        // SAFETY: only this thread uses `own`; the cVM has been left.
        let timers = unsafe { &mut (*self.context.own.get()).timers };
        for timer in timers.iter_mut().filter_map(Option::take) {
            timer::delete(timer);
        }
        // SAFETY: changes back what `new` changed; nothing runs on the signal stack, because all signals are blocked.
        unsafe {
            libc::prctl(
                PR_SET_SYSCALL_USER_DISPATCH,
                PR_SYS_DISPATCH_OFF,
                0u64,
                0u64,
                0u64,
            );
            libc::sigaltstack(&self.previous_stack, core::ptr::null_mut());
        }
    }
}

impl Vcpu for NativeVcpu {
    fn line(&self) -> Arc<dyn VcpuLine> {
        Arc::clone(&self.context) as Arc<dyn VcpuLine>
    }

    fn run(self: Box<Self>, boot: u64, calls: &dyn Hostcalls) -> Result<Ended, PlatformError> {
        let prepared = Prepared::new(&self.context, &self.host)?;
        // SAFETY: only this thread uses `calls`; the pointer is taken back below, before what it points to may go. The transmute only
        // forgets its lifetime.
        unsafe {
            *self.context.calls.get() = Some(core::mem::transmute::<
                *const (dyn Hostcalls + '_),
                *const (dyn Hostcalls + 'static),
            >(core::ptr::from_ref(calls)));
        }
        set_mask(&signal::vcpu_mask());
        // SAFETY: the thread is prepared, and the image is in place. What the cVM's code does is contained by the platform.
        unsafe { capstream_enter(Arc::as_ptr(&self.context), self.entry, boot, self.stack) };
        block_all();
        // SAFETY: only this thread uses these.
        let leaving = unsafe {
            *self.context.calls.get() = None;
            let own = self.context.own.get();
            // Others may keep the context for long, and the memory that was patched goes.
            (*own).patches = None;
            (*own).window_patches = Vec::new();
            (*own).leaving
        };
        drop(prepared);
        Ok(match leaving {
            Leaving::Killed => Ended::Killed,
            Leaving::PoweredOff => Ended::PoweredOff,
            Leaving::Faulted(report) => Ended::Faulted(report),
            Leaving::Panicked => Ended::MonitorPanicked,
        })
    }
}
