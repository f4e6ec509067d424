// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The example of CAP_Stream.
 *
 *     cap_stream 1            one thread sends itself a message
 *     cap_stream 2 [COUNT]    a receiver and a sender as two threads
 *     cap_stream 3 [COUNT]    the receiver alone
 *     cap_stream 4 [COUNT]    the sender alone
 *
 * Without COUNT, modes 2 to 4 go on for ever. With it they end after that many messages, and the exit status of the receiver
 * is 0 only if each was the one that comes next.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#define RECEIVER "/cap/ch1"
#define SENDER "/cap/ch2"
#define BUFFER_SIZE (4 << 20)
/* Messages are sent in whole blocks of this many bytes. */
#define BLOCK 16
#define MESSAGE_MAX 64

static const char key[CAP_KEY_LEN] = "key1";
static char buffer[BUFFER_SIZE] __attribute__((aligned(4096)));
/* How many messages to send or receive; 0: no end. */
static unsigned long count;

static void die(const char *what)
{
	fprintf(stderr, "cap_stream: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_device(const char *path)
{
	int device = open(path, O_RDWR);

	if (device < 0)
		die(path);
	return device;
}

static size_t whole_blocks(size_t n)
{
	return (n + BLOCK - 1) / BLOCK * BLOCK;
}

/* Opens the receiving device, gives it the buffer and publishes it under the key. */
static int advertise(void)
{
	int device = open_device(RECEIVER);

	if (ioctl(device, CAP_STREAM_SET_SIZE, BUFFER_SIZE) != 0)
		die("SET_SIZE");
	memset(buffer, 0, sizeof(buffer));
	if (ioctl(device, CAP_STREAM_REG_BUF, buffer) != 0)
		die("REG_BUF");
	if (ioctl(device, CAP_STREAM_ADV, key) != 0)
		die("ADV");
	return device;
}

/* Opens the sending device and connects it to the key. */
static int probe(void)
{
	int device = open_device(SENDER);

	if (ioctl(device, CAP_STREAM_PRB, key) != 0)
		die("PRB");
	return device;
}

static void send_message(int device, const char *text)
{
	char message[MESSAGE_MAX] = "";
	size_t length;

	strncpy(message, text, sizeof(message) - 1);
	length = whole_blocks(strlen(message) + 1);
	if (write(device, message, length) != (ssize_t)length)
		die("write");
}

static int single(void)
{
	static const char text[] = "text for ptr";
	int device;

	printf("Testing CF_STREAMs, single thread\n");
	device = advertise();
	printf("RECV:   clear ('%s') and publish ptr(%p) with key '%s' via %s\n", buffer, (void *)buffer, key, RECEIVER);
	close(device);

	device = probe();
	printf("SEND:   sending ptr (%p) with '%s' via %s (%d)\n", (const void *)text, text, SENDER, device);
	send_message(device, text);
	close(device);

	device = open_device(RECEIVER);
	if (ioctl(device, CAP_STREAM_WAIT, 0) != 0)
		die("WAIT");
	printf("RECV:   Check ptr (%p) after wait: '%s'\n", (void *)buffer, buffer);
	close(device);
	return strcmp(buffer, text) == 0 ? 0 : 1;
}

static void *receive(void *unused)
{
	int device = advertise();
	char expected[MESSAGE_MAX], number[MESSAGE_MAX];
	unsigned long wrong = 0;

	(void)unused;
	for (unsigned long i = 0; count == 0 || i < count; i++) {
		if (ioctl(device, CAP_STREAM_WAIT, 0) != 0)
			die("WAIT");
		snprintf(number, sizeof(number), "%lu:", i);
		printf("%-7s recv = '%s'\n", number, buffer);
		snprintf(expected, sizeof(expected), "send %lu", i);
		if (strcmp(buffer, expected) != 0) {
			fprintf(stderr, "cap_stream: expected '%s', got '%s'\n", expected, buffer);
			wrong++;
		}
		memset(buffer, 0, sizeof(buffer));
		/* No message follows the last one: nobody has to be given room for it. */
		if (i + 1 != count && ioctl(device, CAP_STREAM_REG_BUF, buffer) != 0)
			die("REG_BUF");
	}
	close(device);
	return (void *)wrong;
}

static void *send(void *unused)
{
	int device = probe();
	char text[MESSAGE_MAX];

	(void)unused;
	for (unsigned long i = 0; count == 0 || i < count; i++) {
		snprintf(text, sizeof(text), "send %lu", i);
		send_message(device, text);
	}
	close(device);
	return NULL;
}

/* Runs a receiver, a sender, or both, each in its thread; returns whether something was wrong. */
static int run(void *(*const *roles)(void *), int n)
{
	pthread_t threads[2];
	int wrong = 0;

	for (int i = 0; i < n; i++) {
		errno = pthread_create(&threads[i], NULL, roles[i], NULL);
		if (errno != 0)
			die("pthread_create");
	}
	for (int i = 0; i < n; i++) {
		void *result = NULL;

		errno = pthread_join(threads[i], &result);
		if (errno != 0)
			die("pthread_join");
		wrong |= result != NULL;
	}
	return wrong;
}

static int usage(void)
{
	fprintf(stderr, "usage: cap_stream 1 | cap_stream 2|3|4 [COUNT]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static void *(*const roles[])(void *) = { receive, send };
	char *end = "";

	if (argc < 2 || argc > 3 || strlen(argv[1]) != 1)
		return usage();
	if (argc == 3) {
		count = strtoul(argv[2], &end, 10);
		if (*end != '\0' || count == 0)
			return usage();
	}
	/* A line is seen when it is complete, also where the output is no terminal. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	switch (argv[1][0]) {
	case '1':
		return single();
	case '2':
		return run(roles, 2);
	case '3':
		return run(roles, 1);
	case '4':
		return run(roles + 1, 1);
	}
	return usage();
}
