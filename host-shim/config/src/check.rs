// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a file that can be read may still have wrong: files that are not there, and rights that nobody can use.

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use capstream_capability::Kind;

use crate::grants::{Grant, Grants, Pattern, Right};
use crate::{CvmConfig, Deployment, Overlay, RestartPolicy, Wait};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It will not do what it says.
    Warning,
    /// A cVM will not start.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Something that is wrong, or looks so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The line of the file, counted from 1: of the cVM, the capfile or the grant.
    pub line: usize,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.severity, self.message)
    }
}

impl Deployment {
    /// Looks for what is wrong beyond the form of the file, as of now: files may come and go until cVMs start. In the order of lines.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for cvm in &self.cvms {
            files(cvm, &mut findings);
            lives(cvm, &mut findings);
            self.rights(cvm, &mut findings);
        }
        self.disks(&mut findings);
        for capfile in &self.capfiles {
            let key = capfile.name.as_bytes();
            if !self
                .cvms
                .iter()
                .any(|cvm| cvm.grants.probe(Kind::File, key).is_some())
            {
                findings.push(Finding {
                    severity: Severity::Warning,
                    line: capfile.line,
                    message: format!(
                        "no cVM may use the capfile `{}`; grant it to one, or remove it",
                        capfile.name.escape_debug()
                    ),
                });
            }
        }
        findings.sort_by_key(|finding| finding.line);
        findings
    }

    /// No two cVMs write to one disk, or one of them while another reads it, at the same time.
    fn disks(&self, findings: &mut Vec<Finding>) {
        let mut earlier: Vec<(Identity, bool, &CvmConfig)> = Vec::new();
        for cvm in &self.cvms {
            let writable = cvm.overlay == Overlay::None;
            let overlay = match &cvm.overlay {
                Overlay::Disk(path) => identity(path),
                Overlay::None | Overlay::Memory => None,
            };
            let disks = [
                ("disk", cvm.disk.as_deref().and_then(identity), writable),
                ("overlay", overlay, true),
            ];
            for (key, disk, writable) in disks {
                let Some(disk) = disk else { continue };
                let other = earlier.iter().find(|(taken, written, other)| {
                    *taken == disk && (writable || *written) && !has_ended(other)
                });
                if let Some((_, _, other)) = other {
                    let advice = if key == "disk" {
                        "give each a copy of its own, or each an `overlay`"
                    } else {
                        "give each one of its own"
                    };
                    findings.push(Finding {
                        severity: Severity::Error,
                        line: cvm.line,
                        message: format!(
                            "the {key} of the cVM `{}` is that of `{}` on line {}, which may still run; {advice}",
                            cvm.name, other.name, other.line
                        ),
                    });
                }
                earlier.push((disk, writable, cvm));
            }
        }
    }

    /// Whether some cVM of the file may do this with a key of these.
    fn anybody(&self, right: Right, kind: Option<Kind>, keys: &Pattern) -> bool {
        self.cvms.iter().any(|cvm| match &cvm.grants {
            Grants::All => true,
            Grants::Only(grants) => grants.iter().any(|grant| {
                grant.is_for(right)
                    && (grant.kind.is_none() || kind.is_none() || grant.kind == kind)
                    && grant.keys.iter().any(|granted| granted.overlaps(keys))
            }),
        })
    }

    /// What one may use somebody may publish, and the other way round.
    fn rights(&self, cvm: &CvmConfig, findings: &mut Vec<Finding>) {
        let Grants::Only(grants) = &cvm.grants else {
            return;
        };
        let mut useless = |grant: &Grant, keys: &Pattern, what: &str, nobody: &str| {
            let kind = grant
                .kind
                .map_or("a key".to_owned(), |kind| format!("a {kind}"));
            findings.push(Finding {
                severity: Severity::Warning,
                line: grant.line,
                message: format!(
                    "the cVM `{}` may {what} {kind} `{keys}`, and {nobody}; grant that to a cVM too, or remove it",
                    cvm.name
                ),
            });
        };
        for grant in grants {
            for keys in &grant.keys {
                // A grant for both lets the cVM do both with itself.
                match grant.may {
                    Right::Both => {}
                    Right::Probe => {
                        let is_file = grant.kind.is_none_or(|kind| kind == Kind::File);
                        let capfile = is_file
                            && self
                                .capfiles
                                .iter()
                                .any(|capfile| keys.matches(capfile.name.as_bytes()));
                        if !capfile && !self.anybody(Right::Advertise, grant.kind, keys) {
                            useless(grant, keys, "use", "nobody may publish one");
                        }
                    }
                    Right::Advertise => {
                        if !self.anybody(Right::Probe, grant.kind, keys) {
                            useless(grant, keys, "publish", "nobody may use one");
                        }
                    }
                }
            }
        }
    }
}

/// A file, whatever it is called.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether the cVM is over when the next one starts.
fn has_ended(cvm: &CvmConfig) -> bool {
    cvm.wait == Wait::Join && cvm.restart == RestartPolicy::Never
}

/// The files of a cVM are there.
fn files(cvm: &CvmConfig, findings: &mut Vec<Finding>) {
    let mut look = |key: &str, path: &Path, write: bool| {
        let opened = OpenOptions::new().read(true).write(write).open(path);
        let why = match opened.and_then(|file| file.metadata()) {
            Ok(metadata) => unusable(&metadata).map(str::to_owned),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            let access = if write { "read and written" } else { "read" };
            findings.push(Finding {
                severity: Severity::Error,
                line: cvm.line,
                message: format!(
                    "the {key} {} of the cVM `{}` cannot be {access}: {why}",
                    path.display(),
                    cvm.name
                ),
            });
        }
    };
    if let Some(disk) = &cvm.disk {
        look("disk", disk, cvm.overlay == Overlay::None);
    }
    if let Overlay::Disk(overlay) = &cvm.overlay
        && overlay.exists()
    {
        look("overlay", overlay, true);
    }
    if let Some(runtime) = &cvm.runtime {
        look("runtime", runtime, false);
    }
}

fn unusable(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_dir() {
        Some("it is a folder")
    } else if metadata.is_file() && metadata.len() == 0 {
        Some("it is empty")
    } else {
        None
    }
}

/// How it is started and ended makes sense, and every key has an effect.
fn lives(cvm: &CvmConfig, findings: &mut Vec<Finding>) {
    let mut warn = |message: String| {
        findings.push(Finding {
            severity: Severity::Warning,
            line: cvm.line,
            message,
        });
    };
    if cvm.wait == Wait::Join && cvm.restart == RestartPolicy::Always {
        warn(format!(
            "`wait` of the cVM `{}` is for its end, and `restart: always` starts it again: the cVMs after it wait until an operator ends it",
            cvm.name
        ));
    }
    for (key, set) in [
        ("callback_in", cvm.callback_in.is_some()),
        ("callback_out", cvm.callback_out.is_some()),
    ] {
        if set {
            warn(format!(
                "this monitor does nothing with `{key}` of the cVM `{}`",
                cvm.name
            ));
        }
    }
}
