// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all cVMs of a monitor share: the registry of what they publish, and how to interrupt each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_capability::{
    Handles, Key, Kind, Limits, MAX_CVMS, Owner, Publication, Registry, RegistryError, Revoked,
    Table,
};

use crate::lines::Lines;
use crate::platform::VcpuLine;
use crate::receiver::Receiver;
use crate::traffic::{FileTraffic, StreamTraffic};
use crate::watchdog::Watchdog;

/// What a cVM publishes as a stream.
pub struct Stream {
    /// The portal.
    pub portal: capstream_capability::Portal,
    /// Whose it is.
    pub receiver: Arc<Receiver>,
    /// What went into it.
    pub traffic: StreamTraffic,
}

/// What a cVM, or the monitor, publishes as a range.
pub struct File {
    /// The range.
    pub publication: Publication,
    /// What went into and out of it.
    pub traffic: FileTraffic,
}

impl From<Publication> for File {
    fn from(publication: Publication) -> File {
        File {
            publication,
            traffic: FileTraffic::default(),
        }
    }
}

/// The registry with what cVMs publish.
pub type CvmRegistry = Registry<Stream, File>;
/// A cVM's numbers.
pub type CvmTable = Table<Stream, File>;
/// A vCPU's view of them.
pub type CvmHandles = Handles<Stream, File>;

/// How the monitor is called where cVMs have names.
const MONITOR: &str = "monitor";

/// How long uses of something that an ended cVM published may take before portals among them are abandoned.
const GRACE: Duration = Duration::from_millis(200);
/// The same for something that its owner takes back and whose portal is in the middle of the owner's data.
const GRACE_OF_LIVING: Duration = Duration::from_secs(5);
/// How long is waited in all.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked.
const STEP: Duration = Duration::from_millis(20);

/// What all cVMs share.
pub struct Exchange {
    registry: CvmRegistry,
    lines: Lines,
    watchdog: Watchdog,
    /// How many streams were ever advertised.
    streams: AtomicU64,
    /// Of the cVMs, by their numbers.
    names: Mutex<BTreeMap<u64, String>>,
}

impl Default for Exchange {
    fn default() -> Self {
        Exchange::new()
    }
}

impl Exchange {
    /// Nothing is published yet.
    pub fn new() -> Exchange {
        Exchange {
            registry: Registry::new(Limits::default()),
            lines: Lines::new(),
            watchdog: Watchdog::default(),
            streams: AtomicU64::new(0),
            names: Mutex::default(),
        }
    }

    /// The registry.
    #[inline]
    pub fn registry(&self) -> &CvmRegistry {
        &self.registry
    }

    /// Who looks after senders in portals.
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Begins the life of a cVM, with the lowest index that is free.
    ///
    /// # Errors
    ///
    /// [`RegistryError::IndexTooLarge`]: there are as many cVMs as there can be.
    pub fn register(&self, limits: Limits) -> Result<Arc<CvmTable>, RegistryError> {
        for index in 0..MAX_CVMS {
            match self.registry.register_with(index, limits) {
                Err(RegistryError::IndexTaken { .. }) => {}
                done => return done,
            }
        }
        Err(RegistryError::IndexTooLarge { index: MAX_CVMS })
    }

