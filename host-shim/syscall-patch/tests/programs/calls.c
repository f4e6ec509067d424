// SPDX-License-Identifier: Apache-2.0 OR MIT
// Makes many system calls through the wrappers of its C library, and checks what they do. Ends with 0 if all is well.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// From linux/futex.h, which musl's headers do not have.
enum { WAIT = 0, WAKE = 1 };

#define CHECK(what) do { if (!(what)) { \
	dprintf(2, "line %d: %s: %s\n", __LINE__, #what, strerror(errno)); _exit(1); } } while (0)

static volatile int handled;

static void on_usr1(int number)
{
	char byte;
	// A system call that is interrupted, and one that fails, in the handler.
	CHECK(getppid() > 0);
	CHECK(read(-1, &byte, 1) == -1 && errno == EBADF);
	handled += number == SIGUSR1;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;
	int pipes[2], sockets[2];
	char buffer[256];
	struct sigaction action = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };

	CHECK(pipe2(pipes, O_CLOEXEC) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	int epoll = epoll_create1(0);
	int event = eventfd(0, 0);
	struct epoll_event wanted = { .events = EPOLLIN, .data.fd = event };
	CHECK(epoll >= 0 && event >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted) == 0);

	for (int round = 0; round < rounds; round++) {
		int len = snprintf(buffer, sizeof buffer, "round %d", round), waiting = 0;
		CHECK(write(pipes[1], buffer, len) == len);
		CHECK(ioctl(pipes[0], FIONREAD, &waiting) == 0 && waiting == len);
		struct pollfd poll_one = { .fd = pipes[0], .events = POLLIN };
		CHECK(poll(&poll_one, 1, 0) == 1 && poll_one.revents == POLLIN);
		memset(buffer, 0, sizeof buffer);
		CHECK(read(pipes[0], buffer, sizeof buffer) == len && atoi(buffer + 6) == round);

		struct iovec parts[2] = { { buffer, 3 }, { buffer + 3, 5 } };
		CHECK(writev(pipes[1], parts, 2) == 8 && readv(pipes[0], parts, 2) == 8);
		CHECK(send(sockets[0], buffer, 7, 0) == 7);
		CHECK(recv(sockets[1], buffer, sizeof buffer, 0) == 7);

		int fd = open("/dev/null", O_RDWR);
		struct stat status;
		CHECK(fd >= 0 && fstat(fd, &status) == 0 && S_ISCHR(status.st_mode));
		CHECK(stat("/dev/null", &status) == 0 && access("/dev/null", R_OK) == 0);
		CHECK(dup2(fd, 100) == 100 && fcntl(100, F_GETFD) == 0 && close(100) == 0);
		CHECK(lseek(fd, 0, SEEK_SET) == 0 && close(fd) == 0);
		CHECK(close(fd) == -1 && errno == EBADF);

		unsigned char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(map != MAP_FAILED);
		map[4096] = 7;
		CHECK(mprotect(map, 4096, PROT_READ) == 0 && madvise(map, 8192, MADV_DONTNEED) == 0);
		CHECK(map[4096] == 0 && munmap(map, 8192) == 0);

		struct timespec now, none = { 0, 1 };
		struct timeval zero = { 0, 0 };
		fd_set set;
		FD_ZERO(&set);
		FD_SET(pipes[0], &set);
		CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && nanosleep(&none, NULL) == 0);
		CHECK(select(pipes[0] + 1, &set, NULL, NULL, &zero) == 0);
		CHECK(getpid() == (pid_t)syscall(SYS_getpid) && getuid() == geteuid());
		int word = 1;
		CHECK(syscall(SYS_futex, &word, WAKE, 1, NULL, NULL, 0) == 0);
		CHECK(syscall(SYS_futex, &word, WAIT, 2, NULL, NULL, 0) == -1 && errno == EAGAIN);

		unsigned long long count = round + 1;
		struct epoll_event got;
		CHECK(write(event, &count, 8) == 8 && epoll_wait(epoll, &got, 1, -1) == 1);
		CHECK(got.data.fd == event && read(event, &count, 8) == 8 && count == round + 1ULL);

		if (round % 16 == 0) {
			int before = handled, result;
			CHECK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1) == 0);
			CHECK(handled == before + 1);
			pid_t child = fork();
			CHECK(child >= 0);
			if (child == 0)
				_exit(getppid() > 0 ? round & 63 : 99);
			CHECK(waitpid(child, &result, 0) == child && WEXITSTATUS(result) == (round & 63));
		}
	}
	printf("%d rounds, %d signals\n", rounds, handled);
	return fflush(stdout);
}
