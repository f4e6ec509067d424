// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames that wait for a receiver's buffers, in their order, so many bytes of them and no more.

use super::frame::Frame;
use super::header::{HEADER, Header};
use crate::memory::OutsideMemory;

/// How many bytes wait for one receiver at most: a burst of the longest frames.
const CAPACITY: usize = 1 << 20;
/// In front of each frame: its header, and its length in four bytes.
const RECORD: usize = HEADER + 4;

/// A ring of frames, each in one piece. Its memory is taken when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    ring: Box<[u8]>,
    /// Where the first record is.
    first: usize,
    /// Where the next record goes to.
    end: usize,
    /// Where records end that are behind `first` while the next ones are in front of it.
    wrap: Option<usize>,
    frames: usize,
}

impl Backlog {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.first = 0;
        self.end = 0;
        self.wrap = None;
        self.frames = 0;
    }

    /// Adds a copy; `false` when there is no room.
    pub(super) fn push(&mut self, header: Header, frame: Frame<'_>) -> Result<bool, OutsideMemory> {
        let len = RECORD + frame.len();
        if self.ring.is_empty() {
            self.ring = vec![0; CAPACITY].into_boxed_slice();
        }
        if self.frames == 0 {
            self.clear();
        }
        let wraps = self.wrap.is_none() && self.ring.len() - self.end < len;
        let at = if wraps { 0 } else { self.end };
        // In front of `first` there has to be room up to it; behind it, up to the end.
        let limit = if self.wrap.is_some() || wraps {
            self.first
        } else {
            self.ring.len()
        };
        if at + len > limit {
            return Ok(false);
        }
        let Some(record) = self.ring.get_mut(at..at + len) else {
            return Ok(false);
        };
        let (head, body) = record.split_at_mut(RECORD);
        let (fixed, length) = head.split_at_mut(HEADER);
        fixed.copy_from_slice(&header.to_bytes(0));
        length.copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        frame.reader().read(body)?;
        if wraps {
            self.wrap = Some(self.end);
        }
        self.end = at + len;
        self.frames += 1;
        Ok(true)
    }

    /// The first one.
    pub(super) fn front(&self) -> Option<(Header, &[u8])> {
        if self.frames == 0 {
            return None;
        }
        let (head, rest) = self.ring.get(self.first..)?.split_at_checked(RECORD)?;
        let (fixed, length) = head.split_first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes(*length.first_chunk::<4>()?);
        Some((Header::from_bytes(fixed), rest.get(..length as usize)?))
    }

    /// Takes the first one away.
    pub(super) fn pop(&mut self) {
        let Some((_, frame)) = self.front() else {
            return;
        };
        self.first += RECORD + frame.len();
        self.frames -= 1;
        if self.wrap == Some(self.first) {
            self.wrap = None;
            self.first = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_full_takes_no_more() {
        let mut backlog = Backlog::default();
        let frame = vec![7; 65_000];
        let mut count = 0;
        while backlog.push(Header::valid(), Frame::Host(&frame)).unwrap() {
            count += 1;
        }
        assert_eq!(count, CAPACITY / (65_000 + RECORD));
        for _ in 0..count {
            assert_eq!(backlog.front(), Some((Header::valid(), &frame[..])));
            backlog.pop();
        }
        assert!(backlog.is_empty() && backlog.front().is_none());
        backlog.pop();
        assert!(backlog.push(Header::valid(), Frame::Host(&frame)).unwrap());
        backlog.clear();
        assert_eq!(backlog.front(), None);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            steps in prop::collection::vec((any::<bool>(), 14_usize..66_000), 1..300),
        ) {
            let mut backlog = Backlog::default();
            let mut model = VecDeque::new();
            for (number, (push, len)) in steps.into_iter().enumerate() {
                if push {
                    let frame = vec![number as u8; len];
                    if backlog.push(Header::valid(), Frame::Host(&frame)).unwrap() {
                        model.push_back(frame);
                    } else {
                        let waiting: usize = model.iter().map(|frame| frame.len() + RECORD).sum();
                        // At most what is lost at the end of the ring.
                        prop_assert!(waiting + len + RECORD + 66_100 > CAPACITY);
                    }
                } else {
                    model.pop_front();
                    backlog.pop();
                }
                let front = model.front().map(|frame: &Vec<u8>| (Header::valid(), &frame[..]));
                prop_assert_eq!(backlog.front(), front);
                prop_assert_eq!(backlog.is_empty(), model.is_empty());
            }
        }
    }
}
