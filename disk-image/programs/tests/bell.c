// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Bells within one cVM: each errno that is promised, counts, overflow, poll, signals, reset, and that nothing of several ringers is lost or
 * read twice.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

/* An address that is no program's. */
#define NOWHERE ((void *)16)
/* The largest count. */
#define MOST (UINT64_MAX - 1)
/* Far more than any wake takes; a poll that runs into it failed. */
#define LIMIT_MS 20000
#define RINGERS 3

static int owner, ringer;

static int open_bell(int number, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/cap/cg%d", number);
	fd = open(path, O_RDWR | flags);
	REQUIRE(fd >= 0, path);
	return fd;
}

static long ring(int device, uint64_t units)
{
	return write(device, &units, sizeof(units));
}

/* What a read of the count says: the count, or the errno, negated. */
static int64_t count_of(int device)
{
	uint64_t count = 0;

	return read(device, &count, sizeof(count)) == sizeof(count) ? (int64_t)count : -errno;
}

static void set_blocking(int device, int blocking)
{
	REQUIRE(fcntl(device, F_SETFL, blocking ? 0 : O_NONBLOCK) == 0, "F_SETFL");
}

static int poll_one(int device, int events, int timeout)
{
	struct pollfd entry = { .fd = device, .events = (short)events };
	int n = poll(&entry, 1, timeout);

	return n < 0 ? n : entry.revents;
}

static void errors(void)
{
	char short_buffer[7];
	uint64_t count;

	EXPECT_ERROR(ENOTCONN, ring(ringer, 1), "write before PRB");
	EXPECT_ERROR(EFAULT, ioctl(owner, CAP_BELL_ADV, NOWHERE), "ADV nowhere");
	EXPECT_ERROR(EINVAL, ioctl(owner, CAP_BELL_ADV, ""), "ADV with an empty key");
	EXPECT_ERROR(EAGAIN, ioctl(ringer, CAP_BELL_PRB, "door"), "PRB of a key that does not exist, O_NONBLOCK");
	EXPECT_OK(ioctl(owner, CAP_BELL_ADV, "door"), "ADV");
	EXPECT_ERROR(EADDRINUSE, ioctl(ringer, CAP_BELL_ADV, "door"), "ADV of a key that another bell has");
	EXPECT_OK(ioctl(ringer, CAP_BELL_PRB, "door"), "PRB");
	EXPECT_ERROR(EAGAIN, read(owner, &count, sizeof(count)), "read without a unit, O_NONBLOCK");
	EXPECT_ERROR(EINVAL, read(owner, short_buffer, sizeof(short_buffer)), "read of fewer than 8 bytes");
	EXPECT_ERROR(EINVAL, write(ringer, short_buffer, sizeof(short_buffer)), "write of fewer than 8 bytes");
	EXPECT_ERROR(EINVAL, ring(ringer, UINT64_MAX), "write of the largest number");
	EXPECT_ERROR(EFAULT, write(ringer, NOWHERE, 8), "write from nowhere");
	EXPECT_VALUE(8, ring(ringer, 1), "write");
	EXPECT_ERROR(EFAULT, read(owner, NOWHERE, 8), "read to nowhere");
	EXPECT_VALUE(1, count_of(owner), "a read that failed took nothing");
	EXPECT_ERROR(ENOTTY, ioctl(owner, CAP_STREAM_SET_SIZE, 1), "a request of another device");
	EXPECT_ERROR(ESPIPE, lseek(owner, 0, SEEK_SET), "lseek");
}

