// SPDX-License-Identifier: Apache-2.0 OR MIT
//! I, M, A, C, Zicsr and Zifencei: programs on the board compute, the host computes the same, and what the programs print has to agree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use std::fmt::Write;

use toolchain::{Program, lines};

/// Numbers at which integer arithmetic goes wrong if it does.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    63,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
    0x0123_4567_89ab_cdef,
];

type Binary = fn(u64, u64) -> u64;
type Comparison = fn(u64, u64) -> bool;

fn extend(value: u32) -> u64 {
    value as i32 as u64
}

/// Runs each instruction on all pairs of numbers.
fn binary(instructions: &[(&str, Binary)]) {
    let mut source = String::from("main:\n mv s0, ra\n");
    let mut expected = Vec::new();
    for (name, compute) in instructions {
        for a in NUMBERS {
            for b in NUMBERS {
                writeln!(
                    source,
                    " li a0, {a:#x}\n li a1, {b:#x}\n {name} a0, a0, a1\n call print_hex"
                )
                .unwrap();
                expected.push(compute(a, b));
            }
        }
    }
    source.push_str(" mv ra, s0\n ret\n");
    compare(
        &Program::new(&source).run_in_both(),
        &expected,
        instructions,
    );
}

/// Compares line by line, so that a difference names its instruction and operands.
fn compare(printed: &str, expected: &[u64], instructions: &[(&str, Binary)]) {
    let found: Vec<&str> = printed.lines().collect();
    assert_eq!(found.len(), expected.len());
    let pairs = NUMBERS.len() * NUMBERS.len();
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let a = NUMBERS[index % pairs / NUMBERS.len()];
        let b = NUMBERS[index % NUMBERS.len()];
        assert_eq!(
            *found,
            format!("{expected:016x}"),
            "{} of {a:#x} and {b:#x}",
            instructions[index / pairs].0
        );
    }
}

#[test]
fn register_operations_compute_as_the_host() {
    binary(&[
        ("add", u64::wrapping_add),
        ("sub", u64::wrapping_sub),
        ("sll", |a, b| a << (b & 63)),
        ("slt", |a, b| ((a as i64) < b as i64).into()),
        ("sltu", |a, b| (a < b).into()),
        ("xor", |a, b| a ^ b),
        ("srl", |a, b| a >> (b & 63)),
        ("sra", |a, b| (a as i64 >> (b & 63)) as u64),
        ("or", |a, b| a | b),
        ("and", |a, b| a & b),
        ("addw", |a, b| extend((a as u32).wrapping_add(b as u32))),
        ("subw", |a, b| extend((a as u32).wrapping_sub(b as u32))),
        ("sllw", |a, b| extend((a as u32) << (b & 31))),
        ("srlw", |a, b| extend(a as u32 >> (b & 31))),
        ("sraw", |a, b| (a as i32 >> (b & 31)) as u64),
    ]);
}

