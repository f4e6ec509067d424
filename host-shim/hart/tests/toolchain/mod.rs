// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs for the board: assembled with clang, linked with lld, run on it.
//!
//! The tools are `clang-22` and `ld.lld-22`; with `CHERI_SDK` set, those of that SDK.

#![allow(dead_code, reason = "every test uses a part")]

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use capstream_hart::Isa;
use capstream_hart::board::{Board, Image, Options, Power, Stop};
use tempfile::TempDir;

/// No program of a test executes so many instructions.
pub const LIMIT: u64 = 200_000_000;

/// What every program begins with. It calls `main` and passes if that returns. A trap prints its cause, value and address, and fails with 99.
///
/// - `print_hex`: a0 as 16 digits and a line feed. Both leave all but t0 to t4 alone.
/// - `print_string`: the zero-terminated string at a0.
/// - `finish`: ends with the code in a0, 0 passes.
const PRELUDE: &str = r#"
    .equ UART, 0x10000000
    .equ FINISHER, 0x100000
    .equ CLINT, 0x2000000

    /* Xcheri, for assemblers that do not know it. */
    .macro cgetperm rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x0
    .endm
    .macro cgettype rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x1
    .endm
    .macro cgetbase rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x2
    .endm
    .macro cgetlen rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x3
    .endm
    .macro cgettag rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x4
    .endm
    .macro cgetaddr rd, cs1
    .insn r 0x5b, 0, 0x7f, \rd, \cs1, x15
    .endm
    .macro cmove cd, cs1
    .insn r 0x5b, 0, 0x7f, \cd, \cs1, x10
    .endm
    .macro csealentry cd, cs1
    .insn r 0x5b, 0, 0x7f, \cd, \cs1, x17
    .endm
    .macro cjalr cd, cs1
    .insn r 0x5b, 0, 0x7f, \cd, \cs1, x12
    .endm
    .macro cgetddc cd
    .insn r 0x5b, 0, 1, \cd, x0, x1
    .endm
    .macro cgetpcc cd
    .insn r 0x5b, 0, 1, \cd, x0, x0
    .endm
    .macro csetddc cs1
    .insn r 0x5b, 0, 1, x0, \cs1, x1
    .endm
    .macro csetbounds cd, cs1, rs2
    .insn r 0x5b, 0, 8, \cd, \cs1, \rs2
    .endm
    .macro cseal cd, cs1, cs2
    .insn r 0x5b, 0, 0x0b, \cd, \cs1, \cs2
    .endm
    .macro cunseal cd, cs1, cs2
    .insn r 0x5b, 0, 0x0c, \cd, \cs1, \cs2
    .endm
    .macro candperm cd, cs1, rs2
    .insn r 0x5b, 0, 0x0d, \cd, \cs1, \rs2
    .endm
    .macro csetaddr cd, cs1, rs2
    .insn r 0x5b, 0, 0x10, \cd, \cs1, \rs2
    .endm
    .macro cinvoke cs1, cs2
    .insn r 0x5b, 0, 0x7e, x1, \cs1, \cs2
    .endm
    .macro ld.cap rd, cs1
    .insn r 0x5b, 0, 0x7d, \rd, \cs1, x11
    .endm
    .macro sd.cap rs2, cs1
    .insn r 0x5b, 0, 0x7c, x11, \cs1, \rs2
    .endm
    .macro lc.cap cd, cs1
    .insn r 0x5b, 0, 0x7d, \cd, \cs1, x31
    .endm
    .macro sc.cap cs2, cs1
    .insn r 0x5b, 0, 0x7c, x12, \cs1, \cs2
    .endm
    .macro sb.cap rs2, cs1
    .insn r 0x5b, 0, 0x7c, x8, \cs1, \rs2
    .endm
    .macro lbu.cap rd, cs1
    .insn r 0x5b, 0, 0x7d, \rd, \cs1, x12
    .endm

    .section .text.start, "ax"
    .globl _start
_start:
    la sp, stack_end
    la t0, report_trap
    csrw mtvec, t0
    li t0, 0x6000               /* floating point on */
    csrs mstatus, t0
    call main
    li a0, 0
finish:
    li t0, 0x5555
    beqz a0, 1f
    slli a0, a0, 16
    li t0, 0x3333
    or t0, t0, a0
