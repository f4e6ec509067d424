// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Something that a cVM published, as its users see it.

use std::sync::Mutex as StdMutex;
use std::sync::PoisonError;

use crate::{Armed, ArmedSet, InFlight, Key, Kind, LastOut, Owner, Revocation};

/// Something published under a key: what it is (`P`), whose it is, who uses it and who waits for it.
///
/// It lives until the last handle to it is given back, however long ago it was revoked: `P` should not keep
/// a cVM's memory alive.
#[derive(Debug)]
pub struct Endpoint<P> {
    revocation: Revocation,
    payload: P,
    armed: ArmedSet,
    kind: Kind,
    key: Key,
    owner: Owner,
    id: u64,
    /// Who has handles to it, one entry for each handle.
    peers: StdMutex<Vec<Owner>>,
}

impl<P> Endpoint<P> {
    pub(crate) fn new(kind: Kind, key: Key, owner: Owner, id: u64, payload: P) -> Endpoint<P> {
        Endpoint {
            revocation: Revocation::new(),
            payload,
            armed: ArmedSet::new(),
            kind,
            key,
            owner,
            id,
            peers: StdMutex::new(Vec::new()),
        }
    }

    /// What was published.
    #[inline]
    pub fn payload(&self) -> &P {
        &self.payload
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key it was published under.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Who published it.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Its number in the table of its owner.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Begins a use that lasts until the guard is dropped; `None` once it is revoked. One atomic operation in, one out.
    #[inline]
    pub fn enter(&self) -> Option<InFlight<'_>> {
        self.revocation.enter()
    }

    /// As [`Endpoint::enter`], for code that cannot tell those who wait for a revocation where it stands; see [`Revocation::enter_bare`].
    #[inline]
    pub fn enter_bare(&self) -> Result<InFlight<'_>, Option<LastOut<'_>>> {
        self.revocation.enter_bare()
    }

    /// Whether it was taken back.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.revocation.is_revoked()
    }

    /// How many uses are under way.
    pub fn in_flight(&self) -> u64 {
        self.revocation.in_flight()
    }

    /// Asks that the next [`Endpoint::take_armed`] returns `owner`; it looks at its condition once more afterwards.
    #[inline]
    pub fn arm(&self, owner: Owner) {
        self.armed.arm(owner.index());
    }

    /// Takes those who asked, as indices of cVMs; `None` when there is none, found out by one atomic operation.
    ///
    /// A cVM that ended in between may be among them, so an index may by then belong to another cVM: one needless wake-up.
    #[inline]
    pub fn take_armed(&self) -> Option<Armed> {
        self.armed.take()
    }

    /// Who has handles to it, each once.
    pub fn peers(&self) -> Vec<Owner> {
        let mut peers = self
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    pub(crate) fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    pub(crate) fn add_peer(&self, owner: Owner) {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(owner);
    }

    /// Takes one handle of `owner` off the list; with its last one it stops waiting.
    pub(crate) fn remove_peer(&self, owner: Owner) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = peers.iter().position(|&peer| peer == owner) {
            peers.swap_remove(place);
        }
        if !peers.contains(&owner) {
            self.armed.disarm(owner.index());
        }
    }
}
