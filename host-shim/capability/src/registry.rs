// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who publishes what under which key, and who uses it.
//!
//! Published ranges and each class of portals have a space of keys of their own. Portals are called streams here, after the first class.
//!
//! Lock order, each may be taken while those before it are held:
//!
//! 1. `Registry::directory`: keys, live cVMs, who is interested in new keys;
//! 2. the slots of one [`Table`];
//! 3. the peers of one [`Endpoint`]; the latch of one revocation.
//!
//! Nothing waits for users to leave while it holds a lock, and the message path ([`Handles`](crate::Handles), [`Endpoint::enter`],
//! [`Endpoint::arm`], [`Endpoint::take_armed`]) takes none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::errno;
use crate::handles::{Contents, Entry, Object, Slots};
use crate::{Endpoint, Key, Kind, MAX_CVMS, Owner, Permissions, PortalKey, Revocation, Table};

/// Why the registry refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Somebody publishes under the key already.
    #[error("the key `{key}` of a {kind} is taken by {owner}; revoke that one or use another key")]
    KeyTaken {
        /// The key.
        key: Key,
        /// Of what.
        kind: Kind,
        /// Who has it.
        owner: Owner,
    },
    /// Nobody publishes under the key.
    #[error("nobody publishes a {kind} under the key `{key}`")]
    NoSuchKey {
        /// The key.
        key: Key,
        /// Of what.
        kind: Kind,
    },
    /// The number is not a handle of the caller's.
    #[error("{handle} is not a handle of a {wanted} of the caller's")]
    NotAHandle {
        /// The number.
        handle: u64,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The number is neither kind of handle of the caller's.
    #[error("{handle} is not a handle of the caller's")]
    NotConnected {
        /// The number.
        handle: u64,
    },
    /// The number is not the id of something that the caller published.
    #[error("{id} is not the id of anything that the caller published")]
    NotAnObject {
        /// The number.
        id: u64,
    },
    /// The caller has as many as it may.
    #[error("{owner} has {limit} {what} already; give one back first")]
    Limit {
        /// Who.
        owner: Owner,
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// The caller's cVM has ended.
    #[error("{owner} has ended")]
    Ended {
        /// Who.
        owner: Owner,
    },
    /// It is revoked, but uses that began before have not ended in time.
    #[error(
        "{in_flight} use(s) of the {kind} `{key}` of {owner} did not end in {waited:?}; it is revoked, but its memory is still in use: revoke it again to wait on"
    )]
    StillInUse {
        /// Its key.
        key: Key,
        /// What it is.
        kind: Kind,
        /// Whose it is.
        owner: Owner,
        /// How many uses are under way.
        in_flight: u64,
        /// How long they were waited for.
        waited: Duration,
    },
    /// The index belongs to a cVM that has not ended.
    #[error("the index {index} belongs to a live cVM; use a free one below {MAX_CVMS}")]
    IndexTaken {
        /// The index.
        index: u16,
    },
    /// The index is too large.
    #[error("the index {index} is too large; at most {MAX_CVMS} cVMs can live at the same time")]
    IndexTooLarge {
        /// The index.
        index: u16,
    },
}

impl RegistryError {
    /// The Linux errno that a guest is given.
    pub const fn errno(&self) -> i32 {
        match self {
            RegistryError::KeyTaken { .. } => errno::EADDRINUSE,
            RegistryError::NoSuchKey { .. } => errno::ENOENT,
            RegistryError::NotAHandle { .. }
            | RegistryError::NotConnected { .. }
            | RegistryError::NotAnObject { .. }
            | RegistryError::Ended { .. } => errno::EBADF,
            RegistryError::Limit { .. } => errno::EMFILE,
            RegistryError::StillInUse { .. } => errno::EBUSY,
            RegistryError::IndexTaken { .. } | RegistryError::IndexTooLarge { .. } => errno::EINVAL,
        }
    }
}

