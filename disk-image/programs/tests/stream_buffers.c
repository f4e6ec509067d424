// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The limit of receive buffers that a cVM may have queued, at all streams together.
 *
 *     stream_buffers LIMIT
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define MOST 32

static char buffers[MOST + 1][16];

int main(int argc, char **argv)
{
	int limit = argc == 2 ? atoi(argv[1]) : 0, first, second, sender;

	checks_begin();
	REQUIRE(limit > 1 && limit <= MOST, "the limit");
	REQUIRE((first = open("/cap/ch1", O_RDWR)) >= 0 && (second = open("/cap/ch2", O_RDWR)) >= 0, "receivers");
	REQUIRE((sender = open("/cap/ch3", O_RDWR)) >= 0, "sender");
	EXPECT_OK(ioctl(first, CAP_STREAM_SET_SIZE, 16), "SET_SIZE");
	EXPECT_OK(ioctl(second, CAP_STREAM_SET_SIZE, 16), "SET_SIZE");
	for (int i = 0; i < limit - 1; i++)
		EXPECT_OK(ioctl(first, CAP_STREAM_REG_BUF, buffers[i]), "REG_BUF up to the limit");
	EXPECT_OK(ioctl(second, CAP_STREAM_REG_BUF, buffers[limit - 1]), "REG_BUF at another endpoint");
	EXPECT_ERROR(ENOBUFS, ioctl(second, CAP_STREAM_REG_BUF, buffers[limit]), "REG_BUF beyond the limit");
	EXPECT_ERROR(ENOBUFS, ioctl(first, CAP_STREAM_REG_BUF, buffers[limit]), "REG_BUF beyond the limit");
	EXPECT_OK(ioctl(first, CAP_STREAM_ADV, "limited"), "ADV");
	EXPECT_OK(ioctl(sender, CAP_STREAM_PRB, "limited"), "PRB");
	EXPECT_VALUE(5, write(sender, "hello", 5), "write");
	EXPECT_ERROR(ENOBUFS, ioctl(second, CAP_STREAM_REG_BUF, buffers[limit]), "a buffer that holds a message counts");
	EXPECT_OK(ioctl(first, CAP_STREAM_WAIT, 0), "WAIT");
	EXPECT_OK(ioctl(second, CAP_STREAM_REG_BUF, buffers[limit]), "REG_BUF in its place");
	EXPECT_OK(ioctl(second, CAP_STREAM_RESET), "RESET");
	EXPECT_OK(ioctl(first, CAP_STREAM_REG_BUF, buffers[0]), "REG_BUF after a RESET");
	return checks_end();
}
