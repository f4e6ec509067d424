// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trace file and the structured log of a run.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test fails by panicking, and needs no documentation for users"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use capstream_abi::Hostcall;
use capstream_monitor::trace::perfetto::{EventType, Trace, TracePacket, TrackEvent};
use prost::Message;
use serde_json::Value;
use support::{Deployment, rounds};

/// Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a message of the guest `sender`.
const MESSAGE: u64 = 64;

/// A trace, by tracks.
struct Parsed {
    /// The path of each track, such as `sender/vCPU`.
    tracks: BTreeMap<u64, String>,
    /// What is on each, in the order of time.
    events: BTreeMap<String, Vec<(u64, TrackEvent)>>,
    names: BTreeMap<u64, String>,
    details: BTreeMap<u64, String>,
}

impl Parsed {
    fn of(packets: Vec<TracePacket>) -> Parsed {
        let mut parsed = Parsed {
            tracks: BTreeMap::new(),
            events: BTreeMap::new(),
            names: BTreeMap::new(),
            details: BTreeMap::new(),
        };
        for packet in packets {
            if let Some(names) = packet.interned_data {
                let pairs = |names: Vec<capstream_monitor::trace::perfetto::InternedName>| {
                    names
                        .into_iter()
                        .map(|name| (name.iid.unwrap(), name.name.unwrap()))
                        .collect::<BTreeMap<_, _>>()
                };
                parsed.names.extend(pairs(names.event_names));
                parsed.details.extend(pairs(names.debug_annotation_names));
            }
            if let Some(track) = packet.track_descriptor {
                let name = track.name.unwrap();
                let path = match track.parent_uuid {
                    Some(parent) => format!("{}/{name}", parsed.tracks[&parent]),
                    None => name,
                };
                let before = parsed.tracks.insert(track.uuid.unwrap(), path);
                assert_eq!(before, None);
            }
            if let Some(event) = packet.track_event {
                // A track is described before it is used.
                let track = parsed.tracks[&event.track_uuid.unwrap()].clone();
                let time = packet.timestamp.unwrap();
                parsed.events.entry(track).or_default().push((time, event));
            }
        }
        parsed
    }

    fn file(path: &Path) -> Parsed {
        let bytes = std::fs::read(path).unwrap();
        Parsed::of(Trace::decode(bytes.as_slice()).unwrap().packet)
    }

    fn on(&self, track: &str) -> &[(u64, TrackEvent)] {
        self.events.get(track).map_or(&[], Vec::as_slice)
    }

    fn name<'a>(&'a self, event: &'a TrackEvent) -> &'a str {
        match event.name_iid {
            Some(iid) => &self.names[&iid],
            None => event.name.as_deref().unwrap_or(""),
        }
    }

    /// What is said about an event, as text.
    fn detail(&self, event: &TrackEvent, what: &str) -> Option<String> {
        let details = event.debug_annotations.iter();
        let found = details.clone().find(|detail| {
            let name = match detail.name_iid {
                Some(iid) => self.details[&iid].as_str(),
                None => detail.name.as_deref().unwrap_or(""),
            };
            name == what
        })?;
        found
            .string_value
            .clone()
            .or(found.int_value.map(|value| value.to_string()))
            .or(found.uint_value.map(|value| value.to_string()))
    }

    /// The slices of a track, each with its depth, begin and end; fails unless they nest and end.
    fn slices(&self, track: &str) -> Vec<Slice<'_>> {
        let mut open: Vec<Slice<'_>> = Vec::new();
        let mut slices = Vec::new();
        let mut last = 0;
        for (time, event) in self.on(track) {
            assert!(*time >= last, "{track}: {time} after {last}");
            last = *time;
            match event.r#type() {
                EventType::SliceBegin => open.push(Slice {
                    depth: open.len(),
                    begin: *time,
                    end: 0,
                    first: event,
                    last: event,
                }),
                EventType::SliceEnd => {
                    let mut slice = open.pop().expect("a slice that ends has begun");
                    slice.end = *time;
                    slice.last = event;
                    slices.push(slice);
                }
                _ => {}
            }
        }
        assert!(open.is_empty(), "{track}: {} slices do not end", open.len());
        slices
    }
}

#[derive(Clone, Copy)]
struct Slice<'a> {
    depth: usize,
    begin: u64,
    end: u64,
    /// The event that begins it.
    first: &'a TrackEvent,
    /// The event that ends it.
    last: &'a TrackEvent,
}

