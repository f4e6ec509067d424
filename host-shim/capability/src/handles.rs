// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The numbers by which a cVM names what it published and what it is connected to.
//!
//! A cVM has one [`Table`]. Each of its vCPUs has a [`Handles`], a private copy of the entries it used, each with the slot's
//! sequence number at that time. Looking up a number that was used before is one load and a comparison: no lock, no
//! allocation, no atomic read-modify-write. Whoever changes a slot adds one to its sequence number, under the lock of the slots, so that every
//! copy is found outdated.
//!
//! A number that was given back is given out again, the lowest first, as file descriptors are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Endpoint, Limits, Owner, Permissions, RegistryError};

/// An endpoint of either kind.
#[derive(Debug)]
pub(crate) enum Object<S, F> {
    Stream(Arc<Endpoint<S>>),
    File(Arc<Endpoint<F>>),
}

impl<S, F> Clone for Object<S, F> {
    fn clone(&self) -> Self {
        match self {
            Object::Stream(endpoint) => Object::Stream(Arc::clone(endpoint)),
            Object::File(endpoint) => Object::File(Arc::clone(endpoint)),
        }
    }
}

/// What a number stands for.
#[derive(Debug)]
pub(crate) enum Entry<S, F> {
    Free,
    /// Published by the table's owner.
    Owned(Object<S, F>),
    /// Published by anybody, used by the table's owner, with what that may do at most.
    Connected(Object<S, F>, Permissions),
}

impl<S, F> Clone for Entry<S, F> {
    fn clone(&self) -> Self {
        match self {
            Entry::Free => Entry::Free,
            Entry::Owned(object) => Entry::Owned(object.clone()),
            Entry::Connected(object, mask) => Entry::Connected(object.clone(), *mask),
        }
    }
}

/// What was in a table when it was closed.
pub(crate) struct Contents<S, F> {
    /// Published by its owner.
    pub(crate) owned: Vec<Object<S, F>>,
    /// Used by its owner.
    pub(crate) connected: Vec<Object<S, F>>,
}

/// The slots of a table, behind its lock.
#[derive(Debug)]
pub(crate) struct Slots<S, F> {
    /// Grows to the table's capacity at most.
    pub(crate) entries: Vec<Entry<S, F>>,
    /// Set when the owner ended: nothing is added any more.
    pub(crate) closed: bool,
}

impl<S, F> Slots<S, F> {
    pub(crate) fn get(&self, id: u64) -> Option<&Entry<S, F>> {
        self.entries.get(usize::try_from(id).ok()?)
    }

    /// Whether something can still be added.
    pub(crate) fn open(&self, owner: Owner) -> Result<(), RegistryError> {
        if self.closed {
            Err(RegistryError::Ended { owner })
        } else {
            Ok(())
        }
    }

    /// How many portals the owner publishes, of all classes.
    pub(crate) fn streams(&self) -> usize {
        let is_stream = |entry: &&Entry<S, F>| matches!(entry, Entry::Owned(Object::Stream(_)));
        self.entries.iter().filter(is_stream).count()
    }

    /// How many ranges the owner publishes.
    pub(crate) fn files(&self) -> usize {
        let is_file = |entry: &&Entry<S, F>| matches!(entry, Entry::Owned(Object::File(_)));
        self.entries.iter().filter(is_file).count()
    }

    /// How many handles the owner has.
    pub(crate) fn connected(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Connected(..)))
            .count()
    }
}

/// The numbers of one life of a cVM, shared by its vCPUs.
#[derive(Debug)]
pub struct Table<S, F> {
    owner: Owner,
    limits: Limits,
    /// How often each slot changed. Written under the lock of `slots`.
    sequences: Box<[AtomicU64]>,
    slots: Mutex<Slots<S, F>>,
}

impl<S, F> Table<S, F> {
    pub(crate) fn new(owner: Owner, limits: Limits) -> Table<S, F> {
        Table {
            owner,
            limits,
            sequences: (0..limits.capacity()).map(|_| AtomicU64::new(1)).collect(),
            slots: Mutex::new(Slots {
                entries: Vec::new(),
                closed: false,
            }),
        }
    }

    /// Whose numbers they are.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// How many there can be of each.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Slots<S, F>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lowest free slot; `None` when all are taken.
    pub(crate) fn vacant(&self, slots: &mut Slots<S, F>) -> Option<u64> {
        let free = slots
            .entries
            .iter()
            .position(|entry| matches!(entry, Entry::Free));
        let index = match free {
            Some(index) => index,
            None if slots.entries.len() < self.sequences.len() => {
                slots.entries.push(Entry::Free);
                slots.entries.len() - 1
            }
            None => return None,
        };
        Some(index as u64)
    }

    /// Ends the table: nothing is added to it any more, and its handles are gone. Returns what its owner published, which stays
    /// until it is drained, and what it was connected to.
    pub(crate) fn close(&self) -> Contents<S, F> {
        let mut slots = self.lock();
        slots.closed = true;
        let mut owned = Vec::new();
        let mut connected = Vec::new();
        for id in 0..slots.entries.len() as u64 {
            match slots.get(id).cloned() {
                Some(Entry::Owned(object)) => owned.push(object),
                Some(Entry::Connected(object, _)) => {
                    connected.push(object);
                    self.replace(&mut slots, id, Entry::Free);
                }
                Some(Entry::Free) | None => {}
            }
        }
        Contents { owned, connected }
    }

