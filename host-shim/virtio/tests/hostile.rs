// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a disk does for a driver that keeps to no rules. In every case: no panic, no access outside the guest's memory, no hang, and the disk
//! works again after a reset.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstream_virtio::memory::GuestMemory;
use capstream_virtio::{BlockOptions, MmioTransport};
use driver::*;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const SECTORS: usize = 64;
const END: u64 = BASE + MEMORY as u64;

/// A guest's memory with memory of others around it.
struct Surrounded {
    all: GuestMemoryMmap,
}

const AROUND: usize = 64 << 10;
const OTHERS: u8 = 0xd7;

impl Surrounded {
    fn new() -> Surrounded {
        let ranges = [(GuestAddress(0), MEMORY + 2 * AROUND)];
        let all = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        for at in [0, AROUND + MEMORY] {
            all.write_slice(&[OTHERS; AROUND], GuestAddress(at as u64))
                .unwrap();
        }
        Surrounded { all }
    }

    fn guest(&self) -> GuestMemory {
        let host = self
            .all
            .get_host_address(GuestAddress(AROUND as u64))
            .unwrap();
        // SAFETY: the range is inside the mapping, which each test keeps until its disk is gone, and to which there are no references.
        unsafe { GuestMemory::from_raw_parts(BASE, host, MEMORY) }.unwrap()
    }

    fn assert_untouched(&self) {
        for at in [0, AROUND + MEMORY] {
            let mut found = [0; AROUND];
            self.all
                .read_slice(&mut found, GuestAddress(at as u64))
                .unwrap();
            assert!(found == [OTHERS; AROUND], "others' memory was written");
        }
    }
}

/// Runs `misbehave` on a disk that is ready, and checks the disk and everybody's memory afterwards.
fn with_disk(misbehave: impl FnOnce(&mut Driver)) {
    let file = image(SECTORS);
    let surrounded = Surrounded::new();
    let mut driver = Driver::attach_in(file.path(), &BlockOptions::default(), surrounded.guest());
    driver.set_up(0);
    misbehave(&mut driver);
    driver.assert_works();
    drop(driver);
    surrounded.assert_untouched();
}

#[test]
fn memory_is_where_the_host_has_it() {
    // As a monitor does it whose guests use host addresses.
    let ranges = [(GuestAddress(0), MEMORY)];
    let mapping: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let host = mapping.get_host_address(GuestAddress(0)).unwrap();
    let base = host as u64;
    // SAFETY: as in `Surrounded::guest`.
    let memory = unsafe { GuestMemory::from_raw_parts(base, host, MEMORY) }.unwrap();
    memory.write(base + 5, b"here").unwrap();
    let mut found = [0; 4];
    mapping.read_slice(&mut found, GuestAddress(5)).unwrap();
    assert_eq!(&found, b"here");
    assert!(memory.contains(base, MEMORY as u64));
    assert!(!memory.contains(base, MEMORY as u64 + 1));
    assert!(!memory.contains(base - 1, 1));
    assert!(!memory.contains(base + 1, u64::MAX));
    assert!(!memory.contains(u64::MAX, 1));
    assert!(memory.write(base + MEMORY as u64 - 1, &[1, 2]).is_err());

    // SAFETY: nothing is accessed: there is no such memory object.
    assert!(unsafe { GuestMemory::from_raw_parts(u64::MAX - 4095, host, 8192) }.is_err());
    // SAFETY: as above.
    assert!(unsafe { GuestMemory::from_raw_parts(base, host, 0) }.is_err());
    // SAFETY: as above.
    assert!(unsafe { GuestMemory::from_raw_parts(base, host.wrapping_add(1), 4096) }.is_err());
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let sizes = [0, 3, 100, 129, 256, 65536, 0x10080, u64::from(u32::MAX)];
    let places = [
        (0, AVAILABLE, USED),
        (DESCRIPTORS, 0, USED),
        (DESCRIPTORS, AVAILABLE, 0),
        (DESCRIPTORS + 8, AVAILABLE, USED),
        (DESCRIPTORS, AVAILABLE + 1, USED),
        (DESCRIPTORS, AVAILABLE, USED + 2),
        (END - 128 * 16 + 16, AVAILABLE, USED),
        (DESCRIPTORS, END - 6 - 2 * 128 + 2, USED),
        (DESCRIPTORS, AVAILABLE, END - 6 - 8 * 128 + 2),
        (BASE - 16, AVAILABLE, USED),
        (!15, AVAILABLE, USED),
        (DESCRIPTORS, !1, USED),
        (DESCRIPTORS, AVAILABLE, !3),
    ];
    with_disk(|driver| {
        let mut refused = |size: u64, (descriptors, available, used): (u64, u64, u64)| {
            driver.set_register(0x070, 0);
            driver.agree(driver.offered());
            driver.set_register(0x038, size);
            for (offset, address) in [(0x080, descriptors), (0x090, available), (0x0a0, used)] {
                driver.set_register(offset, address & 0xffff_ffff);
                driver.set_register(offset + 4, address >> 32);
            }
            driver.set_register(0x044, 1);
            driver.set_register(0x070, 15);
            driver.notify();
            driver.status() & NEEDS_RESET != 0
        };
        for size in sizes {
            assert!(refused(size, (DESCRIPTORS, AVAILABLE, USED)), "{size}");
        }
        for place in places {
            assert!(refused(128, place), "{place:x?}");
        }
        assert!(!refused(128, (DESCRIPTORS, AVAILABLE, USED)));
        assert!(!refused(1, (DESCRIPTORS, AVAILABLE, USED)));
        // Up to the last byte is fine: the used ring may end with the memory.
        assert!(!refused(128, (DESCRIPTORS, AVAILABLE, END - 8 - 8 * 128)));
    });
}

