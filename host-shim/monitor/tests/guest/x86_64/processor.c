// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What x86-64 has of the scenarios. */
#include "guest.h"

static u8 buffer[4096];

static void on_call_trap(struct trap *trap)
{
	struct registers *registers = &trap->registers;

	if (trap->kind == LKL_TRAP_INTERRUPT)
		return;
	CHECK_EQ(trap->kind, LKL_TRAP_SYSCALL);
	CHECK_EQ(registers->orig_rax, registers->rax);
	if (registers->rax == 39) {
		CHECK_EQ(registers->rdi, 1);
		CHECK_EQ(registers->rsi, 2);
		CHECK_EQ(registers->rdx, 3);
		CHECK_EQ(registers->r10, 4);
		CHECK_EQ(registers->r8, 5);
		CHECK_EQ(registers->r9, 6);
		CHECK_EQ(*(unsigned short *)(registers->rip - 2), 0x050f);
		registers->rax = 4711;
		return;
	}
	CHECK_EQ(registers->rax, 60);
	CHECK_EQ(registers->rdi, 4711);
	power_off(LKL_POWER_OFF_PROGRAM, 0);
}

int user_calls_are_traps(void)
{
	on_trap_user = on_call_trap;
	vcpu_ready();
	enter_user(user_calls, user_calls_end, 0);
}

static void on_fault_trap(struct trap *trap)
{
	static int step;
	/* The vectors in the order of user_faults, and how far to go on. */
	static const struct { u64 vector, signal, skip; } expected[] = {
		{ 14, 11, 2 }, { 6, 4, 3 }, { 0, 8, 3 }, { 3, 5, 0 }, { 1, 5, 0 },
	};

	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	if (step < (int)ARRAY_SIZE(expected)) {
		CHECK_EQ(trap->vector, expected[step].vector);
		CHECK_EQ(trap->signal & 0xffffffff, expected[step].signal);
		if (step == 0) {
			CHECK_EQ(trap->address, 0xdead000);
			CHECK_EQ(trap->error & 4, 4);
		}
		if (step == 4) {
			/* Single steps come until the flag is taken out. */
			CHECK(trap->registers.rflags & 0x100);
			trap->registers.rflags &= ~0x100ul;
		}
		trap->registers.rip += expected[step].skip;
	} else if (step == ARRAY_SIZE(expected)) {
		CHECK_EQ(trap->vector, 13);
		CHECK_EQ(trap->signal & 0xffffffff, 11);
		CHECK_EQ(*(unsigned short *)trap->registers.rip, 0x80cd);
		trap->registers.rip += 2;
	} else {
		CHECK_EQ(trap->vector, 14);
		CHECK_EQ(trap->address, 0xdead000);
		CHECK_EQ(trap->registers.rip, 0xdead000);
		power_off(LKL_POWER_OFF_PROGRAM, 0);
	}
	step++;
}

int user_faults_are_traps(void)
{
	on_trap_user = on_fault_trap;
	vcpu_ready();
	enter_user(user_faults, user_faults_end, 0);
}

int kernel_makes_system_call(void)
{
	vcpu_ready();
	asm volatile("syscall" : : "a"(39) : "rcx", "r11", "memory");
	return 1;
}

void lose_stack(void)
{
	asm volatile("xorl %esp, %esp; pushq %rax");
}

void check_boot(void)
{
	CHECK(boot->xsave_size >= 576 && (boot->xsave_mask & 3) == 3);
}

static u8 vectors[32 * 64 + 64] __attribute__((aligned(64))), seen[32 * 64 + 64] __attribute__((aligned(64)));

/*
 * void call_with_registers(number, arguments[6], output[16])
 * Loads vectors, makes the hostcall, stores seen and the general registers afterwards.
 */
