// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The code of stubs.
//!
//! ```text
//! entry:  moved instructions before the system call
//! enter:  lea  back(%rip), %rcx
//!         jmp  kernel
//! ```
//!
//! When the system call is still in the program, `back` is the address after it. Else the stub goes on:
//!
//! ```text
//!         jmp  enter               two bytes: the kernel restarts a system call two bytes before `back`
//! back:   moved instructions after the system call
//!         jmp  rest of the program
//! ```
//!
//! Contract: every register except `rcx` reaches `kernel` as the moved instructions leave it, the stack is not used, flags
//! are not changed. At `back` all registers are the kernel's result.

use crate::instruction::{Flow, displacement};
use crate::plan::Plan;

/// Bytes of `lea`, of the longest jump to the kernel, of the restart, and of the jump to the rest of the program.
const FIXED: usize = 7 + 14 + 2 + 5;

/// A stub for one place.
#[derive(Debug)]
pub(crate) struct Stub {
    /// Its bytes.
    pub(crate) code: Vec<u8>,
    /// Addresses in the stub, ascending, and where the program would be there.
    pub(crate) to_program: Vec<(u64, u64)>,
    /// Addresses of displaced instructions except the first, and where the stub does the same.
    pub(crate) to_patched: Vec<(u64, u64)>,
}

/// Bytes a stub for `plan` takes, at most.
pub(crate) fn longest(plan: &Plan) -> u64 {
    let moved: usize = plan
        .head
        .iter()
        .chain(&plan.tail)
        .map(|moved| moved.moved_len())
        .sum();
    (moved + FIXED) as u64
}

/// `jmp rel32` at `from` to `to`; `None` when that is too far.
pub(crate) fn jump(from: u64, to: u64) -> Option<[u8; 5]> {
    let [a, b, c, d] = displacement(from.wrapping_add(5), to)?.to_le_bytes();
    Some([0xe9, a, b, c, d])
}

/// The stub for `plan` at the address `begin`; `None` when something is out of reach from there.
pub(crate) fn assemble(plan: &Plan, begin: u64, kernel: u64) -> Option<Stub> {
    let mut code = Vec::with_capacity(longest(plan) as usize);
    let here = |code: &Vec<u8>| begin.wrapping_add(code.len() as u64);
    let mut to_program = Vec::new();
    let mut moved = Vec::new();
    for instruction in &plan.head {
        let ip = here(&code);
        to_program.push((ip, instruction.ip));
        moved.push((instruction.ip, ip));
        instruction.relocate(ip, &mut code)?;
    }

    let enter = here(&code);
    to_program.push((enter, plan.site));
    code.extend_from_slice(&[0x48, 0x8d, 0x0d, 0, 0, 0, 0]);
    let lea_end = here(&code);
    match jump(lea_end, kernel) {
        Some(jump) => code.extend_from_slice(&jump),
        None => {
            // jmp *0(%rip), and the address
            code.extend_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
            code.extend_from_slice(&kernel.to_le_bytes());
        }
    }

    let back = if plan.displaces_syscall() {
        moved.push((plan.site, enter));
        let restart_end = here(&code).wrapping_add(2);
        let restart = i8::try_from(displacement(restart_end, enter)?).ok()?;
        code.extend_from_slice(&[0xeb, restart as u8]);
        let back = here(&code);
        moved.push((plan.after(), back));
        to_program.push((back, plan.after()));
        for instruction in &plan.tail {
            let ip = here(&code);
            if ip != back {
                to_program.push((ip, instruction.ip));
                moved.push((instruction.ip, ip));
            }
            instruction.relocate(ip, &mut code)?;
        }
        if plan.tail.last().is_none_or(|last| last.flow != Flow::End) {
            let ip = here(&code);
            if ip != back {
                to_program.push((ip, plan.end));
            }
            code.extend_from_slice(&jump(ip, plan.end)?);
        }
        back
    } else {
        plan.after()
    };
    let offset = usize::try_from(enter.wrapping_sub(begin)).ok()?;
    let lea = displacement(lea_end, back)?;
    code.get_mut(offset + 3..offset + 7)?
        .copy_from_slice(&lea.to_le_bytes());

    let to_patched = moved
        .into_iter()
        .filter(|(program, _)| (plan.jump_at + 1..plan.end).contains(program))
        .collect();
    Some(Stub {
        code,
        to_program,
        to_patched,
    })
}
