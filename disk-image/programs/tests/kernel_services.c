// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Services of the kernel that programs build on: files on ext4 and tmpfs, private mappings, pipes, UNIX and TCP sockets, eventfd, epoll,
 * signalfd, inotify, semaphores and queues; and what this kernel does without.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

/* What is done to a file less often, on the disk. */
static void on_the_disk(void)
{
	char one[8] = "", two[8] = "", *const path = "/var/one";
	struct iovec out[2] = { { "vec", 3 }, { "tors", 4 } }, in[2] = { { one, 3 }, { two, 4 } };
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), again = open(path, O_RDWR), folder = open("/var", O_RDONLY);
	int other = open("/var/other", O_RDWR | O_CREAT | O_TRUNC, 0600), near[2], far[2];
	struct stat status = { 0 };
	off_t at = 0;

	REQUIRE(fd >= 0 && again >= 0 && folder >= 0 && other >= 0, "files in /var");
	REQUIRE(pipe(near) == 0 && pipe(far) == 0, "pipes");
	EXPECT_VALUE(7, pwritev(fd, out, 2, 0), "pwritev");
	EXPECT(preadv(fd, in, 2, 0) == 7 && strcmp(one, "vec") == 0 && strcmp(two, "tors") == 0, "preadv");
	EXPECT_VALUE(7, readv(again, in, 2), "readv");
	EXPECT_VALUE(7, copy_file_range(fd, &at, other, NULL, 7, 0), "copy_file_range");
	at = 0;
	EXPECT_VALUE(7, sendfile(other, fd, &at, 7), "sendfile");
	at = 0;
	EXPECT_VALUE(7, splice(fd, &at, near[1], NULL, 7, 0), "splice from a file");
	EXPECT_VALUE(7, tee(near[0], far[1], 7, 0), "tee");
	EXPECT_VALUE(7, splice(near[0], NULL, other, NULL, 7, 0), "splice into a file");
	EXPECT(read(far[0], one, 7) == 7 && memcmp(one, "vectors", 7) == 0, "what was in both pipes");
	EXPECT(pread(other, back, 32, 0) == 21 && memcmp(back, "vectorsvectorsvectors", 21) == 0, "three ways to copy");
	EXPECT_OK(fallocate(fd, 0, 0, 65536), "fallocate");
	EXPECT(fstat(fd, &status) == 0 && status.st_size == 65536 && status.st_blocks >= 128, "has room made");
	EXPECT_OK(truncate(path, 5), "truncate");
	EXPECT_OK(close(dup(fd)), "dup");
	EXPECT_OK(flock(fd, LOCK_EX), "flock");
	EXPECT_ERROR(EWOULDBLOCK, flock(again, LOCK_EX | LOCK_NB), "and nobody else has the lock");
	EXPECT_OK(fcntl(fd, F_SETLK, &lock), "a lock of a record");
	EXPECT_OK(fchmod(fd, 0640) | fchown(fd, 1, 2) | futimens(fd, times), "fchmod, fchown, futimens");
	EXPECT_OK(fdatasync(fd) | syncfs(fd), "fdatasync, syncfs");
	REQUIRE(fchdir(folder) == 0, "fchdir");
	EXPECT(stat("one", &status) == 0 && status.st_size == 5 && (status.st_mode & 0777) == 0640 && status.st_uid == 1 &&
		       status.st_gid == 2 && status.st_mtime == 2000,
	       "of all of which stat tells");
	REQUIRE(chdir("/") == 0 && unlink(path) == 0 && unlink("/var/other") == 0, "unlink");
	for (int i = 0; i < 2; i++) {
		close(near[i]);
		close(far[i]);
	}
	close(fd);
	close(again);
	close(folder);
	close(other);
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

static void datagrams(void)
{
	struct iovec out[2] = { { "one", 3 }, { "two", 3 } }, in[2] = { { back, 8 }, { back + 8, 8 } };
	struct mmsghdr sent[2] = { { .msg_hdr = { .msg_iov = out, .msg_iovlen = 1 } }, { .msg_hdr = { .msg_iov = out + 1, .msg_iovlen = 1 } } };
	struct mmsghdr got[2] = { { .msg_hdr = { .msg_iov = in, .msg_iovlen = 1 } }, { .msg_hdr = { .msg_iov = in + 1, .msg_iovlen = 1 } } };
	socklen_t length = sizeof(int);
	int pair[2], type = 0;

	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0, "socketpair");
	/* The C library makes calls of sendmsg of it. */
	EXPECT_VALUE(2, syscall(SYS_sendmmsg, pair[0], sent, 2, 0), "sendmmsg");
	EXPECT(recvmmsg(pair[1], got, 2, 0, NULL) == 2 && got[1].msg_len == 3 && memcmp(back + 8, "two", 3) == 0, "recvmmsg");
	EXPECT(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_DGRAM, "getsockopt");
	close(pair[0]);
	close(pair[1]);
	EXPECT_ERROR(EAFNOSUPPORT, socket(AF_VSOCK, SOCK_STREAM, 0), "there is no vsock");
}

static void internet_6(void)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET6, SOCK_STREAM, 0), one = socket(AF_INET6, SOCK_STREAM, 0), other;
	char text[8] = { 0 };

	EXPECT_OK(bind(listener, (struct sockaddr *)&address, length), "bind to ::1");
	EXPECT_OK(listen(listener, 1), "listen");
	EXPECT_OK(getsockname(listener, (struct sockaddr *)&address, &length), "getsockname");
	EXPECT_OK(connect(one, (struct sockaddr *)&address, length), "connect to ::1");
	other = accept(listener, NULL, NULL);
	EXPECT_VALUE(5, write(one, "hello", 5), "write");
	EXPECT(read(other, text, sizeof(text)) == 5 && memcmp(text, "hello", 5) == 0, "over IPv6");
	close(other);
	close(one);
	close(listener);
}

