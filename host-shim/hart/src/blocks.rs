// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decoded instructions, in blocks that begin where something jumped to.
//!
//! A block belongs to a place in a region, not to an address, and to a mode. It is found by the address of its first instruction in
//! a table of recent ones, which is emptied when memory changes, when code may have changed (a `fence.i` of any hart) and when a page may
//! have lost its permission to be executed. A miss goes to the map of all blocks, and from there to the decoder. After a `fence.i` a
//! block is used again if the bytes that it was decoded from are still there.
//!
//! Everything is thrown away when there are too many, so that a guest cannot make its hart as large as it likes.

use std::collections::HashMap;
use std::ops::Range;

use crate::decode::{decode, ends_block};
use crate::instruction::Op;
use crate::memory::{Fault, PAGE_SIZE};
use crate::state::State;
use crate::trap::cause;

/// Instructions in a block, at most.
const MAX_BLOCK: usize = 64;
/// Instructions in all blocks, at most.
const MAX_OPS: usize = 1 << 18;
/// Blocks in the table of recent ones.
const RECENT: usize = 1 << 12;

/// A block in the table of recent ones.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    /// The address of its first instruction, and its complement in capability mode.
    key: u64,
    first: u32,
    /// Instructions; none in an empty place.
    pub(crate) count: u16,
    /// Bytes of code.
    pub(crate) bytes: u16,
}

struct Block {
    found: Found,
    /// Where the bytes of its code are.
    code: u32,
    /// The last time that it was seen to be up to date.
    epoch: u64,
}

/// Why there is no block at an address.
pub(crate) enum NoBlock {
    /// It lies in the native window.
    Native,
    /// A fetch failed.
    Fault {
        /// As in `mcause`.
        cause: u64,
        /// Where.
        address: u64,
    },
}

/// All decoded instructions of a hart.
pub(crate) struct Blocks {
    recent: Box<[Found; RECENT]>,
    ops: Vec<Op>,
    code: Vec<u8>,
    blocks: Vec<Block>,
    /// By region and key.
    places: HashMap<(u64, u64), u32>,
    /// Counts what may have changed code.
    epoch: u64,
    native: Range<u64>,
}

impl Blocks {
    pub(crate) fn new() -> Blocks {
        Blocks {
            recent: Box::new([Found::default(); RECENT]),
            ops: Vec::new(),
            code: Vec::new(),
            blocks: Vec::new(),
            places: HashMap::new(),
            epoch: 0,
            native: 0..0,
        }
    }

    /// Whether an address lies in the native window.
    pub(crate) fn is_native(&self, pc: u64) -> bool {
        self.native.contains(&pc)
    }

    pub(crate) fn set_native(&mut self, native: Range<u64>) {
        self.native = native;
        self.clear();
    }

    fn clear(&mut self) {
        self.forget_recent();
        self.ops.clear();
        self.code.clear();
        self.blocks.clear();
        self.places.clear();
    }

    /// Memory may have another generation.
    pub(crate) fn forget_recent(&mut self) {
        self.recent.fill(Found::default());
    }

    /// Code may have changed.
    pub(crate) fn invalidate(&mut self) {
        self.epoch += 1;
        self.forget_recent();
    }

    /// Instructions of a block.
    #[inline(always)]
    pub(crate) fn ops(&self, found: Found) -> &[Op] {
        let first = found.first as usize;
        self.ops
            .get(first..first + usize::from(found.count))
            .unwrap_or_default()
    }

