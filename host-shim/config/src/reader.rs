// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the tree to a deployment, checking everything on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use capstream_abi::KEY_LEN;
use capstream_abi::boot::PAGE;
use capstream_capability::{Class, Kind};

use crate::deployment::{
    CapfileConfig, CvmConfig, DEFAULT_OVERLAY_SIZE, Deployment, Isolation, Overlay, RestartPolicy,
    Wait,
};
use crate::document::{Entry, Node, Value};
use crate::error::{ConfigError, Place};
use crate::grants::{Access, Grant, Grants, Pattern, Right};
use crate::keys::{Form, Section};
use crate::limits::Limits;
use crate::net::{self, Address, Link, NetConfig, PublishedPort};

/// Hosts map nothing below.
const MIN_BASE: u64 = 0x1_0000;
/// Holds a runtime image, the areas of the layout and a little memory.
const MIN_SIZE: u64 = 16 << 20;
/// No range includes the last page of the address space, so that the byte after it has an address.
const LAST_PAGE: u64 = u64::MAX - (PAGE - 1);
/// The largest buffer that the monitor publishes.
const MAX_CAPFILE: u64 = 1 << 30;
/// The name of the monitor where the name of a cVM is expected.
const MONITOR: &str = "monitor";

/// Reads the tree of one file.
pub(crate) struct Reader<'a> {
    pub(crate) file: &'a str,
    /// What relative paths are relative to.
    pub(crate) folder: &'a Path,
}

/// The entries of a mapping, all with known keys.
struct Fields<'a> {
    section: Section,
    /// What errors call this one.
    title: String,
    line: usize,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// The value of a key, and the line of the key; `None` when it is missing or empty.
    fn get(&self, key: &str) -> Option<Field<'a>> {
        self.present(key)
            .filter(|field| !matches!(field.node.value, Value::Null))
    }

    /// The same, empty or not.
    fn present(&self, key: &str) -> Option<Field<'a>> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| Field {
                section: self.section,
                key: entry.key.as_str(),
                node: &entry.value,
            })
    }
}

/// A key's value.
#[derive(Clone, Copy)]
struct Field<'a> {
    section: Section,
    key: &'a str,
    node: &'a Node,
}

/// A cVM's configuration, and where its parts are.
struct Located {
    cvm: CvmConfig,
    name: usize,
    isolation: usize,
    callback_in: usize,
    callback_out: usize,
}

