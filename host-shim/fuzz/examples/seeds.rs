// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes what the targets begin with into the folder that is named: a folder for each target, a file for each input, and a dictionary of
//! the words that the monitor's file is made of.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .ok_or_else(|| std::io::Error::other("name the folder to write to: seeds FOLDER"))?,
    );
    for (target, _) in capstream_fuzz::TARGETS {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, bytes) in capstream_fuzz::seeds::of(target).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), bytes)?;
        }
    }
    let mut words: Vec<_> = capstream_config::KEYS.iter().map(|key| key.name).collect();
    words.extend(["cVMs", "- ", ": ", "&a ", "*a", "<<", "|", ">-", "!!"]);
    words.sort_unstable();
    words.dedup();
    let words: String = words.iter().map(|word| format!("{word:?}\n")).collect();
    std::fs::write(folder.join("deployment_file.dict"), words)
}
