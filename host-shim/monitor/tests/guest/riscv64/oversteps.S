// SPDX-License-Identifier: Apache-2.0 OR MIT
// What a guest tries that it may not, one function each. Plain C functions; none of them is expected to return.
#include "hostcall_abi.h"
#include "xcheri.h"

	.option norelax
	.text

// void jump_to(address)
	.globl jump_to
jump_to:
	jr a0

// u64 own_base(void): the first address that the data capability allows, as the machine counts.
	.globl own_base
own_base:
	cspecialrw ct0, ddc, cnull
	cgetbase a0, ct0
	ret

// u64 monitor_data(store), monitor_code(store): the address of the monitor's context, and of its code.
	.globl monitor_data, monitor_code
monitor_data:
	lc ct0, LKL_STORE_MONITOR_DATA(a0)
	cgetaddr a0, ct0
	ret
monitor_code:
	lc ct0, LKL_STORE_HOSTCALL(a0)
	cgetaddr a0, ct0
	ret

// void use_forged(place, store): the bytes of the monitor's data capability are written by integers to 16 aligned bytes, loaded as a
// capability, and used.
	.globl use_forged
use_forged:
	ld t0, LKL_STORE_MONITOR_DATA(a1)
	ld t1, LKL_STORE_MONITOR_DATA + 8(a1)
	sd t0, 0(a0)
	sd t1, 8(a0)
	lc ct0, 0(a0)
	cinvoke ct0, ct0

// void use_forged_bounds(place): a capability for everything, made of integers.
	.globl use_forged_bounds
use_forged_bounds:
	sd zero, 0(a0)
	li t0, -1
	sd t0, 8(a0)
	lc ct0, 0(a0)
	lb.cap a0, (ct0)
	ret

// void use_widened(void): the own data capability with a byte more.
	.globl use_widened
use_widened:
	cspecialrw ct0, ddc, cnull
	cgetlen t1, ct0
	addi t1, t1, 1
	csetbounds ct0, ct0, t1
	lb.cap a0, (ct0)
	ret

// void use_sealed(store): the monitor's data capability as it is.
	.globl use_sealed
use_sealed:
	lc ct0, LKL_STORE_MONITOR_DATA(a0)
	lb.cap a0, (ct0)
	ret

// void use_unsealed(store): unseals the monitor's data capability by the own one, and uses it.
	.globl use_unsealed
use_unsealed:
	lc ct0, LKL_STORE_MONITOR_DATA(a0)
	cspecialrw ct1, ddc, cnull
	cunseal ct0, ct0, ct1
	lb.cap a0, (ct0)
	ret

// void invoke_mixed(store): the monitor's code with the own data.
	.globl invoke_mixed
invoke_mixed:
	lc ct0, LKL_STORE_HOSTCALL(a0)
	lc ct1, LKL_STORE_RETURN_DATA(a0)
	cinvoke ct0, ct1

// void invoke_stale(store): makes a hostcall by this store.
	.globl invoke_stale
invoke_stale:
	lc ct1, LKL_STORE_HOSTCALL(a0)
	lc ct2, LKL_STORE_MONITOR_DATA(a0)
	cinvoke ct1, ct2

// void store_capability(place): keeps a capability in the own memory.
	.globl store_capability
store_capability:
	cspecialrw ct0, ddc, cnull
	sc ct0, 0(a0)
	ret

// void take_system_register(void): reads a capability that belongs to the machine.
	.globl take_system_register
take_system_register:
	cspecialrw ct0, mtcc, cnull
	ret

	.section .note.GNU-stack, "", @progbits
