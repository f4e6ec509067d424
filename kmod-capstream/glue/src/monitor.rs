// SPDX-License-Identifier: GPL-2.0-only
//! The monitor: hostcalls of the kernel, and the entry of portals.

use capstream_abi::{FileInfo, Hostcall, PROBE_NOTIFY};
use capstream_core::errno::from_return;
use capstream_core::gate::Gate;
use capstream_core::kernel::{Access, Range};
use capstream_core::monitor::{Notify, Operation};
use capstream_core::{Errno, Key, Monitor, Portal, Result, Shared};
use cty::{c_long, c_ulong};

use crate::user_pages;

extern "C" {
    // By the architecture.
    fn lkl_hostcall(
        number: c_ulong,
        a0: c_ulong,
        a1: c_ulong,
        a2: c_ulong,
        a3: c_ulong,
        a4: c_ulong,
        a5: c_ulong,
    ) -> c_long;
}

/// Makes a hostcall.
///
/// # Safety
/// The arguments are right for the number: the monitor writes only to memory that they name.
unsafe fn hostcall<const N: usize>(number: Hostcall, arguments: [u64; N]) -> Result<u64> {
    const { assert!(N <= 6) };
    let mut a = [0 as c_ulong; 6];
    for (to, from) in a.iter_mut().zip(arguments) {
        *to = from;
    }
    let [a0, a1, a2, a3, a4, a5] = a;
    // SAFETY: by the contract.
    from_return(unsafe { lkl_hostcall(number as c_ulong, a0, a1, a2, a3, a4, a5) })
}

/// The portal of all endpoints of a kind; the cookie tells which. Runs on a caller's thread.
///
/// # Safety
/// Called by the monitor with a cookie that [`Host::advertise`] gave it for this kind, and the gate of the thread.
unsafe extern "C" fn portal<P: Portal>(
    cookie: usize,
    operation: u64,
    len: u64,
    sender: u64,
    gate: usize,
) -> i64 {
    // SAFETY: the cookie is the address of an endpoint's shared part, which is never moved or freed.
    let shared = unsafe { &*(cookie as *const Shared<P>) };
    // SAFETY: the gate is this thread's, and is not kept.
    let gate = unsafe { Gate::new(gate) };
    shared.portal(operation, len, sender, &gate)
}

fn flags(notify: Notify) -> u64 {
    match notify {
        Notify::No => 0,
        Notify::Yes => PROBE_NOTIFY,
    }
}

/// How often a copy is tried again when memory of the caller was not there: somebody else may need the room meanwhile.
const ATTEMPTS: u32 = 8;

/// Has the monitor access memory of the caller's; where that is not there yet, it is put there, and the access made again.
fn faulting(
    address: usize,
    len: usize,
    access: Access,
    mut call: impl FnMut() -> Result<u64>,
) -> Result<u64> {
    let mut attempts = 0;
    loop {
        let result = call();
        let Err(Errno::FAULT) = result else {
            return result;
        };
        let Some(range) = Range::new(address, len) else {
            return result;
        };
        attempts += 1;
        if attempts > ATTEMPTS || !user_pages::fault_in(range, access) {
            return result;
        }
    }
}

/// The monitor this kernel runs under.
pub(crate) struct Host;

impl Monitor for Host {
    fn advertise<P: Portal>(&self, endpoint: &Shared<P>, key: &Key) -> Result<u64> {
        let entry: capstream_abi::Portal = portal::<P>;
        let cookie = core::ptr::from_ref(endpoint) as u64;
        let key = key.padded();
        // SAFETY: the key is valid for the call; endpoints of this driver are never moved or freed.
        unsafe {
            hostcall(
                Hostcall::StreamAdvertise,
                [
                    entry as usize as u64,
                    cookie,
                    key.as_ptr() as u64,
                    u64::from(endpoint.device()),
                    P::CLASS,
                ],
            )
        }
    }

    fn probe(&self, class: u64, key: &Key, notify: Notify) -> Result<u64> {
        let key = key.padded();
        // SAFETY: the key is valid for the call.
        unsafe {
            hostcall(
                Hostcall::StreamProbe,
                [key.as_ptr() as u64, flags(notify), class],
            )
        }
    }

    fn wait(&self, handle: u64) -> Result<()> {
        // SAFETY: no memory is involved.
        unsafe { hostcall(Hostcall::Wait, [handle]) }.map(drop)
    }

    fn wake(&self, id: u64) {
        // SAFETY: no memory is involved. It fails only for an endpoint that is gone, whose senders are woken by that.
        let _ = unsafe { hostcall(Hostcall::Wake, [id]) };
    }

    fn call(&self, handle: u64, address: usize, len: usize, operation: Operation) -> Result<u64> {
        faulting(address, len, Access::Read, || {
            // SAFETY: the message is only read, and a message that cannot be read is an error.
            unsafe {
                hostcall(
                    Hostcall::Call,
                    [handle, address as u64, len as u64, operation.number()],
                )
            }
        })
    }

    fn revoke(&self, id: u64) -> Result<()> {
        // SAFETY: no memory is involved.
        unsafe { hostcall(Hostcall::Revoke, [id]) }.map(drop)
    }

    fn disconnect(&self, handle: u64) {
        // SAFETY: no memory is involved. It fails only for a handle that is gone.
        let _ = unsafe { hostcall(Hostcall::Disconnect, [handle]) };
    }

    fn file_advertise(
        &self,
        address: usize,
        len: usize,
        key: &Key,
        read_only: bool,
    ) -> Result<u64> {
        let key = key.padded();
        // SAFETY: the key is valid for the call; others write only into the range, which the caller has pinned.
        unsafe {
            hostcall(
                Hostcall::FileAdvertise,
                [
                    address as u64,
                    len as u64,
                    key.as_ptr() as u64,
                    u64::from(read_only),
                ],
            )
        }
    }

    fn file_probe(&self, key: &Key, notify: Notify) -> Result<(u64, FileInfo)> {
        let key = key.padded();
        let mut info = FileInfo::default();
        let to = core::ptr::from_mut(&mut info) as u64;
        // SAFETY: key and information are valid for the call.
        let handle = unsafe {
            hostcall(
                Hostcall::FileProbe,
                [key.as_ptr() as u64, flags(notify), to],
            )
        }?;
        Ok((handle, info))
    }

    fn file_read(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize> {
        faulting(address, len, Access::Write, || {
            // SAFETY: the address is a program's, checked by the caller; a fault there is an error.
            unsafe {
                hostcall(
                    Hostcall::FileRead,
                    [handle, offset, address as u64, len as u64],
                )
            }
        })
        .map(|done| done as usize)
    }

    fn file_write(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize> {
        faulting(address, len, Access::Read, || {
            // SAFETY: as above, and it is only read.
            unsafe {
                hostcall(
                    Hostcall::FileWrite,
                    [handle, offset, address as u64, len as u64],
                )
            }
        })
        .map(|done| done as usize)
    }
}
