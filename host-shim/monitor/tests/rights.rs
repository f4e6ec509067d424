// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What cVMs may do with each other's keys, and how much of everything they may take.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use support::{Deployment, Ended, rounds};

const CAPFILE: &str = "capfiles:\n  - { name: shared, size: 0x20 }\n";

/// One cVM with these keys that tries what the arguments say.
#[track_caller]
fn tries(keys: &str, args: &[&str]) -> Ended {
    let mut all = vec!["tries"];
    all.extend(args);
    Deployment::new()
        .cvm_with("only", &all, keys)
        .top_level(CAPFILE)
        .run()
        .expect(0)
}

#[track_caller]
fn has_lines(ended: &Ended, lines: &[&str]) {
    for line in lines {
        assert!(
            ended.out.lines().any(|printed| printed == *line),
            "{line}: {ended:#?}"
        );
    }
}

#[test]
fn without_grants_everything_is_allowed() {
    let ended = tries(
        "",
        &["sa:a", "sp:a", "ba:a", "bp:a", "fa:a", "fp:a", "fp:shared"],
    );
    has_lines(
        &ended,
        &[
            "sa:a 0",
            "sp:a 0",
            "ba:a 0",
            "bp:a 0",
            "fa:a 0",
            "fp:a 0 only read 0, read 1, write 1",
            "fp:shared 0 only read 0, read 1, write 1",
        ],
    );
    assert_eq!(ended.err, "");
}