#[test]
fn a_trace_shows_vcpus_hostcalls_and_messages() {
    let count = rounds(3000);
    let deployment = Deployment::new()
        .cvm("receiver", &["receiver", "1", &count.to_string()])
        .cvm("sender", &["sender", "0", &count.to_string()]);
    let path = deployment.folder().join("run.perfetto-trace");
    let deployment = deployment.option(&format!("--trace={}", path.display()));
    deployment.run().expect(0);
    let trace = Parsed::file(&path);
    let tracks: BTreeSet<&str> = trace.tracks.values().map(String::as_str).collect();
    for track in ["monitor", "sender", "receiver/vCPU", "sender/hostcalls"] {
        assert!(tracks.contains(track), "{tracks:?}");
    }

    // On and off the processor.
    for cvm in ["sender", "receiver"] {
        let states = trace.slices(&format!("{cvm}/vCPU"));
        assert!(states.iter().all(|slice| slice.depth == 0));
        let mut names = states.iter().map(|slice| trace.name(slice.first));
        assert_eq!(names.next(), Some("running"));
        for pair in states.windows(2) {
            let [one, two] = pair else { unreachable!() };
            assert_ne!(trace.name(one.first), trace.name(two.first));
            assert!(one.end <= two.begin);
        }
    }
    let receiver = trace.slices("receiver/vCPU");
    assert!(
        receiver
            .iter()
            .any(|slice| trace.name(slice.first) == "asleep")
    );

    // Hostcalls have the names of the table, and results.
    let table: BTreeSet<&str> = Hostcall::ALL.iter().map(|call| call.name()).collect();
    let of_sender = trace.slices("sender/hostcalls");
    for slice in of_sender.iter().chain(&trace.slices("receiver/hostcalls")) {
        let name = trace.name(slice.first);
        assert_eq!(slice.depth % 2, usize::from(name == "portal"), "{name}");
        assert!(name == "portal" || table.contains(name), "{name}");
        assert!(trace.detail(slice.last, "result").is_some());
    }
    let called = |name: &str| {
        of_sender
            .iter()
            .any(|slice| trace.name(slice.first) == name)
    };
    assert!(called("StreamProbe") && called("CallFetch") && called("PowerOff"));

    // Every message is a portal on the sender's thread, and arrives at the receiver.
    let delivered: Vec<_> = of_sender
        .iter()
        .filter(|slice| {
            trace.name(slice.first) == "portal"
                && trace.detail(slice.last, "result").as_deref() == Some("0")
        })
        .collect();
    assert_eq!(delivered.len() as u64, count);
    let arrived = trace.on("receiver/received");
    assert_eq!(arrived.len() as u64, count);
    let mut last = 0;
    for (portal, (time, arrival)) in delivered.into_iter().zip(arrived) {
        assert!(portal.begin >= last && portal.begin <= portal.end);
        last = portal.end;
        assert_eq!(*time, portal.end);
        assert_eq!(arrival.terminating_flow_ids, portal.first.flow_ids);
        assert_eq!(portal.first.flow_ids.len(), 1);
        let detail = |event, what| trace.detail(event, what);
        assert_eq!(
            detail(portal.first, "compartment").as_deref(),
            Some("receiver")
        );
        assert_eq!(detail(portal.first, "thread").as_deref(), Some("sender"));
        assert_eq!(detail(arrival, "sender").as_deref(), Some("sender"));
        assert_eq!(detail(arrival, "bytes"), Some(MESSAGE.to_string()));
    }

    // What happened to them.
    for cvm in ["sender", "receiver"] {
        let told: Vec<&str> = trace
            .on(cvm)
            .iter()
            .map(|(_, event)| trace.name(event))
            .collect();
        let place = |what| told.iter().position(|&told| told == what);
        let places = ["started", "ready", "ended"].map(place);
        assert!(!told.contains(&"events dropped"), "{told:?}");
        // The guest of this test is ready without saying so.
        assert!(places[0].is_some() && places[2] > places[0], "{told:?}");
    }
}

