// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The platform boundary, and the image loader above it, without a cVM.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::sync::Arc;

use capstream_monitor::image::{Image, ImageError};
use capstream_monitor::platform::{
    self, Fault, Options, Placement, Platform, PlatformError, Protection,
};

const PAGE: u64 = 4096;

fn native() -> Arc<dyn Platform> {
    platform::by_name("x86_64", &Options::default()).unwrap()
}

#[test]
fn every_name_is_a_platform_and_no_other() {
    for name in platform::NAMES {
        let platform = platform::by_name(name, &Options::default()).unwrap();
        assert_eq!(platform.name(), *name);
    }
    let unknown = platform::by_name("x86", &Options::default());
    assert!(matches!(unknown, Err(PlatformError::Unknown { name }) if name == "x86"));
}

#[test]
fn ranges_never_overlap() {
    let native = native();
    let begin = 0x3000_0000;
    let first = native.reserve(Placement::At(begin), 16 * PAGE).unwrap();
    assert_eq!((first.begin(), first.end()), (begin, begin + 16 * PAGE));
    for (overlapping, size) in [
        (begin, 16 * PAGE),
        (begin + 15 * PAGE, 2 * PAGE),
        (begin - PAGE, 2 * PAGE),
        (begin - PAGE, 32 * PAGE),
        (begin + PAGE, PAGE),
    ] {
        let refused = native.reserve(Placement::At(overlapping), size);
        assert!(matches!(refused, Err(PlatformError::RangeTaken { .. })));
    }
    let next = native
        .reserve(Placement::At(begin + 16 * PAGE), PAGE)
        .unwrap();
    drop(first);
    native.reserve(Placement::At(begin), 16 * PAGE).unwrap();
    drop(next);

    let anywhere: Vec<_> = (0..50)
        .map(|_| native.reserve(Placement::Anywhere, 5 << 20).unwrap())
        .collect();
    for (index, one) in anywhere.iter().enumerate() {
        for other in anywhere.iter().skip(index + 1) {
            assert!(one.end() < other.begin() || other.end() < one.begin());
        }
    }
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let native = native();
    let here = (ranges_that_cannot_be_are_refused as *const () as u64) & !(PAGE - 1);
    for (begin, size) in [
        (0, PAGE),
        (0x1000, PAGE),
        (0x3000_0001, PAGE),
        (0x3000_0000, PAGE + 1),
        (0x3000_0000, 0),
        (!(PAGE - 1), PAGE),
        (0x3000_0000, !(PAGE - 1)),
        (1 << 47, PAGE),
        (1 << 63, PAGE),
        (here, PAGE),
    ] {
        let refused = native.reserve(Placement::At(begin), size);
        assert!(
            matches!(refused, Err(PlatformError::RangeUnusable { .. })),
            "{begin:#x} {size:#x}"
        );
    }
    let refused = native.reserve(Placement::Anywhere, 1 << 60);
    assert!(matches!(refused, Err(PlatformError::NoRoom { .. })));
    let refused = native.reserve(Placement::Anywhere, !(PAGE - 1));
    assert!(matches!(refused, Err(PlatformError::NoRoom { .. })));
}

#[test]
fn protected_memory_is_an_error_and_not_a_fault_of_the_monitor() {
    let native = native();
    let space = native.reserve(Placement::Anywhere, 4 * PAGE).unwrap();
    let begin = space.begin();
    space.protect(begin + PAGE, PAGE, Protection::NONE).unwrap();
    for len in [1, 7, 8, 31, 32, 33, 255, 256, 257, 5000] {
        let mut buffer = vec![0xa5; len];
        let last = begin + PAGE - len.min(PAGE as usize) as u64;
        if len as u64 <= PAGE {
            space.write(last, &buffer).unwrap();
            space.read(last, &mut buffer).unwrap();
        }
        // The last byte, or the first one, cannot be accessed.
        assert_eq!(space.write(last + 1, &buffer), Err(Fault), "{len}");
        assert_eq!(space.read(last + 1, &mut buffer), Err(Fault), "{len}");
        assert_eq!(space.write(begin + 2 * PAGE - 1, &buffer), Err(Fault));
        assert_eq!(
            platform::x86_64::copy(begin + 3 * PAGE, last + 1, len as u64),
            Err(Fault)
        );
        assert_eq!(
            platform::x86_64::copy(last + 1, begin + 2 * PAGE, len.min(4096) as u64),
            Err(Fault)
        );
    }
    // Outside of the range nothing is touched at all.
    assert_eq!(space.read(begin - 1, &mut [0]), Err(Fault));
    assert_eq!(space.read(space.end(), &mut [0]), Err(Fault));
    assert_eq!(space.read(u64::MAX, &mut [0; 2]), Err(Fault));
    assert_eq!(space.write(space.end() - 1, &[0; 2]), Err(Fault));
    assert!(space.protect(space.end(), PAGE, Protection::NONE).is_err());
    assert!(space.discard(begin - PAGE, PAGE).is_err());
}

