// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Services of the kernel that programs build on: files on ext4 and tmpfs, private mappings, pipes, UNIX and TCP sockets, eventfd, epoll,
 * signalfd, inotify.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#define FILE_SIZE (1 << 20)

static unsigned char data[FILE_SIZE], back[FILE_SIZE];

static void files(const char *folder)
{
	char path[64], other[64], name[128];
	struct stat status = { 0 };
	int fd;

	snprintf(path, sizeof(path), "%s/file", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 31 + i / 4096);
	REQUIRE((fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640)) >= 0, path);
	snprintf(name, sizeof(name), "write of 1 MiB in %s", folder);
	EXPECT_VALUE(FILE_SIZE, write(fd, data, sizeof(data)), name);
	snprintf(name, sizeof(name), "fsync in %s", folder);
	EXPECT_OK(fsync(fd), name);
	memset(back, 0, sizeof(back));
	snprintf(name, sizeof(name), "read of 1 MiB in %s", folder);
	EXPECT_VALUE(FILE_SIZE, pread(fd, back, sizeof(back), 0), name);
	snprintf(name, sizeof(name), "it is what was written in %s", folder);
	EXPECT(memcmp(data, back, sizeof(data)) == 0, name);
	EXPECT_OK(ftruncate(fd, 12345), "ftruncate");
	EXPECT(fstat(fd, &status) == 0 && status.st_size == 12345 && (status.st_mode & 0777) == 0640, "fstat");
	close(fd);
	EXPECT_OK(rename(path, other), "rename");
	EXPECT_ERROR(ENOENT, open(path, O_RDONLY), "the old name is gone");
	EXPECT_OK(link(other, path), "link");
	EXPECT(stat(path, &status) == 0 && status.st_nlink == 2, "two names");
	EXPECT_OK(unlink(path), "unlink");
	EXPECT_OK(symlink("other", path), "symlink");
	EXPECT_VALUE(5, readlink(path, name, sizeof(name)), "readlink");
	EXPECT_OK(unlink(path), "unlink of a symlink");
	EXPECT_OK(unlink(other), "unlink of the last name");
	EXPECT_OK(mkdir(path, 0755), "mkdir");
	EXPECT_OK(rmdir(path), "rmdir");
}

static void mappings(void)
{
	unsigned char *memory, *file;
	int fd, wrong = 0;

	memory = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(memory != MAP_FAILED, "mmap of 8 MiB");
	for (size_t i = 0; i < 8 << 20; i += 4096)
		wrong += memory[i] != 0;
	EXPECT_VALUE(0, wrong, "anonymous memory is zero");
	EXPECT_OK(munmap(memory, 8 << 20), "munmap");
	REQUIRE((fd = open("/tmp/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0, "/tmp/mapped");
	REQUIRE(write(fd, data, sizeof(data)) == FILE_SIZE, "write");
	file = mmap(NULL, FILE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	REQUIRE(file != MAP_FAILED, "private mapping of a file");
	EXPECT(memcmp(file, data, sizeof(data)) == 0, "a mapping has the file's contents");
	EXPECT_OK(munmap(file, FILE_SIZE), "munmap of a file");
	close(fd);
	unlink("/tmp/mapped");
	/* As often as would fill the memory of a cVM if anything were lost. */
	for (int i = 0; i < 500; i++) {
		memory = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED || munmap(memory, 4 << 20) != 0)
			wrong++;
	}
	EXPECT_VALUE(0, wrong, "five hundred mappings, one after the other");
}

static void *echo(void *argument)
{
	int connection = accept((int)(intptr_t)argument, NULL, NULL);
	char bytes[4096];
	ssize_t n;

	while ((n = read(connection, bytes, sizeof(bytes))) > 0)
		if (write(connection, bytes, (size_t)n) != n)
			break;
	close(connection);
	return NULL;
}

static void tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t length = sizeof(address);
	pthread_t thread;
	size_t done = 0;

	REQUIRE(listener >= 0 && client >= 0, "socket");
	EXPECT_OK(bind(listener, (void *)&address, sizeof(address)), "bind to the loopback address");
	EXPECT_OK(listen(listener, 1), "listen");
	REQUIRE(getsockname(listener, (void *)&address, &length) == 0, "getsockname");
	REQUIRE((errno = pthread_create(&thread, NULL, echo, (void *)(intptr_t)listener)) == 0, "pthread_create");
	EXPECT_OK(connect(client, (void *)&address, sizeof(address)), "connect");
	memset(back, 0, sizeof(back));
	while (done < 65536) {
		size_t n = 0;

		REQUIRE(write(client, data + done, 4096) == 4096, "send");
		while (n < 4096) {
			ssize_t got = read(client, back + done + n, 4096 - n);

			REQUIRE(got > 0, "receive");
			n += (size_t)got;
		}
		done += n;
	}
	EXPECT(memcmp(data, back, done) == 0, "64 KiB by TCP and back");
	close(client);
	pthread_join(thread, NULL);
	close(listener);
}

static void descriptors(void)
{
	struct epoll_event wanted = { .events = EPOLLIN, .data.u32 = 7 }, got;
	int pair[2], set = epoll_create1(0), event = eventfd(0, EFD_NONBLOCK), signals, watch;
	struct signalfd_siginfo info = { 0 };
	struct inotify_event *change = (void *)back;
	uint64_t value = 5;
	sigset_t mask;
	char text[8] = "";

	REQUIRE(set >= 0 && event >= 0, "epoll and eventfd");
	REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, event, &wanted) == 0, "epoll_ctl");
	EXPECT_VALUE(0, epoll_wait(set, &got, 1, 0), "epoll without an event");
	EXPECT_VALUE(8, write(event, &value, 8), "write to an eventfd");
	EXPECT(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u32 == 7, "epoll with an event");
	EXPECT(read(event, &value, 8) == 8 && value == 5, "read of an eventfd");
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	EXPECT(send(pair[0], "hello", 5, 0) == 5 && recv(pair[1], text, 8, 0) == 5 && strcmp(text, "hello") == 0, "a UNIX socket");
	close(pair[0]);
	EXPECT_VALUE(0, recv(pair[1], text, 8, 0), "its end");
	close(pair[1]);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	REQUIRE(sigprocmask(SIG_BLOCK, &mask, NULL) == 0, "sigprocmask");
	REQUIRE((signals = signalfd(-1, &mask, 0)) >= 0, "signalfd");
	raise(SIGUSR1);
	EXPECT(read(signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1, "signalfd");
	REQUIRE((watch = inotify_init1(0)) >= 0, "inotify");
	REQUIRE(inotify_add_watch(watch, "/tmp", IN_CREATE) >= 0, "inotify_add_watch");
	close(open("/tmp/noticed", O_CREAT | O_WRONLY, 0600));
	EXPECT(read(watch, back, sizeof(back)) > 0 && change->mask == IN_CREATE && strcmp(change->name, "noticed") == 0, "inotify");
	unlink("/tmp/noticed");
	close(set);
	close(event);
	close(signals);
	close(watch);
}

int main(void)
{
	checks_begin();
	REQUIRE(mkdir("/tmp/ext4", 0755) == 0 || errno == EEXIST, "/tmp/ext4");
	files("/tmp/ext4");
	if (access("/dev/shm", W_OK) == 0)
		files("/dev/shm");
	mappings();
	tcp();
	descriptors();
	return checks_end();
}
