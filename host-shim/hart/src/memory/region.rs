// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A range of guest addresses over host memory, with flags for each page and tags.
//!
//! States of a page, whatever its flags are:
//!
//! 1. ordinary: it has never had a tag, and stores take no lock.
//! 2. careful: stores take the lock of their granule.
//! 3. settled: careful, and nobody is still storing without a lock. With [`PageFlags::CAPABILITIES`] there may be tags.
//!
//! A page is settled before its first tag, and before the first exchange of a whole granule: [`Region::promote`] makes it careful, waits
//! for every hart, and makes it settled. It stays so. When [`Region::protect`] takes [`PageFlags::CAPABILITIES`] away it waits
//! for every hart, too, before it clears the tags.
//!
//! Lock order: `changing` (written by `protect` and `promote`, read by everything that is not a hart), then what the memory holds, then a
//! stripe of the tags. Harts take no `changing`: whoever writes it waits for them instead, and a hart that promotes a page counts as
//! not running meanwhile.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, Weak};

use super::host::{AtomicWord, Host, Operation, Word};
use super::presence::Generations;
use super::tags::Tags;
use super::{MemoryError, PAGE_SIZE, PageFlags};
use crate::Capability;
use crate::capability::CAPABILITY_SIZE;

/// Internal page flag: the page is careful.
pub(super) const CAREFUL: u8 = 1 << 7;
/// Internal page flag: the page is settled.
const SETTLED: u8 = 1 << 6;

/// Why a hart's access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is there.
    Access,
    /// The page lacks a flag.
    Page,
    /// The page lacks [`PageFlags::CAPABILITIES`].
    Capability,
    /// The page has to be promoted first.
    Promote,
}

