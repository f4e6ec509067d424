// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks that are only read, with what is written kept elsewhere; and images that a user has made.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capstream_e2e::environment::checkout;
use capstream_e2e::{Deployment, Ended, Program};

use crate::runs;

const LIMIT: Duration = Duration::from_secs(60);
const TREE: &str = "/static/tests/tree";

/// A disk image in a folder of its own.
fn image(name: &str) -> PathBuf {
    let environment = runs::environment();
    let folder = environment.output.join(format!("{name}.images"));
    // It may be left by an earlier run.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let image = folder.join("base.ext4");
    fs::copy(environment.images.join("tests.ext4"), &image).unwrap();
    image
}

fn program(name: &str, image: &Path, words: &[&str]) -> Program {
    let all = [&[TREE], words].concat();
    Program::new(&runs::environment(), name, &all).image(image)
}

fn run(program: &Program) -> Ended {
    let environment = runs::environment();
    match program.run(&environment, environment.limit(LIMIT)) {
        Ok(ended) => ended,
        Err(error) => panic!("{error}"),
    }
}

fn run_well(program: &Program) -> Vec<String> {
    let ended = run(program);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
    ended.lines()
}

fn assert_is_whole(image: &Path) {
    let checked = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
}

/// A program that has written and holds on until its input ends.
fn hold(image: &Path, text: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = program("share", image, &["hold", "/tests/standard", text])
        .command(&runs::environment())
        .unwrap()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "written\n");
    (child, output)
}

#[test]
fn several_share_an_image_at_once() {
    let image = image("share");
    let before = fs::read(&image).unwrap();
    let mut running: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|text| (text, hold(&image, text)))
        .collect();
    // All of them run and have written; nobody may write to it now.
    let refused =
        run(&program("share_refused", &image, &["list", "/tests"]).options(&["--writable"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.errors.contains("in use"), "{}", refused.errors);
    for (text, (child, output)) in &mut running {
        drop(child.stdin.take());
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!(" \"{text}\"\n"));
        assert!(child.wait().unwrap().success());
    }
    assert!(fs::read(&image).unwrap() == before, "the image has changed");
}

/// The same within one monitor, without places for the cVMs in its file.
#[test]
fn several_of_one_deployment_share_an_image() {
    let environment = runs::environment();
    let image = image("deployment");
    let before = fs::read(&image).unwrap();
    let upper = image.with_file_name("upper.ext4");
    let mut text = String::from("cVMs:\n");
    for (name, overlay) in [
        ("one", "memory"),
        ("two", "memory"),
        ("three", "upper.ext4"),
    ] {
        text += &format!(
            "  - name: {name}\n    disk: {}\n    runtime: RUNTIME\n    overlay: {}\n    limits: {{ memory: 64M }}\n    env: [TEXT=x y, B=2]\n    hostname: h-{name}\n    args: [{TREE}, write, /cap-test, {name}, --, list, /cap-test]\n",
            image.display(),
            if overlay == "memory" {
                overlay.to_owned()
            } else {
                upper.display().to_string()
            },
        );
    }
    let outcome = runs::run(&Deployment::new("share_in_deployment").yaml(&text));
    assert_eq!(outcome.code(), 0, "{}", outcome.printed());
    for name in ["one", "two", "three"] {
        let lines: Vec<&str> = outcome.output_of(name).collect();
        assert_eq!(lines.len(), 1, "{}", outcome.printed());
        assert!(
            lines[0].ends_with(&format!("/cap-test \"{name}\"")),
            "{lines:?}"
        );
    }
    assert!(fs::read(&image).unwrap() == before, "the image has changed");
    assert_is_whole(&upper);
    let _ = environment;
}

