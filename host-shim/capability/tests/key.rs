// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keys as guests and files write them.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use capstream_capability::{Key, KeyError};
use proptest::prelude::*;

const EINVAL: i32 = 22;

#[test]
fn ends_at_the_first_nul_or_the_tenth_byte() {
    assert_eq!(
        Key::parse(*b"key1\0\0\0\0\0\0").unwrap().as_bytes(),
        b"key1"
    );
    assert_eq!(
        Key::parse(*b"0123456789").unwrap().as_bytes(),
        b"0123456789"
    );
    assert_eq!(
        Key::parse(*b"key1\0junk!").unwrap(),
        Key::from_name("key1").unwrap()
    );
}

#[test]
fn empty_and_long_ones_are_einval() {
    assert_eq!(Key::parse([0; 10]), Err(KeyError::Empty));
    assert_eq!(Key::parse(*b"\0abcdefghi"), Err(KeyError::Empty));
    for name in ["", "01234567890", "a\0b"] {
        assert_eq!(Key::from_name(name).unwrap_err().errno(), EINVAL);
    }
    assert!(
        Key::from_name("01234567890")
            .unwrap_err()
            .to_string()
            .contains("has 11 bytes; use 1 to 10")
    );
}

#[test]
fn prints_bytes_that_are_not_text_escaped() {
    let key = Key::parse([0xff, b'a', b'\n', 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(key.to_string(), "\\xffa\\n");
    assert_eq!(format!("{key:?}"), "Key(\"\\xffa\\n\")");
}

proptest! {
    #[test]
    fn is_the_prefix_before_the_nul(raw in any::<[u8; 10]>()) {
        let expected: Vec<u8> = raw.iter().copied().take_while(|&byte| byte != 0).collect();
        match Key::parse(raw) {
            Ok(key) => prop_assert_eq!(key.as_bytes(), expected),
            Err(error) => {
                prop_assert_eq!(error, KeyError::Empty);
                prop_assert!(expected.is_empty());
            }
        }
    }
}
