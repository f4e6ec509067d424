// SPDX-License-Identifier: Apache-2.0 OR MIT
//! End-to-end tests: each boots cVMs in the real monitor and checks what their programs saw and how everything ended.
//!
//! A test that needs an ability that not every platform has is in a module `needs_ABILITY`; `ci/test` knows which platform lacks what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic that says what is wrong"
)]

mod bells;
mod client;
mod configuration;
mod disks;
mod endings;
mod files;
mod grants;
mod hostile;
mod isolation;
mod many;
mod network;
mod one_program;
mod overlays;
mod programs;
mod runs;
mod stock;
mod streams;
mod terminals;
