// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * One side of bells between cVMs.
 *
 *     bell_peer collect TOTAL      reads until TOTAL units came, and no more come
 *     bell_peer ring COUNT         adds 1, 2, 3 … COUNT units
 *     bell_peer leave COUNT        reads COUNT times, then ends without a word
 *     bell_peer until-hangup       rings until the owner is gone, which has to be told by EPIPE and POLLHUP
 *     bell_peer blocked            waits for room until the owner is gone
 *     bell_peer full               lets nothing fit, is rung, and ends
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

static int owner(void)
{
	int device = open("/cap/cg1", O_RDWR);

	REQUIRE(device >= 0, "/cap/cg1");
	REQUIRE(ioctl(device, CAP_BELL_ADV, "peers") == 0, "ADV");
	return device;
}

static int ringer(void)
{
	int device = open("/cap/cg2", O_RDWR);

	REQUIRE(device >= 0, "/cap/cg2");
	REQUIRE(ioctl(device, CAP_BELL_PRB, "peers") == 0, "PRB");
	return device;
}

static long ring(int device, uint64_t units)
{
	return write(device, &units, sizeof(units));
}

static uint64_t take(int device)
{
	uint64_t count = 0;

	REQUIRE(read(device, &count, sizeof(count)) == sizeof(count), "read");
	REQUIRE(count > 0, "a read returns units");
	return count;
}

static void collect(uint64_t total)
{
	int device = owner();
	struct cap_bell_stats stats;
	uint64_t sum = 0;

	while (sum < total)
		sum += take(device);
	check(sum == total, "every unit was read once", "%llu instead of %llu", (unsigned long long)sum, (unsigned long long)total);
	REQUIRE(ioctl(device, CAP_BELL_STATS, &stats) == 0, "STATS");
	EXPECT(stats.added == total && stats.taken == total && stats.count == 0, "STATS");
}

static void ring_times(uint64_t count)
{
	int device = ringer();

	for (uint64_t units = 1; units <= count; units++)
		REQUIRE(ring(device, units) == 8, "write");
	reached("everything was rung");
}

static void until_hangup(void)
{
	int device = ringer();
	struct pollfd entry = { .fd = device };
	unsigned long rings = 0;

	while (ring(device, 1) == 8)
		rings++;
	check(errno == EPIPE, "a bell that is gone is EPIPE", "%s", strerror(errno));
	check(rings > 0, "it was rung before", "%lu times", rings);
	EXPECT_VALUE(1, poll(&entry, 1, 0), "poll");
	EXPECT(entry.revents & POLLHUP, "POLLHUP");
}

static void blocked(void)
{
	int device = ringer();

	REQUIRE(ring(device, UINT64_MAX - 1) == 8, "write of the most");
	EXPECT_ERROR(EPIPE, ring(device, 1), "the end of the owner's cVM ends a write that waits");
}

/* Ends once it was rung. */
static void full(void)
{
	struct pollfd entry = { .fd = owner(), .events = POLLIN };

	EXPECT_VALUE(1, poll(&entry, 1, -1), "poll");
	reached("it was rung");
}

int main(int argc, char **argv)
{
	const char *role = argc > 1 ? argv[1] : "";
	uint64_t number = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;

	checks_begin();
	if (strcmp(role, "collect") == 0)
		collect(number);
	else if (strcmp(role, "ring") == 0)
		ring_times(number);
	else if (strcmp(role, "leave") == 0) {
		int device = owner();

		for (uint64_t i = 0; i < number; i++)
			take(device);
		reached("units until it leaves");
	} else if (strcmp(role, "until-hangup") == 0)
		until_hangup();
	else if (strcmp(role, "blocked") == 0)
		blocked();
	else if (strcmp(role, "full") == 0)
		full();
	else
		check(0, "role", "there is no role '%s'", role);
	return checks_end();
}
