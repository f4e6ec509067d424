/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What every test program does with its findings: a line `ok NAME` or `FAIL NAME: why` for each, a last line
 * `N checks, M failures`, and the number of failures as the exit status.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * How many times slower than the host's the processor may be that this is compiled for, as a simulated one is: what is there for its
 * volume is divided by it, and what has to come late enough is multiplied.
 */
#ifndef SLOWNESS
#define SLOWNESS 1
#endif
_Static_assert(SLOWNESS >= 1 && SLOWNESS < 20, "the longest interval that is multiplied has to stay below a second");

static int checks_done, checks_failed;

/* Notes one finding; the format and what follows say why it failed. Any thread may call it. */
__attribute__((format(printf, 3, 4), unused)) static int check(int good, const char *name, const char *format, ...)
{
	char why[256];
	va_list arguments;

	__atomic_add_fetch(&checks_done, 1, __ATOMIC_RELAXED);
	if (good) {
		printf("ok %s\n", name);
		return 1;
	}
	__atomic_add_fetch(&checks_failed, 1, __ATOMIC_RELAXED);
	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	printf("FAIL %s: %s\n", name, why);
	return 0;
}

/* A finding that cannot be bad: reaching it is what was tested. */
__attribute__((unused)) static void reached(const char *name)
{
	check(1, name, "%s", "");
}

/* An address about which the compiler knows nothing. */
__attribute__((unused)) static inline void *address(uintptr_t value)
{
	__asm__("" : "+r"(value));
	return (void *)value;
}

static sigjmp_buf checks_back;

__attribute__((unused)) static void checks_jump_back(int signal)
{
	(void)signal;
	siglongjmp(checks_back, 1);
}

/*
 * Whether the program cannot write to its own constants. A platform without protection of pages lets it, and what the program can write to, the
 * kernel may too: then there is no read-only memory to be tested with.
 */
__attribute__((unused)) static int is_protected(const void *constant)
{
	struct sigaction action = { .sa_handler = checks_jump_back }, before;
	volatile char *byte = (volatile char *)(uintptr_t)constant;
	volatile int result = 1;

	sigaction(SIGSEGV, &action, &before);
	if (sigsetjmp(checks_back, 1) == 0) {
		*byte = *byte;
		result = 0;
	}
	sigaction(SIGSEGV, &before, NULL);
	return result;
}

/* A call that has to return this value. */
#define EXPECT_VALUE(value, call, name)                                                                      \
	do {                                                                                                     \
		long expected_ = (long)(value), result_;                                                             \
		errno = 0;                                                                                           \
		result_ = (long)(call);                                                                              \
		check(result_ == expected_, name, "returned %ld instead of %ld, %s", result_, expected_, strerror(errno)); \
	} while (0)

/* A call that has to succeed, as system calls do that return no number. */
#define EXPECT_OK(call, name) EXPECT_VALUE(0, call, name)

/* A call that has to fail with this error. */
#define EXPECT_ERROR(error, call, name)                                                                      \
	do {                                                                                                     \
		long result_;                                                                                        \
		errno = 0;                                                                                           \
		result_ = (long)(call);                                                                              \
		check(result_ == -1 && errno == (error), name, "returned %ld, %s; expected: %s", result_, strerror(errno), \
		      #error);                                                                                       \
	} while (0)

/* Anything else that has to be so. */
#define EXPECT(condition, name) check(condition, name, "not so: %s", #condition)

/* Something the test cannot go on without. */
#define REQUIRE(condition, name)                                                                             \
	do {                                                                                                     \
		errno = 0;                                                                                           \
		if (!(condition)) {                                                                                  \
			check(0, name, "not so: %s, %s", #condition, strerror(errno));                                   \
			exit(checks_end());                                                                              \
		}                                                                                                    \
	} while (0)

/* Lines are seen as they are printed, whatever becomes of the program. */
__attribute__((unused)) static void checks_begin(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* The last line; returns the exit status. */
__attribute__((unused)) static int checks_end(void)
{
	printf("%d checks, %d failures\n", checks_done, checks_failed);
	return checks_failed > 99 ? 99 : checks_failed;
}

#endif
