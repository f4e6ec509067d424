// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A switch between guests: it learns which addresses are behind which port, sends what it knows to one, and the rest to all others.
//!
//! # What a guest can take of others
//!
//! The address that a port was made with is its own: nobody else can send from it, so nobody gets what is meant for it. Other addresses belong to whom they were
//! last seen from, and each port can have [`MOST_LEARNED`] of them: one that invents addresses spends its own share. A port whose guest takes nothing loses its frames; nobody waits.
//!
//! # Lock order
//!
//! 1. a sender's transmit queue
//! 2. the table of the switch, which is given back before anything else is locked
//! 3. the receive queue of one other port at a time
//!
//! Nobody who has locked a receive queue locks anything else.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::MacAddress;
use super::device::NetCounters;
use super::error::NetError;
use super::frame::Frame;
use super::header::Header;
use super::stream::Sent;
use super::worker::{Receive, Source};

/// How many ports a switch can have.
const MOST_PORTS: usize = 64;
/// How many addresses can be learned from one port.
const MOST_LEARNED: usize = 32;
/// How many ports one batch of frames interrupts before they are told.
const BATCH: usize = 8;

/// A port as others see it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) receive: Mutex<Receive>,
    pub(super) counters: Arc<NetCounters>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    port: usize,
    /// It is the one that the port was made with.
    own: bool,
}

#[derive(Debug)]
struct Table {
    ports: Vec<Option<Arc<Port>>>,
    learned: Vec<usize>,
    addresses: HashMap<MacAddress, Place>,
}

/// A switch. Clones are the same one; it lives as long as any of its ports.
#[derive(Clone, Debug)]
pub struct Switch {
    table: Arc<Mutex<Table>>,
}

impl Default for Switch {
    fn default() -> Switch {
        Switch::new()
    }
}

