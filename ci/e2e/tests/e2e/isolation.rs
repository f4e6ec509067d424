// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the processor itself keeps a cVM within its range.

/// A platform whose cVMs cannot reach anything outside by address.
mod needs_isolation {
    use capstream_e2e::deployment::{BASE, STRIDE};
    use capstream_e2e::{Cvm, Deployment};

    use crate::runs;

    const MIB: u64 = 1 << 20;

    /// A program that reads, writes and jumps to addresses around its cVM and in its neighbour gets a SIGSEGV for each, and goes on; the
    /// neighbour notices nothing.
    #[test]
    fn by_address() {
        let size = 128 * MIB;
        // The image and the memory of the neighbour, right behind and right before the own range, and somewhere.
        let distances = [
            STRIDE,
            STRIDE + size / 2,
            size,
            0_u64.wrapping_sub(8),
            1 << 46,
        ];
        // Programs know addresses either from the begin of their cVM or as they are: neither may lead out.
        let addresses = distances
            .iter()
            .flat_map(|distance| [*distance, BASE.wrapping_add(*distance)])
            .map(|address| format!(" {address:#x}"));
        let args = format!("/ld.so /tests/outside{}", addresses.collect::<String>());
        let outcome = runs::succeed(
            &Deployment::new("by_address")
                .cvm(Cvm::new("intruder", &args).memory(size / MIB))
                .cvm(Cvm::new("neighbour", "/ld.so /tests/threads").memory(size / MIB)),
        );
        runs::assert_checks(outcome.output_of("intruder"), 40, &outcome.printed());
        runs::assert_checks(outcome.output_of("neighbour"), 13, &outcome.printed());
    }
}
