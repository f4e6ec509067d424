// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * poll, select and epoll at CAP_Stream: readable when WAIT would return at once, writable when write would, POLLHUP when the
 * peer is gone; and each of these wakes a poll that sleeps.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define SIZE 64
/* Far more than any wake takes; a poll that runs into it failed. */
#define LIMIT_MS 20000

static char buffers[4][SIZE], message[SIZE];
static int receiver, sender, start[2];

static int poll_one(int device, int events, int timeout)
{
	struct pollfd entry = { .fd = device, .events = (short)events };
	int n = poll(&entry, 1, timeout);

	return n < 0 ? n : entry.revents;
}

/* Each step is done by a second thread after it was told to through a pipe, so that the poll comes first or at the same time. */
enum action { SEND, QUEUE, GO_AWAY, END };

static void *act(void *unused)
{
	char action;

	(void)unused;
	while (read(start[0], &action, 1) == 1 && action != END) {
		switch (action) {
		case SEND:
			if (write(sender, message, SIZE) != SIZE)
				check(0, "write of the second thread", "%s", strerror(errno));
			break;
		case QUEUE:
			if (ioctl(receiver, CAP_STREAM_REG_BUF, buffers[3]) != 0)
				check(0, "REG_BUF of the second thread", "%s", strerror(errno));
			break;
		case GO_AWAY:
			if (ioctl(receiver, CAP_STREAM_RESET) != 0)
				check(0, "RESET of the second thread", "%s", strerror(errno));
			break;
		default:
			break;
		}
	}
	return NULL;
}

static void let(enum action action)
{
	char byte = (char)action;

	REQUIRE(write(start[1], &byte, 1) == 1, "telling the second thread");
}

static void states(void)
{
	EXPECT_VALUE(0, poll_one(receiver, POLLIN, 0), "an endpoint without anything is not readable");
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_SIZE, SIZE) == 0, "SET_SIZE");
	REQUIRE(ioctl(receiver, CAP_STREAM_ADV, "poll\0\0\0\0\0") == 0, "ADV");
	REQUIRE(ioctl(sender, CAP_STREAM_PRB, "poll\0\0\0\0\0") == 0, "PRB");
	EXPECT_VALUE(0, poll_one(sender, POLLOUT, 0), "not writable without a buffer");
	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, buffers[0]) == 0, "REG_BUF");
	EXPECT_VALUE(POLLOUT, poll_one(sender, POLLOUT, 0), "writable with a buffer");
	EXPECT_VALUE(0, poll_one(receiver, POLLIN, 0), "not readable without a message");
	REQUIRE(write(sender, message, SIZE) == SIZE, "write");
	EXPECT_VALUE(POLLIN, poll_one(receiver, POLLIN, 0), "readable with a message");
	EXPECT_VALUE(0, poll_one(sender, POLLOUT, 0), "not writable when the buffer is used up");
	REQUIRE(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0, "WAIT");
	EXPECT_VALUE(0, poll_one(receiver, POLLIN, 0), "not readable when the message is taken");
}

static void wakes(void)
{
	struct epoll_event wanted = { .events = EPOLLIN, .data.fd = 1 }, got = { 0 };
	struct timeval limit = { .tv_sec = LIMIT_MS / 1000 };
	fd_set readable;
	int set = epoll_create1(0);

	REQUIRE(set >= 0, "epoll_create");
	REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, receiver, &wanted) == 0, "epoll_ctl");
	let(QUEUE);
	EXPECT_VALUE(POLLOUT, poll_one(sender, POLLOUT, LIMIT_MS), "REG_BUF wakes a poll of the sender");
	let(SEND);
	EXPECT_VALUE(POLLIN, poll_one(receiver, POLLIN, LIMIT_MS), "a message wakes a poll of the receiver");
	REQUIRE(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0, "WAIT");
	let(QUEUE);
	let(SEND);
	EXPECT_VALUE(1, epoll_wait(set, &got, 1, LIMIT_MS), "a message wakes an epoll");
	EXPECT(got.events == EPOLLIN && got.data.fd == 1, "epoll says what happened");
	REQUIRE(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0, "WAIT");
	EXPECT_VALUE(0, epoll_wait(set, &got, 1, 0), "epoll has nothing left");
	let(QUEUE);
	let(SEND);
	FD_ZERO(&readable);
	FD_SET(receiver, &readable);
	EXPECT_VALUE(1, select(receiver + 1, &readable, NULL, NULL, &limit), "a message wakes a select");
	REQUIRE(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0, "WAIT");
	let(GO_AWAY);
	EXPECT(poll_one(sender, 0, LIMIT_MS) & POLLHUP, "RESET of the receiver wakes the sender with POLLHUP");
	close(set);
}

static void no_alarm(int signal)
{
	(void)signal;
}

static void interrupted(void)
{
	struct sigaction action = { .sa_handler = no_alarm };
	struct itimerval soon = { .it_value = { .tv_usec = 50000 * SLOWNESS } };

	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
	REQUIRE(setitimer(ITIMER_REAL, &soon, NULL) == 0, "setitimer");
	EXPECT_ERROR(EINTR, poll_one(receiver, POLLIN, -1), "a signal interrupts a poll");
	EXPECT_VALUE(0, poll_one(receiver, POLLIN, 20), "a poll ends by its own limit");
}

int main(void)
{
	pthread_t thread;

	checks_begin();
	REQUIRE((receiver = open("/cap/ch1", O_RDWR)) >= 0, "/cap/ch1");
	REQUIRE((sender = open("/cap/ch2", O_RDWR)) >= 0, "/cap/ch2");
	REQUIRE(pipe(start) == 0, "pipe");
	errno = pthread_create(&thread, NULL, act, NULL);
	REQUIRE(errno == 0, "pthread_create");
	states();
	wakes();
	interrupted();
	let(END);
	pthread_join(thread, NULL);
	return checks_end();
}
