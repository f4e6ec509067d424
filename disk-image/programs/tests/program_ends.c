// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What the end of a program takes back, whatever it did with its files: buffers that it queued, ranges that it published, and the memory of
 * both. Endpoints, their keys and messages that were accepted stay: they belong to the node. The program starts itself again as the one that ends:
 *
 *     program_ends child WHAT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

/* Bytes that a child has queued or published, and how many less are not noticed among what else a kernel keeps. */
#define LARGE (24 << 20)
#define NOISE (8 << 20)
/* Far more than any wake takes. */
#define LIMIT_MS 60000

extern char **environ;

static int open_device(const char *path)
{
	int device = open(path, O_RDWR | O_NONBLOCK);

	REQUIRE(device >= 0, path);
	return device;
}

/* Queues a large buffer, of which nothing is left open. */
static void queue(void)
{
	int device = open_device("/cap/ch1");
	char *buffer = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(buffer != MAP_FAILED, "mmap");
	memset(buffer, 1, LARGE);
	REQUIRE(ioctl(device, CAP_STREAM_SET_SIZE, LARGE) == 0, "SET_SIZE");
	REQUIRE(ioctl(device, CAP_STREAM_REG_BUF, buffer) == 0, "REG_BUF");
	REQUIRE(ioctl(device, CAP_STREAM_ADV, "stays") == 0, "ADV");
	close(device);
}

/* Waits in a read for a message that does not come. */
static void wait_in_read(void)
{
	static char buffer[64];
	int device = open("/cap/ch1", O_RDWR);

	read(device, buffer, sizeof(buffer));
}

/* Publishes a range, of which nothing is left open, and waits for its end. */
static void publish(void)
{
	int device = open_device("/cap/cf1");
	char *range = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(range != MAP_FAILED, "mmap");
	memset(range, 7, LARGE);
	REQUIRE(ioctl(device, CAP_FILE_SET_CAP, range) == 0, "SET_CAP");
	REQUIRE(ioctl(device, CAP_FILE_SET_SIZE, LARGE) == 0, "SET_SIZE");
	REQUIRE(ioctl(device, CAP_FILE_ADV, "range") == 0, "ADV");
	close(device);
	for (;;)
		pause();
}

static pid_t start(char *what)
{
	char *const words[] = { "/ld.so", "/tests/program_ends", "child", what, NULL };
	pid_t pid;

	REQUIRE(posix_spawn(&pid, words[0], NULL, NULL, words, environ) == 0, what);
	return pid;
}

/* Waits for its end, by a signal or by itself. */
static void end(pid_t pid, int signal)
{
	int status;

	if (signal)
		kill(pid, signal);
	REQUIRE(waitpid(pid, &status, 0) == pid, "waitpid");
	EXPECT(signal ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended as it should");
}

static long free_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128];
	long kib = -1;

	REQUIRE(file != NULL, "/proc/meminfo");
	while (fgets(line, sizeof(line), file) != NULL && sscanf(line, "MemFree: %ld kB", &kib) != 1)
		;
	fclose(file);
	return kib * 1024;
}

static void memory_is_back(long before, const char *name)
{
	long after = free_bytes();

	check(after > before - NOISE, name, "%ld bytes less", before - after);
}

static struct cap_stream_stats stats_of(int device)
{
	struct cap_stream_stats stats = { 0 };

	REQUIRE(ioctl(device, CAP_STREAM_STATS, &stats) == 0, "STATS");
	return stats;
}

/* Free pages that the processor keeps at hand are not counted as free: it is to keep few. */
static void keep_little_at_hand(void)
{
	int file = open("/proc/sys/vm/percpu_pagelist_high_fraction", O_WRONLY);

	REQUIRE(file >= 0 && write(file, "1000", 4) == 4, "percpu_pagelist_high_fraction");
	close(file);
}

