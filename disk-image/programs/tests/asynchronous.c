// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Reading and writing that goes on while the program does: by contexts, whose finished requests are fetched with a call, and by rings, which are
 * memory that the program shares with the kernel.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "calls.h"

#define FILE_PATH "/var/asynchronous"
#define COUNT 8
#define SIZE 4096

static char out[COUNT][SIZE], in[COUNT][SIZE];

/* Requests to a context, and what is told when they are done. */
enum { context_read = 0, context_write = 1, context_sync = 2, context_poll = 5, context_read_vectors = 7, context_write_vectors = 8 };
enum { tell_descriptor = 1 };

struct request {
	uint64_t data;
	uint32_t key;
	int flags;
	uint16_t operation;
	int16_t priority;
	uint32_t fd;
	uint64_t buffer, length;
	int64_t offset;
	uint64_t spare;
	uint32_t more, event;
};

struct done {
	uint64_t data, request;
	int64_t result, second;
};

static struct request *request(struct request *this, unsigned operation, int fd, void *buffer, size_t length, long offset)
{
	*this = (struct request){ .data = (uintptr_t)this,
				  .operation = (uint16_t)operation,
				  .fd = (uint32_t)fd,
				  .buffer = (uintptr_t)buffer,
				  .length = length,
				  .offset = offset };
	return this;
}

static void by_contexts(void)
{
	struct timespec none = { 0, 0 };
	struct request all[COUNT], *list[COUNT], one, *single = &one;
	struct done done[COUNT] = { { 0 } };
	int fd = open(FILE_PATH, O_RDWR | O_CREAT | O_TRUNC, 0600), event = eventfd(0, EFD_NONBLOCK), pipes[2];
	struct { const uint64_t *mask; size_t size; } with_mask = { NULL, 8 };
	struct iovec vectors[2] = { { in[0], 100 }, { in[1], 200 } };
	uint64_t context = 0, other = 0, count = 0, mask = 1UL << (SIGUSR1 - 1);
	sigset_t blocked;
	long good = 0, status;

	status = syscall(SYS_io_setup, COUNT, &context);
#ifndef __x86_64__
	/* The kernel has the results in memory of the program's, which takes virtual memory. */
	check(status == -1 && errno == ENOMEM, "io_setup has no memory", "returned %ld, %s", status, strerror(errno));
	if (status != 0)
		return;
#endif
	EXPECT_OK(status, "io_setup");
	REQUIRE(fd >= 0 && event >= 0 && pipe(pipes) == 0 && context != 0, "a file, an eventfd, a pipe, a context");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_setup, 0, &other), "io_setup for nothing");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_setup, COUNT, &context), "io_setup in a place that is not empty");

	for (int i = 0; i < COUNT; i++) {
		memset(out[i], 'a' + i, SIZE);
		list[i] = request(&all[i], context_write, fd, out[i], SIZE, i * SIZE);
	}
	EXPECT_VALUE(COUNT, syscall(SYS_io_submit, context, COUNT, list), "io_submit of eight writes");
	EXPECT_VALUE(COUNT, syscall(SYS_io_getevents, context, COUNT, COUNT, done, NULL), "io_getevents");
	for (int i = 0; i < COUNT; i++)
		good += done[i].result == SIZE && ((struct request *)(uintptr_t)done[i].data)->offset / SIZE < COUNT;
	EXPECT_VALUE(COUNT, good, "tells how each went");
	EXPECT_VALUE(0, syscall(SYS_io_getevents, context, 0, COUNT, done, &none), "and each once");
	single = request(&one, context_sync, fd, NULL, 0, 0);
	EXPECT_VALUE(1, syscall(SYS_io_submit, context, 1, &single), "a request to sync");
	EXPECT(syscall(SYS_io_getevents, context, 1, 1, done, NULL) == 1 && done->result == 0, "is done");
	for (int i = 0; i < COUNT; i++) {
		list[i] = request(&all[i], context_read, fd, in[i], SIZE, (COUNT - 1 - i) * SIZE);
		all[i].more = tell_descriptor;
		all[i].event = (uint32_t)event;
	}
	EXPECT_VALUE(COUNT, syscall(SYS_io_submit, context, COUNT, list), "eight reads");
	EXPECT_VALUE(COUNT, syscall(SYS_io_pgetevents, context, COUNT, COUNT, done, NULL, NULL), "io_pgetevents");
	good = 0;
	for (int i = 0; i < COUNT; i++)
		good += memcmp(in[i], out[COUNT - 1 - i], SIZE) == 0;
	EXPECT_VALUE(COUNT, good, "they read what was written");
	EXPECT(read(event, &count, 8) == 8 && count == COUNT, "and an eventfd tells of each");
	single = request(&one, context_read_vectors, fd, vectors, 2, SIZE - 100);
	EXPECT_VALUE(1, syscall(SYS_io_submit, context, 1, &single), "a read into two places");
	EXPECT(syscall(SYS_io_getevents, context, 1, 1, done, NULL) == 1 && done->result == 300 && in[0][99] == 'a' && in[1][0] == 'b',
	       "reads into both");

	/* What is not done yet: a wait for a pipe. */
	single = request(&one, context_poll, pipes[0], (void *)1 /* POLLIN */, 0, 0);
	EXPECT_VALUE(1, syscall(SYS_io_submit, context, 1, &single), "a wait for a pipe");
	EXPECT_VALUE(0, syscall(SYS_io_getevents, context, 0, 1, done, &none), "is not done");
	REQUIRE(write(pipes[1], "x", 1) == 1, "write");
	EXPECT(syscall(SYS_io_getevents, context, 1, 1, done, NULL) == 1 && done->result & 1 && done->data == (uintptr_t)&one,
	       "until there is something");
	REQUIRE(read(pipes[0], in, 1) == 1, "read");
	single = request(&one, context_poll, pipes[0], (void *)1, 0, 0);
	REQUIRE(syscall(SYS_io_submit, context, 1, &single) == 1, "another wait");
	EXPECT_ERROR(EINPROGRESS, syscall(SYS_io_cancel, context, &one, done), "io_cancel");
	EXPECT(syscall(SYS_io_getevents, context, 1, 1, done, NULL) == 1 && done->data == (uintptr_t)&one, "ends the wait");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_cancel, context, &one, done), "io_cancel of what is done");

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	REQUIRE(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0 && signal(SIGUSR2, checks_jump_back) != SIG_ERR, "a signal that is blocked");
	with_mask.mask = &mask;
	if (sigsetjmp(checks_back, 1) == 0) {
		raise(SIGUSR2);
		syscall(SYS_io_pgetevents, context, 1, 1, done, NULL, &with_mask);
		check(0, "io_pgetevents with a mask", "%s", "no signal came");
	} else {
		reached("io_pgetevents with a mask");
	}
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	signal(SIGUSR2, SIG_DFL);

	single = request(&one, context_read, 9999, in, 1, 0);
	EXPECT_ERROR(EBADF, syscall(SYS_io_submit, context, 1, &single), "io_submit for no file");
	single = request(&one, 99, fd, in, 1, 0);
	EXPECT_ERROR(EINVAL, syscall(SYS_io_submit, context, 1, &single), "and of no operation");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_getevents, context, 2, 1, done, NULL), "io_getevents of more than there is room for");
	EXPECT_OK(syscall(SYS_io_destroy, context), "io_destroy");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_destroy, context), "once");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_submit, context, 0, list), "then nothing is submitted");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_getevents, context, 0, 1, done, NULL), "nor fetched");
	close(fd);
	close(event);
	close(pipes[0]);
	close(pipes[1]);
	unlink(FILE_PATH);
}

