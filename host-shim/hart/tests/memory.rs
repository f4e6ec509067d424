// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory as the monitor uses it: regions, page flags, tags.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod single;

use std::sync::Arc;

use capstream_hart::{Capability, Memory, MemoryError, PageFlags, Region};
use single::flags;

const BEGIN: u64 = 0x10_0000;

fn region(protection: &str) -> Region {
    Region::anonymous(BEGIN, 0x4000, flags(protection)).unwrap()
}

#[test]
fn regions_are_made_of_whole_pages() {
    for (begin, length) in [
        (BEGIN + 1, 0x1000),
        (BEGIN, 0x1001),
        (BEGIN, 0),
        (0xffff_ffff_ffff_f000, 0x1000),
        (0x1000, u64::MAX - 0xfff),
    ] {
        assert!(matches!(
            Region::anonymous(begin, length, PageFlags::READ),
            Err(MemoryError::Unaligned { .. })
        ));
    }
    // More than any host has.
    assert!(matches!(
        Region::anonymous(0x1000, 1 << 60, PageFlags::READ),
        Err(MemoryError::Allocate { .. })
    ));
}

#[test]
fn host_memory_is_used_in_place() {
    let host = Box::leak(Box::new([[0u8; 0x1000]; 3]));
    let unaligned = host.as_mut_ptr().cast::<u8>();
    let pointer = unaligned.wrapping_add(unaligned.align_offset(0x1000));
    // SAFETY: two pages of the three that are leaked, so that they stay.
    let region = unsafe { Region::from_host(BEGIN, 0x2000, pointer, flags("rw")) }.unwrap();
    region.write(BEGIN + 0x123, &[1, 2, 3]).unwrap();
    // SAFETY: inside the two pages, which nobody else accesses.
    assert_eq!(unsafe { pointer.add(0x124).read() }, 2);
    assert_eq!(
        region.host_pointer(BEGIN + 0x123),
        Some(pointer.wrapping_add(0x123))
    );
    assert_eq!(
        region.host_pointer(BEGIN + 0x1fff),
        Some(pointer.wrapping_add(0x1fff))
    );
    assert_eq!(region.host_pointer(BEGIN + 0x2000), None);
    assert_eq!(region.host_pointer(BEGIN - 1), None);
    // SAFETY: nothing is accessed through a region that is not made.
    let refused = unsafe { Region::from_host(BEGIN, 0x1000, pointer.wrapping_add(8), flags("rw")) };
    assert!(refused.is_err());
    // SAFETY: as above.
    let refused = unsafe { Region::from_host(BEGIN, 0x1000, std::ptr::null_mut(), flags("rw")) };
    assert!(refused.is_err());
}

