// SPDX-License-Identifier: Apache-2.0 OR MIT
//! F and D as instructions: programs on the board compute, and what they print has to agree with the arithmetic of the library, which is
//! tested on its own against exact arithmetic, and with constants of IEEE 754.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod toolchain;

use std::fmt::Write;

use capstream_hart::float::{self, Double, Flags, Format, Rounding, Single};
use toolchain::{Program, lines};

const DOUBLES: [u64; 12] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000, // 1
    0xbff8_0000_0000_0000, // -1.5
    0x4009_21fb_5444_2d18, // pi
    0x3fd5_5555_5555_5555, // 1/3
    0x7fef_ffff_ffff_ffff, // the largest
    0x0000_0000_0000_0001, // the smallest
    0x7ff0_0000_0000_0000, // infinity
    0x7ff8_0000_0000_0000, // NaN
    0x7ff0_0000_0000_0001, // signalling NaN
    0xc3e0_0000_0000_0000, // -2^63
];
const SINGLES: [u64; 12] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbfc0_0000,
    0x4049_0fdb,
    0x3eaa_aaab,
    0x7f7f_ffff,
    0x0000_0001,
    0x7f80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0xdf00_0000,
];
const MODES: [&str; 5] = ["rne", "rtz", "rdn", "rup", "rmm"];

type Results = Vec<(String, u64, Flags)>;

/// A program that grows, and what it has to print.
#[derive(Default)]
struct Check {
    source: String,
    expected: Results,
}

impl Check {
    /// An instruction whose result is moved to a0 by `to_a0`, with operands in `fa1`, `fa2`, `fa3` as their bits.
    fn instruction(
        &mut self,
        text: &str,
        to_a0: &str,
        operands: &[u64],
        (result, flags): (u64, Flags),
    ) {
        for (register, bits) in (1..).zip(operands) {
            writeln!(self.source, " li a1, {bits:#x}\n fmv.d.x fa{register}, a1").unwrap();
        }
        writeln!(
            self.source,
            " fsflags zero\n {text}\n {to_a0}\n frflags s1\n call print_hex\n mv a0, s1\n call print_hex"
        )
        .unwrap();
        self.expected
            .push((format!("{text} of {operands:#x?}"), result, flags));
    }

    fn run(&self) {
        let source = format!("main:\n mv s0, ra\n{}\n mv ra, s0\n ret\n", self.source);
        let printed = Program::new(&source).run_in_both();
        let found: Vec<&str> = printed.lines().collect();
        assert_eq!(found.len(), 2 * self.expected.len());
        for (found, (what, result, flags)) in found.chunks(2).zip(&self.expected) {
            assert_eq!(found[0], format!("{result:016x}"), "{what}");
            assert_eq!(
                found[1],
                format!("{:016x}", flags.bits()),
                "flags of {what}"
            );
        }
    }
}

fn arithmetic<F: Format>(format: &str, numbers: &[u64; 12]) {
    let boxed = |(bits, flags): (u64, Flags)| (F::boxed(bits), flags);
    let mut check = Check::default();
    for (mode, rounding) in MODES.iter().zip(Rounding::ALL) {
        for &a in numbers {
            let operand = F::boxed(a);
            let mut each = |name: &str, b: u64, result| {
                check.instruction(
                    &format!("{name}.{format} fa0, fa1, fa2, {mode}"),
                    "fmv.x.d a0, fa0",
                    &[operand, F::boxed(b)],
                    boxed(result),
                );
            };
            for &b in numbers {
                each("fadd", b, float::add::<F>(a, b, rounding));
                each("fsub", b, float::sub::<F>(a, b, rounding));
                each("fmul", b, float::mul::<F>(a, b, rounding));
                each("fdiv", b, float::div::<F>(a, b, rounding));
            }
            check.instruction(
                &format!("fsqrt.{format} fa0, fa1, {mode}"),
                "fmv.x.d a0, fa0",
                &[operand],
                boxed(float::sqrt::<F>(a, rounding)),
            );
        }
    }
    check.run();
}

#[test]
fn doubles_compute() {
    arithmetic::<Double>("d", &DOUBLES);
}

#[test]
fn singles_compute() {
    arithmetic::<Single>("s", &SINGLES);
}

