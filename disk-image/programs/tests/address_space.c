// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Memory as programs expect it of a processor with virtual memory: mappings at addresses of one's choice, protection that holds,
 * reservations that cost nothing, files that are mapped, stacks that grow, children that get copies, memory of other processes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"

#define PAGE 4096UL
#define GIB (1UL << 30)

static sigjmp_buf back;
static siginfo_t caught;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	caught = *info;
	siglongjmp(back, 1);
}

static void catch(int signal)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigaction(signal, &action, NULL);
}

/* Writes to, or reads, one byte; the signal that it ends with, or 0. */
static int touch(volatile char *byte, int store)
{
	memset(&caught, 0, sizeof(caught));
	if (sigsetjmp(back, 1))
		return caught.si_signo;
	if (store)
		*byte = 1;
	else
		(void)*byte;
	return 0;
}

static char *map(void *at, size_t len, int protection, int flags)
{
	return mmap(at, len, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void fixed(void)
{
	char *area = map(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0), *there;

	REQUIRE(area != MAP_FAILED, "16 pages");
	memset(area, 'a', 16 * PAGE);
	there = map(area + 4 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED);
	EXPECT(there == area + 4 * PAGE, "MAP_FIXED over a part of a mapping");
	EXPECT(area[4 * PAGE] == 0 && area[6 * PAGE - 1] == 0, "is new memory there");
	EXPECT(area[4 * PAGE - 1] == 'a' && area[6 * PAGE] == 'a', "and leaves what is around");
	errno = 0;
	there = map(area + 3 * PAGE, PAGE, PROT_READ, MAP_FIXED_NOREPLACE);
	EXPECT(there == MAP_FAILED && errno == EEXIST, "MAP_FIXED_NOREPLACE over something is EEXIST");
	EXPECT_OK(munmap(area + 8 * PAGE, PAGE), "munmap of a page in the middle");
	EXPECT_VALUE(SIGSEGV, touch(area + 8 * PAGE, 0), "after which it is gone");
	EXPECT(caught.si_code == SEGV_MAPERR && caught.si_addr == area + 8 * PAGE, "SEGV_MAPERR, and the address");
	EXPECT(area[9 * PAGE] == 'a', "what is behind it stays");
	there = map(area + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
	EXPECT(there == area + 8 * PAGE && touch(there, 1) == 0, "MAP_FIXED_NOREPLACE into the hole");
	there = map(area, PAGE, PROT_READ, 0);
	EXPECT(there != MAP_FAILED && there != area, "an address that is taken is a hint only");
	munmap(there, PAGE);
	munmap(area, 16 * PAGE);
	errno = 0;
	there = map((void *)0x7ffffffff000UL, PAGE, PROT_READ, MAP_FIXED);
	EXPECT(there == MAP_FAILED && errno == ENOMEM, "an address that nobody has is ENOMEM");
}

/* Addresses that 32 bits hold, which some processors' programs can ask for. */
static void low(void)
{
#ifdef MAP_32BIT
	size_t len = 16 * PAGE;
	char *area = map(NULL, len, PROT_READ | PROT_WRITE, MAP_32BIT), *other;

	REQUIRE(area != MAP_FAILED, "MAP_32BIT");
	EXPECT((unsigned long)area + len <= 1UL << 31, "is below 2 GiB");
	memset(area, 'l', len);
	other = map(area, len, PROT_READ | PROT_WRITE, MAP_32BIT);
	EXPECT(other != MAP_FAILED && other != area && (unsigned long)other + len <= 1UL << 31, "so is another");
	EXPECT(area[len - 1] == 'l' && other[0] == 0, "with memory of its own");
	EXPECT_ERROR(ENOMEM, map(NULL, 1UL << 31, PROT_NONE, MAP_32BIT) == MAP_FAILED ? -1 : 0, "2 GiB of them are ENOMEM");
	EXPECT_OK(munmap(area, len), "munmap");
	EXPECT_VALUE(SIGSEGV, touch(area, 0), "after which it is gone");
	EXPECT_OK(munmap(other, len), "munmap of the other");
#endif
}

static void protection(void)
{
	char *volatile area = map(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, 0);

	REQUIRE(area != MAP_FAILED, "4 pages");
	memset(area, 'b', 4 * PAGE);
	EXPECT_OK(mprotect(area + PAGE, PAGE, PROT_READ), "mprotect to read-only");
	EXPECT_VALUE(SIGSEGV, touch(area + PAGE + 5, 1), "a store is SIGSEGV");
	EXPECT(caught.si_code == SEGV_ACCERR && caught.si_addr == area + PAGE + 5, "SEGV_ACCERR, and the address");
	EXPECT(area[PAGE + 5] == 'b' && touch(area, 1) == 0 && touch(area + 2 * PAGE, 1) == 0, "elsewhere it is not");
	EXPECT_ERROR(EFAULT, getcwd(area + PAGE, PAGE) ? 0 : -1, "a system call that would store there is EFAULT");
	EXPECT_OK(mprotect(area + PAGE, PAGE, PROT_READ | PROT_WRITE), "mprotect back");
	EXPECT(touch(area + PAGE, 1) == 0 && area[PAGE + 1] == 'b', "and its contents are there");
	EXPECT_OK(mprotect(area, 4 * PAGE, PROT_NONE), "mprotect to nothing");
	EXPECT_VALUE(SIGSEGV, touch(area, 0), "a load is SIGSEGV");
	EXPECT_OK(mprotect(area, 4 * PAGE, PROT_READ), "and back");
	EXPECT(area[3 * PAGE] == 'b', "with what was there");
	munmap(area, 4 * PAGE);
	area = map(NULL, PAGE, PROT_READ | PROT_WRITE, 0);
	/* ret */
	area[0] = (char)0xc3;
	memset(&caught, 0, sizeof(caught));
	if (!sigsetjmp(back, 1))
		((void (*)(void))area)();
	EXPECT(caught.si_signo == SIGSEGV && caught.si_code == SEGV_ACCERR, "memory that may not be executed is not");
	EXPECT_OK(mprotect(area, PAGE, PROT_READ | PROT_EXEC), "mprotect to code");
	memset(&caught, 0, sizeof(caught));
	if (!sigsetjmp(back, 1))
		((void (*)(void))area)();
	EXPECT_VALUE(0, caught.si_signo, "which runs");
	munmap(area, PAGE);
	EXPECT_ERROR(ENOMEM, mprotect(area, PAGE, PROT_READ), "mprotect of nothing is ENOMEM");
}

static long resident_pages(void)
{
	long size = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	REQUIRE(file && fscanf(file, "%ld %ld", &size, &resident) == 2, "/proc/self/statm");
	fclose(file);
	return resident;
}

static void reservations(void)
{
	long before = resident_pages();
	char *area = map(NULL, 8 * GIB, PROT_NONE, MAP_NORESERVE);
	unsigned char there[65];

	EXPECT(area != MAP_FAILED, "8 GiB of addresses");
	if (area == MAP_FAILED)
		return;
	EXPECT_VALUE(SIGSEGV, touch(area + 5 * GIB, 0), "without memory");
	EXPECT_OK(mprotect(area + 5 * GIB, 64 * PAGE, PROT_READ | PROT_WRITE), "a part is made memory");
	EXPECT(touch(area + 5 * GIB, 1) == 0 && touch(area + 5 * GIB + 63 * PAGE, 1) == 0, "which can be used");
	EXPECT(resident_pages() - before < 64, "what is not touched is not there");
	memset(area + 5 * GIB, 'c', 64 * PAGE);
	EXPECT(resident_pages() - before >= 64, "what is touched is");
	EXPECT(mincore(area + 5 * GIB, 65 * PAGE, there) == 0 && there[63] & 1 && !(there[64] & 1), "and mincore tells");
	EXPECT_OK(madvise(area + 5 * GIB, 32 * PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	EXPECT(area[5 * GIB] == 0 && area[5 * GIB + 31 * PAGE] == 0, "makes it zero");
	EXPECT_VALUE('c', area[5 * GIB + 32 * PAGE], "and leaves the rest");
	EXPECT_OK(munmap(area, 8 * GIB), "and all given back");
	EXPECT(resident_pages() - before < 32, "is not there any more");
}

static void moved(void)
{
	char *area = map(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, 0), *there;

	REQUIRE(area != MAP_FAILED, "4 pages");
	strcpy(area + 3 * PAGE, "moves along");
	there = mremap(area, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	REQUIRE(there != MAP_FAILED, "mremap to more");
	EXPECT(strcmp(there + 3 * PAGE, "moves along") == 0 && there[63 * PAGE] == 0, "takes its contents along");
	if (there != area)
		EXPECT_VALUE(SIGSEGV, touch(area, 0), "and leaves nothing behind");
	EXPECT(mremap(there, 64 * PAGE, 4 * PAGE, 0) == there, "mremap to less");
	EXPECT_VALUE(SIGSEGV, touch(there + 4 * PAGE, 0), "cuts it off");
	munmap(there, 4 * PAGE);
}

static void files(void)
{
	const char *path = "/tmp/mapped";
	char text[8] = "", *shared, *private;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	REQUIRE(fd >= 0 && ftruncate(fd, 3 * PAGE / 2) == 0, "a file of one page and a half");
	REQUIRE(pwrite(fd, "original", 8, 0) == 8, "with text");
	shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	REQUIRE(shared != MAP_FAILED && private != MAP_FAILED, "mapped shared and private");
	EXPECT(memcmp(shared, "original", 8) == 0 && memcmp(private, "original", 8) == 0, "both show it");
	memcpy(private, "PRIVATE!", 8);
	EXPECT(pread(fd, text, 8, 0) == 8 && memcmp(text, "original", 8) == 0, "stores to the private one stay private");
	memcpy(shared, "shared!!", 8);
	EXPECT(pread(fd, text, 8, 0) == 8 && memcmp(text, "shared!!", 8) == 0, "stores to the shared one are in the file");
	REQUIRE(pwrite(fd, "written!", 8, 0) == 8, "write");
	EXPECT(memcmp(shared, "written!", 8) == 0, "what is written is in the mapping");
	EXPECT(memcmp(private, "PRIVATE!", 8) == 0, "but not in a page that was copied");
	EXPECT_OK(msync(shared, 2 * PAGE, MS_SYNC), "msync");
	EXPECT(shared[2 * PAGE - 1] == 0 && touch(shared + 2 * PAGE - 1, 1) == 0, "behind the end of the file there is the rest of its page");
	REQUIRE(ftruncate(fd, PAGE / 2) == 0, "the file is cut");
	EXPECT_VALUE(SIGBUS, touch(shared + PAGE, 0), "what was beyond is SIGBUS");
	munmap(shared, 2 * PAGE);
	munmap(private, 2 * PAGE);
	close(fd);
	fd = open(path, O_RDONLY);
	EXPECT(read(fd, text, 8) == 8 && memcmp(text, "written!", 8) == 0, "the file has what was stored when all is closed");
	close(fd);
	unlink(path);

	fd = memfd_create("memory", MFD_ALLOW_SEALING);
	REQUIRE(fd >= 0 && ftruncate(fd, PAGE) == 0, "memfd_create");
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(shared != MAP_FAILED && private != MAP_FAILED && shared != private, "mapped twice");
	strcpy(shared, "seen at both");
	EXPECT(strcmp(private, "seen at both") == 0, "is the same memory");
	EXPECT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), "which can be sealed");
	EXPECT_ERROR(EPERM, ftruncate(fd, 0), "and is not cut then");
	EXPECT_OK(mlock(shared, PAGE) | munlock(shared, PAGE), "mlock, munlock");
	munmap(shared, PAGE);
	munmap(private, PAGE);
	close(fd);
}

static int counter = 1;

static void forked(void)
{
	char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *private = map(NULL, 256 * PAGE, PROT_READ | PROT_WRITE, 0);
	char bytes[8];
	struct iovec ours = { bytes, 8 }, theirs = { private, 8 };
	int pipes[2], round, good = 1;
	volatile int local = 5;
	pid_t child;

	REQUIRE(shared != MAP_FAILED && private != MAP_FAILED && pipe(pipes) == 0, "memory and a pipe");
	memset(private, 'p', 256 * PAGE);
	child = fork();
	if (child == 0) {
		counter++;
		local++;
		memset(private, 'c', 256 * PAGE);
		strcpy(shared, "from the child");
		_exit(counter == 2 && local == 6 ? 7 : 1);
	}
	EXPECT_VALUE(7, ended_with(child), "fork, and the child has its own copy");
	child = fork();
	if (child == 0) {
		memset(private, 'r', PAGE);
		REQUIRE(write(pipes[1], "x", 1) == 1, "write");
		pause();
	}
	EXPECT(read(pipes[0], bytes, 1) == 1 && process_vm_readv(child, &ours, 1, &theirs, 1, 0) == 8 && memcmp(bytes, "rrrrrrrr", 8) == 0,
	       "process_vm_readv reads the child's");
	kill(child, SIGKILL);
	EXPECT_VALUE(128 + SIGKILL, ended_with(child), "which ends");
	EXPECT(counter == 1 && local == 5, "of which the parent sees nothing");
	EXPECT(private[0] == 'p' && private[256 * PAGE - 1] == 'p', "nor elsewhere");
	EXPECT(strcmp(shared, "from the child") == 0, "but in shared memory");

	/* Both run, taking turns, with different contents at the same addresses. */
	child = fork();
	if (child == 0) {
		for (round = 0; round < 50; round++) {
			memset(private, round, 64 * PAGE);
			if (write(pipes[1], "x", 1) != 1 || private[63 * PAGE] != (char)round)
				_exit(1);
			sched_yield();
			if (private[10 * PAGE] != (char)round)
				_exit(2);
		}
		_exit(0);
	}
	for (round = 0; round < 50; round++) {
		char byte;

		memset(private, -round, 64 * PAGE);
		good &= read(pipes[0], &byte, 1) == 1;
		good &= private[0] == (char)-round && private[64 * PAGE - 1] == (char)-round;
	}
	EXPECT_VALUE(0, ended_with(child), "parent and child take turns");
	EXPECT(good, "and each finds what it has written");

	child = fork();
	if (child == 0) {
		pid_t grandchild = fork();

		if (grandchild == 0)
			_exit(9);
		_exit(ended_with(grandchild) == 9 ? 8 : 1);
	}
	EXPECT_VALUE(8, ended_with(child), "a child has children");
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)address(16) = 1;
		_exit(1);
	}
	EXPECT_VALUE(128 + SIGSEGV, ended_with(child), "a child's fault ends the child");
	munmap(shared, PAGE);
	munmap(private, 256 * PAGE);
	close(pipes[0]);
	close(pipes[1]);
}

static void shared_segments(void)
{
	int id = shmget(IPC_PRIVATE, 2 * PAGE, IPC_CREAT | 0600), fd;
	char *one, *other;

	REQUIRE(id >= 0, "shmget");
	one = shmat(id, NULL, 0);
	other = shmat(id, NULL, SHM_RDONLY);
	REQUIRE(one != (void *)-1 && other != (void *)-1, "shmat");
	strcpy(one, "segment");
	EXPECT(strcmp(other, "segment") == 0, "a segment is attached twice");
	EXPECT_VALUE(SIGSEGV, touch(other, 1), "once read-only");
	EXPECT_OK(shmdt(one) | shmdt(other) | shmctl(id, IPC_RMID, NULL), "and detached");
	fd = shm_open("/object", O_RDWR | O_CREAT, 0600);
	REQUIRE(fd >= 0 && ftruncate(fd, PAGE) == 0, "shm_open");
	one = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(one != MAP_FAILED && touch(one, 1) == 0, "and mapped");
	munmap(one, PAGE);
	close(fd);
	shm_unlink("/object");
}

/* The system call: what C libraries make of it differs. */
static char *brk_to(char *end)
{
	return (char *)syscall(SYS_brk, end);
}

static void heap(void)
{
	char *begin = brk_to(NULL), *more = begin + 3 * PAGE;

	EXPECT(brk_to(more) == more, "brk of three pages");
	EXPECT(touch(begin + PAGE, 1) == 0 && touch(more - 1, 1) == 0, "which can be used");
	EXPECT(brk_to(begin) == begin, "and given back");
	EXPECT_VALUE(SIGSEGV, touch(begin + 2 * PAGE, 0), "after which they are gone");
}

__attribute__((noinline)) static int deep(int depth)
{
	volatile char frame[1024];

	frame[0] = (char)depth;
	if (depth == 0)
		return 0;
	return deep(depth - 1) + (frame[0] == (char)depth ? 0 : 1);
}

__attribute__((noinline)) static int endless(volatile char *above)
{
	volatile char frame[4096];

	frame[0] = above[0];
	/* Which it does not: but compilers know a recursion without an end. */
	return above == NULL ? 0 : endless(frame) + frame[1];
}

static void stacks(void)
{
	static char alternate[65536];
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	struct rlimit limit;
	char first = 0;

	REQUIRE(getrlimit(RLIMIT_STACK, &limit) == 0, "the stack's limit");
	EXPECT(limit.rlim_cur >= 8 << 20, "is 8 MiB or more");
	EXPECT_VALUE(0, deep(6000), "a stack grows to 6 MiB");
	REQUIRE(sigaltstack(&stack, NULL) == 0, "an alternate stack");
	memset(&caught, 0, sizeof(caught));
	if (!sigsetjmp(back, 1))
		endless(&first);
	EXPECT_VALUE(SIGSEGV, caught.si_signo, "a stack that has no end is SIGSEGV, told on the alternate stack");
	EXPECT_VALUE(0, deep(1000), "after which the program goes on");
}

static void listed(void)
{
	char *area = map(NULL, PAGE, PROT_READ, 0), line[256];
	FILE *file = fopen("/proc/self/maps", "r");
	int found = 0, stack = 0;

	REQUIRE(file != NULL, "/proc/self/maps");
	while (fgets(line, sizeof(line), file)) {
		unsigned long begin, end;
		char access[5];

		if (sscanf(line, "%lx-%lx %4s", &begin, &end, access) != 3)
			continue;
		if (begin <= (unsigned long)area && (unsigned long)area < end)
			found = strcmp(access, "r--p") == 0;
		stack |= strstr(line, "[stack]") != NULL && begin <= (unsigned long)line && (unsigned long)line < end;
	}
	fclose(file);
	EXPECT(found, "lists a mapping with its protection");
	EXPECT(stack, "and the stack");
	munmap(area, PAGE);
}

static void *churn(void *number)
{
	int round;

	for (round = 0; round < 100; round++) {
		char *area = map(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0);

		if (area == MAP_FAILED)
			return NULL;
		memset(area, (int)(long)number, 16 * PAGE);
		sched_yield();
		if (area[15 * PAGE] != (char)(long)number)
			return NULL;
		munmap(area, 16 * PAGE);
	}
	return number;
}

static void threads(void)
{
	pthread_t all[8];
	long number, good = 0;
	void *result;

	for (number = 0; number < 8; number++)
		REQUIRE(pthread_create(&all[number], NULL, churn, (void *)(number + 1)) == 0, "a thread");
	for (number = 0; number < 8; number++)
		good += pthread_join(all[number], &result) == 0 && result == (void *)(number + 1);
	EXPECT_VALUE(8, good, "eight threads map and unmap, and each finds its own");
}

int main(void)
{
	checks_begin();
	catch(SIGSEGV);
	catch(SIGBUS);
	fixed();
	low();
	protection();
	reservations();
	moved();
	files();
	forked();
	shared_segments();
	heap();
	stacks();
	listed();
	threads();
	return checks_end();
}
