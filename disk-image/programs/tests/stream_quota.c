// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A cVM that may send a number of messages in a second.
 *
 *     stream_quota RATE
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

/* How many are sent by writes that wait. */
#define WAITS 5

static char buffers[CAP_STREAM_BUFFERS][16];

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int rate = argc == 2 ? atoi(argv[1]) : 0, receiver, sender, bell, ringer, sent = 0;
	struct cap_stream_stats stats = { 0 };
	uint64_t one = 1;
	double before, took;

	checks_begin();
	REQUIRE(rate > 0 && rate < CAP_STREAM_BUFFERS / 4, "the rate");
	REQUIRE((receiver = open("/cap/ch1", O_RDWR)) >= 0 && (sender = open("/cap/ch2", O_RDWR | O_NONBLOCK)) >= 0, "streams");
	REQUIRE((bell = open("/cap/cg1", O_RDWR)) >= 0 && (ringer = open("/cap/cg2", O_RDWR | O_NONBLOCK)) >= 0, "bells");
	REQUIRE(ioctl(bell, CAP_BELL_ADV, "quota") == 0 && ioctl(ringer, CAP_BELL_PRB, "quota") == 0, "ADV and PRB of a bell");
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_SIZE, sizeof(buffers[0])) == 0, "SET_SIZE");
	for (int i = 0; i < CAP_STREAM_BUFFERS; i++)
		REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, buffers[i]) == 0, "REG_BUF");
	REQUIRE(ioctl(receiver, CAP_STREAM_ADV, "quota") == 0 && ioctl(sender, CAP_STREAM_PRB, "quota") == 0, "ADV and PRB of a stream");

	while (write(sender, "x", 1) == 1)
		sent++;
	check(errno == EAGAIN, "write beyond the quota, O_NONBLOCK", "%s", strerror(errno));
	check(sent >= rate, "as many as in a second go at once", "%d", sent);
	REQUIRE(ioctl(receiver, CAP_STREAM_STATS, &stats) == 0, "STATS");
	EXPECT(stats.queued > 0 && stats.no_buffer == 0, "there were buffers");
	EXPECT_ERROR(EAGAIN, write(ringer, &one, sizeof(one)), "a ring is a message, too");

	REQUIRE(fcntl(sender, F_SETFL, 0) == 0, "F_SETFL");
	before = seconds();
	for (int i = 0; i < WAITS; i++)
		EXPECT_VALUE(1, write(sender, "x", 1), "write beyond the quota waits");
	took = seconds() - before;
	check(took >= (WAITS - 2) / (double)rate, "at the rate", "%.3f s", took);
	REQUIRE(ioctl(receiver, CAP_STREAM_STATS, &stats) == 0, "STATS");
	EXPECT_VALUE(sent + WAITS, stats.received, "no message came twice");
	return checks_end();
}
