// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which bytes around a system call could become a jump, and what the stub then has to do.

use crate::area::Guarded;
use crate::instruction::{self, Flow, Instruction, SYSCALL};
use crate::table::PatchKind;
use crate::{boundary, cave};
use core::ops::Range;

/// Bytes of `jmp rel32`.
pub(crate) const JUMP: u64 = 5;
/// Bytes to either side of the system call that [`preceding`] looks at.
pub(crate) const NEAR: u64 = boundary::needed(HEAD_REACH) as u64;
/// Bytes to either side of it that the other patterns look at: where branches into a function's middle come from.
pub(crate) const WIDE: u64 = 1024;
/// How far before the system call instructions are moved.
const HEAD_REACH: usize = 48;
/// How many instructions before the system call are moved.
const HEAD_COUNT: usize = 8;
/// How far a short jump leads.
const SHORT_REACH: usize = 128;
/// Pages are the units of mapping: what two bytes in one page hold appears and disappears together.
pub(crate) const PAGE: u64 = capstream_abi::boot::PAGE;

/// The code around a system call, as it was before anything was patched.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Address of the system call instruction.
    pub(crate) site: u64,
    /// Address of the first byte of `bytes`.
    pub(crate) begin: u64,
    /// The code.
    pub(crate) bytes: Vec<u8>,
}

impl Surroundings {
    /// The part of `code` that is up to `radius` bytes from `site`.
    pub(crate) fn range(site: u64, radius: u64, code: &Range<u64>) -> Range<u64> {
        site.saturating_sub(radius).max(code.start)..site.saturating_add(radius).min(code.end)
    }

    /// The code from `ip` on.
    fn from(&self, ip: u64) -> &[u8] {
        ip.checked_sub(self.begin)
            .and_then(|offset| self.bytes.get(usize::try_from(offset).ok()?..))
            .unwrap_or(&[])
    }

    /// The code before the system call.
    fn before(&self) -> &[u8] {
        self.site
            .checked_sub(self.begin)
            .and_then(|offset| self.bytes.get(..usize::try_from(offset).ok()?))
            .unwrap_or(&[])
    }

    /// Address after the system call.
    fn after(&self) -> u64 {
        self.site + SYSCALL.len() as u64
    }

    /// Whether it is `mov $15, %rax; syscall`: unwinders recognise frames of signal handlers by these bytes.
    pub(crate) fn is_signal_return(&self) -> bool {
        self.before()
            .ends_with(&[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00])
    }

    /// Instructions before the system call that can be moved, nearest first.
    fn head(&self) -> Vec<Instruction> {
        boundary::before_end(self.before(), HEAD_REACH)
            .into_iter()
            .take(HEAD_COUNT)
            .map_while(|distance| {
                let ip = self.site.checked_sub(distance as u64)?;
                let found = Instruction::decode(self.from(ip), ip)?;
                (found.flow != Flow::End).then_some(found)
            })
            .collect()
    }

    /// Whether some bytes nearby look like a direct branch to `target`. They may be something else.
    fn branch_to(&self, target: u64) -> bool {
        let mut ip = self.begin;
        let mut code = self.bytes.as_slice();
        while let Some((&opcode, rest)) = code.split_first() {
            let (short, near) = match (opcode, rest) {
                (0x70..=0x7f | 0xe0..=0xe3 | 0xeb, [to, ..]) => (Some(*to as i8), None),
                (0xe8 | 0xe9, [a, b, c, d, ..]) => (None, Some((5, [*a, *b, *c, *d]))),
                (0x0f, [0x80..=0x8f, a, b, c, d, ..]) => (None, Some((6, [*a, *b, *c, *d]))),
                _ => (None, None),
            };
            let short = short.map(|to| ip.wrapping_add(2).wrapping_add_signed(i64::from(to)));
            let near = near.map(|(len, to)| {
                ip.wrapping_add(len)
                    .wrapping_add_signed(i64::from(i32::from_le_bytes(to)))
            });
            if short == Some(target) || near == Some(target) {
                return true;
            }
            code = rest;
            ip = ip.wrapping_add(1);
        }
        false
    }
}

/// One way to patch a system call.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its pattern.
    pub(crate) kind: PatchKind,
    /// The system call instruction.
    pub(crate) site: u64,
    /// Where `jmp rel32` goes; for [`PatchKind::Cave`], `jmp rel8` to it goes to the system call.
    pub(crate) jump_at: u64,
    /// Byte after the instructions that it displaces.
    pub(crate) end: u64,
    /// What the stub does before the system call, in program order.
    pub(crate) head: Vec<Instruction>,
    /// What it does after the system call; empty unless the system call itself is displaced.
    pub(crate) tail: Vec<Instruction>,
}

impl Plan {
    /// The instructions that are replaced, which no other patch may change.
    pub(crate) fn displaced(&self) -> Vec<Range<u64>> {
        let jump = self.jump_at..self.end;
        match self.kind {
            PatchKind::Cave => vec![jump, self.site..self.after()],
            _ => Vec::from([jump]),
        }
    }

