// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each target with the inputs that once broke something, with what fuzzing begins with, and with some that look random.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use capstream_fuzz::{TARGETS, seeds};

/// How many inputs that look random.
const RANDOM: u64 = 300;

fn replay(name: &str) {
    let (_, run) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("regressions")
        .join(name);
    if let Ok(entries) = std::fs::read_dir(folder) {
        for entry in entries {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(&std::fs::read(path).unwrap());
        }
    }
    for (number, bytes) in seeds::of(name).iter().enumerate() {
        println!("seed {number}");
        run(bytes);
        // The same, cut off, and with a byte that is different.
        run(&bytes[..bytes.len() / 2]);
        let mut other = bytes.clone();
        let at = number * 31 % bytes.len();
        other[at] ^= 1 << (number % 8);
        run(&other);
    }
    for seed in 0..RANDOM {
        println!("random {seed}");
        run(&seeds::random(seed ^ 0x5eed, 16 << (seed % 7)));
    }
}

#[test]
fn hostcalls() {
    replay("hostcalls");
}

#[test]
fn deployment_file() {
    replay("deployment_file");
}

#[test]
fn runtime_image() {
    replay("runtime_image");
}

#[test]
fn virtqueue() {
    replay("virtqueue");
}

#[test]
fn virtio_net() {
    replay("virtio_net");
}

#[test]
fn syscall_patch() {
    replay("syscall_patch");
}

#[test]
fn hart() {
    replay("hart");
}

#[test]
fn every_regression_belongs_to_a_target() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("regressions");
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let name = entry.unwrap().file_name();
        assert!(
            TARGETS.iter().any(|(target, _)| name == *target),
            "{name:?}"
        );
    }
}
