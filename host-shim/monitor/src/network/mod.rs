// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network of a cVM: its interface, what it leads to, and what its kernel is told about addresses.
//!
//! | file | what |
//! |---|---|
//! | `passt` | the process that stands for the cVM on the host's network, without privileges |
//! | `dhcp` | asks that process for the addresses |
//!
//! The addresses of a cVM that `passt` serves are asked for here, before its kernel starts: the answer tells that the ports are published,
//! and the kernel, which is told them on its command line, need not ask and wait. On a tap device only the network's own server knows: there the kernel asks.

mod dhcp;
mod passt;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use capstream_config::{Address, Deployment, Link, NetConfig};
use capstream_virtio::{MacAddress, Net, NetCounters, NetError, NetOptions, Switch, Tap};

use self::passt::Passt;
pub use self::passt::PasstError;
use crate::boot::fill_random;

/// The longest packet on a switch, as on any Ethernet. Longer pieces of a stream travel uncut all the same.
const SWITCH_MTU: u16 = 1500;
/// The longest packet to `passt` when it does not say.
const PASST_MTU: u16 = 1500;

/// How many bytes the receive buffer of a TCP connection has at first and at most. Packets of 64 KiB would each wait for a delayed acknowledgement where only one
/// has room.
const TCP_RMEM: (usize, usize) = (1 << 20, 6 << 20);

/// With less room than that on the way from `passt`, a receive buffer has a size of its own, at first and at most.
const LITTLE_ROOM: usize = 1 << 20;
/// That size, by measurement: `passt` limits the window of the connection's socket to the cVM's each time that changes, and the host's sender, which has segments
/// of 64 KiB too, waits for its timer where the two do not fit each other. Each of many transfers through a published port had 560 MB/s or more with this. With all other
/// sizes that were tried, from 128 to 416 KiB, some had 50 to 200, and with most sizes all.
const TCP_RMEM_LITTLE: usize = 196 << 10;

/// After how many microseconds at least the kernel sends again what `passt` has not acknowledged; its own value is 200,000. `passt` drops what the socket of the
/// connection does not take, which is all there is to be lost on the way to it, and the connection stands still meanwhile. It acknowledges after
/// 50,000 at most.
const PASST_RTO_MIN_US: u32 = 60_000;

/// What the network of a cVM is to be, over all its lives.
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    config: NetConfig,
    mac: MacAddress,
    /// The one that the configuration names, if it names one.
    switch: Option<Switch>,
}

