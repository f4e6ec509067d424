// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Ends in the way that its argument names, for the report and the exit status that follow from it.
 *
 *     ending exit N | kill N | segv | write-constant | jump | ill | fpe | abort | stack | thread-segv | threads-exit | loop
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char constant[32] = "in read-only memory";

/* An address that is nobody's, about which the compiler knows nothing. */
static void *volatile nowhere = (void *)16;

static void *segv(void *unused)
{
	(void)unused;
	*(volatile int *)nowhere = 1;
	return NULL;
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static int deeper(volatile char *above)
{
	volatile char here[1024];

	here[0] = above ? above[0] : 0;
	return here[0] == 1 ? 0 : deeper(here) + here[0];
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	int number = argc > 2 ? atoi(argv[2]) : 0;
	volatile int zero = 0;
	pthread_t thread;

	printf("about to end by %s\n", how);
	fflush(stdout);
	if (strcmp(how, "exit") == 0)
		return number;
	if (strcmp(how, "kill") == 0)
		kill(getpid(), number);
	if (strcmp(how, "segv") == 0)
		segv(NULL);
	if (strcmp(how, "write-constant") == 0)
		*(volatile char *)constant = 1;
	if (strcmp(how, "jump") == 0)
		((void (*)(void))nowhere)();
	if (strcmp(how, "ill") == 0)
		__builtin_trap();
	if (strcmp(how, "fpe") == 0)
		return 1000 / zero;
	if (strcmp(how, "abort") == 0)
		abort();
	if (strcmp(how, "stack") == 0)
		return deeper(NULL);
	if (strcmp(how, "thread-segv") == 0 && pthread_create(&thread, NULL, segv, NULL) == 0)
		wait_for_ever(NULL);
	/* The end of the process ends its other threads. */
	if (strcmp(how, "threads-exit") == 0 && pthread_create(&thread, NULL, wait_for_ever, NULL) == 0)
		exit(number);
	while (strcmp(how, "loop") == 0)
		zero++;
	fprintf(stderr, "still there\n");
	return 99;
}
