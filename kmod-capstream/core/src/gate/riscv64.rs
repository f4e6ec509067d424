// SPDX-License-Identifier: GPL-2.0-only
//! The gate's calling convention on riscv64 with CHERI: a pair of sealed capabilities of the monitor, loaded from the capability store of the
//! stack that the portal runs on, and invoked.

use core::arch::asm;

use capstream_abi::riscv64::{CAPABILITY_SIZE, store};

/// Makes a hostcall.
///
/// | register | in | out |
/// |---|---|---|
/// | t5 | number | 0 |
/// | a0 | argument | result |
/// | a1, a2 | arguments | 0 |
/// | a3, a4, a5 | 0, further arguments | 0 |
/// | t0 | the address of the capability store | 0 |
/// | t1, t2 | scratch: the monitor's code and data | the cVM's own sealed pair |
/// | ra | where to go on | kept |
/// | t3, t4, t6, a6, a7 | | 0 |
/// | sp, gp, tp, s0 to s11 | | kept |
///
/// The monitor comes back at the image's return point, which restores DDC and returns to ra. Stack: the caller's, not used. Nothing is
/// scrubbed: what is left in registers is the caller's own.
///
/// # Safety
/// `gate` is the capability store of the stack this runs on, and the arguments are right for `number`.
pub(super) unsafe fn hostcall(gate: usize, number: u64, arguments: [usize; 3]) -> i64 {
    let [a0, a1, a2] = arguments;
    let result: i64;
    // SAFETY: the store has the monitor's capabilities for this convention; memory is not assumed to be unchanged.
    unsafe {
        asm!(
            // The assembler of the compiler does not know the instructions: lc ct1 and ct2, then cinvoke ct1, ct2.
            "lla ra, 2f",
            ".insn i 0x0f, 2, t1, {code}(t0)",
            ".insn i 0x0f, 2, t2, {data}(t0)",
            ".insn r 0x5b, 0, 0x7e, x1, t1, t2",
            "2:",
            code = const store::HOSTCALL * CAPABILITY_SIZE,
            data = const store::MONITOR_DATA * CAPABILITY_SIZE,
            inlateout("a0") a0 => result,
            inlateout("a1") a1 => _,
            inlateout("a2") a2 => _,
            inlateout("a3") 0_u64 => _,
            inlateout("a4") 0_u64 => _,
            inlateout("a5") 0_u64 => _,
            inlateout("t0") gate => _,
            inlateout("t5") number => _,
            out("ra") _,
            out("t1") _,
            out("t2") _,
            lateout("t3") _,
            lateout("t4") _,
            lateout("t6") _,
            lateout("a6") _,
            lateout("a7") _,
        );
    }
    result
}
