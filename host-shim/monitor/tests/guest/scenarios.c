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

/* Counts its lives in the first byte of a capfile; the first argument says which life goes well. */
static int fails_until(void)
{
	struct { u64 size, read_only; } info;
	u64 lives = probe(HOSTCALL_FILE_PROBE, "lives\0\0\0\0", (u64)&info);

	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, lives, 0, (u64)buffer, 1), 1);
	buffer[0]++;
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, lives, 0, (u64)buffer, 1), 1);
	print("life %u\n", (u64)buffer[0]);
	return buffer[0] < number(argv[2]) ? 7 : 0;
}

/* The same for very many lives. */
static int fails_until_many(void)
{
	struct { u64 size, read_only; } info;
	u64 lives = probe(HOSTCALL_FILE_PROBE, "lives\0\0\0\0", (u64)&info), count;

	CHECK_EQ(hostcall(HOSTCALL_FILE_READ, lives, 0, (u64)&count, 8), 8);
	count++;
	CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, lives, 0, (u64)&count, 8), 8);
	if (count < number(argv[2]))
		return 7;
	print("%u lives\n", count);
	return 0;
}

static int reads_until_revoked(void)
{
	struct { u64 size, read_only; } info;
	u64 shared = probe(HOSTCALL_FILE_PROBE, "shared\0\0\0", (u64)&info);

	print("reading\n");
	for (;;) {
		s64 len = hostcall(HOSTCALL_FILE_READ, shared, 0, (u64)buffer, 8);

		if (len == -116)
			break;
		CHECK_EQ(len, 8);
	}
	CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, (u64)"shared\0\0\0", 0, (u64)&info, 0), -2);
	print("revoked\n");
	return 0;
}

static int logs_and_waits(void)
{
	static const char log[] = "a line of the kernel\n";

	CHECK_EQ(hostcall(HOSTCALL_LOG_WRITE, (u64)log, sizeof(log) - 1, 0, 0), sizeof(log) - 1);
	print("a line of a program\n");
	wait_for(POWER_BUTTON);
	print("power button\n");
	power_off(LKL_POWER_OFF_HALT, 0);
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
	check_boot();
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
		{ -16ul, 16 }, { -1ul, 16 }, { 1ul << 63, 16 }, { MONITOR_POINTER, 16 },
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

		/* Where addresses count from the begin of the range, these are in it. */
		if (ptr - boot->range_begin < boot->range_end - boot->range_begin && len <= boot->range_end - ptr)
			continue;
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
	timer_in(first, 1000000000);
	timer_in(first, 0);
	/* Before it is set: we may be off the processor for a while between the two. */
	begin = now();
	timer_in(second, 3000000);
	wait_for(TIMER);
	CHECK(now() - begin >= 3000000);
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
	for (u64 i = 0; i < number(argv[2]); i++) {
		timer_in(first, 1 + i % 3000);
		wait_for(TIMER);
	}
	return 0;
}

static u64 timer, interrupts, last_count;

static void on_loop_trap(struct trap *trap)
{
	if (trap->kind != LKL_TRAP_INTERRUPT) {
		print("vector %u at %x address %x\n", trap->vector, *program_counter(&trap->registers), trap->address);
		failed("only interrupts", __LINE__, trap->kind);
	}
	if (!(take_pending() & TIMER))
		return;
	if (count(&trap->registers) > last_count)
		last_count = count(&trap->registers);
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
	enter_user(user_loop, user_loop_end, 0);
}

static u64 fixups;

void on_fixup(struct trap *trap)
{
	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->vector, OUTSIDE_VECTOR);
	CHECK_EQ(trap->address, OUTSIDE);
	fixups++;
	*program_counter(&trap->registers) += LOAD_SIZE;
}

static int kernel_faults_are_fixed_up(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	for (int i = 0; i < 1000; i++)
		load_byte(OUTSIDE);
	CHECK_EQ(fixups, 1000);
	return 0;
}

