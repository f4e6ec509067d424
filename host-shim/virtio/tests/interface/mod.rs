// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's side of a network interface, as far as tests need it. Nothing of it checks what the test wants of it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test uses another part, and a failed expectation is a failed test"
)]

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use capstream_virtio::memory::GuestMemory;
use capstream_virtio::{MmioTransport, Net};

/// First address of the guest's memory.
pub const BASE: u64 = 0x4000_0000;
pub const MEMORY: usize = 8 << 20;
/// How far apart the parts of the two queues are.
const APART: u64 = 0x8000;
const DESCRIPTORS: u64 = BASE + 0x1000;
const AVAILABLE: u64 = BASE + 0x3000;
const USED: u64 = BASE + 0x4000;
/// Where what is sent can be.
pub const SENT: u64 = BASE + 0x10_0000;
/// Where what is received can be.
pub const RECEIVED: u64 = BASE + 0x40_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const HEADER: usize = 12;

pub const F_CSUM: u64 = 1 << 0;
pub const F_GUEST_CSUM: u64 = 1 << 1;
pub const F_GUEST_TSO4: u64 = 1 << 7;
pub const F_HOST_TSO4: u64 = 1 << 11;
pub const F_HOST_TSO6: u64 = 1 << 12;
pub const F_MRG_RXBUF: u64 = 1 << 15;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const NEEDS_RESET: u64 = 64;

pub const RX: usize = 0;
pub const TX: usize = 1;

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

#[derive(Clone, Copy, Default)]
struct Ring {
    available: u16,
    used: u16,
    next: u16,
}

pub struct Interface {
    pub transport: MmioTransport,
    pub memory: GuestMemory,
    pub line: Arc<Line>,
    pub features: u64,
    pub size: u16,
    rings: [Ring; 2],
    /// Bytes of the buffers for what is received, by descriptor.
    buffers: Vec<(u64, u32)>,
    seen: u64,
}

impl Interface {
    pub fn attach(net: Net) -> Interface {
        Interface::attach_in(net, GuestMemory::anonymous(BASE, MEMORY).unwrap())
    }

    pub fn attach_in(net: Net, memory: GuestMemory) -> Interface {
        let line = Arc::new(Line::default());
        let raise = Arc::clone(&line);
        let transport = MmioTransport::new(
            Box::new(net),
            memory.clone(),
            Arc::new(move || raise.raise()),
        );
        Interface {
            transport,
            memory,
            line,
            features: 0,
            size: 0,
            rings: [Ring::default(); 2],
            buffers: Vec::new(),
            seen: 0,
        }
    }

    /// One that is set up, with all that it offers except `without`.
    pub fn new(net: Net, without: u64) -> Interface {
        let mut interface = Interface::attach(net);
        interface.set_up(without);
        interface
    }

    pub fn register(&self, offset: u64) -> u64 {
        self.transport.read(offset, 4)
    }

    pub fn set(&self, offset: u64, value: u64) {
        self.transport.write(offset, 4, value);
    }

    pub fn status(&self) -> u64 {
        self.register(0x070)
    }

    /// Whether the link is up, as the configuration says.
    pub fn is_up(&self) -> bool {
        self.transport.read(0x106, 2) & 1 == 1
    }

    pub fn offered(&self) -> u64 {
        self.set(0x014, 0);
        let low = self.register(0x010);
        self.set(0x014, 1);
        low | self.register(0x010) << 32
    }

    pub fn set_up(&mut self, without: u64) {
        self.set(0x070, 0);
        self.features = self.offered() & !without;
        self.set(0x070, 3);
        self.set(0x024, 0);
        self.set(0x020, self.features & 0xffff_ffff);
        self.set(0x024, 1);
        self.set(0x020, self.features >> 32);
        self.set(0x070, 11);
        assert_eq!(self.status(), 11);
        self.rings = [Ring::default(); 2];
        for queue in [0, 1] {
            self.set(0x030, queue);
            self.size = self.register(0x034) as u16;
            self.set(0x038, self.size.into());
            let at = queue * APART;
            self.memory.write(DESCRIPTORS + at, &[0; 0x4000]).unwrap();
            for (offset, address) in [(0x080, DESCRIPTORS), (0x090, AVAILABLE), (0x0a0, USED)] {
                self.set(offset, (address + at) & 0xffff_ffff);
                self.set(offset + 4, (address + at) >> 32);
            }
            self.set(0x044, 1);
        }
        self.buffers = vec![(0, 0); self.size.into()];
        self.set(0x070, 15);
        assert_eq!(self.status(), 15);
        self.seen = self.line.count();
    }

    pub fn describe(
        &self,
        queue: usize,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = DESCRIPTORS + queue as u64 * APART + u64::from(index) * 16;
        self.memory.write(at, &bytes).unwrap();
    }

