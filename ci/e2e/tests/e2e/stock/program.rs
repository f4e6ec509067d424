// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program in Rust as the stock compiler makes it: dynamic, for glibc, at any address. It prints a line for each thing that holds.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::panic;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A value whose end is counted: a panic that passes by ends it, too.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn threads() {
    let (sender, receiver) = mpsc::channel();
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..32_usize {
            let sender = sender.clone();
            let total = &total;
            scope.spawn(move || {
                for _ in 0..1000 {
                    total.fetch_add(number, Ordering::Relaxed);
                }
                sender.send(number).unwrap();
            });
        }
    });
    drop(sender);
    let mut received: Vec<_> = receiver.iter().collect();
    received.sort_unstable();
    assert_eq!(received, (0..32).collect::<Vec<_>>());
    assert_eq!(total.into_inner(), 496_000);

    let state = Arc::new((Mutex::new(0), Condvar::new()));
    let other = Arc::clone(&state);
    let partner = thread::spawn(move || take_turns(&other, 1));
    take_turns(&state, 0);
    partner.join().unwrap();
    assert_eq!(*state.0.lock().unwrap(), 2000);

    let begin = Instant::now();
    thread::park_timeout(Duration::from_millis(20));
    thread::sleep(Duration::from_millis(20));
    assert!(begin.elapsed() >= Duration::from_millis(20));
}

fn take_turns(state: &(Mutex<usize>, Condvar), parity: usize) {
    for _ in 0..1000 {
        let turn = state.0.lock().unwrap();
        let mut turn = state
            .1
            .wait_while(turn, |turn| *turn % 2 != parity)
            .unwrap();
        *turn += 1;
        state.1.notify_one();
    }
}

fn collections() {
    let mut map = HashMap::new();
    for number in 0..200_000_u64 {
        map.insert(format!("key {number}"), number);
    }
    for number in (0..200_000_u64).step_by(2) {
        assert_eq!(map.remove(&format!("key {number}")), Some(number));
    }
    assert_eq!(map.len(), 100_000);
    assert_eq!(map.values().sum::<u64>(), 10_000_000_000);
}

fn panics() {
    let ended = AtomicUsize::new(0);
    panic::set_hook(Box::new(|_| {}));
    for depth in 0..100 {
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| fall(depth, &ended)));
        assert_eq!(
            caught.unwrap_err().downcast_ref(),
            Some(&format!("from {depth}"))
        );
    }
    assert_eq!(ended.load(Ordering::Relaxed), 5050);
    let thread = thread::spawn(|| panic!("in a thread"));
    assert_eq!(
        thread.join().unwrap_err().downcast_ref(),
        Some(&"in a thread")
    );
    let caught = panic::catch_unwind(|| {
        let list = [1, 2, 3];
        list[std::hint::black_box(7)]
    });
    assert!(caught.is_err());
    let _ = panic::take_hook();
}

fn fall(depth: usize, ended: &AtomicUsize) {
    let _counted = Counted(ended);
    if depth == 0 {
        panic::panic_any("from 0".to_owned());
    }
    // Caught and thrown again at each level, with how deep it was.
    let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| fall(depth - 1, ended)));
    let payload = caught.unwrap_err();
    let from: usize = payload.downcast::<String>().unwrap()["from ".len()..]
        .parse()
        .unwrap();
    panic::panic_any(format!("from {}", from + 1));
}

#[inline(never)]
fn named_in_the_backtrace() -> Backtrace {
    Backtrace::force_capture()
}

fn backtrace() {
    let backtrace = named_in_the_backtrace();
    assert_eq!(backtrace.status(), BacktraceStatus::Captured);
    let text = backtrace.to_string();
    assert!(text.contains("named_in_the_backtrace"), "{text}");
    assert!(text.contains("main"), "{text}");
}

fn network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    TcpStream::connect(address)
        .unwrap()
        .write_all(&[7; 100_000])
        .unwrap();
    assert_eq!(server.join().unwrap(), 100_000);
}

fn processes() {
    let output = Command::new("uname").arg("-s").output().unwrap();
    assert_eq!(output.stdout, b"Linux\n");
    let itself = std::env::current_exe().unwrap();
    let status = Command::new(itself)
        .arg("overflow")
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&status.stderr).contains("has overflowed its stack"),
        "{status:?}"
    );
}

fn recurse(depth: u64) -> u64 {
    let pad = std::hint::black_box([depth; 128]);
    if depth == u64::MAX {
        0
    } else {
        recurse(depth + 1) + pad[5]
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("overflow") {
        println!("{}", recurse(0));
    }
    let checks: [(&str, fn()); 6] = [
        ("threads", threads),
        ("collections", collections),
        ("panics", panics),
        ("backtrace", backtrace),
        ("network", network),
        ("processes", processes),
    ];
    for (name, check) in checks {
        check();
        println!("{name}");
    }
    panic!("the last words");
}
