// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Fires every request and system call at the nodes of /cap, with arguments at random, then checks that they still work.
 *
 *     hostile SEED COUNT
 *
 * It spares memory of its own that it needs, and its own kernel, both of which no platform keeps from a program.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define ARENA (2u << 20)
/* The longest message: what begins in the first half of the arena ends in the second. */
#define LONGEST (1u << 20)
#define NODES 7

static char arena[ARENA] __attribute__((aligned(4096)));
static int nodes[NODES];
static uint64_t state;

static uint64_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull;
}

/* A number that is at some edge, or none. */
static long number(void)
{
	static const long edges[] = {
		0, 1, 2, 7, 8, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 1 << 20, 1 << 30, INT_MAX, INT_MIN, -1, -2, -4096,
		LONG_MAX, LONG_MIN, (long)UINT_MAX, 1l << 47,
	};

	return any() % 4 ? edges[any() % (sizeof(edges) / sizeof(*edges))] : (long)any();
}

/* An address: in the arena, or one that is nobody's, a neighbour's or the monitor's. */
static uintptr_t place(void)
{
	switch (any() % 8) {
	case 0:
		return any() | 1ul << 62;
	case 1:
		return any() % 4096;
	case 2:
		return 0x110000000000 + any() % (64 << 20);
	case 3:
		return 0x7f0000000000 + any() % (1ul << 36);
	default:
		return (uintptr_t)arena + any() % LONGEST;
	}
}

static uintptr_t key(void)
{
	char *at = arena + any() % 64 * 16;

	if (any() % 8 == 0)
		return place();
	memcpy(at, "hostile0\0\0", CAP_KEY_LEN);
	at[7] = (char)('0' + any() % 4);
	if (any() % 16 == 0)
		at[any() % CAP_KEY_LEN] = (char)any();
	return (uintptr_t)at;
}

/* What is published or received into may not reach beyond the arena. */
static long size(void)
{
	static const long sizes[] = { 0, -1, 1, 7, 8, 4096, 65535, 65536, 1 << 30, INT_MAX, INT_MIN };

	return sizes[any() % (sizeof(sizes) / sizeof(*sizes))];
}

static void request(int node)
{
	static const unsigned int stream[] = {
		CAP_STREAM_SET_SIZE, CAP_STREAM_ADV, CAP_STREAM_PRB, CAP_STREAM_SET_MODE, CAP_STREAM_REG_BUF, CAP_STREAM_WAIT,
		CAP_STREAM_SPIN_READ, CAP_STREAM_WAIT_INFO, CAP_STREAM_RESET, CAP_STREAM_STATS,
	};
	static const unsigned int file[] = {
		CAP_FILE_SET_CAP, CAP_FILE_SET_SIZE, CAP_FILE_ADV, CAP_FILE_PRB, CAP_FILE_SET_MODE, CAP_FILE_REVOKE, CAP_FILE_STATS,
	};
	unsigned int which = any() % 2 ? stream[any() % (sizeof(stream) / sizeof(*stream))] : file[any() % (sizeof(file) / sizeof(*file))];

	switch (which) {
	case CAP_STREAM_SET_SIZE:
	case CAP_FILE_SET_SIZE:
		ioctl(node, which, size());
		return;
	case CAP_STREAM_ADV:
	case CAP_STREAM_PRB:
	case CAP_FILE_ADV:
	case CAP_FILE_PRB:
		ioctl(node, which, key());
		return;
	case CAP_STREAM_REG_BUF:
	case CAP_STREAM_WAIT_INFO:
	case CAP_STREAM_STATS:
	case CAP_FILE_SET_CAP:
	case CAP_FILE_STATS:
		ioctl(node, which, place());
		return;
	}
	/* Directions, kinds, numbers and sizes that mean nothing. */
	if (any() % 4 == 0)
		which ^= 1u << any() % 32;
	ioctl(node, which, any() % 2 ? (unsigned long)number() : place());
}