    /// The block at `pc`.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        state: &State,
        pc: u64,
        capability_mode: bool,
    ) -> Result<Found, NoBlock> {
        let key = key(pc, capability_mode);
        let found = self.recent[(pc >> 1) as usize % RECENT];
        if found.key == key && found.count != 0 {
            return Ok(found);
        }
        self.miss(state, pc, capability_mode)
    }

    #[cold]
    #[inline(never)]
    fn miss(&mut self, state: &State, pc: u64, capability_mode: bool) -> Result<Found, NoBlock> {
        if self.is_native(pc) {
            return Err(NoBlock::Native);
        }
        if pc & 1 != 0 {
            return Err(NoBlock::Fault {
                cause: cause::FETCH_MISALIGNED,
                address: pc,
            });
        }
        let key = key(pc, capability_mode);
        let mut bytes = [0; 4 * MAX_BLOCK];
        let (region, length) = fetch(state, pc, &mut bytes)?;
        let straddles = length == 2 && bytes[0] & 3 == 3;
        let place = (region, key);
        let mut found = None;
        if let Some(at) = self.places.get(&place)
            && let Some(block) = self.blocks.get_mut(*at as usize)
        {
            let code = block.code as usize;
            let size = usize::from(block.found.bytes);
            let current = block.epoch == self.epoch
                || self.code.get(code..code + size) == bytes.get(..size.min(length));
            if current {
                block.epoch = self.epoch;
                found = Some(block.found);
            }
        }
        let found = match found {
            Some(found) => found,
            None => {
                if straddles {
                    let mut rest = [0; 2];
                    fetch(state, pc.wrapping_add(2), &mut rest)?;
                    bytes[2..4].copy_from_slice(&rest);
                    self.add(pc, capability_mode, &bytes[..4], None)
                } else {
                    self.add(pc, capability_mode, &bytes[..length], Some(place))
                }
            }
        };
        if !straddles {
            self.recent[(pc >> 1) as usize % RECENT] = found;
        }
        Ok(found)
    }

    /// Decodes a block from the bytes at its begin; puts it where it can be found again, if it has a place.
    fn add(
        &mut self,
        pc: u64,
        capability_mode: bool,
        bytes: &[u8],
        place: Option<(u64, u64)>,
    ) -> Found {
        if self.ops.len() > MAX_OPS - MAX_BLOCK {
            self.clear();
        }
        let first = self.ops.len();
        let mut at = 0;
        for index in 0..MAX_BLOCK {
            if index != 0 && pc.wrapping_add(at as u64) == self.native.start {
                break;
            }
            let Some(low) = bytes.get(at..at + 2) else {
                break;
            };
            let mut raw = u32::from(low[0]) | u32::from(low[1]) << 8;
            if raw & 3 == 3 {
                let Some(high) = bytes.get(at + 2..at + 4) else {
                    break;
                };
                raw |= u32::from(high[0]) << 16 | u32::from(high[1]) << 24;
            }
            let mut op = decode(raw, capability_mode);
            op.offset = at as u16;
            op.index = index as u8;
            at += usize::from(op.size);
            let last = ends_block(&op);
            self.ops.push(op);
            if last {
                break;
            }
        }
        let found = Found {
            key: key(pc, capability_mode),
            first: first as u32,
            count: (self.ops.len() - first) as u16,
            bytes: at as u16,
        };
        let code = self.code.len() as u32;
        let Some(place) = place else {
            return found;
        };
        self.code.extend_from_slice(&bytes[..at]);
        self.blocks.push(Block {
            found,
            code,
            epoch: self.epoch,
        });
        self.places.insert(place, self.blocks.len() as u32 - 1);
        found
    }
}

/// What a block is found by in the table. Addresses of code are even, and the complement of an address is odd.
#[inline(always)]
const fn key(pc: u64, capability_mode: bool) -> u64 {
    if capability_mode { !pc } else { pc }
}

/// Bytes of code at an address, up to the end of its page at most, and their region.
fn fetch(state: &State, address: u64, bytes: &mut [u8]) -> Result<(u64, usize), NoBlock> {
    let fault = |cause| NoBlock::Fault { cause, address };
    let region = state
        .region(address)
        .ok_or_else(|| fault(cause::FETCH_ACCESS))?;
    debug_assert!(region.begin().is_multiple_of(PAGE_SIZE));
    match region.fetch(address, bytes) {
        Ok(length) => Ok((region.id(), length)),
        Err(Fault::Page) => Err(fault(cause::FETCH_PAGE)),
        Err(_) => Err(fault(cause::FETCH_ACCESS)),
    }
}
