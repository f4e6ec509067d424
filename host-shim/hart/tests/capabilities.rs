// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Capability instructions as bare programs use them, in both generations.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use capstream_hart::Isa;
use toolchain::{Program, lines};

/// Prints cause and value of a trap, with the root as DDC again (it has to be in c27), and goes on at the address in s10 with the root as PCC.
const HANDLER: &str = "
        .balign 4
    handler:
        csetddc s11
        csrr a0, mcause
        call print_hex
        csrr a0, mtval
        call print_hex
        cgetpcc t0
        csetaddr t0, t0, s10
        .insn r 0x5b, 0, 1, x0, t0, x31     # cspecialrw cnull, mepcc, ct0
        mret
";

fn program(source: &str) -> Program {
    Program::new(&format!(
        "{HANDLER}
        .globl main
    main:
        la t0, handler
        csrw mtvec, t0
        cgetddc s11
        {source}
        li a0, 0
        j finish
        .data
        .balign 32
    buffer:
        .dword 0x1111111111111111, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444
        .dword 0x5555555555555555
        .balign 16
    slots:
        .space 64
        .text
        "
    ))
}

/// What a violation of a register looks like in `mtval`.
fn violation(cause: u64, register: u64) -> [u64; 2] {
    [28, register << 5 | cause]
}

#[test]
fn a_bounded_default_capability_limits_plain_loads() {
    // DDC is bounded to 32 bytes. The older generation adds its base to an address, the newer one does not.
    let program = program(
        "
        la s1, buffer
        csetaddr a1, s11, s1
        li a2, 32
        csetbounds a1, a1, a2
        csetddc a1
        la s10, 1f
        li a3, 0
        ld a0, 0(a3)            # from address 0
        csetddc s11
        call print_hex
    1:  csetddc a1
        la s10, 2f
        ld a0, 0(s1)            # from the buffer's absolute address
        csetddc s11
        call print_hex
    2:  csetddc a1
        la s10, 3f
        ld a0, 24(a3)
        csetddc s11
        call print_hex
    3:  csetddc a1
        la s10, 4f
        ld a0, 32(a3)           # behind the end
        csetddc s11
        call print_hex
    4:  csetddc a1
        la s10, 5f
        sd a0, 25(s1)           # half of it behind the end
        csetddc s11
        call print_hex
    5:
        ",
    );
    let length_of_ddc = violation(1, 33);
    let older: Vec<u64> = [0x1111_1111_1111_1111]
        .into_iter()
        .chain(length_of_ddc)
        .chain([0x4444_4444_4444_4444])
        .chain(length_of_ddc)
        .chain(length_of_ddc)
        .collect();
    assert_eq!(program.run(Isa::V8), lines(older));
    let newer: Vec<u64> = length_of_ddc
        .into_iter()
        .chain([0x1111_1111_1111_1111])
        .chain(length_of_ddc)
        .chain(length_of_ddc)
        .chain(length_of_ddc)
        .collect();
    assert_eq!(program.run(Isa::V9), lines(newer));
}

#[test]
fn a_capability_lets_through_what_it_permits() {
    let program = program(
        "
        la s1, buffer
        csetaddr a1, s11, s1
        li a2, 16
        csetbounds a1, a1, a2
        cgetbase a0, a1
        sub a0, a0, s1
        call print_hex
        cgetlen a0, a1
        call print_hex
        cgettag a0, a1
        call print_hex
        cgetperm a0, a1
        call print_hex
        ld.cap a0, a1
        call print_hex
        # Behind the end.
        addi a3, s1, 16
        csetaddr a2, a1, a3
        cgettag a0, a2
        call print_hex
        la s10, 1f
        ld.cap a0, a2
    1:  # Without the permission to load; then to store.
        li a3, ~4
        candperm a2, a1, a3
        la s10, 2f
        ld.cap a0, a2
    2:  li a3, ~8
        candperm a2, a1, a3
        ld.cap a0, a2
        call print_hex
        la s10, 3f
        sd.cap a0, a2
    3:  # Without a tag: a number is no capability.
        mv a2, s1
        la s10, 4f
        ld.cap a0, a2
    4:
        ",
    );
    let expected: Vec<u64> = [0, 16, 1, 0x78fff, 0x1111_1111_1111_1111, 1]
        .into_iter()
        .chain(violation(1, 12))
        .chain(violation(0x12, 12))
        .chain([0x1111_1111_1111_1111])
        .chain(violation(0x13, 12))
        .chain(violation(2, 12))
        .collect();
    assert_eq!(program.run_in_both(), lines(expected));
}

