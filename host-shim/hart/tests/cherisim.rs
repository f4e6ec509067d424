// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cherisim` as its users see it: what it prints, how it exits, what it says about mistakes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use toolchain::Program;

const HELLO: &str = "
    main:
        mv s0, ra
        la a0, hello
        call print_string
        mv ra, s0
        ret
        .section .rodata
    hello:
        .asciz \"hello, board\\n\"
        .text
";

fn cherisim(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cherisim"));
    command.args(options).arg(program).stdin(Stdio::null());
    command
}

fn run(program: &Path, options: &[&str]) -> Output {
    cherisim(program, options).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What it printed and its status.
fn ends(output: &Output) -> (&str, &str, i32) {
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

#[test]
fn a_program_prints_and_passes() {
    let program = Program::new(HELLO);
    for isa in ["v8", "v9"] {
        let output = run(&program.path(), &["--isa", isa]);
        assert_eq!(ends(&output), ("hello, board\n", "", 0));
    }
}

#[test]
fn a_program_fails_with_its_code() {
    for (code, status) in [(1, 1), (42, 42), (255, 255), (0x300, 1), (0x105, 5)] {
        let program = Program::new(&format!("main: li a0, {code}\n j finish\n"));
        let output = run(&program.path(), &[]);
        assert_eq!(ends(&output), ("", "", status), "code {code:#x}");
    }
}

#[test]
fn nothing_is_printed_after_the_end() {
    let program = Program::new(
        "main:
            li t0, 0x5555
            li t1, FINISHER
            li t2, UART
            li t3, 'x'
            sb t3, (t2)
            sw t0, (t1)
        1:  sb t3, (t2)
            j 1b
        ",
    );
    let output = run(&program.path(), &[]);
    assert_eq!(ends(&output), ("x", "", 0));
}

#[test]
fn input_reaches_the_program() {
    // Echoes lines in upper case until the end of a line that begins with a dot.
    let program = Program::new(
        "main:
            li s1, UART
            li t3, 0
        1:  lbu t0, 5(s1)
            andi t0, t0, 1
            beqz t0, 1b
            lbu a0, (s1)
            li t0, '.'
            beq a0, t0, 3f
            li t0, 'a'
            blt a0, t0, 2f
            addi a0, a0, 'A' - 'a'
        2:  sb a0, (s1)
            j 1b
        3:  li a0, 7
            j finish
        ",
    );
    let mut child = cherisim(&program.path(), &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let long: String = "many words, more than a fifo has room for\n".repeat(20);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(long.as_bytes()).unwrap();
    stdin.write_all(b".").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), long.to_uppercase());
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn input_that_the_program_does_not_read_is_left_alone() {
    let program = Program::new(HELLO);
    let folder = program.folder().join("input");
    std::fs::write(&folder, "line\n").unwrap();
    // A shell reads on where the program before it left off.
    let output = Command::new("sh")
        .arg("-c")
        .arg("\"$0\" \"$1\" && cat")
        .arg(env!("CARGO_BIN_EXE_cherisim"))
        .arg(program.path())
        .stdin(std::fs::File::open(&folder).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "hello, board\nline\n");
}

#[test]
fn a_limit_of_instructions_has_its_own_status() {
    let program = Program::new("main: j main\n");
    let output = run(&program.path(), &["--max-insns", "100000", "--stats"]);
    let (stdout, stderr, status) = ends(&output);
    assert_eq!((stdout, status), ("", 124));
    assert!(
        stderr.contains("100000 instructions were executed"),
        "{stderr}"
    );
    assert!(
        stderr.contains("cherisim: 100000 instructions in "),
        "{stderr}"
    );
    assert!(stderr.contains("MIPS"), "{stderr}");
}

#[test]
fn a_program_that_cannot_go_on_is_told_why() {
    let lost = Program::bare(".globl _start\n_start: .word 0\n");
    let (stdout, stderr, status) = (String::new(), run(&lost.path(), &[]), 123);
    assert_eq!(stderr.status.code(), Some(status));
    assert_eq!(text(&stderr.stdout), stdout);
    assert!(text(&stderr.stderr).contains("set mtvec"), "{stderr:?}");

    let halted = Program::bare(".globl _start\n_start: wfi\n j _start\n");
    let output = run(&halted.path(), &[]);
    assert_eq!(output.status.code(), Some(122));
    assert!(text(&output.stderr).contains("waits for an interrupt"));
}

#[test]
fn lost_output_is_an_error() {
    let program = Program::new(HELLO);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = cherisim(&program.path(), &[])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(121));
    assert!(text(&output.stderr).contains("cannot write what the program prints"));
}

#[test]
fn a_trace_shows_instructions_registers_and_traps() {
    let program = Program::bare(
        ".globl _start
        .option norvc
        _start:
            la t0, handler
            csrw mtvec, t0
            li a0, 16
            .insn r 0x5b, 0, 1, a1, x0, x1      # cspecialrw ca1, ddc, cnull
            .insn r 0x5b, 0, 8, a1, a1, a0      # csetbounds ca1, ca1, a0
            .insn r 0x5b, 0, 0x7d, a2, a1, x11  # ld.cap a2, (ca1)
            .balign 4
        handler:
            li t0, 0x5555
            li t1, 0x100000
            sw t0, (t1)
        1:  j 1b
        ",
    );
    let file = program.folder().join("trace");
    let option = format!("--trace={}", file.display());
    let output = run(&program.path(), &[&option]);
    assert_eq!(ends(&output), ("", "", 0));
    let trace = std::fs::read_to_string(&file).unwrap();
    let line = |part: &str| {
        trace
            .lines()
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no `{part}` in\n{trace}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(
        trace.starts_with("0x0000000000001000 00000297 auipc t0, 0x0"),
        "{trace}"
    );
    assert_eq!(
        line("addi a0"),
        "0x000000008000000c 01000513 addi a0, zero, 16 a0=0x10"
    );
    assert_eq!(
        line("cspecialrw"),
        "0x0000000080000010 021005db cspecialrw ca1, ddc, cnull ca1=0x0 [0x0, 0x10000000000000000) perms 0x78fff tagged"
    );
    assert_eq!(
        line("csetbounds"),
        "0x0000000080000014 10a585db csetbounds ca1, ca1, a0 ca1=0x0 [0x0, 0x10) perms 0x78fff tagged"
    );
    // The address is inside, but nothing is there.
    assert_eq!(
        line("ld.cap"),
        "0x0000000080000018 fab5865b ld.cap a2, (ca1)"
    );
    assert_eq!(
        line("exception"),
        "exception 5 (load access fault), value 0x0: machine mode at 0x8000001c"
    );
    assert!(trace.trim_end().lines().count() < 30, "{trace}");

    // To standard error, also when the program follows the option.
    let output = run(&program.path(), &["--trace"]);
    assert_eq!(text(&output.stderr), trace);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_trace_does_not_change_what_a_program_does() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            li s1, CLINT + 0x4000
            li s2, CLINT + 0xbff8
            li s3, 0
            ld t0, (s2)
            addi t0, t0, 2000
            sd t0, (s1)
            li t0, 1 << 7
            csrw mie, t0
            csrsi mstatus, 8
        1:  li t0, 3
            blt s3, t0, 1b
            la a0, text
            call print_string
            li a0, 3
            j finish
            .balign 4
        handler:
            addi s3, s3, 1
            ld s4, (s2)
            addi s4, s4, 2000
            li s5, 3
            bltu s3, s5, 2f
            li s4, -1
        2:  sd s4, (s1)
            mret
            .section .rodata
        text: .asciz \"three\\n\"
            .text
        ",
    );
    let file = program.folder().join("trace");
    let output = run(
        &program.path(),
        &["--max-insns", "1000000", "--trace", file.to_str().unwrap()],
    );
    assert_eq!(ends(&output), ("three\n", "", 3));
    let trace = std::fs::read_to_string(&file).unwrap();
    let interrupts: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains("interrupt 7 (machine timer)"))
        .collect();
    assert_eq!(interrupts.len(), 3, "{interrupts:?}");
    // The line after it is the first instruction of the handler.
    let mut lines = trace
        .lines()
        .skip_while(|line| !line.contains("interrupt 7"));
    let handler = lines.next().unwrap().rsplit_once("at 0x").unwrap().1;
    let first = lines.next().unwrap();
    assert!(
        first.starts_with(&format!("0x{handler:0>16}")),
        "{handler}: {first}"
    );
}

