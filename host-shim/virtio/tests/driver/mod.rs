// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's side of a virtio disk, as far as tests need it: it sets up one queue in a guest's memory, and can do so wrongly.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test uses another part, and a failed expectation is a failed test"
)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use capstream_virtio::memory::GuestMemory;
use capstream_virtio::{Block, BlockOptions, MmioTransport};

pub const SECTOR: usize = 512;
/// First address of the guest's memory.
pub const BASE: u64 = 0x4000_0000;
pub const MEMORY: usize = 4 << 20;
/// Where the parts of the queue are.
pub const DESCRIPTORS: u64 = BASE + 0x1000;
pub const AVAILABLE: u64 = BASE + 0x3000;
pub const USED: u64 = BASE + 0x4000;
/// Where requests' headers, status bytes and indirect tables are.
pub const HEADERS: u64 = BASE + 0x8000;
pub const STATUSES: u64 = BASE + 0xc000;
pub const TABLE: u64 = BASE + 0xd000;
/// Where data can be.
pub const DATA: u64 = BASE + 0x10_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// What a status byte is before the device answers.
pub const NONE: u8 = 0xee;

pub const F_RO: u64 = 1 << 5;
pub const F_FLUSH: u64 = 1 << 9;
pub const F_DISCARD: u64 = 1 << 13;
pub const F_WRITE_ZEROES: u64 = 1 << 14;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;

pub const NEEDS_RESET: u64 = 64;

const LIMIT: Duration = Duration::from_secs(20);

/// The interrupt line: counts how often it was raised.
#[derive(Default)]
pub struct Line {
    raised: Mutex<u64>,
    more: Condvar,
}

impl Line {
    pub fn count(&self) -> u64 {
        *self.raised.lock().unwrap()
    }

    /// Waits until it was raised more than `seen` times; returns how often it was.
    pub fn wait(&self, seen: u64) -> u64 {
        let guard = self.raised.lock().unwrap();
        let (raised, timeout) = self
            .more
            .wait_timeout_while(guard, LIMIT, |raised| *raised <= seen)
            .unwrap();
        assert!(!timeout.timed_out(), "no interrupt after {seen}");
        *raised
    }

    fn raise(&self) {
        *self.raised.lock().unwrap() += 1;
        self.more.notify_all();
    }
}

pub struct Driver {
    pub transport: Arc<MmioTransport>,
    pub memory: GuestMemory,
    pub line: Arc<Line>,
    pub size: u16,
    pub features: u64,
    available: u16,
    used: u16,
    next_descriptor: u16,
    next_slot: u64,
    seen: u64,
}

/// One buffer of a request.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    pub write: bool,
}

pub fn readable(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        write: false,
    }
}

pub fn writable(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        write: true,
    }
}

/// A request that was submitted.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub head: u16,
    pub status: u64,
}

/// An image of `sectors` sectors, each filled with bytes that tell which it is.
pub fn image(sectors: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pattern(0, sectors)).unwrap();
    file
}

/// What [`image`] has in `sectors` sectors from `first` on.
pub fn pattern(first: usize, sectors: usize) -> Vec<u8> {
    (first * SECTOR..(first + sectors) * SECTOR)
        .map(|at| (at / SECTOR * 7 + at % SECTOR) as u8)
        .collect()
}

impl Driver {
    /// A disk on `path`, not set up yet.
    pub fn attach(path: &Path, options: &BlockOptions) -> Driver {
        let memory = GuestMemory::anonymous(BASE, MEMORY).unwrap();
        Driver::attach_in(path, options, memory)
    }

    pub fn attach_in(path: &Path, options: &BlockOptions, memory: GuestMemory) -> Driver {
        let disk = Block::open(path, options).unwrap();
        let line = Arc::new(Line::default());
        let raise = Arc::clone(&line);
        let transport = MmioTransport::new(
            Box::new(disk),
            memory.clone(),
            Arc::new(move || raise.raise()),
        );
        Driver {
            transport: Arc::new(transport),
            memory,
            line,
            size: 0,
            features: 0,
            available: 0,
            used: 0,
            next_descriptor: 0,
            next_slot: 0,
            seen: 0,
        }
    }

    /// A disk on `path`, set up with all features that it offers except `without`.
    pub fn new(path: &Path, options: &BlockOptions, without: u64) -> Driver {
        let mut driver = Driver::attach(path, options);
        driver.set_up(without);
        driver
    }

