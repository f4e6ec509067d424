// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Futexes by the newer calls: waiting for one or for several, waking, moving waiters from one to another; and the lists of locks by which the
 * kernel tells that their owner has died.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>

#include "calls.h"

/* Sizes and flags of futexes, and bits of those that are locks. */
enum { size_1 = 0, size_4 = 2, private = 128 };
static const uint32_t has_waiters = 1U << 31, owner_died = 1U << 30, owner = (1U << 30) - 1;
static const unsigned long everybody = 0xffffffff;

struct waited {
	uint64_t value, address;
	uint32_t flags, spare;
};

struct waiter {
	pthread_t thread;
	uint32_t *word;
	unsigned long mask;
	struct waited several[2];
	volatile int number;
	long result;
};

static long wake(uint32_t *word, unsigned long mask, int number)
{
	return syscall(SYS_futex_wake, word, mask, number, size_4 | private);
}

static long wait_for(uint32_t *word, unsigned long value, unsigned long mask, unsigned flags, const struct timespec *end, int clock)
{
	return syscall(SYS_futex_wait, word, value, mask, flags, end, clock);
}

/* Waits until a thread sleeps, which it does in the call that it said it was going to make. */
static void until_asleep(volatile int *number)
{
	char path[64], text[64], *state;

	for (;;) {
		int fd;

		while (*number == 0)
			sched_yield();
		snprintf(path, sizeof(path), "/proc/%d/stat", *number);
		fd = open(path, O_RDONLY);
		memset(text, 0, sizeof(text));
		if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && (state = strchr(text, ')')) && state[2] == 'S') {
			close(fd);
			return;
		}
		close(fd);
		sched_yield();
	}
}

static void *waits(void *argument)
{
	struct waiter *this = argument;

	this->number = (int)syscall(SYS_gettid);
	if (this->word)
		this->result = wait_for(this->word, 0, this->mask, size_4 | private, NULL, 0);
	else
		this->result = syscall(SYS_futex_waitv, this->several, 2, 0, NULL, 0);
	return NULL;
}

static void start(struct waiter *waiter)
{
	waiter->number = 0;
	REQUIRE(pthread_create(&waiter->thread, NULL, waits, waiter) == 0, "a thread");
	until_asleep(&waiter->number);
}

static long result_of(struct waiter *waiter)
{
	pthread_join(waiter->thread, NULL);
	return waiter->result;
}

static void errors(void)
{
	struct timespec past = { 1, 0 }, wrong = { 0, -1 };
	uint32_t word[2] = { 5, 0 };

	EXPECT_ERROR(EAGAIN, wait_for(word, 4, everybody, size_4 | private, NULL, 0), "futex_wait for another value");
	EXPECT_ERROR(ETIMEDOUT, wait_for(word, 5, everybody, size_4 | private, &past, CLOCK_MONOTONIC), "futex_wait until it was");
	EXPECT_ERROR(ETIMEDOUT, wait_for(word, 5, everybody, size_4 | private, &past, CLOCK_REALTIME), "by either clock");
	EXPECT_ERROR(EINVAL, wait_for(word, 5, everybody, size_4 | private, &past, CLOCK_PROCESS_CPUTIME_ID), "but no other");
	EXPECT_ERROR(EINVAL, wait_for(word, 5, everybody, size_4 | private, &wrong, CLOCK_MONOTONIC), "until a time that there is not");
	EXPECT_ERROR(EINVAL, wait_for((void *)((char *)word + 1), 5, everybody, size_4 | private, NULL, 0), "at a place between words");
	EXPECT_ERROR(EINVAL, wait_for(word, 5, 0, size_4 | private, NULL, 0), "with a mask of nothing");
	EXPECT_ERROR(EINVAL, wait_for(word, 5, everybody, size_1 | private, NULL, 0), "for a byte");
	EXPECT_ERROR(EINVAL, wait_for(word, 5, everybody, 1 << 20, NULL, 0), "and with an unknown flag");
	EXPECT_ERROR(EFAULT, wait_for(address(16), 5, everybody, size_4 | private, NULL, 0), "at a bad address");
	EXPECT_VALUE(0, wake(word, everybody, 1), "futex_wake of nobody");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_wake, word, everybody, 1, 1 << 20), "and with an unknown flag");
	EXPECT_ERROR(EINVAL, wake(word, 0, 1), "and with a mask of nothing");
}

