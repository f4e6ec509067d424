// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page of code that each vCPU has: the only code that knows which vCPU it is.
//!
//! ```text
//! + GATE         mov r11, context      the gate of the cVM's kernel
//!                jmp [rip]; capstream_gate
//! + PORTAL_GATE  mov r11, context      the gate of portals that run on this vCPU
//!                jmp [rip]; capstream_portal_gate
//! + PORTAL_CALL  call rax              runs a portal; the call is here so that the
//!                mov r11, context      processor predicts its return
//!                jmp [rip]; capstream_portal_return
//! ```

use super::context::Context;
use super::trampoline::label;
use crate::platform::PlatformError;

const GATE: u64 = 0;
const PORTAL_GATE: u64 = 64;
const PORTAL_CALL: u64 = 128;
const LEN: usize = 4096;

/// A mapped thunk page.
pub struct Thunk {
    address: u64,
}

fn load_context_and_jump(context: *const Context, target: u64) -> Vec<u8> {
    let mut code = vec![0x49, 0xbb]; // mov r11, imm64
    code.extend((context as u64).to_le_bytes());
    code.extend([0xff, 0x25, 0, 0, 0, 0]); // jmp [rip + 0]
    code.extend(target.to_le_bytes());
    code
}

impl Thunk {
    /// Makes the page of the vCPU with this context.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn new(context: *const Context) -> Result<Thunk, PlatformError> {
        // SAFETY: a new mapping.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(PlatformError::host("mmap", "the page of a vCPU's gate"));
        }
        let thunk = Thunk {
            address: address as u64,
        };
        let mut call = vec![0xff, 0xd0]; // call rax
        call.extend(load_context_and_jump(context, label::portal_return()));
        for (offset, code) in [
            (GATE, load_context_and_jump(context, label::gate())),
            (
                PORTAL_GATE,
                load_context_and_jump(context, label::portal_gate()),
            ),
            (PORTAL_CALL, call),
        ] {
            // SAFETY: each piece is shorter than 64 bytes, so it lies inside the page, which nobody else knows yet.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    code.as_ptr(),
                    (thunk.address + offset) as *mut u8,
                    code.len(),
                );
            }
        }
        // SAFETY: the page is this thunk's.
        if unsafe { libc::mprotect(address, LEN, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
            return Err(PlatformError::host("mprotect", "the page of a vCPU's gate"));
        }
        Ok(thunk)
    }

    /// First byte of the page.
    pub fn begin(&self) -> u64 {
        self.address
    }

    /// Byte after it.
    pub fn end(&self) -> u64 {
        self.address + LEN as u64
    }

    /// The gate of the cVM's kernel.
    pub fn gate(&self) -> u64 {
        self.address + GATE
    }

    /// The gate of portals.
    pub fn portal_gate(&self) -> u64 {
        self.address + PORTAL_GATE
    }

    /// What calls a portal.
    pub fn portal_call(&self) -> u64 {
        self.address + PORTAL_CALL
    }
}

impl Drop for Thunk {
    fn drop(&mut self) {
        // SAFETY: the page is this thunk's, and no code runs in it any more.
        unsafe { libc::munmap(self.address as *mut libc::c_void, LEN) };
    }
}
