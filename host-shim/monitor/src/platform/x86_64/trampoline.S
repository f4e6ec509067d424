// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// The ways between the monitor and a cVM on x86-64. Intel syntax; names in braces are offsets and constants that trampoline.rs fills in.
//
// "ctx" is the address of the vCPU's Context. Signals can come at every instruction; their handlers run on another stack, so what lies
// below rsp need not be kept for them. context.rs says which mode means what and why the order of writes to MODE matters.

    .pushsection .text.capstream_trampoline, "ax", @progbits

// Saves all registers that the System V ABI has a callee keep. Afterwards rsp is 8 more than a multiple of 16 if it was a multiple of 16
// before the call that led here.
    .macro PUSH_KEPT
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    .endm

    .macro POP_KEPT
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    .endm

// extern "C" fn capstream_enter(ctx: rdi, entry: rsi, boot: rdx, stack: rcx)
//
// Runs a cVM until it is left. Mode Host, becomes Guest.
// In the cVM: rip = entry, rax = entry, rdi = boot, rsp = stack, GS base = vCPU page, FS base = 0; every other general register 0.
// Vector registers are as they were. Returns by capstream_leave.
    .globl capstream_enter
    .hidden capstream_enter
    .type capstream_enter, @function
    .balign 16
capstream_enter:
    PUSH_KEPT
    sub rsp, 8
    stmxcsr [rsp]
    fnstcw [rsp + 4]
    mov [rdi + {ENTER_RSP}], rsp
    mov [rdi + {HOST_RSP}], rsp
    rdfsbase rax
    mov [rdi + {HOST_FS}], rax
    mov rax, [rdi + {GUEST_GS}]
    wrgsbase rax
    xor eax, eax
    wrfsbase rax
    mov r11, rdi
    mov qword ptr [rdi + {MODE}], {MODE_GUEST}
    // After the mode is written: from here on a kick's handler acts by itself.
    cmp dword ptr [rdi + {ATTENTION}], 0
    jne capstream_leave
    mov rax, rsi
    mov rsp, rcx
    mov rdi, rdx
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    jmp rax
    .size capstream_enter, . - capstream_enter

// Leaves a cVM: back to the caller of capstream_enter.
//
// In: r11 = ctx; nothing else is assumed. Mode Guest, becomes Host. Jumped to by the gate and by signal handlers, which may do so
// again while this runs and the mode is still Guest: it begins anew then.
    .globl capstream_leave
    .hidden capstream_leave
    .type capstream_leave, @function
    .balign 16
capstream_leave:
    mov rsp, [r11 + {ENTER_RSP}]
    mov qword ptr [r11 + {MODE}], {MODE_HOST}
    mov rax, [r11 + {HOST_FS}]
    wrfsbase rax
    // The cVM's flags go, those for single steps and alignment checks among them.
    push 2
    popfq
    fninit
    fldcw [rsp + 4]
    ldmxcsr [rsp]
    add rsp, 8
    POP_KEPT
    ret
    .size capstream_leave, . - capstream_leave

// The gate: a hostcall.
//
// In: r11 = ctx (from the thunk), rax = number, rdi rsi rdx rcx r8 r9 = arguments, rsp = the caller's stack with the return address on
// it. Mode Guest or Portal, becomes Host and again what it was. Calls
//     extern "C" fn capstream_hostcall(ctx: rdi, number: rsi, arguments: rdx -> six u64) -> rax
// on the monitor's stack, below whatever the monitor has on it. FS base is still the caller's.
// Out: rax = result; rcx rdx rsi rdi r8 to r11 are 0; rbx rbp r12 to r15, FS and GS base are kept. For \vector = 1 xmm0 to xmm15
// are kept: the caller is the kernel on behalf of a program. A portal runs on behalf of a kernel that was built without vector registers.
// Does not return when the cVM is to be left or the portal to be abandoned.
    .macro GATE name, vector
    .globl \name
    .hidden \name
    .type \name, @function
    .balign 64
