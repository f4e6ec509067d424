// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// The ways between the monitor and a cVM on CHERI-RISC-V, hybrid code. CTX_... are offsets in a context, see context_layout.rs; STORE_... are
// places in a capability store, as capstream-abi has them, in bytes.
//
// "ctx" is the address of the vCPU's context. The monitor's PCC and DDC begin at address 0 and cover everything, so its integer addresses are
// absolute in both generations of the ISA; a cVM's begin at its range, so in the older generation its addresses, stack pointers among
// them, are relative to that. Whoever crosses makes its own addresses: a stack pointer is never carried over.
//
// A cVM's code never runs with the monitor's DDC: on the way out DDC is replaced by the cVM's before cinvoke, on the way in cinvoke has
// brought the monitor's code before DDC is replaced by the monitor's.
//
// Floating-point registers belong to the cVM's programs and are not touched: kernels and portals use none.

#include "xcheri.h"

    .option norelax
    .text

// Saves the registers that the C ABI has a callee keep, gp and tp among them. Stack: FRAME_KEPT bytes, aligned to 16.
#define FRAME_KEPT 128
    .macro PUSH_KEPT
    addi sp, sp, -FRAME_KEPT
    sd ra, 0(sp)
    sd gp, 8(sp)
    sd tp, 16(sp)
    sd s0, 24(sp)
    sd s1, 32(sp)
    sd s2, 40(sp)
    sd s3, 48(sp)
    sd s4, 56(sp)
    sd s5, 64(sp)
    sd s6, 72(sp)
    sd s7, 80(sp)
    sd s8, 88(sp)
    sd s9, 96(sp)
    sd s10, 104(sp)
    sd s11, 112(sp)
    .endm

// Loads what PUSH_KEPT has saved. \base may be sp; sp itself is not changed.
    .macro LOAD_KEPT base
    ld ra, 0(\base)
    ld gp, 8(\base)
    ld tp, 16(\base)
    ld s0, 24(\base)
    ld s1, 32(\base)
    ld s2, 40(\base)
    ld s3, 48(\base)
    ld s4, 56(\base)
    ld s5, 64(\base)
    ld s6, 72(\base)
    ld s7, 80(\base)
    ld s8, 88(\base)
    ld s9, 96(\base)
    ld s10, 104(\base)
    ld s11, 112(\base)
    .endm

    .macro POP_KEPT
    LOAD_KEPT sp
    addi sp, sp, FRAME_KEPT
    .endm

// Scrubs s0 to s11. A write of an integer register clears the tag of its capability, too.
    .macro SCRUB_SAVED
    li s0, 0
    li s1, 0
    li s2, 0
    li s3, 0
    li s4, 0
    li s5, 0
    li s6, 0
    li s7, 0
    li s8, 0
    li s9, 0
    li s10, 0
    li s11, 0
    .endm

// Where everything is: offsets from the begin, in the order of Labels in trampoline.rs.
trampoline_begin:
    .8byte capstream_enter - trampoline_begin
    .8byte capstream_leave - trampoline_begin
    .8byte capstream_gate - trampoline_begin
    .8byte capstream_call_portal - trampoline_begin
    .8byte capstream_portal_return - trampoline_begin
    .8byte capstream_portal_abandon - trampoline_begin
    .8byte capstream_copy - trampoline_begin
    .8byte capstream_copy_from_cap - trampoline_begin
    .8byte capstream_copy_to_cap - trampoline_begin
    .8byte capstream_copy_fault - trampoline_begin
    .8byte trampoline_end - trampoline_begin

// extern "C" fn capstream_enter(ctx: a0, boot: a1, vcpu: a2, stack: a3)
//
// Runs a cVM until it is left. boot, vcpu and stack are addresses as the cVM's code calls them.
// In the cVM: PCC and DDC its own, a0 = boot, tp = vcpu, sp = stack, c31 = its DDC; t1 and t2 hold its own sealed pair; every other general
// register is 0. Stack: the monitor's, FRAME_KEPT bytes; the gate's frames lie below. Returns by capstream_leave.
    .globl capstream_enter
    .type capstream_enter, @function
    .balign 16
capstream_enter:
    PUSH_KEPT
    sd sp, CTX_ENTER_STACK(a0)
    sd sp, CTX_STACK(a0)
    lc ct0, CTX_DATA(a0)
    lc ct1, CTX_ENTRY(a0)
    lc ct2, CTX_RETURN_DATA(a0)
    mv tp, a2
    mv sp, a3
    mv a0, a1
    li ra, 0
    li gp, 0
    li a1, 0
    li a2, 0
    li a3, 0
    li a4, 0
    li a5, 0
    li a6, 0
    li a7, 0
    li t3, 0
    li t4, 0
    li t5, 0
    SCRUB_SAVED
    cspecialrw cnull, ddc, ct0
    li t0, 0
    cinvoke ct1, ct2
    .size capstream_enter, . - capstream_enter

