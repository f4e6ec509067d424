// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The requests of the devices, and memory that others access meanwhile: all unsafe code that deals with them.
//!
//! # Who may touch a buffer
//! A buffer is a `Box<[u8]>` as long as it is the program's. [`Queue::register`] makes a raw pointer of it and keeps it; from then on senders write to
//! it at any time, and the program has no access. It becomes a box again in [`Queue::take`], by the token that [`wait`] returned for it, which
//! is the kernel's word that nobody writes to it any more. [`Queue::reset`] frees what is left once the kernel has said the same about all of them. What the
//! kernel does not give back is never freed.
//!
//! This needs that nobody else registers buffers of this process or changes the size at the same node: see [`crate::node`].

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, ioctl, opcode};

use crate::error::Error;
use crate::key::Key;
use crate::stats::{BellStats, FileStats, Mode, StreamStats};

pub(crate) const FILE_MAJOR: u32 = 43;
pub(crate) const STREAM_MAJOR: u32 = 45;
pub(crate) const BELL_MAJOR: u32 = 50;
/// Bytes of the largest receive buffer.
pub(crate) const MAX_SIZE: usize = 64 << 20;
/// Bytes of the largest range that can be published.
pub(crate) const MAX_RANGE: usize = c_int::MAX as usize;
/// How many buffers can be queued.
pub(crate) const BUFFERS: usize = 64;

const STREAM: u8 = 0xE4;
const FILE: u8 = 0xE2;
const BELL: u8 = 0xE6;
const STREAM_SET_SIZE: Opcode = opcode::write::<c_int>(STREAM, 0x01);
const STREAM_ADV: Opcode = opcode::write::<c_int>(STREAM, 0x02);
const STREAM_PRB: Opcode = opcode::write::<c_int>(STREAM, 0x03);
const STREAM_SET_MODE: Opcode = opcode::write::<c_int>(STREAM, 0x04);
const STREAM_REG_BUF: Opcode = opcode::write::<c_int>(STREAM, 0x05);
const STREAM_WAIT_INFO: Opcode = opcode::read::<Filled>(STREAM, 0x10);
const STREAM_RESET: Opcode = opcode::none(STREAM, 0x11);
const STREAM_STATS: Opcode = opcode::read::<StreamStats>(STREAM, 0x12);
const FILE_SET_CAP: Opcode = opcode::write::<c_int>(FILE, 0x00);
const FILE_SET_SIZE: Opcode = opcode::write::<c_int>(FILE, 0x01);
const FILE_ADV: Opcode = opcode::write::<c_int>(FILE, 0x02);
const FILE_PRB: Opcode = opcode::write::<c_int>(FILE, 0x03);
const FILE_SET_MODE: Opcode = opcode::write::<c_int>(FILE, 0x04);
const FILE_REVOKE: Opcode = opcode::none(FILE, 0x10);
const FILE_STATS: Opcode = opcode::read::<FileStats>(FILE, 0x11);
const BELL_ADV: Opcode = opcode::write::<c_int>(BELL, 0x01);
const BELL_PRB: Opcode = opcode::write::<c_int>(BELL, 0x02);
const BELL_RESET: Opcode = opcode::none(BELL, 0x10);
const BELL_STATS: Opcode = opcode::read::<BellStats>(BELL, 0x11);

/// A request with one argument, by value or a pointer, after which any memory that the kernel knows of may have changed.
struct Request<const OPCODE: Opcode>(*mut c_void);

