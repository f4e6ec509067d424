// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The scenarios: argv[1] says which. Each ends with status 0 if all went well. The Rust side of each test says what else is to happen.
 */
#include "guest.h"

static u8 buffer[65536] __attribute__((aligned(4096)));
static const volatile u8 read_only[4096] __attribute__((aligned(4096))) = { 1 };

static const char key[11] = "key1\0\0\0\0\0\0";

#define TIMER (1ul << LKL_IRQ_TIMER)
#define CAPABILITY (1ul << LKL_IRQ_CAPABILITY)
#define POWER_BUTTON (1ul << LKL_IRQ_POWER_BUTTON)

static void timer_in(u64 timer, u64 ns)
{
	CHECK_EQ(hostcall(HOSTCALL_TIMER_SET, timer, ns, 0, 0), 0);
}

static u64 now(void)
{
	return hostcall(HOSTCALL_TIME_NS, 0, 0, 0, 0);
}

static u64 timer_alloc(void)
{
	s64 timer = hostcall(HOSTCALL_TIMER_ALLOC, 0, 0, 0, 0);

	CHECK(timer >= 0);
	return timer;
}

/* Probes until the key is there. */
static u64 probe(u64 call, const char *name, u64 info)
{
	for (;;) {
		s64 handle = hostcall(call, (u64)name, 1, info, 0);

		if (handle >= 0)
			return handle;
		CHECK_EQ(handle, -2);
		wait_for(CAPABILITY);
	}
}

static int hello(void)
{
	for (int i = 0; i < argc; i++)
		print("argv[%d] = '%s'\n", (u64)i, (u64)argv[i]);
	return argc > 2 ? number(argv[2]) : 0;
}

static int ends_with(void)
{
	power_off(number(argv[2]), number(argv[3]));
}

static int panics(void)
{
	static const char log[] = "first line\nKernel panic - not syncing: of the test\n";

	CHECK_EQ(hostcall(HOSTCALL_LOG_WRITE, (u64)log, sizeof(log) - 1, 0, 0), sizeof(log) - 1);
	power_off(LKL_POWER_OFF_PANIC, 0);
}

static int boot_page(void)
{
	u64 seed = 0;

	CHECK_EQ(boot->magic, LKL_BOOT_MAGIC);
	CHECK_EQ(boot->image_begin, boot->range_begin);
	CHECK_EQ(boot->image_end, (u64)boot);
	CHECK_EQ(boot->vcpu, (u64)boot + 4096);
	CHECK_EQ(boot->command_line, (u64)boot + 8192);
	CHECK((u64)buffer >= boot->image_begin && (u64)buffer < boot->image_end);
	CHECK(boot->ram_begin < boot->ram_end && boot->ram_end < boot->range_end);
	CHECK(boot->wall_clock_ns > 1700000000000000000);
	CHECK(boot->xsave_size >= 576 && (boot->xsave_mask & 3) == 3);
	for (int i = 0; i < 32; i++)
		seed |= boot->seed[i];
	CHECK(seed);
	print("%s\n", boot->command_line);
	print("%u %u\n", boot->range_end - boot->range_begin, boot->virtio_count);
	for (u64 page = boot->ram_begin; page < boot->range_end; page += 4096)
		CHECK_EQ(*(volatile u64 *)page, 0);
	return 0;
}

static int unknown_numbers(void)
{
	static const u64 numbers[] = {
		0, 2, 3, 12, 20, 21, 24, 29, 99, 100, 101, 102, 404, 412, 414, 999, 1000000, 1ul << 32 | 1, 1ul << 63, -1ul,
	};

	for (u64 i = 0; i < ARRAY_SIZE(numbers); i++)
		CHECK_EQ(hostcall(numbers[i], 1, 2, 3, 4), -38);
	CHECK_EQ(hostcall(HOSTCALL_CALL_FETCH, (u64)buffer, 0, 1, 0), -1);
	return 0;
}

static s64 unused_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	return 0;
}

