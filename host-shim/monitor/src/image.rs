// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runtime image: a static PIE that is linked at 0 and has relative relocations only.
//!
//! Everything in the file is checked before anything is mapped; what a wrong file says is an error that names the file and the place.
//! Segments are mapped from the file, so that cVMs with the same image share what they do not write; relocations are applied before
//! protections, because some lie in read-only data.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use capstream_abi::boot::PAGE;
use object::elf::{self, FileHeader64, ProgramHeader64, Relr64};
use object::read::ReadCache;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, RelrIterator};
use object::{LittleEndian as LE, ReadRef};

use crate::platform::{AddressSpace, Fault, Platform, PlatformError, Protection};

/// The largest image, in bytes of memory.
const MAX_SIZE: u64 = 1 << 30;
/// The most program headers.
const MAX_SEGMENTS: usize = 64;
/// Dynamic tags of packed relative relocations, from the generic ABI.
const DT_RELRSZ: u32 = 35;
const DT_RELR: u32 = 36;
const DT_RELRENT: u32 = 37;
/// Bytes that a relative relocation changes.
const WORD: u64 = 8;

/// Why a file cannot be used as a runtime image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}; build the runtime image, or name another one")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error(
        "{path}: {what}; expected a static position-independent ELF executable for {machine}, built by this project"
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
        /// For which machine.
        machine: &'static str,
    },
    /// It could not be put into memory.
    #[error("{path}: cannot be loaded: {source}")]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PlatformError,
    },
    /// Its memory could not be written while it was loaded.
    #[error(
        "{path}: [{begin:#x}, +{len:#x}) could not be written; the file changed while it was loaded, load it again"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Address in the image.
        begin: u64,
        /// How many bytes.
        len: u64,
    },
}

/// A part of the image that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    /// Where it goes in the image.
    memory: Range<u64>,
    /// Where its first bytes are in the file; the rest is zero.
    file: Range<u64>,
    protection: Protection,
}

impl Segment {
    /// All pages that it touches.
    fn pages(&self) -> Range<u64> {
        round_down(self.memory.start)..round_up(self.memory.end)
    }
}

/// A checked image.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    /// When the file was last changed, at the time it was checked.
    modified: Option<SystemTime>,
    entry: u64,
    size: u64,
    /// Ascending; they share no page.
    segments: Vec<Segment>,
    /// Made read-only after relocation: whole pages.
    relro: Option<Range<u64>>,
    /// Where a word is set to the base plus an addend.
    relocations: Vec<(u64, u64)>,
    /// Where the base is added to the word that is there.
    additions: Vec<u64>,
}

const fn round_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// Of an address below [`MAX_SIZE`].
const fn round_up(address: u64) -> u64 {
    round_down(address + (PAGE - 1))
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        elf::EM_X86_64 => "x86-64",
        elf::EM_RISCV => "riscv64",
        _ => "this platform",
    }
}

impl Image {
    /// Opens and checks an image for `platform`.
    ///
    /// # Errors
    ///
    /// [`ImageError::Read`], [`ImageError::Wrong`].
    pub fn open(path: &Path, platform: &dyn Platform) -> Result<Image, ImageError> {
        let unreadable = |source| ImageError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let (machine, relative) = platform.machine();
        let wrong = |what: String| ImageError::Wrong {
            path: path.to_owned(),
            what,
            machine: machine_name(machine),
        };
        if !metadata.is_file() {
            return Err(wrong("it is not a file".to_owned()));
        }
        let cache = ReadCache::new(file.try_clone().map_err(unreadable)?);
        let parsed = Parser {
            data: &cache,
            file_len: metadata.len(),
            machine,
            relative,
        }
        .parse()
        .map_err(wrong)?;
        Ok(Image {
            path: path.to_owned(),
            modified: metadata.modified().ok(),
            file,
            entry: parsed.entry,
            size: parsed.size,
            segments: parsed.segments,
            relro: parsed.relro,
            relocations: parsed.relocations,
            additions: parsed.additions,
        })
    }

