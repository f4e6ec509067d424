// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints `docs/deployment.schema.json`.

fn main() {
    print!("{}", capstream_config::schema());
}