/// A range of guest addresses backed by host memory.
pub struct Region {
    begin: u64,
    length: u64,
    host: Host,
    flags: Box<[AtomicU8]>,
    tags: Tags,
    changing: RwLock<()>,
    /// The memories that it was added to.
    users: Mutex<Vec<Weak<Generations>>>,
    /// Unique in this process.
    id: u64,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Region {
    fn check_range(begin: u64, length: u64) -> Result<usize, MemoryError> {
        let whole = begin.is_multiple_of(PAGE_SIZE)
            && length.is_multiple_of(PAGE_SIZE)
            && length != 0
            && begin.checked_add(length).is_some();
        usize::try_from(length)
            .ok()
            .filter(|_| whole)
            .ok_or(MemoryError::Unaligned { begin, length })
    }

    fn over(begin: u64, length: u64, host: Host, flags: PageFlags) -> Region {
        let pages = (length / PAGE_SIZE) as usize;
        Region {
            begin,
            length,
            host,
            flags: (0..pages).map(|_| AtomicU8::new(flags.bits())).collect(),
            tags: Tags::new(pages),
            changing: RwLock::new(()),
            users: Mutex::default(),
            id: next_id(),
        }
    }

    /// A region over memory of the host's.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages or wraps, or if `host` is null or not the begin of a page.
    ///
    /// # Safety
    ///
    /// `[host, host + length)` stays mapped, readable and writable, until the region is dropped, or was removed from every [`Memory`]
    /// and nobody calls its methods any more. Others access the range only as they would access memory that is shared with a guest:
    /// with atomic or volatile accesses, and never writing to pages with [`PageFlags::CAPABILITIES`], whose tags would
    /// stay.
    ///
    /// [`Memory`]: super::Memory
    #[allow(unsafe_code, reason = "the caller vouches for the memory")]
    pub unsafe fn from_host(
        begin: u64,
        length: u64,
        host: *mut u8,
        flags: PageFlags,
    ) -> Result<Region, MemoryError> {
        let bytes = Region::check_range(begin, length)?;
        let pointer = NonNull::new(host)
            .filter(|host| host.addr().get().is_multiple_of(PAGE_SIZE as usize))
            .ok_or(MemoryError::Unaligned {
                begin: host.addr() as u64,
                length,
            })?;
        // SAFETY: the caller's promise, and the alignment was checked.
        let host = unsafe { Host::borrowed(pointer, bytes) };
        Ok(Region::over(begin, length, host, flags))
    }

    /// A region over zeroed memory of its own.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages or wraps, or if the host has no memory.
    pub fn anonymous(begin: u64, length: u64, flags: PageFlags) -> Result<Region, MemoryError> {
        let bytes = Region::check_range(begin, length)?;
        let host =
            Host::anonymous(bytes).map_err(|source| MemoryError::Allocate { length, source })?;
        Ok(Region::over(begin, length, host, flags))
    }

    /// First address.
    #[inline]
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The address after the last.
    #[inline]
    pub fn end(&self) -> u64 {
        self.begin + self.length
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where the host has the byte of a guest address; none outside the region.
    pub fn host_pointer(&self, address: u64) -> Option<*mut u8> {
        let offset = address.checked_sub(self.begin)?;
        (offset < self.length).then(|| self.host.pointer().wrapping_add(offset as usize))
    }

    /// Flags of the page of an address; none outside the region.
    pub fn flags(&self, address: u64) -> Option<PageFlags> {
        let offset = address.checked_sub(self.begin)?;
        let flags = self.flags.get((offset / PAGE_SIZE) as usize)?;
        Some(PageFlags::from_bits_truncate(flags.load(Ordering::Relaxed)))
    }

    pub(super) fn raw(&self) -> (*mut u8, *const AtomicU8) {
        (self.host.pointer(), self.flags.as_ptr())
    }

    pub(super) fn add_user(&self, user: Weak<Generations>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|user| user.strong_count() > 0);
        users.push(user);
    }

    fn wait_for_harts(&self) {
        let users: Vec<_> = self
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for user in users {
            user.advance_and_wait();
        }
    }

    /// Changes the flags of whole pages, from any thread. When it returns, no hart uses the old flags any more. It waits for harts that
    /// are running, some hundred instructions at most; not for a hart whose thread is in a device.
    ///
    /// # Errors
    ///
    /// If the range is not made of whole pages of the region.
    pub fn protect(&self, address: u64, length: u64, flags: PageFlags) -> Result<(), MemoryError> {
        if length == 0 {
            return Ok(());
        }
        Region::check_range(address, length)?;
        let offset = self.offset(address, length)?;
        let first = (offset / PAGE_SIZE) as usize;
        let pages = &self.flags[first..first + (length / PAGE_SIZE) as usize];
        let _changing = self
            .changing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut leaving = false;
        for page in pages {
            let old = page.load(Ordering::Relaxed);
            page.store(flags.bits() | old & (CAREFUL | SETTLED), Ordering::Relaxed);
            let old = PageFlags::from_bits_truncate(old);
            leaving |= (old - flags).contains(PageFlags::CAPABILITIES);
        }
        self.wait_for_harts();
        if leaving {
            self.tags.clear_range(offset, length);
        }
        Ok(())
    }

    /// Settles the page of an address. The calling thread is no hart's, or its hart counts as not running.
    pub(crate) fn promote(&self, address: u64) {
        let Ok(offset) = self.offset(address, 1) else {
            return;
        };
        if self.page(offset) & SETTLED != 0 {
            return;
        }
        let _changing = self
            .changing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if self.page(offset) & SETTLED == 0
            && let Some(page) = self.flags.get((offset / PAGE_SIZE) as usize)
        {
            page.fetch_or(CAREFUL, Ordering::Relaxed);
            self.wait_for_harts();
            page.fetch_or(SETTLED, Ordering::Release);
        }
    }

    fn offset(&self, address: u64, length: u64) -> Result<u64, MemoryError> {
        address
            .checked_sub(self.begin)
            .filter(|offset| *offset <= self.length && length <= self.length - offset)
            .ok_or(MemoryError::Outside { address, length })
    }

    fn check_pages(&self, offset: u64, length: u64, needs: PageFlags) -> Result<(), MemoryError> {
        if length == 0 {
            return Ok(());
        }
        let first = offset / PAGE_SIZE;
        let last = (offset + length - 1) / PAGE_SIZE;
        for page in first..=last {
            let address = self.begin + page * PAGE_SIZE;
            let has = self.flags(address).unwrap_or(PageFlags::empty());
            if !has.contains(needs) {
                return Err(MemoryError::Forbidden {
                    address,
                    has,
                    lacks: needs - has,
                });
            }
        }
        Ok(())
    }

    /// Reads, checked against page flags.
    ///
    /// # Errors
    ///
    /// If a page lacks [`PageFlags::READ`] or the range is not inside the region.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let offset = self.offset(address, bytes.len() as u64)?;
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        self.check_pages(offset, bytes.len() as u64, PageFlags::READ)?;
        self.host.read(offset, bytes);
        Ok(())
    }

