// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages of Perfetto's trace format that are written here, with the fields that are used. The numbers are those of Perfetto's
//! `trace_packet.proto`, `track_descriptor.proto`, `track_event.proto`, `debug_annotation.proto` and `interned_data.proto`.

use prost::Message;

/// A file. The format is made so that traces one after the other are one trace.
#[derive(Clone, PartialEq, Message)]
pub struct Trace {
    /// What happened.
    #[prost(message, repeated, tag = "1")]
    pub packet: Vec<TracePacket>,
}

/// The names in [`InternedData`] are new: forget those before.
pub const SEQUENCE_CLEARED: u32 = 1;
/// Names are meant that were given before.
pub const SEQUENCE_NEEDS_NAMES: u32 = 2;

/// One thing that happened, or a description.
#[derive(Clone, PartialEq, Message)]
pub struct TracePacket {
    /// When, in nanoseconds.
    #[prost(uint64, optional, tag = "8")]
    pub timestamp: Option<u64>,
    /// Whose names are meant.
    #[prost(uint32, optional, tag = "10")]
    pub trusted_packet_sequence_id: Option<u32>,
    /// What happened.
    #[prost(message, optional, tag = "11")]
    pub track_event: Option<TrackEvent>,
    /// Names.
    #[prost(message, optional, tag = "12")]
    pub interned_data: Option<InternedData>,
    /// [`SEQUENCE_CLEARED`], [`SEQUENCE_NEEDS_NAMES`].
    #[prost(uint32, optional, tag = "13")]
    pub sequence_flags: Option<u32>,
    /// A track.
    #[prost(message, optional, tag = "60")]
    pub track_descriptor: Option<TrackDescriptor>,
}

/// A row of the time line.
#[derive(Clone, PartialEq, Message)]
pub struct TrackDescriptor {
    /// Its number.
    #[prost(uint64, optional, tag = "1")]
    pub uuid: Option<u64>,
    /// How it is called.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The row that it is below of.
    #[prost(uint64, optional, tag = "5")]
    pub parent_uuid: Option<u64>,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// None.
    Unspecified = 0,
    /// A slice begins.
    SliceBegin = 1,
    /// The last slice that began on the track ends.
    SliceEnd = 2,
    /// Something without a duration.
    Instant = 3,
}

/// Something on a track.
#[derive(Clone, PartialEq, Message)]
pub struct TrackEvent {
    /// More about it.
    #[prost(message, repeated, tag = "4")]
    pub debug_annotations: Vec<DebugAnnotation>,
    /// What kind it is.
    #[prost(enumeration = "EventType", optional, tag = "9")]
    pub r#type: Option<i32>,
    /// Its name, by number.
    #[prost(uint64, optional, tag = "10")]
    pub name_iid: Option<u64>,
    /// On which track.
    #[prost(uint64, optional, tag = "11")]
    pub track_uuid: Option<u64>,
    /// Its name, where it has no number.
    #[prost(string, optional, tag = "23")]
    pub name: Option<String>,
    /// What leads on to others.
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub flow_ids: Vec<u64>,
    /// What comes from others and ends here.
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    pub terminating_flow_ids: Vec<u64>,
}

/// More about an event.
#[derive(Clone, PartialEq, Message)]
pub struct DebugAnnotation {
    /// What, by number.
    #[prost(uint64, optional, tag = "1")]
    pub name_iid: Option<u64>,
    /// A number from 0 on.
    #[prost(uint64, optional, tag = "3")]
    pub uint_value: Option<u64>,
    /// A number.
    #[prost(int64, optional, tag = "4")]
    pub int_value: Option<i64>,
    /// A text.
    #[prost(string, optional, tag = "6")]
    pub string_value: Option<String>,
    /// What, where it has no number.
    #[prost(string, optional, tag = "10")]
    pub name: Option<String>,
}

/// Names and their numbers.
#[derive(Clone, PartialEq, Message)]
pub struct InternedData {
    /// Of events.
    #[prost(message, repeated, tag = "2")]
    pub event_names: Vec<InternedName>,
    /// Of what there is more about them.
    #[prost(message, repeated, tag = "3")]
    pub debug_annotation_names: Vec<InternedName>,
}

/// A name and its number.
#[derive(Clone, PartialEq, Message)]
pub struct InternedName {
    /// The number.
    #[prost(uint64, optional, tag = "1")]
    pub iid: Option<u64>,
    /// The name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}
