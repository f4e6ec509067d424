// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Pages that are held in memory, sealed, or mapped in another order, and what one process does to those of another. It takes virtual memory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "calls.h"

#define PAGE 4096UL

enum { on_fault = 1 };

static char *map(size_t pages, int protection)
{
	char *area = mmap(NULL, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(area != MAP_FAILED, "pages");
	return area;
}

/* What a file of the process says behind these words, in KiB. */
static long kib(const char *path, const char *words)
{
	char line[256];
	FILE *file = fopen(path, "r");
	long number = -1;

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, words, strlen(words)) == 0)
			number = atol(line + strlen(words));
	if (file)
		fclose(file);
	return number;
}

static long held(void)
{
	return kib("/proc/self/status", "VmLck:");
}

static int in_memory(char *area, size_t pages)
{
	unsigned char there[64] = "";
	int number = 0;

	if (mincore(area, pages * PAGE, there) != 0)
		return -1;
	for (size_t i = 0; i < pages; i++)
		number += there[i] & 1;
	return number;
}

static void holds_little(void)
{
	struct rlimit little = { 2 * PAGE, 2 * PAGE }, nothing = { 0, 0 };
	char *area = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT_OK(setrlimit(RLIMIT_MEMLOCK, &little), "two pages may be held");
	become_nobody();
	EXPECT_OK(syscall(SYS_mlock2, area, 2 * PAGE, 0), "mlock2 of two pages");
	EXPECT_ERROR(ENOMEM, syscall(SYS_mlock2, area, 3 * PAGE, 0), "and not of three");
	EXPECT_ERROR(ENOMEM, mlockall(MCL_CURRENT), "nor of all");
	EXPECT_OK(munlock(area, 2 * PAGE) | setrlimit(RLIMIT_MEMLOCK, &nothing), "none may be held");
	EXPECT_ERROR(EPERM, syscall(SYS_mlock2, area, PAGE, 0), "mlock2 is for the privileged then");
	EXPECT_ERROR(EPERM, mlockall(MCL_CURRENT), "so is mlockall");
	munmap(area, 4 * PAGE);
}

/*
 * New memory that is no part of a mapping beside it: a kernel may give a program more pages of a mapping than it touches,
 * as Linux itself does with large ones.
 */
static char *map_apart(size_t pages)
{
	char *around = map(pages + 2, PROT_NONE);

	mprotect(around + PAGE, pages * PAGE, PROT_READ | PROT_WRITE);
	return around + PAGE;
}

static void unmap_apart(char *area, size_t pages)
{
	munmap(area - PAGE, (pages + 2) * PAGE);
}

static void holding(void)
{
	char *area = map_apart(16), *other;

	EXPECT(held() == 0 && in_memory(area, 16) == 0, "nothing is held, and new pages are not there");
	EXPECT_ERROR(EBADF, madvise(area, PAGE, MADV_WILLNEED), "nor can they be fetched, as there is no swap");
	EXPECT_OK(syscall(SYS_mlock2, area, 8 * PAGE, 0), "mlock2");
	EXPECT(in_memory(area, 16) == 8 && held() == 32, "brings pages and holds them");
	EXPECT_OK(syscall(SYS_mlock2, area + 8 * PAGE, 8 * PAGE, on_fault), "MLOCK_ONFAULT");
	EXPECT(in_memory(area + 8 * PAGE, 8) == 0 && held() == 64, "brings none");
	area[8 * PAGE] = 1;
	EXPECT(in_memory(area + 8 * PAGE, 8) >= 1, "until it is used");
	EXPECT_ERROR(EINVAL, syscall(SYS_mlock2, area, PAGE, 2), "mlock2 with an unknown flag");
	EXPECT_ERROR(EINVAL, madvise(area, PAGE, MADV_DONTNEED), "what is held is not given away");
	EXPECT_OK(munlock(area, 16 * PAGE), "munlock");
	EXPECT_VALUE(0, held(), "holds nothing any more");
	unmap_apart(area, 16);
	EXPECT_ERROR(ENOMEM, syscall(SYS_mlock2, area, PAGE, 0), "mlock2 of nothing");

	area = map_apart(4);
	EXPECT_OK(mlockall(MCL_CURRENT), "mlockall of what there is");
	EXPECT(held() > 16 && in_memory(area, 4) == 4, "holds it");
	other = map_apart(4);
	EXPECT_VALUE(0, in_memory(other, 4), "and not what comes");
	unmap_apart(other, 4);
	EXPECT_OK(mlockall(MCL_FUTURE), "mlockall of what comes");
	other = map_apart(4);
	EXPECT_VALUE(4, in_memory(other, 4), "holds that");
	EXPECT_ERROR(EINVAL, mlockall(0), "mlockall of nothing");
	EXPECT_ERROR(EINVAL, mlockall(4 /* MCL_ONFAULT */), "and only on use");
	EXPECT_ERROR(EINVAL, mlockall(8), "and with an unknown flag");
	EXPECT_OK(munlockall(), "munlockall");
	EXPECT_VALUE(0, held(), "holds nothing any more");
	unmap_apart(other, 4);
	other = map_apart(4);
	EXPECT_VALUE(0, in_memory(other, 4), "and nothing that comes");
	unmap_apart(other, 4);
	unmap_apart(area, 4);
	in_child(holds_little, "a child without rights ends");
}

