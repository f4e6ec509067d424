// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Scenarios about what a cVM may, and how much of it.
 */
#include "guest.h"

static u8 buffer[65536] __attribute__((aligned(4096)));

static s64 empty_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	return 0;
}

static u64 now(void)
{
	return hostcall(HOSTCALL_TIME_NS, 0, 0, 0, 0);
}

/* The key behind the colon, as hostcalls take it. */
static const char *key_of(const char *argument)
{
	static char key[10];

	memset(key, 0, sizeof(key));
	for (u64 i = 0; i < sizeof(key) && argument[3 + i]; i++)
		key[i] = argument[3 + i];
	return key;
}

/*
 * Does what each argument says and prints what came of it. The first letter is f for a file, s for a stream, b for a bell; the second a for
 * publishing or p for connecting; then come a colon and the key. For a file that was connected to it also tells whether it can only be read, and what
 * reading and writing a byte returns.
 */
int tries(void)
{
	u64 gate = vcpu_word(LKL_VCPU_GATE);

	for (int i = 2; i < argc; i++) {
		u64 key = (u64)key_of(argv[i]), class = argv[i][0] == 'b';
		struct { u64 size, read_only; } info;
		s64 result;

		if (argv[i][0] == 'f' && argv[i][1] == 'a')
			result = hostcall(HOSTCALL_FILE_ADVERTISE, (u64)buffer, 100, key, 0);
		else if (argv[i][0] == 'f')
			result = hostcall(HOSTCALL_FILE_PROBE, key, 0, (u64)&info, 0);
		else if (argv[i][1] == 'a')
			result = hostcall_five(gate, HOSTCALL_STREAM_ADVERTISE, (u64)empty_portal, 0, key, 0, class);
		else
			result = hostcall(HOSTCALL_STREAM_PROBE, key, 0, class, 0);
		print("%s %d", (u64)argv[i], (u64)(result < 0 ? result : 0));
		if (argv[i][0] == 'f' && argv[i][1] == 'p' && result >= 0)
			print(" only read %u, read %d, write %d", info.read_only,
			      (u64)hostcall(HOSTCALL_FILE_READ, result, 0, (u64)buffer, 1),
			      (u64)hostcall(HOSTCALL_FILE_WRITE, result, 0, (u64)buffer, 1));
		print("\n");
	}
	return 0;
}

/* Sends argv[2] messages of argv[3] bytes to itself. Prints how many milliseconds that took, and whether it was told to wait. */
int sends_much(void)
{
	u64 count = number(argv[2]), len = number(argv[3]), refused = 0, begin = now();
	static const char key[11] = "key1\0\0\0\0\0\0";
	s64 handle;

	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)empty_portal, 0, (u64)key, 0) >= 0);
	handle = hostcall(HOSTCALL_STREAM_PROBE, (u64)key, 0, 0, 0);
	CHECK(handle >= 0);
	while (count) {
		s64 result = hostcall(HOSTCALL_CALL, handle, boot->ram_begin, len, 0);

		if (result == -122) {
			refused++;
			/* Asking is no sending. */
			CHECK_EQ(hostcall(HOSTCALL_CALL, handle, 0, 0, 1), 0);
			hostcall(HOSTCALL_RELAX, 1, 0, 0, 0);
			continue;
		}
		CHECK_EQ(result, 0);
		count--;
	}
	print("milliseconds %u refused %u\n", (now() - begin) / 1000000, (u64)!!refused);
	return 0;
}

/* Writes argv[3] times 64 KiB of lines, to the log when argv[2] is "log", else to the console. */
int writes_much(void)
{
	u64 call = string_equal(argv[2], "log") ? HOSTCALL_LOG_WRITE : HOSTCALL_CONSOLE_WRITE;

	for (u64 i = 0; i < sizeof(buffer); i++)
		buffer[i] = i % 64 == 63 ? '\n' : 'x';
	for (u64 i = 0; i < number(argv[3]); i++)
		CHECK_EQ(hostcall(call, (u64)buffer, sizeof(buffer), 0, 0), sizeof(buffer));
	return 0;
}

/* Publishes something and takes it back, argv[2] times. */
int publishes_often(void)
{
	static const char key[11] = "key1\0\0\0\0\0\0";

	for (u64 i = 0; i < number(argv[2]); i++) {
		s64 id = hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)empty_portal, 0, (u64)key, 0);

		CHECK(id >= 0);
		CHECK_EQ(hostcall(HOSTCALL_REVOKE, id, 0, 0, 0), 0);
	}
	return 0;
}

/* Has argv[2] bytes of memory. With a third argument it tries what is behind. */
int has_memory(void)
{
	volatile u64 *last = (u64 *)(boot->ram_end - 8);

	CHECK_EQ(boot->ram_end - boot->ram_begin, number(argv[2]));
	for (u64 page = boot->ram_begin; page < boot->ram_end; page += 4096)
		*(volatile u64 *)page = page;
	*last = 1;
	CHECK_EQ(hostcall(HOSTCALL_MEMORY_DISCARD, boot->ram_end, 4096, 0, 0), -14);
	/* No hostcall touches it either. */
	CHECK_EQ(hostcall(HOSTCALL_RANDOM, boot->range_end - 16, 16, 0, 0), argc > 3 ? -14 : 16);
	print("%s\n", boot->command_line);
	if (argc > 3)
		load_byte(boot->range_end - 8);
	return 0;
}