static void on_fault_in_fault(struct trap *trap)
{
	*(volatile u64 *)(boot->vcpu + LKL_VCPU_IN_KERNEL_FAULT) = 1;
	load_byte(OUTSIDE);
}

static int kernel_faults_twice(void)
{
	print("before\n");
	on_trap_kernel = on_fault_in_fault;
	vcpu_ready();
	load_byte(OUTSIDE);
	return 1;
}

static int kernel_faults_early(void)
{
	load_byte(OUTSIDE);
	return 1;
}

static int loses_its_stack(void)
{
	on_trap_kernel = on_fixup;
	vcpu_ready();
	lose_stack();
	return 1;
}

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

/* Every hostcall, with the registers of a program that it has to keep. */
static int registers_are_kept(void)
{
	const char *stream_key = "stream", *file_key = "file";
	s64 file, to_file, stream, to_stream;

	set_registers();
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

	for (u64 round = 0; round < 3; round++)
		for (u64 i = 0; i < ARRAY_SIZE(calls); i++)
			check_registers(calls[i][0], &calls[i][1]);
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
		s64 result;

		/* The receiver ends when it has the last message. */
		if (argc > 4 && i == each - 1) {
			CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)buffer, 65, 0), -90);
			CHECK_EQ(hostcall(HOSTCALL_CALL, handle, 0, 0, 1), 64);
		}
		result = hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0);

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
	if (argc > 3 && string_equal(argv[3], "panic"))
		power_off(LKL_POWER_OFF_PANIC, 0);
	if (argc > 3 && string_equal(argv[3], "fault"))
		load_byte(OUTSIDE);
	if (argc > 3) {
		/* Taken back while they send: afterwards nothing changes any more. */
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
		u64 head = ring.head, end = now() + 20000000;

		while (now() < end)
			CHECK_EQ(ring.head, head);
	}
	return 0;
}

/* Takes some messages, and ends. */
static int receiver_of_some(void)
{
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)ring_portal, 0xc001, (u64)key, 45 << 20 | 1) >= 0);
	while (ring.head < 50) {
		ring.tail = ring.head;
		hostcall(HOSTCALL_RELAX, 0, 0, 0, 0);
	}
	return 0;
}

/* Connects again whenever its receiver has ended, as often as the argument says. */
static int sender_over_lives(void)
{
	for (u64 connection = 1; connection <= number(argv[2]); connection++) {
		u64 handle = probe(HOSTCALL_STREAM_PROBE, key, 0), sent = 0;

		for (;;) {
			u64 message[8] = { 0, sent, 0, 0, 0, 0, 0, sent };
			s64 result = hostcall(HOSTCALL_CALL, handle, (u64)message, sizeof(message), 0);

			if (result == -32)
				break;
			if (result == 0)
				sent++;
			else
				CHECK_EQ(result, -11);
		}
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, handle, 0, 0, 0), 0);
		print("connection %u is over\n", connection);
	}
	wait_for(POWER_BUTTON);
	power_off(LKL_POWER_OFF_HALT, 0);
}

/*
 * Revocation while large copies are under way, in rounds. Each user leaves the number of the round in the range; the owner takes everything back when
 * all have. What it then writes into its memory stays there, and none of the others ever sees it.
 */
#define LARGE (4ul << 20)
#define LARGE_WORDS (LARGE / sizeof(u64))
#define CANARY 0xca9a27ca9a27ca9aul
#define WRITER_MARK (LARGE_WORDS - 2)
#define READER_MARK (LARGE_WORDS - 1)

static u64 arrived;

static volatile u64 *area(u64 number)
{
	return (volatile u64 *)(((boot->ram_begin + LARGE - 1) & -LARGE) + number * LARGE);
}

static void fill(u64 number, u64 value)
{
	for (u64 i = 0; i < LARGE_WORDS; i++)
		area(number)[i] = value;
}

static void check_all(u64 number, u64 value)
{
	for (u64 i = 0; i < LARGE_WORDS; i++)
		CHECK_EQ(area(number)[i], value);
}

