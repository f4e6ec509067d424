// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "guest.h"

struct boot *boot;
int argc;
const char *argv[16];
u64 returned_again;
void (*on_trap_user)(struct trap *trap);
void (*on_trap_kernel)(struct trap *trap);

static u8 user_stack[16384] __attribute__((aligned(16)));

/* In entry.S. */
void resume(struct registers *registers, u64 how) __attribute__((noreturn));
static struct registers saved;

static void __attribute__((noreturn)) return_to(struct registers *registers, u64 how)
{
	saved = *registers;
	resume(&saved, how);
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
	struct entries entries = ENTRIES;

	CHECK_EQ(hostcall(HOSTCALL_VCPU_READY, (u64)&entries, 0, 0, 0), 0);
}

static struct trap *trap(void)
{
	return (struct trap *)(boot->vcpu + LKL_VCPU_TRAP);
}

void trap_user_c(void)
{
	struct trap copy = *trap();

	on_trap_user(&copy);
	return_to(&copy.registers, RESUME_PROGRAM);
}

void trap_kernel_c(void)
{
	struct trap copy = *trap();

	*(volatile u64 *)(boot->vcpu + LKL_VCPU_IN_KERNEL_FAULT) = 0;
	on_trap_kernel(&copy);
	return_to(&copy.registers, RESUME_KERNEL);
}

/* The registers still lie where they were popped from; a kick is all that can have happened. */
void return_again_c(void)
{
	struct trap copy = { .kind = LKL_TRAP_INTERRUPT, .registers = saved };

	returned_again++;
	on_trap_user(&copy);
	return_to(&copy.registers, RESUME_PROGRAM);
}

void enter_user(void *begin, void *end, u64 argument)
{
	u8 *code = (u8 *)boot->ram_begin;
	struct registers registers = program_registers(code, argument, (u64)user_stack + sizeof(user_stack));

	memcpy(code, begin, (u8 *)end - (u8 *)begin);
	flush_code();
	return_to(&registers, RESUME_PROGRAM);
}

int guest_main(void);

void guest_start(struct boot *info)
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