static void fire(void)
{
	int node = nodes[any() % NODES];
	struct pollfd poller = { .fd = node, .events = (short)any() };
	void *mapped;
	int copy;

	switch (any() % 16) {
	case 0:
		read(node, (void *)place(), any() % LONGEST);
		return;
	case 1:
	case 2:
		write(node, (void *)place(), any() % 2 ? any() % LONGEST : any() % 64);
		return;
	case 3:
		pread(node, (void *)place(), any() % LONGEST, number());
		return;
	case 4:
		pwrite(node, (void *)place(), any() % LONGEST, number());
		return;
	case 5:
		lseek(node, number(), (int)(any() % 5));
		return;
	case 6:
		poll(&poller, 1, 0);
		return;
	case 7:
		mapped = mmap(NULL, 4096 + any() % 8192, PROT_READ | PROT_WRITE, any() % 2 ? MAP_SHARED : MAP_PRIVATE, node, number());
		if (mapped != MAP_FAILED)
			munmap(mapped, 4096);
		return;
	case 8:
		copy = dup(node);
		request(copy);
		close(copy);
		return;
	case 9:
		/* Now and then it waits; the timer's signal ends that. */
		fcntl(node, F_SETFL, any() % 8 ? O_NONBLOCK : 0);
		return;
	default:
		request(node);
	}
}

static void interrupts(int signal)
{
	(void)signal;
}

/* The nodes do as they should after all that. */
static void still_works(void)
{
	static const char text[] = "as if nothing had been";
	char found[sizeof(text)];

	for (int i = 0; i < 4; i++) {
		fcntl(nodes[i], F_SETFL, 0);
		EXPECT_OK(ioctl(nodes[i], CAP_STREAM_RESET), "RESET");
	}
	memset(arena, 0, 4096);
	EXPECT_OK(ioctl(nodes[0], CAP_STREAM_SET_SIZE, 4096), "SET_SIZE");
	EXPECT_OK(ioctl(nodes[0], CAP_STREAM_SET_MODE, CAP_STREAM_SLEEP), "SET_MODE");
	EXPECT_OK(ioctl(nodes[0], CAP_STREAM_REG_BUF, arena), "REG_BUF");
	EXPECT_OK(ioctl(nodes[0], CAP_STREAM_ADV, "afterwards"), "ADV");
	EXPECT_OK(ioctl(nodes[1], CAP_STREAM_PRB, "afterwards"), "PRB");
	EXPECT_VALUE(sizeof(text), write(nodes[1], text, sizeof(text)), "write");
	EXPECT_OK(ioctl(nodes[0], CAP_STREAM_WAIT), "WAIT");
	EXPECT(memcmp(arena, text, sizeof(text)) == 0, "the message is there");
	fcntl(nodes[4], F_SETFL, 0);
	fcntl(nodes[5], F_SETFL, 0);
	EXPECT_OK(ioctl(nodes[4], CAP_FILE_SET_CAP, arena), "SET_CAP");
	EXPECT_OK(ioctl(nodes[4], CAP_FILE_SET_SIZE, 4096), "SET_SIZE of a file");
	EXPECT_OK(ioctl(nodes[4], CAP_FILE_SET_MODE, CAP_FILE_READ_WRITE), "SET_MODE of a file");
	EXPECT_OK(ioctl(nodes[4], CAP_FILE_ADV, "afterwards"), "ADV of a file");
	EXPECT_OK(ioctl(nodes[5], CAP_FILE_PRB, "afterwards"), "PRB of a file");
	EXPECT_VALUE(sizeof(found), pread(nodes[5], found, sizeof(found), 0), "pread");
	EXPECT(memcmp(found, text, sizeof(text)) == 0, "the file is there");
}

int main(int argc, char **argv)
{
	static const char *const paths[NODES] = { "/cap/ch1", "/cap/ch2", "/cap/ch3", "/cap/ch4", "/cap/cf1", "/cap/cf2", "/cap/cg1" };
	struct sigaction action = { .sa_handler = interrupts };
	struct itimerval often = { { 0, 5000 }, { 0, 5000 } }, never = { { 0, 0 }, { 0, 0 } };
	unsigned long count;

	checks_begin();
	REQUIRE(argc == 3, "a seed and how many");
	state = strtoull(argv[1], NULL, 10) + 1;
	count = strtoul(argv[2], NULL, 10);
	for (int i = 0; i < NODES; i++) {
		nodes[i] = open(paths[i], O_RDWR | O_NONBLOCK);
		/* Where a kind is not there, another node gets more. */
		if (nodes[i] < 0)
			nodes[i] = nodes[0];
		REQUIRE(nodes[i] >= 0, paths[i]);
	}
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (unsigned long i = 0; i < count; i++)
		fire();
	setitimer(ITIMER_REAL, &never, NULL);
	still_works();
	return checks_end();
}