#[test]
fn a_queue_cannot_be_moved_while_it_is_used() {
    with_disk(|driver| {
        driver.set_register(0x080, 0);
        driver.set_register(0x0a4, 0xffff);
        driver.set_register(0x038, 1);
        driver.set_register(0x020, 0);
        assert_eq!(driver.read(1, 1), (OK, pattern(1, 1)));
        assert_eq!(driver.register(0x044), 1);
        // Nor once it is declared ready.
        driver.set_register(0x070, 0);
        driver.agree(driver.offered());
        driver.place_queue(128, DESCRIPTORS, AVAILABLE, USED);
        driver.set_register(0x080, 1);
        driver.set_register(0x070, 15);
        assert_eq!(driver.status(), 15);
        driver.set_up(0);
        // Taking the queue away stops the device.
        driver.set_register(0x044, 0);
        assert_eq!(driver.register(0x044), 0);
        assert_ne!(driver.status() & NEEDS_RESET, 0);
        driver.submit(IN, 0, &[writable(DATA, 512)]);
        driver.notify();
        assert_eq!(driver.used_index(), driver.taken());
    });
}

#[test]
fn a_device_that_was_not_set_up_does_nothing() {
    let file = image(SECTORS);
    let mut driver = Driver::attach(file.path(), &BlockOptions::default());
    driver.notify();
    driver.agree(driver.offered());
    driver.notify();
    driver.place_queue(128, DESCRIPTORS, AVAILABLE, USED);
    driver.notify();
    assert_eq!(driver.line.count(), 0);
    // Started without a queue.
    driver.set_register(0x070, 0);
    driver.agree(driver.offered());
    driver.set_register(0x070, 15);
    assert_ne!(driver.status() & NEEDS_RESET, 0);
    driver.assert_works();
}

#[test]
fn only_the_plain_part_is_accessed_by_the_device_itself() {
    let file = image(SECTORS);
    let surrounded = Surrounded::new();
    // As with program text in front of it, and something at its end.
    let (begin, end) = (BASE + 0x1000, END - 0x1000);
    let all = surrounded.guest();
    for part in [
        0..begin,
        BASE - 0x1000..end,
        begin..END + 1,
        begin..begin,
        begin + 1..end,
    ] {
        assert!(
            all.clone().with_plain_part(part.clone()).is_err(),
            "{part:x?}"
        );
    }
    let memory = all.clone().with_plain_part(begin..end).unwrap();
    assert!(memory.contains(BASE, MEMORY as u64));
    assert!(!memory.contains_plain(begin - 1, 1));
    assert!(!memory.contains_plain(end, 1));
    assert!(memory.contains_plain(begin, end - begin));
    assert!(memory.write(begin - 1, &[1, 2]).is_err());

    let mut driver = Driver::attach_in(file.path(), &BlockOptions::default(), memory);
    driver.set_up(0);
    // Data can be anywhere.
    assert_eq!(driver.request(IN, 2, &[writable(BASE, 512)]).0, OK);
    assert_eq!(driver.request(IN, 3, &[writable(end, 512)]).0, OK);
    for (at, sector) in [(BASE, 2), (end, 3)] {
        let mut found = [0; 512];
        all.read(at, &mut found).unwrap();
        assert_eq!(found[..], pattern(sector, 1));
    }
    // A header, a name, a status byte cannot.
    let answer = driver.answer();
    driver.chain(&[readable(BASE, 16), answer]);
    driver.notify();
    driver.wait_used();
    assert_eq!(driver.byte(answer.address), IOERR);
    assert_eq!(driver.request(GET_ID, 0, &[writable(end - 1, 20)]).0, IOERR);
    let header = driver.header(IN, 0);
    driver.chain(&[header, writable(DATA, 512), writable(end, 1)]);
    driver.notify();
    driver.wait_needs_reset();
    // Nor can a queue.
    for (descriptors, available, used) in [
        (BASE, AVAILABLE, USED),
        (DESCRIPTORS, end, USED),
        (DESCRIPTORS, AVAILABLE, begin - 4),
    ] {
        driver.set_register(0x070, 0);
        driver.agree(driver.offered());
        driver.place_queue(128, descriptors, available, used);
        driver.set_register(0x070, 15);
        assert_ne!(driver.status() & NEEDS_RESET, 0);
    }
    driver.assert_works();
}

