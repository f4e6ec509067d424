// SPDX-License-Identifier: GPL-2.0-only
//! The table of receive buffers that an endpoint's kernel and the portals of its senders share.
//!
//! Fixed capacity, atomics only: portals run on other processors, cannot take a lock of this kernel, and may be stopped by the host
//! at any instruction. No step of one waits for another; in particular a portal that is stopped in the middle of a
//! delivery holds up nobody else's, which a bounded queue of tickets (such as heapless' deprecated `mpmc`) would do.
//!
//! A slot is in one phase, kept in its word together with a ticket that is never used twice:
//!
//! ```text
//!          post                claim                complete
//!   Free ────────▶ Posted ────────────▶ Claimed ────────────▶ Filled ────┐
//!    ▲               │ ▲    (portal)       │      (portal)               │
//!    │    withdraw   │ └───────────────────┘ give_back (portal)          │
//!    ├───────────────┘                                         release   │
//!    └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Steps without "(portal)" are the kernel's, which takes its endpoint's lock around them: there is one such caller at a time.
//!
//! Buffers are handed out oldest ticket first. Those that are for whoever waits come back oldest completion first; the
//! completions of one sender come back in its order, since it begins a delivery only after its last one is complete. A *direct*
//! buffer belongs to one reader, who looks at its slot and at nothing else.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering, array, const_unless_loom, fence};

/// How many buffers there can be.
#[cfg(not(all(loom, test)))]
pub const SLOTS: usize = 64;
/// Fewer, where every access multiplies what has to be explored.
#[cfg(all(loom, test))]
pub const SLOTS: usize = 2;

const PHASE_BITS: u64 = 0b11;
const FREE: u64 = 0;
const POSTED: u64 = 1;
const CLAIMED: u64 = 2;
const FILLED: u64 = 3;
const DIRECT: u64 = 0b100;
const TICKET_SHIFT: u32 = 3;

/// A slot's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index(u8);

impl Index {
    /// The place, if there is one with this number.
    pub const fn new(number: usize) -> Option<Index> {
        if number < SLOTS {
            Some(Index(number as u8))
        } else {
            None
        }
    }

    /// Its number, less than [`SLOTS`].
    pub const fn number(self) -> usize {
        self.0 as usize % SLOTS
    }

    const fn bit(self) -> u64 {
        1 << self.number()
    }
}

/// The set bits of a word, as places.
fn indexes(mut bits: u64) -> impl Iterator<Item = Index> {
    core::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let index = Index(bits.trailing_zeros() as u8);
        bits &= bits - 1;
        Some(index)
    })
}

/// One use of a slot, from post to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where.
    pub index: Index,
    /// The slot's word without its phase.
    identity: u64,
}

impl Ticket {
    const fn word(self, phase: u64) -> u64 {
        self.identity | phase
    }
}

/// Where a buffer is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for a sender.
    Posted,
    /// A portal is copying into it.
    Claimed,
    /// It holds a message.
    Filled,
    /// This use of the slot has ended.
    Gone,
}

/// What a portal found.
#[derive(Debug)]
pub enum Claim {
    /// This buffer is the portal's now, to complete or to give back.
    Claimed(Claimed),
    /// No buffer is posted.
    Empty,
    /// The oldest one is too small.
    TooLong,
}

/// A buffer that a portal is going to fill.
#[derive(Debug)]
#[must_use = "a claimed buffer has to be completed or given back"]
pub struct Claimed {
    ticket: Ticket,
    direct: bool,
    /// Its first byte.
    pub address: usize,
}

/// A message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The buffer's slot.
    pub index: Index,
    /// The buffer's first byte, as portals call it.
    pub address: usize,
    /// Bytes of the message.
    pub len: usize,
    /// Who sent it.
    pub sender: u64,
}

/// What is known about a slot; written by whoever the phase says it belongs to.
struct Details {
    address: AtomicUsize,
    capacity: AtomicUsize,
    len: AtomicUsize,
    sender: AtomicU64,
    /// When it was completed, in completions.
    completion: AtomicU64,
}

