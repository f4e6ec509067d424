// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keys that there are: the only place where they are listed.

use std::fmt::Write;

use crate::limits::DEFAULT_LOG_RATE;

/// Bytes of a page.
const PAGE: u64 = capstream_abi::boot::PAGE;
const _: () = assert!(DEFAULT_LOG_RATE == 16 << 20, "the table says 16M");

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The file itself.
    File,
    /// An entry of `cVMs`.
    Cvm,
    /// `isolation` of a cVM.
    Isolation,
    /// An entry of `grants` of a cVM.
    Grant,
    /// `limits` of a cVM.
    Limits,
    /// `net` of a cVM.
    Net,
    /// An entry of `capfiles`.
    Capfile,
}

impl Section {
    /// All of them, in the order of the reference.
    pub const ALL: [Section; 7] = [
        Section::File,
        Section::Cvm,
        Section::Isolation,
        Section::Grant,
        Section::Limits,
        Section::Net,
        Section::Capfile,
    ];

    /// What errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Section::File => "the file",
            Section::Cvm => "a cVM",
            Section::Isolation => "`isolation`",
            Section::Grant => "a grant",
            Section::Limits => "`limits`",
            Section::Net => "`net`",
            Section::Capfile => "a capfile",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Section::File => "Top level",
            Section::Cvm => "`cVMs`: one entry for each cVM",
            Section::Isolation => "`isolation` of a cVM",
            Section::Grant => "`grants` of a cVM: one entry for each grant",
            Section::Limits => "`limits` of a cVM",
            Section::Net => "`net` of a cVM",
            Section::Capfile => "`capfiles`: one entry for each buffer",
        }
    }
}

/// The form of a value, for who reads files by machine. What it does not say is said by [`KeyDescription::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text.
    Text,
    /// A text that is split into words, or a list of words.
    Words,
    /// A pattern of keys, or a list of them.
    Patterns,
    /// A text, or a list of texts.
    Texts,
    /// A text, or a section.
    TextOr(Section),
    /// A whole number, decimal.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A hexadecimal number, with `0x` or without.
    Hex,
    /// A number of bytes: decimal, with `K`, `M` or `G` behind it, or hexadecimal with `0x`.
    Bytes {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// It is a multiple of this.
        multiple: u64,
    },
    /// 0 or 1.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of sections.
    List(Section),
    /// A section.
    Mapping(Section),
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
    /// The form of its value.
    pub form: Form,
    /// What it takes.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    section: Section,
    name: &'static str,
    required: bool,
    form: Form,
    value: &'static str,
    meaning: &'static str,
) -> KeyDescription {
    KeyDescription {
        section,
        name,
        required,
        form,
        value,
        meaning,
    }
}

