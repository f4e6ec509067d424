// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vCPU page, which is mapped twice: in the cVM's range for its kernel, and elsewhere for the monitor.
//!
//! Any thread may set bits in the pending word, also while the cVM ends and after its range is gone: it does so by the monitor's mapping, which
//! lives as long as whoever holds it.

use capstream_abi::x86_64::VcpuPage;

use crate::platform::PlatformError;

const PAGE: usize = 4096;
const _: () = assert!(size_of::<VcpuPage>() <= PAGE);

/// The monitor's mapping.
#[derive(Debug)]
pub struct SharedPage {
    address: *mut VcpuPage,
}

impl SharedPage {
    /// Puts a new page of zeros at `address`, and maps it a second time.
    ///
    /// # Safety
    ///
    /// `[address, address + 4096)` is a page of a cVM's range, and whatever it holds is not needed.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub unsafe fn new(address: u64) -> Result<SharedPage, PlatformError> {
        // SAFETY: the caller's promise.
        let first = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if first == libc::MAP_FAILED {
            return Err(PlatformError::host("mmap", "a vCPU page"));
        }
        // SAFETY: an old size of 0 leaves the shared mapping as it is and makes another one of the same page.
        let second = unsafe { libc::mremap(first, 0, PAGE, libc::MREMAP_MAYMOVE) };
        if second == libc::MAP_FAILED {
            return Err(PlatformError::host("mremap", "a vCPU page"));
        }
        Ok(SharedPage {
            address: second.cast(),
        })
    }

    /// The page. The cVM's code writes to it at any time.
    #[inline]
    pub fn pointer(&self) -> *mut VcpuPage {
        self.address
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's, and nobody uses it any more.
        unsafe { libc::munmap(self.address.cast(), PAGE) };
    }
}
