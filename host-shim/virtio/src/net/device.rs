// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The interface as the transport sees it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::sockopt::set_socket_send_buffer_size;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::error::NetError;
use super::stream::{StreamSink, StreamSource};
use super::switch::{Port, SwitchPort, SwitchSink};
use super::tap::Tap;
use super::worker::{Receive, Sink, Source, Worker};
use super::{MacAddress, QUEUE_SIZE, RECEIVE, TRANSMIT};
use crate::device::{Device, Session};

/// Bytes of the configuration space: address, status, pairs of queues, longest packet.
const CONFIG: usize = 12;
/// How many bytes the host may keep for the other side of a stream socket.
const SEND_BUFFER: usize = 1 << 20;

/// Called once, from any thread, when there is nobody at the other end any more; it is told why.
pub type LinkDown = Arc<dyn Fn(&str) + Send + Sync>;

/// How an interface is made.
#[derive(Clone)]
pub struct NetOptions {
    /// Its address.
    pub mac: MacAddress,
    /// The longest packet, in bytes, without the frame's header; at least 68.
    pub mtu: u16,
    /// Who is told when the link is down.
    pub on_down: Option<LinkDown>,
}

impl fmt::Debug for NetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetOptions")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

/// What an interface has moved since it was made. In is what the guest received.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Frames that were received.
    pub frames_in: AtomicU64,
    /// Their bytes.
    pub bytes_in: AtomicU64,
    /// Frames that came and that the guest did not get.
    pub lost_in: AtomicU64,
    /// Frames that were sent.
    pub frames_out: AtomicU64,
    /// Their bytes.
    pub bytes_out: AtomicU64,
    /// Frames of the guest that went nowhere.
    pub lost_out: AtomicU64,
}

impl NetCounters {
    pub(super) fn taken_in(&self, len: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn taken_out(&self, len: usize) {
        self.frames_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(len as u64, Ordering::Relaxed);
    }
}

/// A network interface.
pub struct Net {
    features: u64,
    /// The configuration while the link is up.
    up_config: [u8; CONFIG],
    down_config: [u8; CONFIG],
    up: Arc<AtomicBool>,
    counters: Arc<NetCounters>,
    worker: Worker,
}

impl Net {
    /// An interface whose frames go through a connected stream socket, each behind its length in four bytes, big-endian.
    ///
    /// # Errors
    ///
    /// [`NetError::Host`].
    pub fn stream(socket: OwnedFd, options: &NetOptions) -> Result<Net, NetError> {
        // More than the host allows is as much as it allows.
        let _ = set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let socket = Arc::new(socket);
        let source = Source::Stream(StreamSource::new(Arc::clone(&socket)));
        // Who takes frames of the longest length takes a packet uncut: it only has to have its checksum.
        let features = 1 << VIRTIO_NET_F_CSUM
            | 1 << VIRTIO_NET_F_GUEST_CSUM
            | 1 << VIRTIO_NET_F_HOST_TSO4
            | 1 << VIRTIO_NET_F_HOST_TSO6
            | 1 << VIRTIO_NET_F_HOST_ECN;
        Net::new(
            features,
            Sink::Stream(StreamSink::new(socket)),
            own_port(source),
            options,
        )
    }

    /// An interface that is the other side of a tap device. Its longest packet is that of the device when the options say 0.
    ///
    /// # Errors
    ///
    /// [`NetError::Host`].
    pub fn tap(tap: Tap, options: &NetOptions) -> Result<Net, NetError> {
        let mut options = options.clone();
        if options.mtu == 0 {
            options.mtu = tap.mtu();
        }
        let (sink, source) = tap.ends();
        let port = own_port(Source::Tap(source));
        Net::new(offloads(), Sink::Tap(sink), port, &options)
    }

    /// An interface at a port of a switch, which has its address.
    ///
    /// # Errors
    ///
    /// [`NetError::Host`].
    pub fn switch(port: SwitchPort, mtu: u16) -> Result<Net, NetError> {
        let options = NetOptions {
            mac: port.mac(),
            mtu,
            on_down: None,
        };
        let receiver = Arc::clone(&port.port);
        Net::new(
            offloads(),
            Sink::Switch(SwitchSink::new(port)),
            receiver,
            &options,
        )
    }

    fn new(
        features: u64,
        sink: Sink,
        port: Arc<Port>,
        options: &NetOptions,
    ) -> Result<Net, NetError> {
        let up = Arc::new(AtomicBool::new(true));
        let counters = Arc::clone(&port.counters);
        Ok(Net {
            features: features
                | 1 << VIRTIO_F_VERSION_1
                | 1 << VIRTIO_RING_F_EVENT_IDX
                | 1 << VIRTIO_RING_F_INDIRECT_DESC
                | 1 << VIRTIO_NET_F_MAC
                | 1 << VIRTIO_NET_F_MTU
                | 1 << VIRTIO_NET_F_STATUS
                | 1 << VIRTIO_NET_F_MRG_RXBUF,
            up_config: configuration(options, true),
            down_config: configuration(options, false),
            up: Arc::clone(&up),
            counters,
            worker: Worker::new(sink, port, up, options.on_down.clone())?,
        })
    }

    /// What it has moved.
    pub fn counters(&self) -> &Arc<NetCounters> {
        &self.counters
    }
}

/// What can be left to somebody who has headers as in the queues.
fn offloads() -> u64 {
    [
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
    ]
    .into_iter()
    .fold(0, |all, feature| all | 1 << feature)
}

fn own_port(source: Source) -> Arc<Port> {
    Arc::new(Port {
        receive: Mutex::new(Receive::new(source)),
        counters: Arc::new(NetCounters::default()),
    })
}

fn configuration(options: &NetOptions, up: bool) -> [u8; CONFIG] {
    let [a, b, c, d, e, f] = options.mac;
    let [m0, m1] = options.mtu.to_le_bytes();
    let status = if up { VIRTIO_NET_S_LINK_UP as u8 } else { 0 };
    [a, b, c, d, e, f, status, 0, 1, 0, m0, m1]
}

impl Device for Net {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        if self.up.load(Ordering::SeqCst) {
            &self.up_config
        } else {
            &self.down_config
        }
    }

    fn start(&self, session: Session) {
        self.worker.start(session);
    }

    fn notify(&self, queue: u16) {
        match queue {
            RECEIVE => self.worker.notify_receive(),
            TRANSMIT => self.worker.notify_transmit(),
            _ => {}
        }
    }

    fn stop(&self) {
        self.worker.stop();
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("config", &self.up_config)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