static void messages(void)
{
	struct { long type; char text[8]; } message = { 1, "hello" };
	struct sembuf up = { .sem_op = 1 }, down = { .sem_op = -1, .sem_flg = IPC_NOWAIT };
	int set = semget(IPC_PRIVATE, 1, 0600), queue = msgget(IPC_PRIVATE, 0600);
	mqd_t box = mq_open("/box", O_RDWR | O_CREAT | O_NONBLOCK, 0600, NULL);

	EXPECT_OK(semop(set, &up, 1), "semop");
	EXPECT_OK(semop(set, &down, 1), "and back");
	EXPECT_ERROR(EAGAIN, semop(set, &down, 1), "no lower than zero");
	EXPECT_OK(semctl(set, 0, IPC_RMID), "semctl");
	EXPECT_OK(msgsnd(queue, &message, sizeof(message.text), 0), "msgsnd");
	memset(&message, 0, sizeof(message));
	EXPECT(msgrcv(queue, &message, sizeof(message.text), 0, 0) == 8 && strcmp(message.text, "hello") == 0, "msgrcv");
	EXPECT_OK(msgctl(queue, IPC_RMID, NULL), "msgctl");
	EXPECT_OK(mq_send(box, "hello", 5, 0), "mq_send");
	EXPECT_VALUE(5, mq_receive(box, (char *)back, sizeof(back), NULL), "mq_receive");
	EXPECT_ERROR(EAGAIN, mq_receive(box, (char *)back, sizeof(back), NULL), "of an empty queue");
	close(box);
	EXPECT_OK(mq_unlink("/box"), "mq_unlink");
}

/* What docs/system-calls.md says is not there. The numbers are those of all processors where the C library has no name. */
static void absent(void)
{
	static const struct {
		int number;
		const char *name;
	} calls[] = {
#define CALL(name) { SYS_##name, #name }
		CALL(acct), CALL(add_key), CALL(bpf), CALL(delete_module), CALL(fanotify_init), CALL(fanotify_mark), CALL(finit_module),
		CALL(get_mempolicy), CALL(init_module), CALL(kcmp), CALL(kexec_file_load), CALL(kexec_load), CALL(keyctl),
		CALL(lookup_dcookie), CALL(mbind), CALL(migrate_pages), CALL(move_pages), CALL(nfsservctl), CALL(perf_event_open),
		CALL(pkey_alloc), CALL(pkey_free), CALL(pkey_mprotect), CALL(quotactl), CALL(request_key), CALL(rseq), CALL(seccomp),
		CALL(set_mempolicy), CALL(swapoff), CALL(swapon), CALL(userfaultfd),
#ifdef __x86_64__
		CALL(_sysctl), CALL(afs_syscall), CALL(create_module), CALL(epoll_ctl_old), CALL(epoll_wait_old), CALL(get_kernel_syms),
		CALL(get_thread_area), CALL(getpmsg), CALL(ioperm), CALL(iopl), CALL(modify_ldt), CALL(putpmsg), CALL(query_module),
		CALL(security), CALL(set_thread_area), CALL(tuxcall), CALL(uselib), CALL(vserver), { 335, "uretprobe" },
#else
		/* They need virtual memory. */
		CALL(madvise), CALL(mincore), CALL(mlock), CALL(mlock2), CALL(mlockall), CALL(mprotect), CALL(msync), CALL(munlock),
		CALL(munlockall), CALL(process_vm_readv), CALL(process_vm_writev), CALL(remap_file_pages), { 440, "process_madvise" },
		{ 448, "process_mrelease" }, { 462, "mseal" },
#endif
		{ 443, "quotactl_fd" }, { 444, "landlock_create_ruleset" }, { 445, "landlock_add_rule" },
		{ 446, "landlock_restrict_self" }, { 447, "memfd_secret" }, { 450, "set_mempolicy_home_node" },
		{ 453, "map_shadow_stack" }, { 459, "lsm_get_self_attr" }, { 460, "lsm_set_self_attr" }, { 461, "lsm_list_modules" },
	};
	char name[64];

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		snprintf(name, sizeof(name), "there is no %s", calls[i].name);
		EXPECT_ERROR(ENOSYS, syscall(calls[i].number, -1L, -1L, -1L, -1L, -1L, -1L), name);
	}
	EXPECT_ERROR(EINVAL, unshare(CLONE_NEWPID), "there is one name space of processes");
	EXPECT_OK(unshare(CLONE_NEWNS), "mounts can be a program's own");
#ifdef __x86_64__
	EXPECT_ERROR(EPERM, syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, 4096), "programs have no GS base");
#endif
}

int main(void)
{
	checks_begin();
	/* /tmp is a file system in memory. */
	REQUIRE(mkdir("/var/ext4", 0755) == 0 || errno == EEXIST, "/var/ext4");
	files("/var/ext4");
	if (access("/dev/shm", W_OK) == 0)
		files("/dev/shm");
	on_the_disk();
	mappings();
	tcp();
	descriptors();
	datagrams();
	internet_6();
	messages();
	absent();
	return checks_end();
}