impl Details {
    const_unless_loom! {
        fn new() -> Details {
            Details {
                address: AtomicUsize::new(0),
                capacity: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                sender: AtomicU64::new(0),
                completion: AtomicU64::new(0),
            }
        }
    }
}

/// The table.
pub struct Slots {
    /// Which slots may be in phase Posted. A clear bit is the truth; a set one is checked against the slot's word.
    posted: AtomicU64,
    /// Which slots hold a message that is not for one reader alone.
    filled: AtomicU64,
    tickets: AtomicU64,
    completions: AtomicU64,
    words: [AtomicU64; SLOTS],
    details: [Details; SLOTS],
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::new()
    }
}

impl Slots {
    const_unless_loom! {
        /// A table of free slots.
        pub fn new() -> Slots {
            Slots {
                posted: AtomicU64::new(0),
                filled: AtomicU64::new(0),
                tickets: AtomicU64::new(0),
                completions: AtomicU64::new(0),
                words: array!(AtomicU64::new(FREE)),
                details: array!(Details::new()),
            }
        }
    }

    fn word(&self, index: Index) -> &AtomicU64 {
        &self.words[index.number()]
    }

    fn details(&self, index: Index) -> &Details {
        &self.details[index.number()]
    }

    // The kernel's side.

    /// Posts a buffer of `capacity` bytes at `address` in a free slot; `None` when the slot is not free.
    pub fn post(
        &self,
        index: Index,
        address: usize,
        capacity: usize,
        direct: bool,
    ) -> Option<Ticket> {
        let word = self.word(index);
        if word.load(Ordering::Acquire) & PHASE_BITS != FREE {
            return None;
        }
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let direct = if direct { DIRECT } else { 0 };
        let ticket = Ticket {
            index,
            identity: number << TICKET_SHIFT | direct,
        };
        // A portal that peeked at the slot's last use and reads the new details must then see that the word changed.
        fence(Ordering::Release);
        let details = self.details(index);
        details.address.store(address, Ordering::Relaxed);
        details.capacity.store(capacity, Ordering::Relaxed);
        word.store(ticket.word(POSTED), Ordering::Release);
        self.posted.fetch_or(index.bit(), Ordering::SeqCst);
        Some(ticket)
    }

