// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Answers the hostcalls of one cVM.
//!
//! Every address that a cVM hands over is first turned into a capability derived from its authority; only that is used. What cannot be
//! derived is `-EFAULT`, before anything is touched. Copies end early where memory's protection forbids them, which is `-EFAULT` too.
//!
//! Two kinds of code are here. [`Hostcalls::light`] and what it calls is the message path: it neither allocates nor locks nor prints nor
//! panics, and uses thread-local variables only inside [`Processor::with_thread_state`]. [`Hostcalls::full`] has no such limits.
//!
//! # States of a vCPU in here
//!
//! `transfer.runs` is set while a portal runs on behalf of this cVM. Then only the hostcalls that a portal may make are answered, all of them
//! light; `connections` stays borrowed by the `Call` that started the portal.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::sync::Arc;

use capstream_abi::boot::{MMIO_BASE, MMIO_STRIDE, PAGE};
use capstream_abi::{
    CALL_QUERY, CALL_QUERY_NOTIFY, FileInfo, GuestEntries, Hostcall, KEY_LEN, Layout, PROBE_NOTIFY,
    Window, irq, page_access, passes_memory, power_off,
};
use capstream_capability::{
    Capability, CapabilityError, Class, Endpoint, Key, Kind, LastOut, Mode, Permissions, Portal,
    Publication, RegistryError,
};
use capstream_config::Access;
use capstream_virtio::MmioTransport;

use crate::boot::fill_random;
use crate::console::Console;
use crate::exchange::{CvmHandles, CvmTable, Exchange, File, Stream};
use crate::exit_code::Outcome;
use crate::grants::{CvmGrants, Refused};
use crate::kernel_log::KernelLog;
use crate::network::Network;
use crate::outlets::{Outlets, ProgramOutput};
use crate::output_limit::{Gap, OutputLimit};
use crate::platform::{
    AddressSpace, Addressing, Fault, Hostcalls, Platform, PlatformError, PortalCall, PortalFailure,
    Processor, Protection,
};
use crate::receiver::{PortalFailed, Receiver};
use crate::send_quota::SendQuota;
use crate::standard_streams::StandardStreams;
use crate::timings::{Event, Timings};
use crate::traffic::ConnectionTraffic;
use crate::vcpu_record::VcpuRecord;

/// How many bytes are moved between two looks at whether the cVM is to end, or what it copies was taken back.
const PIECE: u64 = 4 << 20;
/// How many bytes of console and log are taken at a time.
const TEXT: usize = 4096;
/// How many revocations of one cVM become log events: it can take back as often as it likes.
const MOST_REVOCATIONS: u32 = 100;
/// In how many ranges of its window a cVM can have system calls patched.
const MOST_PATCH_RANGES: u32 = 64;
/// The largest negated errno.
const MAX_ERRNO: i64 = 4095;

/// A negated errno, as hostcalls return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Errno(i32);

impl Errno {
    #[inline]
    fn code(self) -> i64 {
        -i64::from(self.0)
    }
}

impl From<CapabilityError> for Errno {
    #[inline]
    fn from(_: CapabilityError) -> Errno {
        // Whatever is wrong with a range, for who gave it it is a bad address.
        Errno(libc::EFAULT)
    }
}

impl From<Fault> for Errno {
    #[inline]
    fn from(_: Fault) -> Errno {
        Errno(libc::EFAULT)
    }
}

impl From<RegistryError> for Errno {
    fn from(error: RegistryError) -> Errno {
        Errno(error.errno())
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Errno {
        Errno(error.raw_os_error())
    }
}

impl From<Refused> for Errno {
    fn from(_: Refused) -> Errno {
        Errno(libc::EACCES)
    }
}

type Answer = Result<i64, Errno>;

#[inline]
fn to_code(answer: Answer) -> i64 {
    match answer {
        Ok(result) => result,
        Err(errno) => errno.code(),
    }
}

/// What a portal may fetch, and whose it is, while it runs on behalf of this cVM. It is written and read in place, a word at a time: a copy of
/// all of it would load several words at once that were just stored one by one, for which processors wait.
struct Transfer {
    /// Whether a portal runs.
    runs: bool,
    /// The sender's bytes.
    source: Capability,
    /// What the portal's owner may touch.
    authority: Capability,
    /// And in its window.
    window: Capability,
    /// How the portal calls its addresses.
    addressing: Addressing,
}

/// What the hostcalls of one cVM work on.
pub struct Parts {
    /// Its name.
    pub name: String,
    /// What it runs on.
    pub platform: Arc<dyn Platform>,
    /// Its memory.
    pub space: Arc<dyn AddressSpace>,
    /// Where its parts are.
    pub layout: Layout,
    /// Itself as its senders know it, with what it may touch.
    pub receiver: Arc<Receiver>,
    /// What all cVMs share.
    pub exchange: Arc<Exchange>,
    /// Its numbers.
    pub table: Arc<CvmTable>,
    /// Where the monitor's lines go.
    pub console: Arc<Console>,
    /// What its programs write.
    pub output: RefCell<ProgramOutput>,
    /// What operators see of it, and what its programs read.
    pub outlets: Arc<Outlets>,
    /// The standard streams, if they are its program's.
    pub streams: Option<Arc<StandardStreams>>,
    /// What its kernel logs.
    pub log: RefCell<KernelLog>,
    /// What it may publish and use.
    pub grants: CvmGrants,
    /// How much it may send.
    pub send_quota: SendQuota,
    /// How much it may write, output and log together.
    pub output_limit: OutputLimit,
    /// Where its output stands.
    pub output_gap: Cell<Gap>,
    /// Where its log stands.
    pub log_gap: Cell<Gap>,
    /// Its devices, by number.
    pub devices: Vec<MmioTransport>,
    /// What its network interface leads to.
    pub network: Option<Network>,
    /// When what happened to it.
    pub timings: Arc<Timings>,
    /// What its vCPU did.
    pub record: Arc<VcpuRecord>,
}

/// What this cVM is connected to.
struct Connections {
    handles: CvmHandles,
    /// What went to each stream, by handle.
    traffic: Vec<Option<ConnectionTraffic>>,
}

impl Connections {
    fn traffic(&self, handle: u64) -> Option<&ConnectionTraffic> {
        self.traffic.get(usize::try_from(handle).ok()?)?.as_ref()
    }