/// How many of each one cVM may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Portals that it publishes, of all classes together.
    pub streams: usize,
    /// Ranges that it publishes.
    pub files: usize,
    /// Handles to what anybody publishes.
    pub handles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            streams: 256,
            files: 256,
            handles: 1024,
        }
    }
}

/// What came of publishing something.
#[derive(Debug)]
pub struct Advertised<P> {
    /// Its number in the table of its owner.
    pub id: u64,
    /// The thing itself.
    pub endpoint: Arc<Endpoint<P>>,
    /// Who asked to be told of new keys; they have to be interrupted.
    pub interested: Vec<Owner>,
}

/// What came of a probe.
#[derive(Debug)]
pub struct Connected<P> {
    /// Its number in the table of the one who connected.
    pub handle: u64,
    /// What is published under the key.
    pub endpoint: Arc<Endpoint<P>>,
}

/// What was taken back by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Whose it was.
    pub owner: Owner,
    /// Who has handles to it; they have to be interrupted.
    pub peers: Vec<Owner>,
}

/// One published thing, for `inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// What it is.
    pub kind: Kind,
    /// Its key.
    pub key: Key,
    /// Whose it is.
    pub owner: Owner,
    /// Its number in the table of its owner.
    pub id: u64,
    /// Whether it is revoked and waits for its last users.
    pub revoked: bool,
    /// How many uses are under way.
    pub in_flight: u64,
    /// Who has handles to it.
    pub peers: Vec<Owner>,
}

#[derive(Debug)]
struct Directory<S, F> {
    streams: BTreeMap<PortalKey, Arc<Endpoint<S>>>,
    files: BTreeMap<Key, Arc<Endpoint<F>>>,
    /// Who wants to know of new keys.
    interested: BTreeSet<Owner>,
    /// The live cVMs.
    live: BTreeMap<u16, Owner>,
    /// The generation of the next cVM, whatever its index.
    next_generation: u64,
}

/// Everything that is published in one monitor: streams of payload `S`, ranges of payload `F`.
///
/// Whoever calls shows the [`Table`] it has got from [`Registry::register`]: numbers mean nothing in another's table.
#[derive(Debug)]
pub struct Registry<S, F> {
    directory: Mutex<Directory<S, F>>,
    /// Of cVMs without limits of their own, and of the monitor.
    limits: Limits,
    monitor: Arc<Table<S, F>>,
}

/// What differs between portals and ranges.
trait Sort<S, F> {
    type Payload;
    /// What they are published under.
    type Name: Copy + Ord;
    fn name(name: Self::Name) -> (Kind, Key);
    /// What the limit is called, and how many a cVM may publish.
    fn limit(limits: &Limits) -> (&'static str, usize);
    /// How many it publishes.
    fn owned(slots: &Slots<S, F>) -> usize;
    fn keys(
        directory: &mut Directory<S, F>,
    ) -> &mut BTreeMap<Self::Name, Arc<Endpoint<Self::Payload>>>;
    fn object(endpoint: Arc<Endpoint<Self::Payload>>) -> Object<S, F>;
}

struct Streams;

impl<S, F> Sort<S, F> for Streams {
    type Payload = S;
    type Name = PortalKey;

    fn name(PortalKey { class, key }: PortalKey) -> (Kind, Key) {
        (Kind::Portal(class), key)
    }

    fn limit(limits: &Limits) -> (&'static str, usize) {
        ("published streams", limits.streams)
    }

    fn owned(slots: &Slots<S, F>) -> usize {
        slots.streams()
    }

    fn keys(directory: &mut Directory<S, F>) -> &mut BTreeMap<PortalKey, Arc<Endpoint<S>>> {
        &mut directory.streams
    }

    fn object(endpoint: Arc<Endpoint<S>>) -> Object<S, F> {
        Object::Stream(endpoint)
    }
}

struct Files;

impl<S, F> Sort<S, F> for Files {
    type Payload = F;
    type Name = Key;

