/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * For programs that test system calls one by one: numbers that the C library is too old for, which all processors share, clocks, and children. There
 * is no fork where there is no virtual memory, so a child here is one of vfork: it has the parent's memory, its checks count, and the parent
 * goes on when it has ended. What it changes of itself (user, name space, directory) is its own.
 */
#ifndef CALLS_H
#define CALLS_H

#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/* A user of no importance. */
#define NOBODY 1000

/* In nanoseconds. */
__attribute__((unused)) static int64_t now(clockid_t clock)
{
	struct timespec time = { 0 };

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* How a child ended: its exit status, or 128 and the signal. */
__attribute__((unused)) static int ended_with(pid_t child)
{
	int status = -1;

	if (waitpid(child, &status, 0) != child)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Has a child do this, and checks that it comes back from it. */
__attribute__((unused, noinline)) static void in_child(void (*body)(void), const char *name)
{
	pid_t child = vfork();

	if (child == 0) {
		body();
		_exit(0);
	}
	EXPECT_VALUE(0, ended_with(child), name);
}

/* Gives up all rights, as a child does for good. The call alone: the C library would have threads follow. */
__attribute__((unused)) static void become_nobody(void)
{
	EXPECT_OK(syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) | syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY), "become somebody else");
}

#endif
