// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of guests with marked pages around it, which tell whether somebody wrote there. All unsafe code of this crate is here.
#![allow(
    unsafe_code,
    reason = "the code under test works on raw memory, which is handed to it here"
)]

use std::ops::Range;

use capstream_syscall_patch::PatchTable;
use capstream_virtio::GuestMemory;
use vm_memory::{MmapRegion, VolatileMemory};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// What marked pages are filled with.
const MARK: u8 = 0xa5;

/// Mapped memory, of which some pages are marked.
pub struct Arena {
    region: MmapRegion<()>,
    marked: Vec<Range<u64>>,
}

impl Arena {
    /// `pages` pages of zeros.
    pub fn new(pages: u64) -> Arena {
        Arena {
            region: MmapRegion::new((pages * PAGE) as usize).unwrap(),
            marked: Vec::new(),
        }
    }

    /// The first address.
    pub fn begin(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    /// The address after it.
    pub fn end(&self) -> u64 {
        self.begin() + self.region.size() as u64
    }

    /// Fills whole pages with the mark.
    pub fn mark(&mut self, pages: Range<u64>) {
        self.write(pages.start, &vec![MARK; (pages.end - pages.start) as usize]);
        self.marked.push(pages);
    }

    /// That nobody wrote to what is marked.
    pub fn check_marks(&self) {
        for pages in &self.marked {
            let bytes = self.read(pages.clone());
            if let Some(at) = bytes.iter().position(|&byte| byte != MARK) {
                panic!("{:#x} was written", pages.start + at as u64);
            }
        }
    }

    /// Whether all of it is in here.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        self.begin() <= range.start && range.start <= range.end && range.end <= self.end()
    }

    fn slice(&self, range: Range<u64>) -> vm_memory::VolatileSlice<'_> {
        assert!(self.contains(&range), "{range:x?} is not in the arena");
        let offset = (range.start - self.begin()) as usize;
        let len = (range.end - range.start) as usize;
        self.region.get_slice(offset, len).unwrap()
    }

    /// What is there.
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.slice(range).copy_to(&mut bytes[..]);
        bytes
    }

    /// Writes there.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.slice(address..address + bytes.len() as u64)
            .copy_from(bytes);
    }

    /// `range` as the memory of a guest who calls its bytes by their addresses. It has to go before the arena does.
    pub fn guest_memory(&self, range: Range<u64>) -> GuestMemory {
        assert!(self.contains(&range));
        let len = (range.end - range.start) as usize;
        // SAFETY: inside the mapping, which lives longer than what a target makes of this; nothing in here makes references to its bytes.
        unsafe { GuestMemory::from_raw_parts(range.start, range.start as *mut u8, len) }.unwrap()
    }

    /// A table of patches for `code`, with its stubs in `stubs`. It has to go before the arena does.
    pub fn patch_table(&self, code: Range<u64>, stubs: Range<u64>, kernel: u64) -> PatchTable {
        assert!(self.contains(&code) && self.contains(&stubs));
        let len = (stubs.end - stubs.start) as usize;
        // SAFETY: inside the mapping, as above; nobody executes what is there.
        unsafe { PatchTable::new(stubs.start as *mut u8, len, code, kernel) }.unwrap()
    }
}
