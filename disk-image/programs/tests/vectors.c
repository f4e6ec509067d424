// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Vector registers belong to each thread: they survive preemption in a loop, system calls and signals, in full width.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

#ifdef __x86_64__
#include <immintrin.h>

#define THREADS 4
#define ROUNDS 60

/* Keeps a value of its own in sixteen 32-byte registers for a while, without and with system calls, and looks whether it is still there. */
__attribute__((target("avx2"))) static int keep(uint64_t value, int round)
{
	__m256i wanted = _mm256_set_epi64x((long long)value, (long long)~value, (long long)(value << 1), (long long)(value * 3));
	uint64_t wrong[4] = { 0 }, number = 39 /* getpid */, loops = 300000;

	__asm__ volatile(
		"vmovdqa %[wanted], %%ymm0\n vmovdqa %%ymm0, %%ymm1\n vmovdqa %%ymm0, %%ymm2\n vmovdqa %%ymm0, %%ymm3\n"
		"vmovdqa %%ymm0, %%ymm4\n vmovdqa %%ymm0, %%ymm5\n vmovdqa %%ymm0, %%ymm6\n vmovdqa %%ymm0, %%ymm7\n"
		"vmovdqa %%ymm0, %%ymm8\n vmovdqa %%ymm0, %%ymm9\n vmovdqa %%ymm0, %%ymm10\n vmovdqa %%ymm0, %%ymm11\n"
		"vmovdqa %%ymm0, %%ymm12\n vmovdqa %%ymm0, %%ymm13\n vmovdqa %%ymm0, %%ymm14\n vmovdqa %%ymm0, %%ymm15\n"
		"1: dec %[loops]\n jnz 1b\n"
		"mov %[number], %%rax\n test $1, %[round]\n jz 2f\n syscall\n 2:\n"
		"vpxor %[wanted], %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm1, %%ymm1\n vpor %%ymm1, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm2, %%ymm2\n vpor %%ymm2, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm3, %%ymm3\n vpor %%ymm3, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm4, %%ymm4\n vpor %%ymm4, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm5, %%ymm5\n vpor %%ymm5, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm6, %%ymm6\n vpor %%ymm6, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm7, %%ymm7\n vpor %%ymm7, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm8, %%ymm8\n vpor %%ymm8, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm9, %%ymm9\n vpor %%ymm9, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm10, %%ymm10\n vpor %%ymm10, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm11, %%ymm11\n vpor %%ymm11, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm12, %%ymm12\n vpor %%ymm12, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm13, %%ymm13\n vpor %%ymm13, %%ymm0, %%ymm0\n vpxor %[wanted], %%ymm14, %%ymm14\n vpor %%ymm14, %%ymm0, %%ymm0\n"
		"vpxor %[wanted], %%ymm15, %%ymm15\n vpor %%ymm15, %%ymm0, %%ymm0\n"
		"vmovdqu %%ymm0, %[wrong]\n vzeroupper\n"
		: [wrong] "=m"(wrong), [loops] "+r"(loops)
		: [wanted] "m"(wanted), [number] "r"(number), [round] "r"(round)
		: "rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
		  "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	return (wrong[0] | wrong[1] | wrong[2] | wrong[3]) != 0;
}

static void *keep_on(void *argument)
{
	uintptr_t wrong = 0;

	for (int i = 0; i < ROUNDS; i++)
		wrong += (uintptr_t)keep(0x1234567800000000u + ((uintptr_t)argument << 8) + (uintptr_t)i, i);
	return (void *)wrong;
}

/* A handler that leaves every vector register changed. */
__attribute__((target("avx2"))) static void spoil(int signal)
{
	(void)signal;
	__asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n vmovdqa %%ymm0, %%ymm7\n vmovdqa %%ymm0, %%ymm15\n"
			 :
			 :
			 : "xmm0", "xmm1", "xmm7", "xmm15");
}

int main(void)
{
	struct itimerval often = { .it_value = { .tv_usec = 1000 }, .it_interval = { .tv_usec = 1000 } }, off = { 0 };
	struct sigaction action = { .sa_handler = spoil, .sa_flags = SA_RESTART };
	pthread_t threads[THREADS];
	uintptr_t wrong = 0;

	checks_begin();
	if (!__builtin_cpu_supports("avx2")) {
		reached("no AVX on this processor: nothing to keep");
		return checks_end();
	}
	for (int with_signals = 0; with_signals < 2; with_signals++) {
		if (with_signals) {
			REQUIRE(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
			REQUIRE(setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
		}
		for (uintptr_t i = 0; i < THREADS; i++)
			REQUIRE((errno = pthread_create(&threads[i], NULL, keep_on, (void *)i)) == 0, "pthread_create");
		for (int i = 0; i < THREADS; i++) {
			void *result;

			pthread_join(threads[i], &result);
			wrong += (uintptr_t)result;
		}
		EXPECT_VALUE(0, wrong, with_signals ? "vector registers survive signals" : "vector registers survive other threads");
	}
	REQUIRE(setitimer(ITIMER_REAL, &off, NULL) == 0, "setitimer");
	return checks_end();
}
#else
int main(void)
{
	checks_begin();
	reached("no vector registers are known here: nothing to keep");
	return checks_end();
}
#endif