// Leaves a cVM: back to the caller of capstream_enter.
//
// In: a0 = ctx, PCC and DDC the monitor's; nothing else is assumed. Every register that the C ABI has a callee keep is the caller's again.
    .globl capstream_leave
    .type capstream_leave, @function
    .balign 16
capstream_leave:
    ld sp, CTX_ENTER_STACK(a0)
    POP_KEPT
    ret
    .size capstream_leave, . - capstream_leave

// The gate: a hostcall. Reached by cinvoke of the pair that lies in a capability store at STORE_HOSTCALL and STORE_MONITOR_DATA.
//
// In: t5 = number, a0 to a5 = arguments, c31 = the monitor's DDC, its address = ctx; DDC and sp are the cVM's or the portal's. Calls
//     extern "C" fn hostcall(ctx: a0, number: a1, arguments: a2 -> six u64) -> a0
// at CTX_HOSTCALL, on the monitor's stack below CTX_STACK.
// Stack: FRAME_GATE bytes. The caller's ra, sp, gp, tp and s0 to s11 are kept there.
// Out, at the return point of the compartment in CTX_DATA, CTX_RETURN, CTX_RETURN_DATA: a0 = result, c31 = DDC = the compartment's; t1 and t2 hold
// the compartment's own sealed pair; t0, t3 to t5 and a1 to a7 are 0; ra, sp, gp, tp and s0 to s11 are kept.
// Nothing that the caller has in registers or in its store decides where this returns to: that is in the context.
#define FRAME_GATE (FRAME_KEPT + 64)
    .globl capstream_gate
    .type capstream_gate, @function
    .balign 16
capstream_gate:
    cspecialrw cnull, ddc, ct6
    cgetaddr t0, ct6
    mv t1, sp
    ld sp, CTX_STACK(t0)
    PUSH_KEPT
    addi sp, sp, FRAME_KEPT - FRAME_GATE
    // The kept registers end the frame; the gate's own words begin it: arguments, the caller's sp, ctx.
    sd a0, 0(sp)
    sd a1, 8(sp)
    sd a2, 16(sp)
    sd a3, 24(sp)
    sd a4, 32(sp)
    sd a5, 40(sp)
    sd t1, 48(sp)
    sd t0, 56(sp)
    sd sp, CTX_STACK(t0)
    mv a0, t0
    mv a1, t5
    mv a2, sp
    li t6, 0
    ld t1, CTX_HOSTCALL(t0)
    jalr t1
    ld t0, 56(sp)
    ld t3, 48(sp)
    addi t4, sp, 64
    addi t5, sp, FRAME_GATE
    sd t5, CTX_STACK(t0)
    lc ct1, CTX_RETURN(t0)
    lc ct2, CTX_RETURN_DATA(t0)
    lc ct0, CTX_DATA(t0)
    LOAD_KEPT t4
    mv sp, t3
    li a1, 0
    li a2, 0
    li a3, 0
    li a4, 0
    li a5, 0
    li a6, 0
    li a7, 0
    li t3, 0
    li t4, 0
    li t5, 0
    cspecialrw cnull, ddc, ct0
    li t0, 0
    cinvoke ct1, ct2
    .size capstream_gate, . - capstream_gate

// extern "C" fn capstream_call_portal(ctx: a0) -> (a0: i64, a1: u64)
//
// Runs the portal that CTX_CALL_... describes, on this thread, in its owner's compartment. Called by the function that answers hostcalls.
// In the portal: PCC and DDC its own, a0 to a4 = CTX_CALL_ARGUMENTS, sp = CTX_CALL_STACK, ra = CTX_CALL_RETURN_ADDRESS, c31 = its DDC; t1 and t3
// hold its own sealed pair; every other general register is 0. Its stack's capability store gets what it needs to call the monitor, on
// behalf of this vCPU, and loses that when the portal is over: its owner could otherwise call on behalf of this vCPU later.
// Stack: the monitor's, FRAME_KEPT + FRAME_PORTAL bytes; the gate's frames lie below.
// Out: a1 = 0 and a0 = what the portal returned, or a1 = 1 and a0 undefined when it was abandoned.
#define FRAME_PORTAL 64
    .globl capstream_call_portal
    .type capstream_call_portal, @function
    .balign 16
