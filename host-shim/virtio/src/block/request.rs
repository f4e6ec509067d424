// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the driver can ask a disk for.
//!
//! A request is 16 bytes of header, data, and a status byte: first what the device reads, then what it writes, cut into buffers in any
//! way. Which is data follows from the header's type.

use std::sync::atomic::AtomicBool;

use thiserror::Error;
use virtio_bindings::virtio_blk::*;

use super::SECTOR;
use super::image::Image;
use crate::chain::Chain;
use crate::memory::{GuestMemory, OutsideMemory, TransferError, Wait};

/// Bytes of the header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of one range to discard or to fill with zeros: sector, number of sectors, flags.
const RANGE: usize = 16;
/// How many ranges one request can have.
pub(super) const MAX_RANGES: u32 = 16;
/// How many sectors one range to discard can have: 2 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// How many sectors one range to fill with zeros can have: 16 MiB, which may have to be written.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 15;
/// Bytes of the disk's name.
pub(super) const ID_BYTES: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A request without a place for its status.
#[derive(Debug, Error)]
pub(super) enum NoStatus {
    #[error(
        "the request that begins at descriptor {head} has no status byte in the guest's memory"
    )]
    Missing { head: u16 },
    #[error("the request that begins at descriptor {head} cannot be answered: {source}")]
    Write { head: u16, source: OutsideMemory },
}

/// How far a request came.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is answered; so many bytes were written into its buffers.
    Done { written: u32 },
    /// It has to wait for the disk, which it was not allowed to. Nothing was answered.
    WouldBlock,
    /// It was told to stop. Nothing was answered.
    Cancelled,
}

/// Why a request fails, as the driver sees it.
enum Refusal {
    /// It makes no sense, or the host failed.
    Error,
    /// The disk does not know such requests.
    Unsupported,
    WouldBlock,
    Cancelled,
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Refusal {
        match error {
            TransferError::WouldBlock => Refusal::WouldBlock,
            TransferError::Cancelled => Refusal::Cancelled,
            TransferError::OutsideMemory(_)
            | TransferError::Inaccessible
            | TransferError::Host(_) => Refusal::Error,
        }
    }
}

impl From<OutsideMemory> for Refusal {
    fn from(_: OutsideMemory) -> Refusal {
        Refusal::Error
    }
}

/// What it takes to carry out requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk<'a> {
    pub(super) image: &'a Image,
    pub(super) id: &'a [u8; ID_BYTES],
    pub(super) memory: &'a GuestMemory,
    /// The features that were agreed on.
    pub(super) features: u64,
    /// Ends transfers early.
    pub(super) cancel: &'a AtomicBool,
    /// Completed requests have no interrupt yet: what may take long has to wait for that.
    pub(super) others_wait: bool,
}