#[test]
fn ram_has_the_size_that_was_asked_for() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            mv s0, ra
            li a1, 0x80000000
            li a2, 0x100000
        1:  lb a0, (a1)             # to the end
            add a1, a1, a2
            j 1b
            .balign 4
        handler:
            csrr a0, mtval
            call print_hex
            li a0, 0
            j finish
        ",
    );
    for (size, end) in [
        ("1M", 0x8010_0000u64),
        ("16384K", 0x8100_0000),
        ("3G", 0x1_4000_0000),
    ] {
        let output = run(&program.path(), &["--ram", size]);
        assert_eq!(ends(&output), (format!("{end:016x}\n").as_str(), "", 0));
    }
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let program = Program::new(HELLO);
    let path = program.path();
    for (options, says) in [
        (&["--isa", "v10"][..], "invalid value 'v10'"),
        (&["--ram", "much"], "such as 128M"),
        (&["--ram", "5000"], "multiple of 4 KiB"),
        (&["--ram", "4K"], "give the board more RAM"),
        (&["--max-insns", "many"], "--max-insns"),
        (&["--gdb", "nowhere"], "ADDRESS:PORT"),
        (&["--gdb", ":0", "--trace"], "cannot be used with"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output = run(&path, options);
        let (stdout, stderr, status) = ends(&output);
        assert_eq!((stdout, status), ("", 2), "{options:?}: {stderr}");
        assert!(stderr.contains(says), "{options:?}: {stderr}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_cherisim"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no FILE was named"));
}

#[test]
fn files_that_cannot_be_run_are_explained() {
    let program = Program::new(HELLO);
    let good = std::fs::read(program.path()).unwrap();
    let file = program.folder().join("bad.elf");
    let check = |bytes: &[u8], says: &str| {
        std::fs::write(&file, bytes).unwrap();
        let output = run(&file, &[]);
        let (stdout, stderr, status) = ends(&output);
        assert_eq!((stdout, status), ("", 2), "{says}: {stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert!(stderr.contains("bad.elf"), "{stderr}");
    };
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    check(b"", "no ELF file");
    check(b"#!/bin/sh\n", "no ELF file");
    check(&good[..20], "damaged");
    check(&good[..good.len().min(200)], "damaged");
    check(&changed(4, &[1]), "32 bits");
    check(&changed(5, &[2]), "big-endian");
    check(&changed(18, &[62, 0]), "another machine");
    check(&changed(16, &[3, 0]), "position-independent");
    check(&changed(16, &[1, 0]), "not linked yet");
    check(&changed(16, &[4, 0]), "not an executable");
    check(
        &changed(24, &0x9000_0000u64.to_le_bytes()),
        "entry 0x90000000",
    );
    // Where the program headers are, and how many.
    check(&changed(32, &u64::MAX.to_le_bytes()), "damaged");
    check(&changed(56, &0xfffeu16.to_le_bytes()), "damaged");

    let first = 64;
    let address = 0x1000u64.to_le_bytes();
    check(&changed(first + 24, &address), "not inside the RAM");
    check(
        &changed(first + 24, &u64::MAX.to_le_bytes()),
        "end of the address space",
    );
    check(
        &changed(first + 8, &u64::MAX.to_le_bytes()),
        "end of the file",
    );
    check(
        &changed(first + 32, &(1u64 << 40).to_le_bytes()),
        "more bytes in the file",
    );

    for (path, says) in [
        (program.folder().join("missing.elf"), "cannot read"),
        (program.folder().to_path_buf(), "a directory"),
        ("/dev/null".into(), "no regular file"),
    ] {
        let output = run(&path, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
}

#[test]
fn programs_need_no_linker_script() {
    let source = "
        .globl _start
        _start:
            li t0, 0x00073333
            li t1, 0x100000
            sw t0, (t1)
        1:  j 1b
    ";
    // The linker puts a segment with the file's headers elsewhere, or over the program.
    for options in [
        &["-Ttext=0x80000000"][..],
        &["-Ttext=0x80000000", "--image-base=0x80000000"],
        &["--image-base=0x80000000"],
        &["-Ttext=0x80200000"],
    ] {
        let program = Program::linked(source, options);
        let output = run(&program.path(), &[]);
        assert_eq!(ends(&output), ("", "", 7), "{options:?}");
    }
    // One segment over the other.
    let program = Program::linked(
        &format!("{source}\n.data\n.word 1\n"),
        &[
            "-Ttext=0x80000000",
            "-Tdata=0x80000000",
            "--no-check-sections",
        ],
    );
    let output = run(&program.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("two segments"), "{output:?}");
}

#[test]
fn any_damage_to_a_file_ends_in_an_exit_status() {
    let program = Program::new(HELLO);
    let good = std::fs::read(program.path()).unwrap();
    let file = program.folder().join("damaged.elf");
    let mut random = 0x1234_5678_9abc_def1u64;
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random % 360) as usize;
            bytes[at] ^= (random >> 32) as u8;
        }
        std::fs::write(&file, &bytes).unwrap();
        let output = run(&file, &["--max-insns", "100000"]);
        let status = output.status.code().expect("no signal");
        assert_ne!(status, 101, "{output:?}");
    }
}
