// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `monitor run --image`: a program in a cVM is to whoever calls it as any other program.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use capstream_e2e::{Ended, Program};

use crate::runs;

const LIMIT: Duration = Duration::from_secs(60);
const STANDARD: &str = "/static/tests/standard";

fn program(name: &str, words: &[&str]) -> Program {
    let all = [&[STANDARD], words].concat();
    Program::new(&runs::environment(), name, &all)
}

fn run(program: &Program) -> Ended {
    let environment = runs::environment();
    match program.run(&environment, environment.limit(LIMIT)) {
        Ok(ended) => ended,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes of all values, no two pieces the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_ne_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn bytes_pass_as_they_are() {
    let bytes = noise((5 << 20) / runs::volume(10) * 10 + 1);
    let ended = run(&program("bytes_pass", &["copy"]).input(bytes.clone()));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
    assert!(ended.output == bytes, "{} bytes came", ended.output.len());
    assert_eq!(ended.errors, "");
    let ended = run(&program("no_bytes_pass", &["copy"]));
    assert_eq!((ended.status.code(), ended.output.len()), (Some(0), 0));
}

#[test]
fn files_as_streams() {
    let environment = runs::environment();
    let folder = environment.output.join("files_as_streams");
    std::fs::create_dir_all(&folder).unwrap();
    let bytes = noise(100_000);
    std::fs::write(folder.join("input"), &bytes).unwrap();
    let status = program("files_as_streams", &["copy"])
        .command(&environment)
        .unwrap()
        .stdin(File::open(folder.join("input")).unwrap())
        .stdout(File::create(folder.join("output")).unwrap())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(std::fs::read(folder.join("output")).unwrap() == bytes);
}

#[test]
fn output_and_error_are_apart() {
    let ended = run(&program("apart", &["both", "to output", "to error\r\n"]));
    assert_eq!(ended.output, b"to output");
    assert_eq!(ended.errors, "to error\r\n");
}

/// A million numbers on the platform of every day.
#[test]
fn much_output() {
    let count = runs::volume(1_000_000);
    let ended = run(&program("much_output", &["numbers", &count.to_string()]));
    let wanted: String = (1..=count).map(|number| format!("{number}\n")).collect();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
    assert!(ended.output == wanted.as_bytes());
}

#[test]
fn arguments_and_environment() {
    let words = ["describe", "", "a b", "'\"$x\\", "--image", "é\n\t"];
    let options = [
        "--env",
        "A=b c=d",
        "--env",
        "EMPTY=",
        "--directory",
        "/tests",
        "--hostname",
        "machine.x",
    ];
    let ended = run(&program("arguments", &words).options(&options));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
    let said = String::from_utf8(ended.output.clone()).unwrap();
    assert!(
        said.starts_with(
            "argument <>\nargument <a b>\nargument <'\"$x\\>\nargument <--image>\nargument <é\n\t>\nvariable "
        ),
        "{said}"
    );
    for line in [
        "variable <A=b c=d>",
        "variable <EMPTY=>",
        "variable <HOME=/>",
        "variable <TERM=linux>",
        "folder </tests>",
        "user 0 0 0 0",
        "machine <machine.x>",
    ] {
        assert!(ended.has_line(line), "{line}: {said}");
    }
    let paths = ended.lines();
    let paths = paths
        .iter()
        .filter(|line| line.starts_with("variable <PATH="));
    assert_eq!(paths.count(), 1);
}

/// More than a page of them.
#[test]
fn long_arguments() {
    let long = "x".repeat(20_000);
    let mut words = vec!["describe", long.as_str()];
    words.extend(["y"; 1000]);
    let ended = run(&program("long_arguments", &words));
    assert!(
        ended.has_line(&format!("argument <{long}>")),
        "{}",
        ended.errors
    );
    assert_eq!(
        ended
            .lines()
            .iter()
            .filter(|line| *line == "argument <y>")
            .count(),
        1000
    );
    let ended = run(&program(
        "too_long_arguments",
        &["describe", &"x".repeat(40_000)],
    ));
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.errors.contains("32768 fit"), "{}", ended.errors);
}

#[test]
fn the_exit_status_is_passed_on() {
    for (what, number, status) in [
        ("exit", "0", 0),
        ("exit", "200", 200),
        ("signal", "11", 139),
    ] {
        let ended = run(&program("exit_status", &[what, number]));
        assert_eq!(ended.status.code(), Some(status), "{}", ended.errors);
        assert_eq!(ended.errors, "");
    }
}

/// Where a program is looked for, and what is said when it does not start.
#[test]
fn what_cannot_be_started() {
    let environment = runs::environment();
    let start = |name: &str, word: &str, options: &[&str]| {
        run(&Program::new(&environment, name, &[word]).options(options))
    };
    let ended = start(
        "in_path",
        "standard",
        &["--env", "PATH=/nothing:/static/tests"],
    );
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        ended.errors.contains("nothing that it does"),
        "{}",
        ended.errors
    );
    for (word, options, status, said) in [
        (
            "/no/such/program",
            &[][..],
            127,
            "/no/such/program (it was not found)",
        ),
        (
            "standard",
            &["--env", "PATH=/app"],
            127,
            "standard (it was not found)",
        ),
        ("/static", &[], 126, "/static (permission denied)"),
        (STANDARD, &["--directory", "/nowhere"], 127, "/nowhere"),
        (STANDARD, &["--user", "nobody"], 126, "the user nobody"),
    ] {
        let ended = start("not_started", word, options);
        assert_eq!(
            ended.status.code(),
            Some(status),
            "{word}: {}",
            ended.errors
        );
        assert!(ended.errors.contains(said), "{word}: {}", ended.errors);
        assert_eq!(ended.output, b"");
    }
    let missing = environment.output.join("no-such.img");
    let ended = run(&program("no_image", &["copy"]).image(&missing));
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.errors.contains("no-such.img"), "{}", ended.errors);
}

