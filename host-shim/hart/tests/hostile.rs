// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs made of random instructions: whatever they do, the host survives, and nobody comes by more authority than there was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod single;

use std::sync::Arc;

use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, Memory, Permissions, Privilege, Region, Traps,
};
use proptest::prelude::*;
use single::*;

const CODE: u64 = BASE;
const CODE_SIZE: u64 = 0x1000;
const DATA_SIZE: u64 = 0x400;
/// Sealed for good: nobody can unseal or invoke it.
const TREASURE: u64 = BASE + 0x8_0000;
/// Two halves that can be invoked.
const SERVICE: u64 = BASE + 0x9_0000;
const PAIR: u32 = 77;

fn register() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 8u32..16, 2 => 0u32..32]
}

/// Instructions that are more often valid than random numbers are.
fn instruction() -> impl Strategy<Value = u32> {
    let registers = || (register(), register(), register());
    prop_oneof![
        6 => (registers(), prop::sample::select(vec![
            CSPECIALRW, CSETBOUNDS, CSETBOUNDSEXACT, CSEAL, CUNSEAL, CANDPERM, CSETFLAGS, CSETOFFSET, CSETADDR, CINCOFFSET,
            CTOPTR, CFROMPTR, CSUB, CSETHIGH, CBUILDCAP, CCOPYTYPE, CCSEAL, CTESTSUBSET, CSEQX,
        ])).prop_map(|((d, a, b), funct7)| three(funct7, d, a, b)),
        3 => (registers(), 0u32..0x19).prop_map(|((d, a, _), selector)| two(selector, d, a)),
        2 => (registers(), 1u32..3, -64i32..64).prop_map(|((d, a, _), funct3, imm)| i(0x5b, funct3, d, a, imm)),
        4 => (registers(), any::<u32>()).prop_map(|((d, a, _), selector)| load(selector & 0x1f, d, a)),
        4 => (registers(), any::<u32>()).prop_map(|((_, a, b), selector)| store(selector & 0x1f, b, a)),
        3 => (registers(), -8i32..40).prop_map(|((d, a, _), imm)| lc(d, a, imm * 16)),
        3 => (registers(), -8i32..40).prop_map(|((_, a, b), imm)| sc(b, a, imm * 16)),
        2 => (registers(), 0u32..7, -32i32..512).prop_map(|((d, a, _), size, imm)| i(0x03, size, d, a, imm)),
        2 => (registers(), 0u32..4, -32i32..512).prop_map(|((_, a, b), size, imm)| s(0x23, size, a, b, imm)),
        2 => (registers(), any::<u32>(), 0u32..5).prop_map(|((d, a, b), code, size)| amo(code & 0x1f, size, d, a, b)),
        2 => (registers(), -600i32..600).prop_map(|((d, a, _), imm)| addi(d, a, imm)),
        1 => registers().prop_map(|(_, a, b)| cinvoke(a, b)),
        1 => (registers(), -20i32..20).prop_map(|((d, _, _), imm)| jal(d, imm * 2)),
        1 => (registers(), 0u32..8, -20i32..20).prop_map(|((_, a, b), funct3, imm)| self::b(funct3, a, b, imm * 2)),
        1 => (registers(), any::<u32>()).prop_map(|((d, a, _), number)| csr(1 + number % 3, number >> 20, d, a)),
        1 => prop::sample::select(vec![FENCE, FENCE_I, EBREAK, 0x73, 0x1050_0073, 0x3020_0073, 0x1200_0073]),
        3 => any::<u32>(),
    ]
}

/// What a program begins with.
struct World {
    region: Arc<Region>,
    memory: Arc<Memory>,
    code: Capability,
    data: Capability,
    seals: Capability,
    treasure: Capability,
    service_code: Capability,
    service_data: Capability,
}

impl World {
    fn new(program: &[u32]) -> World {
        let machine = Machine::new(Isa::V9);
        let bounded = |base, size| Capability::root().set_bounds(base, size).0;
        write(&machine.region, CODE, program);
        let world = World {
            region: machine.region,
            memory: machine.memory,
            code: bounded(CODE, CODE_SIZE).and_permissions(Permissions::CVM_CODE.bits()),
            data: bounded(DATA, DATA_SIZE).and_permissions(
                !(Permissions::EXECUTE | Permissions::SEAL | Permissions::UNSEAL).bits(),
            ),
            seals: bounded(100, 10).and_permissions(
                (Permissions::SEAL | Permissions::UNSEAL | Permissions::GLOBAL).bits(),
            ),
            treasure: bounded(TREASURE, 0x1000)
                .and_permissions(!Permissions::CINVOKE.bits())
                .seal(99),
            service_code: bounded(SERVICE, 0x100)
                .and_permissions(Permissions::CVM_CODE.bits())
                .seal(PAIR),
            service_data: bounded(SERVICE + 0x100, 0x100)
                .and_permissions(Permissions::CVM_DATA.bits())
                .seal(PAIR),
        };
        for (n, address) in (TREASURE..TREASURE + 0x1000).step_by(16).enumerate() {
            world.region.poke(address, &[n as u8; 16]).unwrap();
        }
        // The service comes back with an illegal instruction.
        world
            .region
            .store_capability(DATA + 0x20, &world.treasure)
            .unwrap();
        world
            .region
            .store_capability(DATA + 0x40, &world.service_code)
            .unwrap();
        world
            .region
            .store_capability(DATA + 0x50, &world.service_data)
            .unwrap();
        world
    }

