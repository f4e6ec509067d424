// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several harts of one memory on threads of the host: atomic operations, the order of accesses, and tags that nobody can forge.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod single;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use capstream_hart::{Capability, Exit, Hart, Isa, Memory, Region};
use single::*;

const HARTS: u64 = 3;
/// Instructions until a hart lets other threads run, which it may be waiting for.
const SLICE: u64 = 5_000;
/// Slices after which a program that should have ended counts as hung.
const SLICES: u64 = 2_000_000;
/// How long harts try to forge; longer if no tag has been seen by then.
const ATTEMPT: Duration = Duration::from_millis(400);
/// How long it takes at most until one has been seen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shared {
    memory: Arc<Memory>,
    region: Arc<Region>,
}

impl Shared {
    fn new() -> Shared {
        let machine = Machine::new(Isa::V9);
        Shared {
            memory: machine.memory,
            region: machine.region,
        }
    }

    /// A hart that runs a program of its own, with some registers.
    fn hart(&self, code: u64, program: &[u32], registers: &[(usize, u64)]) -> Hart {
        write(&self.region, code, program);
        let mut hart = Machine::hart(&self.memory, Isa::V9);
        hart.set_pcc(&Capability::root().with_address(code));
        for (n, value) in registers {
            hart.set_x(*n, *value);
        }
        hart
    }

    fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.region.read(address, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
}

/// Runs a hart until its `ebreak`.
fn finish(hart: &mut Hart) {
    for _ in 0..SLICES {
        match hart.run(SLICE) {
            Exit::Limit => thread::yield_now(),
            Exit::Trap(trap) if trap.cause == 3 => return,
            exit => panic!("{exit:?} at {:#x}", hart.pc()),
        }
    }
    panic!("it does not end; it is at {:#x}", hart.pc());
}

#[test]
fn counters_lose_nothing() {
    const ROUNDS: u64 = 20_000;
    // x10: rounds; x11: the counters.
    for (name, program) in [
        (
            "amoadd.d",
            vec![
                addi(12, 0, 1),
                amo(ADD, 3, 0, 11, 12),
                addi(10, 10, -1),
                bne(10, 0, -8),
                EBREAK,
            ],
        ),
        (
            "lr.d and sc.d",
            vec![
                amo(LR, 3, 12, 11, 0),
                addi(12, 12, 1),
                amo(SC, 3, 12, 11, 12),
                bne(12, 0, -12),
                addi(10, 10, -1),
                bne(10, 0, -20),
                EBREAK,
            ],
        ),
        (
            // The low half of a capability is its address.
            "lr.c and sc.c",
            vec![
                amo(LR, 4, 12, 11, 0),
                i(0x5b, 1, 12, 12, 1),
                amo(SC, 4, 13, 11, 12),
                bne(13, 0, -12),
                addi(10, 10, -1),
                bne(10, 0, -20),
                EBREAK,
            ],
        ),
    ] {
        // On pages with and without tags.
        for counter in [DATA, PLAIN] {
            let shared = Shared::new();
            let mut harts: Vec<Hart> = (0..HARTS)
                .map(|_| shared.hart(BASE, &program, &[(10, ROUNDS), (11, counter)]))
                .collect();
            thread::scope(|scope| {
                for hart in &mut harts {
                    scope.spawn(|| finish(hart));
                }
            });
            assert_eq!(shared.word(counter), HARTS * ROUNDS, "{name}");
        }
    }
}

#[test]
fn exchanges_of_granules_and_of_words_lose_nothing() {
    // One hart counts in the high half, another exchanges the whole granule to count in the low half.
    const WORDS: u64 = 8_000_000;
    const GRANULES: u64 = 1_600_000;
    let words = [
        addi(12, 0, 1),
        amo(ADD, 3, 0, 11, 12),
        addi(10, 10, -1),
        bne(10, 0, -8),
        EBREAK,
    ];
    let granules = [
        amo(LR, 4, 12, 11, 0),
        i(0x5b, 1, 12, 12, 1),
        amo(SC, 4, 13, 11, 12),
        bne(13, 0, -12),
        addi(10, 10, -1),
        bne(10, 0, -20),
        EBREAK,
    ];
    for counter in [DATA, PLAIN] {
        let shared = Shared::new();
        let mut one = shared.hart(BASE, &words, &[(10, WORDS), (11, counter + 8)]);
        let mut other = shared.hart(BASE + 0x100, &granules, &[(10, GRANULES), (11, counter)]);
        thread::scope(|scope| {
            scope.spawn(|| finish(&mut one));
            scope.spawn(|| finish(&mut other));
        });
        assert_eq!(shared.word(counter), GRANULES);
        assert_eq!(shared.word(counter + 8), WORDS);
    }
}

#[test]
fn harts_and_the_host_count_together() {
    const ROUNDS: u64 = 50_000;
    let shared = Shared::new();
    let program = [
        addi(12, 0, 1),
        amo(ADD, 2, 0, 11, 12),
        addi(10, 10, -1),
        bne(10, 0, -8),
        EBREAK,
    ];
    let mut hart = shared.hart(BASE, &program, &[(10, ROUNDS), (11, PLAIN)]);
    let host = shared.region.host_pointer(PLAIN).unwrap();
    // SAFETY: the region is alive, and the word is aligned.
    let word = unsafe { std::sync::atomic::AtomicU32::from_ptr(host.cast()) };
    thread::scope(|scope| {
        scope.spawn(|| finish(&mut hart));
        for _ in 0..ROUNDS {
            word.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!(shared.word(PLAIN), 2 * ROUNDS);
}

#[test]
fn messages_arrive_before_their_flag() {
    const ROUNDS: u64 = 20_000;
    let shared = Shared::new();
    let (message, flag) = (PLAIN, PLAIN + 0x100);
    // x10: round; x11: message; x12: flag; x13: the last round.
    let sender = [
        addi(10, 10, 1),
        sd(10, 11, 0),
        FENCE,
        sd(10, 12, 0),
        // Waits for the answer, which is the negative round.
        r(0x33, 0, 0x20, 15, 0, 10),
        ld(14, 12, 0),
        bne(14, 15, -4),
        bne(10, 13, -28),
        EBREAK,
    ];
    let receiver = [
        addi(10, 10, 1),
        ld(14, 12, 0),
        bne(14, 10, -4),
        FENCE,
        ld(14, 11, 0),
        // The message has to be there.
        beq(14, 10, 8),
        0,
        r(0x33, 0, 0x20, 15, 0, 10),
        FENCE,
        sd(15, 12, 0),
        bne(10, 13, -40),
        EBREAK,
    ];
    let registers = [(11, message), (12, flag), (13, ROUNDS)];
    let mut one = shared.hart(BASE, &sender, &registers);
    let mut other = shared.hart(BASE + 0x100, &receiver, &registers);
    thread::scope(|scope| {
        scope.spawn(|| finish(&mut one));
        scope.spawn(|| finish(&mut other));
    });
}

#[test]
fn two_stores_and_two_loads_are_ordered_by_fences() {
    // Store buffering: both harts store to their own place, fence, and load the other's. Not both may see the old value.
    const ROUNDS: u64 = 3_000;
    let shared = Shared::new();
    // x10: own place; x11: other place; x12: result; x13: this round; x14: where both meet.
    let program = [
        // Both meet: a counter reaches twice the round.
        addi(15, 0, 1),
        amo(ADD, 3, 0, 14, 15),
        r(0x33, 0, 0, 16, 13, 13),
        ld(15, 14, 0),
        b(6, 15, 16, -4),
        sd(13, 10, 0),
        FENCE,
        ld(12, 11, 0),
        EBREAK,
    ];
    let places = [PLAIN, PLAIN + 0x100, PLAIN + 0x200];
    let mut one = shared.hart(
        BASE,
        &program,
        &[(10, places[0]), (11, places[1]), (14, places[2])],
    );
    let mut other = shared.hart(
        BASE + 0x100,
        &program,
        &[(10, places[1]), (11, places[0]), (14, places[2])],
    );
    let round = |hart: &mut Hart, code: u64, round: u64| {
        hart.set_x(13, round);
        hart.set_pcc(&Capability::root().with_address(code));
        finish(hart);
        hart.x(12)
    };
    let (mine, theirs): (Vec<u64>, Vec<u64>) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            (1..=ROUNDS)
                .map(|n| round(&mut other, BASE + 0x100, n))
                .collect()
        });
        let mine = (1..=ROUNDS).map(|n| round(&mut one, BASE, n)).collect();
        (mine, other.join().unwrap())
    });
    for (n, (mine, theirs)) in (1..).zip(mine.into_iter().zip(theirs)) {
        assert!(
            mine >= n || theirs >= n,
            "round {n}: both saw what was before"
        );
    }
}

