// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A wait at a CAP_Stream is a wait of that task alone: others go on meanwhile, a signal ends it with EINTR, a RESET with an error,
 * and nothing is lost by it. Modes sleep, spin and adaptive alike.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define SIZE 256

static char buffer[SIZE], message[SIZE] = "a message";
static int receiver, sender;
static volatile sig_atomic_t alarms;

static void count_alarm(int signal)
{
	(void)signal;
	alarms++;
}

static void alarm_soon(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 50000 * SLOWNESS } };

	REQUIRE(setitimer(ITIMER_REAL, &soon, NULL) == 0, "setitimer");
}

static void connect_both(void)
{
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_SIZE, SIZE) == 0, "SET_SIZE");
	REQUIRE(ioctl(receiver, CAP_STREAM_ADV, "waits\0\0\0\0") == 0, "ADV");
	REQUIRE(ioctl(sender, CAP_STREAM_PRB, "waits\0\0\0\0") == 0, "PRB");
}

static void reset_both(void)
{
	REQUIRE(ioctl(sender, CAP_STREAM_RESET) == 0 && ioctl(receiver, CAP_STREAM_RESET) == 0, "RESET");
}

static void interrupted(int mode, const char *name)
{
	struct cap_stream_message info;
	char text[64];

	alarms = 0;
	connect_both();
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_MODE, mode) == 0 && ioctl(sender, CAP_STREAM_SET_MODE, mode) == 0, "SET_MODE");
	alarm_soon();
	snprintf(text, sizeof(text), "a signal interrupts write without a buffer, %s", name);
	EXPECT_ERROR(EINTR, write(sender, message, 16), text);
	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, buffer) == 0, "REG_BUF");
	alarm_soon();
	snprintf(text, sizeof(text), "a signal interrupts WAIT, %s", name);
	EXPECT_ERROR(EINTR, ioctl(receiver, CAP_STREAM_WAIT, 0), text);
	alarm_soon();
	snprintf(text, sizeof(text), "a signal interrupts SPIN_READ, %s", name);
	EXPECT_ERROR(EINTR, ioctl(receiver, CAP_STREAM_SPIN_READ, 0), text);
	alarm_soon();
	snprintf(text, sizeof(text), "a signal interrupts WAIT_INFO, %s", name);
	EXPECT_ERROR(EINTR, ioctl(receiver, CAP_STREAM_WAIT_INFO, &info), text);
	snprintf(text, sizeof(text), "each signal was handled once, %s", name);
	EXPECT_VALUE(4, alarms, text);
	snprintf(text, sizeof(text), "the buffer is still queued, %s", name);
	EXPECT_VALUE(16, write(sender, message, 16), text);
	EXPECT_OK(ioctl(receiver, CAP_STREAM_WAIT, 0), "WAIT after all that");
	alarm_soon();
	snprintf(text, sizeof(text), "a signal interrupts read, %s", name);
	EXPECT_ERROR(EINTR, read(receiver, message, SIZE), text);
	reset_both();
}

static sem_t about_to_wait;

static void *wait_for_message(void *unused)
{
	(void)unused;
	sem_post(&about_to_wait);
	return (void *)(intptr_t)(ioctl(receiver, CAP_STREAM_WAIT, 0) == 0 ? 0 : errno);
}

static void *read_message(void *into)
{
	sem_post(&about_to_wait);
	return (void *)(intptr_t)read(receiver, into, SIZE);
}

static void *write_message(void *unused)
{
	(void)unused;
	sem_post(&about_to_wait);
	return (void *)(intptr_t)(write(sender, message, 16) == 16 ? 0 : errno);
}

/* Starts a thread and goes on when it is about to wait. */
static void begin(pthread_t *thread, void *(*body)(void *), void *argument)
{
	errno = pthread_create(thread, NULL, body, argument);
	REQUIRE(errno == 0, "pthread_create");
	sem_wait(&about_to_wait);
}

