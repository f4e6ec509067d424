// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Modes, traps, delegation and interrupts, as programs on the board see them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use std::time::{Duration, Instant};

use capstream_hart::Isa;
use capstream_hart::board::{Interrupter, Power, Stop};
use toolchain::{LIMIT, Program, lines};

/// Goes to a label in another mode (0 user, 1 supervisor). All instructions are long, so that handlers know what to skip.
const ENTER: &str = "
    .option norvc
    .macro enter mode, label
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, \\mode << 11
    csrs mstatus, t0
    la t0, \\label
    csrw mepc, t0
    # Where there is physical memory protection, all is allowed.
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    mret
    .endm
";

fn program(source: &str) -> Program {
    Program::new(&format!("{ENTER}\n{source}"))
}

#[test]
fn user_mode_calls_machine_mode() {
    let program = program(
        "main:
            la t0, handler
            csrw mtvec, t0
            enter 0, user
        user:
            ecall
            csrr a0, mstatus        # not for users
            mret
            wfi
            li a7, 1
            ecall
            .balign 4
        handler:
            csrr a0, mcause
            call print_hex
            csrr a0, mstatus
            srli a0, a0, 11
            andi a0, a0, 3
            call print_hex          # from user mode
            csrr t0, mepc
            addi t0, t0, 4
            csrw mepc, t0
            li a0, 0
            bnez a7, finish
            mret
        ",
    );
    assert_eq!(program.run_in_both(), lines([8, 0, 2, 0, 2, 0, 2, 0, 8, 0]));
}

#[test]
fn exceptions_and_returns_keep_the_interrupt_enable_stack() {
    let program = program(
        "main:
            la t0, handler
            csrw mtvec, t0
            csrsi mstatus, 8
            mv s1, ra
            csrr a0, mstatus
            call print_status
            ecall
            csrr a0, mstatus
            call print_status
            csrci mstatus, 8
            ecall
            csrr a0, mstatus
            call print_status
            mv ra, s1
            ret
        print_status:               # MPP, MPIE, MIE
            li t0, 0x1888
            and a0, a0, t0
            mv s2, ra
            call print_hex
            mv ra, s2
            ret
            .balign 4
        handler:
            csrr a0, mcause
            mv s3, ra
            call print_hex
            csrr a0, mstatus
            call print_status
            mv ra, s3
            csrr t0, mepc
            addi t0, t0, 4
            csrw mepc, t0
            mret
        ",
    );
    // `mret` leaves the least privileged mode behind: user.
    assert_eq!(
        program.run_in_both(),
        lines([0x8, 11, 0x1880, 0x88, 11, 0x1800, 0x80])
    );
}

#[test]
fn delegated_exceptions_go_to_supervisor_mode() {
    let program = program(
        "main:
            la t0, machine
            csrw mtvec, t0
            la t0, supervisor
            csrw stvec, t0
            li t0, 1 << 8 | 1 << 2 | 1 << 5
            csrw medeleg, t0
            csrr a0, medeleg
            call print_hex
            enter 0, user
        user:
            ecall                   # to supervisor mode
            .word 0                 # too
            li a1, 0x40000000
            lw a0, (a1)             # too: a load access fault
            ebreak                  # to machine mode
            .balign 4
        supervisor:
            csrr a0, scause
            call print_hex
            csrr a0, stval
            call print_hex
            csrr a0, sstatus
            andi a0, a0, 0x100      # from user mode
            call print_hex
            csrr t0, sepc
            addi t0, t0, 4
            csrw sepc, t0
            sret
            .balign 4
        machine:
            csrr a0, mcause
            call print_hex
            csrr a0, mtval
            call print_hex
            # A supervisor's own ecall is not delegated, an illegal instruction is.
            la t0, last
            csrw mtvec, t0
            enter 1, system
        system:
            csrw mscratch, zero
        2:  ecall
            .balign 4
        last:
            csrr a0, mcause
            call print_hex
            csrr a0, mepc
            la a1, 2b
            sub a0, a0, a1
            call print_hex
            li a0, 0
            j finish
        ",
    );
    // The word 0 is a short illegal instruction twice; the handler skips both.
    assert_eq!(
        program.run_in_both(),
        lines([
            0x124,
            8,
            0,
            0,
            2,
            0,
            0,
            5,
            0x4000_0000,
            0,
            3,
            0,
            2,
            0x3400_1073,
            0x100,
            9,
            0,
        ])
    );
}

