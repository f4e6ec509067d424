// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Descriptors: closing many, those that signal events by the older calls, watches that are taken back, waits that are counted in nanoseconds,
 * memory given to a pipe, the other side of a connection, and descriptors of another process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#include "calls.h"

#define PAGE 4096

static int is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* In a child that shares its descriptors with nobody but by this. */
static void close_range_of_its_own(void)
{
	EXPECT_OK(syscall(SYS_close_range, 40, 49, 2 /* CLOSE_RANGE_UNSHARE */), "CLOSE_RANGE_UNSHARE");
	EXPECT(!is_open(40) && is_open(50), "closes");
}

static void many(void)
{
	for (int fd = 40; fd < 60; fd++)
		REQUIRE(dup2(1, fd) == fd, "descriptors 40 to 59");
	in_child(close_range_of_its_own, "a child that closes ends");
	EXPECT(is_open(40) && is_open(49), "what stays open elsewhere");
	close(45);
	EXPECT_OK(syscall(SYS_close_range, 42, 47, 0), "close_range, some of which are closed");
	EXPECT(is_open(41) && !is_open(42) && !is_open(47) && is_open(48), "closes these and no others");
	EXPECT_OK(syscall(SYS_close_range, 50, 52, 4 /* CLOSE_RANGE_CLOEXEC */), "CLOSE_RANGE_CLOEXEC");
	EXPECT(fcntl(49, F_GETFD) == 0 && fcntl(50, F_GETFD) == FD_CLOEXEC && fcntl(52, F_GETFD) == FD_CLOEXEC && fcntl(53, F_GETFD) == 0,
	       "marks them");
	EXPECT_ERROR(EINVAL, syscall(SYS_close_range, 60, 50, 0), "close_range backwards");
	EXPECT_ERROR(EINVAL, syscall(SYS_close_range, 50, 60, 1), "and with an unknown flag");
	EXPECT_OK(syscall(SYS_close_range, 40, ~0U, 0), "close_range of all above");
	EXPECT(!is_open(41) && !is_open(59) && is_open(1), "leaves what is below");
}

static void older_calls(void)
{
#ifdef SYS_eventfd
	uint64_t value = 3, mask = 1UL << (SIGUSR2 - 1);
	int event = (int)syscall(SYS_eventfd, 4), signals, watch;
	char info[128] = "";
	sigset_t set;

	EXPECT(event >= 0 && write(event, &value, 8) == 8 && read(event, &value, 8) == 8 && value == 7, "eventfd counts from its first value");
	EXPECT_VALUE(0, fcntl(event, F_GETFL) & O_NONBLOCK, "and waits");
	value = UINT64_MAX;
	EXPECT_ERROR(EINVAL, write(event, &value, 8), "a value that it cannot have");
	EXPECT_ERROR(EINVAL, read(event, &value, 4), "and a read of half of it");
	close(event);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	REQUIRE(sigprocmask(SIG_BLOCK, &set, NULL) == 0, "sigprocmask");
	signals = (int)syscall(SYS_signalfd, -1, &mask, 8);
	EXPECT(signals >= 0 && kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGUSR2) == 0, "signalfd");
	EXPECT(read(signals, info, sizeof(info)) == sizeof(info) && *(uint32_t *)info == SIGUSR2, "tells a signal of its mask");
	mask = 1UL << (SIGUSR1 - 1);
	EXPECT_VALUE(signals, syscall(SYS_signalfd, signals, &mask, 8), "signalfd changes the mask");
	EXPECT(read(signals, info, sizeof(info)) == sizeof(info) && *(uint32_t *)info == SIGUSR1, "and then tells the other");
	EXPECT_ERROR(EINVAL, syscall(SYS_signalfd, -1, &mask, 4), "a mask of another size");
	EXPECT_ERROR(EINVAL, syscall(SYS_signalfd, 1, &mask, 8), "and another descriptor");
	close(signals);
	sigprocmask(SIG_UNBLOCK, &set, NULL);

	watch = (int)syscall(SYS_inotify_init);
	EXPECT(watch >= 0 && fcntl(watch, F_GETFL) == O_RDONLY && fcntl(watch, F_GETFD) == 0, "inotify_init");
	EXPECT(inotify_add_watch(watch, "/tmp", IN_CREATE) == 1, "takes watches");
	close(watch);
#endif
}

