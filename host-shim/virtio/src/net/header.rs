// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header in front of each frame in a queue: virtio 1.2, section 5.1.6.
//!
//! What a driver wrote into one is a claim. [`Header::check`] lets through what makes sense for a frame of that length, so that whoever gets the
//! frame after us, another guest or the host's kernel, gets a header that is true to what it may expect.

use virtio_bindings::virtio_net::*;

use super::{ETHERNET_HEADER, MAX_FRAME};

/// Bytes of the header, with the number of buffers that a received frame has.
pub(super) const HEADER: usize = 12;

const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const DATA_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
const GSO_NONE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const GSO_TCPV4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const GSO_TCPV6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;
const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;
/// Where the checksum is in the header of a datagram; there a sum of zero means that there is none.
const UDP_CHECKSUM: u16 = 6;

/// Which bits of the features allow what, in one direction.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    checksum: u32,
    tcp4: u32,
    tcp6: u32,
    ecn: u32,
}

/// What a driver may leave to the device.
const FROM_DRIVER: Allowed = Allowed {
    checksum: VIRTIO_NET_F_CSUM,
    tcp4: VIRTIO_NET_F_HOST_TSO4,
    tcp6: VIRTIO_NET_F_HOST_TSO6,
    ecn: VIRTIO_NET_F_HOST_ECN,
};
/// What a device may leave to the driver.
const TO_DRIVER: Allowed = Allowed {
    checksum: VIRTIO_NET_F_GUEST_CSUM,
    tcp4: VIRTIO_NET_F_GUEST_TSO4,
    tcp6: VIRTIO_NET_F_GUEST_TSO6,
    ecn: VIRTIO_NET_F_GUEST_ECN,
};

