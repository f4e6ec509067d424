// SPDX-License-Identifier: Apache-2.0 OR MIT
// Programs for riscv64. They are copied out of the image before they run, so that the monitor takes them for what they are; they must not refer to
// anything.
	.option norelax
	.option norvc
	.option arch, +f, +d
	.text

// Every general register but x0, x2 (sp), x5 (t0) and x9 (s1).
	.macro EACH_REGISTER op
	.irp n, 1,3,4,6,7,8,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	\op \n
	.endr
	.endm
	.macro SET n
	li x\n, 0x1111 * \n
	.endm
	.macro COMPARE n
	li t0, 0x1111 * \n
	bne x\n, t0, 2f
	.endm

// Counts in s1 for ever, with a pattern in every other register that is checked each time around.
	.globl user_loop, user_loop_end
user_loop:
	EACH_REGISTER SET
	li s1, 0
	fcvt.d.l f7, ra
	li t0, 3
	fsrm t0
1:	addi s1, s1, 1
	EACH_REGISTER COMPARE
	sd s1, -8(sp)
	ld t0, -8(sp)
	bne t0, s1, 2f
	fcvt.l.d t0, f7
	bne t0, ra, 2f
	frrm t0
	addi t0, t0, -3
	bnez t0, 2f
	j 1b
2:	unimp
user_loop_end:

// Makes system calls by itself: 39, and then 60 with the result of the first.
	.globl user_calls, user_calls_end
user_calls:
	li a7, 39
	li a0, 1
	li a1, 2
	li a2, 3
	li a3, 4
	li a4, 5
	li a5, 6
	ecall
	li a7, 60
	ecall
	unimp
user_calls_end:

// Does one thing after the other that goes wrong, each an instruction of 4 bytes. a0 = an address in the range where no memory is.
	.globl user_faults, user_faults_end
user_faults:
	li t0, 0xdead000
	lb t1, 0(t0)
	lb t1, 0(a0)
	sb t1, 0(a0)
	unimp
	ebreak
	addi t1, sp, -15
	amoadd.w t2, zero, (t1)
	jr a0
user_faults_end:

// Calls nothing. In the older generation of the processor 0 is an address in the range where no memory is, in the newer it is outside.
	.globl user_calls_null, user_calls_null_end
user_calls_null:
	jalr zero
	unimp
user_calls_null_end:

	.section .note.GNU-stack, "", @progbits