    /// Makes the chain at `head` available, without a notification.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let at = AVAILABLE + queue as u64 * APART;
        let slot = u64::from(ring.available % self.size);
        self.memory
            .write(at + 4 + 2 * slot, &head.to_le_bytes())
            .unwrap();
        ring.available = ring.available.wrapping_add(1);
        let index = ring.available;
        self.set_available(queue, index);
    }

    pub fn set_available(&mut self, queue: usize, index: u16) {
        let at = AVAILABLE + queue as u64 * APART + 2;
        self.memory.store_u16(at, index, Ordering::Release).unwrap();
        fence(Ordering::SeqCst);
    }

    pub fn notify(&self, queue: usize) {
        self.set(0x050, queue as u64);
    }

    /// Whether the device wants to be notified of what is available now, and was not before `before`.
    pub fn notification_wanted(&self, queue: usize, before: u16) -> bool {
        let used = USED + queue as u64 * APART;
        if self.features & F_EVENT_IDX == 0 {
            return self.memory.load_u16(used, Ordering::SeqCst).unwrap() & 1 == 0;
        }
        let event = used + 4 + 8 * u64::from(self.size);
        let event = self.memory.load_u16(event, Ordering::SeqCst).unwrap();
        let new = self.rings[queue].available;
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(before)
    }

    /// Gives `count` buffers of `len` bytes for what is received, as drivers do: it notifies when the device wants it.
    pub fn give(&mut self, count: u16, len: u32) {
        let before = self.rings[RX].available;
        for _ in 0..count {
            let index = self.rings[RX].next;
            self.rings[RX].next = (index + 1) % self.size;
            let at = RECEIVED + u64::from(index) * 0x2000;
            self.describe(RX, index, at, len, WRITE, 0);
            self.buffers[usize::from(index)] = (at, len);
            self.offer(RX, index);
        }
        if self.notification_wanted(RX, before) {
            self.notify(RX);
        }
    }

    /// The next used buffer if there is one.
    pub fn take_used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let at = USED + queue as u64 * APART;
        let ring = &mut self.rings[queue];
        if self.memory.load_u16(at + 2, Ordering::Acquire).unwrap() == ring.used {
            return None;
        }
        let mut bytes = [0; 8];
        let slot = u64::from(ring.used % self.size);
        self.memory.read(at + 4 + 8 * slot, &mut bytes).unwrap();
        ring.used = ring.used.wrapping_add(1);
        let [h0, h1, _, _, l0, l1, l2, l3] = bytes;
        Some((
            u16::from_le_bytes([h0, h1]),
            u32::from_le_bytes([l0, l1, l2, l3]),
        ))
    }

    /// Asks for an interrupt about the next used buffer.
    pub fn want_interrupt(&self, queue: usize) {
        let at = AVAILABLE + queue as u64 * APART + 4 + 2 * u64::from(self.size);
        let used = self.rings[queue].used;
        self.memory.store_u16(at, used, Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
    }

    pub fn acknowledge(&self) -> u64 {
        let status = self.register(0x060);
        self.set(0x064, status);
        status
    }

    /// Waits for an interrupt that was not seen yet.
    pub fn wait_interrupt(&mut self) {
        self.seen = self.line.wait(self.seen);
        self.acknowledge();
    }

    fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        loop {
            self.want_interrupt(queue);
            if let Some(used) = self.take_used(queue) {
                return used;
            }
            assert_eq!(self.status() & NEEDS_RESET, 0, "the interface still works");
            self.wait_interrupt();
        }
    }

    /// Waits for a frame; its header and its bytes. All of its buffers are there when the first one is.
    pub fn receive(&mut self) -> ([u8; HEADER], Vec<u8>) {
        let first = self.wait_used(RX);
        self.collect(first)
    }

    /// A frame, if there is one.
    pub fn try_receive(&mut self) -> Option<([u8; HEADER], Vec<u8>)> {
        let first = self.take_used(RX)?;
        Some(self.collect(first))
    }

    fn collect(&mut self, first: (u16, u32)) -> ([u8; HEADER], Vec<u8>) {
        let mut bytes = self.written(first);
        let header: [u8; HEADER] = bytes
            .drain(..HEADER)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let buffers = u16::from_le_bytes([header[10], header[11]]);
        assert!(buffers >= 1);
        for _ in 1..buffers {
            let next = self.take_used(RX).expect("the frame's other buffers");
            bytes.extend(self.written(next));
        }
        (header, bytes)
    }

    fn written(&self, (head, written): (u16, u32)) -> Vec<u8> {
        let (at, len) = self.buffers[usize::from(head)];
        assert!(written <= len, "{written} bytes in a buffer of {len}");
        let mut bytes = vec![0; written as usize];
        self.memory.read(at, &mut bytes).unwrap();
        bytes
    }

    /// Puts a frame there in pieces of `cut` bytes, behind a header, and makes it available.
    pub fn put(&mut self, header: [u8; HEADER], frame: &[u8], cut: usize) -> u16 {
        let first = self.rings[TX].next;
        let place = SENT + u64::from(first % 32) * 0x1_4000;
        self.memory.write(place, &header).unwrap();
        self.memory.write(place + HEADER as u64, frame).unwrap();
        let whole = HEADER + frame.len();
        let mut done = 0;
        let mut index = first;
        while done < whole {
            let len = cut.min(whole - done);
            let next = (index + 1) % self.size;
            let flags = if done + len < whole { NEXT } else { 0 };
            self.describe(TX, index, place + done as u64, len as u32, flags, next);
            done += len;
            index = next;
        }
        self.rings[TX].next = index;
        self.offer(TX, first);
        first
    }

    /// Sends a frame, and waits until its buffers are free.
    pub fn send(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let head = self.put(header, frame, 0x1_0000);
        self.notify(TX);
        assert_eq!(self.wait_used(TX), (head, 0));
    }
}

/// A frame from one address to another, of `len` bytes that tell where they are.
pub fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
    if to == 0xff {
        frame[..6].fill(0xff);
    }
    while frame.len() < len {
        frame.push((frame.len() * 7) as u8);
    }
    frame
}

pub fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// Nothing is left to be done.
pub const PLAIN: [u8; HEADER] = [0; HEADER];
