// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The example of docs/cherisim.md does what the document says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use std::path::Path;
use std::process::Command;

const DOCUMENT: &str = include_str!("../../../docs/cherisim.md");

/// The blocks of the section "An example": commands, what they print, a part of the trace.
fn example() -> Vec<&'static str> {
    let (_, section) = DOCUMENT.split_once("## An example").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks: Vec<&str> = section
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').unwrap().1)
        .collect();
    assert_eq!(blocks.len(), 3);
    blocks
}

#[test]
fn the_example_prints_what_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let cherisim = Path::new(env!("CARGO_BIN_EXE_cherisim"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", cherisim.parent().unwrap().display());
    let [commands, prints, trace] = example()[..] else {
        unreachable!("three blocks");
    };
    let run = |commands: &str| {
        let output = Command::new("sh")
            .args(["-e", "-c", commands])
            .env("PATH", &path)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(run(commands), (prints.to_owned(), String::new()));

    let (_, found) = run("cherisim --isa v9 --trace buffer.elf");
    for line in trace.lines() {
        assert!(
            found.lines().any(|found| found.trim_end() == line),
            "`{line}` is not in\n{found}"
        );
    }
}
