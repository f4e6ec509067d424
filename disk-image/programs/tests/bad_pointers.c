// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A bad pointer given to a system call is EFAULT, for every way in which a kernel copies: in, out, strings, vectors, structures.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* The C library dereferences some of these itself: the calls are made without it. All architectures have these calls. */
#define CALL(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

static void with_pointer(void *bad, const char *where)
{
	char name[128], data[64] = "";
	int zero = open("/dev/zero", O_RDWR), ends[2], pair[2];
	struct iovec only[1] = { { bad, 64 } };

	REQUIRE(zero >= 0, "/dev/zero");
	REQUIRE(pipe(ends) == 0, "pipe");
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	REQUIRE(write(ends[1], data, sizeof(data)) == sizeof(data), "filling the pipe");

#define BAD(call, what)                                        \
	do {                                                       \
		snprintf(name, sizeof(name), "%s, pointer %s", what, where); \
		EXPECT_ERROR(EFAULT, call, name);                      \
	} while (0)

	BAD(CALL(read, zero, bad, 64), "read");
	BAD(CALL(read, ends[0], bad, 64), "read from a pipe");
	BAD(CALL(write, ends[1], bad, 64), "write to a pipe");
	BAD(CALL(writev, ends[1], only, 1), "writev");
	BAD(CALL(readv, zero, bad, 2), "readv with a bad vector");
	BAD(CALL(chdir, bad), "chdir");
	BAD(CALL(openat, AT_FDCWD, bad, O_RDONLY), "openat");
	BAD(CALL(newfstatat, AT_FDCWD, bad, data, 0), "stat of a bad name");
	BAD(CALL(newfstatat, AT_FDCWD, "/", bad, 0), "stat");
	BAD(CALL(fstat, zero, bad), "fstat");
	BAD(CALL(faccessat, AT_FDCWD, bad, R_OK), "access");
	BAD(CALL(readlinkat, AT_FDCWD, bad, data, sizeof(data)), "readlink");
	BAD(CALL(getcwd, bad, 64), "getcwd");
	BAD(CALL(uname, bad), "uname");
	BAD(CALL(pipe2, bad, 0), "pipe2");
	BAD(CALL(ppoll, bad, 1, NULL, NULL, 8), "poll");
	BAD(CALL(clock_gettime, CLOCK_MONOTONIC, bad), "clock_gettime");
	BAD(CALL(nanosleep, bad, NULL), "nanosleep");
	BAD(CALL(rt_sigaction, SIGUSR1, bad, NULL, 8), "sigaction");
	BAD(CALL(rt_sigprocmask, SIG_BLOCK, bad, NULL, 8), "sigprocmask");
	BAD(CALL(setitimer, ITIMER_REAL, bad, NULL), "setitimer");
	BAD(CALL(futex, bad, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0), "futex");
	BAD(CALL(execve, bad, NULL, NULL), "execve");
	BAD(CALL(execve, "/proc/self/exe", bad, NULL), "execve with bad arguments");
	BAD(CALL(sendto, pair[0], bad, 64, 0, NULL, 0), "send");
	BAD(CALL(sendmsg, pair[0], bad, 0), "sendmsg");
	BAD(CALL(getdents64, open("/", O_RDONLY | O_DIRECTORY), bad, 64), "getdents");

	snprintf(name, sizeof(name), "the pipe still works, pointer %s", where);
	EXPECT_VALUE(64, read(ends[0], data, sizeof(data)), name);
	close(zero);
	close(ends[0]);
	close(ends[1]);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	checks_begin();
	with_pointer((void *)16, "in the first page");
	with_pointer((void *)(UINTPTR_MAX - 4095), "in the last page");
	with_pointer((void *)((UINTPTR_MAX >> 17) - 4095), "at the end of user addresses");
	with_pointer((void *)((UINTPTR_MAX >> 1) & ~(uintptr_t)4095), "that is not canonical");
	return checks_end();
}
