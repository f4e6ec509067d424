// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The register by which a program ends, or resets the board.

use std::sync::Arc;

use super::uart::Uart;
use super::wiring::Wiring;
use crate::Device;

/// Where the register is.
pub const FINISHER_BASE: u64 = 0x10_0000;
/// Bytes of its window.
pub const FINISHER_LENGTH: u64 = 0x1000;

/// What a program wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// 0x5555: all is well.
    Pass,
    /// 0x3333 in the low half: it failed, with the code in the upper half.
    Fail(u16),
    /// 0x7777: reset the board.
    Reset,
}

impl Power {
    fn from_word(word: u32) -> Option<Power> {
        match word & 0xffff {
            0x5555 => Some(Power::Pass),
            0x3333 => Some(Power::Fail((word >> 16) as u16)),
            0x7777 => Some(Power::Reset),
            _ => None,
        }
    }
}

/// The register.
pub(super) struct Finisher {
    wiring: Arc<Wiring>,
    uart: Arc<Uart>,
}

impl Finisher {
    pub(super) fn new(wiring: Arc<Wiring>, uart: Arc<Uart>) -> Finisher {
        Finisher { wiring, uart }
    }
}

impl Device for Finisher {
    fn read(&self, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let word = if size == 2 { value & 0xffff } else { value };
        if offset == 0
            && size != 1
            && let Some(power) = Power::from_word(word as u32)
        {
            // The hart may execute some more instructions before it stops; nobody shall see what they print.
            self.uart.close();
            self.wiring.request(|requests| {
                requests.power.get_or_insert(power);
            });
        }
    }
}