    /// Whether the file was written to since it was checked. A cVM then runs a mixture of what it was and is.
    pub fn was_changed(&self) -> bool {
        let now = self.file.metadata().and_then(|now| now.modified()).ok();
        now != self.modified
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of memory, whole pages.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is entered, relative to its begin.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Puts the image at the begin of `space`, relocated to what its code calls that, and protects it.
    ///
    /// # Errors
    ///
    /// [`ImageError::Load`], [`ImageError::Read`], [`ImageError::Changed`].
    pub fn load(&self, space: &dyn AddressSpace) -> Result<(), ImageError> {
        let base = space.begin();
        let relocation_base = space.addressing().code_base();
        let failed = |source| ImageError::Load {
            path: self.path.clone(),
            source,
        };
        for segment in &self.segments {
            self.load_segment(segment, space)?;
        }
        for &(offset, addend) in &self.relocations {
            self.write_word(space, offset, relocation_base.wrapping_add(addend))?;
        }
        for &offset in &self.additions {
            let mut word = [0; WORD as usize];
            space
                .read(base + offset, &mut word)
                .map_err(|Fault| self.changed(offset, WORD))?;
            let value = relocation_base.wrapping_add(u64::from_le_bytes(word));
            self.write_word(space, offset, value)?;
        }
        let mut end = 0;
        for segment in &self.segments {
            let pages = segment.pages();
            // What lies between segments is nobody's, so that wild pointers are noticed; address 0 among them where code begins there.
            if end < pages.start {
                space
                    .protect(base + end, pages.start - end, Protection::NONE)
                    .map_err(failed)?;
            }
            end = pages.end;
            space
                .protect(
                    base + pages.start,
                    pages.end - pages.start,
                    segment.protection,
                )
                .map_err(failed)?;
        }
        if let Some(relro) = &self.relro {
            let read_only = Protection {
                read: true,
                ..Protection::NONE
            };
            space
                .protect(base + relro.start, relro.end - relro.start, read_only)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn changed(&self, begin: u64, len: u64) -> ImageError {
        ImageError::Changed {
            path: self.path.clone(),
            begin,
            len,
        }
    }

    fn write_word(
        &self,
        space: &dyn AddressSpace,
        offset: u64,
        value: u64,
    ) -> Result<(), ImageError> {
        space
            .write(space.begin() + offset, &value.to_le_bytes())
            .map_err(|Fault| self.changed(offset, WORD))
    }

    fn load_segment(&self, segment: &Segment, space: &dyn AddressSpace) -> Result<(), ImageError> {
        let base = space.begin();
        let mut end = segment.memory.start;
        let mappable = segment.memory.start % PAGE == segment.file.start % PAGE;
        if segment.file.is_empty() {
            // All of it is zero already.
        } else if mappable {
            let begin = round_down(segment.memory.start);
            let file_begin = round_down(segment.file.start);
            let len =
                round_up(segment.memory.start + (segment.file.end - segment.file.start)) - begin;
            match space.map_file(base + begin, &self.file, file_begin, len) {
                Ok(()) => {
                    end += segment.file.end - segment.file.start;
                    // The rest of the last page is the file's, but what follows in memory is zero.
                    let zeros = round_up(end).min(round_up(segment.memory.end)) - end;
                    if segment.memory.end > end && zeros > 0 {
                        let page = [0; PAGE as usize];
                        let zeros = page.get(..zeros as usize).unwrap_or_default();
                        space
                            .write(base + end, zeros)
                            .map_err(|Fault| self.changed(end, zeros.len() as u64))?;
                    }
                    return Ok(());
                }
                // A file system without execution: it can still be read.
                Err(PlatformError::Host { source, .. })
                    if source.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(source) => {
                    return Err(ImageError::Load {
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
        let mut buffer = vec![0; 64 << 10];
        let mut at = segment.file.start;
        while at < segment.file.end {
            let len = (segment.file.end - at).min(buffer.len() as u64);
            let bytes = buffer.get_mut(..len as usize).unwrap_or_default();
            self.file
                .read_exact_at(bytes, at)
                .map_err(|source| ImageError::Read {
                    path: self.path.clone(),
                    source,
                })?;
            space
                .write(base + end, bytes)
                .map_err(|Fault| self.changed(end, len))?;
            at += len;
            end += len;
        }
        Ok(())
    }
}

/// What a file says.
#[derive(Debug)]
struct Parsed {
    entry: u64,
    size: u64,
    segments: Vec<Segment>,
    relro: Option<Range<u64>>,
    relocations: Vec<(u64, u64)>,
    additions: Vec<u64>,
}

/// Reads a file's headers. Errors say what is wrong with it.
struct Parser<R> {
    data: R,
    file_len: u64,
    machine: u16,
    relative: u32,
}

/// Where the dynamic section says that relocations are.
#[derive(Default)]
struct Tables {
    rela: u64,
    rela_size: u64,
    relr: u64,
    relr_size: u64,
}

impl<'data, R: ReadRef<'data>> Parser<R> {
    fn parse(&self) -> Result<Parsed, String> {
        let header = FileHeader64::<LE>::parse(self.data)
            .map_err(|_| "it is not a 64-bit ELF file".to_owned())?;
        if header.endian().is_err() || header.e_ident().data != elf::ELFDATA2LSB {
            return Err("it is not little-endian".to_owned());
        }
        let machine = header.e_machine(LE);
        if machine != self.machine {
            return Err(format!("it is for machine {machine}"));
        }
        if header.e_type(LE) != elf::ET_DYN {
            return Err("it is linked for a fixed address".to_owned());
        }
        let headers = header
            .program_headers(LE, self.data)
            .map_err(|_| "its program headers are not in the file".to_owned())?;
        if headers.len() > MAX_SEGMENTS {
            return Err(format!("it has {} program headers", headers.len()));
        }
        let segments = self.segments(headers)?;
        let size = segments
            .last()
            .map_or(0, |segment| round_up(segment.memory.end));
        let entry = header.e_entry(LE);
        if !segments
            .iter()
            .any(|segment| segment.protection.execute && segment.memory.contains(&entry))
        {
            return Err(format!(
                "its entry {entry:#x} is not in an executable segment"
            ));
        }
        let mut parsed = Parsed {
            entry,
            size,
            segments,
            relro: None,
            relocations: Vec::new(),
            additions: Vec::new(),
        };
        for segment in headers {
            let memory =
                segment.p_vaddr(LE)..segment.p_vaddr(LE).saturating_add(segment.p_memsz(LE));
            match segment.p_type(LE) {
                elf::PT_DYNAMIC => {
                    let entries = segment
                        .dynamic(LE, self.data)
                        .ok()
                        .flatten()
                        .ok_or("its dynamic section is not in the file")?;
                    let tables = tables(entries)?;
                    self.relocations(&tables, &mut parsed)?;
                }
                elf::PT_GNU_RELRO => {
                    if memory.end > size {
                        return Err("its read-only part is outside of it".to_owned());
                    }
                    let pages = round_up(memory.start)..round_down(memory.end);
                    parsed.relro = (pages.start < pages.end).then_some(pages);
                }
                elf::PT_INTERP => return Err("it wants a dynamic loader".to_owned()),
                elf::PT_TLS => return Err("it has thread-local variables".to_owned()),
                _ => {}
            }
        }
        Ok(parsed)
    }

    fn segments(&self, headers: &[ProgramHeader64<LE>]) -> Result<Vec<Segment>, String> {
        let mut segments: Vec<Segment> = Vec::new();
        for header in headers {
            if header.p_type(LE) != elf::PT_LOAD || header.p_memsz(LE) == 0 {
                continue;
            }
            let (address, offset) = (header.p_vaddr(LE), header.p_offset(LE));
            let (file_size, size) = (header.p_filesz(LE), header.p_memsz(LE));
            let place = format!("its segment at {address:#x}");
            let end = address
                .checked_add(size)
                .filter(|&end| end <= MAX_SIZE)
                .ok_or_else(|| format!("{place} ends above {MAX_SIZE:#x}"))?;
            if file_size > size {
                return Err(format!("{place} has more bytes in the file than in memory"));
            }
            let file_end = offset
                .checked_add(file_size)
                .filter(|&end| end <= self.file_len)
                .ok_or_else(|| format!("{place} ends after the end of the file"))?;
            if segments
                .last()
                .is_some_and(|previous| previous.pages().end > address)
            {
                return Err(format!(
                    "{place} shares a page with the one before it, or is below it"
                ));
            }
            let flags = header.p_flags(LE);
            segments.push(Segment {
                memory: address..end,
                file: offset..file_end,
                protection: Protection {
                    read: flags & elf::PF_R != 0,
                    write: flags & elf::PF_W != 0,
                    execute: flags & elf::PF_X != 0,
                },
            });
        }
        if segments.is_empty() {
            return Err("it has nothing to load".to_owned());
        }
        Ok(segments)
    }

    /// The bytes of the file that are loaded to an address range.
    fn at(
        &self,
        segments: &[Segment],
        address: u64,
        size: u64,
        what: &str,
    ) -> Result<&'data [u8], String> {
        let missing =
            || format!("its {what} at {address:#x}, {size:#x} bytes, are not in the file");
        let end = address.checked_add(size).ok_or_else(missing)?;
        let segment = segments
            .iter()
            .find(|segment| {
                let loaded = segment.memory.start + (segment.file.end - segment.file.start);
                address >= segment.memory.start && end <= loaded
            })
            .ok_or_else(missing)?;
        self.data
            .read_bytes_at(segment.file.start + (address - segment.memory.start), size)
            .map_err(|()| missing())
    }

    fn relocations(&self, tables: &Tables, parsed: &mut Parsed) -> Result<(), String> {
        let inside = |segments: &[Segment], offset: u64| {
            offset.checked_add(WORD).is_some_and(|end| {
                segments
                    .iter()
                    .any(|segment| segment.memory.start <= offset && end <= segment.memory.end)
            })
        };
        if tables.rela_size > 0 {
            let bytes = self.at(
                &parsed.segments,
                tables.rela,
                tables.rela_size,
                "relocations",
            )?;
            for entry in bytes.chunks_exact(size_of::<elf::Rela64<LE>>()) {
                let Ok((entry, _)) = object::pod::from_bytes::<elf::Rela64<LE>>(entry) else {
                    return Err("its relocations are not aligned".to_owned());
                };
                let offset = entry.r_offset(LE);
                if entry.r_type(LE, false) != self.relative || entry.r_sym(LE, false) != 0 {
                    return Err(format!(
                        "its relocation of {offset:#x} has type {}, not relative",
                        entry.r_type(LE, false)
                    ));
                }
                if !inside(&parsed.segments, offset) {
                    return Err(format!("its relocation of {offset:#x} is outside of it"));
                }
                parsed.relocations.push((offset, entry.r_addend(LE) as u64));
            }
        }
        if tables.relr_size > 0 {
            let bytes = self.at(
                &parsed.segments,
                tables.relr,
                tables.relr_size,
                "relocations",
            )?;
            let (entries, _) = object::pod::slice_from_bytes::<Relr64<LE>>(
                bytes,
                bytes.len() / size_of::<Relr64<LE>>(),
            )
            .map_err(|()| "its relocations are not aligned".to_owned())?;
            for offset in RelrIterator::<FileHeader64<LE>>::new(LE, entries) {
                if !inside(&parsed.segments, offset) {
                    return Err(format!("its relocation of {offset:#x} is outside of it"));
                }
                parsed.additions.push(offset);
            }
        }
        Ok(())
    }
}

fn tables(entries: &[elf::Dyn64<LE>]) -> Result<Tables, String> {
    let mut tables = Tables::default();
    let entry_size = |name: &str, value: u64, expected: usize| {
        if value == expected as u64 {
            Ok(())
        } else {
            Err(format!("its {name} relocations have {value} bytes each"))
        }
    };
    for entry in entries {
        let value = entry.d_val(LE);
        match entry.tag32(LE) {
            None | Some(elf::DT_NULL) => {
                if entry.d_tag(LE) == u64::from(elf::DT_NULL) {
                    break;
                }
            }
            Some(elf::DT_RELA) => tables.rela = value,
            Some(elf::DT_RELASZ) => tables.rela_size = value,
            Some(elf::DT_RELAENT) => {
                entry_size("RELA", value, size_of::<elf::Rela64<LE>>())?;
            }
            Some(DT_RELR) => tables.relr = value,
            Some(DT_RELRSZ) => tables.relr_size = value,
            Some(DT_RELRENT) => entry_size("RELR", value, size_of::<Relr64<LE>>())?,
            Some(elf::DT_NEEDED) => return Err("it needs a shared library".to_owned()),
            Some(elf::DT_RELSZ | elf::DT_PLTRELSZ) if value != 0 => {
                return Err("it has relocations other than RELA and RELR".to_owned());
            }
            _ => {}
        }
    }
    if tables.rela_size % size_of::<elf::Rela64<LE>>() as u64 != 0
        || tables.relr_size % size_of::<Relr64<LE>>() as u64 != 0
    {
        return Err("it has a part of a relocation".to_owned());
    }
    Ok(tables)
}
