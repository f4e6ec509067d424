// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Good files, and every way in which a file can be bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use capstream_config::{
    ConfigError, Deployment, Isolation, KEYS, KeyDescription, Link, Overlay, Section, Wait,
};
use proptest::prelude::*;

const FILE: &str = "dir/yaml.cfg";

/// A file that is good, one key in a line.
const GOOD: &str = r#"cVMs:
  - name: receiver
    disk: receiver.img
    runtime: /opt/runtime
    args: /ld.so /app/cap_stream 3
    net: tap tap0
    wait: 1
    clean_room: 1
    callback_in: sender
    isolation:
      base: 0x20000000
      size: 0x10000000
      begin: 0x20001000
      end: 0x2ffff000
  - name: sender
    args:
      - /ld.so
      - /app/cap_stream
      - 4
    callback_out: receiver
    isolation:
      base: 0x30000000
      size: 0x10000000
capfiles:
  - name: test1
    size: 0x20
    data: "Hello world\n"
"#;

fn read(text: &str) -> Result<Deployment, ConfigError> {
    Deployment::from_str(text, FILE)
}

/// The good file with one line in place of another.
fn with(line: &str, instead: &str) -> Result<Deployment, ConfigError> {
    assert_eq!(GOOD.matches(line).count(), 1, "`{line}` is not one place");
    read(&GOOD.replace(line, instead))
}

