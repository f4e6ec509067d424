// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much a cVM may send in a second. On the message path: without limits it costs a comparison, with them a look at the clock and some
//! arithmetic for each message.

use capstream_config::Limits;

use crate::rate::Rate;

/// The limits of one cVM's messages.
#[derive(Debug, Default)]
pub struct SendQuota {
    /// Whether there is any limit.
    limited: bool,
    messages: Option<Rate>,
    bytes: Option<Rate>,
}

impl SendQuota {
    /// For a cVM with these limits.
    pub fn new(limits: &Limits) -> SendQuota {
        let rate = |per_second: u64| Rate::new(per_second, 0);
        SendQuota {
            limited: limits.messages.is_some() || limits.bytes.is_some(),
            messages: limits.messages.map(rate),
            bytes: limits.bytes.map(rate),
        }
    }

    /// Whether there is any limit.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Whether another message may be sent now.
    #[inline]
    pub fn is_open(&self, now: u64) -> bool {
        let open = |rate: &Option<Rate>| rate.as_ref().is_none_or(|rate| rate.is_open(now));
        open(&self.messages) && open(&self.bytes)
    }

    /// A message of so many bytes was delivered.
    #[inline]
    pub fn charge(&self, now: u64, bytes: u64) {
        if let Some(rate) = &self.messages {
            rate.charge(now, 1);
        }
        if let Some(rate) = &self.bytes {
            rate.charge(now, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1 << 40;

    fn sent(quota: &SendQuota, bytes: u64) -> u64 {
        let mut sent = 0;
        while sent < 1000 && quota.is_open(NOW) {
            quota.charge(NOW, bytes);
            sent += 1;
        }
        sent
    }

    #[test]
    fn the_tighter_limit_holds() {
        let limits = |messages, bytes| Limits {
            messages,
            bytes,
            ..Limits::default()
        };
        let quota = SendQuota::new(&limits(None, None));
        assert!(!quota.is_limited());
        assert_eq!(sent(&quota, 1 << 30), 1000);
        assert_eq!(sent(&SendQuota::new(&limits(Some(5), None)), 1 << 30), 5);
        assert_eq!(sent(&SendQuota::new(&limits(Some(5), Some(300))), 100), 3);
        assert_eq!(sent(&SendQuota::new(&limits(Some(5), Some(300))), 10), 5);
    }
}
