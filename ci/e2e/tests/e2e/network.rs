// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network of cVMs: published ports, connections to the host, switches, and what happens when something of it is not there.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use capstream_e2e::{Cvm, Deployment, Running};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Pid, Signal, kill_process};

use crate::runs;

/// Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn limit() -> Duration {
    runs::environment().limit(LIMIT)
}

/// A cVM with the program `net` and `net:` of its file.
fn cvm(name: &str, arguments: &str, net: &str) -> Cvm {
    Cvm::new(name, &format!("/ld.so /tests/net {arguments}")).keys(&format!("net: {net}"))
}

/// A port of the host's that nobody has at the moment.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 253) as u8).collect()
}

/// Sends `bytes` to somebody who sends them back, both at once.
fn exchange(to: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(limit())).unwrap();
    let mut out = socket.try_clone().unwrap();
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            out.write_all(bytes).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        socket.read_to_end(&mut back).unwrap();
    });
    assert!(
        back == bytes,
        "{} of {} bytes came back",
        back.len(),
        bytes.len()
    );
}

/// The same, closed when all is back: `passt` may stall behind a half-closed connection.
fn exchange_and_close(to: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(limit())).unwrap();
    socket.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    socket.read_exact(&mut back).unwrap();
    assert!(back == bytes, "other bytes came back");
}

/// Somebody on the host who sends back what it gets from one connection. Joining it tells how much that was.
fn host_echo() -> (u16, thread::JoinHandle<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(limit())).unwrap();
        let mut bytes = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let n = socket.read(&mut bytes).unwrap();
            if n == 0 {
                return total;
            }
            socket.write_all(&bytes[..n]).unwrap();
            total += n;
        }
    });
    (port, echo)
}

fn finish_well(running: Running, cvm: Option<&str>, least: u32) {
    let outcome = runs::finish(running);
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    match cvm {
        Some(cvm) => runs::assert_checks(outcome.output_of(cvm), least, &outcome.printed()),
        None => runs::assert_checks(outcome.output(), least, &outcome.printed()),
    }
}

/// Programs of the host reach a server in a cVM, one connection after the other.
#[test]
fn published_tcp() {
    let port = free_port();
    let net = format!("{{ kind: user, ports: \"127.0.0.1:{port}:7000\" }}");
    let mut running =
        runs::start(&Deployment::new("published_tcp").cvm(cvm("alone", "serve-tcp 7000 3", &net)));
    running.wait_for_line("listening", limit()).unwrap();
    let to = (Ipv4Addr::LOCALHOST, port).into();
    for len in [1, 100_000, runs::volume(16 * MIB)] {
        exchange(to, &pattern(len));
    }
    finish_well(running, None, 3);
}

/// Packets of any size come through whole, also to a client that has room for less than one and is slow to take them. It takes not much then: where both sides
/// have more to send than all has room for, `passt` resets the connection.
#[test]
fn published_tcp_sizes() {
    let port = free_port();
    let lens = [1_459, 61_441, 65_537, 200_003];
    let serve = format!("serve-tcp 7000 {}", lens.len());
    let net = format!("{{ kind: user, ports: \"127.0.0.1:{port}:7000\" }}");
    let mut running =
        runs::start(&Deployment::new("published_tcp_sizes").cvm(cvm("alone", &serve, &net)));
    running.wait_for_line("listening", limit()).unwrap();
    for (len, room) in lens.into_iter().zip([2_048, 4_096, 30_000, 20_000]) {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(limit())).unwrap();
        set_socket_recv_buffer_size(&socket, room).unwrap();
        let bytes = pattern(len);
        let mut back = vec![0; len];
        thread::scope(|scope| {
            let mut out = socket.try_clone().unwrap();
            scope.spawn(|| {
                let mut out = move |piece: &[u8]| out.write_all(piece).unwrap();
                bytes.chunks(77_777).for_each(&mut out);
            });
            // Not for something to happen: this is how slow the client is, and its window is closed meanwhile.
            thread::sleep(Duration::from_millis(100));
            socket.read_exact(&mut back).unwrap();
        });
        assert!(back == bytes, "other bytes came back");
    }
    finish_well(running, None, lens.len() as u32);
}

/// As [`published_tcp`], with datagrams.
#[test]
fn published_udp() {
    const COUNT: usize = 50;
    let port = free_port();
    let net = format!("{{ kind: user, ports: [\"127.0.0.1:{port}:7001/udp\"] }}");
    let mut running =
        runs::start(&Deployment::new("published_udp").cvm(cvm("alone", "serve-udp 7001", &net)));
    running.wait_for_line("listening", limit()).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(limit())).unwrap();
    let mut back = [0; 2000];
    for number in 0..COUNT {
        let sent = pattern(1 + number * 29);
        socket.send(&sent).unwrap();
        let n = socket.recv(&mut back).unwrap();
        assert_eq!(back[..n], sent);
    }
    socket.send(&[]).unwrap();
    finish_well(running, None, 1);
}

