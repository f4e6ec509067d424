// SPDX-License-Identifier: GPL-2.0-only
//! The lock of an endpoint's state: a mutex of the kernel, for the holder may sleep.

use capstream_core::Lock;
use kernel::alloc::flags::GFP_KERNEL;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// A state behind a mutex. It is in a box of its own, since it is too large to be passed on a kernel stack.
#[pin_data]
pub(crate) struct Exclusive<T> {
    #[pin]
    mutex: Mutex<KBox<T>>,
}

impl<T> Exclusive<T> {
    /// Unlocked.
    pub(crate) fn new(value: KBox<T>) -> impl PinInit<Exclusive<T>> {
        pin_init!(Exclusive {
            mutex <- kernel::new_mutex!(value, "capstream"),
        })
    }
}

impl<T> Lock for Exclusive<T> {
    type State = T;

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.mutex.lock())
    }
}

/// Boxes what `make` returns. When that is a constant, it is copied to its place without a stop on the stack.
#[inline(always)]
pub(crate) fn boxed<T>(make: impl FnOnce() -> T) -> Result<KBox<T>> {
    Ok(KBox::<T>::new_uninit(GFP_KERNEL)?.write(make()))
}
