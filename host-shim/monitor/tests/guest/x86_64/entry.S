// SPDX-License-Identifier: Apache-2.0 OR MIT
// The guest's entries, and how it calls the monitor, on x86-64.
#include "hostcall_abi.h"

	.text

// In: rdi = boot page, nothing else is needed. The stack is the image's own.
	.globl _start
_start:
	leaq guest_stack_end(%rip), %rsp
	call guest_start
	ud2

// s64 hostcall_by(gate, number, a, b, c, d): a call with the arguments moved by two.
	.globl hostcall_by
hostcall_by:
	movq %rdi, %r11
	movq %rsi, %rax
	movq %rdx, %rdi
	movq %rcx, %rsi
	movq %r8, %rdx
	movq %r9, %rcx
	xorl %r8d, %r8d
	xorl %r9d, %r9d
	subq $8, %rsp
	call *%r11
	addq $8, %rsp
	ret

// s64 hostcall_five(gate, number, a, b, c, d, e): the same with one more, which is on the stack.
	.globl hostcall_five
hostcall_five:
	movq %rdi, %r11
	movq %rsi, %rax
	movq %rdx, %rdi
	movq %rcx, %rsi
	movq %r8, %rdx
	movq %r9, %rcx
	movq 8(%rsp), %r8
	xorl %r9d, %r9d
	subq $8, %rsp
	call *%r11
	addq $8, %rsp
	ret

// A trap in a program. rsp is the program's. Goes on on the kernel's stack, which is empty: there is one program.
	.globl trap_user_entry
trap_user_entry:
	leaq guest_stack_end(%rip), %rsp
	call trap_user_c
	ud2

	.globl trap_kernel_entry
trap_kernel_entry:
	call trap_kernel_c
	ud2

	.globl syscall_entry
syscall_entry:
	ud2

// void resume(struct registers *, how): goes on with all of these registers, which are not on the stack. A kick between the labels comes back
// to return_again.
	.globl resume
resume:
	movq %rdi, %rsp
	.globl return_begin
return_begin:
	movq %gs:LKL_VCPU_PENDING, %rax
	testq %rax, %rax
	jnz return_again
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rax
	popq %rcx
	popq %rdx
	popq %rsi
	popq %rdi
	addq $8, %rsp
	iretq
	.globl return_end
return_end:
	.globl return_again
return_again:
	leaq guest_stack_end(%rip), %rsp
	call return_again_c
	ud2

// void load_byte(address): one load, of LOAD_SIZE bytes.
	.globl load_byte
load_byte:
	movb (%rdi), %al
	ret

	.bss
	.balign 16
	.zero 65536
guest_stack_end:

	.section .note.GNU-stack, "", @progbits