/* Requests to a ring. */
enum {
	ring_nothing = 0, ring_read_vectors = 1, ring_sync = 3, ring_read_fixed = 4, ring_poll = 6, ring_timeout = 11, ring_cancel = 14,
	ring_read = 22, ring_write = 23,
};
enum { register_buffers = 0, unregister_buffers = 1, register_files = 2, unregister_files = 3, register_event = 4, unregister_event = 5, probe = 8 };
enum { fixed_file = 1, get_events = 1, one_mapping = 1 };

struct entry {
	uint8_t operation, flags;
	uint16_t priority;
	int fd;
	uint64_t offset, address;
	uint32_t length, more;
	uint64_t data;
	uint16_t buffer, person;
	int spare;
	uint64_t rest[2];
};

struct completion {
	uint64_t data;
	int result;
	uint32_t flags;
};

struct parameters {
	uint32_t entries, completions, flags, processor, idle, features, queue, spare[3];
	struct {
		uint32_t head, tail, mask, entries, flags, dropped, array, spare;
		uint64_t more;
	} to;
	struct {
		uint32_t head, tail, mask, entries, overflow, all, flags, spare;
		uint64_t more;
	} from;
};

static struct {
	int fd;
	char *memory;
	size_t size;
	struct entry *entries;
	struct parameters parameters;
} ring;

static uint32_t *word(uint32_t at)
{
	return (uint32_t *)(ring.memory + at);
}

/* Puts a request into the ring, which tells of it by its own number. */
static struct entry *put(unsigned operation, int fd, const void *address, size_t length, long offset, uint64_t data)
{
	uint32_t tail = *word(ring.parameters.to.tail), slot = tail & *word(ring.parameters.to.mask);