static s64 large_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	s64 error = hostcall_by(gate, HOSTCALL_CALL_FETCH, (u64)area(1), 0, len, 0);

	if (!error)
		__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	return error;
}

/* argv[2]: rounds; one more ends with the cVM. */
static int large_owner(void)
{
	for (u64 round = 1;; round++) {
		s64 file, stream;
		u64 until;

		fill(0, 0);
		arrived = 0;
		file = hostcall(HOSTCALL_FILE_ADVERTISE, (u64)area(0), LARGE, (u64)"large\0\0\0\0", 0);
		stream = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)large_portal, 0, (u64)"large\0\0\0\0", 0);
		CHECK(file >= 0 && stream >= 0);
		while (area(0)[WRITER_MARK] != round || area(0)[READER_MARK] != round || !*(volatile u64 *)&arrived)
			hostcall(HOSTCALL_RELAX, 1, 0, 0, 0);
		/* At any place of a copy. */
		until = now() + round * 7919000 % 2000000;
		while (now() < until)
			;
		if (round > number(argv[2]))
			return 0;
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, file, 0, 0, 0), 0);
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, stream, 0, 0, 0), 0);
		fill(0, CANARY);
		fill(1, CANARY);
		until = now() + 2000000;
		do {
			check_all(0, CANARY);
			check_all(1, CANARY);
		} while (now() < until);
	}
}

/* Advertises, and waits for the power button. What an operator took back is still there to be taken back by its owner. */
static int large_receiver(void)
{
	s64 id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)large_portal, 0, (u64)"large\0\0\0\0", 0);
	u64 messages;

	CHECK(id >= 0);
	wait_for(POWER_BUTTON);
	messages = arrived;
	CHECK(messages > 0);
	fill(1, CANARY);
	CHECK_EQ(hostcall(HOSTCALL_WAKE, id, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_WAKE, id, 0, 0, 0), -9);
	check_all(1, CANARY);
	CHECK_EQ(arrived, messages);
	id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)large_portal, 0, (u64)"large\0\0\0\0", 0);
	CHECK(id >= 0);
	return 0;
}

/* argv[2]: rounds, as for the next two. */
static int large_writer(void)
{
	struct { u64 size, read_only; } info;

	for (u64 round = 1; round <= number(argv[2]); round++) {
		u64 file = probe(HOSTCALL_FILE_PROBE, "large\0\0\0\0", (u64)&info);
		s64 result;

		CHECK_EQ(info.size, LARGE);
		fill(0, round);
		do {
			result = hostcall(HOSTCALL_FILE_WRITE, file, 0, (u64)area(0), LARGE - 8);
		} while (result == LARGE - 8);
		CHECK_EQ(result, -116);
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, file, 0, 0, 0), 0);
	}
	return 0;
}

static int large_reader(void)
{
	struct { u64 size, read_only; } info;

	for (u64 round = 1; round <= number(argv[2]); round++) {
		u64 file = probe(HOSTCALL_FILE_PROBE, "large\0\0\0\0", (u64)&info);
		s64 result;

		result = hostcall(HOSTCALL_FILE_WRITE, file, LARGE - 8, (u64)&round, 8);
		while (result == 8 || result == LARGE)
			result = hostcall(HOSTCALL_FILE_READ, file, 0, (u64)area(0), LARGE);
		CHECK_EQ(result, -116);
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, file, 0, 0, 0), 0);
		for (u64 i = 0; i < LARGE_WORDS; i++)
			CHECK(area(0)[i] != CANARY);
	}
	return 0;
}

static int large_sender(void)
{
	for (u64 round = 1; round <= number(argv[2]); round++) {
		u64 stream = probe(HOSTCALL_STREAM_PROBE, "large\0\0\0\0", 0);
		s64 result;

		fill(0, round);
		do {
			result = hostcall(HOSTCALL_CALL, stream, (u64)area(0), LARGE, 0);
		} while (result == 0);
		CHECK_EQ(result, -32);
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, stream, 0, 0, 0), 0);
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