#[test]
fn products_and_quotients_compute_as_the_host() {
    binary(&[
        ("mul", u64::wrapping_mul),
        ("mulh", |a, b| {
            ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
        }),
        ("mulhsu", |a, b| {
            ((i128::from(a as i64) * i128::from(b)) >> 64) as u64
        }),
        ("mulhu", |a, b| {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        }),
        ("div", |a, b| match b {
            0 => u64::MAX,
            _ => (a as i64).wrapping_div(b as i64) as u64,
        }),
        ("divu", |a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        ("rem", |a, b| match b {
            0 => a,
            _ => (a as i64).wrapping_rem(b as i64) as u64,
        }),
        ("remu", |a, b| a.checked_rem(b).unwrap_or(a)),
        ("mulw", |a, b| extend((a as u32).wrapping_mul(b as u32))),
        ("divw", |a, b| match b as u32 {
            0 => u64::MAX,
            _ => (a as i32).wrapping_div(b as i32) as u64,
        }),
        ("divuw", |a, b| {
            extend((a as u32).checked_div(b as u32).unwrap_or(u32::MAX))
        }),
        ("remw", |a, b| match b as u32 {
            0 => extend(a as u32),
            _ => (a as i32).wrapping_rem(b as i32) as u64,
        }),
        ("remuw", |a, b| {
            extend((a as u32).checked_rem(b as u32).unwrap_or(a as u32))
        }),
    ]);
}

#[test]
fn immediate_operations_compute_as_the_host() {
    let mut source = String::from("main:\n mv s0, ra\n");
    let mut expected = Vec::new();
    let mut each = |name: &str, immediate: i64, compute: &dyn Fn(u64) -> u64| {
        for a in NUMBERS {
            writeln!(
                source,
                " li a0, {a:#x}\n {name} a0, a0, {immediate}\n call print_hex"
            )
            .unwrap();
            expected.push(compute(a));
        }
    };
    for immediate in [0, 1, -1, 2047, -2048, 0x555] {
        let wide = immediate as u64;
        each("addi", immediate, &|a| a.wrapping_add(wide));
        each("slti", immediate, &|a| ((a as i64) < immediate).into());
        each("sltiu", immediate, &|a| (a < wide).into());
        each("xori", immediate, &|a| a ^ wide);
        each("ori", immediate, &|a| a | wide);
        each("andi", immediate, &|a| a & wide);
        each("addiw", immediate, &|a| {
            extend((a as u32).wrapping_add(immediate as u32))
        });
    }
    for shift in [0, 1, 31, 32, 63] {
        each("slli", shift, &|a| a << shift);
        each("srli", shift, &|a| a >> shift);
        each("srai", shift, &|a| (a as i64 >> shift) as u64);
    }
    for shift in [0, 1, 31] {
        each("slliw", shift, &|a| extend((a as u32) << shift));
        each("srliw", shift, &|a| extend(a as u32 >> shift));
        each("sraiw", shift, &|a| (a as i32 >> shift) as u64);
    }
    source.push_str(
        " lui a0, 0x80000\n call print_hex\n lui a0, 0x12345\n call print_hex\n\
         here: auipc a0, 1\n la a1, here\n sub a0, a0, a1\n call print_hex\n mv ra, s0\n ret\n",
    );
    expected.extend([0xffff_ffff_8000_0000, 0x1234_5000, 0x1000]);
    assert_eq!(Program::new(&source).run_in_both(), lines(expected));
}

#[test]
fn branches_go_where_they_compare_to() {
    let mut source = String::from("main:\n mv s0, ra\n");
    let mut expected = Vec::new();
    let branches: [(&str, Comparison); 6] = [
        ("beq", |a, b| a == b),
        ("bne", |a, b| a != b),
        ("blt", |a, b| (a as i64) < b as i64),
        ("bge", |a, b| a as i64 >= b as i64),
        ("bltu", |a, b| a < b),
        ("bgeu", |a, b| a >= b),
    ];
    for (name, compare) in branches {
        for a in NUMBERS {
            for b in NUMBERS {
                writeln!(
                    source,
                    " li a1, {a:#x}\n li a2, {b:#x}\n li a0, 1\n {name} a1, a2, 1f\n li a0, 0\n1: call print_hex"
                )
                .unwrap();
                expected.push(compare(a, b).into());
            }
        }
    }
    source.push_str(" mv ra, s0\n ret\n");
    assert_eq!(Program::new(&source).run_in_both(), lines(expected));
}

#[test]
fn jumps_link_and_backward_branches_loop() {
    let program = Program::new(
        "main:
            mv s0, ra
            # The sum of 1 to 1000, by a backward branch.
            li a0, 0
            li a1, 1000
        1:  add a0, a0, a1
            addi a1, a1, -1
            bnez a1, 1b
            call print_hex
            # What a call leaves in its link register.
            .option push
            .option norvc
            jal s1, 2f
        2:  la a0, 2b
            sub a0, a0, s1
            call print_hex
            la t0, 3f
            jalr s1, 1(t0)          # bit 0 is cleared
            ebreak
        3:  la a0, 3b
            sub a0, a0, s1
            call print_hex
            # Source and link register may be the same.
            la t0, 4f
            jalr t0, 0(t0)
            ebreak
        4:  la a0, 4b
            sub a0, a0, t0
            call print_hex
            .option pop
            mv ra, s0
            ret
        ",
    );
    assert_eq!(program.run_in_both(), lines([500_500, 0, 4, 4]));
}

#[test]
fn loads_extend_and_stores_keep_their_neighbours() {
    let program = Program::new(
        "main:
            mv s0, ra
            la s1, bytes
            lb a0, 7(s1)
            call print_hex
            lbu a0, 7(s1)
            call print_hex
            lh a0, 6(s1)
            call print_hex
            lhu a0, 6(s1)
            call print_hex
            lw a0, 4(s1)
            call print_hex
            lwu a0, 4(s1)
            call print_hex
            ld a0, (s1)
            call print_hex
            # At odd addresses, over the end of a page too.
            ld a0, 3(s1)
            call print_hex
            la s2, edge
            li a1, 0x1122334455667788
            sd a1, -3(s2)
            ld a0, -3(s2)
            call print_hex
            lw a0, -1(s2)
            call print_hex
            # Narrow stores.
            li a1, -1
            sd a1, 8(s1)
            sb zero, 8(s1)
            sh zero, 10(s1)
            ld a0, 8(s1)
            call print_hex
            sw zero, 12(s1)
            ld a0, 8(s1)
            call print_hex
            mv ra, s0
            ret
            .data
            .balign 8
        bytes:
            .dword 0x8182838485868788, 0x0102030405060708
            .balign 4096
            .space 4096
        edge:
            .space 64
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([
            0xffff_ffff_ffff_ff81,
            0x81,
            0xffff_ffff_ffff_8182,
            0x8182,
            0xffff_ffff_8182_8384,
            0x8182_8384,
            0x8182_8384_8586_8788,
            0x0607_0881_8283_8485,
            0x1122_3344_5566_7788,
            0x3344_5566,
            0xffff_ffff_0000_ff00,
            0x0000_0000_0000_ff00,
        ])
    );
}

#[test]
fn atomics_return_the_old_value_and_store_the_new_one() {
    let operations: [(&str, Binary); 9] = [
        ("amoswap", |_, b| b),
        ("amoadd", u64::wrapping_add),
        ("amoxor", |a, b| a ^ b),
        ("amoand", |a, b| a & b),
        ("amoor", |a, b| a | b),
        ("amomin", |a, b| (a as i64).min(b as i64) as u64),
        ("amomax", |a, b| (a as i64).max(b as i64) as u64),
        ("amominu", u64::min),
        ("amomaxu", u64::max),
    ];
    let mut source = String::from("main:\n mv s0, ra\n la s1, cell\n");
    let mut expected = Vec::new();
    for (name, compute) in operations {
        for a in NUMBERS {
            for b in NUMBERS {
                for width in ["d", "w"] {
                    writeln!(
                        source,
                        " li a1, {a:#x}\n sd a1, (s1)\n li a1, {b:#x}\n {name}.{width} a0, a1, (s1)\n call print_hex\n ld a0, (s1)\n call print_hex"
                    )
                    .unwrap();
                }
                expected.extend([a, compute(a, b)]);
                // A word keeps its upper neighbour; signed operations compare words.
                let (low_a, low_b) = (a as u32, b as u32);
                let low = if name.ends_with('u') || name == "amoswap" {
                    compute(low_a.into(), low_b.into()) as u32
                } else {
                    compute(extend(low_a), extend(low_b)) as u32
                };
                expected.extend([extend(low_a), a & !0xffff_ffff | u64::from(low)]);
            }
        }
    }
    source.push_str(" mv ra, s0\n ret\n .data\n .balign 8\ncell: .dword 0\n");
    assert_eq!(Program::new(&source).run_in_both(), lines(expected));
}

#[test]
fn conditional_stores_need_their_reservation() {
    let program = Program::new(
        "main:
            mv s0, ra
            la s1, cell
            # Reserved: stored, 0.
            lr.d a1, (s1)
            addi a1, a1, 1
            sc.d a0, a1, (s1)
            call print_hex
            ld a0, (s1)
            call print_hex
            # The reservation is used up.
            sc.d a0, zero, (s1)
            snez a0, a0
            call print_hex
            ld a0, (s1)
            call print_hex
            # Another value in between.
            lr.w.aq a1, (s1)
            li a2, 77
            sw a2, (s1)
            sc.w.rl a0, zero, (s1)
            snez a0, a0
            call print_hex
            ld a0, (s1)
            call print_hex
            # Another address.
            lr.d a1, (s1)
            addi a3, s1, 8
            sc.d a0, a1, (a3)
            snez a0, a0
            call print_hex
            # Words are extended.
            li a1, 0x80000000
            sw a1, (s1)
            lr.w a0, (s1)
            call print_hex
            mv ra, s0
            ret
            .data
            .balign 8
        cell:
            .dword 41, 0
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([0, 42, 1, 42, 1, 77, 1, 0xffff_ffff_8000_0000])
    );
}

#[test]
fn misaligned_atomics_trap() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            la s1, cell + 4
            amoadd.d a0, a0, (s1)
        first:
            lr.d a0, (s1)
        second:
            amoadd.w a0, a0, (s1)   # aligned for a word
            li a0, 0
            j finish
            .balign 4
        handler:
            csrr a0, mcause
            call print_hex
            csrr a0, mtval
            sub a0, a0, s1
            call print_hex
            csrr a0, mepc
            addi a0, a0, 4
            csrw mepc, a0
            mret
            .data
            .balign 8
        cell:
            .dword 0, 0
        ",
    );
    assert_eq!(program.run_in_both(), lines([6, 0, 4, 0]));
}

