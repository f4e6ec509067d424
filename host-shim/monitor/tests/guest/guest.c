// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "guest.h"

struct boot *boot;
int argc;
const char *argv[16];
u64 returned_again;
void (*on_trap_user)(struct trap *trap);
void (*on_trap_kernel)(struct trap *trap);

static u8 stack[65536] __attribute__((aligned(16), used));
static u8 user_stack[16384] __attribute__((aligned(16)));

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/*
 * In: rdi = boot page, nothing else is needed. The stack is the image's own.
 */
asm(
"	.globl _start\n"
"_start:\n"
"	leaq stack+65536(%rip), %rsp\n"
"	call guest_start\n"
"	ud2\n"
/*
 * s64 hostcall_by(gate, number, a, b, c, d). A call with the arguments moved by two.
 */
"	.globl hostcall_by\n"
"hostcall_by:\n"
"	movq %rdi, %r11\n"
"	movq %rsi, %rax\n"
"	movq %rdx, %rdi\n"
"	movq %rcx, %rsi\n"
"	movq %r8, %rdx\n"
"	movq %r9, %rcx\n"
"	subq $8, %rsp\n"
"	call *%r11\n"
"	addq $8, %rsp\n"
"	ret\n"
/*
 * A trap in a program. rsp is the program's. Goes on on the kernel's stack, which is empty: there is one program.
 */
"	.globl trap_user_entry\n"
"trap_user_entry:\n"
"	leaq stack+65536(%rip), %rsp\n"
"	call trap_user_c\n"
"	ud2\n"
"	.globl trap_kernel_entry\n"
"trap_kernel_entry:\n"
"	call trap_kernel_c\n"
"	ud2\n"
"	.globl syscall_entry\n"
"syscall_entry:\n"
"	ud2\n"
/*
 * void pop_registers(struct registers *): goes on with all of these registers, which are not on the stack. A kick between the labels
 * comes back to return_again.
 */
"	.globl pop_registers\n"
"pop_registers:\n"
"	movq %rdi, %rsp\n"
"	.globl return_begin\n"
"return_begin:\n"
"	movq %gs:" STRING(LKL_VCPU_PENDING) ", %rax\n"
"	testq %rax, %rax\n"
"	jnz return_again\n"
"	popq %r15\n"
"	popq %r14\n"
"	popq %r13\n"
"	popq %r12\n"
"	popq %rbp\n"
"	popq %rbx\n"
"	popq %r11\n"
"	popq %r10\n"
"	popq %r9\n"
"	popq %r8\n"
"	popq %rax\n"
"	popq %rcx\n"
"	popq %rdx\n"
"	popq %rsi\n"
"	popq %rdi\n"
"	addq $8, %rsp\n"
"	iretq\n"
"	.globl return_end\n"
"return_end:\n"
"	.globl return_again\n"
"return_again:\n"
"	leaq stack+65536(%rip), %rsp\n"
"	call return_again_c\n"
"	ud2\n");

extern char trap_user_entry[], trap_kernel_entry[], syscall_entry[], return_begin[], return_end[], return_again[];
void pop_registers(struct registers *registers) __attribute__((noreturn));
static struct registers saved;

static void __attribute__((noreturn)) return_to(struct registers *registers)
{
	saved = *registers;
	pop_registers(&saved);
}

u64 vcpu_word(u64 offset)
{
	return *(volatile u64 *)(boot->vcpu + offset);
}

s64 hostcall(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	return hostcall_by(vcpu_word(LKL_VCPU_GATE), number, a, b, c, d);
}

void *memcpy(void *to, const void *from, u64 len)
{
	for (u64 i = 0; i < len; i++)
		((volatile u8 *)to)[i] = ((const u8 *)from)[i];
	return to;
}

void *memset(void *to, int byte, u64 len)
{
	for (u64 i = 0; i < len; i++)
		((volatile u8 *)to)[i] = byte;
	return to;
}

int string_equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

u64 number(const char *text)
{
	u64 value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (*text++ - '0');
	return value;
}

static char line[512];
static u64 line_len;

static void put(char c)
{
	if (line_len < sizeof(line))
		line[line_len++] = c;
}

static void put_number(u64 value, u64 base)
{
	if (value >= base)
		put_number(value / base, base);
	put("0123456789abcdef"[value % base]);
}

