// SPDX-License-Identifier: GPL-2.0-only
/*
 * One turn of a spinning wait, for processor.rs: cpu_relax(), cond_resched() and signal_pending() are inline functions.
 */
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <asm/processor.h>

bool capstream_spin(bool yield_now);

/*
 * Takes interrupts that are pending, lets other tasks run (if it is their turn, or, with yield_now, if there are any), and
 * tells whether the calling task has a signal.
 */
bool capstream_spin(bool yield_now)
{
	cpu_relax();
	if (yield_now)
		yield();
	else
		cond_resched();
	return signal_pending(current);
}