static void counts(void)
{
	struct cap_bell_stats stats;

	EXPECT_VALUE(8, ring(ringer, 3), "write of 3");
	EXPECT_VALUE(8, ring(ringer, 0), "write of 0");
	EXPECT_VALUE(8, ring(ringer, 4), "write of 4");
	EXPECT_VALUE(7, count_of(owner), "read takes the sum");
	EXPECT_VALUE(-EAGAIN, count_of(owner), "and leaves nothing");
	EXPECT_VALUE(8, ring(ringer, MOST), "write of the most that fits");
	EXPECT_ERROR(EAGAIN, ring(ringer, 1), "write of what does not fit, O_NONBLOCK");
	EXPECT_VALUE(8, ring(ringer, 0), "nothing always fits");
	EXPECT_VALUE((int64_t)MOST, count_of(owner), "read of the most");
	REQUIRE(ioctl(owner, CAP_BELL_STATS, &stats) == 0, "STATS");
	EXPECT(stats.rings == 6 && stats.takes == 3 && stats.count == 0 && stats.added == stats.taken && stats.added == 1 + 7 + MOST,
	       "STATS of the owner");
	EXPECT(stats.advertised == 1 && stats.connected == 0 && stats.no_room == 1, "STATS tell what the owner is");
	REQUIRE(ioctl(ringer, CAP_BELL_STATS, &stats) == 0, "STATS");
	EXPECT(stats.sent_rings == 6 && stats.rings == 0 && stats.advertised == 0 && stats.connected == 1, "STATS of the ringer");
}

static void polls(void)
{
	struct epoll_event wanted = { .events = EPOLLIN | EPOLLET }, got;
	int set = epoll_create1(0);

	EXPECT_VALUE(0, poll_one(owner, POLLIN, 0), "not readable without a unit");
	EXPECT_VALUE(POLLOUT, poll_one(ringer, POLLOUT, 0), "writable");
	REQUIRE(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, owner, &wanted) == 0, "epoll");
	EXPECT_VALUE(8, ring(ringer, MOST), "write of the most");
	EXPECT_VALUE(POLLIN, poll_one(owner, POLLIN, 0), "readable with units");
	EXPECT_VALUE(0, poll_one(ringer, POLLOUT, 0), "not writable when nothing fits");
	EXPECT_VALUE(1, epoll_wait(set, &got, 1, LIMIT_MS), "epoll tells of the units");
	EXPECT_VALUE((int64_t)MOST, count_of(owner), "read");
	EXPECT_VALUE(0, epoll_wait(set, &got, 1, 0), "epoll has nothing more");
	close(set);
}

/* Things that are done by a second thread as soon as the first one waits, or before: that must not matter. */
static void *ring_once(void *units)
{
	check(ring(ringer, (uint64_t)(uintptr_t)units) == 8, "write of the second thread", "%s", strerror(errno));
	return NULL;
}

static void *take_once(void *expected)
{
	int64_t count = count_of(owner);

	check(count == (int64_t)(uintptr_t)expected, "read of the second thread", "%lld", (long long)count);
	return NULL;
}

static uint64_t sleeps_of(int device)
{
	struct cap_bell_stats stats;

	REQUIRE(ioctl(device, CAP_BELL_STATS, &stats) == 0, "STATS");
	return stats.sleeps;
}

/* A reset ends the waits that there are, so it comes after so many of them. */
static void *reset_owner(void *sleeps)
{
	while (sleeps_of(owner) < (uint64_t)(uintptr_t)sleeps)
		sched_yield();
	check(ioctl(owner, CAP_BELL_RESET) == 0, "RESET of the second thread", "%s", strerror(errno));
	return NULL;
}

static pthread_t let(void *(*act)(void *), uint64_t argument)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, act, (void *)(uintptr_t)argument) == 0, "pthread_create");
	return thread;
}

static void no_handler(int signal)
{
	(void)signal;
}