static void masks(void)
{
	uint32_t word = 0;
	struct waiter one = { .word = &word, .mask = 1 }, two = { .word = &word, .mask = 2 }, three = { .word = &word, .mask = 3 };

	start(&one);
	start(&two);
	start(&three);
	EXPECT_VALUE(0, wake(&word, 4, 9), "futex_wake of none of the mask");
	EXPECT_VALUE(1, wake(&word, 1, 1), "of one of two");
	EXPECT_VALUE(2, wake(&word, 3, 9), "and of all that are left");
	EXPECT(result_of(&one) == 0 && result_of(&two) == 0 && result_of(&three) == 0, "futex_wait");
	start(&one);
	EXPECT_VALUE(1, syscall(SYS_futex, &word, 1 | 128 /* FUTEX_WAKE_PRIVATE */, 9), "the older call wakes who waits by the newer");
	EXPECT_VALUE(0, result_of(&one), "which then goes on");
}

static void moved(void)
{
	uint32_t from = 0, to = 7;
	struct waiter one = { .word = &from, .mask = everybody }, two = one, three = one;
	struct waited words[2] = { { 0, (uintptr_t)&from, size_4 | private, 0 }, { 7, (uintptr_t)&to, size_4 | private, 0 } };

	start(&one);
	start(&two);
	start(&three);
	words[0].value = 1;
	EXPECT_ERROR(EAGAIN, syscall(SYS_futex_requeue, words, 0, 1, 1), "futex_requeue from another value");
	words[0].value = 0;
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_requeue, words, 1, 1, 1), "with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_requeue, words, 0, -1, 1), "and of less than nobody");
	EXPECT_VALUE(3, syscall(SYS_futex_requeue, words, 0, 1, 2), "futex_requeue wakes one, and moves two");
	EXPECT_VALUE(0, wake(&from, everybody, 9), "after which nobody waits where they did");
	EXPECT_VALUE(2, wake(&to, everybody, 9), "but at the other");
	EXPECT(result_of(&one) == 0 && result_of(&two) == 0 && result_of(&three) == 0, "and all go on");
}

static void several(void)
{
	uint32_t words[2] = { 0, 0 };
	struct waiter waiter = {
		.several = { { 0, (uintptr_t)&words[0], size_4 | private, 0 }, { 0, (uintptr_t)&words[1], size_4 | private, 0 } },
	};
	struct waited *all = waiter.several, many[129] = { { 0 } };
	struct timespec past = { 1, 0 };

	start(&waiter);
	EXPECT_VALUE(1, wake(&words[1], everybody, 9), "futex_wake of who waits for two");
	EXPECT_VALUE(1, result_of(&waiter), "futex_waitv tells which it was");
	EXPECT_VALUE(0, wake(&words[0], everybody, 9), "and waits for neither");
	start(&waiter);
	EXPECT_VALUE(1, wake(&words[0], everybody, 9), "futex_wake by the other");
	EXPECT_VALUE(0, result_of(&waiter), "which is the first");
	EXPECT_ERROR(ETIMEDOUT, syscall(SYS_futex_waitv, all, 2, 0, &past, CLOCK_MONOTONIC), "futex_waitv until it was");
	words[1] = 1;
	EXPECT_ERROR(EAGAIN, syscall(SYS_futex_waitv, all, 2, 0, NULL, 0), "one of the values is another");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_waitv, all, 0, 0, NULL, 0), "futex_waitv for none");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_waitv, many, 129, 0, NULL, 0), "for more than 128");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_waitv, all, 2, 1, NULL, 0), "with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_waitv, all, 2, 0, &past, CLOCK_PROCESS_CPUTIME_ID), "by another clock");
	all[0].spare = 1;
	EXPECT_ERROR(EINVAL, syscall(SYS_futex_waitv, all, 2, 0, NULL, 0), "and with something where nothing is known");
}

/* A lock, and the list of those that a thread has. The kernel finds the word at the same distance from each entry. */
struct lock {
	struct lock *next;
	uint32_t word;
};

static struct list {
	struct lock *first;
	long distance;
	struct lock *pending;
} list;
static struct lock held, pending, free_one, of_others;
static struct waiter watcher;

