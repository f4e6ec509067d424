// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Host memory behind a region: the raw accesses.
//!
//! All of it may be accessed by other harts, and by the host's own code, at the same time. Every access here is therefore atomic, of the
//! largest aligned size that fits, with the weakest order that the caller needs. A guest that races with itself sees torn values at
//! worst.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A range of host memory, page-aligned.
pub(super) struct Host {
    pointer: NonNull<u8>,
    length: usize,
    /// Whether it is unmapped when this is dropped.
    owned: bool,
}

// SAFETY: the pointer is to memory that is mapped while this lives, and all accesses through it are atomic.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// A value that memory is accessed in: 1, 2, 4 or 8 bytes.
pub(crate) trait Word: Copy + Eq + Send + 'static {
    /// Bytes, as a power of two.
    const LOG: u32;
    /// Bytes.
    const SIZE: u64 = 1 << Self::LOG;
    /// The atomic of this size.
    type Atomic: AtomicWord<Self>;
    /// Zero-extended.
    fn to_u64(self) -> u64;
    /// The low bytes.
    fn from_u64(value: u64) -> Self;
    /// Sign-extended.
    fn extend(self) -> u64;
}

/// The operations of the standard library's atomics that are needed here, for all sizes.
pub(crate) trait AtomicWord<W>: Sync {
    fn load(&self, order: Ordering) -> W;
    fn store(&self, value: W, order: Ordering);
    fn exchange(&self, old: W, new: W) -> Result<W, W>;
    fn update(&self, operation: Operation, value: W) -> W;
}

/// What an atomic memory operation stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Swap,
    Add,
    Xor,
    And,
    Or,
    Min,
    Max,
    MinUnsigned,
    MaxUnsigned,
}

macro_rules! word {
    ($unsigned:ty, $signed:ty, $atomic:ty, $log:expr) => {
        impl Word for $unsigned {
            const LOG: u32 = $log;
            type Atomic = $atomic;
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> $unsigned {
                value as $unsigned
            }
            #[inline(always)]
            fn extend(self) -> u64 {
                self as $signed as i64 as u64
            }
        }

        impl AtomicWord<$unsigned> for $atomic {
            #[inline(always)]
            fn load(&self, order: Ordering) -> $unsigned {
                <$atomic>::load(self, order)
            }
            #[inline(always)]
            fn store(&self, value: $unsigned, order: Ordering) {
                <$atomic>::store(self, value, order);
            }
            #[inline]
            fn exchange(&self, old: $unsigned, new: $unsigned) -> Result<$unsigned, $unsigned> {
                self.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }
            #[inline]
            fn update(&self, operation: Operation, value: $unsigned) -> $unsigned {
                let order = Ordering::SeqCst;
                let signed = |choose: fn($signed, $signed) -> $signed| {
                    let mut old = self.load(Ordering::Relaxed);
                    loop {
                        let new = choose(old as $signed, value as $signed) as $unsigned;
                        match self.compare_exchange_weak(old, new, order, Ordering::Relaxed) {
                            Ok(old) => return old,
                            Err(now) => old = now,
                        }
                    }
                };
                match operation {
                    Operation::Swap => self.swap(value, order),
                    Operation::Add => self.fetch_add(value, order),
                    Operation::Xor => self.fetch_xor(value, order),
                    Operation::And => self.fetch_and(value, order),
                    Operation::Or => self.fetch_or(value, order),
                    Operation::MinUnsigned => self.fetch_min(value, order),
                    Operation::MaxUnsigned => self.fetch_max(value, order),
                    Operation::Min => signed(Ord::min),
                    Operation::Max => signed(Ord::max),
                }
            }
        }
    };
}

word!(u8, i8, AtomicU8, 0);
word!(u16, i16, AtomicU16, 1);
word!(u32, i32, AtomicU32, 2);
word!(u64, i64, AtomicU64, 3);

impl Host {
    /// Memory of somebody else's.
    ///
    /// # Safety
    ///
    /// `[pointer, pointer + length)` stays mapped, readable and writable, while this is accessed. `pointer` is aligned to 8 bytes.
    pub(super) unsafe fn borrowed(pointer: NonNull<u8>, length: usize) -> Host {
        Host {
            pointer,
            length,
            owned: false,
        }
    }

    /// Zeroed memory of its own.
    pub(super) fn anonymous(length: usize) -> io::Result<Host> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches nothing that exists.
        let pointer = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pointer = NonNull::new(pointer.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Host {
            pointer,
            length,
            owned: true,
        })
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// The word at an offset that is a multiple of its size; none if it is not all inside.
    #[inline(always)]
    pub(super) fn word<W: Word>(&self, offset: u64) -> Option<&W::Atomic> {
        let offset = usize::try_from(offset).ok()?;
        let size = W::SIZE as usize;
        if !offset.is_multiple_of(size) || self.length < size || offset > self.length - size {
            return None;
        }
        // SAFETY: `size` bytes at `offset` are inside the range, which is mapped while this lives; its begin is aligned to 8 bytes and
        // the offset to the size. The atomics have the size and alignment of their integers here, and every other access to this
        // memory is atomic or is another program's business (see the contract of `borrowed`).
        Some(unsafe { self.pointer.add(offset).cast::<W::Atomic>().as_ref() })
    }

    /// Copies out, without any order. Nothing more once the range leaves this memory.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let rest = &mut bytes[done..];
            if at.is_multiple_of(8)
                && let Some(head) = rest.first_chunk_mut::<8>()
            {
                let Some(word) = self.word::<u64>(at) else {
                    return;
                };
                *head = word.load(Ordering::Relaxed).to_le_bytes();
                done += 8;
            } else {
                let Some(byte) = self.word::<u8>(at) else {
                    return;
                };
                rest[0] = byte.load(Ordering::Relaxed);
                done += 1;
            }
        }
    }

    /// Copies in, without any order. Nothing more once the range leaves this memory.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let rest = &bytes[done..];
            if at.is_multiple_of(8)
                && let Some(head) = rest.first_chunk::<8>()
            {
                let Some(word) = self.word::<u64>(at) else {
                    return;
                };
                word.store(u64::from_le_bytes(*head), Ordering::Relaxed);
                done += 8;
            } else {
                let Some(byte) = self.word::<u8>(at) else {
                    return;
                };
                byte.store(rest[0], Ordering::Relaxed);
                done += 1;
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: this is the mapping that `anonymous` made, of this length, and nobody can reach it any more.
            unsafe {
                libc::munmap(self.pointer.as_ptr().cast(), self.length);
            }
        }
    }
}
