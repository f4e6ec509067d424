// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Policies, priorities and processors of a process, as the calls themselves have them: the C library does without some. What would last is done
 * by a child.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include "calls.h"

enum { other = 0, fifo = 1, round_robin = 2, batch = 3, idle = 5, deadline = 6 };
enum { of_process = 1, of_group = 2, of_user = 3 };
enum { io_real_time = 1 << 13, io_best_effort = 2 << 13, io_idle = 3 << 13 };

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t least, most;
	uint64_t more;
};

static long set_attributes(struct attributes attributes)
{
	if (attributes.size == 0)
		attributes.size = 48;
	return syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static struct attributes attributes_are(void)
{
	struct attributes attributes = { 0 };

	syscall(SYS_sched_getattr, 0, &attributes, 56, 0);
	return attributes;
}

static int priority_is(void)
{
	int priority = -1;

	return syscall(SYS_sched_getparam, 0, &priority) == 0 ? priority : -1;
}

static long set_priority(int priority)
{
	return syscall(SYS_sched_setparam, 0, &priority);
}

static long set_policy(int policy, int priority)
{
	return syscall(SYS_sched_setscheduler, 0, policy, &priority);
}

static void policies(void)
{
	struct timespec slice = { -1, -1 };

	EXPECT_VALUE(0, priority_is(), "sched_getparam");
	EXPECT_OK(set_priority(0), "sched_setparam of what is there");
	EXPECT_ERROR(EINVAL, set_priority(1), "only real-time policies have a priority");
	EXPECT(syscall(SYS_sched_rr_get_interval, 0, &slice) == 0 && slice.tv_sec == 0 && slice.tv_nsec >= 0, "sched_rr_get_interval");
	EXPECT_OK(set_policy(fifo, 5), "sched_setscheduler");
	EXPECT(syscall(SYS_sched_getscheduler, 0) == fifo && priority_is() == 5, "sets policy and priority");
	EXPECT_OK(set_priority(7), "sched_setparam");
	EXPECT(syscall(SYS_sched_getscheduler, 0) == fifo && priority_is() == 7, "sets the priority alone");
	EXPECT_ERROR(EINVAL, set_priority(0), "of which 0 is none");
	EXPECT_ERROR(EINVAL, set_priority(100), "nor is 100");
	EXPECT(syscall(SYS_sched_rr_get_interval, 0, &slice) == 0 && slice.tv_sec == 0 && slice.tv_nsec == 0, "a fifo has no slices");
	EXPECT_OK(set_policy(round_robin, 1), "round robin");
	EXPECT(syscall(SYS_sched_rr_get_interval, 0, &slice) == 0 && slice.tv_sec == 0 && slice.tv_nsec == 100000000, "has slices of 100 ms");
	EXPECT_OK(set_policy(batch, 0) | set_policy(idle, 0) | set_policy(other, 0), "and back");
	EXPECT_ERROR(EINVAL, set_policy(4, 0), "there is no policy 4");
	EXPECT_ERROR(ESRCH, syscall(SYS_sched_getparam, 0x7ffffff, &slice), "sched_getparam of no process");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_getparam, -1, &slice), "and of an impossible one");
	EXPECT_ERROR(ESRCH, syscall(SYS_sched_setparam, 0x7ffffff, &slice), "sched_setparam of no process");
	EXPECT_ERROR(ESRCH, syscall(SYS_sched_rr_get_interval, 0x7ffffff, &slice), "sched_rr_get_interval of no process");
}

static void limits(void)
{
	EXPECT(syscall(SYS_sched_get_priority_min, fifo) == 1 && syscall(SYS_sched_get_priority_max, fifo) == 99, "priorities of a fifo");
	EXPECT(syscall(SYS_sched_get_priority_min, round_robin) == 1 && syscall(SYS_sched_get_priority_max, round_robin) == 99,
	       "and of round robin");
	EXPECT(syscall(SYS_sched_get_priority_min, other) == 0 && syscall(SYS_sched_get_priority_max, other) == 0, "others have none");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_get_priority_min, 4), "sched_get_priority_min of no policy");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_get_priority_max, 4), "sched_get_priority_max of no policy");
}

static void reset_child(void)
{
	EXPECT(syscall(SYS_sched_getscheduler, 0) == other && priority_is() == 0, "which a child of it has not");
}

static void attributes(void)
{
	struct attributes is = attributes_are(), longer = { .size = 64, .more = 1 };

	EXPECT(is.size == 56 && is.policy == other && is.nice == 0 && is.priority == 0, "sched_getattr");
	EXPECT_OK(set_attributes((struct attributes){ .policy = batch, .nice = 5 }), "sched_setattr");
	is = attributes_are();
	EXPECT(is.policy == batch && is.nice == 5 && getpriority(PRIO_PROCESS, 0) == 5, "sets the policy and how nice it is");
	EXPECT_OK(set_attributes((struct attributes){ .policy = fifo, .priority = 3, .flags = 1 }), "sched_setattr with a flag");
	is = attributes_are();
	EXPECT(is.policy == fifo && is.priority == 3 && is.flags == 1, "sets the priority");
	in_child(reset_child, "a child ends");
	EXPECT_OK(set_attributes((struct attributes){ .policy = deadline, .runtime = 5000000, .deadline = 20000000, .period = 30000000 }),
		  "a deadline");
	is = attributes_are();
	EXPECT(is.policy == deadline && is.runtime == 5000000 && is.deadline == 20000000 && is.period == 30000000, "with its times");
	EXPECT_OK(set_attributes((struct attributes){ .policy = other }), "and none any more");
	EXPECT_ERROR(EINVAL, set_attributes((struct attributes){ .policy = deadline, .runtime = 30000000, .deadline = 20000000, .period = 30000000 }),
		     "more time than there is to the deadline");
	EXPECT_ERROR(EBUSY, set_attributes((struct attributes){ .policy = deadline, .runtime = 20000000, .deadline = 20000000, .period = 20000000 }),
		     "nobody gets all time");
	EXPECT_ERROR(EINVAL, set_attributes((struct attributes){ .policy = 4 }), "no policy");
	EXPECT_ERROR(EINVAL, set_attributes((struct attributes){ .flags = 1 << 20 }), "an unknown flag");
	EXPECT_ERROR(E2BIG, set_attributes((struct attributes){ .size = 40 }), "too short a structure");
	EXPECT_ERROR(E2BIG, set_attributes(longer), "a longer one, in which there is something");
	longer.more = 0;
	EXPECT_OK(set_attributes(longer), "and one in which there is nothing");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_getattr, 0, &is, 40, 0), "sched_getattr with too little room");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_getattr, 0, &is, 48, 1), "and with an unknown flag");
	EXPECT_ERROR(ESRCH, syscall(SYS_sched_getattr, 0x7ffffff, &is, 48, 0), "and of no process");
}

