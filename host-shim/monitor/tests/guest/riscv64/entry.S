// SPDX-License-Identifier: Apache-2.0 OR MIT
// The guest's entries, and how it calls the monitor, on riscv64 with CHERI. See the crate capstream-abi for the fixed places after _start. The
// kernel's code runs with tp = vCPU page; nothing here uses it but resume's caller.
#include "hostcall_abi.h"
#include "xcheri.h"

	.option norelax
	.text

// In: a0 = boot page, tp = vCPU page; sp = a small stack, which is not used: the image has its own.
	.globl _start
	.balign 16
_start:
	j start
	.org _start + LKL_RETURN_POINT_OFFSET

// Where a hostcall comes back. In: ct6 = the guest's data capability, a0 = result; ra, sp, gp, tp, s0 to s11 as at the hostcall. Out: goes on at ra.
	cspecialrw cnull, ddc, ct6
	li t6, 0
	ret
	.org _start + LKL_PORTAL_RETURN_OFFSET

// Where a portal returns to. In: sp = top of its stack, a0 = its result. Does not return.
	li t0, LKL_PORTAL_STACK_SIZE - LKL_STORE_OFFSET
	sub t0, sp, t0
	lc ct1, LKL_STORE_PORTAL_RETURN(t0)
	lc ct2, LKL_STORE_MONITOR_DATA(t0)
	cinvoke ct1, ct2

start:
	lla sp, guest_stack_end
	call guest_start
	unimp

// s64 hostcall_by(gate, number, a, b, c, d): gate is the address of a capability store. The return point returns to our caller.
	.globl hostcall_by
hostcall_by:
	li a6, 0

// s64 hostcall_five(gate, number, a, b, c, d, e): the same with one more.
	.globl hostcall_five
hostcall_five:
	mv t0, a0
	mv t5, a1
	mv a0, a2
	mv a1, a3
	mv a2, a4
	mv a3, a5
	mv a4, a6
	li a5, 0
	lc ct1, LKL_STORE_HOSTCALL(t0)
	lc ct2, LKL_STORE_MONITOR_DATA(t0)
	cinvoke ct1, ct2

// A trap in a program. tp = vCPU page, every other register is 0. Goes on on the kernel's stack, which is empty: there is one program.
	.globl trap_user_entry
trap_user_entry:
	lla sp, guest_stack_end
	call trap_user_c
	unimp

// A fault of the kernel. tp = vCPU page, sp = the faulting stack pointer, aligned.
	.globl trap_kernel_entry
trap_kernel_entry:
	call trap_kernel_c
	unimp

// void resume(struct registers *, how): goes on with all of these registers.
	.globl resume
resume:
	mv a7, a1
	ecall
	unimp

// An interrupt was pending at a resume. tp = vCPU page, every other register is 0.
	.globl return_again
return_again:
	lla sp, guest_stack_end
	call return_again_c
	unimp

// void load_byte(address): one load, of LOAD_SIZE bytes.
	.option push
	.option norvc
	.globl load_byte
load_byte:
	lb a0, 0(a0)
	ret
	.option pop

	.bss
	.balign 16
	.zero 65536
guest_stack_end:

	.section .note.GNU-stack, "", @progbits