    pub fn register(&self, offset: u64) -> u64 {
        self.transport.read(offset, 4)
    }

    pub fn set_register(&self, offset: u64, value: u64) {
        self.transport.write(offset, 4, value);
    }

    pub fn offered(&self) -> u64 {
        self.set_register(0x014, 0);
        let low = self.register(0x010);
        self.set_register(0x014, 1);
        low | self.register(0x010) << 32
    }

    pub fn status(&self) -> u64 {
        self.register(0x070)
    }

    pub fn agree(&mut self, features: u64) {
        self.features = features;
        self.set_register(0x070, 1);
        self.set_register(0x070, 3);
        self.set_register(0x024, 0);
        self.set_register(0x020, features & 0xffff_ffff);
        self.set_register(0x024, 1);
        self.set_register(0x020, features >> 32);
        self.set_register(0x070, 11);
    }

    pub fn place_queue(&self, size: u16, descriptors: u64, available: u64, used: u64) {
        self.set_register(0x030, 0);
        self.set_register(0x038, size.into());
        for (offset, address) in [(0x080, descriptors), (0x090, available), (0x0a0, used)] {
            self.set_register(offset, address & 0xffff_ffff);
            self.set_register(offset + 4, address >> 32);
        }
        self.set_register(0x044, 1);
    }

    /// From reset to ready.
    pub fn set_up(&mut self, without: u64) {
        self.set_register(0x070, 0);
        assert_eq!(self.status(), 0);
        self.agree(self.offered() & !without);
        assert_eq!(self.status(), 11, "features are acceptable");
        self.size = self.register(0x034) as u16;
        self.memory.write(DESCRIPTORS, &[0; 0x2000]).unwrap();
        self.memory.write(AVAILABLE, &[0; 0x1000]).unwrap();
        self.memory.write(USED, &[0; 0x1000]).unwrap();
        self.place_queue(self.size, DESCRIPTORS, AVAILABLE, USED);
        self.set_register(0x070, 15);
        assert_eq!(self.status(), 15);
        self.available = 0;
        self.used = 0;
        self.next_descriptor = 0;
        self.seen = self.line.count();
    }

    /// Writes one descriptor into the queue's table, or another.
    pub fn describe(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = table + u64::from(index) * 16;
        self.memory.write(at, &bytes).unwrap();
    }

    /// Makes the chain at `head` available, without a notification.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.memory
            .write(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes())
            .unwrap();
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        self.memory
            .store_u16(AVAILABLE + 2, index, Ordering::Release)
            .unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    pub fn available(&self) -> u16 {
        self.available
    }

    pub fn notify(&self) {
        self.set_register(0x050, 0);
    }

    /// Whether the device wants to be notified of what was offered since `before`.
    pub fn notification_wanted(&self, before: u16) -> bool {
        if self.features & F_EVENT_IDX == 0 {
            return self.memory.load_u16(USED, Ordering::SeqCst).unwrap() & 1 == 0;
        }
        let event = self
            .memory
            .load_u16(USED + 4 + 8 * u64::from(self.size), Ordering::SeqCst)
            .unwrap();
        let new = self.available;
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(before)
    }

