// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a disk does for a driver that keeps to the rules, and for users who give it the wrong file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod driver;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use capstream_virtio::{Block, BlockError, BlockOptions};
use driver::*;

const READ_ONLY: BlockOptions = BlockOptions {
    read_only: true,
    id: None,
};

fn read_write() -> BlockOptions {
    BlockOptions::default()
}

#[test]
fn registers_tell_what_it_is() {
    let file = image(64);
    let driver = Driver::attach(file.path(), &read_write());
    assert_eq!(driver.register(0x000), 0x7472_6976);
    assert_eq!(driver.register(0x004), 2);
    assert_eq!(driver.register(0x008), 2);
    assert_eq!(driver.register(0x034), 128);
    driver.set_register(0x030, 1);
    assert_eq!(driver.register(0x034), 0, "there is no second queue");
    assert_eq!(driver.register(0x0b0), 0xffff_ffff, "no shared memory");

    let t = &driver.transport;
    assert_eq!(t.read(0x100, 8), 64, "capacity");
    assert_eq!(t.read(0x100, 4), 64);
    assert_eq!(t.read(0x104, 4), 0);
    assert_eq!(t.read(0x10c, 4), 126, "seg_max");
    assert_eq!(t.read(0x114, 2), 512, "blk_size");
    assert_eq!(t.read(0x115, 1), 2);
    assert_eq!(t.read(0x100 + 60, 4), 0, "behind the configuration");
    assert_eq!(t.read(u64::MAX, 8), 0);
    assert_eq!(t.read(0x100, 3), 0);
    assert_eq!(t.read(0x000, 1), 0, "registers are read as a whole");
    assert_eq!(t.read(0x002, 4), 0);
}

#[test]
fn features_have_to_be_acceptable() {
    let file = image(8);
    let mut driver = Driver::attach(file.path(), &read_write());
    let offered = driver.offered();
    assert_eq!(offered & F_RO, 0);
    assert_ne!(offered & F_FLUSH, 0);

    driver.agree(offered & !F_VERSION_1);
    assert_eq!(driver.status(), 3, "no agreement without VERSION_1");
    driver.set_register(0x070, 0);
    driver.agree(offered | 1 << 63);
    assert_eq!(driver.status(), 3, "no agreement on what was not offered");
    driver.set_register(0x070, 15);
    assert_eq!(driver.status() & 8, 0);
    assert_ne!(driver.status() & NEEDS_RESET, 0, "started regardless");
    driver.assert_works();
}

#[test]
fn reads_what_is_in_the_file() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    for (sector, sectors) in [(0, 1), (63, 1), (0, 64), (5, 8)] {
        let (status, data) = driver.read(sector, sectors);
        assert_eq!(status, OK);
        assert_eq!(data, pattern(sector as usize, sectors));
    }
}

#[test]
fn buffers_can_be_cut_in_any_way() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), 0);

    // A header in three parts, data in four, the status in the last of these.
    let header = driver.header(IN, 3);
    let at = header.address;
    driver.memory.write(DATA, &[NONE; 1025]).unwrap();
    driver.chain(&[
        readable(at, 1),
        readable(at + 1, 0),
        readable(at + 1, 9),
        readable(at + 10, 6),
        writable(DATA, 7),
        writable(DATA + 7, 505),
        writable(DATA + 512, 0),
        writable(DATA + 512, 513),
        writable(DATA, 0),
    ]);
    driver.notify();
    let (_, written) = driver.wait_used();
    assert_eq!(written, 1025);
    assert_eq!(driver.bytes(DATA, 1024), pattern(3, 2));
    assert_eq!(driver.byte(DATA + 1024), OK);

    // Header and data in one buffer.
    let data = [
        vec![1, 0, 0, 0, 0, 0, 0, 0],
        vec![2, 0, 0, 0, 0, 0, 0, 0],
        vec![9; 512],
    ]
    .concat();
    driver.memory.write(DATA, &data).unwrap();
    let answer = driver.answer();
    driver.chain(&[readable(DATA, 100), readable(DATA + 100, 428), answer]);
    driver.notify();
    driver.wait_used();
    assert_eq!(driver.byte(answer.address), OK);
    assert_eq!(driver.read(2, 1), (OK, vec![9; 512]));
}