/// Chains without an end, or without a place for an answer.
#[test]
fn chains_that_cannot_be_answered_stop_the_device() {
    type Make = fn(&mut Driver);
    let cases: [(&str, Make); 17] = [
        ("a loop of one", |d| {
            d.describe(DESCRIPTORS, 0, DATA, 16, NEXT, 0);
            d.offer(0);
        }),
        ("a loop of two", |d| {
            d.describe(DESCRIPTORS, 0, DATA, 16, NEXT, 1);
            d.describe(DESCRIPTORS, 1, DATA, 512, NEXT | WRITE, 0);
            d.offer(0);
        }),
        ("a next one outside the table", |d| {
            d.describe(DESCRIPTORS, 0, DATA, 16, NEXT, 128);
            d.offer(0);
        }),
        ("a head outside the table", |d| d.offer(128)),
        ("a head far outside", |d| d.offer(0xffff)),
        ("more available than there can be", |d| {
            d.set_available(129);
        }),
        ("an index that goes back", |d| d.set_available(0xffff)),
        ("nothing to write to", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header]);
        }),
        ("an empty place for the answer", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header, writable(STATUSES, 0)]);
        }),
        ("an answer outside memory", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header, writable(END, 1)]);
        }),
        ("an answer that ends outside memory", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header, writable(END - 512, 513)]);
        }),
        ("an answer before memory", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header, writable(BASE - 1, 1)]);
        }),
        ("an answer at the end of all addresses", |d| {
            let header = d.header(IN, 0);
            d.chain(&[header, writable(u64::MAX, 2)]);
        }),
        ("an indirect table in an indirect table", |d| {
            d.describe(TABLE, 0, TABLE, 32, INDIRECT, 0);
            d.describe(DESCRIPTORS, 0, TABLE, 32, INDIRECT, 0);
            d.offer(0);
        }),
        ("an indirect table of odd size", |d| {
            d.describe(DESCRIPTORS, 0, TABLE, 33, INDIRECT, 0);
            d.offer(0);
        }),
        ("an empty indirect table", |d| {
            d.describe(DESCRIPTORS, 0, TABLE, 0, INDIRECT, 0);
            d.offer(0);
        }),
        ("an indirect table outside memory", |d| {
            d.describe(DESCRIPTORS, 0, END - 16, 64, INDIRECT, 0);
            d.describe(END - 16, 0, DATA, 16, NEXT, 1);
            d.offer(0);
        }),
    ];
    for (name, make) in cases {
        println!("{name}");
        with_disk(|driver| {
            make(driver);
            driver.notify();
            driver.wait_needs_reset();
            assert_eq!(driver.used_index(), 0);
            // It stays stopped.
            driver.submit(IN, 0, &[writable(DATA, 512)]);
            driver.notify();
            assert_eq!(driver.used_index(), 0);
        });
    }
}

#[test]
fn what_cannot_be_answered_is_not_carried_out() {
    let file = image(SECTORS);
    let mut driver = Driver::new(file.path(), &BlockOptions::default(), 0);
    let header = driver.header(OUT, 0);
    driver.chain(&[header, readable(DATA, 512), writable(END, 1)]);
    driver.notify();
    driver.wait_needs_reset();
    assert_eq!(std::fs::read(file.path()).unwrap(), pattern(0, SECTORS));
}

