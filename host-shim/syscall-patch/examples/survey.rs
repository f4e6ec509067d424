// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints which pattern applies to the system calls of ELF files.
//!
//! `cargo run -p capstream-syscall-patch --example survey -- FILE...`; with `-v` first, every site.

#![allow(
    clippy::unwrap_used,
    reason = "the modules of the tests, where a panic is how one fails"
)]

#[path = "../tests/arena/mod.rs"]
mod arena;
#[path = "../tests/library/mod.rs"]
mod library;

use std::collections::BTreeMap;

fn main() {
    let mut verbose = false;
    for path in std::env::args().skip(1) {
        if path == "-v" {
            verbose = true;
            continue;
        }
        let library = library::Library::load(&path);
        let begin = std::time::Instant::now();
        let results = library.patch_all();
        let took = begin.elapsed();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (site, result) in &results {
            let name = match result {
                Ok(kind) => format!("{kind:?}"),
                Err(error) => format!("{error:?}")
                    .split(' ')
                    .next()
                    .unwrap_or("")
                    .to_owned(),
            };
            if verbose {
                let function = library
                    .functions
                    .iter()
                    .find(|(_, range)| range.contains(site))
                    .map_or("?", |(name, _)| name);
                println!(
                    "{:#x} {function} {name}",
                    site - library.arena.code().start - (1 << 20)
                );
            }
            *counts.entry(name).or_default() += 1;
        }
        println!(
            "{path}: {} sites, {counts:?}, {} ns each",
            results.len(),
            took.as_nanos() / results.len().max(1) as u128
        );
    }
}
