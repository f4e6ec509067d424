// SPDX-License-Identifier: GPL-2.0-only
//! `/proc/capstream`: which nodes there are to be in `/cap`, for process 1. A line `NAME MAJOR COUNT` for each kind; minors begin with 1.

use capstream_core::requests::MINORS;
use cty::{c_char, c_int, c_ushort, c_void};
use kernel::c_str;
use kernel::prelude::*;

use crate::chrdev::Kind;
use crate::{command_line, KINDS};

/// A file of the kernel that is being read.
#[repr(C)]
struct SeqFile {
    _opaque: [u8; 0],
}

type Show = unsafe extern "C" fn(*mut SeqFile, *mut c_void) -> c_int;

extern "C" {
    fn proc_create_single_data(
        name: *const c_char,
        mode: c_ushort,
        parent: *mut c_void,
        show: Option<Show>,
        data: *mut c_void,
    ) -> *mut c_void;
    fn seq_write(file: *mut SeqFile, data: *const c_void, len: usize) -> c_int;
}

/// Puts the file there.
pub(crate) fn init() -> Result<()> {
    // SAFETY: the name and the function live for ever; the file has no data.
    let entry = unsafe {
        proc_create_single_data(
            c_str!("capstream").as_char_ptr().cast(),
            0o444,
            core::ptr::null_mut(),
            Some(show),
            core::ptr::null_mut(),
        )
    };
    if entry.is_null() {
        return Err(ENOMEM);
    }
    Ok(())
}

/// How many nodes of a kind there are: what the command line says, as far as there are minors.
fn count(kind: &Kind) -> u32 {
    command_line::number(kind.node_count_option)
        .unwrap_or(kind.node_count)
        .min(MINORS - 1)
}

/// What is read into a file of the kernel.
struct Text(*mut SeqFile);

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // SAFETY: the file is valid while `show` runs; the text is only read.
        let full = unsafe { seq_write(self.0, text.as_ptr().cast(), text.len()) } != 0;
        if full {
            Err(core::fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// # Safety
/// Called by the kernel with a file that is being read.
unsafe extern "C" fn show(file: *mut SeqFile, _data: *mut c_void) -> c_int {
    use core::fmt::Write;
    for kind in KINDS {
        // When it does not fit, the kernel asks again with more room.
        let _ = writeln!(Text(file), "{} {} {}", kind.node, kind.major, count(kind));
    }
    0
}