/// Chains that make no sense, but have a place for an answer.
#[test]
fn chains_that_can_be_answered_are() {
    with_disk(|driver| {
        for (kind, data) in [
            (IN, vec![writable(END, 512)]),
            (IN, vec![writable(END - 511, 512)]),
            (IN, vec![writable(BASE - 512, 512)]),
            (IN, vec![writable(u64::MAX - 100, 512)]),
            (IN, vec![writable(0, 512)]),
            (IN, vec![writable(DATA, u32::MAX - 17)]),
            (IN, vec![writable(DATA, 512), writable(END, 512)]),
            (OUT, vec![readable(END, 512)]),
            (OUT, vec![readable(END - 511, 512)]),
            (OUT, vec![readable(u64::MAX - 511, 512)]),
            (OUT, vec![readable(DATA, 512), readable(END - 1, 512)]),
            (GET_ID, vec![writable(END - 10, 20)]),
            (DISCARD, vec![readable(END - 8, 16)]),
            // To be read after what is to be written.
            (IN, vec![writable(DATA, 512), readable(DATA, 512)]),
            (OUT, vec![writable(DATA, 0), readable(DATA, 512)]),
        ] {
            let (status, written) = driver.request(kind, 0, &data);
            assert_eq!((status, written), (IOERR, 1), "{kind} {data:x?}");
        }
        // Too short a header, too far away a header.
        for header in [
            readable(HEADERS, 15),
            readable(HEADERS, 0),
            readable(END - 15, 16),
            readable(u64::MAX - 15, 16),
        ] {
            let answer = driver.answer();
            driver.chain(&[header, answer]);
            driver.notify();
            assert_eq!(driver.wait_used().1, 1);
            assert_eq!(driver.byte(answer.address), IOERR, "{header:x?}");
        }
        // Only an answer.
        let answer = driver.answer();
        driver.chain(&[answer]);
        driver.notify();
        driver.wait_used();
        assert_eq!(driver.byte(answer.address), IOERR);
        // As long as a table can be.
        for count in [300u16, 2000] {
            let header = driver.header(IN, 0);
            let answer = driver.answer();
            driver.describe(DATA, 0, header.address, 16, NEXT, 1);
            for i in 1..count {
                driver.describe(DATA, i, DATA + (1 << 20), 512, NEXT | WRITE, i + 1);
            }
            driver.describe(DATA, count, answer.address, 1, WRITE, 0);
            let len = (u32::from(count) + 1) * 16;
            driver.describe(DESCRIPTORS, 0, DATA, len, INDIRECT, 0);
            driver.offer(0);
            driver.notify();
            assert_eq!(driver.wait_used(), (0, 1));
            assert_eq!(driver.byte(answer.address), IOERR);
        }
        assert_eq!(driver.read(3, 1), (OK, pattern(3, 1)));
    });
}

#[test]
fn rings_that_overlap_data_hurt_only_the_guest() {
    with_disk(|driver| {
        for at in [DESCRIPTORS, AVAILABLE & !511, USED & !511] {
            driver.submit(IN, 0, &[writable(at, 4096)]);
            driver.notify();
            driver.submit(IN, 0, &[writable(at, 4096)]);
            driver.notify();
        }
        driver.set_register(0x070, 0);
    });
}

#[test]
fn memory_that_changes_while_it_is_read_is_survived() {
    let file = image(SECTORS);
    let surrounded = Surrounded::new();
    let mut driver = Driver::attach_in(file.path(), &BlockOptions::default(), surrounded.guest());
    driver.set_up(0);
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = {
        let (memory, stop) = (driver.memory.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let numbers = Numbers::new(3);
            while !stop.load(Ordering::Relaxed) {
                let place = [DESCRIPTORS, HEADERS, AVAILABLE][numbers.next(3) as usize];
                let values = [0, 1, 2, 3, 4, 5, 16, 127, 128, 0xff, DATA, END - 1];
                let value = values[numbers.next(values.len() as u64) as usize];
                let bytes = &value.to_le_bytes()[..1 << numbers.next(4)];
                memory.write(place + numbers.next(64), bytes).unwrap();
            }
        })
    };
    let mut resets = 0;
    for i in 0..20_000u64 {
        let kind = [IN, OUT, FLUSH, DISCARD][(i % 17).min(3) as usize];
        let data = Buffer {
            write: kind == IN,
            ..writable(DATA, 512)
        };
        driver.submit(kind, i % 64, &[data]);
        driver.notify();
        if driver.status() & NEEDS_RESET != 0 {
            driver.set_up(0);
            resets += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
    assert!(resets > 0, "nothing of it was noticed");
    driver.set_up(0);
    // The guest may have written to its disk, so only that it can be read.
    assert_eq!(driver.read(0, 64).0, OK);
    drop(driver);
    surrounded.assert_untouched();
}

/// An address: often one that works, or one at an edge.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..MEMORY as u64).prop_map(|at| BASE + at),
        2 => (0..2048u64).prop_map(|at| END - 1024 + at),
        1 => (0..2048u64).prop_map(|at| BASE - 1024 + at),
        1 => Just(HEADERS),
        1 => Just(TABLE),
        1 => any::<u64>(),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => Just(16),
        4 => (0..9u32).prop_map(|n| n * 512),
        2 => Just(1),
        2 => 0..2000u32,
        1 => any::<u32>(),
    ]
}