#[test]
fn changes_on_a_disk_persist() {
    let image = image("persist");
    let before = fs::read(&image).unwrap();
    let upper = image.with_file_name("upper.ext4");
    let upper_text = upper.display().to_string();
    let options = ["--overlay", upper_text.as_str(), "--overlay-size", "32M"];
    let words = [
        "write",
        "/new",
        "1",
        "--",
        "write",
        "/tests/standard",
        "2",
        "--",
        "rename",
        "/app",
        "/moved",
        "--",
        "remove",
        "/static/app/hello",
    ];
    run_well(&program("persist", &image, &words).options(&options));
    assert_eq!(fs::metadata(&upper).unwrap().len(), 32 << 20);
    assert_is_whole(&upper);
    let words = [
        "list",
        "/new",
        "--",
        "list",
        "/tests/standard",
        "--",
        "list",
        "/moved/hello",
    ];
    let lines = run_well(&program("persist", &image, &words).options(&options));
    assert!(lines[0].ends_with("/new \"1\""), "{lines:?}");
    assert!(lines[1].ends_with("/tests/standard \"2\""), "{lines:?}");
    assert!(lines[2].ends_with("/moved/hello"), "{lines:?}");
    let gone = run(&program("persist", &image, &["list", "/static/app/hello"]).options(&options));
    assert_eq!(gone.status.code(), Some(1));
    // Without it, nothing of that is there, and the image is as it was.
    let words = ["list", "/app/hello", "--", "list", "/static/app/hello"];
    assert_eq!(run_well(&program("persist", &image, &words)).len(), 2);
    assert!(fs::read(&image).unwrap() == before, "the image has changed");
    // It belongs to this image: with another it would make no sense.
    let other = image.with_file_name("other.ext4");
    fs::copy(runs::environment().images.join("examples.ext4"), &other).unwrap();
    let words = ["/static/app/hello"];
    let refused = run(&Program::new(&runs::environment(), "persist", &words)
        .image(&other)
        .options(&options));
    assert_eq!(refused.status.code(), Some(126));
    assert!(
        refused.errors.contains("another image"),
        "{}",
        refused.errors
    );
}

/// A folder that replaces one of the image hides what was in that.
#[test]
fn changes_in_memory_are_complete() {
    let image = image("complete");
    let words = [
        "remove",
        "/tests/standard",
        "--",
        "rename",
        "/tests",
        "/elsewhere",
        "--",
        "make",
        "/tests",
        "--",
        "list",
        "/tests",
    ];
    let lines = run_well(&program("complete", &image, &words));
    assert_eq!(lines.len(), 1, "{lines:?}");
    // Nor can the disk itself be written to.
    let lines = run_well(&program("complete", &image, &["try-write", "/dev/vda"]));
    assert_eq!(lines, ["/dev/vda: Operation not permitted"]);
}

#[test]
fn a_writable_image_keeps_what_is_written() {
    let image = image("writable");
    run_well(&program("writable", &image, &["write", "/new", "kept"]).options(&["--writable"]));
    assert_is_whole(&image);
    let lines = run_well(&program("writable", &image, &["list", "/new"]));
    assert!(lines[0].ends_with("/new \"kept\""), "{lines:?}");
}

/// A folder becomes an image, and a cVM sees it as it was.
#[test]
fn an_image_of_a_folder() {
    let environment = runs::environment();
    let folder = environment.output.join("folder.images");
    let _ = fs::remove_dir_all(&folder);
    let source = folder.join("source");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::create_dir_all(source.join("etc")).unwrap();
    fs::copy(
        environment.images.join("static/tests/tree"),
        source.join("bin/tree"),
    )
    .unwrap();
    fs::copy(
        environment.images.join("static/tests/standard"),
        source.join("bin/standard"),
    )
    .unwrap();
    fs::write(
        source.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1001:Me:/home/me:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        source.join("etc/group"),
        "root:x:0:\nme:x:1001:\nstaff:x:50:you,me\nother:x:51:you\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("bin/tree", source.join("link")).unwrap();
    fs::hard_link(source.join("etc/group"), source.join("etc/same")).unwrap();
    let image = folder.join("made.img");
    let tool = checkout().join("disk-image/make-image");
    let made = Command::new(tool)
        .args(["--free", "8M", "--from"])
        .arg(&source)
        .arg("-o")
        .arg(&image)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let run_in = |name: &str, words: &[&str], options: &[&str]| {
        let program = Program::new(&environment, name, words).image(&image);
        run_well(&program.options(options))
    };
    let lines = run_in(
        "made",
        &["/link", "list", "/etc", "--", "list", "/link"],
        &[],
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("100644 0:0 2 ") && line.contains("/etc/same ")),
        "{lines:?}"
    );
    assert!(
        lines.last().unwrap().ends_with("/link -> bin/tree"),
        "{lines:?}"
    );
    // Users are those of the image.
    let lines = run_in("made", &["standard", "describe"], &["--user", "me"]);
    for line in [
        "user 1000 1000 1001 1001",
        "group 50",
        "variable <HOME=/home/me>",
        "machine <made>",
    ] {
        assert!(lines.iter().any(|known| known == line), "{line}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line == "group 51"), "{lines:?}");
    let lines = run_in("made", &["standard", "describe"], &["--user", "me:staff"]);
    assert!(
        lines.iter().any(|line| line == "user 1000 1000 50 50"),
        "{lines:?}"
    );
    let lines = run_in("made", &["standard", "describe"], &[]);
    assert!(
        lines.iter().any(|line| line == "variable <HOME=/root>"),
        "{lines:?}"
    );
}
