// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `include/xcheri.h`: each of its macros assembles to the word that the ISA's tables give for it.
//!
//! The expected words are put together here from fields, independently of the header. Where `CHERI_SDK` names a CHERI SDK, the
//! same source is assembled with that SDK's own mnemonics too, and has to give the same words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic that says what is wrong"
)]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const OPCODE: u32 = 0x5b;

/// The registers in the order of their numbers, as a CHERI assembler calls them.
const REGISTERS: [&str; 32] = [
    "cnull", "cra", "csp", "cgp", "ctp", "ct0", "ct1", "ct2", "cs0", "cs1", "ca0", "ca1", "ca2",
    "ca3", "ca4", "ca5", "ca6", "ca7", "cs2", "cs3", "cs4", "cs5", "cs6", "cs7", "cs8", "cs9",
    "cs10", "cs11", "ct3", "ct4", "ct5", "ct6",
];

/// One line of assembly and its word.
struct Instruction {
    line: String,
    word: u32,
}

/// An instruction from its six fields, in the order of the ISA's tables: [31:25] [24:20] [19:15] [14:12] [11:7] [6:0].
fn fields(funct7: u32, rs2: u32, rs1: u32, funct3: u32, rd: u32, opcode: u32) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

/// The number of a register by the name that a CHERI assembler or, without the first letter, any assembler has for it.
fn number(name: &str) -> u32 {
    let capability = match name {
        "zero" => "cnull".to_owned(),
        "ddc" => "cnull".to_owned(),
        name if REGISTERS.contains(&name) => name.to_owned(),
        name => format!("c{name}"),
    };
    let place = REGISTERS.iter().position(|known| *known == capability);
    u32::try_from(place.expect("a register")).expect("a small number")
}

/// Names and selectors, funct7 = 0x7f. The operands show which of them are integers.
const TWO_OPERANDS: [(&str, u32, &str, &str); 17] = [
    ("cgetperm", 0x00, "a1", "ct6"),
    ("cgettype", 0x01, "a1", "cs11"),
    ("cgetbase", 0x02, "t6", "ca0"),
    ("cgetlen", 0x03, "s11", "csp"),
    ("cgettag", 0x04, "a1", "ca2"),
    ("cgetsealed", 0x05, "a1", "ca2"),
    ("cgetoffset", 0x06, "a1", "ca2"),
    ("cgetflags", 0x07, "a1", "ca2"),
    ("crrl", 0x08, "a1", "a2"),
    ("cram", 0x09, "a1", "a2"),
    ("cmove", 0x0a, "ct6", "cra"),
    ("ccleartag", 0x0b, "cs8", "ct3"),
    ("jalr.cap", 0x0c, "cra", "ct5"),
    ("cgetaddr", 0x0f, "a1", "ca2"),
    ("csealentry", 0x11, "ca1", "ca2"),
    ("jalr.pcc", 0x14, "ra", "t5"),
    ("cgethigh", 0x17, "a1", "ca2"),
];

/// Names and funct7; `ddc` where it is allowed, once.
const THREE_OPERANDS: [(&str, u32, &str, &str, &str); 21] = [
    ("csetbounds", 0x08, "ca0", "ct6", "t5"),
    ("csetboundsexact", 0x09, "ct6", "ca0", "s2"),
    ("cseal", 0x0b, "ca0", "ca1", "ca2"),
    ("cunseal", 0x0c, "ca0", "ca1", "ca2"),
    ("candperm", 0x0d, "ca0", "ca1", "a2"),
    ("csetflags", 0x0e, "ca0", "ca1", "a2"),
    ("csetoffset", 0x0f, "ca0", "ca1", "a2"),
    ("csetaddr", 0x10, "ct0", "ct1", "t2"),
    ("cincoffset", 0x11, "csp", "csp", "t2"),
    ("ctoptr", 0x12, "a0", "ca1", "ca2"),
    ("ctoptr", 0x12, "a0", "ca1", "ddc"),
    ("cfromptr", 0x13, "ca0", "ca1", "a2"),
    ("cfromptr", 0x13, "ca0", "ddc", "a2"),
    ("csethigh", 0x16, "ca0", "ca1", "a2"),
    ("cbuildcap", 0x1d, "ca0", "ca1", "ca2"),
    ("cbuildcap", 0x1d, "ca0", "ddc", "ca2"),
    ("ccopytype", 0x1e, "ca0", "ca1", "ca2"),
    ("ccseal", 0x1f, "ca0", "ca1", "ca2"),
    ("ctestsubset", 0x20, "a0", "ca1", "ca2"),
    ("ctestsubset", 0x20, "a0", "ddc", "ca2"),
    ("cseqx", 0x21, "a0", "ca1", "ca2"),
];

