// SPDX-License-Identifier: GPL-2.0-only
//! Numbers on the kernel's command line, `capstream.NAME=NUMBER`.

use core::ffi::CStr;
use cty::c_char;

/// What all names begin with.
const PREFIX: &str = "capstream.";

extern "C" {
    // What the monitor passed, kept by the kernel for `/proc/cmdline`.
    static saved_command_line: *const c_char;
}

/// The number of an option, the last one if it is there several times; `None` when it is not there, or is no number of 32 bits.
pub(crate) fn number(name: &str) -> Option<u32> {
    // SAFETY: set once before drivers are initialised, and not changed afterwards.
    let line = unsafe { saved_command_line };
    if line.is_null() {
        return None;
    }
    // SAFETY: a string of the kernel that stays.
    let line = unsafe { CStr::from_ptr(line.cast()) };
    let line = line.to_str().ok()?;
    line.split_ascii_whitespace()
        .filter_map(|word| {
            word.strip_prefix(PREFIX)?
                .strip_prefix(name)?
                .strip_prefix('=')
        })
        .last()?
        .parse()
        .ok()
}
