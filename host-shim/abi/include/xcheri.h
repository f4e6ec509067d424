/* SPDX-License-Identifier: MIT */
/*
 * CHERI-RISC-V (RV64, 128-bit capabilities) for assemblers that do not know it.
 *
 * Include it in a .S file. A CHERI compiler that assembles for xcheri knows the names of the instructions and of the
 * capability registers; then nothing is defined here. For any other RISC-V assembler there are macros of the same names, which
 * take the same operands, and every cNAME stands for the integer register of the same number. Such an assembler
 * cannot tell an integer register from a capability register where it is the wrong one; a CHERI compiler can.
 *
 * The encodings are those of the ISA, versions 8 and 9, in integer mode: opcode 0x5b; loads and stores of capabilities
 * with an offset have 0x0f and 0x23.
 *
 * Where the ISA gives register 0 of a source the meaning DDC, it is written `ddc`.
 */
#ifndef CAPSTREAM_XCHERI_H
#define CAPSTREAM_XCHERI_H

#ifndef __CHERI__

#define cnull zero
#define cra ra
#define csp sp
#define cgp gp
#define ctp tp
#define ct0 t0
#define ct1 t1
#define ct2 t2
#define cs0 s0
#define cs1 s1
#define ca0 a0
#define ca1 a1
#define ca2 a2
#define ca3 a3
#define ca4 a4
#define ca5 a5
#define ca6 a6
#define ca7 a7
#define cs2 s2
#define cs3 s3
#define cs4 s4
#define cs5 s5
#define cs6 s6
#define cs7 s7
#define cs8 s8
#define cs9 s9
#define cs10 s10
#define cs11 s11
#define ct3 t3
#define ct4 t4
#define ct5 t5
#define ct6 t6

/* Two operands: NAME destination, source. The selector is where a second source would be. */
.macro xcheri_two_operands name, selector
	.macro \name destination:req, source:req
		.insn r 0x5b, 0, 0x7f, \destination, \source, x\selector
	.endm
.endm
xcheri_two_operands cgetperm, 0
xcheri_two_operands cgettype, 1
xcheri_two_operands cgetbase, 2
xcheri_two_operands cgetlen, 3
xcheri_two_operands cgettag, 4
xcheri_two_operands cgetsealed, 5
xcheri_two_operands cgetoffset, 6
xcheri_two_operands cgetflags, 7
xcheri_two_operands crrl, 8
xcheri_two_operands cram, 9
xcheri_two_operands cmove, 10
xcheri_two_operands ccleartag, 11
xcheri_two_operands jalr.cap, 12
xcheri_two_operands cgetaddr, 15
xcheri_two_operands csealentry, 17
xcheri_two_operands jalr.pcc, 20
xcheri_two_operands cgethigh, 23

/* A jump without a link. */
.macro jr.cap target:req
	jalr.cap zero, \target
.endm
.macro jr.pcc target:req
	jalr.pcc zero, \target
.endm

/* Three operands: NAME destination, first, second. */
.macro xcheri_three_operands name, function
	.macro \name destination:req, first:req, second:req
		.insn r 0x5b, 0, \function, \destination, \first, \second
	.endm
.endm
xcheri_three_operands csetbounds, 0x08
xcheri_three_operands csetboundsexact, 0x09
xcheri_three_operands cseal, 0x0b
xcheri_three_operands cunseal, 0x0c
xcheri_three_operands candperm, 0x0d
xcheri_three_operands csetflags, 0x0e
xcheri_three_operands csetoffset, 0x0f
xcheri_three_operands csetaddr, 0x10
xcheri_three_operands cincoffset, 0x11
xcheri_three_operands csethigh, 0x16
xcheri_three_operands ccopytype, 0x1e
xcheri_three_operands ccseal, 0x1f
xcheri_three_operands cseqx, 0x21

/* The same, where the first source may be `ddc`. */
.macro xcheri_first_or_ddc name, function
	.macro \name destination:req, first:req, second:req
		.ifc \first, ddc
			.insn r 0x5b, 0, \function, \destination, zero, \second
		.else
			.insn r 0x5b, 0, \function, \destination, \first, \second
		.endif
	.endm
.endm
xcheri_first_or_ddc cfromptr, 0x13
xcheri_first_or_ddc cbuildcap, 0x1d
xcheri_first_or_ddc ctestsubset, 0x20

