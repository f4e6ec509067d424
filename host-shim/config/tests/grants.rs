// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a cVM may and how much of it: keys of restart, grants and limits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use capstream_capability::{Class, Kind};
use capstream_config::{
    Access, ConfigError, CvmConfig, Deployment, Form, Grants, KEYS, Limits, Pattern, RestartPolicy,
    Right, Section,
};
use proptest::prelude::*;

const FILE: &str = "yaml.cfg";
const STREAM: Kind = Kind::Portal(Class::STREAM);
const BELL: Kind = Kind::Portal(Class::BELL);

/// A file in which all keys of these tests are, one in a line.
const GOOD: &str = r#"cVMs:
  - name: careful
    args: /init
    isolation: { base: 0x20000000, size: 0x10000000 }
    restart: on-failure
    restart_delay: 2
    stop_timeout: 30
    portal_deadline: 250
    grants:
      - kind: stream
        keys: [in-?, "out*"]
        may: advertise
      - kind: file
        keys: "*"
        may: probe
        access: read-only
    limits:
      memory: 64M
      messages: 1_000
      bytes: 10M
      buffers: 100
      log_rate: 64K
      streams: 1
      files: 0
      handles: 7
"#;

fn read(text: &str) -> Result<Deployment, ConfigError> {
    Deployment::from_str(text, FILE)
}

/// The good file with one line in place of another.
fn with(line: &str, instead: &str) -> Result<CvmConfig, ConfigError> {
    assert_eq!(GOOD.matches(line).count(), 1, "`{line}` is not one place");
    read(&GOOD.replace(line, instead)).map(|mut deployment| deployment.cvms.remove(0))
}

/// It is refused with an error about that line which contains all of `parts`.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ConfigError>, line: usize, parts: &[&str]) {
    let error = result.expect_err("it should be refused");
    let message = error.to_string();
    assert!(
        message.starts_with(&format!("{FILE}:{line}: ")),
        "{message}"
    );
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

#[test]
fn every_key_is_read() {
    let cvm = read(GOOD).unwrap().cvms.remove(0);
    assert_eq!(cvm.restart, RestartPolicy::OnFailure);
    assert_eq!(cvm.restart_delay, Duration::from_secs(2));
    assert_eq!(cvm.stop_timeout, Duration::from_secs(30));
    assert_eq!(cvm.portal_deadline, Duration::from_millis(250));
    assert_eq!(
        cvm.limits,
        Limits {
            memory: Some(64 << 20),
            messages: Some(1000),
            bytes: Some(10 << 20),
            buffers: Some(100),
            log_rate: 64 << 10,
            streams: 1,
            files: 0,
            handles: 7,
        }
    );
    let Grants::Only(grants) = &cvm.grants else {
        panic!("{cvm:?}");
    };
    let [streams, files] = grants.as_slice() else {
        panic!("{grants:?}");
    };
    assert_eq!(streams.kind, Some(STREAM));
    assert_eq!(streams.keys, [pattern("in-?"), pattern("out*")]);
    assert_eq!(streams.may, Right::Advertise);
    assert_eq!((streams.line, files.line), (10, 13));
    assert_eq!(files.kind, Some(Kind::File));
    assert_eq!(files.access, Access::ReadOnly);
    for section in [Section::Grant, Section::Limits] {
        for key in section.keys() {
            assert!(GOOD.contains(&format!("{}:", key.name)), "{}", key.name);
        }
    }
}

#[test]
fn without_the_keys_all_is_as_it_was() {
    let text = "cVMs: [{name: a, args: b, isolation: {base: 20000000, size: 10000000}}]";
    let cvm = read(text).unwrap().cvms.remove(0);
    assert_eq!(cvm.restart, RestartPolicy::Never);
    assert_eq!(cvm.restart_delay, Duration::from_secs(1));
    assert_eq!(cvm.stop_timeout, Duration::from_secs(5));
    assert_eq!(cvm.portal_deadline, Duration::from_secs(1));
    assert_eq!(cvm.grants, Grants::All);
    assert_eq!(cvm.limits, Limits::default());
    assert_eq!(cvm.grants.probe(STREAM, b"x"), Some(Access::ReadWrite));
    assert_eq!(
        cvm.grants
            .advertise(Kind::Portal(Class::new(7).unwrap()), b"x"),
        Some(Access::ReadWrite)
    );
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let limits = Limits::default();
    for (name, default) in [
        ("streams", limits.streams.to_string()),
        ("files", limits.files.to_string()),
        ("handles", limits.handles.to_string()),
        ("log_rate", format!("{}M", limits.log_rate >> 20)),
    ] {
        let key = Section::Limits.keys().find(|key| key.name == name).unwrap();
        assert!(
            key.value.contains(&format!("{default} by default")),
            "{key:?}"
        );
    }
}

