// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `passt`: a process that stands for a cVM on the host's network. It takes the cVM's packets, and has sockets of its own for them, so that neither it nor
//! the monitor needs privileges.
//!
//! It is started with one end of a pair of sockets, and ends when the other end is closed: at the end of the cVM, and of the monitor however that
//! ends. It is ready once it answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use capstream_config::{Address, NetConfig, Protocol, PublishedPort};
use capstream_virtio::MacAddress;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::pipe::{PipeFlags, pipe_with};

use super::dhcp::{self, Lease};

const PROGRAM: &str = "passt";
/// How long it may take to be ready; it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bytes may be on their way from it to us.
const SEND_BUFFER: usize = 4 << 20;
/// The longest frame that is looked at while it becomes ready.
const MOST: usize = 66_000;
/// How much of what it says is told.
const MOST_WORDS: usize = 2000;

/// Why there is no `passt` for a cVM.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// The program is not there.
    #[error(
        "`net: user` needs the program `passt`, which is not there; install Debian's package passt (ci/prerequisites does)"
    )]
    Missing,
    /// The program cannot be started.
    #[error("`passt` cannot be started: {source}")]
    Start {
        /// Why.
        source: io::Error,
    },
    /// A port cannot be published.
    #[error(
        "port {} of the host cannot be published as `ports: {}` says: {source}; {}",
        port.host, port.text, hint(source)
    )]
    Port {
        /// Which.
        port: PublishedPort,
        /// Why.
        source: io::Error,
    },
    /// It ended at once.
    #[error("`passt` ended at once, {how}")]
    Ended {
        /// How, and what it said.
        how: String,
    },
    /// It does not answer.
    #[error("`passt` does not answer: {source}")]
    Silent {
        /// Why.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has it, `ss -lnp` shows which; name another port of the host"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for root alone on most hosts; name a greater one"
        }
        io::ErrorKind::AddrNotAvailable => {
            "that address is not the host's; `ip address` lists them"
        }
        _ => "name another port of the host",
    }
}

/// One that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Passt {
    process: Mutex<Process>,
    room: usize,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// How it ended, once that is known.
    ended: Option<String>,
}

impl Passt {
    /// Starts one, and waits until it is ready. Returns the socket for frames, and what addresses it has for the cVM.
    pub(super) fn start(
        config: &NetConfig,
        ports: &[PublishedPort],
        mac: MacAddress,
    ) -> Result<(Passt, UnixStream, Lease), PasstError> {
        for port in ports {
            try_port(port).map_err(|source| PasstError::Port {
                port: port.clone(),
                source,
            })?;
        }
        let failed = |source| PasstError::Start { source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        // It loses what its socket does not take. More than the host allows is as much as it allows.
        let _ = set_socket_send_buffer_size(&theirs, SEND_BUFFER);
        let room = socket_send_buffer_size(&theirs).map_err(|error| failed(error.into()))?;
        let mut command = Command::new(PROGRAM);
        command.args(arguments(config, ports)).arg("--fd");
        command.arg(theirs.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // What it says is read when it has ended. Until then there may be more than a pipe holds, and it must not wait for us.
        let (said, its_words) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        command.stderr(Stdio::from(its_words));
        // A Ctrl-C at the terminal is for the monitor, whose cVMs may need their network to end well.
        command.process_group(0);
        // SAFETY: between fork and exec only `fcntl` is called, which is async-signal-safe, on a descriptor that is open.
        unsafe {
            command.pre_exec(move || Ok(fcntl_setfd(&theirs, FdFlags::empty())?));
        }
        let child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => PasstError::Missing,
            _ => PasstError::Start { source },
        })?;
        // It holds the other end, which has to be the child's alone.
        drop(command);
        let passt = Passt {
            process: Mutex::new(Process { child, ended: None }),
            room,
        };
        let lease = ask(&ours, mac).map_err(|source| {
            let silent = matches!(
                source.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            );
            let how = passt.end();
            if silent {
                return PasstError::Silent { source };
            }
            let words = words(said.into());
            PasstError::Ended {
                how: if words.is_empty() {
                    how
                } else {
                    format!("{how}, saying: {words}")
                },
            }
        })?;
        Ok((passt, ours, lease))
    }

