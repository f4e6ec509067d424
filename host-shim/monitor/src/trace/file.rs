// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turns what was recorded into packets of a trace file.
//!
//! Whole packets are written at once, and a file needs no end: one whose monitor was killed can be opened.
//!
//! Each cVM has a track of its own, by its name over all its lives, on which the monitor's log events about it are. Below it are:
//!
//! | track | what |
//! |---|---|
//! | `vCPU` | slices `running` and `asleep` |
//! | `hostcalls` | a slice for each hostcall of its kernel; in a `Call` the slice of the portal that ran on its thread, in that the portal's hostcalls |
//! | `received` | an instant for each message that a portal of its has received, with a flow from the portal's slice |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use capstream_abi::Hostcall;
use prost::Message;

use super::perfetto::{
    DebugAnnotation, EventType, InternedData, InternedName, SEQUENCE_CLEARED, SEQUENCE_NEEDS_NAMES,
    Trace, TracePacket, TrackDescriptor, TrackEvent,
};
use super::ring::{Event, Ring, VcpuState};
use crate::events::EventRecord;

/// The only sequence of packets in a file.
const SEQUENCE: u32 = 1;
/// The track of log events that are about no cVM.
const MONITOR_TRACK: u64 = 1;
/// How many tracks a cVM has.
const TRACKS: u64 = 4;

/// Names of events that are no hostcalls, in the order of their numbers, which come after those of hostcalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    UnknownHostcall,
    Portal,
    Running,
    Asleep,
    Message,
    Dropped,
}

impl Name {
    const ALL: [(Name, &str); 6] = [
        (Name::UnknownHostcall, "unknown hostcall"),
        (Name::Portal, "portal"),
        (Name::Running, "running"),
        (Name::Asleep, "asleep"),
        (Name::Message, "message"),
        (Name::Dropped, "events dropped"),
    ];

    const fn iid(self) -> u64 {
        (Hostcall::COUNT + 1 + self as usize) as u64
    }
}

/// The number of a hostcall's name.
fn hostcall_iid(number: u64) -> u64 {
    match Hostcall::from_number(number) {
        Some(call) => call.index() as u64 + 1,
        None => Name::UnknownHostcall.iid(),
    }
}

/// Names of what there is more about events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    Result,
    Compartment,
    Thread,
    Sender,
    Bytes,
    Number,
    Count,
    Failed,
}

impl Detail {
    const ALL: [(Detail, &str); 8] = [
        (Detail::Result, "result"),
        (Detail::Compartment, "compartment"),
        (Detail::Thread, "thread"),
        (Detail::Sender, "sender"),
        (Detail::Bytes, "bytes"),
        (Detail::Number, "number"),
        (Detail::Count, "count"),
        (Detail::Failed, "failed"),
    ];

    fn is(self) -> DebugAnnotation {
        DebugAnnotation {
            name_iid: Some(self as u64 + 1),
            ..DebugAnnotation::default()
        }
    }

    fn int(self, value: i64) -> DebugAnnotation {
        DebugAnnotation {
            int_value: Some(value),
            ..self.is()
        }
    }

    fn uint(self, value: u64) -> DebugAnnotation {
        DebugAnnotation {
            uint_value: Some(value),
            ..self.is()
        }
    }

    fn text(self, value: &str) -> DebugAnnotation {
        DebugAnnotation {
            string_value: Some(value.to_owned()),
            ..self.is()
        }
    }
}

fn names() -> InternedData {
    let name = |iid: u64, name: &str| InternedName {
        iid: Some(iid),
        name: Some(name.to_owned()),
    };
    let hostcalls = (1..).zip(Hostcall::ALL);
    let details = Detail::ALL.into_iter();
    InternedData {
        event_names: hostcalls
            .map(|(iid, call)| name(iid, call.name()))
            .chain(Name::ALL.map(|(event, text)| name(event.iid(), text)))
            .collect(),
        debug_annotation_names: details
            .map(|(detail, text)| name(detail as u64 + 1, text))
            .collect(),
    }
}

/// One life of a cVM.
struct Life {
    /// The number of its cVM among the names.
    place: u64,
    ring: Arc<Ring>,
    /// How many slices are open on the track of hostcalls.
    depth: u64,
    state: Option<VcpuState>,
    /// The message that the portal which runs is to deliver: its flow, the portal's owner, bytes.
    message: Option<(u64, u64, u64)>,
    /// How many events were reported as dropped.
    dropped: u64,
}

