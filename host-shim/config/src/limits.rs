// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much of each a cVM may take.

/// Bytes of output in a second that a cVM has when its file says nothing.
pub const DEFAULT_LOG_RATE: u64 = 16 << 20;

/// The limits of one cVM. What is `None` has no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that its kernel manages; what is left of its range is never touched.
    pub memory: Option<u64>,
    /// Messages that it sends in a second.
    pub messages: Option<u64>,
    /// Bytes of messages that it sends in a second.
    pub bytes: Option<u64>,
    /// Receive buffers that its driver keeps queued, of all its streams together.
    pub buffers: Option<u32>,
    /// Bytes of output and kernel log in a second.
    pub log_rate: u64,
    /// Portals that it publishes: streams and bells.
    pub streams: u32,
    /// Ranges that it publishes.
    pub files: u32,
    /// Connections to what is published.
    pub handles: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: None,
            messages: None,
            bytes: None,
            buffers: None,
            log_rate: DEFAULT_LOG_RATE,
            streams: 256,
            files: 256,
            handles: 1024,
        }
    }
}