/// Widths of explicit loads with the low bits of their selectors; add 8 for a capability as the base.
const LOADS: [(&str, u32); 8] = [
    ("lb", 0x00),
    ("lh", 0x01),
    ("lw", 0x02),
    ("ld", 0x03),
    ("lbu", 0x04),
    ("lhu", 0x05),
    ("lwu", 0x06),
    ("lc", 0x17),
];

/// The same for stores.
const STORES: [(&str, u32); 5] = [
    ("sb", 0x00),
    ("sh", 0x01),
    ("sw", 0x02),
    ("sd", 0x03),
    ("sc", 0x04),
];

/// Special capability registers.
const SPECIAL: [(&str, u32); 14] = [
    ("pcc", 0),
    ("ddc", 1),
    ("utcc", 4),
    ("utdc", 5),
    ("uscratchc", 6),
    ("uepcc", 7),
    ("stcc", 12),
    ("stdc", 13),
    ("sscratchc", 14),
    ("sepcc", 15),
    ("mtcc", 28),
    ("mtdc", 29),
    ("mscratchc", 30),
    ("mepcc", 31),
];

/// Every instruction of the header, some in more than one form.
fn instructions() -> Vec<Instruction> {
    let mut all = Vec::new();
    let mut add = |line: String, word: u32| all.push(Instruction { line, word });

    for name in REGISTERS {
        add(
            format!("cmove {name}, {name}"),
            fields(0x7f, 0x0a, number(name), 0, number(name), OPCODE),
        );
    }
    for (name, selector, rd, rs1) in TWO_OPERANDS {
        add(
            format!("{name} {rd}, {rs1}"),
            fields(0x7f, selector, number(rs1), 0, number(rd), OPCODE),
        );
    }
    for (name, funct7, rd, rs1, rs2) in THREE_OPERANDS {
        add(
            format!("{name} {rd}, {rs1}, {rs2}"),
            fields(funct7, number(rs2), number(rs1), 0, number(rd), OPCODE),
        );
    }
    for (jump, selector, target) in [("jr.cap", 0x0c, "ct1"), ("jr.pcc", 0x14, "t1")] {
        add(
            format!("{jump} {target}"),
            fields(0x7f, selector, number(target), 0, 0, OPCODE),
        );
    }
    add(
        "cinvoke ct0, ct6".to_owned(),
        fields(0x7e, number("ct6"), number("ct0"), 0, 1, OPCODE),
    );
    for (quarter, mask) in [(0, 0xff), (1, 0x42), (2, 0x80), (3, 0x01)] {
        add(
            format!("cclear {quarter}, {mask:#x}"),
            fields(0x7f, 0x0e, quarter << 3 | mask >> 5, 0, mask & 31, OPCODE),
        );
    }
    for increment in [-2048_i32, -173, 0, 2047] {
        let immediate = increment.cast_unsigned() & 0xfff;
        add(
            format!("cincoffsetimm ca0, csp, {increment}"),
            fields(immediate >> 5, immediate & 31, 2, 1, 10, OPCODE),
        );
    }
    for length in [0_u32, 64, 2047, 2048, 0xbd5, 4095] {
        add(
            format!("csetboundsimm ca0, csp, {length}"),
            fields(length >> 5, length & 31, 2, 2, 10, OPCODE),
        );
    }
    for (name, scr) in SPECIAL {
        if name != "pcc" {
            add(
                format!("cspecialrw ca0, {name}, ct6"),
                fields(0x01, scr, number("ct6"), 0, 10, OPCODE),
            );
            add(
                format!("cspecialw {name}, ct6"),
                fields(0x01, scr, number("ct6"), 0, 0, OPCODE),
            );
        }
        add(
            format!("cspecialr ca0, {name}"),
            fields(0x01, scr, 0, 0, 10, OPCODE),
        );
    }
    for offset in [-2048_i32, -16, 0, 48, 208, 2032] {
        let immediate = offset.cast_unsigned() & 0xfff;
        add(
            format!("lc ct0, {offset}(t1)"),
            fields(immediate >> 5, immediate & 31, number("t1"), 2, 5, 0x0f),
        );
        add(
            format!("sc ct0, {offset}(t1)"),
            fields(immediate >> 5, 5, number("t1"), 4, immediate & 31, 0x23),
        );
    }
    for (name, selector) in LOADS {
        let destination = if name == "lc" { "ct6" } else { "t6" };
        add(
            format!("{name}.ddc {destination}, (a1)"),
            fields(0x7d, selector, 11, 0, 31, OPCODE),
        );
        add(
            format!("{name}.cap {destination}, (ca1)"),
            fields(0x7d, selector + 8, 11, 0, 31, OPCODE),
        );
    }
    for (name, selector) in STORES {
        let source = if name == "sc" { "ct6" } else { "t6" };
        add(
            format!("{name}.ddc {source}, (a1)"),
            fields(0x7c, 31, 11, 0, selector, OPCODE),
        );
        add(
            format!("{name}.cap {source}, (ca1)"),
            fields(0x7c, 31, 11, 0, selector + 8, OPCODE),
        );
    }
    add(
        "cloadtags a0, (ca1)".to_owned(),
        fields(0x7f, 0x12, 11, 0, 10, OPCODE),
    );
    all
}