\name:
    mov r10, rsp
    mov rsp, [r11 + {HOST_RSP}]
    push r10
    push qword ptr [r11 + {MODE}]
    push rbx
    mov qword ptr [r11 + {MODE}], {MODE_HOST}
    mov rbx, r11
    cld
    sub rsp, 8
    push r9
    push r8
    push rcx
    push rdx
    push rsi
    push rdi
    mov rdx, rsp
    mov rdi, rbx
    mov rsi, rax
    .if \vector
    sub rsp, 256
    movaps [rsp], xmm0
    movaps [rsp + 16], xmm1
    movaps [rsp + 32], xmm2
    movaps [rsp + 48], xmm3
    movaps [rsp + 64], xmm4
    movaps [rsp + 80], xmm5
    movaps [rsp + 96], xmm6
    movaps [rsp + 112], xmm7
    movaps [rsp + 128], xmm8
    movaps [rsp + 144], xmm9
    movaps [rsp + 160], xmm10
    movaps [rsp + 176], xmm11
    movaps [rsp + 192], xmm12
    movaps [rsp + 208], xmm13
    movaps [rsp + 224], xmm14
    movaps [rsp + 240], xmm15
    .endif
    call {HOSTCALL}
    .if \vector
    movaps xmm0, [rsp]
    movaps xmm1, [rsp + 16]
    movaps xmm2, [rsp + 32]
    movaps xmm3, [rsp + 48]
    movaps xmm4, [rsp + 64]
    movaps xmm5, [rsp + 80]
    movaps xmm6, [rsp + 96]
    movaps xmm7, [rsp + 112]
    movaps xmm8, [rsp + 128]
    movaps xmm9, [rsp + 144]
    movaps xmm10, [rsp + 160]
    movaps xmm11, [rsp + 176]
    movaps xmm12, [rsp + 192]
    movaps xmm13, [rsp + 208]
    movaps xmm14, [rsp + 224]
    movaps xmm15, [rsp + 240]
    add rsp, 256
    .endif
    add rsp, 56
    mov r11, rbx
    pop rbx
    pop r10
    pop r9
    mov [r11 + {MODE}], r10
    // After the mode is written: who asked before is seen here, who asks from now on sends a kick that acts.
    cmp dword ptr [r11 + {ATTENTION}], 0
    jne capstream_attention
    mov rsp, r9
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    ret
    .size \name, . - \name
    .endm

    .globl capstream_gates_begin
    .hidden capstream_gates_begin
capstream_gates_begin:
    GATE capstream_gate, 1
    GATE capstream_portal_gate, 0

// The end of a gate when somebody asked for attention.
//
// In: r11 = ctx, r10 = mode (already written), r9 = the caller's rsp, rax = result. Out: as a gate.
    .type capstream_attention, @function
    .balign 16
capstream_attention:
    cmp r10, {MODE_PORTAL}
    je 3f
    test dword ptr [r11 + {ATTENTION}], {ATTENTION_KILL}
    jnz capstream_leave
2:
    mov rsp, r9
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    ret
3:
    test dword ptr [r11 + {ATTENTION}], {ATTENTION_ABANDON}
    jz 2b
    mov rcx, [r11 + {ABANDON_OWNER}]
    cmp rcx, [r11 + {PORTAL_OWNER}]
    jne 2b
    jmp capstream_portal_abandon
    .size capstream_attention, . - capstream_attention
    .globl capstream_gates_end
    .hidden capstream_gates_end
capstream_gates_end:

// extern "C" fn capstream_call_portal(ctx: rdi, call: rsi -> PortalCall) -> (rax: i64, rdx: u64)
//
// Runs a portal. Mode Host, becomes Portal and again Host. PORTAL_OWNER has been set.
// In the portal: rdi = cookie, rsi = operation, rdx = length, rcx = sender, r8 = gate, rax = function, rsp = stack - 8 with the return
// address into the thunk page on it; every other general register 0. FS and GS base are the sender's. Hostcalls continue on this stack.
// Out: rdx = 0 and rax = what the portal returned, or rdx = 1 and rax undefined when it was abandoned. FS base is as before.
    .globl capstream_call_portal
    .hidden capstream_call_portal
    .type capstream_call_portal, @function
    .balign 64
capstream_call_portal:
    PUSH_KEPT
    rdfsbase rax
    push rax
    push qword ptr [rdi + {HOST_RSP}]
    push rdi
    mov r11, rdi
    mov [rdi + {HOST_RSP}], rsp
    mov qword ptr [rdi + {MODE}], {MODE_PORTAL}
    cmp dword ptr [rdi + {ATTENTION}], 0
    jne 3f
1:
    mov r10, rsi
    mov rax, [r10 + {CALL_FUNCTION}]
    mov rdi, [r10 + {CALL_COOKIE}]
    mov rsi, [r10 + {CALL_OPERATION}]
    mov rdx, [r10 + {CALL_LEN}]
    mov rcx, [r10 + {CALL_SENDER}]
    mov r8, [r11 + {PORTAL_GATE}]
    mov rsp, [r10 + {CALL_STACK}]
    mov r11, [r11 + {PORTAL_THUNK}]
    xor ebx, ebx
    xor ebp, ebp
    xor r9d, r9d
    xor r10d, r10d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    // The thunk: call rax; mov r11, ctx; jmp capstream_portal_return
    jmp r11
3:
    test dword ptr [r11 + {ATTENTION}], {ATTENTION_ABANDON}
    jz 1b
    mov rcx, [r11 + {ABANDON_OWNER}]
    cmp rcx, [r11 + {PORTAL_OWNER}]
    jne 1b
    jmp capstream_portal_abandon
    .size capstream_call_portal, . - capstream_call_portal

// Where a portal returns to, by way of the thunk. In: r11 = ctx, rax = its result; nothing else is assumed. Out: as capstream_call_portal.
    .globl capstream_portal_return
    .hidden capstream_portal_return
    .type capstream_portal_return, @function
    .balign 16
capstream_portal_return:
    mov rsp, [r11 + {HOST_RSP}]
    mov qword ptr [r11 + {MODE}], {MODE_HOST}
    xor edx, edx
4:
    cld
    pop rdi
    pop qword ptr [rdi + {HOST_RSP}]
    pop rcx
    rdfsbase rsi
    cmp rcx, rsi
    je 5f
    wrfsbase rcx