/* Takes nearly three seconds, by the clock on the wall. */
static s64 slow_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	u64 end = hostcall_by(gate, HOSTCALL_TIME_NS, 0, 0, 0, 0) + 2900000000;

	*(volatile u64 *)buffer = 1;
	while ((u64)hostcall_by(gate, HOSTCALL_TIME_NS, 0, 0, 0, 0) < end)
		;
	return 0;
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
 * argv[2]: which portal; argv[3]: what then: "wait" for the power button; when the portal has begun "end", or "tell" and wait, or "tell" with
 * argv[4] and ignore all else.
 */
static int odd_receiver(void)
{
	static const struct { const char *name; void *portal; u64 cookie; } portals[] = {
		{ "faulting", faulting_portal }, { "overflowing", overflowing_portal }, { "endless", endless_portal },
		{ "endless_quiet", endless_quiet_portal }, { "calling", calling_portal },
		{ "slow", slow_portal },
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
		if (argc > 4)
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

/* One cVM in a portal of its own that does not return. */
static int own_endless_receiver(void)
{
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)endless_portal, 0, (u64)key, 0) >= 0);
	hostcall(HOSTCALL_CALL, hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0), (u64)"message", 8, 0);
	return 1;
}

static s64 cookie_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	return cookie;
}

/* One key in several classes of portals. */
static int classes(void)
{
	static const u64 numbers[] = { 0, 1, 255 };
	u64 gate = vcpu_word(LKL_VCPU_GATE), portal = (u64)cookie_portal;

	for (u64 i = 0; i < ARRAY_SIZE(numbers); i++) {
		CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, numbers[i], 0), -2);
		CHECK(hostcall_five(gate, HOSTCALL_STREAM_ADVERTISE, portal, 100 + i, (u64)key, 1, numbers[i]) >= 0);
		CHECK_EQ(hostcall_five(gate, HOSTCALL_STREAM_ADVERTISE, portal, 0, (u64)key, 1, numbers[i]), -98);
	}
	for (u64 i = 0; i < ARRAY_SIZE(numbers); i++) {
		s64 handle = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, numbers[i], 0);

		CHECK(handle >= 0);
		CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)buffer, 1, 0), 100 + i);
	}
	for (u64 bad = 256; bad; bad <<= 1) {
		CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, bad, 0), -22);
		CHECK_EQ(hostcall_five(gate, HOSTCALL_STREAM_ADVERTISE, portal, 0, (u64)key, 1, bad), -22);
	}
	return 0;
}

/* Numbers that a neighbour has, and all others: none of them is anything here. */
static int guesser(void)
{
	/* The others may not have begun, or have ended: what they have is none of our business. */
	s64 others = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0);

	if (others >= 0)
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, others, 0, 0, 0), 0);
	else
		CHECK_EQ(others, -2);
	for (u64 id = 0; id < 4096; id++) {
		u64 number = id < 2048 ? id : id < 3072 ? -id : id << 32;

		CHECK_EQ(hostcall(HOSTCALL_CALL, number, (u64)buffer, 8, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_WAIT, number, 0, 0, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_WAKE, number, 0, 0, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, number, 0, 0, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_DISCONNECT, number, 0, 0, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_FILE_READ, number, 0, (u64)buffer, 8), -9);
		CHECK_EQ(hostcall(HOSTCALL_FILE_WRITE, number, 0, (u64)buffer, 8), -9);
		CHECK_EQ(hostcall(HOSTCALL_TIMER_SET, number, 1, 0, 0), -9);
		CHECK_EQ(hostcall(HOSTCALL_TIMER_FREE, number, 0, 0, 0), -9);
	}
	return 0;
}

/* A cVM's timers are its own: each wakes the one that set it, when it said. argv[2]: how many times. */
static int own_timers(void)
{
	u64 timer = timer_alloc(), ns = number(argv[3]) * 1000000;

	for (u64 i = 0; i < number(argv[2]); i++) {
		u64 begin = now();

		timer_in(timer, ns);
		wait_for(TIMER);
		CHECK(now() - begin >= ns);
	}
	return 0;
}