static int bad_pointers(void)
{
	const struct { u64 ptr, len; } bad[] = {
		{ 0, 16 }, { 1, 16 }, { boot->range_begin - 1, 16 }, { boot->range_begin - 16, 16 },
		{ boot->range_end, 16 }, { boot->range_end - 1, 16 }, { boot->range_end + 4096, 16 },
		{ -16ul, 16 }, { -1ul, 16 }, { 1ul << 63, 16 }, { vcpu_word(LKL_VCPU_GATE), 16 },
		{ (u64)buffer, boot->range_end - (u64)buffer + 1 }, { (u64)buffer, -1ul }, { (u64)buffer, -(u64)buffer },
		{ (u64)buffer, 1ul << 63 },
	};
	s64 stream, handle, to_stream;

	CHECK(hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, sizeof(buffer), (u64)key, 0) >= 0);
	handle = hostcall(HOSTCALL_FILE_PROBE, (u64)key, 0, (u64)buffer, 0);
	CHECK(handle >= 0);
	stream = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)unused_portal, 0, (u64)key, 0);
	CHECK(stream >= 0);
	to_stream = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0);
	CHECK(to_stream >= 0);
	for (u64 i = 0; i < ARRAY_SIZE(bad); i++) {
		u64 ptr = bad[i].ptr, len = bad[i].len;

		CHECK_EQ(hostcall(HOSTCALL_CONSOLE_WRITE, ptr, len, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_CONSOLE_READ, ptr, len, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_LOG_WRITE, ptr, len, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_RANDOM, ptr, len, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FORGET_CODE, ptr, len, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, ptr, len, (u64)key, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, ptr, len, (u64)key, 1), -14);
		CHECK_EQ(hostcall(HOSTCALL_CALL, to_stream, ptr, len, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, ptr & -4096ul, 4096, 0, 0), -14);
		if (len != 16)
			continue;
		/* These take an address of something with a size of its own. */
		CHECK_EQ(hostcall(HOSTCALL_FILE_READ, handle, 0, ptr, 16), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, handle, 0, ptr, 16), -14);
		CHECK_EQ(hostcall(HOSTCALL_VCPU_READY, ptr, 0, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, (u64)key, 0, ptr, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, ptr, 0, (u64)buffer, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, ptr, 0, 0, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)unused_portal, 0, ptr, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_STREAM_ADVERTISE, ptr, 0, (u64)key, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 1, ptr, 0), -14);
		CHECK_EQ(hostcall(HOSTCALL_PATCH_SYSCALL, ptr, 0, 0, 0), -14);
	}
	/* Inside, but protected. */
	CHECK_EQ(hostcall(HOSTCALL_RANDOM, (u64)read_only, 16, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_RANDOM, (u64)unused_portal, 1, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, (u64)key, 0, (u64)read_only, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, handle, 0, (u64)read_only, 16), -14);
	CHECK_EQ(read_only[0], 1);
	/* The kernel's own memory is no memory to give away. */
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, boot->range_begin, 4096, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, boot->vcpu, 4096, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, boot->ram_begin + 1, 4096, 0, 0), -22);
	/* Numbers that stand for nothing. */
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)buffer, 1, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_CALL, stream, (u64)buffer, 1, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_CALL, 12345, (u64)buffer, 1, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_CALL, -1ul, (u64)buffer, 1, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_CALL, to_stream, (u64)buffer, 1, 7), -22);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, to_stream, 0, (u64)buffer, 1), -9);
	CHECK_EQ(hostcall(HOSTCALL_WAIT, 777, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_WAKE, to_stream, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_REVOKE, to_stream, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, stream, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_TIMER_SET, 0, 1, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_TIMER_FREE, -1ul, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, LKL_MMIO_BASE, 4, 0, 0), -19);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, LKL_MMIO_BASE, 3, 0, 0), -22);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_WRITE, 0, 4, 0, 0), -19);
	CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 0, (u64)key, 0), -22);
	CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 1, (u64)"\0empty    ", 0), -22);
	CHECK_EQ(hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 1, (u64)key, 0), -98);
	CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, (u64)"nobody    ", 0, 0, 0), -2);
	/* It all still works. */
	CHECK_EQ(hostcall(HOSTCALL_CALL, to_stream, (u64)buffer, 1, 0), 0);
	return 0;
}

static int timers(void)
{
	u64 first = timer_alloc(), second = timer_alloc(), begin = now(), passed;

	CHECK(first != second);
	timer_in(first, 2000000);
	wait_for(TIMER);
	passed = now() - begin;
	CHECK(passed >= 2000000);
	/* Disarmed it does not come; the other one does. */
	timer_in(first, 1000000);
	timer_in(first, 0);
	timer_in(second, 3000000);
	begin = now();
	wait_for(TIMER);
	CHECK(now() - begin >= 2500000);
	CHECK_EQ(hostcall(HOSTCALL_TIMER_FREE, first, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_TIMER_FREE, first, 0, 0, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_TIMER_SET, first, 1, 0, 0), -9);
	CHECK_EQ(timer_alloc(), first);
	/* Kernel code is not interrupted: the bit appears while it runs. */
	timer_in(first, 100000);
	while (!(vcpu_word(LKL_VCPU_PENDING) & TIMER))
		;
	take_pending();
	/* Many, so that some come between the last look and the sleep. */
	for (int i = 0; i < 20000; i++) {
		timer_in(first, 1 + i % 3000);
		wait_for(TIMER);
	}
	return 0;
}

/*
 * Programs. They are copied out of the image before they run, so that the monitor takes them for what they are; they must not refer to
 * anything.
 */
extern char user_loop[], user_loop_end[], user_calls[], user_calls_end[], user_faults[], user_faults_end[];

