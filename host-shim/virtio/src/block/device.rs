// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk as the transport sees it.

use std::mem::offset_of;
use std::path::Path;

use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::SECTOR;
use super::error::BlockError;
use super::image::Image;
use super::request::{ID_BYTES, MAX_DISCARD_SECTORS, MAX_RANGES, MAX_ZERO_SECTORS};
use super::worker::Worker;
use crate::device::{Device, Session};

/// How many descriptors the queue has, at most.
const QUEUE_SIZE: u16 = 128;
/// How many buffers of data a request can have: the queue, without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Sectors of a page of the guest, and of a block of most file systems.
const DISCARD_ALIGNMENT: u32 = 8;
/// Bytes of the configuration space: up to the fields of features that are not offered.
const CONFIG: usize = offset_of!(virtio_blk_config, max_secure_erase_sectors);

/// How a disk is used.
#[derive(Clone, Debug, Default)]
pub struct BlockOptions {
    /// The guest cannot write to it. Several guests may then use the same file.
    pub read_only: bool,
    /// What the guest reads as the disk's serial number; the first 20 bytes of it. By default the file's name.
    pub id: Option<String>,
}

/// A disk on an image file.
#[derive(Debug)]
pub struct Block {
    features: u64,
    config: [u8; CONFIG],
    worker: Worker,
}

impl Block {
    /// Opens the image file at `path`, and locks it for as long as the disk lives: for this disk alone, or, read-only, for readers.
    ///
    /// # Errors
    ///
    /// Each names the file: it cannot be opened or locked, somebody else uses it, or its size is not that of a disk.
    pub fn open(path: impl AsRef<Path>, options: &BlockOptions) -> Result<Block, BlockError> {
        let path = path.as_ref();
        let image = Image::open(path, options.read_only)?;

        let mut id = [0; ID_BYTES];
        let name = match &options.id {
            Some(id) => id.as_bytes(),
            None => path
                .file_name()
                .map_or(&[][..], std::ffi::OsStr::as_encoded_bytes),
        };
        for (to, from) in id.iter_mut().zip(name) {
            *to = *from;
        }

        let mut features = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH;
        if image.is_read_only() {
            features |= 1 << VIRTIO_BLK_F_RO;
        }
        if image.can_punch() {
            features |= 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        }
        Ok(Block {
            features,
            config: configuration(&image),
            worker: Worker::new(image, id),
        })
    }
}

/// The configuration space of a disk on `image`.
fn configuration(image: &Image) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    let mut set = |offset: usize, bytes: &[u8]| {
        for (to, from) in config.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    };
    set(
        offset_of!(virtio_blk_config, capacity),
        &image.sectors().to_le_bytes(),
    );
    set(
        offset_of!(virtio_blk_config, num_queues),
        &1u16.to_le_bytes(),
    );
    for (offset, value) in [
        (offset_of!(virtio_blk_config, seg_max), SEG_MAX),
        (offset_of!(virtio_blk_config, blk_size), SECTOR as u32),
    ] {
        set(offset, &value.to_le_bytes());
    }
    if image.can_punch() {
        for (offset, value) in [
            (
                offset_of!(virtio_blk_config, max_discard_sectors),
                MAX_DISCARD_SECTORS,
            ),
            (offset_of!(virtio_blk_config, max_discard_seg), MAX_RANGES),
            (
                offset_of!(virtio_blk_config, discard_sector_alignment),
                DISCARD_ALIGNMENT,
            ),
            (
                offset_of!(virtio_blk_config, max_write_zeroes_sectors),
                MAX_ZERO_SECTORS,
            ),
            (
                offset_of!(virtio_blk_config, max_write_zeroes_seg),
                MAX_RANGES,
            ),
        ] {
            set(offset, &value.to_le_bytes());
        }
        set(offset_of!(virtio_blk_config, write_zeroes_may_unmap), &[1]);
    }
    config
}

impl Device for Block {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&self, session: Session) {
        self.worker.start(session);
    }

    fn notify(&self, queue: u16) {
        if queue == 0 {
            self.worker.notify();
        }
    }

    fn stop(&self) {
        self.worker.stop();
    }
}