#[test]
fn short_instructions_do_what_the_long_ones_do() {
    let program = Program::new(
        "main:
            mv s0, ra
            li s1, 0
            c.li a0, -32
            call print_hex
            c.lui a0, 0xfffe1           # -31
            call print_hex
            c.li a0, 31
            c.addi a0, -32
            call print_hex
            li a0, 0x7fffffff
            c.addiw a0, 1
            call print_hex
            c.addi16sp sp, -512
            la a1, stack_end
            sub a0, sp, a1
            call print_hex
            c.addi16sp sp, 496
            c.addi16sp sp, 16
            c.addi4spn a0, sp, 1020
            sub a0, a0, sp
            call print_hex
            # Stack-relative and register-relative accesses.
            addi sp, sp, -512
            li a1, 0x8182838485868788
            c.sdsp a1, 504(sp)
            c.ldsp a0, 504(sp)
            call print_hex
            c.swsp a1, 252(sp)
            c.lwsp a0, 252(sp)
            call print_hex
            mv a5, sp
            c.sd a1, 248(a5)
            c.ld a0, 248(a5)
            call print_hex
            c.sw a1, 124(a5)
            c.lw a0, 124(a5)
            call print_hex
            fmv.d.x fa0, a1
            c.fsd fa0, 16(a5)
            c.fld fa1, 16(a5)
            fmv.x.d a0, fa1
            call print_hex
            c.fsdsp fa0, 24(sp)
            c.fldsp fa2, 24(sp)
            fmv.x.d a0, fa2
            call print_hex
            addi sp, sp, 512
            # Arithmetic.
            li a0, 1
            c.slli a0, 63
            call print_hex
            li a0, -1
            c.srli a0, 63
            call print_hex
            li a0, -256
            c.srai a0, 4
            call print_hex
            li a0, 0xff
            c.andi a0, -16
            call print_hex
            li a0, 12
            li a1, 10
            c.sub a0, a1
            call print_hex
            li a0, 12
            c.xor a0, a1
            call print_hex
            li a0, 12
            c.or a0, a1
            call print_hex
            li a0, 12
            c.and a0, a1
            call print_hex
            li a0, 0x80000000
            li a1, 1
            c.subw a0, a1
            call print_hex
            li a0, 0x7fffffff
            c.addw a0, a1
            call print_hex
            c.mv a0, a1
            c.add a0, a0
            call print_hex
            # Jumps and branches.
            li a0, 1
            c.j 1f
            li a0, 0
        1:  call print_hex
            la t0, 2f
            c.jalr t0
            ebreak
        2:  la a0, 2b
            sub a0, a0, ra              # behind it: a c.ebreak
            call print_hex
            la t0, 3f
            c.jr t0
            ebreak
        3:  li a0, 0
            li a1, 5
        4:  c.addi a0, 3
            c.addi a1, -1
            c.bnez a1, 4b
            c.beqz a1, 5f
            li a0, 0
        5:  call print_hex
            c.nop
            mv ra, s0
            c.jr ra
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([
            -32i64 as u64,
            (-31i64 as u64) << 12,
            u64::MAX,
            0xffff_ffff_8000_0000,
            -512i64 as u64,
            1020,
            0x8182_8384_8586_8788,
            0xffff_ffff_8586_8788,
            0x8182_8384_8586_8788,
            0xffff_ffff_8586_8788,
            0x8182_8384_8586_8788,
            0x8182_8384_8586_8788,
            1 << 63,
            1,
            -16i64 as u64,
            0xf0,
            2,
            6,
            14,
            8,
            0x7fff_ffff,
            0xffff_ffff_8000_0000,
            2,
            1,
            2,
            15,
        ])
    );
}