void print(const char *format, ...)
{
	__builtin_va_list arguments;

	__builtin_va_start(arguments, format);
	line_len = 0;
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		u64 value = __builtin_va_arg(arguments, u64);

		switch (*++format) {
		case 's':
			for (const char *text = (const char *)value; *text; text++)
				put(*text);
			break;
		case 'd':
			if ((s64)value < 0) {
				put('-');
				value = -value;
			}
			put_number(value, 10);
			break;
		case 'u':
			put_number(value, 10);
			break;
		case 'x':
			put_number(value, 16);
			break;
		}
	}
	__builtin_va_end(arguments);
	hostcall(HOSTCALL_CONSOLE_WRITE, (u64)line, line_len, 0, 0);
}

void power_off(u64 reason, u64 status)
{
	hostcall(HOSTCALL_POWER_OFF, reason, status, 0, 0);
	for (;;)
		__builtin_trap();
}

void failed(const char *what, int at, s64 value)
{
	print("FAILED in line %u: %s (%d)\n", (u64)at, (u64)what, value);
	power_off(LKL_POWER_OFF_PROGRAM, 99 << 8);
}

void check_eq(const char *what, int at, s64 left, s64 right)
{
	if (left != right) {
		print("%d is not %d\n", left, right);
		failed(what, at, left);
	}
}

u64 take_pending(void)
{
	return __atomic_exchange_n((u64 *)(boot->vcpu + LKL_VCPU_PENDING), 0, __ATOMIC_SEQ_CST);
}

static u64 *pending(void)
{
	return (u64 *)(boot->vcpu + LKL_VCPU_PENDING);
}

void wait_for(u64 bits)
{
	u64 others = 0;

	for (;;) {
		u64 taken = take_pending();

		others |= taken & ~bits;
		if (taken & bits)
			break;
		hostcall(HOSTCALL_WAIT_FOR_INTERRUPT, 0, 0, 0, 0);
	}
	__atomic_fetch_or(pending(), others, __ATOMIC_SEQ_CST);
}

void vcpu_ready(void)
{
	struct entries entries = {
		(u64)trap_user_entry, (u64)trap_kernel_entry, (u64)syscall_entry,
		(u64)return_begin, (u64)return_end, (u64)return_again,
	};

	CHECK_EQ(hostcall(HOSTCALL_VCPU_READY, (u64)&entries, 0, 0, 0), 0);
}

static struct trap *trap(void)
{
	return (struct trap *)(boot->vcpu + LKL_VCPU_TRAP);
}

__attribute__((used)) static void trap_user_c(void)
{
	struct trap copy = *trap();

	on_trap_user(&copy);
	return_to(&copy.registers);
}

__attribute__((used)) static void trap_kernel_c(void)
{
	struct trap copy = *trap();

	*(volatile u64 *)(boot->vcpu + LKL_VCPU_IN_KERNEL_FAULT) = 0;
	on_trap_kernel(&copy);
	return_to(&copy.registers);
}

/* The registers still lie where they were popped from; a kick is all that can have happened. */
__attribute__((used)) static void return_again_c(void)
{
	struct trap copy = { .kind = LKL_TRAP_INTERRUPT, .registers = saved };

	returned_again++;
	on_trap_user(&copy);
	return_to(&copy.registers);
}

void enter_user(void *begin, void *end)
{
	u8 *code = (u8 *)boot->ram_begin;
	struct registers registers = { .cs = 0x33, .ss = 0x2b, .rflags = 0x202 };

	memcpy(code, begin, (u8 *)end - (u8 *)begin);
	registers.rip = (u64)code;
	registers.rsp = (u64)user_stack + sizeof(user_stack);
	return_to(&registers);
}

int guest_main(void);

__attribute__((used)) void guest_start(struct boot *info)
{
	const char *at = (const char *)info->command_line;

	boot = info;
	while (*at)
		at++;
	at++;
	argc = *(const u32 *)at;
	at += sizeof(u32);
	for (int i = 0; i < argc && i < (int)ARRAY_SIZE(argv); i++) {
		argv[i] = at;
		while (*at)
			at++;
		at++;
	}
	power_off(LKL_POWER_OFF_PROGRAM, (u64)guest_main() << 8);
}