/// Why a cVM has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// See the source.
    #[error(transparent)]
    Interface(#[from] NetError),
    /// See the source.
    #[error(transparent)]
    Passt(#[from] PasstError),
}

/// The switches of a deployment, by name.
#[derive(Debug, Default)]
pub struct Switches(BTreeMap<String, Switch>);

impl Switches {
    /// Those that the file names.
    pub fn of(deployment: &Deployment) -> Switches {
        let nets = deployment.cvms.iter().filter_map(|cvm| cvm.net.as_ref());
        let names = nets.filter_map(|net| match &net.link {
            Link::Switch(name) => Some(name.clone()),
            _ => None,
        });
        Switches(names.map(|name| (name, Switch::new())).collect())
    }

    fn get(&self, link: &Link) -> Option<Switch> {
        match link {
            Link::Switch(name) => self.0.get(name).cloned(),
            _ => None,
        }
    }
}

impl NetworkSpec {
    /// The network that a file describes.
    ///
    /// # Errors
    ///
    /// When the host gives no random bytes for an address.
    pub fn new(config: &NetConfig, switches: &Switches) -> std::io::Result<NetworkSpec> {
        let mac = match config.mac {
            Some(mac) => mac,
            None => {
                let mut mac = [0; 6];
                fill_random(&mut mac)?;
                let [first, rest @ ..] = mac;
                let [a, b, c, d, e] = rest;
                // Of one interface, and administered here: IEEE 802, 8.2.
                [first & 0xfc | 2, a, b, c, d, e]
            }
        };
        Ok(NetworkSpec {
            switch: switches.get(&config.link),
            config: config.clone(),
            mac,
        })
    }
}

/// The network of a cVM that runs. Dropping it ends what belongs to it; its interface has to go first.
#[derive(Debug)]
pub struct Network {
    /// Words for the kernel's command line.
    pub kernel_args: String,
    /// What the interface moves.
    pub counters: Arc<NetCounters>,
    /// It stands for the cVM on the host's network.
    _passt: Option<Arc<Passt>>,
}

/// Makes the interface of a cVM.
///
/// # Errors
///
/// [`NetworkError`]; nothing of it is left then.
pub fn connect(cvm: &str, spec: &NetworkSpec) -> Result<(Net, Network), NetworkError> {
    let NetworkSpec {
        config,
        mac,
        switch,
    } = spec;
    let mut known = Known::of(config);
    let mut passt = None;
    let net = match (&config.link, switch) {
        (Link::User(ports), _) => {
            let (started, socket, lease) = Passt::start(config, ports, *mac)?;
            let started = Arc::new(started);
            passt = Some(Arc::clone(&started));
            known.fill(config, &lease);
            // It sends all that a window has room for at once, and loses what its socket does not take.
            known.tcp_rmem = Some(receive_buffer(started.room()));
            known.tcp_rto_min_us = Some(PASST_RTO_MIN_US);
            let options = NetOptions {
                mac: *mac,
                mtu: lease.mtu.unwrap_or(PASST_MTU),
                on_down: Some(link_down(cvm, started)),
            };
            Net::stream(OwnedFd::from(socket), &options)?
        }
        (Link::Tap(device), _) => {
            let cvm = cvm.to_owned();
            let options = NetOptions {
                mac: *mac,
                // That of the device.
                mtu: 0,
                on_down: Some(Arc::new(move |why| {
                    tracing::warn!(cvm, "its network is down: {why}");
                })),
            };
            Net::tap(Tap::open(device)?, &options)?
        }
        (Link::Switch(_), Some(switch)) => Net::switch(switch.port(*mac)?, SWITCH_MTU)?,
        // A switch that no file names has nobody else.
        (Link::Switch(_), None) => Net::switch(Switch::new().port(*mac)?, SWITCH_MTU)?,
    };
    let network = Network {
        kernel_args: known.kernel_args(),
        counters: Arc::clone(net.counters()),
        _passt: passt,
    };
    Ok((net, network))
}

/// The sizes of a TCP connection's receive buffer, at first and at most, when so many bytes may be on their way from `passt`.
fn receive_buffer(room: usize) -> (usize, usize) {
    if room < LITTLE_ROOM {
        let size = TCP_RMEM_LITTLE.min(room);
        return (size, size);
    }
    let (first, most) = TCP_RMEM;
    (first.min(room / 2), most.min(room))
}

/// What to do when nobody is at the other end of the interface any more.
fn link_down(cvm: &str, passt: Arc<Passt>) -> Arc<dyn Fn(&str) + Send + Sync> {
    let cvm = cvm.to_owned();
    Arc::new(move |why| {
        let ended = passt.end();
        tracing::warn!(
            cvm,
            "its network is down: passt has ended ({ended}; {why}); restart the cVM to have it back"
        );
    })
}

/// What is known of an interface's addresses before its kernel starts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    address: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    /// The kernel has to ask.
    ask: bool,
    /// Sizes of a TCP connection's receive buffer, other than the kernel's own.
    tcp_rmem: Option<(usize, usize)>,
    /// After how many microseconds at least TCP sends again, other than the kernel's own.
    tcp_rto_min_us: Option<u32>,
}

impl Known {
    fn of(config: &NetConfig) -> Known {
        let mut known = Known {
            dns: config.dns.clone(),
            tcp_rmem: match &config.link {
                Link::User(_) | Link::Switch(_) => Some(TCP_RMEM),
                Link::Tap(_) => None,
            },
            ..Known::default()
        };
        match config.address {
            Address::Static {
                address,
                prefix,
                gateway,
            } => {
                known.address = Some((address, prefix));
                known.gateway = gateway;
            }
            Address::Dhcp => known.ask = true,
            Address::Unset => {}
        }
        known
    }

