// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Every error that the requests of CAP_Stream promise, as a table of steps in order: each step builds on the state that the
 * ones before it left behind.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

/* An address that is no program's on any platform here, and one that is not canonical on x86-64. */
#define NOWHERE ((void *)16)
#define FAR_AWAY ((void *)(UINTPTR_MAX - 4095))

#define SIZE 4096

static char area[(CAP_STREAM_BUFFERS + 2) * SIZE] __attribute__((aligned(4096)));
static const char constant[SIZE] = "in read-only memory";
static const char ten[CAP_KEY_LEN] = { '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' };

enum device { RECEIVER, SENDER, OTHER, DEVICES };

struct step {
	const char *name;
	enum device device;
	unsigned int request;
	const void *argument;
	int error;
};

#define VALUE(n) ((const void *)(intptr_t)(n))

static const struct step sizes[] = {
	{ "REG_BUF before SET_SIZE", RECEIVER, CAP_STREAM_REG_BUF, area, EINVAL },
	{ "SET_SIZE 0", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(0), EINVAL },
	{ "SET_SIZE -1", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(-1), EINVAL },
	{ "SET_SIZE INT_MIN", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(INT_MIN), EINVAL },
	{ "SET_SIZE above the limit", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(CAP_STREAM_MAX_SIZE + 1), EINVAL },
	{ "SET_SIZE INT_MAX", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(INT_MAX), EINVAL },
	{ "SET_SIZE at the limit", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(CAP_STREAM_MAX_SIZE), 0 },
	{ "REG_BUF beyond the end of memory", RECEIVER, CAP_STREAM_REG_BUF, area, EFAULT },
	{ "SET_SIZE 1", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(1), 0 },
	{ "REG_BUF of one byte, unaligned", RECEIVER, CAP_STREAM_REG_BUF, area + 1, 0 },
	{ "RESET", RECEIVER, CAP_STREAM_RESET, NULL, 0 },
	{ "REG_BUF after RESET", RECEIVER, CAP_STREAM_REG_BUF, area, EINVAL },
	{ "SET_SIZE 4096", RECEIVER, CAP_STREAM_SET_SIZE, VALUE(SIZE), 0 },
};

static const struct step modes[] = {
	{ "SET_MODE -1", RECEIVER, CAP_STREAM_SET_MODE, VALUE(-1), EINVAL },
	{ "SET_MODE 3", RECEIVER, CAP_STREAM_SET_MODE, VALUE(3), EINVAL },
	{ "SET_MODE spin", RECEIVER, CAP_STREAM_SET_MODE, VALUE(CAP_STREAM_SPIN), 0 },
	{ "SET_MODE adaptive", RECEIVER, CAP_STREAM_SET_MODE, VALUE(CAP_STREAM_ADAPTIVE), 0 },
	{ "SET_MODE sleep", RECEIVER, CAP_STREAM_SET_MODE, VALUE(CAP_STREAM_SLEEP), 0 },
};

static const struct step buffers[] = {
	{ "REG_BUF null", RECEIVER, CAP_STREAM_REG_BUF, NULL, EFAULT },
	{ "REG_BUF nowhere", RECEIVER, CAP_STREAM_REG_BUF, NOWHERE, EFAULT },
	{ "REG_BUF at the end of the address space", RECEIVER, CAP_STREAM_REG_BUF, FAR_AWAY, EFAULT },
	{ "REG_BUF that wraps around", RECEIVER, CAP_STREAM_REG_BUF, VALUE(-1), EFAULT },
	{ "REG_BUF", RECEIVER, CAP_STREAM_REG_BUF, area, 0 },
	{ "REG_BUF twice", RECEIVER, CAP_STREAM_REG_BUF, area, EBUSY },
	{ "REG_BUF that overlaps the end", RECEIVER, CAP_STREAM_REG_BUF, area + SIZE - 1, EBUSY },
	{ "REG_BUF next to it", RECEIVER, CAP_STREAM_REG_BUF, area + SIZE, 0 },
	{ "REG_BUF that overlaps both", RECEIVER, CAP_STREAM_REG_BUF, area + SIZE / 2, EBUSY },
};

