// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The passive side of a measurement of messages, with the same arguments as bench_send. For round-trip it prints how long the messages took one way.
 */
#include "channel.h"

static char answer[MESSAGE_MAX] __attribute__((aligned(4096)));

static void round_trip(struct channel *channel, size_t count)
{
	size_t warm_up = count / 10;
	struct moment begin = moment_now(), end;

	for (size_t i = 0; i < warm_up + count; i++) {
		const char *message = channel_receive(channel);
		uint64_t now = ticks(), sent;

		memcpy(&sent, message, sizeof(sent));
		if (i >= warm_up)
			samples[i - warm_up] = now - sent;
		channel_release(channel);
		channel_send(channel, answer);
	}
	end = moment_now();
	print_samples(channel->report, "one_way", count, ns_per_tick(&begin, &end));
}

static void stream(struct channel *channel, size_t count)
{
	channel_receive(channel);
	channel_release(channel);
	channel_send(channel, answer);
	for (size_t i = 0; i < count; i++) {
		channel_receive(channel);
		channel_release(channel);
	}
	channel_send(channel, answer);
}

int main(int argc, char **argv)
{
	struct channel channel;
	size_t size, count;

	if (argc != 5 || (strcmp(argv[2], "round-trip") != 0 && strcmp(argv[2], "stream") != 0)) {
		fprintf(stderr, "usage: bench_recv KIND round-trip|stream SIZE COUNT\n");
		return 2;
	}
	size = strtoul(argv[3], NULL, 10);
	count = strtoul(argv[4], NULL, 10);
	if (size < sizeof(uint64_t) || size > MESSAGE_MAX || count == 0 || (argv[2][0] == 'r' && count > SAMPLES_MAX)) {
		fprintf(stderr, "bench_recv: SIZE is from 8 to %d, COUNT from 1 to %d\n", MESSAGE_MAX, SAMPLES_MAX);
		return 2;
	}
	memset(answer, 0xa5, size);
	channel_open(&channel, argv[1], "forth", "back", size);
	if (argv[2][0] == 'r')
		round_trip(&channel, count);
	else
		stream(&channel, count);
	return 0;
}
