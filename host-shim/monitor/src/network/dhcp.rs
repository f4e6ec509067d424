// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asks for addresses: RFC 2131, as far as a server takes that keeps no records, with the options of RFC 2132.

use std::net::Ipv4Addr;

use capstream_virtio::MacAddress;

/// What a server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    /// How many bits of it are those of its network.
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    /// The longest packet, in bytes.
    pub(super) mtu: Option<u16>,
}

/// Bytes of a message without options.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// What servers may expect of a message's length: RFC 1542, 2.1.
const LEAST: usize = 300;
const TRANSACTION: [u8; 4] = *b"cVMs";
const IPV4: [u8; 2] = [0x08, 0x00];
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

const MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const MTU: u8 = 26;
const TYPE: u8 = 53;
const PARAMETERS: u8 = 55;
const END: u8 = 255;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ACKNOWLEDGE: u8 = 5;

/// The frame that asks.
pub(super) fn question(mac: MacAddress) -> Vec<u8> {
    let mut message = vec![0; FIXED];
    // A request, over Ethernet, with addresses of 6 bytes.
    for (to, from) in message
        .iter_mut()
        .zip([1, 1, 6, 0].into_iter().chain(TRANSACTION))
    {
        *to = from;
    }
    // The answer goes to everybody: nobody has the address yet.
    for (to, from) in message.iter_mut().skip(10).zip([0x80, 0]) {
        *to = from;
    }
    for (to, from) in message.iter_mut().skip(28).zip(mac) {
        *to = from;
    }
    message.extend(COOKIE);
    message.extend([TYPE, 1, DISCOVER]);
    message.extend([PARAMETERS, 4, MASK, ROUTER, NAME_SERVER, MTU, END]);
    message.resize(message.len().max(LEAST), 0);

    let udp_len = (UDP + message.len()) as u16;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(IPV4);
    let mut header = [0; IP];
    // Version 4, five words; then length, 64 hops, UDP; from nobody to everybody.
    for (to, from) in header.iter_mut().zip([0x45, 0]) {
        *to = from;
    }
    for (to, from) in header
        .iter_mut()
        .skip(2)
        .zip((IP as u16 + udp_len).to_be_bytes())
    {
        *to = from;
    }
    for (to, from) in header.iter_mut().skip(8).zip([64, 17]) {
        *to = from;
    }
    for to in header.iter_mut().skip(16) {
        *to = 0xff;
    }
    let sum = checksum(&header);
    for (to, from) in header.iter_mut().skip(10).zip(sum.to_be_bytes()) {
        *to = from;
    }
    frame.extend(header);
    for word in [CLIENT, SERVER, udp_len, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(message);
    frame
}

/// The checksum of a header: RFC 1071.
fn checksum(header: &[u8; IP]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// What a frame answers; `None` for every other frame.
pub(super) fn answer(frame: &[u8], mac: MacAddress) -> Option<Lease> {
    let (ethernet, rest) = frame.split_at_checked(ETHERNET)?;
    if ethernet.get(12..14)? != IPV4 {
        return None;
    }
    let (header, rest) = rest.split_at_checked(IP)?;
    let (udp, message) = rest.split_at_checked(UDP)?;
    let to_us = header.first()? == &0x45 && header.get(9)? == &17;
    if !to_us || udp.get(2..4)? != CLIENT.to_be_bytes() {
        return None;
    }
    let (fixed, options) = message.split_at_checked(FIXED)?;
    let ours = fixed.first()? == &2 && fixed.get(4..8)? == TRANSACTION && fixed.get(28..34)? == mac;
    let options = options.strip_prefix(&COOKIE)?;
    if !ours {
        return None;
    }
    let mut lease = Lease {
        address: address(fixed.get(16..20)?)?,
        prefix: 24,
        gateway: None,
        dns: Vec::new(),
        mtu: None,
    };
    let mut kind = None;
    let mut rest = options;
    while let Some((&code, more)) = rest.split_first() {
        match code {
            0 => {
                rest = more;
                continue;
            }
            END => break,
            _ => {}
        }
        let (&len, more) = more.split_first()?;
        let (value, more) = more.split_at_checked(usize::from(len))?;
        match code {
            TYPE => kind = value.first().copied(),
            MASK => lease.prefix = u32::from(address(value)?).leading_ones() as u8,
            ROUTER => lease.gateway = address(value.get(..4)?),
            NAME_SERVER => {
                let (servers, _) = value.as_chunks::<4>();
                lease.dns = servers.iter().map(|&server| server.into()).collect();
            }
            MTU => lease.mtu = value.first_chunk::<2>().map(|&mtu| u16::from_be_bytes(mtu)),
            _ => {}
        }
        rest = more;
    }
    // The least that a host has to take: RFC 791, 3.2.
    lease.mtu = lease.mtu.filter(|&mtu| mtu >= 68);
    matches!(kind, Some(OFFER | ACKNOWLEDGE)).then_some(lease)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().map(|&bytes| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: MacAddress = [2, 1, 2, 3, 4, 5];

    /// The question turned into its answer.
    fn answered(options: &[u8]) -> Vec<u8> {
        let mut frame = question(OURS);
        frame.truncate(ETHERNET + IP + UDP + FIXED);
        let udp = ETHERNET + IP;
        frame[udp..udp + 4].copy_from_slice(&[0, 67, 0, 68]);
        let message = udp + UDP;
        frame[message] = 2;
        frame[message + 16..message + 20].copy_from_slice(&[192, 0, 2, 2]);
        frame.extend(COOKIE);
        frame.extend(options);
        frame
    }

    #[test]
    fn a_question_has_right_lengths_and_sums() {
        let frame = question(OURS);
        assert_eq!(frame.len(), ETHERNET + IP + UDP + LEAST);
        let header: &[u8; IP] = frame[ETHERNET..].first_chunk().unwrap();
        assert_eq!(checksum(header), 0);
        assert_eq!(header[2..4], ((IP + UDP + LEAST) as u16).to_be_bytes());
        assert_eq!(answer(&frame, OURS), None, "a question is no answer");
    }

    #[test]
    fn an_answer_is_read() {
        let options = [
            0, 1, 4, 255, 255, 240, 0, 3, 4, 192, 0, 2, 1, 6, 8, 1, 1, 1, 1, 8, 8, 8, 8, 26, 2,
            255, 240, 53, 1, 5, 255, 99,
        ];
        let frame = answered(&options);
        let lease = Lease {
            address: [192, 0, 2, 2].into(),
            prefix: 20,
            gateway: Some([192, 0, 2, 1].into()),
            dns: vec![[1, 1, 1, 1].into(), [8, 8, 8, 8].into()],
            mtu: Some(65520),
        };
        assert_eq!(answer(&frame, OURS), Some(lease));
        assert_eq!(answer(&frame, [2, 0, 0, 0, 0, 0]), None, "somebody else's");
        assert_eq!(answer(&answered(&[53, 1, 6, 255]), OURS), None, "a refusal");
        assert_eq!(answer(&answered(&[53, 200, 5]), OURS), None, "cut off");
        let least = answer(&answered(&[53, 1, 2, 26, 2, 0, 1]), OURS).unwrap();
        assert_eq!((least.prefix, least.gateway, least.mtu), (24, None, None));
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(options in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
            let frame = answered(&options);
            let _ = answer(&frame, OURS);
            let _ = answer(&frame[..cut.index(frame.len())], OURS);
            let _ = answer(&options, OURS);
        }
    }
}
