// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The registers as gdb knows them.
//!
//! Numbers are those that gdb gives RISC-V's registers itself. Capability registers come behind them, as 128 bits in the form that memory
//! has; their tags are a register of their own, because gdb knows no 129 bits.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use capstream_hart::board::Board;
use capstream_hart::disassembly::registers::{CAPABILITY, CSRS, FLOAT, INTEGER, SPECIAL};
use capstream_hart::{Capability, Hart};

/// gdb's number of PC.
const PC: usize = 32;
/// gdb's number of the first floating-point register.
const FIRST_FLOAT: usize = 33;
/// gdb's number of CSR 0.
const FIRST_CSR: usize = 65;
/// The number of the first capability register, behind all CSRs and the privilege mode.
const FIRST_CAPABILITY: usize = FIRST_CSR + 4096 + 1;
/// The number of the first special capability register.
const FIRST_SPECIAL: usize = FIRST_CAPABILITY + 32;
/// The number of the register with the tags.
const TAGS: usize = FIRST_SPECIAL + SPECIAL.len();
/// PCC's place among the special capability registers.
const PCC: usize = 0;

/// A register of the target description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// An integer register.
    Integer(usize),
    /// The absolute address of the next instruction.
    Pc,
    /// A floating-point register.
    Float(usize),
    /// A CSR.
    Csr(u16),
    /// A capability register.
    Capability(usize),
    /// A special capability register: its place in [`SPECIAL`].
    Special(usize),
    /// The tags: bit n for capability register n, bit 32 + n for the special register at place n.
    Tags,
}

impl Register {
    /// Bytes of its value.
    const fn size(self) -> usize {
        match self {
            Register::Capability(_) | Register::Special(_) => 16,
            _ => 8,
        }
    }

    /// The register with gdb's number.
    fn from_number(number: usize) -> Option<Register> {
        Some(match number {
            0..PC => Register::Integer(number),
            PC => Register::Pc,
            FIRST_FLOAT..FIRST_CSR => Register::Float(number - FIRST_FLOAT),
            FIRST_CAPABILITY..FIRST_SPECIAL => Register::Capability(number - FIRST_CAPABILITY),
            FIRST_SPECIAL..TAGS => Register::Special(number - FIRST_SPECIAL),
            TAGS => Register::Tags,
            _ => {
                let csr = u16::try_from(number.checked_sub(FIRST_CSR)?).ok()?;
                CSRS.iter().find(|(number, _)| *number == csr)?;
                Register::Csr(csr)
            }
        })
    }

    /// All of them, in the order of their numbers.
    fn all() -> impl Iterator<Item = Register> {
        (0..=TAGS).filter_map(Register::from_number)
    }

    /// The value, in the low bits; none if the hart has no such register.
    pub(crate) fn read(self, hart: &Hart) -> Option<u128> {
        Some(match self {
            Register::Integer(n) => hart.x(n).into(),
            Register::Pc => hart.pcc().address().into(),
            Register::Float(n) => hart.f(n).into(),
            Register::Csr(number) => hart.csr(number)?.into(),
            Register::Capability(n) => hart.capability(n).to_bits(),
            Register::Special(place) => special(hart, place)?.to_bits(),
            Register::Tags => {
                let general = (0..32).map(|n| hart.capability(n).tag());
                let special = (0..SPECIAL.len()).map(|n| special(hart, n).is_some_and(|c| c.tag()));
                general
                    .chain(special)
                    .enumerate()
                    .fold(0, |tags, (n, tag)| tags | u128::from(tag) << n)
            }
        })
    }

    /// Gives it a value; false if it cannot have one. A capability keeps its tag: whoever sits at the debugger holds the root.
    pub(crate) fn write(self, hart: &mut Hart, value: u128) -> bool {
        match self {
            Register::Integer(n) => hart.set_x(n, value as u64),
            Register::Pc => {
                let pcc = hart.pcc();
                let moved = pcc.with_address(value as u64);
                hart.set_pcc(&moved);
            }
            Register::Float(n) => hart.set_f(n, value as u64),
            Register::Csr(number) => return hart.set_csr(number, value as u64),
            Register::Capability(n) => {
                let tag = hart.capability(n).tag();
                hart.set_capability(n, &Capability::from_bits(value, tag));
            }
            Register::Special(place) => {
                let tag = special(hart, place).is_some_and(|c| c.tag());
                return set_special(hart, place, &Capability::from_bits(value, tag));
            }
            Register::Tags => {
                for n in 0..32 {
                    let bits = hart.capability(n).to_bits();
                    let tag = value >> n & 1 != 0;
                    if tag != hart.capability(n).tag() {
                        hart.set_capability(n, &Capability::from_bits(bits, tag));
                    }
                }
                for place in 0..SPECIAL.len() {
                    let Some(old) = special(hart, place) else {
                        continue;
                    };
                    let tag = value >> (32 + place) & 1 != 0;
                    if tag != old.tag() {
                        set_special(hart, place, &Capability::from_bits(old.to_bits(), tag));
                    }
                }
            }
        }
        true
    }
}

fn special(hart: &Hart, place: usize) -> Option<Capability> {
    if place == PCC {
        Some(hart.pcc())
    } else {
        hart.scr(usize::from(SPECIAL[place].0))
    }
}

fn set_special(hart: &mut Hart, place: usize, value: &Capability) -> bool {
    if place == PCC {
        hart.set_pcc(value);
        true
    } else {
        hart.set_scr(usize::from(SPECIAL[place].0), value)
    }
}

