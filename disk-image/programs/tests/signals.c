// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Signals: handlers and what they are told, masks, restart of system calls, an alternate stack, the registers before and after,
 * faults that a handler survives, and a loop without system calls that a signal ends.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

static volatile sig_atomic_t count;
static volatile siginfo_t last;
static volatile uintptr_t stack_of_handler;

static void note(int signal, siginfo_t *info, void *context)
{
	char here;

	(void)context;
	count++;
	stack_of_handler = (uintptr_t)&here;
	last.si_signo = signal;
	last.si_code = info->si_code;
	last.si_addr = info->si_addr;
	last.si_value = info->si_value;
}

static void handle(int signal, int flags, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO };

	REQUIRE(sigaction(signal, &action, NULL) == 0, "sigaction");
}

static void plain(void)
{
	union sigval value = { .sival_int = 12345 };
	sigset_t set, before, pending;

	handle(SIGUSR1, 0, note);
	EXPECT_OK(kill(getpid(), SIGUSR1), "kill of this process");
	EXPECT_VALUE(1, count, "the handler ran before kill returned");
	EXPECT_VALUE(SI_USER, last.si_code, "si_code says where it came from");
	EXPECT_OK(sigqueue(getpid(), SIGUSR1, value), "sigqueue");
	EXPECT(count == 2 && last.si_code == SI_QUEUE && last.si_value.sival_int == 12345, "its value arrives");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	REQUIRE(sigprocmask(SIG_BLOCK, &set, &before) == 0, "sigprocmask");
	raise(SIGUSR1);
	raise(SIGUSR1);
	EXPECT_VALUE(2, count, "a blocked signal waits");
	EXPECT(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1, "it is pending");
	REQUIRE(sigprocmask(SIG_SETMASK, &before, NULL) == 0, "sigprocmask");
	EXPECT_VALUE(3, count, "it arrives once when it is unblocked");
	EXPECT_ERROR(EINVAL, sigaction(SIGKILL, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL), "SIGKILL cannot be ignored");
}

static volatile sig_atomic_t depth, deepest, order;

static void nest(int signal, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (signal == SIGUSR1)
		raise(SIGUSR2);
	order = order * 10 + (signal == SIGUSR1 ? 1 : 2);
	depth--;
}

static void nested(void)
{
	handle(SIGUSR1, 0, nest);
	handle(SIGUSR2, 0, nest);
	raise(SIGUSR1);
	EXPECT(deepest == 2 && order == 21, "a handler is interrupted by another signal");
}

static void on_alternate_stack(void)
{
	static char stack[16384];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) }, old;

	EXPECT_OK(sigaltstack(&alternate, NULL), "sigaltstack");
	handle(SIGUSR1, SA_ONSTACK, note);
	raise(SIGUSR1);
	EXPECT(stack_of_handler >= (uintptr_t)stack && stack_of_handler < (uintptr_t)stack + sizeof(stack), "a handler on its stack");
	EXPECT(sigaltstack(NULL, &old) == 0 && old.ss_flags == 0 && old.ss_sp == stack, "it is left again");
	alternate.ss_flags = SS_DISABLE;
	EXPECT_OK(sigaltstack(&alternate, NULL), "and can be disabled");
}

static void soon(long microseconds)
{
	struct itimerval timer = { .it_value = { .tv_usec = microseconds * SLOWNESS } };

	REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0, "setitimer");
}

static int ends[2];

static void write_byte(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	(void)context;
	count++;
	write(ends[1], "x", 1);
}

static void restart(void)
{
	char byte = 0;

	REQUIRE(pipe(ends) == 0, "pipe");
	count = 0;
	handle(SIGALRM, SA_RESTART, write_byte);
	soon(20000);
	EXPECT_VALUE(1, read(ends[0], &byte, 1), "read goes on after a handler with SA_RESTART");
	EXPECT(count == 1 && byte == 'x', "and reads what the handler wrote");
	handle(SIGALRM, 0, note);
	soon(20000);
	EXPECT_ERROR(EINTR, read(ends[0], &byte, 1), "read ends after a handler without SA_RESTART");
	soon(20000);
	EXPECT_ERROR(EINTR, pause(), "pause ends");
}

static sigjmp_buf back;

static void jump_back(int signal, siginfo_t *info, void *context)
{
	note(signal, info, context);
	siglongjmp(back, 1);
}

static void survived_faults(void)
{
	handle(SIGSEGV, 0, jump_back);
	handle(SIGILL, 0, jump_back);
	handle(SIGFPE, 0, jump_back);
	handle(SIGTRAP, 0, jump_back);
	handle(SIGBUS, 0, jump_back);
	count = 0;
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)address(24) = 1;
	EXPECT(count == 1 && last.si_signo == SIGSEGV && last.si_addr == (void *)24, "a write to nowhere is SIGSEGV with its address");
	if (sigsetjmp(back, 1) == 0)
		count += *(volatile char *)address(32);
	EXPECT(count == 2 && last.si_addr == (void *)32, "and so is a read");
	if (sigsetjmp(back, 1) == 0)
		((void (*)(void))address(40))();
	EXPECT(count == 3 && last.si_signo == SIGSEGV && last.si_addr == (void *)40, "and a jump");
	if (sigsetjmp(back, 1) == 0)
		__builtin_trap();
	EXPECT(count == 4 && last.si_signo == SIGILL, "an instruction that does not exist is SIGILL");