#[test]
fn indirect_tables_work_and_may_be_longer_than_the_queue() {
    let file = image(512);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    let segments = 200;
    let header = driver.header(IN, 1);
    let answer = driver.answer();
    driver.describe(TABLE, 0, header.address, 16, NEXT, 1);
    for i in 0..segments {
        let at = DATA + u64::from(i) * 1024;
        driver.describe(TABLE, 1 + i, at, 512, NEXT | WRITE, 2 + i);
    }
    driver.describe(TABLE, 1 + segments, answer.address, 1, WRITE, 0);
    driver.describe(
        DESCRIPTORS,
        7,
        TABLE,
        (u32::from(segments) + 2) * 16,
        INDIRECT,
        0,
    );
    driver.offer(7);
    driver.notify();
    assert_eq!(driver.wait_used(), (7, u32::from(segments) * 512 + 1));
    assert_eq!(driver.byte(answer.address), OK);
    for i in 0..usize::from(segments) {
        assert_eq!(driver.bytes(DATA + i as u64 * 1024, 512), pattern(1 + i, 1));
    }
}

#[test]
fn writes_are_in_the_file() {
    let file = image(64);
    for without in [0, F_EVENT_IDX, F_FLUSH] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        let data = vec![without as u8 ^ 0xa5; 3 * SECTOR];
        assert_eq!(driver.write(10, &data), OK);
        assert_eq!(driver.flush(), OK);
        let mut found = vec![0; 3 * SECTOR];
        file.as_file().read_exact_at(&mut found, 10 * 512).unwrap();
        assert_eq!(found, data);
        assert_eq!(driver.read(10, 3), (OK, data));
        assert_eq!(driver.read(13, 1), (OK, pattern(13, 1)));
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), 64 * 512);
}

#[test]
fn large_requests_are_carried_out_whole() {
    let sectors = 40 << 11;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(sectors * 512).unwrap();
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    // The same buffers again and again: 20 MiB, more than one system call takes.
    let data: Vec<u8> = (0..2 << 20).map(|i: u32| (i / 4096) as u8).collect();
    driver.memory.write(DATA, &data).unwrap();
    let buffers = [readable(DATA, 2 << 20); 10];
    assert_eq!(driver.request(OUT, 1, &buffers), (OK, 1));
    let mut found = vec![0; 2 << 20];
    for i in 0..10 {
        file.as_file()
            .read_exact_at(&mut found, 512 + (i << 21))
            .unwrap();
        assert!(found == data, "part {i}");
    }
    driver.memory.write(DATA, &vec![0; 2 << 20]).unwrap();
    let buffers = [writable(DATA, 2 << 20); 10];
    assert_eq!(driver.request(IN, 1, &buffers), (OK, (20 << 20) + 1));
    assert!(driver.bytes(DATA, 2 << 20) == data);
}

