// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why there is no disk.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an image file cannot be used as a disk.
#[derive(Debug, Error)]
pub enum BlockError {
    /// It cannot be opened.
    #[error("cannot open the disk image '{}' for {}: {source}", path.display(), if *read_only { "reading" } else { "reading and writing" })]
    Open {
        /// The file.
        path: PathBuf,
        /// Whether it was to be opened for reading only.
        read_only: bool,
        /// The host's reason.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("the disk image '{}' is neither a regular file nor a block device", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else has it locked.
    #[error(
        "the disk image '{}' is in use by another cVM or monitor; give each its own copy, or let all of them use it read-only",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be locked.
    #[error("cannot lock the disk image '{}': {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// Its size cannot be found out.
    #[error("cannot find out the size of the disk image '{}': {source}", path.display())]
    Measure {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// It has no bytes.
    #[error("the disk image '{}' is empty; make it with a file system in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its size is not in whole sectors.
    #[error("the disk image '{}' has {size} bytes, which is not a multiple of 512; it may be cut off, or not be a disk image", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}
