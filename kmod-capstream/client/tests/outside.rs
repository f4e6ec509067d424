// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the crate says where there is no cVM around the program.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends by a panic that says what is wrong"
)]

use std::io;

use capstream_client::{CapFile, Error, KEY_LEN, Key, Receiver, Sender};

#[test]
fn no_node() {
    let error = Receiver::open(1).unwrap_err();
    assert!(matches!(error, Error::NoNode { .. }), "{error}");
    assert!(error.to_string().contains("/cap/ch1 is not there"));
    let error = CapFile::open(7).unwrap_err();
    assert!(error.to_string().contains("/cap/cf7"));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
}

#[test]
fn other_files_get_no_requests() {
    for path in ["/dev/null", "/tmp", "/proc/self/exe"] {
        let error = Sender::open_path(path).unwrap_err();
        let refused = matches!(error, Error::WrongNode { .. } | Error::Other { .. });
        assert!(refused && error.to_string().contains(path), "{error}");
    }
}

#[test]
fn keys() {
    assert_eq!(Key::new("key1").unwrap().as_bytes(), b"key1");
    assert_eq!(
        Key::new([7; KEY_LEN]).unwrap().to_string(),
        "\\x07".repeat(10)
    );
    assert_eq!(Key::try_from("k").unwrap(), Key::new(b"k").unwrap());
    for wrong in ["", "12345678901", "a\0"] {
        let error = Key::new(wrong).unwrap_err();
        assert!(error.to_string().contains("1 to 10 bytes"), "{error}");
    }
}
