// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk whose driver writes anything into its registers and into the memory of its queues.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use capstream_virtio::{Block, BlockOptions, GuestMemory, MmioTransport};

use crate::arena::{Arena, PAGE};
use crate::number::near;

const SECTOR: u64 = 512;
const SECTORS: u64 = 24;
/// Pages of the guest's: memory that only the kernel may touch, a hole, and the plain part.
const FAR: u64 = 2;
const HOLE: u64 = 1;
const PLAIN: u64 = 8;
const MOST_STEPS: usize = 96;

const STATUS: u64 = 0x070;
const READY: u64 = 0x044;
const NOTIFY: u64 = 0x050;
/// Registers that mean something, and one beyond.
const REGISTERS: &[u64] = &[
    0x000, 0x010, 0x014, 0x020, 0x024, 0x030, 0x034, 0x038, READY, NOTIFY, 0x060, 0x064, STATUS,
    0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0fc, 0x100, 0x108, 0x120, 0xfff, 0x1000,
];

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Drives a disk by what `bytes` say.
pub fn run(bytes: &[u8]) {
    let _ = drive(&mut Unstructured::new(bytes));
}

/// The interrupt line.
#[derive(Default)]
struct Line {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Line {
    fn raise(&self) {
        *self.raised.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let raised = self.raised.lock().unwrap();
        let (mut raised, timeout) = self
            .changed
            .wait_timeout_while(raised, Duration::from_secs(20), |raised| !*raised)
            .unwrap();
        assert!(!timeout.timed_out(), "the disk does not answer");
        *raised = false;
    }
}

struct Driver {
    transport: MmioTransport,
    memory: GuestMemory,
    line: Arc<Line>,
    /// Where the parts of the queue are.
    plain: u64,
    available: u16,
}

thread_local! {
    /// An image, made once for each thread.
    static IMAGE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

fn image() -> Vec<u8> {
    (0..SECTORS * SECTOR)
        .map(|at| (at / SECTOR * 7 + at) as u8)
        .collect()
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    IMAGE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| tempfile::NamedTempFile::new().unwrap());
        file.as_file().set_len(SECTORS * SECTOR).unwrap();
        file.as_file().write_all_at(&image(), 0).unwrap();
        drive_on(input, file)
    })
}

fn drive_on(input: &mut Unstructured<'_>, file: &tempfile::NamedTempFile) -> Result<()> {
    let mut arena = Arena::new(1 + FAR + HOLE + PLAIN + 1);
    let begin = arena.begin();
    let all = begin + PAGE..arena.end() - PAGE;
    let hole = all.start + FAR * PAGE..all.start + (FAR + HOLE) * PAGE;
    arena.mark(begin..all.start);
    arena.mark(hole.clone());
    arena.mark(all.end..arena.end());
    let memory = arena
        .guest_memory(all.clone())
        .with_plain_part(hole.end..all.end)
        .unwrap()
        .without(hole.clone())
        .unwrap();
    let read_only: bool = input.ratio(1, 4)?;
    let options = BlockOptions {
        read_only,
        ..BlockOptions::default()
    };
    let disk = Block::open(file.path(), &options).unwrap();
    let line = Arc::new(Line::default());
    let raise = Arc::clone(&line);
    let transport = MmioTransport::new(
        Box::new(disk),
        memory.clone(),
        Arc::new(move || raise.raise()),
    );
    let plain = hole.end;
    let mut driver = Driver {
        transport,
        memory,
        line,
        plain,
        available: 0,
    };
    if input.ratio(7, 8)? {
        driver.set_up();
    }
    let anchors = [
        begin,
        all.start,
        hole.start,
        hole.end,
        all.end,
        driver.descriptors(),
        driver.available_ring(),
        driver.used_ring(),
        driver.data(),
        driver.data() + SECTOR,
    ];
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        driver.step(input, &anchors)?;
    }
    let accesses = all.start..hole.start;
    driver.check_works(read_only);
    drop(driver);
    arena.check_marks();
    assert!(arena.contains(&accesses));
    let metadata = file.as_file().metadata().unwrap();
    assert_eq!(
        metadata.len(),
        SECTORS * SECTOR,
        "the image has changed its size"
    );
    if read_only {
        let mut now = vec![0; (SECTORS * SECTOR) as usize];
        file.as_file().read_exact_at(&mut now, 0).unwrap();
        assert_eq!(
            now,
            image(),
            "a disk that cannot be written to was written to"
        );
    }
    Ok(())
}

impl Driver {
    fn descriptors(&self) -> u64 {
        self.plain
    }

    fn available_ring(&self) -> u64 {
        self.plain + PAGE
    }

    fn used_ring(&self) -> u64 {
        self.plain + 2 * PAGE
    }

    fn data(&self) -> u64 {
        self.plain + 4 * PAGE
    }

    fn set(&self, register: u64, value: u64) {
        self.transport.write(register, 4, value);
    }

    /// From reset to ready, with the queue where it belongs.
    fn set_up(&mut self) {
        self.set(STATUS, 0);
        let zeros = vec![0; 3 * PAGE as usize];
        self.memory.write(self.descriptors(), &zeros).unwrap();
        self.available = 0;
        self.set(STATUS, 3);
        self.set(0x014, 0);
        let low = self.transport.read(0x010, 4);
        self.set(0x024, 0);
        // Without event indices, so that each request is followed by an interrupt.
        self.set(0x020, low & !(1 << 29));
        self.set(0x024, 1);
        self.set(0x020, 1);
        self.set(STATUS, 11);
        self.set(0x030, 0);
        self.set(0x038, self.transport.read(0x034, 4));
        for (register, address) in [
            (0x080, self.descriptors()),
            (0x090, self.available_ring()),
            (0x0a0, self.used_ring()),
        ] {
            self.set(register, address & 0xffff_ffff);
            self.set(register + 4, address >> 32);
        }
        self.set(READY, 1);
        self.set(STATUS, 15);
    }

    fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = self.descriptors() + u64::from(index % 256) * 16;
        self.memory.write(at, &bytes).unwrap();
    }

    fn offer(&mut self, head: u16, size: u16) {
        let slot = u64::from(self.available % size.max(1));
        let at = self.available_ring() + 4 + 2 * slot;
        // A ring of another size than this driver's may not have this place.
        let _ = self.memory.write(at, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        let at = self.available_ring() + 2;
        self.memory
            .write(at, &self.available.to_le_bytes())
            .unwrap();
    }

    fn size(&self) -> u16 {
        self.transport.read(0x034, 4) as u16
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
            6 | 7 => {
                let address = near(input, anchors)?;
                let len: u32 = near(input, &[0, 1, 16, 512, 4096])? as u32;
                let (index, flags, next): (u8, u8, u8) = input.arbitrary()?;
                self.describe(index.into(), address, len, (flags & 15).into(), next.into());
            }
            8 => {
                let head = input.arbitrary::<u8>()?.into();
                self.offer(head, self.size());
                self.set(NOTIFY, 0);
            }
            9 => {
                // A table of descriptors, whose entries are whatever is there.
                let address = near(input, anchors)?;
                let len = near(input, &[16, 32, 48, 17, 0])? as u32;
                self.describe(0, address, len, INDIRECT, 0);
                self.offer(0, self.size());
                self.set(NOTIFY, 0);
            }
            _ => self.request(input, anchors)?,
        }
        Ok(())
    }

    /// Something like a request: a header, segments, a status byte, some of it wrong.
    fn request(&mut self, input: &mut Unstructured<'_>, anchors: &[u64]) -> Result<()> {
        let kind = *input.choose(&[0, 1, 1, 4, 8, 11, 13, 2, 0xffff_ffff_u32])?;
        let sector = near(input, &[0, SECTORS, SECTORS - 1])?;
        let header = self.data();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(header, &bytes).unwrap();
        if kind == 11 || kind == 13 {
            let mut range = [0; 16];
            let sector = near(input, &[0, SECTORS, SECTORS - 1])?;
            range[..8].copy_from_slice(&sector.to_le_bytes());
            range[8..12].copy_from_slice(&(near(input, &[1, SECTORS])? as u32).to_le_bytes());
            range[12..].copy_from_slice(&u32::from(input.arbitrary::<u8>()? % 4).to_le_bytes());
            self.memory.write(header + 64, &range).unwrap();
        }
        let segments = input.int_in_range(0..=5_u16)?;
        let writes = kind == 0 || kind == 8;
        let usual = if writes { WRITE } else { 0 };
        self.describe(0, header, 16, NEXT, 1);
        for index in 1..=segments {
            let address = match input.arbitrary::<u8>()? % 4 {
                0 => near(input, anchors)?,
                1 => header + 64,
                _ => self.data() + PAGE,
            };
            let len = near(input, &[SECTOR, 16, 2 * SECTOR, PAGE, 1])? as u32;
            let odd = if input.ratio(1, 16)? { WRITE } else { 0 };
            self.describe(index, address, len, (usual ^ odd) | NEXT, index + 1);
        }
        let status = if input.ratio(1, 16)? {
            near(input, anchors)?
        } else {
            header + 128
        };
        self.describe(segments + 1, status, 1, WRITE, 0);
        self.offer(0, self.size());
        self.set(NOTIFY, 0);
        Ok(())
    }

    /// That after a reset the disk reads, and, if it can be written to, writes.
    fn check_works(&mut self, read_only: bool) {
        self.set_up();
        let status = self.data() + 128;
        let place = self.data() + PAGE;
        let last = SECTORS - 1;
        let steps: &[(u32, u8)] = if read_only {
            &[(0, 0x11)]
        } else {
            &[(1, 0x77), (0, 0x11)]
        };
        let mut read = vec![0; SECTOR as usize];
        for &(kind, fill) in steps {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            bytes[8..].copy_from_slice(&last.to_le_bytes());
            self.memory.write(self.data(), &bytes).unwrap();
            self.memory.write(place, &[fill; SECTOR as usize]).unwrap();
            self.memory.write(status, &[0xee]).unwrap();
            let direction = if kind == 0 { WRITE } else { 0 };
            self.describe(0, self.data(), 16, NEXT, 1);
            self.describe(1, place, SECTOR as u32, NEXT | direction, 2);
            self.describe(2, status, 1, WRITE, 0);
            let before = self.used();
            self.offer(0, self.size());
            self.set(NOTIFY, 0);
            while self.used() == before {
                self.line.wait();
                self.set(0x064, 3);
            }
            let mut answer = [0];
            self.memory.read(status, &mut answer).unwrap();
            assert_eq!(answer, [0], "request {kind} after a reset");
            self.memory.read(place, &mut read).unwrap();
        }
        let expected: Vec<u8> = if read_only {
            image()[(last * SECTOR) as usize..].to_vec()
        } else {
            vec![0x77; SECTOR as usize]
        };
        assert_eq!(read, expected, "the last sector");
    }

    fn used(&self) -> u16 {
        let at = self.used_ring() + 2;
        self.memory
            .load_u16(at, std::sync::atomic::Ordering::Acquire)
            .unwrap()
    }
}
