// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program of a board: an ELF file.

use std::path::{Path, PathBuf};

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use super::RAM_BASE;

/// A file that is larger than this is no program for a board.
const LARGEST_FILE: u64 = 1 << 32;

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot read `{}`: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: std::io::Error,
    },
    /// It is something else than a file, or far too large.
    #[error("`{}` is {what}; give a statically linked RISC-V executable", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is no ELF file for this machine.
    #[error(
        "`{}` is {what}; build it with --target=riscv64-unknown-elf, statically linked, with its first instruction at {RAM_BASE:#x}",
        path.display()
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// A part of the file contradicts the rest.
    #[error("`{}` is damaged: {what}; build it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A segment does not fit.
    #[error(
        "segment {index} of `{}` wants [{begin:#x}, {begin:#x} + {length:#x}), which is not inside the RAM [{RAM_BASE:#x}, {ram_end:#x}); link it elsewhere, or give the board more RAM (--ram)",
        path.display()
    )]
    Outside {
        /// The file.
        path: PathBuf,
        /// Which program header.
        index: usize,
        /// Its physical address.
        begin: u64,
        /// Its bytes in memory.
        length: u64,
        /// The address after the RAM.
        ram_end: u64,
    },
    /// Execution would begin where nothing is.
    #[error(
        "the entry {entry:#x} of `{}` is not inside a segment; set it with ENTRY() of the linker script or `-e`",
        path.display()
    )]
    Entry {
        /// The file.
        path: PathBuf,
        /// Its entry.
        entry: u64,
    },
}

/// A range of memory that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Physical address.
    pub(super) begin: u64,
    /// Bytes from the file.
    pub(super) bytes: Vec<u8>,
    /// Bytes in memory; those behind the bytes of the file are zero.
    pub(super) length: u64,
    /// It has the file's own headers and nothing else: a linker puts them where it likes, and no program needs them.
    headers: bool,
}

impl Segment {
    fn contains(&self, address: u64) -> bool {
        address >= self.begin && address - self.begin < self.length
    }

    fn overlaps(&self, other: &Segment) -> bool {
        self.contains(other.begin) || other.contains(self.begin)
    }
}

/// A checked program.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    entry: u64,
    segments: Vec<Segment>,
}

impl Image {
    /// Reads and checks an ELF file: a static RISC-V executable of 64 bits.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not such a file.
    pub fn open(path: &Path) -> Result<Image, ImageError> {
        let read = |source| ImageError::Read {
            path: path.into(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(read)?;
        let wrong = |what| ImageError::NotAFile {
            path: path.into(),
            what,
        };
        if metadata.is_dir() {
            return Err(wrong("a directory"));
        }
        if !metadata.is_file() {
            return Err(wrong("no regular file"));
        }
        if metadata.len() > LARGEST_FILE {
            return Err(wrong("too large for a program"));
        }
        Image::parse(path, &std::fs::read(path).map_err(read)?)
    }

    /// Checks the bytes of an ELF file.
    ///
    /// # Errors
    ///
    /// If it is not a static RISC-V executable of 64 bits.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Image, ImageError> {
        let kind = |what| ImageError::Kind {
            path: path.into(),
            what,
        };
        let damaged = |what: String| ImageError::Damaged {
            path: path.into(),
            what,
        };
        let identification: &[u8; 16] = bytes
            .first_chunk()
            .filter(|identification| identification.starts_with(&elf::ELFMAG))
            .ok_or_else(|| kind("no ELF file"))?;
        if identification[4] != elf::ELFCLASS64 {
            return Err(kind("an ELF file of 32 bits"));
        }
        if identification[5] != elf::ELFDATA2LSB {
            return Err(kind("a big-endian ELF file"));
        }
        let header =
            FileHeader64::<LE>::parse(bytes).map_err(|error| damaged(error.to_string()))?;
        if header.e_machine(LE) != elf::EM_RISCV {
            return Err(kind("an ELF file for another machine"));
        }
        match header.e_type(LE) {
            elf::ET_EXEC => {}
            elf::ET_DYN => {
                return Err(kind("position-independent or a shared library"));
            }
            elf::ET_REL => return Err(kind("an object file that is not linked yet")),
            _ => return Err(kind("an ELF file, but not an executable")),
        }
        let headers = header
            .program_headers(LE, bytes)
            .map_err(|error| damaged(error.to_string()))?;
        let size = u64::from(header.e_phentsize(LE)) * headers.len() as u64;
        let headers_end = header.e_phoff(LE).saturating_add(size);
        let wanted = header.e_entry(LE);
        let mut entry = None;
        let mut segments = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            match header.p_type(LE) {
                elf::PT_LOAD => {}
                elf::PT_INTERP => return Err(kind("dynamically linked")),
                _ => continue,
            }
            let length = header.p_memsz(LE);
            if length == 0 {
                continue;
            }
            let begin = header.p_paddr(LE);
            if header.p_filesz(LE) > length {
                return Err(damaged(format!(
                    "segment {index} has more bytes in the file than in memory"
                )));
            }
            if begin.checked_add(length).is_none() {
                return Err(damaged(format!(
                    "segment {index} reaches over the end of the address space"
                )));
            }
            let data = header.data(LE, bytes).map_err(|()| {
                damaged(format!(
                    "segment {index} reaches over the end of the file, which has {} bytes",
                    bytes.len()
                ))
            })?;
            // The entry is a virtual address.
            if let Some(offset) = wanted.checked_sub(header.p_vaddr(LE))
                && offset < length
            {
                entry = Some(begin + offset);
            }
            segments.push(Segment {
                begin,
                bytes: data.into(),
                length,
                headers: header.p_offset(LE) == 0 && length <= headers_end,
            });
        }
        let in_the_way = |segment: &Segment| {
            let others = segments.iter().filter(|&other| other != segment);
            segment.begin < RAM_BASE || others.into_iter().any(|other| segment.overlaps(other))
        };
        let segments: Vec<Segment> = segments
            .iter()
            .filter(|segment| !segment.headers || !in_the_way(segment))
            .cloned()
            .collect();
        for (index, segment) in segments.iter().enumerate() {
            if segments[..index]
                .iter()
                .any(|other| segment.overlaps(other))
            {
                return Err(damaged(format!(
                    "two segments are loaded to {:#x}",
                    segment.begin
                )));
            }
        }
        let Some(entry) = entry else {
            return Err(ImageError::Entry {
                path: path.into(),
                entry: wanted,
            });
        };
        Ok(Image {
            path: path.into(),
            entry,
            segments,
        })
    }

    /// The physical address of the entry that the file asks for.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Where the code of the reset ROM jumps to: the begin of the RAM if something of the program is there, as it is on the board that
    /// this one follows; otherwise the program's entry.
    pub fn start(&self) -> u64 {
        if self
            .segments
            .iter()
            .any(|segment| !segment.headers && segment.contains(RAM_BASE))
        {
            RAM_BASE
        } else {
            self.entry
        }
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Checks that everything lies in the RAM.
    pub(super) fn check(&self, ram_end: u64) -> Result<(), ImageError> {
        let outside = |segment: &Segment| {
            segment.begin < RAM_BASE || segment.begin + segment.length > ram_end
        };
        match self.segments.iter().position(outside) {
            None => Ok(()),
            Some(index) => Err(ImageError::Outside {
                path: self.path.clone(),
                index,
                begin: self.segments[index].begin,
                length: self.segments[index].length,
                ram_end,
            }),
        }
    }
}