/*
 * A hostile kernel: every hostcall, and numbers that are none, with arguments at random. It spares its own code and data, or it would end before
 * the others have seen much of it; nothing else is spared.
 */
static u64 random_state;

static u64 random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dul;
}

/* Memory that is the guest's to lose. */
static u64 scrap(void)
{
	return boot->ram_begin + (8ul << 20);
}

static u64 hostile_argument(void)
{
	static const u64 edges[] = {
		0, 1, 2, 3, 4, 7, 8, 15, 16, 255, 256, 511, 512, 4095, 4096, 4097, 65535, 65536, 1ul << 20, 1ul << 31, 1ul << 32,
		(1ul << 47) - 1, 1ul << 47, 1ul << 62, 1ul << 63, -1ul, -2ul, -8ul, -4096ul, -4097ul,
	};
	u64 edge = edges[random() % ARRAY_SIZE(edges)];

	switch (random() % 12) {
	case 0:
		return random();
	case 1:
		return boot->range_begin - edge;
	case 2:
		return boot->range_end - edge;
	case 3:
		return boot->range_end + edge;
	case 4:
		return LKL_MMIO_BASE + random() % (2 * LKL_MMIO_STRIDE);
	case 5:
		return MONITOR_POINTER + edge;
	case 6:
		return random() % 24;
	case 7:
		return edge;
	case 8:
		return scrap() + random() % (boot->ram_end - scrap());
	default:
		/* Keys, messages, and places for results. */
		return scrap() + random() % 16 * 4096 + (random() % 4 ? 0 : random() % 4096);
	}
}

static u64 hostile_number(void)
{
	static const u64 numbers[] = { HOSTCALL_NUMBERS };

	switch (random() % 4) {
	case 0:
		return random() % 1101;
	case 1:
		return random() % 8 ? random() % 64 : random();
	default:
		return numbers[random() % ARRAY_SIZE(numbers)];
	}
}

static s64 hostile_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	for (u64 i = random() % 8; i > 0; i--) {
		u64 number = hostile_number();

		hostcall_by(gate, number, hostile_argument(), hostile_argument(), hostile_argument(), hostile_argument());
	}
	return random() % 4 ? (s64)random() : -(s64)(random() % 200);
}

static void fill_scrap(void)
{
	for (u64 page = 0; page < 16; page++)
		for (u64 i = 0; i < 512; i++)
			((volatile u64 *)scrap())[page * 512 + i] = random();
	/* Some keys that exist, or will. */
	for (u64 page = 0; page < 8; page++)
		memcpy((void *)(scrap() + page * 4096), "hostile0\0", 10);
	for (u64 page = 4; page < 8; page++)
		((char *)scrap())[page * 4096 + 7] = '0' + page;
}

static void fire(u64 count)
{
	for (u64 i = 0; i < count; i++) {
		u64 number = hostile_number(), a = hostile_argument(), b = hostile_argument(), c = hostile_argument(), d = hostile_argument();

		if (number == HOSTCALL_POWER_OFF)
			continue;
		/* A flood of output is tested by itself. */
		if ((number == HOSTCALL_CONSOLE_WRITE || number == HOSTCALL_LOG_WRITE) && b > 64 && b < 1ul << 40)
			b = 64;
		/* The portal's address is right more often than chance would have it, and nothing is waited for. */
		if (number == HOSTCALL_STREAM_ADVERTISE && random() % 2)
			a = (u64)hostile_portal;
		if (number == HOSTCALL_WAIT_FOR_INTERRUPT)
			__atomic_fetch_or((u64 *)(boot->vcpu + LKL_VCPU_PENDING), TIMER, __ATOMIC_SEQ_CST);
		hostcall(number, a, b, c, d);
		if (i % 64 == 0) {
			take_pending();
			fill_scrap();
		}
	}
}

