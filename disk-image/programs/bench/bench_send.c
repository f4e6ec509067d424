// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The active side of a measurement of messages; bench_recv is the other.
 *
 *     bench_send KIND round-trip SIZE COUNT   sends, waits for the answer; prints the time of both
 *     bench_send KIND stream SIZE COUNT       sends all, waits for one answer to the last; prints bytes per second
 *
 * KIND is explained in channel.h.
 */
#include "channel.h"

/* The first rounds are not counted: code, memory and predictors are cold. */
#define WARM_UP_DIVISOR 10

static char message[MESSAGE_MAX] __attribute__((aligned(4096)));

static void round_trip(struct channel *channel, size_t count)
{
	size_t warm_up = count / WARM_UP_DIVISOR;
	struct moment begin = moment_now(), end;

	for (size_t i = 0; i < warm_up + count; i++) {
		uint64_t before = ticks();

		memcpy(message, &before, sizeof(before));
		channel_send(channel, message);
		channel_receive(channel);
		if (i >= warm_up)
			samples[i - warm_up] = ticks() - before;
		channel_release(channel);
	}
	end = moment_now();
	print_samples(channel->report, "round_trip", count, ns_per_tick(&begin, &end));
}

static void stream(struct channel *channel, size_t count)
{
	struct moment begin, end;

	/* One message there and back: from then on both sides run. */
	channel_send(channel, message);
	channel_receive(channel);
	channel_release(channel);
	begin = moment_now();
	for (size_t i = 0; i < count; i++)
		channel_send(channel, message);
	channel_receive(channel);
	end = moment_now();
	channel_release(channel);
	fprintf(channel->report, "{\"stream\":{\"bytes\":%zu,\"messages\":%zu,\"ns\":%llu,\"bytes_per_second\":%.0f}}\n", channel->size * count, count,
	       (unsigned long long)(end.ns - begin.ns), (double)channel->size * (double)count * 1e9 / (double)(end.ns - begin.ns));
}

int main(int argc, char **argv)
{
	struct channel channel;
	size_t size, count;

	if (argc != 5 || (strcmp(argv[2], "round-trip") != 0 && strcmp(argv[2], "stream") != 0)) {
		fprintf(stderr, "usage: bench_send KIND round-trip|stream SIZE COUNT\n");
		return 2;
	}
	size = strtoul(argv[3], NULL, 10);
	count = strtoul(argv[4], NULL, 10);
	if (size < sizeof(uint64_t) || size > MESSAGE_MAX || count == 0 || (argv[2][0] == 'r' && count > SAMPLES_MAX)) {
		fprintf(stderr, "bench_send: SIZE is from 8 to %d, COUNT from 1 to %d\n", MESSAGE_MAX, SAMPLES_MAX);
		return 2;
	}
	memset(message, 0x5a, size);
	channel_open(&channel, argv[1], "back", "forth", size);
	if (argv[2][0] == 'r')
		round_trip(&channel, count);
	else
		stream(&channel, count);
	return 0;
}