static void watches(void)
{
	union {
		struct inotify_event event;
		char room[512];
	} change;
	int watch = inotify_init1(IN_NONBLOCK), number = inotify_add_watch(watch, "/tmp", IN_CREATE);

	EXPECT(number >= 0, "inotify_add_watch");
	EXPECT_OK(inotify_rm_watch(watch, number), "inotify_rm_watch");
	EXPECT(read(watch, &change, sizeof(change)) == sizeof(change.event) && change.event.mask == IN_IGNORED && change.event.wd == number,
	       "IN_IGNORED tells of it");
	close(open("/tmp/not-noticed", O_CREAT | O_WRONLY, 0600));
	EXPECT_ERROR(EAGAIN, read(watch, &change, sizeof(change)), "after which nothing is told");
	unlink("/tmp/not-noticed");
	EXPECT_ERROR(EINVAL, inotify_rm_watch(watch, number), "inotify_rm_watch of what is not watched");
	EXPECT_ERROR(EINVAL, inotify_rm_watch(1, number), "of no watches");
	close(watch);
	EXPECT_ERROR(EBADF, inotify_rm_watch(watch, number), "and of nothing");
}

static void waits(void)
{
	struct timespec none = { 0, 0 }, little = { 0, 2000000 }, wrong = { 0, 1000000000 }, begin, end;
	struct epoll_event wanted = { .events = EPOLLIN, .data.u32 = 9 }, got = { 0 };
	int set = epoll_create1(0), event = eventfd(0, 0);
	uint64_t mask = 1UL << (SIGUSR1 - 1), value = 1;
	sigset_t blocked;

	REQUIRE(set >= 0 && event >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, event, &wanted) == 0, "epoll");
	EXPECT_VALUE(0, syscall(SYS_epoll_pwait2, set, &got, 1, &none, NULL, 8), "epoll_pwait2 without an event");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	EXPECT_VALUE(0, syscall(SYS_epoll_pwait2, set, &got, 1, &little, NULL, 8), "epoll_pwait2 for two milliseconds");
	clock_gettime(CLOCK_MONOTONIC, &end);
	EXPECT((end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec >= 2000000, "which takes so long");
	EXPECT_ERROR(EINVAL, syscall(SYS_epoll_pwait2, set, &got, 1, &wrong, NULL, 8), "a time that there is not");
	EXPECT_ERROR(EINVAL, syscall(SYS_epoll_pwait2, set, &got, 0, &none, NULL, 8), "no room for an event");
	EXPECT_ERROR(EINVAL, syscall(SYS_epoll_pwait2, set, &got, 1, &none, &mask, 4), "and a mask of another size");
	REQUIRE(write(event, &value, 8) == 8, "an event");
	EXPECT(syscall(SYS_epoll_pwait2, set, &got, 1, NULL, NULL, 8) == 1 && got.data.u32 == 9, "epoll_pwait2 without an end");
	REQUIRE(read(event, &value, 8) == 8, "which is taken");
	/* A signal that is blocked arrives as long as the wait has another mask. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	REQUIRE(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0 && signal(SIGUSR2, checks_jump_back) != SIG_ERR, "a signal that is blocked");
	if (sigsetjmp(checks_back, 1) == 0) {
		raise(SIGUSR2);
		syscall(SYS_epoll_pwait2, set, &got, 1, NULL, &mask, 8);
		check(0, "epoll_pwait2 with a mask", "%s", "no signal came");
	} else {
		reached("epoll_pwait2 with a mask");
	}
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	signal(SIGUSR2, SIG_DFL);
	close(set);
	close(event);
}

static void given_to_pipes(void)
{
	char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), text[16] = "";
	struct iovec parts[2] = { { memory, 5 }, { memory + PAGE, 6 } }, whole = { text, 11 };
	int pipes[2], file = open("/tmp/no-pipe", O_RDWR | O_CREAT, 0600);

	REQUIRE(memory != MAP_FAILED && pipe2(pipes, O_NONBLOCK) == 0 && file >= 0, "memory, a pipe, a file");
	memcpy(memory, "hello", 5);
	memcpy(memory + PAGE, " pipes", 6);
	EXPECT_VALUE(11, vmsplice(pipes[1], parts, 2, 0), "vmsplice");
	/* The pipe has the pages, not a copy: until it is read, stores to them are seen. */
	memory[0] = 'J';
	EXPECT(read(pipes[0], text, sizeof(text)) == 11 && memcmp(text, "Jello pipes", 11) == 0, "has the pipe share the memory");
	memset(text, 0, sizeof(text));
	REQUIRE(write(pipes[1], "hello again", 11) == 11, "write");
	EXPECT(vmsplice(pipes[0], &whole, 1, 0) == 11 && memcmp(text, "hello again", 11) == 0, "vmsplice from a pipe copies");
	EXPECT_ERROR(EAGAIN, vmsplice(pipes[0], &whole, 1, SPLICE_F_NONBLOCK), "if there is something");
	EXPECT_ERROR(EBADF, vmsplice(file, parts, 1, 0), "vmsplice needs a pipe");
	EXPECT_ERROR(EINVAL, vmsplice(pipes[1], parts, 1, 64), "and known flags");
	EXPECT_VALUE(0, vmsplice(pipes[1], parts, 0, 0), "vmsplice of nothing");
	unlink("/tmp/no-pipe");
	close(file);
	close(pipes[0]);
	close(pipes[1]);
	munmap(memory, 2 * PAGE);
}

