// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What cVMs and channels did and do, in numbers, for whoever operates the monitor. They can be asked for at any time, and are put together
//! only then.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use capstream_abi::boot::PAGE;
use capstream_capability::ObjectInfo;
use capstream_virtio::NetCounters;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::traffic::Traffic;
use crate::vcpu_record::{Interrupts, VcpuRecord};

/// What one cVM did since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CvmStatistics {
    /// Its name.
    pub cvm: String,
    /// Its number, which no other cVM of this monitor has or had.
    pub number: u64,
    /// Whether its vCPU sleeps now.
    pub asleep: bool,
    /// Hostcalls by name, those of portals on its thread included; what was never made is not there.
    pub hostcalls: BTreeMap<String, u64>,
    /// Hostcalls by numbers that are none.
    pub unknown_hostcalls: u64,
    /// Messages that it sent.
    pub sent: Traffic,
    /// Messages that its portals received.
    pub received: Traffic,
    /// Portals that ran on its thread.
    pub portal_runs: u64,
    /// Interrupts that became pending.
    pub interrupts: Interrupts,
    /// How often its thread was interrupted so that it looks.
    pub kicks: u64,
    /// Idle periods that ended while its vCPU polled.
    pub polls: u64,
    /// Idle periods in which its vCPU slept.
    pub sleeps: u64,
    /// Nanoseconds that its thread has had a processor of the host; `None` where the host does not tell.
    pub busy_ns: Option<u64>,
    /// Bytes that its programs wrote.
    pub console_bytes: u64,
    /// Bytes that its kernel logged.
    pub log_bytes: u64,
    /// Bytes of its range.
    pub memory_bytes: u64,
    /// How many of them are in the host's memory; `None` where the host does not tell.
    pub resident_bytes: Option<u64>,
    /// What its network interface moved, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<NetworkStatistics>,
}

/// What a network interface moved; in is what its cVM received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatistics {
    /// Frames that were received.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that came and for which there was no room.
    pub lost_in: u64,
    /// Frames that were sent.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that went nowhere: they made no sense, or the link was down.
    pub lost_out: u64,
}

impl NetworkStatistics {
    /// What they count now.
    pub fn of(counters: &NetCounters) -> NetworkStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetworkStatistics {
            frames_in: get(&counters.frames_in),
            bytes_in: get(&counters.bytes_in),
            lost_in: get(&counters.lost_in),
            frames_out: get(&counters.frames_out),
            bytes_out: get(&counters.bytes_out),
            lost_out: get(&counters.lost_out),
        }
    }
}

/// What one channel did: a stream or a range that somebody publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatistics {
    /// `stream` or `file`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Who publishes it.
    pub owner: String,
    /// Who is connected to it.
    pub peers: Vec<String>,
    /// Whether it was taken back and waits for its last users.
    pub revoked: bool,
    /// How many uses are under way.
    pub in_flight: u64,
    /// Messages delivered; of a file, how often it was read or written.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where a range is in the monitor's memory. It does not keep the range there.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First byte.
    pub begin: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// How many bytes of it are in the host's memory. `None` where the host does not tell.
    pub fn resident(&self) -> Option<u64> {
        /// Bytes of an entry of the page map.
        const ENTRY: u64 = 8;
        /// The bit of an entry for a page that is there, in its most significant byte.
        const PRESENT: u8 = 1 << 7;
        let map = File::open("/proc/self/pagemap").ok()?;
        let mut buffer = [0; 32 << 10];
        let end = (self.begin + self.size) / PAGE * ENTRY;
        let mut at = self.begin / PAGE * ENTRY;
        let mut pages = 0;
        while at < end {
            let len = (end - at).min(buffer.len() as u64) as usize;
            let entries = buffer.get_mut(..len)?;
            map.read_exact_at(entries, at).ok()?;
            let present = entries
                .chunks_exact(ENTRY as usize)
                .filter(|entry| entry.last().is_some_and(|byte| byte & PRESENT != 0));
            pages += present.count() as u64;
            at += len as u64;
        }
        Some(pages * PAGE)
    }
}

/// Puts together what a cVM did.
pub(crate) fn of_cvm(
    name: &str,
    number: u64,
    record: &VcpuRecord,
    received: Traffic,
    range: Range,
    network: Option<&NetCounters>,
) -> CvmStatistics {
    let (messages, bytes) = record.messages();
    let (console_bytes, log_bytes) = record.output_bytes();
    let asleep = record.is_asleep();
    let resident_bytes = range.resident();
    CvmStatistics {
        cvm: name.to_owned(),
        number,
        asleep,
        hostcalls: record
            .hostcalls()
            .map(|(call, count)| (call.name().to_owned(), count))
            .collect(),
        unknown_hostcalls: record.unknown_hostcalls(),
        sent: Traffic { messages, bytes },
        received,
        portal_runs: record.portal_runs(),
        interrupts: record.interrupts(),
        kicks: record.kicks(),
        polls: record.polls(),
        sleeps: record.sleeps(),
        busy_ns: record.processor_time(),
        console_bytes,
        log_bytes,
        memory_bytes: range.size,
        // The addresses of one that has ended may be another's by now.
        resident_bytes: if record.has_ended() {
            Some(0)
        } else {
            resident_bytes
        },
        network: network.map(NetworkStatistics::of),
    }
}

impl Exchange {
    /// All channels, streams first, by key.
    pub fn channels(&self) -> Vec<ChannelStatistics> {
        let channels = self.registry().inspect(
            |info, stream| (info, stream.traffic.total()),
            |info, file| (info, file.traffic.total()),
        );
        channels
            .into_iter()
            .map(|(info, traffic)| self.channel(&info, traffic))
            .collect()
    }

    fn channel(&self, info: &ObjectInfo, traffic: Traffic) -> ChannelStatistics {
        ChannelStatistics {
            kind: info.kind.to_string(),
            key: info.key.to_string(),
            owner: self.name(info.owner),
            peers: info.peers.iter().map(|peer| self.name(*peer)).collect(),
            revoked: info.revoked,
            in_flight: info.in_flight,
            messages: traffic.messages,
            bytes: traffic.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_what_was_touched() {
        // More than an allocator ever keeps for the next one: it is fresh from the host.
        const PAGES: usize = (40 << 20) / PAGE as usize;
        let mut memory = vec![0u8; (PAGES + 1) * PAGE as usize];
        let begin = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let offset = (begin - memory.as_ptr() as u64) as usize;
        let range = Range {
            begin,
            size: PAGES as u64 * PAGE,
        };
        let before = range.resident().unwrap();
        for page in 0..PAGES {
            memory[offset + page * PAGE as usize] = 1;
        }
        assert_eq!(range.resident(), Some(PAGES as u64 * PAGE));
        assert!(before < PAGES as u64 * PAGE);
    }
}
