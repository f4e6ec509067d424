// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The message path allocates nothing.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test fails by panicking; an allocator cannot be replaced without unsafe code"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use capstream_capability::{Capability, Key, Limits, Registry};

thread_local! {
    /// How often this thread asked for memory.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: both calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(body: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    body();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn lookups_uses_and_wake_ups_allocate_nothing() {
    assert_ne!(
        allocations(|| drop(black_box(Box::new(1)))),
        0,
        "the counter counts"
    );

    let registry: Registry<u64, u64> = Registry::new(Limits::default());
    let receiver = registry.register(0).unwrap();
    let sender = registry.register(1).unwrap();
    let key = Key::from_name("key1").unwrap();
    let id = registry.advertise_stream(&receiver, key, 1).unwrap().id;
    // A high number, so that the first lookup fills the copy up to it.
    let handles: Vec<u64> = (0..1000)
        .map(|_| registry.probe_stream(&sender, key, false).unwrap().handle)
        .collect();
    let mut sending = sender.handles();
    let mut receiving = receiver.handles();
    let root = Capability::root().restrict(0x1000, 0x1000).unwrap();
    let count = allocations(|| {
        for handle in handles.iter().rev().chain(&handles) {
            let owner = sending.owner();
            let endpoint = sending.stream(*handle).unwrap();
            let inside = endpoint.enter().unwrap();
            root.check_load(0x1800, 0x100).unwrap();
            endpoint.arm(owner);
            drop(inside);
            let armed = receiving.own_stream(id).unwrap().take_armed();
            assert_eq!(armed.into_iter().flatten().count(), 1);
            assert!(sending.stream(5000).is_err());
        }
    });
    assert_eq!(count, 0);
}