#[test]
fn the_disk_has_a_name() {
    let file = image(8);
    let named = |id: &str| BlockOptions {
        read_only: false,
        id: Some(id.into()),
    };
    for (id, expected) in [
        ("root", &b"root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]),
        ("a name that is longer than fits", b"a name that is longe"),
    ] {
        let mut driver = Driver::new(file.path(), &named(id), 0);
        let answer = driver.request(GET_ID, 0, &[writable(DATA, 11), writable(DATA + 11, 9)]);
        assert_eq!(answer, (OK, 21));
        assert_eq!(driver.bytes(DATA, 20), expected);
    }
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    assert_eq!(driver.request(GET_ID, 0, &[writable(DATA, 4)]), (OK, 5));
    let name = file.path().file_name().unwrap().as_encoded_bytes();
    assert_eq!(driver.bytes(DATA, 4), name[..4]);
}

#[test]
fn sectors_outside_the_disk_are_refused() {
    let file = image(64);
    let before = std::fs::read(file.path()).unwrap();
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    for (sector, len) in [
        (64, 512),
        (63, 1024),
        (0, 65 * 512),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (1 << 55, 512),
        (1 << 63, 512),
    ] {
        driver.memory.write(DATA, &[0x77; 65 * 512]).unwrap();
        assert_eq!(driver.request(OUT, sector, &[readable(DATA, len)]).0, IOERR);
        assert_eq!(
            driver.request(IN, sector, &[writable(DATA, len)]),
            (IOERR, 1)
        );
        assert_eq!(driver.bytes(DATA, 65 * 512), [0x77; 65 * 512]);
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
    assert_eq!(driver.read(63, 1).0, OK);
}

#[test]
fn data_has_to_be_whole_sectors_in_the_right_direction() {
    let file = image(64);
    let before = std::fs::read(file.path()).unwrap();
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    for len in [0, 1, 511, 513, 1000] {
        assert_eq!(driver.request(IN, 0, &[writable(DATA, len)]).0, IOERR);
        assert_eq!(driver.request(OUT, 0, &[readable(DATA, len)]).0, IOERR);
    }
    assert_eq!(driver.request(IN, 0, &[readable(DATA, 512)]).0, IOERR);
    assert_eq!(driver.request(OUT, 0, &[writable(DATA, 512)]).0, IOERR);
    let both = [readable(DATA, 512), writable(DATA + 512, 512)];
    assert_eq!(driver.request(IN, 0, &both).0, IOERR);
    assert_eq!(driver.request(OUT, 0, &both).0, IOERR);
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn unknown_requests_are_unsupported() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    for kind in [2, 3, 5, 10, 14, 15, 24, 0x8000_0000, u32::MAX] {
        assert_eq!(driver.request(kind, 0, &[writable(DATA, 512)]).0, UNSUPP);
    }
    driver.set_up(F_DISCARD | F_WRITE_ZEROES);
    driver.memory.write(DATA, &Driver::range(0, 8, 0)).unwrap();
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(driver.request(kind, 0, &[readable(DATA, 16)]).0, UNSUPP);
    }
    assert_eq!(driver.read(0, 8), (OK, pattern(0, 8)));
}

#[test]
fn discarded_blocks_go_back_to_the_file_system() {
    let file = image(4096);
    file.as_file().sync_all().unwrap();
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    assert_ne!(
        driver.offered() & F_DISCARD,
        0,
        "run on ext4, xfs, btrfs or tmpfs"
    );
    let blocks = file.as_file().metadata().unwrap().blocks();

    let ranges = [Driver::range(8, 1024, 0), Driver::range(2048, 8, 0)].concat();
    driver.memory.write(DATA, &ranges).unwrap();
    // The ranges may be cut anywhere, too.
    let buffers = [
        readable(DATA, 5),
        readable(DATA + 5, 20),
        readable(DATA + 25, 7),
    ];
    assert_eq!(driver.request(DISCARD, 0, &buffers), (OK, 1));
    assert_eq!(driver.flush(), OK);
    assert!(file.as_file().metadata().unwrap().blocks() <= blocks - 1024);
    assert_eq!(driver.read(8, 1024), (OK, vec![0; 1024 * 512]));
    assert_eq!(driver.read(7, 1), (OK, pattern(7, 1)));
    assert_eq!(driver.read(1032, 1016), (OK, pattern(1032, 1016)));
    assert_eq!(driver.read(2048, 8), (OK, vec![0; 4096]));
    assert_eq!(driver.read(2056, 8), (OK, pattern(2056, 8)));
    assert_eq!(file.as_file().metadata().unwrap().len(), 4096 * 512);
}

#[test]
fn zeros_are_written_with_and_without_their_place() {
    let file = image(4096);
    for (without, flags) in [(0, 0), (0, 1), (F_FLUSH, 0)] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        assert_eq!(driver.write(16, &pattern(16, 300)), OK);
        // Not aligned to blocks of the file system.
        let range = Driver::range(17, 293, flags);
        driver.memory.write(DATA, &range).unwrap();
        let answer = driver.request(WRITE_ZEROES, 0, &[readable(DATA, 16)]);
        assert_eq!(answer, (OK, 1));
        assert_eq!(driver.read(17, 293), (OK, vec![0; 293 * 512]));
        assert_eq!(driver.read(16, 1), (OK, pattern(16, 1)));
        assert_eq!(driver.read(310, 6), (OK, pattern(310, 6)));
    }
}

