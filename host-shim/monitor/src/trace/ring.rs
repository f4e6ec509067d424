// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one vCPU records for the trace: a ring of fixed capacity that its thread fills and the tracer's thread empties.
//!
//! The writer neither allocates nor waits nor takes a lock. It writes a slot, then publishes it by `head`; the reader copies slots, then
//! gives them back by `tail`. When there is no room, an event is counted as dropped and that is all.
//!
//! Begin and end of a slice belong together: a begin is recorded only when there is room for its end too, beside those of all slices that
//! are open, and the end of a slice whose begin was dropped is not recorded. So slices nest whatever is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::platform::Platform;
use crate::vcpu_record::Counter;

/// How many events fit, 2 MiB: a vCPU that does nothing but hostcalls fills it in more than a millisecond.
pub const CAPACITY: usize = 1 << 16;

/// What happened. Numbers are those of hostcalls and cVMs; results are what was returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hostcall begins.
    HostcallBegins {
        /// Its number.
        number: u64,
    },
    /// The last hostcall that began ends.
    HostcallEnds {
        /// What it returned.
        result: i64,
    },
    /// A portal begins.
    PortalBegins {
        /// The number of the cVM that it belongs to.
        owner: u64,
        /// Whether it is to deliver a message.
        delivers: bool,
        /// Bytes of the message.
        len: u64,
    },
    /// The last portal that began ends.
    PortalEnds {
        /// What it returned, or `None` when it did not return.
        result: Option<i64>,
    },
    /// The vCPU does something else from now on.
    Changes {
        /// What.
        state: VcpuState,
    },
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// It runs the cVM, or the monitor for it.
    Running,
    /// It sleeps.
    Asleep,
    /// Its thread has left it.
    Ended,
}

const SLOT: usize = 4;

impl Event {
    fn to_words(self) -> [u64; SLOT - 1] {
        match self {
            Event::HostcallBegins { number } => [0, number, 0],
            Event::HostcallEnds { result } => [1, result as u64, 0],
            Event::PortalBegins {
                owner,
                delivers: false,
                len,
            } => [2, owner, len],
            Event::PortalBegins {
                owner,
                delivers: true,
                len,
            } => [3, owner, len],
            Event::PortalEnds { result: None } => [4, 0, 0],
            Event::PortalEnds {
                result: Some(result),
            } => [5, result as u64, 0],
            Event::Changes { state } => [6 + state as u64, 0, 0],
        }
    }

    fn from_words([kind, a, b]: [u64; SLOT - 1]) -> Event {
        match kind {
            0 => Event::HostcallBegins { number: a },
            1 => Event::HostcallEnds { result: a as i64 },
            2 | 3 => Event::PortalBegins {
                owner: a,
                delivers: kind == 3,
                len: b,
            },
            4 => Event::PortalEnds { result: None },
            5 => Event::PortalEnds {
                result: Some(a as i64),
            },
            6 => Event::Changes {
                state: VcpuState::Running,
            },
            7 => Event::Changes {
                state: VcpuState::Asleep,
            },
            _ => Event::Changes {
                state: VcpuState::Ended,
            },
        }
    }
}

/// What only the writer writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Writer {
    /// How many events were ever written.
    head: AtomicU64,
    /// `tail` when it was last looked at.
    seen_tail: AtomicU64,
    /// How many recorded slices are open.
    open: AtomicU64,
    /// For each slice that is open, the innermost first, whether its begin was recorded.
    recorded: AtomicU64,
    dropped: Counter,
}

/// What only the reader writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Reader {
    /// How many events were ever read.
    tail: AtomicU64,
}

/// A ring. One thread writes, one reads.
pub struct Ring {
    clock: Arc<dyn Platform>,
    slots: Box<[[AtomicU64; SLOT]]>,
    writer: Writer,
    reader: Reader,
    ended: AtomicBool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("writer", &self.writer)
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// An empty ring of `capacity` events, whose times are those of `clock`.
    pub fn new(clock: Arc<dyn Platform>, capacity: usize) -> Ring {
        Ring {
            clock,
            slots: (0..capacity)
                .map(|_| [const { AtomicU64::new(0) }; SLOT])
                .collect(),
            writer: Writer::default(),
            reader: Reader::default(),
            ended: AtomicBool::new(false),
        }
    }

    // The writer's side. As `Hostcalls::light`: no thread-local variable, no lock, no allocation.

    /// Whether `count` events more fit.
    fn has_room(&self, count: u64) -> bool {
        let Writer {
            head, seen_tail, ..
        } = &self.writer;
        let end = head.load(Ordering::Relaxed).wrapping_add(count);
        let capacity = self.slots.len() as u64;
        if end.wrapping_sub(seen_tail.load(Ordering::Relaxed)) <= capacity {
            return true;
        }
        let tail = self.reader.tail.load(Ordering::Acquire);
        seen_tail.store(tail, Ordering::Relaxed);
        end.wrapping_sub(tail) <= capacity
    }

    fn write(&self, event: Event) {
        let head = self.writer.head.load(Ordering::Relaxed);
        if let Some(slot) = self.slot(head) {
            let [kind, a, b] = event.to_words();
            for (place, word) in slot.iter().zip([self.clock.now_ns(), kind, a, b]) {
                place.store(word, Ordering::Relaxed);
            }
        }
        self.writer
            .head
            .store(head.wrapping_add(1), Ordering::Release);
    }

    fn slot(&self, number: u64) -> Option<&[AtomicU64; SLOT]> {
        let index = number.checked_rem(self.slots.len() as u64)?;
        self.slots.get(usize::try_from(index).ok()?)
    }