/// Every key, by section.
#[rustfmt::skip]
pub const KEYS: &[KeyDescription] = &[
    key(Section::File, "cVMs", true, Form::List(Section::Cvm), "a list of at least one cVM",
        "The cVMs, started in this order."),
    key(Section::File, "capfiles", false, Form::List(Section::Capfile), "a list of capfiles",
        "Buffers that the monitor publishes before any cVM starts."),
    key(Section::Cvm, "name", true, Form::Text, "a word, not `monitor`",
        "The label of the cVM. No two have the same."),
    key(Section::Cvm, "disk", false, Form::Text, "a path",
        "The disk image. It is locked while the cVM runs: for it alone, or with an `overlay` for all who only read it."),
    key(Section::Cvm, "overlay", false, Form::Text, "`none` (the default), `memory` or a path",
        "Where changes of the disk go, which is only read then, so that several cVMs can have the same. `memory`: into memory of the monitor's, of which they take up to `overlay_size`, and away with the cVM. A path: to a disk image for this cVM alone, which is made if it is not there; it can be used with this disk only. `none`: to the disk."),
    key(Section::Cvm, "overlay_size", false, Form::Bytes { min: 8 << 20, max: 1 << 50, multiple: 4096 }, "a number of bytes, a multiple of 4096, 8M or more, 1G by default",
        "How large the disk for changes is made. It takes room on the host, or memory, only for what is written."),
    key(Section::Cvm, "runtime", false, Form::Text, "a path",
        "The runtime image to load. Without it the monitor loads its default."),
    key(Section::Cvm, "args", true, Form::Words, "a text that is split into words as a shell does, or a list of words",
        "The program and its arguments. A program without a `/` is looked for in the `PATH` of its environment."),
    key(Section::Cvm, "env", false, Form::Words, "a text that is split into words as a shell does, or a list of words, each `NAME=VALUE`",
        "Variables of the program's environment, in addition to `PATH`, `HOME` and `TERM`, or instead of them."),
    key(Section::Cvm, "directory", false, Form::Text, "an absolute path in the cVM, `/` by default",
        "Where the program starts."),
    key(Section::Cvm, "user", false, Form::Text, "a name of the disk's `/etc/passwd` or a number, and `:` with a name of its `/etc/group` or a number if it is to be in that group only",
        "As whom the program runs. Without it: root."),
    key(Section::Cvm, "hostname", false, Form::Text, "1 to 64 letters, digits, `-` and `.`",
        "The name of the machine that programs see. Without it: that of the cVM, as far as it fits."),
    key(Section::Cvm, "net", false, Form::TextOr(Section::Net), "`none` (the default), `user`, `tap DEVICE`, `switch NAME`, or a mapping with `kind`",
        "Where the network interface `eth0` of the cVM leads. `user`: to where the host leads, without privileges, by the program `passt`. `tap DEVICE`: to a tap device of the host, which is there already. `switch NAME`: to the other cVMs of the file that name the same switch."),
    key(Section::Cvm, "wait", false, Form::Integer { min: -1, max: u32::MAX as i64 }, "a number of seconds, 0 (the default) or more, or -1",
        "How long to wait before the next cVM is started; -1: until this one has ended."),
    key(Section::Cvm, "clean_room", false, Form::Switch, "0 (the default) or 1",
        "1: the capabilities of the cVM lack the software-defined permissions."),
    key(Section::Cvm, "callback_in", false, Form::Text, "the name of another cVM of the file",
        "The inner cVM of a nested pair."),
    key(Section::Cvm, "callback_out", false, Form::Text, "the name of another cVM of the file, or `monitor` (the default)",
        "The outer cVM of a nested pair."),
    key(Section::Cvm, "isolation", false, Form::Mapping(Section::Isolation), "a mapping with `base` and `size`",
        "Where the cVM is mapped, and its bounds. The ranges of two cVMs do not overlap. Without it: where there is room, with 256M of memory or what `limits` say."),
    key(Section::Cvm, "restart", false, Form::OneOf(&["never", "on-failure", "always"]), "`never` (the default), `on-failure` or `always`",
        "When the cVM is started again after its end. `on-failure`: when it ended otherwise than by a program that exited with 0. Never after an operator ended it."),
    key(Section::Cvm, "restart_delay", false, Form::Integer { min: 0, max: 60 }, "a number of seconds from 0 to 60, 1 by default",
        "How long after its end it is started again. The delay doubles with each further time in a row, up to 60 seconds; 0 stays 0."),
    key(Section::Cvm, "stop_timeout", false, Form::Integer { min: 0, max: 86_400 }, "a number of seconds from 0 to 86400 (a day), 5 by default",
        "How long the cVM may take to power off when its power button is pressed. Then it is killed."),
    key(Section::Cvm, "portal_deadline", false, Form::Integer { min: 10, max: 60_000 }, "a number of milliseconds from 10 to 60000 (a minute), 1000 by default",
        "How long one of its portals may keep a sender. Then the sender gets `ETIMEDOUT`, and this cVM is ended."),
    key(Section::Cvm, "grants", false, Form::List(Section::Grant), "a list of grants, which may be empty",
        "Which keys the cVM may publish and use: those of any grant in the list. Without it: all."),
    key(Section::Cvm, "limits", false, Form::Mapping(Section::Limits), "a mapping",
        "How much the cVM may take."),
    key(Section::Isolation, "base", true, Form::Hex, "a hexadecimal number, a multiple of 0x1000, 0x10000 or more",
        "The first byte."),
    key(Section::Isolation, "size", true, Form::Hex, "a hexadecimal number, a multiple of 0x1000, 0x1000000 (16 MiB) or more",
        "How many bytes."),
    key(Section::Isolation, "begin", false, Form::Hex, "a hexadecimal number, a multiple of 0x1000, `base` (the default) or more, below `end`",
        "The first byte that the capabilities of the cVM allow."),
    key(Section::Isolation, "end", false, Form::Hex, "a hexadecimal number, a multiple of 0x1000, `base` + `size` (the default) or less, above `begin`",
        "The byte after the last that the capabilities of the cVM allow."),
    key(Section::Grant, "kind", false, Form::OneOf(&["stream", "file", "bell", "any"]), "`stream` (`/cap/chN`), `file` (`/cap/cfN`), `bell` (`/cap/cgN`) or `any` (the default)",
        "Of what the keys are."),
    key(Section::Grant, "keys", true, Form::Patterns, "a pattern or a list of patterns that keys of 1 to 10 bytes can match",
        "Which keys. In a pattern `*` stands for any bytes, also none, and `?` for one byte; all else stands for itself. A pattern that begins with `*` or `?` is written in quotes: `\"*\"`."),
    key(Section::Grant, "may", false, Form::OneOf(&["advertise", "probe", "both"]), "`advertise`, `probe` or `both` (the default)",
        "`advertise`: the cVM may publish under the keys. `probe`: it may use what is published under them. All else is refused with `EACCES`, whether somebody publishes under the key or not."),
    key(Section::Grant, "access", false, Form::OneOf(&["read-only", "read-write"]), "`read-only` or `read-write` (the default); not for a stream or a bell",
        "`read-only`: the cVM reads files of others and does not write them, and others read its files and do not write them, whatever the publisher allows. Where several grants fit, one that allows writing is enough."),
    key(Section::Limits, "memory", false, Form::Bytes { min: 4 << 20, max: 1 << 63, multiple: PAGE }, "a number of bytes, a multiple of 4096, 4M or more, at most `size` of `isolation` if there is one",
        "How much memory the kernel of the cVM manages, its programs included. The rest of the range stays untouched. Without it: all that the range has room for. Without `isolation`, the range is made for it."),
    key(Section::Limits, "messages", false, Form::Integer { min: 1, max: 10_000_000 }, "a number from 1 to 10000000",
        "How many messages it may send in a second, all its senders together. Those who send more wait. What was not sent is saved up, for a second."),
    key(Section::Limits, "bytes", false, Form::Bytes { min: 1, max: 1 << 50, multiple: 1 }, "a number of bytes, at least 1",
        "How many bytes of messages it may send in a second, as `messages`. A message that is longer than that is sent, and those after it wait the longer."),
    key(Section::Limits, "buffers", false, Form::Integer { min: 1, max: 65_536 }, "a number from 1 to 65536",
        "How many receive buffers its programs may have queued at a time, of all streams together. Registering more is `ENOBUFS`. Without it: 64 for each stream."),
    key(Section::Limits, "log_rate", false, Form::Bytes { min: 1024, max: 1 << 40, multiple: 1 }, "a number of bytes, 1K or more, 16M by default",
        "How many bytes of console output and kernel log it may write in a second, both together. A second's worth, 64K at least, is saved up. What is beyond that is dropped, and a line says how much."),
    key(Section::Limits, "streams", false, Form::Integer { min: 0, max: 65_536 }, "a number from 0 to 65536, 256 by default",
        "How many streams and bells it may publish at a time. One more is `EMFILE`."),
    key(Section::Limits, "files", false, Form::Integer { min: 0, max: 65_536 }, "a number from 0 to 65536, 256 by default",
        "How many ranges of memory it may publish at a time. One more is `EMFILE`."),
    key(Section::Limits, "handles", false, Form::Integer { min: 0, max: 65_536 }, "a number from 0 to 65536, 1024 by default",
        "How many nodes it may have connected to what is published, at a time. One more is `EMFILE`."),
    key(Section::Net, "kind", true, Form::Text, "`user`, `tap DEVICE`, `switch NAME` or `none`",
        "What `net` is without a mapping."),
    key(Section::Net, "ports", false, Form::Texts, "with `user`: `\"[ADDRESS:]PORT:PORT[/tcp|/udp]\"`, or a list of such",
        "Ports that are published: a port of the host, at all its addresses or at one, and behind it the port of the cVM; `tcp` by default. `\"127.0.0.1:8080:80\"`: who connects to port 8080 on the host gets to port 80 in the cVM."),
    key(Section::Net, "address", false, Form::Text, "`dhcp` (the default with `user`), `ADDRESS/BITS`, or `none` (the default otherwise); no `dhcp` with `switch`",
        "The address of `eth0`, IPv4. `dhcp` with `user`: the host's own, its gateway and its name servers. `dhcp` with `tap`: what a server on that network says; the kernel waits for it. `none`: the interface is up, and the rest is left to the programs."),
    key(Section::Net, "gateway", false, Form::Text, "with an `address`: another address of the same network",
        "Where everything is sent to that is not in the network. With `user` it stands for the host itself, and is the first address of the network, or the second, when it is not said."),
    key(Section::Net, "dns", false, Form::Texts, "an address or a list of 3 addresses at most",
        "Who is asked for names: `/etc/resolv.conf` in the cVM. With `user`: those of the host when it is not said."),
    key(Section::Net, "mac", false, Form::Text, "six bytes in hexadecimal with `:` between, such as `\"02:00:00:00:00:01\"`, of one interface",
        "The address of `eth0` in frames. Without it: one that is made up when the monitor starts."),
    key(Section::Capfile, "name", true, Form::Text, "1 to 10 bytes without a NUL",
        "The key under which the buffer is published. No two have the same."),
    key(Section::Capfile, "size", true, Form::Hex, "a hexadecimal number from 1 to 0x40000000 (1 GiB)",
        "How many bytes it has."),
    key(Section::Capfile, "data", false, Form::Text, "a text of at most `size` bytes",
        "What is in it at first. The rest is zero."),
];

impl Section {
    /// The keys that belong to it.
    pub fn keys(self) -> impl Iterator<Item = &'static KeyDescription> {
        KEYS.iter().filter(move |key| key.section == self)
    }

    /// The form of a key of it.
    pub(crate) fn form(self, name: &str) -> Form {
        self.keys()
            .find(|key| key.name == name)
            .map_or(Form::Text, |key| key.form)
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
it or not, in quotes or not: `0x20000000`, `20000000` and `\"20000000\"` are the same. A number of bytes is decimal, may have a `K`, `M` or `G`
behind it (1024 bytes, 1024 `K`, 1024 `M`), or is hexadecimal with `0x` before it: `64M`, `67108864` and `0x4000000` are the same. All
other numbers are decimal. Underscores between digits are ignored. A key that is not listed here is an error, and so is a key that is there twice. Anchors, aliases, tags and several
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
