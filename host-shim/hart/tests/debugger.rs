// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions of gdb's remote protocol with `cherisim --gdb`, spoken by the test itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use toolchain::Program;

/// A running `cherisim`, and the debugger's end of the connection.
struct Session {
    child: Child,
    stream: TcpStream,
}

impl Session {
    fn begin(program: &Program) -> Session {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cherisim"))
            .args(["--gdb", "127.0.0.1:0"])
            .arg(program.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (_, address) = line
            .trim_end()
            .trim_end_matches('`')
            .rsplit_once(' ')
            .unwrap();
        let stream = TcpStream::connect(address).unwrap();
        // Nothing that is tested takes so long; without it, a lost answer would hang the test.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut session = Session { child, stream };
        let supported = session.ask("qSupported:swbreak+;hwbreak+;xmlRegisters=riscv");
        assert!(supported.contains("qXfer:features:read+"), "{supported}");
        session
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream, "${packet}#{sum:02x}").unwrap();
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// The next packet, acknowledged, with runs expanded.
    fn answer(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let count = self.byte() - 29;
                    let last = *packet.last().unwrap();
                    packet.extend(std::iter::repeat_n(last, count.into()));
                }
                byte => packet.push(byte),
            }
        }
        self.byte();
        self.byte();
        self.stream.write_all(b"+").unwrap();
        String::from_utf8(packet).unwrap()
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.answer()
    }

    fn expect_ok(&mut self, packet: &str) {
        assert_eq!(self.ask(packet), "OK", "{packet}");
    }

    /// The target description, fetched in parts as gdb does.
    fn description(&mut self) -> String {
        let mut xml = String::new();
        loop {
            let part = self.ask(&format!(
                "qXfer:features:read:target.xml:{:x},7f0",
                xml.len()
            ));
            xml.push_str(&part[1..]);
            if part.starts_with('l') {
                return xml;
            }
            assert!(part.starts_with('m'), "{part}");
        }
    }

    fn register(&mut self, number: u64) -> u128 {
        let hex = self.ask(&format!("p{number:x}"));
        little_endian(&hex)
    }

    fn ends(mut self) -> (String, i32) {
        let mut output = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        let status = self.child.wait().unwrap();
        (output, status.code().unwrap())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After a failed expectation it would run on alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn little_endian(hex: &str) -> u128 {
    (0..hex.len() / 2).rev().fold(0, |value, n| {
        value << 8 | u128::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()
    })
}

fn hex(value: u64) -> String {
    value
        .to_le_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The number of a register in a target description.
fn number(xml: &str, name: &str) -> u64 {
    let (_, rest) = xml
        .split_once(&format!("<reg name=\"{name}\""))
        .unwrap_or_else(|| panic!("no register {name}"));
    let (_, rest) = rest.split_once("regnum=\"").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

const PC: u64 = 32;

fn example() -> Program {
    Program::bare(
        ".globl _start
        .option norvc
        _start:                                 # 0x80000000
            li a0, 16
            .insn r 0x5b, 0, 1, a1, x0, x1      # cspecialrw ca1, ddc, cnull
            .insn r 0x5b, 0, 8, a1, a1, a0      # csetbounds ca1, ca1, a0
            li a2, 0
        loop:                                   # 0x80000010
            addi a2, a2, 1
            la a3, counter
            sd a2, (a3)
            j loop
            .data
            .balign 4096
        counter:
            .dword 0
        ",
    )
}

#[test]
fn registers_and_memory_are_read_and_written() {
    let mut session = Session::begin(&example());
    let xml = session.description();
    assert!(xml.contains("<architecture>riscv:rv64</architecture>"));
    assert_eq!(number(&xml, "pc"), PC);
    assert!(session.ask("?").starts_with(['S', 'T']));
    assert_eq!(session.register(PC), 0x1000, "at the reset vector");

    session.expect_ok("Z0,80000010,4");
    assert!(session.ask("c").contains("swbreak"));
    assert_eq!(session.register(PC), 0x8000_0010);
    assert_eq!(session.register(number(&xml, "a0")), 16);

    // A capability: 16 bytes as in memory, and its tag.
    let ca1 = session.register(number(&xml, "ca1"));
    assert_eq!(ca1 as u64, 0, "the address");
    assert_ne!(ca1 >> 64, 0, "bounds and permissions");
    let tags = session.register(number(&xml, "tags"));
    assert_eq!(tags >> 11 & 1, 1, "ca1");
    assert_eq!(tags >> 10 & 1, 0, "a0");
    assert_eq!(tags >> 32 & 3, 3, "pcc and ddc");
    assert_eq!(session.register(number(&xml, "pcc")) as u64, 0x8000_0010);
    assert_eq!(session.register(number(&xml, "ddc")) as u64, 0);
    assert_eq!(session.register(number(&xml, "misa")) as u64 >> 62, 2);

    // Writing an integer takes the tag.
    let a1 = number(&xml, "a1");
    session.expect_ok(&format!("P{a1:x}={}", hex(0x1234)));
    assert_eq!(session.register(a1), 0x1234);
    assert_eq!(session.register(number(&xml, "tags")) >> 11 & 1, 0);
    let fa0 = number(&xml, "fa0");
    session.expect_ok(&format!("P{fa0:x}={}", hex(1.5f64.to_bits())));
    assert_eq!(session.register(fa0), u128::from(1.5f64.to_bits()));

    // All at once: the first 33 are x0 to x31 and PC.
    let all = session.ask("g");
    assert_eq!(little_endian(&all[10 * 16..11 * 16]), 16);
    assert_eq!(little_endian(&all[32 * 16..33 * 16]), 0x8000_0010);
    session.expect_ok(&format!("G{all}"));
    assert_eq!(session.register(PC), 0x8000_0010);
    // Between integer and floating-point registers at the begin and capabilities at the end are counters.
    let again = session.ask("g");
    assert_eq!(again[..65 * 16], all[..65 * 16]);
    let capabilities = all.len() - 42 * 32 - 16;
    assert_eq!(again[capabilities..], all[capabilities..]);

    // Memory: code, data, and what is not there.
    assert_eq!(session.ask("m80000000,4"), "13050001");
    session.expect_ok("M84000000,4:01020304");
    assert_eq!(session.ask("m84000000,8"), "0102030400000000");
    assert!(session.ask("m40000000,4").starts_with('E'));
    assert!(session.ask("M1000,4:00000000").starts_with('E'), "the ROM");
    session.send("k");
    assert_eq!(session.ends(), (String::new(), 126));
}

#[test]
fn steps_breakpoints_and_interrupts_stop_where_they_should() {
    let mut session = Session::begin(&example());
    let xml = session.description();
    let a2 = number(&xml, "a2");
    // Instruction by instruction, from the reset vector on.
    for expected in [
        0x1004,
        0x1008,
        0x100c,
        0x1010,
        0x1014,
        0x8000_0000,
        0x8000_0004,
    ] {
        assert!(session.ask("s").starts_with(['S', 'T']));
        assert_eq!(session.register(PC), expected);
    }
    // Of several breakpoints, each stops; the same one again and again.
    session.expect_ok("Z0,80000010,4");
    session.expect_ok("Z1,8000001c,4");
    for round in 0..3 {
        assert!(session.ask("c").contains("swbreak"));
        assert_eq!(session.register(PC), 0x8000_0010);
        assert_eq!(session.register(a2), round);
        assert!(session.ask("c").contains("hwbreak"));
        assert_eq!(session.register(PC), 0x8000_001c);
    }
    // Nothing of that is written into the program.
    assert_eq!(session.ask("m80000010,4"), "13061600");
    session.expect_ok("z1,8000001c,4");
    assert!(session.ask("c").contains("swbreak"));
    assert_eq!(session.register(PC), 0x8000_0010);
    session.expect_ok("z0,80000010,4");

    // It runs until it is interrupted.
    session.send("c");
    session.stream.write_all(&[3]).unwrap();
    assert!(session.answer().starts_with("S02"), "SIGINT");
    let before = session.register(a2);
    session.send("c");
    session.stream.write_all(&[3]).unwrap();
    assert!(session.answer().starts_with("S02"));
    assert!(session.register(a2) >= before);

    // Code that is written is what is executed: `addi a2, a2, 1` becomes `addi a2, zero, 7`, in a loop that ran.
    session.expect_ok("M80000010,4:13067000");
    session.expect_ok("Z0,80000014,4");
    assert!(session.ask("c").contains("swbreak"));
    assert_eq!(session.register(a2), 7);
    session.send("k");
    assert_eq!(session.ends().1, 126);
}

#[test]
fn the_end_of_the_program_is_reported() {
    let program = Program::new(
        "main:
            mv s0, ra
            li a0, 5
            call print_hex
            li a0, 42
            j finish
        ",
    );
    let mut session = Session::begin(&program);
    assert_eq!(session.ask("c"), "W2a");
    drop(session.stream.shutdown(std::net::Shutdown::Both));
    assert_eq!(session.ends(), ("0000000000000005\n".into(), 42));
}

#[test]
fn a_debugger_that_leaves_lets_the_program_run_on() {
    let program = Program::new("main: li a0, 9\n j finish\n");
    let mut session = Session::begin(&program);
    session.expect_ok("D");
    assert_eq!(session.ends(), (String::new(), 9));

    let session = Session::begin(&program);
    session.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(session.ends(), (String::new(), 9));
}

#[test]
fn a_program_that_waits_for_good_can_be_looked_at() {
    let program = Program::bare(".globl _start\n_start: wfi\n j _start\n");
    let mut session = Session::begin(&program);
    assert!(session.ask("c").starts_with("S11"), "SIGSTOP");
    assert_eq!(session.register(PC), 0x8000_0004);
    session.send("k");
    assert_eq!(session.ends().1, 126);
}
