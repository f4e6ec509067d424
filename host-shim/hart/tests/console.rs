// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The board's 16550A as a driver sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use capstream_hart::Isa;
use capstream_hart::board::{Power, Stop};
use toolchain::{LIMIT, Program, lines};

/// `show OFFSET`: notes what a register reads, to be printed at the end. `set OFFSET, VALUE`: writes one.
const MACROS: &str = "
    .macro show offset
    lbu a0, \\offset(s1)
    sb a0, (s3)
    addi s3, s3, 1
    .endm
    .macro set offset, value
    li a0, \\value
    sb a0, \\offset(s1)
    .endm
";

#[test]
fn registers_are_those_of_a_16550a() {
    let program = Program::new(&format!(
        "{MACROS}
        main:
            mv s0, ra
            li s1, UART
            la s3, notes
            # After a reset: nothing to read, transmitter empty, no interrupt, modem connected.
            show 5
            show 2
            show 1
            show 3
            show 4
            show 6
            # The scratch register keeps what it gets.
            set 7, 0x5a
            show 7
            # Divisor and data share an address.
            set 3, 0x83
            show 0
            set 0, 1
            set 1, 2
            show 0
            show 1
            set 3, 3
            show 1
            # Transmitter empty, told once.
            set 1, 2
            show 2
            show 2
            # FIFOs on.
            set 1, 0
            set 2, 1
            show 2
            # What is sent in a loop is received, and not printed.
            set 4, 0x10
            set 0, 'A'
            set 0, 'B'
            show 5
            show 0
            show 0
            show 5
            # The FIFO holds 16; the rest is lost.
            li s2, 20
        1:  sb s2, (s1)
            addi s2, s2, -1
            bnez s2, 1b
            show 5
            show 5
            set 1, 5
            show 2
            show 0
            # Modem outputs lead to the inputs.
            set 4, 0x13
            show 6
            # Clearing the receiver.
            set 2, 3
            show 5
            set 4, 8
            la s4, notes
        2:  lbu a0, (s4)
            call print_hex
            addi s4, s4, 1
            bltu s4, s3, 2b
            mv ra, s0
            ret
            .bss
        notes:
            .space 64
        "
    ));
    assert_eq!(
        program.run_in_both(),
        lines([
            0x60, 0x01, 0, 0, 0x08, 0xb0, // after a reset
            0x5a, // scratch
            0x0c, 1, 2, 0, // divisor
            0x02, 0x01, // transmitter empty
            0xc1, // FIFOs
            0x61, 0x41, 0x42, 0x60, // loop
            0x63, 0x61, 0xc4, 0x14, // overrun
            0x30, // modem
            0x60, // cleared
        ])
    );
}

#[test]
fn input_waits_until_there_is_room() {
    let program = Program::new(
        "main:
            mv s0, ra
            li s1, UART
            li s2, 0
            li s3, 0
            # A hundred bytes, some with the FIFO.
        1:  lbu t0, 5(s1)
            andi t0, t0, 1
            beqz t0, 1b
            lbu t0, (s1)
            add s2, s2, t0
            addi s3, s3, 1
            li t1, 50
            bne s3, t1, 2f
            li t1, 1
            sb t1, 2(s1)
        2:  li t1, 100
            blt s3, t1, 1b
            mv a0, s2
            call print_hex
            mv ra, s0
            ret
        ",
    );
    let (mut board, output) = program.board(Isa::V8);
    let input = board.input();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert!(input.wait_until_wanted());
            // Turning the FIFO on clears the receiver: there may be one byte too few.
            for byte in (0..100u8).chain(200..202) {
                // The program may have all that it wants.
                if !input.push(byte) {
                    break;
                }
            }
        });
        let stop = board.run(LIMIT);
        assert!(matches!(stop, Stop::Finished(Power::Pass)), "{stop:?}");
        drop(board);
    });
    let sum = u64::from_str_radix(output.text().trim(), 16).unwrap();
    let all: u64 = (0..100).sum();
    let dropped = [all, all - 50 + 200, all - 51 + 200];
    assert!(dropped.contains(&sum), "{sum}");
}

#[test]
fn whoever_has_input_is_told_when_the_board_is_gone() {
    let program = Program::new("main: ret\n");
    let (board, _) = program.board(Isa::V8);
    let input = board.input();
    let waiting = std::thread::spawn({
        let input = input.clone();
        move || input.wait_until_wanted()
    });
    drop(board);
    assert!(!waiting.join().unwrap());
    assert!(!input.push(b'x'));
}
