// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Reaches for addresses outside this cVM in every way that a program has: by the address in a load, a store and a jump, and where there are
 * capabilities by one made of those that the program has. Each has to be SIGSEGV, after which the program goes on.
 *
 *     outside ADDRESS...
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

#include "check.h"

static sigjmp_buf back;
static volatile sig_atomic_t faults;

static void jump_back(int signal)
{
	(void)signal;
	faults++;
	siglongjmp(back, 1);
}

#ifdef __riscv
/*
 * Loads a byte through a capability that is the program's own for data with its address moved there; xcheri.h names these instructions, which a C
 * compiler without CHERI does not know.
 */
static void through_capability(uintptr_t target)
{
	register uintptr_t to __asm__("t1") = target;

	__asm__ volatile(".insn r 0x5b, 0, 0x01, t0, zero, x1\n" /* cspecialr ct0, ddc */
			 ".insn r 0x5b, 0, 0x10, t0, t0, t1\n"   /* csetaddr ct0, ct0, t1 */
			 ".insn i 0x5b, 0, t2, -88(t0)\n"        /* lb.cap t2, (ct0) */
			 :
			 : "r"(to)
			 : "t0", "t2", "memory");
}
#endif

static void reach(uintptr_t target)
{
	char name[96];

#define REACH(how, what)                                                  \
	do {                                                                  \
		faults = 0;                                                       \
		if (sigsetjmp(back, 1) == 0)                                      \
			what;                                                         \
		snprintf(name, sizeof(name), how " %#lx", (unsigned long)target); \
		EXPECT_VALUE(1, faults, name);                                    \
	} while (0)

	REACH("read at", (void)*(volatile char *)address(target));
	REACH("write at", *(volatile char *)address(target) = 1);
	REACH("jump to", ((void (*)(void))address(target))());
#ifdef __riscv
	REACH("capability for", through_capability(target));
#endif
}

int main(int argc, char **argv)
{
	checks_begin();
	REQUIRE(argc > 1, "addresses");
	REQUIRE(signal(SIGSEGV, jump_back) != SIG_ERR, "signal");
	for (int i = 1; i < argc; i++)
		reach(strtoul(argv[i], NULL, 0));
	return checks_end();
}