    /// Takes a posted buffer back; false when a portal has it, or the ticket's use has ended.
    pub fn withdraw(&self, ticket: Ticket) -> bool {
        let free = ticket.word(FREE);
        let done = self
            .word(ticket.index)
            .compare_exchange(
                ticket.word(POSTED),
                free,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        if done {
            self.posted
                .fetch_and(!ticket.index.bit(), Ordering::Relaxed);
        }
        done
    }

    /// Where a buffer is.
    pub fn phase(&self, ticket: Ticket) -> Phase {
        let word = self.word(ticket.index).load(Ordering::SeqCst);
        if word & !PHASE_BITS != ticket.identity {
            return Phase::Gone;
        }
        match word & PHASE_BITS {
            POSTED => Phase::Posted,
            CLAIMED => Phase::Claimed,
            FILLED => Phase::Filled,
            _ => Phase::Gone,
        }
    }

    /// The message in a filled buffer.
    pub fn message(&self, ticket: Ticket) -> Option<Message> {
        (self.phase(ticket) == Phase::Filled).then(|| self.read_message(ticket.index))
    }

    /// Whether there is a message for whoever waits.
    pub fn any_filled(&self) -> bool {
        self.filled.load(Ordering::SeqCst) != 0
    }

    /// How many messages there are for whoever waits.
    pub fn count_filled(&self) -> u32 {
        self.filled.load(Ordering::Relaxed).count_ones()
    }

    /// How many buffers are posted.
    pub fn count_posted(&self) -> u32 {
        self.posted.load(Ordering::Relaxed).count_ones()
    }

    /// The message for whoever waits that was completed first; it stays until it is released.
    pub fn oldest_message(&self) -> Option<Message> {
        let filled = self.filled.load(Ordering::SeqCst);
        indexes(filled)
            .min_by_key(|index| self.details(*index).completion.load(Ordering::Relaxed))
            .map(|index| self.read_message(index))
    }

    fn read_message(&self, index: Index) -> Message {
        let details = self.details(index);
        Message {
            index,
            address: details.address.load(Ordering::Relaxed),
            len: details.len.load(Ordering::Relaxed),
            sender: details.sender.load(Ordering::Relaxed),
        }
    }

    /// Frees a filled slot; false when it is not filled.
    pub fn release(&self, index: Index) -> bool {
        let word = self.word(index);
        let now = word.load(Ordering::Acquire);
        if now & PHASE_BITS != FILLED {
            return false;
        }
        self.filled.fetch_and(!index.bit(), Ordering::Relaxed);
        word.store(now & !PHASE_BITS | FREE, Ordering::Release);
        true
    }

    /// Frees all slots. No portal may be running.
    pub fn clear(&self) {
        self.posted.store(0, Ordering::SeqCst);
        self.filled.store(0, Ordering::SeqCst);
        for word in &self.words {
            let identity = word.load(Ordering::Acquire) & !PHASE_BITS;
            word.store(identity | FREE, Ordering::SeqCst);
        }
    }

    // The portals' side.

    /// The oldest posted buffer: its ticket's word and place. Others may take it at any time.
    fn oldest_posted(&self) -> Option<(u64, Index)> {
        let posted = self.posted.load(Ordering::SeqCst);
        indexes(posted)
            .map(|index| (self.word(index).load(Ordering::Acquire), index))
            .filter(|(word, _)| word & PHASE_BITS == POSTED)
            .min_by_key(|(word, _)| *word >> TICKET_SHIFT)
    }

    /// Capacity of the oldest posted buffer, if there is one.
    pub fn peek(&self) -> Option<usize> {
        loop {
            let (word, index) = self.oldest_posted()?;
            let capacity = self.details(index).capacity.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if self.word(index).load(Ordering::Relaxed) == word {
                return Some(capacity);
            }
            // Somebody else took it meanwhile, and has thereby made progress.
            crate::atomic::yield_to_model();
        }
    }

    /// Takes the oldest posted buffer, if a message of `len` bytes fits it.
    pub fn claim(&self, len: usize) -> Claim {
        loop {
            let Some((word, index)) = self.oldest_posted() else {
                return Claim::Empty;
            };
            let details = self.details(index);
            let capacity = details.capacity.load(Ordering::Relaxed);
            let address = details.address.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if len > capacity {
                if self.word(index).load(Ordering::Relaxed) == word {
                    return Claim::TooLong;
                }
            } else {
                let claimed = word & !PHASE_BITS | CLAIMED;
                // The ticket in the word makes this fail if the slot was used again since the details were read.
                let taken = self.word(index).compare_exchange(
                    word,
                    claimed,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if taken.is_ok() {
                    self.posted.fetch_and(!index.bit(), Ordering::Relaxed);
                    return Claim::Claimed(Claimed {
                        ticket: Ticket {
                            index,
                            identity: word & !PHASE_BITS,
                        },
                        direct: word & DIRECT != 0,
                        address,
                    });
                }
            }
            crate::atomic::yield_to_model();
        }
    }

    /// Says that the message is in the buffer.
    pub fn complete(&self, claimed: Claimed, len: usize, sender: u64) {
        let Claimed { ticket, direct, .. } = claimed;
        let details = self.details(ticket.index);
        details.len.store(len, Ordering::Relaxed);
        details.sender.store(sender, Ordering::Relaxed);
        let completion = self.completions.fetch_add(1, Ordering::AcqRel);
        details.completion.store(completion, Ordering::Relaxed);
        let word = self.word(ticket.index);
        word.store(ticket.word(FILLED), Ordering::SeqCst);
        if !direct {
            self.filled.fetch_or(ticket.index.bit(), Ordering::SeqCst);
        }
    }

    /// Puts the buffer back to where it was in the queue.
    pub fn give_back(&self, claimed: Claimed) {
        let ticket = claimed.ticket;
        let word = self.word(ticket.index);
        word.store(ticket.word(POSTED), Ordering::SeqCst);
        self.posted.fetch_or(ticket.index.bit(), Ordering::SeqCst);
    }
}