static void peers(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, ours, theirs = { 0 };
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), other, pair[2];
	struct sockaddr_un name = { 0 };
	socklen_t length = sizeof(here);

	REQUIRE(bind(listener, (void *)&here, sizeof(here)) == 0 && listen(listener, 1) == 0, "a listener");
	REQUIRE(getsockname(listener, (void *)&here, &length) == 0, "getsockname");
	EXPECT_ERROR(ENOTCONN, getpeername(client, (void *)&theirs, &length), "getpeername without a peer");
	REQUIRE(connect(client, (void *)&here, sizeof(here)) == 0 && (other = accept(listener, NULL, NULL)) >= 0, "a connection");
	EXPECT(getpeername(client, (void *)&theirs, &length) == 0 && length == sizeof(theirs) && theirs.sin_port == here.sin_port &&
		       theirs.sin_addr.s_addr == htonl(INADDR_LOOPBACK),
	       "getpeername tells the listener's address");
	EXPECT(getsockname(client, (void *)&ours, &length) == 0 && getpeername(other, (void *)&theirs, &length) == 0 &&
		       ours.sin_port == theirs.sin_port,
	       "and at the other side the client's");
	length = 4;
	EXPECT(getpeername(client, (void *)&theirs, &length) == 0 && length == sizeof(theirs), "and how much room it takes");
	length = (socklen_t)-1;
	EXPECT_ERROR(EINVAL, getpeername(client, (void *)&theirs, &length), "getpeername with an impossible length");
	length = sizeof(name);
	EXPECT_ERROR(ENOTSOCK, getpeername(1, (void *)&name, &length), "getpeername of no socket");
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	EXPECT(getpeername(pair[0], (void *)&name, &length) == 0 && name.sun_family == AF_UNIX && length == 2, "a peer without a name");
	close(pair[0]);
	close(pair[1]);
	close(other);
	close(client);
	close(listener);
}

static int handle, there;

static void as_nobody(void)
{
	become_nobody();
	EXPECT_ERROR(EPERM, syscall(SYS_pidfd_getfd, handle, there, 0), "pidfd_getfd is not for everybody");
}

static void of_other_processes(void)
{
	int pipes[2], got;
	char byte = 0;

	REQUIRE(pipe(pipes) == 0, "pipe");
	/* The program's parent, process 1, has no descriptors to spare; its own are as good. */
	handle = (int)syscall(SYS_pidfd_open, getpid(), 0);
	there = pipes[1];
	got = (int)syscall(SYS_pidfd_getfd, handle, there, 0);
	EXPECT(got >= 0 && got != there && fcntl(got, F_GETFD) == FD_CLOEXEC, "pidfd_getfd");
	close(there);
	EXPECT(write(got, "x", 1) == 1 && read(pipes[0], &byte, 1) == 1 && byte == 'x', "is the same open file");
	there = got;
	in_child(as_nobody, "a child without rights ends");
	EXPECT_ERROR(EBADF, syscall(SYS_pidfd_getfd, handle, 9999, 0), "pidfd_getfd of a descriptor that there is not");
	EXPECT_ERROR(EINVAL, syscall(SYS_pidfd_getfd, handle, got, 1), "with an unknown flag");
	EXPECT_ERROR(EBADF, syscall(SYS_pidfd_getfd, pipes[0], got, 0), "and by what is no process");
	close(got);
	close(handle);
	close(pipes[0]);
}

int main(void)
{
	checks_begin();
	many();
	older_calls();
	watches();
	waits();
	given_to_pipes();
	peers();
	of_other_processes();
	return checks_end();
}
