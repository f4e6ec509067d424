// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a cVM's range is laid out, and the page that tells its kernel.
//!
//! ```text
//! base                  the runtime image, linked at 0
//! image end, rounded    boot page: BootInfo
//! + PAGE                vCPU page: VcpuPage
//! + PAGE                command line, NUL-terminated, and how process 1 starts the program: COMMAND_LINE bytes
//! + COMMAND_LINE        capability store of the vCPU, on platforms that have one
//! + PAGE                portal stacks: PORTAL_STACKS of PORTAL_STACK_SIZE
//! ...                   memory of the kernel and its programs
//! ram end               PATCH_AREA for the stubs of patched system calls
//! ...                   nothing, when the memory has a limit
//! end
//! ```

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Value of [`BootInfo::magic`]: "capstrm1" in memory order.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"capstrm1");
/// How many portal calls can run in one cVM at the same time.
pub const PORTAL_STACKS: u64 = 16;
/// Bytes of one portal stack.
pub const PORTAL_STACK_SIZE: u64 = 16384;
/// Bytes for the command line and for what process 1 gets to know.
pub const COMMAND_LINE: u64 = 8 * PAGE;
/// Bytes between the image and the portal stacks.
pub const HEAD: u64 = 3 * PAGE + COMMAND_LINE;
/// Bytes behind the memory for the stubs of patched system calls.
pub const PATCH_AREA: u64 = 4 << 20;
/// How many virtio devices a cVM can have.
pub const VIRTIO_MAX: usize = 16;
/// Where the registers of virtio device 0 are; no memory is there: the kernel reads and writes registers by hostcalls.
pub const MMIO_BASE: u64 = 0xffff_8000_0000_0000;
/// Bytes of the register window of one virtio device.
pub const MMIO_STRIDE: u64 = 0x1000;

/// Where one virtio device is.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct VirtioDevice {
    /// First address of its virtio-mmio registers.
    pub mmio: u64,
    /// Its interrupt.
    pub irq: u64,
}

/// What the kernel gets to know at its entry.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// First byte of the image.
    pub image_begin: u64,
    /// Byte after the image, rounded up to a page.
    pub image_end: u64,
    /// First byte of the memory that the kernel manages.
    pub ram_begin: u64,
    /// Byte after it.
    pub ram_end: u64,
    /// First byte that a program can be given access to, the base of the range.
    pub range_begin: u64,
    /// Byte after the range, patch area included.
    pub range_end: u64,
    /// The vCPU page.
    pub vcpu: u64,
    /// The command line.
    pub command_line: u64,
    /// Nanoseconds since 1970 at boot.
    pub wall_clock_ns: u64,
    /// Bytes of vector state that a task switch has to keep.
    pub xsave_size: u64,
    /// Which components of it, as for `xsave`.
    pub xsave_mask: u64,
    /// How many entries of `virtio` are used.
    pub virtio_count: u64,
    /// The virtio devices.
    pub virtio: [VirtioDevice; VIRTIO_MAX],
    /// Seed of the random number generator.
    pub seed: [u8; 32],
}

/// The addresses of one cVM's parts, computed from its range and the size of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte of the range, where the image is.
    pub base: u64,
    /// Byte after the range.
    pub end: u64,
    /// Byte after the image; the boot page.
    pub boot: u64,
    /// The vCPU page.
    pub vcpu: u64,
    /// The command line.
    pub command_line: u64,
    /// The vCPU's capability store, see [`crate::riscv64::store`]; unused on x86-64.
    pub capability_store: u64,
    /// The first portal stack.
    pub portal_stacks: u64,
    /// First byte of memory for the kernel.
    pub ram_begin: u64,
    /// Byte after it; the patch area, of [`PATCH_AREA`] bytes.
    pub ram_end: u64,
}

impl Layout {
    /// Lays out `size` bytes from `base` around an image of `image_size` bytes; `None` when they are not whole pages,
    /// wrap around, or leave less than `min_ram` bytes of memory.
    pub const fn new(base: u64, size: u64, image_size: u64, min_ram: u64) -> Option<Layout> {
        if !base.is_multiple_of(PAGE) || !size.is_multiple_of(PAGE) {
            return None;
        }
        let Some(end) = base.checked_add(size) else {
            return None;
        };
        let Some(image_size) = image_size.checked_next_multiple_of(PAGE) else {
            return None;
        };
        let Some(boot) = base.checked_add(image_size) else {
            return None;
        };
        let Some(ram_begin) = boot.checked_add(HEAD + PORTAL_STACKS * PORTAL_STACK_SIZE) else {
            return None;
        };
        let Some(ram_end) = end.checked_sub(PATCH_AREA) else {
            return None;
        };
        let Some(least) = ram_begin.checked_add(min_ram) else {
            return None;
        };
        if ram_end < least {
            return None;
        }
        Some(Layout {
            base,
            end,
            boot,
            vcpu: boot + PAGE,
            command_line: boot + 2 * PAGE,
            capability_store: boot + 2 * PAGE + COMMAND_LINE,
            portal_stacks: boot + HEAD,
            ram_begin,
            ram_end,
        })
    }

    /// The same with at most `memory` bytes of memory, whole pages. Behind the patch area the range is not used then.
    pub const fn limit_memory(self, memory: u64) -> Layout {
        let memory = memory - memory % PAGE;
        if memory >= self.ram_end - self.ram_begin {
            return self;
        }
        Layout {
            ram_end: self.ram_begin + memory,
            ..self
        }
    }

    /// The byte after the patch area.
    pub const fn patch_end(&self) -> u64 {
        self.ram_end + PATCH_AREA
    }
}
