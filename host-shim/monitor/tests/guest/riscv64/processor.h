/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What guest.c and scenarios.c need to know of riscv64 with CHERI. */
#ifndef PROCESSOR_H
#define PROCESSOR_H

struct registers {
	u64 epc, ra, sp, gp, tp, t0, t1, t2, s0, s1, a0, a1, a2, a3, a4, a5, a6, a7, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, t3, t4, t5, t6;
	u64 status, badaddr, cause, orig_a0;
};

/* How resume() is called. */
#define RESUME_PROGRAM LKL_RESUME_PROGRAM
#define RESUME_KERNEL LKL_RESUME_KERNEL

/* An address that is outside of the range, the exception of a load from there, and bytes of the load in load_byte(). */
#define OUTSIDE 0xdead000ul
#define OUTSIDE_VECTOR 28
#define LOAD_SIZE 4

/* An address of the monitor's: it has none below the ranges of cVMs, and cannot be seen. */
#define MONITOR_POINTER (1ul << 46)

extern char trap_user_entry[], trap_kernel_entry[], return_again[];

/* A struct entries. */
#define ENTRIES { (u64)trap_user_entry, (u64)trap_kernel_entry, 0, 0, 0, (u64)return_again }

static inline u64 *program_counter(struct registers *registers)
{
	return &registers->epc;
}

/* What user_loop counts in. */
static inline u64 count(struct registers *registers)
{
	return registers->s1;
}

static inline struct registers program_registers(void *code, u64 argument, u64 sp)
{
	return (struct registers){ .epc = (u64)code, .a0 = argument, .sp = sp };
}

/* Makes instructions that were written visible to the processor. */
static inline void flush_code(void)
{
	asm volatile("fence.i" : : : "memory");
}

/* Scenarios of this processor's own, see oversteps.c. */
int overstep(void);
int use_stale_grant(void);
int send_once(void);
#define PROCESSOR_SCENARIOS SCENARIO(overstep), SCENARIO(use_stale_grant), SCENARIO(send_once),

#endif