    fn set_traffic(&mut self, handle: u64, traffic: Option<ConnectionTraffic>) {
        let Ok(index) = usize::try_from(handle) else {
            return;
        };
        // Handles are small numbers.
        if traffic.is_some() && self.traffic.len() <= index {
            self.traffic.resize_with(index + 1, || None);
        }
        if let Some(place) = self.traffic.get_mut(index) {
            *place = traffic;
        }
    }
}

/// The hostcalls of one cVM. They belong to its vCPU's thread.
pub struct CvmCalls {
    parts: Parts,
    /// The same as the receiver's, closer by.
    authority: Capability,
    /// What it may touch besides, once its kernel has asked for a window.
    window: OnceCell<Capability>,
    /// And for more addresses.
    low: OnceCell<Capability>,
    addressing: Addressing,
    connections: RefCell<Connections>,
    transfer: RefCell<Transfer>,
    /// Whether the portal that runs wants its owner to look, which it is told when the portal has returned: then it finds all of what the
    /// portal did, and is told once.
    wake_owner: Cell<bool>,
    outcome: RefCell<Option<Outcome>>,
    /// In how many ranges of its window system calls can be patched.
    patch_ranges: Cell<u32>,
    /// How many revocations were told as log events.
    told_revocations: Cell<u32>,
}

impl CvmCalls {
    /// The hostcalls of the cVM with these parts.
    pub fn new(parts: Parts) -> CvmCalls {
        CvmCalls {
            authority: *parts.receiver.authority(),
            window: OnceCell::new(),
            low: OnceCell::new(),
            addressing: parts.receiver.addressing(),
            connections: RefCell::new(Connections {
                handles: parts.table.handles(),
                traffic: Vec::new(),
            }),
            transfer: RefCell::new(Transfer {
                runs: false,
                source: Capability::NULL,
                authority: Capability::NULL,
                window: Capability::NULL,
                addressing: parts.receiver.addressing(),
            }),
            wake_owner: Cell::new(false),
            outcome: RefCell::new(None),
            patch_ranges: Cell::new(0),
            told_revocations: Cell::new(0),
            parts,
        }
    }

    /// What the cVM said about its end, and its parts, of which the table of handles is gone.
    pub fn finish(self) -> (Option<Outcome>, Parts) {
        (self.outcome.into_inner(), self.parts)
    }

    /// What the caller may load of `[ptr, ptr + len)`, an address as its code uses it; likewise below.
    #[inline]
    fn to_load(&self, ptr: u64, len: u64) -> Result<Capability, CapabilityError> {
        let address = self.addressing.to_monitor(ptr);
        self.authority_of(address).check_load(address, len)
    }

    /// Of the caller's capabilities the one for `address`.
    #[inline]
    fn authority_of(&self, address: u64) -> &Capability {
        [&self.window, &self.low]
            .into_iter()
            .filter_map(OnceCell::get)
            .find(|window| window.covers(address, 1))
            .unwrap_or(&self.authority)
    }

    #[inline]
    fn to_store(&self, ptr: u64, len: u64) -> Result<Capability, CapabilityError> {
        let address = self.addressing.to_monitor(ptr);
        self.authority_of(address).check_store(address, len)
    }

    fn to_load_and_store(&self, ptr: u64, len: u64) -> Result<Capability, CapabilityError> {
        let address = self.addressing.to_monitor(ptr);
        self.authority_of(address).check_load_store(address, len)
    }

    fn interrupt(&self, processor: &dyn Processor, index: u16) {
        if index == self.parts.receiver.owner().index() {
            // It looks when its hostcall returns.
            processor.raise(irq::CAPABILITY);
        } else {
            self.parts.exchange.notify(index);
        }
    }

    /// The same for the owner of a portal. Its endpoint is entered, which keeps the line; so it need not be looked up where others may replace it.
    #[inline]
    fn interrupt_owner(&self, processor: &dyn Processor, owner: &Receiver) {
        if owner.owner() == self.parts.receiver.owner() {
            processor.raise(irq::CAPABILITY);
        } else {
            owner.line().raise(irq::CAPABILITY);
        }
    }

    // The message path.

    #[inline]
    fn portal_call(
        &self,
        processor: &dyn Processor,
        call: Hostcall,
        arguments: &[u64; 6],
    ) -> Answer {
        let transfer = self.transfer.try_borrow().map_err(|_| Errno(libc::EPERM))?;
        if !transfer.runs {
            return Err(Errno(libc::EPERM));
        }
        match call {
            Hostcall::CallFetch => {
                let [destination, offset, len, ..] = *arguments;
                let begin = transfer.source.base().wrapping_add(offset);
                let source = transfer.source.check_load(begin, len)?;
                let destination = transfer.addressing.to_monitor(destination);
                let authority = if transfer.window.tag() && transfer.window.covers(destination, 1) {
                    &transfer.window
                } else {
                    &transfer.authority
                };
                let destination = authority.check_store(destination, len)?;
                processor.copy(destination.base(), source.base(), len)?;
                Ok(0)
            }
            Hostcall::Wake => {
                self.wake_owner.set(true);
                Ok(0)
            }
            Hostcall::TimeNs => Ok(self.parts.platform.now_ns() as i64),
            Hostcall::Relax => {
                // The host may not schedule by what a portal asks for: its time has to count.
                std::hint::spin_loop();
                Ok(0)
            }
            Hostcall::Call => Err(Errno(libc::EDEADLK)),
            _ => Err(Errno(libc::EPERM)),
        }
    }

