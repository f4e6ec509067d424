// SPDX-License-Identifier: GPL-2.0-only
//! Arguments of requests.

use capstream_abi::KEY_LEN;
use capstream_core::requests::{BellStats, FileStats, Message, StreamStats};
use capstream_core::{Errno, Key, Result};
use kernel::types::AsBytes;
use kernel::uaccess::UserSlice;

/// An `int` that was passed by value: the upper half of the register is whatever the program left there.
pub(crate) fn int(argument: usize) -> i32 {
    argument as i32
}

/// A key of the calling program. Not a byte after its end is looked at. `EFAULT`, `EINVAL` when it is empty.
pub(crate) fn key(address: usize) -> Result<Key> {
    let mut bytes = [0; KEY_LEN];
    let mut reader = UserSlice::new(address, KEY_LEN).reader();
    for byte in &mut bytes {
        reader
            .read_slice(core::slice::from_mut(byte))
            .map_err(|_| Errno::FAULT)?;
        if *byte == 0 {
            break;
        }
    }
    Key::new(&bytes)
}

/// A number that the calling program wrote. `EFAULT`.
pub(crate) fn number(address: usize) -> Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    UserSlice::new(address, bytes.len())
        .reader()
        .read_slice(&mut bytes)
        .map_err(|_| Errno::FAULT)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// What a program can be told: an integer, or a structure of the public header.
///
/// # Safety
/// It is made of integers without gaps between them.
pub(crate) unsafe trait Answer {}
// SAFETY: an integer.
unsafe impl Answer for u64 {}
// SAFETY: made of integers without gaps, which the tests of the core check.
unsafe impl Answer for Message {}
// SAFETY: as above.
unsafe impl Answer for StreamStats {}
// SAFETY: as above.
unsafe impl Answer for FileStats {}
// SAFETY: as above.
unsafe impl Answer for BellStats {}

#[repr(transparent)]
struct Bytes<T>(T);

// SAFETY: by the contract of `Answer`.
unsafe impl<T: Answer> AsBytes for Bytes<T> {}

/// Writes a value to the calling program's memory. `EFAULT`.
pub(crate) fn answer<T: Answer>(address: usize, value: T) -> Result<()> {
    UserSlice::new(address, size_of::<T>())
        .writer()
        .write(&Bytes(value))
        .map_err(|_| Errno::FAULT)
}