// SAFETY: the opcode and the argument are passed as they are; nothing is read back.
unsafe impl<const OPCODE: Opcode> Ioctl for Request<OPCODE> {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

/// A request whose argument is a number, or ignored.
fn number<const OPCODE: Opcode>(node: BorrowedFd<'_>, value: usize) -> Result<(), Errno> {
    // SAFETY: used below for requests that take their argument by value and access no memory of the program by it.
    unsafe { ioctl(node, Request::<OPCODE>(ptr::without_provenance_mut(value))) }
}

/// A request that reads a key.
fn key<const OPCODE: Opcode>(node: BorrowedFd<'_>, key: &Key) -> Result<(), Errno> {
    let bytes = ptr::from_ref(key.padded()).cast_mut().cast();
    // SAFETY: used below for requests that read as many bytes as a key has, and keep no pointer.
    unsafe { ioctl(node, Request::<OPCODE>(bytes)) }
}

pub(crate) fn stream_advertise(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<STREAM_ADV>(node, name)
}

pub(crate) fn stream_probe(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<STREAM_PRB>(node, name)
}

pub(crate) fn stream_set_mode(node: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    number::<STREAM_SET_MODE>(node, mode.number())
}

pub(crate) fn stream_reset(node: BorrowedFd<'_>) -> Result<(), Errno> {
    number::<STREAM_RESET>(node, 0)
}

pub(crate) fn stream_stats(node: BorrowedFd<'_>) -> Result<StreamStats, Errno> {
    // SAFETY: the request writes a structure of this layout, whatever was there before.
    unsafe { ioctl(node, Getter::<STREAM_STATS, StreamStats>::new()) }
}

/// `struct cap_stream_message`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Filled {
    address: u64,
    length: u64,
    sequence: u64,
    sender: u64,
}

/// The kernel's word that a buffer which was queued holds a message and is the program's again.
#[derive(Debug)]
#[must_use = "the buffer stays lost until Queue::take"]
pub(crate) struct Delivered(Filled);

/// A message, and the buffer that it is in.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) length: usize,
    pub(crate) sequence: u64,
    pub(crate) sender: u64,
}

/// Waits for the next message of an endpoint, unless the file is one whose requests do not wait.
pub(crate) fn wait(node: BorrowedFd<'_>) -> Result<Delivered, Errno> {
    // SAFETY: the request writes a structure of this layout, whatever was there before.
    unsafe { ioctl(node, Getter::<STREAM_WAIT_INFO, Filled>::new()) }.map(Delivered)
}

/// The buffers that an endpoint's kernel and its senders have.
///
/// # Invariants
/// Each pointer comes from `Box::into_raw`, and nothing else in this process refers to what it points to.
#[derive(Debug)]
pub(crate) struct Queue {
    registered: Vec<NonNull<[u8]>>,
    /// What the endpoint's size was set to last, 0 for nothing.
    size: usize,
}

// SAFETY: the pointers are as good as boxes, which may be sent.
unsafe impl Send for Queue {}

