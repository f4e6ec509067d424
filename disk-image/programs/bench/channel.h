/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The way between the two sides of a measurement, so that the same program is measured over each of them:
 *
 *     cap:sleep, cap:spin, cap:adaptive   CAP_Streams in two cVMs: /cap/ch1 receives, /cap/ch2 sends
 *     fd                                  standard input and output, pipes or sockets; results go to the error output instead
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <capstream.h>

#define MESSAGE_MAX (4 << 20)
/* Receive buffers in turn; the measurement of memcpy takes as many. */
#define BUFFERS 4

struct channel {
	int in, out;
	int is_cap;
	/* Where results are printed. */
	FILE *report;
	size_t size;
	/* The buffer that the next message arrives in. */
	unsigned int next;
};

static char channel_buffers[BUFFERS][MESSAGE_MAX] __attribute__((aligned(4096)));

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void channel_register(const struct channel *channel, unsigned int buffer)
{
	if (ioctl(channel->in, CAP_STREAM_REG_BUF, channel_buffers[buffer]) != 0)
		die("REG_BUF");
}

/* Opens the way in which this side receives under one key and sends to the other's, messages of one size. */
static void channel_open(struct channel *channel, const char *kind, const char *mine, const char *theirs, size_t size)
{
	static const char *const modes[] = { "cap:sleep", "cap:spin", "cap:adaptive" };
	int mode = 0;

	channel->size = size;
	channel->next = 0;
	channel->is_cap = strcmp(kind, "fd") != 0;
	channel->report = channel->is_cap ? stdout : stderr;
	if (!channel->is_cap) {
		channel->in = 0;
		channel->out = 1;
		return;
	}
	while (mode < 3 && strcmp(kind, modes[mode]) != 0)
		mode++;
	errno = EINVAL;
	if (mode == 3)
		die(kind);
	channel->in = open("/cap/ch1", O_RDWR);
	channel->out = open("/cap/ch2", O_RDWR);
	if (channel->in < 0 || channel->out < 0)
		die("/cap");
	if (ioctl(channel->in, CAP_STREAM_SET_MODE, mode) != 0 || ioctl(channel->out, CAP_STREAM_SET_MODE, mode) != 0)
		die("SET_MODE");
	if (ioctl(channel->in, CAP_STREAM_SET_SIZE, (int)size) != 0)
		die("SET_SIZE");
	for (unsigned int i = 0; i < BUFFERS; i++)
		channel_register(channel, i);
	if (ioctl(channel->in, CAP_STREAM_ADV, mine) != 0)
		die("ADV");
	if (ioctl(channel->out, CAP_STREAM_PRB, theirs) != 0)
		die("PRB");
}

/* Sends one message of the channel's size. */
static void channel_send(const struct channel *channel, const char *message)
{
	size_t sent = 0;

	while (sent < channel->size) {
		ssize_t n = write(channel->out, message + sent, channel->size - sent);

		if (n <= 0)
			die("write");
		sent += (size_t)n;
	}
}

/* Waits for a message; it is to be given back by channel_release. */
static char *channel_receive(const struct channel *channel)
{
	char *message = channel_buffers[channel->next];
	size_t got = 0;

	if (channel->is_cap) {
		if (ioctl(channel->in, CAP_STREAM_WAIT, 0) != 0)
			die("WAIT");
		return message;
	}
	while (got < channel->size) {
		ssize_t n = read(channel->in, message + got, channel->size - got);

		if (n <= 0)
			die("read");
		got += (size_t)n;
	}
	return message;
}

static void channel_release(struct channel *channel)
{
	if (channel->is_cap)
		channel_register(channel, channel->next);
	channel->next = (channel->next + 1) % BUFFERS;
}

/* A counter that all processors and all cVMs of the machine share, in ticks of unknown length. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__riscv)
	uint64_t now;

	__asm__ volatile("rdtime %0" : "=r"(now));
	return now;
#else
#error "no counter is known for this processor"
#endif
}

/* A moment in both clocks, to know the length of a tick. */
struct moment {
	uint64_t ticks, ns;
};

static struct moment moment_now(void)
{
	struct timespec time;
	struct moment now;

	if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
		die("clock_gettime");
	now.ticks = ticks();
	now.ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
	return now;
}

static double ns_per_tick(const struct moment *from, const struct moment *to)
{
	return (double)(to->ns - from->ns) / (double)(to->ticks - from->ticks);
}

#define SAMPLES_MAX 200000
static uint64_t samples[SAMPLES_MAX];

__attribute__((unused)) static int by_value(const void *left, const void *right)
{
	const uint64_t *l = left, *r = right;

	return *l < *r ? -1 : *l > *r;
}

/* Prints the distribution of n samples in ticks as one line of JSON. */
__attribute__((unused)) static void print_samples(FILE *report, const char *name, size_t n, double ns)
{
	if (n == 0)
		return;
	qsort(samples, n, sizeof(samples[0]), by_value);
	fprintf(report, "{\"%s\":{\"samples\":%zu,\"min_ns\":%.1f,\"median_ns\":%.1f,\"p99_ns\":%.1f}}\n", name, n, (double)samples[0] * ns,
	       (double)samples[n / 2] * ns, (double)samples[n * 99 / 100] * ns);
}

#endif