static void processors(void)
{
	unsigned long first = 1, two = 3, second = 2, none = 0, is = 0;
	unsigned processor = 99, node = 99;

	EXPECT_OK(syscall(SYS_getcpu, &processor, &node, NULL), "getcpu");
	EXPECT(processor == 0 && node == 0, "there is processor 0 only");
	EXPECT_OK(syscall(SYS_getcpu, NULL, NULL, NULL), "getcpu into nothing");
	EXPECT_ERROR(EFAULT, syscall(SYS_getcpu, 16, NULL, NULL), "and to a bad pointer");
	EXPECT_OK(syscall(SYS_sched_setaffinity, 0, sizeof(first), &first), "sched_setaffinity to it");
	EXPECT_OK(syscall(SYS_sched_setaffinity, 0, sizeof(two), &two), "and to more, of which it is one");
	EXPECT(syscall(SYS_sched_getaffinity, 0, sizeof(is), &is) == 8 && is == 1, "is what sched_getaffinity tells");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_setaffinity, 0, sizeof(second), &second), "to another one");
	EXPECT_ERROR(EINVAL, syscall(SYS_sched_setaffinity, 0, sizeof(none), &none), "and to none");
	EXPECT_ERROR(ESRCH, syscall(SYS_sched_setaffinity, 0x7ffffff, sizeof(first), &first), "and of no process");
}

static void inherited_io(void)
{
	EXPECT_VALUE(io_best_effort | 6, syscall(SYS_ioprio_get, of_process, 0), "which children have too");
}

static void io(void)
{
	EXPECT_OK(syscall(SYS_ioprio_set, of_process, 0, io_best_effort | 6), "ioprio_set");
	EXPECT_VALUE(io_best_effort | 6, syscall(SYS_ioprio_get, of_process, getpid()), "ioprio_get");
	in_child(inherited_io, "a child ends");
	EXPECT_OK(syscall(SYS_ioprio_set, of_group, 0, io_real_time | 2), "ioprio_set of a group");
	EXPECT_VALUE(io_real_time | 2, syscall(SYS_ioprio_get, of_process, 0), "of which this process is");
	EXPECT_VALUE(io_real_time | 2, syscall(SYS_ioprio_get, of_user, 0), "and is the first among those of the user");
	EXPECT_OK(syscall(SYS_ioprio_set, of_process, 0, io_idle), "ioprio_set to when nobody else wants");
	EXPECT_VALUE(io_idle, syscall(SYS_ioprio_get, of_process, 0), "sets it");
	EXPECT_ERROR(EINVAL, syscall(SYS_ioprio_set, of_process, 0, 5 << 13), "no class");
	EXPECT_ERROR(EINVAL, syscall(SYS_ioprio_set, of_process, 0, 3), "a level without a class");
	EXPECT_ERROR(EINVAL, syscall(SYS_ioprio_set, 9, 0, io_idle), "of what there is not");
	EXPECT_ERROR(EINVAL, syscall(SYS_ioprio_get, 9, 0), "and of what there is not to be told");
	EXPECT_ERROR(ESRCH, syscall(SYS_ioprio_get, of_process, 0x7ffffff), "nor of no process");
	EXPECT_OK(syscall(SYS_ioprio_set, of_process, 0, 0), "and none any more");
}

static void as_nobody(void)
{
	unsigned long first = 1;

	become_nobody();
	EXPECT_ERROR(EPERM, set_policy(fifo, 1), "no real-time policy without rights");
	EXPECT_ERROR(EPERM, set_attributes((struct attributes){ .nice = -1 }), "and nothing better than before");
	EXPECT_OK(set_attributes((struct attributes){ .nice = 1 }), "but worse");
	EXPECT_ERROR(EPERM, syscall(SYS_sched_setaffinity, 1, sizeof(first), &first), "other processes are let alone");
	EXPECT_ERROR(EPERM, syscall(SYS_ioprio_set, of_process, 1, io_idle), "also their priority at disks");
	EXPECT_ERROR(EPERM, syscall(SYS_ioprio_set, of_process, 0, io_real_time), "of which one's own is not the first");
}

int main(void)
{
	checks_begin();
	in_child(policies, "a child with policies ends");
	limits();
	in_child(attributes, "a child with attributes ends");
	processors();
	io();
	in_child(as_nobody, "a child without rights ends");
	return checks_end();
}