    /// The connections, which know what `number` stands for.
    #[inline]
    fn connections_for(
        &self,
        processor: &dyn Processor,
        number: u64,
    ) -> Result<RefMut<'_, Connections>, Errno> {
        let mut connections = self
            .connections
            .try_borrow_mut()
            .map_err(|_| Errno(libc::EDEADLK))?;
        if !connections.handles.is_current(number) {
            processor.with_thread_state(&mut || {
                connections.handles.refresh(number);
                0
            });
        }
        Ok(connections)
    }

    #[inline]
    fn call(&self, processor: &dyn Processor, arguments: &[u64; 6]) -> Answer {
        let [handle, ptr, len, operation, ..] = *arguments;
        let passes = passes_memory(operation);
        let source = match operation {
            _ if passes => self.to_load(ptr, len)?,
            CALL_QUERY | CALL_QUERY_NOTIFY => {
                self.authority.check_load(self.authority.base(), 0)?
            }
            _ => return Err(Errno(libc::EINVAL)),
        };
        let connections = self.connections_for(processor, handle)?;
        let endpoint = connections.handles.known_stream(handle)?;
        let quota = &self.parts.send_quota;
        let limited = passes && quota.is_limited();
        if limited && !quota.is_open(self.parts.platform.now_ns()) {
            return Err(Errno(libc::EDQUOT));
        }
        let in_flight = match endpoint.enter_bare() {
            Ok(in_flight) => in_flight,
            Err(last) => {
                tell(processor, last);
                return Err(Errno(libc::EPIPE));
            }
        };
        let Stream {
            portal, receiver, ..
        } = endpoint.payload();
        let Some(stack) = receiver.stacks().take(processor) else {
            tell(processor, in_flight.leave());
            return Err(Errno(libc::EBUSY));
        };
        let Ok(mut transfer) = self.transfer.try_borrow_mut() else {
            drop(stack);
            tell(processor, in_flight.leave());
            return Err(Errno(libc::EDEADLK));
        };
        transfer.source = source;
        transfer.authority = *receiver.authority();
        transfer.window = *receiver.window();
        transfer.addressing = receiver.addressing();
        transfer.runs = true;
        drop(transfer);
        let call = PortalCall {
            function: portal.function,
            cookie: portal.cookie,
            operation,
            len: source.length(),
            // A cVM may have several connections: each is a sender of its own.
            sender: self.parts.receiver.number() << 32 | (handle & u64::from(u32::MAX)),
            stack: stack.top(),
            owner: receiver.number(),
        };
        let record = &self.parts.record;
        record.portal_begins(call.owner, passes, call.len);
        let result = processor.call_portal(&call, &**receiver.line());
        if let Ok(mut transfer) = self.transfer.try_borrow_mut() {
            transfer.runs = false;
        }
        drop(stack);
        if self.wake_owner.replace(false) {
            self.interrupt_owner(processor, receiver);
        }
        tell(processor, in_flight.leave());
        record.portal_ran(result.ok());
        match result {
            Ok(value) if value < -MAX_ERRNO => Err(Errno(libc::EIO)),
            Ok(value) => {
                if limited && value >= 0 {
                    quota.charge(self.parts.platform.now_ns(), call.len);
                }
                if passes && value >= 0 {
                    record.sent(call.len);
                    if let Some(traffic) = connections.traffic(handle) {
                        traffic.delivered(call.len);
                    }
                }
                Ok(value)
            }
            Err(failure) => {
                processor.with_monitor_state(&mut || {
                    // Before it ends, which takes its name.
                    let owner = self.parts.exchange.name(receiver.owner());
                    if failure == PortalFailure::Faulted {
                        let report = processor.take_portal_fault().unwrap_or_default();
                        receiver.fail(PortalFailed::Faulted(report));
                    }
                    tracing::info!(
                        cvm = owner,
                        key = %endpoint.key(),
                        sender = self.parts.name,
                        ?failure,
                        "portal failed"
                    );
                    0
                });
                // Whoever abandons a portal for the time it takes says so before.
                Err(Errno(match receiver.failure() {
                    Some(PortalFailed::Stuck) => libc::ETIMEDOUT,
                    _ => libc::EPIPE,
                }))
            }
        }
    }

    #[inline]
    fn wait(&self, processor: &dyn Processor, handle: u64) -> Answer {
        let connections = self.connections_for(processor, handle)?;
        let endpoint = connections.handles.known_stream(handle)?;
        endpoint.arm(self.parts.receiver.owner());
        // A revocation after this look tells all peers.
        if endpoint.is_revoked() {
            return Err(Errno(libc::EPIPE));
        }
        Ok(0)
    }

    #[inline]
    fn wake(&self, processor: &dyn Processor, id: u64) -> Answer {
        let connections = self.connections_for(processor, id)?;
        if let Some(armed) = connections.handles.known_own_stream(id)?.take_armed() {
            for index in armed {
                self.interrupt(processor, index);
            }
        }
        Ok(0)
    }

    // Everything else.