fn include() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("include")
}

/// A tool that is expected to succeed; what it said otherwise.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Assembles all instructions and returns their words.
fn assemble(clang: &Path, objcopy: &Path, options: &[&str], all: &[Instruction]) -> Vec<u32> {
    let folder = tempfile::tempdir().unwrap();
    let (source, object, text) = (
        folder.path().join("all.S"),
        folder.path().join("all.o"),
        folder.path().join("all.text"),
    );
    let mut lines = "#include \"xcheri.h\"\n\t.text\n\t.option norvc\n".to_owned();
    for instruction in all {
        writeln!(lines, "\t{}", instruction.line).unwrap();
    }
    fs::write(&source, lines).unwrap();
    run(Command::new(clang)
        .args(options)
        .arg("-I")
        .arg(include())
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(&object));
    run(Command::new(objcopy)
        .args(["-O", "binary", "--only-section=.text"])
        .arg(&object)
        .arg(&text));
    fs::read(&text)
        .unwrap()
        .chunks(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().expect("whole words")))
        .collect()
}

fn assert_words(words: &[u32], all: &[Instruction]) {
    assert_eq!(words.len(), all.len(), "one word for each instruction");
    for (word, Instruction { line, word: wanted }) in words.iter().zip(all) {
        assert_eq!(*word, *wanted, "{line}: {word:#010x}, not {wanted:#010x}");
    }
}

#[test]
fn macros_give_the_words_of_the_isa() {
    let all = instructions();
    for march in ["-march=rv64imac", "-march=rv64gc"] {
        let words = assemble(
            Path::new("clang-22"),
            Path::new("llvm-objcopy-22"),
            &["--target=riscv64-unknown-elf", march],
            &all,
        );
        assert_words(&words, &all);
    }
}

