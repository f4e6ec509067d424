// SPDX-License-Identifier: Apache-2.0 OR MIT
//! See `capstream_fuzz::virtio_net`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capstream_fuzz::virtio_net::run(bytes));