#ifdef __x86_64__
	if (sigsetjmp(back, 1) == 0) {
		volatile int zero = 0;

		count += 1000 / zero;
	}
	EXPECT(count == 5 && last.si_signo == SIGFPE && last.si_code == FPE_INTDIV, "a division by zero is SIGFPE");
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("int3");
	EXPECT(count == 6 && last.si_signo == SIGTRAP, "a breakpoint is SIGTRAP");
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("hlt");
	EXPECT(count == 7 && last.si_signo == SIGSEGV, "a privileged instruction is SIGSEGV");
	/* An address of which no page can exist has no place in si_addr. */
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)address(0x8000000000000000) = 1;
	EXPECT(count == 8 && last.si_signo == SIGSEGV, "an address that is not canonical is SIGSEGV");
#elif defined(__riscv)
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("ebreak");
	EXPECT(count == 5 && last.si_signo == SIGTRAP, "a breakpoint is SIGTRAP");
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("csrr t0, sstatus" ::: "t0");
	EXPECT(count == 6 && last.si_signo == SIGILL, "a privileged instruction is SIGILL");
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("lr.w t0, (%0)" ::"r"((char *)ends + 1) : "t0", "memory");
	EXPECT(count == 7 && last.si_signo == SIGBUS && last.si_code == BUS_ADRALN, "an atomic access that is not aligned is SIGBUS");
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)address(0x8000000000000000) = 1;
	EXPECT(count == 8 && last.si_signo == SIGSEGV, "an address that no program has is SIGSEGV");
	if (sigsetjmp(back, 1) == 0)
		((void (*)(void))address(0x8000000000000000))();
	EXPECT(count == 9 && last.si_signo == SIGSEGV, "and a jump to it");
#endif
	for (volatile int i = 0; i < 1000; i++)
		if (sigsetjmp(back, 1) == 0)
			*(volatile char *)address(24) = 1;
	EXPECT(count >= 1004, "a thousand faults in a row");
	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	signal(SIGFPE, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
}

#ifdef __x86_64__
/* Goes on behind the instruction of two bytes that faulted, with a value for it. */
static void skip_instruction(int signal, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	note(signal, info, context);
	registers[REG_RIP] += 2;
	registers[REG_RAX] = 4711;
}

static void changed_registers(void)
{
	unsigned long value;

	handle(SIGILL, 0, skip_instruction);
	__asm__ volatile("ud2" : "=a"(value) : "0"(1) : "memory");
	EXPECT_VALUE(4711, value, "what a handler writes into the saved registers is taken");
	signal(SIGILL, SIG_DFL);
}

