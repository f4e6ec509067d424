// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which keys a cVM may publish and which it may use.

use std::fmt;

use capstream_abi::KEY_LEN;
use capstream_capability::Kind;

/// How a published range may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Read and written.
    #[default]
    ReadWrite,
}

/// What a grant is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Right {
    /// Publishing.
    Advertise,
    /// Using what others publish.
    Probe,
    /// Either.
    #[default]
    Both,
}

/// Some keys: `*` stands for any bytes, also none, `?` for one byte, every other byte for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern of this text; `None` when no key matches it.
    pub fn new(text: &str) -> Option<Pattern> {
        let least = text.bytes().filter(|&byte| byte != b'*').count();
        let possible = !text.is_empty() && least <= KEY_LEN && !text.contains('\0');
        possible.then(|| Pattern(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key, without its NUL, is one of them.
    pub fn matches(&self, key: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut done) = (0, 0);
        // Where to go on when the last `*` takes one byte more.
        let mut retry = None;
        while let Some(&byte) = key.get(done) {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, done));
                }
                Some(&wanted) if wanted == b'?' || wanted == byte => {
                    at += 1;
                    done += 1;
                }
                _ => match retry {
                    Some((behind, taken)) => {
                        (at, done) = (behind, taken + 1);
                        retry = Some((behind, taken + 1));
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(at).all(|&byte| byte == b'*')
    }

    /// Whether some key is one of both patterns.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let (one, two) = (self.0.as_bytes(), other.0.as_bytes());
        // `reachable[left]`: some text ends at `left` in one pattern and at the current place in the other.
        let closure = |reachable: &mut Vec<bool>| {
            for left in 0..one.len() {
                if reachable.get(left) == Some(&true)
                    && one.get(left) == Some(&b'*')
                    && let Some(next) = reachable.get_mut(left + 1)
                {
                    *next = true;
                }
            }
        };
        let mut reachable = vec![false; one.len() + 1];
        if let Some(first) = reachable.first_mut() {
            *first = true;
        }
        closure(&mut reachable);
        for &byte in two {
            let mut next = vec![false; one.len() + 1];
            for (left, _) in reachable.iter().enumerate().filter(|(_, is)| **is) {
                let here = one.get(left).copied();
                if byte == b'*' {
                    // It takes any number of bytes of the other pattern.
                    next.iter_mut().skip(left).for_each(|place| *place = true);
                } else if here == Some(b'*') {
                    next.iter_mut()
                        .skip(left)
                        .take(1)
                        .for_each(|place| *place = true);
                } else if here.is_some_and(|here| here == byte || here == b'?' || byte == b'?') {
                    next.iter_mut()
                        .skip(left + 1)
                        .take(1)
                        .for_each(|place| *place = true);
                }
            }
            closure(&mut next);
            reachable = next;
        }
        reachable.last() == Some(&true)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Some keys of some kinds, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Of which kind; `None` for every one.
    pub kind: Option<Kind>,
    /// Which keys; at least one pattern.
    pub keys: Vec<Pattern>,
    /// What may be done.
    pub may: Right,
    /// How files may be used: those of others by this cVM, its own by others.
    pub access: Access,
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
}

impl Grant {
    /// Whether it is about this right, or about both.
    pub(crate) fn is_for(&self, right: Right) -> bool {
        self.may == right || self.may == Right::Both
    }

    fn covers(&self, right: Right, kind: Kind, key: &[u8]) -> bool {
        self.is_for(right)
            && self.kind.is_none_or(|granted| granted == kind)
            && self.keys.iter().any(|pattern| pattern.matches(key))
    }
}

/// What a cVM may publish and use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grants {
    /// Everything.
    #[default]
    All,
    /// What one of these grants; nothing when there is none.
    Only(Vec<Grant>),
}

impl Grants {
    /// How the cVM may publish something under a key; `None` when it may not.
    pub fn advertise(&self, kind: Kind, key: &[u8]) -> Option<Access> {
        self.access(Right::Advertise, kind, key)
    }

    /// How the cVM may use what is published under a key; `None` when it may not.
    pub fn probe(&self, kind: Kind, key: &[u8]) -> Option<Access> {
        self.access(Right::Probe, kind, key)
    }

    fn access(&self, right: Right, kind: Kind, key: &[u8]) -> Option<Access> {
        match self {
            Grants::All => Some(Access::ReadWrite),
            Grants::Only(grants) => grants
                .iter()
                .filter(|grant| grant.covers(right, kind, key))
                .map(|grant| grant.access)
                .max(),
        }
    }
}
