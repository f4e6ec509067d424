// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Vector registers, or those of floating-point numbers where there are no others, belong to each thread: they survive preemption in a
 * loop, system calls and signals, in full width.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

#define THREADS 4
#define ROUNDS 60
#define LOOPS (300000ul / SLOWNESS)

#ifdef __x86_64__
#include <immintrin.h>

static int has_registers(void)
{
	return __builtin_cpu_supports("avx2");
}

/* Keeps a value of its own in sixteen 32-byte registers for a while, without and with system calls, and looks whether it is still there. */
__attribute__((target("avx2"))) static int keep(uint64_t value, int round)
{
	__m256i wanted = _mm256_set_epi64x((long long)value, (long long)~value, (long long)(value << 1), (long long)(value * 3));
	uint64_t wrong[4] = { 0 }, number = 39 /* getpid */, loops = LOOPS;

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

/* A handler that leaves every vector register changed. */
__attribute__((target("avx2"))) static void spoil(int signal)
{
	(void)signal;
	__asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n vmovdqa %%ymm0, %%ymm7\n vmovdqa %%ymm0, %%ymm15\n"
			 :
			 :
			 : "xmm0", "xmm1", "xmm7", "xmm15");
}

#elif defined(__riscv)
#define ALL "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define CLOBBERED                                                                                            \
	"f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15", "f16", "f17", "f18", "f19", "f20", \
		"f21", "f22", "f23", "f24", "f25", "f26", "f27", "f28", "f29", "f30", "f31"

static int has_registers(void)
{
	return 1;
}

/*
 * Keeps values of its own in all registers, and a rounding mode and exception flags, for a while, without and with system calls, and
 * looks whether they are still there.
 */
static int keep(uint64_t value, int round)
{
	/* Rounding modes 0 to 4 exist; any flags do. */
	uint64_t control = (value % 5) << 5 | (value >> 8 & 31), wrong = 0, loops = LOOPS, next = value, left;

	__asm__ volatile(
		".irp n," ALL "\n fmv.d.x f\\n, %[next]\n add %[next], %[next], %[value]\n .endr\n"
		"fscsr %[control]\n"
		"1: addi %[loops], %[loops], -1\n bnez %[loops], 1b\n"
		"andi a0, %[round], 1\n beqz a0, 2f\n li a7, 172\n ecall\n 2:\n" /* getpid */
		"frcsr %[left]\n xor %[wrong], %[left], %[control]\n"
		"mv %[next], %[value]\n"
		".irp n," ALL "\n fmv.x.d %[left], f\\n\n xor %[left], %[left], %[next]\n or %[wrong], %[wrong], %[left]\n"
		" add %[next], %[next], %[value]\n .endr\n"
		"fscsr zero\n"
		: [wrong] "+&r"(wrong), [loops] "+&r"(loops), [next] "+&r"(next), [left] "=&r"(left)
		: [value] "r"(value), [control] "r"(control), [round] "r"(round)
		: "a0", "a7", "memory", CLOBBERED);
	return wrong != 0;
}

/* A handler that leaves every register changed, and the rounding mode and all flags. */
static void spoil(int signal)
{
	(void)signal;
	__asm__ volatile("li t0, -1\n .irp n," ALL "\n fmv.d.x f\\n, t0\n .endr\n li t0, 0x3f\n fscsr t0\n" : : : "t0", CLOBBERED);
}

#else
static int has_registers(void)
{
	return 0;
}

static int keep(uint64_t value, int round)
{
	(void)value;
	(void)round;
	return 1;
}

static void spoil(int signal)
{
	(void)signal;
}
#endif

static void *keep_on(void *argument)
{
	uintptr_t wrong = 0;

	for (int i = 0; i < ROUNDS; i++)
		wrong += (uintptr_t)keep(0x1234567800000000u + ((uintptr_t)argument << 8) + (uintptr_t)i, i);
	return (void *)wrong;
}

int main(void)
{
	struct itimerval often = { .it_value = { .tv_usec = 1000 * SLOWNESS }, .it_interval = { .tv_usec = 1000 * SLOWNESS } }, off = { 0 };
	struct sigaction action = { .sa_handler = spoil, .sa_flags = SA_RESTART };
	pthread_t threads[THREADS];
	uintptr_t wrong = 0;

	checks_begin();
	if (!has_registers()) {
		reached("this processor has no such registers: nothing to keep");
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