/* ctoptr destination, capability, authority: the authority may be `ddc`. */
.macro ctoptr destination:req, capability:req, authority:req
	.ifc \authority, ddc
		.insn r 0x5b, 0, 0x12, \destination, \capability, zero
	.else
		.insn r 0x5b, 0, 0x12, \destination, \capability, \authority
	.endif
.endm

/* With an immediate of 12 bits, signed and unsigned. */
.macro cincoffsetimm destination:req, source:req, increment:vararg
	.insn i 0x5b, 1, \destination, \source, \increment
.endm
.macro csetboundsimm destination:req, source:req, length:vararg
	.insn i 0x5b, 2, \destination, \source, ((\length) & 0x7ff) - ((\length) & 0x800)
.endm

/* cinvoke code, data */
.macro cinvoke code:req, data:req
	.insn r 0x5b, 0, 0x7e, x1, \code, \data
.endm

/* cclear quarter, mask: bit i of the mask clears register 8 * quarter + i. */
.macro cclear quarter:req, mask:req
	.4byte 0xfee0005b | (\quarter) << 18 | ((\mask) & 0xe0) << 10 | ((\mask) & 0x1f) << 7
.endm

/* Special capability registers. The names end up in no symbol table. */
.set .Lxcheri_scr_pcc, 0
.set .Lxcheri_scr_ddc, 1
.set .Lxcheri_scr_utcc, 4
.set .Lxcheri_scr_utdc, 5
.set .Lxcheri_scr_uscratchc, 6
.set .Lxcheri_scr_uepcc, 7
.set .Lxcheri_scr_stcc, 12
.set .Lxcheri_scr_stdc, 13
.set .Lxcheri_scr_sscratchc, 14
.set .Lxcheri_scr_sepcc, 15
.set .Lxcheri_scr_mtcc, 28
.set .Lxcheri_scr_mtdc, 29
.set .Lxcheri_scr_mscratchc, 30
.set .Lxcheri_scr_mepcc, 31

/* cspecialrw old, register, new; cspecialr and cspecialw do one half. */
.macro cspecialrw old:req, register:req, new:req
	.insn i 0x5b, 0, \old, \new, 0x20 + .Lxcheri_scr_\register
.endm
.macro cspecialr old:req, register:req
	cspecialrw \old, \register, zero
.endm
.macro cspecialw register:req, new:req
	cspecialrw zero, \register, \new
.endm

/* A capability from or to memory through DDC: lc destination, offset(base) and sc source, offset(base). */
.macro lc destination:req, address:vararg
	.insn i 0x0f, 2, \destination, \address
.endm
.macro sc source:req, address:vararg
	.insn s 0x23, 4, \source, \address
.endm

/* Loads through DDC or through a capability: NAME destination, (base). The number is funct7 and selector as a signed immediate. */
.macro xcheri_load name, number
	.macro \name destination:req, address:vararg
		.insn i 0x5b, 0, \destination, \number\address
	.endm
.endm
xcheri_load cloadtags, -14
xcheri_load lb.ddc, -96
xcheri_load lh.ddc, -95
xcheri_load lw.ddc, -94
xcheri_load ld.ddc, -93
xcheri_load lbu.ddc, -92
xcheri_load lhu.ddc, -91
xcheri_load lwu.ddc, -90
xcheri_load lc.ddc, -73
xcheri_load lb.cap, -88
xcheri_load lh.cap, -87
xcheri_load lw.cap, -86
xcheri_load ld.cap, -85
xcheri_load lbu.cap, -84
xcheri_load lhu.cap, -83
xcheri_load lwu.cap, -82
xcheri_load lc.cap, -65

/* Stores: NAME source, (base). */
.macro xcheri_store name, number
	.macro \name source:req, address:vararg
		.insn s 0x5b, 0, \source, \number\address
	.endm
.endm
xcheri_store sb.ddc, -128
xcheri_store sh.ddc, -127
xcheri_store sw.ddc, -126
xcheri_store sd.ddc, -125
xcheri_store sc.ddc, -124
xcheri_store sb.cap, -120
xcheri_store sh.cap, -119
xcheri_store sw.cap, -118
xcheri_store sd.cap, -117
xcheri_store sc.cap, -116

#endif /* __CHERI__ */

#endif /* CAPSTREAM_XCHERI_H */