asm(
/* Counts in rbx for ever, with a pattern in every other register that is checked each time around. */
"user_loop:\n"
"	movq $0x1111, %rax; movq $0x2222, %rcx; movq $0x3333, %rdx; movq $0x4444, %rsi; movq $0x5555, %rdi\n"
"	movq $0x6666, %rbp; movq $0x8888, %r8; movq $0x9999, %r9; movq $0xaaaa, %r10; movq $0xbbbb, %r11\n"
"	movq $0xcccc, %r12; movq $0xdddd, %r13; movq $0xeeee, %r14; movq $0xffff, %r15; movq $0, %rbx\n"
"	movq %r15, %xmm7\n"
"1:	incq %rbx\n"
"	cmpq $0x1111, %rax; jne 2f; cmpq $0x2222, %rcx; jne 2f; cmpq $0x3333, %rdx; jne 2f\n"
"	cmpq $0x4444, %rsi; jne 2f; cmpq $0x5555, %rdi; jne 2f; cmpq $0x6666, %rbp; jne 2f\n"
"	cmpq $0x8888, %r8; jne 2f; cmpq $0x9999, %r9; jne 2f; cmpq $0xaaaa, %r10; jne 2f\n"
"	cmpq $0xbbbb, %r11; jne 2f; cmpq $0xcccc, %r12; jne 2f; cmpq $0xdddd, %r13; jne 2f\n"
"	cmpq $0xeeee, %r14; jne 2f; cmpq $0xffff, %r15; jne 2f\n"
"	movq %rbx, -8(%rsp); cmpq %rbx, -8(%rsp); jne 2f\n"
"	movq %xmm7, %r15; cmpq $0xffff, %r15; je 1b\n"
"2:	ud2\n"
"user_loop_end:\n"
/* Makes system calls by itself: 39, and then 60 with the result of the first. */
"user_calls:\n"
"	movq $39, %rax; movq $1, %rdi; movq $2, %rsi; movq $3, %rdx; movq $4, %r10; movq $5, %r8; movq $6, %r9\n"
"	syscall\n"
"	movq %rax, %rdi\n"
"	movq $60, %rax\n"
"	syscall\n"
"	ud2\n"
"user_calls_end:\n"
/* What rdi says goes wrong. */
"user_faults:\n"
"	xorl %edi, %edi\n"
"	movq $0xdead000, %rax; movb (%rax), %al\n"
"	nop\n"
"	.byte 0x0f, 0x0b, 0x90\n"
"	xorl %edx, %edx; movl $1, %eax; xorl %ecx, %ecx; .byte 0xf7, 0xf1, 0x90\n"
"	int3\n"
"	pushfq; orq $0x100, (%rsp); popfq; nop; nop\n"
"	pushfq; andq $~0x100, (%rsp); popfq\n"
"	movl $20, %eax; int $0x80; nop\n"
"	movq $0xdead000, %rax; jmp *%rax\n"
"user_faults_end:\n");

static u64 timer, interrupts, last_count;

static void on_loop_trap(struct trap *trap)
{
	if (trap->kind != LKL_TRAP_INTERRUPT) {
		print("vector %u at %x address %x\n", trap->vector, trap->registers.rip, trap->address);
		failed("only interrupts", __LINE__, trap->kind);
	}
	if (!(take_pending() & TIMER))
		return;
	if (trap->registers.rbx > last_count)
		last_count = trap->registers.rbx;
	if (++interrupts == number(argv[2])) {
		CHECK(last_count > 1000);
		print("interrupts %u, of them %u behind the last look\n", interrupts, returned_again);
		power_off(LKL_POWER_OFF_PROGRAM, 0);
	}
	timer_in(timer, 20000 + interrupts * 37 % 5000);
}

static int user_is_interrupted(void)
{
	on_trap_user = on_loop_trap;
	timer = timer_alloc();
	vcpu_ready();
	timer_in(timer, 1000000);
	enter_user(user_loop, user_loop_end);
}

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

static int user_calls_are_traps(void)
{
	on_trap_user = on_call_trap;
	vcpu_ready();
	enter_user(user_calls, user_calls_end);
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

static int user_faults_are_traps(void)
{
	on_trap_user = on_fault_trap;
	vcpu_ready();
	enter_user(user_faults, user_faults_end);
}

static u64 fixups;

static void on_fixup(struct trap *trap)
{
	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->vector, 14);
	CHECK_EQ(trap->address, 0xdead000);
	fixups++;
	/* movb (%rcx), %al has two bytes. */
	trap->registers.rip += 2;
}

static int kernel_faults_are_fixed_up(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	for (int i = 0; i < 1000; i++)
		asm volatile("movb (%%rcx), %%al" : : "c"(0xdead000ul) : "rax", "memory");
	CHECK_EQ(fixups, 1000);
	return 0;
}

static void on_fault_in_fault(struct trap *trap)
{
	*(volatile u64 *)(boot->vcpu + LKL_VCPU_IN_KERNEL_FAULT) = 1;
	asm volatile("movb (%%rcx), %%al" : : "c"(0xbadul) : "rax", "memory");
}

static int kernel_faults_twice(void)
{
	print("before\n");
	on_trap_kernel = on_fault_in_fault;
	vcpu_ready();
	asm volatile("movb (%%rcx), %%al" : : "c"(0xdead000ul) : "rax", "memory");
	return 1;
}

static int kernel_faults_early(void)
{
	asm volatile("movb (%%rcx), %%al" : : "c"(0xdead000ul) : "rax", "memory");
	return 1;
}

