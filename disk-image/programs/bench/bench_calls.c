// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What a system call costs: getpid, and a read of one byte of /dev/zero. Runs in a cVM and, unchanged, on the host.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 9
#define CALLS 200000

static int zero;

static int one_getpid(void)
{
	return getpid() > 0;
}

static int one_read(void)
{
	char byte;

	return read(zero, &byte, 1) == 1;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int by_value(const void *left, const void *right)
{
	const double *l = left, *r = right;

	return *l < *r ? -1 : *l > *r;
}

/* Prints the median over batches of the mean of a batch. */
static int measure(const char *name, int (*call)(void))
{
	double batches[BATCHES];

	for (int b = 0; b < BATCHES; b++) {
		double begin = now();

		for (int i = 0; i < CALLS; i++)
			if (!call())
				return 1;
		batches[b] = (now() - begin) / CALLS;
	}
	qsort(batches, BATCHES, sizeof(batches[0]), by_value);
	printf("{\"%s\":{\"calls\":%d,\"min_ns\":%.2f,\"median_ns\":%.2f}}\n", name, BATCHES * CALLS, batches[0], batches[BATCHES / 2]);
	return 0;
}

int main(void)
{
	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0) {
		perror("/dev/zero");
		return 1;
	}
	return measure("getpid", one_getpid) | measure("zero_read", one_read);
}
