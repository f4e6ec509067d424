// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keys that there are: the only place where they are listed.

use std::fmt::Write;

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The file itself.
    File,
    /// An entry of `cVMs`.
    Cvm,
    /// `isolation` of a cVM.
    Isolation,
    /// An entry of `capfiles`.
    Capfile,
}

impl Section {
    /// All of them, in the order of the reference.
    pub const ALL: [Section; 4] = [
        Section::File,
        Section::Cvm,
        Section::Isolation,
        Section::Capfile,
    ];

    /// What errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Section::File => "the file",
            Section::Cvm => "a cVM",
            Section::Isolation => "`isolation`",
            Section::Capfile => "a capfile",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Section::File => "Top level",
            Section::Cvm => "`cVMs`: one entry for each cVM",
            Section::Isolation => "`isolation` of a cVM",
            Section::Capfile => "`capfiles`: one entry for each buffer",
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// What it belongs to.
    pub section: Section,
    /// The key.
    pub name: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// What it takes.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    section: Section,
    name: &'static str,
    required: bool,
    value: &'static str,
    meaning: &'static str,
) -> KeyDescription {
    KeyDescription {
        section,
        name,
        required,
        value,
        meaning,
    }
}

/// Every key, by section.
#[rustfmt::skip]
pub const KEYS: &[KeyDescription] = &[
    key(Section::File, "cVMs", true, "a list of at least one cVM",
        "The cVMs, started in this order."),
    key(Section::File, "capfiles", false, "a list of capfiles",
        "Buffers that the monitor publishes before any cVM starts."),
    key(Section::Cvm, "name", true, "a word, not `monitor`",
        "The label of the cVM. No two have the same."),
    key(Section::Cvm, "disk", false, "a path",
        "The disk image."),
    key(Section::Cvm, "runtime", false, "a path",
        "The runtime image to load. Without it the monitor loads its default."),
    key(Section::Cvm, "args", true, "a text that is split into words as a shell does, or a list of words",
        "The program and its arguments."),
    key(Section::Cvm, "net", false, "a text",
        "The network of the cVM. Without it, it has none."),
    key(Section::Cvm, "wait", false, "a number of seconds, 0 (the default) or more, or -1",
        "How long to wait before the next cVM is started; -1: until this one has ended."),
    key(Section::Cvm, "clean_room", false, "0 (the default) or 1",
        "1: the capabilities of the cVM lack the software-defined permissions."),
    key(Section::Cvm, "callback_in", false, "the name of another cVM of the file",
        "The inner cVM of a nested pair."),
    key(Section::Cvm, "callback_out", false, "the name of another cVM of the file, or `monitor` (the default)",
        "The outer cVM of a nested pair."),
    key(Section::Cvm, "isolation", true, "a mapping with `base` and `size`",
        "Where the cVM is mapped, and its bounds. The ranges of two cVMs do not overlap."),
    key(Section::Isolation, "base", true, "a hexadecimal number, a multiple of 0x1000, 0x10000 or more",
        "The first byte."),
    key(Section::Isolation, "size", true, "a hexadecimal number, a multiple of 0x1000, 0x1000000 (16 MiB) or more",
        "How many bytes."),
    key(Section::Isolation, "begin", false, "a hexadecimal number, a multiple of 0x1000, `base` (the default) or more, below `end`",
        "The first byte that the capabilities of the cVM allow."),
    key(Section::Isolation, "end", false, "a hexadecimal number, a multiple of 0x1000, `base` + `size` (the default) or less, above `begin`",
        "The byte after the last that the capabilities of the cVM allow."),
    key(Section::Capfile, "name", true, "1 to 10 bytes without a NUL",
        "The key under which the buffer is published. No two have the same."),
    key(Section::Capfile, "size", true, "a hexadecimal number from 1 to 0x40000000 (1 GiB)",
        "How many bytes it has."),
    key(Section::Capfile, "data", false, "a text of at most `size` bytes",
        "What is in it at first. The rest is zero."),
];

impl Section {
    /// The keys that belong to it.
    pub fn keys(self) -> impl Iterator<Item = &'static KeyDescription> {
        KEYS.iter().filter(move |key| key.section == self)
    }

    /// What a key of it takes.
    pub(crate) fn value(self, name: &str) -> &'static str {
        self.keys()
            .find(|key| key.name == name)
            .map_or("", |key| key.value)
    }

    /// What to write instead of a key that there is not.
    pub(crate) fn suggest(self, unknown: &str) -> String {
        let lower = unknown.to_lowercase();
        let nearest = self
            .keys()
            .map(|key| {
                let distance = strsim::osa_distance(&lower, &key.name.to_lowercase());
                (distance, key.name)
            })
            .min_by_key(|&(distance, _)| distance)
            // Not more than half of the longer word may differ.
            .filter(|&(distance, name)| 2 * distance <= name.len().max(lower.chars().count()));
        if let Some((_, name)) = nearest {
            return format!("did you mean `{name}`?");
        }
        let names: Vec<_> = self.keys().map(|key| format!("`{}`", key.name)).collect();
        format!("expected one of {}", names.join(", "))
    }
}

/// The reference of all keys, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "<!-- SPDX-License-Identifier: Apache-2.0 OR MIT -->
<!-- Printed by `cargo run -p capstream-config --example reference`; a test compares it. -->
# The monitor's file

A YAML file: `monitor -y FILE`. Paths in it are relative to its folder. A hexadecimal number is always hexadecimal, with `0x` before
it or not, in quotes or not: `0x20000000`, `20000000` and `\"20000000\"` are the same. Underscores between digits are
ignored. A key that is not listed here is an error, and so is a key that is there twice. Anchors, aliases, tags and several
documents in one file are not understood.
",
    );
    for section in Section::ALL {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n| key | needed | value | meaning |\n|---|---|---|---|\n",
            section.title()
        );
        for key in section.keys() {
            let needed = if key.required { "yes" } else { "no" };
            let _ = writeln!(
                text,
                "| `{}` | {needed} | {} | {} |",
                key.name, key.value, key.meaning
            );
        }
    }
    text
}