    /// Records something that has no end.
    #[cold]
    pub fn instant(&self, event: Event) {
        let open = self.writer.open.load(Ordering::Relaxed);
        if self.has_room(open + 1) {
            self.write(event);
        } else {
            self.writer.dropped.add(1);
        }
    }

    /// Records the begin of a slice. [`Ring::end`] has to follow.
    #[cold]
    pub fn begin(&self, event: Event) {
        let Writer { open, recorded, .. } = &self.writer;
        let now_open = open.load(Ordering::Relaxed);
        let fits = self.has_room(now_open + 2);
        if fits {
            self.write(event);
            open.store(now_open + 1, Ordering::Relaxed);
        } else {
            self.writer.dropped.add(1);
        }
        let bits = recorded.load(Ordering::Relaxed) << 1 | u64::from(fits);
        recorded.store(bits, Ordering::Relaxed);
    }

    /// Records the end of the innermost slice that is open.
    #[cold]
    pub fn end(&self, event: Event) {
        let Writer { open, recorded, .. } = &self.writer;
        let bits = recorded.load(Ordering::Relaxed);
        recorded.store(bits >> 1, Ordering::Relaxed);
        if bits & 1 == 0 {
            self.writer.dropped.add(1);
            return;
        }
        open.store(
            open.load(Ordering::Relaxed).wrapping_sub(1),
            Ordering::Relaxed,
        );
        self.write(event);
    }

    /// Nothing more is written.
    pub fn close(&self) {
        self.ended.store(true, Ordering::Release);
    }

    // The reader's side.

    /// Hands all that was written, each with its time, to `take`.
    pub fn drain(&self, mut take: impl FnMut(u64, Event)) {
        let head = self.writer.head.load(Ordering::Acquire);
        let mut tail = self.reader.tail.load(Ordering::Relaxed);
        while tail != head {
            if let Some([time, words @ ..]) = self.slot(tail) {
                let words = words.each_ref().map(|word| word.load(Ordering::Relaxed));
                take(time.load(Ordering::Relaxed), Event::from_words(words));
            }
            tail = tail.wrapping_add(1);
            self.reader.tail.store(tail, Ordering::Release);
        }
    }

    /// How many events were not recorded.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped.get()
    }

    /// Whether nothing more is written; what was written before can be read.
    pub fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{self, Options};

    fn ring(capacity: usize) -> Ring {
        let clock = platform::by_name("cheri-riscv64", &Options::default()).unwrap();
        Ring::new(clock, capacity)
    }

    fn drained(ring: &Ring) -> Vec<Event> {
        let mut events = Vec::new();
        ring.drain(|_, event| events.push(event));
        events
    }

    #[test]
    fn every_event_comes_out_as_it_went_in() {
        let ring = ring(64);
        let mut events = vec![
            Event::HostcallBegins { number: 411 },
            Event::HostcallEnds { result: -11 },
            Event::PortalEnds { result: None },
            Event::PortalEnds {
                result: Some(i64::MIN),
            },
        ];
        for delivers in [false, true] {
            events.push(Event::PortalBegins {
                owner: 7,
                delivers,
                len: u64::MAX,
            });
        }
        for state in [VcpuState::Running, VcpuState::Asleep, VcpuState::Ended] {
            events.push(Event::Changes { state });
        }
        for event in &events {
            ring.instant(*event);
        }
        assert_eq!(drained(&ring), events);
        assert_eq!(drained(&ring), []);
        assert_eq!(ring.dropped(), 0);
    }

    #[test]
    fn slices_nest_whatever_is_dropped() {
        let running = Event::Changes {
            state: VcpuState::Running,
        };
        for capacity in 1..12 {
            let ring = ring(capacity);
            let mut total = 0;
            let mut depth = 0_i64;
            let mut seen = 0;
            let mut check = |ring: &Ring| {
                ring.drain(|_, event| {
                    seen += 1;
                    match event {
                        Event::HostcallBegins { .. } | Event::PortalBegins { .. } => depth += 1,
                        Event::HostcallEnds { .. } | Event::PortalEnds { .. } => depth -= 1,
                        Event::Changes { .. } => {}
                    }
                    assert!(depth >= 0);
                });
                depth
            };
            for round in 0..50 {
                ring.begin(Event::HostcallBegins { number: 411 });
                ring.instant(running);
                ring.begin(Event::PortalBegins {
                    owner: 1,
                    delivers: true,
                    len: 8,
                });
                if round % 7 == 0 {
                    check(&ring);
                }
                ring.begin(Event::HostcallBegins { number: 413 });
                ring.end(Event::HostcallEnds { result: 0 });
                ring.end(Event::PortalEnds { result: Some(0) });
                ring.end(Event::HostcallEnds { result: 0 });
                total += 7;
            }
            assert_eq!(check(&ring), 0, "capacity {capacity}");
            assert_eq!(seen + ring.dropped(), total, "capacity {capacity}");
        }
    }

    #[test]
    fn what_is_read_while_it_is_written_is_whole_and_in_order() {
        const COUNT: u64 = 200_000;
        let ring = ring(128);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    ring.instant(Event::PortalBegins {
                        owner: number,
                        delivers: true,
                        len: !number,
                    });
                }
                ring.close();
            });
            let (mut next, mut seen, mut last_time) = (0, 0, 0);
            loop {
                let closed = ring.is_closed();
                ring.drain(|time, event| {
                    let Event::PortalBegins { owner, len, .. } = event else {
                        panic!("{event:?}");
                    };
                    assert_eq!(len, !owner);
                    assert!(owner >= next && time >= last_time);
                    (next, last_time) = (owner + 1, time);
                    seen += 1;
                });
                if closed {
                    break;
                }
            }
            assert_eq!(seen + ring.dropped(), COUNT);
            assert!(seen > 0);
        });
    }
}