/// What is left to be done with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Header {
    /// Of a frame whose checksums are there, and known to be right.
    pub(super) fn valid() -> Header {
        Header {
            flags: DATA_VALID,
            ..Header::default()
        }
    }

    pub(super) fn from_bytes(bytes: &[u8; HEADER]) -> Header {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, _, _] = *bytes;
        Header {
            flags,
            gso_type,
            header_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// As it is in front of a frame in so many buffers.
    pub(super) fn to_bytes(self, buffers: u16) -> [u8; HEADER] {
        let [h0, h1] = self.header_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        let [n0, n1] = buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// The same for a frame of `len` bytes from a driver with these features, without what means nothing; `None` when frame or header
    /// make no sense.
    pub(super) fn check(self, len: usize, features: u64) -> Option<Header> {
        if !(ETHERNET_HEADER..=MAX_FRAME).contains(&len) {
            return None;
        }
        let mut checked = Header::default();
        if self.flags & NEEDS_CSUM != 0 {
            let end = usize::from(self.checksum_start) + usize::from(self.checksum_offset) + 2;
            if usize::from(self.checksum_start) < ETHERNET_HEADER || end > len {
                return None;
            }
            checked.flags = NEEDS_CSUM;
            checked.checksum_start = self.checksum_start;
            checked.checksum_offset = self.checksum_offset;
        }
        if self.gso_type != GSO_NONE {
            // Segments are given their checksums anew, which takes to know where they are.
            if checked.flags & NEEDS_CSUM == 0 || self.gso_size == 0 {
                return None;
            }
            checked.gso_type = self.gso_type;
            checked.gso_size = self.gso_size;
            // A hint. One beyond the frame is none.
            checked.header_len = self.header_len.min(u16::try_from(len).unwrap_or(u16::MAX));
        }
        checked.fits(features, FROM_DRIVER).then_some(checked)
    }

    /// The same for a driver with these features; `None` when it cannot be left what is to be done.
    pub(super) fn for_driver(mut self, features: u64) -> Option<Header> {
        if features >> VIRTIO_NET_F_GUEST_CSUM & 1 == 0 {
            self.flags &= !DATA_VALID;
        }
        self.fits(features, TO_DRIVER).then_some(self)
    }

    fn fits(self, features: u64, allowed: Allowed) -> bool {
        let has = |bit: u32| features >> bit & 1 == 1;
        let segments = match self.gso_type & !GSO_ECN {
            GSO_NONE => self.gso_type == GSO_NONE,
            GSO_TCPV4 => has(allowed.tcp4),
            GSO_TCPV6 => has(allowed.tcp6),
            _ => false,
        };
        segments
            && (self.flags & NEEDS_CSUM == 0 || has(allowed.checksum))
            && (self.gso_type & GSO_ECN == 0 || has(allowed.ecn))
    }

    /// Computes the checksum that was left to us. The frame has the length that the header was checked for.
    pub(super) fn complete(self, frame: &mut [u8]) {
        if self.flags & NEEDS_CSUM == 0 {
            return;
        }
        let start = usize::from(self.checksum_start);
        let Some(covered) = frame.get_mut(start..) else {
            return;
        };
        // The field holds the sum of the pseudo header, so that all there is to do is to add up what is there.
        let mut sum = !fold(sum_of(covered));
        if sum == 0 && self.checksum_offset == UDP_CHECKSUM {
            sum = 0xffff;
        }
        let at = usize::from(self.checksum_offset);
        if let Some(field) = covered.get_mut(at..at + 2) {
            // In the order of the host's, as it was added up.
            field.copy_from_slice(&sum.to_ne_bytes());
        }
    }
}

/// The sum of the 16 bit words, in the host's order: RFC 1071, 2. An odd last byte has a zero behind it.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // Less than 2^32 words of 32 bits do not overflow.
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum += u64::from(u32::from_ne_bytes(last));
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u64 = u64::MAX;

    fn needs_checksum(start: u16, offset: u16) -> Header {
        Header {
            flags: NEEDS_CSUM,
            checksum_start: start,
            checksum_offset: offset,
            ..Header::default()
        }
    }

    #[test]
    fn lengths_and_places_are_checked() {
        let plain = Header::default();
        assert_eq!(plain.check(13, ALL), None);
        assert_eq!(plain.check(14, ALL), Some(plain));
        assert_eq!(plain.check(MAX_FRAME, ALL), Some(plain));
        assert_eq!(plain.check(MAX_FRAME + 1, ALL), None);
        let header = needs_checksum(34, 16);
        assert_eq!(header.check(52, ALL), Some(header));
        assert_eq!(header.check(51, ALL), None);
        assert_eq!(header.check(52, 0), None, "nobody agreed to it");
        assert_eq!(needs_checksum(13, 1).check(1000, ALL), None);
        assert_eq!(
            needs_checksum(u16::MAX, u16::MAX).check(MAX_FRAME, ALL),
            None
        );
    }

    #[test]
    fn segments_need_what_was_agreed() {
        let mut header = needs_checksum(34, 16);
        header.gso_type = GSO_TCPV4;
        assert_eq!(header.check(2000, ALL), None, "segments of no size");
        header.gso_size = 1000;
        assert_eq!(header.check(2000, ALL), Some(header));
        let without = |bit: u32| ALL & !(1 << bit);
        assert_eq!(header.check(2000, without(VIRTIO_NET_F_HOST_TSO4)), None);
        assert!(
            header
                .check(2000, without(VIRTIO_NET_F_HOST_TSO6))
                .is_some()
        );
        assert_eq!(header.for_driver(without(VIRTIO_NET_F_GUEST_TSO4)), None);
        assert_eq!(header.for_driver(without(VIRTIO_NET_F_GUEST_CSUM)), None);
        let mut ecn = header;
        ecn.gso_type |= GSO_ECN;
        assert!(ecn.check(2000, ALL).is_some());
        assert_eq!(ecn.check(2000, without(VIRTIO_NET_F_HOST_ECN)), None);
        for kind in [3, 5, 0x80, 0x83, 0x7f] {
            header.gso_type = kind;
            assert_eq!(header.check(2000, ALL), None, "{kind}");
        }
        header.gso_type = GSO_TCPV4;
        header.flags = 0;
        assert_eq!(header.check(2000, ALL), None, "segments without a checksum");
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        let header = Header {
            flags: 0xfe,
            header_len: 7,
            gso_size: 8,
            checksum_start: 9,
            checksum_offset: 10,
            ..Header::default()
        };
        assert_eq!(header.check(100, ALL), Some(Header::default()));
        assert_eq!(
            Header::valid().for_driver(0),
            Some(Header::default()),
            "a driver that checks by itself is told nothing"
        );
        assert_eq!(Header::valid().for_driver(ALL), Some(Header::valid()));
    }

    /// The checksum one word after the other.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn checksums_are_those_of_the_specification(
            mut frame in prop::collection::vec(any::<u8>(), 36..2000),
            start in 14_u16..34,
        ) {
            let header = needs_checksum(start, 0);
            let checked = header.check(frame.len(), ALL).unwrap();
            let expected = slow(&frame[usize::from(start)..]);
            checked.complete(&mut frame);
            let at = usize::from(start);
            prop_assert_eq!(u16::from_be_bytes([frame[at], frame[at + 1]]), expected);
        }

        #[test]
        fn a_checked_header_never_names_a_place_outside(
            bytes in any::<[u8; HEADER]>(), len in 0_usize..70_000, features in any::<u64>(),
        ) {
            if let Some(header) = Header::from_bytes(&bytes).check(len, features) {
                prop_assert!(usize::from(header.checksum_start) + usize::from(header.checksum_offset) <= len);
                prop_assert!(usize::from(header.header_len) <= len);
                let mut frame = vec![0; len];
                header.complete(&mut frame);
                prop_assert_eq!(Header::from_bytes(&header.to_bytes(1)), header);
            }
        }
    }

    #[test]
    fn a_datagram_whose_sum_is_zero_says_so() {
        let mut frame = vec![0; 60];
        frame[40] = 0xff;
        frame[41] = 0xff;
        needs_checksum(34, UDP_CHECKSUM).complete(&mut frame);
        assert_eq!(frame[40..42], [0xff, 0xff]);
    }
}
