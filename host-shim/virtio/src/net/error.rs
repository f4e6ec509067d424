// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why there is no interface.

use std::io;

use thiserror::Error;

/// Why an interface cannot be made.
#[derive(Debug, Error)]
pub enum NetError {
    /// The host does not let us.
    #[error("no network interface: {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's reason.
        source: io::Error,
    },
    /// There is no such tap device.
    #[error(
        "there is no tap device `{device}`; make one, as root: ip tuntap add dev {device} mode tap user YOU && ip link set {device} up"
    )]
    NoTap {
        /// Its name.
        device: String,
    },
    /// Something else has its name.
    #[error("`{device}` is not a tap device; name one that `ip tuntap` lists with `tap`")]
    NotTap {
        /// Its name.
        device: String,
    },
    /// The tap device cannot be opened.
    #[error(
        "cannot open the tap device `{device}`: {source}; it has to belong to you, and nobody else may have it open"
    )]
    OpenTap {
        /// Its name.
        device: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The switch has no room.
    #[error("a switch has {most} interfaces at most; use another one")]
    SwitchFull {
        /// How many it can have.
        most: usize,
    },
    /// Two interfaces of a switch have one address.
    #[error("two interfaces of one switch have the address {}; give each its own", mac_text(*mac))]
    SameAddress {
        /// The address.
        mac: super::MacAddress,
    },
}

/// An address as people write it.
pub(super) fn mac_text(mac: super::MacAddress) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}
