// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a request costs, from the notification to the driver's sight of the answer, beside the bare system call.
//!
//! `cargo bench -p capstream-virtio`; times are medians in nanoseconds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "nothing goes on without what it measures"
)]

#[path = "../tests/driver/mod.rs"]
mod driver;

use std::os::unix::fs::FileExt;
use std::time::Instant;

use capstream_virtio::BlockOptions;
use driver::*;

const ROUNDS: usize = 20_000;

fn median(name: &str, mut step: impl FnMut(u64)) {
    for round in 0..ROUNDS / 10 {
        step(round as u64);
    }
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let begin = Instant::now();
            step(round as u64);
            begin.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{name:40} {:>8} {:>8} (99 %)",
        times[ROUNDS / 2],
        times[ROUNDS / 100 * 99]
    );
}

fn main() {
    let sectors = 1 << 15;
    let file = image(sectors);
    let blocks = sectors as u64 / 8;
    let mut bytes = [0; 4096];
    median("pread of 4 KiB", |i| {
        let at = i * 7 % blocks * 4096;
        file.as_file().read_exact_at(&mut bytes, at).unwrap();
    });
    median("pwrite of 4 KiB", |i| {
        let at = i * 7 % blocks * 4096;
        file.as_file().write_all_at(&bytes, at).unwrap();
    });

    let mut driver = Driver::new(file.path(), &BlockOptions::default(), 0);
    let mut request = |name: &str, kind, len| {
        let data = Buffer {
            write: kind == IN,
            ..writable(DATA, len)
        };
        median(name, |i| {
            let sector = i * 7 % (blocks - 64) * 8;
            driver.submit(kind, sector, &[data]);
            driver.notify();
            driver.wait_used();
        });
    };
    request("read of 4 KiB", IN, 4096);
    request("read of 64 KiB, by the worker", IN, 65536);
    request("write of 4 KiB, by the worker", OUT, 4096);
    let ahead = 32;
    median("32 reads of 4 KiB", |i| {
        for n in 0..ahead {
            let data = writable(DATA + n * 4096, 4096);
            driver.submit(IN, (i * 7 + n) % blocks * 8, &[data]);
        }
        driver.notify();
        for _ in 0..ahead {
            driver.wait_used();
        }
    });
}