static int kernel_makes_system_call(void)
{
	vcpu_ready();
	asm volatile("syscall" : : "a"(39) : "rcx", "r11", "memory");
	return 1;
}

static int loses_its_stack(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	asm volatile("xorl %esp, %esp; pushq %rax");
	return 1;
}

/* Everything that a program can have in its registers, for each hostcall. */

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

static s64 fetching_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	s64 error;

	if (op == 1)
		return sizeof(buffer);
	error = hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, 0, len, 0);
	if (error)
		return error;
	hostcall_by(gate, HOSTCALL_WAKE, 0, 0, 0, 0);
	return 0;
}

static int registers_are_kept(void)
{
	static const u64 kept[6] = { 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666 };
	static u64 output[14];
	const char *stream_key = "stream", *file_key = "file";
	s64 file, to_file, stream, to_stream;
	u8 *thread = (u8 *)boot->ram_begin + 65536;
	u64 fs;

	if ((boot->xsave_mask & 0xe4) == 0xe4)
		vector_level = 2;
	else if (boot->xsave_mask & 4)
		vector_level = 1;
	print("vector registers of level %u\n", (u64)vector_level);
	timer = timer_alloc();
	vcpu_ready();
	file = hostcall(HOSTCALL_FILE_ADVERTISE, boot->ram_begin, 65536, (u64)file_key, 0);
	to_file = hostcall(HOSTCALL_FILE_PROBE, (u64)file_key, 0, (u64)buffer, 0);
	stream = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)fetching_portal, 0, (u64)stream_key, 0);
	to_stream = hostcall(HOSTCALL_STREAM_PROBE, (u64)stream_key, 0, 0, 0);
	CHECK(file >= 0 && to_file >= 0 && stream >= 0 && to_stream >= 0);

	const u64 calls[][7] = {
		{ HOSTCALL_TIME_NS },
		{ HOSTCALL_CALL, to_stream, (u64)"message", 8, 0 },
		{ HOSTCALL_CALL, to_stream, boot->ram_begin, 60000, 0 },
		{ HOSTCALL_CALL, to_stream, boot->ram_begin, 0, 1 },
		{ HOSTCALL_WAIT, to_stream },
		{ HOSTCALL_WAKE, stream },
		{ HOSTCALL_WAKE, stream },
		{ HOSTCALL_RELAX, 1 },
		{ HOSTCALL_TIMER_SET, timer, 1000 },
		{ HOSTCALL_WAIT_FOR_INTERRUPT },
		{ 4711 },
		{ HOSTCALL_CALL, 999, (u64)"message", 8, 0 },
		{ HOSTCALL_CALL_FETCH, 1, 2, 3 },
		{ HOSTCALL_CONSOLE_WRITE, (u64)"some output\n", 12 },
		{ HOSTCALL_CONSOLE_READ, (u64)buffer, 0 },
		{ HOSTCALL_LOG_WRITE, (u64)"some output\n", 12 },
		{ HOSTCALL_TIMER_ALLOC },
		{ HOSTCALL_TIMER_FREE, 77 },
		{ HOSTCALL_FILE_READ, to_file, 0, (u64)buffer, 60000 },
		{ HOSTCALL_FILE_WRITE, to_file, 0, (u64)buffer, 60000 },
		{ HOSTCALL_RANDOM, (u64)buffer, 5000 },
		{ HOSTCALL_PATCH_SYSCALL, boot->ram_begin + 512 },
		{ HOSTCALL_TRANSLATE_IP, boot->ram_begin, 0 },
		{ HOSTCALL_FORGET_CODE, boot->ram_begin, 4096 },
		{ HOSTCALL_MEMORY_DISCARD, boot->ram_begin, 4096 },
		{ HOSTCALL_MMIO_READ, LKL_MMIO_BASE, 4 },
		{ HOSTCALL_FILE_ADVERTISE, boot->ram_begin, 4096, (u64)file_key, 0 },
		{ HOSTCALL_FILE_PROBE, (u64)file_key, 0, (u64)buffer },
		{ HOSTCALL_STREAM_PROBE, (u64)"nobody    ", 1 },
		{ HOSTCALL_STREAM_ADVERTISE, (u64)fetching_portal, 0, (u64)"another   ", 3 },
		{ HOSTCALL_REVOKE, file },
		{ HOSTCALL_DISCONNECT, to_file },
	};

	for (u64 i = 0; i < sizeof(vectors); i++)
		vectors[i] = i * 31 + 7;
	asm volatile("wrfsbase %0" : : "r"(thread));
	for (u64 round = 0; round < 3; round++) {
		for (u64 i = 0; i < ARRAY_SIZE(calls); i++) {
			memset(seen, 0, sizeof(seen));
			call_with_registers(calls[i][0], &calls[i][1], output);
			for (int k = 0; k < 6; k++)
				CHECK_EQ(output[k], kept[k]);
			for (int k = 6; k < 13; k++)
				CHECK_EQ(output[k], 0);
			for (u64 k = 0; k < (vector_level == 2 ? sizeof(vectors) : 16 * 64); k++) {
				u64 width = vector_level == 2 ? 64 : vector_level == 1 ? 32 : 16;

				if (k % 64 < width && seen[k] != vectors[k]) {
					print("hostcall %u changed byte %u of vector register %u\n", calls[i][0], k % 64, k / 64);
					failed("vector registers are kept", __LINE__, calls[i][0]);
				}
			}
			asm volatile("rdfsbase %0" : "=r"(fs));
			CHECK_EQ(fs, (u64)thread);
			/* Nothing of the monitor's was written relative to the thread pointer. */
			for (s64 k = -4096; k < 4096; k += 8)
				CHECK_EQ(*(u64 *)(thread + k), 0);
		}
	}
	return 0;
}