impl Reader<'_> {
    fn place(&self, line: usize) -> Place {
        Place {
            file: self.file.to_owned(),
            line,
        }
    }

    fn value(&self, field: Field<'_>, expected: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            place: self.place(field.node.line),
            key: field.key.to_owned(),
            found: field.node.value.describe(),
            expected: expected.into(),
        }
    }

    /// The value is not what the table of keys says.
    fn unfit(&self, field: Field<'_>) -> ConfigError {
        self.value(field, field.section.value(field.key))
    }

    pub(crate) fn deployment(&self, root: &Node) -> Result<Deployment, ConfigError> {
        let fields = self.fields(root, Section::File, "the file")?;
        let mut cvms = Vec::new();
        let list = self.needed(&fields, "cVMs")?;
        for node in self.list(list)? {
            cvms.push(self.cvm(node)?);
        }
        if cvms.is_empty() {
            return Err(self.unfit(list));
        }
        self.names(&cvms)?;
        self.ranges(&cvms)?;
        self.callbacks(&cvms)?;
        self.ports(&cvms)?;

        let mut capfiles: Vec<(CapfileConfig, usize)> = Vec::new();
        if let Some(list) = fields.get("capfiles") {
            for node in self.list(list)? {
                let (capfile, line) = self.capfile(node)?;
                if let Some((_, first)) = capfiles
                    .iter()
                    .find(|(other, _)| other.name == capfile.name)
                {
                    return Err(ConfigError::DuplicateName {
                        place: self.place(line),
                        name: capfile.name,
                        first: *first,
                    });
                }
                capfiles.push((capfile, line));
            }
        }
        Ok(Deployment {
            cvms: cvms.into_iter().map(|located| located.cvm).collect(),
            capfiles: capfiles.into_iter().map(|(capfile, _)| capfile).collect(),
        })
    }

    /// No two cVMs have the same name.
    fn names(&self, cvms: &[Located]) -> Result<(), ConfigError> {
        for (index, located) in cvms.iter().enumerate() {
            let twin = cvms
                .iter()
                .take(index)
                .find(|other| other.cvm.name == located.cvm.name);
            if let Some(twin) = twin {
                return Err(ConfigError::DuplicateName {
                    place: self.place(located.name),
                    name: located.cvm.name.clone(),
                    first: twin.name,
                });
            }
        }
        Ok(())
    }

    /// No two ranges overlap.
    fn ranges(&self, cvms: &[Located]) -> Result<(), ConfigError> {
        for (index, located) in cvms.iter().enumerate() {
            let Some(range) = located.cvm.isolation else {
                continue;
            };
            for other in cvms.iter().take(index) {
                let Some(taken) = other.cvm.isolation else {
                    continue;
                };
                if range.base < taken.top() && taken.base < range.top() {
                    return Err(ConfigError::Overlap {
                        place: self.place(located.isolation),
                        name: located.cvm.name.clone(),
                        base: range.base,
                        top: range.top(),
                        other: other.cvm.name.clone(),
                        other_base: taken.base,
                        other_top: taken.top(),
                        other_line: other.isolation,
                    });
                }
            }
        }
        Ok(())
    }

    /// Nested pairs are of cVMs that there are.
    fn callbacks(&self, cvms: &[Located]) -> Result<(), ConfigError> {
        for located in cvms {
            let cvm = &located.cvm;
            let callbacks = [
                ("callback_in", &cvm.callback_in, located.callback_in),
                ("callback_out", &cvm.callback_out, located.callback_out),
            ];
            for (key, target, line) in callbacks {
                let Some(target) = target else { continue };
                let exists = cvms.iter().any(|other| other.cvm.name == *target);
                if !exists || *target == cvm.name {
                    return Err(ConfigError::Value {
                        place: self.place(line),
                        key: key.to_owned(),
                        found: format!("`{}`", target.escape_debug()),
                        expected: Section::Cvm.value(key).to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn cvm(&self, node: &Node) -> Result<Located, ConfigError> {
        let mut fields = self.fields(node, Section::Cvm, "a cVM")?;
        let name_field = self.needed(&fields, "name")?;
        let name = self.text(name_field)?;
        if name.is_empty() || name == MONITOR || name.chars().any(char::is_control) {
            return Err(self.unfit(name_field));
        }
        fields.title = format!("the cVM `{name}`");
        let line = |key| fields.get(key).map_or(fields.line, |field| field.node.line);
        let wait = match fields.get("wait") {
            None => Wait::None,
            Some(field) => self.wait(field)?,
        };
        let clean_room = match fields.get("clean_room") {
            None => false,
            Some(field) => match self.text(field)?.as_str() {
                "0" | "false" => false,
                "1" | "true" => true,
                _ => return Err(self.unfit(field)),
            },
        };
        let callback_out = self
            .word(&fields, "callback_out")?
            .filter(|target| target != MONITOR);
        let isolation = match fields.get("isolation") {
            None => None,
            Some(field) => Some(self.isolation(field, &fields.title)?),
        };
        let restart = match self.one_of(&fields, "restart")? {
            Some("on-failure") => RestartPolicy::OnFailure,
            Some("always") => RestartPolicy::Always,
            _ => RestartPolicy::Never,
        };
        let seconds = |key, default| {
            self.integer(&fields, key)
                .map(|seconds| Duration::from_secs(seconds.unwrap_or(default)))
        };
        let restart_delay = seconds("restart_delay", 1)?;
        let stop_timeout = seconds("stop_timeout", 5)?;
        let portal_deadline =
            Duration::from_millis(self.integer(&fields, "portal_deadline")?.unwrap_or(1000));
        // One that is there and empty is refused: it would be taken for nothing, or for everything.
        let grants = match fields.present("grants") {
            None => Grants::All,
            Some(field) => Grants::Only(self.grants(field, &fields.title)?),
        };
        let limits = match fields.get("limits") {
            None => Limits::default(),
            Some(field) => self.limits(field, &fields.title, isolation.as_ref())?,
        };
        let net = match fields.get("net") {
            None => None,
            Some(field) => self.net(field, &fields.title)?,
        };
        Ok(Located {
            name: name_field.node.line,
            isolation: line("isolation"),
            callback_in: line("callback_in"),
            callback_out: line("callback_out"),
            cvm: CvmConfig {
                name,
                overlay: self.overlay(&fields)?,
                overlay_size: self
                    .bytes(&fields, "overlay_size")?
                    .unwrap_or(DEFAULT_OVERLAY_SIZE),
                disk: self.path(&fields, "disk")?,
                runtime: self.path(&fields, "runtime")?,
                args: self.args(self.needed(&fields, "args")?)?,
                env: self.env(&fields)?,
                directory: self.checked(&fields, "directory", |path| path.starts_with('/'))?,
                user: self.checked(&fields, "user", is_user)?,
                hostname: self.checked(&fields, "hostname", is_hostname)?,
                net,
                wait,
                clean_room,
                callback_in: self.word(&fields, "callback_in")?,
                callback_out,
                isolation,
                restart,
                restart_delay,
                stop_timeout,
                portal_deadline,
                grants,
                limits,
                line: fields.line,
            },
        })
    }

    /// No two cVMs publish one port of the host, nor one cVM twice.
    fn ports(&self, cvms: &[Located]) -> Result<(), ConfigError> {
        let mut seen: Vec<(&PublishedPort, &str)> = Vec::new();
        for located in cvms {
            let Some(NetConfig {
                link: Link::User(ports),
                ..
            }) = &located.cvm.net
            else {
                continue;
            };
            for port in ports {
                if let Some((other, name)) = seen.iter().find(|(other, _)| other.collides(port)) {
                    return Err(ConfigError::Value {
                        place: self.place(port.line),
                        key: "ports".to_owned(),
                        found: format!(
                            "`{}`, and the cVM `{name}` publishes `{}` on line {}",
                            port.text, other.text, other.line
                        ),
                        expected: "another port of the host, or another of its addresses"
                            .to_owned(),
                    });
                }
                seen.push((port, &located.cvm.name));
            }
        }
        Ok(())
    }

    /// `net` of a cVM; `None` when there is to be none.
    fn net(&self, field: Field<'_>, cvm: &str) -> Result<Option<NetConfig>, ConfigError> {
        let line = field.node.line;
        if let Value::Scalar(_) = field.node.value {
            let link = self.link(field)?;
            return Ok(link.map(|link| NetConfig {
                address: default_address(&link),
                link,
                dns: Vec::new(),
                mac: None,
                line,
            }));
        }
        let Value::Mapping(_) = field.node.value else {
            return Err(self.unfit(field));
        };
        let fields = self.fields(field.node, Section::Net, &format!("`net` of {cvm}"))?;
        let Some(mut link) = self.link(self.needed(&fields, "kind")?)? else {
            return Ok(None);
        };
        if let Some(field) = fields.get("ports") {
            let Link::User(ports) = &mut link else {
                return Err(self.value(
                    field,
                    "no `ports` but with `kind: user`: elsewhere others reach the cVM by its own address",
                ));
            };
            for field in self.texts(field)? {
                let port = PublishedPort::parse(&self.text(field)?, field.node.line);
                ports.push(port.ok_or_else(|| self.unfit(field))?);
            }
        }
        let address = self.address(&fields, &link)?;
        let mut dns = Vec::new();
        if let Some(field) = fields.get("dns") {
            let texts = self.texts(field)?;
            // As many as the C library of a program looks at.
            if texts.len() > 3 {
                return Err(self.unfit(field));
            }
            for field in texts {
                dns.push(self.text(field)?.parse().map_err(|_| self.unfit(field))?);
            }
        }
        let mac = match fields.get("mac") {
            None => None,
            Some(field) => Some(net::mac(&self.text(field)?).ok_or_else(|| self.unfit(field))?),
        };
        Ok(Some(NetConfig {
            link,
            address,
            dns,
            mac,
            line,
        }))
    }

    fn link(&self, field: Field<'_>) -> Result<Option<Link>, ConfigError> {
        let text = self.text(field)?;
        let mut words = text.split_ascii_whitespace();
        let link = match (words.next(), words.next(), words.next()) {
            (Some("none"), None, _) => None,
            (Some("user"), None, _) => Some(Link::User(Vec::new())),
            (Some("tap"), Some(device), None) => Some(Link::Tap(device.to_owned())),
            (Some("switch"), Some(name), None) => Some(Link::Switch(name.to_owned())),
            _ => return Err(self.unfit(field)),
        };
        Ok(link)
    }

    fn address(&self, fields: &Fields<'_>, link: &Link) -> Result<Address, ConfigError> {
        let gateway = fields.get("gateway");
        let mut address = match fields.get("address") {
            None => default_address(link),
            Some(field) => match self.text(field)?.as_str() {
                "dhcp" if !matches!(link, Link::Switch(_)) => Address::Dhcp,
                "none" => Address::Unset,
                text => {
                    let (address, prefix) = net::address(text).ok_or_else(|| self.unfit(field))?;
                    Address::Static {
                        address,
                        prefix,
                        gateway: None,
                    }
                }
            },
        };
        let Some(field) = gateway else {
            if let (
                Link::User(_),
                Address::Static {
                    address,
                    prefix,
                    gateway,
                },
            ) = (link, &mut address)
            {
                *gateway = net::first_other(*address, *prefix);
            }
            return Ok(address);
        };
        let Address::Static {
            address: own,
            prefix,
            gateway,
        } = &mut address
        else {
            return Err(self.value(
                field,
                "no `gateway` without an `address: ADDRESS/BITS` that it belongs to",
            ));
        };
        let given = self.text(field)?.parse().ok();
        let given = given.filter(|&given| given != *own && net::is_of_host(given, *own, *prefix));
        *gateway = Some(given.ok_or_else(|| self.unfit(field))?);
        Ok(address)
    }

    /// A text, or the texts of a list.
    fn texts<'a>(&self, field: Field<'a>) -> Result<Vec<Field<'a>>, ConfigError> {
        match &field.node.value {
            Value::Scalar(_) => Ok(vec![field]),
            Value::List(nodes) => Ok(nodes.iter().map(|node| Field { node, ..field }).collect()),
            _ => Err(self.unfit(field)),
        }
    }

    /// An optional text that has to be of some form.
    fn checked(
        &self,
        fields: &Fields<'_>,
        key: &str,
        is_good: fn(&str) -> bool,
    ) -> Result<Option<String>, ConfigError> {
        let Some(field) = fields.get(key) else {
            return Ok(None);
        };
        let text = self.text(field)?;
        if !is_good(&text) || text.contains('\0') {
            return Err(self.unfit(field));
        }
        Ok(Some(text))
    }

    fn env(&self, fields: &Fields<'_>) -> Result<Vec<String>, ConfigError> {
        let Some(field) = fields.get("env") else {
            return Ok(Vec::new());
        };
        let variables = self.args(field)?;
        if !variables.iter().all(|variable| is_assignment(variable)) {
            return Err(self.unfit(field));
        }
        Ok(variables)
    }

    fn overlay(&self, fields: &Fields<'_>) -> Result<Overlay, ConfigError> {
        let Some(field) = fields.get("overlay") else {
            return Ok(Overlay::None);
        };
        let overlay = match self.text(field)?.as_str() {
            "none" => Overlay::None,
            "memory" => Overlay::Memory,
            _ => self
                .path(fields, "overlay")?
                .map_or(Overlay::None, Overlay::Disk),
        };
        if overlay != Overlay::None && fields.get("disk").is_none() {
            return Err(self.value(
                field,
                "a `disk` beside it: an overlay is for changes of one",
            ));
        }
        Ok(overlay)
    }

    fn wait(&self, field: Field<'_>) -> Result<Wait, ConfigError> {
        match self.text(field)?.parse::<i64>() {
            Ok(-1) => Ok(Wait::Join),
            Ok(0) => Ok(Wait::None),
            Ok(seconds) => u32::try_from(seconds)
                .map(Wait::Seconds)
                .map_err(|_| self.unfit(field)),
            Err(_) => Err(self.unfit(field)),
        }
    }

    fn grants(&self, field: Field<'_>, cvm: &str) -> Result<Vec<Grant>, ConfigError> {
        self.list(field)?
            .iter()
            .map(|node| self.grant(node, &format!("a grant of {cvm}")))
            .collect()
    }

    fn grant(&self, node: &Node, title: &str) -> Result<Grant, ConfigError> {
        let fields = self.fields(node, Section::Grant, title)?;
        let kind = match self.one_of(&fields, "kind")? {
            Some("stream") => Some(Kind::Portal(Class::STREAM)),
            Some("file") => Some(Kind::File),
            Some("bell") => Some(Kind::Portal(Class::BELL)),
            _ => None,
        };
        let may = match self.one_of(&fields, "may")? {
            Some("advertise") => Right::Advertise,
            Some("probe") => Right::Probe,
            _ => Right::Both,
        };
        let access = match self.one_of(&fields, "access")? {
            Some("read-only") => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        // A reader of the file would take it for a limit on messages.
        if let Some(field) = fields.get("access")
            && matches!(kind, Some(Kind::Portal(_)))
        {
            return Err(self.value(
                field,
                "no `access` in a grant for streams or bells: it is about files",
            ));
        }
        let keys_field = self.needed(&fields, "keys")?;
        let keys = match &keys_field.node.value {
            Value::List(nodes) if !nodes.is_empty() => nodes
                .iter()
                .map(|node| self.pattern(Field { node, ..keys_field }))
                .collect::<Result<_, _>>()?,
            Value::Scalar(_) => vec![self.pattern(keys_field)?],
            _ => return Err(self.unfit(keys_field)),
        };
        Ok(Grant {
            kind,
            keys,
            may,
            access,
            line: node.line,
        })
    }

    fn pattern(&self, field: Field<'_>) -> Result<Pattern, ConfigError> {
        Pattern::new(&self.text(field)?).ok_or_else(|| self.unfit(field))
    }

    fn limits(
        &self,
        field: Field<'_>,
        cvm: &str,
        isolation: Option<&Isolation>,
    ) -> Result<Limits, ConfigError> {
        let fields = self.fields(field.node, Section::Limits, &format!("`limits` of {cvm}"))?;
        let default = Limits::default();
        let count = |key| {
            self.integer(&fields, key)
                // The table has no greater maximum.
                .map(|count| count.and_then(|count| u32::try_from(count).ok()))
        };
        let memory = self.bytes(&fields, "memory")?;
        if let Some(field) = fields.get("memory")
            && let Some(isolation) = isolation
            && memory.is_some_and(|memory| memory > isolation.size)
        {
            return Err(self.unfit(field));
        }
        Ok(Limits {
            memory,
            messages: self.integer(&fields, "messages")?,
            bytes: self.bytes(&fields, "bytes")?,
            buffers: count("buffers")?,
            log_rate: self.bytes(&fields, "log_rate")?.unwrap_or(default.log_rate),
            streams: count("streams")?.unwrap_or(default.streams),
            files: count("files")?.unwrap_or(default.files),
            handles: count("handles")?.unwrap_or(default.handles),
        })
    }

    fn isolation(&self, field: Field<'_>, cvm: &str) -> Result<Isolation, ConfigError> {
        let title = format!("`isolation` of {cvm}");
        let fields = self.fields(field.node, Section::Isolation, &title)?;
        let base_field = self.needed(&fields, "base")?;
        let size_field = self.needed(&fields, "size")?;
        let base = self.page(base_field)?;
        let size = self.page(size_field)?;
        if base < MIN_BASE {
            return Err(self.unfit(base_field));
        }
        if size < MIN_SIZE {
            return Err(self.unfit(size_field));
        }
        let most = LAST_PAGE.saturating_sub(base);
        if size > most {
            return Err(self.value(
                size_field,
                format!("at most {most:#x}, so that the range ends below 2^64"),
            ));
        }
        let top = base + size;
        let bound = |key: &str| {
            fields
                .get(key)
                .map(|field| self.page(field).map(|address| (field, address)))
                .transpose()
        };
        let begin = bound("begin")?;
        let end = bound("end")?;
        let first = begin.map_or(base, |(_, address)| address);
        let last = end.map_or(top, |(_, address)| address);
        if let Some((field, address)) = begin
            && (address < base || address >= last.min(top))
        {
            return Err(self.value(
                field,
                format!("an address from {base:#x} on, below {:#x}", last.min(top)),
            ));
        }
        if let Some((field, address)) = end
            && (address > top || address <= first)
        {
            return Err(self.value(
                field,
                format!("an address above {first:#x}, {top:#x} at most"),
            ));
        }
        Ok(Isolation {
            base,
            size,
            begin: begin.map(|(_, address)| address),
            end: end.map(|(_, address)| address),
        })
    }

    fn capfile(&self, node: &Node) -> Result<(CapfileConfig, usize), ConfigError> {
        let mut fields = self.fields(node, Section::Capfile, "a capfile")?;
        let name_field = self.needed(&fields, "name")?;
        let name = self.text(name_field)?;
        if name.is_empty() || name.len() > KEY_LEN || name.contains('\0') {
            return Err(self.unfit(name_field));
        }
        fields.title = format!("the capfile `{}`", name.escape_debug());
        let size_field = self.needed(&fields, "size")?;
        let size = self.hex(size_field)?;
        if size == 0 || size > MAX_CAPFILE {
            return Err(self.unfit(size_field));
        }
        let mut data = Vec::new();
        if let Some(field) = fields.get("data") {
            data = self.text(field)?.into_bytes();
            if data.len() as u64 > size {
                return Err(ConfigError::Value {
                    place: self.place(field.node.line),
                    key: field.key.to_owned(),
                    found: format!("{:#x} bytes long", data.len()),
                    expected: format!("at most {size:#x} bytes, the capfile's `size`"),
                });
            }
        }
        let capfile = CapfileConfig {
            name,
            size,
            data,
            line: fields.line,
        };
        Ok((capfile, name_field.node.line))
    }

    /// The entries of a mapping whose keys are all known.
    fn fields<'a>(
        &self,
        node: &'a Node,
        section: Section,
        title: &str,
    ) -> Result<Fields<'a>, ConfigError> {
        let entries = match &node.value {
            Value::Mapping(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                let names: Vec<_> = section.keys().map(|key| key.name).collect();
                return Err(ConfigError::Syntax {
                    place: self.place(node.line),
                    message: format!(
                        "{title} is {}; expected a mapping with the keys {}",
                        other.describe(),
                        names.join(", ")
                    ),
                });
            }
        };
        for entry in entries {
            if !section.keys().any(|key| key.name == entry.key) {
                return Err(ConfigError::UnknownKey {
                    place: self.place(entry.line),
                    key: entry.key.escape_debug().to_string(),
                    section: section.name(),
                    suggestion: section.suggest(&entry.key),
                });
            }
        }
        Ok(Fields {
            section,
            title: title.to_owned(),
            line: node.line,
            entries,
        })
    }

    fn needed<'a>(&self, fields: &Fields<'a>, key: &'static str) -> Result<Field<'a>, ConfigError> {
        fields.get(key).ok_or_else(|| ConfigError::MissingKey {
            place: self.place(fields.line),
            section: fields.title.clone(),
            key,
            expected: fields.section.value(key),
        })
    }

    fn list<'a>(&self, field: Field<'a>) -> Result<&'a [Node], ConfigError> {
        match &field.node.value {
            Value::List(nodes) => Ok(nodes),
            _ => Err(self.unfit(field)),
        }
    }

    fn text(&self, field: Field<'_>) -> Result<String, ConfigError> {
        match &field.node.value {
            Value::Scalar(text) => Ok(text.clone()),
            _ => Err(self.unfit(field)),
        }
    }

    /// An optional text that is not empty and that the host can be given.
    fn word(&self, fields: &Fields<'_>, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(field) = fields.get(key) else {
            return Ok(None);
        };
        let text = self.text(field)?;
        if text.is_empty() || text.contains('\0') {
            return Err(self.unfit(field));
        }
        Ok(Some(text))
    }

    fn path(&self, fields: &Fields<'_>, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.word(fields, key)?.map(|path| self.folder.join(path)))
    }

    fn args(&self, field: Field<'_>) -> Result<Vec<String>, ConfigError> {
        let words = match &field.node.value {
            Value::Scalar(text) => shlex::split(text).ok_or_else(|| {
                self.value(field, "a text whose quotes are closed, or a list of words")
            })?,
            Value::List(nodes) => {
                let words = nodes.iter().map(|node| {
                    let key = field.key;
                    match &node.value {
                        Value::Scalar(text) => Ok(text.clone()),
                        _ => Err(self.unfit(Field {
                            section: field.section,
                            key,
                            node,
                        })),
                    }
                });
                words.collect::<Result<Vec<_>, _>>()?
            }
            _ => return Err(self.unfit(field)),
        };
        let program = words.first().is_some_and(|word| !word.is_empty());
        if !program || words.iter().any(|word| word.contains('\0')) {
            return Err(self.value(field, "a program and its arguments, without NUL bytes"));
        }
        Ok(words)
    }

    /// A hexadecimal number, with `0x` or without.
    fn hex(&self, field: Field<'_>) -> Result<u64, ConfigError> {
        let text = self.text(field)?;
        let digits = text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .unwrap_or(&text);
        let digits: String = digits.chars().filter(|&digit| digit != '_').collect();
        // The conversion itself would take a sign.
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(self.unfit(field));
        }
        u64::from_str_radix(&digits, 16).map_err(|_| self.unfit(field))
    }

    /// An optional decimal number that is not negative, in the bounds of the table.
    fn integer(&self, fields: &Fields<'_>, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(field) = fields.get(key) else {
            return Ok(None);
        };
        let text = self.text(field)?;
        let number = decimal(&text).filter(|&number| match field.section.form(key) {
            Form::Integer { min, max } => {
                i64::try_from(number).is_ok_and(|number| (min..=max).contains(&number))
            }
            _ => false,
        });
        number.map(Some).ok_or_else(|| self.unfit(field))
    }

    /// An optional number of bytes, in the bounds of the table.
    fn bytes(&self, fields: &Fields<'_>, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(field) = fields.get(key) else {
            return Ok(None);
        };
        let text = self.text(field)?;
        let number = if text.starts_with("0x") || text.starts_with("0X") {
            Some(self.hex(field)?)
        } else {
            parse_bytes(&text)
        };
        let number = number.filter(|&number| match field.section.form(key) {
            Form::Bytes { min, max, multiple } => {
                (min..=max).contains(&number) && number.is_multiple_of(multiple)
            }
            _ => false,
        });
        number.map(Some).ok_or_else(|| self.unfit(field))
    }

    /// An optional word out of those of the table.
    fn one_of(&self, fields: &Fields<'_>, key: &str) -> Result<Option<&'static str>, ConfigError> {
        let Some(field) = fields.get(key) else {
            return Ok(None);
        };
        let text = self.text(field)?;
        let words = match field.section.form(key) {
            Form::OneOf(words) => words,
            _ => &[],
        };
        let word = words.iter().copied().find(|&word| word == text);
        word.map(Some).ok_or_else(|| self.unfit(field))
    }

    fn page(&self, field: Field<'_>) -> Result<u64, ConfigError> {
        let address = self.hex(field)?;
        if !address.is_multiple_of(PAGE) {
            return Err(self.unfit(field));
        }
        Ok(address)
    }
}

/// How an interface gets its address when nothing is said.
fn default_address(link: &Link) -> Address {
    match link {
        Link::User(_) => Address::Dhcp,
        Link::Tap(_) | Link::Switch(_) => Address::Unset,
    }
}

/// A number of bytes: decimal, `K`, `M` or `G` may be behind it.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1),
    };
    digits.and_then(decimal)?.checked_mul(unit)
}

/// Whether a text is `NAME=VALUE`, as a program's environment has it.
pub fn is_assignment(text: &str) -> bool {
    text.find('=').is_some_and(|at| at > 0) && !text.contains('\0')
}

/// Whether a text can be the name of a machine.
pub fn is_hostname(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(known)
}

/// Whether a text can name a user, and behind a `:` a group.
pub fn is_user(text: &str) -> bool {
    let mut parts = text.splitn(2, ':');
    parts.next().is_some_and(|user| !user.is_empty())
        && parts
            .next()
            .is_none_or(|group| !group.is_empty() && !group.contains(':'))
        && !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

/// A decimal number without a sign; underscores are ignored.
fn decimal(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(|&digit| digit != '_').collect();
    // The conversion itself would take a sign.
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}
