// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Semaphores and queues of messages where they wait: with a limit of time, until another thread goes on, and by being told when a message comes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/sem.h>
#include <time.h>

#include "calls.h"

static int set;
static struct sembuf up = { .sem_op = 1 }, down = { .sem_op = -1 };

static long change(struct sembuf *operations, size_t number, const struct timespec *limit)
{
	return syscall(SYS_semtimedop, set, operations, number, limit);
}

static void *waits(void *result)
{
	struct timespec limit = { 20, 0 };

	*(long *)result = change(&down, 1, &limit) == 0 ? 0 : errno;
	return NULL;
}

/* Until so many wait for the first semaphore to become more. */
static void until_waiting(int number)
{
	while (semctl(set, 0, GETNCNT) != number)
		sched_yield();
}

static void takes_and_ends(void)
{
	struct sembuf undone = { .sem_op = -1, .sem_flg = SEM_UNDO };

	EXPECT_OK(change(&undone, 1, NULL), "semtimedop that is to be undone");
	EXPECT_VALUE(0, semctl(set, 0, GETVAL), "takes one");
}

static void semaphores(void)
{
	struct timespec none = { 0, 0 }, little = { 0, 2000000 }, wrong = { 0, 1000000000 }, begin, end;
	struct sembuf both[2] = { { .sem_num = 0, .sem_op = 1 }, { .sem_num = 1, .sem_op = -1 } }, far = { .sem_num = 2, .sem_op = 1 };
	long result = -1;
	pthread_t thread;

	REQUIRE((set = semget(IPC_PRIVATE, 2, 0600)) >= 0, "semget");
	EXPECT_OK(change(&up, 1, &none), "semtimedop upwards");
	EXPECT_OK(change(&down, 1, NULL), "and downwards without a limit");
	EXPECT_ERROR(EAGAIN, change(&down, 1, &none), "semtimedop without time");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	EXPECT_ERROR(EAGAIN, change(&down, 1, &little), "semtimedop for two milliseconds");
	clock_gettime(CLOCK_MONOTONIC, &end);
	EXPECT((end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec >= 2000000, "which takes so long");
	EXPECT_ERROR(EAGAIN, change(both, 2, &none), "of two one cannot be had");
	EXPECT_VALUE(0, semctl(set, 0, GETVAL), "so neither is changed");
	EXPECT_ERROR(EINVAL, change(&down, 1, &wrong), "a time that there is not");
	EXPECT_ERROR(EINVAL, change(&down, 0, &none), "no operations");
	EXPECT_ERROR(EFBIG, change(&far, 1, &none), "a semaphore that there is not");

	REQUIRE(pthread_create(&thread, NULL, waits, &result) == 0, "a thread");
	until_waiting(1);
	EXPECT_OK(change(&up, 1, &none), "semtimedop for one that waits");
	pthread_join(thread, NULL);
	EXPECT(result == 0 && semctl(set, 0, GETVAL) == 0, "which goes on and has it");
	EXPECT_OK(change(&up, 1, &none), "one to be taken");
	in_child(takes_and_ends, "a child that takes it ends");
	EXPECT_VALUE(1, semctl(set, 0, GETVAL), "and it is undone");
	EXPECT_OK(change(&down, 1, &none), "so that it can be had");
	REQUIRE(pthread_create(&thread, NULL, waits, &result) == 0, "a thread");
	until_waiting(1);
	EXPECT_OK(semctl(set, 0, IPC_RMID), "semaphores are removed");
	pthread_join(thread, NULL);
	EXPECT_VALUE(EIDRM, result, "which who waits is told");
	EXPECT_ERROR(EINVAL, change(&up, 1, &none), "after which there are none");
}

static mqd_t queue;
static sem_t told;

static long attributes(const struct mq_attr *new, struct mq_attr *old)
{
	return syscall(SYS_mq_getsetattr, queue, new, old);
}

static void by_thread(union sigval value)
{
	if (value.sival_int == 4711)
		sem_post(&told);
}

static void of_another_process(void)
{
	struct sigevent none = { .sigev_notify = SIGEV_NONE };

	EXPECT_ERROR(EBUSY, syscall(SYS_mq_notify, queue, &none), "one process is told, and not another");
}

static void queues(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42 }, wrong = event;
	struct mq_attr size = { .mq_maxmsg = 3, .mq_msgsize = 16 }, is = { 0 }, now = { .mq_flags = O_NONBLOCK, .mq_maxmsg = 99 };
	struct timespec none = { 0, 0 }, limit = { 20, 0 };
	siginfo_t info = { 0 };
	sigset_t mask;
	char text[16];

	mq_unlink("/messages");
	REQUIRE((queue = mq_open("/messages", O_RDWR | O_CREAT | O_EXCL, 0600, &size)) >= 0, "mq_open");
	EXPECT(attributes(NULL, &is) == 0 && is.mq_flags == 0 && is.mq_maxmsg == 3 && is.mq_msgsize == 16 && is.mq_curmsgs == 0,
	       "mq_getsetattr tells");
	EXPECT(attributes(&now, &is) == 0 && is.mq_flags == 0, "sets, and tells what was before");
	EXPECT(attributes(NULL, &is) == 0 && is.mq_flags == O_NONBLOCK && is.mq_maxmsg == 3, "whether it waits, and nothing else");
	EXPECT_ERROR(EAGAIN, mq_receive(queue, text, sizeof(text), NULL), "so that it does not");
	now.mq_flags = O_APPEND;
	EXPECT_ERROR(EINVAL, attributes(&now, NULL), "mq_getsetattr of another flag");
	EXPECT_ERROR(EBADF, syscall(SYS_mq_getsetattr, 1, NULL, &is), "and of no queue");

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	REQUIRE(sigprocmask(SIG_BLOCK, &mask, NULL) == 0, "sigprocmask");
	EXPECT_OK(syscall(SYS_mq_notify, queue, &event), "mq_notify");
	EXPECT_ERROR(EBUSY, syscall(SYS_mq_notify, queue, &event), "once");
	in_child(of_another_process, "a child ends");
	REQUIRE(mq_send(queue, "one", 3, 0) == 0, "a message");
	EXPECT(sigtimedwait(&mask, &info, &limit) == SIGUSR1 && info.si_code == SI_MESGQ && info.si_value.sival_int == 42 &&
		       info.si_pid == getpid(),
	       "which a signal tells");
	EXPECT(attributes(NULL, &is) == 0 && is.mq_curmsgs == 1, "and mq_getsetattr");
	EXPECT_OK(syscall(SYS_mq_notify, queue, &event), "mq_notify again, as it is for one time");
	REQUIRE(mq_send(queue, "two", 3, 0) == 0, "another message");
	EXPECT_ERROR(EAGAIN, sigtimedwait(&mask, &info, &none), "is not told, as the queue was not empty");
	REQUIRE(mq_receive(queue, text, sizeof(text), NULL) == 3 && mq_receive(queue, text, sizeof(text), NULL) == 3, "both are taken");
	EXPECT_OK(syscall(SYS_mq_notify, queue, NULL), "mq_notify no more");
	REQUIRE(mq_send(queue, "three", 5, 0) == 0, "a message");
	EXPECT_ERROR(EAGAIN, sigtimedwait(&mask, &info, &none), "is not told then");
	REQUIRE(mq_receive(queue, text, sizeof(text), NULL) == 5, "and taken");
	wrong.sigev_signo = 99;
	EXPECT_ERROR(EINVAL, syscall(SYS_mq_notify, queue, &wrong), "mq_notify by no signal");
	wrong.sigev_notify = 99;
	EXPECT_ERROR(EINVAL, syscall(SYS_mq_notify, queue, &wrong), "and in no known way");
	EXPECT_ERROR(EBADF, syscall(SYS_mq_notify, 1, &event), "and of no queue");
	sigprocmask(SIG_UNBLOCK, &mask, NULL);

	/* The kernel writes to a socket of the C library's, where a thread waits. */
	REQUIRE(sem_init(&told, 0, 0) == 0, "sem_init");
	event = (struct sigevent){ .sigev_notify = SIGEV_THREAD, .sigev_notify_function = by_thread, .sigev_value.sival_int = 4711 };
	EXPECT_OK(mq_notify(queue, &event), "mq_notify by a thread");
	REQUIRE(mq_send(queue, "four", 4, 0) == 0, "a message");
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	EXPECT_OK(sem_timedwait(&told, &limit), "which the thread tells");
	mq_close(queue);
	mq_unlink("/messages");
}

int main(void)
{
	checks_begin();
	semaphores();
	queues();
	return checks_end();
}
