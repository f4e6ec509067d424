// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A probe of a key that never comes ends by itself after the default limit of 30 s.
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <time.h>

#include <capstream.h>

#include "check.h"

int main(void)
{
	struct timespec before, after;
	long seconds;
	int sender;

	checks_begin();
	REQUIRE((sender = open("/cap/ch2", O_RDWR)) >= 0, "/cap/ch2");
	clock_gettime(CLOCK_MONOTONIC, &before);
	EXPECT_ERROR(ETIMEDOUT, ioctl(sender, CAP_STREAM_PRB, "nobody\0\0\0"), "PRB of a key that never comes");
	clock_gettime(CLOCK_MONOTONIC, &after);
	seconds = after.tv_sec - before.tv_sec;
	check(seconds >= 29 && seconds <= 45, "the limit is 30 s", "it took %ld s", seconds);
	return checks_end();
}
