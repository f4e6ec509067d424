// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be wrong with a file.

use std::fmt;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a file does not describe a deployment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}; name a YAML file that exists")]
    Read {
        /// The file's name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large.
    #[error("{file}: it has more than {limit} bytes; is it the right file?")]
    TooLarge {
        /// The file's name.
        file: String,
        /// The most bytes it may have.
        limit: u64,
    },
    /// It is not YAML, or uses more of YAML than is understood.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// There is no such key.
    #[error("{place}: unknown key `{key}` in {section}; {suggestion}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What it is a key of.
        section: &'static str,
        /// The key that was probably meant, or all there are.
        suggestion: String,
    },
    /// A key is there twice.
    #[error("{place}: the key `{key}` is already on line {first}; remove one of them")]
    DuplicateKey {
        /// Where it is the second time.
        place: Place,
        /// The key.
        key: String,
        /// The line where it is first.
        first: usize,
    },
    /// A key is missing.
    #[error("{place}: {section} needs the key `{key}`: {expected}")]
    MissingKey {
        /// Where the section begins.
        place: Place,
        /// What it is a key of.
        section: String,
        /// The key.
        key: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A value is not what the key takes.
    #[error("{place}: `{key}` is {found}; expected {expected}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What is there.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// Two of a kind have the same name.
    #[error(
        "{place}: `name` is `{name}`, which the one on line {first} has already; expected another name"
    )]
    DuplicateName {
        /// Where the second one is.
        place: Place,
        /// The name.
        name: String,
        /// The line where it is first.
        first: usize,
    },
    /// The ranges of two cVMs overlap.
    #[error(
        "{place}: `isolation` of `{name}` is [{base:#x}, {top:#x}), which overlaps [{other_base:#x}, {other_top:#x}) of `{other}` on line {other_line}; expected a range of its own"
    )]
    Overlap {
        /// Where.
        place: Place,
        /// The cVM.
        name: String,
        /// Its first byte.
        base: u64,
        /// The byte after its range.
        top: u64,
        /// The other cVM.
        other: String,
        /// Its first byte.
        other_base: u64,
        /// The byte after its range.
        other_top: u64,
        /// The line of its `isolation`.
        other_line: usize,
    },
}

impl ConfigError {
    /// The line it is about, counted from 1; `None` when it is about the file.
    pub fn line(&self) -> Option<usize> {
        match self {
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => None,
            ConfigError::Syntax { place, .. }
            | ConfigError::UnknownKey { place, .. }
            | ConfigError::DuplicateKey { place, .. }
            | ConfigError::MissingKey { place, .. }
            | ConfigError::Value { place, .. }
            | ConfigError::DuplicateName { place, .. }
            | ConfigError::Overlap { place, .. } => Some(place.line),
        }
    }
}