impl Queue {
    /// The queue of an endpoint that was just reset.
    pub(crate) fn new() -> Queue {
        Queue {
            registered: Vec::with_capacity(BUFFERS),
            size: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.registered.len()
    }

    /// Queues a buffer of 1 to [`MAX_SIZE`] bytes. On an error the caller has it back.
    pub(crate) fn register(
        &mut self,
        node: BorrowedFd<'_>,
        buffer: Box<[u8]>,
    ) -> Result<(), (Box<[u8]>, Errno)> {
        let size = buffer.len();
        if self.size != size {
            if let Err(errno) = number::<STREAM_SET_SIZE>(node, size) {
                return Err((buffer, errno));
            }
            self.size = size;
        }
        let raw = Box::into_raw(buffer);
        // SAFETY: the endpoint's size is that of the buffer, so nobody writes beyond it. It is not touched or freed
        // until the kernel has given it back: from here on only `registered` refers to it.
        match unsafe { ioctl(node, Request::<STREAM_REG_BUF>(raw.cast())) } {
            Ok(()) => {
                // SAFETY: a pointer of a box is not null. INVARIANT: it was made by `into_raw` above.
                self.registered.push(unsafe { NonNull::new_unchecked(raw) });
                Ok(())
            }
            // SAFETY: the kernel did not take it, so it is still ours alone.
            Err(errno) => Err((unsafe { Box::from_raw(raw) }, errno)),
        }
    }

    /// Makes a delivered buffer the program's again; `None` when it is not one of these, because another program queued it.
    pub(crate) fn take(&mut self, delivered: Delivered) -> Option<Taken> {
        let Delivered(filled) = delivered;
        let index = self
            .registered
            .iter()
            .position(|buffer| buffer.addr().get() as u64 == filled.address)?;
        let raw = self.registered.swap_remove(index);
        // SAFETY: by the invariant it came from a box. The kernel has freed its slot before it told us, and only `register`, which has not been
        // called with this buffer since, queues it: so nobody else accesses it.
        let buffer = unsafe { Box::from_raw(raw.as_ptr()) };
        Some(Taken {
            length: usize::try_from(filled.length)
                .map_or(buffer.len(), |len| len.min(buffer.len())),
            buffer,
            sequence: filled.sequence,
            sender: filled.sender,
        })
    }

    /// Resets the endpoint and frees its buffers. They stay when the kernel does not say that nobody writes to them.
    pub(crate) fn reset(&mut self, node: BorrowedFd<'_>) -> Result<(), Errno> {
        stream_reset(node)?;
        self.size = 0;
        for raw in self.registered.drain(..) {
            // SAFETY: by the invariant it came from a box, and after the reset nobody accesses it.
            drop(unsafe { Box::from_raw(raw.as_ptr()) });
        }
        Ok(())
    }
}

pub(crate) fn file_probe(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<FILE_PRB>(node, name)
}

pub(crate) fn file_advertise(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<FILE_ADV>(node, name)
}

/// Memory of this process that others read, and perhaps write, at any time. It is freed only after the kernel has said that nobody does any more.
#[derive(Debug)]
pub(crate) struct Lent(ManuallyDrop<Arc<[AtomicU8]>>);

impl Lent {
    /// Publishes the memory, which has up to [`MAX_RANGE`] bytes, under the key, at a node that publishes nothing.
    pub(crate) fn lend(
        node: BorrowedFd<'_>,
        memory: Arc<[AtomicU8]>,
        read_only: bool,
        advertise: impl FnOnce() -> Result<(), Error>,
        error: impl Fn(Errno) -> Error,
    ) -> Result<Lent, Error> {
        number::<FILE_SET_SIZE>(node, memory.len()).map_err(&error)?;
        number::<FILE_SET_MODE>(node, usize::from(read_only)).map_err(&error)?;
        let first = Arc::as_ptr(&memory).cast_mut().cast();
        // SAFETY: notes an address, no more. When it is advertised it is that of bytes that may change at any time; they stay until they are
        // taken back, because nothing drops what is lent.
        unsafe { ioctl(node, Request::<FILE_SET_CAP>(first)) }.map_err(&error)?;
        let lent = Lent(ManuallyDrop::new(memory));
        match advertise() {
            Ok(()) => Ok(lent),
            Err(error) => {
                // Nothing was published: nobody has it.
                drop(ManuallyDrop::into_inner(lent.0));
                Err(error)
            }
        }
    }

    /// The bytes, which may change at any time.
    pub(crate) fn bytes(&self) -> &[AtomicU8] {
        &self.0
    }

    /// Takes the memory back. On an error others may still have it, and it stays lent for ever.
    pub(crate) fn take_back(self, node: BorrowedFd<'_>) -> Result<Arc<[AtomicU8]>, Errno> {
        file_revoke(node)?;
        Ok(ManuallyDrop::into_inner(self.0))
    }
}

/// Takes back what a node publishes, if it publishes anything.
pub(crate) fn file_revoke(node: BorrowedFd<'_>) -> Result<(), Errno> {
    match number::<FILE_REVOKE>(node, 0) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

pub(crate) fn file_stats(node: BorrowedFd<'_>) -> Result<FileStats, Errno> {
    // SAFETY: the request writes a structure of this layout, whatever was there before.
    unsafe { ioctl(node, Getter::<FILE_STATS, FileStats>::new()) }
}

pub(crate) fn bell_advertise(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<BELL_ADV>(node, name)
}

pub(crate) fn bell_probe(node: BorrowedFd<'_>, name: &Key) -> Result<(), Errno> {
    key::<BELL_PRB>(node, name)
}

pub(crate) fn bell_reset(node: BorrowedFd<'_>) -> Result<(), Errno> {
    number::<BELL_RESET>(node, 0)
}

pub(crate) fn bell_stats(node: BorrowedFd<'_>) -> Result<BellStats, Errno> {
    // SAFETY: the request writes a structure of this layout, whatever was there before.
    unsafe { ioctl(node, Getter::<BELL_STATS, BellStats>::new()) }
}
