// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Loops that make no system call leave room for each other: two threads that hand a turn to and fro by spinning alone, and two
 * processes. None of them ends by itself; the last one to be asked is the kernel.
 *
 *     [/ld.so] PATH            the test
 *     [/ld.so] PATH child FD   a process that writes a byte to FD now and then
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define TURNS 20
#define BYTES 3
#define LOOPS_PER_BYTE (20000000 / SLOWNESS)

extern char **environ;

static volatile unsigned long turn;
static sem_t done;

static void *spin(void *argument)
{
	unsigned long mine = (uintptr_t)argument;

	for (;;) {
		while (turn % 2 != mine)
			;
		turn = turn + 1;
		if (turn == TURNS || turn == TURNS + 1)
			sem_post(&done);
	}
	return NULL;
}

static void two_threads(void)
{
	pthread_t threads[2];

	REQUIRE(sem_init(&done, 0, 0) == 0, "sem_init");
	for (uintptr_t i = 0; i < 2; i++)
		REQUIRE((errno = pthread_create(&threads[i], NULL, spin, (void *)i)) == 0, "pthread_create");
	sem_wait(&done);
	sem_wait(&done);
	check(turn >= TURNS, "two threads in endless loops take turns", "only %lu turns", turn);
}

static int child(int pipe)
{
	for (;;) {
		for (volatile unsigned long i = 0; i < LOOPS_PER_BYTE; i++)
			;
		if (write(pipe, "x", 1) != 1)
			return 1;
	}
}

static void two_processes(char **argv, int through_loader)
{
	int pipes[2][2], status, ended = 0;
	char number[16], byte;
	pid_t pids[2];

	for (int i = 0; i < 2; i++) {
		char *words[6] = { 0 };
		int n = 0;

		REQUIRE(pipe(pipes[i]) == 0, "pipe");
		snprintf(number, sizeof(number), "%d", pipes[i][1]);
		if (through_loader)
			words[n++] = "/ld.so";
		words[n++] = argv[0];
		words[n++] = "child";
		words[n++] = number;
		REQUIRE((errno = posix_spawn(&pids[i], words[0], NULL, NULL, words, environ)) == 0, "posix_spawn");
	}
	for (int i = 0; i < 2 * BYTES; i++)
		REQUIRE(read(pipes[i % 2][0], &byte, 1) == 1, "read from a process in a loop");
	reached("two processes in endless loops make progress");
	for (int i = 0; i < 2; i++) {
		REQUIRE(kill(pids[i], SIGKILL) == 0, "kill");
		ended += waitpid(pids[i], &status, 0) == pids[i] && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	}
	EXPECT_VALUE(2, ended, "SIGKILL ends them");
}

int main(int argc, char **argv)
{
	char name[64] = "";

	if (argc == 3 && strcmp(argv[1], "child") == 0)
		return child(atoi(argv[2]));
	checks_begin();
	REQUIRE(readlink("/proc/self/exe", name, sizeof(name) - 1) > 0, "/proc/self/exe");
	two_processes(argv, strcmp(name, "/ld.so") == 0);
	/* These two go on until the process ends. */
	two_threads();
	return checks_end();
}