/// A program in a cVM reaches a server on the host: the gateway stands for it.
#[test]
fn to_the_host() {
    let (port, echo) = host_echo();
    let bytes = runs::volume(16 * MIB);
    let arguments = format!("echo-tcp gateway {port} {bytes}");
    let running =
        runs::start(&Deployment::new("to_the_host").cvm(cvm("alone", &arguments, "user")));
    finish_well(running, None, 4);
    assert_eq!(echo.join().unwrap(), bytes);
}

#[test]
fn to_the_host_udp() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let echo = thread::spawn(move || {
        let mut bytes = [0; 2000];
        // An empty one is the last.
        loop {
            let (n, from) = socket.recv_from(&mut bytes).unwrap();
            if n == 0 {
                return;
            }
            socket.send_to(&bytes[..n], from).unwrap();
        }
    });
    let arguments = format!("echo-udp gateway {port} 50");
    let running =
        runs::start(&Deployment::new("to_the_host_udp").cvm(cvm("alone", &arguments, "user")));
    finish_well(running, None, 1);
    echo.join().unwrap();
}

fn on_switch(name: &str, server: &str, client: &str) {
    let net = |last| format!("{{ kind: switch lan, address: 10.1.0.{last}/24 }}");
    let running = runs::start(
        &Deployment::new(name)
            .cvm(cvm("server", server, &net(1)))
            .cvm(cvm("client", client, &net(2))),
    );
    let outcome = runs::finish(running);
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    runs::assert_checks(outcome.output_of("server"), 1, &outcome.printed());
    runs::assert_checks(outcome.output_of("client"), 1, &outcome.printed());
}

/// Two cVMs exchange 64 MiB, both ways at once.
#[test]
fn switch_tcp() {
    let bytes = runs::volume(64 * MIB);
    on_switch(
        "switch_tcp",
        "serve-tcp 7000 1",
        &format!("echo-tcp 10.1.0.1 7000 {bytes}"),
    );
}

#[test]
fn switch_udp() {
    on_switch("switch_udp", "serve-udp 7001", "echo-udp 10.1.0.1 7001 40");
}

/// Two switches of one file are two networks.
#[test]
fn switches_are_apart() {
    let bytes = 1 << 16;
    let client = format!("echo-tcp 10.1.0.1 7000 {bytes}");
    let mut deployment = Deployment::new("switches_are_apart");
    for lan in ["a", "b"] {
        let net = |last| format!("{{ kind: switch {lan}, address: 10.1.0.{last}/24 }}");
        deployment = deployment
            .cvm(cvm(&format!("server-{lan}"), "serve-tcp 7000 1", &net(1)).memory(64))
            .cvm(cvm(&format!("client-{lan}"), &client, &net(2)).memory(64));
    }
    let outcome = runs::succeed(&deployment);
    for name in ["server-a", "client-a", "server-b", "client-b"] {
        runs::assert_checks(outcome.output_of(name), 1, &outcome.printed());
    }
}

/// What a program sees of its interface when the host's own addresses are taken.
#[test]
fn addresses_of_the_host() {
    let net = "{ kind: user, mac: \"02:00:00:00:00:2a\" }";
    let outcome =
        runs::succeed(&Deployment::new("addresses_of_the_host").cvm(cvm("alone", "show", net)));
    let has = |line: &str| outcome.output().any(|text| text.starts_with(line));
    // Whether it says `running` depends on when: the kernel decides that a little later.
    for line in [
        "address ",
        "mask ",
        "flags up",
        "mac 02:00:00:00:00:2a",
        "gateway ",
    ] {
        assert!(has(line), "no '{line}'; printed:\n{}", outcome.printed());
    }
}

#[test]
fn static_address() {
    let net = "{ kind: user, address: 10.9.0.7/20, gateway: 10.9.1.1, dns: [9.9.9.9, 8.8.8.8] }";
    let outcome = runs::succeed(&Deployment::new("static_address").cvm(cvm("alone", "show", net)));
    let lines: Vec<_> = outcome.output().collect();
    for line in [
        "address 10.9.0.7",
        "mask 255.255.240.0",
        "mtu 65520",
        "gateway 10.9.1.1",
        "nameserver 9.9.9.9",
        "nameserver 8.8.8.8",
    ] {
        assert!(
            lines.contains(&line),
            "no '{line}'; printed:\n{}",
            outcome.printed()
        );
    }
}

/// A static address is one that the host is reached from.
#[test]
fn static_address_to_the_host() {
    let (port, echo) = host_echo();
    let arguments = format!("echo-tcp gateway {port} 100000");
    let net = "{ kind: user, address: 10.9.0.7/24 }";
    let running = runs::start(
        &Deployment::new("static_address_to_the_host").cvm(cvm("alone", &arguments, net)),
    );
    finish_well(running, None, 4);
    assert_eq!(echo.join().unwrap(), 100_000);
}

/// Without `net` there is no interface but the loopback.
#[test]
fn no_network() {
    for net in ["none", "{ kind: none }"] {
        let outcome = runs::succeed(&Deployment::new("no_network").cvm(cvm("alone", "show", net)));
        assert!(!outcome.contains("mac "), "printed:\n{}", outcome.printed());
    }
}