    fn name(key: Key) -> (Kind, Key) {
        (Kind::File, key)
    }

    fn limit(limits: &Limits) -> (&'static str, usize) {
        ("published ranges", limits.files)
    }

    fn owned(slots: &Slots<S, F>) -> usize {
        slots.files()
    }

    fn keys(directory: &mut Directory<S, F>) -> &mut BTreeMap<Key, Arc<Endpoint<F>>> {
        &mut directory.files
    }

    fn object(endpoint: Arc<Endpoint<F>>) -> Object<S, F> {
        Object::File(endpoint)
    }
}

impl<S, F> Object<S, F> {
    fn kind(&self) -> Kind {
        match self {
            Object::Stream(endpoint) => endpoint.kind(),
            Object::File(endpoint) => endpoint.kind(),
        }
    }

    fn revocation(&self) -> &Revocation {
        match self {
            Object::Stream(endpoint) => endpoint.revocation(),
            Object::File(endpoint) => endpoint.revocation(),
        }
    }

    fn key(&self) -> Key {
        match self {
            Object::Stream(endpoint) => endpoint.key(),
            Object::File(endpoint) => endpoint.key(),
        }
    }

    fn id(&self) -> u64 {
        match self {
            Object::Stream(endpoint) => endpoint.id(),
            Object::File(endpoint) => endpoint.id(),
        }
    }

    fn owner(&self) -> Owner {
        match self {
            Object::Stream(endpoint) => endpoint.owner(),
            Object::File(endpoint) => endpoint.owner(),
        }
    }

    fn peers(&self) -> Vec<Owner> {
        match self {
            Object::Stream(endpoint) => endpoint.peers(),
            Object::File(endpoint) => endpoint.peers(),
        }
    }

    fn remove_peer(&self, owner: Owner) {
        match self {
            Object::Stream(endpoint) => endpoint.remove_peer(owner),
            Object::File(endpoint) => endpoint.remove_peer(owner),
        }
    }

