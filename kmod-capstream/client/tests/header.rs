// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header for programs in C and C++: it compiles by itself in both, without a warning, and its structures are laid out as this crate's.
//!
//! Not part of the published crate, which comes without the header.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic that says what is wrong"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::offset_of;
use std::process::{Command, Stdio};

use capstream_client::{BellStats, FileStats, KEY_LEN, StreamStats};

/// Asked for here and not when this was compiled: the checkout may have moved since.
fn folder() -> String {
    format!(
        "{}/../include",
        std::env::var("CARGO_MANIFEST_DIR").unwrap()
    )
}

fn header() -> String {
    std::fs::read_to_string(format!("{}/capstream.h", folder())).expect("the header")
}

/// Has a compiler check the source, which it knows by the name of its language.
fn compile(compiler: &str, language: &str, options: &[&str], source: &str) {
    let mut child = Command::new(compiler)
        .args(["-x", language, "-fsyntax-only", "-I", &folder()])
        .args(["-pedantic", "-Wall", "-Wextra", "-Wundef", "-Werror"])
        .args(options)
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    let mut input = child.stdin.take().unwrap();
    input.write_all(source.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{compiler} {options:?}:\n{}\nof\n{source}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Names of all that the header defines with this word in front, if they begin as the device's do.
fn names(header: &str, word: &str, begin: &str) -> Vec<String> {
    let names = header.lines().filter_map(|line| {
        let name = line.strip_prefix(word)?.split_whitespace().next()?;
        name.starts_with(begin).then(|| name.to_owned())
    });
    names.collect()
}

/// A program that includes nothing else, and uses everything.
fn user() -> String {
    let header = header();
    let mut source = String::from(
        "#include <capstream.h>\n#include <capstream.h>\nint main(void);\nint main(void)\n{\n",
    );
    let macros = names(&header, "#define ", "CAP_");
    let structures = names(&header, "struct ", "cap_");
    assert!(
        macros.len() > 25 && structures.len() >= 3,
        "{macros:?}, {structures:?}"
    );
    for name in macros {
        let _ = writeln!(
            source,
            "\t{{ const unsigned long value = (unsigned long)({name}); (void)value; }}"
        );
    }
    for name in structures {
        let _ = writeln!(source, "\t{{ struct {name} value; (void)value; }}");
    }
    source.push_str("\tchar buffer[16];\n\tchar key[CAP_KEY_LEN] = \"key1\";\n\tstruct cap_stream_message message;\n");
    for (request, argument) in [
        ("CAP_STREAM_SET_SIZE", "(int)sizeof(buffer)"),
        ("CAP_STREAM_REG_BUF", "buffer"),
        ("CAP_STREAM_ADV", "key"),
        ("CAP_STREAM_PRB", "\"key2\""),
        ("CAP_STREAM_WAIT_INFO", "&message"),
        ("CAP_STREAM_RESET", "0"),
        ("CAP_FILE_SET_CAP", "buffer"),
    ] {
        let _ = writeln!(
            source,
            "\tif (ioctl(0, {request}, {argument}) < 0)\n\t\treturn 1;"
        );
    }
    source.push_str("\treturn message.length > UINT64_MAX / 2;\n}\n");
    source
}

#[test]
fn compiles_as_c() {
    for standard in ["-std=c99", "-std=gnu99", "-std=c11", "-std=gnu17"] {
        compile("cc", "c", &[standard], &user());
        // musl's ioctl() takes requests as int, for which those that read are too large: a pedantic compiler says so of every driver's.
        compile("musl-gcc", "c", &[standard, "-Wno-overflow"], &user());
    }
}

#[test]
fn compiles_as_cpp() {
    for standard in ["-std=c++11", "-std=c++17", "-std=gnu++20"] {
        compile("c++", "c++", &[standard], &user());
    }
}

/// Asserts in C what Rust says about a structure.
macro_rules! layout {
    ($structure:literal, $type:ty, $($field:ident),+) => {{
        let mut source = format!("_Static_assert(sizeof(struct {}) == {}, \"size\");\n", $structure, size_of::<$type>());
        $(
            let _ = writeln!(
                source,
                "_Static_assert(offsetof(struct {}, {}) == {}, \"{}\");",
                $structure, stringify!($field), offset_of!($type, $field), stringify!($field)
            );
        )+
        source
    }};
}

#[test]
fn structures_are_laid_out_as_in_rust() {
    let mut source = String::from("#include <stddef.h>\n#include <capstream.h>\n");
    let _ = writeln!(source, "_Static_assert(CAP_KEY_LEN == {KEY_LEN}, \"key\");");
    source += &layout!(
        "cap_stream_stats",
        StreamStats,
        received,
        received_bytes,
        taken,
        sent,
        sent_bytes,
        no_buffer,
        too_long,
        faults,
        notifications,
        sleeps,
        queued,
        filled,
        advertised,
        connected
    );
    source += &layout!(
        "cap_file_stats",
        FileStats,
        reads,
        read_bytes,
        writes,
        written_bytes,
        size,
        read_only,
        published
    );
    source += &layout!(
        "cap_bell_stats",
        BellStats,
        count,
        rings,
        added,
        takes,
        taken,
        sent_rings,
        no_room,
        notifications,
        sleeps,
        advertised,
        connected
    );
    compile("cc", "c", &["-std=c11"], &source);
}