#[test]
fn what_is_not_granted_is_refused_whether_it_is_there_or_not() {
    let keys = "grants:
- { kind: stream, keys: \"mine*\", may: advertise }
- { kind: stream, keys: mine1, may: probe }
- { kind: bell, keys: \"b?\" }";
    let ended = tries(
        keys,
        &[
            "sa:mine1",
            "sa:mine2",
            "sa:other",
            "sp:mine1",
            "sp:mine2",
            "sp:nobody",
            "fp:shared",
            "fp:nobody",
            "fa:shared",
            "fa:mine1",
            "ba:b1",
            "bp:b1",
            "bp:b",
        ],
    );
    has_lines(
        &ended,
        &[
            "sa:mine1 0",
            "sa:mine2 0",
            "sa:other -13",
            "sp:mine1 0",
            // One of them is there.
            "sp:mine2 -13",
            "sp:nobody -13",
            "fp:shared -13",
            "fp:nobody -13",
            // Not `EADDRINUSE`, which would tell.
            "fa:shared -13",
            "fa:mine1 -13",
            "ba:b1 0",
            "bp:b1 0",
            "bp:b -13",
        ],
    );
    for text in [
        "publish the stream `other`",
        "use the file `shared`",
        "use the bell `b`",
    ] {
        assert!(ended.err.contains(text), "{text}: {ended:#?}");
    }
}

#[test]
fn a_refusal_is_logged_once() {
    let ended = tries(
        "grants: []",
        &[
            "sp:key1", "sp:key1", "sp:key1", "sa:key1", "sp:key1", "fp:key1",
        ],
    );
    has_lines(&ended, &["sp:key1 -13", "sa:key1 -13", "fp:key1 -13"]);
    assert_eq!(
        ended.err.matches("use the stream `key1`").count(),
        1,
        "{ended:#?}"
    );
    assert_eq!(ended.err.matches("refused").count(), 3, "{ended:#?}");
    assert!(ended.err.contains("only"), "{ended:#?}");
}

#[test]
fn a_file_that_may_only_be_read_is_not_written() {
    // By this user, whatever the publisher allows.
    let ended = tries(
        "grants: [{ kind: file, keys: \"*\", may: probe, access: read-only }]",
        &["fp:shared"],
    );
    has_lines(&ended, &["fp:shared 0 only read 1, read 1, write -13"]);
    // By anybody, whatever the user may.
    let ended = tries(
        "grants:
- { kind: file, keys: own, may: advertise, access: read-only }
- { kind: file, keys: own, may: probe }",
        &["fa:own", "fp:own"],
    );
    has_lines(
        &ended,
        &["fa:own 0", "fp:own 0 only read 1, read 1, write -13"],
    );
}

#[test]
fn grants_are_those_of_each_cvm() {
    let ended = Deployment::new()
        .cvm_with(
            "reader",
            &["tries", "fp:shared", "sp:key1"],
            "grants: [{ kind: file, keys: shared, access: read-only }]",
        )
        .cvm_with(
            "writer",
            &["tries", "fp:shared"],
            "grants: [{ kind: file, keys: \"s*d\" }]",
        )
        .cvm("other", &["tries", "fp:shared", "sa:key1"])
        .top_level(CAPFILE)
        .run()
        .expect(0);
    has_lines(
        &ended,
        &[
            "reader: fp:shared 0 only read 1, read 1, write -13",
            "reader: sp:key1 -13",
            "writer: fp:shared 0 only read 0, read 1, write 1",
            "other: fp:shared 0 only read 0, read 1, write 1",
            "other: sa:key1 0",
        ],
    );
}

#[test]
fn numbers_of_things_have_limits() {
    let ended = tries(
        "limits: { streams: 2, files: 1, handles: 1 }",
        &[
            "sa:a",
            "ba:a",
            "sa:b",
            "fa:a",
            "fa:b",
            "fp:shared",
            "fp:shared",
            "sp:a",
        ],
    );
    has_lines(
        &ended,
        &[
            "sa:a 0", "ba:a 0", "sa:b -24", "fa:a 0", "fa:b -24", "sp:a -24",
        ],
    );
    assert!(ended.out.contains("fp:shared 0 only read 0"), "{ended:#?}");
    assert!(ended.out.contains("fp:shared -24\n"), "{ended:#?}");
}

/// How many milliseconds it took to send, and whether it had to wait.
fn sends(limits: &str, count: u64, len: u64) -> (u64, bool) {
    let ended = Deployment::new()
        .cvm_with(
            "only",
            &["sends_much", &count.to_string(), &len.to_string()],
            limits,
        )
        .run()
        .expect(0);
    let words: Vec<&str> = ended
        .out
        .lines()
        .find_map(|line| line.strip_prefix("milliseconds "))
        .unwrap()
        .split(' ')
        .collect();
    (words[0].parse().unwrap(), words[2] == "1")
}

#[test]
fn messages_in_a_second_have_a_limit() {
    // 100 at once, the others at their rate.
    let (milliseconds, refused) = sends("limits: { messages: 100 }", 250, 8);
    assert!(refused && milliseconds >= 1490, "{milliseconds}");
    let (_, refused) = sends("limits: { messages: 250 }", 250, 8);
    assert!(!refused);
}

#[test]
fn bytes_in_a_second_have_a_limit() {
    let (milliseconds, refused) = sends("limits: { bytes: 64K }", 32, 4096);
    assert!(refused && milliseconds >= 935, "{milliseconds}");
    // One that is larger than the limit is sent.
    let (milliseconds, refused) = sends("limits: { bytes: 1M }", 2, 2 << 20);
    assert!(refused && milliseconds >= 990, "{milliseconds}");
    let (_, refused) = sends("limits: { bytes: 128K, messages: 32 }", 32, 4096);
    assert!(!refused);
}

#[test]
fn a_flood_of_output_is_cut_and_harms_nobody() {
    let lines = rounds(2000);
    let ended = Deployment::new()
        .cvm_with(
            "flood",
            &["writes_much", "console", "100"],
            "limits: { log_rate: 64K }",
        )
        .cvm("quiet", &["counts", &lines.to_string(), "it"])
        .run()
        .expect(0);
    for line in 0..lines {
        assert!(ended.out.contains(&format!("\nquiet: it counts {line}\n")) || line == 0);
    }
    let flood: usize = ended
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("flood: xx"))
        .map(str::len)
        .sum();
    assert!(flood > 60 << 10 && flood < 2 << 20, "{flood}");
    assert!(
        ended
            .out
            .contains("bytes were dropped here: more than 65536 in a second"),
        "{:.1000}",
        ended.out
    );
}

#[test]
fn a_log_is_cut_in_time_and_in_size() {
    let log = |limits: &str, count: &str| {
        let deployment = Deployment::new().cvm_with("only", &["writes_much", "log", count], limits);
        deployment.run().expect(0);
        std::fs::read_to_string(deployment.logs().join("only.log")).unwrap()
    };
    let slow = log("limits: { log_rate: 10K }", "100");
    assert!(slow.len() < 1 << 20, "{}", slow.len());
    assert!(slow.contains("bytes were dropped here: more than 10240 in a second"));
    let large = log("limits: { log_rate: 1G }", "300");
    assert!(
        large.len() > 16 << 20 && large.len() < (16 << 20) + 200,
        "{}",
        large.len()
    );
    assert!(
        large
            .lines()
            .last()
            .unwrap()
            .contains("this file ends here")
    );
}

#[test]
fn lines_of_the_monitor_on_behalf_of_a_cvm_have_the_same_limit() {
    let ended = Deployment::new()
        .cvm_with(
            "only",
            &["publishes_often", "20000"],
            "limits: { log_rate: 1K }",
        )
        .run()
        .expect(0);
    let lines = ended.out.matches("MON: STREAM_CAP[").count();
    assert!(lines > 100 && lines < 10_000, "{lines}");
}

#[test]
fn memory_has_a_limit_which_holds() {
    let memory = 8 << 20;
    let has = |args: &[&str], limits: &str| {
        let size = memory.to_string();
        let mut all = vec!["has_memory", &size];
        all.extend(args);
        Deployment::new().cvm_with("only", &all, limits).run()
    };
    let limits = "limits: { memory: 8M, buffers: 17 }";
    let ended = has(&["beyond"], limits).expect(123);
    assert!(ended.out.contains("capstream.buffers=17\n"), "{ended:#?}");
    // More than there is changes nothing, and less than a kernel needs is refused.
    let all = Deployment::new()
        .cvm_with("only", &["has_memory", "1"], "limits: { memory: 64M }")
        .run()
        .expect(99);
    assert!(
        all.out.contains("boot->ram_end - boot->ram_begin"),
        "{all:#?}"
    );
    let ended = has(&[], "limits: { memory: 2M }").expect(2);
    assert!(ended.err.contains("`memory` is `2M`"), "{ended:#?}");
}