1:  li t1, FINISHER
    sw t0, (t1)
2:  j 2b

    .text
print_hex:
    li t0, UART
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
    li t2, '\n'
    sb t2, (t0)
    ret

print_string:
    li t0, UART
1:  lbu t1, (a0)
    beqz t1, 2f
    sb t1, (t0)
    addi a0, a0, 1
    j 1b
2:  ret

    .balign 4
report_trap:
    csrr a0, mcause
    call print_hex
    csrr a0, mtval
    call print_hex
    csrr a0, mepc
    call print_hex
    li a0, 99
    j finish

    .bss
    .balign 16
    .space 4096
stack_end:
    .text
"#;

const LINKER_SCRIPT: &str = "\
ENTRY(_start)
SECTIONS {
    . = 0x80000000;
    .text : { *(.text.start) *(.text*) }
    .rodata : { *(.rodata*) }
    . = ALIGN(4096);
    .data : { *(.data*) *(.sdata*) }
    .bss : { *(.bss*) *(.sbss*) *(COMMON) }
    /DISCARD/ : { *(.comment) *(.riscv.attributes) }
}
";

/// An executable in a folder that goes away with it.
pub struct Program {
    folder: TempDir,
}

impl Program {
    /// Assembles the prelude and `source`, which has to define `main`.
    pub fn new(source: &str) -> Program {
        Program::bare(&format!("{PRELUDE}\n{source}\n"))
    }

    /// Assembles `source` alone, which has to define `_start`.
    pub fn bare(source: &str) -> Program {
        Program::linked(source, &["-T", "program.ld"])
    }

    /// Assembles `source` alone and links it with these options.
    pub fn linked(source: &str, options: &[&str]) -> Program {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("program.s"), source).unwrap();
        std::fs::write(path("program.ld"), LINKER_SCRIPT).unwrap();
        run_tool(
            Command::new(tool("clang", "clang-22"))
                .args([
                    "--target=riscv64-unknown-elf",
                    "-march=rv64imafdc_zicsr_zifencei",
                ])
                .args(["-mabi=lp64d", "-mno-relax", "-g", "-c", "-o"])
                .args([path("program.o"), path("program.s")]),
        );
        run_tool(
            Command::new(tool("ld.lld", "ld.lld-22"))
                .current_dir(folder.path())
                .args(["-static", "--no-dynamic-linker", "-o", "program.elf"])
                .args(options)
                .arg("program.o"),
        );
        Program { folder }
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("program.elf")
    }

    /// A folder for what else a test writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A board with the program, and what it prints.
    pub fn board(&self, isa: Isa) -> (Board, Output) {
        let output = Output::default();
        let options = Options {
            isa,
            ..Options::default()
        };
        let image = Image::open(&self.path()).unwrap();
        let board = Board::new(image, options, Box::new(output.clone())).unwrap();
        (board, output)
    }

    /// Runs it to its end; what it printed. It has to pass.
    pub fn run(&self, isa: Isa) -> String {
        let (mut board, output) = self.board(isa);
        let stop = board.run(LIMIT);
        let text = output.text();
        assert!(
            matches!(stop, Stop::Finished(Power::Pass)),
            "{stop:?} after {} instructions at {:?}; it printed:\n{text}",
            board.instructions_retired(),
            board.hart().pcc(),
        );
        text
    }

    /// Runs it in both generations, where it has to print the same.
    pub fn run_in_both(&self) -> String {
        let text = self.run(Isa::V8);
        assert_eq!(self.run(Isa::V9), text, "v9 prints something else than v8");
        text
    }
}

/// What `print_hex` prints for these values.
pub fn lines(values: impl IntoIterator<Item = u64>) -> String {
    values
        .into_iter()
        .map(|value| format!("{value:016x}\n"))
        .collect()
}

/// Collects what a program prints.
#[derive(Clone, Default)]
pub struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The name of a tool: that of the SDK if there is one.
fn tool(of_sdk: &str, plain: &str) -> OsString {
    match std::env::var_os("CHERI_SDK").filter(|sdk| !sdk.is_empty()) {
        Some(sdk) => Path::new(&sdk).join("bin").join(of_sdk).into(),
        None => plain.into(),
    }
}

fn run_tool(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} cannot be run: {error}; install clang-22 and lld-22, or set CHERI_SDK")
    });
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