    /// How many bytes may be on their way from it to us.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Ends it, if it runs; tells how it ended.
    pub(super) fn end(&self) -> String {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = &process.ended {
            return ended.clone();
        }
        // Nothing can fail when it has ended by itself.
        let _ = process.child.kill();
        let ended = match process.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        process.ended = Some(ended.clone());
        ended
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a port of the host can be had. Somebody may take it before `passt` does; then that ends.
fn try_port(port: &PublishedPort) -> io::Result<()> {
    let place = (
        port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        port.host,
    );
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(place).map(drop),
        Protocol::Udp => UdpSocket::bind(place).map(drop),
    }
}

fn arguments(config: &NetConfig, ports: &[PublishedPort]) -> Vec<String> {
    let mut arguments: Vec<String> = ["--foreground", "--quiet", "--ipv4-only"]
        .map(str::to_owned)
        .into();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    for port in ports {
        let option = match port.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        let address = port.host_address.map(|address| format!("{address}/"));
        add(
            option,
            format!(
                "{}{}:{}",
                address.unwrap_or_default(),
                port.host,
                port.guest
            ),
        );
    }
    if let Address::Static {
        address,
        prefix,
        gateway,
    } = config.address
    {
        add("--address", address.to_string());
        add("--netmask", prefix.to_string());
        if let Some(gateway) = gateway {
            add("--gateway", gateway.to_string());
        }
    }
    for server in &config.dns {
        add("--dns", server.to_string());
    }
    arguments
}

/// Asks for addresses and waits for the answer.
fn ask(mut socket: &UnixStream, mac: MacAddress) -> io::Result<Lease> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let question = dhcp::question(mac);
    let mut framed = (question.len() as u32).to_be_bytes().to_vec();
    framed.extend(question);
    socket.write_all(&framed)?;
    loop {
        let mut length = [0; 4];
        socket.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MOST {
            return Err(io::Error::other("what it sends are no frames"));
        }
        let mut frame = vec![0; length];
        socket.read_exact(&mut frame)?;
        if let Some(lease) = dhcp::answer(&frame, mac) {
            return Ok(lease);
        }
    }
}

/// What it has said, in one line, without what it says of itself and of the host's log.
fn words(said: std::fs::File) -> String {
    let mut bytes = Vec::new();
    // It has ended, so that there is an end; what cannot be read is not told.
    let _ = said.take(MOST_WORDS as u64).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.contains("to syslog") && !line.starts_with("Don't run as root")
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstream_config::{Deployment, Link};

    fn config(net: &str) -> NetConfig {
        let text = format!(
            "cVMs: [{{ name: a, args: a, isolation: {{ base: 0x20000000, size: 0x4000000 }}, net: {net} }}]"
        );
        let deployment = Deployment::from_str(&text, "yaml.cfg").unwrap();
        deployment.cvms[0].net.clone().unwrap()
    }

    #[test]
    fn it_is_told_ports_and_addresses() {
        let config = config(
            "{ kind: user, ports: [\"127.0.0.1:8080:80\", \"53:54/udp\"], address: 10.0.0.1/24, dns: [9.9.9.9] }",
        );
        let Link::User(ports) = &config.link else {
            panic!("{config:?}");
        };
        assert_eq!(
            arguments(&config, ports).join(" "),
            "--foreground --quiet --ipv4-only --tcp-ports 127.0.0.1/8080:80 --udp-ports 53:54 \
             --address 10.0.0.1 --netmask 24 --gateway 10.0.0.2 --dns 9.9.9.9"
        );
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let config = config(&format!(
            "{{ kind: user, ports: \"127.0.0.1:{number}:80\" }}"
        ));
        let Link::User(ports) = &config.link else {
            panic!("{config:?}");
        };
        let error = Passt::start(&config, ports, [2; 6])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("port {number} of the host")),
            "{error}"
        );
        assert!(error.contains("another program has it"), "{error}");
    }
}