/// Loads a capability from x11 over and over; ends if it is tagged and neither of c20 and c21. Counts in x10 and, if it is tagged, in x9.
fn observer() -> Vec<u32> {
    vec![
        addi(10, 10, 1),
        lc(12, 11, 0),
        two(CGETTAG, 13, 12),
        beq(13, 0, -12),
        addi(9, 9, 1),
        three(CSEQX, 13, 12, 20),
        bne(13, 0, -24),
        three(CSEQX, 13, 12, 21),
        bne(13, 0, -32),
        EBREAK,
    ]
}

/// Runs an observer against harts that write, all with the two capabilities in c20 and c21; the tagged capability that should not be.
fn forged(
    shared: &Shared,
    writers: &[Vec<u32>],
    meanwhile: impl Fn(&Region) + Sync,
) -> Option<Capability> {
    let one = Capability::root().set_bounds(0x1000, 0x100).0;
    let other = Capability::root().set_bounds(0x7_0000, 0x4000).0;
    let other = other.with_address(0x7_1234);
    let registers = [(11, DATA), (14, 0xdead_beef)];
    let mut observing = shared.hart(BASE, &observer(), &registers);
    let mut writing: Vec<Hart> = writers
        .iter()
        .zip(1..)
        .map(|(program, n)| shared.hart(BASE + n * 0x100, program, &registers))
        .collect();
    for hart in writing.iter_mut().chain([&mut observing]) {
        hart.set_capability(20, &one);
        hart.set_capability(21, &other);
    }
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        for hart in &mut writing {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    match hart.run(100 * SLICE) {
                        Exit::Limit => {}
                        // A page that cannot hold tags for a moment: go on behind the instruction.
                        Exit::Trap(trap) if trap.cause == 0x1b => {
                            let next = trap.pcc.address() + 4;
                            hart.set_pcc(&trap.pcc.with_address(next));
                        }
                        exit => panic!("{exit:?}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                meanwhile(&shared.region);
            }
        });
        let begin = Instant::now();
        let mut result = None;
        while result.is_none()
            && (begin.elapsed() < ATTEMPT || observing.x(9) == 0)
            && begin.elapsed() < PATIENCE
        {
            match observing.run(100 * SLICE) {
                Exit::Limit => {}
                Exit::Trap(trap) if trap.cause == 3 => result = Some(observing.capability(12)),
                exit => panic!("{exit:?}"),
            }
        }
        done.store(true, Ordering::SeqCst);
        result
    });
    assert!(observing.x(9) > 0, "no tag was ever seen");
    result
}

#[test]
fn no_tag_comes_with_the_bytes_of_another_write() {
    // Writers: both capabilities in turn; halves of either; an atomic operation; a misaligned store.
    let capabilities = vec![sc(20, 11, 0), sc(21, 11, 0), jal(0, -8)];
    let halves = vec![sd(14, 11, 0), sd(14, 11, 8), jal(0, -8)];
    let atomic = vec![
        amo(SWAP, 3, 0, 11, 14),
        amo(SWAP, 4, 12, 11, 20),
        jal(0, -8),
    ];
    let misaligned = vec![sw(14, 11, 6), i(0x13, 0, 0, 0, 0), jal(0, -8)];
    for writers in [
        vec![capabilities.clone(), capabilities.clone()],
        vec![capabilities.clone(), halves],
        vec![capabilities.clone(), atomic],
        vec![capabilities, misaligned],
    ] {
        let shared = Shared::new();
        let found = forged(&shared, &writers, |_| thread::yield_now());
        assert_eq!(found, None);
    }
}