#[test]
fn numbers_are_what_the_reference_says() {
    // The bounds of every key of these forms, those bounds in its text, and what is beyond them is refused.
    for key in KEYS
        .iter()
        .filter(|key| GOOD.contains(&format!("{}: ", key.name)))
    {
        let Form::Integer { min, max } = key.form else {
            continue;
        };
        for bound in [min, max] {
            assert!(key.value.contains(&bound.to_string()), "{key:?}");
        }
        let (at, line) = GOOD
            .lines()
            .enumerate()
            .find(|(_, line)| line.trim_start().starts_with(&format!("{}: ", key.name)))
            .unwrap();
        let name = line.split(": ").next().unwrap();
        for good in [min, max] {
            with(line, &format!("{name}: {good}")).unwrap();
        }
        for bad in [
            (min - 1).to_string(),
            (max + 1).to_string(),
            "0x10".to_owned(),
            "1.5".to_owned(),
            "+5".to_owned(),
            "5K".to_owned(),
            "[5]".to_owned(),
            "18446744073709551616".to_owned(),
        ] {
            refused(
                with(line, &format!("{name}: {bad}")),
                at + 1,
                &[&format!("`{}` is ", key.name), key.value],
            );
        }
    }
}

#[test]
fn numbers_of_bytes_can_be_written_in_every_usual_way() {
    for written in [
        "64M",
        "64m",
        "65536K",
        "67108864",
        "67_108_864",
        "0x4000000",
        "\"64M\"",
    ] {
        let cvm = with("memory: 64M", &format!("memory: {written}")).unwrap();
        assert_eq!(cvm.limits.memory, Some(64 << 20), "{written}");
    }
    let cvm = with("bytes: 10M", "bytes: 2G").unwrap();
    assert_eq!(cvm.limits.bytes, Some(2 << 30));
    for written in [
        // Hexadecimal without 0x, it is no multiple.
        "4000000",
        "4M5",
        "M",
        "-64M",
        "64 M",
        "64MB",
        "1.5M",
        "2M",
        "0",
        "0x10001000",
        "0x",
        "99999999999999999999G",
        "18446744073709551615G",
        "[64M]",
    ] {
        refused(
            with("memory: 64M", &format!("memory: {written}")),
            18,
            &["`memory` is ", "number"],
        );
    }
    refused(
        with("log_rate: 64K", "log_rate: 1023"),
        22,
        &["`log_rate` is `1023`", "1K or more"],
    );
    refused(
        with("bytes: 10M", "bytes: 0"),
        20,
        &["`bytes` is `0`", "at least 1"],
    );
}

#[test]
fn words_are_those_of_the_table() {
    for (line, at, key, words) in [
        (
            "restart: on-failure",
            5,
            "restart",
            "`never` (the default), `on-failure` or `always`",
        ),
        ("kind: stream", 10, "kind", "`stream` (`/cap/chN`)"),
        ("may: probe", 15, "may", "`advertise`, `probe` or `both`"),
        (
            "access: read-only",
            16,
            "access",
            "`read-only` or `read-write`",
        ),
    ] {
        for bad in ["sometimes", "[never]", "Never"] {
            refused(
                with(line, &format!("{key}: {bad}")),
                at,
                &[&format!("`{key}` is "), words],
            );
        }
    }
    assert_eq!(
        with("restart: on-failure", "restart: always")
            .unwrap()
            .restart,
        RestartPolicy::Always
    );
}

#[test]
fn mistakes_in_grants_are_named() {
    let grants = |written: &str| {
        let text =
            "cVMs: [{name: a, args: b, isolation: {base: 20000000, size: 10000000},\n grants: ";
        read(&format!("{text}{written}}}]\n"))
    };
    refused(
        grants("stream"),
        2,
        &["`grants` is `stream`", "a list of grants"],
    );
    refused(
        grants("{keys: a}"),
        2,
        &["`grants` is a mapping", "a list of grants"],
    );
    refused(
        grants("[stream]"),
        2,
        &[
            "a grant of the cVM `a` is `stream`",
            "kind, keys, may, access",
        ],
    );
    refused(grants(""), 2, &["`grants` is empty", "a list of grants"]);
    assert_eq!(
        grants("[]").unwrap().cvms[0].grants,
        Grants::Only(Vec::new())
    );
    refused(
        with("keys: \"*\"\n        may: probe", "may: probe"),
        13,
        &[
            "a grant of the cVM `careful` needs the key `keys`",
            "a pattern",
        ],
    );
    for bad in [
        "[]",
        "''",
        "elevenbytes",
        "{a: b}",
        "\"a\\0\"",
        "[a, '']",
        "[[a]]",
    ] {
        refused(
            with("keys: \"*\"", &format!("keys: {bad}")),
            14,
            &["`keys` is ", "1 to 10 bytes"],
        );
    }
    // A star that is not in quotes is something else in YAML.
    refused(with("keys: \"*\"", "keys: *"), 14, &["in quotes"]);
    refused(with("keys: \"*\"", "keys: *key"), 14, &["in quotes"]);
    refused(
        with("may: advertise", "access: read-only"),
        12,
        &["`access` is `read-only`", "about files"],
    );
    refused(
        with("may: probe", "mai: probe"),
        15,
        &["unknown key `mai` in a grant", "`may`"],
    );
    refused(
        with("messages: 1_000", "mesages: 1"),
        19,
        &["unknown key `mesages` in `limits`", "`messages`"],
    );
}

