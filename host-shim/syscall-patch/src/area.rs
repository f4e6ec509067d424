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
    /// Memory cannot be accessed; said by those who write there.
    Absent,
}

/// The free and used parts of the stub area.
#[derive(Debug)]
pub(crate) struct StubArea {
    range: Range<u64>,
    /// One bit per granule, set when it is used.
    used: Vec<u64>,
    /// How many are used.
    count: u64,
    /// All granules before this one are used: where searching can begin.
    full_before: u64,
}

impl StubArea {
    /// An area of which nothing is used.
    pub(crate) fn new(range: Range<u64>) -> StubArea {
        let words = (range.end.saturating_sub(range.start) / GRANULE).div_ceil(64);
        StubArea {
            range,
            used: vec![0; words as usize],
            count: 0,
            full_before: 0,
        }
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.count * GRANULE
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
                Err(_) => {}
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
        let first = self.range.start + self.full_before * GRANULE;
        let (Some(first), Some(last)) = (distance(first), distance(last)) else {
            return Err(NoPlace::Unsuitable);
        };
        let mut at = first.max(i64::from(i32::MIN));
        let last = last.min(i64::from(i32::MAX));
        let mut why = if self.full_before > 0 {
            NoPlace::Full
        } else {
            NoPlace::Unsuitable
        };
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
        let granules = self.granules(place);
        for granule in granules.clone() {
            let Some(word) = self.used.get_mut((granule / 64) as usize) else {
                continue;
            };
            let bit = 1 << (granule % 64);
            if (*word & bit != 0) != used {
                *word ^= bit;
                self.count = if used {
                    self.count + 1
                } else {
                    self.count.saturating_sub(1)
                };
            }
        }
        if !used {
            self.full_before = self.full_before.min(granules.start);
        } else if granules.contains(&self.full_before) {
            self.full_before = granules.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AREA: Range<u64> = 0x7f00_0000_0000..0x7f00_0000_4000;

    #[test]
    fn guarded_bytes_are_undefined_opcodes() {
        let large = AREA.start..AREA.start + (4 << 20);
        for distance in (0..4096).map(|step| 0x10_0000 + step * 0x3_1234) {
            let origin = AREA.start - distance;
            for guarded in [
                [true, false, false, false],
                [false, true, false, false],
                [false, false, true, false],
                [true, true, true, false],
            ] {
                let mut area = StubArea::new(large.clone());
                let place = area.take(40, origin, guarded).unwrap();
                let bytes = ((place.start - origin) as u32).to_le_bytes();
                for (byte, _) in bytes.iter().zip(guarded).filter(|(_, guard)| *guard) {
                    assert!(UNDEFINED.contains(byte) || UNDEFINED_WITH_OPERANDS.contains(byte));
                }
            }
        }
    }

    #[test]
    fn out_of_reach_is_unsuitable() {
        let mut area = StubArea::new(AREA);
        let none = [false; 4];
        let far = AREA.start - (1 << 31) - 0x4000;
        assert_eq!(area.take(40, far, none), Err(NoPlace::Unsuitable));
        assert_eq!(area.take(40, 0, none), Err(NoPlace::Unsuitable));
        assert_eq!(area.take(40, u64::MAX, none), Err(NoPlace::Unsuitable));
        assert!(area.take(40, AREA.end + (1 << 31) - 0x4000, none).is_ok());
        assert_eq!(
            area.take(0x4001, AREA.start, none),
            Err(NoPlace::Unsuitable)
        );
    }

    proptest! {
        #[test]
        fn places_never_overlap(steps in prop::collection::vec((1_u64..200, any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 1..300)) {
            let mut area = StubArea::new(AREA);
            let mut taken: Vec<Range<u64>> = Vec::new();
            for (len, give_back, guard, which) in steps {
                if give_back && !taken.is_empty() {
                    area.give_back(&taken.swap_remove(which.index(taken.len())));
                    continue;
                }
                match area.take(len, AREA.start - 0x1000, [false, guard, false, false]) {
                    Ok(place) => {
                        prop_assert_eq!(place.end - place.start, len);
                        prop_assert!(AREA.start <= place.start && place.end <= AREA.end);
                        prop_assert!(taken.iter().all(|other| other.end <= place.start || place.end <= other.start));
                        taken.push(place);
                    }
                    Err(why) => {
                        prop_assert_eq!(why, NoPlace::Full);
                        // Something large enough would have been found.
                        if !guard {
                            let mut free = AREA.start;
                            let mut sorted = taken.clone();
                            sorted.sort_by_key(|place| place.start);
                            for place in sorted.iter().chain([&(AREA.end..AREA.end)]) {
                                prop_assert!(place.start.saturating_sub(free) < len + 2 * GRANULE);
                                free = place.end;
                            }
                        }
                    }
                }
            }
            for place in &taken {
                area.give_back(place);
            }
            prop_assert_eq!(area.used_bytes(), 0);
            prop_assert!(area.take(AREA.end - AREA.start, AREA.start, [false; 4]).is_ok());
        }
    }
}
