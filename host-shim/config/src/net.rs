// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network of a cVM: where its interface leads, and its addresses.

use std::net::Ipv4Addr;

/// The network interface of one cVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Where it leads.
    pub link: Link,
    /// How it gets its address.
    pub address: Address,
    /// The servers that names are asked of, besides those that a server for addresses tells.
    pub dns: Vec<Ipv4Addr>,
    /// The address of its frames; any, when absent.
    pub mac: Option<[u8; 6]>,
    /// The line of the file that it is on, counted from 1.
    pub line: usize,
}

/// Where an interface leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// To where the host leads, on behalf of the user, with these ports published on the host.
    User(Vec<PublishedPort>),
    /// To the tap device of the host with this name.
    Tap(String),
    /// To the others of the file that name the same switch.
    Switch(String),
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A server on the network tells.
    Dhcp,
    /// It has this one.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// How many of its bits are those of its network: 1 to 30.
        prefix: u8,
        /// Where all that is not in its network is sent to.
        gateway: Option<Ipv4Addr>,
    },
    /// It gets none: that is left to the programs.
    Unset,
}

/// What is in the packets for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As it is written in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A port of the host that leads to one of a cVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// What it is for.
    pub protocol: Protocol,
    /// The address of the host that it is at; all of them, when absent.
    pub host_address: Option<Ipv4Addr>,
    /// Its number on the host.
    pub host: u16,
    /// Its number in the cVM.
    pub guest: u16,
    /// As it is written in the file.
    pub text: String,
    /// The line of the file, counted from 1.
    pub line: usize,
}

impl PublishedPort {
    /// Reads `[ADDRESS:]PORT:PORT[/tcp|/udp]`, the host's first.
    pub(crate) fn parse(text: &str, line: usize) -> Option<PublishedPort> {
        let (places, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((places, "tcp")) => (places, Protocol::Tcp),
            Some((places, "udp")) => (places, Protocol::Udp),
            Some(_) => return None,
        };
        let (host, guest) = places.rsplit_once(':')?;
        let (host_address, host) = match host.rsplit_once(':') {
            None => (None, host),
            Some((address, host)) => (Some(address.parse().ok()?), host),
        };
        Some(PublishedPort {
            protocol,
            host_address,
            host: port(host)?,
            guest: port(guest)?,
            text: text.to_owned(),
            line,
        })
    }

    /// Whether the host cannot have both.
    pub(crate) fn collides(&self, other: &PublishedPort) -> bool {
        let address = match (self.host_address, other.host_address) {
            (Some(one), Some(another)) => {
                one == another || one.is_unspecified() || another.is_unspecified()
            }
            _ => true,
        };
        address && self.protocol == other.protocol && self.host == other.host
    }
}

fn port(text: &str) -> Option<u16> {
    // The conversion itself would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// Reads six bytes in hexadecimal with colons between, of one interface and not of a group.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| {
            part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
        })?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let [first, ..] = bytes;
    let some = bytes.iter().any(|&byte| byte != 0);
    (parts.next().is_none() && first & 1 == 0 && some).then_some(bytes)
}

/// Reads `ADDRESS/BITS`, an address that an interface can have.
pub(crate) fn address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
    let usable = (1..=30).contains(&prefix) && is_of_host(address, address, prefix);
    usable.then_some((address, prefix))
}

/// Whether `other` can be an address of somebody in the network that `address` is in.
pub(crate) fn is_of_host(other: Ipv4Addr, address: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let (other, address) = (u32::from(other), u32::from(address));
    let host = other & !mask;
    let special = Ipv4Addr::from(other);
    other & mask == address & mask
        && host != 0
        && host != !mask
        && !special.is_loopback()
        && !special.is_multicast()
        && !special.is_unspecified()
}

/// The first address of somebody else in the network that `address` is in.
pub(crate) fn first_other(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let network = u32::from(address) & mask;
    let others = [1, 2].map(|host| Ipv4Addr::from(network | host));
    others
        .into_iter()
        .find(|&other| other != address && is_of_host(other, address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(Option<[u8; 4]>, u16, u16, Protocol)> {
        PublishedPort::parse(text, 1).map(|port| {
            (
                port.host_address.map(|address| address.octets()),
                port.host,
                port.guest,
                port.protocol,
            )
        })
    }

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("8080:80"), Some((None, 8080, 80, Protocol::Tcp)));
        assert_eq!(parse("53:53/udp"), Some((None, 53, 53, Protocol::Udp)));
        assert_eq!(
            parse("127.0.0.1:8080:80/tcp"),
            Some((Some([127, 0, 0, 1]), 8080, 80, Protocol::Tcp))
        );
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "65536:1",
            "+80:80",
            "-1:80",
            "a:80",
            "80:80/",
            "80:80/sctp",
            "80:80/tcp/udp",
            "1.2.3:80:80",
            "localhost:80:80",
            "1.2.3.4:5:6:7",
            "80-90:80",
            " 80:80",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn ports_collide_where_one_socket_would_take_the_other_s() {
        let port = |text| PublishedPort::parse(text, 1).unwrap();
        let collide = |one, other| port(one).collides(&port(other));
        assert!(collide("80:1", "80:2"));
        assert!(collide("80:1", "127.0.0.1:80:2"));
        assert!(collide("0.0.0.0:80:1", "127.0.0.1:80:2"));
        assert!(!collide("127.0.0.2:80:1", "127.0.0.1:80:2"));
        assert!(!collide("80:1", "80:1/udp"));
        assert!(!collide("80:1", "81:1"));
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(
            address("10.0.0.2/24"),
            Some((Ipv4Addr::new(10, 0, 0, 2), 24))
        );
        for text in [
            "10.0.0.2",
            "10.0.0.2/",
            "10.0.0.2/31",
            "10.0.0.2/0",
            "10.0.0.2/+8",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/8",
            "10.0.0/24",
            "::1/64",
            "0.0.0.0/8",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
        assert_eq!(mac("02:00:00:00:00:0a"), Some([2, 0, 0, 0, 0, 10]));
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "03:00:00:00:00:00",
            "00:00:00:00:00:00",
            "02-00-00-00-00-00",
            "02:00:00:00:00:+1",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
    }
}
