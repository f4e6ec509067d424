// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Long-running traffic that checks itself.
 *
 *     soak receive KEY                  takes messages from whoever sends
 *     soak send NAME SEED LARGEST KEY.. connects to one of the keys after the other, and sends messages of random sizes
 *
 * Every connection has a number that no other has: the sender's name and the time at which it connected. Its messages are counted from 0, the
 * last one says how many there were. The receiver finds whatever is lost, doubled, out of order or torn in the middle of a connection, and
 * at the end of one that was closed. When a cVM is killed, its connections end without a last message, and the next one begins.
 *
 * SIGTERM ends a sender after a last message, and a receiver when it has taken what was sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define LARGEST (4 << 20)
#define BUFFERS 4
#define CONNECTIONS 256
/* A connection has so many messages at most. */
#define LONGEST 400

struct head {
	uint64_t connection;
	uint64_t number;
	uint64_t sum;
	uint32_t size;
	/* How many messages without a head were sent since the one before. */
	uint32_t small;
	uint64_t last;
};

struct connection {
	uint64_t sender, next, small, used;
};

static char buffers[BUFFERS][LARGEST];
static char message[LARGEST];
static struct connection connections[CONNECTIONS];
static volatile sig_atomic_t ending;

static void end(int signal)
{
	(void)signal;
	ending = 1;
}

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64* */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* Sums eight bytes at a time, each place counting differently. */
static uint64_t sum_of(const char *bytes, uint32_t size)
{
	uint64_t sum = size;

	for (uint32_t i = 0; i < size; i += 8) {
		uint64_t word = 0;

		memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
		sum = (sum ^ word) * 0x100000001b3ull + (sum >> 29);
	}
	return sum;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* By the sender that the driver tells; so messages that are too small for a head are counted, too. */
static struct connection *connection_of(uint64_t sender, uint64_t now)
{
	struct connection *oldest = connections;

	for (int i = 0; i < CONNECTIONS; i++) {
		if (connections[i].sender == sender)
			return &connections[i];
		if (connections[i].used < oldest->used)
			oldest = &connections[i];
	}
	/* Nobody has sent on it for the longest time: its sender was killed. */
	*oldest = (struct connection){ .sender = sender, .used = now };
	return oldest;
}

static int receive(const char *key)
{
	int device = open("/cap/ch1", O_RDWR);
	uint64_t taken = 0, bytes = 0, closed = 0, wrong = 0, told = now_ns();

	REQUIRE(device >= 0, "/cap/ch1");
	REQUIRE(ioctl(device, CAP_STREAM_SET_SIZE, LARGEST) == 0, "SET_SIZE");
	for (int i = 0; i < BUFFERS; i++)
		REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, buffers[i]) == 0, "REG_BUF");
	REQUIRE(ioctl(device, CAP_STREAM_ADV, key) == 0, "ADV");
	printf("receiving\n");
	fflush(stdout);
	for (;;) {
		struct pollfd ready = { .fd = device, .events = POLLIN };
		struct cap_stream_message info;
		struct connection *connection;
		struct head head;
		const char *place;
		uint64_t now;

		/* After the end only what is there already. */
		if (poll(&ready, 1, ending ? 0 : 200) <= 0) {
			if (ending)
				break;
			continue;
		}
		REQUIRE(ioctl(device, CAP_STREAM_WAIT_INFO, &info) == 0, "WAIT_INFO");
		place = (const char *)(uintptr_t)info.address;
		now = now_ns();
		if (info.sequence != taken) {
			printf("FAIL: message %llu of all is told to be number %llu\n", (unsigned long long)taken,
			       (unsigned long long)info.sequence);
			wrong++;
		}
		taken++;
		bytes += info.length;
		connection = connection_of(info.sender, now);
		connection->used = now;
		if (info.length < sizeof(head)) {
			/* A small one has no head: each of its bytes is its size. */
			for (uint64_t i = 0; i < info.length; i++) {
				if (place[i] == (char)info.length)
					continue;
				printf("FAIL: byte %llu of a message of %llu is %d\n", (unsigned long long)i,
				       (unsigned long long)info.length, place[i]);
				wrong++;
			}
			connection->small++;
		} else {
			memcpy(&head, place, sizeof(head));
			if (head.size != info.length || head.sum != sum_of(place + sizeof(head), head.size - sizeof(head)) ||
			    head.number != connection->next || head.small != connection->small) {
				printf("FAIL: %llu of all, sender %llx, connection %llx: message %llu of %u bytes after %u small ones, where %llu of %llu after %llu was expected\n",
				       (unsigned long long)info.sequence, (unsigned long long)info.sender, (unsigned long long)head.connection, (unsigned long long)head.number, head.size, head.small,
				       (unsigned long long)connection->next, (unsigned long long)info.length,
				       (unsigned long long)connection->small);
				wrong++;
			}
			connection->next = head.number + 1;
			connection->small = 0;
			if (head.last) {
				closed++;
				*connection = (struct connection){ 0 };
			}
		}
		REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, info.address) == 0, "REG_BUF");
		if (now - told > 1000000000) {
			told = now;
			printf("taken %llu messages, %llu bytes, %llu connections closed, %llu wrong\n", (unsigned long long)taken,
			       (unsigned long long)bytes, (unsigned long long)closed, (unsigned long long)wrong);
			fflush(stdout);
		}
	}
	printf("taken %llu messages, %llu bytes, %llu connections closed, %llu wrong\n", (unsigned long long)taken,
	       (unsigned long long)bytes, (unsigned long long)closed, (unsigned long long)wrong);
	return wrong != 0;
}