/// It is refused with an error about that line which contains all of `parts`.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ConfigError>, line: usize, parts: &[&str]) {
    let error = result.expect_err("it should be refused");
    let message = error.to_string();
    assert_eq!(error.line(), Some(line), "{message}");
    let place = format!("{FILE}:{line}: ");
    assert!(message.starts_with(&place), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn every_key_is_read() {
    let deployment = read(GOOD).unwrap();
    let [receiver, sender] = deployment.cvms.as_slice() else {
        panic!("{deployment:?}");
    };
    assert_eq!(receiver.name, "receiver");
    assert_eq!(receiver.disk, Some(PathBuf::from("dir/receiver.img")));
    assert_eq!(receiver.runtime, Some(PathBuf::from("/opt/runtime")));
    assert_eq!(receiver.args, ["/ld.so", "/app/cap_stream", "3"]);
    let link = receiver.net.as_ref().map(|net| &net.link);
    assert_eq!(link, Some(&Link::Tap("tap0".to_owned())));
    assert_eq!(receiver.wait, Wait::Seconds(1));
    assert!(receiver.clean_room);
    assert_eq!(receiver.callback_in.as_deref(), Some("sender"));
    assert_eq!(receiver.callback_out, None);
    assert_eq!(
        receiver.isolation,
        Some(Isolation {
            base: 0x2000_0000,
            size: 0x1000_0000,
            begin: Some(0x2000_1000),
            end: Some(0x2fff_f000),
        })
    );
    assert_eq!(
        receiver.isolation.unwrap().bounds(),
        (0x2000_1000, 0x2fff_f000)
    );

    assert_eq!(sender.disk, None);
    assert_eq!(sender.runtime, None);
    assert_eq!(sender.args, ["/ld.so", "/app/cap_stream", "4"]);
    assert_eq!(sender.net, None);
    assert_eq!(sender.wait, Wait::None);
    assert!(!sender.clean_room);
    assert_eq!(sender.callback_in, None);
    assert_eq!(sender.callback_out.as_deref(), Some("receiver"));
    assert_eq!(
        sender.isolation.unwrap().bounds(),
        (0x3000_0000, 0x4000_0000)
    );

    let [capfile] = deployment.capfiles.as_slice() else {
        panic!("{deployment:?}");
    };
    assert_eq!(capfile.name, "test1");
    assert_eq!(capfile.size, 0x20);
    assert_eq!(capfile.data, b"Hello world\n");
}

#[test]
fn the_good_file_uses_every_key() {
    // What a cVM may, and how much, has a file of tests of its own; how its program starts, a test of its own.
    let others = [
        "overlay",
        "overlay_size",
        "env",
        "directory",
        "user",
        "hostname",
        "restart",
        "restart_delay",
        "stop_timeout",
        "portal_deadline",
        "grants",
        "limits",
    ];
    let elsewhere = |key: &&KeyDescription| {
        matches!(key.section, Section::Grant | Section::Limits | Section::Net)
            || others.contains(&key.name)
    };
    for key in KEYS.iter().filter(|key| !elsewhere(key)) {
        assert!(GOOD.contains(&format!("{}:", key.name)), "{}", key.name);
    }
}

#[test]
fn hexadecimal_numbers_are_hexadecimal_however_they_are_written() {
    for written in [
        "0x20000000",
        "20000000",
        "\"20000000\"",
        "'0x20000000'",
        "0X2000_0000",
    ] {
        let deployment = with("base: 0x20000000", &format!("base: {written}")).unwrap();
        assert_eq!(
            deployment.cvms[0].isolation.unwrap().base,
            0x2000_0000,
            "{written}"
        );
    }
    for written in [
        "0x",
        "x20",
        "0x2g",
        "-0x20000000",
        "+20000000",
        "_",
        "\"\"",
        "1e9.5",
        "[1]",
        "0x10000000000000000",
        "0x20000001",
    ] {
        refused(
            with("base: 0x20000000", &format!("base: {written}")),
            11,
            &["`base` is ", "hexadecimal", "0x1000"],
        );
    }
}

#[test]
fn wait_is_seconds_or_minus_one() {
    for (written, wait) in [
        ("0", Wait::None),
        ("-1", Wait::Join),
        ("\"7\"", Wait::Seconds(7)),
        ("4294967295", Wait::Seconds(u32::MAX)),
    ] {
        let deployment = with("wait: 1", &format!("wait: {written}")).unwrap();
        assert_eq!(deployment.cvms[0].wait, wait);
    }
    for written in [
        "-2",
        "4294967296",
        "1.5",
        "soon",
        "0x10",
        "99999999999999999999",
    ] {
        refused(
            with("wait: 1", &format!("wait: {written}")),
            7,
            &["`wait`", written, "seconds", "-1"],
        );
    }
}

#[test]
fn clean_room_is_a_switch() {
    for (written, on) in [("0", false), ("1", true), ("true", true), ("false", false)] {
        let deployment = with("clean_room: 1", &format!("clean_room: {written}")).unwrap();
        assert_eq!(deployment.cvms[0].clean_room, on);
    }
    refused(
        with("clean_room: 1", "clean_room: 2"),
        8,
        &["`clean_room` is `2`", "0 (the default) or 1"],
    );
}

#[test]
fn args_are_split_as_a_shell_does() {
    let args = |written: &str| {
        with(
            "args: /ld.so /app/cap_stream 3",
            &format!("args: {written}"),
        )
        .map(|deployment| deployment.cvms[0].args.clone())
    };
    assert_eq!(
        args(r#"sh -c 'echo "a  b"; exit 1' x\ y """#).unwrap(),
        ["sh", "-c", "echo \"a  b\"; exit 1", "x y", ""]
    );
    assert_eq!(args("[sh, -c, 'a b']").unwrap(), ["sh", "-c", "a b"]);
    refused(args("sh -c 'open"), 5, &["`args`", "quotes are closed"]);
    refused(args("\"  \""), 5, &["`args`", "a program"]);
    refused(args("[]"), 5, &["`args`", "a program"]);
    refused(args("['', a]"), 5, &["`args`", "a program"]);
    refused(args("\"a\\0b\""), 5, &["`args`", "NUL"]);
    refused(args("[a, [b]]"), 5, &["`args` is a list", "list of words"]);
    refused(args("{a: b}"), 5, &["`args` is a mapping"]);
}

#[test]
fn paths_are_in_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("yaml.cfg");
    std::fs::write(&path, GOOD).unwrap();
    let deployment = Deployment::from_file(&path).unwrap();
    assert_eq!(
        deployment.cvms[0].disk.as_deref(),
        Some(folder.path().join("receiver.img").as_path())
    );
    assert_eq!(
        deployment.cvms[0].runtime.as_deref(),
        Some(Path::new("/opt/runtime"))
    );
    let here = Deployment::from_str(GOOD, "yaml.cfg").unwrap();
    assert_eq!(
        here.cvms[0].disk.as_deref(),
        Some(Path::new("receiver.img"))
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.cfg");
    let error = Deployment::from_file(&missing).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("missing.cfg: cannot be read"));
    let error = Deployment::from_file(folder.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));

    let large = folder.path().join("large.cfg");
    std::fs::write(&large, "#".repeat((1 << 20) + 1)).unwrap();
    let error = Deployment::from_file(&large).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }));

    let latin = folder.path().join("latin.cfg");
    std::fs::write(&latin, b"# one\n# two\n# \xe4\n").unwrap();
    let error = Deployment::from_file(&latin).unwrap_err();
    assert_eq!(error.line(), Some(3));
    assert!(error.to_string().contains("latin.cfg:3: it is not UTF-8"));
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    for (line, instead, at, unknown, meant) in [
        (
            "    disk: receiver.img",
            "    dsik: receiver.img",
            3,
            "dsik",
            "disk",
        ),
        ("    net: tap tap0", "    Net: tap0", 6, "Net", "net"),
        (
            "clean_room: 1",
            "cleanroom: 1",
            8,
            "cleanroom",
            "clean_room",
        ),
        ("      begin: 0x2", "      begn: 0x2", 13, "begn", "begin"),
        ("capfiles:", "capfile:", 24, "capfile", "capfiles"),
        ("    data:", "    date:", 27, "date", "data"),
    ] {
        refused(
            with(line, instead),
            at,
            &[
                &format!("unknown key `{unknown}`"),
                &format!("did you mean `{meant}`?"),
            ],
        );
    }
    let error = read(&GOOD.replacen("cVMs:", "cvms:", 1));
    refused(error, 1, &["unknown key `cvms`", "did you mean `cVMs`?"]);
}

