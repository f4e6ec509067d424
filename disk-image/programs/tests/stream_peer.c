// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * One side of CAP_Streams between cVMs.
 *
 *     stream_peer collect SENDERS COUNT   receives COUNT messages from each of SENDERS senders; each sender's arrive in order and whole
 *     stream_peer send NAME COUNT SIZE    sends COUNT messages of SIZE bytes as the sender NAME
 *     stream_peer leave COUNT             receives COUNT messages, then ends without a word
 *     stream_peer until-hangup            sends until the receiver is gone, which has to be told by EPIPE and POLLHUP
 *     stream_peer reconnect COUNT         the same COUNT times: it probes again, and waits for the next receiver
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define SIZE 65536
#define BUFFERS 8
#define SENDERS_MAX 16

struct head {
	uint32_t sender, number, size;
};

static char buffers[BUFFERS][SIZE];

static unsigned char byte_of(const struct head *head, uint32_t i)
{
	return (unsigned char)(head->sender * 17 + head->number * 5 + i);
}

static int receiver(void)
{
	int device = open("/cap/ch1", O_RDWR);

	REQUIRE(device >= 0, "/cap/ch1");
	REQUIRE(ioctl(device, CAP_STREAM_SET_SIZE, SIZE) == 0, "SET_SIZE");
	for (int i = 0; i < BUFFERS; i++)
		REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, buffers[i]) == 0, "REG_BUF");
	REQUIRE(ioctl(device, CAP_STREAM_ADV, "peers\0\0\0\0") == 0, "ADV");
	return device;
}

static int sender(void)
{
	int device = open("/cap/ch2", O_RDWR);

	REQUIRE(device >= 0, "/cap/ch2");
	REQUIRE(ioctl(device, CAP_STREAM_PRB, "peers\0\0\0\0") == 0, "PRB");
	return device;
}

static void collect(uint32_t senders, uint32_t count)
{
	uint32_t next[SENDERS_MAX] = { 0 };
	uint64_t wrong = 0, torn = 0;
	int device;

	REQUIRE(senders <= SENDERS_MAX, "number of senders");
	device = receiver();
	for (uint64_t i = 0; i < (uint64_t)senders * count; i++) {
		struct cap_stream_message info;
		const unsigned char *bytes;
		struct head head;

		REQUIRE(ioctl(device, CAP_STREAM_WAIT_INFO, &info) == 0, "WAIT_INFO");
		bytes = (const unsigned char *)(uintptr_t)info.address;
		memcpy(&head, bytes, sizeof(head));
		if (info.sequence != i || head.sender >= senders || head.number != next[head.sender]++ || head.size != info.length)
			wrong++;
		else
			for (uint32_t j = sizeof(head); j < head.size; j++)
				torn += bytes[j] != byte_of(&head, j);
		REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, info.address) == 0, "REG_BUF");
	}
	check(wrong == 0, "every message of each sender, in order", "%llu were not", (unsigned long long)wrong);
	check(torn == 0, "every message is whole", "%llu bytes were wrong", (unsigned long long)torn);
}

static void send_messages(uint32_t name, uint32_t count, uint32_t size)
{
	static char message[SIZE];
	int device = sender();

	REQUIRE(size >= sizeof(struct head) && size <= SIZE, "size of the messages");
	for (uint32_t i = 0; i < count; i++) {
		struct head head = { name, i, size };

		memcpy(message, &head, sizeof(head));
		for (uint32_t j = sizeof(head); j < size; j++)
			message[j] = (char)byte_of(&head, j);
		REQUIRE(write(device, message, size) == (ssize_t)size, "write");
	}
	reached("everything was sent");
}

static void leave(uint32_t count)
{
	int device = receiver();

	for (uint32_t i = 0; i < count; i++) {
		struct cap_stream_message info;

		REQUIRE(ioctl(device, CAP_STREAM_WAIT_INFO, &info) == 0, "WAIT_INFO");
		REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, info.address) == 0, "REG_BUF");
	}
	reached("messages until it leaves");
}

static void until_hangup(int device)
{
	static char message[64];
	struct pollfd entry = { .fd = device, .events = 0 };
	unsigned long sent = 0;

	while (write(device, message, sizeof(message)) == sizeof(message))
		sent++;
	check(errno == EPIPE && sent > 0, "write ends with EPIPE", "%s after %lu messages", strerror(errno), sent);
	EXPECT_VALUE(1, poll(&entry, 1, 20000), "poll ends");
	EXPECT(entry.revents & POLLHUP, "with POLLHUP");
	EXPECT_ERROR(EPIPE, write(device, message, 1), "and it stays so");
}

int main(int argc, char **argv)
{
	uint32_t number = argc > 2 ? (uint32_t)atoi(argv[2]) : 0, count = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;

	checks_begin();
	if (argc == 4 && strcmp(argv[1], "collect") == 0)
		collect(number, count);
	else if (argc == 5 && strcmp(argv[1], "send") == 0)
		send_messages(number, count, (uint32_t)atoi(argv[4]));
	else if (argc == 3 && strcmp(argv[1], "leave") == 0)
		leave(number);
	else if (argc == 2 && strcmp(argv[1], "until-hangup") == 0)
		until_hangup(sender());
	else if (argc == 3 && strcmp(argv[1], "reconnect") == 0) {
		int device = sender();

		until_hangup(device);
		while (--number > 0) {
			EXPECT_OK(ioctl(device, CAP_STREAM_PRB, "peers\0\0\0\0"), "PRB again");
			until_hangup(device);
		}
	}
	else
		check(0, "arguments", "see the head of stream_peer.c");
	return checks_end();
}