5:
    POP_KEPT
    ret
    .size capstream_portal_return, . - capstream_portal_return

// Leaves a portal where it is. In: r11 = ctx; nothing else is assumed. Mode Portal, becomes Host. Jumped to by the gate and by signal
// handlers, which may do so again while the mode is still Portal. Out: as capstream_call_portal, abandoned.
    .globl capstream_portal_abandon
    .hidden capstream_portal_abandon
    .type capstream_portal_abandon, @function
    .balign 16
capstream_portal_abandon:
    mov rsp, [r11 + {HOST_RSP}]
    mov qword ptr [r11 + {MODE}], {MODE_HOST}
    mov edx, 1
    jmp 4b
    .size capstream_portal_abandon, . - capstream_portal_abandon

// extern "C" fn capstream_with_host_state(ctx: rdi, work: rsi, data: rdx) -> rax
//
// Calls `extern "C" fn work(data: rdi) -> rax` with the monitor's FS base and the default control words; afterwards FS base, control words and all
// vector state (components XSAVE_MASK) are what they were. Mode Host. The area at XSAVE_AREA is used: this does not nest.
    .globl capstream_with_host_state
    .hidden capstream_with_host_state
    .type capstream_with_host_state, @function
    .balign 16
capstream_with_host_state:
    push rbx
    push r12
    push r13
    mov rbx, rdi
    mov rdi, rdx
    rdfsbase r12
    mov rcx, [rbx + {XSAVE_AREA}]
    mov eax, [rbx + {XSAVE_MASK}]
    mov edx, [rbx + {XSAVE_MASK} + 4]
    xsave64 [rcx]
    mov rax, [rbx + {HOST_FS}]
    wrfsbase rax
    ldmxcsr [rip + capstream_default_mxcsr]
    fninit
    call rsi
    mov r13, rax
    mov rcx, [rbx + {XSAVE_AREA}]
    mov eax, [rbx + {XSAVE_MASK}]
    mov edx, [rbx + {XSAVE_MASK} + 4]
    xrstor64 [rcx]
    wrfsbase r12
    mov rax, r13
    pop r13
    pop r12
    pop rbx
    ret
    .size capstream_with_host_state, . - capstream_with_host_state

// extern "C" fn capstream_with_host_fs(ctx: rdi, work: rsi, data: rdx) -> rax
//
// Calls `extern "C" fn work(data: rdi) -> rax` with the monitor's FS base; afterwards it is what it was. Nests.
    .globl capstream_with_host_fs
    .hidden capstream_with_host_fs
    .type capstream_with_host_fs, @function
    .balign 16
capstream_with_host_fs:
    push rbx
    rdfsbase rbx
    mov rax, [rdi + {HOST_FS}]
    wrfsbase rax
    mov rdi, rdx
    call rsi
    wrfsbase rbx
    pop rbx
    ret
    .size capstream_with_host_fs, . - capstream_with_host_fs

// Where the kernel enters a signal handler: rdi, rsi, rdx are its arguments, rsp is on the signal stack with the return address on it.
// The flag for alignment checks is the interrupted code's; it is cleared before Rust runs, for which nothing else is changed.
    .globl capstream_on_signal
    .hidden capstream_on_signal
    .type capstream_on_signal, @function
    .balign 16
capstream_on_signal:
    pushfq
    and dword ptr [rsp], {NOT_ALIGNMENT}
    popfq
    jmp {ON_SIGNAL}
    .size capstream_on_signal, . - capstream_on_signal

// extern "C" fn capstream_copy(destination: rdi, source: rsi, len: rdx) -> rax: bytes not copied
//
// Copies with general registers only. A fault between the labels capstream_copy and capstream_copy_fault goes on at the latter, by the signal
// handler: rcx is what remains at every instruction that touches memory.
    .globl capstream_copy
    .hidden capstream_copy
    .type capstream_copy, @function
    .balign 64
capstream_copy:
    mov rcx, rdx
    cmp rcx, 256
    ja 3f
    cmp rcx, 32
    jb 2f
1:
    mov rax, [rsi]
    mov rdx, [rsi + 8]
    mov r8, [rsi + 16]
    mov r9, [rsi + 24]
    mov [rdi], rax
    mov [rdi + 8], rdx
    mov [rdi + 16], r8
    mov [rdi + 24], r9
    add rsi, 32
    add rdi, 32
    sub rcx, 32
    cmp rcx, 32
    jae 1b
2:
    cmp rcx, 8
    jb 5f
    mov rax, [rsi]
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rcx, 8
    jmp 2b
5:
    test ecx, ecx
    jz capstream_copy_fault
    mov al, [rsi]
    mov [rdi], al
    inc rsi
    inc rdi
    dec ecx
    jmp 5b
3:
    rep movsb
    .globl capstream_copy_fault
    .hidden capstream_copy_fault
capstream_copy_fault:
    mov rax, rcx
    ret
    .size capstream_copy, . - capstream_copy

    .balign 4
capstream_default_mxcsr:
    .long 0x1f80

    .popsection