    fn answer(&self, processor: &dyn Processor, call: Hostcall, arguments: &[u64; 6]) -> Answer {
        let [a, b, c, d, e, _] = *arguments;
        match call {
            Hostcall::ConsoleWrite => self.console_write(processor, a, b),
            Hostcall::LogWrite => self.log_write(processor, a, b),
            Hostcall::ConsoleRead => self.console_read(a, b),
            Hostcall::TimerAlloc => processor
                .timer_alloc()
                .map(|timer| timer as i64)
                .ok_or(Errno(libc::EMFILE)),
            Hostcall::TimerFree => found(processor.timer_free(a)),
            Hostcall::FileAdvertise => self.file_advertise(a, b, c, d),
            Hostcall::FileProbe => self.file_probe(a, b, c),
            Hostcall::StreamAdvertise => self.stream_advertise(a, b, c, d, e),
            Hostcall::StreamProbe => self.stream_probe(a, b, c),
            Hostcall::VcpuReady => self.vcpu_ready(processor, a),
            Hostcall::PowerOff => self.power_off(processor, a, b),
            Hostcall::MmioRead => {
                let (device, offset) = self.device(a, b)?;
                Ok(device.read(offset, b) as i64)
            }
            Hostcall::MmioWrite => {
                let (device, offset) = self.device(a, b)?;
                device.write(offset, b, c);
                Ok(0)
            }
            Hostcall::Random => self.random(processor, a, b),
            Hostcall::PatchSyscall => self.patch_syscall(processor, a),
            Hostcall::TranslateIp => Ok(processor.translate_ip(a, b)),
            Hostcall::ForgetCode => {
                let code = self.to_load(a, b)?;
                processor.forget_code(code.base(), code.base() + code.length());
                Ok(0)
            }
            Hostcall::MemoryDiscard => self.discard(a, b),
            Hostcall::PagingStart => self.paging_start(a),
            Hostcall::PagingLow => self.paging_low(a, b),
            Hostcall::PageMap => self.page_map(a, b, c, d),
            Hostcall::PageUnmap => self.page_unmap(a, b),
            Hostcall::PatchRange => self.patch_range(processor, a, b, c, d),
            Hostcall::Revoke => self.revoke(a),
            Hostcall::Disconnect => {
                let Parts {
                    exchange, table, ..
                } = &self.parts;
                exchange.registry().disconnect(table, a)?;
                self.connections.borrow_mut().set_traffic(a, None);
                Ok(0)
            }
            Hostcall::FileRead => self.file_read(processor, a, b, c, d),
            Hostcall::FileWrite => self.file_write(processor, a, b, c, d),
            Hostcall::StreamRead => self.stream_read(a, b, c),
            Hostcall::StreamWrite => self.stream_write(a, b, c),
            Hostcall::StreamPoll => {
                let ready = self.streams()?.poll(a, self.parts.receiver.line())?;
                Ok(ready.bits().into())
            }
            Hostcall::ConsoleSize => {
                let streams = self.parts.streams.as_deref();
                let size = streams
                    .and_then(StandardStreams::terminal_size)
                    .or_else(|| self.parts.outlets.terminal_size());
                Ok(size.map_or(0, |(rows, columns)| {
                    i64::from(rows) << 16 | i64::from(columns)
                }))
            }
            _ => Err(Errno(libc::ENOSYS)),
        }
    }