#[test]
fn csr_instructions_read_then_write() {
    let program = Program::new(
        "main:
            mv s0, ra
            li a1, 0xff00
            csrw mscratch, a1
            li a1, 0x0ff0
            csrrw a0, mscratch, a1
            call print_hex
            li a1, 0xf00f
            csrrs a0, mscratch, a1
            call print_hex
            li a1, 0xff
            csrrc a0, mscratch, a1
            call print_hex
            csrrwi a0, mscratch, 31
            call print_hex
            csrrsi a0, mscratch, 0
            call print_hex
            csrrci a0, mscratch, 1
            call print_hex
            csrr a0, mscratch
            call print_hex
            # One register for both.
            li a0, 5
            csrrw a0, mscratch, a0
            call print_hex
            # Machine information, as the board that is followed has it.
            csrr a0, mvendorid
            call print_hex
            csrr a0, mhartid
            call print_hex
            csrr a0, misa
            call print_hex
            # Counters count.
            csrr a1, minstret
            nop
            nop
            nop
            csrr a2, minstret
            sltu a0, a1, a2
            call print_hex
            csrr a1, mcycle
            csrr a2, mcycle
            sltu a0, a2, a1
            call print_hex
            csrr a1, time
            li a3, CLINT + 0xbff8
            ld a2, (a3)
            sltu a0, a2, a1
            call print_hex
            mv ra, s0
            ret
        ",
    );
    let misa = 2 << 62
        | ['a', 'c', 'd', 'f', 'i', 'm', 's', 'u', 'x']
            .iter()
            .fold(0, |bits, &letter| bits | 1 << (letter as u64 - 'a' as u64));
    assert_eq!(
        program.run_in_both(),
        lines([
            0xff00, 0x0ff0, 0xffff, 0xff00, 31, 31, 30, 30, 0, 0, misa, 1, 0, 0
        ])
    );
}