impl gdbstub::arch::RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Register, Option<NonZeroUsize>)> {
        let register = Register::from_number(id)?;
        Some((register, NonZeroUsize::new(register.size())))
    }
}

/// The values of all registers, in the order of [`Register::all`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Registers {
    pc: u64,
    values: Vec<(usize, Option<u128>)>,
}

impl Registers {
    pub(crate) fn of(board: &Board) -> Registers {
        let hart = board.hart();
        Registers {
            pc: hart.pcc().address(),
            values: Register::all()
                .map(|register| (register.size(), register.read(hart)))
                .collect(),
        }
    }

    /// Writes those that differ from what the hart has.
    pub(crate) fn write(&self, board: &mut Board) {
        let before = Registers::of(board);
        let pairs = self.values.iter().zip(&before.values);
        for (register, ((_, new), (_, old))) in Register::all().zip(pairs) {
            if let Some(value) = new
                && new != old
            {
                // A register that cannot be written keeps its value.
                register.write(board.hart_mut(), *value);
            }
        }
    }
}

impl gdbstub::arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for &(size, value) in &self.values {
            for n in 0..size {
                write_byte(value.map(|value| (value >> (8 * n)) as u8));
            }
        }
    }

    fn gdb_deserialize(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        self.values.clear();
        for register in Register::all() {
            let size = register.size();
            let (value, rest) = bytes.split_at_checked(size).ok_or(())?;
            self.values.push((size, Some(from_bytes(value))));
            bytes = rest;
        }
        Ok(())
    }
}

/// A little-endian number of up to 16 bytes.
pub(crate) fn from_bytes(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .take(16)
        .rev()
        .fold(0, |value, &byte| value << 8 | u128::from(byte))
}

/// gdb's idea of a CHERI-RISC-V hart.
#[derive(Debug)]
pub(crate) enum CheriRiscv {}

impl gdbstub::arch::Arch for CheriRiscv {
    type Usize = u64;
    type Registers = Registers;
    type BreakpointKind = usize;
    type RegId = Register;

    fn target_description_xml() -> Option<&'static str> {
        static XML: LazyLock<String> = LazyLock::new(describe);
        Some(&XML)
    }
}

fn describe() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\
         <target version=\"1.0\"><architecture>riscv:rv64</architecture>",
    );
    let mut feature = |name: &str, registers: &[(usize, &str, u32, &str)]| {
        // Writing to a string does not fail.
        let _ = write!(xml, "<feature name=\"{name}\">");
        for (number, name, bits, kind) in registers {
            let _ = write!(
                xml,
                "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
            );
        }
        xml.push_str("</feature>");
    };

    let mut registers = Vec::new();
    for (n, name) in INTEGER.iter().enumerate() {
        let kind = match *name {
            "ra" => "code_ptr",
            "sp" | "gp" | "tp" | "s0" => "data_ptr",
            _ => "int",
        };
        // gdb calls the frame pointer so.
        let name = if n == 8 { "fp" } else { name };
        registers.push((n, name, 64, kind));
    }
    registers.push((PC, "pc", 64, "code_ptr"));
    feature("org.gnu.gdb.riscv.cpu", &registers);

    let (float, csrs): (Vec<_>, Vec<_>) = CSRS.iter().partition(|(number, _)| *number < 4);
    let csr =
        |&(number, name): &(u16, &'static str)| (FIRST_CSR + usize::from(number), name, 64, "int");
    let mut registers: Vec<_> = (FIRST_FLOAT..)
        .zip(FLOAT)
        .map(|(number, name)| (number, name, 64, "ieee_double"))
        .collect();
    registers.extend(float.iter().map(csr));
    feature("org.gnu.gdb.riscv.fpu", &registers);
    feature(
        "org.gnu.gdb.riscv.csr",
        &csrs.iter().map(csr).collect::<Vec<_>>(),
    );

    let names = CAPABILITY
        .into_iter()
        .chain(SPECIAL.iter().map(|(_, name)| *name));
    let mut registers: Vec<_> = (FIRST_CAPABILITY..)
        .zip(names)
        .map(|(number, name)| (number, name, 128, "uint128"))
        .collect();
    registers.push((TAGS, "tags", 64, "uint64"));
    feature("capstream.riscv.cheri", &registers);
    xml.push_str("</target>");
    xml
}

#[cfg(test)]
mod tests {
    use super::{FIRST_CAPABILITY, Register, TAGS, describe, from_bytes};

    #[test]
    fn every_described_register_has_its_number_and_size() {
        let xml = describe();
        let described: Vec<(usize, usize)> = xml
            .split("<reg ")
            .skip(1)
            .map(|register| {
                let field = |name: &str| -> usize {
                    let (_, rest) = register.split_once(&format!("{name}=\"")).unwrap();
                    rest.split_once('"').unwrap().0.parse().unwrap()
                };
                (field("regnum"), field("bitsize") / 8)
            })
            .collect();
        let known: Vec<(usize, usize)> = (0..=TAGS)
            .filter_map(|number| Some((number, Register::from_number(number)?.size())))
            .collect();
        let mut sorted = described.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, known);
        assert!(xml.contains("name=\"cnull\""));
        assert_eq!(
            Register::from_number(FIRST_CAPABILITY + 10),
            Some(Register::Capability(10))
        );
    }

    #[test]
    fn bytes_are_little_endian() {
        assert_eq!(from_bytes(&[1, 2]), 0x201);
    }
}
