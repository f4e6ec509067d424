// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Padding between functions, which no program executes.
//!
//! Padding is what follows an instruction that never lets the next one run, and is either breakpoints, or the no-operations
//! that assemblers fill up with until an aligned address. The second is told from a function that begins with no-operations
//! (room left for tracers) by three signs: it ends at a multiple of 16, it does not contain one, and it
//! does not consist of one-byte instructions.

use crate::instruction::{Padding, padding};

/// What functions are aligned to at least, where there is padding at all.
const ALIGNMENT: u64 = 16;

/// How many of the first bytes of `code`, which is at `ip` and follows an instruction that ends the flow, are padding.
pub(crate) fn len(code: &[u8], ip: u64) -> usize {
    let breakpoints = code.iter().take_while(|&&byte| byte == 0xcc).count();
    if breakpoints > 0 {
        return breakpoints;
    }
    let aligned = ip.next_multiple_of(ALIGNMENT);
    let room = (aligned - ip) as usize;
    let mut at = 0;
    let mut single = 0;
    while at < room {
        match code.get(at..).map(padding) {
            Some(Padding::NoOperation(len)) => {
                single += usize::from(len == 1);
                at += len;
            }
            _ => return 0,
        }
    }
    if at == room && single <= 1 { room } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_anywhere() {
        assert_eq!(len(&[0xcc; 7], 0x1000), 7);
        assert_eq!(len(&[0xcc, 0xcc, 0x90, 0xc3], 0x1003), 2);
    }

    #[test]
    fn no_operations_up_to_an_aligned_address() {
        let long = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0xc3];
        assert_eq!(len(&long, 0x1006), 10);
        // They end too early, or too late.
        assert_eq!(len(&long, 0x1005), 0);
        assert_eq!(len(&long, 0x1007), 0);
        // A function may begin here.
        assert_eq!(len(&long, 0x1000), 0);
    }

    #[test]
    fn room_for_tracers_is_none() {
        assert_eq!(len(&[0x90; 16], 0x1008), 0);
        assert_eq!(len(&[0x90, 0xc3], 0x100f), 1);
    }

    #[test]
    fn other_instructions_are_none() {
        assert_eq!(len(&[0x31, 0xc0, 0x31, 0xc0, 0x31, 0xc0], 0x100a), 0);
        assert_eq!(len(&[], 0x100a), 0);
        assert_eq!(len(&[0x66, 0x0f], 0x100a), 0);
    }
}