/* What a program leaves behind in registers that its kernel does not look at. */
static int flags_do_no_harm(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	/* Alignment checks and the direction flag, in the kernel and in the monitor. */
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq" : : : "memory", "cc");
	*(volatile u64 *)(buffer + 1) = 1;
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	now();
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	hostcall(HOSTCALL_RANDOM, (u64)buffer + 3, 1001, 0, 0);
	asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; std" : : : "memory", "cc");
	print("odd %s\n", (u64)"length");
	/* Single steps. */
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq" : : : "memory", "cc");
	now();
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq" : : : "memory", "cc");
	hostcall(HOSTCALL_RANDOM, (u64)buffer + 3, 1001, 0, 0);
	/* The GS base. */
	asm volatile("wrgsbase %0" : : "r"(0x1234ul << 20) : "memory");
	asm volatile("movq %%gs:" STRING(LKL_VCPU_GATE) ", %%rax" : : : "rax", "memory");
	return 0;
}

/* Files */

static int file_reader(void)
{
	struct { u64 size, read_only; } info;
	u64 file = hostcall(HOSTCALL_FILE_PROBE, (u64)"test1\0\0\0\0", 0, (u64)&info, 0);

	CHECK((s64)file >= 0);
	CHECK_EQ(info.size, 0x20);
	CHECK_EQ(info.read_only, 0);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 0, (u64)buffer, 100), 32);
	print("read 32 bytes ('%s') from cap_file with key 'test1'\n", (u64)buffer);
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, file, 0, (u64)"cap filler\n", 12), 12);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 4, (u64)buffer, 100), 28);
	print("%s", (u64)buffer);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 31, (u64)buffer, 2), 1);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 32, (u64)buffer, 2), 0);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, -1ul, (u64)buffer, 2), 0);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 0, (u64)buffer, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, file, 30, (u64)"abcdef", 6), 2);
	CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, file, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, file, 0, (u64)buffer, 1), -9);
	return 0;
}

static int file_publisher(void)
{
	u64 id, again;

	memcpy(buffer, "published", 10);
	id = hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 5000, (u64)"mine\0\0\0\0\0", 1);
	CHECK((s64)id >= 0);
	again = hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 5000, (u64)"shared\0\0\0", 0);
	CHECK((s64)again >= 0);
	/* The other one writes this when it is done with the first. */
	while (buffer[100] != 'x')
		hostcall(HOSTCALL_RELAX, 1, 0, 0, 0);
	CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), -9);
	memcpy(buffer + 200, "revoked", 8);
	while (buffer[100] != 'y')
		hostcall(HOSTCALL_RELAX, 1, 0, 0, 0);
	/* Ends with the second one published. */
	return 0;
}

static int file_user(void)
{
	struct { u64 size, read_only; } info;
	u64 mine = probe(HOSTCALL_FILE_PROBE, "mine\0\0\0\0\0", (u64)&info), shared;

	CHECK_EQ(info.size, 5000);
	CHECK_EQ(info.read_only, 1);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, mine, 0, (u64)buffer, 10), 10);
	CHECK(string_equal((char *)buffer, "published"));
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, mine, 0, (u64)buffer, 10), -13);
	shared = probe(HOSTCALL_FILE_PROBE, "shared\0\0\0", (u64)&info);
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, shared, 100, (u64)"x", 1), 1);
	do {
		CHECK_EQ(hostcall(HOSTCALL_FILE_READ, shared, 200, (u64)buffer, 8), 8);
	} while (!string_equal((char *)buffer, "revoked"));
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, mine, 0, (u64)buffer, 10), -116);
	CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, (u64)"mine\0\0\0\0\0", 0, (u64)&info, 0), -2);
	take_pending();
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, shared, 100, (u64)"y", 1), 1);
	/* The publisher's end is told. */
	wait_for(CAPABILITY);
	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, shared, 0, (u64)buffer, 10), -116);
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, shared, 0, (u64)buffer, 10), -116);
	return 0;
}

/* Streams: a ring of messages, one word each, with how many there were before in it. */

#define SLOTS 64
static struct {
	volatile u64 head, tail;
	volatile u64 slots[SLOTS][8];
	volatile u64 lock;
	/* Who has sent, the first two. */
	volatile u64 senders[2];
} ring;