#[derive(Debug, Clone)]
struct Raw {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

fn descriptor() -> impl Strategy<Value = Raw> {
    let flags = prop_oneof![8 => 0..4u16, 1 => 0..8u16, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0..16u16, 1 => any::<u16>()];
    (address(), len(), flags, next).prop_map(|(address, len, flags, next)| Raw {
        address,
        len,
        flags,
        next,
    })
}

fn header() -> impl Strategy<Value = [u8; 16]> {
    let kind = prop_oneof![6 => prop::sample::select(vec![IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES]), 1 => any::<u32>()];
    let sector = prop_oneof![6 => 0..70u64, 1 => any::<u64>()];
    (kind, sector).prop_map(|(kind, sector)| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_descriptors_are_survived(
        table in prop::collection::vec(descriptor(), 1..16),
        indirect in prop::collection::vec(descriptor(), 0..16),
        heads in prop::collection::vec(prop_oneof![8 => 0..16u16, 1 => any::<u16>()], 1..8),
        headers in header(),
        skip in prop_oneof![9 => Just(0u16), 1 => any::<u16>()],
        without in prop::sample::select(vec![0, F_EVENT_IDX, F_FLUSH]),
        used_event in any::<u16>(),
    ) {
        let file = image(SECTORS);
        let surrounded = Surrounded::new();
        let mut driver = Driver::attach_in(file.path(), &BlockOptions::default(), surrounded.guest());
        driver.set_up(without);
        driver.memory.write(HEADERS, &headers).unwrap();
        for (at, list) in [(TABLE, &indirect), (DESCRIPTORS, &table)] {
            for (index, raw) in list.iter().enumerate() {
                driver.describe(at, index as u16, raw.address, raw.len, raw.flags, raw.next);
            }
        }
        driver.set_used_event(used_event);
        for head in &heads {
            driver.offer(*head);
            driver.notify();
        }
        driver.set_available(driver.available().wrapping_add(skip));
        driver.notify();

        // It answers no more than it was asked for, and ends.
        let deadline = Deadline::new();
        while driver.status() & NEEDS_RESET == 0 && driver.used_index() != driver.available() {
            // A guest may have made the device overwrite its own rings.
            if deadline.elapsed() > std::time::Duration::from_millis(200) {
                break;
            }
            std::thread::yield_now();
        }
        driver.set_up(0);
        prop_assert_eq!(driver.read(0, SECTORS).0, OK);
        drop(driver);
        surrounded.assert_untouched();
        prop_assert_eq!(file.as_file().metadata().unwrap().len(), (SECTORS * SECTOR) as u64);
    }

    #[test]
    fn any_register_accesses_are_survived(
        accesses in prop::collection::vec(
            (
                any::<bool>(),
                prop_oneof![8 => (0..0x80u64).prop_map(|r| r * 4), 1 => any::<u64>()],
                prop_oneof![8 => Just(4u64), 1 => prop::sample::select(vec![0, 1, 2, 8, u64::MAX])],
                prop_oneof![
                    4 => 0..16u64,
                    2 => (0..MEMORY as u64).prop_map(|at| (BASE + at) & !15),
                    1 => any::<u64>(),
                ],
            ),
            0..200,
        ),
        ready in any::<bool>(),
    ) {
        let file = image(SECTORS);
        let surrounded = Surrounded::new();
        let mut driver = Driver::attach_in(file.path(), &BlockOptions::default(), surrounded.guest());
        if ready {
            driver.set_up(0);
        }
        let transport: &MmioTransport = &driver.transport;
        for (write, offset, size, value) in accesses {
            if write {
                transport.write(offset, size, value);
            } else {
                let read = transport.read(offset, size);
                prop_assert!(size >= 8 || read < 1 << (8 * size));
            }
        }
        driver.assert_works();
        drop(driver);
        surrounded.assert_untouched();
    }
}