fn fused<F: Format>(format: &str, numbers: &[u64; 12]) {
    let mut check = Check::default();
    type Fused = fn(u64, u64, u64, Rounding, Flags) -> (u64, Flags);
    let operations: [(&str, Fused); 4] = [
        ("fmadd", float::fmadd::<F>),
        ("fmsub", float::fmsub::<F>),
        ("fnmsub", float::fnmsub::<F>),
        ("fnmadd", float::fnmadd::<F>),
    ];
    for &a in &numbers[2..] {
        for &b in &numbers[3..6] {
            for &c in numbers {
                for (name, compute) in operations {
                    let (bits, flags) = compute(a, b, c, Rounding::Up, Flags::empty());
                    check.instruction(
                        &format!("{name}.{format} fa0, fa1, fa2, fa3, rup"),
                        "fmv.x.d a0, fa0",
                        &[F::boxed(a), F::boxed(b), F::boxed(c)],
                        (F::boxed(bits), flags),
                    );
                }
            }
        }
    }
    check.run();
}

#[test]
fn fused_operations_compute() {
    fused::<Double>("d", &DOUBLES);
    fused::<Single>("s", &SINGLES);
}

fn comparisons<F: Format>(format: &str, numbers: &[u64; 12]) {
    let mut check = Check::default();
    for &a in numbers {
        for &b in numbers {
            let operands = [F::boxed(a), F::boxed(b)];
            let compared: [(&str, (bool, Flags)); 3] = [
                ("feq", float::feq::<F>(a, b)),
                ("flt", float::flt::<F>(a, b)),
                ("fle", float::fle::<F>(a, b)),
            ];
            for (name, (result, flags)) in compared {
                check.instruction(
                    &format!("{name}.{format} a0, fa1, fa2"),
                    "nop",
                    &operands,
                    (result.into(), flags),
                );
            }
            let sign = F::SIGN;
            let selected: [(&str, (u64, Flags)); 5] = [
                ("fmin", float::min::<F>(a, b)),
                ("fmax", float::max::<F>(a, b)),
                ("fsgnj", (a & !sign | b & sign, Flags::empty())),
                ("fsgnjn", (a & !sign | !b & sign, Flags::empty())),
                ("fsgnjx", (a ^ b & sign, Flags::empty())),
            ];
            for (name, (bits, flags)) in selected {
                check.instruction(
                    &format!("{name}.{format} fa0, fa1, fa2"),
                    "fmv.x.d a0, fa0",
                    &operands,
                    (F::boxed(bits), flags),
                );
            }
        }
        check.instruction(
            &format!("fclass.{format} a0, fa1"),
            "nop",
            &[F::boxed(a)],
            (float::classify::<F>(a), Flags::empty()),
        );
    }
    check.run();
}

#[test]
fn comparisons_and_selections_compute() {
    comparisons::<Double>("d", &DOUBLES);
    comparisons::<Single>("s", &SINGLES);
}

fn conversions<F: Format>(format: &str, numbers: &[u64; 12]) {
    let mut check = Check::default();
    for (mode, rm) in MODES.iter().zip(Rounding::ALL) {
        for &a in numbers {
            let (w, w_flags) = float::to_i32::<F>(a, rm);
            let (wu, wu_flags) = float::to_u32::<F>(a, rm);
            let (l, l_flags) = float::to_i64::<F>(a, rm);
            let (lu, lu_flags) = float::to_u64::<F>(a, rm);
            for (name, result) in [
                ("w", (w as u64, w_flags)),
                // Words are sign-extended, unsigned ones too.
                ("wu", (wu as i32 as u64, wu_flags)),
                ("l", (l as u64, l_flags)),
                ("lu", (lu, lu_flags)),
            ] {
                check.instruction(
                    &format!("fcvt.{name}.{format} a0, fa1, {mode}"),
                    "nop",
                    &[F::boxed(a)],
                    result,
                );
            }
        }
        for integer in [
            0,
            1,
            u64::MAX,
            0x8000_0000,
            0x7fff_ffff_ffff_ffff,
            0x0102_0304_0506_0708,
        ] {
            for (name, (bits, flags)) in [
                ("w", float::from_i32::<F>(integer as i32, rm)),
                ("wu", float::from_u32::<F>(integer as u32, rm)),
                ("l", float::from_i64::<F>(integer as i64, rm)),
                ("lu", float::from_u64::<F>(integer, rm)),
            ] {
                check.instruction(
                    &format!("li a2, {integer:#x}\n fcvt.{format}.{name} fa0, a2, {mode}"),
                    "fmv.x.d a0, fa0",
                    &[],
                    (F::boxed(bits), flags),
                );
            }
        }
    }
    check.run();
}

#[test]
fn conversions_with_integers_compute() {
    conversions::<Double>("d", &DOUBLES);
    conversions::<Single>("s", &SINGLES);
}