    /// Whether the jump lies over the system call, so that the way back leads through the stub.
    pub(crate) fn displaces_syscall(&self) -> bool {
        self.kind != PatchKind::Cave && self.end > self.site
    }

    /// Address after the system call.
    pub(crate) fn after(&self) -> u64 {
        self.site + SYSCALL.len() as u64
    }

    /// Addresses inside the jump where a program could go on.
    pub(crate) fn inner(&self) -> impl Iterator<Item = u64> {
        let syscall = self
            .displaces_syscall()
            .then_some([self.site, self.after()])
            .into_iter()
            .flatten();
        let moved = self.head.iter().chain(&self.tail).map(|moved| moved.ip);
        syscall
            .chain(moved)
            .filter(|ip| (self.jump_at + 1..self.jump_at + JUMP).contains(ip))
    }

    /// Which bytes of the displacement have to be undefined opcodes.
    pub(crate) fn guarded(&self) -> Guarded {
        let mut guarded = [false; 4];
        for ip in self.inner() {
            let position = ip.wrapping_sub(self.jump_at).wrapping_sub(1) as usize;
            if let Some(guard) = guarded.get_mut(position) {
                *guard = true;
            }
        }
        guarded
    }
}

/// Plans that replace one instruction before the system call, best first.
pub(crate) fn preceding(code: &Surroundings) -> Vec<Plan> {
    let head = code.head();
    let long = head
        .iter()
        .enumerate()
        .filter(|(_, moved)| moved.len as u64 >= JUMP);
    long.map(|(index, moved)| Plan {
        kind: PatchKind::Preceding,
        site: code.site,
        jump_at: moved.ip,
        end: moved.end(),
        head: head.iter().take(index + 1).rev().copied().collect(),
        tail: Vec::new(),
    })
    .collect()
}

/// Plans that use padding, nearest after the system call first.
pub(crate) fn caves(code: &Surroundings) -> Vec<Plan> {
    let mut found = Vec::new();
    // Addresses after instructions that end the flow.
    let mut ends = Vec::new();
    let mut ip = code.after();
    while ip < code.after() + SHORT_REACH as u64 {
        let Some((len, end)) = instruction::flow(code.from(ip)) else {
            break;
        };
        ip += len as u64;
        if end {
            ends.push(ip);
        }
    }
    for distance in boundary::before_end(code.before(), SHORT_REACH) {
        let Some(ip) = code.site.checked_sub(distance as u64) else {
            break;
        };
        if let Some((len, true)) = instruction::flow(code.from(ip)) {
            ends.push(ip + len as u64);
        }
    }
    for cave in ends {
        let reach = instruction::displacement(code.after(), cave)
            .is_some_and(|distance| i8::try_from(distance).is_ok());
        let same_page = cave / PAGE == code.site / PAGE && (cave + JUMP - 1) / PAGE == cave / PAGE;
        let padding = cave::len(code.from(cave), cave) as u64;
        if reach && same_page && padding >= JUMP && !code.branch_to(cave) {
            found.push(Plan {
                kind: PatchKind::Cave,
                site: code.site,
                jump_at: cave,
                end: cave + JUMP,
                head: Vec::new(),
                tail: Vec::new(),
            });
        }
    }
    found
}

/// Plans that replace the system call and instructions after it, or several before it, best first.
pub(crate) fn around(code: &Surroundings) -> Vec<Plan> {
    let head = code.head();
    let mut plans = Vec::new();
    for count in 0..=head.len() {
        let head: Vec<Instruction> = head.iter().take(count).rev().copied().collect();
        let jump_at = head.first().map_or(code.site, |first| first.ip);
        if head.first().is_some_and(|first| first.len as u64 >= JUMP) {
            continue;
        }
        let kind = if count == 0 {
            PatchKind::Following
        } else {
            PatchKind::Several
        };
        let least = jump_at + JUMP;
        let (end, tail) = if least <= code.site {
            let end = head.iter().map(Instruction::end).find(|&end| end >= least);
            (end, Vec::new())
        } else {
            tail(code, least)
        };
        let Some(end) = end else { continue };
        plans.push(Plan {
            kind,
            site: code.site,
            jump_at,
            end,
            head,
            tail,
        });
    }
    plans.sort_by_key(|plan| {
        let frequented = plan.inner().any(|ip| code.branch_to(ip));
        let [_, _, third, fourth] = plan.guarded();
        (frequented, fourth, third, plan.head.len())
    });
    plans
}

/// Instructions after the system call up to `least` or beyond, and where they end; `None` when some cannot be moved.
fn tail(code: &Surroundings, least: u64) -> (Option<u64>, Vec<Instruction>) {
    let mut tail = Vec::new();
    let mut end = code.after();
    while end < least {
        let Some(moved) = Instruction::decode(code.from(end), end) else {
            return (None, tail);
        };
        end = moved.end();
        tail.push(moved);
        if moved.flow == Flow::End && end < least {
            let padding = cave::len(code.from(end), end) as u64;
            return ((end + padding >= least).then_some(least), tail);
        }
    }
    (Some(end), tail)
}
