// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trampolines of CHERI-RISC-V, executed on a hart without a cVM: copies through capabilities, and what crosses in registers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

use std::sync::Arc;

use capstream_abi::riscv64::{CAPABILITY_SIZE, store};
use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, PageFlags, Privilege, Region, Trap, Traps,
};
use capstream_monitor::platform::cheri_riscv64::context_layout as ctx;
use capstream_monitor::platform::cheri_riscv64::trampoline::{
    ContextMemory, Machine, NATIVE_HOSTCALL, NATIVE_RETURN, NATIVE_WINDOW, monitor_code,
    monitor_data,
};

const PAGE: u64 = 4096;
/// Where the tests' own memory is.
const MEMORY: u64 = 0x2000_0000;
const LEN: u64 = 64 * PAGE;
/// What memory holds before a copy.
const BLANK: u8 = 0xee;

const RA: usize = 1;
const SP: usize = 2;
const T0: usize = 5;
const T1: usize = 6;
const T2: usize = 7;
const T3: usize = 28;
const T5: usize = 30;
const T6: usize = 31;
const A0: usize = 10;
const A1: usize = 11;
const A2: usize = 12;
const A3: usize = 13;
const TP: usize = 4;

struct Setting {
    machine: Machine,
    region: Arc<Region>,
    context: ContextMemory,
    hart: Hart,
}

impl Setting {
    fn new(isa: Isa) -> Setting {
        let machine = Machine::new().unwrap();
        let flags = PageFlags::READ | PageFlags::WRITE | PageFlags::CAPABILITIES;
        let region = Arc::new(Region::anonymous(MEMORY, LEN, flags).unwrap());
        machine.memory.add(Arc::clone(&region)).unwrap();
        let context = machine.context().unwrap();
        let mut hart = Hart::new(
            Arc::clone(&machine.memory),
            Config {
                isa,
                traps: Traps::Exit,
            },
        );
        hart.set_native_window(NATIVE_WINDOW);
        hart.set_privilege(Privilege::User);
        Setting {
            machine,
            region,
            context,
            hart,
        }
    }

    /// Begins the call of one of the monitor's functions.
    fn begin(&mut self, function: u64) {
        self.hart.set_pcc(&monitor_code(function));
        self.hart.set_ddc(&monitor_data(0));
        self.hart.set_x(RA, NATIVE_RETURN);
        self.hart.set_x(SP, self.context.stack());
    }

