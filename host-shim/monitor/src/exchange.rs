// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all cVMs of a monitor share: the registry of what they publish, and how to interrupt each of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_capability::{
    Handles, Limits, MAX_CVMS, Owner, Publication, Registry, RegistryError, Table,
};

use crate::platform::VcpuLine;
use crate::receiver::Receiver;

/// What a cVM publishes as a stream.
pub struct Stream {
    /// The portal.
    pub portal: capstream_capability::Portal,
    /// Whose it is.
    pub receiver: Arc<Receiver>,
}

/// The registry with what cVMs publish.
pub type CvmRegistry = Registry<Stream, Publication>;
/// A cVM's numbers.
pub type CvmTable = Table<Stream, Publication>;
/// A vCPU's view of them.
pub type CvmHandles = Handles<Stream, Publication>;

/// How long uses of something that an ended cVM published may take before portals among them are abandoned.
const GRACE: Duration = Duration::from_secs(1);
/// The same for something that its owner takes back and whose portal is in the middle of the owner's data.
const GRACE_OF_LIVING: Duration = Duration::from_secs(5);
/// How long is waited in all.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked.
const STEP: Duration = Duration::from_millis(20);

/// What all cVMs share.
pub struct Exchange {
    registry: CvmRegistry,
    /// By index of the cVM; an index is used once.
    lines: Box<[OnceLock<Arc<dyn VcpuLine>>]>,
    next_index: AtomicU64,
    /// How many streams were ever advertised.
    streams: AtomicU64,
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
            lines: (0..MAX_CVMS).map(|_| OnceLock::new()).collect(),
            next_index: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    /// The registry.
    #[inline]
    pub fn registry(&self) -> &CvmRegistry {
        &self.registry
    }

    /// Begins the life of a cVM.
    ///
    /// # Errors
    ///
    /// [`RegistryError::IndexTooLarge`].
    pub fn register(&self) -> Result<Arc<CvmTable>, RegistryError> {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        self.registry
            .register(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Says how to interrupt a cVM.
    pub fn set_line(&self, owner: Owner, line: Arc<dyn VcpuLine>) {
        if let Some(place) = self.lines.get(usize::from(owner.index())) {
            // An index is used once.
            let _ = place.set(line);
        }
    }

    /// The number of the next stream, for the log.
    pub fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the cVM with this index that something happened to endpoints, peers or keys. Works without thread state.
    #[inline]
    pub fn notify(&self, index: u16) {
        if let Some(line) = self.lines.get(usize::from(index)).and_then(OnceLock::get) {
            line.raise(irq::CAPABILITY);
        }
    }

    /// As [`Exchange::notify`], for each of them.
    pub fn notify_all(&self, owners: impl IntoIterator<Item = Owner>) {
        for owner in owners {
            self.notify(owner.index());
        }
    }

    fn lines(&self) -> impl Iterator<Item = &Arc<dyn VcpuLine>> {
        self.lines.iter().filter_map(OnceLock::get)
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
        let peers = self.until_drained(receiver, GRACE_OF_LIVING, |timeout| {
            self.registry.revoke(table, id, timeout)
        })?;
        self.notify_all(peers);
        Ok(())
    }

    /// Takes back all that an ended cVM published and tells its users. When this returns without an error, nobody touches its
    /// memory any more.
    ///
    /// # Errors
    ///
    /// [`RegistryError::StillInUse`]: then its memory has to stay.
    pub fn revoke_all(&self, table: &CvmTable, receiver: &Receiver) -> Result<(), RegistryError> {
        let peers = self.until_drained(receiver, GRACE, |timeout| {
            self.registry.revoke_owner(table, timeout)
        })?;
        self.notify_all(peers);
        Ok(())
    }

    fn until_drained(
        &self,
        receiver: &Receiver,
        grace: Duration,
        mut revoke: impl FnMut(Duration) -> Result<Vec<Owner>, RegistryError>,
    ) -> Result<Vec<Owner>, RegistryError> {
        let begin = Instant::now();
        loop {
            let error = match revoke(STEP) {
                Err(error @ RegistryError::StillInUse { .. }) => error,
                done => return done,
            };
            let waited = begin.elapsed();
            if waited >= LIMIT {
                return Err(error);
            }
            if waited >= grace {
                for line in self.lines() {
                    if line.in_portal_of() == Some(receiver.number()) {
                        line.abandon_portal(receiver.number());
                    }
                }
            }
        }
    }
}
