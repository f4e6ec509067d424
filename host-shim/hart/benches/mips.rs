// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many million instructions of ordinary integer code a hart executes in a second, as one line of JSON.
//!
//! `cargo bench -p capstream-hart --bench mips`. The code (`mips.c`) runs under a DDC and a PCC with bounds, in user mode, as a cVM's does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark fails by panicking"
)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use capstream_hart::{
    Capability, Config, Exit, Hart, Isa, Memory, PageFlags, Permissions, Privilege, Region, Traps,
};

const BASE: u64 = 0x2000_0000;
const SIZE: u64 = 0x10_0000;
const CODE: u64 = 0x1000;
const SCRATCH: u64 = 0x1_0000;
const STACK: u64 = 0x8_0000;
/// A function returns to here, which the hart does not execute.
const RETURN: u64 = 0x10;
const ROUNDS: u64 = 60;
const RUNS: usize = 5;

fn main() {
    let folder = std::env::temp_dir().join(format!("capstream-mips-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let code = compile(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let mut best = [0.0f64; 2];
    let mut instructions = 0;
    for _ in 0..RUNS {
        for (isa, best) in [Isa::V8, Isa::V9].into_iter().zip(&mut best) {
            let (count, mips) = run(&code, isa);
            instructions = count;
            *best = best.max(mips);
        }
    }
    println!(
        "{{\"instructions_per_second\": {{\"v8\": {:.0}, \"v9\": {:.0}}}, \"instructions\": {instructions}}}",
        best[0] * 1e6,
        best[1] * 1e6
    );
}

fn compile(folder: &std::path::Path) -> Vec<u8> {
    let source = format!(
        "{}/benches/mips.c",
        std::env::var("CARGO_MANIFEST_DIR").unwrap()
    );
    let tool = |plain: &str| match std::env::var_os("CHERI_SDK").filter(|sdk| !sdk.is_empty()) {
        Some(sdk) => std::path::Path::new(&sdk).join("bin").join(plain),
        None => format!("{plain}-22").into(),
    };
    let object = folder.join("mips.o");
    let image = folder.join("mips.bin");
    let compiled = Command::new(tool("clang"))
        .args(["--target=riscv64-unknown-freebsd", "-march=rv64imac"])
        .args(["-mabi=lp64", "-mcmodel=medany", "-O2", "-ffreestanding"])
        .args(["-fno-builtin", "-c", &source, "-o"])
        .arg(&object)
        .status()
        .unwrap();
    assert!(compiled.success());
    let linked = Command::new(tool("ld.lld"))
        .args([
            "--oformat=binary",
            "--image-base=0",
            "-Ttext=0x1000",
            "-e",
            "work",
            "-o",
        ])
        .args([&image, &object])
        .status()
        .unwrap();
    assert!(linked.success());
    std::fs::read(image).unwrap()
}

/// Instructions, and millions of them in a second.
fn run(code: &[u8], isa: Isa) -> (u64, f64) {
    let region = Region::anonymous(
        BASE,
        SIZE,
        PageFlags::READ | PageFlags::WRITE | PageFlags::EXECUTE,
    );
    let region = Arc::new(region.unwrap());
    region.write(BASE + CODE, code).unwrap();
    let memory = Arc::new(Memory::new());
    memory.add(region).unwrap();
    let mut hart = Hart::new(
        memory,
        Config {
            isa,
            traps: Traps::Exit,
        },
    );
    hart.set_privilege(Privilege::User);
    let (bounded, exact) = Capability::root().set_bounds(BASE, SIZE);
    assert!(exact);
    hart.set_ddc(&bounded.and_permissions(Permissions::CVM_DATA.bits()));
    let pcc = bounded.and_permissions(Permissions::CVM_CODE.bits());
    let base = if isa == Isa::V8 { 0 } else { BASE };
    // `work` is the first function of the image.
    let call = |hart: &mut Hart, rounds| {
        hart.set_pcc(&pcc.with_address(BASE + CODE));
        hart.set_x(10, base + SCRATCH);
        hart.set_x(11, rounds);
        hart.set_x(2, base + STACK);
        hart.set_x(1, base + RETURN);
        loop {
            match hart.run(100_000_000) {
                Exit::Native { .. } => return hart.x(10),
                Exit::Limit => {}
                exit => panic!("{exit:?}"),
            }
        }
    };
    hart.set_native_window(BASE + RETURN..BASE + RETURN + 2);
    call(&mut hart, 1);
    let before = hart.instructions_retired();
    let start = processor_time();
    let result = call(&mut hart, ROUNDS);
    let elapsed = processor_time() - start;
    let count = hart.instructions_retired() - before;
    assert_ne!(result, 0);
    (count, count as f64 / elapsed.as_secs_f64() / 1e6)
}

/// What this thread has used of a processor: others on the machine do not count.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}