/// A trace file.
pub struct TraceFile {
    file: File,
    packets: Vec<TracePacket>,
    /// By place.
    names: Vec<String>,
    /// The places of cVMs, by their numbers.
    places: BTreeMap<u64, u64>,
    lives: Vec<Life>,
    flows: u64,
    dropped: u64,
    /// The file takes nothing any more.
    failed: bool,
}

fn track(place: u64, which: u64) -> u64 {
    MONITOR_TRACK + 1 + place * TRACKS + which
}

fn on_cvm(place: u64) -> u64 {
    track(place, 0)
}

fn on_vcpu(place: u64) -> u64 {
    track(place, 1)
}

fn on_hostcalls(place: u64) -> u64 {
    track(place, 2)
}

fn on_received(place: u64) -> u64 {
    track(place, 3)
}

fn event(kind: EventType, on: u64) -> TrackEvent {
    TrackEvent {
        r#type: Some(kind.into()),
        track_uuid: Some(on),
        ..TrackEvent::default()
    }
}

fn begin(on: u64, name_iid: u64) -> TrackEvent {
    TrackEvent {
        name_iid: Some(name_iid),
        ..event(EventType::SliceBegin, on)
    }
}

fn end(on: u64) -> TrackEvent {
    event(EventType::SliceEnd, on)
}

fn at(time: u64, event: TrackEvent) -> TracePacket {
    TracePacket {
        timestamp: Some(time),
        track_event: Some(event),
        trusted_packet_sequence_id: Some(SEQUENCE),
        sequence_flags: Some(SEQUENCE_NEEDS_NAMES),
        ..TracePacket::default()
    }
}

fn descriptor(uuid: u64, name: &str, parent_uuid: Option<u64>) -> TracePacket {
    TracePacket {
        track_descriptor: Some(TrackDescriptor {
            uuid: Some(uuid),
            name: Some(name.to_owned()),
            parent_uuid,
        }),
        trusted_packet_sequence_id: Some(SEQUENCE),
        ..TracePacket::default()
    }
}