    fn is(&self, other: &Object<S, F>) -> bool {
        match (self, other) {
            (Object::Stream(one), Object::Stream(two)) => Arc::ptr_eq(one, two),
            (Object::File(one), Object::File(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    fn info(&self) -> ObjectInfo {
        ObjectInfo {
            kind: self.kind(),
            key: self.key(),
            owner: self.owner(),
            id: self.id(),
            revoked: self.revocation().is_revoked(),
            in_flight: self.revocation().in_flight(),
            peers: self.peers(),
        }
    }

    /// Waits for the users of something revoked.
    fn wait_drained(&self, deadline: Instant, waited: Duration) -> Result<(), RegistryError> {
        if self.revocation().wait_drained(deadline) {
            return Ok(());
        }
        Err(RegistryError::StillInUse {
            key: self.key(),
            kind: self.kind(),
            owner: self.owner(),
            in_flight: self.revocation().in_flight(),
            waited,
        })
    }
}

impl<S, F> Directory<S, F> {
    /// Frees the key of something revoked and drained, unless somebody else has it by now.
    fn remove(&mut self, object: &Object<S, F>) {
        match object {
            Object::Stream(endpoint) => {
                if let Kind::Portal(class) = endpoint.kind() {
                    let name = PortalKey::from((class, endpoint.key()));
                    remove(&mut self.streams, &name, endpoint);
                }
            }
            Object::File(endpoint) => remove(&mut self.files, &endpoint.key(), endpoint),
        }
    }
}

fn remove<N: Ord, P>(
    keys: &mut BTreeMap<N, Arc<Endpoint<P>>>,
    name: &N,
    endpoint: &Arc<Endpoint<P>>,
) {
    if keys
        .get(name)
        .is_some_and(|present| Arc::ptr_eq(present, endpoint))
    {
        keys.remove(name);
    }
}

impl<S, F> Registry<S, F> {
    /// Nothing published, no cVM; only the monitor has a table.
    pub fn new(limits: Limits) -> Registry<S, F> {
        Registry {
            directory: Mutex::new(Directory {
                streams: BTreeMap::new(),
                files: BTreeMap::new(),
                interested: BTreeSet::new(),
                live: BTreeMap::new(),
                next_generation: 1,
            }),
            limits,
            monitor: Arc::new(Table::new(Owner::MONITOR, limits)),
        }
    }

    /// The monitor's own table.
    pub fn monitor(&self) -> &Arc<Table<S, F>> {
        &self.monitor
    }

    /// Begins the life of a cVM: its table, with an owner that no cVM had before.
    ///
    /// # Errors
    ///
    /// [`RegistryError::IndexTooLarge`]; [`RegistryError::IndexTaken`] until [`Registry::revoke_owner`] succeeded for the one before.
    pub fn register(&self, index: u16) -> Result<Arc<Table<S, F>>, RegistryError> {
        self.register_with(index, self.limits)
    }

    /// The same with limits of its own.
    ///
    /// # Errors
    ///
    /// As [`Registry::register`].
    pub fn register_with(
        &self,
        index: u16,
        limits: Limits,
    ) -> Result<Arc<Table<S, F>>, RegistryError> {
        if index >= MAX_CVMS {
            return Err(RegistryError::IndexTooLarge { index });
        }
        let mut directory = self.directory();
        if directory.live.contains_key(&index) {
            return Err(RegistryError::IndexTaken { index });
        }
        let owner = Owner::new(index, directory.next_generation);
        directory.next_generation += 1;
        directory.live.insert(index, owner);
        Ok(Arc::new(Table::new(owner, limits)))
    }

    /// Publishes a portal: a stream, unless the name is one of another class.
    ///
    /// # Errors
    ///
    /// [`RegistryError::KeyTaken`], [`RegistryError::Limit`], [`RegistryError::Ended`].
    pub fn advertise_stream(
        &self,
        table: &Table<S, F>,
        name: impl Into<PortalKey>,
        payload: S,
    ) -> Result<Advertised<S>, RegistryError> {
        self.advertise::<Streams>(table, name.into(), payload)
    }

    /// Publishes a range.
    ///
    /// # Errors
    ///
    /// As [`Registry::advertise_stream`].
    pub fn advertise_file(
        &self,
        table: &Table<S, F>,
        key: Key,
        payload: F,
    ) -> Result<Advertised<F>, RegistryError> {
        self.advertise::<Files>(table, key, payload)
    }

    /// Connects to the portal that is published under a name: a handle for [`Handles::stream`](crate::Handles::stream). With `notify`, when
    /// there is none, the next [`Advertised::interested`] names the caller.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoSuchKey`], [`RegistryError::Limit`], [`RegistryError::Ended`].
    pub fn probe_stream(
        &self,
        table: &Table<S, F>,
        name: impl Into<PortalKey>,
        notify: bool,
    ) -> Result<Connected<S>, RegistryError> {
        self.probe::<Streams>(table, name.into(), notify, Permissions::all())
    }

    /// Attaches to the range that is published under a key: a handle for [`Handles::file`](crate::Handles::file). `notify` as for
    /// [`Registry::probe_stream`].
    ///
    /// # Errors
    ///
    /// As [`Registry::probe_stream`].
    pub fn probe_file(
        &self,
        table: &Table<S, F>,
        key: Key,
        notify: bool,
    ) -> Result<Connected<F>, RegistryError> {
        self.probe::<Files>(table, key, notify, Permissions::all())
    }

    /// The same, for one who may do no more with it than `mask` says, see [`Handles::attachment`](crate::Handles::attachment).
    ///
    /// # Errors
    ///
    /// As [`Registry::probe_stream`].
    pub fn probe_file_masked(
        &self,
        table: &Table<S, F>,
        key: Key,
        notify: bool,
        mask: Permissions,
    ) -> Result<Connected<F>, RegistryError> {
        self.probe::<Files>(table, key, notify, mask)
    }

    /// Gives a handle back.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotConnected`].
    pub fn disconnect(&self, table: &Table<S, F>, handle: u64) -> Result<(), RegistryError> {
        let mut slots = table.lock();
        let Some(Entry::Connected(object, _)) = slots.get(handle).cloned() else {
            return Err(RegistryError::NotConnected { handle });
        };
        table.replace(&mut slots, handle, Entry::Free);
        drop(slots);
        object.remove_peer(table.owner());
        Ok(())
    }

    /// Takes something back. When it returns, no use of it is under way and none will begin, its key and its id are free, and those
    /// returned have handles to it: they have to be interrupted.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAnObject`]; [`RegistryError::StillInUse`] when uses have not ended within `timeout`: it is revoked, but
    /// id and key stay until another call succeeds.
    pub fn revoke(
        &self,
        table: &Table<S, F>,
        id: u64,
        timeout: Duration,
    ) -> Result<Vec<Owner>, RegistryError> {
        let Some(Entry::Owned(object)) = table.lock().get(id).cloned() else {
            return Err(RegistryError::NotAnObject { id });
        };
        object.revocation().revoke();
        object.wait_drained(deadline(timeout), timeout)?;
        self.forget(table, &object);
        Ok(object.peers())
    }

    /// Takes back what is published under a key, whoever published it. When it returns, no use of it is under way and none will begin, and the key is
    /// free. Its id stays its owner's until that revokes it, too.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoSuchKey`]; [`RegistryError::StillInUse`] as for [`Registry::revoke`].
    pub fn revoke_key(
        &self,
        kind: Kind,
        key: Key,
        timeout: Duration,
    ) -> Result<Revoked, RegistryError> {
        let directory = self.directory();
        let object: Object<S, F> = match kind {
            Kind::Portal(class) => {
                let portal = directory.streams.get(&PortalKey { class, key });
                portal.cloned().map(Object::Stream)
            }
            Kind::File => directory.files.get(&key).cloned().map(Object::File),
        }
        .ok_or(RegistryError::NoSuchKey { key, kind })?;
        drop(directory);
        object.revocation().revoke();
        object.wait_drained(deadline(timeout), timeout)?;
        let owner = object.owner();
        if owner == Owner::MONITOR {
            self.forget(&self.monitor, &object);
        } else {
            self.directory().remove(&object);
        }
        Ok(Revoked {
            owner,
            peers: object.peers(),
        })
    }

    /// Ends the life of a cVM: takes back all that it published, gives its handles back and frees its index. Its vCPUs must not run any
    /// more. Those returned have handles to what is gone: they have to be interrupted.
    ///
    /// # Errors
    ///
    /// [`RegistryError::StillInUse`] when uses of something have not ended within `timeout`, counted from the call. All is revoked then, but the cVM's memory
    /// must stay until another call succeeds.
    pub fn revoke_owner(
        &self,
        table: &Table<S, F>,
        timeout: Duration,
    ) -> Result<Vec<Owner>, RegistryError> {
        let owner = table.owner();
        let deadline = deadline(timeout);
        let Contents { owned, connected } = table.close();
        for object in &owned {
            object.revocation().revoke();
        }
        for object in &connected {
            object.remove_peer(owner);
        }
        for object in &owned {
            object.wait_drained(deadline, timeout)?;
        }
        let mut peers = BTreeSet::new();
        for object in &owned {
            self.forget(table, object);
            peers.extend(object.peers());
        }
        peers.remove(&owner);
        let mut directory = self.directory();
        directory.interested.remove(&owner);
        if directory.live.get(&owner.index()) == Some(&owner) {
            directory.live.remove(&owner.index());
        }
        Ok(peers.into_iter().collect())
    }

    /// All that is published, by kind and key.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        self.inspect(|info, _| info, |info, _| info)
    }

    /// As [`Registry::objects`], with what `stream` and `file` make of each and its payload. They must not call back here.
    pub fn inspect<T>(
        &self,
        stream: impl Fn(ObjectInfo, &S) -> T,
        file: impl Fn(ObjectInfo, &F) -> T,
    ) -> Vec<T> {
        let directory = self.directory();
        let streams = directory.streams.values().cloned().map(Object::Stream);
        let files = directory.files.values().cloned().map(Object::File);
        streams
            .chain(files)
            .map(|object: Object<S, F>| match &object {
                Object::Stream(endpoint) => stream(object.info(), endpoint.payload()),
                Object::File(endpoint) => file(object.info(), endpoint.payload()),
            })
            .collect()
    }

    fn directory(&self) -> MutexGuard<'_, Directory<S, F>> {
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn advertise<K: Sort<S, F>>(
        &self,
        table: &Table<S, F>,
        name: K::Name,
        payload: K::Payload,
    ) -> Result<Advertised<K::Payload>, RegistryError> {
        let (kind, key) = K::name(name);
        let owner = table.owner();
        let mut directory = self.directory();
        let mut slots = table.lock();
        slots.open(owner)?;
        if let Some(present) = K::keys(&mut directory).get(&name)
            && !present.revocation().is_drained()
        {
            return Err(RegistryError::KeyTaken {
                key,
                kind,
                owner: present.owner(),
            });
        }
        let (what, limit) = K::limit(table.limits());
        let full = RegistryError::Limit { owner, what, limit };
        if K::owned(&slots) >= limit {
            return Err(full);
        }
        let id = table.vacant(&mut slots).ok_or(full)?;
        let endpoint = Arc::new(Endpoint::new(kind, key, owner, id, payload));
        table.replace(
            &mut slots,
            id,
            Entry::Owned(K::object(Arc::clone(&endpoint))),
        );
        drop(slots);
        K::keys(&mut directory).insert(name, Arc::clone(&endpoint));
        let interested = std::mem::take(&mut directory.interested);
        Ok(Advertised {
            id,
            endpoint,
            interested: interested.into_iter().collect(),
        })
    }

    fn probe<K: Sort<S, F>>(
        &self,
        table: &Table<S, F>,
        name: K::Name,
        notify: bool,
        mask: Permissions,
    ) -> Result<Connected<K::Payload>, RegistryError> {
        let (kind, key) = K::name(name);
        let owner = table.owner();
        let mut directory = self.directory();
        let mut slots = table.lock();
        slots.open(owner)?;
        let Some(endpoint) = K::keys(&mut directory)
            .get(&name)
            .filter(|endpoint| !endpoint.is_revoked())
            .cloned()
        else {
            if notify {
                directory.interested.insert(owner);
            }
            return Err(RegistryError::NoSuchKey { key, kind });
        };
        let limit = table.limits().handles;
        let full = RegistryError::Limit {
            owner,
            what: "handles",
            limit,
        };
        if slots.connected() >= limit {
            return Err(full);
        }
        let handle = table.vacant(&mut slots).ok_or(full)?;
        endpoint.add_peer(owner);
        table.replace(
            &mut slots,
            handle,
            Entry::Connected(K::object(Arc::clone(&endpoint)), mask),
        );
        Ok(Connected { handle, endpoint })
    }

    /// Frees key and id of something revoked and drained.
    fn forget(&self, table: &Table<S, F>, object: &Object<S, F>) {
        let mut directory = self.directory();
        directory.remove(object);
        let mut slots = table.lock();
        if matches!(slots.get(object.id()), Some(Entry::Owned(present)) if present.is(object)) {
            table.replace(&mut slots, object.id(), Entry::Free);
        }
    }
}

impl Limits {
    pub(crate) fn capacity(&self) -> usize {
        self.streams
            .saturating_add(self.files)
            .saturating_add(self.handles)
    }
}

/// When a wait that begins now ends; a timeout beyond what the clock can tell is a year.
fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}
