// SPDX-License-Identifier: Apache-2.0 OR MIT
//! That frames take no memory from the host once an interface is warm. Alone in its program, because it counts what all threads allocate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod interface;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use capstream_virtio::{Net, NetOptions, Switch};
use interface::*;

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

/// How many allocations `rounds` makes after it was warm.
fn allocations(mut rounds: impl FnMut(usize)) -> u64 {
    rounds(300);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    rounds(1000);
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

/// Puts a frame where every round sends it from.
fn prepare(interface: &Interface, to: u8, from: u8) {
    let bytes = [&PLAIN[..], &frame(to, from, 1000)].concat();
    interface.memory.write(SENT, &bytes).unwrap();
    interface.describe(TX, 0, SENT, bytes.len() as u32, 0, 0);
}

#[test]
fn frames_take_no_memory() {
    let switch = Switch::new();
    let mut one = Interface::new(Net::switch(switch.port(mac(1)).unwrap(), 1500).unwrap(), 0);
    let mut two = Interface::new(Net::switch(switch.port(mac(2)).unwrap(), 1500).unwrap(), 0);
    prepare(&one, 2, 1);
    let on_switch = allocations(|rounds| {
        for round in 0..rounds {
            // Without buffers now and then: the frame waits for them.
            let late = round % 7 == 0;
            if !late {
                two.give(1, 2048);
            }
            one.offer(TX, 0);
            one.notify(TX);
            assert!(one.take_used(TX).is_some());
            if late {
                two.give(1, 2048);
            }
            assert!(two.take_used(RX).is_some());
        }
    });

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let options = NetOptions {
        mac: mac(3),
        mtu: 1500,
        on_down: None,
    };
    let mut three = Interface::new(Net::stream(ours.into(), &options).unwrap(), 0);
    prepare(&three, 9, 3);
    let mut bytes = [0; 1004];
    let on_stream = allocations(|rounds| {
        for _ in 0..rounds {
            three.offer(TX, 0);
            three.notify(TX);
            theirs.read_exact(&mut bytes).unwrap();
            while three.take_used(TX).is_none() {
                std::thread::yield_now();
            }
        }
    });
    // The test runner's own thread may have taken some.
    assert!(on_switch < 20, "{on_switch} allocations in 1000 frames");
    assert!(on_stream < 20, "{on_stream} allocations in 1000 frames");
}