#[test]
fn ranges_are_all_checked_before_any_is_touched() {
    let file = image(64);
    let before = std::fs::read(file.path()).unwrap();
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    let good = Driver::range(0, 8, 0);
    for (kind, bad, expected) in [
        (DISCARD, Driver::range(60, 5, 0), IOERR),
        (DISCARD, Driver::range(u64::MAX, 1, 0), IOERR),
        (DISCARD, Driver::range(0, u32::MAX, 0), IOERR),
        (DISCARD, Driver::range(0, 0, 0), IOERR),
        (DISCARD, Driver::range(0, 8, 1), UNSUPP),
        (WRITE_ZEROES, Driver::range(64, 1, 0), IOERR),
        (WRITE_ZEROES, Driver::range(1, u32::MAX, 1), IOERR),
        (WRITE_ZEROES, Driver::range(0, 8, 2), UNSUPP),
    ] {
        driver.memory.write(DATA, &[good, bad].concat()).unwrap();
        let answer = driver.request(kind, 0, &[readable(DATA, 32)]);
        assert_eq!(answer.0, expected, "{kind} {bad:?}");
    }
    for len in [0, 1, 15, 17, 17 * 16] {
        driver.memory.write(DATA, &good.repeat(20)).unwrap();
        assert_eq!(driver.request(DISCARD, 0, &[readable(DATA, len)]).0, IOERR);
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn a_read_only_disk_says_so_and_stays_as_it_is() {
    let file = image(64);
    let before = std::fs::read(file.path()).unwrap();
    let mut driver = Driver::new(file.path(), &READ_ONLY, 0);
    assert_ne!(driver.offered() & F_RO, 0);
    assert_eq!(driver.offered() & (F_DISCARD | F_WRITE_ZEROES), 0);
    assert_eq!(driver.write(0, &[1; 512]), IOERR);
    assert_eq!(driver.read(0, 1), (OK, pattern(0, 1)));
    assert_eq!(driver.flush(), OK);
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let file = image(8);
    let in_use = |options: &BlockOptions| match Block::open(file.path(), options) {
        Err(error @ BlockError::InUse { .. }) => {
            let text = error.to_string();
            assert!(text.contains(file.path().to_str().unwrap()), "{text}");
            assert!(text.contains("another cVM or monitor"), "{text}");
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    };
    let writer = Block::open(file.path(), &read_write()).unwrap();
    assert!(in_use(&read_write()));
    assert!(in_use(&READ_ONLY));
    drop(writer);
    let reader = Block::open(file.path(), &READ_ONLY).unwrap();
    assert!(!in_use(&READ_ONLY));
    assert!(in_use(&read_write()));
    drop(reader);
    assert!(!in_use(&read_write()));
}

#[test]
fn files_that_are_no_disk_are_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty"), []).unwrap();
    std::fs::write(path("odd"), [0; 1000]).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(path("pipe"))
            .status()
            .unwrap()
            .success()
    );
    for (name, word) in [
        ("missing", "cannot open"),
        ("empty", "is empty"),
        ("odd", "1000 bytes"),
        ("pipe", "neither a regular file"),
    ] {
        for options in [read_write(), READ_ONLY] {
            let error = Block::open(path(name), &options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert!(error.contains(path(name).to_str().unwrap()), "{error}");
        }
    }
    let error = Block::open(folder.path(), &READ_ONLY).unwrap_err();
    assert!(matches!(error, BlockError::Kind { .. }), "{error}");
}

#[test]
fn an_image_that_was_cut_off_fails_and_recovers() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    file.as_file().set_len(8 * 512).unwrap();
    assert_eq!(driver.read(8, 8).0, IOERR);
    assert_eq!(driver.read(4, 8).0, IOERR, "a part of it is there");
    assert_eq!(driver.read(0, 8), (OK, pattern(0, 8)));
    file.as_file().set_len(64 * 512).unwrap();
    assert_eq!(driver.read(8, 8), (OK, vec![0; 4096]));
}

#[test]
fn requests_are_answered_in_order_and_with_few_interrupts() {
    let file = image(64);
    for without in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        let tickets: Vec<_> = (0..16)
            .map(|i| {
                let data = writable(DATA + i * 512, 512);
                driver.submit(IN, i, &[data])
            })
            .collect();
        let before = driver.line.count();
        driver.notify();
        for ticket in &tickets {
            assert_eq!(driver.wait_used(), (ticket.head, 513));
            assert_eq!(driver.byte(ticket.status), OK);
        }
        // One, unless this thread lost its processor while it read.
        let interrupts = driver.line.count() - before;
        assert!((1..=3).contains(&interrupts), "{interrupts} interrupts");
        assert_eq!(driver.bytes(DATA, 16 * 512), pattern(0, 16));
    }
}