#[test]
fn as_another_user() {
    let ended = run(&program("user_by_number", &["describe"]).options(&["--user", "1000:7"]));
    assert!(ended.has_line("user 1000 1000 7 7"), "{:?}", ended.lines());
    let copied = run(&program("user_copies", &["copy"])
        .options(&["--user", "1000"])
        .input(b"x".to_vec()));
    assert_eq!(copied.output, b"x", "{}", copied.errors);
}

/// Whoever reads the output goes: the program gets the signal, or the error.
#[test]
fn nobody_reads() {
    let environment = runs::environment();
    for (what, status) in [("endless", 128 + 13), ("ignore-pipe", 32)] {
        let mut child = program("nobody_reads", &[what])
            .command(&environment)
            .unwrap()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status));
    }
    let full = program("full", &["ignore-pipe"])
        .command(&environment)
        .unwrap()
        .stdin(Stdio::null())
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(full.code(), Some(28));
}

/// While a program waits for input its cVM goes on, and no more is read than it asks for.
#[test]
fn waiting_for_input() {
    let environment = runs::environment();
    let mut child = program("waiting", &["wait"])
        .command(&environment)
        .unwrap()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "waiting");
    assert_eq!(said.next().unwrap().unwrap(), "still waiting");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"x").unwrap();
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    // Only now its end.
    drop(input);
    assert!(child.wait().unwrap().success());
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "after many ticks: x");
    assert!(lines[1].contains("unavailable"), "{output}");
}

#[test]
fn streams_can_be_opened_again() {
    let ended = run(&program("opened_again", &["terminal"]));
    for stream in ["stdin", "stdout", "stderr"] {
        let line = format!("/dev/{stream}: stream, open again");
        assert!(ended.errors.contains(&line), "{}", ended.errors);
    }
}

/// What the monitor says, even much of it, is not in the program's output.
#[test]
fn verbose_output_is_apart() {
    let ended = run(&program("verbose", &["both", "out", "err"]).options(&["--verbose"]));
    assert_eq!(ended.output, b"out");
    assert!(ended.errors.contains("BUILDING cvm"), "{}", ended.errors);
    assert!(ended.errors.contains("Linux version"), "{}", ended.errors);
}

#[test]
fn memory_is_as_asked() {
    let environment = runs::environment();
    for (size, least, most) in [("64M", 40 << 20, 64 << 20), ("512M", 450 << 20, 512 << 20)] {
        let words = ["/static/tests/tree", "total-memory"];
        let ended = run(&Program::new(&environment, "memory", &words).options(&["--memory", size]));
        let bytes: u64 = ended.lines()[0].parse().unwrap();
        assert!((least..=most).contains(&bytes), "{size}: {bytes}");
    }
}