#[test]
fn memory_that_is_not_there_is_an_access_fault() {
    let program = program(
        "main:
            la t0, handler
            csrw mtvec, t0
            li s1, 0x88000000       # the end of the RAM
            ld a0, (s1)
            sd a0, (s1)
            lw a0, -2(s1)           # over the end
            amoadd.d a0, a0, (s1)
            li s1, 0
            lb a0, (s1)
            li s1, 0x8000000000000000
            lb a0, (s1)
            # A fetch: the handler goes on behind the call.
            la s2, 1f
            li s1, 0x40000000
            jr s1
        1:  li a0, 0
            j finish
            .balign 4
        handler:
            csrr a0, mcause
            call print_hex
            csrr a0, mtval
            call print_hex
            csrr t0, mcause
            li t1, 1
            csrr t2, mepc
            addi t2, t2, 4
            bne t0, t1, 2f
            mv t2, s2
        2:  csrw mepc, t2
            mret
        ",
    );
    let printed = program.run_in_both();
    assert_eq!(
        printed,
        lines([
            5,
            0x8800_0000,
            7,
            0x8800_0000,
            5,
            0x87ff_fffe,
            7,
            0x8800_0000,
            5,
            0,
            5,
            1 << 63,
            1,
            0x4000_0000
        ])
    );
}

#[test]
fn the_timer_interrupts_a_loop_and_wakes_a_sleeper() {
    let program = program(
        "main:
            la t0, handler
            csrw mtvec, t0
            li s1, CLINT + 0x4000   # mtimecmp
            li s2, CLINT + 0xbff8   # mtime
            li s3, 0                # interrupts so far
            csrr a0, mip
            call print_hex          # nothing is pending before mtimecmp was written
            # In a millisecond, while it loops.
            ld t0, (s2)
            li t1, 10000
            add t0, t0, t1
            sd t0, (s1)
            li t0, 1 << 7
            csrw mie, t0
            csrsi mstatus, 8
        1:  beqz s3, 1b
            # In a millisecond, while it sleeps.
            ld t0, (s2)
            li t1, 10000
            add t0, t0, t1
            mv s4, t0
            sd t0, (s1)
            li s5, 1
        2:  wfi
            beq s3, s5, 2b
            ld t0, (s2)
            sltu a0, t0, s4         # not too early
            call print_hex
            # Pending wakes a sleeper even when interrupts are off.
            csrci mstatus, 8
            sd zero, (s1)
            wfi
            csrr a0, mip
            andi a0, a0, 0x80
            call print_hex
            mv a0, s3
            call print_hex
            # It cannot be cleared in mip, only by mtimecmp.
            li t0, 1 << 7
            csrc mip, t0
            csrr a0, mip
            andi a0, a0, 0x80
            call print_hex
            li t0, -1
            sd t0, (s1)
            csrr a0, mip
            andi a0, a0, 0x80
            call print_hex
            li a0, 0
            j finish
            .balign 4
        handler:
            addi s3, s3, 1
            csrr a0, mcause
            slli t0, s3, 60         # tells the two apart
            xor a0, a0, t0
            call print_hex
            li t0, -1
            sd t0, (s1)
            mret
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([0, 9 << 60 | 7, 10 << 60 | 7, 0, 0x80, 2, 0x80, 0])
    );
}

#[test]
fn a_sleeping_hart_leaves_the_host_alone() {
    let program = program(
        "main:
            la t0, handler
            csrw mtvec, t0
            li s1, CLINT + 0x4000
            li s2, CLINT + 0xbff8
            ld t0, (s2)
            li t1, 5000000          # half a second
            add t0, t0, t1
            sd t0, (s1)
            li t0, 1 << 7
            csrw mie, t0
            csrsi mstatus, 8
        1:  wfi
            j 1b
            .balign 4
        handler:
            li a0, 0
            j finish
        ",
    );
    let (mut board, _) = program.board(Isa::V8);
    let begin = Instant::now();
    let before = cpu_time();
    let stop = board.run(LIMIT);
    assert!(matches!(stop, Stop::Finished(Power::Pass)), "{stop:?}");
    assert!(begin.elapsed() >= Duration::from_millis(490));
    let used = cpu_time() - before;
    assert!(
        used < Duration::from_millis(100),
        "it took {used:?} of this thread's time"
    );
    assert!(board.instructions_retired() < 1000);
}

/// What this thread has used of a processor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn software_interrupts_come_from_the_clint_and_are_vectored() {
    let program = program(
        "main:
            la t0, vectors
            addi t0, t0, 1
            csrw mtvec, t0
            csrr a0, mtvec
            sub a0, a0, t0
            call print_hex
            li s1, CLINT
            li t0, 1 << 3
            csrw mie, t0
            li t0, 1
            sw t0, (s1)
            lw a0, (s1)
            call print_hex
            csrr a0, mip
            call print_hex
            csrsi mstatus, 8
            nop
            csrci mstatus, 8
            csrr a0, mip
            call print_hex
            # Exceptions go to the first vector.
            ecall
            ebreak
            .balign 256
            .option push
            .option norvc
        vectors:
            j exception
            j wrong
            j wrong
            j software
            .option pop
        wrong:
            li a0, 1
            j finish
        software:
            csrr a0, mcause
            call print_hex
            sw zero, (s1)
            mret
        exception:
            csrr a0, mcause
            call print_hex
            li a0, 0
            j finish
        ",
    );
    assert_eq!(program.run_in_both(), lines([0, 1, 8, 1 << 63 | 3, 0, 11]));
}

