// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk image that keeps the changes of another one, made by mke2fs: a file that stays, or one in memory that goes with the cVM.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// What errors call an image in memory.
const IN_MEMORY: &str = "memory";

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// mke2fs is not there.
    #[error(
        "the overlay '{}' is made by mke2fs, which cannot be started: {source}; install e2fsprogs, or make the image yourself",
        path.display()
    )]
    NoTool {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// mke2fs failed.
    #[error("the overlay '{}' could not be made by mke2fs: {said}", path.display())]
    Failed {
        /// The image.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The image cannot be put in place.
    #[error("the overlay '{}' cannot be made: {source}", path.display())]
    File {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the image, of so many bytes, unless it is there. It is there as a whole or not at all.
///
/// # Errors
///
/// [`OverlayError`].
pub fn ensure(path: &Path, size: u64) -> Result<(), OverlayError> {
    let failed = |source| OverlayError::File {
        path: path.to_owned(),
        source,
    };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial.{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let made = make(path, &partial, size, &[]).and_then(|()| {
        // Unlike a rename, it leaves an image alone that somebody else has made meanwhile.
        match std::fs::hard_link(&partial, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(failed),
        }
    });
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %partial.display(), %error, "a file stays behind");
        }
        _ => {}
    }
    made
}

/// An image in memory. It is there as long as the file is open, here or by its path.
#[derive(Debug)]
pub struct InMemory {
    _file: OwnedFd,
    path: PathBuf,
}

impl InMemory {
    /// Makes one of so many bytes; it takes memory for what is written.
    ///
    /// # Errors
    ///
    /// [`OverlayError`].
    pub fn new(size: u64) -> Result<InMemory, OverlayError> {
        let path = PathBuf::from(IN_MEMORY);
        let failed = |error: rustix::io::Errno| OverlayError::File {
            path: path.clone(),
            source: error.into(),
        };
        let file = memfd_create("capstream overlay", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&file, size).map_err(failed)?;
        // Others see it by this process's table.
        let seen = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let seen = PathBuf::from(seen);
        // What does not outlive a crash needs no journal.
        make(&path, &seen, size, &["-O", "^has_journal,^resize_inode"])?;
        Ok(InMemory {
            _file: file,
            path: seen,
        })
    }

    /// Where it can be opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make(path: &Path, partial: &Path, size: u64, more: &[&str]) -> Result<(), OverlayError> {
    let mut search = std::env::var_os("PATH").unwrap_or_default();
    // Where it is, and where only root's path leads.
    search.push(":/usr/sbin:/sbin");
    let output = Command::new("mke2fs")
        .env("PATH", search)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096"])
        .args(["-L", "overlay", "-E", "root_owner=0:0,lazy_itable_init=1"])
        .args(more)
        .arg(partial)
        .arg(format!("{}k", size / 1024))
        .output()
        .map_err(|source| OverlayError::NoTool {
            path: path.to_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(OverlayError::Failed {
        path: path.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_image_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upper.img");
        ensure(&path, 16 << 20).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 16 << 20);
        fs::write(&path, "kept").unwrap();
        ensure(&path, 16 << 20).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_image_in_memory_has_a_file_system() {
        let image = InMemory::new(64 << 20).unwrap();
        let bytes = fs::read(image.path()).unwrap();
        assert_eq!(bytes.len(), 64 << 20);
        // The magic number of ext4 in its superblock.
        assert_eq!(bytes[1024 + 56..1024 + 58], [0x53, 0xef]);
    }

    #[test]
    fn what_mke2fs_says_is_told_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such/folder/upper.img");
        let error = ensure(&path, 16 << 20).unwrap_err().to_string();
        assert!(error.contains("upper.img"), "{error}");
        let path = folder.path().join("small.img");
        let error = ensure(&path, 4096).unwrap_err().to_string();
        assert!(error.contains("mke2fs"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
