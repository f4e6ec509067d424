// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Clocks and timers: nothing comes early, clocks go forward, and every kind of timer there is arrives.
 */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"

#define MS 1000000L

static void clocks(void)
{
	static const clockid_t ids[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE };
	struct timespec unit;
	struct timeval date;
	int backwards = 0;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		int64_t last = now(ids[i]);

		for (int n = 0; n < 10000; n++) {
			int64_t next = now(ids[i]);

			backwards += next < last;
			last = next;
		}
	}
	EXPECT_VALUE(0, backwards, "clocks do not go back");
	EXPECT(now(CLOCK_REALTIME) > 1700000000LL * 1000000000LL, "the date is set");
	EXPECT(time(NULL) > 1700000000, "time() tells it too");
	/* The C library asks clock_gettime instead. */
	EXPECT(syscall(SYS_gettimeofday, &date, NULL) == 0 && date.tv_sec > 1700000000, "and so does gettimeofday");
	EXPECT(clock_getres(CLOCK_MONOTONIC, &unit) == 0 && unit.tv_sec == 0 && unit.tv_nsec == 1, "clock_getres");
}

static void sleeps(void)
{
	static const long lengths[] = { 1, 1000, MS / 10, 5 * MS, 50 * MS };
	int early = 0, late = 0;
	struct timespec until;
	int64_t end;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct timespec length = { .tv_nsec = lengths[i] };
		int64_t before = now(CLOCK_MONOTONIC), took;

		REQUIRE(nanosleep(&length, NULL) == 0, "nanosleep");
		took = now(CLOCK_MONOTONIC) - before;
		early += took < lengths[i];
		late += took > lengths[i] + 2000 * MS;
	}
	EXPECT_VALUE(0, early, "no sleep is too short");
	EXPECT_VALUE(0, late, "no sleep is seconds too long");
	end = now(CLOCK_MONOTONIC) + 20 * MS;
	until = (struct timespec){ .tv_sec = end / 1000000000LL, .tv_nsec = end % 1000000000LL };
	EXPECT_OK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL), "clock_nanosleep");
	EXPECT(now(CLOCK_MONOTONIC) >= end, "until the time that it is told");
}

static volatile sig_atomic_t ticks;

static void tick(int signal)
{
	(void)signal;
	ticks++;
}

static sem_t called;

static void call(union sigval value)
{
	if (value.sival_int == 77)
		sem_post(&called);
}

static void signals(void)
{
	struct itimerval every = { .it_value = { .tv_usec = 2000 }, .it_interval = { .tv_usec = 2000 } }, off = { 0 };
	struct sigevent by_signal = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct sigevent by_thread = { .sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 77, .sigev_notify_function = call };
	struct itimerspec once = { .it_value = { .tv_nsec = 5 * MS } }, left = { 0 };
	struct itimerval rest = { 0 };
	int64_t before = now(CLOCK_MONOTONIC);
	timer_t timer;

	signal(SIGALRM, tick);
	signal(SIGUSR1, tick);
	REQUIRE(setitimer(ITIMER_REAL, &every, NULL) == 0, "setitimer");
	EXPECT(getitimer(ITIMER_REAL, &rest) == 0 && rest.it_interval.tv_usec == 2000, "getitimer");
	while (ticks < 50)
		pause();
	REQUIRE(setitimer(ITIMER_REAL, &off, NULL) == 0, "setitimer");
	EXPECT(now(CLOCK_MONOTONIC) - before >= 99 * MS, "fifty ticks of 2 ms are not early");
	ticks = 0;
	REQUIRE(timer_create(CLOCK_MONOTONIC, &by_signal, &timer) == 0, "timer_create");
	REQUIRE(timer_settime(timer, 0, &once, NULL) == 0, "timer_settime");
	while (ticks < 1)
		pause();
	EXPECT(timer_gettime(timer, &left) == 0 && left.it_value.tv_nsec == 0, "timer_gettime of one that is over");
	EXPECT_OK(timer_getoverrun(timer), "timer_getoverrun");
	EXPECT_OK(timer_delete(timer), "a POSIX timer sends a signal");
	REQUIRE(sem_init(&called, 0, 0) == 0, "sem_init");
	REQUIRE(timer_create(CLOCK_REALTIME, &by_thread, &timer) == 0, "timer_create with a thread");
	REQUIRE(timer_settime(timer, 0, &once, NULL) == 0, "timer_settime");
	while (sem_wait(&called) != 0)
		;
	EXPECT_OK(timer_delete(timer), "a POSIX timer calls a function");
	alarm(1);
	EXPECT(alarm(0) == 1, "alarm tells what was left");
}

static void descriptors(void)
{
	struct itimerspec every = { .it_value = { .tv_nsec = 3 * MS }, .it_interval = { .tv_nsec = 3 * MS } };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct pollfd entry = { .fd = timer, .events = POLLIN };
	uint64_t expirations = 0, sum = 0;

	REQUIRE(timer >= 0, "timerfd_create");
	EXPECT_ERROR(EAGAIN, read(timer, &expirations, sizeof(expirations)), "a timerfd that is not set");
	REQUIRE(timerfd_settime(timer, 0, &every, NULL) == 0, "timerfd_settime");
	EXPECT(timerfd_gettime(timer, &every) == 0 && every.it_interval.tv_nsec == 3 * MS, "timerfd_gettime");
	while (sum < 5) {
		REQUIRE(poll(&entry, 1, 20000) == 1, "poll of a timerfd");
		REQUIRE(read(timer, &expirations, sizeof(expirations)) == sizeof(expirations), "read of a timerfd");
		sum += expirations;
	}
	EXPECT(sum >= 5, "a timerfd counts");
	close(timer);
}

static void processor_time(void)
{
	struct timespec length = { .tv_nsec = 50 * MS };
	int64_t before = now(CLOCK_PROCESS_CPUTIME_ID), spent;

	REQUIRE(nanosleep(&length, NULL) == 0, "nanosleep");
	spent = now(CLOCK_PROCESS_CPUTIME_ID) - before;
	EXPECT(spent < 40 * MS, "sleep costs no processor time");
	before = now(CLOCK_PROCESS_CPUTIME_ID);
	for (int64_t end = now(CLOCK_MONOTONIC) + 50 * MS; now(CLOCK_MONOTONIC) < end;)
		;
	spent = now(CLOCK_PROCESS_CPUTIME_ID) - before;
	EXPECT(spent > 10 * MS, "work costs processor time");
}

int main(void)
{
	checks_begin();
	clocks();
	sleeps();
	signals();
	descriptors();
	processor_time();
	return checks_end();
}