static void others_go_on(int mode, const char *name)
{
	static char into[SIZE];
	char text[64];
	pthread_t thread;
	void *result;

	connect_both();
	REQUIRE(ioctl(receiver, CAP_STREAM_SET_MODE, mode) == 0 && ioctl(sender, CAP_STREAM_SET_MODE, mode) == 0, "SET_MODE");
	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, buffer) == 0, "REG_BUF");
	begin(&thread, wait_for_message, NULL);
	snprintf(text, sizeof(text), "a thread sends while another waits, %s", name);
	EXPECT_VALUE(16, write(sender, message, 16), text);
	pthread_join(thread, &result);
	EXPECT_VALUE(0, (intptr_t)result, "WAIT of the other thread");

	begin(&thread, read_message, into);
	snprintf(text, sizeof(text), "write finds the buffer of a read, %s", name);
	EXPECT_VALUE(16, write(sender, message, 16), text);
	pthread_join(thread, &result);
	EXPECT_VALUE(16, (intptr_t)result, "read of the other thread");
	EXPECT(memcmp(into, message, 16) == 0, "read has the message");

	begin(&thread, write_message, NULL);
	snprintf(text, sizeof(text), "REG_BUF while a write waits, %s", name);
	EXPECT_OK(ioctl(receiver, CAP_STREAM_REG_BUF, buffer), text);
	pthread_join(thread, &result);
	EXPECT_VALUE(0, (intptr_t)result, "write of the other thread");
	EXPECT_OK(ioctl(receiver, CAP_STREAM_WAIT, 0), "WAIT for it");

	begin(&thread, write_message, NULL);
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET of the receiver while a write may wait");
	pthread_join(thread, &result);
	EXPECT_VALUE(EPIPE, (intptr_t)result, "the write ends with EPIPE");
	REQUIRE(ioctl(sender, CAP_STREAM_RESET) == 0, "RESET of the sender");
}

/* A WAIT and a write that a RESET cancels, once they are known to sleep. */
static void reset_while_waiting(void)
{
	struct cap_stream_stats stats = { 0 };
	pthread_t thread;
	void *result;

	connect_both();
	REQUIRE(ioctl(receiver, CAP_STREAM_REG_BUF, buffer) == 0, "REG_BUF");
	begin(&thread, wait_for_message, NULL);
	do
		REQUIRE(ioctl(receiver, CAP_STREAM_STATS, &stats) == 0, "STATS");
	while (stats.sleeps == 0 && sched_yield() == 0);
	EXPECT_OK(ioctl(receiver, CAP_STREAM_RESET), "RESET while a WAIT sleeps");
	pthread_join(thread, &result);
	EXPECT_VALUE(ECANCELED, (intptr_t)result, "the WAIT ends with ECANCELED");
	REQUIRE(ioctl(sender, CAP_STREAM_RESET) == 0, "RESET of the sender");

	connect_both();
	begin(&thread, write_message, NULL);
	do
		REQUIRE(ioctl(sender, CAP_STREAM_STATS, &stats) == 0, "STATS");
	while (stats.sleeps == 0 && sched_yield() == 0);
	EXPECT_OK(ioctl(sender, CAP_STREAM_RESET), "RESET of its own endpoint while a write sleeps");
	pthread_join(thread, &result);
	EXPECT_VALUE(ECANCELED, (intptr_t)result, "the write ends with ECANCELED");
	REQUIRE(ioctl(receiver, CAP_STREAM_RESET) == 0, "RESET of the receiver");
}

int main(void)
{
	struct sigaction action = { .sa_handler = count_alarm };

	checks_begin();
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
	REQUIRE(sem_init(&about_to_wait, 0, 0) == 0, "sem_init");
	REQUIRE((receiver = open("/cap/ch1", O_RDWR)) >= 0, "/cap/ch1");
	REQUIRE((sender = open("/cap/ch2", O_RDWR)) >= 0, "/cap/ch2");
	interrupted(CAP_STREAM_SLEEP, "sleep");
	interrupted(CAP_STREAM_SPIN, "spin");
	interrupted(CAP_STREAM_ADAPTIVE, "adaptive");
	others_go_on(CAP_STREAM_SLEEP, "sleep");
	others_go_on(CAP_STREAM_SPIN, "spin");
	others_go_on(CAP_STREAM_ADAPTIVE, "adaptive");
	reset_while_waiting();
	return checks_end();
}
