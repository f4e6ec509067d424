// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inputs to begin with: what is right, so that what is nearly right is found sooner.

use arbitrary::Unstructured;

/// Bytes that look random, and are the same in each run.
pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Inputs for the target with this name.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "deployment_file" => DEPLOYMENTS
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect(),
        "runtime_image" => (0..16)
            .filter_map(|seed| {
                let bytes = random(seed, 512);
                crate::runtime_image::build(&mut Unstructured::new(&bytes)).ok()
            })
            .collect(),
        // System calls as C libraries have them, after bytes that say where the code goes.
        "syscall_patch" => CODE
            .iter()
            .map(|code| {
                let mut bytes = vec![0; 8];
                bytes.extend(code.iter().cycle().take(96));
                bytes.extend(random(code.len() as u64, 160));
                bytes
            })
            .collect(),
        _ => (0..24).map(|seed| random(seed, 64 << (seed % 6))).collect(),
    }
}

const DEPLOYMENTS: &[&str] = &[
    include_str!("../../../disk-image/examples/single.yaml"),
    include_str!("../../../disk-image/examples/dual.yaml"),
    include_str!("../../../disk-image/examples/file.yaml"),
    "cVMs:\n  - name: a\n    args: [\"/x\", 'y z']\n    wait: -1\n    isolation: {base: 0x20000000, size: 0x4000000, begin: 0x20000000, end: 0x24000000}\n",
    "cVMs: [{name: a, args: /x}, {name: a, args: /y}]\ncapfiles:\n  - name: k\n    size: 0x10\n    data: \"x\"\n",
    "cVMs: &a\n  - name: *a\n",
    "? [complex]\n: |\n  text\n--- !!map\n",
];

const CODE: &[&[u8]] = &[
    // mov $1, %eax; syscall; ret
    &[0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3],
    // mov %rdi, %rax; syscall; cmp $-4096, %rax; ja; ret
    &[
        0x48, 0x89, 0xf8, 0x0f, 0x05, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 2, 0xc3,
    ],
    // xor %eax, %eax; syscall; nopw
    &[0x31, 0xc0, 0x0f, 0x05, 0x66, 0x0f, 0x1f, 0x44, 0, 0],
    // mov $15, %rax; syscall
    &[
        0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    ],
];