/* argv[2]: seed; argv[3]: how many. */
static int hostile(void)
{
	random_state = number(argv[2]) + 1;
	vcpu_ready();
	fill_scrap();
	fire(number(argv[3]));
	print("\nsurvived\n");
	return 0;
}

/* Its portal is hostile on the threads of others. argv[2]: seed. */
static int hostile_receiver(void)
{
	random_state = number(argv[2]) + 1;
	vcpu_ready();
	fill_scrap();
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)hostile_portal, 0, (u64)"victims\0\0", 0) >= 0);
	wait_for(POWER_BUTTON);
	return 0;
}

/* Sends to a hostile portal, and looks at itself afterwards. argv[2]: how many. */
static int victim(void)
{
	u64 stream = probe(HOSTCALL_STREAM_PROBE, "victims\0\0", 0);
	volatile u64 *message = area(0);

	vcpu_ready();
	fill(0, CANARY);
	for (u64 i = 0; i < number(argv[2]); i++) {
		s64 result = hostcall(HOSTCALL_CALL, stream, (u64)message, 1 + i * 4099 % LARGE, 0);

		CHECK(result >= -4095);
		CHECK_EQ(hostcall(HOSTCALL_CALL_FETCH, (u64)buffer, 0, 1, 0), -1);
		if (i % 256 == 0)
			check_all(0, CANARY);
		take_pending();
	}
	check_all(0, CANARY);
	print("unharmed\n");
	return 0;
}

/* argv[2]: of what; argv[3]: how many. Twice: what the monitor keeps of it is there after the first time. */
static int flood_of(void)
{
	static const char line[] = "a line that says nothing at all, for the eightieth thousandth time, and goes on\n";
	u64 count = number(argv[3]);

	for (int round = 0; round < 2; round++) {
		for (u64 i = 0; i < count; i++) {
			switch (argv[2][0]) {
			case 'h': /* hostcalls that are none */
				CHECK_EQ(hostcall(4711 + i % 7, i, i, i, i), -38);
				break;
			case 'c': /* console */
				CHECK(hostcall(HOSTCALL_CONSOLE_WRITE, (u64)line, sizeof(line) - 1, 0, 0) >= 0);
				break;
			case 'u': /* a console line that never ends */
				CHECK(hostcall(HOSTCALL_CONSOLE_WRITE, (u64)line, sizeof(line) - 2, 0, 0) >= 0);
				break;
			case 'l': /* log */
				CHECK(hostcall(HOSTCALL_LOG_WRITE, (u64)line, sizeof(line) - 1, 0, 0) >= 0);
				break;
			case 'p': /* probes of what nobody has, with and without asking to be told */
				memcpy(buffer, "flood\0\0\0\0", 10);
				*(u32 *)(buffer + 5) = i | 1;
				CHECK_EQ(hostcall(HOSTCALL_STREAM_PROBE, (u64)buffer, i % 2, 0, 0), -2);
				CHECK_EQ(hostcall(HOSTCALL_FILE_PROBE, (u64)buffer, i % 2, (u64)buffer + 64, 0), -2);
				break;
			case 'a': /* all that it may publish and connect to, and more; and back again */
				memcpy(buffer, "flood\0\0\0\0", 10);
				*(u32 *)(buffer + 5) = i | 1;
				hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 1, (u64)buffer, 0);
				hostcall(HOSTCALL_FILE_PROBE, (u64)buffer, 0, (u64)buffer + 64, 0);
				if (i % 2048 == 2047)
					for (u64 id = 0; id < 4096; id++) {
						hostcall(HOSTCALL_REVOKE, id, 0, 0, 0);
						hostcall(HOSTCALL_DISCONNECT, id, 0, 0, 0);
					}
				break;
			default:
				return 97;
			}
		}
		print("\nflooded %u\n", (u64)round);
	}
	wait_for(POWER_BUTTON);
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
	enter_user(user_loop, user_loop_end, 0);
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

static struct { u64 begin, end; } window;
static u64 faults;