#[test]
fn reads_and_writes_look_at_every_page() {
    let region = region("rw");
    let bytes: Vec<u8> = (0..0x3000u32).map(|n| (n % 251) as u8).collect();
    region.write(BEGIN + 5, &bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    region.read(BEGIN + 5, &mut back).unwrap();
    assert_eq!(back, bytes);

    region.protect(BEGIN + 0x1000, 0x1000, flags("r")).unwrap();
    let error = region.write(BEGIN + 0xffe, &[9; 4]).unwrap_err();
    assert!(
        matches!(error, MemoryError::Forbidden { address, lacks, .. }
            if address == BEGIN + 0x1000 && lacks == PageFlags::WRITE)
    );
    assert!(error.to_string().contains("0x101000"), "{error}");
    region.read(BEGIN + 5, &mut back).unwrap();
    assert_eq!(back, bytes, "nothing was written");
    region.protect(BEGIN + 0x1000, 0x1000, flags("w")).unwrap();
    assert!(region.read(BEGIN + 5, &mut back).is_err());
    region.write(BEGIN + 0xffe, &[9; 4]).unwrap();
    // A debugger or a loader does not care.
    region.protect(BEGIN, 0x4000, flags("")).unwrap();
    region.poke(BEGIN + 0xffe, &[8; 4]).unwrap();
    let mut four = [0; 4];
    region.peek(BEGIN + 0xffe, &mut four).unwrap();
    assert_eq!(four, [8; 4]);
    // Outside.
    for (address, length) in [
        (BEGIN - 1, 1),
        (BEGIN + 0x4000, 1),
        (BEGIN + 0x3fff, 2),
        (u64::MAX, 8),
    ] {
        let mut bytes = vec![0; length];
        assert!(matches!(
            region.read(address, &mut bytes),
            Err(MemoryError::Outside { .. })
        ));
        assert!(matches!(
            region.write(address, &bytes),
            Err(MemoryError::Outside { .. })
        ));
        assert!(region.peek(address, &mut bytes).is_err());
        assert!(region.poke(address, &bytes).is_err());
    }
    region.read(BEGIN + 0x4000, &mut []).unwrap();
}

#[test]
fn protection_is_for_whole_pages_of_the_region() {
    let region = region("rw");
    for (address, length) in [
        (BEGIN + 1, 0x1000),
        (BEGIN, 1),
        (BEGIN - 0x1000, 0x1000),
        (BEGIN, 0x5000),
    ] {
        assert!(
            region.protect(address, length, flags("r")).is_err(),
            "{address:#x} {length:#x}"
        );
    }
    region.protect(BEGIN, 0, flags("")).unwrap();
    region.protect(BEGIN + 0x1000, 0x2000, flags("rx")).unwrap();
    let all =
        [0, 0xfff, 0x1000, 0x2fff, 0x3000].map(|offset| region.flags(BEGIN + offset).unwrap());
    assert_eq!(all, ["rw", "rw", "rx", "rx", "rw"].map(flags));
    assert_eq!(region.flags(BEGIN + 0x4000), None);
}

#[test]
fn tags_live_on_pages_that_can_hold_them() {
    let region = region("rw");
    let capability = Capability::root().set_bounds(0x1000, 0x100).0.seal(5);
    // Not here.
    assert!(matches!(
        region.store_capability(BEGIN, &capability),
        Err(MemoryError::Forbidden { .. })
    ));
    region
        .store_capability(BEGIN, &capability.clear_tag())
        .unwrap();
    assert_eq!(
        region.load_capability(BEGIN).unwrap(),
        capability.clear_tag()
    );
    // Read-only for everybody but the monitor.
    region.protect(BEGIN, 0x1000, flags("rc")).unwrap();
    assert_eq!(
        region.load_capability(BEGIN).unwrap(),
        capability.clear_tag()
    );
    region.store_capability(BEGIN + 0x20, &capability).unwrap();
    region.store_capability(BEGIN + 0xff0, &capability).unwrap();
    assert_eq!(region.load_capability(BEGIN + 0x20).unwrap(), capability);
    assert!(region.write(BEGIN + 0x20, &[1]).is_err());
    // Writes clear tags, of what they touch.
    region.protect(BEGIN, 0x1000, flags("rwc")).unwrap();
    region.write(BEGIN + 0x2f, &[1]).unwrap();
    assert!(!region.load_capability(BEGIN + 0x20).unwrap().tag());
    region.poke(BEGIN + 0xfef, &[1]).unwrap();
    assert!(region.load_capability(BEGIN + 0xff0).unwrap().tag());
    region.poke(BEGIN + 0xfef, &[1, 2]).unwrap();
    assert!(!region.load_capability(BEGIN + 0xff0).unwrap().tag());
    // So does asking for it.
    for granule in 0..4 {
        region
            .store_capability(BEGIN + granule * 16, &capability)
            .unwrap();
    }
    region.clear_tags(BEGIN + 0x1f, 2);
    let tags =
        [0, 1, 2, 3].map(|granule| region.load_capability(BEGIN + granule * 16).unwrap().tag());
    assert_eq!(tags, [true, false, false, true]);
    // A page that could not hold tags in between has none.
    region.protect(BEGIN, 0x1000, flags("rw")).unwrap();
    assert!(!region.load_capability(BEGIN).unwrap().tag());
    region.protect(BEGIN, 0x1000, flags("rwc")).unwrap();
    assert_eq!(
        region.load_capability(BEGIN).unwrap(),
        capability.clear_tag()
    );
    // Granules are aligned and inside.
    assert!(region.store_capability(BEGIN + 8, &capability).is_err());
    assert!(region.load_capability(BEGIN + 0x4000).is_err());
    assert!(region.load_capability(BEGIN + 4).is_err());
    region.clear_tags(0, u64::MAX);
}

#[test]
fn what_lies_somewhere_is_found_and_does_not_overlap() {
    struct Nothing;
    impl capstream_hart::Device for Nothing {
        fn read(&self, _: u64, _: u8) -> u64 {
            0
        }
        fn write(&self, _: u64, _: u8, _: u64) {}
    }
    let memory = Memory::new();
    let add = |begin, length| {
        memory.add(Arc::new(
            Region::anonymous(begin, length, flags("r")).unwrap(),
        ))
    };
    add(0x4000, 0x2000).unwrap();
    add(0x6000, 0x1000).unwrap();
    add(0x2000, 0x2000).unwrap();
    for (begin, length) in [
        (0x4000, 0x1000),
        (0x5000, 0x1000),
        (0x1000, 0x2000),
        (0x1000, 0x8000),
        (0x6000, 0x2000),
    ] {
        assert!(
            matches!(add(begin, length), Err(MemoryError::Overlap { .. })),
            "{begin:#x}"
        );
        assert!(memory.add_device(begin, length, Arc::new(Nothing)).is_err());
    }
    memory.add_device(0x7000, 0x10, Arc::new(Nothing)).unwrap();
    memory.add_device(0x7010, 0x10, Arc::new(Nothing)).unwrap();
    memory
        .add_device(u64::MAX - 0xf, 0x10, Arc::new(Nothing))
        .unwrap();
    assert!(
        memory
            .add_device(u64::MAX - 0x1f, 0x30, Arc::new(Nothing))
            .is_err()
    );
    assert!(memory.add_device(0x8000, 0, Arc::new(Nothing)).is_err());
    assert!(memory.add_device(0x7008, 1, Arc::new(Nothing)).is_err());
    let begins = [
        0x1fff,
        0x2000,
        0x3fff,
        0x4000,
        0x5fff,
        0x6fff,
        0x7000,
        u64::MAX,
    ]
    .map(|address| memory.find(address).map(|region| region.begin()));
    assert_eq!(
        begins,
        [
            None,
            Some(0x2000),
            Some(0x2000),
            Some(0x4000),
            Some(0x4000),
            Some(0x6000),
            None,
            None
        ]
    );
    assert!(!memory.remove(0x5000));
    assert!(memory.remove(0x4000));
    assert!(memory.find(0x4000).is_none());
    assert!(memory.remove(0x7000));
    add(0x4000, 0x1000).unwrap();
}