/* The C library has no call for this, and what it does with its own locks is not seen by others. */
static void *waits_for_a_lock(void *nothing)
{
	uint32_t value;

	while (((value = __atomic_load_n(&held.word, __ATOMIC_SEQ_CST)) & owner) == 0)
		sched_yield();
	watcher.number = (int)syscall(SYS_gettid);
	/* Whoever dies has no idea whether the waiters are of its own process. */
	watcher.result = syscall(SYS_futex, &held.word, 0 /* FUTEX_WAIT */, value, NULL);
	return nothing;
}

static void dies_with_locks(void)
{
	uint32_t number = (uint32_t)syscall(SYS_gettid);
	struct list *is = NULL;
	size_t length = 0;

	EXPECT_ERROR(EINVAL, syscall(SYS_set_robust_list, &list, sizeof(list) - 1), "set_robust_list of another size");
	EXPECT_OK(syscall(SYS_set_robust_list, &list, sizeof(list)), "set_robust_list");
	EXPECT(syscall(SYS_get_robust_list, 0, &is, &length) == 0 && is == &list && length == sizeof(list), "get_robust_list");
	EXPECT(syscall(SYS_get_robust_list, number, &is, &length) == 0 && is == &list, "of a thread by its number");
	EXPECT_ERROR(ESRCH, syscall(SYS_get_robust_list, 0x7ffffff, &is, &length), "and of none");
	list.distance = offsetof(struct lock, word);
	list.first = &held;
	held.next = &of_others;
	of_others.next = (struct lock *)&list;
	list.pending = &pending;
	of_others.word = number + 1;
	free_one.word = number;
	pending.word = number;
	__atomic_store_n(&held.word, number | has_waiters, __ATOMIC_SEQ_CST);
	until_asleep(&watcher.number);
}

static void locks(void)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, waits_for_a_lock, NULL) == 0, "a thread");
	in_child(dies_with_locks, "a child that has locks ends");
	EXPECT((held.word & owner_died) && (held.word & owner) == 0, "its lock tells that its owner died");
	EXPECT((pending.word & owner_died) && (pending.word & owner) == 0, "so does the one that it was about to take or to leave");
	EXPECT(!(of_others.word & owner_died), "those of others do not");
	EXPECT(!(free_one.word & owner_died), "nor those in no list");
	pthread_join(thread, NULL);
	EXPECT_VALUE(0, watcher.result, "who waited for the lock goes on");
	EXPECT(held.word & has_waiters, "and others may wait for it still");
}

static void as_nobody(void)
{
	size_t length;
	void *is;

	become_nobody();
	EXPECT_ERROR(EPERM, syscall(SYS_get_robust_list, 1, &is, &length), "get_robust_list is not for everybody");
}

static pthread_mutex_t mutex;

static void *dies_with_it(void *nothing)
{
	pthread_mutex_lock(&mutex);
	return nothing;
}

static void mutexes(void)
{
	pthread_mutexattr_t robust;
	pthread_t thread;

	REQUIRE(pthread_mutexattr_init(&robust) == 0 && pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST) == 0, "robust mutexes");
	REQUIRE(pthread_mutex_init(&mutex, &robust) == 0 && pthread_create(&thread, NULL, dies_with_it, NULL) == 0, "a thread that locks one");
	pthread_join(thread, NULL);
	EXPECT_VALUE(EOWNERDEAD, pthread_mutex_lock(&mutex), "a mutex whose owner died");
	EXPECT_OK(pthread_mutex_consistent(&mutex), "is made good");
	EXPECT_OK(pthread_mutex_unlock(&mutex) | pthread_mutex_lock(&mutex) | pthread_mutex_unlock(&mutex), "and used again");
	REQUIRE(pthread_create(&thread, NULL, dies_with_it, NULL) == 0, "another thread");
	pthread_join(thread, NULL);
	EXPECT(pthread_mutex_lock(&mutex) == EOWNERDEAD && pthread_mutex_unlock(&mutex) == 0, "one that nobody makes good");
	EXPECT_VALUE(ENOTRECOVERABLE, pthread_mutex_lock(&mutex), "cannot be used");
}

int main(void)
{
	checks_begin();
	errors();
	masks();
	moved();
	several();
	locks();
	in_child(as_nobody, "a child without rights ends");
	mutexes();
	return checks_end();
}
