// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs of `disk-image/programs/tests`, each alone in a cVM, started through the loader or as a static executable.

use capstream_e2e::{Cvm, Deployment};

use crate::runs;

macro_rules! programs {
    ($( $(#[$doc:meta])* $name:ident $args:literal $least:literal; )*) => {
        $( $(#[$doc])* #[test] fn $name() { runs::checks(stringify!($name), $args, $least); } )*
    };
}

programs! {
    /// Nodes of `/cap`, and the file systems around.
    devices "/ld.so /tests/devices" 22;
    /// Each errno that the requests of CAP_Stream promise.
    stream_errors "/ld.so /tests/stream_errors" 68;
    /// Each errno that the requests of CAP_File promise, and offsets.
    file_errors "/ld.so /tests/file_errors" 61;
    /// A probe ends after its limit.
    stream_probe_timeout "/ld.so /tests/stream_probe_timeout" 2;
    /// A signal interrupts every wait; other tasks go on; a reset cancels.
    stream_wait "/ld.so /tests/stream_wait" 58;
    /// Poll, select and epoll wake on both sides.
    stream_poll "/ld.so /tests/stream_poll" 16;
    /// Order, contents, counters, reset, several senders.
    stream_queue "/ld.so /tests/stream_queue" 43;
    /// Bells: each errno, counts, poll, waits, several ringers, reset.
    bell "/ld.so /tests/bell" 66;
    /// The end of a program takes back its queued buffers and its published ranges.
    program_ends "/ld.so /tests/program_ends" 36;
    /// `EFAULT` from system calls of every kind.
    bad_pointers "/ld.so /tests/bad_pointers" 112;
    /// vfork, exec, posix_spawn, wait.
    processes "/ld.so /tests/processes" 44;
    /// The same, exec'd without a loader.
    processes_static "/static/tests/processes" 44;
    /// Mutexes, condition variables, thread-local storage, cancellation.
    threads "/ld.so /tests/threads" 13;
    /// The same in a static executable.
    threads_static "/static/tests/threads" 13;
    /// Handlers, masks, restart, faults that are survived, registers.
    signals "/ld.so /tests/signals" 32;
    /// The same in a static executable.
    signals_static "/static/tests/signals" 32;
    /// Clocks and every kind of timer.
    timers "/ld.so /tests/timers" 21;
    /// Vector registers across preemption and signals.
    vectors "/ld.so /tests/vectors" 1;
    /// Two endless loops make progress, as threads and as processes.
    endless_loops "/ld.so /tests/endless_loops" 3;
    /// Files, mappings, sockets, descriptors that signal events.
    kernel_services "/ld.so /tests/kernel_services" 134;
    /// Extended attributes.
    attributes "/ld.so /tests/attributes" 49;
    /// Semaphores and queues that are waited for, and that tell.
    messages "/ld.so /tests/messages" 42;
    /// The domain's name, the kernel's messages, terminals that are hung up.
    machine "/ld.so /tests/machine" 46;
    /// Programs started by descriptors, what a process has of its own, barriers, signals to one thread.
    execution "/ld.so /tests/execution" 104;
    /// The same in a static executable.
    execution_static "/static/tests/execution" 104;
    /// Contexts and rings of requests that go on by themselves.
    asynchronous "/ld.so /tests/asynchronous" 44;
    /// Closing many, watches, waits, pipes, peers, and descriptors of other processes.
    descriptors "/ld.so /tests/descriptors" 49;
    /// Modes, owners, ways to open, hints, handles.
    files "/ld.so /tests/files" 115;
    /// Users, groups and capabilities.
    credentials "/ld.so /tests/credentials" 70;
    /// Policies, priorities, the processor.
    scheduling "/ld.so /tests/scheduling" 79;
    /// Clocks that are set and adjusted.
    clocks "/ld.so /tests/clocks" 47;
    /// Waiting for one and for several, moving waiters, locks whose owner dies.
    futexes "/ld.so /tests/futexes" 58;
    /// Mounts step by step, another root, name spaces of mounts.
    mounts "/ld.so /tests/mounts" 88;
}

/// The words of the command line arrive as they are, and the kernel names itself.
#[test]
fn hello() {
    let outcome = runs::program("hello", "/ld.so /app/hello one 'two words' \"\"");
    let lines: Vec<_> = outcome.output().collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("Hello from Linux 6.12")),
        "{lines:?}"
    );
    for argument in ["argument 1: one", "argument 2: two words", "argument 3: "] {
        assert!(lines.contains(&argument), "no '{argument}' in {lines:?}");
    }
}

/// How many buffers a kernel may have queued at all nodes together is said on its command line.
#[test]
fn stream_buffers() {
    let outcome = runs::succeed(
        &Deployment::new("stream_buffers")
            .cvm(Cvm::new("alone", "/ld.so /tests/stream_buffers 3"))
            .argument("--kernel-args")
            .argument("capstream.buffers=3"),
    );
    runs::assert_checks(outcome.output(), 12, &outcome.printed());
}

/// A static executable needs no loader.
#[test]
fn hello_static() {
    let outcome = runs::program("hello_static", "/static/app/hello");
    assert!(
        outcome
            .output()
            .any(|line| line.starts_with("Hello from Linux 6.12")),
        "{}",
        outcome.printed()
    );
}

/// A program reads the monitor's standard input: nothing is lost when it comes faster than it is read, and it ends.
#[test]
fn console_input() {
    let lines = runs::volume(20_000);
    let mut input: String = (0..lines)
        .map(|number| format!("line {number}\n"))
        .collect();
    input.push_str("the rest");
    let args = format!("/ld.so /tests/console_input {lines}");
    let outcome = runs::succeed(
        &Deployment::new("console_input")
            .cvm(Cvm::new("alone", &args))
            .input(input),
    );
    assert!(
        outcome.contains("4 checks, 0 failures"),
        "printed:\n{}",
        outcome.printed()
    );
}

/// What needs a kernel that gives programs virtual memory.
mod needs_virtual_memory {
    use super::runs;

    programs! {
        /// Mappings, protection, reservations, files, copies for children, stacks.
        address_space "/ld.so /tests/address_space" 88;
        /// The same in a static executable.
        address_space_static "/static/tests/address_space" 88;
        /// Pages that are held, sealed, mapped in another order, and those of other processes.
        pages "/ld.so /tests/pages" 76;
    }
}
