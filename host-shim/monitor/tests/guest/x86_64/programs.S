// SPDX-License-Identifier: Apache-2.0 OR MIT
// Programs for x86-64. They are copied out of the image before they run, so that the monitor takes them for what they are; they must not refer to
// anything.
	.text

// Counts in rbx for ever, with a pattern in every other register that is checked each time around.
	.globl user_loop, user_loop_end
user_loop:
	movq $0x1111, %rax; movq $0x2222, %rcx; movq $0x3333, %rdx; movq $0x4444, %rsi; movq $0x5555, %rdi
	movq $0x6666, %rbp; movq $0x8888, %r8; movq $0x9999, %r9; movq $0xaaaa, %r10; movq $0xbbbb, %r11
	movq $0xcccc, %r12; movq $0xdddd, %r13; movq $0xeeee, %r14; movq $0xffff, %r15; movq $0, %rbx
	movq %r15, %xmm7
1:	incq %rbx
	cmpq $0x1111, %rax; jne 2f; cmpq $0x2222, %rcx; jne 2f; cmpq $0x3333, %rdx; jne 2f
	cmpq $0x4444, %rsi; jne 2f; cmpq $0x5555, %rdi; jne 2f; cmpq $0x6666, %rbp; jne 2f
	cmpq $0x8888, %r8; jne 2f; cmpq $0x9999, %r9; jne 2f; cmpq $0xaaaa, %r10; jne 2f
	cmpq $0xbbbb, %r11; jne 2f; cmpq $0xcccc, %r12; jne 2f; cmpq $0xdddd, %r13; jne 2f
	cmpq $0xeeee, %r14; jne 2f; cmpq $0xffff, %r15; jne 2f
	movq %rbx, -8(%rsp); cmpq %rbx, -8(%rsp); jne 2f
	movq %xmm7, %r15; cmpq $0xffff, %r15; je 1b
2:	ud2
user_loop_end:

// Makes system calls by itself: 39, and then 60 with the result of the first.
	.globl user_calls, user_calls_end
user_calls:
	movq $39, %rax; movq $1, %rdi; movq $2, %rsi; movq $3, %rdx; movq $4, %r10; movq $5, %r8; movq $6, %r9
	syscall
	movq %rax, %rdi
	movq $60, %rax
	syscall
	ud2
user_calls_end:

// Does one thing after the other that goes wrong.
	.globl user_faults, user_faults_end
user_faults:
	xorl %edi, %edi
	movq $0xdead000, %rax; movb (%rax), %al
	nop
	.byte 0x0f, 0x0b, 0x90
	xorl %edx, %edx; movl $1, %eax; xorl %ecx, %ecx; .byte 0xf7, 0xf1, 0x90
	int3
	pushfq; orq $0x100, (%rsp); popfq; nop; nop
	pushfq; andq $~0x100, (%rsp); popfq
	movl $20, %eax; int $0x80; nop
	movq $0xdead000, %rax; jmp *%rax
user_faults_end:

	.section .note.GNU-stack, "", @progbits
