// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One decoded instruction that can be moved to another address.

use iced_x86::{
    Decoder, DecoderOptions, Encoder, FlowControl, Instruction as Decoded, Mnemonic, Register,
};

/// Bytes of `syscall`.
pub(crate) const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// What runs after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next one, always.
    Next,
    /// The next one, or the target of the branch.
    Conditional,
    /// Never the next one.
    End,
}

/// What has to be adapted when an instruction moves.
#[derive(Clone, Copy, Debug)]
enum Adaptation {
    /// Nothing: its bytes mean the same everywhere.
    None,
    /// The 32 bit displacement at this offset, relative to the instruction's end, which leads to this address.
    Displacement(usize, u64),
    /// The whole encoding: it is a direct branch.
    Branch,
}

/// An instruction that can be moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    /// Its address.
    pub(crate) ip: u64,
    /// Its length in bytes.
    pub(crate) len: usize,
    /// What runs after it.
    pub(crate) flow: Flow,
    bytes: [u8; 15],
    adaptation: Adaptation,
    decoded: Decoded,
}

impl Instruction {
    /// Decodes the first instruction of `code`, which is at `ip`; `None` when it is no instruction, or cannot be moved:
    /// calls (their return address would be in the stub), system calls, interrupts, loops, transactions.
    pub(crate) fn decode(code: &[u8], ip: u64) -> Option<Instruction> {
        let mut decoder = Decoder::with_ip(64, code, ip, DecoderOptions::NONE);
        let decoded = decoder.decode();
        if decoded.is_invalid() {
            return None;
        }
        let flow = match decoded.flow_control() {
            FlowControl::Next => Flow::Next,
            FlowControl::ConditionalBranch if decoded.is_jcc_short_or_near() => Flow::Conditional,
            FlowControl::UnconditionalBranch if decoded.is_jmp_short_or_near() => Flow::End,
            FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception => Flow::End,
            _ => return None,
        };
        if matches!(decoded.mnemonic(), Mnemonic::Sysexit | Mnemonic::Sysret) {
            return None;
        }
        let adaptation = if decoded.is_jcc_short_or_near() || decoded.is_jmp_short_or_near() {
            Adaptation::Branch
        } else if decoded.is_ip_rel_memory_operand() {
            let offsets = decoder.get_constant_offsets(&decoded);
            if decoded.memory_base() != Register::RIP || offsets.displacement_size() != 4 {
                return None;
            }
            Adaptation::Displacement(
                offsets.displacement_offset(),
                decoded.ip_rel_memory_address(),
            )
        } else {
            Adaptation::None
        };
        let len = decoded.len();
        let mut bytes = [0; 15];
        bytes.get_mut(..len)?.copy_from_slice(code.get(..len)?);
        Some(Instruction {
            ip,
            len,
            flow,
            bytes,
            adaptation,
            decoded,
        })
    }

    /// Address after it.
    pub(crate) fn end(&self) -> u64 {
        self.ip.wrapping_add(self.len as u64)
    }

    /// How many bytes it takes elsewhere, at most.
    pub(crate) fn moved_len(&self) -> usize {
        match self.adaptation {
            Adaptation::Branch => self.len.max(6),
            _ => self.len,
        }
    }

    /// Appends to `to` what does the same at `ip`; `None` when its target is out of reach from there.
    pub(crate) fn relocate(&self, ip: u64, to: &mut Vec<u8>) -> Option<()> {
        match self.adaptation {
            Adaptation::None => to.extend_from_slice(self.bytes.get(..self.len)?),
            Adaptation::Displacement(offset, target) => {
                let mut bytes = self.bytes;
                let end = ip.wrapping_add(self.len as u64);
                let displacement = displacement(end, target)?;
                bytes
                    .get_mut(offset..offset.checked_add(4)?)?
                    .copy_from_slice(&displacement.to_le_bytes());
                to.extend_from_slice(bytes.get(..self.len)?);
            }
            Adaptation::Branch => {
                let mut branch = self.decoded;
                branch.as_near_branch();
                let mut encoder = Encoder::new(64);
                encoder.encode(&branch, ip).ok()?;
                to.extend_from_slice(&encoder.take_buffer());
            }
        }
        Some(())
    }
}

/// Lengths of the instructions at many places of the same code.
pub(crate) struct Lengths<'a> {
    decoder: Decoder<'a>,
    decoded: Decoded,
}

impl Lengths<'_> {
    /// For the places in `code`.
    pub(crate) fn new(code: &[u8]) -> Lengths<'_> {
        Lengths {
            decoder: Decoder::with_ip(64, code, 0, DecoderOptions::NONE),
            decoded: Decoded::default(),
        }
    }

    /// Length of the instruction at `offset`, of any kind; `None` when it is none, or ends outside the code.
    pub(crate) fn at(&mut self, offset: usize) -> Option<usize> {
        self.decoder.set_position(offset).ok()?;
        self.decoder.decode_out(&mut self.decoded);
        (!self.decoded.is_invalid()).then(|| self.decoded.len())
    }
}

/// What to add to the address `from` to get `to`, as a sign-extended 32 bit number; `None` when it is too far.
pub(crate) fn displacement(from: u64, to: u64) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from) as i64).ok()
}

/// What an instruction is good for between functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// It does nothing, over this many bytes.
    NoOperation(usize),
    /// Something else.
    No,
}

/// Looks at the first instruction of `code`.
pub(crate) fn padding(code: &[u8]) -> Padding {
    let decoded = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    if decoded.mnemonic() == Mnemonic::Nop {
        Padding::NoOperation(decoded.len())
    } else {
        Padding::No
    }
}

/// Length of the first instruction of `code`, of any kind, and whether the next one never runs after it.
pub(crate) fn flow(code: &[u8]) -> Option<(usize, bool)> {
    let decoded = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    let ends = matches!(
        decoded.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
    );
    (!decoded.is_invalid()).then(|| (decoded.len(), ends))
}