#[test]
fn copies_of_all_lengths_and_alignments_are_exact() {
    let native = native();
    let space = native.reserve(Placement::Anywhere, 4 * PAGE).unwrap();
    let pattern: Vec<u8> = (0..2048u32).map(|i| (i * 7 + i / 256) as u8).collect();
    space.write(space.begin(), &pattern).unwrap();
    for len in (0..600).chain([1000, 1024]) {
        for offset in [0, 1, 3, 8] {
            let target = space.begin() + 2 * PAGE + 5 - offset;
            let blank = vec![0xee; len + 32];
            space.write(target - 16, &blank).unwrap();
            platform::x86_64::copy(target, space.begin() + offset, len as u64).unwrap();
            let mut seen = vec![0; len + 32];
            space.read(target - 16, &mut seen).unwrap();
            let offset = offset as usize;
            assert_eq!(seen[16..16 + len], pattern[offset..offset + len]);
            assert!(
                seen[..16]
                    .iter()
                    .chain(&seen[16 + len..])
                    .all(|&byte| byte == 0xee)
            );
        }
    }
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Opens an image of these bytes, and loads it if it is one.
fn open_and_load(native: &dyn Platform, bytes: &[u8]) -> Result<(), ImageError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let image = Image::open(file.path(), native)?;
    assert!(image.entry() < image.size());
    let space = native
        .reserve(Placement::Anywhere, image.size() + PAGE)
        .unwrap();
    image.load(&*space)?;
    // What is behind the image is nobody's.
    let mut behind = [0; 64];
    space
        .read(space.begin() + image.size(), &mut behind)
        .unwrap();
    assert_eq!(behind, [0; 64]);
    Ok(())
}

#[test]
fn broken_images_are_errors() {
    let native = native();
    let good = std::fs::read(support::guest()).unwrap();
    open_and_load(&*native, &good).unwrap();
    for len in [0, 1, 63, 64, 100, 4096, 4097, good.len() / 2] {
        assert!(open_and_load(&*native, &good[..len]).is_err(), "{len}");
    }
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    // Everything that is parsed: the headers, the dynamic section, the relocations.
    let mut parsed = Vec::new();
    parsed.push(0..64 + 10 * 56);
    for index in 0..usize::from(good[56]) {
        let header = 64 + 56 * index;
        if good[header] == 2 {
            let begin = word(&good, header + 8);
            parsed.push(begin..begin + word(&good, header + 32));
        }
        if good[header] == 1 && index < 3 {
            let begin = word(&good, header + 8);
            parsed.push(begin..(begin + word(&good, header + 32)).min(begin + 4096));
        }
    }
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let odd = [0, 1, 0x7f, 0x80, 0xff];
    let mut refused = 0;
    for round in 0..1500 {
        let mut bad = good.clone();
        for _ in 0..=numbers.next(3) {
            let range = parsed[numbers.next(parsed.len())].clone();
            let at = range.start + numbers.next(range.len());
            bad[at] = if round % 2 == 0 {
                odd[numbers.next(odd.len())]
            } else {
                numbers.next(256) as u8
            };
            if round % 5 == 0 {
                let len = (bad.len() - at).min(8);
                bad[at..at + len].fill(odd[numbers.next(odd.len())]);
            }
        }
        refused += u32::from(open_and_load(&*native, &bad).is_err());
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let native = native();
    let good = std::fs::read(support::guest()).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        open_and_load(&*native, &bad).unwrap_err().to_string()
    };
    for (at, bytes, words) in [
        (0, &[0x7f, b'E', b'L', b'X'][..], "not a 64-bit ELF"),
        (5, &[2], "ELF"),
        (16, &[2, 0], "fixed address"),
        (18, &[243, 0], "for machine 243"),
        (24, &[0xff; 8], "its entry"),
        (56, &[200, 0], "program headers"),
    ] {
        let said = with(at, bytes);
        assert!(said.contains(words), "{said}");
        assert!(said.contains("x86-64"), "{said}");
    }
}
