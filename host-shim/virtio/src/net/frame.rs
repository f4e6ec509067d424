// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A frame: bytes of ours, or buffers of a guest that sends it.

use crate::memory::{GuestMemory, OutsideMemory, Segment};

/// A frame without its header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame<'a> {
    /// In the monitor's memory.
    Host(&'a [u8]),
    /// In a sender's memory: so many bytes in these buffers.
    Guest {
        memory: &'a GuestMemory,
        segments: &'a [Segment],
        len: usize,
    },
}

impl<'a> Frame<'a> {
    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Frame::Host(bytes) => bytes.len(),
            Frame::Guest { len, .. } => *len,
        }
    }

    /// From its begin.
    pub(super) fn reader(self) -> FrameReader<'a> {
        FrameReader {
            frame: self,
            left: self.len(),
            index: 0,
            offset: 0,
        }
    }
}

/// Where the reading of a frame has come to.
#[derive(Debug)]
pub(super) struct FrameReader<'a> {
    frame: Frame<'a>,
    left: usize,
    /// Of the segment.
    index: usize,
    /// In the segment, or in all.
    offset: usize,
}

impl FrameReader<'_> {
    /// How many bytes were not read.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Copies the next `len` bytes, or what is left, to `address` of `memory`; returns how many.
    pub(super) fn copy_to(
        &mut self,
        memory: &GuestMemory,
        address: u64,
        len: usize,
    ) -> Result<usize, OutsideMemory> {
        self.pieces(len, |frame, piece, at| {
            let to = address.wrapping_add(at as u64);
            match frame {
                Frame::Host(bytes) => memory.write(
                    to,
                    bytes
                        .get(piece.offset..piece.offset + piece.len)
                        .unwrap_or_default(),
                ),
                Frame::Guest { memory: from, .. } => {
                    from.copy(piece.address, memory, to, piece.len)
                }
            }
        })
    }

    /// Copies the next bytes into `to`, as many as there are; returns how many.
    pub(super) fn read(&mut self, to: &mut [u8]) -> Result<usize, OutsideMemory> {
        let len = to.len();
        self.pieces(len, |frame, piece, at| {
            let Some(to) = to.get_mut(at..at + piece.len) else {
                return Ok(());
            };
            match frame {
                Frame::Host(bytes) => {
                    if let Some(from) = bytes.get(piece.offset..piece.offset + piece.len) {
                        to.copy_from_slice(from);
                    }
                    Ok(())
                }
                Frame::Guest { memory, .. } => memory.read(piece.address, to),
            }
        })
    }

    fn pieces(
        &mut self,
        len: usize,
        mut each: impl FnMut(&Frame<'_>, Piece, usize) -> Result<(), OutsideMemory>,
    ) -> Result<usize, OutsideMemory> {
        let len = len.min(self.left);
        let mut done = 0;
        while done < len {
            let piece = match &self.frame {
                Frame::Host(_) => Piece {
                    address: 0,
                    offset: self.offset,
                    len: len - done,
                },
                Frame::Guest { segments, .. } => {
                    let Some(segment) = segments.get(self.index) else {
                        break;
                    };
                    let rest = segment.len as usize - self.offset.min(segment.len as usize);
                    if rest == 0 {
                        self.index += 1;
                        self.offset = 0;
                        continue;
                    }
                    Piece {
                        address: segment.address.wrapping_add(self.offset as u64),
                        offset: 0,
                        len: rest.min(len - done),
                    }
                }
            };
            each(&self.frame, piece, done)?;
            self.offset += piece.len;
            self.left -= piece.len;
            done += piece.len;
        }
        Ok(done)
    }
}

/// Bytes that are in one place.
#[derive(Clone, Copy)]
struct Piece {
    /// In the sender's memory.
    address: u64,
    /// In the monitor's.
    offset: usize,
    len: usize,
}
