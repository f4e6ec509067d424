// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runtime image: any file, or one that is nearly right.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use arbitrary::{Result, Unstructured};
use capstream_monitor::image::{Image, ImageError};
use capstream_monitor::platform::{AddressSpace, Addressing, Fault, PlatformError, Protection};
use object::elf;

use crate::arena::PAGE;
use crate::hostcalls::TestPlatform;
use crate::number::near;

/// The largest image that is accepted.
const MAX_SIZE: u64 = 1 << 30;
const BASE: u64 = 0x2000_0000;

thread_local! {
    /// The file, made once for each thread.
    static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

/// Loads a file made of `bytes`: as they are when they begin like ELF, otherwise built from them.
pub fn run(bytes: &[u8]) {
    if bytes.starts_with(&elf::ELFMAG) {
        load(bytes);
    } else if let Ok(built) = build(&mut Unstructured::new(bytes)) {
        load(&built);
    }
}

fn load(bytes: &[u8]) {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| tempfile::NamedTempFile::new().unwrap());
        file.as_file().set_len(0).unwrap();
        file.as_file().write_all_at(bytes, 0).unwrap();
        let platform = TestPlatform::default();
        let image = match Image::open(file.path(), &platform) {
            Ok(image) => image,
            Err(error) => {
                let message = error.to_string();
                assert!(matches!(
                    error,
                    ImageError::Wrong { .. } | ImageError::Read { .. }
                ));
                assert!(message.starts_with(&file.path().display().to_string()));
                return;
            }
        };
        assert!(image.size() > 0 && image.size() <= MAX_SIZE && image.size() % PAGE == 0);
        assert!(image.entry() < image.size());
        for addressing in [Addressing::same(BASE), Addressing::new(BASE, 0)] {
            let space = Space {
                addressing,
                end: BASE + image.size(),
                pages: Mutex::default(),
            };
            image.load(&space).unwrap();
        }
    });
}

/// Exactly as much memory as the image says it needs; of it, the pages that were written to.
struct Space {
    addressing: Addressing,
    end: u64,
    pages: Mutex<HashMap<u64, Box<[u8; PAGE as usize]>>>,
}

impl Space {
    /// The bytes of a range, page by page: an offset into the range, and what is there in the page.
    fn pieces(&self, address: u64, len: u64, mut each: impl FnMut(usize, &mut [u8])) {
        self.check(address, len);
        let mut pages = self.pages.lock().unwrap();
        let mut done = 0;
        while done < len {
            let at = address + done;
            let offset = at % PAGE;
            let piece = (PAGE - offset).min(len - done);
            let page = pages
                .entry(at - offset)
                .or_insert_with(|| Box::new([0; PAGE as usize]));
            each(
                done as usize,
                &mut page[offset as usize..(offset + piece) as usize],
            );
            done += piece;
        }
    }

    fn check(&self, address: u64, len: u64) {
        let inside = address >= BASE && address.checked_add(len).is_some_and(|end| end <= self.end);
        assert!(inside, "{len:#x} bytes at {address:#x} are not the image's");
    }
}