#[test]
fn what_a_cvm_that_is_killed_has_begun_is_ended() {
    let deployment = Deployment::new()
        .cvm(
            "receiver",
            &["odd_receiver", "endless_quiet", "tell", "and ignore"],
        )
        .cvm("sender", &["odd_sender", "0"]);
    let path = deployment.folder().join("run.perfetto-trace");
    let deployment = deployment.option(&format!("--trace={}", path.display()));
    let mut running = deployment.start(Stdio::null());
    running.wait_for_line("the portal has begun");
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGINT);
    running.wait().expect(121);
    let trace = Parsed::file(&path);
    let slices = trace.slices("sender/hostcalls");
    let portal = slices
        .iter()
        .find(|slice| trace.name(slice.first) == "portal")
        .unwrap();
    assert!(trace.detail(portal.last, "failed").is_some());
    for cvm in ["sender", "receiver"] {
        assert!(!trace.slices(&format!("{cvm}/vCPU")).is_empty());
    }
}

#[test]
fn a_trace_whose_monitor_was_killed_can_be_read() {
    let deployment = Deployment::new()
        .cvm("receiver", &["receiver_for_a_while", "1000000000"])
        .cvm("one", &["sender_for_ever"])
        .cvm("two", &["sender_for_ever"]);
    let path = deployment.folder().join("run.perfetto-trace");
    let deployment = deployment.option(&format!("--trace={}", path.display()));
    let running = deployment.start(Stdio::null());
    let begin = Instant::now();
    while std::fs::metadata(&path).map_or(0, |file| file.len()) < 1 << 20 {
        assert!(begin.elapsed() < LIMIT, "nothing is written");
        std::thread::yield_now();
    }
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().code, None);
    let bytes = std::fs::read(&path).unwrap();
    // The last packet may be cut off: all before it are whole.
    let mut rest = bytes.as_slice();
    let mut packets = Vec::new();
    while let Some((packet, after)) = next_packet(rest) {
        packets.push(packet);
        rest = after;
    }
    assert!(rest.len() < 1024, "{} bytes are no packets", rest.len());
    let trace = Parsed::of(packets);
    assert!(trace.on("receiver/received").len() > 100);
    let portals = |cvm: &str| {
        let events = trace.on(&format!("{cvm}/hostcalls")).iter();
        events
            .filter(|(_, event)| trace.name(event) == "portal")
            .count()
    };
    assert!(portals("one") + portals("two") > 100);
}

/// The first packet of a file, and what follows it.
fn next_packet(bytes: &[u8]) -> Option<(TracePacket, &[u8])> {
    /// Field 1, a message.
    const TAG: u8 = 1 << 3 | 2;
    let (tag, mut rest) = bytes.split_first()?;
    assert_eq!(*tag, TAG);
    let len = prost::decode_length_delimiter(&mut rest).ok()?;
    let packet = rest.get(..len)?;
    Some((TracePacket::decode(packet).unwrap(), &rest[len..]))
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error() {
    let ended = Deployment::of(&["hello"])
        .option("--trace=/nonexistent/trace")
        .run()
        .expect(2);
    assert!(ended.err.contains("/nonexistent/trace"), "{ended:?}");
}

#[test]
fn log_events_are_objects_of_json_where_asked_for() {
    let count = rounds(2000).to_string();
    let ended = Deployment::new()
        .cvm("receiver", &["receiver_for_a_while", &count, "revoke"])
        .cvm("one", &["sender_for_ever"])
        .cvm("two", &["sender_for_ever"])
        .option("--log-format=json")
        .option("-v")
        .run()
        .expect(0);
    let events: Vec<Value> = ended
        .err
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |cvm: &str, what: &str| {
        events
            .iter()
            .find(|event| event["cvm"] == cvm && event["message"] == what)
            .unwrap_or_else(|| panic!("{cvm} {what}: {ended:#?}"))
    };
    for cvm in ["receiver", "one", "two"] {
        assert_eq!(of(cvm, "started")["level"], "INFO");
        assert!(of(cvm, "ended")["outcome"].is_string());
    }
    assert_eq!(of("receiver", "revoked")["key"], "key1");
    assert!(of("receiver", "revoked")["timestamp"].is_string());
}

#[test]
fn a_portal_that_fails_is_a_log_event() {
    let ended = Deployment::new()
        .cvm("receiver", &["odd_receiver", "faulting", "wait"])
        .cvm("sender", &["odd_sender", "-32"])
        .option("--log-format=json")
        .option("-v")
        .run()
        .expect(123);
    let failed = ended
        .err
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["message"] == "portal failed")
        .unwrap_or_else(|| panic!("{ended:#?}"));
    assert_eq!(
        (&failed["cvm"], &failed["sender"]),
        (&Value::from("receiver"), &Value::from("sender"))
    );
    assert!(failed["key"].is_string());
}