static void on_window_fault(struct trap *trap)
{
	CHECK_EQ(trap->kind, LKL_TRAP_EXCEPTION);
	CHECK_EQ(trap->vector, OUTSIDE_VECTOR);
	CHECK(trap->address >= window.begin && trap->address < window.end);
	faults++;
	*program_counter(&trap->registers) += LOAD_SIZE;
}

/* How often a load from an address faults: once, or never. */
static u64 faults_at(u64 address)
{
	u64 before = faults;

	load_byte(address);
	return faults - before;
}

/* Pages of a kernel's memory at other addresses, and what of that is refused. */
static int has_a_window(void)
{
	const u64 read = LKL_PAGE_READ, write = LKL_PAGE_READ | LKL_PAGE_WRITE;
	volatile u64 *there, *again;
	u64 page = boot->ram_begin + 0x10000, at;

	on_trap_kernel = on_window_fault;
	vcpu_ready();
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, page, page, 4096, read), -38);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, page, 4096, 0, 0), -38);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_LOW, 0x200000, 4096, 0, 0), -38);
	CHECK_EQ(hostcall(HOSTCALL_PATCH_RANGE, page, 4096, 4096, page), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_START, OUTSIDE, 0, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_START, (u64)&window, 0, 0, 0), 0);
	CHECK(window.end > window.begin && window.end - window.begin >= 1ul << 30);
	CHECK(window.end <= boot->range_begin || window.begin >= boot->range_end);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_START, (u64)&window, 0, 0, 0), -16);
	at = window.begin + 0x100000;

	/* Nothing is there. */
	CHECK_EQ(faults_at(at), 1);
	/* What is no page, no page of ours, no address of ours, no access. */
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at + 1, page, 4096, read), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page + 8, 4096, read), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, 100, read), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, 0, read), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, 4096, 8), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, boot->ram_begin - 4096, 4096, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, boot->ram_end - 4096, 8192, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, -4096ul, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, window.end - 4096, page, 8192, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, window.begin - 4096, page, 4096, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, boot->ram_begin, page, 4096, read), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, boot->ram_begin, 4096, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, window.begin, window.end - window.begin + 4096, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, at, 0, 0, 0), -22);
	CHECK_EQ(faults_at(at), 1);

	/* One page at two addresses, and where it is. */
	*(volatile u64 *)page = 0x1234;
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, 8192, write), 0);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at + 0x100000, page, 4096, read), 0);
	there = (u64 *)at;
	again = (u64 *)(at + 0x100000);
	CHECK_EQ(*there, 0x1234);
	*there = 0x5678;
	CHECK_EQ(*(volatile u64 *)page, 0x5678);
	CHECK_EQ(*again, 0x5678);
	/* Hostcalls know these addresses. */
	CHECK_EQ(hostcall(HOSTCALL_CALL, 999, at, 8192, 0), -9);
	CHECK_EQ(hostcall(HOSTCALL_CALL, 999, window.end - 8, 16, 0), -14);
	/* Another page instead, and none. */
	*(volatile u64 *)(page + 4096) = 0x9abc;
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page + 4096, 4096, read), 0);
	CHECK_EQ(*there, 0x9abc);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, at, 4096, 0, 0), 0);
	CHECK_EQ(faults_at(at), 1);
	CHECK_EQ(faults_at(at + 4096), 0);
	CHECK_EQ(*again, 0x5678);
	/* What is forgotten is zero, wherever it is seen. */
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, page, 4096, 0, 0), 0);
	CHECK_EQ(*again, 0);

	/* More mappings than the host has for a process: refused, until they are given up. */
	for (u64 i = 0; i < 1000000; i++) {
		s64 result = hostcall(HOSTCALL_PAGE_MAP, at + 2 * i * 4096, page, 4096, read);

		if (result) {
			CHECK_EQ(result, -12);
			CHECK(i > 1000);
			CHECK_EQ(hostcall(HOSTCALL_PAGE_UNMAP, window.begin, window.end - window.begin, 0, 0), 0);
			CHECK_EQ(faults_at(at), 1);
			CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, at, page, 4096, read), 0);
			CHECK_EQ(faults_at(at), 0);
			return 0;
		}
	}
	return 1;
}

