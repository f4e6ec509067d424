// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What riscv64 with CHERI has of the scenarios. */
#include "guest.h"

/* The lowest page of a portal stack, which nobody may access. */
static u64 hole(void)
{
	return boot->command_line + LKL_COMMAND_LINE_SIZE + 4096;
}

static void on_call_trap(struct trap *trap)
{
	struct registers *registers = &trap->registers;

	if (trap->kind == LKL_TRAP_INTERRUPT)
		return;
	CHECK_EQ(trap->kind, LKL_TRAP_SYSCALL);
	CHECK_EQ(registers->orig_a0, registers->a0);
	if (registers->a7 == 39) {
		CHECK_EQ(registers->a0, 1);
		CHECK_EQ(registers->a1, 2);
		CHECK_EQ(registers->a2, 3);
		CHECK_EQ(registers->a3, 4);
		CHECK_EQ(registers->a4, 5);
		CHECK_EQ(registers->a5, 6);
		CHECK_EQ(*(u32 *)(registers->epc - 4), 0x00000073);
		registers->a0 = 4711;
		return;
	}
	CHECK_EQ(registers->a7, 60);
	CHECK_EQ(registers->a0, 4711);
	power_off(LKL_POWER_OFF_PROGRAM, 0);
}

int user_calls_are_traps(void)
{
	on_trap_user = on_call_trap;
	vcpu_ready();
	enter_user(user_calls, user_calls_end, 0);
}

extern char user_calls_null[], user_calls_null_end[];

static void on_null_trap(struct trap *trap)
{
	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->signal & 0xffffffff, 11);
	CHECK(trap->vector == 12 || trap->vector == 28);
	power_off(LKL_POWER_OFF_PROGRAM, 0);
}

static void on_fault_trap(struct trap *trap)
{
	static int step;
	/* The exceptions in the order of user_faults. */
	static const struct { u64 vector, signal, code; } expected[] = {
		{ 28, 11, 1 }, { 13, 11, 2 }, { 15, 11, 2 }, { 2, 4, 1 }, { 3, 5, 1 }, { 6, 7, 1 }, { 12, 11, 2 },
	};
	u64 address = hole();

	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->vector, expected[step].vector);
	CHECK_EQ(trap->signal & 0xffffffff, expected[step].signal);
	CHECK_EQ(trap->signal >> 32, expected[step].code);
	switch (step) {
	case 0:
		/* A length violation of DDC. */
		CHECK_EQ(trap->error, 33 << 5 | 1);
		address = OUTSIDE;
		break;
	case 5:
		address = trap->registers.t1;
		break;
	case 6:
		CHECK_EQ(trap->registers.epc, hole());
	}
	if (step != 3 && step != 4)
		CHECK_EQ(trap->address, address);
	if (step < 6) {
		trap->registers.epc += 4;
		step++;
		return;
	}
	on_trap_user = on_null_trap;
	enter_user(user_calls_null, user_calls_null_end, 0);
}

int user_faults_are_traps(void)
{
	on_trap_user = on_fault_trap;
	vcpu_ready();
	enter_user(user_faults, user_faults_end, hole());
}

int kernel_makes_system_call(void)
{
	register u64 a7 asm("a7") = 39;

	asm volatile("ecall" : : "r"(a7) : "memory");
	return 1;
}

void lose_stack(void)
{
	asm volatile("li sp, 0; sd a0, -8(sp)" : : : "memory");
}

void check_boot(void)
{
	CHECK_EQ(boot->xsave_size, 0);
}

/* See registers.S. */
struct seen {
	u64 general[32], floats[32], fcsr;
};

void call_with_registers(u64 number, const u64 *arguments, struct seen *seen);

static struct seen seen;

static u64 float_pattern(u64 n)
{
	return 0x0123456789abcdef * (n + 3);
}

/* Rounding upwards, and some of the flags. */
#define FCSR 0x75

void set_registers(void)
{
}

void check_registers(u64 number, const u64 *arguments)
{
	static const u8 kept[] = { 3, 4, 8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27 };
	static const u8 zero[] = { 5, 11, 12, 13, 14, 15, 16, 17, 28, 29, 30, 31 };

	memset(seen.general, 0xff, sizeof(seen.general));
	for (u64 n = 0; n < 32; n++)
		seen.floats[n] = float_pattern(n);
	seen.fcsr = FCSR;
	call_with_registers(number, arguments, &seen);
	for (u64 i = 0; i < ARRAY_SIZE(kept); i++)
		CHECK_EQ(seen.general[kept[i]], 0x1111 * kept[i]);
	for (u64 i = 0; i < ARRAY_SIZE(zero); i++)
		CHECK_EQ(seen.general[zero[i]], 0);
	for (u64 n = 0; n < 32; n++)
		CHECK_EQ(seen.floats[n], float_pattern(n));
	CHECK_EQ(seen.fcsr, FCSR);
}

static u64 unknown_resumes;

static void on_unknown_resume(struct trap *trap)
{
	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->vector, 8);
	unknown_resumes++;
	trap->registers.epc += 4;
}

/* What a kernel asks of the monitor that there is not, or with registers that it does not have. */
int leftovers_do_no_harm(void)
{
	static const struct { u64 number, registers; } odd[] = {
		{ 2, 0 }, { -1ul, 0 }, { 1ul << 32, 0 }, { LKL_RESUME_KERNEL, OUTSIDE }, { LKL_RESUME_KERNEL, -8ul },
		{ LKL_RESUME_PROGRAM, 1ul << 63 },
	};

	on_trap_kernel = on_unknown_resume;
	vcpu_ready();
	for (u64 i = 0; i < ARRAY_SIZE(odd); i++) {
		register u64 a7 asm("a7") = odd[i].number;
		register u64 a0 asm("a0") = odd[i].registers;

		asm volatile(".option push; .option norvc; ecall; .option pop" : : "r"(a7), "r"(a0) : "memory");
		CHECK_EQ(unknown_resumes, i + 1);
	}
	return 0;
}
