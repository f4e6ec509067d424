// SPDX-License-Identifier: Apache-2.0 OR MIT
//! That requests take no memory from the host once a disk is warm. Alone in its program, because it counts what all threads allocate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod driver;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use capstream_virtio::BlockOptions;
use driver::*;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn requests_take_no_memory() {
    let file = image(4096);
    let mut driver = Driver::new(file.path(), &BlockOptions::default(), 0);
    // Chains are made once: the driver of this test allocates for them, the device must not.
    let header_in = driver.header(IN, 0).address;
    let header_out = driver.header(OUT, 64).address;
    let status = driver.answer().address;
    driver.describe(DESCRIPTORS, 0, header_in, 16, NEXT, 1);
    for i in 1..40 {
        let at = DATA + u64::from(i) * 4096;
        driver.describe(DESCRIPTORS, i, at, 512, NEXT | WRITE, i + 1);
    }
    driver.describe(DESCRIPTORS, 40, status, 1, WRITE, 0);
    driver.describe(DESCRIPTORS, 50, header_out, 16, NEXT, 51);
    driver.describe(DESCRIPTORS, 51, DATA, 4096, NEXT, 52);
    driver.describe(DESCRIPTORS, 52, status, 1, WRITE, 0);
    let mut rounds = |n| {
        for _ in 0..n {
            for head in [0, 50] {
                driver.offer(head);
                driver.notify();
                assert_eq!(driver.wait_used().0, head);
            }
        }
    };
    rounds(100);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    rounds(1000);
    let taken = ALLOCATIONS.load(Ordering::SeqCst) - before;
    // The test runner's own thread may have taken some.
    assert!(taken < 20, "{taken} allocations in 2000 requests");
}