impl Switch {
    /// A switch without ports.
    pub fn new() -> Switch {
        let most = MOST_PORTS * (MOST_LEARNED + 1);
        Switch {
            table: Arc::new(Mutex::new(Table {
                ports: Vec::new(),
                learned: Vec::new(),
                // Twice as many as there can be, so that coming and going takes no more memory.
                addresses: HashMap::with_capacity(2 * most),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every update of the table is complete in itself.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a port for an interface with this address.
    ///
    /// # Errors
    ///
    /// [`NetError::SwitchFull`], [`NetError::SameAddress`].
    pub fn port(&self, mac: MacAddress) -> Result<SwitchPort, NetError> {
        let mut table = self.lock();
        if table.addresses.get(&mac).is_some_and(|place| place.own) {
            return Err(NetError::SameAddress { mac });
        }
        let free = table.ports.iter().position(Option::is_none);
        let number = free.unwrap_or(table.ports.len());
        if number >= MOST_PORTS {
            return Err(NetError::SwitchFull { most: MOST_PORTS });
        }
        let counters = Arc::new(NetCounters::default());
        let port = Arc::new(Port {
            receive: Mutex::new(Receive::new(Source::Backlog(Default::default()))),
            counters,
        });
        if free.is_none() {
            table.ports.push(None);
            table.learned.push(0);
        }
        if let Some(place) = table.ports.get_mut(number) {
            *place = Some(Arc::clone(&port));
        }
        let place = Place {
            port: number,
            own: true,
        };
        // Somebody else may have used it before.
        if let Some(before) = table.addresses.insert(mac, place) {
            table.forget_one(before.port);
        }
        Ok(SwitchPort {
            switch: self.clone(),
            number,
            mac,
            port,
        })
    }
}

impl Table {
    fn forget_one(&mut self, port: usize) {
        if let Some(learned) = self.learned.get_mut(port) {
            *learned = learned.saturating_sub(1);
        }
    }

    /// Notes where a sender is; `false` when it is somebody else's address.
    fn learn(&mut self, from: usize, address: MacAddress) -> bool {
        let known = self.addresses.get(&address).copied();
        match known {
            Some(place) if place.port == from => return true,
            Some(place) if place.own => return false,
            _ => {}
        }
        if self
            .learned
            .get(from)
            .is_none_or(|&count| count >= MOST_LEARNED)
        {
            // It may send, and what is meant for it goes to all.
            return true;
        }
        let place = Place {
            port: from,
            own: false,
        };
        if let Some(before) = self.addresses.insert(address, place) {
            self.forget_one(before.port);
        }
        if let Some(learned) = self.learned.get_mut(from) {
            *learned += 1;
        }
        true
    }

    fn other(&self, from: usize, number: usize) -> Option<Arc<Port>> {
        if number == from {
            return None;
        }
        self.ports.get(number)?.clone()
    }
}

/// A port of a switch. Dropping it takes it away.
#[derive(Debug)]
pub struct SwitchPort {
    switch: Switch,
    number: usize,
    mac: MacAddress,
    pub(super) port: Arc<Port>,
}

impl SwitchPort {
    /// The address of its interface.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }
}

impl Drop for SwitchPort {
    fn drop(&mut self) {
        let mut table = self.switch.lock();
        let number = self.number;
        table.addresses.retain(|_, place| place.port != number);
        if let Some(port) = table.ports.get_mut(number) {
            *port = None;
        }
        if let Some(learned) = table.learned.get_mut(number) {
            *learned = 0;
        }
    }
}

/// Frames on their way to other ports.
#[derive(Debug)]
pub(super) struct SwitchSink {
    port: SwitchPort,
    /// Who has frames and was not told.
    untold: Vec<Weak<Port>>,
}

impl SwitchSink {
    pub(super) fn new(port: SwitchPort) -> SwitchSink {
        SwitchSink {
            port,
            untold: Vec::with_capacity(BATCH),
        }
    }

    /// Brings a frame to whoever it is for.
    pub(super) fn send(&mut self, header: Header, frame: Frame<'_>) -> Sent {
        let mut addresses = [0; 12];
        if !matches!(frame.reader().read(&mut addresses), Ok(12)) {
            return Sent::Lost;
        }
        let [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5] = addresses;
        let (to, from) = ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]);
        if is_group(from) {
            return Sent::Lost;
        }
        let own = self.port.number;
        let ports;
        {
            let mut table = self.port.switch.lock();
            if !table.learn(own, from) {
                return Sent::Lost;
            }
            let known = if is_group(to) {
                None
            } else {
                table.addresses.get(&to).copied()
            };
            if let Some(place) = known {
                let port = table.other(own, place.port);
                drop(table);
                if let Some(port) = port {
                    self.deliver(&port, header, frame);
                }
                return Sent::Taken;
            }
            ports = table.ports.len();
        }
        for number in 0..ports {
            let port = self.port.switch.lock().other(own, number);
            if let Some(port) = port {
                self.deliver(&port, header, frame);
            }
        }
        Sent::Taken
    }

    fn deliver(&mut self, port: &Arc<Port>, header: Header, frame: Frame<'_>) {
        let mut receive = port.receive.lock().unwrap_or_else(PoisonError::into_inner);
        if !receive.accept(header, frame) {
            drop(receive);
            port.counters.lost_in.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(receive);
        port.counters.taken_in(frame.len());
        let port = Arc::downgrade(port);
        if !self.untold.iter().any(|other| other.ptr_eq(&port)) {
            if self.untold.len() == BATCH {
                self.flush();
            }
            self.untold.push(port);
        }
    }

    /// Interrupts everybody who has got something.
    pub(super) fn flush(&mut self) {
        for port in self.untold.drain(..) {
            if let Some(port) = port.upgrade() {
                let mut receive = port.receive.lock().unwrap_or_else(PoisonError::into_inner);
                receive.tell();
            }
        }
    }
}

/// Whether it is not of one interface.
fn is_group(address: MacAddress) -> bool {
    let [first, ..] = address;
    first & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> MacAddress {
        [2, 0, 0, 0, 0, number]
    }

    #[test]
    fn addresses_are_learned_and_forgotten() {
        let switch = Switch::new();
        let first = switch.port(address(1)).unwrap();
        let second = switch.port(address(2)).unwrap();
        assert!(switch.port(address(1)).is_err());
        let mut table = switch.lock();
        assert!(!table.learn(0, address(2)), "the other's own");
        assert!(table.learn(0, address(9)));
        assert_eq!(table.addresses[&address(9)].port, 0);
        assert!(table.learn(1, address(9)), "it has moved");
        assert_eq!(table.addresses[&address(9)].port, 1);
        assert_eq!(table.learned, [0, 1]);
        drop(table);
        drop(second);
        assert!(!switch.lock().addresses.contains_key(&address(9)));
        let third = switch.port(address(3)).unwrap();
        assert_eq!(third.number, 1, "a place is used again");
        drop((first, third));
    }

    #[test]
    fn who_invents_addresses_spends_its_own_share() {
        let switch = Switch::new();
        let _ports = [
            switch.port(address(1)).unwrap(),
            switch.port(address(2)).unwrap(),
        ];
        let mut table = switch.lock();
        for number in 0..10_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            assert!(table.learn(0, [6, 0, 0, b, c, d]));
        }
        assert_eq!(table.addresses.len(), 2 + MOST_LEARNED);
        assert!(table.learn(1, address(7)));
        assert_eq!(table.addresses[&address(7)].port, 1);
        // What one has learned another may take over, within its own share.
        for number in 0..MOST_LEARNED as u32 {
            let [_, b, c, d] = number.to_be_bytes();
            table.learn(1, [6, 0, 0, b, c, d]);
        }
        assert_eq!(table.learned, [1, MOST_LEARNED]);
    }

    #[test]
    fn a_switch_has_so_many_ports() {
        let switch = Switch::new();
        let ports: Vec<_> = (0..MOST_PORTS as u8)
            .map(|number| switch.port(address(number)).unwrap())
            .collect();
        assert!(matches!(
            switch.port(address(99)),
            Err(NetError::SwitchFull { .. })
        ));
        drop(ports);
        assert!(switch.lock().addresses.is_empty());
    }
}
