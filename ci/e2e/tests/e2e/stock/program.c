// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A program for glibc, compiled by the test in several ways. With -no-pie it has to be at the address that it is linked at. It prints a line
 * for each thing that holds.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char __executable_start[];

/* Addresses that are in the file as numbers, when it is position-dependent. */
static int value = 42;
static int *const pointer = &value;
static __thread int own = 7;
static sigjmp_buf again;

static void *thread(void *argument)
{
	own += (int)(intptr_t)argument;
	return (void *)(intptr_t)own;
}

static void fault(int number)
{
	siglongjmp(again, number);
}

/* Tells whether it was loaded where it was linked: what the program headers say is then where they are. */
static int is_where_it_was_linked(void)
{
	const ElfW(Phdr) *header = (const ElfW(Phdr) *)getauxval(AT_PHDR);

	for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
		if (header[i].p_type == PT_LOAD && header[i].p_offset == 0)
			return header[i].p_vaddr == (uintptr_t)__executable_start;
	return 0;
}

/* Children have memory of their own at the same address, and all of them are there at once. */
static void forks(void)
{
	int pipes[2], status;

	assert(pipe(pipes) == 0);
	for (int i = 1; i <= 10; i++) {
		pid_t child = fork();

		assert(child >= 0);
		if (child == 0) {
			char byte;

			value += i;
			close(pipes[1]);
			/* Until the parent has started all. */
			while (read(pipes[0], &byte, 1) < 0 && errno == EINTR)
				;
			_exit(*pointer);
		}
	}
	close(pipes[1]);
	close(pipes[0]);
	for (int i = 1, sum = 0; i <= 10; i++) {
		assert(wait(&status) > 0 && WIFEXITED(status));
		sum += WEXITSTATUS(status);
		if (i == 10)
			assert(sum == 420 + 55);
	}
	assert(value == 42);
}

int main(int argc, char **argv)
{
	pthread_t threads[8];
	volatile int *nothing = NULL;
	char *memory;
	pid_t child;
	int status;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 1)
		/* The same program again, in a process that was started by this one. */
		return *pointer == 42 && strcmp(argv[1], "again") == 0 ? 23 : 1;
	printf("%s\n", is_where_it_was_linked() ? "where it was linked" : "elsewhere");

	for (int i = 0; i < 8; i++)
		assert(pthread_create(&threads[i], NULL, thread, (void *)(intptr_t)i) == 0);
	for (int i = 0; i < 8; i++) {
		void *result;

		assert(pthread_join(threads[i], &result) == 0 && (intptr_t)result == 7 + i);
	}
	assert(own == 7);
	puts("threads");

	forks();
	puts("forks");

	child = fork();
	assert(child >= 0);
	if (child == 0) {
		execl("/proc/self/exe", argv[0], "again", (char *)NULL);
		_exit(2);
	}
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 23);
	puts("exec");

	signal(SIGSEGV, fault);
	status = sigsetjmp(again, 1);
	if (status == 0)
		*nothing = 1;
	assert(status == SIGSEGV);
	/* Constants cannot be written to. */
	status = sigsetjmp(again, 1);
	if (status == 0)
		*(volatile char *)__executable_start = 1;
	assert(status == SIGSEGV);
	signal(SIGSEGV, SIG_DFL);
	puts("faults");

	memory = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(memory != MAP_FAILED);
	for (long at = 0; at < 64 << 20; at += 1 << 20)
		memory[at] = 1;
	memory = mremap(memory, 64 << 20, 128 << 20, MREMAP_MAYMOVE);
	assert(memory != MAP_FAILED && memory[63 << 20] == 1 && memory[64 << 20] == 0);
	free(malloc(100 << 20));
	assert(sbrk(1 << 20) != (void *)-1);
	puts("memory");
	return 19;
}
