// SPDX-License-Identifier: GPL-2.0-only
//! The gate's calling convention on x86-64.

use core::arch::asm;

/// Makes a hostcall.
///
/// | register | in | out |
/// |---|---|---|
/// | rax | number | result |
/// | rdi, rsi, rdx | arguments | 0 |
/// | rcx, r8, r9 | 0, further arguments | 0 |
/// | r11 | the gate | 0 |
/// | r10 | | 0 |
/// | r12 | | scratch: our stack pointer during the call |
/// | rbx, rbp, r13 to r15, FS base, vector registers | | kept |
///
/// Stack: the caller's, aligned to 16 bytes here since kernels align theirs to 8. Nothing is scrubbed: what is left in registers
/// is the caller's own.
///
/// # Safety
/// `gate` is a hostcall gate of the thread this runs on, and the arguments are right for `number`.
pub(super) unsafe fn hostcall(gate: usize, number: u64, arguments: [usize; 3]) -> i64 {
    let [a0, a1, a2] = arguments;
    let result: i64;
    // SAFETY: the gate follows the convention above; memory is not assumed to be unchanged.
    unsafe {
        asm!(
            "mov r12, rsp",
            "and rsp, -16",
            "call r11",
            "mov rsp, r12",
            inlateout("rax") number => result,
            inlateout("rdi") a0 => _,
            inlateout("rsi") a1 => _,
            inlateout("rdx") a2 => _,
            inlateout("rcx") 0_u64 => _,
            inlateout("r8") 0_u64 => _,
            inlateout("r9") 0_u64 => _,
            inlateout("r11") gate => _,
            lateout("r10") _,
            out("r12") _,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use crate::PortalCalls;
    use crate::errno::Errno;
    use crate::gate::Gate;

    // A gate as a monitor has it: looks at what it was given, and keeps to the convention by scrubbing what it may.
    core::arch::global_asm!(
        ".pushsection .text",
        ".type capstream_test_gate, @function",
        "capstream_test_gate:",
        "test rsp, 8", // aligned to 16 before the call: the return address makes it 8
        "jz 2f",
        "cmp rax, {fetch}",
        "jne 2f",
        "test rcx, rcx",
        "jnz 2f",
        "lea rax, [rdi + rsi]",
        "add rax, rdx",
        "neg rax",
        "jmp 3f",
        "2:",
        "mov rax, -38",
        "3:",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "ret",
        ".size capstream_test_gate, . - capstream_test_gate",
        ".popsection",
        fetch = const capstream_abi::Hostcall::CallFetch as u64,
    );

    unsafe extern "C" {
        fn capstream_test_gate();
    }

    #[test]
    fn arguments_and_result_pass_the_gate() {
        let address = capstream_test_gate as *const () as usize;
        // SAFETY: the function above follows the gate's convention.
        let gate = unsafe { Gate::new(address) };
        assert_eq!(gate.fetch(3, 5, 3), Err(Errno::AGAIN));
        assert_eq!(gate.fetch(10, 2, 2), Err(Errno::FAULT));
        assert_eq!(gate.fetch(0, 0, 0), Ok(()));
    }
}