	ring.entries[slot] = (struct entry){ .operation = (uint8_t)operation,
					     .fd = fd,
					     .address = (uintptr_t)address,
					     .length = (uint32_t)length,
					     .offset = (uint64_t)offset,
					     .data = data };
	word(ring.parameters.to.array)[slot] = slot;
	__atomic_store_n(word(ring.parameters.to.tail), tail + 1, __ATOMIC_RELEASE);
	return &ring.entries[slot];
}

static long enter(unsigned submit, unsigned wait)
{
	return syscall(SYS_io_uring_enter, ring.fd, submit, wait, wait ? get_events : 0, NULL, 0);
}

/* The next that is done, if any is. */
static struct completion next(void)
{
	uint32_t head = *word(ring.parameters.from.head);
	struct completion *all = (void *)word(ring.parameters.from.all), none = { 0 };

	if (head == __atomic_load_n(word(ring.parameters.from.tail), __ATOMIC_ACQUIRE))
		return none;
	none = all[head & *word(ring.parameters.from.mask)];
	__atomic_store_n(word(ring.parameters.from.head), head + 1, __ATOMIC_RELEASE);
	return none;
}

/* Whether a request that was put is done, with this result. */
static int ends_with(uint64_t data, int result)
{
	struct completion done;

	if (enter(1, 1) != 1)
		return 0;
	done = next();
	if (done.data != data || done.result != result)
		printf("request %lu: %d instead of %d\n", (unsigned long)done.data, done.result, result);
	return done.data == data && done.result == result;
}

