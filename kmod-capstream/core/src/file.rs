// SPDX-License-Identifier: GPL-2.0-only
//! A node of CAP_File: it can publish a range of a program's memory, and be attached to a range that somebody else published.
//!
//! # Lock order
//! 1. The node's [`Lock`], held while the monitor copies: a range is not exchanged for another in the middle.
//!
//! # States
//! Publishing: nothing, or one range, by [`File::advertise`] and [`File::revoke`]. Attached: to nothing, or to one range, by [`File::attach`].
//! A range that was taken back stays attached and answers `ESTALE`.

use crate::kernel::{Access, Pin, Range};
use crate::requests::FileStats;
use crate::{Errno, Kernel, Key, Lock, Monitor, Result, probe};

/// Where an offset is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The first byte.
    Start,
    /// The file offset.
    Current,
    /// The byte after the last.
    End,
}

impl Whence {
    /// The one with this number in `lseek(2)`.
    pub const fn from_number(number: i32) -> Result<Whence> {
        match number {
            0 => Ok(Whence::Start),
            1 => Ok(Whence::Current),
            2 => Ok(Whence::End),
            _ => Err(Errno::INVAL),
        }
    }
}

struct Publication<P> {
    id: u64,
    key: Key,
    range: Range,
    read_only: bool,
    /// The address space it belongs to, see [`Kernel::space`].
    space: usize,
    /// Keeps the range from becoming somebody else's memory while others access it.
    _pin: P,
}

#[derive(Clone, Copy)]
struct Attachment {
    handle: u64,
    size: u64,
    read_only: bool,
}

/// A node's state, protected by its lock.
pub struct State<P> {
    address: usize,
    size: Option<usize>,
    read_only: bool,
    publication: Option<Publication<P>>,
    attachment: Option<Attachment>,
    stats: FileStats,
}

impl<P> State<P> {
    /// The state after boot.
    pub const fn new() -> State<P> {
        State {
            address: 0,
            size: None,
            read_only: false,
            publication: None,
            attachment: None,
            stats: FileStats {
                reads: 0,
                read_bytes: 0,
                writes: 0,
                written_bytes: 0,
                size: 0,
                read_only: 0,
                published: 0,
            },
        }
    }
}

impl<P> Default for State<P> {
    fn default() -> State<P> {
        State::new()
    }
}

/// A node's parts, together for one operation.
pub struct File<'a, K, M, L> {
    /// Its state.
    pub state: &'a L,
    /// The kernel around the node.
    pub kernel: &'a K,
    /// The monitor.
    pub monitor: &'a M,
}

