// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Three network interfaces on one switch: two whose drivers write anything into their registers, their rings and their frames, and one that keeps to the
//! rules. A fourth is on a socket from which anything comes.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arbitrary::{Result, Unstructured};
use capstream_virtio::{GuestMemory, MmioTransport, Net, NetOptions, Switch};

use crate::arena::{Arena, PAGE};
use crate::number::near;

/// Pages of a guest's: rings, then places for frames.
const PAGES: u64 = 16;
const MOST_STEPS: usize = 96;
const MTU: u16 = 9000;

const STATUS: u64 = 0x070;
const NOTIFY: u64 = 0x050;
/// Registers that mean something, and one beyond.
const REGISTERS: &[u64] = &[
    0x000, 0x010, 0x014, 0x020, 0x024, 0x030, 0x034, 0x038, 0x044, NOTIFY, 0x060, 0x064, STATUS,
    0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0fc, 0x100, 0x106, 0x10a, 0xfff, 0x1000,
];
const RX: u64 = 0;
const TX: u64 = 1;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const HEADER: usize = 12;
/// The frame that is sent to see whether an interface works.
const PROBE: usize = 100;

/// Drives the interfaces by what `bytes` say.
pub fn run(bytes: &[u8]) {
    let _ = drive(&mut Unstructured::new(bytes));
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

struct Driver {
    transport: MmioTransport,
    memory: GuestMemory,
    begin: u64,
    available: [u16; 2],
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut arena = Arena::new(1 + 4 * (PAGES + 1));
    let begin = arena.begin();
    arena.mark(begin..begin + PAGE);
    let switch = Switch::new();
    let mut drivers = Vec::new();
    for number in 0..3 {
        let at = begin + PAGE + u64::from(number) * (PAGES + 1) * PAGE;
        arena.mark(at + PAGES * PAGE..at + (PAGES + 1) * PAGE);
        let net = Net::switch(switch.port(mac(number)).unwrap(), MTU).unwrap();
        drivers.push(Driver::new(net, &arena, at));
    }
    let (socket, mut other) = UnixStream::pair().unwrap();
    let options = NetOptions {
        mac: mac(3),
        mtu: MTU,
        on_down: None,
    };
    let at = begin + PAGE + 3 * (PAGES + 1) * PAGE;
    arena.mark(at + PAGES * PAGE..at + (PAGES + 1) * PAGE);
    let net = Net::stream(socket.into(), &options).unwrap();
    drivers.push(Driver::new(net, &arena, at));
    for driver in &mut drivers {
        driver.set_up();
    }
    let anchors: Vec<u64> = drivers
        .iter()
        .flat_map(|driver| {
            let begin = driver.begin;
            [
                begin,
                begin + 3 * PAGE,
                begin + 8 * PAGE,
                begin + PAGES * PAGE,
            ]
        })
        .collect();
    // The third keeps to the rules: it is only sent to.
    let [first, second, good, on_socket] = drivers.as_mut_slice() else {
        return Ok(());
    };
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        match input.arbitrary::<u8>()? % 8 {
            0..3 => first.step(input, &anchors)?,
            3..6 => second.step(input, &anchors)?,
            6 => on_socket.step(input, &anchors)?,
            _ => {
                // Whoever was told too long a frame hangs up.
                let len = input.int_in_range(0..=64_usize)?.min(input.len());
                let _ = other.write_all(input.bytes(len)?);
            }
        }
    }
    good.set_up();
    for driver in [first, second] {
        driver.set_up();
        driver.probe(good);
        good.set_up();
        good.probe(driver);
        good.set_up();
    }
    drop(drivers);
    arena.check_marks();
    Ok(())
}

impl Driver {
    fn new(net: Net, arena: &Arena, begin: u64) -> Driver {
        let memory = arena.guest_memory(begin..begin + PAGES * PAGE);
        Driver {
            transport: MmioTransport::new(Box::new(net), memory.clone(), Arc::new(|| {})),
            memory,
            begin,
            available: [0; 2],
        }
    }

    fn set(&self, register: u64, value: u64) {
        self.transport.write(register, 4, value);
    }

    fn ring(&self, queue: u64, part: u64) -> u64 {
        self.begin + (queue * 4 + part) * PAGE
    }

    fn frames(&self) -> u64 {
        self.begin + 8 * PAGE
    }

    /// From reset to ready, with the queues where they belong.
    fn set_up(&mut self) {
        self.set(STATUS, 0);
        self.memory
            .write(self.begin, &vec![0; 8 * PAGE as usize])
            .unwrap();
        self.available = [0; 2];
        self.set(STATUS, 3);
        self.set(0x014, 0);
        let low = self.transport.read(0x010, 4);
        self.set(0x024, 0);
        self.set(0x020, low & !(1 << 29));
        self.set(0x024, 1);
        self.set(0x020, 1);
        self.set(STATUS, 11);
        for queue in [RX, TX] {
            self.set(0x030, queue);
            self.set(0x038, 64);
            for (register, part) in [(0x080, 0), (0x090, 1), (0x0a0, 2)] {
                let address = self.ring(queue, part);
                self.set(register, address & 0xffff_ffff);
                self.set(register + 4, address >> 32);
            }
            self.set(0x044, 1);
        }
        self.set(STATUS, 15);
    }

    fn describe(&self, queue: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = self.ring(queue, 0) + u64::from(index % 64) * 16;
        self.memory.write(at, &bytes).unwrap();
    }

    fn offer(&mut self, queue: u64, head: u16) {
        let available = &mut self.available[queue as usize];
        let slot = u64::from(*available % 64);
        *available = available.wrapping_add(1);
        let index = *available;
        let ring = self.ring(queue, 1);
        self.memory
            .write(ring + 4 + 2 * slot, &head.to_le_bytes())
            .unwrap();
        self.memory
            .store_u16(ring + 2, index, Ordering::Release)
            .unwrap();
    }

