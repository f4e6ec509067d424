// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `docs/system-calls.md` beside what is there: the calls of the kernel, the tests that it names, and the kernel that was built. No cVM runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic that says what is wrong"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use capstream_e2e::environment::{cache, checkout};

const DOCUMENT: &str = "docs/system-calls.md";
/// The first line of the tables whose rows are of calls.
const HEADING: &str = "| calls | state | tests |";
/// The host's list of calls, which may be of an older kernel than ours.
const HEADER: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

struct Row {
    line: usize,
    calls: Vec<String>,
    state: String,
    tests: Vec<String>,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    read(&checkout().join(DOCUMENT))
}

/// What is between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for (number, text) in document().lines().enumerate() {
        let line = number + 1;
        in_table = text == HEADING || in_table && text.starts_with('|');
        if !in_table || text == HEADING || text.starts_with("|---") {
            continue;
        }
        let cells: Vec<_> = text.trim_matches('|').split('|').map(str::trim).collect();
        let [calls, state, tests] = cells[..] else {
            panic!("{DOCUMENT}:{line}: a row has three cells: {HEADING}");
        };
        let row = Row {
            line,
            calls: quoted(calls),
            state: state.to_owned(),
            tests: quoted(tests),
        };
        assert!(
            !row.calls.is_empty(),
            "{DOCUMENT}:{line}: no call between backquotes in the first cell"
        );
        assert!(
            row.tests.is_empty() == (tests == "none of our own"),
            "{DOCUMENT}:{line}: the last cell names tests between backquotes, or is \"none of our own\""
        );
        rows.push(row);
    }
    assert!(
        !rows.is_empty(),
        "{DOCUMENT} has no table that begins with {HEADING}"
    );
    rows
}

/// The kernel in the cache, where one was built: its calls, and whether each is there. What is not is `ENOSYS`.
fn kernel() -> Option<BTreeMap<String, bool>> {
    let folder = cache().join("kernel");
    let symbols = fs::read_to_string(folder.join("build/System.map")).ok()?;
    let addresses: BTreeMap<_, _> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?;
            Some((words.nth(1)?, address))
        })
        .collect();
    let nothing = addresses.get("sys_ni_syscall")?;
    // What the port takes out of the table.
    let own = read(&folder.join("source/arch/lkl/x86_64/syscall.c"));
    let taken_out: BTreeSet<_> = own
        .lines()
        .filter_map(|line| {
            line.strip_prefix("#define ")?
                .strip_suffix("sys_ni_syscall")
        })
        .map(str::trim)
        .collect();
    let table = read(&folder.join("source/arch/x86/entry/syscalls/syscall_64.tbl"));
    let mut calls = BTreeMap::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, abi, name, entry @ ..] = &words[..] else {
            continue;
        };
        if *abi == "x32" {
            continue;
        }
        let is_there = entry.first().is_some_and(|entry| {
            !taken_out.contains(entry) && addresses.get(entry) != Some(nothing)
        });
        calls.insert((*name).to_owned(), is_there);
    }
    Some(calls)
}

/// The calls that the host knows.
fn host() -> BTreeSet<String> {
    fs::read_to_string(HEADER)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[test]
fn every_call_is_in_one_row() {
    let mut lines = BTreeMap::new();
    for row in rows() {
        for call in row.calls {
            if let Some(before) = lines.insert(call.clone(), row.line) {
                panic!(
                    "{DOCUMENT}: `{call}` is in line {before} and in line {}; leave it where it belongs",
                    row.line
                );
            }
        }
    }
    let host = host();
    let kernel: Option<BTreeSet<_>> = kernel().map(|calls| calls.into_keys().collect());
    assert!(
        !host.is_empty() || kernel.is_some(),
        "there is no list of calls to compare {DOCUMENT} with: neither {HEADER}, which is of the package linux-libc-dev, nor a built kernel"
    );
    let missing: BTreeSet<_> = host
        .iter()
        .chain(kernel.iter().flatten())
        .filter(|call| !lines.contains_key(*call))
        .collect();
    assert!(
        missing.is_empty(),
        "{DOCUMENT} lacks {}; put each into the row of its subject, or into a row of its own that says what it does and which tests cover it",
        listed(missing)
    );
    // The host's list alone may be older than the document.
    if let Some(kernel) = kernel {
        let unknown: Vec<_> = lines
            .keys()
            .filter(|call| !kernel.contains(*call) && !host.contains(*call))
            .collect();
        assert!(
            unknown.is_empty(),
            "{DOCUMENT} has {}, which the kernel's table for x86-64 has not; take it out, or correct its name",
            listed(unknown)
        );
    }
}

#[test]
fn states_are_those_of_the_kernel() {
    let kernel = kernel();
    if kernel.is_none() {
        eprintln!("no kernel was built to compare {DOCUMENT} with");
    }
    for row in rows() {
        let works = row.state.starts_with("works");
        assert!(
            works || row.state.starts_with("`ENOSYS`"),
            "{DOCUMENT}:{}: a state begins with \"works\" or with \"`ENOSYS`\"",
            row.line
        );
        for call in &row.calls {
            let is_there = kernel.as_ref().and_then(|calls| calls.get(call));
            assert!(
                is_there.is_none_or(|is_there| *is_there == works),
                "{DOCUMENT}:{}: `{call}` {} the kernel that was built; write that into its state, or undo what changed it in lkl-patches/",
                row.line,
                if works { "is ENOSYS in" } else { "is there in" }
            );
        }
    }
}

/// The file of a test program in C, or of a test in Rust, in the checkout.
fn file_of(name: &str) -> String {
    match name.split_once("::") {
        None => format!("disk-image/programs/tests/{name}"),
        Some((file, _)) => match file.split_once('/') {
            None => format!("ci/e2e/tests/e2e/{file}.rs"),
            Some((place, file)) => format!("host-shim/{place}/tests/{file}.rs"),
        },
    }
}

/// All end-to-end tests.
fn end_to_end() -> String {
    fs::read_dir(checkout().join("ci/e2e/tests/e2e"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| read(&path))
        .collect()
}

/// Whether this is the source of a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with(&function) {
            return is_test;
        }
        // Other attributes and comments may stand between.
        is_test = line == "#[test]" || is_test && (line.starts_with('#') || line.starts_with("//"));
    }
    false
}

/// Whether a program is started by name.
fn starts(source: &str, program: &str) -> bool {
    source
        .split(&format!("/tests/{program}"))
        .skip(1)
        .any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

#[test]
fn tests_that_are_named_exist() {
    let end_to_end = end_to_end();
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows() {
        named.extend(row.tests.into_iter().map(|test| (test, row.line)));
    }
    // Also in what is no table.
    for (number, text) in document().lines().enumerate() {
        let tests = quoted(text).into_iter().filter(|word| word.contains("::"));
        named.extend(tests.map(|test| (test, number + 1)));
    }
    for (name, line) in named {
        let file = file_of(&name);
        let path = checkout().join(&file);
        let advice = "correct the name, or say \"none of our own\" where it was the only one";
        assert!(
            path.exists(),
            "{DOCUMENT}:{line}: of `{name}` there is no file {file}; {advice}"
        );
        if let Some((_, test)) = name.split_once("::") {
            assert!(
                has_test(&read(&path), test),
                "{DOCUMENT}:{line}: `{name}` is no test of {file}; {advice}"
            );
        } else {
            assert!(
                name.strip_suffix(".c")
                    .is_some_and(|program| starts(&end_to_end, program)),
                "{DOCUMENT}:{line}: `{name}` is started by no test in ci/e2e/tests/e2e; {advice}"
            );
        }
    }
}