impl<K, M, L> File<'_, K, M, L>
where
    K: Kernel,
    M: Monitor,
    L: Lock<State = State<K::Pin>>,
{
    /// Sets the first byte of what is published next.
    pub fn set_address(&self, address: usize) {
        self.state.with(|state| state.address = address);
    }

    /// Sets how many bytes are published next. `EINVAL` unless it is more than 0.
    pub fn set_size(&self, size: i64) -> Result<()> {
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size > 0)
            .ok_or(Errno::INVAL)?;
        self.state.with(|state| state.size = Some(size));
        Ok(())
    }

    /// Sets whether others may write into what is published next: 0 they may, 1 they may not.
    pub fn set_mode(&self, mode: i32) -> Result<()> {
        let read_only = match mode {
            0 => false,
            1 => true,
            _ => return Err(Errno::INVAL),
        };
        self.state.with(|state| state.read_only = read_only);
        Ok(())
    }

    /// Publishes the range under the key, instead of what the node published before.
    ///
    /// # Errors
    /// `EINVAL` without a size, `EFAULT` unless it is memory of the caller, writable if others may write, `EADDRINUSE` when somebody else has the key.
    pub fn advertise(&self, key: Key) -> Result<()> {
        self.state.with(|state| {
            let size = state.size.ok_or(Errno::INVAL)?;
            let range = Range::new(state.address, size).ok_or(Errno::FAULT)?;
            let read_only = state.read_only;
            let access = if read_only {
                Access::Read
            } else {
                Access::Write
            };
            // Pinned first: while it is, nobody else can be given that memory.
            let pin = self.kernel.pin(range, access)?;
            if let Some(old) = &state.publication
                && old.key == key
            {
                if old.range == range && old.read_only == read_only {
                    return Ok(());
                }
                // The key is our own, and is free only when the old range is taken back.
                self.take_back(state)?;
            }
            let id = self
                .monitor
                .file_advertise(pin.address(), range.len, &key, read_only)?;
            let publication = Publication {
                id,
                key,
                range,
                read_only,
                space: self.kernel.space(),
                _pin: pin,
            };
            if let Some(old) = state.publication.replace(publication)
                && let Err(error) = self.monitor.revoke(old.id)
            {
                // Somebody may still access the old range: its pin has to stay, and so the new one goes.
                let new = state.publication.replace(old);
                if let Some(new) = new {
                    self.monitor.revoke(new.id)?;
                }
                return Err(error);
            }
            Ok(())
        })
    }

    /// Takes the published range back; when it returns, no access of anybody is under way. `ENOENT` when there is none.
    pub fn revoke(&self) -> Result<()> {
        self.state.with(|state| self.take_back(state))
    }

    /// To be called when the last task of a program is leaving its address space, [`Kernel::space`] of which is `space`: takes back what it published.
    pub fn left(&self, space: usize) {
        self.state.with(|state| {
            let publication = state.publication.as_ref();
            if publication.is_some_and(|publication| publication.space == space) {
                // When the monitor refuses, somebody may still access the range: its pin stays, and keeps the memory from another use.
                let _ = self.take_back(state);
            }
        });
    }

    fn take_back(&self, state: &mut State<K::Pin>) -> Result<()> {
        let publication = state.publication.as_ref().ok_or(Errno::NOENT)?;
        self.monitor.revoke(publication.id)?;
        state.publication = None;
        Ok(())
    }

    /// Attaches to the range that is published under the key, instead of the one before; errors as [`probe::probe`].
    pub fn attach(&self, key: &Key, nonblock: bool) -> Result<()> {
        let (handle, info) = probe::probe(self.kernel, nonblock, |notify| {
            self.monitor.file_probe(key, notify)
        })?;
        let attachment = Attachment {
            handle,
            // Offsets of files are signed.
            size: info.size.min(i64::MAX as u64),
            read_only: info.read_only != 0,
        };
        let old = self
            .state
            .with(|state| state.attachment.replace(attachment));
        if let Some(old) = old {
            self.monitor.disconnect(old.handle);
        }
        Ok(())
    }

    /// Reads up to `len` bytes at `offset` into the caller's memory; returns how many, 0 at the end.
    ///
    /// # Errors
    /// `ENOTCONN` unless attached, `ESTALE`, `EFAULT`, `EINVAL` for a negative offset.
    pub fn read(&self, offset: i64, address: usize, len: usize) -> Result<usize> {
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        self.state.with(|state| {
            let attachment = state.attachment.ok_or(Errno::NOTCONN)?;
            let len = within(attachment, offset, len);
            // Asked even when there is nothing to copy, for a range that was taken back has no end to be at.
            let done = self.monitor.file_read(
                attachment.handle,
                offset.min(attachment.size),
                address,
                len,
            )?;
            if done > 0 {
                state.stats.reads += 1;
                state.stats.read_bytes += done as u64;
            }
            Ok(done)
        })
    }

    /// Writes up to `len` bytes of the caller's memory at `offset`; returns how many, less than `len` only at the end.
    ///
    /// # Errors
    /// `EACCES` when it is read-only, `ENOSPC` at the end; else as [`File::read`].
    pub fn write(&self, offset: i64, address: usize, len: usize) -> Result<usize> {
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        self.state.with(|state| {
            let attachment = state.attachment.ok_or(Errno::NOTCONN)?;
            if attachment.read_only {
                return Err(Errno::ACCES);
            }
            let wanted = len;
            let len = within(attachment, offset, len);
            let done = self.monitor.file_write(
                attachment.handle,
                offset.min(attachment.size),
                address,
                len,
            )?;
            if done == 0 && wanted > 0 {
                return Err(Errno::NOSPC);
            }
            if done > 0 {
                state.stats.writes += 1;
                state.stats.written_bytes += done as u64;
            }
            Ok(done)
        })
    }

    /// The offset that `lseek(2)` returns. `EINVAL` when it would be negative, `ENOTCONN` for [`Whence::End`] of nothing.
    pub fn seek(&self, current: i64, offset: i64, whence: Whence) -> Result<i64> {
        let base = match whence {
            Whence::Start => 0,
            Whence::Current => current,
            Whence::End => {
                let attachment = self.state.with(|state| state.attachment);
                attachment.ok_or(Errno::NOTCONN)?.size as i64
            }
        };
        let position = base.checked_add(offset).ok_or(Errno::OVERFLOW)?;
        if position < 0 {
            return Err(Errno::INVAL);
        }
        Ok(position)
    }

    /// Whether it is attached to a range that was taken back.
    pub fn is_stale(&self) -> bool {
        self.state.with(|state| {
            state.attachment.is_some_and(|attachment| {
                let end = self
                    .monitor
                    .file_read(attachment.handle, attachment.size, 0, 0);
                end == Err(Errno::STALE)
            })
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> FileStats {
        self.state.with(|state| FileStats {
            size: state.attachment.map_or(0, |attachment| attachment.size),
            read_only: state
                .attachment
                .map_or(0, |attachment| u32::from(attachment.read_only)),
            published: u32::from(state.publication.is_some()),
            ..state.stats
        })
    }
}

/// How many of `len` bytes at `offset` are in the range.
fn within(attachment: Attachment, offset: u64, len: usize) -> usize {
    let left = attachment.size.saturating_sub(offset);
    len.min(usize::try_from(left).unwrap_or(usize::MAX))
}
