// SPDX-License-Identifier: Apache-2.0 OR MIT
//! cVMs that have to do with each other, and with the operator.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Deployment, rounds};

#[test]
fn messages_of_several_senders_all_arrive_in_order() {
    let each = rounds(20_000).to_string();
    let mut deployment = Deployment::new().cvm("receiver", &["receiver", "3", &each]);
    for sender in ["0", "1", "2"] {
        deployment = deployment.cvm(&format!("sender{sender}"), &["sender", sender, &each]);
    }
    let ended = deployment.run().expect(0);
    let received = format!("receiver: received {}\n", 3 * rounds(20_000));
    assert!(ended.out.contains(&received), "{ended:?}");
}

#[test]
fn messages_arrive_without_polling_too() {
    let count = rounds(20_000).to_string();
    let ended = Deployment::new()
        .cvm("sender", &["sender", "0", &count, "and errors"])
        .cvm("receiver", &["receiver", "1", &count])
        .option("--no-poll")
        .run()
        .expect(0);
    assert!(
        ended.out.contains(&format!("receiver: received {count}\n")),
        "{ended:?}"
    );
}

#[test]
fn senders_learn_that_the_receiver_is_gone() {
    for _ in 0..10 {
        let ended = Deployment::new()
            .cvm(
                "receiver",
                &["receiver_for_a_while", &rounds(2000).to_string()],
            )
            .cvm("one", &["sender_for_ever"])
            .cvm("two", &["sender_for_ever"])
            .run()
            .expect(0);
        assert!(ended.out.contains("one: sent until the end\n"), "{ended:?}");
        assert!(ended.out.contains("two: sent until the end\n"), "{ended:?}");
    }
}

#[test]
fn senders_learn_that_the_receiver_broke_down() {
    for (how, code) in [("panic", 122), ("fault", 123)] {
        let ended = Deployment::new()
            .cvm(
                "receiver",
                &["receiver_for_a_while", &rounds(2000).to_string(), how],
            )
            .cvm("one", &["sender_for_ever"])
            .cvm("two", &["sender_for_ever"])
            .run()
            .expect(code);
        assert!(ended.out.contains("one: sent until the end\n"), "{ended:?}");
        assert!(ended.out.contains("two: sent until the end\n"), "{ended:?}");
        assert_eq!(ended.err.matches("cVM `").count(), 1, "{ended:?}");
    }
}

#[test]
fn nothing_arrives_after_a_revocation() {
    for _ in 0..10 {
        Deployment::new()
            .cvm(
                "receiver",
                &["receiver_for_a_while", &rounds(2000).to_string(), "revoke"],
            )
            .cvm("one", &["sender_for_ever"])
            .cvm("two", &["sender_for_ever"])
            .run()
            .expect(0);
    }
}

#[test]
fn every_class_of_portals_has_keys_of_its_own() {
    Deployment::of(&["classes"]).run().expect(0);
}

#[test]
fn no_copy_ends_after_a_revocation() {
    let count = rounds(60);
    let (count, with_the_end) = (count.to_string(), (count + 1).to_string());
    Deployment::new()
        .cvm("owner", &["large_owner", &count])
        .cvm("writer", &["large_writer", &with_the_end])
        .cvm("reader", &["large_reader", &with_the_end])
        .cvm("sender", &["large_sender", &with_the_end])
        .run()
        .expect(0);
}

#[test]
fn numbers_of_others_are_nobodys() {
    let count = rounds(5000).to_string();
    let ended = Deployment::new()
        .cvm("receiver", &["receiver", "1", &count])
        .cvm("sender", &["sender", "0", &count])
        .cvm("guesser", &["guesser"])
        .run()
        .expect(0);
    let received = format!("receiver: received {count}\n");
    assert!(ended.out.contains(&received), "{ended:?}");
}

#[test]
fn every_cvm_has_timers_of_its_own() {
    Deployment::new()
        .cvm("fast", &["own_timers", "300", "1"])
        .cvm("slow", &["own_timers", "5", "60"])
        .cvm("between", &["own_timers", "30", "10"])
        .run()
        .expect(0);
}

#[test]
fn files_are_shared_until_they_are_taken_back() {
    Deployment::new()
        .cvm("publisher", &["file_publisher"])
        .cvm("user", &["file_user"])
        .run()
        .expect(0);
}

#[test]
fn a_portal_that_faults_ends_its_owner_and_nobody_else() {
    for portal in ["faulting", "overflowing"] {
        let ended = Deployment::new()
            .cvm("receiver", &["odd_receiver", portal, "wait"])
            .cvm("sender", &["odd_sender", "-32"])
            .run()
            .expect(123);
        assert!(
            ended.out.contains("sender: the sender goes on\n"),
            "{ended:?}"
        );
        assert!(
            ended.err.contains("cVM `receiver`: its portal was stopped"),
            "{ended:?}"
        );
        assert!(!ended.err.contains("cVM `sender`"), "{ended:?}");
    }
}

