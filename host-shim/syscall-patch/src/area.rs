// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Room for stubs, and which place makes the bytes of a jump what they have to be.

use core::ops::Range;

/// Bytes that are handed out together.
const GRANULE: u64 = 8;

/// Which bytes of a jump's displacement have to be undefined opcodes, lowest first.
pub(crate) type Guarded = [bool; 4];

/// One-byte opcodes that raise an invalid opcode exception in 64-bit mode on every processor, whatever follows them, and that
/// no announced extension uses: pushes and pops of segment registers, BCD adjustments, PUSHA, POPA, INTO, and UDB.
const UNDEFINED: [u8; 15] = [
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0xce, 0xd6,
];
/// More of them, which have operands outside 64-bit mode: the second group 1 of 8 bit operations, far CALL, AAM, far JMP. For
/// use when no place makes all guarded bytes one of [`UNDEFINED`].
const UNDEFINED_WITH_OPERANDS: [u8; 4] = [0x82, 0x9a, 0xd4, 0xea];

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Suitable places exist, but are taken.
    Full,
    /// No place of the area is suitable, or the area is out of reach.
    Unsuitable,
}

/// The free and used parts of the stub area.
#[derive(Debug)]
pub(crate) struct StubArea {
    range: Range<u64>,
    /// One bit per granule, set when it is used.
    used: Vec<u64>,
    granules: u64,
}

impl StubArea {
    /// An area of which nothing is used.
    pub(crate) fn new(range: Range<u64>) -> StubArea {
        let words = (range.end.saturating_sub(range.start) / GRANULE).div_ceil(64);
        StubArea {
            range,
            used: vec![0; words as usize],
            granules: 0,
        }
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.granules * GRANULE
    }

    /// Takes `len` bytes such that in a jump which ends at `origin` and leads there the `guarded` bytes of the displacement
    /// are undefined opcodes.
    pub(crate) fn take(
        &mut self,
        len: u64,
        origin: u64,
        guarded: Guarded,
    ) -> Result<Range<u64>, NoPlace> {
        let mut why = NoPlace::Unsuitable;
        for with_operands in [false, true] {
            match self.find(len, origin, guarded, with_operands) {
                Ok(begin) => {
                    let place = begin..begin + len;
                    self.mark(&place, true);
                    return Ok(place);
                }
                Err(NoPlace::Full) => why = NoPlace::Full,
                Err(NoPlace::Unsuitable) => {}
            }
            if !guarded.contains(&true) {
                break;
            }
        }
        Err(why)
    }

    /// Gives back what [`StubArea::take`] returned.
    pub(crate) fn give_back(&mut self, place: &Range<u64>) {
        self.mark(place, false);
    }

    /// The lowest suitable free place.
    fn find(
        &self,
        len: u64,
        origin: u64,
        guarded: Guarded,
        with_operands: bool,
    ) -> Result<u64, NoPlace> {
        let undefined = |byte: u8| {
            UNDEFINED.contains(&byte) || with_operands && UNDEFINED_WITH_OPERANDS.contains(&byte)
        };
        let Some(last) = self
            .range
            .end
            .checked_sub(len)
            .filter(|&last| last >= self.range.start)
        else {
            return Err(NoPlace::Unsuitable);
        };
        // Both are differences of addresses of one process; where that is more than i64 holds, nothing is in reach.
        let distance = |to: u64| i64::try_from(i128::from(to) - i128::from(origin)).ok();
        let (Some(first), Some(last)) = (distance(self.range.start), distance(last)) else {
            return Err(NoPlace::Unsuitable);
        };
        let mut at = first.max(i64::from(i32::MIN));
        let last = last.min(i64::from(i32::MAX));
        let mut why = NoPlace::Unsuitable;
        'places: while at <= last {
            let bytes = (at as i32).to_le_bytes();
            for (position, (byte, guard)) in bytes.into_iter().zip(guarded).enumerate().rev() {
                if guard && !undefined(byte) {
                    // On to the next value of this byte, with all lower bytes zero.
                    at = (at | ((1_i64 << (8 * position)) - 1)) + 1;
                    continue 'places;
                }
            }
            let begin = origin.wrapping_add_signed(at);
            match self.last_used(&(begin..begin + len)) {
                None => return Ok(begin),
                Some(end) => {
                    why = NoPlace::Full;
                    at += (end - begin) as i64;
                }
            }
        }
        Err(why)
    }

    /// Numbers of the granules that `place` touches.
    fn granules(&self, place: &Range<u64>) -> Range<u64> {
        let first = place.start.saturating_sub(self.range.start) / GRANULE;
        let end = place.end.saturating_sub(self.range.start).div_ceil(GRANULE);
        first..end
    }

    /// Where the last used granule in `place` ends, if there is one.
    fn last_used(&self, place: &Range<u64>) -> Option<u64> {
        self.granules(place)
            .rev()
            .find(|granule| {
                let word = self.used.get((granule / 64) as usize).copied();
                word.is_none_or(|word| word >> (granule % 64) & 1 != 0)
            })
            .map(|granule| self.range.start + (granule + 1) * GRANULE)
    }

    fn mark(&mut self, place: &Range<u64>, used: bool) {
        for granule in self.granules(place) {
            let Some(word) = self.used.get_mut((granule / 64) as usize) else {
                continue;
            };
            let bit = 1 << (granule % 64);
            if (*word & bit != 0) != used {
                *word ^= bit;
                self.granules = if used {
                    self.granules + 1
                } else {
                    self.granules.saturating_sub(1)
                };
            }
        }
    }
}