#[test]
fn forbidden_csr_accesses_are_illegal_instructions() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            csrr a0, 0x7c0              # there is none
            csrw mhartid, zero          # read-only
            csrw cycle, a0
            csrrs a0, cycle, zero       # only reads
            csrrsi a0, mvendorid, 0
            .insn i 0x73, 0, x0, x0, 0x7ff
            li a0, 0
            j finish
            .balign 4
        handler:
            csrr a0, mcause
            call print_hex
            csrr a0, mtval
            call print_hex
            csrr a0, mepc
            addi a0, a0, 4
            csrw mepc, a0
            mret
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([
            2,
            0x7c00_2573,
            2,
            0xf140_1073,
            2,
            0xc005_1073,
            2,
            0x7ff0_0073
        ])
    );
}

#[test]
fn code_that_was_written_runs_after_fence_i() {
    let program = Program::new(
        "main:
            mv s0, ra
            la s1, patch
            call patch
            call print_hex
            lw a1, twenty
            sw a1, (s1)
            fence.i
            call patch
            call print_hex
            # In a loop, many versions.
            li s2, 100
            li s3, 0
        1:  lw a1, nothing
            slli a2, s2, 20
            add a1, a1, a2
            sw a1, (s1)
            fence.i
            call patch
            add s3, s3, a0
            addi s2, s2, -1
            bnez s2, 1b
            mv a0, s3
            call print_hex
            mv ra, s0
            ret
            .balign 4
            .option norvc
        patch:
            li a0, 10
            ret
        twenty:
            li a0, 20
        nothing:
            li a0, 0
        ",
    );
    assert_eq!(program.run_in_both(), lines([10, 20, 5050]));
}

#[test]
fn words_that_are_no_instruction_are_illegal() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            .balign 4
            .word 0xffffffff
            .word 0x0000707f
            .half 0x0000, 0x0001        # the first one is defined as illegal
            .word 0x00000073 | 1 << 7   # ecall with a destination
            li a0, 0
            j finish
            .balign 4
        handler:
            csrr a0, mcause
            call print_hex
            csrr a1, mepc
            lhu a2, (a1)
            andi a2, a2, 3
            addi a2, a2, -3
            seqz a2, a2
            slli a2, a2, 1
            add a1, a1, a2
            addi a1, a1, 2
            csrw mepc, a1
            mret
        ",
    );
    assert_eq!(program.run_in_both(), lines([2, 2, 2, 2]));
}
