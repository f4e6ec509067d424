// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one cVM may publish and use: the only place where its grants are asked.
//!
//! A refusal comes before anybody looks whether the key exists, so it tells nothing about others. It is logged the first time for each
//! kind, key and direction; how many of them are remembered has a limit, as a cVM chooses its keys.

use std::cell::RefCell;
use std::collections::BTreeSet;

use capstream_capability::{Key, Kind};
use capstream_config::{Access, Grants};

/// How many refusals are logged.
const LOGGED: usize = 64;

/// What a cVM wants to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Advertise,
    Probe,
}

/// It may not: `EACCES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The grants of one cVM, and what it was refused.
#[derive(Debug)]
pub struct CvmGrants {
    cvm: String,
    grants: Grants,
    /// Those that were logged.
    refusals: RefCell<BTreeSet<(Act, Kind, Key)>>,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    /// It is logged.
    Logged,
    /// The same, and it is the last one.
    Last,
    /// It is not.
    Silent,
}

impl CvmGrants {
    /// For the cVM with this name.
    pub fn new(cvm: &str, grants: &Grants) -> CvmGrants {
        CvmGrants {
            cvm: cvm.to_owned(),
            grants: grants.clone(),
            refusals: RefCell::default(),
        }
    }

    /// Whether it may publish under a key, and how others may use that.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn advertise(&self, kind: Kind, key: Key) -> Result<Access, Refused> {
        let access = self.grants.advertise(kind, key.as_bytes());
        access.ok_or_else(|| self.refuse(Act::Advertise, kind, key))
    }

    /// Whether it may use what is published under a key, and how.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn probe(&self, kind: Kind, key: Key) -> Result<Access, Refused> {
        let access = self.grants.probe(kind, key.as_bytes());
        access.ok_or_else(|| self.refuse(Act::Probe, kind, key))
    }

    #[cold]
    fn refuse(&self, act: Act, kind: Kind, key: Key) -> Refused {
        let note = self.note(act, kind, key);
        if note != Note::Silent {
            let what = match act {
                Act::Advertise => "publish",
                Act::Probe => "use",
            };
            tracing::warn!(
                cvm = self.cvm,
                "refused: its `grants` do not let it {what} the {kind} `{key}`"
            );
        }
        if note == Note::Last {
            tracing::warn!(
                cvm = self.cvm,
                "refused {LOGGED} different keys; further ones are not logged"
            );
        }
        Refused
    }

    fn note(&self, act: Act, kind: Kind, key: Key) -> Note {
        let mut refusals = self.refusals.borrow_mut();
        if refusals.len() >= LOGGED || !refusals.insert((act, kind, key)) {
            return Note::Silent;
        }
        if refusals.len() == LOGGED {
            Note::Last
        } else {
            Note::Logged
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstream_capability::Class;

    #[test]
    fn each_refusal_is_logged_once_and_not_without_end() {
        let grants = CvmGrants::new("a", &Grants::Only(Vec::new()));
        let key = |number: u32| Key::from_name(&number.to_string()).unwrap();
        let stream = Kind::Portal(Class::STREAM);
        assert_eq!(grants.probe(stream, key(0)), Err(Refused));
        assert_eq!(grants.note(Act::Probe, stream, key(0)), Note::Silent);
        assert_eq!(grants.note(Act::Advertise, stream, key(0)), Note::Logged);
        assert_eq!(grants.note(Act::Probe, Kind::File, key(0)), Note::Logged);
        let notes: Vec<Note> = (1..100_000)
            .map(|number| grants.note(Act::Probe, Kind::File, key(number)))
            .collect();
        assert_eq!(notes.iter().filter(|&&note| note == Note::Last).count(), 1);
        assert_eq!(
            notes.iter().filter(|&&note| note != Note::Silent).count(),
            LOGGED - 3
        );
        assert_eq!(grants.refusals.borrow().len(), LOGGED);
    }

    #[test]
    fn without_grants_everything_is_allowed() {
        let grants = CvmGrants::new("a", &Grants::All);
        let key = Key::from_name("k").unwrap();
        assert_eq!(grants.probe(Kind::File, key), Ok(Access::ReadWrite));
        assert_eq!(grants.advertise(Kind::File, key), Ok(Access::ReadWrite));
    }
}