static s64 ring_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	s64 error = 0;
	u64 head;

	if (cookie != 0xc001 || sender == 0)
		return -5;
	if (op == 1)
		return sizeof(ring.slots[0]);
	if (len > sizeof(ring.slots[0]))
		return -90;
	while (__atomic_exchange_n(&ring.lock, 1, __ATOMIC_ACQUIRE))
		hostcall_by(gate, HOSTCALL_RELAX, 0, 0, 0, 0);
	head = ring.head;
	if (head - __atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE) == SLOTS)
		error = -11;
	else
		error = hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)ring.slots[head % SLOTS], 0, len, 0);
	if (!error)
		__atomic_store_n(&ring.head, head + 1, __ATOMIC_RELEASE);
	if (!ring.senders[0])
		ring.senders[0] = sender;
	else if (ring.senders[0] != sender)
		ring.senders[1] = sender;
	__atomic_store_n(&ring.lock, 0, __ATOMIC_RELEASE);
	if (!error)
		hostcall_by(gate, HOSTCALL_WAKE, 0, 0, 0, 0);
	return error;
}

static int receiver(void)
{
	u64 senders = number(argv[2]), each = number(argv[3]), done = 0, next[64] = { 0 };
	s64 id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)ring_portal, 0xc001, (u64)key, 45 << 20 | 1);

	CHECK(id >= 0);
	while (done < senders * each) {
		u64 tail = ring.tail;

		if (__atomic_load_n(&ring.head, __ATOMIC_ACQUIRE) == tail) {
			wait_for(CAPABILITY);
			continue;
		}
		volatile u64 *slot = ring.slots[tail % SLOTS];

		/* In order for each sender, none twice, none lost. */
		CHECK(slot[0] < 64);
		CHECK_EQ(slot[1], next[slot[0]]);
		CHECK_EQ(slot[7], slot[0] ^ slot[1]);
		next[slot[0]]++;
		done++;
		__atomic_store_n(&ring.tail, tail + 1, __ATOMIC_RELEASE);
		CHECK_EQ(hostcall(HOSTCALL_WAKE, id, 0, 0, 0), 0);
	}
	print("received %u\n", done);
	return 0;
}

static int sender(void)
{
	u64 name = number(argv[2]), each = number(argv[3]);
	u64 handle = probe(HOSTCALL_STREAM_PROBE, key, 0);

	for (u64 i = 0; i < each; i++) {
		u64 message[8] = { name, i, 0, 0, 0, 0, 0, name ^ i };
		s64 result = hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0);

		if (result == -11) {
			/* Armed first, then tried once more, or a wake-up would be lost. */
			CHECK_EQ(hostcall(HOSTCALL_WAIT, handle, 0, 0, 0), 0);
			result = hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0);
			if (result == -11) {
				wait_for(CAPABILITY);
				i--;
				continue;
			}
		}
		CHECK_EQ(result, 0);
	}
	if (argc > 4) {
		CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)buffer, 65, 0), -90);
		CHECK_EQ(hostcall(HOSTCALL_CALL, handle, 0, 0, 1), 64);
	}
	return 0;
}

/* Sends until the receiver is gone, which it is told. */
static int sender_for_ever(void)
{
	u64 handle = probe(HOSTCALL_STREAM_PROBE, key, 0), sent = 0;

	for (;;) {
		u64 message[8] = { 0, sent, 0, 0, 0, 0, 0, sent };
		s64 result = hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0);

		if (result == -32)
			break;
		if (result == -11)
			hostcall(HOSTCALL_RELAX, 1, 0, 0, 0);
		else if (result)
			failed("the message is sent, or there is no room, or nobody", __LINE__, result);
		else
			sent++;
	}
	CHECK_EQ(hostcall(HOSTCALL_WAIT, handle, 0, 0, 0), -32);
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, 0, 0, 1), -32);
	CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0), -2);
	print("sent until the end\n");
	return 0;
}

static int receiver_for_a_while(void)
{
	s64 id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)ring_portal, 0xc001, (u64)key, 45 << 20 | 1);

	CHECK(id >= 0);
	/* Until there were enough messages, and two senders. */
	while (ring.head < number(argv[2]) || !ring.senders[1]) {
		ring.tail = ring.head;
		hostcall(HOSTCALL_RELAX, 0, 0, 0, 0);
	}
	if (argc > 3) {
		/* Taken back while they send: afterwards nothing changes any more. */
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
		u64 head = ring.head, end = now() + 20000000;

		while (now() < end)
			CHECK_EQ(ring.head, head);
	}
	return 0;
}

static s64 faulting_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	return *(volatile u64 *)0xdead000;
}

static s64 overflowing_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	volatile u8 large[32768];

	for (s64 i = sizeof(large) - 1; i >= 0; i--)
		large[i] = 1;
	return large[0] - 1;
}

static s64 endless_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	*(volatile u64 *)buffer = 1;
	/* Half of the time in its own code, half in the monitor's. */
	for (;;)
		hostcall_by(gate, HOSTCALL_RELAX, 0, 0, 0, 0);
}