static void sealing(void)
{
	char *area = map(8, PROT_READ | PROT_WRITE), *constant = map(1, PROT_READ | PROT_WRITE);

	memset(area, 's', 8 * PAGE);
	constant[0] = 'c';
	REQUIRE(mprotect(constant, PAGE, PROT_READ) == 0, "mprotect");
	EXPECT_ERROR(EINVAL, syscall(SYS_mseal, area, PAGE, 1), "mseal with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_mseal, area + 1, PAGE, 0), "and of no page");
	EXPECT_OK(syscall(SYS_mseal, area + PAGE, 2 * PAGE, 0) | syscall(SYS_mseal, constant, PAGE, 0), "mseal");
	EXPECT_OK(syscall(SYS_mseal, area + PAGE, 2 * PAGE, 0), "again changes nothing");
	area[PAGE] = 't';
	EXPECT_VALUE('t', area[PAGE], "what is sealed can be written to");
	EXPECT_ERROR(EPERM, mprotect(area + PAGE, PAGE, PROT_READ), "but gets no other protection");
	EXPECT_ERROR(EPERM, munmap(area, 4 * PAGE), "is not taken away");
	EXPECT_ERROR(EPERM, mmap(area + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0,
		     "nor replaced");
	EXPECT_ERROR(EPERM, mremap(area + PAGE, PAGE, 4 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0, "nor moved");
	EXPECT_ERROR(EPERM, madvise(constant, PAGE, MADV_DONTNEED), "nor emptied, if it cannot be written to");
	EXPECT(constant[0] == 'c' && area[PAGE] == 't' && area[2 * PAGE] == 's' && area[0] == 's', "and has what it had");
	EXPECT_OK(madvise(constant, PAGE, MADV_NORMAL), "other advice is taken");
	EXPECT_OK(mprotect(area, PAGE, PROT_READ) | munmap(area + 3 * PAGE, 5 * PAGE), "what is around is not sealed");
	EXPECT_ERROR(ENOMEM, syscall(SYS_mseal, area, 8 * PAGE, 0), "mseal of what is not there");
}

static void another_order(void)
{
	int fd = open("/tmp/pages", O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *shared, *private;

	REQUIRE(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0, "a file of four pages");
	for (int i = 0; i < 4; i++)
		REQUIRE(pwrite(fd, &"0123"[i], 1, (off_t)(i * PAGE)) == 1, "each with a number");
	shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	REQUIRE(shared != MAP_FAILED && private != MAP_FAILED, "mapped");
	EXPECT_OK(syscall(SYS_remap_file_pages, shared, 2 * PAGE, 0, 2, 0), "remap_file_pages");
	EXPECT(shared[0] == '2' && shared[PAGE] == '3' && shared[2 * PAGE] == '2' && shared[3 * PAGE] == '3', "puts pages elsewhere");
	shared[0] = 'x';
	EXPECT_VALUE('x', shared[2 * PAGE], "where they are the same");
	EXPECT_ERROR(EINVAL, syscall(SYS_remap_file_pages, shared, PAGE, PROT_READ, 1, 0), "without another protection");
	EXPECT_ERROR(EINVAL, syscall(SYS_remap_file_pages, private, PAGE, 0, 1, 0), "and only those that are shared");
	munmap(shared, 4 * PAGE);
	munmap(private, 4 * PAGE);
	close(fd);
	unlink("/tmp/pages");
}

static void as_nobody(void)
{
	char byte = 0;
	struct iovec one = { &byte, 1 };
	int handle = (int)syscall(SYS_pidfd_open, 1, 0);

	become_nobody();
	EXPECT_ERROR(EPERM, process_vm_writev(1, &one, 1, &one, 1, 0), "process_vm_writev is not for everybody");
	EXPECT_ERROR(EACCES, syscall(SYS_process_madvise, handle, &one, 1, MADV_COLD, 0), "nor is process_madvise");
	close(handle);
}

static void others(void)
{
	char *area = map(4, PROT_READ | PROT_WRITE), *nothing = map(2, PROT_READ), byte, words[8] = "words", more[8] = "more";
	char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct iovec ours[2] = { { words, 5 }, { more, 4 } }, theirs[2] = { { area, 3 }, { area + PAGE, 6 } };
	int to[2], from[2], handle;
	siginfo_t info;
	pid_t child;
	long result;

	REQUIRE(shared != MAP_FAILED && pipe(to) == 0 && pipe(from) == 0, "memory and pipes");
	munmap(nothing, 2 * PAGE);
	memset(area, 'p', 4 * PAGE);
	child = fork();
	if (child == 0) {
		mprotect(area + 3 * PAGE, PAGE, PROT_READ);
		if (write(from[1], "x", 1) != 1 || read(to[0], &byte, 1) != 1)
			_exit(1);
		_exit(memcmp(area, "worp", 4) == 0 && memcmp(area + PAGE, "dsmorep", 7) == 0 ? 5 : 2);
	}
	REQUIRE(read(from[0], &byte, 1) == 1 && (handle = (int)syscall(SYS_pidfd_open, child, 0)) >= 0, "a child");
	EXPECT_VALUE(9, process_vm_writev(child, ours, 2, theirs, 2, 0), "process_vm_writev");
	EXPECT(area[0] == 'p', "writes to the child's memory, not to one's own");
	theirs[0].iov_base = area + 3 * PAGE;
	EXPECT_ERROR(EFAULT, process_vm_writev(child, ours, 2, theirs, 1, 0), "what it cannot write to is not written to");
	theirs[0].iov_base = area + 3 * PAGE - 2;
	EXPECT_VALUE(2, process_vm_writev(child, ours, 2, theirs, 1, 0), "or up to there");
	EXPECT_ERROR(EINVAL, process_vm_writev(child, ours, 2, theirs, 1, 1), "process_vm_writev with an unknown flag");
	EXPECT_ERROR(ESRCH, process_vm_writev(0x7ffffff, ours, 2, theirs, 2, 0), "and to no process");

	theirs[0] = (struct iovec){ area, 2 * PAGE };
	theirs[1] = (struct iovec){ area + 3 * PAGE, PAGE };
	EXPECT_VALUE(3 * PAGE, syscall(SYS_process_madvise, handle, theirs, 2, MADV_COLD, 0), "process_madvise");
	EXPECT_VALUE(2 * PAGE, syscall(SYS_process_madvise, handle, theirs, 1, MADV_PAGEOUT, 0), "of what may go");
	EXPECT_ERROR(EBADF, syscall(SYS_process_madvise, handle, theirs, 1, MADV_WILLNEED, 0), "without swap there is nowhere to fetch from");
	EXPECT_ERROR(EINVAL, syscall(SYS_process_madvise, handle, theirs, 1, MADV_DONTNEED, 0), "nobody empties another's memory");
	EXPECT_ERROR(EINVAL, syscall(SYS_process_madvise, handle, theirs, 1, MADV_COLD, 1), "process_madvise with an unknown flag");
	EXPECT_ERROR(EBADF, syscall(SYS_process_madvise, from[0], theirs, 1, MADV_COLD, 0), "and of no process");
	theirs[0].iov_base = nothing;
	EXPECT_ERROR(ENOMEM, syscall(SYS_process_madvise, handle, theirs, 1, MADV_COLD, 0), "and of nothing");
	in_child(as_nobody, "a child without rights ends");

	EXPECT_ERROR(EINVAL, syscall(SYS_process_mrelease, handle, 0), "process_mrelease of who lives");
	EXPECT_ERROR(EINVAL, syscall(SYS_process_mrelease, handle, 1), "with an unknown flag");
	EXPECT_ERROR(EBADF, syscall(SYS_process_mrelease, from[0], 0), "and of no process");
	REQUIRE(write(to[1], "x", 1) == 1, "write");
	REQUIRE(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0, "the child ends");
	EXPECT_ERROR(ESRCH, syscall(SYS_process_mrelease, handle, 0), "who has ended has nothing");
	EXPECT_VALUE(5, ended_with(child), "the child has found what was written");
	close(handle);

	/* Whether the kernel or the child itself is faster cannot be said. */
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	handle = (int)syscall(SYS_pidfd_open, child, 0);
	kill(child, SIGKILL);
	errno = 0;
	result = syscall(SYS_process_mrelease, handle, 0);
	check(result == 0 || errno == ESRCH, "process_mrelease of who was killed", "returned %ld, %s", result, strerror(errno));
	EXPECT_VALUE(128 + SIGKILL, ended_with(child), "who ends");
	EXPECT(area[4 * PAGE - 1] == 'p', "and whose parent has what it had");
	close(handle);
	munmap(area, 4 * PAGE);
	munmap(shared, PAGE);
	for (int i = 0; i < 2; i++) {
		close(to[i]);
		close(from[i]);
	}
}

int main(void)
{
	checks_begin();
	holding();
	sealing();
	another_order();
	others();
	return checks_end();
}
