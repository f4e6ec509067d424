// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is wrong with files that can be read, and what machines are told about the form of files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use capstream_config::{Deployment, KEYS, Section, Severity};
use serde_json::Value;

/// The findings about a file in an empty folder with a disk image and a runtime image.
fn check(text: &str) -> Vec<(Severity, usize, String)> {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.img", "two.img", "runtime"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    std::fs::write(folder.path().join("empty"), "").unwrap();
    std::fs::hard_link(
        folder.path().join("one.img"),
        folder.path().join("link.img"),
    )
    .unwrap();
    let file = folder.path().join("yaml.cfg");
    std::fs::write(&file, text).unwrap();
    Deployment::from_file(&file)
        .unwrap()
        .check()
        .into_iter()
        .map(|finding| (finding.severity, finding.line, finding.message))
        .collect()
}

/// A file with these cVMs, each the keys of one, which begin in lines 2, 3 and so on.
fn cvms(cvms: &[&str]) -> String {
    let mut text = "cVMs:\n".to_owned();
    for (index, keys) in cvms.iter().enumerate() {
        let base = 0x2000_0000 + index * 0x400_0000;
        text += &format!(
            "  - {{ name: c{index}, args: a, isolation: {{ base: {base:#x}, size: 0x4000000 }}, {keys} }}\n"
        );
    }
    text
}

#[track_caller]
fn finds(text: &str, expected: &[(Severity, usize, &str)]) {
    let findings = check(text);
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for ((severity, line, message), (expected_severity, expected_line, part)) in
        findings.iter().zip(expected)
    {
        assert_eq!(
            (severity, line),
            (expected_severity, expected_line),
            "{message}"
        );
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

use Severity::{Error, Warning};

#[test]
fn a_good_file_has_no_findings() {
    finds(
        &cvms(&[
            "disk: one.img, runtime: runtime, grants: [{ keys: \"in*\", may: advertise }, { kind: file, keys: test }]",
            "disk: two.img, grants: [{ kind: stream, keys: input, may: probe }]",
        ]),
        &[],
    );
}

#[test]
fn files_that_are_not_there_are_errors() {
    finds(
        &cvms(&["disk: no.img", "runtime: none", "disk: .", "disk: empty"]),
        &[
            (
                Error,
                2,
                "no.img of the cVM `c0` cannot be read and written: ",
            ),
            (Error, 3, "none of the cVM `c1` cannot be read: "),
            (Error, 4, "of the cVM `c2` cannot be read and written: "),
            (Error, 5, "it is empty"),
        ],
    );
}

#[test]
fn one_disk_is_for_one_cvm_at_a_time() {
    finds(
        &cvms(&["disk: one.img", "disk: two.img", "disk: link.img"]),
        &[(
            Error,
            4,
            "the disk of the cVM `c2` is that of `c0` on line 2",
        )],
    );
    finds(&cvms(&["disk: one.img, wait: -1", "disk: one.img"]), &[]);
    finds(
        &cvms(&[
            "disk: one.img, wait: -1, restart: on-failure",
            "disk: one.img",
        ]),
        &[(Error, 3, "which may still run")],
    );
}

#[test]
fn what_can_have_no_effect_is_a_warning() {
    finds(
        &cvms(&["wait: -1, restart: always", "callback_out: c0"]),
        &[
            (Warning, 2, "`restart: always` starts it again"),
            (Warning, 3, "does nothing with `callback_out`"),
        ],
    );
}

#[test]
fn rights_that_nobody_can_use_are_warnings() {
    finds(
        &cvms(&[
            "grants: [{ kind: stream, keys: [\"a*\", b], may: probe }]",
            "grants: [{ kind: stream, keys: a1, may: advertise }, { kind: file, keys: b, may: advertise }]",
        ]),
        &[
            (
                Warning,
                2,
                "the cVM `c0` may use a stream `b`, and nobody may publish one",
            ),
            (
                Warning,
                3,
                "the cVM `c1` may publish a file `b`, and nobody may use one",
            ),
        ],
    );
    // One that may do everything, or both with itself, is enough.
    finds(
        &cvms(&["grants: [{ keys: b, may: probe }]", "wait: 0"]),
        &[],
    );
    finds(&cvms(&["grants: [{ keys: b }]"]), &[]);
}

#[test]
fn capfiles_count_as_published() {
    let capfiles = "capfiles:\n  - { name: test1, size: 20 }\n  - { name: other, size: 20 }\n";
    let text = cvms(&[
        "grants: [{ kind: file, keys: \"test?\", may: probe }, { kind: stream, keys: other, may: probe }]",
    ]);
    finds(
        &format!("{text}{capfiles}"),
        &[
            (Warning, 2, "may use a stream `other`"),
            (Warning, 5, "no cVM may use the capfile `other`"),
        ],
    );
}

#[test]
fn the_schema_is_up_to_date_and_has_every_key() {
    let text = capstream_config::schema();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let sections = schema["$defs"].as_object().unwrap();
    assert_eq!(sections.len(), Section::ALL.len());
    let of = |key: &str| {
        let holders = sections
            .values()
            .filter(|section| section["properties"].get(key).is_some());
        holders.count()
    };
    for key in KEYS {
        let same = KEYS.iter().filter(|other| other.name == key.name).count();
        assert_eq!(of(key.name), same, "{}", key.name);
    }
    let cvm = &sections["cvm"];
    assert_eq!(cvm["additionalProperties"], false);
    assert_eq!(cvm["required"], serde_json::json!(["name", "args"]));
    assert_eq!(cvm["properties"]["restart"]["enum"][1], "on-failure");
    assert_eq!(
        cvm["properties"]["portal_deadline"]["anyOf"][0]["maximum"],
        60_000
    );
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../docs/deployment.schema.json");
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        text,
        "run `cargo run -p capstream-config --example schema > docs/deployment.schema.json`"
    );
}
