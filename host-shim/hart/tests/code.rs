// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fetching: code that changes, moves and disappears, limits, and the native window.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod single;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capstream_hart::{Capability, Device, Exit, Isa, Region, Trap};
use single::*;

fn at(machine: &mut Machine, address: u64) {
    machine
        .hart
        .set_pcc(&Capability::root().with_address(address));
}

fn trap(exit: Exit) -> Trap {
    match exit {
        Exit::Trap(trap) => trap,
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn code_that_a_program_changes_runs_after_fence_i() {
    for isa in [Isa::V8, Isa::V9] {
        let mut machine = Machine::new(isa);
        // Calls a function, replaces its first instruction, calls it again, counts in x10.
        let function = BASE + 0x40;
        write(&machine.region, function, &[addi(10, 10, 1), jalr(0, 1, 0)]);
        write(
            &machine.region,
            BASE,
            &[
                jal(1, 0x40),
                sw(11, 12, 0),
                FENCE_I,
                jal(1, 0x34),
                jal(1, 0x30),
                EBREAK,
            ],
        );
        machine.hart.set_ddc(&Capability::root());
        machine.hart.set_x(11, u64::from(addi(10, 10, 16)));
        machine.hart.set_x(12, function);
        for round in 1..=3 {
            at(&mut machine, BASE);
            assert_eq!(trap(machine.hart.run(100)).cause, 3);
            // The first round begins with the old instruction.
            let expected = if round == 1 { 1 + 32 } else { 48 };
            assert_eq!(machine.hart.x(10), expected);
            machine.hart.set_x(10, 0);
        }
    }
}

#[test]
fn instructions_may_lie_across_pages() {
    let mut machine = Machine::new(Isa::V9);
    let (first, second) = (BASE + 0x2000, BASE + 0x3000);
    write(&machine.region, second - 2, &[addi(10, 10, 5), EBREAK]);
    at(&mut machine, second - 2);
    assert_eq!(machine.hart.run(1), Exit::Limit);
    assert_eq!((machine.hart.x(10), machine.hart.pc()), (5, second + 2));
    // It can be reached from what precedes it.
    write(&machine.region, second - 6, &[addi(10, 10, 7)]);
    at(&mut machine, second - 6);
    assert_eq!(machine.hart.run(2), Exit::Limit);
    assert_eq!(machine.hart.x(10), 17);
    // Either half changes it.
    machine
        .region
        .poke(second, &(addi(10, 10, 9) >> 16).to_le_bytes()[..2])
        .unwrap();
    machine.hart.forget_code();
    at(&mut machine, second - 2);
    assert_eq!(machine.hart.run(1), Exit::Limit);
    assert_eq!(machine.hart.x(10), 26);
    // Without the second page it fails there, at the instruction.
    machine.region.protect(second, 0x1000, flags("rw")).unwrap();
    at(&mut machine, second - 6);
    let trap = trap(machine.hart.run(10));
    assert_eq!((trap.cause, trap.tval), (12, second));
    assert_eq!(trap.pcc.address(), second - 2);
    machine.region.protect(first, 0x1000, flags("r")).unwrap();
    assert_eq!(self::trap(machine.hart.run(10)).tval, second - 2);
}

#[test]
fn pages_that_lose_their_permission_are_not_executed_any_more() {
    let mut machine = Machine::new(Isa::V9);
    write(&machine.region, BASE, &[addi(10, 10, 1), jal(0, -4)]);
    at(&mut machine, BASE);
    assert_eq!(machine.hart.run(10), Exit::Limit);
    machine.region.protect(BASE, 0x1000, flags("r")).unwrap();
    assert_eq!(trap(machine.hart.run(10)).cause, 12);
    machine.region.protect(BASE, 0x1000, flags("rx")).unwrap();
    assert_eq!(machine.hart.run(10), Exit::Limit);
}

#[test]
fn a_region_that_replaces_another_brings_its_own_code() {
    let mut machine = Machine::new(Isa::V9);
    let other = BASE + 0x100_0000;
    for value in 1..=3 {
        let region = Arc::new(Region::anonymous(other, 0x1000, flags("rwx")).unwrap());
        write(&region, other, &[addi(10, 0, value), EBREAK]);
        machine.memory.add(Arc::clone(&region)).unwrap();
        at(&mut machine, other);
        assert_eq!(trap(machine.hart.run(10)).cause, 3);
        assert_eq!(machine.hart.x(10), value as u64);
        assert!(machine.memory.remove(other));
        at(&mut machine, other);
        assert_eq!(trap(machine.hart.run(10)).cause, 1);
        // Data, too.
        machine.hart.set_x(11, other);
        assert_eq!(machine.trap(ld(12, 11, 0)), (5, other));
        assert!(machine.memory.find(other).is_none());
    }
    assert!(!machine.memory.remove(other));
}

#[test]
fn every_limit_is_met_exactly() {
    let mut machine = Machine::new(Isa::V9);
    let mut program = vec![addi(10, 10, 1); 200];
    program.push(jal(0, -800));
    write(&machine.region, BASE, &program);
    at(&mut machine, BASE);
    let mut expected = 0;
    for limit in (0..150).chain([1000, 5000]) {
        assert_eq!(machine.hart.run(limit), Exit::Limit);
        expected += limit;
        assert_eq!(machine.hart.instructions_retired(), expected);
        let (rounds, rest) = (expected / 201, expected % 201);
        assert_eq!(machine.hart.x(10), rounds * 200 + rest);
        assert_eq!(machine.hart.pc(), BASE + 4 * rest);
    }
}

#[test]
fn the_native_window_stops_every_way_into_it() {
    for isa in [Isa::V8, Isa::V9] {
        let mut machine = Machine::new(isa);
        let window = BASE + 0x40..BASE + 0x50;
        write(
            &machine.region,
            BASE,
            &[vec![addi(10, 10, 1); 16], vec![0; 4], vec![jal(0, -0x10)]].concat(),
        );
        // Code that was decoded before the window was set counts, too.
        at(&mut machine, BASE);
        assert_eq!(trap(machine.hart.run(100)).cause, 2);
        machine.hart.set_native_window(window.clone());
        machine.hart.set_x(10, 0);
        // By falling into it.
        at(&mut machine, BASE);
        let stop = Exit::Native {
            address: window.start,
        };
        assert_eq!(machine.hart.run(100), stop);
        assert_eq!(machine.hart.x(10), 16);
        assert_eq!(machine.hart.pc(), window.start);
        assert_eq!(machine.hart.run(100), stop, "it stays there");
        // By a jump.
        at(&mut machine, BASE + 0x50);
        assert_eq!(machine.hart.run(100), stop);
        // At once, wherever in it, even if there is no memory or no authority.
        for address in [window.start, window.end - 2] {
            at(&mut machine, address);
            assert_eq!(machine.hart.run(100), Exit::Native { address });
        }
        machine.hart.set_native_window(0x10..0x20);
        machine.hart.set_pcc(&Capability::null().with_address(0x10));
        assert_eq!(machine.hart.run(100), Exit::Native { address: 0x10 });
        // Without it, nothing is left of it.
        machine.hart.set_native_window(0..0);
        at(&mut machine, BASE);
        assert_eq!(trap(machine.hart.run(100)).cause, 2);
    }
}

#[test]
fn integer_and_capability_mode_share_no_code() {
    let mut machine = Machine::new(Isa::V9);
    write(&machine.region, BASE, &[ld(11, 10, 0), EBREAK]);
    machine.region.write(DATA, &7u64.to_le_bytes()).unwrap();
    machine.hart.set_x(10, DATA);
    for _ in 0..3 {
        at(&mut machine, BASE);
        assert_eq!(trap(machine.hart.run(10)).cause, 3);
        assert_eq!(machine.hart.x(11), 7);
        let code = Capability::root().with_flag(true);
        machine.hart.set_pcc(&code.with_address(BASE));
        let trap = trap(machine.hart.run(10));
        assert_eq!((trap.cause, trap.tval), violation(2, 10));
    }
}

#[test]
fn more_code_than_is_kept_runs_all_the_same() {
    // Jumps from page to page, a different block each time, often enough to fill the cache of decoded instructions more than once.
    let mut machine = Machine::new(Isa::V9);
    let begin = BASE + 0x200_0000;
    let (blocks, size) = (12_000u64, 0x80u64);
    let region = Region::anonymous(begin, blocks * size, flags("rwx")).unwrap();
    for block in 0..blocks {
        let mut program = vec![addi(10, 10, 1); 31];
        let next = if block + 1 == blocks {
            -((blocks - 1) as i64 * size as i64) - 124
        } else {
            4
        };
        // The last goes back to the first by a register.
        program.push(if next == 4 { jal(0, 4) } else { jalr(0, 11, 0) });
        write(&region, begin + block * size, &program);
    }
    machine.memory.add(Arc::new(region)).unwrap();
    machine.hart.set_x(11, begin);
    at(&mut machine, begin);
    let rounds = 4;
    assert_eq!(machine.hart.run(rounds * blocks * 32), Exit::Limit);
    assert_eq!(machine.hart.x(10), rounds * blocks * 31);
    assert_eq!(machine.hart.pc(), begin);
}

/// Counts what is done to it.
#[derive(Default)]
struct Register {
    value: AtomicU64,
    last: AtomicU64,
}

impl Device for Register {
    fn read(&self, offset: u64, size: u8) -> u64 {
        self.last
            .store(offset << 8 | u64::from(size), Ordering::SeqCst);
        self.value.load(Ordering::SeqCst)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.last
            .store(1 << 32 | offset << 8 | u64::from(size), Ordering::SeqCst);
        self.value.store(value, Ordering::SeqCst);
    }
}

#[test]
fn devices_are_loaded_and_stored() {
    for isa in [Isa::V8, Isa::V9] {
        let mut machine = Machine::new(isa);
        let device = Arc::new(Register::default());
        let place = 0x1000_0000;
        machine
            .memory
            .add_device(place, 0x104, Arc::clone(&device) as Arc<dyn Device>)
            .unwrap();
        machine.hart.set_x(10, place + 0x10);
        machine.hart.set_x(11, 0x8877_6655_4433_2291);
        for (size, value, read) in [
            (0u32, 0x91, 0xffff_ffff_ffff_ff91),
            (1, 0x2291, 0x2291),
            (2, 0x4433_2291, 0x4433_2291),
            (3, 0x8877_6655_4433_2291, 0x8877_6655_4433_2291),
        ] {
            machine.execute(s(0x23, size, 10, 11, 0)).unwrap();
            assert_eq!(device.value.load(Ordering::SeqCst), value);
            assert_eq!(
                device.last.load(Ordering::SeqCst),
                1 << 32 | 0x1000 | 1 << size
            );
            machine.execute(i(0x03, size, 12, 10, 0)).unwrap();
            assert_eq!(machine.hart.x(12), read);
            assert_eq!(device.last.load(Ordering::SeqCst), 0x1000 | 1 << size);
        }
        // What a device cannot do.
        for (offset, instruction, cause) in [
            (1, lw(12, 10, 0), 4),
            (1, sw(12, 10, 0), 6),
            (0x100, ld(12, 10, 0), 5),
            (0x104, lw(12, 10, 0), 5),
            (0, lc(12, 10, 0), 5),
            (0, sc(12, 10, 0), 7),
            (0, amo(ADD, 2, 12, 10, 11), 7),
            (0, amo(LR, 2, 12, 10, 0), 5),
        ] {
            machine.hart.set_x(10, place + offset);
            assert_eq!(
                machine.trap(instruction),
                (cause, place + offset),
                "{instruction:#x}"
            );
        }
        at(&mut machine, place);
        assert_eq!(trap(machine.hart.run(1)).cause, 1);
    }
}

#[test]
fn misaligned_accesses_work_over_pages_and_regions() {
    for isa in [Isa::V8, Isa::V9] {
        let mut machine = Machine::new(isa);
        let next = Region::anonymous(BASE + SIZE, 0x1000, flags("rw")).unwrap();
        let next = Arc::new(next);
        machine.memory.add(Arc::clone(&next)).unwrap();
        machine.hart.set_x(11, 0x0102_0304_0506_0708);
        for place in [
            PLAIN + 1,
            DATA + 0xffd,
            PLAIN + 0xffd,
            PLAIN - 3,
            BASE + SIZE - 5,
        ] {
            machine.hart.set_x(10, place);
            machine.execute(sd(11, 10, 0)).unwrap();
            machine.execute(ld(12, 10, 0)).unwrap();
            assert_eq!(machine.hart.x(12), 0x0102_0304_0506_0708, "{place:#x}");
            machine.execute(lw(12, 10, 4)).unwrap();
            assert_eq!(machine.hart.x(12), 0x0102_0304);
        }
        // All or nothing.
        next.protect(BASE + SIZE, 0x1000, flags("r")).unwrap();
        machine.hart.set_x(10, BASE + SIZE - 5);
        machine.hart.set_x(11, 0);
        assert_eq!(machine.trap(sd(11, 10, 0)), (15, BASE + SIZE - 5));
        machine.execute(ld(12, 10, 0)).unwrap();
        assert_eq!(machine.hart.x(12), 0x0102_0304_0506_0708);
        machine
            .region
            .protect(PLAIN + 0x1000, 0x1000, flags("r"))
            .unwrap();
        machine.hart.set_x(10, PLAIN + 0xffd);
        assert_eq!(machine.trap(sd(11, 10, 0)), (15, PLAIN + 0xffd));
        machine.execute(ld(12, 10, 0)).unwrap();
        assert_eq!(machine.hart.x(12), 0x0102_0304_0506_0708);
        // Over the end of everything.
        machine.hart.set_x(10, BASE + SIZE + 0xffd);
        assert_eq!(machine.trap(ld(12, 10, 0)), (5, BASE + SIZE + 0xffd));
    }
}