void call_with_registers(u64 number, const u64 *arguments, u64 *output);
extern u8 vector_level;
asm(
"	.data\n"
"vector_level: .byte 0\n"
"	.text\n"
".macro each_zmm op\n"
"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
"	\\op \\n\n"
"	.endr\n"
".endm\n"
".macro each_16 op\n"
"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
"	\\op \\n\n"
"	.endr\n"
".endm\n"
".macro load_zmm n\n vmovdqu64 vectors+64*\\n(%rip), %zmm\\n\n.endm\n"
".macro store_zmm n\n vmovdqu64 %zmm\\n, seen+64*\\n(%rip)\n.endm\n"
".macro load_ymm n\n vmovdqu vectors+64*\\n(%rip), %ymm\\n\n.endm\n"
".macro store_ymm n\n vmovdqu %ymm\\n, seen+64*\\n(%rip)\n.endm\n"
".macro load_xmm n\n movdqu vectors+64*\\n(%rip), %xmm\\n\n.endm\n"
".macro store_xmm n\n movdqu %xmm\\n, seen+64*\\n(%rip)\n.endm\n"
".macro load_k n\n kmovq vectors+2048+8*\\n(%rip), %k\\n\n.endm\n"
".macro store_k n\n kmovq %k\\n, seen+2048+8*\\n(%rip)\n.endm\n"
"call_with_registers:\n"
"	pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15; pushq %rdx\n"
"	movq %rdi, %rax\n"
"	movq %rsi, %r10\n"
"	cmpb $1, vector_level(%rip); jb 1f; ja 2f\n"
"	each_16 load_ymm; jmp 3f\n"
"1:	each_16 load_xmm; jmp 3f\n"
"2:	each_zmm load_zmm\n"
"	.irp n, 0,1,2,3,4,5,6,7\n load_k \\n\n .endr\n"
"3:	movq (%r10), %rdi; movq 8(%r10), %rsi; movq 16(%r10), %rdx; movq 24(%r10), %rcx; movq 32(%r10), %r8; movq 40(%r10), %r9\n"
"	movq $0x1111, %rbx; movq $0x2222, %rbp; movq $0x3333, %r12; movq $0x4444, %r13; movq $0x5555, %r14; movq $0x6666, %r15\n"
"	call *%gs:LKL_VCPU_GATE_\n"
"	movq (%rsp), %r10\n"
"	movq %rbx, (%r10); movq %rbp, 8(%r10); movq %r12, 16(%r10); movq %r13, 24(%r10); movq %r14, 32(%r10); movq %r15, 40(%r10)\n"
"	movq %rcx, 48(%r10); movq %rdx, 56(%r10); movq %rsi, 64(%r10); movq %rdi, 72(%r10); movq %r8, 80(%r10); movq %r9, 88(%r10)\n"
"	movq %r11, 96(%r10); movq %rax, 104(%r10)\n"
"	cmpb $1, vector_level(%rip); jb 1f; ja 2f\n"
"	each_16 store_ymm; jmp 3f\n"
"1:	each_16 store_xmm; jmp 3f\n"
"2:	each_zmm store_zmm\n"
"	.irp n, 0,1,2,3,4,5,6,7\n store_k \\n\n .endr\n"
"3:	popq %rdx; popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx\n"
"	ret\n");
#define STRING_(x) #x
#define STRING(x) STRING_(x)
asm(".set LKL_VCPU_GATE_, " STRING(LKL_VCPU_GATE));

static u8 *thread(void)
{
	return (u8 *)boot->ram_begin + 65536;
}

void set_registers(void)
{
	if ((boot->xsave_mask & 0xe4) == 0xe4)
		vector_level = 2;
	else if (boot->xsave_mask & 4)
		vector_level = 1;
	print("vector registers of level %u\n", (u64)vector_level);
	for (u64 i = 0; i < sizeof(vectors); i++)
		vectors[i] = i * 31 + 7;
	asm volatile("wrfsbase %0" : : "r"(thread()));
}

void check_registers(u64 number, const u64 *arguments)
{
	static const u64 kept[6] = { 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666 };
	static u64 output[14];
	u64 width = vector_level == 2 ? 64 : vector_level == 1 ? 32 : 16, fs;

	memset(seen, 0, sizeof(seen));
	call_with_registers(number, arguments, output);
	for (int k = 0; k < 6; k++)
		CHECK_EQ(output[k], kept[k]);
	for (int k = 6; k < 13; k++)
		CHECK_EQ(output[k], 0);
	for (u64 k = 0; k < (vector_level == 2 ? sizeof(vectors) : 16 * 64); k++)
		if (k % 64 < width && seen[k] != vectors[k]) {
			print("hostcall %u changed byte %u of vector register %u\n", number, k % 64, k / 64);
			failed("vector registers are kept", __LINE__, number);
		}
	asm volatile("rdfsbase %0" : "=r"(fs));
	CHECK_EQ(fs, (u64)thread());
	/* Nothing of the monitor's was written relative to the thread pointer. */
	for (s64 k = -4096; k < 4096; k += 8)
		CHECK_EQ(*(u64 *)(thread() + k), 0);
}

/* What a program leaves behind in registers that its kernel does not look at. */
int leftovers_do_no_harm(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	/* Alignment checks and the direction flag, in the kernel and in the monitor. */
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq" : : : "memory", "cc");
	*(volatile u64 *)(buffer + 1) = 1;
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	hostcall(HOSTCALL_TIME_NS, 0, 0, 0, 0);
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	hostcall(HOSTCALL_RANDOM, (u64)buffer + 3, 1001, 0, 0);
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	print("odd %s\n", (u64)"length");
	/* Single steps. */
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq" : : : "memory", "cc");
	hostcall(HOSTCALL_TIME_NS, 0, 0, 0, 0);
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq" : : : "memory", "cc");
	hostcall(HOSTCALL_RANDOM, (u64)buffer + 3, 1001, 0, 0);
	/* The GS base. */
	asm volatile("wrgsbase %0" : : "r"(0x1234ul << 20) : "memory");
	asm volatile("movq %%gs:" STRING(LKL_VCPU_GATE) ", %%rax" : : : "rax", "memory");
	return 0;
}