    /// Puts `entry` into a slot, and makes every copy of what was there outdated.
    pub(crate) fn replace(&self, slots: &mut Slots<S, F>, id: u64, entry: Entry<S, F>) {
        let Ok(index) = usize::try_from(id) else {
            return;
        };
        if let (Some(slot), Some(sequence)) =
            (slots.entries.get_mut(index), self.sequences.get(index))
        {
            *slot = entry;
            sequence.fetch_add(1, Ordering::Release);
        }
    }

    /// A vCPU's own view of the numbers. It allocates here, once.
    pub fn handles(self: &Arc<Self>) -> Handles<S, F> {
        Handles {
            cached: Vec::with_capacity(self.sequences.len()),
            table: Arc::clone(self),
        }
    }
}

/// A copy of one slot.
#[derive(Debug)]
struct Cached<S, F> {
    /// The slot's sequence number when it was copied; 0 is none's.
    sequence: u64,
    entry: Entry<S, F>,
}

/// A vCPU's view of its cVM's numbers, for the message path.
///
/// What was given back by another vCPU stays alive in here until its number is looked up again.
#[derive(Debug)]
pub struct Handles<S, F> {
    table: Arc<Table<S, F>>,
    /// Never grows beyond the capacity it was made with.
    cached: Vec<Cached<S, F>>,
}

impl<S, F> Handles<S, F> {
    /// The table behind it.
    #[inline]
    pub fn table(&self) -> &Arc<Table<S, F>> {
        &self.table
    }

    /// Whose numbers they are.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.table.owner
    }

    /// The portal behind a handle of this cVM's, of whatever class. Lock-free unless the slot has changed since it was last looked up.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAHandle`].
    #[inline]
    pub fn stream(&mut self, handle: u64) -> Result<&Arc<Endpoint<S>>, RegistryError> {
        self.make_current(handle);
        self.known_stream(handle)
    }

    /// The published range behind a handle of this cVM's. Lock-free as [`Handles::stream`].
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAHandle`].
    #[inline]
    pub fn file(&mut self, handle: u64) -> Result<&Arc<Endpoint<F>>, RegistryError> {
        Ok(self.attachment(handle)?.0)
    }

    /// The same, with what may be done with the range at most: permissions of the user, whatever those of the range are.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAHandle`].
    #[inline]
    pub fn attachment(
        &mut self,
        handle: u64,
    ) -> Result<(&Arc<Endpoint<F>>, Permissions), RegistryError> {
        self.make_current(handle);
        match self.known(handle) {
            Some(Entry::Connected(Object::File(endpoint), mask)) => Ok((endpoint, *mask)),
            _ => Err(RegistryError::NotAHandle {
                handle,
                wanted: "file",
            }),
        }
    }

    /// A portal that this cVM published itself, by its id. Lock-free as [`Handles::stream`].
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAnObject`].
    #[inline]
    pub fn own_stream(&mut self, id: u64) -> Result<&Arc<Endpoint<S>>, RegistryError> {
        self.make_current(id);
        self.known_own_stream(id)
    }

    #[inline]
    fn make_current(&mut self, number: u64) {
        if !self.is_current(number) {
            self.refresh(number);
        }
    }

    /// Whether what was last looked up under a number is what it stands for now. Lock-free; otherwise [`Handles::refresh`] helps.
    #[inline]
    pub fn is_current(&self, number: u64) -> bool {
        let Some((index, now)) = self.sequence(number) else {
            // It stands for nothing, now and ever.
            return true;
        };
        self.cached
            .get(index)
            .is_some_and(|cached| cached.sequence == now)
    }

    /// The portal that was behind a handle of this cVM's when it was last looked up; see [`Handles::is_current`]. Never locks.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAHandle`].
    #[inline]
    pub fn known_stream(&self, handle: u64) -> Result<&Arc<Endpoint<S>>, RegistryError> {
        match self.known(handle) {
            Some(Entry::Connected(Object::Stream(endpoint), _)) => Ok(endpoint),
            _ => Err(RegistryError::NotAHandle {
                handle,
                wanted: "portal",
            }),
        }
    }

    /// The portal of this cVM's own that had an id when it was last looked up. Never locks.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotAnObject`].
    #[inline]
    pub fn known_own_stream(&self, id: u64) -> Result<&Arc<Endpoint<S>>, RegistryError> {
        match self.known(id) {
            Some(Entry::Owned(Object::Stream(endpoint))) => Ok(endpoint),
            _ => Err(RegistryError::NotAnObject { id }),
        }
    }

    #[inline]
    fn known(&self, number: u64) -> Option<&Entry<S, F>> {
        let index = usize::try_from(number).ok()?;
        self.cached.get(index).map(|cached| &cached.entry)
    }

    #[inline]
    fn sequence(&self, number: u64) -> Option<(usize, u64)> {
        let index = usize::try_from(number).ok()?;
        let now = self.table.sequences.get(index)?.load(Ordering::Acquire);
        Some((index, now))
    }

    /// Looks up what a number stands for. It takes a lock.
    #[cold]
    pub fn refresh(&mut self, number: u64) {
        let Some((index, _)) = self.sequence(number) else {
            return;
        };
        while self.cached.len() <= index {
            self.cached.push(Cached {
                sequence: 0,
                entry: Entry::Free,
            });
        }
        let slots = self.table.lock();
        // Both under the lock, under which they change together.
        let copy = Cached {
            sequence: self
                .table
                .sequences
                .get(index)
                .map_or(0, |sequence| sequence.load(Ordering::Acquire)),
            entry: slots.entries.get(index).cloned().unwrap_or(Entry::Free),
        };
        let previous = self
            .cached
            .get_mut(index)
            .map(|cached| std::mem::replace(cached, copy));
        // What was there may be the last of its kind: its payload's drop must not run under the lock.
        drop(slots);
        drop(previous);
    }
}