static s64 endless_quiet_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	*(volatile u64 *)buffer = 1;
	for (;;)
		;
}

static s64 calling_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	if (hostcall_by(gate, HOSTCALL_CALL, 0, 0, 0, 1) != -35)
		return -100;
	if (hostcall_by(gate, HOSTCALL_CONSOLE_WRITE, (u64)buffer, 1, 0, 0) != -1)
		return -101;
	if (hostcall_by(gate, HOSTCALL_POWER_OFF, 0, 0, 0, 0) != -1)
		return -102;
	if (hostcall_by(gate, HOSTCALL_WAIT_FOR_INTERRUPT, 0, 0, 0, 0) != -1)
		return -103;
	if (hostcall_by(gate, 4711, 0, 0, 0, 0) != -38)
		return -104;
	if (hostcall_by(gate, HOSTCALL_TIME_NS, 0, 0, 0, 0) <= 0)
		return -105;
	/* More than the sender gave, outside of the owner, and neither. */
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, 0, len + 1, 0) != -14)
		return -106;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, 1, len, 0) != -14)
		return -107;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, -1ul, 1, 0) != -14)
		return -108;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, boot->range_end - 1, 0, 2, 0) != -14)
		return -109;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)read_only, 0, 1, 0) != -14)
		return -110;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, 1, len - 1, 0) != 0)
		return -111;
	if (hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)buffer, len, 0, 0) != 0)
		return -112;
	/* Not an errno. */
	return cookie ? -1000000 : 4711;
}

/*
 * argv[2]: which portal; argv[3]: what then: "wait" for the power button; when the portal has begun "end", or "tell" and ignore all else.
 */
static int odd_receiver(void)
{
	static const struct { const char *name; void *portal; u64 cookie; } portals[] = {
		{ "faulting", faulting_portal }, { "overflowing", overflowing_portal }, { "endless", endless_portal },
		{ "endless_quiet", endless_quiet_portal }, { "calling", calling_portal },
	};

	for (u64 i = 0; i < ARRAY_SIZE(portals); i++)
		if (string_equal(argv[2], portals[i].name))
			CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)portals[i].portal, 0, (u64)key, 0) >= 0);
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)calling_portal, 1, (u64)"key2\0\0\0\0\0", 0) >= 0);
	if (string_equal(argv[3], "end")) {
		while (!*(volatile u64 *)buffer)
			hostcall(HOSTCALL_RELAX, 0, 0, 0, 0);
		return 0;
	}
	if (string_equal(argv[3], "tell")) {
		while (!*(volatile u64 *)buffer)
			hostcall(HOSTCALL_RELAX, 0, 0, 0, 0);
		print("the portal has begun\n");
		wait_for(0);
	}
	wait_for(POWER_BUTTON);
	return 0;
}

/* argv[2]: the expected result of a call. */
static int odd_sender(void)
{
	u64 handle = probe(HOSTCALL_STREAM_PROBE, key, 0), expected = number(argv[2] + (argv[2][0] == '-'));
	s64 result;

	if (argv[2][0] == '-')
		expected = -expected;
	result = hostcall(HOSTCALL_CALL, handle, (u64)"message", 8, 0);
	CHECK_EQ(result, expected);
	if (argc > 3)
		CHECK_EQ(hostcall(HOSTCALL_CALL, probe(HOSTCALL_STREAM_PROBE, "key2\0\0\0\0\0", 0), (u64)"message", 8, 0), -5);
	print("the sender goes on\n");
	return 0;
}

/* One cVM that sends to itself. */
static int own_receiver(void)
{
	u64 message[8] = { 3, 0, 0, 0, 0, 0, 0, 3 };
	s64 id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)ring_portal, 0xc001, (u64)key, 45 << 20 | 1), handle;

	CHECK(id >= 0);
	handle = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0);
	CHECK(handle >= 0 && handle != id);
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0), 0);
	CHECK(take_pending() & CAPABILITY);
	CHECK_EQ(ring.slots[0][7], 3);
	CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0), -32);
	CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, handle, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0), -9);
	return 0;
}

/* Ends */

static int waits_for_power_button(void)
{
	print("ready\n");
	wait_for(POWER_BUTTON);
	print("power button\n");
	power_off(LKL_POWER_OFF_HALT, 0);
}

static int loops(void)
{
	print("ready\n");
	for (;;)
		;
}

static int loops_in_hostcalls(void)
{
	print("ready\n");
	for (;;)
		now();
}

static void ignores(struct trap *trap)
{
	take_pending();
}

static int loops_in_program(void)
{
	on_trap_user = ignores;
	vcpu_ready();
	print("ready\n");
	enter_user(user_loop, user_loop_end);
}

static int sleeps(void)
{
	print("ready\n");
	for (;;) {
		take_pending();
		hostcall(HOSTCALL_WAIT_FOR_INTERRUPT, 0, 0, 0, 0);
	}
}

static int writes_for_ever(void)
{
	print("ready\n");
	for (;;)
		hostcall(HOSTCALL_CONSOLE_WRITE, boot->ram_begin, 65536, 0, 0);
}

