// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The simulated hart: any instructions, with capabilities for its own memory only, beside memory that is not its own.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use capstream_hart::disassembly::disassemble;
use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, Memory, PageFlags, Permissions, Privilege, Region, Traps,
};

use crate::number::near;

const BASE: u64 = 0x2000_0000;
const PAGE: u64 = 0x1000;
const PAGES: u64 = 6;
/// What the hart may fetch from, and what it may load from and store to; the other pages are not its own.
const CODE: u64 = BASE + PAGE;
const DATA: u64 = BASE + 3 * PAGE;
const DATA_SIZE: u64 = 2 * PAGE;
const MARK: u8 = 0xa5;
const MOST_TRAPS: usize = 16;

/// Runs a hart on instructions made of `bytes`.
pub fn run(bytes: &[u8]) {
    let _ = drive(&mut Unstructured::new(bytes));
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let flags = PageFlags::READ | PageFlags::WRITE | PageFlags::EXECUTE | PageFlags::CAPABILITIES;
    let region = Arc::new(Region::anonymous(BASE, PAGES * PAGE, flags).unwrap());
    for page in [BASE, BASE + 2 * PAGE, BASE + 5 * PAGE] {
        region.poke(page, &[MARK; PAGE as usize]).unwrap();
    }
    let memory = Arc::new(Memory::new());
    memory.add(Arc::clone(&region)).unwrap();
    let isa = if input.arbitrary()? { Isa::V8 } else { Isa::V9 };
    let mut hart = Hart::new(
        memory,
        Config {
            isa,
            traps: Traps::Exit,
        },
    );
    let bounded = |base, size| Capability::root().set_bounds(base, size).0;
    let code = bounded(CODE, PAGE)
        .and_permissions(Permissions::CVM_CODE.bits())
        .with_flag(input.arbitrary()?);
    let data = bounded(DATA, DATA_SIZE).and_permissions(
        (Permissions::CVM_DATA | Permissions::STORE_CAP | Permissions::STORE_LOCAL_CAP).bits(),
    );
    hart.set_privilege(Privilege::User);
    hart.set_pcc(&code);
    hart.set_ddc(&data);
    let anchors = [
        0,
        BASE,
        CODE,
        DATA,
        DATA + DATA_SIZE,
        DATA_SIZE,
        BASE + PAGES * PAGE,
    ];
    for n in 1..16 {
        match input.arbitrary::<u8>()? % 4 {
            0 => hart.set_capability(n, &data.with_address(near(input, &anchors)?)),
            1 => hart.set_capability(n, &code),
            _ => hart.set_x(n, near(input, &anchors)?),
        }
    }
    let len = input.len().min(PAGE as usize);
    let text = input.bytes(len)?;
    for word in text.chunks_exact(4) {
        let word = u32::from_le_bytes(word.try_into().unwrap());
        disassemble(word, CODE);
    }
    region.poke(CODE, text).unwrap();
    for _ in 0..MOST_TRAPS {
        match hart.run(64) {
            Exit::Trap(trap) => {
                // As a monitor would, go on behind the instruction.
                let next = trap.pcc.address().wrapping_add(2);
                if !(CODE..CODE + len as u64).contains(&next) {
                    break;
                }
                hart.set_pcc(&code.with_address(next));
                if !hart.ddc().tag() {
                    hart.set_ddc(&data);
                }
            }
            Exit::Limit => {}
            // In user mode there is no other way out: no native window was set, nobody calls, and `wfi` traps or is passed.
            _ => break,
        }
    }
    for n in 0..32 {
        let held = hart.capability(n);
        let own = !held.tag()
            || [code, data].iter().any(|own| held.is_subset_of(own))
            || held.is_sealed();
        assert!(own, "c{n} is {held:?}");
    }
    for page in [BASE, BASE + 2 * PAGE, BASE + 5 * PAGE] {
        let mut bytes = [0; PAGE as usize];
        region.peek(page, &mut bytes).unwrap();
        assert!(
            bytes.iter().all(|&byte| byte == MARK),
            "{page:#x} was written"
        );
    }
    let mut bytes = vec![0; len];
    region.peek(CODE, &mut bytes).unwrap();
    assert_eq!(bytes, text, "code was written");
    Ok(())
}