    /// Hands the caller's bytes to `take` in pieces.
    fn take_text(
        &self,
        processor: &dyn Processor,
        ptr: u64,
        len: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Answer {
        let text = self.to_load(ptr, len)?;
        let mut buffer = [0; TEXT];
        let mut done = 0;
        while done < text.length() && !processor.is_killed() {
            let piece = (text.length() - done).min(TEXT as u64);
            let bytes = buffer.get_mut(..piece as usize).unwrap_or_default();
            self.parts.space.read(text.base() + done, bytes)?;
            take(bytes);
            done += piece;
        }
        Ok(done as i64)
    }

    fn console_write(&self, processor: &dyn Processor, ptr: u64, len: u64) -> Answer {
        self.take_text(processor, ptr, len, |bytes| {
            self.parts.timings.record(Event::FirstOutput);
            self.parts.record.wrote_to_console(bytes.len() as u64);
            let mut output = self.parts.output.borrow_mut();
            let Parts {
                platform,
                output_limit,
                output_gap,
                ..
            } = &self.parts;
            output_limit.pass(output_gap, platform.now_ns(), bytes, |bytes| {
                output.write(bytes, &|| processor.is_killed());
            });
        })
    }

    fn log_write(&self, processor: &dyn Processor, ptr: u64, len: u64) -> Answer {
        self.take_text(processor, ptr, len, |bytes| {
            self.parts.record.logged(bytes.len() as u64);
            let mut log = self.parts.log.borrow_mut();
            // A report shows the last of it, whatever was dropped before.
            log.remember(bytes);
            let Parts {
                platform,
                output_limit,
                log_gap,
                ..
            } = &self.parts;
            output_limit.pass(log_gap, platform.now_ns(), bytes, |bytes| {
                log.write(bytes, &|| processor.is_killed());
            });
        })
    }

    fn console_read(&self, ptr: u64, len: u64) -> Answer {
        let place = self.to_store(ptr, len)?;
        let mut buffer = [0; TEXT];
        let room = place.length().min(TEXT as u64) as usize;
        let len = self.parts.outlets.input.take(
            buffer.get_mut(..room).unwrap_or_default(),
            self.parts.receiver.line(),
        );
        self.parts
            .space
            .write(place.base(), buffer.get(..len).unwrap_or_default())?;
        Ok(len as i64)
    }

    fn streams(&self) -> Result<&StandardStreams, Errno> {
        self.parts.streams.as_deref().ok_or(Errno(libc::ENODEV))
    }

    fn stream_read(&self, stream: u64, ptr: u64, len: u64) -> Answer {
        let place = self.to_store(ptr, len)?;
        let mut buffer = [0; TEXT];
        let room = place.length().min(TEXT as u64) as usize;
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        // Or what was taken would be lost.
        self.parts.space.write(place.base(), buffer)?;
        let line = self.parts.receiver.line();
        let len = self.streams()?.read(stream, buffer, line)?;
        self.parts
            .space
            .write(place.base(), buffer.get(..len).unwrap_or_default())?;
        Ok(len as i64)
    }

    fn stream_write(&self, stream: u64, ptr: u64, len: u64) -> Answer {
        let text = self.to_load(ptr, len)?;
        let mut buffer = [0; TEXT];
        let piece = text.length().min(TEXT as u64) as usize;
        let bytes = buffer.get_mut(..piece).unwrap_or_default();
        self.parts.space.read(text.base(), bytes)?;
        self.parts.timings.record(Event::FirstOutput);
        let line = self.parts.receiver.line();
        let written = self.streams()?.write(stream, bytes, line)?;
        self.parts.record.wrote_to_console(written as u64);
        Ok(written as i64)
    }

    fn key(&self, ptr: u64) -> Result<Key, Errno> {
        let place = self.to_load(ptr, KEY_LEN as u64)?;
        let mut raw = [0; KEY_LEN];
        self.parts.space.read(place.base(), &mut raw)?;
        Key::parse(raw).map_err(|error| Errno(error.errno()))
    }

    fn stream_advertise(
        &self,
        function: u64,
        cookie: u64,
        key: u64,
        device: u64,
        class: u64,
    ) -> Answer {
        let key = self.key(key)?;
        let class = Class::new(class).ok_or(Errno(libc::EINVAL))?;
        self.parts.grants.advertise(Kind::Portal(class), key)?;
        let image = self.parts.layout.base..self.parts.layout.boot;
        let entry = self.addressing.to_monitor(function);
        if !image.contains(&entry) || !self.authority.covers(entry, 1) {
            return Err(Errno(libc::EFAULT));
        }
        let stream = Stream {
            portal: Portal {
                function: entry,
                cookie,
                device,
            },
            receiver: Arc::clone(&self.parts.receiver),
            traffic: self.parts.receiver.ledger().stream(),
        };
        let exchange = &self.parts.exchange;
        let advertised =
            exchange
                .registry()
                .advertise_stream(&self.parts.table, (class, key), stream)?;
        let line = format!(
            "MON: STREAM_CAP[{}] {function:#x} {key} {device:#x}",
            exchange.next_stream()
        );
        let now = self.parts.platform.now_ns();
        if self.parts.output_limit.admit(now, line.len() as u64) {
            self.parts.console.line(&line);
        }
        exchange.notify_all(advertised.interested);
        Ok(advertised.id as i64)
    }

    fn file_advertise(&self, ptr: u64, len: u64, key: u64, mode: u64) -> Answer {
        if len == 0 {
            return Err(Errno(libc::EINVAL));
        }
        let (range, mode) = match mode {
            0 => (self.to_load_and_store(ptr, len)?, Mode::ReadWrite),
            1 => (self.to_load(ptr, len)?, Mode::ReadOnly),
            _ => return Err(Errno(libc::EINVAL)),
        };
        let key = self.key(key)?;
        let (range, mode) = match self.parts.grants.advertise(Kind::File, key)? {
            Access::ReadWrite => (range, mode),
            Access::ReadOnly => (range.and_permissions(!Permissions::STORE)?, Mode::ReadOnly),
        };
        let exchange = &self.parts.exchange;
        let advertised = exchange.registry().advertise_file(
            &self.parts.table,
            key,
            Publication { range, mode }.into(),
        )?;
        exchange.notify_all(advertised.interested);
        Ok(advertised.id as i64)
    }

    fn stream_probe(&self, key: u64, flags: u64, class: u64) -> Answer {
        let key = self.key(key)?;
        let class = Class::new(class).ok_or(Errno(libc::EINVAL))?;
        self.parts.grants.probe(Kind::Portal(class), key)?;
        let Parts {
            exchange,
            table,
            receiver,
            ..
        } = &self.parts;
        let connected = exchange
            .registry()
            .probe_stream(table, (class, key), notify(flags)?)?;
        let owner = &connected.endpoint.payload().receiver;
        exchange.watchdog().watch(receiver, owner);
        let traffic = connected.endpoint.payload().traffic.connect();
        self.connections
            .borrow_mut()
            .set_traffic(connected.handle, Some(traffic));
        Ok(connected.handle as i64)
    }

    fn file_probe(&self, key: u64, flags: u64, info: u64) -> Answer {
        let key = self.key(key)?;
        let place = self.to_store(info, size_of::<FileInfo>() as u64)?;
        let mask = match self.parts.grants.probe(Kind::File, key)? {
            Access::ReadWrite => Permissions::all(),
            Access::ReadOnly => !Permissions::STORE,
        };
        let registry = self.parts.exchange.registry();
        let connected = registry.probe_file_masked(&self.parts.table, key, notify(flags)?, mask)?;
        let publication = &connected.endpoint.payload().publication;
        let writable = publication.mode == Mode::ReadWrite && mask.contains(Permissions::STORE);
        let bytes = pair([publication.range.length(), u64::from(!writable)]);
        if let Err(fault) = self.parts.space.write(place.base(), &bytes) {
            registry.disconnect(&self.parts.table, connected.handle)?;
            return Err(fault.into());
        }
        Ok(connected.handle as i64)
    }

    fn file_read(
        &self,
        processor: &dyn Processor,
        handle: u64,
        offset: u64,
        ptr: u64,
        len: u64,
    ) -> Answer {
        let (endpoint, mask) = self.attachment(handle)?;
        let Some(_in_flight) = endpoint.enter() else {
            return Err(Errno(libc::ESTALE));
        };
        let File {
            publication,
            traffic,
        } = endpoint.payload();
        let range = publication.range.and_permissions(mask)?;
        let len = range.clip(offset, len);
        if len == 0 {
            return Ok(0);
        }
        let source = range.check_load(range.base().saturating_add(offset), len)?;
        let destination = self.to_store(ptr, len)?;
        let done = self.copy(processor, &endpoint, &destination, &source)?;
        traffic.used(len);
        Ok(done)
    }

    fn file_write(
        &self,
        processor: &dyn Processor,
        handle: u64,
        offset: u64,
        ptr: u64,
        len: u64,
    ) -> Answer {
        let (endpoint, mask) = self.attachment(handle)?;
        let Some(_in_flight) = endpoint.enter() else {
            return Err(Errno(libc::ESTALE));
        };
        let File {
            publication,
            traffic,
        } = endpoint.payload();
        let Publication { range, mode } = *publication;
        let range = range.and_permissions(mask)?;
        if mode == Mode::ReadOnly || !range.permissions().contains(Permissions::STORE) {
            return Err(Errno(libc::EACCES));
        }
        let len = range.clip(offset, len);
        if len == 0 {
            return Ok(0);
        }
        let source = self.to_load(ptr, len)?;
        let destination = range.check_store(range.base().saturating_add(offset), len)?;
        let done = self.copy(processor, &endpoint, &destination, &source)?;
        traffic.used(len);
        Ok(done)
    }

    /// What is behind a handle to a range, and what this cVM may do with it at most.
    fn attachment(&self, handle: u64) -> Result<(Arc<Endpoint<File>>, Permissions), Errno> {
        let mut connections = self.connections.borrow_mut();
        let (endpoint, mask) = connections.handles.attachment(handle)?;
        Ok((Arc::clone(endpoint), mask))
    }

    /// Copies all of one range to another of the same length, which `endpoint` publishes; ends early when that is revoked.
    fn copy(
        &self,
        processor: &dyn Processor,
        endpoint: &Endpoint<File>,
        destination: &Capability,
        source: &Capability,
    ) -> Answer {
        let mut done = 0;
        while done < source.length() {
            if processor.is_killed() {
                return Err(Errno(libc::EINTR));
            }
            if endpoint.is_revoked() {
                return Err(Errno(libc::ESTALE));
            }
            let len = (source.length() - done).min(PIECE);
            processor.copy(destination.base() + done, source.base() + done, len)?;
            done += len;
        }
        Ok(done as i64)
    }

    fn revoke(&self, id: u64) -> Answer {
        let Parts {
            name,
            exchange,
            table,
            receiver,
            ..
        } = &self.parts;
        let told = self.told_revocations.get();
        let published = if told < MOST_REVOCATIONS {
            let objects = exchange.registry().objects().into_iter();
            objects
                .filter(|object| object.owner == table.owner())
                .find(|object| object.id == id)
        } else {
            None
        };
        exchange.revoke(table, id, receiver)?;
        if let Some(object) = published {
            self.told_revocations.set(told + 1);
            tracing::info!(cvm = name, key = %object.key, kind = %object.kind, "revoked");
        }
        Ok(0)
    }

    fn vcpu_ready(&self, processor: &dyn Processor, ptr: u64) -> Answer {
        const WORDS: usize = size_of::<GuestEntries>() / 8;
        let place = self.to_load(ptr, size_of::<GuestEntries>() as u64)?;
        let mut words = [0u64; WORDS];
        for (index, word) in (0..).zip(&mut words) {
            let mut bytes = [0; 8];
            self.parts
                .space
                .read(place.base() + 8 * index, &mut bytes)?;
            *word = u64::from_le_bytes(bytes);
        }
        let [
            trap_user,
            trap_kernel,
            syscall,
            return_begin,
            return_end,
            return_again,
        ] = words;
        let layout = &self.parts.layout;
        let image = layout.base..layout.boot;
        // 0 is for what the processor of this kernel has no use for.
        let inside = |entry: u64| {
            let address = self.addressing.to_monitor(entry);
            match entry {
                0 => Ok(0),
                _ if image.contains(&address) => Ok(address),
                _ => Err(Errno(libc::EINVAL)),
            }
        };
        let (trap_user, trap_kernel) = (inside(trap_user)?, inside(trap_kernel)?);
        let (syscall, return_again) = (inside(syscall)?, inside(return_again)?);
        let (return_begin, return_end) = (inside(return_begin)?, inside(return_end)?);
        if trap_user == 0 || trap_kernel == 0 || return_end < return_begin {
            return Err(Errno(libc::EINVAL));
        }
        let entries = GuestEntries {
            trap_user,
            trap_kernel,
            syscall,
            return_begin,
            return_end,
            return_again,
        };
        if !processor.set_entries(&entries) {
            return Err(Errno(libc::EBUSY));
        }
        // Where the cVM itself may not write, nothing is patched on its behalf: those calls keep trapping.
        let stubs = layout.patch_end() - layout.ram_end;
        let top = u64::try_from(self.authority.top()).unwrap_or(u64::MAX);
        let code = layout.ram_begin.max(self.authority.base())..layout.ram_end.min(top);
        if !code.is_empty() && self.authority.covers(layout.ram_end, stubs) {
            processor.set_patches(layout.ram_end, stubs, code, syscall);
        }
        self.parts.timings.record(Event::Ready);
        tracing::info!(cvm = self.parts.name, "ready");
        Ok(0)
    }

    fn power_off(&self, processor: &dyn Processor, reason: u64, status: u64) -> Answer {
        let outcome = match reason {
            power_off::PROGRAM => Outcome::of_wait_status(status),
            power_off::HALT => Outcome::Halted,
            power_off::REBOOT => Outcome::Rebooted,
            power_off::PANIC => Outcome::Panicked,
            power_off::NO_PROGRAM => {
                Outcome::NoProgram(i32::try_from(status).unwrap_or(libc::ENOEXEC))
            }
            _ => Outcome::Refused("powered off for a reason that this monitor does not know"),
        };
        *self.outcome.borrow_mut() = Some(outcome);
        processor.power_off();
        Ok(0)
    }

    /// The device and the offset into its registers.
    fn device(&self, address: u64, size: u64) -> Result<(&MmioTransport, u64), Errno> {
        if !matches!(size, 1 | 2 | 4 | 8) || !address.is_multiple_of(size) {
            return Err(Errno(libc::EINVAL));
        }
        let offset = address.checked_sub(MMIO_BASE).ok_or(Errno(libc::ENODEV))?;
        let device = usize::try_from(offset / MMIO_STRIDE)
            .ok()
            .and_then(|index| self.parts.devices.get(index))
            .ok_or(Errno(libc::ENODEV))?;
        Ok((device, offset % MMIO_STRIDE))
    }

    fn random(&self, processor: &dyn Processor, ptr: u64, len: u64) -> Answer {
        let place = self.to_store(ptr, len)?;
        let mut buffer = [0; TEXT];
        let mut done = 0;
        while done < place.length() && !processor.is_killed() {
            let piece = (place.length() - done).min(TEXT as u64);
            let bytes = buffer.get_mut(..piece as usize).unwrap_or_default();
            fill_random(bytes).map_err(|_| Errno(libc::EIO))?;
            self.parts.space.write(place.base() + done, bytes)?;
            done += piece;
        }
        Ok(done as i64)
    }

    fn patch_syscall(&self, processor: &dyn Processor, ip: u64) -> Answer {
        let layout = &self.parts.layout;
        let len = self.parts.platform.system_call_len();
        let end = self.addressing.to_monitor(ip);
        let begin = end.checked_sub(len).ok_or(Errno(libc::EFAULT))?;
        let authority = self.authority_of(begin);
        if authority == &self.authority && (begin < layout.ram_begin || end > layout.ram_end) {
            return Err(Errno(libc::EFAULT));
        }
        authority.check_load_store(begin, len)?;
        Ok(processor.patch_syscall(end))
    }

    fn paging_start(&self, ptr: u64) -> Answer {
        let place = self.to_store(ptr, size_of::<Window>() as u64)?;
        let Layout {
            ram_begin, ram_end, ..
        } = self.parts.layout;
        let memory = self
            .authority
            .check_load_store(ram_begin, ram_end - ram_begin)?;
        let window = self
            .parts
            .space
            .open_window(ram_begin..ram_end)
            .map_err(|error| match error {
                PlatformError::NoWindow => Errno(libc::ENOSYS),
                PlatformError::RangeUnusable { .. } => Errno(libc::EBUSY),
                error => {
                    tracing::warn!(cvm = self.parts.name, %error, "there is no window for programs");
                    Errno(libc::ENOMEM)
                }
            })?;
        // What is seen there is memory of the cVM's own, and what it may do with that is what it may do there.
        let capability = Capability::root()
            .restrict(window.start, window.end - window.start)
            .and_then(|capability| capability.and_permissions(memory.permissions()))?;
        if self.window.set(capability).is_err() {
            return Err(Errno(libc::EBUSY));
        }
        self.parts.receiver.open_window(capability);
        tracing::info!(
            cvm = self.parts.name,
            begin = format_args!("{:#x}", window.start),
            end = format_args!("{:#x}", window.end),
            "window for programs"
        );
        let bytes = pair([window.start, window.end]);
        self.parts.space.write(place.base(), &bytes)?;
        Ok(0)
    }

    fn paging_low(&self, address: u64, len: u64) -> Answer {
        let window = self.window.get().ok_or(Errno(libc::ENOSYS))?;
        let end = address.checked_add(len).ok_or(Errno(libc::EFAULT))?;
        let capability = Capability::root()
            .restrict(address, len)
            .and_then(|capability| capability.and_permissions(window.permissions()))?;
        match self.parts.space.extend_window(address..end) {
            Ok(()) => {}
            Err(PlatformError::RangeTaken { .. }) => return Err(Errno(libc::EEXIST)),
            Err(error) => {
                tracing::info!(cvm = self.parts.name, %error, "no low addresses for programs");
                return Err(Errno(libc::EINVAL));
            }
        }
        self.low
            .set(capability)
            .map_err(|_| Errno(libc::EBUSY))
            .map(|()| 0)
    }

    fn page_map(&self, address: u64, physical: u64, len: u64, access: u64) -> Answer {
        if [address, physical, len]
            .iter()
            .any(|number| !number.is_multiple_of(PAGE))
            || len == 0
            || access & !page_access::ALL != 0
        {
            return Err(Errno(libc::EINVAL));
        }
        let allowed = |access_wanted| access & access_wanted != 0;
        let protection = Protection {
            read: allowed(page_access::READ),
            write: allowed(page_access::WRITE),
            execute: allowed(page_access::EXECUTE),
        };
        let mapped = self
            .parts
            .space
            .map_page(address, physical, len, protection);
        self.paged(mapped)
    }

    fn page_unmap(&self, address: u64, len: u64) -> Answer {
        if !address.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || len == 0 {
            return Err(Errno(libc::EINVAL));
        }
        let unmapped = self.parts.space.unmap_page(address, len);
        self.paged(unmapped)
    }

    fn patch_range(
        &self,
        processor: &dyn Processor,
        code: u64,
        code_len: u64,
        stubs_len: u64,
        stubs_at: u64,
    ) -> Answer {
        let len = code_len.checked_add(stubs_len).ok_or(Errno(libc::EFAULT))?;
        let window = self.authority_of(code);
        if window == &self.authority {
            return Err(Errno(libc::EFAULT));
        }
        let range = window.check_load_store(code, len)?;
        let Layout {
            ram_begin, ram_end, ..
        } = self.parts.layout;
        let stubs_at = self.authority.check_load_store(stubs_at, stubs_len)?;
        if stubs_at.base() < ram_begin || stubs_at.top() > u128::from(ram_end) {
            return Err(Errno(libc::EFAULT));
        }
        let ranges = self.patch_ranges.get();
        if ranges >= MOST_PATCH_RANGES {
            return Err(Errno(libc::ENOSPC));
        }
        let code = range.base()..range.base() + code_len;
        if !processor.add_patches(code, stubs_at.base()..stubs_at.base() + stubs_len) {
            return Err(Errno(libc::EINVAL));
        }
        self.patch_ranges.set(ranges + 1);
        Ok(0)
    }

    fn paged(&self, result: Result<(), PlatformError>) -> Answer {
        match result {
            Ok(()) => Ok(0),
            Err(PlatformError::RangeUnusable { .. }) => Err(Errno(libc::EFAULT)),
            Err(PlatformError::NoWindow) => Err(Errno(libc::ENOSYS)),
            Err(PlatformError::Host { source, .. })
                if source.raw_os_error() == Some(libc::ENOMEM) =>
            {
                Err(Errno(libc::ENOMEM))
            }
            Err(error) => {
                tracing::warn!(cvm = self.parts.name, %error, "a page was not mapped");
                Err(Errno(libc::EIO))
            }
        }
    }

    fn discard(&self, ptr: u64, len: u64) -> Answer {
        let layout = &self.parts.layout;
        if !ptr.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(Errno(libc::EINVAL));
        }
        let pages = self.to_store(ptr, len)?;
        if pages.base() < layout.ram_begin || pages.top() > u128::from(layout.ram_end) {
            return Err(Errno(libc::EFAULT));
        }
        if len > 0 {
            self.parts
                .space
                .discard(pages.base(), len)
                .map_err(|error| {
                    tracing::warn!(cvm = self.parts.name, %error, "memory was not discarded");
                    Errno(libc::EIO)
                })?;
        }
        Ok(0)
    }
}

