// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints `docs/deployment-file.md`.

fn main() {
    print!("{}", capstream_config::reference());
}