#[test]
fn indices_wrap_around() {
    let file = image(64);
    for without in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        for i in 0..70_000u64 {
            let ticket = driver.submit(IN, i % 64, &[writable(DATA, 512)]);
            driver.notify();
            assert_eq!(driver.wait_used().0, ticket.head);
        }
        assert_eq!(driver.read(5, 2), (OK, pattern(5, 2)));
    }
}

#[test]
fn interrupts_come_when_the_driver_wants_them() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    // Not before the fifth used buffer. Reads of cached data are complete when the notification returns.
    driver.set_used_event(4);
    let before = driver.line.count();
    for i in 0..8 {
        driver.submit(IN, i, &[writable(DATA, 512)]);
        driver.notify();
        let deadline = Deadline::new();
        while driver.used_index() != i as u16 + 1 {
            deadline.check();
            std::thread::yield_now();
        }
        let expected = if i < 4 { before } else { before + 1 };
        assert_eq!(driver.line.count(), expected, "after request {i}");
    }
    assert_eq!(driver.acknowledge(), 1);
    assert_eq!(driver.register(0x060), 0);

    driver.set_up(F_EVENT_IDX);
    let before = driver.line.count();
    let flags = |value| {
        let at = AVAILABLE;
        driver
            .memory
            .store_u16(at, value, std::sync::atomic::Ordering::SeqCst)
            .unwrap();
    };
    flags(1);
    driver.submit(IN, 0, &[writable(DATA, 512)]);
    driver.notify();
    let deadline = Deadline::new();
    while driver.used_index() != 1 {
        deadline.check();
        std::thread::yield_now();
    }
    assert_eq!(driver.line.count(), before, "the driver wants none");
}

#[test]
fn the_device_asks_for_notifications_when_it_is_idle() {
    let file = image(64);
    for without in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        for i in 0..1000 {
            let before = driver.available();
            let kind = if i % 2 == 0 { IN } else { OUT };
            let data = Buffer {
                write: kind == IN,
                ..writable(DATA, 512)
            };
            driver.submit(kind, i % 64, &[data]);
            // A driver that notifies only when it has to gets its answer all the same.
            if driver.notification_wanted(before) {
                driver.notify();
            }
            driver.wait_used();
        }
    }
}

#[test]
fn a_reset_ends_everything_and_the_disk_starts_again() {
    let file = image(4096);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    for round in 0..300u64 {
        for i in 0..30 {
            let kind = if (i + round) % 3 == 0 { OUT } else { IN };
            let data = Buffer {
                write: kind == IN,
                ..writable(DATA + i * 32768, 32768)
            };
            driver.submit(kind, i * 64, &[data]);
            if i % 7 == 0 {
                driver.notify();
            }
        }
        driver.notify();
        driver.set_register(0x070, 0);
        assert_eq!(driver.status(), 0);
        assert_eq!(driver.register(0x060), 0);
        let used = driver.used_index();
        let interrupts = driver.line.count();
        driver.memory.write(DATA, &vec![0x11; 1 << 20]).unwrap();
        driver.notify();
        std::thread::yield_now();
        assert_eq!(driver.used_index(), used);
        assert_eq!(driver.line.count(), interrupts);
        assert!(driver.bytes(DATA, 1 << 20).iter().all(|&b| b == 0x11));
        driver.set_up(if round % 2 == 0 { 0 } else { F_EVENT_IDX });
        assert_eq!(driver.read(3000, 1).0, OK);
    }
}