    /// Runs a function that makes no hostcall, handles its faults as the monitor does, and returns its result.
    fn finish(&mut self) -> u64 {
        loop {
            match self.hart.run(1 << 20) {
                Exit::Native { address } => {
                    assert_eq!(address, NATIVE_RETURN);
                    return self.hart.x(A0);
                }
                Exit::Trap(Trap { pcc, .. }) => {
                    let labels = self.machine.labels;
                    assert!(labels.in_copy(pcc.address()), "{:#x}", pcc.address());
                    self.hart.set_pcc(&monitor_code(labels.copy_fault));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn copy(&mut self, destination: &Capability, source: &Capability, len: u64) -> u64 {
        self.begin(self.machine.labels.copy);
        self.hart.set_capability(A0, destination);
        self.hart.set_capability(A1, source);
        self.hart.set_x(A2, len);
        self.finish()
    }

    fn bytes(&self, address: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.region.read(address, &mut bytes).unwrap();
        bytes
    }
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len)
        .map(|index| (index * 7 + index / 256 + 1) as u8)
        .collect()
}

/// Exactly these bytes, to load and store.
fn exactly(address: u64, len: u64) -> Capability {
    let (capability, exact) = Capability::root_data().set_bounds(address, len);
    assert!(exact);
    capability
}

const BOTH: [Isa; 2] = [Isa::V8, Isa::V9];

#[test]
fn copies_are_exact_at_every_length_and_alignment() {
    for isa in BOTH {
        let mut setting = Setting::new(isa);
        let source = MEMORY + 8 * PAGE;
        let destination = MEMORY + 16 * PAGE;
        let pattern = pattern(512);
        setting.region.write(source, &pattern).unwrap();
        for len in (0..72).chain([127, 128, 129, 255, 300]) {
            for (from, to) in (0..8).flat_map(|from| (0..8).map(move |to| (from, to))) {
                setting.region.write(destination, &[BLANK; 400]).unwrap();
                // With bounds as narrow as the copy, a look at a byte beside it would be a fault.
                let rest = setting.copy(
                    &exactly(destination + 16 + to, len),
                    &exactly(source + from, len),
                    len,
                );
                assert_eq!(rest, 0, "{isa:?} {len} {from} {to}");
                let seen = setting.bytes(destination, 400);
                let begin = (16 + to) as usize;
                let end = begin + len as usize;
                let expected = &pattern[from as usize..(from + len) as usize];
                assert_eq!(&seen[begin..end], expected, "{isa:?} {len} {from} {to}");
                assert!(seen[..begin].iter().all(|byte| *byte == BLANK));
                assert!(seen[end..].iter().all(|byte| *byte == BLANK));
            }
        }
    }
}

#[test]
fn a_fault_in_a_copy_is_an_error_that_counts_what_is_missing() {
    for isa in BOTH {
        let mut setting = Setting::new(isa);
        let source = MEMORY + 8 * PAGE;
        let destination = MEMORY + 16 * PAGE;
        let pattern = pattern(2 * PAGE);
        setting.region.write(source, &pattern).unwrap();
        for shortage in [1, 7, 8, 9, 31, 32, 33, 100] {
            for alignment in 0..8 {
                let len = 200;
                let there = len - shortage;
                // Bounds that end too early, on either side.
                for (to, from) in [(there, len), (len, there)] {
                    setting.region.write(destination, &[BLANK; 256]).unwrap();
                    let rest = setting.copy(
                        &exactly(destination + alignment, to),
                        &exactly(source + 3, from),
                        len,
                    );
                    assert!(
                        rest >= shortage && rest <= shortage + 40,
                        "{isa:?} {shortage} {alignment}: {rest}"
                    );
                    let copied = (len - rest) as usize;
                    let seen = setting.bytes(destination + alignment, 248);
                    assert_eq!(seen[..copied], pattern[3..3 + copied]);
                    assert!(seen[copied..].iter().all(|byte| *byte == BLANK));
                }
            }
        }
        // Pages that cannot be read or written.
        let wide = exactly(MEMORY, LEN);
        for (page, flags) in [
            (source + PAGE, PageFlags::WRITE),
            (destination + PAGE, PageFlags::READ),
        ] {
            setting.region.protect(page, PAGE, flags).unwrap();
            let rest = setting.copy(
                &wide.with_address(destination + 5),
                &wide.with_address(source + 5),
                2 * PAGE - 5,
            );
            assert!((PAGE..=PAGE + 32).contains(&rest), "{isa:?} {rest}");
        }
        // No authority at all.
        let none = wide.clear_tag();
        assert_eq!(setting.copy(&none, &wide.with_address(source), 9), 9);
        assert_eq!(setting.copy(&wide.with_address(source), &none, 9), 9);
        let unreadable = wide.and_permissions(0x9);
        assert_eq!(
            setting.copy(&wide.with_address(destination), &unreadable, 9),
            9
        );
    }
}

#[test]
fn copies_go_from_and_to_capabilities_by_the_callers_addresses() {
    for isa in BOTH {
        let mut setting = Setting::new(isa);
        let (theirs, ours) = (MEMORY + PAGE, MEMORY + 2 * PAGE + 3);
        let pattern = pattern(100);
        setting.region.write(theirs, &pattern).unwrap();
        setting.begin(setting.machine.labels.copy_from_cap);
        setting.hart.set_x(A0, ours);
        setting.hart.set_capability(A1, &exactly(theirs, 100));
        setting.hart.set_x(A2, 100);
        assert_eq!(setting.finish(), 0);
        assert_eq!(setting.bytes(ours, 100), pattern);

        let back = MEMORY + 3 * PAGE + 1;
        setting.begin(setting.machine.labels.copy_to_cap);
        setting.hart.set_capability(A0, &exactly(back, 100));
        setting.hart.set_x(A1, ours);
        setting.hart.set_x(A2, 100);
        assert_eq!(setting.finish(), 0);
        assert_eq!(setting.bytes(back, 100), pattern);
    }
}

#[test]
fn copies_leave_no_capability_behind() {
    for isa in BOTH {
        let mut setting = Setting::new(isa);
        let kept = exactly(MEMORY, 16);
        setting
            .region
            .store_capability(MEMORY + PAGE, &kept)
            .unwrap();
        // Neither as a copy, nor under it, nor in a register.
        let (to, from) = (exactly(MEMORY + 2 * PAGE, 64), exactly(MEMORY + PAGE, 64));
        assert_eq!(setting.copy(&to, &from, 64), 0);
        let copied = setting.region.load_capability(MEMORY + 2 * PAGE).unwrap();
        assert_eq!(copied.to_bits(), kept.to_bits());
        assert!(!copied.tag());
        assert_eq!(setting.copy(&from, &to, 1), 0);
        assert!(!setting.region.load_capability(MEMORY + PAGE).unwrap().tag());
        for n in 1..32 {
            assert!(!setting.hart.capability(n).tag(), "{isa:?} c{n}");
        }
    }
}

/// Fills the context as for a cVM of all of the tests' memory, which is entered in the native window, so that its first fetch stops the hart.
fn prepare_crossing(setting: &Setting) -> Capability {
    let data = exactly(MEMORY, LEN).and_permissions(0x11d);
    let code = |address| {
        let (all, _) = Capability::root_code().set_bounds(0, 1 << 63);
        all.and_permissions(0x107).with_address(address).seal(9)
    };
    let monitor = |capability: Capability| capability.seal(4);
    let labels = setting.machine.labels;
    let (region, base) = (setting.context.region(), setting.context.address());
    for (place, capability) in [
        (ctx::DATA, data),
        (ctx::RETURN, code(NATIVE_WINDOW.start + 0x100)),
        (ctx::RETURN_DATA, data.seal(9)),
        (ctx::ENTRY, code(NATIVE_WINDOW.start + 0x200)),
        (ctx::GATE, monitor(monitor_code(labels.gate))),
        (ctx::MONITOR_DATA, monitor(monitor_data(base))),
        (
            ctx::PORTAL_RETURN,
            monitor(monitor_code(labels.portal_return)),
        ),
        (ctx::CALL_DATA, data),
        (ctx::CALL_RETURN, code(NATIVE_WINDOW.start + 0x300)),
        (ctx::CALL_RETURN_DATA, data.seal(9)),
        (ctx::CALL_FUNCTION, code(NATIVE_WINDOW.start + 0x400)),
    ] {
        region.store_capability(base + place, &capability).unwrap();
    }
    for (place, word) in [
        (ctx::HOSTCALL, NATIVE_HOSTCALL),
        (ctx::CALL_STORE, MEMORY + PAGE),
        (ctx::CALL_ARGUMENTS, 0x11),
        (ctx::CALL_ARGUMENTS + 8, 0x22),
        (ctx::CALL_ARGUMENTS + 16, 0x33),
        (ctx::CALL_ARGUMENTS + 24, 0x44),
        (ctx::CALL_ARGUMENTS + 32, 0x55),
        (ctx::CALL_STACK, 0x6000),
        (ctx::CALL_RETURN_ADDRESS, 0x7000),
    ] {
        region.write(base + place, &word.to_le_bytes()).unwrap();
    }
    data
}

/// Puts something of the caller's into every register but the named ones.
fn dirty(setting: &mut Setting, but: &[usize]) {
    let secret = Capability::root_data();
    for n in (1..32).filter(|n| !but.contains(n)) {
        setting.hart.set_capability(n, &secret);
    }
}

fn expect_native(setting: &mut Setting, offset: u64) {
    let exit = setting.hart.run(1000);
    let address = NATIVE_WINDOW.start + offset;
    assert_eq!(exit, Exit::Native { address });
}

/// Every register but these is 0, and no register holds a capability that is not the compartment's own.
fn expect_scrubbed(setting: &Setting, values: &[(usize, u64)], own: &[usize]) {
    for n in 1..32 {
        let held = setting.hart.capability(n);
        if own.contains(&n) {
            assert!(held.is_sealed() || held.permissions() == 0x11d, "c{n}");
            continue;
        }
        let expected = values
            .iter()
            .find(|(register, _)| *register == n)
            .map_or(0, |(_, value)| *value);
        assert_eq!(held.address(), expected, "x{n}");
        assert!(!held.tag(), "c{n}");
    }
}

#[test]
fn registers_are_scrubbed_on_every_crossing() {
    for isa in BOTH {
        let mut setting = Setting::new(isa);
        let data = prepare_crossing(&setting);
        let labels = setting.machine.labels;

        // Into the cVM.
        dirty(&mut setting, &[]);
        setting.begin(labels.enter);
        setting.hart.set_x(A0, setting.context.address());
        setting.hart.set_x(A1, 0x1000);
        setting.hart.set_x(A2, 0x2000);
        setting.hart.set_x(A3, 0x3000);
        expect_native(&mut setting, 0x200);
        assert_eq!(setting.hart.ddc(), data);
        assert!(!setting.hart.pcc().is_sealed());
        let entered = [(A0, 0x1000), (TP, 0x2000), (SP, 0x3000)];
        expect_scrubbed(&setting, &entered, &[T1, T2, T6]);

        // A hostcall: in, and back.
        let gate = setting
            .context
            .region()
            .load_capability(setting.context.address() + ctx::GATE)
            .unwrap();
        dirty(&mut setting, &[]);
        for (n, value) in [
            (T5, 1000),
            (SP, 0x4444),
            (RA, 0x5555),
            (8, 0x6666),
            (27, 0x7777),
        ] {
            setting.hart.set_x(n, value);
        }
        for n in 0..6 {
            setting.hart.set_x(A0 + n, 0xa0 + n as u64);
        }
        setting.hart.set_pcc(&gate.unseal());
        setting
            .hart
            .set_capability(T6, &monitor_data(setting.context.address()));
        let exit = setting.hart.run(1000);
        assert_eq!(
            exit,
            Exit::Native {
                address: NATIVE_HOSTCALL
            }
        );
        assert_eq!(setting.hart.x(A0), setting.context.address());
        assert_eq!(setting.hart.x(A1), 1000);
        for n in 0..6 {
            let mut word = [0; 8];
            setting
                .context
                .region()
                .read(setting.hart.x(A2) + 8 * n, &mut word)
                .unwrap();
            assert_eq!(u64::from_le_bytes(word), 0xa0 + n);
        }
        let back = setting.hart.x(RA);
        let stack = setting.hart.x(SP);
        // The monitor's function leaves its own things behind, as the C ABI allows.
        dirty(
            &mut setting,
            &[SP, 8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27],
        );
        setting.hart.set_x(A0, 0x4711);
        assert_eq!(setting.hart.x(SP), stack);
        setting.hart.set_pcc(&monitor_code(back));
        expect_native(&mut setting, 0x100);
        assert_eq!(setting.hart.ddc(), data);
        for (n, value) in [
            (A0, 0x4711),
            (SP, 0x4444),
            (RA, 0x5555),
            (8, 0x6666),
            (27, 0x7777),
        ] {
            assert_eq!(setting.hart.x(n), value, "x{n}");
        }
        for n in [T0, A1, A2, A3, 14, 15, 16, 17, T3, 29, T5] {
            assert_eq!(setting.hart.x(n), 0, "x{n}");
            assert!(!setting.hart.capability(n).tag(), "c{n}");
        }

        // Out of it.
        dirty(&mut setting, &[]);
        setting.begin(labels.leave);
        setting.hart.set_x(A0, setting.context.address());
        expect_native(&mut setting, NATIVE_RETURN - NATIVE_WINDOW.start);
        assert_eq!(setting.hart.x(SP), setting.context.stack());
    }
}

#[test]
fn a_portal_gets_its_store_and_loses_it_when_it_is_over() {
    for (isa, abandoned) in BOTH.into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        let mut setting = Setting::new(isa);
        let data = prepare_crossing(&setting);
        let labels = setting.machine.labels;
        let base = setting.context.address();
        let slot = |setting: &Setting, place: u64| {
            setting
                .region
                .load_capability(MEMORY + PAGE + place * CAPABILITY_SIZE)
                .unwrap()
        };
        dirty(&mut setting, &[]);
        setting.begin(labels.call_portal);
        setting.hart.set_x(A0, base);
        expect_native(&mut setting, 0x400);
        assert_eq!(setting.hart.ddc(), data);
        let arguments = [
            (A0, 0x11),
            (A1, 0x22),
            (A2, 0x33),
            (A3, 0x44),
            (14, 0x55),
            (SP, 0x6000),
            (RA, 0x7000),
        ];
        expect_scrubbed(&setting, &arguments, &[T1, T3, T6]);
        for place in [store::HOSTCALL, store::MONITOR_DATA, store::PORTAL_RETURN] {
            let held = slot(&setting, place);
            assert!(held.tag() && held.is_sealed(), "{place}");
        }

        // It is over, one way or the other.
        dirty(&mut setting, &[]);
        setting.hart.set_x(A0, 0x4711);
        if abandoned {
            setting.begin(labels.portal_abandon);
            setting.hart.set_x(T0, base);
        } else {
            setting.hart.set_pcc(&monitor_code(labels.portal_return));
            setting.hart.set_capability(T6, &monitor_data(base));
        }
        expect_native(&mut setting, NATIVE_RETURN - NATIVE_WINDOW.start);
        assert_eq!(setting.hart.x(A1), u64::from(abandoned));
        if !abandoned {
            assert_eq!(setting.hart.x(A0), 0x4711);
        }
        assert_eq!(setting.hart.x(SP), setting.context.stack());
        for place in [store::HOSTCALL, store::MONITOR_DATA, store::PORTAL_RETURN] {
            assert!(!slot(&setting, place).tag(), "{place}");
        }
        // Hostcalls return to the cVM again.
        let region = setting.context.region();
        let back = region.load_capability(base + ctx::RETURN).unwrap();
        assert_eq!(back.address(), NATIVE_WINDOW.start + 0x100);
    }
}
