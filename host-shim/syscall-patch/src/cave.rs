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
