// SPDX-License-Identifier: Apache-2.0 OR MIT
//! End-to-end tests: each boots cVMs in the real monitor and checks what their programs saw and how everything ended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic that says what is wrong"
)]

mod configuration;
mod endings;
mod files;
mod many;
mod programs;
mod runs;
mod streams;
