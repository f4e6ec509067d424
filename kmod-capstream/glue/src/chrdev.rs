// SPDX-License-Identifier: GPL-2.0-only
//! Character devices whose nodes live as long as the kernel.
//!
//! A device kind is a type that implements [`Device`]; [`Kind`] is its line in the driver's table. The kernel's `file_operations` are made
//! from the trait, and are the only unsafe part.

use capstream_core::requests::MINORS;
use capstream_core::Errno;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::BitOr;
use kernel::bindings;
use kernel::error::Error;
use kernel::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use kernel::prelude::*;

use crate::nodes::Nodes;
use crate::wait_queue::WaitQueue;

/// `minor` is in the low 20 bits of a device number.
const MINOR_BITS: u32 = 20;
/// What the kernel turns into `EINTR`, unless no handler of the program ran (as when it was stopped and continued): then it repeats the call.
const ERESTARTNOHAND: i64 = 514;

/// Wait queues that a poll puts the caller on.
pub(crate) struct PollTable {
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
}

#[allow(
    improper_ctypes,
    reason = "the kernel's structures are passed by address and not looked into"
)]
extern "C" {
    // In poll.c.
    fn capstream_poll_wait(
        file: *mut bindings::file,
        queue: *mut bindings::wait_queue_head,
        table: *mut bindings::poll_table_struct,
    );
}

impl PollTable {
    /// Has the caller woken when the queue is.
    pub(crate) fn watch(&self, queue: &'static WaitQueue) {
        // SAFETY: file and table are those of the poll that this value was made for; the queue lives for ever.
        unsafe { capstream_poll_wait(self.file, queue.as_ptr(), self.table) }
    }
}

/// What a poll found, in the bits of `poll(2)`.
#[derive(Clone, Copy, Default)]
pub(crate) struct PollMask(u32);

impl PollMask {
    pub(crate) const READABLE: PollMask = PollMask(0x1 | 0x40);
    pub(crate) const WRITABLE: PollMask = PollMask(0x4 | 0x100);
    pub(crate) const HANGUP: PollMask = PollMask(0x10);

    /// These bits if it is so, else none.
    pub(crate) fn when(self, so: bool) -> PollMask {
        if so {
            self
        } else {
            PollMask::default()
        }
    }
}

impl BitOr for PollMask {
    type Output = PollMask;

    fn bitor(self, other: PollMask) -> PollMask {
        PollMask(self.0 | other.0)
    }
}

/// How a node was opened.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    /// `O_NONBLOCK`, as it is now.
    pub(crate) nonblock: bool,
}