impl AddressSpace for Space {
    fn begin(&self) -> u64 {
        BASE
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn addressing(&self) -> Addressing {
        self.addressing
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> std::result::Result<(), Fault> {
        self.pieces(address, buffer.len() as u64, |offset, page| {
            buffer[offset..offset + page.len()].copy_from_slice(page);
        });
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> std::result::Result<(), Fault> {
        self.pieces(address, bytes.len() as u64, |offset, page| {
            page.copy_from_slice(&bytes[offset..offset + page.len()]);
        });
        Ok(())
    }

    fn map_file(
        &self,
        address: u64,
        file: &File,
        offset: u64,
        len: u64,
    ) -> std::result::Result<(), PlatformError> {
        assert!(
            address.is_multiple_of(PAGE)
                && offset.is_multiple_of(PAGE)
                && len.is_multiple_of(PAGE)
                && len > 0
        );
        // A page that begins after the end of the file could not be accessed.
        let size = file.metadata().unwrap().len();
        assert!(
            offset + len - PAGE < size,
            "[{offset:#x}, +{len:#x}) of a file of {size:#x}"
        );
        self.pieces(address, len, |done, page| {
            page.fill(0);
            let at = offset + done as u64;
            let there = size.saturating_sub(at).min(page.len() as u64) as usize;
            file.read_exact_at(&mut page[..there], at).unwrap();
        });
        Ok(())
    }

    fn protect(
        &self,
        address: u64,
        len: u64,
        _protection: Protection,
    ) -> std::result::Result<(), PlatformError> {
        assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0);
        self.check(address, len);
        Ok(())
    }

    fn discard(&self, address: u64, len: u64) -> std::result::Result<(), PlatformError> {
        panic!("[{address:#x}, +{len:#x}) was discarded");
    }

    fn host_pointer(&self, _address: u64) -> *mut u8 {
        std::ptr::null_mut()
    }
}

/// A file that is right, apart from what the input chooses.
pub fn build(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let size = u64::from(input.int_in_range(1..=5_u8)?) * PAGE;
    let mut file = vec![0; size as usize];
    let count = u64::from(input.int_in_range(1..=6_u8)?);
    let dynamic = HEADER + count * PROGRAM_HEADER;
    let tables = dynamic + 16 * 10;
    let anchors = [0, PAGE, 2 * PAGE, size, tables, MAX_SIZE];

    file[..4].copy_from_slice(&elf::ELFMAG);
    file[4..7].copy_from_slice(&[2, 1, 1]);
    put(&mut file, 16, &elf::ET_DYN.to_le_bytes());
    put(&mut file, 18, &elf::EM_X86_64.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    let entry = if input.ratio(3, 4)? {
        0x10
    } else {
        near(input, &anchors)?
    };
    put(&mut file, 24, &entry.to_le_bytes());
    put(&mut file, 32, &HEADER.to_le_bytes());
    put(&mut file, 52, &64_u16.to_le_bytes());
    put(&mut file, 54, &(PROGRAM_HEADER as u16).to_le_bytes());
    put(&mut file, 56, &(count as u16).to_le_bytes());

    let mut address = 0;
    for index in 0..count {
        let at = (HEADER + index * PROGRAM_HEADER) as usize;
        let kind = if index == 0 {
            elf::PT_LOAD
        } else {
            *input.choose(&[
                elf::PT_LOAD,
                elf::PT_LOAD,
                elf::PT_DYNAMIC,
                elf::PT_DYNAMIC,
                elf::PT_GNU_RELRO,
                elf::PT_INTERP,
                elf::PT_TLS,
            ])?
        };
        // Offset, address, bytes in the file, bytes in memory.
        let mut fields = match kind {
            elf::PT_LOAD if index == 0 => [0, 0, size, size],
            elf::PT_DYNAMIC => [dynamic, dynamic, 160, 160],
            _ => [0, address, PAGE, 2 * PAGE],
        };
        for field in &mut fields {
            if input.ratio(1, 8)? {
                *field = near(input, &anchors)?;
            }
        }
        let flags = if index == 0 {
            7
        } else {
            u32::from(input.arbitrary::<u8>()? % 8)
        };
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + 4, &flags.to_le_bytes());
        put(&mut file, at + 8, &fields[0].to_le_bytes());
        put(&mut file, at + 16, &fields[1].to_le_bytes());
        put(&mut file, at + 32, &fields[2].to_le_bytes());
        put(&mut file, at + 40, &fields[3].to_le_bytes());
        if kind == elf::PT_LOAD {
            address = fields[1].saturating_add(fields[3]).saturating_add(PAGE) & !(PAGE - 1);
        }
    }

    // DT_RELA, DT_RELASZ, DT_RELAENT, DT_RELR, DT_RELRSZ, DT_RELRENT, and what is not wanted.
    let usual = [
        (7, tables),
        (8, 48),
        (9, 24),
        (36, tables + 48),
        (35, 32),
        (37, 8),
    ];
    let mut at = dynamic as usize;
    for (tag, value) in usual {
        let tag = if input.ratio(1, 16)? {
            near(input, &[0, 1, 17, 18, 2])?
        } else {
            tag
        };
        let value = if input.ratio(1, 8)? {
            near(input, &anchors)?
        } else {
            value
        };
        put(&mut file, at, &tag.to_le_bytes());
        put(&mut file, at + 8, &value.to_le_bytes());
        at += 16;
    }
    let mut at = tables as usize;
    for _ in 0..2 {
        let offset = near(input, &[size - 8, PAGE, 0x800])?;
        let kind: u64 = if input.ratio(1, 8)? {
            near(input, &[8, 6, 1 << 32])?
        } else {
            8
        };
        put(&mut file, at, &offset.to_le_bytes());
        put(&mut file, at + 8, &kind.to_le_bytes());
        put(&mut file, at + 16, &input.arbitrary::<u64>()?.to_le_bytes());
        at += 24;
    }
    for _ in 0..4 {
        let word = near(input, &[size - 8, PAGE, 0x800, 3, u64::MAX])?;
        put(&mut file, at, &word.to_le_bytes());
        at += 8;
    }
    if input.ratio(1, 8)? {
        let len = input.int_in_range(0..=file.len())?;
        file.truncate(len);
    }
    Ok(file)
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
