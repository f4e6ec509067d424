// SPDX-License-Identifier: GPL-2.0-only
//! The atomics of the portal protocol, replaced by loom's when it explores interleavings.

#[cfg(not(all(loom, test)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(loom, test))]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Stands between "I published mine" and "I look at yours" where two sides do that to each other and one of them must see the
/// other. The accesses around it are sequentially consistent, which is enough; loom weakens those to acquire and release, and
/// so needs the fence spelt out.
#[inline]
pub(crate) fn publish_then_look() {
    #[cfg(all(loom, test))]
    fence(Ordering::SeqCst);
}

/// In a loop that somebody else's progress ends: tells loom to let that somebody run.
#[inline]
pub(crate) fn yield_to_model() {
    #[cfg(all(loom, test))]
    loom::thread::yield_now();
}

/// An array of atomics: in a constant, or, as loom's need it, made at run time.
macro_rules! array {
    ($element:expr) => {{
        #[cfg(not(all(loom, test)))]
        {
            [const { $element }; _]
        }
        #[cfg(all(loom, test))]
        {
            core::array::from_fn(|_| $element)
        }
    }};
}
pub(crate) use array;

/// A function that is `const` unless it makes loom's atomics.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(all(loom, test)))]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(all(loom, test))]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_unless_loom;