#[test]
fn a_portal_may_do_little() {
    let deployment = Deployment::new()
        .cvm("receiver", &["odd_receiver", "calling", "wait"])
        .cvm("sender", &["odd_sender", "4711", "key2"]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("the sender goes on");
    running.signal(libc::SIGTERM);
    running.wait().expect(0);
}

#[test]
fn a_sender_is_taken_out_of_a_portal_whose_owner_ended() {
    for portal in ["endless", "endless_quiet"] {
        let ended = Deployment::new()
            .cvm("receiver", &["odd_receiver", portal, "end"])
            .cvm("sender", &["odd_sender", "-32"])
            .run()
            .expect(0);
        assert!(
            ended.out.contains("sender: the sender goes on\n"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_sender_in_an_endless_portal_can_be_killed() {
    for portal in ["endless", "endless_quiet"] {
        let deployment = Deployment::new()
            .cvm("bystander", &["waits_for_power_button"])
            .cvm("receiver", &["odd_receiver", portal, "tell", "and ignore"])
            .cvm("sender", &["odd_sender", "0"]);
        let mut running = deployment.start(Stdio::null());
        running.wait_for_line("the portal has begun");
        let begin = Instant::now();
        running.signal(libc::SIGTERM);
        running.signal(libc::SIGINT);
        // Two different signals arrive as two, and the second one kills.
        running.wait().expect(121);
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn a_portal_that_does_not_return_ends_its_owner_and_nobody_else() {
    for portal in ["endless", "endless_quiet"] {
        let ended = Deployment::new()
            .cvm("stuck", &["odd_receiver", portal, "wait"])
            .cvm("its_sender", &["odd_sender", "-110"])
            .cvm("other", &["counts", "100", "other"])
            .run()
            .expect(123);
        assert!(
            ended.out.contains("its_sender: the sender goes on\n"),
            "{ended:?}"
        );
        assert!(
            ended
                .err
                .contains("cVM `stuck`: its portal did not return to a sender"),
            "{ended:?}"
        );
        assert!(ended.out.contains("other: other counts 99\n"), "{ended:?}");
        assert_eq!(ended.err.matches("cVM `").count(), 1, "{ended:?}");
    }
}

#[test]
fn a_stuck_portal_of_its_own_ends_a_cvm() {
    let ended = Deployment::of(&["own_endless_receiver"]).run().expect(123);
    assert!(
        ended.err.contains("its portal did not return to a sender"),
        "{ended:?}"
    );
}

#[test]
fn a_portal_that_the_host_keeps_waiting_is_not_stuck() {
    let deployment = Deployment::new()
        .cvm("receiver", &["odd_receiver", "slow", "tell"])
        .cvm("sender", &["odd_sender", "0"]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("the portal has begun");
    // Longer than a portal may take, nobody runs.
    running.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2500));
    running.signal(libc::SIGCONT);
    running.wait_for_line("the sender goes on");
    running.signal(libc::SIGTERM);
    running.wait().expect(0);
}

#[test]
fn power_button_ends_cvms_that_listen() {
    let deployment = Deployment::new()
        .cvm("one", &["waits_for_power_button"])
        .cvm("two", &["waits_for_power_button"]);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut running = deployment.start(Stdio::null());
        running.wait_for_line("ready");
        running.wait_for_line("ready");
        running.signal(signal);
        let ended = running.wait().expect(0);
        assert!(ended.out.contains("one: power button\n"), "{ended:?}");
        assert!(ended.out.contains("two: power button\n"), "{ended:?}");
    }
}

#[test]
fn whatever_a_cvm_does_the_second_signal_kills_it() {
    for scenario in ["loops", "loops_in_hostcalls", "loops_in_program", "sleeps"] {
        let deployment = Deployment::of(&[scenario]);
        let mut running = deployment.start(Stdio::null());
        running.wait_for_line("ready");
        let begin = Instant::now();
        running.signal(libc::SIGTERM);
        running.signal(libc::SIGINT);
        let ended = running.wait().expect(121);
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "{scenario}: {ended:?}"
        );
        assert!(ended.err.contains("it was killed"), "{ended:?}");
    }
}

#[test]
fn a_cvm_that_does_not_listen_is_killed_after_a_while() {
    let deployment = Deployment::of(&["loops"]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("ready");
    let begin = Instant::now();
    running.signal(libc::SIGTERM);
    running.wait().expect(121);
    let passed = begin.elapsed();
    assert!(passed >= Duration::from_secs(5), "{passed:?}");
}

#[test]
fn output_that_nobody_reads_does_not_keep_a_cvm() {
    let deployment = Deployment::of(&["writes_for_ever"]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("ready");
    // A pipe holds less than a cVM writes at a time.
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGINT);
    assert_eq!(running.wait_without_reading(), Some(121));
}

#[test]
fn lines_of_several_cvms_are_whole_and_named() {
    let names = ["a", "b", "c", "d"];
    let mut deployment = Deployment::new();
    for name in names {
        deployment = deployment.cvm(name, &["counts", "300", name]);
    }
    let ended = deployment.run().expect(0);
    for name in names {
        let mine: Vec<&str> = ended
            .out
            .lines()
            .filter(|line| line.starts_with(&format!("{name}: ")))
            .collect();
        let expected: Vec<String> = (0..300)
            .map(|i| format!("{name}: {name} counts {i}"))
            .collect();
        assert_eq!(mine, expected);
    }
    assert_eq!(ended.out.lines().count(), 300 * names.len());
}

#[test]
fn a_fault_of_one_leaves_the_others() {
    let deployment = Deployment::new()
        .cvm("bad", &["kernel_faults_early"])
        .cvm("good", &["counts", "1000", "good"])
        .cvm("failed", &["hello", "3"]);
    let ended = deployment.run().expect(123);
    assert!(ended.out.contains("good: good counts 999\n"), "{ended:?}");
    assert!(
        ended
            .err
            .contains("cVM `failed`: its program exited with status 3")
    );
    Deployment::new()
        .cvm("good", &["hello"])
        .cvm("failed", &["hello", "3"])
        .run()
        .expect(1);
}

#[test]
fn many_cvms_run_at_once() {
    let count = rounds(20_000).to_string();
    let mut deployment = Deployment::new();
    for number in 0..60 {
        deployment = deployment.cvm(&format!("c{number}"), &["timers", &count]);
    }
    deployment.run().expect(0);
}

#[test]
fn memory_and_threads_of_cvms_that_ended_are_given_back() {
    const ENDED: u64 = 20;
    let mut deployment = Deployment::new();
    for number in 0..ENDED {
        let isolation = format!(
            "wait: -1\nisolation: {{ base: {:#x}, size: 0x4000000 }}",
            0x2000_0000 + number * 0x400_0000
        );
        let scenario = ["hello", "kernel_faults_early"][(number % 2) as usize];
        deployment = deployment.cvm_with(&format!("c{number}"), &[scenario], &isolation);
    }
    let deployment = deployment.cvm("last", &["waits_for_power_button"]);
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("last: ready");
    let process = format!("/proc/{}", running.child.id());
    let maps = std::fs::read_to_string(format!("{process}/maps")).unwrap();
    let last = 0x2000_0000 + ENDED * 0x400_0000;
    let of_cvms: Vec<&str> = maps
        .lines()
        .filter(|line| {
            let begin = line.split('-').next().unwrap();
            (0x2000_0000..last).contains(&u64::from_str_radix(begin, 16).unwrap())
        })
        .collect();
    assert!(of_cvms.is_empty(), "{of_cvms:#?}");
    let threads: Vec<String> = std::fs::read_dir(format!("{process}/task"))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .filter(|name| name.starts_with("cvm "))
        .collect();
    assert_eq!(threads, ["cvm last\n"]);
    running.signal(libc::SIGTERM);
    running.wait().expect(123);
}

#[test]
fn a_cvm_is_waited_for_and_its_range_is_free_again() {
    let isolation = "isolation: { base: 0x20000000, size: 0x4000000 }";
    let again = "isolation: { base: 0x60000000, size: 0x4000000 }";
    let ended = Deployment::new()
        .cvm_with("first", &["hello"], &format!("wait: -1\n{isolation}"))
        .cvm_with("second", &["hello"], &format!("wait: 1\n{again}"))
        .cvm("third", &["hello"])
        .run()
        .expect(0);
    let place = |name: &str| ended.out.find(&format!("{name}: argv[0]")).unwrap();
    assert!(place("first") < place("second") && place("second") < place("third"));
}

#[test]
fn errors_before_the_start_have_code_2() {
    let ended = Deployment::of(&["hello"])
        .option("--platform=quantum")
        .run()
        .expect(2);
    assert!(ended.err.contains("no platform `quantum`"), "{ended:?}");
    let ended = Deployment::of(&["hello"])
        .top_level("odd: 1\n")
        .run()
        .expect(2);
    assert!(ended.err.contains("odd"), "{ended:?}");
    let nothing = Deployment::of(&["hello"])
        .runtime("/nonexistent/image".as_ref())
        .run()
        .expect(2);
    assert!(nothing.err.contains("/nonexistent/image"), "{nothing:?}");
    let wrong = Deployment::of(&["hello"])
        .runtime("/bin/sh".as_ref())
        .run()
        .expect(2);
    assert!(wrong.err.contains("/bin/sh"), "{wrong:?}");
    let long = "x".repeat(40_000);
    let ended = Deployment::of(&[&long]).run().expect(2);
    assert!(ended.err.contains("shorten `args`"), "{ended:?}");
}
