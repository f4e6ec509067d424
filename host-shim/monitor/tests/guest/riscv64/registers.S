// SPDX-License-Identifier: Apache-2.0 OR MIT
// A hostcall with something in every register.
#include "hostcall_abi.h"
#include "xcheri.h"

	.option norelax
	.option arch, +f, +d
	.text

#define WORD(n) (8 * (n))
#define SAVED 32
#define FRAME WORD(SAVED + 16)

	.macro EACH_FLOAT insn, base
	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	\insn f\n, WORD(\n)(\base)
	.endr
	.endm

	.macro EACH_KEPT insn, base
	\insn ra, WORD(\base + 0)(sp)
	\insn gp, WORD(\base + 1)(sp)
	\insn tp, WORD(\base + 2)(sp)
	\insn s0, WORD(\base + 3)(sp)
	\insn s1, WORD(\base + 4)(sp)
	\insn s2, WORD(\base + 5)(sp)
	\insn s3, WORD(\base + 6)(sp)
	\insn s4, WORD(\base + 7)(sp)
	\insn s5, WORD(\base + 8)(sp)
	\insn s6, WORD(\base + 9)(sp)
	\insn s7, WORD(\base + 10)(sp)
	\insn s8, WORD(\base + 11)(sp)
	\insn s9, WORD(\base + 12)(sp)
	\insn s10, WORD(\base + 13)(sp)
	\insn s11, WORD(\base + 14)(sp)
	.endm

// void call_with_registers(number, const u64 arguments[6], struct seen *seen)
// Makes the hostcall with 0x1111 * n in register n of those that are to be kept, and with what seen->floats and seen->fcsr say in the others;
// writes what is in them afterwards to *seen: 32 general registers, 32 floating point registers, fcsr.
	.globl call_with_registers
call_with_registers:
	addi sp, sp, -FRAME
	EACH_KEPT sd, SAVED
	sd a2, WORD(SAVED + 15)(sp)
	mv t5, a0
	ld t0, LKL_VCPU_GATE(tp)
	lc ct1, LKL_STORE_HOSTCALL(t0)
	lc ct2, LKL_STORE_MONITOR_DATA(t0)
	addi t3, a2, WORD(32)
	EACH_FLOAT fld, t3
	ld t4, WORD(64)(a2)
	fscsr t4
	mv t3, a1
	ld a0, WORD(0)(t3)
	ld a1, WORD(1)(t3)
	ld a2, WORD(2)(t3)
	ld a3, WORD(3)(t3)
	ld a4, WORD(4)(t3)
	ld a5, WORD(5)(t3)
	.irp n, 3,4,8,9,18,19,20,21,22,23,24,25,26,27
	li x\n, 0x1111 * \n
	.endr
	lla ra, 1f
	cinvoke ct1, ct2
1:
	.irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	sd x\n, WORD(\n)(sp)
	.endr
	EACH_KEPT ld, SAVED
	ld a2, WORD(SAVED + 15)(sp)
	.irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	ld t0, WORD(\n)(sp)
	sd t0, WORD(\n)(a2)
	.endr
	addi t3, a2, WORD(32)
	EACH_FLOAT fsd, t3
	frcsr t4
	sd t4, WORD(64)(a2)
	addi sp, sp, FRAME
	ret

	.section .note.GNU-stack, "", @progbits