static int echoes(void)
{
	for (;;) {
		s64 len = hostcall(HOSTCALL_CONSOLE_READ, (u64)buffer, sizeof(buffer) - 1, 0, 0);

		CHECK(len >= 0);
		if (len == 0) {
			wait_for(1ul << LKL_IRQ_CONSOLE);
			continue;
		}
		buffer[len] = 0;
		print("%s", (u64)buffer);
		if (buffer[len - 1] == '!')
			return 0;
	}
}

static int has_disk(void)
{
	CHECK_EQ(boot->virtio_count, 1);
	CHECK_EQ(boot->virtio[0].irq, LKL_IRQ_VIRTIO_FIRST);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, boot->virtio[0].mmio, 4, 0, 0), 0x74726976);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, boot->virtio[0].mmio + 8, 4, 0, 0), 2);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, boot->virtio[0].mmio + 0x100, 8, 0, 0), number(argv[2]) / 512);
	CHECK_EQ(hostcall(HOSTCALL_MMIO_READ, boot->virtio[0].mmio + LKL_MMIO_STRIDE, 4, 0, 0), -19);
	print("%s\n", boot->command_line);
	return 0;
}

static int discards(void)
{
	u64 *word = (u64 *)(boot->ram_begin + 4096);

	*word = 1;
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, (u64)word & -4096ul, 4096, 0, 0), 0);
	CHECK_EQ(*(volatile u64 *)word, 0);
	return 0;
}

static int counts(void)
{
	for (u64 i = 0; i < number(argv[2]); i++)
		print("%s counts %u\n", (u64)argv[3], i);
	return 0;
}

/* How long things take; nothing is asserted. */
static int measures(void)
{
	const u64 rounds = 1000000;
	u64 begin = now(), handle;

	for (u64 i = 0; i < rounds; i++)
		hostcall(HOSTCALL_RELAX + 1000000, 0, 0, 0, 0);
	print("empty hostcall: %u ps\n", (now() - begin) * 1000 / rounds);
	begin = now();
	for (u64 i = 0; i < rounds; i++)
		now();
	print("TimeNs: %u ps\n", (now() - begin) * 1000 / rounds);
	begin = now();
	for (u64 i = 0; i < rounds; i++)
		hostcall(HOSTCALL_TRANSLATE_IP, boot->ram_begin, 0, 0, 0);
	print("full hostcall: %u ps\n", (now() - begin) * 1000 / rounds);
	hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)unused_portal, 0, (u64)"empty\0\0\0\0", 0);
	handle = hostcall(HOSTCALL_STREAM_PROBE, (u64)"empty\0\0\0\0", 0, 0, 0);
	begin = now();
	for (u64 i = 0; i < rounds; i++)
		hostcall(HOSTCALL_CALL, handle, (u64)buffer, 64, 0);
	print("empty portal: %u ps\n", (now() - begin) * 1000 / rounds);
	hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)fetching_portal, 0, (u64)key, 0);
	handle = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0);
	for (u64 size = 64; size <= sizeof(buffer); size *= 32) {
		begin = now();
		for (u64 i = 0; i < rounds / 10; i++)
			hostcall(HOSTCALL_CALL, handle, boot->ram_begin, size, 0);
		print("portal with %u bytes: %u ps\n", size, (now() - begin) * 10000 / rounds);
	}
	return 0;
}

static const struct { const char *name; int (*run)(void); } scenarios[] = {
#define SCENARIO(name) { #name, name }
	SCENARIO(hello), SCENARIO(ends_with), SCENARIO(panics), SCENARIO(boot_page), SCENARIO(unknown_numbers),
	SCENARIO(bad_pointers), SCENARIO(timers), SCENARIO(user_is_interrupted), SCENARIO(user_calls_are_traps),
	SCENARIO(user_faults_are_traps), SCENARIO(kernel_faults_are_fixed_up), SCENARIO(kernel_faults_twice),
	SCENARIO(kernel_faults_early), SCENARIO(kernel_makes_system_call), SCENARIO(loses_its_stack),
	SCENARIO(registers_are_kept), SCENARIO(flags_do_no_harm), SCENARIO(file_reader), SCENARIO(file_publisher),
	SCENARIO(file_user), SCENARIO(receiver), SCENARIO(sender), SCENARIO(sender_for_ever),
	SCENARIO(receiver_for_a_while), SCENARIO(odd_receiver), SCENARIO(odd_sender), SCENARIO(own_receiver),
	SCENARIO(waits_for_power_button), SCENARIO(loops), SCENARIO(loops_in_hostcalls), SCENARIO(loops_in_program),
	SCENARIO(sleeps), SCENARIO(writes_for_ever), SCENARIO(echoes), SCENARIO(has_disk), SCENARIO(discards),
	SCENARIO(counts), SCENARIO(measures),
};

int guest_main(void)
{
	for (u64 i = 0; argc > 1 && i < ARRAY_SIZE(scenarios); i++)
		if (string_equal(argv[1], scenarios[i].name))
			return scenarios[i].run();
	print("no such scenario\n");
	return 98;
}