static const struct step read_only[] = {
	{ "REG_BUF in read-only memory", RECEIVER, CAP_STREAM_REG_BUF, constant, EFAULT },
	{ "STATS in read-only memory", RECEIVER, CAP_STREAM_STATS, constant, EFAULT },
};

static const struct step keys[] = {
	{ "ADV null", RECEIVER, CAP_STREAM_ADV, NULL, EFAULT },
	{ "ADV nowhere", RECEIVER, CAP_STREAM_ADV, NOWHERE, EFAULT },
	{ "ADV at the end of the address space", RECEIVER, CAP_STREAM_ADV, FAR_AWAY, EFAULT },
	{ "ADV with an empty key", RECEIVER, CAP_STREAM_ADV, "\0\0\0\0\0\0\0\0\0", EINVAL },
	{ "PRB null", SENDER, CAP_STREAM_PRB, NULL, EFAULT },
	{ "PRB nowhere", SENDER, CAP_STREAM_PRB, NOWHERE, EFAULT },
	{ "PRB with an empty key", SENDER, CAP_STREAM_PRB, "\0\0\0\0\0\0\0\0\0", EINVAL },
	{ "PRB of a key that does not exist, O_NONBLOCK", SENDER, CAP_STREAM_PRB, "nobody\0\0\0", EAGAIN },
	{ "ADV with a key of ten bytes", RECEIVER, CAP_STREAM_ADV, ten, 0 },
	{ "ADV of a key that another endpoint has", OTHER, CAP_STREAM_ADV, ten, EADDRINUSE },
	{ "PRB of the first nine bytes of a key", SENDER, CAP_STREAM_PRB, "012345678", EAGAIN },
	{ "PRB of a key of ten bytes", SENDER, CAP_STREAM_PRB, ten, 0 },
};

static const struct step waits[] = {
	{ "WAIT without a message, O_NONBLOCK", RECEIVER, CAP_STREAM_WAIT, NULL, EAGAIN },
	{ "WAIT ignores its argument", RECEIVER, CAP_STREAM_WAIT, NOWHERE, EAGAIN },
	{ "SPIN_READ without a message, O_NONBLOCK", RECEIVER, CAP_STREAM_SPIN_READ, NULL, EAGAIN },
	{ "WAIT_INFO without a message, O_NONBLOCK", RECEIVER, CAP_STREAM_WAIT_INFO, area, EAGAIN },
	{ "STATS null", RECEIVER, CAP_STREAM_STATS, NULL, EFAULT },
	{ "STATS nowhere", RECEIVER, CAP_STREAM_STATS, NOWHERE, EFAULT },
	{ "a request that does not exist", RECEIVER, _IO(CAP_STREAM_TYPE, 0x7f), NULL, ENOTTY },
	{ "a request of another device", RECEIVER, CAP_FILE_SET_SIZE, VALUE(1), ENOTTY },
	{ "a request with another size", RECEIVER, _IOW(CAP_STREAM_TYPE, 0x01, char[100]), VALUE(1), ENOTTY },
};

static int devices[DEVICES];

static void take(const struct step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct step *s = &steps[i];
		int result;

		errno = 0;
		result = ioctl(devices[s->device], s->request, s->argument);
		if (s->error == 0)
			check(result == 0, s->name, "returned %d, %s", result, strerror(errno));
		else
			check(result == -1 && errno == s->error, s->name, "returned %d, %s; expected: %s", result, strerror(errno),
			      strerror(s->error));
	}
}

#define TAKE(steps) take(steps, sizeof(steps) / sizeof(steps[0]))

/* Fills the queue, which holds two buffers, up to its limit. */
static void fill_queue(void)
{
	int n = 2;

	while (n < CAP_STREAM_BUFFERS && ioctl(devices[RECEIVER], CAP_STREAM_REG_BUF, area + n * SIZE) == 0)
		n++;
	EXPECT_VALUE(CAP_STREAM_BUFFERS, n, "as many buffers as the header says");
	EXPECT_ERROR(ENOBUFS, ioctl(devices[RECEIVER], CAP_STREAM_REG_BUF, area + n * SIZE), "one buffer more");
}