#[test]
fn dropping_ends_a_disk_that_is_at_work() {
    let file = image(4096);
    for round in 0..200u64 {
        let mut driver = Driver::new(file.path(), &read_write(), 0);
        for i in 0..20 {
            let kind = if (i + round) % 2 == 0 { OUT } else { IN };
            let data = Buffer {
                write: kind == IN,
                ..writable(DATA + i * 65536, 65536)
            };
            driver.submit(kind, i * 128, &[data]);
        }
        // Other threads notify until the last of them drops the disk.
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let transport = Arc::clone(&driver.transport);
                std::thread::spawn(move || {
                    for _ in 0..round {
                        transport.write(0x050, 4, 0);
                        transport.read(0x060, 4);
                    }
                })
            })
            .collect();
        drop(driver);
        for thread in threads {
            thread.join().unwrap();
        }
        // Its lock went with it.
        drop(Block::open(file.path(), &read_write()).unwrap());
    }
}

#[test]
fn no_interrupt_is_lost_under_load() {
    let file = image(4096);
    for without in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(file.path(), &read_write(), without);
        let numbers = Numbers::new(7 + without);
        let mut under_way = 0;
        let mut left = 40_000;
        while left > 0 || under_way > 0 {
            let before = driver.available();
            for _ in 0..numbers.next(12).min(left).min(24 - under_way) {
                let slot = u64::from(driver.available()) % 32;
                let at = DATA + slot * 4096;
                let sector = numbers.next(512) * 8;
                let (kind, data) = match numbers.next(400) {
                    0..50 => (OUT, readable(DATA + (1 << 20) + slot * 512, 512)),
                    50 => (FLUSH, readable(DATA, 0)),
                    _ => (IN, writable(at, 4096)),
                };
                driver.submit(kind, sector, &[data]);
                under_way += 1;
                left -= 1;
            }
            if driver.available() != before && driver.notification_wanted(before) {
                driver.notify();
            }
            // Waits by interrupts alone: a lost one would be a time-out.
            if under_way > 0 {
                driver.wait_used();
                under_way -= 1;
                while driver.take_used().is_some() {
                    under_way -= 1;
                }
            }
        }
        assert_eq!(driver.used_index(), driver.available());
    }
}

#[test]
fn several_threads_of_a_guest_can_notify_at_once() {
    let file = image(4096);
    let mut driver = Driver::new(file.path(), &read_write(), 0);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (transport, stop) = (Arc::clone(&driver.transport), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    transport.write(0x050, 4, 0);
                    transport.write(0x050, 4, 1);
                    transport.write(0x050, 4, 0xffff_ffff);
                }
            })
        })
        .collect();
    for i in 0..5000 {
        let sector = i * 8 % 4096;
        if i % 5 == 0 {
            assert_eq!(driver.write(sector, &pattern(sector as usize, 8)), OK);
        } else {
            assert_eq!(driver.read(sector, 8), (OK, pattern(sector as usize, 8)));
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn acknowledging_keeps_what_came_meanwhile() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), F_EVENT_IDX);
    driver.submit(IN, 0, &[writable(DATA, 512)]);
    driver.notify();
    let seen = driver.line.wait(0);
    // Between the driver's look at the interrupt status and its acknowledgement, another request is completed.
    let status = driver.register(0x060);
    assert_eq!(status, 1);
    driver.submit(IN, 1, &[writable(DATA, 512)]);
    driver.notify();
    let seen = driver.line.wait(seen);
    driver.set_register(0x064, status);
    assert_eq!(driver.used_index(), 2, "seen after the acknowledgement");
    driver.submit(IN, 2, &[writable(DATA, 512)]);
    driver.notify();
    driver.line.wait(seen);
    assert_eq!(driver.register(0x060), 1, "set again");
}

#[test]
fn what_is_complete_does_not_wait_for_a_flush() {
    let file = image(64);
    let mut driver = Driver::new(file.path(), &read_write(), F_EVENT_IDX);
    let before = driver.line.count();
    driver.submit(OUT, 0, &[readable(DATA, 512)]);
    driver.submit(FLUSH, 0, &[]);
    driver.notify();
    driver.wait_used();
    driver.wait_used();
    driver.submit(OUT, 0, &[readable(DATA, 512)]);
    driver.notify();
    driver.wait_used();
    // One before the flush, one after it, one for the last.
    assert_eq!(driver.line.count(), before + 3);
}