/// An operand that is an expression with spaces, as offsets from other headers are.
#[test]
fn operands_may_be_expressions() {
    let all = [
        Instruction {
            line: "lc ct0, 3 * 16 (t1)".to_owned(),
            word: fields(1, 16, 6, 2, 5, 0x0f),
        },
        Instruction {
            line: "sc ct0, -(4 + 12)(t1)".to_owned(),
            word: fields(0x7f, 5, 6, 4, 16, 0x23),
        },
        Instruction {
            line: "cincoffsetimm ca0, ca0, 4 * 16 - 1".to_owned(),
            word: fields(1, 31, 10, 1, 10, OPCODE),
        },
        Instruction {
            line: "csetboundsimm ca0, ca0, 2048 + 16".to_owned(),
            word: fields(0x40, 16, 10, 2, 10, OPCODE),
        },
        Instruction {
            line: "cclear (1 + 2), (0xf0 | 1)".to_owned(),
            word: fields(0x7f, 0x0e, 31, 0, 17, OPCODE),
        },
    ];
    let words = assemble(
        Path::new("clang-22"),
        Path::new("llvm-objcopy-22"),
        &["--target=riscv64-unknown-elf", "-march=rv64imac"],
        &all,
    );
    assert_words(&words, &all);
}

/// The names of the macros in the header, without those that only make other macros.
fn names_of_the_header() -> BTreeSet<String> {
    let text = fs::read_to_string(include().join("xcheri.h")).unwrap();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<_> = line
            .split([' ', ',', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [".macro", name, ..] if !name.starts_with("xcheri_") && !name.starts_with('\\') => {
                names.insert((*name).to_owned());
            }
            [maker, name, ..] if maker.starts_with("xcheri_") => {
                names.insert((*name).to_owned());
            }
            _ => {}
        }
    }
    names
}

#[test]
fn every_macro_is_assembled_here() {
    let tried: BTreeSet<String> = instructions()
        .iter()
        .filter_map(|instruction| instruction.line.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(names_of_the_header(), tried);
}

/// With a compiler that knows the extension the header is empty: its macros would hide the compiler's checks of operands.
#[test]
fn a_cheri_compiler_sees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("empty.S");
    fs::write(&source, "#include \"xcheri.h\"\ncmove ct0, ct1\n").unwrap();
    let printed = run(Command::new("clang-22")
        .args(["--target=riscv64-unknown-elf", "-D__CHERI__", "-E", "-P"])
        .arg("-I")
        .arg(include())
        .arg(&source));
    assert_eq!(String::from_utf8_lossy(&printed).trim(), "cmove ct0, ct1");
}

/// The SDK's own mnemonics give the same words.
#[test]
fn macros_give_the_words_of_the_sdk() {
    let Some(sdk) = env::var_os("CHERI_SDK").filter(|sdk| !sdk.is_empty()) else {
        // Not through the test's captured output: it is to be seen although the test passes.
        let _ = writeln!(
            io::stderr(),
            "xcheri.h was not compared with a CHERI SDK: CHERI_SDK is not set"
        );
        return;
    };
    let bin = PathBuf::from(sdk).join("bin");
    let all = instructions();
    let words = assemble(
        &bin.join("clang"),
        &bin.join("llvm-objcopy"),
        &[
            "--target=riscv64-unknown-freebsd",
            "-march=rv64imafdcxcheri",
            "-mabi=lp64d",
            "-mno-relax",
        ],
        &all,
    );
    assert_eq!(words.len(), all.len(), "one word for each instruction");
    for (word, Instruction { line, word: wanted }) in words.iter().zip(&all) {
        // Newer SDKs take cgetaddr for what it is in integer mode: addi rd, rs1, 0.
        let same = line
            .strip_prefix("cgetaddr ")
            .and_then(|operands| operands.split_once(", "))
            .map(|(rd, rs1)| fields(0, 0, number(rs1), 0, number(rd), 0x13));
        assert!(
            *word == *wanted || Some(*word) == same,
            "{line}: the SDK says {word:#010x}, the header {wanted:#010x}"
        );
    }
}