/* Every register that a program has keeps its value across signals at any place in a loop. */
static void kept_registers(void)
{
	struct itimerval often = { .it_value = { .tv_usec = 500 }, .it_interval = { .tv_usec = 500 } }, off = { 0 };
	unsigned long wrong = 0;

	handle(SIGALRM, SA_RESTART, note);
	count = 0;
	REQUIRE(setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
	while (count < 200) {
		unsigned long bad = 0;

		__asm__ volatile(
			"mov $0x1111111111111111, %%rbx\n mov $0x2222222222222222, %%rcx\n mov $0x3333333333333333, %%rdx\n"
			"mov $0x4444444444444444, %%rsi\n mov $0x5555555555555555, %%rdi\n mov $0x6666666666666666, %%r8\n"
			"mov $0x7777777777777777, %%r9\n mov $0x0888888888888888, %%r10\n mov $0x0999999999999999, %%r11\n"
			"mov $0x0aaaaaaaaaaaaaaa, %%r12\n mov $0x0bbbbbbbbbbbbbbb, %%r13\n mov $0x0ccccccccccccccc, %%r14\n"
			"mov $0x0ddddddddddddddd, %%r15\n movq %%r8, %%xmm0\n movq %%r9, %%xmm15\n"
			"movq $0x123, -120(%%rsp)\n" /* the red zone */
			"mov $20000, %%eax\n"
			"1: dec %%eax\n jnz 1b\n"
			"movq %%xmm0, %%rax\n xor %%r8, %%rax\n or %%rax, %0\n movq %%xmm15, %%rax\n xor %%r9, %%rax\n or %%rax, %0\n"
			"mov -120(%%rsp), %%rax\n xor $0x123, %%rax\n or %%rax, %0\n"
			"mov $0x1111111111111111, %%rax\n xor %%rbx, %%rax\n or %%rax, %0\n"
			"mov $0x2222222222222222, %%rax\n xor %%rcx, %%rax\n or %%rax, %0\n"
			"mov $0x3333333333333333, %%rax\n xor %%rdx, %%rax\n or %%rax, %0\n"
			"mov $0x4444444444444444, %%rax\n xor %%rsi, %%rax\n or %%rax, %0\n"
			"mov $0x5555555555555555, %%rax\n xor %%rdi, %%rax\n or %%rax, %0\n"
			"mov $0x6666666666666666, %%rax\n xor %%r8, %%rax\n or %%rax, %0\n"
			"mov $0x7777777777777777, %%rax\n xor %%r9, %%rax\n or %%rax, %0\n"
			"mov $0x0888888888888888, %%rax\n xor %%r10, %%rax\n or %%rax, %0\n"
			"mov $0x0999999999999999, %%rax\n xor %%r11, %%rax\n or %%rax, %0\n"
			"mov $0x0aaaaaaaaaaaaaaa, %%rax\n xor %%r12, %%rax\n or %%rax, %0\n"
			"mov $0x0bbbbbbbbbbbbbbb, %%rax\n xor %%r13, %%rax\n or %%rax, %0\n"
			"mov $0x0ccccccccccccccc, %%rax\n xor %%r14, %%rax\n or %%rax, %0\n"
			"mov $0x0ddddddddddddddd, %%rax\n xor %%r15, %%rax\n or %%rax, %0\n"
			: "+m"(bad)
			:
			: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
			  "xmm15", "memory", "cc");
		wrong += bad != 0;
	}
	REQUIRE(setitimer(ITIMER_REAL, &off, NULL) == 0, "setitimer");
	EXPECT_VALUE(0, wrong, "registers survive two hundred signals in a loop");
}
#elif defined(__riscv)
/* Goes on behind the instruction of four bytes that faulted, with a value for it. */
static void skip_instruction(int signal, siginfo_t *info, void *context)
{
	unsigned long *registers = ((ucontext_t *)context)->uc_mcontext.__gregs;

	note(signal, info, context);
	registers[REG_PC] += 4;
	registers[REG_A0] = 4711;
}

static void changed_registers(void)
{
	register unsigned long value __asm__("a0") = 1;

	handle(SIGILL, 0, skip_instruction);
	__asm__ volatile(".option push\n .option norvc\n unimp\n .option pop\n" : "+r"(value) : : "memory");
	EXPECT_VALUE(4711, value, "what a handler writes into the saved registers is taken");
	signal(SIGILL, SIG_DFL);
}

/* All registers but sp, gp and tp, which the handler needs, and x5 and x6, which count and collect. */
#define KEPT "1,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* Every register that a program has keeps its value across signals at any place in a loop. */
static void kept_registers(void)
{
	struct itimerval often = { .it_value = { .tv_usec = 500 * SLOWNESS }, .it_interval = { .tv_usec = 500 * SLOWNESS } }, off = { 0 };
	unsigned long wrong = 0;

	handle(SIGALRM, SA_RESTART, note);
	count = 0;
	REQUIRE(setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
	while (count < 200) {
		unsigned long bad = 0;

		__asm__ volatile(
			".irp n," KEPT "\n li x\\n, 0x0101010101010101 * \\n\n .endr\n"
			"li x6, 0x0606060606060606\n"
			"li x5, %1\n"
			"1: addi x5, x5, -1\n bnez x5, 1b\n"
			"li x5, 0x0606060606060606\n xor x6, x6, x5\n"
			".irp n," KEPT "\n li x5, 0x0101010101010101 * \\n\n xor x5, x5, x\\n\n or x6, x6, x5\n .endr\n"
			"sd x6, %0\n"
			: "=m"(bad)
			: "i"(20000 / SLOWNESS)
			: "x1", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x19", "x20",
			  "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30", "x31", "memory");
		wrong += bad != 0;
	}
	REQUIRE(setitimer(ITIMER_REAL, &off, NULL) == 0, "setitimer");
	EXPECT_VALUE(0, wrong, "registers survive two hundred signals in a loop");
}
#endif

static void leave_loop(int signal, siginfo_t *info, void *context)
{
	note(signal, info, context);
	siglongjmp(back, 1);
}

static void endless_loop(void)
{
	volatile unsigned long n = 0;

	handle(SIGALRM, 0, leave_loop);
	if (sigsetjmp(back, 1) == 0) {
		soon(30000);
		for (;;)
			n++;
	}
	reached("a signal ends an endless loop");
}

static void *wait_here(void *result)
{
	sigset_t set;
	int signal = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	*(int *)result = sigwait(&set, &signal) == 0 ? signal : -1;
	return NULL;
}

static void to_a_thread(void)
{
	pthread_t thread;
	sigset_t set;
	int result = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0, "pthread_sigmask");
	REQUIRE((errno = pthread_create(&thread, NULL, wait_here, &result)) == 0, "pthread_create");
	EXPECT_OK(pthread_kill(thread, SIGUSR2), "pthread_kill");
	pthread_join(thread, NULL);
	EXPECT_VALUE(SIGUSR2, result, "sigwait in another thread");
}

int main(void)
{
	checks_begin();
	plain();
	nested();
	on_alternate_stack();
	restart();
	survived_faults();
	changed_registers();
	kept_registers();
	endless_loop();
	to_a_thread();
	return checks_end();
}