/// A device kind; a value is one node. Addresses are those of the calling program. What a kind does not have it leaves out.
pub(crate) trait Device: Send + Sync + Sized + 'static {
    /// The driver's name in `/proc/devices`.
    const NAME: &'static CStr;
    /// What the boot message calls it.
    const TITLE: &'static str;
    /// A request that the boot message tells.
    const FIRST_REQUEST: u32;
    /// Its major number.
    const MAJOR: u32;
    /// What its nodes in `/cap` are called; a number follows.
    const NODE: &'static str;
    /// How many nodes there are in `/cap`.
    const NODE_COUNT: u32;
    /// The option of the kernel's command line that says another number: `capstream.NAME=NUMBER`.
    const NODE_COUNT_OPTION: &'static str;
    /// Whether it has a file offset.
    const SEEKABLE: bool = false;

    /// Where its nodes are kept: a static of the kind.
    fn nodes() -> &'static Nodes<Self>;
    /// Makes the node with this minor, when it is first opened.
    fn new(minor: u32) -> Result<impl PinInit<Self, Error>>;

    /// `ioctl(2)`. `ENOTTY` for a request that it does not have.
    fn request(
        &'static self,
        _opened: Opened,
        _request: u32,
        _argument: usize,
    ) -> capstream_core::Result<()> {
        Err(Errno::NOTTY)
    }
    /// `read(2)`; moves the offset on.
    fn read(
        &'static self,
        _opened: Opened,
        _offset: &mut i64,
        _address: usize,
        _len: usize,
    ) -> capstream_core::Result<usize> {
        Err(Errno::INVAL)
    }
    /// `write(2)`; moves the offset on.
    fn write(
        &'static self,
        _opened: Opened,
        _offset: &mut i64,
        _address: usize,
        _len: usize,
    ) -> capstream_core::Result<usize> {
        Err(Errno::INVAL)
    }
    /// `lseek(2)`, only for a [`Device::SEEKABLE`] kind: the new offset.
    fn seek(
        &'static self,
        _current: i64,
        _offset: i64,
        _whence: i32,
    ) -> capstream_core::Result<i64> {
        Err(Errno::INVAL)
    }
    /// `poll(2)`.
    fn poll(&'static self, _table: &PollTable) -> PollMask {
        PollMask::READABLE | PollMask::WRITABLE
    }
    /// The last user of an open file closed it.
    fn closed(&'static self) {}
    /// There was a capability interrupt: something happened to this node, to a peer, or to a key. Called by the handler.
    fn interrupt(&'static self) {}
    /// The last task of a program left its memory, see [`capstream_core::Kernel::space`]. May sleep.
    fn left(&'static self, _space: usize) {}
}

/// A line in the driver's table.
pub(crate) struct Kind {
    name: &'static CStr,
    /// What the boot message calls it.
    pub(crate) title: &'static str,
    /// A request that the boot message tells.
    pub(crate) first_request: u32,
    /// Its major number.
    pub(crate) major: u32,
    /// What its nodes are called.
    pub(crate) node: &'static str,
    /// How many there are unless the command line says otherwise.
    pub(crate) node_count: u32,
    /// How the command line says it.
    pub(crate) node_count_option: &'static str,
    operations: &'static bindings::file_operations,
    interrupt: fn(),
    left: fn(usize),
}

// SAFETY: everything in it is constant; the pointers in the operations are null or to functions.
unsafe impl Sync for Kind {}

impl Kind {
    /// The line of a device kind.
    pub(crate) const fn of<T: Device>() -> Kind {
        Kind {
            name: T::NAME,
            title: T::TITLE,
            first_request: T::FIRST_REQUEST,
            major: T::MAJOR,
            node: T::NODE,
            node_count: T::NODE_COUNT,
            node_count_option: T::NODE_COUNT_OPTION,
            operations: Operations::<T>::TABLE,
            interrupt: || {
                for node in T::nodes().opened() {
                    node.interrupt();
                }
            },
            left: |space| {
                for node in T::nodes().opened() {
                    node.left(space);
                }
            },
        }
    }

    /// Makes the kernel accept opens of its nodes.
    pub(crate) fn register(&'static self) -> Result<()> {
        // SAFETY: name and operations live for ever, and so does this built-in driver.
        kernel::error::to_result(unsafe {
            bindings::__register_chrdev(
                self.major,
                0,
                MINORS,
                self.name.as_char_ptr(),
                self.operations,
            )
        })
    }

    /// [`Device::interrupt`] of all nodes that were opened.
    pub(crate) fn interrupt(&self) {
        (self.interrupt)();
    }

    /// [`Device::left`] of all nodes that were opened.
    pub(crate) fn left(&self, space: usize) {
        (self.left)(space);
    }
}

fn to_return(error: Errno) -> i64 {
    match error {
        Errno::INTR => -ERESTARTNOHAND,
        other => other.negated(),
    }
}

fn size_to_return(result: capstream_core::Result<usize>) -> isize {
    match result {
        Ok(size) => isize::try_from(size).unwrap_or(isize::MAX),
        Err(error) => to_return(error) as isize,
    }
}

/// The kernel's view of a device kind.
struct Operations<T>(PhantomData<T>);

impl<T: Device> Operations<T> {
    const TABLE: &'static bindings::file_operations = &bindings::file_operations {
        open: Some(Self::open),
        release: Some(Self::release),
        read: Some(Self::read),
        write: Some(Self::write),
        llseek: if T::SEEKABLE {
            Some(Self::llseek)
        } else {
            None
        },
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: None,
        // SAFETY: all fields are integers, pointers that may be null, or optional functions.
        ..unsafe { MaybeUninit::<bindings::file_operations>::zeroed().assume_init() }
    };

    /// # Safety
    /// `file` is a file that [`Operations::open`] opened.
    unsafe fn node(file: *mut bindings::file) -> &'static T {
        // SAFETY: by the contract, `open` put a node there, which lives for ever.
        unsafe { &*(*file).private_data.cast::<T>() }
    }

    /// # Safety
    /// `file` is an open file.
    unsafe fn opened(file: *mut bindings::file) -> Opened {
        // SAFETY: by the contract. The program may change the flags at the same time, so they are read once.
        let flags = unsafe { core::ptr::addr_of!((*file).f_flags).read_volatile() };
        Opened {
            nonblock: flags & bindings::O_NONBLOCK != 0,
        }
    }

    /// # Safety
    /// Called by the kernel as `file_operations::open` of this device.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: the kernel opens a node of this device: the inode is valid and has a device number.
        let device = unsafe { (*inode).i_rdev };
        let minor = device & ((1 << MINOR_BITS) - 1);
        match T::nodes().get(minor, || T::new(minor)) {
            Ok(node) => {
                // SAFETY: the file is being opened and nobody else sees it; its private data is the driver's.
                unsafe {
                    (*file).private_data = core::ptr::from_ref(node).cast_mut().cast::<c_void>()
                };
                if T::SEEKABLE {
                    0
                } else {
                    // SAFETY: as above. Without an offset, reads and writes do not wait for each other.
                    unsafe { bindings::stream_open(inode, file) }
                }
            }
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: the kernel closes a file that it opened with `open`.
        unsafe { Self::node(file) }.closed();
        0
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buffer: *mut c_char,
        len: usize,
        offset: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: the file was opened with `open`.
        let (node, opened) = unsafe { (Self::node(file), Self::opened(file)) };
        // SAFETY: null for a device without offset, else valid for this call and ours alone.
        let offset = unsafe { offset.as_mut() };
        let mut none = 0;
        size_to_return(node.read(opened, offset.unwrap_or(&mut none), buffer as usize, len))
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buffer: *const c_char,
        len: usize,
        offset: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: the file was opened with `open`.
        let (node, opened) = unsafe { (Self::node(file), Self::opened(file)) };
        // SAFETY: null for a device without offset, else valid for this call and ours alone.
        let offset = unsafe { offset.as_mut() };
        let mut none = 0;
        size_to_return(node.write(opened, offset.unwrap_or(&mut none), buffer as usize, len))
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: the file was opened with `open`; the kernel holds the lock of its offset.
        let (node, current) = unsafe { (Self::node(file), (*file).f_pos) };
        match node.seek(current, offset, whence) {
            Ok(position) => {
                // SAFETY: as above.
                unsafe { (*file).f_pos = position };
                position
            }
            Err(error) => to_return(error),
        }
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: the file was opened with `open`.
        let node = unsafe { Self::node(file) };
        node.poll(&PollTable { file, table }).0
    }

    /// # Safety
    /// Called by the kernel for a file that [`Operations::open`] opened.
    unsafe extern "C" fn ioctl(
        file: *mut bindings::file,
        request: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // SAFETY: the file was opened with `open`.
        let (node, opened) = unsafe { (Self::node(file), Self::opened(file)) };
        match node.request(opened, request, argument) {
            Ok(()) => 0,
            Err(error) => to_return(error) as c_long,
        }
    }
}
