// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of one cVM that others read and write as a file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::Error;
use crate::key::Key;
use crate::node::{FILE, Node};
use crate::requests::{self, Lent};
use crate::stats::FileStats;

/// Who may write to what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everybody who is attached.
    #[default]
    ReadWrite,
    /// Only who published it.
    ReadOnly,
}

/// Memory of another cVM, or of the monitor, at a node `/cap/cfN`, which is this value's alone.
///
/// ```no_run
/// use capstream_client::CapFile;
///
/// # fn main() -> Result<(), capstream_client::Error> {
/// let mut file = CapFile::open(1)?;
/// file.attach("table")?;
/// let mut head = [0; 16];
/// file.read_exact_at(&mut head, 0)?;
/// file.write_all_at(b"seen", 16)?;
/// # Ok(())
/// # }
/// ```
///
/// Each read and each write is a copy that the monitor makes. Nothing orders those of different programs: agree on who writes when by a stream.
pub struct CapFile {
    node: Node,
}

impl CapFile {
    /// Opens `/cap/cfN`, where N is the number. What a program that has ended published there is taken back.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::NodeInUse`].
    pub fn open(number: u32) -> Result<CapFile, Error> {
        CapFile::open_path(FILE.path(number))
    }

    /// Opens a node by its path.
    ///
    /// # Errors
    /// As [`CapFile::open`]; [`Error::WrongNode`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<CapFile, Error> {
        let node = Node::open(&FILE, path.as_ref())?;
        requests::file_revoke(node.waiting())
            .map_err(|errno| node.other("take back what it published", errno))?;
        Ok(CapFile { node })
    }

    /// Attaches to what is published under the key, instead of what it was attached to; waits up to 30 s for it.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::InvalidKey`], [`Error::Refused`], [`Error::Interrupted`] by a signal.
    pub fn attach(&mut self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.probe(&Key::new(key)?)
    }

    /// As [`CapFile::attach`], with another limit. It looks for the key in intervals of up to 20 ms.
    ///
    /// # Errors
    /// As [`CapFile::attach`].
    pub fn attach_timeout(&mut self, key: impl AsRef<[u8]>, limit: Duration) -> Result<(), Error> {
        self.node.probe_timeout(&Key::new(key)?, limit)
    }

    /// Publishes memory of this program under the key.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::InvalidSize`], [`Error::KeyTaken`], [`Error::Refused`].
    pub fn publish(
        self,
        key: impl AsRef<[u8]>,
        bytes: Vec<u8>,
        access: Access,
    ) -> Result<Publication, Error> {
        let key = Key::new(key)?;
        if !(1..=requests::MAX_RANGE).contains(&bytes.len()) {
            return Err(Error::InvalidSize {
                size: bytes.len(),
                node: self.node.path(),
                limit: requests::MAX_RANGE,
            });
        }
        let lent = Lent::lend(
            self.node.waiting(),
            bytes.into_iter().map(AtomicU8::new).collect(),
            access == Access::ReadOnly,
            || self.node.advertise(&key),
            |errno| self.node.other("describe the range to publish", errno),
        )?;
        Ok(Publication {
            node: self.node,
            lent: Some(lent),
        })
    }

    /// Reads up to as many bytes as fit the buffer, at the offset; returns how many, 0 at the end.
    ///
    /// # Errors
    /// [`Error::NotConnected`] before [`CapFile::attach`], [`Error::Revoked`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        rustix::io::pread(self.node.waiting(), buffer, offset)
            .map_err(|errno| self.node.other("read", errno))
    }

    /// Fills the buffer with the bytes at the offset.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; else as [`CapFile::read_at`].
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset.saturating_add(done as u64))? {
                0 => return Err(self.out_of_range(buffer.len(), offset)),
                more => done += more,
            }
        }
        Ok(())
    }

    /// Writes bytes at the offset; returns how many, fewer than there are only at the end of the range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there is no room at all, [`Error::ReadOnly`]; else as [`CapFile::read_at`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Error> {
        rustix::io::pwrite(self.node.waiting(), bytes, offset).map_err(|errno| match errno {
            Errno::ACCESS => Error::ReadOnly {
                node: self.node.path(),
            },
            Errno::NOSPC => self.out_of_range(bytes.len(), offset),
            _ => self.node.other("write", errno),
        })
    }

    /// Writes all bytes at the offset.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when not all fit; the first ones are written. Else as [`CapFile::write_at`].
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset.saturating_add(done as u64)) {
                Ok(0) | Err(Error::OutOfRange { .. }) => {
                    return Err(self.out_of_range(bytes.len(), offset));
                }
                more => done += more?,
            }
        }
        Ok(())
    }

    /// Bytes of the range, 0 while it is attached to none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.stats()?.size)
    }

    /// Counters of the node since boot.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<FileStats, Error> {
        requests::file_stats(self.node.waiting())
            .map_err(|errno| self.node.other("read its counters", errno))
    }

    fn out_of_range(&self, len: usize, offset: u64) -> Error {
        Error::OutOfRange {
            offset,
            len,
            size: self.size().unwrap_or_default(),
            node: self.node.path(),
        }
    }
}

impl fmt::Debug for CapFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CapFile")
            .field("node", &self.node.path())
            .finish()
    }
}

/// Memory of this program that others are reading and, unless it is read-only for them, writing.
///
/// It may change between any two looks at it, and a look at several bytes may see a part of a change. When it is dropped it is taken back.
pub struct Publication {
    node: Node,
    /// `None` once it was taken back.
    lent: Option<Lent>,
}

impl Publication {
    /// How many bytes are published.
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// Copies bytes at the offset into the buffer.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], with nothing copied.
    pub fn read_at(&self, buffer: &mut [u8], offset: usize) -> Result<(), Error> {
        let bytes = self.range(buffer.len(), offset)?;
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies these bytes to the offset. That is possible even where others may not.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], with nothing copied.
    pub fn write_at(&self, bytes: &[u8], offset: usize) -> Result<(), Error> {
        let to = self.range(bytes.len(), offset)?;
        for (to, from) in to.iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes the memory back: when this returns, no access of anybody is under way, and all later ones fail with [`Error::Revoked`]. Returns
    /// what is in it.
    ///
    /// # Errors
    /// What the kernel says. Others may still have the memory then, so it is never freed.
    pub fn revoke(mut self) -> Result<Vec<u8>, Error> {
        let Some(memory) = self.take_back()? else {
            return Ok(Vec::new());
        };
        Ok(memory
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect())
    }

    /// Counters of the node since boot.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<FileStats, Error> {
        requests::file_stats(self.node.waiting())
            .map_err(|errno| self.node.other("read its counters", errno))
    }

    fn take_back(&mut self) -> Result<Option<Arc<[AtomicU8]>>, Error> {
        let Some(lent) = self.lent.take() else {
            return Ok(None);
        };
        lent.take_back(self.node.waiting())
            .map(Some)
            .map_err(|errno| self.node.other("take back what it publishes", errno))
    }

    fn bytes(&self) -> &[AtomicU8] {
        self.lent.as_ref().map_or(&[], Lent::bytes)
    }

    fn range(&self, len: usize, offset: usize) -> Result<&[AtomicU8], Error> {
        offset
            .checked_add(len)
            .and_then(|end| self.bytes().get(offset..end))
            .ok_or_else(|| Error::OutOfRange {
                offset: offset as u64,
                len,
                size: self.size() as u64,
                node: self.node.path(),
            })
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        // If it fails, the memory stays. There is nobody to tell.
        let _ = self.take_back();
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Publication")
            .field("node", &self.node.path())
            .field("size", &self.size())
            .finish()
    }
}