impl TraceFile {
    /// Begins a trace.
    pub fn new(file: File) -> TraceFile {
        let first = TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(SEQUENCE_CLEARED),
            interned_data: Some(names()),
            ..TracePacket::default()
        };
        TraceFile {
            file,
            packets: vec![first, descriptor(MONITOR_TRACK, "monitor", None)],
            names: Vec::new(),
            places: BTreeMap::new(),
            lives: Vec::new(),
            flows: 0,
            dropped: 0,
            failed: false,
        }
    }

    fn place(&self, name: &str) -> Option<u64> {
        let place = self.names.iter().position(|known| known == name)?;
        Some(place as u64)
    }

    /// A cVM begins a life.
    pub fn add(&mut self, name: &str, number: u64, ring: Arc<Ring>) {
        let place = self.place(name).unwrap_or_else(|| {
            let place = self.names.len() as u64;
            self.names.push(name.to_owned());
            let parent = Some(on_cvm(place));
            self.packets.extend([
                descriptor(on_cvm(place), name, None),
                descriptor(on_vcpu(place), "vCPU", parent),
                descriptor(on_hostcalls(place), "hostcalls", parent),
                descriptor(on_received(place), "received", parent),
            ]);
            place
        });
        self.places.insert(number, place);
        self.lives.push(Life {
            place,
            ring,
            depth: 0,
            state: None,
            message: None,
            dropped: 0,
        });
    }

    /// Something happened, to a cVM or not.
    pub fn log(&mut self, time: u64, entry: &EventRecord) {
        let EventRecord {
            cvm,
            message,
            fields,
            ..
        } = entry;
        let place = cvm.as_deref().and_then(|name| self.place(name));
        let details = fields.iter().map(|(name, value)| DebugAnnotation {
            name: Some(name.clone()),
            string_value: Some(value.clone()),
            ..DebugAnnotation::default()
        });
        let instant = TrackEvent {
            name: Some(message.clone()),
            debug_annotations: details.collect(),
            ..event(EventType::Instant, place.map_or(MONITOR_TRACK, on_cvm))
        };
        self.packets.push(at(time, instant));
    }

    fn name_of(&self, number: u64) -> &str {
        self.places
            .get(&number)
            .and_then(|place| self.names.get(usize::try_from(*place).ok()?))
            .map_or("?", String::as_str)
    }

    /// Takes what the rings hold and writes it. `now` is for what they do not tell the time of.
    pub fn drain(&mut self, now: u64) {
        for mut life in std::mem::take(&mut self.lives) {
            // Before the look at the events: what was written before it closed is seen then.
            let is_closed = life.ring.is_closed();
            let ring = Arc::clone(&life.ring);
            ring.drain(|time, event| self.take(&mut life, time, event));
            let dropped = ring.dropped();
            if dropped > life.dropped {
                let count = dropped - life.dropped;
                self.dropped += count;
                life.dropped = dropped;
                let instant = TrackEvent {
                    name_iid: Some(Name::Dropped.iid()),
                    debug_annotations: vec![Detail::Count.uint(count)],
                    ..event(EventType::Instant, on_cvm(life.place))
                };
                self.packets.push(at(now, instant));
            }
            if is_closed {
                self.end_slices(&mut life, now);
            } else {
                self.lives.push(life);
            }
        }
        self.write();
    }

    /// Ends what is open, and the file. Returns how many events were dropped.
    pub fn finish(mut self, now: u64) -> u64 {
        self.drain(now);
        for mut life in std::mem::take(&mut self.lives) {
            self.end_slices(&mut life, now);
        }
        self.write();
        self.dropped
    }

    fn end_slices(&mut self, life: &mut Life, time: u64) {
        for _ in 0..std::mem::take(&mut life.depth) {
            self.packets.push(at(time, end(on_hostcalls(life.place))));
        }
        self.change(life, time, VcpuState::Ended);
    }

    fn change(&mut self, life: &mut Life, time: u64, state: VcpuState) {
        let on = on_vcpu(life.place);
        if matches!(
            life.state,
            Some(VcpuState::Running) | Some(VcpuState::Asleep)
        ) {
            self.packets.push(at(time, end(on)));
        }
        life.state = Some(state);
        let name = match state {
            VcpuState::Running => Name::Running,
            VcpuState::Asleep => Name::Asleep,
            VcpuState::Ended => return,
        };
        self.packets.push(at(time, begin(on, name.iid())));
    }

    fn take(&mut self, life: &mut Life, time: u64, event: Event) {
        let on = on_hostcalls(life.place);
        match event {
            Event::HostcallBegins { number } => {
                life.depth += 1;
                let mut slice = begin(on, hostcall_iid(number));
                if Hostcall::from_number(number).is_none() {
                    slice.debug_annotations.push(Detail::Number.uint(number));
                }
                self.packets.push(at(time, slice));
            }
            Event::HostcallEnds { result } => {
                life.depth = life.depth.saturating_sub(1);
                let slice = TrackEvent {
                    debug_annotations: vec![Detail::Result.int(result)],
                    ..end(on)
                };
                self.packets.push(at(time, slice));
            }
            Event::PortalBegins {
                owner,
                delivers,
                len,
            } => {
                life.depth += 1;
                let mut slice = begin(on, Name::Portal.iid());
                slice.debug_annotations = vec![
                    Detail::Compartment.text(self.name_of(owner)),
                    Detail::Thread.text(self.thread_name(life)),
                ];
                if delivers {
                    self.flows += 1;
                    slice.flow_ids.push(self.flows);
                    slice.debug_annotations.push(Detail::Bytes.uint(len));
                    life.message = Some((self.flows, owner, len));
                }
                self.packets.push(at(time, slice));
            }
            Event::PortalEnds { result } => {
                life.depth = life.depth.saturating_sub(1);
                let slice = TrackEvent {
                    debug_annotations: vec![match result {
                        Some(result) => Detail::Result.int(result),
                        None => Detail::Failed.text("it did not return"),
                    }],
                    ..end(on)
                };
                self.packets.push(at(time, slice));
                if let Some((flow, owner, len)) = life.message.take()
                    && result.is_some_and(|result| result >= 0)
                    && let Some(place) = self.places.get(&owner)
                {
                    let arrival = TrackEvent {
                        name_iid: Some(Name::Message.iid()),
                        terminating_flow_ids: vec![flow],
                        debug_annotations: vec![
                            Detail::Sender.text(self.thread_name(life)),
                            Detail::Bytes.uint(len),
                        ],
                        ..self::event(EventType::Instant, on_received(*place))
                    };
                    self.packets.push(at(time, arrival));
                }
            }
            Event::Changes { state } => self.change(life, time, state),
        }
    }

    fn thread_name(&self, life: &Life) -> &str {
        usize::try_from(life.place)
            .ok()
            .and_then(|place| self.names.get(place))
            .map_or("?", String::as_str)
    }

    fn write(&mut self) {
        let packet = std::mem::take(&mut self.packets);
        if packet.is_empty() || self.failed {
            return;
        }
        let bytes = Trace { packet }.encode_to_vec();
        if let Err(error) = self.file.write_all(&bytes) {
            self.failed = true;
            tracing::warn!(%error, "the trace is not written any more");
        }
    }
}