capstream_call_portal:
    PUSH_KEPT
    addi sp, sp, -FRAME_PORTAL
    lc ct0, CTX_DATA(a0)
    sc ct0, 0(sp)
    lc ct0, CTX_RETURN(a0)
    sc ct0, 16(sp)
    lc ct0, CTX_RETURN_DATA(a0)
    sc ct0, 32(sp)
    ld t0, CTX_STACK(a0)
    sd t0, 48(sp)
    sd sp, CTX_STACK(a0)
    ld t6, CTX_CALL_STORE(a0)
    lc ct0, CTX_GATE(a0)
    sc ct0, STORE_HOSTCALL(t6)
    lc ct0, CTX_MONITOR_DATA(a0)
    sc ct0, STORE_MONITOR_DATA(t6)
    lc ct0, CTX_PORTAL_RETURN(a0)
    sc ct0, STORE_PORTAL_RETURN(t6)
    lc ct0, CTX_CALL_RETURN(a0)
    sc ct0, STORE_RETURN(t6)
    sc ct0, CTX_RETURN(a0)
    lc ct3, CTX_CALL_RETURN_DATA(a0)
    sc ct3, STORE_RETURN_DATA(t6)
    sc ct3, CTX_RETURN_DATA(a0)
    lc ct0, CTX_CALL_DATA(a0)
    sc ct0, STORE_DATA(t6)
    sc ct0, CTX_DATA(a0)
    lc ct1, CTX_CALL_FUNCTION(a0)
    ld sp, CTX_CALL_STACK(a0)
    ld ra, CTX_CALL_RETURN_ADDRESS(a0)
    ld a1, CTX_CALL_ARGUMENTS + 8(a0)
    ld a2, CTX_CALL_ARGUMENTS + 16(a0)
    ld a3, CTX_CALL_ARGUMENTS + 24(a0)
    ld a4, CTX_CALL_ARGUMENTS + 32(a0)
    ld a0, CTX_CALL_ARGUMENTS(a0)
    li gp, 0
    li tp, 0
    li a5, 0
    li a6, 0
    li a7, 0
    li t2, 0
    li t4, 0
    li t5, 0
    SCRUB_SAVED
    cspecialrw cnull, ddc, ct0
    li t0, 0
    cinvoke ct1, ct3
    .size capstream_call_portal, . - capstream_call_portal

// Where a portal ends. Reached by cinvoke of the pair that lies in its store at STORE_PORTAL_RETURN and STORE_MONITOR_DATA.
//
// In: a0 = its result, c31 = the monitor's DDC, its address = ctx; nothing else is assumed. Out: as capstream_call_portal.
    .globl capstream_portal_return
    .type capstream_portal_return, @function
    .balign 16
capstream_portal_return:
    cspecialrw cnull, ddc, ct6
    cgetaddr t0, ct6
    li t6, 0
    li a1, 0
    j portal_over
    .size capstream_portal_return, . - capstream_portal_return

// Leaves a portal where it is. In: t0 = ctx, PCC and DDC the monitor's; nothing else is assumed. Out: as capstream_call_portal, abandoned.
    .globl capstream_portal_abandon
    .type capstream_portal_abandon, @function
    .balign 16
capstream_portal_abandon:
    li a1, 1
portal_over:
    ld sp, CTX_STACK(t0)
    ld t1, CTX_CALL_STORE(t0)
    sd zero, STORE_HOSTCALL(t1)
    sd zero, STORE_MONITOR_DATA(t1)
    sd zero, STORE_PORTAL_RETURN(t1)
    lc ct2, 0(sp)
    sc ct2, CTX_DATA(t0)
    lc ct2, 16(sp)
    sc ct2, CTX_RETURN(t0)
    lc ct2, 32(sp)
    sc ct2, CTX_RETURN_DATA(t0)
    ld t2, 48(sp)
    sd t2, CTX_STACK(t0)
    addi sp, sp, FRAME_PORTAL
    POP_KEPT
    ret
    .size capstream_portal_abandon, . - capstream_portal_abandon

// extern "C" fn capstream_copy_from_cap(destination: a0, source: ca1, len: a2) -> a0: bytes not copied
//
// Copies from what a capability allows to memory of the caller's. As capstream_copy, with DDC and its address a0 as the destination.
    .globl capstream_copy_from_cap
    .type capstream_copy_from_cap, @function
    .balign 16
capstream_copy_from_cap:
    cspecialrw ct0, ddc, cnull
    csetaddr ca0, ct0, a0
    j capstream_copy
    .size capstream_copy_from_cap, . - capstream_copy_from_cap

// extern "C" fn capstream_copy_to_cap(destination: ca0, source: a1, len: a2) -> a0: bytes not copied
//
// Copies from memory of the caller's to what a capability allows. As capstream_copy, with DDC and its address a1 as the source.
    .globl capstream_copy_to_cap
    .type capstream_copy_to_cap, @function
    .balign 16
capstream_copy_to_cap:
    cspecialrw ct0, ddc, cnull
    csetaddr ca1, ct0, a1
    // Falls through.
    .size capstream_copy_to_cap, . - capstream_copy_to_cap