#[test]
fn an_unknown_key_like_no_other_lists_all() {
    refused(
        with("    net: tap tap0", "    hypervisor: tap0"),
        6,
        &[
            "unknown key `hypervisor` in a cVM",
            "`name`, `disk`, `overlay`",
        ],
    );
}

#[test]
fn a_key_twice_is_refused() {
    refused(
        with("    net: tap tap0", "    net: tap tap0\n    net: tap tap1"),
        7,
        &["`net`", "line 6"],
    );
}

#[test]
fn a_cvm_without_a_place_and_how_its_program_starts() {
    let text = "cVMs:\n  - name: a\n    disk: base.img\n    overlay: changes.img\n    overlay_size: 64M\n    args: b\n    env: [\"A=b c\", D=]\n    directory: /srv\n    user: me:staff\n    hostname: a.b-c\n  - { name: b, disk: base.img, overlay: memory, args: c, env: 'X=1 \"Y=2 3\"', limits: { memory: 1G } }\n  - { name: c, disk: own.img, overlay: none, args: d }\n";
    let deployment = read(text).unwrap();
    let [a, b, c] = deployment.cvms.as_slice() else {
        panic!("{deployment:?}");
    };
    assert_eq!(a.isolation, None);
    assert_eq!(a.overlay, Overlay::Disk("dir/changes.img".into()));
    assert_eq!(a.overlay_size, 64 << 20);
    assert_eq!(a.env, ["A=b c", "D="]);
    assert_eq!(a.directory.as_deref(), Some("/srv"));
    assert_eq!(a.user.as_deref(), Some("me:staff"));
    assert_eq!(a.hostname.as_deref(), Some("a.b-c"));
    assert_eq!(b.overlay, Overlay::Memory);
    assert_eq!(b.overlay_size, capstream_config::DEFAULT_OVERLAY_SIZE);
    assert_eq!(b.env, ["X=1", "Y=2 3"]);
    assert_eq!(b.limits.memory, Some(1 << 30));
    assert_eq!(c.overlay, Overlay::None);
    for (key, value, said) in [
        ("overlay", "memory", "a `disk` beside it"),
        ("overlay_size", "1M", "8M or more"),
        ("env", "A", "NAME=VALUE"),
        ("env", "=b", "NAME=VALUE"),
        ("directory", "srv", "an absolute path"),
        ("user", "'a b'", "/etc/passwd"),
        ("user", "'a:'", "/etc/passwd"),
        ("hostname", "a_b", "letters, digits"),
    ] {
        let text = format!("cVMs:\n  - name: a\n    args: b\n    {key}: {value}\n");
        refused(read(&text), 4, &[key, said]);
    }
}