#[test]
fn port_conflict() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let net = format!("{{ kind: user, ports: \"127.0.0.1:{port}:80\" }}");
    let outcome = runs::run(&Deployment::new("port_conflict").cvm(cvm("alone", "show", &net)));
    assert_ne!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    let words = [
        format!("port {port} of the host"),
        "another program has it".to_owned(),
    ];
    assert!(
        outcome
            .errors()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "printed:\n{}",
        outcome.printed()
    );
}

#[test]
fn passt_missing() {
    let deployment = Deployment::new("passt_missing").cvm(cvm("alone", "show", "user"));
    let outcome = runs::run(&deployment.path("/nowhere"));
    assert_ne!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    assert!(
        outcome
            .errors()
            .any(|line| line.contains("install Debian's package passt")),
        "printed:\n{}",
        outcome.printed()
    );
}

/// The processes that a process has started and that are not waited for.
fn children(of: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).unwrap();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    let ids = lists.flat_map(|list| {
        list.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect::<Vec<_>>()
    });
    ids.collect()
}

/// The end of `passt` is told to programs and to the operator, and the cVM goes on.
#[test]
fn passt_dies() {
    let mut running = runs::start(&Deployment::new("passt_dies").cvm(cvm("alone", "wait", "user")));
    running.wait_for_line("waiting", limit()).unwrap();
    let children = children(running.id());
    assert_eq!(children.len(), 1);
    kill_process(Pid::from_raw(children[0]).unwrap(), Signal::KILL).unwrap();
    let outcome = runs::finish(running);
    assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    runs::assert_checks(outcome.output(), 1, &outcome.printed());
    assert!(
        outcome
            .errors()
            .any(|line| line.contains("its network is down") && line.contains("signal: 9")),
        "printed:\n{}",
        outcome.printed()
    );
}

/// Each life of a cVM has a `passt` of its own that publishes the port again, and leaves nothing behind.
#[test]
fn lives_leave_nothing() {
    let port = free_port();
    let net = format!(
        "{{ kind: user, ports: [\"127.0.0.1:{port}:7000\"] }}\nrestart: always\nrestart_delay: 0"
    );
    let mut running = runs::start(
        &Deployment::new("lives_leave_nothing")
            .cvm(cvm("alone", "serve-tcp 7000 1", &net).memory(64)),
    );
    let monitor = running.id();
    let count = |folder: &str| {
        fs::read_dir(format!("/proc/{monitor}/{folder}"))
            .unwrap()
            .count()
    };
    let mut before = None;
    let lives = runs::volume(100);
    for life in 0..lives {
        running.wait_for_line("listening", limit()).unwrap();
        exchange_and_close((Ipv4Addr::LOCALHOST, port).into(), &pattern(1000));
        let now = (count("fd"), count("task"), children(monitor).len());
        // What is made once is there by then.
        if life == lives / 10 {
            before = Some(now);
        }
        if life + 1 == lives {
            assert_eq!(Some(now), before, "descriptors, threads, processes");
        }
    }
    running.signal(Signal::TERM).unwrap();
    runs::finish(running);
}

/// A tap device that is there for one test.
struct HostTap(String);

impl HostTap {
    /// `None` where the host does not allow it.
    fn new(address: &str) -> Option<HostTap> {
        let name = format!("cs{}", std::process::id());
        let ip = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            let status = command.args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        if !ip(&["tuntap", "add", "dev", &name, "mode", "tap"]) {
            return None;
        }
        let tap = HostTap(name);
        let ready =
            ip(&["address", "add", address, "dev", &tap.0]) && ip(&["link", "set", &tap.0, "up"]);
        ready.then_some(tap)
    }
}

impl Drop for HostTap {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["tuntap", "del", "dev", &self.0, "mode", "tap"])
            .status();
    }
}

/// Host and cVM reach each other over a tap device. Only where tap devices can be made: by root, in most containers not.
#[test]
fn tap() {
    // A subnet of this process: a device that another run has left would be in the way.
    let subnet = (std::process::id() % 250) as u8;
    let Some(tap) = HostTap::new(&format!("10.77.{subnet}.1/24")) else {
        eprintln!("not tested: no tap device can be made here");
        return;
    };
    let net = format!("{{ kind: tap {}, address: 10.77.{subnet}.2/24 }}", tap.0);
    let mut running =
        runs::start(&Deployment::new("tap").cvm(cvm("alone", "serve-tcp 7000 2", &net)));
    running.wait_for_line("listening", limit()).unwrap();
    let to = (Ipv4Addr::new(10, 77, subnet, 2), 7000).into();
    exchange(to, &pattern(1000));
    exchange(to, &pattern(runs::volume(16 * MIB)));
    finish_well(running, None, 2);
}

#[test]
fn tap_missing() {
    let deployment = Deployment::new("tap_missing").cvm(cvm("alone", "show", "tap nosuch0"));
    let outcome = runs::run(&deployment);
    assert_ne!(outcome.code(), 0, "printed:\n{}", outcome.printed());
    assert!(
        outcome
            .errors()
            .any(|line| line.contains("no tap device `nosuch0`")),
        "printed:\n{}",
        outcome.printed()
    );
}
