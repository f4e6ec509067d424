// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest and the files of an operator can be made of, thrown at what reads them.
//!
//! | target | what its bytes become | what has to hold |
//! |---|---|---|
//! | [`hostcalls`] | hostcalls of two cVMs to each other, and of their portals | no access beyond what a model says they were granted; a guessed number is refused |
//! | [`deployment_file`] | the text of a monitor's file | an error names a line that is there; the same text gives the same result |
//! | [`runtime_image`] | an ELF file | nothing is loaded outside of the size that the image says it has |
//! | [`virtqueue`] | registers, rings, chains and requests of a disk's driver | no access outside of the guest's memory; after a reset the disk works |
//! | [`virtio_net`] | registers, rings, chains and frames of two network drivers on one switch, and what comes from a socket | no access outside of the guests' memory; a well-behaved neighbour gets its frames; after a reset the interface works |
//! | [`syscall_patch`] | code with system calls | bytes change close to the call only, and come back when they are forgotten |
//! | [`hart`] | instructions for a simulated hart | no store outside of its capabilities; everything can be disassembled |
//!
//! A target is a function that panics when something does not hold. libFuzzer calls it when it is built by `ci/fuzz`; the tests of this crate call it
//! with the inputs in `regressions`, with the [`seeds`], and with bytes that look random, so that every `cargo test` attacks a little.
#![deny(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what does not hold is reported by panicking"
)]

pub mod arena;
pub mod deployment_file;
pub mod hart;
pub mod hostcalls;
pub mod number;
pub mod runtime_image;
pub mod seeds;
pub mod syscall_patch;
pub mod virtio_net;
pub mod virtqueue;

/// A target: its name, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("hostcalls", hostcalls::run),
    ("deployment_file", deployment_file::run),
    ("runtime_image", runtime_image::run),
    ("virtqueue", virtqueue::run),
    ("virtio_net", virtio_net::run),
    ("syscall_patch", syscall_patch::run),
    ("hart", hart::run),
];
