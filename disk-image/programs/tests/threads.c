// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * POSIX threads, and with them futexes: mutexes under contention, condition variables, barriers, read-write locks, semaphores,
 * thread-local storage, cancellation, timeouts, detached threads.
 */
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define THREADS 8
#define ROUNDS 2000
#define ITEMS 5000

static pthread_t threads[THREADS];

static void start_all(void *(*body)(void *))
{
	for (uintptr_t i = 0; i < THREADS; i++)
		REQUIRE((errno = pthread_create(&threads[i], NULL, body, (void *)i)) == 0, "pthread_create");
}

static uintptr_t join_all(void)
{
	uintptr_t sum = 0;

	for (int i = 0; i < THREADS; i++) {
		void *result = NULL;

		REQUIRE((errno = pthread_join(threads[i], &result)) == 0, "pthread_join");
		sum += (uintptr_t)result;
	}
	return sum;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long counter, inside;

static void *contend(void *unused)
{
	(void)unused;
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&lock);
		unsigned long now = counter;

		inside++;
		/* Another thread gets its chance to come in, if the lock lets it. */
		if (i % 16 == 0)
			sched_yield();
		if (inside != 1)
			check(0, "one thread in the lock", "%lu are", inside);
		inside--;
		counter = now + 1;
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* A queue of one item between producers and consumers. */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int full;
static uintptr_t item;

static void *produce_or_consume(void *argument)
{
	uintptr_t sum = 0;

	for (uintptr_t i = 1; i <= ITEMS / THREADS; i++) {
		int produce = (uintptr_t)argument % 2;

		pthread_mutex_lock(&lock);
		while (full == produce)
			pthread_cond_wait(&changed, &lock);
		if (produce)
			item = i;
		else
			sum += item;
		full = produce;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
	return (void *)sum;
}

static __thread uintptr_t own = 5;
static pthread_barrier_t barrier;
static uintptr_t arrived;

static void *keep_own(void *argument)
{
	uintptr_t wrong = own != 5;

	own = (uintptr_t)argument;
	__atomic_add_fetch(&arrived, 1, __ATOMIC_RELAXED);
	pthread_barrier_wait(&barrier);
	wrong += __atomic_load_n(&arrived, __ATOMIC_RELAXED) != THREADS;
	sched_yield();
	return (void *)(wrong + (own != (uintptr_t)argument));
}

static pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER;
static unsigned long pair[2];

static void *read_or_write(void *argument)
{
	uintptr_t torn = 0;

	for (int i = 0; i < ROUNDS; i++) {
		if ((uintptr_t)argument == 0) {
			pthread_rwlock_wrlock(&readers);
			pair[0]++;
			sched_yield();
			pair[1]++;
			pthread_rwlock_unlock(&readers);
		} else {
			pthread_rwlock_rdlock(&readers);
			torn += pair[0] != pair[1];
			pthread_rwlock_unlock(&readers);
		}
	}
	return (void *)torn;
}

static sem_t started;
static int cleaned;

static void clean_up(void *unused)
{
	(void)unused;
	cleaned = 1;
}

static void *until_cancelled(void *unused)
{
	int ends[2];
	char byte;

	pthread_cleanup_push(clean_up, NULL);
	if (pipe(ends) == 0) {
		sem_post(&started);
		read(ends[0], &byte, 1);
	}
	pthread_cleanup_pop(0);
	return unused;
}

static void *post_and_end(void *unused)
{
	sem_post(&started);
	return unused;
}

static void cancellation(void)
{
	pthread_t thread;
	void *result = NULL;

	REQUIRE((errno = pthread_create(&thread, NULL, until_cancelled, NULL)) == 0, "pthread_create");
	sem_wait(&started);
	EXPECT_OK(pthread_cancel(thread), "pthread_cancel");
	EXPECT_OK(pthread_join(thread, &result), "join of a cancelled thread");
	EXPECT(result == PTHREAD_CANCELED && cleaned, "a read is cancelled, and its cleanup ran");
}

static void timeouts(void)
{
	struct timespec limit, now;
	int result;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_nsec += 20000000;
	if (limit.tv_nsec >= 1000000000) {
		limit.tv_nsec -= 1000000000;
		limit.tv_sec++;
	}
	pthread_mutex_lock(&lock);
	result = pthread_cond_timedwait(&changed, &lock, &limit);
	pthread_mutex_unlock(&lock);
	clock_gettime(CLOCK_REALTIME, &now);
	EXPECT_VALUE(ETIMEDOUT, result, "pthread_cond_timedwait");
	EXPECT(now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec), "not before its time");
	EXPECT_ERROR(ETIMEDOUT, sem_timedwait(&started, &limit), "sem_timedwait");
}

static void detached(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int wrong = 0;

	REQUIRE(pthread_attr_init(&attributes) == 0, "attributes");
	REQUIRE(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0, "attributes");
	/* So many that memory would run out if their stacks were kept. */
	for (int i = 0; i < 2000; i++) {
		wrong += pthread_create(&thread, &attributes, post_and_end, NULL) != 0;
		sem_wait(&started);
	}
	EXPECT_VALUE(0, wrong, "two thousand detached threads, one after the other");
}

int main(void)
{
	uintptr_t sum;

	checks_begin();
	REQUIRE(sem_init(&started, 0, 0) == 0, "sem_init");
	start_all(contend);
	join_all();
	EXPECT_VALUE(THREADS * ROUNDS, counter, "a mutex under contention");
	start_all(produce_or_consume);
	sum = join_all();
	EXPECT_VALUE((ITEMS / THREADS) * (ITEMS / THREADS + 1) / 2 * (THREADS / 2), sum, "condition variables");
	REQUIRE(pthread_barrier_init(&barrier, NULL, THREADS) == 0, "pthread_barrier_init");
	start_all(keep_own);
	EXPECT_VALUE(0, join_all(), "a barrier, and thread-local storage");
	EXPECT_VALUE(5, own, "the first thread has its own");
	start_all(read_or_write);
	EXPECT_VALUE(0, join_all(), "a read-write lock");
	cancellation();
	timeouts();
	detached();
	EXPECT_VALUE(getpid(), syscall(SYS_gettid), "the first thread's id is the process's");
	return checks_end();
}
