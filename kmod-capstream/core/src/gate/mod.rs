// SPDX-License-Identifier: GPL-2.0-only
//! Calling the monitor through a gate: what a portal does, which is handed the gate of the thread it runs on.

use crate::errno::from_return;
use crate::{PortalCalls, Result};
use capstream_abi::Hostcall;

#[cfg(target_arch = "riscv64")]
#[path = "riscv64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

/// The gate that a portal was called with.
#[derive(Clone, Copy, Debug)]
pub struct Gate(usize);

impl Gate {
    /// Takes the gate's address.
    ///
    /// # Safety
    /// It is the last argument of the portal that runs now, and the value is not used after the portal returned.
    pub unsafe fn new(address: usize) -> Gate {
        Gate(address)
    }

    fn call(&self, number: Hostcall, arguments: [usize; 3]) -> Result<u64> {
        // SAFETY: by the contract of `new` this is a gate, and it is called on the portal's thread.
        from_return(unsafe { arch::hostcall(self.0, number as u64, arguments) })
    }
}

impl PortalCalls for Gate {
    fn fetch(&self, to: usize, offset: usize, len: usize) -> Result<()> {
        self.call(Hostcall::CallFetch, [to, offset, len]).map(drop)
    }

    fn wake(&self, id: u64) {
        // Fails only when the endpoint is being revoked: then its owner is at it already.
        let _ = self.call(Hostcall::Wake, [id as usize, 0, 0]);
    }
}