    fn fill(&mut self, config: &NetConfig, lease: &dhcp::Lease) {
        if config.address == Address::Dhcp {
            self.address = Some((lease.address, lease.prefix));
            self.gateway = lease.gateway;
            self.ask = false;
        }
        if self.dns.is_empty() && config.address != Address::Unset {
            self.dns.clone_from(&lease.dns);
        }
    }

    fn kernel_args(&self) -> String {
        let mut words = match self.address {
            Some((address, prefix)) => format!("capstream.net={address}/{prefix}"),
            // The kernel's own client, and the first program takes the name servers from it.
            None if self.ask => "capstream.net=dhcp ip=:::::eth0:dhcp".to_owned(),
            None => "capstream.net=up".to_owned(),
        };
        // Writing to a string cannot fail.
        if let Some(gateway) = self.gateway {
            let _ = write!(words, " capstream.gateway={gateway}");
        }
        if !self.dns.is_empty() {
            let dns: Vec<_> = self.dns.iter().take(3).map(Ipv4Addr::to_string).collect();
            let _ = write!(words, " capstream.dns={}", dns.join(","));
        }
        if let Some((first, most)) = self.tcp_rmem {
            let _ = write!(words, " sysctl.net.ipv4.tcp_rmem=\"4096 {first} {most}\"");
        }
        if let Some(least) = self.tcp_rto_min_us {
            let _ = write!(words, " sysctl.net.ipv4.tcp_rto_min_us={least}");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: Address, dns: &[[u8; 4]]) -> NetConfig {
        NetConfig {
            link: Link::Tap("tap0".to_owned()),
            address,
            dns: dns.iter().map(|&dns| dns.into()).collect(),
            mac: None,
            line: 1,
        }
    }

    fn lease() -> dhcp::Lease {
        dhcp::Lease {
            address: [192, 0, 2, 2].into(),
            prefix: 24,
            gateway: Some([192, 0, 2, 1].into()),
            dns: vec![[192, 0, 2, 53].into()],
            mtu: None,
        }
    }

    fn words(config: &NetConfig, lease: Option<&dhcp::Lease>) -> String {
        let mut known = Known::of(config);
        if let Some(lease) = lease {
            known.fill(config, lease);
        }
        known.kernel_args()
    }

    #[test]
    fn the_kernel_is_told_what_is_known() {
        let fixed = Address::Static {
            address: [10, 0, 0, 2].into(),
            prefix: 8,
            gateway: None,
        };
        assert_eq!(
            words(&config(Address::Dhcp, &[]), Some(&lease())),
            "capstream.net=192.0.2.2/24 capstream.gateway=192.0.2.1 capstream.dns=192.0.2.53"
        );
        assert_eq!(
            words(
                &config(Address::Dhcp, &[[9, 9, 9, 9], [8, 8, 8, 8]]),
                Some(&lease())
            ),
            "capstream.net=192.0.2.2/24 capstream.gateway=192.0.2.1 capstream.dns=9.9.9.9,8.8.8.8"
        );
        assert_eq!(words(&config(fixed, &[]), None), "capstream.net=10.0.0.2/8");
        assert_eq!(
            words(&config(Address::Unset, &[]), Some(&lease())),
            "capstream.net=up"
        );
        assert_eq!(
            words(&config(Address::Dhcp, &[]), None),
            "capstream.net=dhcp ip=:::::eth0:dhcp"
        );
    }

    #[test]
    fn no_more_than_the_host_has_room_for_is_on_its_way() {
        for room in [4 << 10, 100_000, 425_984, LITTLE_ROOM, 3 << 20, 64 << 20] {
            let (first, most) = receive_buffer(room);
            assert!(first <= most && most <= room, "{room}: {first}, {most}");
            assert!(most <= TCP_RMEM.1);
        }
        // As most hosts have it, and this project's.
        assert_eq!(receive_buffer(425_984), (200_704, 200_704));
        assert_eq!(receive_buffer(8 << 20), TCP_RMEM);
    }

    #[test]
    fn an_address_that_is_made_up_is_of_one_interface() {
        for _ in 0..100 {
            let spec = NetworkSpec::new(&config(Address::Unset, &[]), &Switches::default());
            let [first, ..] = spec.unwrap().mac;
            assert_eq!(first & 3, 2);
        }
    }
}
