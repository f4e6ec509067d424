// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a hart finds after a reset: the code at the reset vector, and the device tree.

use vm_fdt::FdtWriter;

use super::clint::{CLINT_BASE, CLINT_LENGTH, FREQUENCY};
use super::finisher::{FINISHER_BASE, FINISHER_LENGTH};
use super::uart::UART_BASE;
use super::{BoardError, RAM_BASE};

/// The reset vector and begin of the ROM.
pub const ROM_BASE: u64 = 0x1000;
/// Bytes of the ROM.
pub const ROM_LENGTH: u64 = 0xf000;

/// The bytes from the end of RAM that the device tree needs at most.
const TREE_ROOM: u64 = 1 << 20;
/// What the device tree is aligned to.
const TREE_ALIGNMENT: u64 = 16 << 20;
/// The device tree lies below 3 GiB, where code of 32 bits reaches it.
const TREE_LIMIT: u64 = 3 << 30;

/// Where the device tree is, given the end of the RAM: what `a1` holds at the first instruction of the program.
pub(super) fn tree_address(ram_end: u64) -> u64 {
    let end = ram_end.clamp(RAM_BASE + TREE_ROOM, TREE_LIMIT);
    ((end - TREE_ROOM) & !(TREE_ALIGNMENT - 1)).max(RAM_BASE)
}

/// The ROM's contents: code that jumps to `start` with the hart's number in `a0`, the address of the device tree in `a1` and
/// that of the information for a firmware in `a2`.
pub(super) fn reset_code(start: u64, tree: u64, entry: u64) -> Vec<u8> {
    let code: [u32; 6] = [
        0x0000_0297, // auipc t0, 0
        0x0282_8613, // addi a2, t0, 40
        0xf140_2573, // csrr a0, mhartid
        0x0202_b583, // ld a1, 32(t0)
        0x0182_b283, // ld t0, 24(t0)
        0x0002_8067, // jr t0
    ];
    // For a firmware: magic ("OSBI"), version, address and mode (supervisor) of the next stage, options, boot hart.
    let information = [0x4942_534f, 2, entry, 1, 0, 0];
    let mut bytes = Vec::new();
    bytes.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(
        [start, tree]
            .iter()
            .chain(&information)
            .flat_map(|word| word.to_le_bytes()),
    );
    bytes
}

/// A device tree that tells what there is.
pub(super) fn device_tree(ram: u64) -> Result<Vec<u8>, BoardError> {
    write(ram).map_err(|source| BoardError::DeviceTree { source })
}

fn write(ram: u64) -> Result<Vec<u8>, vm_fdt::Error> {
    const INTERRUPTS: u32 = 1;
    const FINISHER: u32 = 2;
    let console = format!("/soc/uart@{UART_BASE:x}");

    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_string("model", "capstream,cherisim")?;
    tree.property_string("compatible", "riscv-virtio")?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("#address-cells", 2)?;

    let node = tree.begin_node("chosen")?;
    tree.property_string("stdout-path", &console)?;
    tree.end_node(node)?;

    let node = tree.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    tree.property_string("device_type", "memory")?;
    tree.property_array_u64("reg", &[RAM_BASE, ram])?;
    tree.end_node(node)?;

    let cpus = tree.begin_node("cpus")?;
    tree.property_u32("timebase-frequency", FREQUENCY as u32)?;
    tree.property_u32("#size-cells", 0)?;
    tree.property_u32("#address-cells", 1)?;
    let cpu = tree.begin_node("cpu@0")?;
    tree.property_string("device_type", "cpu")?;
    tree.property_string("compatible", "riscv")?;
    tree.property_string("riscv,isa", "rv64imafdcxcheri")?;
    tree.property_string("status", "okay")?;
    tree.property_u32("reg", 0)?;
    let node = tree.begin_node("interrupt-controller")?;
    tree.property_string("compatible", "riscv,cpu-intc")?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#interrupt-cells", 1)?;
    tree.property_phandle(INTERRUPTS)?;
    tree.end_node(node)?;
    tree.end_node(cpu)?;
    tree.end_node(cpus)?;

    let soc = tree.begin_node("soc")?;
    tree.property_string("compatible", "simple-bus")?;
    tree.property_null("ranges")?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("#address-cells", 2)?;

    let node = tree.begin_node(&format!("clint@{CLINT_BASE:x}"))?;
    tree.property_string("compatible", "riscv,clint0")?;
    tree.property_array_u64("reg", &[CLINT_BASE, CLINT_LENGTH])?;
    tree.property_array_u32("interrupts-extended", &[INTERRUPTS, 3, INTERRUPTS, 7])?;
    tree.end_node(node)?;

    let node = tree.begin_node(&format!("test@{FINISHER_BASE:x}"))?;
    tree.property_string_list(
        "compatible",
        vec![
            "sifive,test1".into(),
            "sifive,test0".into(),
            "syscon".into(),
        ],
    )?;
    tree.property_array_u64("reg", &[FINISHER_BASE, FINISHER_LENGTH])?;
    tree.property_phandle(FINISHER)?;
    tree.end_node(node)?;
    for (name, compatible, value) in [
        ("reboot", "syscon-reboot", 0x7777),
        ("poweroff", "syscon-poweroff", 0x5555),
    ] {
        let node = tree.begin_node(name)?;
        tree.property_string("compatible", compatible)?;
        tree.property_u32("regmap", FINISHER)?;
        tree.property_u32("offset", 0)?;
        tree.property_u32("value", value)?;
        tree.end_node(node)?;
    }

    let node = tree.begin_node(&format!("uart@{UART_BASE:x}"))?;
    tree.property_string("compatible", "ns16550a")?;
    tree.property_array_u64("reg", &[UART_BASE, 0x100])?;
    tree.property_u32("clock-frequency", 3_686_400)?;
    tree.end_node(node)?;

    tree.end_node(soc)?;
    tree.end_node(root)?;
    tree.finish()
}