static void reads_and_writes(void)
{
	static char message[2 * SIZE];
	int receiver = devices[RECEIVER], sender = devices[SENDER], other = devices[OTHER];

	EXPECT_ERROR(ENOTCONN, write(other, message, 1), "write without a connection");
	EXPECT_ERROR(EMSGSIZE, write(sender, message, SIZE + 1), "write of one byte too much");
	EXPECT_ERROR(EFAULT, write(sender, NULL, 1), "write from null");
	EXPECT_ERROR(EFAULT, write(sender, NOWHERE, 16), "write from nowhere");
	EXPECT_ERROR(EFAULT, write(sender, FAR_AWAY, 16), "write from the end of the address space");
	EXPECT_ERROR(EAGAIN, ioctl(receiver, CAP_STREAM_WAIT, 0), "nothing was delivered by what failed");
	EXPECT_VALUE(SIZE, write(sender, message, SIZE), "write of a full buffer");
	EXPECT_ERROR(EFAULT, ioctl(receiver, CAP_STREAM_WAIT_INFO, NULL), "WAIT_INFO null");
	EXPECT_ERROR(EFAULT, read(receiver, NULL, SIZE), "read to null");
	EXPECT_ERROR(EFAULT, read(receiver, NOWHERE, SIZE), "read to nowhere");
	if (is_protected(constant))
		EXPECT_ERROR(EFAULT, read(receiver, (void *)constant, SIZE), "read to read-only memory");
	EXPECT_ERROR(EMSGSIZE, read(receiver, message, SIZE - 1), "read of a message that is longer");
	EXPECT_VALUE(SIZE, read(receiver, message, sizeof(message)), "the message stays for a read with more room");
	EXPECT_ERROR(EAGAIN, read(receiver, message, SIZE), "read without a message, O_NONBLOCK");
	for (int i = 1; i < CAP_STREAM_BUFFERS; i++)
		if (write(sender, message, 1) != 1)
			check(0, "write into each queued buffer", "buffer %d: %s", i, strerror(errno));
	EXPECT_ERROR(EAGAIN, write(sender, message, 1), "write without a buffer, O_NONBLOCK");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET of the receiver");
	EXPECT_ERROR(EPIPE, write(sender, message, 1), "write to a receiver that is gone");
	EXPECT_ERROR(ESPIPE, lseek(sender, 0, SEEK_SET), "lseek on a stream");
}

static void no_alarm(int signal)
{
	(void)signal;
}

/* A probe without O_NONBLOCK waits; here until a signal, or it would be half a minute. */
static void blocking_probe(void)
{
	struct sigaction action = { .sa_handler = no_alarm };
	struct itimerval soon = { .it_value = { .tv_usec = 50000 * SLOWNESS } };

	REQUIRE(fcntl(devices[SENDER], F_SETFL, 0) == 0, "clearing O_NONBLOCK");
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
	REQUIRE(setitimer(ITIMER_REAL, &soon, NULL) == 0, "setitimer");
	EXPECT_ERROR(EINTR, ioctl(devices[SENDER], CAP_STREAM_PRB, "nobody\0\0\0"), "PRB that a signal interrupts");
}

int main(void)
{
	static const char *const paths[DEVICES] = { "/cap/ch1", "/cap/ch2", "/cap/ch3" };

	checks_begin();
	for (int i = 0; i < DEVICES; i++)
		REQUIRE((devices[i] = open(paths[i], O_RDWR | O_NONBLOCK)) >= 0, paths[i]);
	TAKE(sizes);
	TAKE(modes);
	TAKE(buffers);
	if (is_protected(constant))
		TAKE(read_only);
	TAKE(keys);
	TAKE(waits);
	fill_queue();
	reads_and_writes();
	blocking_probe();
	return checks_end();
}
