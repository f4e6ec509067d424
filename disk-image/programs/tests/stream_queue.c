// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What CAP_Stream promises about messages: order, contents, what WAIT_INFO and STATS tell, that state belongs to the node, what RESET
 * takes away, and that nothing of several senders under one key is lost, doubled or out of order.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define SIZE 512
#define SENDERS 3
#define PER_SENDER (1000 / SLOWNESS)

static char pool[CAP_STREAM_BUFFERS][SIZE];

static int open_node(const char *path)
{
	int device = open(path, O_RDWR);

	REQUIRE(device >= 0, path);
	return device;
}

static int all_are(const char *bytes, size_t n, char value)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != value)
			return 0;
	return 1;
}

/* Every call opens the nodes anew: nothing depends on an open file. */
static void one_call(const char *path, unsigned int request, const void *argument, const char *name)
{
	int device = open_node(path);

	EXPECT_OK(ioctl(device, request, argument), name);
	close(device);
}

static void state_of_the_node(void)
{
	struct cap_stream_message info = { 0 };
	int device;

	memset(pool, 'x', sizeof(pool));
	one_call("/cap/ch1", CAP_STREAM_SET_SIZE, (void *)SIZE, "SET_SIZE");
	one_call("/cap/ch1", CAP_STREAM_REG_BUF, pool[0] + 1, "REG_BUF at an odd address");
	one_call("/cap/ch1", CAP_STREAM_ADV, "queue\0\0\0\0", "ADV");
	one_call("/cap/ch2", CAP_STREAM_PRB, "queue\0\0\0\0", "PRB");
	device = open_node("/cap/ch2");
	EXPECT_VALUE(7, write(device, "seven b", 7), "write of an odd number of bytes");
	close(device);
	one_call("/cap/ch1", CAP_STREAM_WAIT_INFO, &info, "WAIT_INFO");
	EXPECT_VALUE((uintptr_t)(pool[0] + 1), info.address, "WAIT_INFO tells the address");
	EXPECT_VALUE(7, info.length, "WAIT_INFO tells the length");
	EXPECT_VALUE(0, info.sequence, "WAIT_INFO tells the sequence number");
	EXPECT(memcmp(pool[0] + 1, "seven b", 7) == 0, "the message is in the buffer");
	EXPECT(pool[0][0] == 'x' && all_are(pool[0] + 8, SIZE - 8, 'x'), "all other bytes are as they were");
}

static void in_order(void)
{
	int receiver = open_node("/cap/ch1"), sender = open_node("/cap/ch2"), wrong = 0;
	struct cap_stream_message info;
	static char message[SIZE];

	for (int i = 0; i < CAP_STREAM_BUFFERS; i++)
		REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, pool[i]) == 0, "REG_BUF");
	for (int i = 0; i < CAP_STREAM_BUFFERS; i++) {
		memset(message, i, sizeof(message));
		REQUIRE(write(sender, message, (size_t)i * 7 + 1) == i * 7 + 1, "write");
	}
	for (int i = 0; i < CAP_STREAM_BUFFERS; i++) {
		REQUIRE(ioctl(receiver, CAP_STREAM_WAIT_INFO, &info) == 0, "WAIT_INFO");
		wrong += info.address != (uintptr_t)pool[i] || info.length != (uint64_t)i * 7 + 1 || info.sequence != (uint64_t)i + 1 ||
			 !all_are(pool[i], info.length, (char)i);
	}
	EXPECT_VALUE(0, wrong, "buffers are filled and taken in the order in which they were queued");
	close(receiver);
	close(sender);
}

static void reading(void)
{
	int receiver = open_node("/cap/ch1"), sender = open_node("/cap/ch2");
	static char text[SIZE];

	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, pool[0]) == 0 && ioctl(receiver, CAP_STREAM_REG_BUF, pool[1]) == 0, "REG_BUF");
	REQUIRE(write(sender, "first", 5) == 5 && write(sender, "second", 6) == 6, "write");
	EXPECT_VALUE(5, read(receiver, text, sizeof(text)), "read takes a filled buffer");
	EXPECT(memcmp(text, "first", 5) == 0, "the first one first");
	EXPECT_ERROR(EMSGSIZE, read(receiver, text, 5), "read of less than the message");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_WAIT, 0), "WAIT finds the message that stayed");
	EXPECT(memcmp(pool[1], "second", 6) == 0, "the second one second");
	close(receiver);
	close(sender);
}