    /// Asks for an interrupt when the used index passes `event`.
    pub fn set_used_event(&self, event: u16) {
        let at = AVAILABLE + 4 + 2 * u64::from(self.size);
        self.memory.store_u16(at, event, Ordering::SeqCst).unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    pub fn used_index(&self) -> u16 {
        self.memory.load_u16(USED + 2, Ordering::Acquire).unwrap()
    }

    /// How many used buffers were taken.
    pub fn taken(&self) -> u16 {
        self.used
    }

    /// Writes `buffers` as a chain of descriptors, and makes it available.
    pub fn chain(&mut self, buffers: &[Buffer]) -> u16 {
        let first = self.next_descriptor;
        let mut index = first;
        for (at, buffer) in buffers.iter().enumerate() {
            let next = (index + 1) % self.size;
            let mut flags = if buffer.write { WRITE } else { 0 };
            if at + 1 < buffers.len() {
                flags |= NEXT;
            }
            self.describe(DESCRIPTORS, index, buffer.address, buffer.len, flags, next);
            index = next;
        }
        self.next_descriptor = index;
        self.offer(first);
        first
    }

    /// Writes a header somewhere and returns it.
    pub fn header(&mut self, kind: u32, sector: u64) -> Buffer {
        self.next_slot = (self.next_slot + 1) % 256;
        let at = HEADERS + self.next_slot * 16;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(at, &bytes).unwrap();
        readable(at, 16)
    }

    /// A status byte that was not answered yet.
    pub fn answer(&mut self) -> Buffer {
        self.next_slot = (self.next_slot + 1) % 256;
        let at = STATUSES + self.next_slot;
        self.memory.write(at, &[NONE]).unwrap();
        writable(at, 1)
    }

    /// Offers a request with its header and its status, without a notification.
    pub fn submit(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> Ticket {
        let mut buffers = vec![self.header(kind, sector)];
        buffers.extend_from_slice(data);
        let answer = self.answer();
        buffers.push(answer);
        Ticket {
            head: self.chain(&buffers),
            status: answer.address,
        }
    }

    /// The next used buffer if there is one: its head, and how much was written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.used_index() == self.used {
            return None;
        }
        let mut bytes = [0; 8];
        let at = USED + 4 + 8 * u64::from(self.used % self.size);
        self.memory.read(at, &mut bytes).unwrap();
        self.used = self.used.wrapping_add(1);
        let [h0, h1, _, _, l0, l1, l2, l3] = bytes;
        Some((
            u16::from_le_bytes([h0, h1]),
            u32::from_le_bytes([l0, l1, l2, l3]),
        ))
    }

    /// What an interrupt handler does first.
    pub fn acknowledge(&self) -> u64 {
        let status = self.register(0x060);
        self.set_register(0x064, status);
        status
    }

    /// Waits for the next used buffer, by interrupts.
    pub fn wait_used(&mut self) -> (u16, u32) {
        loop {
            if self.features & F_EVENT_IDX != 0 {
                self.set_used_event(self.used);
            }
            if let Some(used) = self.take_used() {
                return used;
            }
            assert_eq!(self.status() & NEEDS_RESET, 0, "the device still works");
            self.seen = self.line.wait(self.seen);
            self.acknowledge();
        }
    }

    /// Waits until the device asks for a reset.
    pub fn wait_needs_reset(&mut self) {
        let mut seen = self.seen;
        while self.status() & NEEDS_RESET == 0 {
            seen = self.line.wait(seen);
        }
        self.seen = self.line.wait(self.seen);
        assert_eq!(self.acknowledge() & 2, 2, "a configuration interrupt");
    }

    /// Carries out one request; returns its status and how much was written.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let ticket = self.submit(kind, sector, data);
        self.notify();
        let (head, written) = self.wait_used();
        assert_eq!(head, ticket.head);
        (self.byte(ticket.status), written)
    }

    pub fn byte(&self, address: u64) -> u8 {
        let mut byte = [0];
        self.memory.read(address, &mut byte).unwrap();
        byte[0]
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes).unwrap();
        bytes
    }

    pub fn read(&mut self, sector: u64, sectors: usize) -> (u8, Vec<u8>) {
        let len = sectors * SECTOR;
        self.memory.write(DATA, &vec![0x55; len]).unwrap();
        let (status, written) = self.request(IN, sector, &[writable(DATA, len as u32)]);
        if status == OK {
            assert_eq!(written as usize, len + 1);
        }
        (status, self.bytes(DATA, len))
    }

    pub fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.memory.write(DATA, data).unwrap();
        let (status, written) = self.request(OUT, sector, &[readable(DATA, data.len() as u32)]);
        assert_eq!(written, 1);
        status
    }

    pub fn flush(&mut self) -> u8 {
        self.request(FLUSH, 0, &[]).0
    }

    /// One range to discard or to fill with zeros, as it is in the request's data.
    pub fn range(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    /// That the disk works: it can be reset, and reads what `image` wrote into the first sector.
    pub fn assert_works(&mut self) {
        self.set_up(0);
        let (status, data) = self.read(0, 1);
        assert_eq!(status, OK);
        assert_eq!(data, pattern(0, 1));
    }
}

/// Time since it was made, checked against the limit of a test that waits for progress.
pub struct Deadline(Instant);

impl Deadline {
    pub fn new() -> Deadline {
        Deadline(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub fn check(&self) {
        assert!(self.0.elapsed() < LIMIT, "no progress");
    }
}

/// Numbers that look random, and are the same in each run.
pub struct Numbers(AtomicU64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(AtomicU64::new(seed))
    }

    pub fn next(&self, below: u64) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % below
    }
}
