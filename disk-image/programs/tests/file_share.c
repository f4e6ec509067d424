// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A CAP_File between two cVMs.
 *
 *     file_share publish          publishes a range, waits until the user has written an answer into it, takes the range back
 *     file_share publish-and-end  the same, but ends instead of taking it back
 *     file_share use              attaches, reads, answers, and waits until the range is stale
 *     file_share watch            the same, waiting by a poll of the file
 *
 * The two tell each other how far they are through streams, so that nobody has to guess.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define SIZE 70000
#define ANSWER 4321

static char range[SIZE];

/* Receives under one key and sends to the other. */
static void meet(const char *mine, const char *theirs, int *receiver, int *sender)
{
	static char byte;

	REQUIRE((*receiver = open("/cap/ch1", O_RDWR)) >= 0 && (*sender = open("/cap/ch2", O_RDWR)) >= 0, "streams");
	REQUIRE(ioctl(*receiver, CAP_STREAM_SET_SIZE, 1) == 0, "SET_SIZE of a stream");
	REQUIRE(ioctl(*receiver, CAP_STREAM_REG_BUF, &byte) == 0, "REG_BUF of a stream");
	REQUIRE(ioctl(*receiver, CAP_STREAM_ADV, mine) == 0, "ADV of a stream");
	REQUIRE(ioctl(*sender, CAP_STREAM_PRB, theirs) == 0, "PRB of a stream");
}

static void tell(int sender)
{
	REQUIRE(write(sender, "x", 1) == 1, "telling the other side");
}

static void publish(int end)
{
	int file, receiver, sender;

	REQUIRE((file = open("/cap/cf1", O_RDWR)) >= 0, "/cap/cf1");
	for (int i = 0; i < SIZE; i++)
		range[i] = (char)(i % 251);
	EXPECT_OK(ioctl(file, CAP_FILE_SET_CAP, range), "SET_CAP");
	EXPECT_OK(ioctl(file, CAP_FILE_SET_SIZE, SIZE), "SET_SIZE");
	EXPECT_OK(ioctl(file, CAP_FILE_ADV, "shared\0\0\0"), "ADV");
	meet("publisher", "user\0\0\0\0\0", &receiver, &sender);
	REQUIRE(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0, "hearing from the other side");
	EXPECT(memcmp(range + ANSWER, "answer", 6) == 0, "the user's answer is in this cVM's memory");
	EXPECT(range[ANSWER - 1] == (char)((ANSWER - 1) % 251) && range[ANSWER + 6] == (char)((ANSWER + 6) % 251), "and nothing else");
	if (!end) {
		EXPECT_OK(ioctl(file, CAP_FILE_REVOKE), "REVOKE");
		tell(sender);
	}
}

static void use(int watch)
{
	static char back[SIZE + 1];
	struct pollfd entries[2] = { { .events = POLLIN } }, hangup = { 0 };
	int file, receiver, sender, wrong = 0;

	REQUIRE((file = open("/cap/cf1", O_RDWR)) >= 0, "/cap/cf1");
	EXPECT_OK(ioctl(file, CAP_FILE_PRB, "shared\0\0\0"), "PRB");
	EXPECT_VALUE(SIZE, read(file, back, sizeof(back)), "read of the other cVM's memory");
	for (int i = 0; i < SIZE; i++)
		wrong += back[i] != (char)(i % 251);
	EXPECT_VALUE(0, wrong, "it is what the other published");
	EXPECT_VALUE(6, pwrite(file, "answer", 6, ANSWER), "write to the other cVM's memory");
	meet("user\0\0\0\0\0", "publisher", &receiver, &sender);
	entries[0].fd = receiver;
	entries[1].fd = sender;
	tell(sender);
	hangup.fd = file;
	if (watch) {
		EXPECT_VALUE(1, poll(&hangup, 1, 60000), "poll for the end of the range");
		EXPECT(hangup.revents & POLLHUP, "POLLHUP");
		EXPECT_ERROR(ESTALE, pread(file, back, 1, 0), "read of what was taken back");
		EXPECT_ERROR(ESTALE, pwrite(file, back, 1, 0), "write to what was taken back");
		/* The publisher has to be able to say so. */
		REQUIRE(poll(entries, 2, 60000) > 0, "poll for what the publisher says");
		return;
	}
	/* A publisher that takes the range back says so by a message; of one that ends, the stream hangs up. */
	REQUIRE(poll(entries, 2, 60000) > 0, "poll for the end of the range");
	/* The end of a cVM takes back one thing after the other, the stream maybe first. */
	while (!(entries[0].revents & POLLIN) && pread(file, back, 1, 0) == 1)
		;
	EXPECT_ERROR(ESTALE, pread(file, back, 1, 0), "read of what was taken back");
	EXPECT_ERROR(ESTALE, pwrite(file, back, 1, 0), "write to what was taken back");
}

int main(int argc, char **argv)
{
	checks_begin();
	if (argc == 2 && strcmp(argv[1], "publish") == 0)
		publish(0);
	else if (argc == 2 && strcmp(argv[1], "publish-and-end") == 0)
		publish(1);
	else if (argc == 2 && strcmp(argv[1], "use") == 0)
		use(0);
	else if (argc == 2 && strcmp(argv[1], "watch") == 0)
		use(1);
	else
		check(0, "arguments", "publish, publish-and-end, use or watch");
	return checks_end();
}