#[test]
fn what_is_needed_and_missing_is_named() {
    let drop = |line: &str| with(line, "");
    refused(
        drop("    args: /ld.so /app/cap_stream 3\n"),
        2,
        &["the cVM `receiver` needs the key `args`", "words"],
    );
    refused(
        with("- name: receiver\n    disk", "- disk"),
        2,
        &["a cVM needs the key `name`"],
    );
    refused(
        drop("      base: 0x20000000\n"),
        11,
        &["`isolation` of the cVM `receiver` needs the key `base`"],
    );
    refused(
        with("      size: 0x10000000\n      begin", "      begin"),
        11,
        &["needs the key `size`"],
    );
    refused(
        drop("    size: 0x20\n"),
        25,
        &["the capfile `test1` needs the key `size`"],
    );
    refused(
        with("  - name: test1\n    size", "  - size"),
        25,
        &["a capfile needs the key `name`"],
    );
    refused(read(""), 1, &["the file needs the key `cVMs`"]);
    refused(read("# nothing\n"), 1, &["the file needs the key `cVMs`"]);
    refused(
        read("capfiles: []\n"),
        1,
        &["the file needs the key `cVMs`"],
    );
    refused(read("cVMs:\n"), 1, &["the file needs the key `cVMs`"]);
    refused(read("cVMs: []\n"), 1, &["`cVMs`", "at least one"]);
    // Written down, but empty.
    refused(
        with("args: /ld.so /app/cap_stream 3", "args:"),
        2,
        &["needs the key `args`"],
    );
    assert_eq!(
        with("disk: receiver.img", "disk: ~").unwrap().cvms[0].disk,
        None
    );
}

#[test]
fn names_of_cvms_differ() {
    refused(
        with("- name: sender", "- name: receiver"),
        15,
        &["`receiver`", "line 2"],
    );
    for name in ["monitor", "\"\"", "\"a\\nb\"", "[a]"] {
        refused(
            with("- name: sender", &format!("- name: {name}")),
            15,
            &["`name` is ", "a word, not `monitor`"],
        );
    }
}

#[test]
fn callbacks_name_other_cvms() {
    refused(
        with("callback_in: sender", "callback_in: nobody"),
        9,
        &["`callback_in` is `nobody`", "another cVM"],
    );
    refused(
        with("callback_in: sender", "callback_in: receiver"),
        9,
        &["`callback_in` is `receiver`", "another cVM"],
    );
    refused(
        with("callback_in: sender", "callback_in: monitor"),
        9,
        &["`callback_in` is `monitor`"],
    );
    refused(
        with("callback_out: receiver", "callback_out: sendr"),
        20,
        &["`callback_out` is `sendr`", "`monitor`"],
    );
    let deployment = with("callback_out: receiver", "callback_out: monitor").unwrap();
    assert_eq!(deployment.cvms[1].callback_out, None);
}

#[test]
fn ranges_are_whole_pages_of_a_size_that_works() {
    let range = |base: &str, size: &str| {
        with(
            "      base: 0x30000000\n      size: 0x10000000\ncap",
            &format!("      base: {base}\n      size: {size}\ncap"),
        )
    };
    range("0x30000000", "0x1000000").unwrap();
    range("0xfffffffffefff000", "0x1000000").unwrap();
    refused(range("0x30000800", "0x1000000"), 22, &["`base`", "0x1000"]);
    refused(range("0", "0x1000000"), 22, &["`base`", "0x10000 or more"]);
    refused(range("0xf000", "0x1000000"), 22, &["`base`"]);
    refused(range("0x30000000", "0x1000800"), 23, &["`size`"]);
    refused(
        range("0x30000000", "0xfff000"),
        23,
        &["`size` is `0xfff000`", "0x1000000 (16 MiB) or more"],
    );
    refused(range("0x30000000", "0"), 23, &["`size`"]);
    for (base, size) in [
        ("0xffffffffff000000", "0x1000000"),
        ("0xfffffffffffff000", "0x1000000"),
        ("0x30000000", "0xfffffffffffff000"),
    ] {
        refused(range(base, size), 23, &["`size`", "ends below 2^64"]);
    }
}

#[test]
fn ranges_do_not_overlap() {
    for (base, size) in [
        ("0x20000000", "0x10000000"),
        ("0x2ffff000", "0x10000000"),
        ("0x1f001000", "0x1000000"),
        ("0x24000000", "0x1000000"),
        ("0x10000000", "0x70000000"),
    ] {
        let result = with(
            "      base: 0x30000000\n      size: 0x10000000\ncap",
            &format!("      base: {base}\n      size: {size}\ncap"),
        );
        refused(
            result,
            22,
            &[
                "`isolation` of `sender`",
                "`receiver`",
                "line 11",
                "[0x20000000, 0x30000000)",
            ],
        );
    }
    with("base: 0x30000000", "base: 0x10000000").unwrap();
}

