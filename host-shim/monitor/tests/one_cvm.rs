// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The contract between the monitor and a kernel, from the kernel's side, with one cVM.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use support::{Deployment, build_guest, is_native, platform, rounds};

#[test]
fn program_output_and_arguments_come_through() {
    let ended = Deployment::of(&["hello", "0", "two words", ""])
        .run()
        .expect(0);
    assert_eq!(
        ended.out,
        "argv[0] = '/guest'\nargv[1] = 'hello'\nargv[2] = '0'\nargv[3] = 'two words'\nargv[4] = ''\n"
    );
    assert_eq!(ended.err, "");
}

#[test]
fn status_of_the_program_is_passed_through() {
    Deployment::of(&["hello", "7"]).run().expect(7);
    Deployment::of(&["ends_with", "0", "11"]).run().expect(139);
}

#[test]
fn other_ends_have_codes_of_their_own() {
    Deployment::of(&["ends_with", "1", "0"]).run().expect(0);
    Deployment::of(&["ends_with", "2", "0"]).run().expect(0);
    let ended = Deployment::of(&["ends_with", "4", "2"]).run().expect(127);
    assert!(ended.err.contains("could not be started"), "{ended:?}");
    Deployment::of(&["ends_with", "4", "8"]).run().expect(126);
    Deployment::of(&["ends_with", "77", "0"]).run().expect(123);
}

#[test]
fn panic_shows_the_last_lines_of_the_log() {
    let deployment = Deployment::of(&["panics"]);
    let ended = deployment.run().expect(122);
    assert!(
        ended.err.contains("    first line\n    Kernel panic"),
        "{ended:?}"
    );
    let log = std::fs::read_to_string(deployment.logs().join("only.log")).unwrap();
    assert!(log.starts_with("first line\n"), "{log}");
    let shown = Deployment::of(&["panics"]).option("-v").run().expect(122);
    assert!(shown.out.contains("\nfirst line\n"), "{shown:?}");
}

#[test]
fn a_runtime_that_changes_under_a_cvm_is_named_as_the_reason() {
    // A simulated processor keeps what it has decoded, and notices nothing.
    if !is_native() {
        return;
    }
    let deployment = Deployment::of(&["echoes"]);
    let image = deployment.folder().join("runtime");
    std::fs::copy(support::guest(), &image).unwrap();
    let deployment = deployment.runtime(&image);
    let mut running = deployment.start(std::process::Stdio::piped());
    running.write("it runs\n");
    running.wait_for_line("it runs");
    // All of it, so that the next instruction is none.
    let len = std::fs::metadata(&image).unwrap().len() as usize;
    std::fs::write(&image, vec![0xf4; len]).unwrap();
    running.write("!");
    let ended = running.wait().expect(123);
    assert!(ended.err.contains("runtime was written to"), "{ended:?}");
}

#[test]
fn boot_page_describes_the_machine() {
    let ended = Deployment::of(&["boot_page"])
        .option("--kernel-args=quiet loglevel=3")
        .run()
        .expect(0);
    // Which clock the host trusts is its own business.
    assert_eq!(
        ended.out.replacen("capstream.tsc ", "", 1),
        "capstream.name=only capstream.disk=none quiet loglevel=3\n67108864 0\n"
    );
}

#[test]
fn unknown_hostcalls_are_refused() {
    Deployment::of(&["unknown_numbers"]).run().expect(0);
}

#[test]
fn every_pointer_is_checked() {
    Deployment::of(&["bad_pointers"]).run().expect(0);
}

