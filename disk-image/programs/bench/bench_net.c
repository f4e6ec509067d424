// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * TCP between two places:
 *
 *     bench_net serve PORT                         does what connections ask for, one after the other, until one asks to end
 *     bench_net measure ADDRESS PORT BYTES ROUNDS  measures both directions and round trips, asks to end
 *
 * A connection begins with a letter and a number of eight bytes. Results are lines of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (128 << 10)
#define SMALL 64
#define TRIES 3000

struct request {
	char what; /* 't'ake, 'g'ive, 'e'cho, 'q'uit */
	char unused[7];
	uint64_t count;
};

static unsigned char piece[PIECE];

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void put(int fd, const void *from, size_t len)
{
	const char *at = from;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			die("send");
		at += n;
		len -= (size_t)n;
	}
}

static void get(int fd, void *to, size_t len)
{
	char *at = to;

	while (len) {
		ssize_t n = recv(fd, at, len, 0);

		if (n <= 0)
			die("recv");
		at += n;
		len -= (size_t)n;
	}
}

static void give(int fd, uint64_t bytes)
{
	while (bytes) {
		size_t len = bytes < PIECE ? (size_t)bytes : PIECE;

		put(fd, piece, len);
		bytes -= len;
	}
}

static void take(int fd, uint64_t bytes)
{
	while (bytes) {
		ssize_t n = recv(fd, piece, bytes < PIECE ? (size_t)bytes : PIECE, 0);

		if (n <= 0)
			die("recv");
		bytes -= (uint64_t)n;
	}
}

static void at_once(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int serve(const char *port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&here, sizeof(here)) || listen(fd, 8))
		die("bind");
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		struct request request;
		int one = accept(fd, NULL, NULL);

		if (one < 0)
			die("accept");
		at_once(one);
		get(one, &request, sizeof(request));
		switch (request.what) {
		case 't':
			take(one, request.count);
			put(one, piece, 1);
			break;
		case 'g':
			give(one, request.count);
			get(one, piece, 1);
			break;
		case 'e':
			for (uint64_t i = 0; i < request.count; i++) {
				get(one, piece, SMALL);
				put(one, piece, SMALL);
			}
			break;
		default:
			put(one, piece, 1);
			close(one);
			return 0;
		}
		close(one);
	}
}

static int ask(const char *address, const char *port, char what, uint64_t count)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	struct request request = { .what = what, .count = count };
	struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	to.sin_addr.s_addr = inet_addr(address);
	for (int i = 0; i < TRIES; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0)
			die("socket");
		if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
			at_once(fd);
			put(fd, &request, sizeof(request));
			return fd;
		}
		close(fd);
		/* Another cVM may not listen yet, of which nothing tells. */
		nanosleep(&pause, NULL);
	}
	die("connect");
	return -1;
}

static int compare(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return a < b ? -1 : a > b;
}

static int measure(const char *address, const char *port, uint64_t bytes, uint64_t rounds)
{
	uint64_t *times = calloc(rounds, sizeof(*times)), begin;
	int fd;

	if (!times)
		die("calloc");
	fd = ask(address, port, 't', bytes);
	begin = now();
	give(fd, bytes);
	get(fd, piece, 1);
	printf("{\"to_server\": {\"bytes_per_second\": %.0f}}\n", (double)bytes * 1e9 / (double)(now() - begin));
	close(fd);
	begin = now();
	fd = ask(address, port, 'g', bytes);
	take(fd, bytes);
	printf("{\"from_server\": {\"bytes_per_second\": %.0f}}\n", (double)bytes * 1e9 / (double)(now() - begin));
	put(fd, piece, 1);
	close(fd);
	fd = ask(address, port, 'e', rounds);
	for (uint64_t i = 0; i < rounds; i++) {
		begin = now();
		put(fd, piece, SMALL);
		get(fd, piece, SMALL);
		times[i] = now() - begin;
	}
	close(fd);
	qsort(times, rounds, sizeof(*times), compare);
	printf("{\"round_trip\": {\"median_ns\": %llu}}\n", (unsigned long long)times[rounds / 2]);
	fd = ask(address, port, 'q', 0);
	get(fd, piece, 1);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(argv[2]);
	if (argc == 6 && !strcmp(argv[1], "measure"))
		return measure(argv[2], argv[3], strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	fprintf(stderr, "usage: bench_net serve PORT | bench_net measure ADDRESS PORT BYTES ROUNDS\n");
	return 2;
}
