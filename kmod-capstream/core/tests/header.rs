// SPDX-License-Identifier: GPL-2.0-only
//! The public C header says what `requests` says: a C compiler is asked. `CC` names it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use capstream_core::requests::{
    BELL_MAJOR, BellStats, FILE_MAJOR, FileStats, Message, STREAM_MAJOR, StreamStats, bell, file,
    stream,
};
use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

#[test]
fn the_header_agrees() {
    let mut source = String::from("#include <stddef.h>\n#include \"capstream.h\"\n");
    let mut same = |text: &str, value: usize| {
        writeln!(
            source,
            "_Static_assert((unsigned long)({text}) == {value}ul, \"{text}\");"
        )
        .unwrap();
    };
    for (text, value) in [
        ("CAP_STREAM_SET_SIZE", stream::SET_SIZE),
        ("CAP_STREAM_ADV", stream::ADV),
        ("CAP_STREAM_PRB", stream::PRB),
        ("CAP_STREAM_SET_MODE", stream::SET_MODE),
        ("CAP_STREAM_REG_BUF", stream::REG_BUF),
        ("CAP_STREAM_WAIT", stream::WAIT),
        ("CAP_STREAM_SPIN_READ", stream::SPIN_READ),
        ("CAP_STREAM_WAIT_INFO", stream::WAIT_INFO),
        ("CAP_STREAM_RESET", stream::RESET),
        ("CAP_STREAM_STATS", stream::STATS),
        ("CAP_FILE_SET_CAP", file::SET_CAP),
        ("CAP_FILE_SET_SIZE", file::SET_SIZE),
        ("CAP_FILE_ADV", file::ADV),
        ("CAP_FILE_PRB", file::PRB),
        ("CAP_FILE_SET_MODE", file::SET_MODE),
        ("CAP_FILE_REVOKE", file::REVOKE),
        ("CAP_FILE_STATS", file::STATS),
        ("CAP_BELL_ADV", bell::ADV),
        ("CAP_BELL_PRB", bell::PRB),
        ("CAP_BELL_RESET", bell::RESET),
        ("CAP_BELL_STATS", bell::STATS),
        ("CAP_FILE_MAJOR", FILE_MAJOR),
        ("CAP_BELL_MAJOR", BELL_MAJOR),
        ("CAP_STREAM_MAJOR", STREAM_MAJOR),
    ] {
        same(text, value as usize);
    }
    same("CAP_KEY_LEN", capstream_abi::KEY_LEN);
    same("CAP_STREAM_BUFFERS", capstream_core::slots::SLOTS);
    same("CAP_STREAM_MAX_SIZE", capstream_core::stream::MAX_SIZE);
    macro_rules! structure {
        ($rust:ty, $c:literal, $($field:ident),*) => {
            same(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>());
            let mut total = 0;
            $(
                let field = concat!("struct ", $c, ", ", stringify!($field));
                same(&format!("offsetof({field})"), offset_of!($rust, $field));
                let value: $rust = Default::default();
                total += size_of_val(&value.$field);
            )*
            // Answers are written as bytes: no gaps.
            assert_eq!(total, size_of::<$rust>());
        };
    }
    structure!(
        Message,
        "cap_stream_message",
        address,
        length,
        sequence,
        sender
    );
    structure!(
        StreamStats,
        "cap_stream_stats",
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
    structure!(
        FileStats,
        "cap_file_stats",
        reads,
        read_bytes,
        writes,
        written_bytes,
        size,
        read_only,
        published
    );
    structure!(
        BellStats,
        "cap_bell_stats",
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
    // What existing programs were compiled with.
    for (text, value) in [
        ("CAP_STREAM_SET_SIZE", 0x4004_e401),
        ("CAP_STREAM_SPIN_READ", 0x4004_e407),
        ("CAP_FILE_SET_CAP", 0x4004_e200),
        ("CAP_FILE_SET_MODE", 0x4004_e204),
    ] {
        same(text, value);
    }

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("header.c");
    std::fs::write(&file, source).unwrap();
    let include = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../include");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(&compiler)
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .args([&include, &file])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {compiler}: {error}; set CC to a C compiler"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
