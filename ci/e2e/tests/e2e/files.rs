// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CAP_File: a buffer of the monitor, and the memory of one cVM in another.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

/// The published run: a capfile of the monitor's, read and overwritten.
#[test]
fn capfile() {
    let outcome = runs::succeed(
        &Deployment::new("capfile")
            .cvm(Cvm::new("user", "/ld.so /app/cap_file"))
            .capfile("test1", 0x20, "Hello world\\n"),
    );
    let text = outcome.output().collect::<Vec<_>>().join("\n");
    let expected = "read 32 bytes ('Hello world\n') from cap_file with key 'test1'\n\
                    wrote 12 bytes\n\
                    read 32 bytes ('cap filler\n') from cap_file with key 'test1'";
    assert!(text.contains(expected), "printed:\n{}", outcome.printed());
}

/// The next user of a capfile sees what the one before wrote.
#[test]
fn capfile_of_two_users() {
    let outcome = runs::succeed(
        &Deployment::new("capfile_of_two_users")
            .cvm(Cvm::new("first", "/ld.so /app/cap_file shared").wait(-1))
            .cvm(Cvm::new("second", "/ld.so /app/cap_file shared"))
            .capfile("shared", 0x20, "before"),
    );
    let first = |cvm| outcome.output_of(cvm).next().map(str::to_owned);
    assert_eq!(
        first("first").as_deref(),
        Some("read 32 bytes ('before') from cap_file with key 'shared'")
    );
    assert_eq!(
        first("second").as_deref(),
        Some("read 32 bytes ('cap filler"),
        "{}",
        outcome.printed()
    );
}

fn shared(name: &str, publish: &str, publisher_first: bool) {
    shared_with(name, publish, "use", publisher_first);
}

fn shared_with(name: &str, publish: &str, user: &str, publisher_first: bool) {
    let publisher = Cvm::new("publisher", &format!("/ld.so /tests/file_share {publish}"));
    let user = Cvm::new("user", &format!("/ld.so /tests/file_share {user}"));
    let (first, second) = if publisher_first {
        (publisher, user)
    } else {
        (user, publisher)
    };
    let outcome = runs::succeed(&Deployment::new(name).cvm(first).cvm(second));
    runs::assert_checks(outcome.output_of("publisher"), 5, &outcome.printed());
    runs::assert_checks(outcome.output_of("user"), 6, &outcome.printed());
}

/// Two cVMs share a range until its publisher takes it back.
#[test]
fn shared_until_revoked() {
    shared("shared_until_revoked", "publish", true);
}

/// The same with the user started first.
#[test]
fn shared_until_revoked_user_first() {
    shared("shared_until_revoked_user_first", "publish", false);
}

/// A range is stale when its publisher's cVM has ended.
#[test]
fn shared_until_publisher_ends() {
    shared("shared_until_publisher_ends", "publish-and-end", true);
}

/// A poll that waits is told that a range was taken back, and that its publisher's cVM has ended.
#[test]
fn poll_tells_the_end() {
    shared_with("poll_tells_a_revocation", "publish", "watch", true);
    shared_with("poll_tells_an_end", "publish-and-end", "watch", true);
}