    /// Says how to interrupt a cVM.
    pub fn set_line(&self, owner: Owner, line: Arc<dyn VcpuLine>) {
        self.lines.set(owner.index(), line);
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a cVM is called, until it is taken back.
    pub fn set_name(&self, owner: Owner, name: &str) {
        self.names().insert(owner.generation(), name.to_owned());
    }

    /// How a cVM is called; that of one which has ended is its number.
    pub fn name(&self, owner: Owner) -> String {
        if owner == Owner::MONITOR {
            return MONITOR.to_owned();
        }
        let name = self.names().get(&owner.generation()).cloned();
        name.unwrap_or_else(|| owner.to_string())
    }

    /// The number of the next stream, for the log.
    pub fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the cVM with this index that something happened to endpoints, peers or keys. Works without thread state.
    #[inline]
    pub fn notify(&self, index: u16) {
        self.lines.raise(index, irq::CAPABILITY);
    }

    /// As [`Exchange::notify`], for each of them.
    pub fn notify_all(&self, owners: impl IntoIterator<Item = Owner>) {
        for owner in owners {
            self.notify(owner.index());
        }
    }

    /// Takes something of `receiver`'s back and tells its users. Uses that do not end are waited for; senders in a portal of its that does not
    /// return are taken out of it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAnObject`], [`RegistryError::StillInUse`].
    pub fn revoke(
        &self,
        table: &CvmTable,
        id: u64,
        receiver: &Receiver,
    ) -> Result<(), RegistryError> {
        let peers = self.until_drained(receiver.number(), GRACE_OF_LIVING, |timeout| {
            self.registry.revoke(table, id, timeout)
        })?;
        self.notify_all(peers);
        Ok(())
    }

    /// Takes back what is published under a key, as an operator wants it, and tells its users and its owner. Otherwise as [`Exchange::revoke`].
    /// Who it belonged to may publish under the key again.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoSuchKey`], [`RegistryError::StillInUse`].
    pub fn revoke_key(&self, kind: Kind, key: Key) -> Result<Owner, RegistryError> {
        let published = self.registry.objects();
        let owner = published
            .iter()
            .find(|object| object.kind == kind && object.key == key)
            .ok_or(RegistryError::NoSuchKey { key, kind })?
            .owner;
        let Revoked { owner, peers } =
            self.until_drained(owner.generation(), GRACE_OF_LIVING, |timeout| {
                self.registry.revoke_key(kind, key, timeout)
            })?;
        self.notify_all(peers);
        self.notify(owner.index());
        Ok(owner)
    }

    /// Takes back the number of a cVM that was not started after all, which published nothing.
    ///
    /// # Errors
    ///
    /// As [`Exchange::revoke_all`].
    pub fn unregister(&self, table: &CvmTable) -> Result<(), RegistryError> {
        self.lines.clear(table.owner().index());
        self.names().remove(&table.owner().generation());
        self.registry.revoke_owner(table, Duration::ZERO)?;
        Ok(())
    }

    /// Takes back all that an ended cVM published and tells its users. When this returns without an error, nobody touches its
    /// memory any more, and its index is free.
    ///
    /// # Errors
    ///
    /// [`RegistryError::StillInUse`]: then its memory has to stay.
    pub fn revoke_all(&self, table: &CvmTable, receiver: &Receiver) -> Result<(), RegistryError> {
        // Before the index is free: the next one to have it sets a line of its own.
        self.lines.clear(table.owner().index());
        let peers = self.until_drained(receiver.number(), GRACE, |timeout| {
            self.registry.revoke_owner(table, timeout)
        })?;
        self.watchdog.forget(receiver.number());
        self.names().remove(&table.owner().generation());
        self.notify_all(peers);
        Ok(())
    }

    fn until_drained<T>(
        &self,
        owner: u64,
        grace: Duration,
        mut revoke: impl FnMut(Duration) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let begin = Instant::now();
        let mut told = false;
        loop {
            let error = match revoke(STEP) {
                Err(error @ RegistryError::StillInUse { .. }) => error,
                done => return done,
            };
            if !std::mem::replace(&mut told, true) {
                // Those who only wait need not do so until the last copy has ended. This comes seldom; for all others it is nothing.
                self.lines.for_each(|line| line.raise(irq::CAPABILITY));
            }
            let waited = begin.elapsed();
            if waited >= LIMIT {
                return Err(error);
            }
            if waited >= grace {
                self.lines.for_each(|line| {
                    if line.in_portal_of() == Some(owner) {
                        line.abandon_portal(owner);
                    }
                });
            }
        }
    }
}