    fn hart(&self, config: Config, capability_mode: bool) -> Hart {
        let mut hart = Hart::new(Arc::clone(&self.memory), config);
        hart.set_pcc(&self.code.with_flag(capability_mode));
        hart.set_ddc(&self.data);
        for n in 1..32 {
            let value = match n % 8 {
                0 | 1 => self.data,
                2 => self.treasure,
                3 => self.service_code,
                4 => self.service_data,
                5 => self.seals,
                6 => Capability::from_address(n as u64 * 8),
                _ => self.code,
            };
            hart.set_capability(n, &value);
        }
        hart
    }

    /// Whether a capability can have come from what there was.
    fn is_derived(&self, capability: &Capability) -> bool {
        if !capability.tag() {
            return true;
        }
        if *capability == self.treasure
            || *capability == self.service_code
            || *capability == self.service_data
        {
            return true;
        }
        let unsealed = capability.unseal();
        // What an invocation gives away.
        let mut sources = vec![self.code, self.data, self.seals];
        sources.extend([self.service_code.unseal(), self.service_data.unseal()]);
        sources.iter().any(|source| unsealed.is_subset_of(source))
    }

    fn check(&self, hart: &Hart) {
        for n in 0..32 {
            let capability = hart.capability(n);
            assert!(self.is_derived(&capability), "c{n}: {capability:?}");
            assert_eq!(capability.address(), hart.x(n));
        }
        assert_eq!(hart.x(0), 0);
        for capability in [hart.pcc(), hart.ddc()] {
            assert!(self.is_derived(&capability), "{capability:?}");
        }
        for address in (BASE..BASE + SIZE).step_by(16) {
            let capability = self.region.load_capability(address).unwrap();
            if capability.tag() {
                assert!(
                    (DATA..DATA + DATA_SIZE).contains(&address),
                    "a tag at {address:#x}"
                );
                assert!(
                    self.is_derived(&capability),
                    "{capability:?} at {address:#x}"
                );
            }
        }
        for (n, address) in (TREASURE..TREASURE + 0x1000).step_by(16).enumerate() {
            let mut bytes = [0; 16];
            self.region.peek(address, &mut bytes).unwrap();
            assert_eq!(bytes, [n as u8; 16], "{address:#x} was written");
        }
    }
}

fn program() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(instruction(), 20..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn authority_never_grows(program in program(), mode in any::<bool>(), older in any::<bool>()) {
        let world = World::new(&program);
        let config = Config {
            isa: if older { Isa::V8 } else { Isa::V9 },
            traps: Traps::Exit,
        };
        let mut hart = world.hart(config, mode);
        hart.set_privilege(Privilege::User);
        let mut traps = 0;
        for _ in 0..300 {
            match hart.run(200) {
                Exit::Trap(trap) => {
                    traps += 1;
                    prop_assert_eq!(hart.pcc(), trap.pcc);
                    // As a monitor would: behind the instruction, or back into the program.
                    let next = trap.pcc.address().wrapping_add(2);
                    let inside = trap.pcc.tag() && world.code.contains(next, 4) && trap.pcc.is_subset_of(&world.code);
                    let pcc = if inside { trap.pcc.with_address(next) } else { world.code.with_flag(traps % 2 == 0) };
                    hart.set_pcc(&pcc);
                    if !hart.ddc().tag() {
                        hart.set_ddc(&world.data);
                    }
                }
                Exit::Limit => {}
                exit => prop_assert!(false, "{:?}", exit),
            }
        }
        world.check(&hart);
    }

    #[test]
    fn machine_mode_survives_anything(program in program(), mode in any::<bool>(), older in any::<bool>(), seed in any::<u64>()) {
        // With all privileges and traps that are entered: no claim but that it goes on.
        let world = World::new(&program);
        let config = Config {
            isa: if older { Isa::V8 } else { Isa::V9 },
            traps: Traps::Machine,
        };
        let mut hart = world.hart(config, mode);
        let root = Capability::root().with_flag(mode);
        hart.set_pcc(&root.with_address(CODE));
        hart.set_scr(28, &root.with_address(CODE + (seed & 0x3c)));
        hart.set_ddc(&Capability::root().with_address(if older { DATA } else { 0 }));
        hart.set_csr(0x300, seed);
        hart.set_csr(0x302, seed >> 7);
        hart.set_csr(0x303, seed >> 13);
        hart.set_csr(0x304, !0);
        let lines = hart.interrupt_lines();
        let before = hart.instructions_retired();
        for round in 0..40 {
            lines.set(1 << (seed.rotate_left(round) & 15), round % 3 == 0);
            match hart.run(500) {
                Exit::Limit | Exit::WaitForInterrupt => {}
                exit => prop_assert!(false, "{:?}", exit),
            }
        }
        prop_assert!(hart.instructions_retired() - before <= 40 * 500);
        prop_assert_eq!(hart.x(0), 0);
        prop_assert_eq!(hart.capability(0), Capability::null());
    }
}