#[test]
fn bounds_lie_inside_the_range() {
    for begin in ["0x1ffff000", "0x2ffff000", "0x30000000", "0"] {
        refused(
            with("begin: 0x20001000", &format!("begin: {begin}")),
            13,
            &["`begin`", "0x20000000", "0x2ffff000"],
        );
    }
    for end in ["0x30001000", "0x20001000", "0x20000000"] {
        let error = with("end: 0x2ffff000", &format!("end: {end}")).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`end`") || message.contains("`begin`"),
            "{message}"
        );
        assert!(matches!(error, ConfigError::Value { .. }));
    }
    refused(
        with(
            "begin: 0x20001000\n      end: 0x2ffff000",
            "end: 0x30001000",
        ),
        13,
        &["`end`", "0x30000000 at most"],
    );
    refused(
        with("begin: 0x20001000", "begin: 0x20001008"),
        13,
        &["`begin`", "multiple of 0x1000"],
    );
    refused(
        with("end: 0x2ffff000", "end: 0x2ffff001"),
        14,
        &["`end`", "multiple of 0x1000"],
    );
    let deployment = with("begin: 0x20001000", "begin: 0x20000000").unwrap();
    assert_eq!(
        deployment.cvms[0].isolation.unwrap().begin,
        Some(0x2000_0000)
    );
}

#[test]
fn capfiles_fit_their_keys_and_sizes() {
    let capfile = |name: &str, size: &str, data: &str| {
        with(
            "  - name: test1\n    size: 0x20\n    data: \"Hello world\\n\"",
            &format!("  - name: {name}\n    size: {size}\n    data: {data}"),
        )
    };
    assert_eq!(
        capfile("0123456789", "2", "äx")
            .map(|_| ())
            .unwrap_err()
            .line(),
        Some(27),
        "three bytes do not fit into two"
    );
    let deployment = capfile("0123456789", "3", "äx").unwrap();
    assert_eq!(deployment.capfiles[0].data, "äx".as_bytes());
    assert_eq!(deployment.capfiles[0].name, "0123456789");
    assert_eq!(capfile("a", "10", "~").unwrap().capfiles[0].data, b"");
    assert_eq!(capfile("a", "10", "\"\"").unwrap().capfiles[0].size, 16);
    for name in ["01234567890", "\"\"", "\"a\\0b\"", "öööööö"] {
        refused(capfile(name, "0x20", "x"), 25, &["`name`", "1 to 10 bytes"]);
    }
    for size in ["0", "0x40000001", "-1", "big"] {
        refused(
            capfile("a", size, "x"),
            26,
            &["`size`", "0x40000000 (1 GiB)"],
        );
    }
    refused(
        capfile("a", "4", "12345"),
        27,
        &["`data` is 0x5 bytes long", "at most 0x4 bytes"],
    );
    refused(
        read(&format!("{GOOD}  - name: test1\n    size: 1\n")),
        28,
        &["`test1`", "line 25"],
    );
}

#[test]
fn what_is_not_understood_of_yaml_is_said() {
    refused(
        with("net: tap tap0", "net: &a tap0\n    wait: *a"),
        7,
        &["alias"],
    );
    refused(with("net: tap tap0", "net: !x tap0"), 6, &["tag"]);
    refused(
        read(&format!("{GOOD}---\n{GOOD}")),
        28,
        &["second document"],
    );
    refused(with("net: tap tap0", "[a]: tap0"), 6, &["a key is a list"]);
    refused(read("- a\n"), 1, &["the file is a list", "cVMs, capfiles"]);
    refused(read("hello\n"), 1, &["the file is `hello`"]);
    refused(read("cVMs: {}\n"), 1, &["`cVMs` is a mapping"]);
    refused(read("cVMs:\n  - hello\n"), 2, &["a cVM is `hello`"]);
    refused(with("data: \"Hello", "data: [\"Hello"), 28, &[]);
    let nested = |depth| format!("cVMs: {}{}\n", "[".repeat(depth), "]".repeat(depth));
    refused(read(&nested(20)), 1, &["nested more than 16 deep"]);
    refused(read(&nested(10_000)), 1, &[]);
    let indented: String = (0..3000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert!(matches!(read(&indented), Err(ConfigError::Syntax { .. })));
}

#[test]
fn a_syntax_error_has_its_line() {
    let error = read("cVMs:\n  - name: a\n   disk: b\n").unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }), "{error}");
    assert_eq!(error.line(), Some(3), "{error}");
    let error = read("cVMs:\n  - name: \"a\n").unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }), "{error}");
}