#[test]
fn no_tag_comes_with_bytes_that_were_stored_while_the_page_could_not_hold_it() {
    let capabilities = vec![sc(20, 11, 0), sc(21, 11, 0), jal(0, -8)];
    let halves = vec![sd(14, 11, 0), sd(14, 11, 8), jal(0, -8)];
    let shared = Shared::new();
    let found = forged(&shared, &[capabilities, halves], |region| {
        region.protect(DATA, 0x1000, flags("rw")).unwrap();
        region.protect(DATA, 0x1000, flags("rwc")).unwrap();
    });
    assert_eq!(found, None);
}

#[test]
fn the_monitors_writes_do_not_forge_either() {
    let capabilities = vec![sc(20, 11, 0), sc(21, 11, 0), jal(0, -8)];
    let shared = Shared::new();
    let found = forged(&shared, &[capabilities], |region| {
        region
            .write(DATA + 4, &[1, 2, 3, 4, 5, 6, 7, 8, 9])
            .unwrap();
    });
    assert_eq!(found, None);
}

#[test]
fn a_page_is_protected_when_protect_returns() {
    let shared = Shared::new();
    // Counts in memory until it traps.
    let program = [addi(10, 10, 1), sd(10, 11, 0), jal(0, -8)];
    for _ in 0..200 {
        shared.region.protect(PLAIN, 0x1000, flags("rw")).unwrap();
        let mut hart = shared.hart(BASE, &program, &[(11, PLAIN)]);
        thread::scope(|scope| {
            let running = scope.spawn(|| hart.run(u64::MAX));
            while shared.word(PLAIN) == 0 {
                thread::yield_now();
            }
            shared.region.protect(PLAIN, 0x1000, flags("r")).unwrap();
            let last = shared.word(PLAIN);
            for _ in 0..100 {
                assert_eq!(
                    shared.word(PLAIN),
                    last,
                    "stored after protect had returned"
                );
            }
            let Exit::Trap(trap) = running.join().unwrap() else {
                panic!("no trap");
            };
            assert_eq!((trap.cause, trap.address), (15, PLAIN));
        });
        shared.region.poke(PLAIN, &[0; 8]).unwrap();
    }
}

#[test]
fn a_hart_that_runs_for_ever_is_reached() {
    let shared = Shared::new();
    let mut hart = shared.hart(BASE, &[jal(0, 0)], &[]);
    let attention = hart.attention();
    for _ in 0..50 {
        thread::scope(|scope| {
            let running = scope.spawn(|| hart.run(u64::MAX));
            attention.raise();
            assert_eq!(running.join().unwrap(), Exit::Attention);
        });
        assert_eq!(
            hart.run(1000),
            Exit::Attention,
            "raised until it is cleared"
        );
        attention.clear();
        assert_eq!(hart.run(1000), Exit::Limit);
    }
}

#[test]
fn code_that_one_hart_writes_runs_on_the_others_after_its_fence_i() {
    // The writer replaces an instruction and says so in x12's word; the reader calls it when it sees that.
    let shared = Shared::new();
    let function = BASE + 0x200;
    write(&shared.region, function, &[addi(10, 0, 1), jalr(0, 1, 0)]);
    let writer = [sw(13, 11, 0), FENCE_I, FENCE, sw(14, 12, 0), EBREAK];
    let reader = [lw(15, 12, 0), bne(15, 14, -4), jal(1, 0x1f8), EBREAK];
    for value in 2..50 {
        let registers = |code| {
            [
                (11, function),
                (12, PLAIN),
                (13, u64::from(addi(10, 0, value))),
                (14, value as u64),
                (1, code),
            ]
        };
        let mut one = shared.hart(BASE + 0x100, &writer, &registers(0));
        let mut other = shared.hart(BASE, &reader, &registers(0));
        // The reader has decoded what was there before.
        other.set_pcc(&Capability::root().with_address(BASE + 8));
        finish(&mut other);
        assert_eq!(other.x(10), value as u64 - 1);
        other.set_pcc(&Capability::root().with_address(BASE));
        thread::scope(|scope| {
            scope.spawn(|| finish(&mut other));
            scope.spawn(|| finish(&mut one));
        });
        assert_eq!(other.x(10), value as u64);
    }
}