#[test]
fn delegated_interrupts_go_to_supervisor_mode() {
    let program = program(
        "main:
            la t0, machine
            csrw mtvec, t0
            la t0, supervisor
            csrw stvec, t0
            li t0, 1 << 1
            csrw mideleg, t0
            csrs mie, t0
            csrs mip, t0            # a supervisor's software interrupt
            csrsi mstatus, 8
            nop                     # machine mode is not interrupted by it
            csrr a0, sip
            call print_hex
            enter 1, system
        system:
            csrr a0, sie
            call print_hex
            csrsi sstatus, 2
            nop
            ecall
            .balign 4
        supervisor:
            csrr a0, scause
            call print_hex
            csrci sip, 2
            csrr a0, sip
            call print_hex
            sret
            .balign 4
        machine:
            csrr a0, mcause
            call print_hex
            li a0, 0
            j finish
        ",
    );
    assert_eq!(program.run_in_both(), lines([2, 2, 1 << 63 | 1, 0, 9]));
}

#[test]
fn a_board_can_be_interrupted_from_outside() {
    let program = Program::new("main: j main");
    let (mut board, _) = program.board(Isa::V8);
    let interrupter: Interrupter = board.interrupter();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| board.run(u64::MAX));
        interrupter.interrupt();
        assert!(matches!(runner.join().unwrap(), Stop::Interrupted));
    });
    assert!(matches!(board.run(1000), Stop::Limit));
}

#[test]
fn a_program_without_a_trap_handler_is_told_to_be_lost() {
    let program = Program::bare(".globl _start\n_start: .word 0\n");
    let (mut board, _) = program.board(Isa::V8);
    let stop = board.run(u64::MAX);
    assert!(matches!(stop, Stop::Lost), "{stop:?}");
}

#[test]
fn a_program_that_sleeps_for_good_is_told_to_be_halted() {
    let program = Program::bare(".globl _start\n_start: wfi\n j _start\n");
    let (mut board, _) = program.board(Isa::V8);
    let stop = board.run(u64::MAX);
    assert!(matches!(stop, Stop::Halted), "{stop:?}");
}

#[test]
fn a_reset_begins_again_with_the_memory_that_was_not_loaded() {
    let program = Program::new(
        "main:
            # Outside of what is loaded: it survives.
            li s1, 0x84000000
            ld a0, (s1)
            call print_hex
            ld a0, (s1)
            li t0, 2
            beq a0, t0, 1f
            addi a0, a0, 1
            sd a0, (s1)
            # Loaded again.
            la s2, cell
            ld a0, (s2)
            call print_hex
            sd zero, (s2)
            csrr a0, mscratch
            call print_hex
            li t0, 77
            csrw mscratch, t0
            li t0, 0x7777
            li t1, FINISHER
            sw t0, (t1)
        2:  j 2b
        1:  li a0, 0
            j finish
            .data
            .balign 8
        cell:
            .dword 42
        ",
    );
    assert_eq!(program.run_in_both(), lines([0, 42, 0, 1, 42, 0, 2]));
}

#[test]
fn the_reset_code_leaves_what_programs_expect() {
    let program = Program::bare(
        ".globl _start
        _start:
            la sp, stack
            mv s0, a0
            mv s1, a1
            mv s2, a2
            mv s3, t0
            mv a0, s0
            call print
            mv a0, s1
            call print
            mv a0, s2
            call print
            mv a0, s3
            call print
            lwu a0, (s1)            # the magic of a device tree
            call print
            lwu a0, (s2)            # and of the information for a firmware
            call print
            ld a0, 16(s2)           # with the entry
            call print
            csrr a0, mstatus
            call print
            csrr a0, mtvec
            call print
            li t0, 0x5555
            li t1, 0x100000
            sw t0, (t1)
        1:  j 1b
        print:
            li t0, 0x10000000
            li t1, 60
        1:  srl t2, a0, t1
            andi t2, t2, 15
            li t3, 10
            blt t2, t3, 2f
            addi t2, t2, 'a' - '0' - 10
        2:  addi t2, t2, '0'
            sb t2, (t0)
            addi t1, t1, -4
            bgez t1, 1b
            li t2, '\\n'
            sb t2, (t0)
            ret
            .bss
            .space 256
        stack:
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([
            0,
            0x8700_0000,
            0x1028,
            0x8000_0000,
            0xedfe_0dd0,
            0x4942_534f,
            0x8000_0000,
            10 << 32,
            0
        ])
    );
}
