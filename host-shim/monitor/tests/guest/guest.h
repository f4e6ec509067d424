/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What the guests of the tests have in common: hostcalls, output, traps. A guest is a kernel that does one thing and says whether it
 * went as it should. What differs between processors is in the folders with their names.
 */
#ifndef GUEST_H
#define GUEST_H

#include "hostcall_abi.h"

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

u64 vcpu_word(u64 offset);

#include "processor.h"

struct trap {
	u64 kind, vector, error, address, signal;
	struct registers registers;
};

_Static_assert(sizeof(struct trap) == 8 * ABI_TRAP_WORDS, "struct trap");

struct entries {
	u64 trap_user, trap_kernel, syscall, return_begin, return_end, return_again;
};

struct boot {
	u64 magic, image_begin, image_end, ram_begin, ram_end, range_begin, range_end, vcpu, command_line, wall_clock_ns;
	u64 xsave_size, xsave_mask, virtio_count;
	struct { u64 mmio, irq; } virtio[16];
	u8 seed[32];
};

extern struct boot *boot;
extern int argc;
extern const char *argv[16];

s64 hostcall(u64 number, u64 a, u64 b, u64 c, u64 d);
/* The same by another gate, for portals. */
s64 hostcall_by(u64 gate, u64 number, u64 a, u64 b, u64 c, u64 d);
/* With five arguments. */
s64 hostcall_five(u64 gate, u64 number, u64 a, u64 b, u64 c, u64 d, u64 e);

/* %s %d %u %x and nothing else, each as a 64-bit word. */
void print(const char *format, ...);
void power_off(u64 reason, u64 status) __attribute__((noreturn));
/* Ends with status 99 and says where, unless the condition holds. */
#define CHECK(condition) do { if (!(condition)) failed(#condition, __LINE__, 0); } while (0)
#define CHECK_EQ(left, right) check_eq(#left " == " #right, __LINE__, (s64)(left), (s64)(right))
void failed(const char *what, int line, s64 value) __attribute__((noreturn));
void check_eq(const char *what, int line, s64 left, s64 right);

/* The pending word: its bits, and they are cleared. */
u64 take_pending(void);
/* Waits until one of the bits is pending and takes it; others stay. */
void wait_for(u64 bits);

/* Traps: what the guest does with them. The registers are where the program goes on. */
extern void (*on_trap_user)(struct trap *trap);
extern void (*on_trap_kernel)(struct trap *trap);
void vcpu_ready(void);
/* Runs a program whose code is copied to memory outside of the image; does not return, on_trap_user does what comes next. */
void enter_user(void *begin, void *end, u64 argument) __attribute__((noreturn));
/* How often a trap came behind the last look at the pending word. */
extern u64 returned_again;

int string_equal(const char *a, const char *b);
u64 number(const char *text);
void *memcpy(void *to, const void *from, u64 len);
void *memset(void *to, int byte, u64 len);

/* The programs, see programs.S. */
extern char user_loop[], user_loop_end[], user_calls[], user_calls_end[], user_faults[], user_faults_end[];

/* For on_trap_kernel: takes a load from OUTSIDE for done. */
void on_fixup(struct trap *trap);

/* Scenarios in files of their own. */

/* rights.c */
int tries(void);
int sends_much(void);
int writes_much(void);
int publishes_often(void);
int has_memory(void);

/* What the processor has of scenarios.c. */

/* One load. */
void load_byte(u64 address);
/* Checks what the boot page says of the processor. */
void check_boot(void);
/* Faults with a stack pointer that is no good. */
void lose_stack(void);
/* Puts something into all registers that a hostcall has to keep; makes a hostcall and checks that it has. */
void set_registers(void);
void check_registers(u64 number, const u64 *arguments);
int user_calls_are_traps(void);
int user_faults_are_traps(void);
int kernel_makes_system_call(void);
int leftovers_do_no_harm(void);

#endif