/// Tells those who wait for the end of a use, if it is theirs to wait for.
#[inline]
fn tell(processor: &dyn Processor, mut last: Option<LastOut<'_>>) {
    if last.is_some() {
        processor.with_thread_state(&mut || {
            if let Some(last) = last.take() {
                last.tell();
            }
            0
        });
    }
}

/// A [`FileInfo`] or a [`Window`], as its reader finds it.
fn pair(words: [u64; 2]) -> [u8; 16] {
    const { assert!(size_of::<FileInfo>() == 16 && size_of::<Window>() == 16) };
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    for (place, word) in [first, second].into_iter().zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[inline]
fn found(known: bool) -> Answer {
    if known {
        Ok(0)
    } else {
        Err(Errno(libc::EBADF))
    }
}

fn notify(flags: u64) -> Result<bool, Errno> {
    match flags {
        0 => Ok(false),
        PROBE_NOTIFY => Ok(true),
        _ => Err(Errno(libc::EINVAL)),
    }
}

impl Hostcalls for CvmCalls {
    #[inline]
    fn light(&self, processor: &dyn Processor, number: u64, arguments: &[u64; 6]) -> Option<i64> {
        let record = &self.parts.record;
        let call = Hostcall::from_number(number);
        record.hostcall(call);
        record.hostcall_begins(number);
        let result = self.light_answer(processor, call, arguments);
        if let Some(result) = result {
            record.hostcall_ends(result);
        }
        result
    }

    fn full(&self, processor: &dyn Processor, number: u64, arguments: &[u64; 6]) -> i64 {
        let result = match Hostcall::from_number(number) {
            Some(call) => to_code(self.answer(processor, call, arguments)),
            None => Errno(libc::ENOSYS).code(),
        };
        self.parts.record.hostcall_ends(result);
        result
    }
}

impl CvmCalls {
    #[inline]
    fn light_answer(
        &self,
        processor: &dyn Processor,
        call: Option<Hostcall>,
        arguments: &[u64; 6],
    ) -> Option<i64> {
        let Some(call) = call else {
            return Some(Errno(libc::ENOSYS).code());
        };
        if processor.in_portal() {
            return Some(to_code(self.portal_call(processor, call, arguments)));
        }
        let [a, b, ..] = *arguments;
        match call {
            Hostcall::TimeNs => Some(self.parts.platform.now_ns() as i64),
            Hostcall::Call => Some(to_code(self.call(processor, arguments))),
            Hostcall::WaitForInterrupt => {
                processor.wait_for_interrupt();
                Some(0)
            }
            Hostcall::TimerSet => Some(to_code(found(processor.timer_set(a, b)))),
            Hostcall::Wait => Some(to_code(self.wait(processor, a))),
            Hostcall::Wake => Some(to_code(self.wake(processor, a))),
            Hostcall::Relax => {
                processor.relax();
                Some(0)
            }
            Hostcall::CallFetch => Some(Errno(libc::EPERM).code()),
            _ => None,
        }
    }
}
