// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Guests that overstep. They have told the monitor no entries for traps, so each ends by what it did; argv[2] says what that is. */
#include "guest.h"

void jump_to(u64 address);
u64 own_base(void);
u64 monitor_data(u64 store);
u64 monitor_code(u64 store);
void use_forged(void *place, u64 store);
void use_forged_bounds(void *place);
void use_widened(void);
void use_sealed(u64 store);
void use_unsealed(u64 store);
void invoke_mixed(u64 store);
void invoke_stale(u64 store);
void store_capability(void *place);
void take_system_register(void);

static u8 place[16] __attribute__((aligned(16)));

/* The integer that the machine's address has here: relative to the own range in the older generation. */
static u64 here(u64 address)
{
	return address - own_base() + boot->range_begin;
}

/* argv[3] is how far the neighbour's range is from the own one. */
static u64 neighbour(void)
{
	return boot->range_begin + number(argv[3]) + 0x100000;
}

static void load(u64 address)
{
	*(volatile u8 *)address;
}

static void store(u64 address)
{
	*(volatile u8 *)address = 1;
}

static u64 own_store(void)
{
	return vcpu_word(LKL_VCPU_GATE);
}

static void overstep_one(const char *what)
{
	if (string_equal(what, "load_neighbour"))
		load(neighbour());
	else if (string_equal(what, "store_neighbour"))
		store(neighbour());
	else if (string_equal(what, "jump_neighbour"))
		jump_to(neighbour());
	else if (string_equal(what, "load_monitor"))
		load(here(monitor_data(own_store())));
	else if (string_equal(what, "store_monitor"))
		store(here(monitor_data(own_store())));
	else if (string_equal(what, "jump_monitor"))
		jump_to(here(monitor_code(own_store())));
	else if (string_equal(what, "load_beyond"))
		load(boot->range_end);
	else if (string_equal(what, "load_across"))
		*(volatile u64 *)(boot->range_end - 4);
	else if (string_equal(what, "store_before"))
		store(boot->range_begin - 1);
	else if (string_equal(what, "forge"))
		use_forged(place, own_store());
	else if (string_equal(what, "forge_bounds"))
		use_forged_bounds(place);
	else if (string_equal(what, "widen"))
		use_widened();
	else if (string_equal(what, "use_sealed"))
		use_sealed(own_store());
	else if (string_equal(what, "unseal"))
		use_unsealed(own_store());
	else if (string_equal(what, "mix"))
		invoke_mixed(own_store());
	else if (string_equal(what, "keep"))
		store_capability(place);
	else if (string_equal(what, "system"))
		take_system_register();
	else
		print("no such overstep\n");
}

int overstep(void)
{
	overstep_one(argv[2]);
	print("nothing stopped it\n");
	return 97;
}

static volatile u64 portal_store;

/* Keeps the address of its capability store. */
static s64 keeping_portal(u64 cookie, u64 op, u64 len, u64 sender, u64 gate)
{
	if (op == 1)
		return 64;
	portal_store = gate;
	hostcall_by(gate, HOSTCALL_WAKE, 0, 0, 0, 0);
	return 0;
}

/* Calls the monitor by what a portal was given, after the portal is over. */
int use_stale_grant(void)
{
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)keeping_portal, 0, (u64) "key1\0\0\0\0\0", 0) >= 0);
	while (!portal_store)
		wait_for(1ul << LKL_IRQ_CAPABILITY);
	for (;;) {
		s64 handle = hostcall(HOSTCALL_STREAM_PROBE, (u64) "done\0\0\0\0\0", 1, 0, 0);

		if (handle >= 0)
			break;
		CHECK_EQ(handle, -2);
		wait_for(1ul << LKL_IRQ_CAPABILITY);
	}
	invoke_stale(portal_store);
	return 97;
}

/* Sends one message, tells that it is over, and goes on for a while. */
int send_once(void)
{
	s64 handle;

	while ((handle = hostcall(HOSTCALL_STREAM_PROBE, (u64) "key1\0\0\0\0\0", 1, 0, 0)) < 0) {
		CHECK_EQ(handle, -2);
		wait_for(1ul << LKL_IRQ_CAPABILITY);
	}
	CHECK_EQ(hostcall(HOSTCALL_CALL, handle, (u64)place, sizeof(place), 0), 0);
	CHECK(hostcall(HOSTCALL_STREAM_ADVERTISE, (u64)keeping_portal, 0, (u64) "done\0\0\0\0\0", 0) >= 0);
	/* Until the receiver is gone. */
	while (hostcall(HOSTCALL_WAIT, handle, 0, 0, 0) == 0)
		wait_for(1ul << LKL_IRQ_CAPABILITY);
	print("the sender goes on\n");
	return 0;
}