static void buffers(void)
{
	int receiver = open_device("/cap/ch1"), sender = open_device("/cap/ch2");
	struct pollfd entry = { .fd = sender, .events = POLLOUT };
	static char buffer[64];
	struct cap_stream_stats stats;
	long before;
	pid_t pid;

	/* Once, for what the kernel keeps of any program. */
	end(start("nothing"), 0);
	before = free_bytes();
	end(start("queue"), 0);
	stats = stats_of(receiver);
	EXPECT(stats.queued == 0 && stats.filled == 0, "the buffer of a program that ended is not queued any more");
	EXPECT_VALUE(1, stats.advertised, "its endpoint is still published");
	memory_is_back(before, "its memory is free");
	EXPECT_OK(ioctl(sender, CAP_STREAM_PRB, "stays"), "PRB of the endpoint that stays");
	EXPECT_ERROR(EAGAIN, write(sender, "hello", 6), "a message has nowhere to go");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_SET_SIZE, sizeof(buffer)), "SET_SIZE of the next program");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_REG_BUF, buffer), "REG_BUF of the next program");
	EXPECT_VALUE(6, write(sender, "hello", 6), "a message to the next program");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_WAIT, 0), "WAIT of the next program");
	EXPECT(strcmp(buffer, "hello") == 0, "it is in its buffer");

	pid = start("read");
	EXPECT_VALUE(1, poll(&entry, 1, LIMIT_MS), "a program that reads has room");
	end(pid, SIGKILL);
	EXPECT_VALUE(0, stats_of(receiver).queued, "the end of a program that reads takes its buffer back");
	EXPECT_ERROR(EAGAIN, write(sender, "hello", 6), "and no message gets lost in it");

	/* A message that was accepted is not lost with the program that had the buffer. */
	end(start("queue-and-fill"), 0);
	EXPECT_VALUE(1, stats_of(receiver).filled, "a message of a program that ended");
	memset(buffer, 0, sizeof(buffer));
	EXPECT_VALUE(5, read(receiver, buffer, sizeof(buffer)), "is read by the next one");
	EXPECT(memcmp(buffer, "saved", 5) == 0, "as it was");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET");
}

/* As queue(), and a message comes before it ends. */
static void queue_and_fill(void)
{
	int sender = open_device("/cap/ch2");

	queue();
	REQUIRE(write(sender, "saved", 5) == 5, "write");
}

static void *watch(void *device)
{
	struct pollfd entry = { .fd = (int)(intptr_t)device };

	EXPECT_VALUE(1, poll(&entry, 1, LIMIT_MS), "the end of the publisher wakes a poll");
	EXPECT(entry.revents & POLLHUP, "with POLLHUP");
	return NULL;
}

static void ranges(void)
{
	int user = open("/cap/cf2", O_RDWR);
	struct cap_file_stats stats;
	struct pollfd entry = { .fd = user, .events = POLLIN };
	pthread_t thread;
	long before = free_bytes();
	char byte = 0;
	pid_t pid;

	REQUIRE(user >= 0, "/cap/cf2");
	pid = start("publish");
	EXPECT_OK(ioctl(user, CAP_FILE_PRB, "range"), "PRB");
	EXPECT(pread(user, &byte, 1, LARGE - 1) == 1 && byte == 7, "read of the range");
	EXPECT_VALUE(1, poll(&entry, 1, 0), "poll");
	EXPECT_VALUE(POLLIN, entry.revents, "a range that is there can be read");
	REQUIRE(pthread_create(&thread, NULL, watch, (void *)(intptr_t)user) == 0, "pthread_create");
	end(pid, SIGKILL);
	EXPECT_ERROR(ESTALE, pread(user, &byte, 1, 0), "read of a range whose program ended");
	EXPECT_ERROR(ESTALE, pwrite(user, &byte, 1, 0), "write to it");
	pthread_join(thread, NULL);
	REQUIRE(ioctl(open_device("/cap/cf1"), CAP_FILE_STATS, &stats) == 0, "STATS");
	EXPECT_VALUE(0, stats.published, "it is not published any more");
	memory_is_back(before, "its memory is free");
	end(start("nothing"), 0);
	pid = start("publish");
	EXPECT_OK(ioctl(user, CAP_FILE_PRB, "range"), "PRB again");
	EXPECT_VALUE(1, pread(user, &byte, 1, 0), "read of the next range");
	end(pid, SIGKILL);
}

int main(int argc, char **argv)
{
	const char *what = argc == 3 ? argv[2] : "";

	checks_begin();
	if (strcmp(what, "queue") == 0)
		queue();
	else if (strcmp(what, "queue-and-fill") == 0)
		queue_and_fill();
	else if (strcmp(what, "read") == 0)
		wait_in_read();
	else if (strcmp(what, "publish") == 0)
		publish();
	if (argc == 3)
		return checks_failed;
	keep_little_at_hand();
	buffers();
	ranges();
	return checks_end();
}
