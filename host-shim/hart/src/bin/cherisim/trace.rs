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
const CSR_SEPC: u16 = 0x141;
const CSR_SCAUSE: u16 = 0x142;
const CSR_STVAL: u16 = 0x143;
const CSR_MEPC: u16 = 0x341;
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
    /// Cause, value and address of the last traps into machine and supervisor mode.
    traps: [[u64; 3]; 2],
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
                [csr(CSR_MCAUSE), csr(CSR_MTVAL), csr(CSR_MEPC)],
                [csr(CSR_SCAUSE), csr(CSR_STVAL), csr(CSR_SEPC)],
            ],
        }
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
            let after = Registers::of(board.hart(), board.instructions_retired());
            let hart = board.hart();
            if after.retired != before.retired {
                self.instruction(pcc.address(), u32::from_le_bytes(bytes), fetched)?;
                self.changes(
                    &before,
                    &after,
                    pcc,
                    hart,
                    disassemble(u32::from_le_bytes(bytes), pcc.address()).destination,
                )?;
            } else if !matches!(stop, Stop::Limit) {
                // It stopped before the instruction.
            } else {
                self.instruction(pcc.address(), u32::from_le_bytes(bytes), fetched)?;
                self.output.write_all(b"\n")?;
                self.trap(&after, hart)?;
            }
            before = after;
            if !matches!(stop, Stop::Limit) {
                self.output.flush()?;
                return Ok(stop);
            }
        }
        self.output.flush()?;
        Ok(Stop::Limit)
    }

    fn instruction(&mut self, address: u64, word: u32, fetched: usize) -> io::Result<()> {
        if fetched < 2 {
            return write!(self.output, "{address:#018x} -------- no memory");
        }
        let line = disassemble(word, address);
        let word = if line.length == 4 {
            format!("{word:08x}")
        } else {
            format!("{:04x}    ", word & 0xffff)
        };
        write!(
            self.output,
            "{address:#018x} {word} {:TEXT_WIDTH$}",
            line.text
        )
    }

    fn changes(
        &mut self,
        before: &Registers,
        after: &Registers,
        pcc: Capability,
        hart: &Hart,
        destination: Option<Destination>,
    ) -> io::Result<()> {
        let mut line = String::new();
        for (n, (old, new)) in before
            .capabilities
            .iter()
            .zip(&after.capabilities)
            .enumerate()
        {
            if old != new || destination == Some(Destination::Integer(n as u8)) {
                let name = if is_plain(new) {
                    INTEGER[n]
                } else {
                    CAPABILITY[n]
                };
                let _ = write!(line, " {name}={}", Value(new));
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
        for ((number, name), (old, new)) in SPECIAL
            .iter()
            .zip(before.special.iter().zip(&after.special))
        {
            // The address of PCC changes with every instruction.
            let changed = if *number == PCC {
                hart.pcc().with_address(pcc.address()) != pcc
            } else {
                old != new
            };
            if changed {
                let pcc = hart.pcc();
                let new = if *number == PCC {
                    Some(&pcc)
                } else {
                    new.as_ref()
                };
                if let Some(new) = new {
                    let _ = write!(line, " {name}={}", Value(new));
                }
            }
        }
        writeln!(self.output, "{line}")
    }

    fn trap(&mut self, after: &Registers, hart: &Hart) -> io::Result<()> {
        let (index, mode) = match hart.privilege() {
            Privilege::Machine => (0, "machine"),
            _ => (1, "supervisor"),
        };
        let [cause, value, _] = after.traps[index];
        writeln!(
            self.output,
            "  {}: {mode} mode at {:#x}",
            Cause { cause, value },
            hart.pcc().address()
        )
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
