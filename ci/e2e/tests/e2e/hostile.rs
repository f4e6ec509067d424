// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs that want to do harm, and their neighbours.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

/// Every request and system call on the nodes with arguments at random, while a neighbour's messages go on; each seed fires something else.
#[test]
fn requests_at_random() {
    for seed in [1, 22] {
        let count = runs::volume(4000);
        let fired = runs::volume(20_000);
        let outcome = runs::succeed(
            &Deployment::new(&format!("requests_at_random_{seed}"))
                .cvm(Cvm::new(
                    "collect",
                    &format!("/ld.so /tests/stream_peer collect 1 {count}"),
                ))
                .cvm(Cvm::new(
                    "sender",
                    &format!("/ld.so /tests/stream_peer send 0 {count} 3001"),
                ))
                .cvm(Cvm::new(
                    "hostile",
                    &format!("/ld.so /tests/hostile {seed} {fired}"),
                )),
        );
        let printed = outcome.printed();
        runs::assert_checks(outcome.output_of("collect"), 2, &printed);
        runs::assert_checks(outcome.output_of("sender"), 1, &printed);
        runs::assert_checks(outcome.output_of("hostile"), 19, &printed);
    }
}