static int make_ring(void)
{
	struct parameters *is = &ring.parameters;
	size_t other;

	ring.fd = (int)syscall(SYS_io_uring_setup, COUNT, is);
	EXPECT(ring.fd >= 0 && is->entries == COUNT && is->completions == 2 * COUNT, "io_uring_setup");
	EXPECT(is->features & one_mapping, "makes both rings one mapping");
	if (ring.fd < 0)
		return 0;
	ring.size = is->to.array + is->entries * 4;
	other = is->from.all + is->completions * sizeof(struct completion);
	if (other > ring.size)
		ring.size = other;
	ring.memory = mmap(NULL, ring.size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0);
	ring.entries = mmap(NULL, COUNT * sizeof(struct entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0x10000000);
	return check((void *)ring.memory != MAP_FAILED && (void *)ring.entries != MAP_FAILED, "rings are mapped", "%s", strerror(errno));
}

static void by_rings(void)
{
	struct { int64_t seconds, nanoseconds; } little = { 0, 1000000 };
	struct iovec vectors[2] = { { in[0], 100 }, { in[1], 200 } }, whole = { in[2], SIZE };
	int fd = open(FILE_PATH, O_RDWR | O_CREAT | O_TRUNC, 0600), event = eventfd(0, EFD_NONBLOCK), pipes[2];
	struct parameters wrong = { .flags = 1U << 31 };
	uint64_t count = 0, seen = 0;
	struct {
		uint8_t last, number;
		uint16_t spare;
		uint32_t more[3];
		struct { uint8_t operation, spare; uint16_t flags; uint32_t more; } all[64];
	} known = { 0 };

	memset(in, 0, sizeof(in));
	REQUIRE(fd >= 0 && event >= 0 && pipe(pipes) == 0, "a file, an eventfd, a pipe");
	if (!make_ring())
		return;
	EXPECT_ERROR(EINVAL, syscall(SYS_io_uring_setup, COUNT, &wrong), "io_uring_setup with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_uring_setup, 0, &wrong), "and for nothing");
	put(ring_nothing, -1, NULL, 0, 0, 1);
	EXPECT(ends_with(1, 0), "io_uring_enter");
	for (int i = 0; i < COUNT; i++) {
		memset(out[i], 'A' + i, SIZE);
		put(ring_write, fd, out[i], SIZE, i * SIZE, 1U << i);
	}
	EXPECT_VALUE(COUNT, enter(COUNT, COUNT), "io_uring_enter of eight writes");
	for (int i = 0; i < COUNT; i++) {
		struct completion done = next();

		seen |= done.result == SIZE ? done.data : 0;
	}
	EXPECT_VALUE((1 << COUNT) - 1, seen, "all of which are told as done");
	EXPECT(next().data == 0, "each once");
	put(ring_sync, fd, NULL, 0, 0, 2);
	EXPECT(ends_with(2, 0), "a request to sync");
	put(ring_read, fd, in[3], SIZE, 3 * SIZE, 3);
	EXPECT(ends_with(3, SIZE) && memcmp(in[3], out[3], SIZE) == 0, "a read");
	put(ring_read_vectors, fd, vectors, 2, SIZE - 100, 4);
	EXPECT(ends_with(4, 300) && in[0][99] == 'A' && in[1][0] == 'B', "a read into two places");
	put(ring_read, 9999, in[3], SIZE, 0, 5);
	EXPECT(ends_with(5, -EBADF), "a read of no file");
	put(250, fd, NULL, 0, 0, 6);
	EXPECT(ends_with(6, -EINVAL), "no operation");

	put(ring_read, pipes[0], in[4], SIZE, 0, 7);
	EXPECT_VALUE(1, enter(1, 0), "a read of an empty pipe");
	EXPECT(next().data == 0, "is not done");
	REQUIRE(write(pipes[1], "from a pipe", 11) == 11, "write");
	EXPECT_VALUE(0, enter(0, 1), "until there is something");
	{
		struct completion done = next();

		EXPECT(done.data == 7 && done.result == 11 && memcmp(in[4], "from a pipe", 11) == 0, "which it reads");
	}
	put(ring_poll, pipes[0], NULL, 0, 0, 8)->more = 1 /* POLLIN */;
	EXPECT(enter(1, 0) == 1 && next().data == 0, "a wait for a pipe");
	put(ring_cancel, -1, (void *)8, 0, 0, 9);
	EXPECT_VALUE(1, enter(1, 2), "is cancelled");
	{
		struct completion one = next(), two = next();

		EXPECT(one.data + two.data == 17 && one.result + two.result == -ECANCELED, "and tells so");
	}
	put(ring_cancel, -1, (void *)8, 0, 0, 10);
	EXPECT(ends_with(10, -ENOENT), "what is not there is not");
	put(ring_timeout, -1, &little, 1, 0, 11);
	EXPECT(ends_with(11, -ETIME), "a limit of time");

	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, register_files, &fd, 1), "io_uring_register of a file");
	put(ring_read, 0, in[5], SIZE, 5 * SIZE, 12)->flags = fixed_file;
	EXPECT(ends_with(12, SIZE) && memcmp(in[5], out[5], SIZE) == 0, "which is read by its place");
	EXPECT_ERROR(EBUSY, syscall(SYS_io_uring_register, ring.fd, register_files, &fd, 1), "and is registered once");
	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, unregister_files, NULL, 0), "and no more");
	EXPECT_ERROR(ENXIO, syscall(SYS_io_uring_register, ring.fd, unregister_files, NULL, 0), "and then there is none");
	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, register_buffers, &whole, 1), "io_uring_register of memory");
	put(ring_read_fixed, fd, in[2], SIZE, 2 * SIZE, 13);
	EXPECT(ends_with(13, SIZE) && memcmp(in[2], out[2], SIZE) == 0, "into which is read");
	put(ring_read_fixed, fd, in[6], SIZE, 2 * SIZE, 14);
	EXPECT(ends_with(14, -EFAULT), "and not into any other");
	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, unregister_buffers, NULL, 0), "memory is no more registered");
	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, register_event, &event, 1), "io_uring_register of an eventfd");
	put(ring_nothing, -1, NULL, 0, 0, 15);
	EXPECT(ends_with(15, 0) && read(event, &count, 8) == 8 && count == 1, "which tells of what is done");
	EXPECT_OK(syscall(SYS_io_uring_register, ring.fd, unregister_event, NULL, 0), "and no more");
	EXPECT(syscall(SYS_io_uring_register, ring.fd, probe, &known, 64) == 0 && known.number > ring_write &&
		       known.all[ring_write].flags & 1,
	       "io_uring_register tells which operations there are");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_uring_register, ring.fd, 9999, NULL, 0), "and does not know others");
	EXPECT_ERROR(EBADF, syscall(SYS_io_uring_register, 9999, probe, &known, 64), "of no ring");
	EXPECT_ERROR(EOPNOTSUPP, syscall(SYS_io_uring_register, fd, probe, &known, 64), "and of a file");
	EXPECT_ERROR(EINVAL, syscall(SYS_io_uring_enter, ring.fd, 0, 0, 1 << 20, NULL, 0), "io_uring_enter with an unknown flag");
	EXPECT_ERROR(EOPNOTSUPP, syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0), "of a file");
	EXPECT_ERROR(EBADF, syscall(SYS_io_uring_enter, 9999, 0, 0, 0, NULL, 0), "and of nothing");
	EXPECT_OK(munmap(ring.memory, ring.size) | munmap(ring.entries, COUNT * sizeof(struct entry)) | close(ring.fd), "and the ring goes away");
	close(fd);
	close(event);
	close(pipes[0]);
	close(pipes[1]);
	unlink(FILE_PATH);
}

int main(void)
{
	checks_begin();
	by_contexts();
	by_rings();
	return checks_end();
}