static void waits(void)
{
	struct sigaction action = { .sa_handler = no_handler };
	pthread_t thread;

	set_blocking(owner, 1);
	set_blocking(ringer, 1);
	thread = let(ring_once, 5);
	EXPECT_VALUE(5, count_of(owner), "read waits for a unit");
	pthread_join(thread, NULL);
	thread = let(ring_once, 1);
	EXPECT_VALUE(POLLIN, poll_one(owner, POLLIN, LIMIT_MS), "a unit wakes a poll");
	pthread_join(thread, NULL);
	EXPECT_VALUE(1, count_of(owner), "read");
	EXPECT_VALUE(8, ring(ringer, MOST), "write of the most");
	thread = let(take_once, MOST);
	EXPECT_VALUE(8, ring(ringer, 2), "write waits until it fits");
	pthread_join(thread, NULL);
	EXPECT_VALUE(2, count_of(owner), "read of what had waited");
	EXPECT_VALUE(8, ring(ringer, MOST), "write of the most");
	thread = let(take_once, MOST);
	EXPECT_VALUE(POLLOUT, poll_one(ringer, POLLOUT, LIMIT_MS), "room wakes a poll");
	pthread_join(thread, NULL);

	/* No SA_RESTART. */
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
	alarm(1);
	EXPECT_VALUE(-EINTR, count_of(owner), "a signal ends a read");
	REQUIRE(ring(ringer, MOST) == 8, "write");
	alarm(1);
	EXPECT_ERROR(EINTR, ring(ringer, 1), "a signal ends a write");
	REQUIRE(count_of(owner) == (int64_t)MOST, "read");
}

static void *ring_many(void *rings)
{
	int device = open_bell(2, 0);

	for (uintptr_t units = 1; units <= (uintptr_t)rings; units++)
		if (ring(device, units) != 8) {
			check(0, "write of a ringer", "%s", strerror(errno));
			break;
		}
	close(device);
	return NULL;
}

static void several(void)
{
	uint64_t rings = 20000 / SLOWNESS, total = RINGERS * (rings * (rings + 1) / 2), sum = 0;
	pthread_t threads[RINGERS];

	for (int i = 0; i < RINGERS; i++)
		threads[i] = let(ring_many, rings);
	while (sum < total) {
		int64_t count = count_of(owner);

		if (!check(count > 0, "read of what several add", "%lld", (long long)count))
			break;
		sum += (uint64_t)count;
	}
	for (int i = 0; i < RINGERS; i++)
		pthread_join(threads[i], NULL);
	set_blocking(owner, 0);
	check(sum == total && count_of(owner) == -EAGAIN, "every unit of several ringers is read once", "%llu instead of %llu",
	      (unsigned long long)sum, (unsigned long long)total);
	set_blocking(owner, 1);
}

static void ends(void)
{
	pthread_t thread;

	thread = let(reset_owner, sleeps_of(owner) + 1);
	EXPECT_VALUE(-ECANCELED, count_of(owner), "RESET ends a read");
	pthread_join(thread, NULL);
	EXPECT_ERROR(EPIPE, ring(ringer, 1), "write to a bell that was reset");
	EXPECT(poll_one(ringer, 0, 0) & POLLHUP, "POLLHUP");
	EXPECT_OK(ioctl(owner, CAP_BELL_ADV, "door"), "ADV again");
	EXPECT_ERROR(EPIPE, ring(ringer, 1), "the old connection stays broken");
	EXPECT_OK(ioctl(ringer, CAP_BELL_PRB, "door"), "PRB again");
	EXPECT_VALUE(8, ring(ringer, 9), "write");
	EXPECT_VALUE(9, count_of(owner), "read");
	REQUIRE(ring(ringer, MOST) == 8, "write");
	thread = let(reset_owner, 0);
	EXPECT_ERROR(EPIPE, ring(ringer, 1), "RESET of the other bell ends a write");
	pthread_join(thread, NULL);
	/* A bell and a stream of one key. */
	EXPECT_OK(ioctl(owner, CAP_BELL_ADV, "both"), "ADV of a bell");
	EXPECT_OK(ioctl(open("/cap/ch1", O_RDWR), CAP_STREAM_ADV, "both\0\0\0\0\0"), "ADV of a stream under the same key");
}

int main(void)
{
	checks_begin();
	owner = open_bell(1, O_NONBLOCK);
	ringer = open_bell(2, O_NONBLOCK);
	errors();
	counts();
	polls();
	waits();
	several();
	ends();
	return checks_end();
}
