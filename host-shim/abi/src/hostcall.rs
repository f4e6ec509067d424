// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of hostcalls: the only place where their numbers are written down.
//!
//! A hostcall takes up to six integer arguments and returns one: a result that is zero or more, or a
//! negated Linux errno. A number that is not in the table returns `-ENOSYS`.
//!
//! | platform | number | arguments | result |
//! |---|---|---|---|
//! | x86-64 | `rax` | `rdi rsi rdx rcx r8 r9` | `rax` |
//! | riscv64 | `t5` | `a0` to `a5` | `a0` |
//!
//! The gate keeps the callee-saved registers of the platform's C ABI, and every floating point and vector register; on x86-64 the FS base, on
//! riscv64 `ra`, `gp` and `tp`. All other registers come back as zero. How the gate is reached is said at [`crate::vcpu::VcpuPage::gate`].

macro_rules! hostcalls {
    ($( $(#[$doc:meta])* $number:literal $name:ident $c_name:ident; )*) => {
        /// A call from a cVM's kernel to the monitor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        #[non_exhaustive]
        pub enum Hostcall {
            $( $(#[$doc])* $name = $number, )*
        }

        impl Hostcall {
            /// Every hostcall, in the order of the table.
            pub const ALL: &'static [Hostcall] = &[ $( Hostcall::$name, )* ];

            /// The hostcall with this number, if there is one.
            #[inline]
            pub const fn from_number(number: u64) -> Option<Hostcall> {
                match number {
                    $( $number => Some(Hostcall::$name), )*
                    _ => None,
                }
            }

            /// The name in the generated C header.
            pub const fn c_name(self) -> &'static str {
                match self { $( Hostcall::$name => stringify!($c_name), )* }
            }

            /// The name in this table.
            pub const fn name(self) -> &'static str {
                match self { $( Hostcall::$name => stringify!($name), )* }
            }

            /// How many there are.
            pub const COUNT: usize = Hostcall::ALL.len();

            /// The place in [`Hostcall::ALL`]. One load, because every hostcall is counted by it.
            #[inline]
            pub const fn index(self) -> usize {
                const LEN: usize = {
                    let mut highest = 0;
                    $( if highest < $number { highest = $number; } )*
                    highest + 1
                };
                const PLACES: [u8; LEN] = {
                    let mut places = [0; LEN];
                    let mut place = 0;
                    $( places[$number] = place; place += 1; )*
                    assert!(place as usize == Hostcall::COUNT);
                    places
                };
                PLACES[self as usize] as usize
            }
        }
    };
}

hostcalls! {
    /// `(ptr, len)`: bytes that programs wrote to the console. Returns `len`, also when they were dropped because the cVM writes too much.
    1 ConsoleWrite HOSTCALL_CONSOLE_WRITE;
    /// `()`: nanoseconds of a clock that never goes back.
    25 TimeNs HOSTCALL_TIME_NS;
    /// `()`: a one-shot timer of the calling vCPU; returns its id.
    26 TimerAlloc HOSTCALL_TIMER_ALLOC;
    /// `(id, ns)`: raises [`crate::irq::TIMER`] after `ns` nanoseconds; 0 disarms.
    27 TimerSet HOSTCALL_TIMER_SET;
    /// `(id)`: gives the timer back.
    28 TimerFree HOSTCALL_TIMER_FREE;
    /// Reserved by the published interface; block devices are virtio here. `-ENOSYS`.
    100 BlockRequest HOSTCALL_BLOCK_REQUEST;
    /// Reserved by the published interface; block devices are virtio here. `-ENOSYS`.
    101 BlockCapacity HOSTCALL_BLOCK_CAPACITY;
    /// `(ptr, len, key, mode)`: publishes `[ptr, ptr+len)` of the caller under the 10 byte key at `key`;
    /// mode 0 read-write, 1 read-only. Returns the publication's id. `EADDRINUSE` when the key is taken, `EACCES` when the caller may not publish
    /// under it, whether it is taken or not. A caller that may publish for readers only does so, whatever the mode.
    405 FileAdvertise HOSTCALL_FILE_ADVERTISE;
    /// `(key, flags, info)`: attaches to a published range; writes [`crate::FileInfo`] to `info`. Returns a handle.
    /// `EACCES` when the caller may not use the key, whether somebody publishes it or not; `ENOENT` when nobody publishes the key; with [`crate::PROBE_NOTIFY`] in `flags`, [`crate::irq::CAPABILITY`] is raised when any key appears.
    406 FileProbe HOSTCALL_FILE_PROBE;
    /// `(handle)`: asks that the next [`Hostcall::Wake`] of the endpoint behind the handle, or its end, raises the caller's
    /// [`crate::irq::CAPABILITY`]. Never blocks. `EPIPE` when the endpoint is gone.
    407 Wait HOSTCALL_WAIT;
    /// `(id)`: by the endpoint's owner on its own vCPU: raises [`crate::irq::CAPABILITY`] in every cVM that asked by [`Hostcall::Wait`];
    /// by the endpoint's portal: raises it in the cVM that owns the endpoint, once, when the portal has returned.
    408 Wake HOSTCALL_WAKE;
    /// `(portal, cookie, key, device, class)`: publishes a portal under the 10 byte key at `key` among the keys of its [`class`]; `device` is a number
    /// for the log. Returns the endpoint's id. `EADDRINUSE` and `EACCES` as for [`Hostcall::FileAdvertise`], `EINVAL` when there is no such class.
    409 StreamAdvertise HOSTCALL_STREAM_ADVERTISE;
    /// `(key, flags, class)`: connects to a portal of this [`class`]. Returns a handle. Errors as [`Hostcall::FileProbe`].
    410 StreamProbe HOSTCALL_STREAM_PROBE;
    /// `(handle, ptr, len, op)`: runs the portal behind the handle on this thread, in its owner's compartment, and returns what it returns.
    /// `op` is [`crate::CALL_DELIVER`], a query, or a number of the device kind from [`crate::CALL_KIND`] on; `EINVAL` in between.
    /// `EDQUOT`, but not for a query, when the caller has sent as much as it may for now: the portal has not run, and the call can be made again
    /// later. `EPIPE` when the endpoint is gone, `EBUSY` when other senders are in all portals of its owner, `EBADF` when the handle is not the caller's.
    411 Call HOSTCALL_CALL;
    /// `(result)`: reserved; a portal ends by returning. `-ENOSYS`.
    412 CallFinish HOSTCALL_CALL_FINISH;
    /// `(dst, offset, len)`: in a portal: copies from the range that the caller passed to [`Hostcall::Call`] to `dst`, memory of the portal's owner.
    /// `EFAULT` when either side cannot be read or written.
    413 CallFetch HOSTCALL_CALL_FETCH;

    /// `(entries)`: the kernel can take traps from now on; `entries` points to [`crate::GuestEntries`].
    1000 VcpuReady HOSTCALL_VCPU_READY;
    /// `()`: waits until the vCPU's pending word is not zero.
    1001 WaitForInterrupt HOSTCALL_WAIT_FOR_INTERRUPT;
    /// `(reason, status)`: ends the cVM; does not return. `reason` is one of [`crate::power_off`].
    1002 PowerOff HOSTCALL_POWER_OFF;
    /// `(ptr, len)`: bytes of the kernel's log.
    1003 LogWrite HOSTCALL_LOG_WRITE;
    /// `(ptr, len)`: takes up to `len` bytes of console input; returns how many, 0 when there are none.
    1004 ConsoleRead HOSTCALL_CONSOLE_READ;
    /// `(address, size)`: reads a device register of 1, 2, 4 or 8 bytes.
    1005 MmioRead HOSTCALL_MMIO_READ;
    /// `(address, size, value)`: writes a device register of 1, 2, 4 or 8 bytes.
    1006 MmioWrite HOSTCALL_MMIO_WRITE;
    /// `(ptr, len)`: random bytes from the host.
    1007 Random HOSTCALL_RANDOM;
    /// `(ip)`: `ip` follows a system call instruction that trapped; patch it so that it does not trap again.
    /// Returns 0, or an error when the place cannot be patched.
    1008 PatchSyscall HOSTCALL_PATCH_SYSCALL;
    /// `(ip, direction)`: where a program counter is in the program as it was before patching (direction 0), or
    /// where to resume so that a program counter into patched bytes behaves as if they were not patched (direction 1), or where to resume when the instruction there was refused by the processor,
    /// which a patch may have put there (direction 2). Returns the program counter.
    1009 TranslateIp HOSTCALL_TRANSLATE_IP;
    /// `(ptr, len)`: `[ptr, ptr+len)` holds no code from now on; forget the patches in it.
    1010 ForgetCode HOSTCALL_FORGET_CODE;
    /// `(ptr, len)`: the contents of these whole pages are not needed; they read as zero afterwards.
    1011 MemoryDiscard HOSTCALL_MEMORY_DISCARD;
    /// `(window)`: the memory of the kernel holds nothing yet and is to be mapped a second time by [`Hostcall::PageMap`]; writes
    /// [`crate::Window`] to `window`: addresses that are the caller's from now on. Once. `ENOSYS` on a platform that cannot do it.
    1012 PagingStart HOSTCALL_PAGING_START;
    /// `(address, physical, len, access)`: whole pages of the kernel's memory from `physical` on are at `address` in the window, too, for
    /// [`crate::page_access`]. What was there before is not any more. `ENOMEM` when the host has no room for more mappings; then unmapping some helps.
    1013 PageMap HOSTCALL_PAGE_MAP;
    /// `(address, len)`: nothing is at these whole pages of the window any more.
    1014 PageUnmap HOSTCALL_PAGE_UNMAP;
    /// `(code, code_len, stubs_len, stubs_at)`: system call instructions in these addresses of the window can be patched from now on, by stubs in
    /// the `stubs_len` bytes behind them, which are written at `stubs_at`, memory of the kernel. In there the monitor patches what can be read and
    /// written when [`Hostcall::PatchSyscall`] is made. `ENOSPC` when there are too many of these ranges.
    1015 PatchRange HOSTCALL_PATCH_RANGE;
    /// `(address, len)`: these addresses, whole pages, belong to the window from now on, for programs that are linked at them. Once. `EEXIST` when
    /// somebody else in this process has them.
    1016 PagingLow HOSTCALL_PAGING_LOW;
    /// `(id)`: takes an endpoint or a publication of the caller back. When it returns, no copy into or out of it is under way or will start.
    1020 Revoke HOSTCALL_REVOKE;
    /// `(handle)`: gives a handle of the caller back.
    1021 Disconnect HOSTCALL_DISCONNECT;
    /// `(handle, offset, ptr, len)`: copies from a published range to the caller's memory; returns the number of bytes, which is less than
    /// `len` only at the end of the range. `ESTALE` when it was taken back.
    1022 FileRead HOSTCALL_FILE_READ;
    /// `(handle, offset, ptr, len)`: copies from the caller's memory to a published range; returns the number of bytes. `EACCES` when it is read-only, or read-only for the caller.
    1023 FileWrite HOSTCALL_FILE_WRITE;
    /// `(ms)`: gives the host processor to others. Never waits longer than a scheduling round; in a portal, whose time is limited, not at all.
    1024 Relax HOSTCALL_RELAX;
    /// `(stream, ptr, len)`: takes up to `len` bytes of a standard stream of the monitor, numbered as its file descriptors are; returns how many, 0 at
    /// the end. `EAGAIN` when there is nothing for now: [`crate::irq::STREAMS`] is raised when there may be. `ENODEV` when the caller has no streams;
    /// other errors are the host's.
    1030 StreamRead HOSTCALL_STREAM_READ;
    /// `(stream, ptr, len)`: writes to a standard stream of the monitor; returns how many bytes were written, which may be fewer. Errors as for
    /// [`Hostcall::StreamRead`]; `EPIPE` when nobody reads any more.
    1031 StreamWrite HOSTCALL_STREAM_WRITE;
    /// `(stream)`: what a standard stream of the monitor is ready for, as bits of `poll(2)`; [`crate::irq::STREAMS`] is raised when that may be more.
    /// `ENODEV` when the caller has no streams.
    1032 StreamPoll HOSTCALL_STREAM_POLL;
    /// `()`: the size of the terminal behind the console, rows times 65536 plus columns; 0 when there is none.
    1033 ConsoleSize HOSTCALL_CONSOLE_SIZE;
}

/// What portals are for, an argument of [`Hostcall::StreamAdvertise`] and [`Hostcall::StreamProbe`]: a number for each device kind, picked by its driver. Each
/// class has a space of keys of its own. The published interface knows streams only, and drivers of it leave 0 in the argument.
pub mod class {
    /// Messages, `/cap/chN`.
    pub const STREAM: u64 = 0;
    /// Doorbells, `/cap/cgN`.
    pub const BELL: u64 = 1;
    /// The greatest number of a class.
    pub const MAX: u64 = 255;
}