#[test]
fn conversions_between_formats_compute() {
    let mut check = Check::default();
    for a in DOUBLES {
        for (mode, rounding) in MODES.iter().zip(Rounding::ALL) {
            let (bits, flags) = float::narrow(a, rounding);
            check.instruction(
                &format!("fcvt.s.d fa0, fa1, {mode}"),
                "fmv.x.d a0, fa0",
                &[a],
                (Single::boxed(bits), flags),
            );
        }
    }
    for a in SINGLES {
        check.instruction(
            "fcvt.d.s fa0, fa1",
            "fmv.x.d a0, fa0",
            &[Single::boxed(a)],
            float::widen(a),
        );
    }
    check.run();
}

#[test]
fn known_results_are_those_of_ieee_754() {
    let program = Program::new(
        "main:
            mv s0, ra
            li a1, 1
            li a2, 3
            fcvt.d.l fa1, a1
            fcvt.d.l fa2, a2
            fsflags zero
            fdiv.d fa0, fa1, fa2
            fmv.x.d a0, fa0
            call print_hex          # 1/3
            frflags a0
            call print_hex          # inexact
            fsqrt.d fa0, fa2
            fmv.x.d a0, fa0
            call print_hex          # square root of 3
            fsflags zero
            fdiv.d fa0, fa1, fa3    # by zero
            fmv.x.d a0, fa0
            call print_hex
            frflags a0
            call print_hex
            # Flags accumulate, and fcsr has both fields.
            fsub.d fa0, fa0, fa0    # infinity - infinity
            csrwi frm, 3
            frcsr a0
            call print_hex
            # The dynamic mode is that of frm: up.
            fdiv.d fa0, fa1, fa2
            fmv.x.d a0, fa0
            call print_hex
            fneg.d fa0, fa1
            fdiv.d fa0, fa0, fa2
            fmv.x.d a0, fa0
            call print_hex
            csrwi frm, 0
            # NaN boxing: a double is no single, moves see all bits.
            li a1, 0x3f800000
            fmv.d.x fa4, a1
            fadd.s fa0, fa4, fa4
            fmv.x.d a0, fa0
            call print_hex
            fmv.w.x fa4, a1
            fmv.x.d a0, fa4
            call print_hex
            fmv.w.x fa5, a1
            fneg.s fa5, fa5
            fmv.x.w a0, fa5
            call print_hex
            # Loads box, stores do not look.
            la s1, cell
            flw fa0, (s1)
            fmv.x.d a0, fa0
            call print_hex
            fsw fa1, 8(s1)
            ld a0, 8(s1)
            call print_hex
            fld fa0, (s1)
            fsd fa0, 8(s1)
            ld a0, 8(s1)
            call print_hex
            mv ra, s0
            ret
            .data
            .balign 8
        cell:
            .dword 0x123456789abcdef0, 0
        ",
    );
    assert_eq!(
        program.run_in_both(),
        lines([
            0x3fd5_5555_5555_5555,
            1,
            0x3ffb_b67a_e858_4caa,
            0x7ff0_0000_0000_0000,
            8,
            0x78,
            0x3fd5_5555_5555_5556,
            0xbfd5_5555_5555_5555,
            0xffff_ffff_7fc0_0000,
            0xffff_ffff_3f80_0000,
            0xffff_ffff_bf80_0000,
            0xffff_ffff_9abc_def0,
            0,
            0x1234_5678_9abc_def0,
        ])
    );
}

#[test]
fn floating_point_is_illegal_while_it_is_off() {
    let program = Program::new(
        "main:
            la t0, handler
            csrw mtvec, t0
            # Writing makes it dirty.
            li a1, 0x6000
            csrc mstatus, a1
            li a1, 0x2000
            csrs mstatus, a1
            csrr a0, mstatus
            call print_status
            fmv.d.x fa0, zero
            csrr a0, mstatus
            call print_status
            li a1, 0x6000
            csrc mstatus, a1
            fadd.d fa0, fa0, fa0
            fld fa0, (sp)
            csrr a0, fcsr
            c.fldsp fa0, 0(sp)
            li a1, 0x2000
            csrs mstatus, a1
            # Reserved rounding modes: static, and dynamic from frm.
            .insn r 0x53, 5, 0x01, x10, x10, x10
            csrwi frm, 6
            fadd.d fa0, fa0, fa0
            fadd.d fa0, fa0, fa0, rne
            li a0, 0
            j finish
        print_status:
            srli a0, a0, 13
            andi a0, a0, 3
            mv s1, ra
            call print_hex
            mv ra, s1
            ret
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
    assert_eq!(program.run_in_both(), lines([1, 3, 2, 2, 2, 2, 2, 2]));
}