// extern "C" fn capstream_copy(destination: ca0, source: ca1, len: a2) -> a0: bytes not copied
//
// Copies len bytes, any number at any alignment, from the first byte on. Nothing outside of [source, source + len) is read and nothing
// outside of [destination, destination + len) written, not even to put the same bytes back. Between the ends all accesses are aligned loads and
// stores of 8 bytes: where the two sides are not aligned alike, each stored word is put together of two loaded ones.
// An exception at a load or a store between the labels capstream_copy and capstream_copy_fault goes on at the latter, by whoever handles
// exceptions: a2 is what remains at every instruction that touches memory.
// No stack. Scrubbed at the end: a1 to a5, t0 to t4, so no capability is left in a register.
    .globl capstream_copy
    .type capstream_copy, @function
    .balign 16
capstream_copy:
    // Single bytes up to the first aligned byte of the destination.
1:
    cgetaddr t0, ca0
    andi t0, t0, 7
    beqz t0, 2f
    beqz a2, capstream_copy_fault
    lbu.cap t1, (ca1)
    sb.cap t1, (ca0)
    cincoffsetimm ca1, ca1, 1
    cincoffsetimm ca0, ca0, 1
    addi a2, a2, -1
    j 1b
2:
    li t4, 8
    bltu a2, t4, 6f
    cgetaddr t0, ca1
    andi t0, t0, 7
    bnez t0, 4f
    // Aligned alike.
    li t4, 32
    bltu a2, t4, 7f
3:
    ld.cap t0, (ca1)
    cincoffsetimm ca1, ca1, 8
    ld.cap t1, (ca1)
    cincoffsetimm ca1, ca1, 8
    ld.cap t2, (ca1)
    cincoffsetimm ca1, ca1, 8
    ld.cap t3, (ca1)
    cincoffsetimm ca1, ca1, 8
    sd.cap t0, (ca0)
    addi a2, a2, -8
    cincoffsetimm ca0, ca0, 8
    sd.cap t1, (ca0)
    addi a2, a2, -8
    cincoffsetimm ca0, ca0, 8
    sd.cap t2, (ca0)
    addi a2, a2, -8
    cincoffsetimm ca0, ca0, 8
    sd.cap t3, (ca0)
    addi a2, a2, -8
    cincoffsetimm ca0, ca0, 8
    bgeu a2, t4, 3b
    li t4, 8
    j 7f
8:
    ld.cap t0, (ca1)
    sd.cap t0, (ca0)
    cincoffsetimm ca1, ca1, 8
    cincoffsetimm ca0, ca0, 8
    addi a2, a2, -8
7:
    li t4, 8
    bgeu a2, t4, 8b
    j 6f
    // Not aligned alike. t0 = 1 to 7 = the source's place in its word. t1 = 8 * (8 - t0): so many bits of the word t2 are loaded and not
    // stored yet, in its low end.
4:
    slli t1, t0, 3
    neg t1, t1
    addi t1, t1, 64
    li t2, 0
    li t3, 0
5:
    // The bytes up to the source's first aligned one, which are 8 - t0 and there are at least 8 to copy.
    lbu.cap a3, (ca1)
    sll a3, a3, t3
    or t2, t2, a3
    cincoffsetimm ca1, ca1, 1
    addi t3, t3, 8
    bltu t3, t1, 5b
    // Each round loads a whole word, of which all bytes have to be the source's: 8 - t0 bytes are in t2, so 16 - t0 have to remain.
    li t4, 16
    sub t4, t4, t0
    slli t3, t0, 3
9:
    bltu a2, t4, 10f
    ld.cap a3, (ca1)
    sll a4, a3, t1
    or a4, a4, t2
    sd.cap a4, (ca0)
    srl t2, a3, t3
    cincoffsetimm ca1, ca1, 8
    cincoffsetimm ca0, ca0, 8
    addi a2, a2, -8
    j 9b
10:
    // What is in t2 is loaded again, byte by byte.
    srli t1, t1, 3
    neg t1, t1
    cincoffset ca1, ca1, t1
    // Single bytes to the end.
6:
    beqz a2, capstream_copy_fault
    lbu.cap t1, (ca1)
    sb.cap t1, (ca0)
    cincoffsetimm ca1, ca1, 1
    cincoffsetimm ca0, ca0, 1
    addi a2, a2, -1
    j 6b
    .globl capstream_copy_fault
capstream_copy_fault:
    mv a0, a2
    li a1, 0
    li a2, 0
    li a3, 0
    li a4, 0
    li t0, 0
    li t1, 0
    li t2, 0
    li t3, 0
    li t4, 0
    ret
    .size capstream_copy, . - capstream_copy
trampoline_end:
