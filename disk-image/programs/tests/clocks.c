// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The cVM's clocks: setting them, adjusting them, what goes along and what does not, and the time that a program has used.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timerfd.h>
#include <time.h>

#include "calls.h"

#define SECOND 1000000000LL

/* What is told and what is changed. Each call writes all of it. */
struct adjustment {
	unsigned modes;
	long offset, frequency, largest, estimated;
	int status;
	long constant, precision, tolerance;
	struct timeval time;
	long tick, pulse[2];
	int shift;
	long counts[5];
	int tai, spare[11];
};

enum { set_frequency = 2, set_largest = 4, set_tai = 0x80, set_offset = 0x100, set_nanoseconds = 0x2000, set_tick = 0x4000 };

static long adjust(struct adjustment *adjustment)
{
	return syscall(SYS_adjtimex, adjustment);
}

/* A clock that was set is no earlier, and not much later: a machine may be busy. */
static int is_about(long long time, long long wanted)
{
	return time >= wanted && time < wanted + 30 * SECOND;
}

static void setting(void)
{
	long long real = now(CLOCK_REALTIME), monotonic = now(CLOCK_MONOTONIC);
	struct timespec set = { 1000000000, 500000000 }, back = { 0 }, wrong = { 1000000000, SECOND }, early = { -1, 0 };
	struct timeval micro = { 1100000000, 250000 }, wrong_micro = { 1100000000, 1000000 };
	struct itimerspec far = { .it_value = { 2000000000, 0 } };
	int timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	struct pollfd ready = { timer, POLLIN, 0 };
	uint64_t count = 0;

	REQUIRE(timer >= 0, "timerfd");
	EXPECT(real > 1500000000 * SECOND, "the time is that of the host");
	EXPECT_OK(syscall(SYS_clock_settime, CLOCK_REALTIME, &set), "clock_settime");
	EXPECT(is_about(now(CLOCK_REALTIME), 1000000000 * SECOND + SECOND / 2), "sets the time");
	EXPECT(is_about(now(CLOCK_MONOTONIC), monotonic), "and the monotonic clock goes on");
#ifdef SYS_time
	{
		long seconds = 0, returned = syscall(SYS_time, &seconds);

		EXPECT(seconds == returned && is_about(seconds * SECOND, 1000000000 * SECOND), "time");
		EXPECT(syscall(SYS_time, NULL) >= returned, "which needs no place");
		EXPECT_ERROR(EFAULT, syscall(SYS_time, 16), "but takes no bad one");
	}
#endif
	EXPECT_OK(syscall(SYS_settimeofday, &micro, NULL), "settimeofday");
	EXPECT(is_about(now(CLOCK_REALTIME), 1100000000 * SECOND + SECOND / 4), "sets the time too");
	EXPECT_ERROR(EINVAL, syscall(SYS_clock_settime, CLOCK_REALTIME, &wrong), "a second has no more nanoseconds");
	EXPECT_ERROR(EINVAL, syscall(SYS_clock_settime, CLOCK_REALTIME, &early), "nothing was before 1970");
	EXPECT_ERROR(EINVAL, syscall(SYS_settimeofday, &wrong_micro, NULL), "a second has no more microseconds");
	EXPECT_ERROR(EINVAL, syscall(SYS_clock_settime, CLOCK_MONOTONIC, &set), "other clocks are not set");
	EXPECT_ERROR(EINVAL, syscall(SYS_clock_settime, 99, &set), "nor those that there are not");
	EXPECT(is_about(now(CLOCK_REALTIME), 1100000000 * SECOND + SECOND / 4), "none of which changes anything");

	/* Timers at a time of day come when the clock is set to it, and some can be told that it was set. */
	REQUIRE(timerfd_settime(timer, TFD_TIMER_ABSTIME, &far, NULL) == 0, "a timer at a time of day");
	EXPECT_ERROR(EAGAIN, read(timer, &count, 8), "has not come");
	set.tv_sec = 2000000001;
	EXPECT_OK(syscall(SYS_clock_settime, CLOCK_REALTIME, &set), "until the clock is set to it");
	EXPECT(poll(&ready, 1, 20000) == 1 && read(timer, &count, 8) == 8 && count == 1, "when it has");
	far.it_value.tv_sec = 2100000000;
	REQUIRE(timerfd_settime(timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL) == 0, "a timer that is cancelled");
	real += now(CLOCK_MONOTONIC) - monotonic;
	back.tv_sec = real / SECOND;
	back.tv_nsec = real % SECOND;
	EXPECT_OK(syscall(SYS_clock_settime, CLOCK_REALTIME, &back), "and the clock is set back");
	EXPECT_ERROR(ECANCELED, read(timer, &count, 8), "which cancels it");
	EXPECT(is_about(now(CLOCK_REALTIME), real), "and it is as late as it was");
	close(timer);
}

static void adjusting(void)
{
	struct adjustment is = { 0 }, change = { .modes = set_offset | set_nanoseconds, .time = { 100, 500000000 } };
	long long before;

	/* TIME_OK or, as nobody keeps this clock in order, TIME_ERROR. */
	EXPECT(adjust(&is) == 5 && is.status & 0x40, "adjtimex tells that nobody adjusts the clock");
	EXPECT(is.tick == 10000 && is.tolerance == 32768000 && is_about(is.time.tv_sec * SECOND, now(CLOCK_REALTIME) / SECOND * SECOND - SECOND),
	       "and how it goes");
	before = now(CLOCK_REALTIME);
	EXPECT(syscall(SYS_clock_adjtime, CLOCK_REALTIME, &change) >= 0, "clock_adjtime");
	EXPECT(is_about(now(CLOCK_REALTIME), before + 100 * SECOND + SECOND / 2), "moves the clock by a hundred seconds");
	change = (struct adjustment){ .modes = set_offset | set_nanoseconds, .time = { -101, 500000000 } };
	EXPECT(adjust(&change) >= 0, "adjtimex");
	EXPECT(is_about(now(CLOCK_REALTIME), before), "moves it back");
	change = (struct adjustment){ .modes = set_frequency | set_tick, .frequency = 65536 * 10, .tick = 10001 };
	EXPECT(adjust(&change) >= 0, "another frequency");
	EXPECT(adjust(&is) >= 0 && is.frequency == 65536 * 10 && is.tick == 10001, "is told");
	change = (struct adjustment){ .modes = set_frequency | set_tick | set_largest, .frequency = 0, .tick = 10000, .largest = 77 };
	EXPECT(adjust(&change) >= 0, "and back");
	EXPECT(adjust(&is) >= 0 && is.frequency == 0 && is.tick == 10000 && is.largest == 77, "with the largest error");
	change = (struct adjustment){ .modes = set_tai, .constant = 37 };
	EXPECT(adjust(&change) >= 0 && adjust(&is) >= 0 && is.tai == 37, "the seconds between atomic time and that of the day");
	/* Two readings, one after the other. */
	before = now(CLOCK_REALTIME);
	EXPECT(is_about(now(CLOCK_TAI), before + 37 * SECOND), "by which clocks differ");
	change = (struct adjustment){ .modes = set_tai };
	EXPECT(adjust(&change) >= 0 && adjust(&is) >= 0 && is.tai == 0, "and none");
	change = (struct adjustment){ .modes = set_tick, .tick = 5000 };
	EXPECT_ERROR(EINVAL, adjust(&change), "half as fast is too slow");
	EXPECT_ERROR(EINVAL, syscall(SYS_clock_adjtime, 99, &is), "clock_adjtime of no clock");
	EXPECT_ERROR(EOPNOTSUPP, syscall(SYS_clock_adjtime, CLOCK_MONOTONIC, &is), "and of one that is not adjusted");
}

static void as_nobody(void)
{
	struct adjustment is = { 0 }, change = { .modes = set_tick, .tick = 10000 };
	struct timespec time = { 1000000000, 0 };
	struct timeval micro = { 1000000000, 0 };

	become_nobody();
	EXPECT_ERROR(EPERM, syscall(SYS_clock_settime, CLOCK_REALTIME, &time), "clock_settime is for the privileged");
	EXPECT_ERROR(EPERM, syscall(SYS_settimeofday, &micro, NULL), "so is settimeofday");
	EXPECT_ERROR(EPERM, adjust(&change), "adjtimex");
	EXPECT_ERROR(EPERM, syscall(SYS_clock_adjtime, CLOCK_REALTIME, &change), "and clock_adjtime");
	EXPECT(adjust(&is) >= 0, "but not to be told");
}

static void used(void)
{
	long ticks = sysconf(_SC_CLK_TCK), first, begin, end;
	struct tms before, after;

	EXPECT_VALUE(100, ticks, "a second has 100 ticks for programs");
	EXPECT((begin = times(&before)) != -1 && before.tms_cutime == 0, "times");
	first = (long)(now(CLOCK_MONOTONIC) / (SECOND / ticks));
	/* The kernel counts ticks, and what a program uses is not told before there was one. */
	do
		end = times(&after);
	while (after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime < 2);
	EXPECT(end > begin, "counts what the program uses and what passes");
	/* A tick may be counted late. */
	EXPECT(now(CLOCK_MONOTONIC) / (SECOND / ticks) - first + ticks >= end - begin, "as the clock does");
	EXPECT_ERROR(EFAULT, syscall(SYS_times, 16), "times to a bad pointer");
	EXPECT(syscall(SYS_times, NULL) >= end, "and to none");
}

int main(void)
{
	checks_begin();
	setting();
	adjusting();
	in_child(as_nobody, "a child without rights ends");
	used();
	return checks_end();
}