#[test]
fn grants_allow_what_one_of_them_allows() {
    let text = r#"cVMs:
  - name: a
    args: b
    isolation: { base: 0x20000000, size: 0x10000000 }
    grants:
      - { kind: file, keys: "*", access: read-only, may: probe }
      - { kind: file, keys: mine*, may: probe }
      - { kind: file, keys: pub?, may: advertise, access: read-only }
      - { kind: stream, keys: [key1, key2] }
      - { keys: common }
"#;
    let grants = read(text).unwrap().cvms.remove(0).grants;
    let (read_only, read_write) = (Some(Access::ReadOnly), Some(Access::ReadWrite));
    assert_eq!(grants.probe(Kind::File, b"other"), read_only);
    assert_eq!(grants.probe(Kind::File, b"mine"), read_write);
    assert_eq!(grants.probe(Kind::File, b"mine-too"), read_write);
    assert_eq!(grants.advertise(Kind::File, b"mine"), None);
    assert_eq!(grants.advertise(Kind::File, b"pub1"), read_only);
    assert_eq!(grants.advertise(Kind::File, b"pub"), None);
    assert_eq!(grants.probe(STREAM, b"key1"), read_write);
    assert_eq!(grants.advertise(STREAM, b"key2"), read_write);
    assert_eq!(grants.probe(STREAM, b"key3"), None);
    assert_eq!(grants.probe(STREAM, b"key10"), None);
    assert_eq!(grants.probe(BELL, b"key1"), None);
    assert_eq!(grants.probe(BELL, b"common"), read_write);
    assert_eq!(
        grants.advertise(Kind::Portal(Class::new(7).unwrap()), b"common"),
        read_write
    );
    let nothing = Grants::Only(Vec::new());
    assert_eq!(nothing.probe(Kind::File, b"x"), None);
    assert_eq!(nothing.advertise(STREAM, b"x"), None);
}

/// What a pattern means, said as plainly as can be.
fn matches(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern, key) {
        ([], key) => key.is_empty(),
        ([b'*', rest @ ..], key) => (0..=key.len()).any(|taken| matches(rest, &key[taken..])),
        ([b'?', pattern @ ..], [_, key @ ..]) => matches(pattern, key),
        ([wanted, pattern @ ..], [byte, key @ ..]) => wanted == byte && matches(pattern, key),
        (_, []) => false,
    }
}

/// All keys of up to five letters out of `a` and `b`.
fn keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    for _ in 0..5 {
        let longer: Vec<Vec<u8>> = keys
            .iter()
            .flat_map(|key| [b'a', b'b'].map(|letter| [key.as_slice(), &[letter]].concat()))
            .collect();
        keys.extend(longer);
    }
    keys
}

proptest! {
    #[test]
    fn patterns_match_as_they_should(text in "[ab?*]{1,8}", key in "[ab]{1,10}") {
        let pattern = pattern(&text);
        prop_assert_eq!(pattern.matches(key.as_bytes()), matches(text.as_bytes(), key.as_bytes()));
    }

    // Patterns of three pieces that overlap do so in a key of five letters or less.
    #[test]
    fn patterns_overlap_when_a_key_matches_both(one in "[ab?*]{1,3}", two in "[ab?*]{1,3}") {
        let both = keys()
            .iter()
            .any(|key| matches(one.as_bytes(), key) && matches(two.as_bytes(), key));
        prop_assert_eq!(pattern(&one).overlaps(&pattern(&two)), both, "{} {}", one, two);
    }

    #[test]
    fn no_pattern_takes_long(text in "(\\*a){1,5}\\*b", key in "a{10}") {
        prop_assert!(!pattern(&text).matches(key.as_bytes()));
    }
}