impl Disk<'_> {
    /// Carries out the request in `chain` and writes its status.
    ///
    /// # Errors
    ///
    /// When there is no place for the status.
    pub(super) fn execute(&self, chain: &mut Chain, wait: Wait) -> Result<Outcome, NoStatus> {
        let head = chain.head;
        let status_at = chain
            .last_writable_byte(self.memory)
            .ok_or(NoStatus::Missing { head })?;

        let (status, data) = match self.carry_out(chain, wait) {
            Ok(data) => (VIRTIO_BLK_S_OK, data),
            Err(Refusal::Error) => (VIRTIO_BLK_S_IOERR, 0),
            Err(Refusal::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Refusal::WouldBlock) => return Ok(Outcome::WouldBlock),
            Err(Refusal::Cancelled) => return Ok(Outcome::Cancelled),
        };
        self.memory
            .write(status_at, &[status as u8])
            .map_err(|source| NoStatus::Write { head, source })?;
        // A chain has no more than 4 GiB, the status byte included.
        let written = u32::try_from(data).unwrap_or(u32::MAX).saturating_add(1);
        Ok(Outcome::Done { written })
    }

    /// Returns how many bytes of data it wrote.
    fn carry_out(&self, chain: &mut Chain, wait: Wait) -> Result<u64, Refusal> {
        if chain.defect().is_some() {
            return Err(Refusal::Error);
        }
        let mut header = [0; HEADER];
        if !chain.readable.take_front(self.memory, &mut header)? {
            return Err(Refusal::Error);
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        // The status byte.
        chain.writable.take_last_byte().ok_or(Refusal::Error)?;

        let (given, room) = (chain.readable.bytes(), chain.writable.bytes());
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => {
                let offset = self.place(sector, room)?;
                if given > 0 {
                    return Err(Refusal::Error);
                }
                let wait = if self.others_wait && self.image.can_read_at_once() {
                    Wait::Never
                } else {
                    wait
                };
                let to = chain.writable.as_slice();
                self.image
                    .read(self.memory, to, offset, wait, self.cancel)?;
                Ok(room)
            }
            VIRTIO_BLK_T_OUT => {
                let offset = self.place(sector, given)?;
                if room > 0 || self.image.is_read_only() {
                    return Err(Refusal::Error);
                }
                may_wait(wait)?;
                let from = chain.readable.as_slice();
                let durable = !self.has(VIRTIO_BLK_F_FLUSH);
                self.image
                    .write(self.memory, from, offset, durable, self.cancel)?;
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                if !self.image.is_clean() {
                    may_wait(wait)?;
                    if self.others_wait {
                        return Err(Refusal::WouldBlock);
                    }
                    self.image.flush()?;
                }
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => Ok(chain.writable.fill(self.memory, self.id)? as u64),
            VIRTIO_BLK_T_DISCARD if self.has(VIRTIO_BLK_F_DISCARD) => {
                self.ranges(chain, wait, MAX_DISCARD_SECTORS, false)
            }
            VIRTIO_BLK_T_WRITE_ZEROES if self.has(VIRTIO_BLK_F_WRITE_ZEROES) => {
                self.ranges(chain, wait, MAX_ZERO_SECTORS, true)
            }
            _ => Err(Refusal::Unsupported),
        }
    }

    /// Discards the ranges in the request's data, or fills them with zeros.
    fn ranges(
        &self,
        chain: &mut Chain,
        wait: Wait,
        max_sectors: u32,
        zeros: bool,
    ) -> Result<u64, Refusal> {
        let given = chain.readable.bytes();
        let whole = given > 0 && given.is_multiple_of(RANGE as u64);
        if !whole || given > u64::from(MAX_RANGES) * RANGE as u64 || chain.writable.bytes() > 0 {
            return Err(Refusal::Error);
        }
        // All are checked before any is carried out.
        let mut ranges = [(0, 0, 0); MAX_RANGES as usize];
        let mut used = 0;
        let mut bytes = [0; RANGE];
        for range in &mut ranges {
            if !chain.readable.take_front(self.memory, &mut bytes)? {
                break;
            }
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes(flags);
            let known = if zeros {
                VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
            } else {
                0
            };
            if flags & !known != 0 {
                return Err(Refusal::Unsupported);
            }
            if sectors > max_sectors {
                return Err(Refusal::Error);
            }
            let len = u64::from(sectors) * SECTOR;
            *range = (self.place(sector, len)?, len, flags);
            used += 1;
        }
        if self.image.is_read_only() {
            return Err(Refusal::Error);
        }
        may_wait(wait)?;
        for &(offset, len, flags) in ranges.iter().take(used) {
            if zeros && flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP == 0 {
                self.image.zero(offset, len, self.cancel)?;
            } else {
                self.image.discard(offset, len)?;
            }
        }
        if !self.has(VIRTIO_BLK_F_FLUSH) {
            self.image.flush()?;
        }
        Ok(0)
    }

    /// The position in the file of `len` bytes from `sector` on, if they are whole sectors of the disk, and some.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Refusal> {
        let end = sector.checked_add(len / SECTOR).ok_or(Refusal::Error)?;
        if len == 0 || !len.is_multiple_of(SECTOR) || end > self.image.sectors() {
            return Err(Refusal::Error);
        }
        Ok(sector * SECTOR)
    }

    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }
}

fn may_wait(wait: Wait) -> Result<(), Refusal> {
    match wait {
        Wait::Allowed => Ok(()),
        Wait::Never => Err(Refusal::WouldBlock),
    }
}