#[test]
fn the_reference_lists_every_key_and_is_up_to_date() {
    let reference = capstream_config::reference();
    for section in Section::ALL {
        for key in section.keys() {
            assert!(reference.contains(&format!("| `{}` | ", key.name)));
            assert!(!key.value.is_empty() && !key.meaning.is_empty());
        }
    }
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../docs/deployment-file.md");
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        reference,
        "run `cargo run -p capstream-config --example reference > docs/deployment-file.md`"
    );
}

/// A line of a file, more or less.
fn fragment() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(
            KEYS.iter()
                .map(|key| key.name.to_owned())
                .collect::<Vec<_>>()
        ),
        "[a-z]{0,12}",
        "-?(0x)?[0-9a-f]{1,20}",
        "[\\[\\]{}:,&*!|>'\"%@`#~ \\\\-]{1,6}",
        any::<String>(),
    ];
    (0..8_usize, prop::collection::vec(word, 1..5))
        .prop_map(|(indent, words)| format!("{}{}", " ".repeat(indent), words.join(": ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_makes_it_fail_otherwise_than_by_an_error(
        lines in prop::collection::vec(fragment(), 0..20),
    ) {
        let text = lines.join("\n");
        if let Err(error) = read(&text) {
            let line = error.line().unwrap_or(0);
            prop_assert!(line >= 1 && line <= text.lines().count() + 1, "{}", error);
        }
    }

    #[test]
    fn a_good_file_with_a_changed_line_is_good_or_refused_with_a_line(
        place in 0..27_usize,
        instead in fragment(),
        whole in any::<bool>(),
    ) {
        let text: Vec<String> = GOOD
            .lines()
            .enumerate()
            .map(|(index, line)| match (index == place, whole) {
                (false, _) => line.to_owned(),
                (true, true) => instead.clone(),
                (true, false) => {
                    let key = line.split_inclusive(": ").next().unwrap_or_default();
                    format!("{key}{}", instead.trim_start())
                }
            })
            .collect();
        match read(&text.join("\n")) {
            Ok(deployment) => prop_assert!(!deployment.cvms.is_empty()),
            Err(error) => {
                let line = error.line().unwrap_or(0);
                prop_assert!((1..=40).contains(&line) , "{}", error);
                let start = format!("{FILE}:{line}: ");
                prop_assert!(error.to_string().starts_with(&start), "{}", error);
            }
        }
    }

    #[test]
    fn accepted_ranges_keep_their_promises(
        ranges in prop::collection::vec(
            (0..64_u64, 0..8_u64, any::<bool>(), 0..0x20_u64, 0..0x20_u64),
            1..5,
        ),
    ) {
        let page = 0x80_0000_u64;
        let mut text = String::from("cVMs:\n");
        for (index, (base, size, bounded, begin, end)) in ranges.iter().enumerate() {
            let (base, size) = (base * page, size * page);
            text += &format!(
                "  - name: c{index}\n    args: a\n    isolation:\n      base: {base:#x}\n      size: {size:x}\n",
            );
            if *bounded {
                text += &format!("      begin: {:#x}\n", base + begin * 0x10_0000);
                text += &format!("      end: {:#x}\n", base + end * 0x10_0000);
            }
        }
        let valid = ranges.iter().enumerate().all(|(index, (base, size, bounded, begin, end))| {
            let bytes = size * 8;
            let alone = ranges.iter().take(index).all(|(other, length, ..)| {
                base + size <= *other || other + length <= *base
            });
            *base > 0 && *size >= 2 && alone && (!bounded || (begin < end && *end <= bytes))
        });
        match read(&text) {
            Ok(deployment) => {
                prop_assert!(valid, "{}", text);
                prop_assert_eq!(deployment.cvms.len(), ranges.len());
                for (cvm, (base, size, ..)) in deployment.cvms.iter().zip(&ranges) {
                    prop_assert_eq!(cvm.isolation.unwrap().base, base * page);
                    prop_assert_eq!(cvm.isolation.unwrap().size, size * page);
                    let (begin, end) = cvm.isolation.unwrap().bounds();
                    prop_assert!(cvm.isolation.unwrap().base <= begin && begin < end && end <= cvm.isolation.unwrap().top());
                }
            }
            Err(error) => prop_assert!(!valid, "{}\n{}", error, text),
        }
    }
}
