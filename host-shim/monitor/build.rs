// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Assembles the trampolines of CHERI-RISC-V, which run on a simulated hart, into bytes that the monitor carries.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use capstream_abi::riscv64::{CAPABILITY_SIZE, store};

#[path = "src/platform/cheri_riscv64/context_layout.rs"]
#[allow(dead_code, reason = "the single names are for the monitor")]
mod context_layout;

const SOURCE: &str = "src/platform/cheri_riscv64/trampoline.S";
const INCLUDE: &str = "../abi/include";

/// A tool of the CHERI SDK, if there is one, or of the stock LLVM.
fn tool(sdk: Option<&Path>, name: &str) -> PathBuf {
    match sdk {
        Some(sdk) => sdk.join("bin").join(name),
        None => PathBuf::from(format!("{name}-22")),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?} cannot be run: {error}; install clang-22, lld-22 and llvm-22, or set CHERI_SDK to a CHERI LLVM SDK"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed: {status}"))
    }
}

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed={INCLUDE}/xcheri.h");
    println!("cargo::rerun-if-changed=src/platform/cheri_riscv64/context_layout.rs");
    println!("cargo::rerun-if-env-changed=CHERI_SDK");
    let sdk = env::var_os("CHERI_SDK")
        .filter(|sdk| !sdk.is_empty())
        .map(PathBuf::from);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?);
    let object = out.join("trampoline.o");
    let linked = out.join("trampoline.elf");
    let bytes = out.join("trampoline.bin");
    let mut assemble = Command::new(tool(sdk.as_deref(), "clang"));
    if sdk.is_some() {
        assemble.args([
            "--target=riscv64-unknown-freebsd",
            "-march=rv64imafdcxcheri",
            "-mabi=lp64d",
        ]);
    } else {
        assemble.args([
            "--target=riscv64-unknown-elf",
            "-march=rv64imafdc",
            "-mabi=lp64d",
        ]);
    }
    for (name, offset) in context_layout::OFFSETS {
        assemble.arg(format!("-D{name}={offset}"));
    }
    for (name, place) in [
        ("STORE_DATA", store::DATA),
        ("STORE_HOSTCALL", store::HOSTCALL),
        ("STORE_MONITOR_DATA", store::MONITOR_DATA),
        ("STORE_RETURN", store::RETURN),
        ("STORE_RETURN_DATA", store::RETURN_DATA),
        ("STORE_PORTAL_RETURN", store::PORTAL_RETURN),
    ] {
        assemble.arg(format!("-D{name}={}", place * CAPABILITY_SIZE));
    }
    assemble
        .args(["-mno-relax", "-Werror", "-I", INCLUDE, "-c", SOURCE, "-o"])
        .arg(&object);
    run(&mut assemble)?;
    run(Command::new(tool(sdk.as_deref(), "ld.lld"))
        .args([
            "--no-relax",
            "--image-base=0",
            "-Ttext=0",
            "-e",
            "trampoline_begin",
            "-o",
        ])
        .args([&linked, &object]))?;
    run(Command::new(tool(sdk.as_deref(), "llvm-objcopy"))
        .args(["-O", "binary", "--only-section=.text"])
        .args([&linked, &bytes]))
}
