/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What guest.c and scenarios.c need to know of x86-64. */
#ifndef PROCESSOR_H
#define PROCESSOR_H

struct registers {
	u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, rflags, rsp, ss;
};

/* How resume() is called: all the same here. */
#define RESUME_PROGRAM 0
#define RESUME_KERNEL 0

/* An address that is nobody's, the exception of a load from there, and bytes of the load in load_byte(). */
#define OUTSIDE 0xdead000ul
#define OUTSIDE_VECTOR 14
#define LOAD_SIZE 2

/* An address of the monitor's. */
#define MONITOR_POINTER vcpu_word(LKL_VCPU_GATE)

extern char trap_user_entry[], trap_kernel_entry[], syscall_entry[], return_begin[], return_end[], return_again[];

/* A struct entries. */
#define ENTRIES {							\
	(u64)trap_user_entry, (u64)trap_kernel_entry, (u64)syscall_entry, \
	(u64)return_begin, (u64)return_end, (u64)return_again,		\
}

static inline u64 *program_counter(struct registers *registers)
{
	return &registers->rip;
}

/* What user_loop counts in. */
static inline u64 count(struct registers *registers)
{
	return registers->rbx;
}

static inline struct registers program_registers(void *code, u64 argument, u64 sp)
{
	return (struct registers){ .rip = (u64)code, .rdi = argument, .rsp = sp, .cs = 0x33, .ss = 0x2b, .rflags = 0x202 };
}

/* Makes instructions that were written visible to the processor. */
static inline void flush_code(void)
{
}

/* No scenarios of this processor's own. */
#define PROCESSOR_SCENARIOS

#endif