static void statistics(void)
{
	int receiver = open_node("/cap/ch1"), sender = open_node("/cap/ch2");
	struct cap_stream_stats stats = { 0 };
	uint64_t bytes = 7 + 5 + 6;

	for (uint64_t i = 0; i < CAP_STREAM_BUFFERS; i++)
		bytes += i * 7 + 1;
	EXPECT_OK(ioctl(receiver, CAP_STREAM_STATS, &stats), "STATS of the receiver");
	EXPECT_VALUE(CAP_STREAM_BUFFERS + 3, stats.received, "received");
	EXPECT_VALUE(CAP_STREAM_BUFFERS + 3, stats.taken, "taken");
	EXPECT_VALUE(bytes, stats.received_bytes, "received_bytes");
	EXPECT(stats.advertised == 1 && stats.connected == 0 && stats.queued == 0 && stats.filled == 0, "state of the receiver");
	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, pool[0]) == 0, "REG_BUF");
	EXPECT_ERROR(EMSGSIZE, write(sender, pool, SIZE + 1), "a message that is too long");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_STATS, &stats), "STATS again");
	EXPECT(stats.too_long >= 1 && stats.queued == 1, "too_long and queued");
	EXPECT_OK(ioctl(sender, CAP_STREAM_STATS, &stats), "STATS of the sender");
	EXPECT_VALUE(CAP_STREAM_BUFFERS + 3, stats.sent, "sent");
	EXPECT_VALUE(bytes, stats.sent_bytes, "sent_bytes");
	EXPECT(stats.connected == 1 && stats.advertised == 0, "state of the sender");
	close(receiver);
	close(sender);
}

static void after_reset(void)
{
	int receiver = open_node("/cap/ch1"), sender = open_node("/cap/ch2");
	struct cap_stream_message info;
	struct cap_stream_stats stats;

	REQUIRE(write(sender, "lost", 4) == 4, "write before RESET");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_STATS, &stats), "STATS after RESET");
	EXPECT(stats.received == 0 && stats.queued == 0 && stats.filled == 0 && stats.advertised == 0, "RESET clears everything");
	EXPECT_ERROR(EPIPE, write(sender, "x", 1), "the sender's peer is gone");
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_SIZE, SIZE) == 0 && ioctl(receiver, CAP_STREAM_REG_BUF, pool[2]) == 0, "REG_BUF");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_ADV, "queue\0\0\0\0"), "the key is free again");
	EXPECT_ERROR(EPIPE, write(sender, "x", 1), "an old connection does not reach the new endpoint");
	EXPECT_OK(ioctl(sender, CAP_STREAM_PRB, "queue\0\0\0\0"), "PRB again");
	EXPECT_VALUE(4, write(sender, "anew", 4), "write again");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_WAIT_INFO, &info), "WAIT_INFO again");
	EXPECT(info.sequence == 0 && info.length == 4 && memcmp(pool[2], "anew", 4) == 0, "counting starts anew");
	REQUIRE(ioctl(receiver, CAP_STREAM_RESET) == 0 && ioctl(sender, CAP_STREAM_RESET) == 0, "RESET of both");
	close(receiver);
	close(sender);
}

struct tagged {
	uint32_t sender, number;
};

static void *send_many(void *argument)
{
	static const char *const paths[SENDERS] = { "/cap/ch2", "/cap/ch3", "/cap/ch4" };
	struct tagged message = { .sender = (uint32_t)(uintptr_t)argument };
	int device = open_node(paths[message.sender]);

	if (ioctl(device, CAP_STREAM_PRB, "many\0\0\0\0\0") != 0)
		check(0, "PRB of one of several senders", "%s", strerror(errno));
	for (; message.number < PER_SENDER; message.number++)
		if (write(device, &message, sizeof(message)) != sizeof(message))
			check(0, "write of one of several senders", "%s", strerror(errno));
	close(device);
	return NULL;
}

static void several_senders(void)
{
	int receiver = open_node("/cap/ch1"), wrong = 0, mixed = 0;
	uint32_t next[SENDERS] = { 0 };
	uint64_t names[SENDERS] = { 0 };
	pthread_t threads[SENDERS];

	REQUIRE(ioctl(receiver, CAP_STREAM_SET_SIZE, (int)sizeof(struct tagged)) == 0, "SET_SIZE");
	for (int i = 0; i < 8; i++)
		REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, pool[i]) == 0, "REG_BUF");
	REQUIRE(ioctl(receiver, CAP_STREAM_ADV, "many\0\0\0\0\0") == 0, "ADV");
	for (uintptr_t i = 0; i < SENDERS; i++)
		REQUIRE((errno = pthread_create(&threads[i], NULL, send_many, (void *)i)) == 0, "pthread_create");
	for (int i = 0; i < SENDERS * PER_SENDER; i++) {
		struct cap_stream_message info;
		struct tagged message;

		REQUIRE(ioctl(receiver, CAP_STREAM_WAIT_INFO, &info) == 0, "WAIT_INFO");
		memcpy(&message, (void *)(uintptr_t)info.address, sizeof(message));
		if (info.length != sizeof(message) || info.sequence != (uint64_t)i || message.sender >= SENDERS ||
		    message.number != next[message.sender]++) {
			wrong++;
			continue;
		}
		if (message.number == 0)
			names[message.sender] = info.sender;
		mixed += names[message.sender] != info.sender;
		REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, info.address) == 0, "REG_BUF");
	}
	for (int i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	EXPECT_VALUE(0, wrong, "messages of each of several senders arrive whole and in order");
	EXPECT_VALUE(0, mixed, "WAIT_INFO names the sender");
	EXPECT(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "each sender has its own name");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET at the end");
	close(receiver);
}

int main(void)
{
	checks_begin();
	state_of_the_node();
	in_order();
	reading();
	statistics();
	after_reset();
	several_senders();
	return checks_end();
}
