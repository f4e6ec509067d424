// SPDX-License-Identifier: GPL-2.0-only
//! What the endpoints need from the kernel they are in.

use crate::Result;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something happened to this endpoint: [`Kernel::wake`].
    Endpoint,
    /// [`Kernel::peer_events`] changed: something happened to a peer or a key.
    Peers,
}

/// Whether a signal ends a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It does.
    Interruptible,
    /// It does not: for waits that another processor is sure to end soon.
    Uninterruptible,
}

/// A range of a program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub address: usize,
    /// How many bytes, more than 0.
    pub len: usize,
}

impl Range {
    /// A range, unless it is empty or wraps around.
    pub const fn new(address: usize, len: usize) -> Option<Range> {
        if len == 0 || address.checked_add(len - 1).is_none() {
            None
        } else {
            Some(Range { address, len })
        }
    }

    /// Whether the two share a byte.
    pub const fn overlaps(self, other: Range) -> bool {
        self.address <= other.last() && other.address <= self.last()
    }

    const fn last(self) -> usize {
        self.address.saturating_add(self.len.saturating_sub(1))
    }
}

/// What is going to be done with a program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Others read it.
    Read,
    /// Others read and write it.
    Write,
}

/// Memory of a program that nobody else can be given, even after the program unmapped it or ended, until this is dropped.
pub trait Pin {
    /// Whether the address space that it was pinned from still exists.
    fn alive(&self) -> bool;

    /// Where portals and other cVMs find it: the address that its program uses, or one that the kernel keeps for as long as the pin
    /// lives, whatever becomes of the program's.
    fn address(&self) -> usize;
}

/// The kernel around one endpoint.
pub trait Kernel {
    /// Pinned memory.
    type Pin: Pin;
    /// One of the receive buffers that this kernel may have queued; given back when it is dropped.
    type Place;

    /// Lets the tasks that sleep at [`Event::Endpoint`] look again. Also called from the interrupt handler.
    fn wake(&self);

    /// Lets the tasks that sleep at [`Event::Peers`] look again.
    fn wake_callers(&self);

    /// Sleeps until `ready` returns true; calls it first, and again after each wake. `ready` does not sleep.
    ///
    /// # Errors
    /// `EINTR` when a signal came, only with [`Depth::Interruptible`]; `ETIMEDOUT` after `deadline`, in the time of [`Kernel::now_ns`].
    fn sleep(
        &self,
        event: Event,
        depth: Depth,
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<()>;

    /// One turn of a wait that spins: interrupts and other tasks get their chance.
    ///
    /// # Errors
    /// `EINTR` when a signal is pending.
    fn spin(&self) -> Result<()>;

    /// Nanoseconds of a clock that never goes back.
    fn now_ns(&self) -> u64;

    /// How many capability interrupts this kernel has taken.
    fn peer_events(&self) -> u64;

    /// A number for the address space of the calling task; no two live ones have the same, and none has that of a [`Pin`] that still exists.
    fn space(&self) -> usize;

    /// Whether the range, which the calling task pinned earlier, is still mapped for this kind of access, and what is mapped there is
    /// still what was pinned.
    fn holds(&self, range: Range, access: Access, pin: &Self::Pin) -> bool;

    /// Pins memory of the calling task.
    ///
    /// # Errors
    /// `EFAULT` when it is not all mapped for this kind of access, `ENOMEM`.
    fn pin(&self, range: Range, access: Access) -> Result<Self::Pin>;

    /// Takes a place for one more queued receive buffer. `ENOBUFS` when all that this kernel may have are taken.
    fn place(&self) -> Result<Self::Place>;

    /// Copies the first `len` bytes of pinned memory to memory of the calling task.
    ///
    /// # Errors
    /// `EFAULT`.
    fn copy_out(&self, from: &Self::Pin, to: usize, len: usize) -> Result<()>;
}

/// A lock that tasks may hold while they sleep; never taken in interrupts or portals.
pub trait Lock {
    /// What is locked.
    type State;

    /// Runs `work` with what is locked.
    fn with<R>(&self, work: impl FnOnce(&mut Self::State) -> R) -> R;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_wrap() {
        assert!(Range::new(usize::MAX, 1).is_some());
        assert!(Range::new(usize::MAX, 2).is_none());
        assert!(Range::new(5, 0).is_none());
    }

    #[test]
    fn overlap_is_symmetric_and_touching_is_not_overlap() {
        let range = |address, len| Range::new(address, len).unwrap();
        for (a, b, expected) in [
            (range(0, 10), range(10, 1), false),
            (range(0, 11), range(10, 1), true),
            (range(5, 1), range(0, 10), true),
            (range(usize::MAX, 1), range(usize::MAX - 1, 1), false),
        ] {
            assert_eq!(a.overlaps(b), expected);
            assert_eq!(b.overlaps(a), expected);
        }
    }
}
