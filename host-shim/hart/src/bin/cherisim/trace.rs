// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A line for each instruction: address, word, text, and the registers that it wrote.
//!
//! ```text
//! 0x0000000080000004 02058593 addi a1, a1, 32              a1=0x80001020
//! 0x0000000080000008 12b5055b csetbounds ca0, ca0, a1      ca0=0x80001000 [0x80001000, 0x80001020) perms 0x78fff tagged
//!   exception 28 (CHERI), length violation of ca0, value 0x141: machine mode at 0x80000100
//! ```

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use capstream_hart::board::{Board, Stop};
use capstream_hart::disassembly::registers::{CAPABILITY, FLOAT, INTEGER, SPECIAL};
use capstream_hart::disassembly::{Destination, disassemble};
use capstream_hart::{Capability, Hart, Privilege};

use crate::cause::Cause;

/// Where the text of an instruction ends at least.
const TEXT_WIDTH: usize = 32;
const PCC: u8 = 0;
const CSR_FCSR: u16 = 0x003;
const CSR_SCAUSE: u16 = 0x142;
const CSR_STVAL: u16 = 0x143;
const CSR_MCAUSE: u16 = 0x342;
const CSR_MTVAL: u16 = 0x343;

/// Runs a board an instruction at a time and writes what happens.
pub(crate) struct Tracer<W: Write> {
    output: W,
}

/// What a hart holds that instructions change.
struct Registers {
    capabilities: [Capability; 32],
    special: [Option<Capability>; SPECIAL.len()],
    float: [u64; 32],
    fcsr: u64,
    retired: u64,
    /// Cause and value of the last traps into machine and supervisor mode.
    traps: [[u64; 2]; 2],
}

impl Registers {
    fn of(hart: &Hart, retired: u64) -> Registers {
        let csr = |number| hart.csr(number).unwrap_or(0);
        Registers {
            capabilities: std::array::from_fn(|n| hart.capability(n)),
            special: SPECIAL.map(|(n, _)| hart.scr(usize::from(n))),
            float: std::array::from_fn(|n| hart.f(n)),
            fcsr: csr(CSR_FCSR),
            retired,
            traps: [
                [csr(CSR_MCAUSE), csr(CSR_MTVAL)],
                [csr(CSR_SCAUSE), csr(CSR_STVAL)],
            ],
        }
    }
}

impl Registers {
    /// The last trap into a mode.
    fn cause(&self, mode: Privilege) -> Cause {
        let [cause, value] = self.traps[usize::from(mode != Privilege::Machine)];
        Cause { cause, value }
    }
}

impl<W: Write> Tracer<W> {
    pub(crate) fn new(output: W) -> Tracer<W> {
        Tracer { output }
    }

    /// Runs up to `max_instructions`.
    ///
    /// # Errors
    ///
    /// If the trace cannot be written.
    pub(crate) fn run(&mut self, board: &mut Board, max_instructions: u64) -> io::Result<Stop> {
        let mut before = Registers::of(board.hart(), board.instructions_retired());
        for _ in 0..max_instructions {
            let pcc = board.hart().pcc();
            let mut bytes = [0; 4];
            let fetched = board.read_memory(pcc.address(), &mut bytes);
            let stop = board.run(1);
            let hart = board.hart();
            let after = Registers::of(hart, board.instructions_retired());
            let word = u32::from_le_bytes(bytes);
            let executed = after.retired != before.retired;
            let trapped = !executed && matches!(stop, Stop::Limit);
            let interrupted = trapped && after.cause(hart.privilege()).is_interrupt();
            if executed {
                let destination = disassemble(word, pcc.address()).destination;
                let mut line = instruction(pcc.address(), word, fetched);
                changes(&mut line, &before, &after, destination);
                if hart.pcc().with_address(pcc.address()) != pcc {
                    let _ = write!(line, " pcc={}", Value(&hart.pcc()));
                }
                writeln!(self.output, "{}", line.trim_end())?;
            } else if trapped && !interrupted {
                let line = instruction(pcc.address(), word, fetched);
                writeln!(self.output, "{}", line.trim_end())?;
            }
            if trapped {
                let mode = match hart.privilege() {
                    Privilege::Machine => "machine",
                    _ => "supervisor",
                };
                let cause = after.cause(hart.privilege());
                writeln!(self.output, "  {cause}: {mode} mode at {:#x}", hart.pc())?;
            }
            if !matches!(stop, Stop::Limit) {
                self.output.flush()?;
                return Ok(stop);
            }
            before = after;
        }
        self.output.flush()?;
        Ok(Stop::Limit)
    }
}

/// The begin of a line: address, word and text.
fn instruction(address: u64, word: u32, fetched: usize) -> String {
    if fetched < 2 {
        return format!("{address:#018x} -------- no memory");
    }
    let disassembly = disassemble(word, address);
    let word = if disassembly.length == 4 {
        format!("{word:08x}")
    } else {
        format!("{:04x}    ", word & 0xffff)
    };
    format!("{address:#018x} {word} {:TEXT_WIDTH$}", disassembly.text)
}

/// The rest of a line: the destination, and what else changed.
fn changes(
    line: &mut String,
    before: &Registers,
    after: &Registers,
    destination: Option<Destination>,
) {
    // Writing to a string does not fail.
    let pairs = before.capabilities.iter().zip(&after.capabilities);
    for (n, (old, new)) in pairs.enumerate() {
        if old != new || destination == Some(Destination::Integer(n as u8)) {
            let names = if is_plain(new) { INTEGER } else { CAPABILITY };
            let _ = write!(line, " {}={}", names[n], Value(new));
        }
    }
    for (n, (old, new)) in before.float.iter().zip(&after.float).enumerate() {
        if old != new || destination == Some(Destination::Float(n as u8)) {
            let _ = write!(line, " {}={new:#x}", FLOAT[n]);
        }
    }
    if before.fcsr != after.fcsr {
        let _ = write!(line, " fcsr={:#x}", after.fcsr);
    }
    let pairs = before.special.iter().zip(&after.special);
    for ((number, name), (old, new)) in SPECIAL.iter().zip(pairs) {
        // The address of PCC changes with every instruction.
        if *number != PCC
            && old != new
            && let Some(new) = new
        {
            let _ = write!(line, " {name}={}", Value(new));
        }
    }
}

/// Whether a register holds a number and nothing else.
fn is_plain(capability: &Capability) -> bool {
    *capability == Capability::from_address(capability.address())
}

/// A number, or a capability with all its fields.
struct Value<'a>(&'a Capability);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value(capability) = self;
        write!(f, "{:#x}", capability.address())?;
        if is_plain(capability) {
            return Ok(());
        }
        write!(
            f,
            " [{:#x}, {:#x}) perms {:#x}",
            capability.base(),
            capability.top(),
            capability.permissions()
        )?;
        if capability.flag() {
            f.write_str(" capmode")?;
        }
        if capability.is_sentry() {
            f.write_str(" sentry")?;
        } else if capability.is_sealed() {
            write!(f, " otype {}", capability.otype())?;
        }
        f.write_str(if capability.tag() {
            " tagged"
        } else {
            " untagged"
        })
    }
}
