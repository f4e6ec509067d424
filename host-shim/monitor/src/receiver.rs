// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What others need of a cVM to run its portals: its authority, its stacks, how to interrupt it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capstream_abi::Layout;
use capstream_abi::boot::{PAGE, PORTAL_STACK_SIZE, PORTAL_STACKS};
use capstream_capability::{Capability, Owner};

use crate::platform::{
    AddressSpace, Addressing, FaultReport, PlatformError, Processor, Protection, VcpuLine,
};
use crate::traffic::Ledger;

/// How often a sender yields before it gives up on a free portal stack.
const PATIENCE: u32 = 20_000;

/// A cVM as its senders know it. It does not keep the cVM's memory alive: whoever touches that has entered an endpoint of the cVM's.
pub struct Receiver {
    owner: Owner,
    /// What its portals may write to.
    authority: Capability,
    /// And in the window of its programs, once there is one.
    window: OnceLock<Capability>,
    addressing: Addressing,
    line: Arc<dyn VcpuLine>,
    stacks: PortalStacks,
    portal_deadline: Duration,
    /// What came in.
    ledger: Arc<Ledger>,
    /// Why it was ended by a sender's thread.
    failure: OnceLock<PortalFailed>,
}

/// What a portal did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each cVM, and a signal handler or a hostcall that makes it may not allocate"
)]
pub enum PortalFailed {
    /// It did something that was refused.
    Faulted(FaultReport),
    /// It did not return.
    Stuck,
}

impl Receiver {
    /// The cVM `owner` with these rights, whose portals may take this long.
    pub fn new(
        owner: Owner,
        authority: Capability,
        line: Arc<dyn VcpuLine>,
        layout: &Layout,
        addressing: Addressing,
        portal_deadline: Duration,
    ) -> Receiver {
        Receiver {
            owner,
            authority,
            window: OnceLock::new(),
            addressing,
            line,
            stacks: PortalStacks::new(layout),
            portal_deadline,
            ledger: Arc::default(),
            failure: OnceLock::new(),
        }
    }

    /// Who it is.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// A number that no other cVM of this monitor has or had.
    #[inline]
    pub fn number(&self) -> u64 {
        self.owner.generation()
    }

    /// What it may touch.
    #[inline]
    pub fn authority(&self) -> &Capability {
        &self.authority
    }

    /// What its portals may write to in the window of its programs; [`Capability::NULL`] while it has none.
    #[inline]
    pub fn window(&self) -> &Capability {
        self.window.get().unwrap_or(&Capability::NULL)
    }

    /// From now on it has this window. Only the first is taken.
    pub fn open_window(&self, window: Capability) {
        let _ = self.window.set(window);
    }

    /// How its code calls its addresses.
    #[inline]
    pub fn addressing(&self) -> Addressing {
        self.addressing
    }

    /// How to interrupt it.
    #[inline]
    pub fn line(&self) -> &Arc<dyn VcpuLine> {
        &self.line
    }

    /// Its stacks for portals.
    #[inline]
    pub fn stacks(&self) -> &PortalStacks {
        &self.stacks
    }

    /// How much processor time a portal of its may take.
    pub fn portal_deadline(&self) -> Duration {
        self.portal_deadline
    }

    /// What its portals have received.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Ends it because of what one of its portals did.
    pub fn fail(&self, failure: PortalFailed) {
        // The first failure is the one that is reported.
        let _ = self.failure.set(failure);
        self.line.kill();
    }

    /// Why it was ended by a sender's thread, if it was.
    pub fn failure(&self) -> Option<&PortalFailed> {
        self.failure.get()
    }
}

/// The stacks that portals of one cVM run on. They have a cache line of their own: senders write to it with each message, and what is around it
/// in a [`Receiver`] is read by others at the same time.
#[derive(Debug)]
#[repr(align(64))]
pub struct PortalStacks {
    base: u64,
    /// One bit for each stack in use.
    used: AtomicU32,
}

const _: () = assert!(PORTAL_STACKS <= u32::BITS as u64);

/// A stack, until it is dropped.
#[derive(Debug)]
pub struct PortalStack<'a> {
    stacks: &'a PortalStacks,
    index: u32,
}

impl PortalStacks {
    fn new(layout: &Layout) -> PortalStacks {
        PortalStacks {
            base: layout.portal_stacks,
            used: AtomicU32::new(0),
        }
    }

    /// Makes the lowest page of each stack inaccessible, so that a portal which needs more is stopped.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Host`].
    pub fn guard(space: &dyn AddressSpace, layout: &Layout) -> Result<(), PlatformError> {
        for index in 0..PORTAL_STACKS {
            let lowest = layout.portal_stacks + index * PORTAL_STACK_SIZE;
            space.protect(lowest, PAGE, Protection::NONE)?;
        }
        Ok(())
    }

    /// Takes a free stack; waits for one for a while. `None` when there is none, or the caller is to end.
    #[inline]
    pub fn take(&self, processor: &dyn Processor) -> Option<PortalStack<'_>> {
        for _ in 0..PATIENCE {
            if let Some(stack) = self.try_take() {
                return Some(stack);
            }
            if processor.is_killed() {
                return None;
            }
            processor.relax();
        }
        None
    }

    #[inline]
    fn try_take(&self) -> Option<PortalStack<'_>> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let index = used.trailing_ones();
            if u64::from(index) >= PORTAL_STACKS {
                return None;
            }
            match self.used.compare_exchange_weak(
                used,
                used | 1 << index,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Some(PortalStack {
                        stacks: self,
                        index,
                    });
                }
                Err(now) => used = now,
            }
        }
    }
}

impl PortalStack<'_> {
    /// The byte after it.
    #[inline]
    pub fn top(&self) -> u64 {
        self.stacks.base + (u64::from(self.index) + 1) * PORTAL_STACK_SIZE
    }
}

impl Drop for PortalStack<'_> {
    #[inline]
    fn drop(&mut self) {
        self.stacks
            .used
            .fetch_and(!(1 << self.index), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_given_out_once() {
        let layout = Layout::new(0x10000, 64 << 20, 4096, 1 << 20).unwrap();
        let stacks = PortalStacks::new(&layout);
        let mut taken: Vec<_> = (0..PORTAL_STACKS)
            .map(|_| stacks.try_take().unwrap())
            .collect();
        assert!(stacks.try_take().is_none());
        let mut tops: Vec<_> = taken.iter().map(PortalStack::top).collect();
        tops.dedup();
        assert_eq!(tops.len() as u64, PORTAL_STACKS);
        assert_eq!(tops.last(), Some(&layout.ram_begin));
        let top = taken.remove(3).top();
        assert_eq!(stacks.try_take().unwrap().top(), top);
    }
}