/* Sends one message; 0 when it was sent, else the error. */
static int send_one(int device, uint32_t size)
{
	for (;;) {
		ssize_t written = write(device, message, size);
		/* A check that holds leaves no error behind. */
		int error = errno;

		if (written == (ssize_t)size)
			return 0;
		REQUIRE(written < 0, "a message is written whole");
		if (error != EINTR)
			return error;
	}
}

/* Messages over one connection; returns 0 when it was closed, and the error that ended it otherwise. */
static int send_some(int device, uint64_t name, uint64_t *seed, uint32_t largest)
{
	uint64_t count = 1 + next_random(seed) % LONGEST;
	uint32_t small = 0;

	for (uint64_t number = 0;; number++) {
		/* Sizes of every magnitude are as frequent. */
		uint32_t limit = 1u << (next_random(seed) % 23);
		uint32_t size = 1 + (uint32_t)(next_random(seed) % (limit < largest ? limit : largest));
		struct head head = { .connection = name, .number = number, .small = small, .last = number + 1 >= count || ending };
		int error;

		if (size < sizeof(head) && !head.last) {
			memset(message, (int)size, size);
			/* It has no number. */
			number--;
			small++;
		} else {
			small = 0;
			size = size < sizeof(head) ? sizeof(head) : size;
			for (uint32_t i = sizeof(head); i + 8 <= size; i += 4096) {
				uint64_t word = next_random(seed);

				memcpy(message + i, &word, 8);
			}
			head.size = size;
			head.sum = sum_of(message + sizeof(head), size - sizeof(head));
			memcpy(message, &head, sizeof(head));
		}
		error = send_one(device, size);
		if (error || head.last)
			return error;
	}
}

static int send_for_ever(uint64_t name, uint64_t seed, uint32_t largest, char **keys, int key_count)
{
	uint64_t closed = 0, broken = 0;

	seed = seed * 2654435761u + name + now_ns() + 1;
	while (!ending) {
		int device = open("/cap/ch2", O_RDWR);
		int error;

		REQUIRE(device >= 0, "/cap/ch2");
		/* Its receiver may be on its way up, or stay away for longer than a probe waits. */
		if (ioctl(device, CAP_STREAM_PRB, keys[next_random(&seed) % (uint64_t)key_count]) < 0) {
			error = errno;
			REQUIRE(error == EINTR || error == ETIMEDOUT || error == EPIPE, "PRB");
			close(device);
			continue;
		}
		error = send_some(device, name << 56 | (now_ns() & 0xffffffffffffff), &seed, largest);
		REQUIRE(error == 0 || error == EPIPE || error == ENOTCONN || error == ETIMEDOUT, "write");
		closed += error == 0;
		broken += error != 0;
		REQUIRE(ioctl(device, CAP_STREAM_RESET, 0) == 0, "RESET");
		close(device);
	}
	printf("closed %llu connections, %llu were broken\n", (unsigned long long)closed, (unsigned long long)broken);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = end };

	REQUIRE(sigaction(SIGTERM, &action, NULL) == 0, "sigaction");
	if (argc == 3 && strcmp(argv[1], "receive") == 0)
		return receive(argv[2]);
	if (argc > 5 && strcmp(argv[1], "send") == 0) {
		long largest = atol(argv[4]);

		REQUIRE(largest > 0 && largest <= LARGEST, "largest size");
		return send_for_ever((uint64_t)atol(argv[2]), (uint64_t)atol(argv[3]), (uint32_t)largest, argv + 5, argc - 5);
	}
	fprintf(stderr, "usage: soak receive KEY | soak send NAME SEED LARGEST KEY...\n");
	return 2;
}
