// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file behind a disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::fallocate::{FallocateMode, fallocate};

use super::SECTOR;
use super::error::BlockError;
use crate::memory::{GuestMemory, Segment, TransferError, Wait};
use crate::warning::WarningLimit;

/// Zeros to write where the file system cannot make them.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An image file, locked and measured.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    bytes: u64,
    read_only: bool,
    can_punch: bool,
    /// Whether the file system still has a chance to read without waiting.
    can_read_at_once: AtomicBool,
    /// Whether there may be data that is not on the disk.
    dirty: AtomicBool,
    /// Whether the host has ever failed to bring data to the disk.
    flush_failed: AtomicBool,
    warnings: WarningLimit,
}

impl Image {
    /// Opens and locks the file: for this process alone, or together with other readers when it is read-only.
    pub(super) fn open(path: &Path, read_only: bool) -> Result<Image, BlockError> {
        let named = || path.to_owned();
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            // A pipe would otherwise wait for its other end.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| BlockError::Open {
                path: named(),
                read_only,
                source,
            })?;
        let measure = |source| BlockError::Measure {
            path: named(),
            source,
        };
        let kind = file.metadata().map_err(measure)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(BlockError::Kind { path: named() });
        }

        let locked = if read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => BlockError::InUse { path: named() },
            TryLockError::Error(source) => BlockError::Lock {
                path: named(),
                source,
            },
        })?;

        // Unlike the metadata, the end is also known for a block device. Measured behind the lock: nobody is about to resize it.
        let bytes = file.seek(SeekFrom::End(0)).map_err(measure)?;
        if bytes == 0 {
            return Err(BlockError::Empty { path: named() });
        }
        if bytes % SECTOR != 0 {
            return Err(BlockError::Size {
                path: named(),
                size: bytes,
            });
        }

        // A hole behind the end of the file changes nothing, and shows whether there can be any.
        let can_punch =
            !read_only && fallocate(&file, FallocateMode::PunchHole, true, bytes, SECTOR).is_ok();
        Ok(Image {
            file,
            path: named(),
            bytes,
            read_only,
            can_punch,
            can_read_at_once: AtomicBool::new(true),
            // Whoever used the image before may not have flushed, and this guest may rely on what it reads.
            dirty: AtomicBool::new(true),
            flush_failed: AtomicBool::new(false),
            warnings: WarningLimit::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sectors(&self) -> u64 {
        self.bytes / SECTOR
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether parts of the file can be given back to its file system.
    pub(super) fn can_punch(&self) -> bool {
        self.can_punch
    }

    /// Whether reads that may not wait have a chance.
    pub(super) fn can_read_at_once(&self) -> bool {
        self.can_read_at_once.load(Ordering::Relaxed)
    }

    /// Reads from byte `offset` on.
    pub(super) fn read(
        &self,
        memory: &GuestMemory,
        to: &[Segment],
        offset: u64,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        if wait == Wait::Never && !self.can_read_at_once() {
            return Err(TransferError::WouldBlock);
        }
        let read = memory.read_from_file(&self.file, to, offset, wait, cancel);
        match read {
            Err(TransferError::Host(error))
                if wait == Wait::Never && error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                self.can_read_at_once.store(false, Ordering::Relaxed);
                Err(TransferError::WouldBlock)
            }
            read => self.warn("read", offset, read),
        }
    }

    /// Writes from byte `offset` on.
    pub(super) fn write(
        &self,
        memory: &GuestMemory,
        from: &[Segment],
        offset: u64,
        durable: bool,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        self.dirty.store(true, Ordering::SeqCst);
        let written = memory.write_to_file(&self.file, from, offset, durable, cancel);
        self.warn("write", offset, written)
    }

    /// Whether a flush would find nothing to do.
    pub(super) fn is_clean(&self) -> bool {
        !self.dirty.load(Ordering::SeqCst) && !self.flush_failed.load(Ordering::SeqCst)
    }

    /// Returns when all that was written is on the disk.
    pub(super) fn flush(&self) -> Result<(), TransferError> {
        if self.flush_failed.load(Ordering::SeqCst) {
            return self.warn(
                "flush",
                0,
                Err(TransferError::Host(io::ErrorKind::Other.into())),
            );
        }
        if !self.dirty.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let flushed = self.file.sync_data();
        if flushed.is_err() {
            self.flush_failed.store(true, Ordering::SeqCst);
        }
        self.warn("flush", 0, flushed.map_err(TransferError::Host))
    }

    /// Gives `len` bytes from `offset` on back to the file system; they read as zero afterwards.
    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<(), TransferError> {
        self.dirty.store(true, Ordering::SeqCst);
        let punched = fallocate(&self.file, FallocateMode::PunchHole, true, offset, len);
        self.warn(
            "discard",
            offset,
            punched.map_err(|error| TransferError::Host(error.into())),
        )
    }

    /// Makes `len` bytes from `offset` on read as zero, keeping their place on the disk.
    pub(super) fn zero(
        &self,
        offset: u64,
        len: u64,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        self.dirty.store(true, Ordering::SeqCst);
        let zeroed = fallocate(&self.file, FallocateMode::ZeroRange, true, offset, len);
        match zeroed.map_err(io::Error::from) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let written = self.write_zeros(offset, len, cancel);
                self.warn("write zeros", offset, written)
            }
            zeroed => self.warn("write zeros", offset, zeroed.map_err(TransferError::Host)),
        }
    }

    fn write_zeros(
        &self,
        mut offset: u64,
        mut len: u64,
        cancel: &AtomicBool,
    ) -> Result<(), TransferError> {
        while len > 0 {
            if cancel.load(Ordering::Relaxed) {
                return Err(TransferError::Cancelled);
            }
            let now = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..now).unwrap_or(&ZEROS);
            self.file
                .write_all_at(zeros, offset)
                .map_err(TransferError::Host)?;
            offset += zeros.len() as u64;
            len -= zeros.len() as u64;
        }
        Ok(())
    }

    /// Passes `result` on, with a warning if it is the host that failed.
    fn warn(
        &self,
        what: &str,
        offset: u64,
        result: Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        if let Err(TransferError::Host(error)) = &result
            && let Some(suppressed) = self.warnings.admit()
        {
            tracing::warn!(
                image = %self.path.display(), offset, %error, suppressed,
                "{what} failed on the disk image '{}'; the guest sees an I/O error", self.path.display(),
            );
        }
        result
    }

    /// As [`WarningLimit::admit`], for warnings about this disk.
    pub(super) fn admit_warning(&self) -> Option<u64> {
        self.warnings.admit()
    }

    /// Says that the driver did something that the disk cannot go on from.
    pub(super) fn warn_driver(&self, reason: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.warnings.admit() {
            tracing::warn!(
                image = %self.path.display(), suppressed,
                "the driver of the disk '{}' has to reset it: {reason}", self.path.display(),
            );
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Closing the file is not enough when another thread is just starting a program, which has a copy of it for a moment.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot unlock the disk image '{}'", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn open(bytes: u64) -> (tempfile::NamedTempFile, Image) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let image = Image::open(file.path(), false).unwrap();
        (file, image)
    }

    #[test]
    fn a_flush_that_failed_once_fails_for_ever() {
        let (_file, mut image) = open(512);
        image.flush().unwrap();
        assert!(image.is_clean());
        // A pipe cannot be synchronised.
        let (_reader, writer) = io::pipe().unwrap();
        let disk = std::mem::replace(&mut image.file, OwnedFd::from(writer).into());
        image.flush().unwrap();
        image.dirty.store(true, Ordering::SeqCst);
        assert!(matches!(image.flush(), Err(TransferError::Host(_))));
        image.file = disk;
        assert!(!image.is_clean());
        assert!(matches!(image.flush(), Err(TransferError::Host(_))));
    }

    #[test]
    fn a_disk_is_dirty_until_it_is_flushed_and_after_each_change() {
        let (_file, image) = open(1 << 20);
        let memory = GuestMemory::anonymous(0, 4096).unwrap();
        let cancel = AtomicBool::new(false);
        let from = [Segment {
            address: 0,
            len: 512,
        }];
        let changes: [&dyn Fn() -> Result<(), TransferError>; 3] = [
            &|| image.write(&memory, &from, 0, false, &cancel),
            &|| image.discard(0, 4096),
            &|| image.zero(0, 4096, &cancel),
        ];
        assert!(
            !image.is_clean(),
            "whoever had it before may not have flushed"
        );
        for change in changes {
            image.flush().unwrap();
            assert!(image.is_clean());
            change().unwrap();
            assert!(!image.is_clean());
        }
    }

    #[test]
    fn zeros_are_written_where_the_file_system_cannot_make_them() {
        let (file, image) = open(1 << 20);
        std::fs::write(file.path(), vec![7; 1 << 20]).unwrap();
        let cancel = AtomicBool::new(false);
        let (offset, len) = (512, 3 * ZEROS.len() + 1024);
        image
            .write_zeros(offset as u64, len as u64, &cancel)
            .unwrap();
        let found = std::fs::read(file.path()).unwrap();
        assert!(found[offset..offset + len].iter().all(|&b| b == 0));
        assert_eq!((found[offset - 1], found[offset + len]), (7, 7));
        cancel.store(true, Ordering::SeqCst);
        let cancelled = image.write_zeros(0, 512, &cancel);
        assert!(matches!(cancelled, Err(TransferError::Cancelled)));
    }
}