    fn step(&mut self, input: &mut Unstructured<'_>, anchors: &[u64]) -> Result<()> {
        match input.arbitrary::<u8>()? % 16 {
            0 | 1 => {
                let register = *input.choose(REGISTERS)?;
                self.transport.write(register, 4, near(input, anchors)?);
            }
            2 => {
                let (offset, size) = (near(input, REGISTERS)?, near(input, &[1, 2, 4, 8])?);
                self.transport.write(offset, size, near(input, anchors)?);
                self.transport.read(offset, size);
            }
            3 => {
                let address = near(input, anchors)?;
                let len = input.int_in_range(0..=32_usize)?.min(input.len());
                let _ = self.memory.write(address, input.bytes(len)?);
            }
            4 => self.set_up(),
            5 => self.set(NOTIFY, input.arbitrary::<u8>()?.into()),
            6 => {
                let queue = input.int_in_range(RX..=TX)?;
                let address = near(input, anchors)?;
                let len = near(input, &[0, 1, 12, 14, 1500, 65_536])? as u32;
                let (index, flags, next): (u8, u8, u8) = input.arbitrary()?;
                self.describe(
                    queue,
                    index.into(),
                    address,
                    len,
                    (flags & 7).into(),
                    next.into(),
                );
            }
            7 => {
                let queue = input.int_in_range(RX..=TX)?;
                let address = near(input, anchors)?;
                let len = near(input, &[16, 32, 48, 17, 0])? as u32;
                self.describe(queue, 0, address, len, INDIRECT, 0);
                self.offer(queue, 0);
                self.set(NOTIFY, queue);
            }
            8..12 => self.give(input, anchors)?,
            _ => self.send(input, anchors)?,
        }
        Ok(())
    }

    /// Buffers for what is received, some of them wrong.
    fn give(&mut self, input: &mut Unstructured<'_>, anchors: &[u64]) -> Result<()> {
        for _ in 0..input.int_in_range(1..=8)? {
            let index = input.arbitrary::<u8>()?.into();
            let address = if input.ratio(1, 16)? {
                near(input, anchors)?
            } else {
                self.frames() + 4 * PAGE
            };
            let len = near(input, &[1, 11, 12, 13, 100, 1526, PAGE])? as u32;
            let flags = if input.ratio(1, 16)? { 0 } else { WRITE };
            self.describe(RX, index, address, len, flags, 0);
            self.offer(RX, index % 64);
        }
        self.set(NOTIFY, RX);
        Ok(())
    }

    /// Something like a frame: a header, addresses, pieces, some of it wrong.
    fn send(&mut self, input: &mut Unstructured<'_>, anchors: &[u64]) -> Result<()> {
        let place = self.frames();
        let mut bytes = [0; HEADER + 12];
        if input.ratio(1, 2)? {
            bytes[0] = input.arbitrary::<u8>()? & 3;
            bytes[1] = *input.choose(&[0, 1, 4, 0x81, 3, 5])?;
            bytes[2..10].copy_from_slice(&input.arbitrary::<[u8; 8]>()?);
        }
        let to = *input.choose(&[0, 1, 2, 3, 9])?;
        bytes[HEADER..HEADER + 6].copy_from_slice(&mac(to));
        if input.ratio(1, 4)? {
            bytes[HEADER..HEADER + 6].fill(0xff);
        }
        bytes[HEADER + 6..].copy_from_slice(&mac(*input.choose(&[0, 1, 2, 3, 9])?));
        self.memory.write(place, &bytes).unwrap();
        let pieces = input.int_in_range(0..=4_u16)?;
        self.describe(
            TX,
            0,
            place,
            bytes.len() as u32,
            if pieces > 0 { NEXT } else { 0 },
            1,
        );
        for index in 1..=pieces {
            let address = if input.ratio(1, 8)? {
                near(input, anchors)?
            } else {
                place
            };
            let len = near(input, &[0, 1, 2, 100, 4 * PAGE])? as u32;
            let next = if index < pieces { NEXT } else { 0 };
            let odd = if input.ratio(1, 16)? { WRITE } else { 0 };
            self.describe(TX, index, address, len, next | odd, index + 1);
        }
        self.offer(TX, 0);
        self.set(NOTIFY, TX);
        Ok(())
    }

    /// That a frame from here arrives at `to`; both were just set up.
    fn probe(&mut self, to: &mut Driver) {
        let place = self.frames();
        let there = to.frames();
        to.describe(RX, 0, there, PAGE as u32, WRITE, 0);
        to.offer(RX, 0);
        to.set(NOTIFY, RX);
        let mut frame = [0x5a; HEADER + PROBE];
        frame[..HEADER].fill(0);
        // To all: whoever was last seen with an address does not matter.
        frame[HEADER..HEADER + 6].fill(0xff);
        let mut own = [0; 6];
        for (at, byte) in (0..).zip(&mut own) {
            *byte = self.transport.read(0x100 + at, 1) as u8;
        }
        frame[HEADER + 6..HEADER + 12].copy_from_slice(&own);
        self.memory.write(place, &frame).unwrap();
        self.describe(TX, 0, place, frame.len() as u32, 0, 0);
        self.offer(TX, 0);
        self.set(NOTIFY, TX);
        // A switch delivers within the notification.
        let used = to.memory.load_u16(to.ring(RX, 2) + 2, Ordering::Acquire);
        assert_eq!(used.unwrap(), 1, "a frame arrives");
        let mut got = [0; HEADER + PROBE];
        to.memory.read(there, &mut got).unwrap();
        assert_eq!(got[HEADER..], frame[HEADER..]);
    }
}
