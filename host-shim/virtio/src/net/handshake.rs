// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Openings of TCP connections (RFC 9293, section 3.5) that were sent before.
//!
//! `passt` 2023.03.09, Debian 12's, looks at all that it reads at once. When the first two segments of a connection are among it, both with SYN, because the
//! first was repeated before it was read, then it sends the connection's data for ever, and serves nobody any more. A repetition that `passt` would read
//! together with what it repeats has no use for anybody, so it is left out.

use std::collections::VecDeque;

use super::ETHERNET_HEADER;

/// How many are remembered: more than repeat at a time.
const REMEMBERED: usize = 256;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_TCP: u8 = 6;
const SYN: u8 = 1 << 1;

/// What tells an opening from all others: addresses, ports and the number that it begins with.
type Opening = [u8; 16];

/// The last openings that were sent.
#[derive(Debug, Default)]
pub(super) struct Handshakes(VecDeque<Opening>);

impl Handshakes {
    /// Whether a frame opens a TCP connection and one of the last did just that. Remembers it.
    pub(super) fn is_repetition(&mut self, frame: &[u8]) -> bool {
        let Some(opening) = opening(frame) else {
            return false;
        };
        if self.0.contains(&opening) {
            return true;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(opening);
        false
    }
}

/// What a frame opens, if it is a segment with SYN over IPv4.
fn opening(frame: &[u8]) -> Option<Opening> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    if !ethernet.ends_with(&ETHERTYPE_IPV4) || *packet.get(9)? != PROTOCOL_TCP {
        return None;
    }
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let segment = packet.get(header..)?;
    if segment.get(13)? & SYN == 0 {
        return None;
    }
    let mut opening = [0; 16];
    let (addresses, rest) = opening.split_at_mut(8);
    addresses.copy_from_slice(packet.get(12..20)?);
    // Ports, then the sequence number.
    rest.copy_from_slice(segment.get(..8)?);
    Some(opening)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(options: usize, port: u16, flags: u8) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_HEADER + 20 + options + 20];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        let packet = &mut frame[ETHERNET_HEADER..];
        packet[0] = 0x40 | (5 + options as u8 / 4);
        packet[9] = PROTOCOL_TCP;
        let segment = &mut packet[20 + options..];
        segment[..2].copy_from_slice(&port.to_be_bytes());
        segment[13] = flags;
        frame
    }

    #[test]
    fn repetitions_of_openings_are_told() {
        let mut handshakes = Handshakes::default();
        for options in [0, 8] {
            let port = 7000 + options as u16;
            assert!(!handshakes.is_repetition(&segment(options, port, SYN)));
            assert!(!handshakes.is_repetition(&segment(options, port + 1, SYN)));
            assert!(handshakes.is_repetition(&segment(options, port, SYN)));
        }
        let data = segment(0, 7000, 1 << 4);
        assert!(!handshakes.is_repetition(&data));
        assert!(
            !handshakes.is_repetition(&data),
            "what opens nothing may come again"
        );
    }

    #[test]
    fn not_everything_is_remembered() {
        let mut handshakes = Handshakes::default();
        for port in 0..=REMEMBERED as u16 {
            assert!(!handshakes.is_repetition(&segment(0, port, SYN)));
        }
        assert_eq!(handshakes.0.len(), REMEMBERED);
        assert!(!handshakes.is_repetition(&segment(0, 0, SYN)));
    }

    #[test]
    fn cut_frames_open_nothing() {
        let frame = segment(0, 7000, SYN);
        let mut handshakes = Handshakes::default();
        assert!(!handshakes.is_repetition(&frame));
        for len in 0..ETHERNET_HEADER + 20 + 14 {
            assert!(!handshakes.is_repetition(&frame[..len]));
        }
    }
}
