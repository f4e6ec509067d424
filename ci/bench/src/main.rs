// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Measures cVMs against what they replace.
fn main() {}