    /// Writes, checked against page flags; the tags of granules that it touches fall.
    ///
    /// # Errors
    ///
    /// If a page lacks [`PageFlags::WRITE`] or the range is not inside the region; nothing is written then.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let offset = self.offset(address, bytes.len() as u64)?;
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        self.check_pages(offset, bytes.len() as u64, PageFlags::WRITE)?;
        self.write_unchecked(offset, bytes);
        Ok(())
    }

    /// Writes whatever the page flags are, as a loader or a debugger does; the tags of granules that it touches fall.
    ///
    /// # Errors
    ///
    /// If the range is not inside the region.
    pub fn poke(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let offset = self.offset(address, bytes.len() as u64)?;
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        self.write_unchecked(offset, bytes);
        Ok(())
    }

    /// Reads whatever the page flags are, as a debugger does.
    ///
    /// # Errors
    ///
    /// If the range is not inside the region.
    pub fn peek(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let offset = self.offset(address, bytes.len() as u64)?;
        self.host.read(offset, bytes);
        Ok(())
    }

    fn write_unchecked(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let careful = self.page(at) & CAREFUL != 0;
            let unit = if careful { CAPABILITY_SIZE } else { PAGE_SIZE };
            let (head, tail) = rest.split_at(rest.len().min((unit - at % unit) as usize));
            if careful {
                let locked = self.tags.lock(at);
                self.tags.clear(&locked, at);
                self.host.write(at, head);
            } else {
                self.host.write(at, head);
            }
            at += head.len() as u64;
            rest = tail;
        }
    }

    fn granule(&self, address: u64) -> Result<u64, MemoryError> {
        let offset = self.offset(address, CAPABILITY_SIZE)?;
        if offset.is_multiple_of(CAPABILITY_SIZE) {
            Ok(offset)
        } else {
            Err(MemoryError::Unaligned {
                begin: address,
                length: CAPABILITY_SIZE,
            })
        }
    }

    /// Loads a capability for the monitor: no page flag is needed, and the tag is clear on pages without
    /// [`PageFlags::CAPABILITIES`].
    ///
    /// # Errors
    ///
    /// If the granule is not aligned or not inside the region.
    pub fn load_capability(&self, address: u64) -> Result<Capability, MemoryError> {
        let offset = self.granule(address)?;
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        let (bits, tag) = self.pair(offset);
        Ok(Capability::from_bits(bits, tag))
    }

    /// Stores a capability for the monitor: needs [`PageFlags::CAPABILITIES`] if it is tagged, and never [`PageFlags::WRITE`].
    ///
    /// # Errors
    ///
    /// If the granule is not aligned or not inside the region, or the page lacks [`PageFlags::CAPABILITIES`].
    pub fn store_capability(
        &self,
        address: u64,
        capability: &Capability,
    ) -> Result<(), MemoryError> {
        let offset = self.granule(address)?;
        if capability.tag() {
            self.check_pages(offset, CAPABILITY_SIZE, PageFlags::CAPABILITIES)?;
            // It stays settled, so that this holds below.
            self.promote(address);
        }
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        if capability.tag() {
            self.check_pages(offset, CAPABILITY_SIZE, PageFlags::CAPABILITIES)?;
        }
        self.set_pair(offset, capability.to_bits(), capability.tag());
        Ok(())
    }

    /// Clears the tags of all granules that the range touches. Nothing if the range is not inside the region.
    pub fn clear_tags(&self, address: u64, length: u64) {
        if let Ok(offset) = self.offset(address, length) {
            self.tags.clear_range(offset, length);
        }
    }

    // What harts do, after they have found the region.

    #[inline(always)]
    fn page(&self, offset: u64) -> u8 {
        self.flags
            .get((offset / PAGE_SIZE) as usize)
            .map_or(0, |page| page.load(Ordering::Relaxed))
    }

    /// The offset of an access that its pages allow. `size` is not 0.
    #[inline]
    fn access(&self, address: u64, size: u64, needs: PageFlags) -> Result<u64, Fault> {
        let offset = self.offset(address, size).map_err(|_| Fault::Access)?;
        let needs = needs.bits();
        if self.page(offset) & needs != needs || self.page(offset + size - 1) & needs != needs {
            return Err(Fault::Page);
        }
        Ok(offset)
    }

    /// Loads a word at any alignment.
    pub(crate) fn load<W: Word>(&self, address: u64) -> Result<W, Fault> {
        let offset = self.access(address, W::SIZE, PageFlags::READ)?;
        if let Some(word) = self.host.word::<W>(offset) {
            return Ok(word.load(Ordering::Relaxed));
        }
        let mut bytes = [0; 8];
        self.host.read(offset, &mut bytes[..W::SIZE as usize]);
        Ok(W::from_u64(u64::from_le_bytes(bytes)))
    }

    /// Stores a word at any alignment.
    pub(crate) fn store<W: Word>(&self, address: u64, value: W) -> Result<(), Fault> {
        let offset = self.access(address, W::SIZE, PageFlags::WRITE)?;
        match self.host.word::<W>(offset) {
            Some(word) if self.page(offset) & CAREFUL == 0 => word.store(value, Ordering::Relaxed),
            Some(word) => {
                let locked = self.tags.lock(offset);
                self.tags.clear(&locked, offset);
                word.store(value, Ordering::Relaxed);
            }
            None => {
                let bytes = value.to_u64().to_le_bytes();
                self.write_unchecked(offset, &bytes[..W::SIZE as usize]);
            }
        }
        Ok(())
    }

    /// Whether a byte may be stored.
    pub(crate) fn check_store(&self, address: u64) -> Result<(), Fault> {
        self.access(address, 1, PageFlags::WRITE).map(|_| ())
    }

    /// Runs an atomic operation on an aligned word, with its tag cleared.
    fn atomic<W: Word, R>(
        &self,
        address: u64,
        needs: PageFlags,
        run: impl FnOnce(&W::Atomic) -> R,
    ) -> Result<R, Fault> {
        let offset = self.access(address, W::SIZE, needs)?;
        let word = self.host.word::<W>(offset).ok_or(Fault::Access)?;
        if self.page(offset) & CAREFUL == 0 {
            return Ok(run(word));
        }
        let locked = self.tags.lock(offset);
        self.tags.clear(&locked, offset);
        Ok(run(word))
    }

    /// Reads, computes and stores an aligned word at once; the old value.
    pub(crate) fn update<W: Word>(
        &self,
        address: u64,
        operation: Operation,
        value: W,
    ) -> Result<W, Fault> {
        let needs = PageFlags::READ | PageFlags::WRITE;
        self.atomic::<W, W>(address, needs, |word| word.update(operation, value))
    }

    /// Stores an aligned word if it has not changed; whether it was stored. A change and back is not noticed.
    pub(crate) fn exchange<W: Word>(&self, address: u64, old: W, new: W) -> Result<bool, Fault> {
        self.atomic::<W, bool>(address, PageFlags::WRITE, |word| {
            word.exchange(old, new).is_ok()
        })
    }

    fn bits(&self, offset: u64) -> u128 {
        let half = |offset| {
            self.host
                .word::<u64>(offset)
                .map_or(0, |word| word.load(Ordering::Relaxed))
        };
        u128::from(half(offset)) | u128::from(half(offset + 8)) << 64
    }

    fn set_bits(&self, offset: u64, bits: u128) {
        for (offset, half) in [(offset, bits), (offset + 8, bits >> 64)] {
            if let Some(word) = self.host.word::<u64>(offset) {
                word.store(half as u64, Ordering::Relaxed);
            }
        }
    }

    fn can_hold_tags(&self, offset: u64) -> bool {
        self.page(offset) & PageFlags::CAPABILITIES.bits() != 0
    }

    /// A granule and its tag.
    fn pair(&self, offset: u64) -> (u128, bool) {
        if !self.can_hold_tags(offset) || !self.tags.had_any(offset) {
            return (self.bits(offset), false);
        }
        let _locked = self.tags.lock(offset);
        (self.bits(offset), self.tags.get(offset))
    }

    fn set_pair(&self, offset: u64, bits: u128, tag: bool) {
        if self.page(offset) & CAREFUL == 0 {
            self.set_bits(offset, bits);
            return;
        }
        let locked = self.tags.lock(offset);
        self.set_bits(offset, bits);
        if tag {
            self.tags.set(&locked, offset);
        } else {
            self.tags.clear(&locked, offset);
        }
    }

    /// The offset of an aligned granule whose page allows the access, and holding a tag if `tag`. The page is settled if it has to be.
    fn access_pair(
        &self,
        address: u64,
        needs: PageFlags,
        tag: bool,
        exchange: bool,
    ) -> Result<u64, Fault> {
        let offset = self.access(address, CAPABILITY_SIZE, needs)?;
        if tag && !self.can_hold_tags(offset) {
            return Err(Fault::Capability);
        }
        if (tag || exchange) && self.page(offset) & SETTLED == 0 {
            return Err(Fault::Promote);
        }
        Ok(offset)
    }

    /// Loads an aligned granule; its tag is clear on pages without [`PageFlags::CAPABILITIES`].
    pub(crate) fn load_pair(&self, address: u64) -> Result<(u128, bool), Fault> {
        let offset = self.access_pair(address, PageFlags::READ, false, false)?;
        Ok(self.pair(offset))
    }

    /// Stores an aligned granule.
    pub(crate) fn store_pair(&self, address: u64, bits: u128, tag: bool) -> Result<(), Fault> {
        let offset = self.access_pair(address, PageFlags::WRITE, tag, false)?;
        self.set_pair(offset, bits, tag);
        Ok(())
    }

    /// Replaces an aligned granule by what `new` says of it, if it says something; the old one.
    fn replace_pair(
        &self,
        offset: u64,
        new: impl FnOnce((u128, bool)) -> Option<(u128, bool)>,
    ) -> (u128, bool) {
        let locked = self.tags.lock(offset);
        let tag = self.can_hold_tags(offset) && self.tags.get(offset);
        let old = (self.bits(offset), tag);
        if let Some((bits, tag)) = new(old) {
            self.set_bits(offset, bits);
            if tag {
                self.tags.set(&locked, offset);
            } else {
                self.tags.clear(&locked, offset);
            }
        }
        old
    }

    /// Replaces an aligned granule; the old one.
    pub(crate) fn swap_pair(
        &self,
        address: u64,
        bits: u128,
        tag: bool,
    ) -> Result<(u128, bool), Fault> {
        let offset = self.access_pair(address, PageFlags::READ | PageFlags::WRITE, tag, true)?;
        Ok(self.replace_pair(offset, |_| Some((bits, tag))))
    }

    /// Stores an aligned granule if it has not changed; whether it was stored.
    pub(crate) fn exchange_pair(
        &self,
        address: u64,
        old: (u128, bool),
        new: (u128, bool),
    ) -> Result<bool, Fault> {
        let offset = self.access_pair(address, PageFlags::WRITE, new.1, true)?;
        let found = self.replace_pair(offset, |found| (found == old).then_some(new));
        Ok(found == old)
    }

    /// Tags of the `count` granules from an aligned address on, the first in bit 0.
    pub(crate) fn load_tags(&self, address: u64, count: u64) -> Result<u64, Fault> {
        let offset = self.access(address, CAPABILITY_SIZE * count, PageFlags::READ)?;
        if !self.can_hold_tags(offset) {
            return Err(Fault::Capability);
        }
        Ok((0..count).fold(0, |tags, n| {
            tags | u64::from(self.pair(offset + n * CAPABILITY_SIZE).1) << n
        }))
    }

    /// Copies up to `bytes.len()` bytes of a page that can be executed, from `address` to the end of the page at most; how many.
    pub(crate) fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<usize, Fault> {
        let offset = self.access(address, 1, PageFlags::EXECUTE)?;
        let length = bytes.len().min((PAGE_SIZE - offset % PAGE_SIZE) as usize);
        self.host.read(offset, &mut bytes[..length]);
        Ok(length)
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region [{:#x}, {:#x})", self.begin, self.end())
    }
}