/* On a platform without virtual memory. */
static int has_no_window(void)
{
	CHECK_EQ(hostcall(HOSTCALL_PAGING_START, (u64)&window, 0, 0, 0), -38);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, boot->ram_begin, boot->ram_begin, 4096, LKL_PAGE_READ), -38);
	return 0;
}

/* Addresses for programs that are linked at them: ours once they are asked for, and nobody else's. */
static int has_low_addresses(void)
{
	u64 page = boot->ram_begin + 0x10000;

	CHECK_EQ(hostcall(HOSTCALL_PAGING_START, (u64)&window, 0, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, 0x400000, page, 4096, LKL_PAGE_READ), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_LOW, 0x200000, 1ul << 30, 0, 0), -22);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_LOW, 0x200000, -4096ul, 0, 0), -14);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_LOW, 0x200000, 0x1000000, 0, 0), 0);
	CHECK_EQ(hostcall(HOSTCALL_PAGING_LOW, 0x10000000, 0x1000000, 0, 0), -22);
	*(volatile u64 *)page = 0x1234;
	CHECK_EQ(hostcall(HOSTCALL_PAGE_MAP, 0x400000, page, 4096, LKL_PAGE_READ), 0);
	CHECK_EQ(*(volatile u64 *)0x400000, 0x1234);
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
	SCENARIO(hello), SCENARIO(has_a_window), SCENARIO(has_no_window), SCENARIO(has_low_addresses),
	SCENARIO(ends_with), SCENARIO(fails_until),
	SCENARIO(fails_until_many), SCENARIO(reads_until_revoked), SCENARIO(logs_and_waits), SCENARIO(receiver_of_some),
	SCENARIO(sender_over_lives), SCENARIO(panics), SCENARIO(boot_page), SCENARIO(unknown_numbers),
	SCENARIO(bad_pointers), SCENARIO(timers), SCENARIO(user_is_interrupted), SCENARIO(user_calls_are_traps),
	SCENARIO(user_faults_are_traps), SCENARIO(kernel_faults_are_fixed_up), SCENARIO(kernel_faults_twice),
	SCENARIO(kernel_faults_early), SCENARIO(kernel_makes_system_call), SCENARIO(loses_its_stack),
	SCENARIO(registers_are_kept), SCENARIO(leftovers_do_no_harm), SCENARIO(file_reader), SCENARIO(file_publisher),
	SCENARIO(file_user), SCENARIO(receiver), SCENARIO(sender), SCENARIO(sender_for_ever),
	SCENARIO(receiver_for_a_while), SCENARIO(large_owner), SCENARIO(large_receiver), SCENARIO(large_writer),
	SCENARIO(large_reader), SCENARIO(large_sender), SCENARIO(odd_receiver), SCENARIO(odd_sender), SCENARIO(own_receiver),
	SCENARIO(guesser), SCENARIO(own_timers), SCENARIO(hostile), SCENARIO(hostile_receiver), SCENARIO(victim), SCENARIO(flood_of),
	SCENARIO(own_endless_receiver),
	SCENARIO(waits_for_power_button), SCENARIO(loops), SCENARIO(loops_in_hostcalls), SCENARIO(loops_in_program),
	SCENARIO(sleeps), SCENARIO(writes_for_ever), SCENARIO(echoes), SCENARIO(has_disk), SCENARIO(discards),
	SCENARIO(counts), SCENARIO(measures), SCENARIO(classes),
	SCENARIO(tries), SCENARIO(sends_much), SCENARIO(writes_much), SCENARIO(publishes_often), SCENARIO(has_memory),
	PROCESSOR_SCENARIOS
};

int guest_main(void)
{
	for (u64 i = 0; argc > 1 && i < ARRAY_SIZE(scenarios); i++)
		if (string_equal(argv[1], scenarios[i].name))
			return scenarios[i].run();
	print("no such scenario\n");
	return 98;
}
