// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The name under which something is published.

use std::fmt;

use capstream_abi::KEY_LEN;

use crate::errno;

/// Why bytes are not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no byte before the first NUL.
    #[error("the key is empty; use 1 to {KEY_LEN} bytes")]
    Empty,
    /// It is longer than a key can be.
    #[error("the key `{key}` has {len} bytes; use 1 to {KEY_LEN}")]
    TooLong {
        /// The key.
        key: String,
        /// Its length in bytes.
        len: usize,
    },
    /// A NUL byte would end it early.
    #[error("the key `{key}` contains a NUL byte, which would end it")]
    Nul {
        /// The key, escaped.
        key: String,
    },
}

impl KeyError {
    /// The Linux errno that a guest is given.
    pub const fn errno(&self) -> i32 {
        errno::EINVAL
    }
}

/// 1 to [`KEY_LEN`] bytes other than NUL. Bytes after the first NUL never count: two keys are the same when the bytes before it are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// The key in a guest's ten bytes, ended by a NUL or by the tenth byte.
    ///
    /// # Errors
    ///
    /// [`KeyError::Empty`] when the first byte is NUL.
    pub fn parse(raw: [u8; KEY_LEN]) -> Result<Key, KeyError> {
        let len = raw.iter().position(|&byte| byte == 0).unwrap_or(KEY_LEN);
        if len == 0 {
            return Err(KeyError::Empty);
        }
        let mut key = [0; KEY_LEN];
        for (to, from) in key.iter_mut().zip(raw.iter().take(len)) {
            *to = *from;
        }
        Ok(Key(key))
    }

    /// The key with this name.
    ///
    /// # Errors
    ///
    /// [`KeyError::Empty`], [`KeyError::TooLong`], [`KeyError::Nul`].
    pub fn from_name(name: &str) -> Result<Key, KeyError> {
        if name.len() > KEY_LEN {
            return Err(KeyError::TooLong {
                key: name.escape_debug().to_string(),
                len: name.len(),
            });
        }
        if name.contains('\0') {
            return Err(KeyError::Nul {
                key: name.escape_debug().to_string(),
            });
        }
        let mut raw = [0; KEY_LEN];
        for (to, from) in raw.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Key::parse(raw)
    }

    /// The bytes before the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(\"{self}\")")
    }
}
