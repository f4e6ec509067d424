// SPDX-License-Identifier: GPL-2.0-only
//! Keys that name endpoints and published ranges.

use crate::{Errno, Result};
use capstream_abi::KEY_LEN;
use heapless::Vec;

/// A key: 1 to [`KEY_LEN`] bytes, none of them NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<u8, KEY_LEN>);

impl Key {
    /// Takes the bytes up to the first NUL or the tenth byte; `EINVAL` when there are none.
    pub fn new(bytes: &[u8]) -> Result<Key> {
        let mut key = Vec::new();
        for byte in bytes.iter().take_while(|byte| **byte != 0) {
            if key.push(*byte).is_err() {
                break;
            }
        }
        if key.is_empty() {
            Err(Errno::INVAL)
        } else {
            Ok(Key(key))
        }
    }

    /// Without padding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As hostcalls take it: padded with NULs.
    pub fn padded(&self) -> [u8; KEY_LEN] {
        let mut bytes = [0; KEY_LEN];
        for (to, from) in bytes.iter_mut().zip(&self.0) {
            *to = *from;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_a_nul_or_at_the_tenth_byte() {
        assert_eq!(Key::new(b"key1\0rest").unwrap().as_bytes(), b"key1");
        assert_eq!(
            Key::new(b"0123456789abc").unwrap().as_bytes(),
            b"0123456789"
        );
        assert_eq!(Key::new(b"k").unwrap().padded(), *b"k\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn empty_is_refused() {
        assert_eq!(Key::new(b""), Err(Errno::INVAL));
        assert_eq!(Key::new(b"\0key"), Err(Errno::INVAL));
    }
}
