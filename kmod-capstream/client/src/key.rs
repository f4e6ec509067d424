// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names under which endpoints and ranges are published.

use std::fmt;

use crate::Error;

/// Bytes of the longest key.
pub const KEY_LEN: usize = 10;

/// A key: 1 to [`KEY_LEN`] bytes, none of them NUL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    padded: [u8; KEY_LEN],
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// [`Error::InvalidKey`]. The devices would cut a longer key at its tenth byte; here that is an error.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Key, Error> {
        let bytes = bytes.as_ref();
        let mut padded = [0; KEY_LEN];
        match padded.get_mut(..bytes.len()) {
            Some(begin) if !bytes.is_empty() && !bytes.contains(&0) => {
                begin.copy_from_slice(bytes);
                Ok(Key { padded })
            }
            _ => Err(Error::InvalidKey {
                key: String::from_utf8_lossy(bytes).into_owned(),
            }),
        }
    }

    /// Without padding.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self
            .padded
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(KEY_LEN);
        &self.padded[..len]
    }

    /// As the devices take it: padded with NULs.
    pub(crate) fn padded(&self) -> &[u8; KEY_LEN] {
        &self.padded
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key(\"{self}\")")
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Key, Error> {
        Key::new(text)
    }
}