#[test]
fn tags_live_in_memory_until_data_is_stored_over_them() {
    let program = program(
        "
        la s1, slots
        csetaddr s2, s11, s1
        csetaddr a1, s11, s1
        li a2, 64
        csetbounds a1, a1, a2
        sc.cap a1, s2
        lc.cap a2, s2
        cgettag a0, a2
        call print_hex
        cgetlen a0, a2
        call print_hex
        # Plain loads see the address and the compressed rest.
        ld a0, 0(s1)
        sub a0, a0, s1
        call print_hex
        # One byte takes the tag away, the bits stay.
        lbu a3, 15(s1)
        sb a3, 15(s1)
        lc.cap a2, s2
        cgettag a0, a2
        call print_hex
        cgetlen a0, a2
        call print_hex
        # Null is all zeros.
        sc.cap zero, s2
        ld a0, 0(s1)
        call print_hex
        ld a0, 8(s1)
        call print_hex
        # Capabilities are aligned.
        addi a3, s1, 8
        csetaddr a2, s11, a3
        la s10, 1f
        sc.cap a1, a2
    1:  # Without the permission to load capabilities there is no tag; to store them, a trap.
        sc.cap a1, s2
        li a3, ~0x10
        candperm a4, s2, a3
        lc.cap a2, a4
        cgettag a0, a2
        call print_hex
        li a3, ~0x20
        candperm a4, s2, a3
        la s10, 2f
        sc.cap a1, a4
    2:  # A capability that is only a number may be stored there.
        li a3, 5
        sc.cap a3, a4
        ld a0, 0(s1)
        call print_hex
        ",
    );
    let printed = program.run_in_both();
    let expected: Vec<u64> = [1, 64, 0, 0, 64, 0, 0].into_iter().chain([6]).collect();
    let head = lines(expected);
    assert!(
        printed.starts_with(&head),
        "{printed}\nbegins not with\n{head}"
    );
    let tail = lines([0].into_iter().chain(violation(0x15, 14)).chain([5]));
    assert!(printed.ends_with(&tail), "{printed}\nends not with\n{tail}");
}

#[test]
fn a_sealed_pair_is_invoked_together() {
    let program = program(
        "
        # Otype 77.
        li a0, 77
        csetaddr s2, s11, a0
        # Code and data, sealed with it.
        cgetpcc a1
        la a2, callee
        csetaddr s3, a1, a2
        la a2, buffer
        csetaddr s4, s11, a2
        li a3, 32
        csetbounds s4, s4, a3
        li a3, ~2               # data is not executable
        candperm s4, s4, a3
        cseal s5, s3, s2
        cseal s6, s4, s2
        cgettype a0, s5
        call print_hex
        # What is sealed cannot be used.
        la s10, 1f
        ld.cap a0, s6
    1:  la s10, 2f
        cjalr ra, s5
    2:  # Invoked: c31 is the data, unsealed.
        la ra, 3f
        cinvoke s5, s6
    3:  # Types have to agree.
        li a0, 78
        csetaddr a1, s11, a0
        cseal s7, s4, a1
        la s10, 4f
        cinvoke s5, s7
    4:  # Unsealing gives back what it was.
        cunseal a1, s6, s2
        ld.cap a0, a1
        call print_hex
        j 5f
    callee:
        ld.cap a0, t6
        mv s9, ra
        call print_hex
        jr s9
    5:
        ",
    );
    let expected: Vec<u64> = [77]
        .into_iter()
        .chain(violation(3, 22))
        .chain(violation(3, 21))
        .chain([0x1111_1111_1111_1111])
        .chain(violation(4, 21))
        .chain([0x1111_1111_1111_1111])
        .collect();
    assert_eq!(program.run_in_both(), lines(expected));
}

#[test]
fn impossible_capabilities_trap_or_lose_their_tag() {
    let program = program(
        "
        la s1, buffer
        csetaddr a1, s11, s1
        li a2, 16
        csetbounds a1, a1, a2
        li a2, 32
        la s10, 1f
        li a3, 0
        csetbounds a3, a1, a2   # wider than it was
        cgettag a0, a3
        call print_hex
    1:
        ",
    );
    assert_eq!(program.run(Isa::V8), lines(violation(1, 11)));
    assert_eq!(program.run(Isa::V9), lines([0]));
}

#[test]
fn jumps_through_capabilities_bound_the_program_counter() {
    let program = program(
        "
        cgetpcc a1
        la a2, inside
        csetaddr a1, a1, a2
        li a3, 64
        csetbounds a1, a1, a3
        la s10, after
        cjalr zero, a1
        .balign 64
    inside:
        cgetpcc a4
        cgetlen a5, a4
        la s9, inside
        .balign 4
        .option push
        .option norvc
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        .option pop
    after:
        mv a0, a5
        call print_hex
        ",
    );
    let expected: Vec<u64> = violation(1, 32).into_iter().chain([64]).collect();
    assert_eq!(program.run_in_both(), lines(expected));
}
