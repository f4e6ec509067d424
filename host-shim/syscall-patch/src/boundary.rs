// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the instructions before a known one begin.
//!
//! x86 code cannot be decoded backwards. But decoding from a wrong place falls into step with the real instructions
//! after a few of them, and stays there. So many places further back are tried; an address where almost all of them
//! agree that an instruction begins is taken for one.

use crate::instruction::Lengths;

/// Places that decoding starts from.
const STARTS: usize = 64;
/// Bytes between the last of these places and the first address that is asked for, so that they are in step there.
const LEAD: usize = 24;
/// How many of the places must still be in the race: decoding that ends at an invalid instruction, or does not meet the
/// known one, proves its start wrong.
const LEAST_SURVIVORS: u32 = 16;
/// Of the survivors, how many per cent must agree.
const AGREEMENT: u32 = 95;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;

/// Bytes before the known instruction that are needed to look back `reach` bytes.
pub(crate) const fn needed(reach: usize) -> usize {
    STARTS + LEAD + reach
}

/// How many bytes before the end of `code` instructions begin, nearest first: the one that ends there, the one before
/// that one, and so on, over at most `reach` bytes and as long as there is agreement.
pub(crate) fn before_end(code: &[u8], reach: usize) -> Vec<usize> {
    let code = code
        .get(code.len().saturating_sub(needed(reach))..)
        .unwrap_or(code);
    let end = code.len();
    let starts = end.saturating_sub(reach + LEAD).min(STARTS);
    // votes[i]: from how many starts decoding arrives at an instruction that begins at i; next[i]: where that one ends.
    let mut votes = vec![0_u32; end + 1];
    let mut next = vec![0_usize; end];
    let mut survivors = starts as u32;
    let mut lengths = Lengths::new(code);
    for at in 0..end {
        let Some(vote) = votes.get_mut(at) else { break };
        *vote += u32::from(at < starts);
        let count = *vote;
        if count == 0 {
            continue;
        }
        match lengths.at(at) {
            Some(len) => {
                if let Some(slot) = next.get_mut(at) {
                    *slot = at + len;
                }
                if let Some(vote) = votes.get_mut(at + len) {
                    *vote += count;
                }
            }
            None => survivors = survivors.saturating_sub(count),
        }
    }
    let mut found = Vec::new();
    if survivors < LEAST_SURVIVORS {
        return found;
    }
    let mut known = end;
    loop {
        let best = (known.saturating_sub(LONGEST)..known)
            .filter(|&at| next.get(at) == Some(&known))
            .max_by_key(|&at| votes.get(at).copied().unwrap_or(0));
        let Some(best) = best else { break };
        let agreed = votes.get(best).copied().unwrap_or(0);
        if end - best > reach || agreed * 100 < survivors * AGREEMENT {
            break;
        }
        found.push(end - best);
        known = best;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};
    use object::{Object, ObjectSection};
    use std::collections::HashSet;

    /// The file's `.text`, and where its instructions begin.
    fn text(path: &str) -> (Vec<u8>, HashSet<usize>) {
        let data = std::fs::read(path).unwrap();
        let file = object::File::parse(&*data).unwrap();
        let code = file.section_by_name(".text").unwrap().data().unwrap();
        let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        let begins = decoder.into_iter().map(|decoded| decoded.ip() as usize);
        (code.to_vec(), begins.collect())
    }

    /// Every instruction of a library takes the role of the system call.
    fn accuracy(path: &str, step: usize) {
        let (code, begins) = text(path);
        let (mut asked, mut answered, mut wrong) = (0_u32, 0_u32, 0_u32);
        for &known in begins.iter().filter(|&&at| at > 300).step_by(step) {
            let before = code.get(..known).unwrap();
            let found = before_end(before, 48);
            asked += 1;
            answered += u32::from(!found.is_empty());
            let bad = found
                .iter()
                .any(|distance| !begins.contains(&(known - distance)));
            if bad {
                eprintln!("{path} {known:#x} {found:?}");
            }
            wrong += u32::from(bad);
        }
        eprintln!("{path}: {asked} asked, {answered} answered, {wrong} wrong");
        assert!(answered > asked * 9 / 10);
        assert!(wrong == 0, "{wrong}");
    }

    #[test]
    fn finds_the_instructions_of_glibc() {
        accuracy("/usr/lib/x86_64-linux-gnu/libc.so.6", 5);
    }

    #[test]
    fn finds_the_instructions_of_musl() {
        accuracy("/usr/lib/x86_64-linux-musl/libc.so", 3);
    }
}