#[test]
fn bounds_are_narrower_than_the_range_if_wanted() {
    // What a capability of the processor can hold exactly, behind the first segment of the image.
    let begin = if is_native() {
        0x2000_1000
    } else {
        0x2001_0000
    };
    let isolation = format!(
        "isolation: {{ base: 0x20000000, size: 0x4000000, begin: {begin:#x}, end: 0x23000000 }}"
    );
    let deployment = Deployment::new()
        .cvm_with("only", &["hello"], &isolation)
        .option("-v");
    if platform() == "cheri-riscv64" {
        // Its addresses count from where its bounds begin.
        let ended = deployment.run().expect(2);
        assert!(ended.err.contains("leave out `begin`"), "{ended:?}");
        return;
    }
    let ended = deployment.run().expect(0);
    assert!(
        ended
            .out
            .contains(&format!("begin={begin:#x}, end=0x23000000")),
        "{ended:?}"
    );
    // The guest's own idea of bad pointers does not include what lies outside of the bounds.
    let deployment = Deployment::new().cvm_with(
        "only",
        &["hello"],
        "isolation: { base: 0x20000000, size: 0x4000000, begin: 0x23000000 }",
    );
    if !is_native() {
        // Nor could it run at all.
        let ended = deployment.run().expect(2);
        assert!(ended.err.contains("leave out `begin`"), "{ended:?}");
        return;
    }
    let ended = deployment.run().expect(0);
    assert_eq!(ended.out, "", "its text is outside of its bounds");
}

#[test]
fn timers_wake_and_none_is_lost() {
    let count = rounds(20_000).to_string();
    Deployment::of(&["timers", &count]).run().expect(0);
    Deployment::of(&["timers", &count])
        .option("--no-poll")
        .run()
        .expect(0);
}

#[test]
fn programs_are_interrupted_and_keep_their_registers() {
    let count = rounds(5000).to_string();
    let ended = Deployment::of(&["user_is_interrupted", &count])
        .run()
        .expect(0);
    assert!(
        ended.out.contains(&format!("interrupts {count}")),
        "{ended:?}"
    );
}

#[test]
fn system_calls_of_programs_are_traps() {
    Deployment::of(&["user_calls_are_traps"]).run().expect(0);
}

#[test]
fn faults_of_programs_are_traps() {
    Deployment::of(&["user_faults_are_traps"]).run().expect(0);
}

#[test]
fn faults_of_the_kernel_are_fixed_up() {
    Deployment::of(&["kernel_faults_are_fixed_up"])
        .run()
        .expect(0);
}

#[test]
fn faults_that_cannot_be_fixed_up_end_the_cvm_with_a_report() {
    for scenario in [
        "kernel_faults_twice",
        "kernel_faults_early",
        "loses_its_stack",
    ] {
        let ended = Deployment::of(&[scenario]).run().expect(123);
        assert!(ended.err.contains("its kernel was stopped"), "{ended:?}");
        assert!(ended.err.contains("signal 11"), "{ended:?}");
    }
    let ended = Deployment::of(&["kernel_makes_system_call"])
        .run()
        .expect(123);
    assert!(ended.err.contains("signal 31"), "{ended:?}");
}

#[test]
fn hostcalls_keep_the_registers_of_programs() {
    let ended = Deployment::of(&["registers_are_kept"]).run().expect(0);
    assert_eq!(
        ended.out.starts_with("vector registers of level"),
        is_native(),
        "{ended:?}"
    );
}

#[test]
fn what_a_program_left_and_odd_requests_do_no_harm() {
    Deployment::of(&["leftovers_do_no_harm"]).run().expect(0);
}

#[test]
fn capfiles_are_read_and_written() {
    let capfile = "capfiles:\n  - name: test1\n    size: 0x20\n    data: \"Hello world\\n\"\n";
    let ended = Deployment::of(&["file_reader"])
        .top_level(capfile)
        .run()
        .expect(0);
    assert_eq!(
        ended.out,
        "read 32 bytes ('Hello world\n') from cap_file with key 'test1'\nfiller\n"
    );
}

#[test]
fn a_cvm_sends_to_itself() {
    let ended = Deployment::of(&["own_receiver"]).run().expect(0);
    let mut words = ended.out.split_whitespace();
    assert_eq!(words.next(), Some("MON:"), "{ended:?}");
    assert_eq!(words.next(), Some("STREAM_CAP[0]"));
    assert!(words.next().unwrap().starts_with("0x"));
    assert_eq!(words.next(), Some("key1"));
    assert_eq!(words.next(), Some("0x2d00001"));
    assert_eq!(words.next(), None);
}

