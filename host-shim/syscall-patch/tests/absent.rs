// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that comes and goes: pages of programs that are absent, stubs that are written elsewhere, copies of one program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

use capstream_syscall_patch::{CodeAccess, Direction, PatchError, PatchKind, PatchTable};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const PAGE: u64 = 4096;
const CODE: u64 = 0x10_0000;
const CODE_PAGES: u64 = 16;
const STUBS: u64 = CODE + CODE_PAGES * PAGE;
const KERNEL: u64 = 0x7000_0000_0000;
/// `mov $39, %eax; syscall; ret`, after what lets the instructions be recognised.
const SITE: u64 = CODE + 0x1000 + 133;

/// Whether it can be written, and its bytes.
type Page = (bool, Vec<u8>);

/// Pages by number.
#[derive(Debug, Clone, Default)]
struct Pages(Arc<Mutex<HashMap<u64, Page>>>);

impl Pages {
    fn put(&self, address: u64, writable: bool, bytes: &[u8]) {
        let mut page = vec![0x90; PAGE as usize];
        page[(address % PAGE) as usize..][..bytes.len()].copy_from_slice(bytes);
        self.0
            .lock()
            .unwrap()
            .insert(address / PAGE, (writable, page));
    }

    fn set_writable(&self, address: u64, writable: bool) {
        self.0.lock().unwrap().get_mut(&(address / PAGE)).unwrap().0 = writable;
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.read(address, &mut bytes));
        bytes
    }
}

impl CodeAccess for Pages {
    fn read(&self, address: u64, to: &mut [u8]) -> bool {
        let pages = self.0.lock().unwrap();
        (address..).zip(to).all(|(at, byte)| {
            pages
                .get(&(at / PAGE))
                .map(|(_, page)| *byte = page[(at % PAGE) as usize])
                .is_some()
        })
    }

    fn write(&self, address: u64, from: &[u8]) -> bool {
        let mut pages = self.0.lock().unwrap();
        let ready = |at: u64| {
            pages
                .get(&(at / PAGE))
                .is_some_and(|(writable, _)| *writable)
        };
        if !(address..).zip(from).all(|(at, _)| ready(at)) {
            return false;
        }
        for (at, byte) in (address..).zip(from) {
            pages.get_mut(&(at / PAGE)).unwrap().1[(at % PAGE) as usize] = *byte;
        }
        true
    }
}

fn program() -> Vec<u8> {
    let mut code = vec![0xeb, 0x7e];
    code.extend([0x90; 126]);
    code.extend([0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    code
}

fn table(pages: &Pages) -> PatchTable {
    PatchTable::with_access(
        STUBS..STUBS + PAGE,
        CODE..STUBS,
        KERNEL,
        Box::new(pages.clone()),
    )
    .unwrap()
}

#[test]
fn nothing_is_changed_while_a_page_is_absent() {
    let pages = Pages::default();
    let table = table(&pages);
    pages.put(CODE + 0x1000, true, &program());
    // There is no page for stubs.
    assert_eq!(
        table.patch(SITE + 2),
        Err(PatchError::Absent { ip: SITE + 2 })
    );
    assert_eq!(pages.bytes(CODE + 0x1000, 136), program());
    assert_eq!(table.stats().live, 0);
    // Now there is, but the program cannot be written.
    pages.put(STUBS, true, &[]);
    pages.set_writable(CODE + 0x1000, false);
    assert_eq!(
        table.patch(SITE + 2),
        Err(PatchError::Absent { ip: SITE + 2 })
    );
    assert_eq!(pages.bytes(CODE + 0x1000, 136), program());
    assert_eq!((table.stats().live, table.stats().stub_bytes), (0, 0));
    // When all is there the attempts before do not count.
    pages.set_writable(CODE + 0x1000, true);
    assert_eq!(table.patch(SITE + 2), Ok(PatchKind::Preceding));
    assert_ne!(pages.bytes(CODE + 0x1000, 136), program());
}

#[test]
fn neighbouring_pages_need_not_be_there() {
    let pages = Pages::default();
    let table = table(&pages);
    pages.put(CODE + 0x1000, true, &program());
    pages.put(STUBS, true, &[]);
    // The page before, which a look at the surroundings would reach, is no memory.
    assert_eq!(table.patch(SITE + 2), Ok(PatchKind::Preceding));
    let jump = pages.bytes(SITE - 5, 5);
    assert_eq!(jump[0], 0xe9);
    let stub =
        SITE.wrapping_add_signed(i64::from(i32::from_le_bytes(jump[1..].try_into().unwrap())));
    assert!((STUBS..STUBS + PAGE).contains(&stub));
    assert_eq!(table.translate(stub, Direction::ToProgram), SITE - 5);
}

#[test]
fn copies_of_a_program_share_a_stub() {
    let pages = Pages::default();
    let table = table(&pages);
    pages.put(CODE + 0x1000, true, &program());
    pages.put(STUBS, true, &[]);
    assert_eq!(table.patch(SITE + 2), Ok(PatchKind::Preceding));
    let patched = pages.bytes(CODE + 0x1000, 136);
    let used = table.stats().stub_bytes;
    for copies in 1..=100 {
        // Another process with the same program is seen at the same addresses.
        pages.put(CODE + 0x1000, true, &program());
        assert_eq!(table.patch(SITE + 2), Ok(PatchKind::Preceding));
        assert_eq!(pages.bytes(CODE + 0x1000, 136), patched);
        assert_eq!(table.stats().applied_again, copies);
    }
    assert_eq!(table.stats().stub_bytes, used);
    assert_eq!(table.stats().live, 1);
}
