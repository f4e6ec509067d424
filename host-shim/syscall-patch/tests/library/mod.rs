// SPDX-License-Identifier: Apache-2.0 OR MIT
//! C libraries of this machine as material: their code, decoded from the beginning of each section, which
//! is what compilers and assemblers emit.

#![allow(dead_code, reason = "not every user of the module needs all of it")]

use crate::arena::Arena;
use capstream_syscall_patch::{PatchError, PatchKind};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The code of one ELF file, in memory at `load` + its linked address.
pub struct Library {
    /// Its instructions: address to length.
    pub instructions: BTreeMap<u64, usize>,
    /// Its `syscall` instructions.
    pub sites: Vec<u64>,
    /// Addresses after instructions which the next one never runs after.
    pub ends: BTreeSet<u64>,
    /// Targets of direct branches and calls.
    pub targets: BTreeSet<u64>,
    /// Functions that it names.
    pub functions: BTreeMap<String, Range<u64>>,
    /// Memory that holds it.
    pub arena: Arena,
}

impl Library {
    /// Copies the code of the file at `path` into memory.
    pub fn load(path: &str) -> Library {
        let data =
            std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        let file = object::File::parse(&*data).unwrap_or_else(|error| panic!("{path}: {error}"));
        let arena = Arena::new(64 << 20, 4 << 20);
        let load = arena.code().start + (1 << 20) - (file.relative_address_base() & !4095);
        let mut library = Library {
            instructions: BTreeMap::new(),
            sites: Vec::new(),
            ends: BTreeSet::new(),
            targets: BTreeSet::new(),
            functions: BTreeMap::new(),
            arena,
        };
        let first = file
            .sections()
            .filter(|section| section.address() != 0)
            .map(|section| section.address() & !4095)
            .min()
            .unwrap();
        let load = load - first;
        for section in file.sections() {
            if section.kind() != SectionKind::Text {
                continue;
            }
            let code = section.data().unwrap();
            let begin = load + section.address();
            library.arena.write(begin, code);
            for decoded in Decoder::with_ip(64, code, begin, DecoderOptions::NONE).iter() {
                library.instructions.insert(decoded.ip(), decoded.len());
                if decoded.code() == Code::Syscall {
                    library.sites.push(decoded.ip());
                }
                let ends = matches!(
                    decoded.flow_control(),
                    FlowControl::Return
                        | FlowControl::UnconditionalBranch
                        | FlowControl::IndirectBranch
                        | FlowControl::Exception
                );
                if ends {
                    library.ends.insert(decoded.next_ip());
                }
                let direct = matches!(
                    decoded.flow_control(),
                    FlowControl::Call
                        | FlowControl::ConditionalBranch
                        | FlowControl::UnconditionalBranch
                );
                if direct && decoded.op0_kind() == OpKind::NearBranch64 {
                    library.targets.insert(decoded.near_branch_target());
                }
            }
        }
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            if let (Ok(name), true) = (symbol.name(), symbol.size() > 0) {
                let begin = load + symbol.address();
                let range = begin..begin + symbol.size();
                library.functions.insert(name.to_owned(), range);
            }
        }
        library
    }

    /// Addresses of bytes that differ from `before`, which was read from `begin` on.
    pub fn changes(&self, begin: u64, before: &[u8]) -> Vec<u64> {
        let now = self.arena.read(begin..begin + before.len() as u64);
        (begin..)
            .zip(before.iter().zip(&now))
            .filter(|(_, (old, new))| old != new)
            .map(|(at, _)| at)
            .collect()
    }

    /// What patching each site gives.
    pub fn patch_all(&self) -> BTreeMap<u64, Result<PatchKind, PatchError>> {
        let table = self.arena.table(self.arena.code().start);
        self.sites
            .iter()
            .map(|&site| (site, table.patch(site + 2)))
            .collect()
    }
}