#[test]
fn discarded_memory_is_zero() {
    Deployment::of(&["discards"]).run().expect(0);
}

/// What a kernel shows its programs through a window is its own memory, at addresses of its own, and no more of it than the host has mappings for.
#[test]
fn a_kernel_can_have_a_window() {
    let scenario = if is_native() {
        "has_a_window"
    } else {
        "has_no_window"
    };
    Deployment::of(&[scenario]).run().expect(0);
}

#[test]
fn low_addresses_are_one_cvms() {
    if is_native() {
        Deployment::of(&["has_low_addresses"]).run().expect(0);
    }
}

#[test]
fn disk_is_a_virtio_device() {
    let deployment = Deployment::new();
    let disk = deployment.folder().join("disk.img");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let ended = deployment
        .cvm_with("only", &["has_disk", "1048576"], "disk: disk.img")
        .run()
        .expect(0);
    assert!(ended.out.contains("capstream.disk=/dev/vda"), "{ended:?}");
}

#[test]
fn missing_disk_is_an_error_that_names_it() {
    let ended = Deployment::new()
        .cvm_with("only", &["hello"], "disk: nothing.img")
        .run()
        .expect(2);
    assert!(ended.err.contains("nothing.img"), "{ended:?}");
    assert_eq!(ended.out, "");
}

#[test]
fn console_input_arrives() {
    let deployment = Deployment::of(&["echoes"]);
    let mut running = deployment.start(std::process::Stdio::piped());
    running.write("first\n");
    running.wait_for_line("first");
    running.write("second\n");
    running.wait_for_line("second");
    running.write("!");
    assert_eq!(running.wait().expect(0).out, "first\nsecond\n!");
}

#[test]
fn verbose_run_has_the_lines_that_scripts_look_for() {
    let ended = Deployment::of(&["hello"]).option("-v").run().expect(0);
    for line in [
        "Using yaml.cfg = ",
        "\n***************** Deploy 'only' ***************\n",
        "\nBUILDING cvm: name=only",
        "\nALL cVMs loaded\n",
        "ca0: tag 1, sealed 1, perms 0x107, base 0x20000000, length 0x4000000",
    ] {
        assert!(ended.out.contains(line), "{line}: {}", ended.out);
    }
    let quiet = Deployment::of(&["hello"]).run().expect(0);
    assert!(!quiet.out.contains("Deploy"));
}

#[test]
fn timings_are_json_in_the_order_of_events() {
    let ended = Deployment::of(&["hello"])
        .option("--timings")
        .run()
        .expect(0);
    let json = ended
        .err
        .lines()
        .find_map(|line| line.strip_prefix("timings: "))
        .unwrap();
    let microseconds: Vec<u64> = json
        .trim_matches(['{', '}'])
        .split(',')
        .filter_map(|field| field.rsplit(':').next()?.parse().ok())
        .collect();
    assert!(json.contains("\"first_output_us\":"), "{json}");
    assert_eq!(microseconds.len(), 4, "{json}");
    assert!(microseconds.is_sorted(), "{json}");
}

#[test]
fn packed_relocations_are_applied() {
    let guest = build_guest("guest-relr", &["-Wl,--pack-dyn-relocs=relr"]);
    Deployment::of(&["bad_pointers"])
        .runtime(&guest)
        .run()
        .expect(0);
}

#[test]
fn segments_that_are_no_pages_of_the_file_are_loaded() {
    let guest = build_guest(
        "guest-omagic",
        &["-Wl,-z,max-page-size=65536,-z,separate-loadable-segments"],
    );
    Deployment::of(&["bad_pointers"])
        .runtime(&guest)
        .run()
        .expect(0);
}
