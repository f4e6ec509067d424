// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A network interface on a stream socket and on a switch, as a driver sees it, and for drivers that keep to no rules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod interface;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstream_virtio::memory::GuestMemory;
use capstream_virtio::{Net, NetOptions, Switch, Tap};
use interface::*;
use proptest::prelude::*;

const LIMIT: Duration = Duration::from_secs(20);

/// An interface on a socket, the other end, and what it is told when its link is down.
fn stream() -> (Net, UnixStream, Receiver<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    let (told, down) = channel();
    let told = Mutex::new(told);
    let options = NetOptions {
        mac: mac(1),
        mtu: 1500,
        on_down: Some(Arc::new(move |why: &str| {
            told.lock().unwrap().send(why.to_owned()).unwrap();
        })),
    };
    (Net::stream(ours.into(), &options).unwrap(), theirs, down)
}

fn write_frame(mut to: &UnixStream, frame: &[u8]) {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend(frame);
    to.write_all(&bytes).unwrap();
}

fn read_frame(mut from: &UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn it_says_what_it_is() {
    let (net, _other, _down) = stream();
    let interface = Interface::attach(net);
    assert_eq!(interface.register(0x008), 1, "a network interface");
    let mac: Vec<u64> = (0..6)
        .map(|at| interface.transport.read(0x100 + at, 1))
        .collect();
    assert_eq!(mac, [2, 0, 0, 0, 0, 1]);
    assert!(interface.is_up());
    assert_eq!(interface.transport.read(0x10a, 2), 1500);
    let offered = interface.offered();
    for feature in [F_CSUM, F_GUEST_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_MRG_RXBUF] {
        assert_ne!(offered & feature, 0, "{feature:#x}");
    }
    assert_eq!(offered & F_GUEST_TSO4, 0, "nothing comes uncut from there");
}

#[test]
fn frames_go_out_and_come_in() {
    let (net, other, _down) = stream();
    let mut interface = Interface::new(net, 0);
    interface.give(64, 2048);
    for len in [60, 1514, 65_000] {
        let frame = frame(9, 1, len);
        interface.send(PLAIN, &frame);
        assert_eq!(read_frame(&other), frame);
        write_frame(&other, &frame);
        let (header, received) = interface.receive();
        assert_eq!(received, frame);
        assert_eq!(header[0], 2, "its checksums are right");
    }
}

#[test]
fn checksums_that_are_left_to_it_are_computed() {
    let (net, other, _down) = stream();
    let mut interface = Interface::new(net, 0);
    let mut frame = frame(9, 1, 99);
    frame[50..52].fill(0);
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    interface.send(header, &frame);
    let sent = read_frame(&other);
    assert_eq!(sum_of(&sent[34..], 0), 0xffff);
}

/// The sum of 16 bit words that is all ones when a checksum is right.
fn sum_of(bytes: &[u8], also: u32) -> u32 {
    let mut sum = also;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// A segment of TCP with `payload` bytes as a driver leaves it to a device: a packet of any length, of whose checksum only the pseudo header is there. Returns
/// the device's header, the frame, where the segment begins, and the sum of the pseudo header.
fn uncut(six: bool, payload: usize, size: u16) -> ([u8; HEADER], Vec<u8>, usize, u32) {
    let mut bytes = frame(9, 1, 14);
    let segment = 20 + payload;
    let pseudo = if six {
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((segment as u16).to_be_bytes());
        bytes.extend([6, 64]);
        bytes.extend([0xfd; 32]);
        sum_of(&[0xfd; 32], 0)
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + segment as u16).to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !sum_of(&bytes[14..34], 0) as u16;
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        sum_of(&[10, 0, 0, 1, 10, 0, 0, 2], 0)
    };
    let pseudo = sum_of(&(segment as u16).to_be_bytes(), pseudo + 6);
    let start = bytes.len();
    bytes.extend([
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes[start + 16..start + 18].copy_from_slice(&(pseudo as u16).to_be_bytes());
    bytes.extend((0..payload).map(|at| (at * 31 + at / 253) as u8));
    let kind = if six { 4 } else { 1 };
    let [s0, s1] = size.to_le_bytes();
    let header = [
        1,
        kind,
        start as u8 + 20,
        0,
        s0,
        s1,
        start as u8,
        0,
        16,
        0,
        0,
        0,
    ];
    (header, bytes, start, pseudo)
}

#[test]
fn segments_go_out_uncut_with_their_checksum() {
    let (net, other, _down) = stream();
    let mut interface = Interface::new(net, 0);
    for six in [false, true] {
        // The longest frame is the last.
        let longest = 65_535 - 14 - 20 - if six { 40 } else { 20 };
        for payload in [1, 2, 999, 1461, 16_001, 65_001, longest] {
            let (header, bytes, start, pseudo) = uncut(six, payload, 1440);
            interface.send(header, &bytes);
            let sent = read_frame(&other);
            let field = start + 16..start + 18;
            assert_eq!(sum_of(&sent[start..], pseudo), 0xffff, "{six} {payload}");
            assert_eq!(sent[..field.start], bytes[..field.start]);
            assert_eq!(sent[field.end..], bytes[field.end..]);
        }
    }
}

#[test]
fn segments_are_cut_by_a_driver_that_agreed_to_nothing_else() {
    let (net, other, _down) = stream();
    let mut interface = Interface::new(net, F_HOST_TSO4);
    let (header, bytes, ..) = uncut(false, 3000, 1440);
    interface.send(header, &bytes);
    let (header, bytes, ..) = uncut(true, 3000, 1440);
    interface.send(header, &bytes);
    assert_eq!(read_frame(&other).len(), bytes.len(), "the second alone");
}

#[test]
fn a_frame_that_the_buffers_are_too_short_for_is_not_written() {
    let (net, other, _down) = stream();
    let counters = Arc::clone(net.counters());
    let mut interface = Interface::new(net, F_MRG_RXBUF);
    let count = || counters.lost_in.load(std::sync::atomic::Ordering::SeqCst);
    // What follows each buffer has to stay as it is.
    let marks: Vec<u64> = (0..4).map(|at| RECEIVED + at * 0x2000 + 600).collect();
    for &mark in &marks {
        interface.memory.write(mark, &[0xee; 0x2000 - 600]).unwrap();
    }
    interface.give(4, 600);
    for len in [65_549, 65_000, 1514, 589] {
        write_frame(&other, &frame(1, 9, len));
    }
    write_frame(&other, &frame(1, 9, 588));
    assert_eq!(interface.receive().1, frame(1, 9, 588));
    assert_eq!(count(), 4);
    for &mark in &marks {
        let mut bytes = [0; 0x2000 - 600];
        interface.memory.read(mark, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0xee));
    }
}

#[test]
fn what_comes_before_there_are_buffers_is_not_lost() {
    let (net, other, _down) = stream();
    let mut interface = Interface::attach(net);
    let frames: Vec<_> = (0..60).map(|number| frame(1, number, 900)).collect();
    for frame in &frames {
        write_frame(&other, frame);
    }
    interface.set_up(0);
    let mut expected = frames.iter();
    // A few buffers at a time, some of them too short for a frame alone.
    while expected.len() > 0 {
        interface.give(7, 512);
        for _ in 0..3 {
            if let Some(frame) = expected.next() {
                assert_eq!(interface.receive().1, *frame);
            }
        }
    }
}

#[test]
fn the_link_goes_down_when_nobody_is_there_any_more() {
    let (net, other, down) = stream();
    let mut interface = Interface::new(net, 0);
    interface.give(8, 2048);
    write_frame(&other, &frame(1, 9, 100));
    drop(other);
    assert_eq!(
        interface.receive().1,
        frame(1, 9, 100),
        "what it sent before"
    );
    let why = down.recv_timeout(LIMIT).unwrap();
    assert!(why.contains("closed"), "{why}");
    assert!(!interface.is_up());
    // The driver goes on, and what it sends is lost.
    interface.send(PLAIN, &frame(9, 1, 100));
    assert!(down.try_recv().is_err(), "it is told once");
}

#[test]
fn the_link_goes_down_when_no_buffers_are_there() {
    let (net, other, down) = stream();
    let mut interface = Interface::new(net, 0);
    write_frame(&other, &frame(1, 9, 100));
    drop(other);
    down.recv_timeout(LIMIT).unwrap();
    interface.wait_interrupt();
    assert!(!interface.is_up());
}

#[test]
fn a_host_that_takes_nothing_keeps_frames_waiting() {
    let (net, other, _down) = stream();
    let mut interface = Interface::new(net, 0);
    let mut sent = 0_u32;
    // Until nothing is taken any more; there are so many places for frames.
    let mut free = 32;
    while free > 0 {
        interface.put(PLAIN, &frame(9, sent as u8, 60_000), 0x1_0000);
        interface.notify(TX);
        sent += 1;
        free -= 1;
        while interface.take_used(TX).is_some() {
            free += 1;
        }
    }
    for number in 0..sent {
        assert_eq!(read_frame(&other)[11], number as u8);
    }
}

#[test]
fn a_session_ends_and_another_begins() {
    let (net, other, _down) = stream();
    let mut interface = Interface::attach(net);
    for round in 0..20 {
        interface.set_up(if round % 2 == 0 { 0 } else { F_EVENT_IDX });
        interface.give(16, 2048);
        interface.send(PLAIN, &frame(9, round, 200));
        assert_eq!(read_frame(&other)[11], round);
        write_frame(&other, &frame(1, round, 300));
        assert_eq!(interface.receive().1[11], round);
    }
}

/// Interfaces of one switch.
fn on_switch<const N: usize>() -> [Interface; N] {
    let switch = Switch::new();
    std::array::from_fn(|number| {
        let port = switch.port(mac(number as u8 + 1)).unwrap();
        let mut interface = Interface::new(Net::switch(port, 65_520).unwrap(), 0);
        interface.give(128, 2048);
        interface
    })
}

#[test]
fn a_switch_brings_frames_to_whom_they_are_for() {
    let [mut one, mut two, mut three] = on_switch();
    one.send(PLAIN, &frame(2, 1, 500));
    assert_eq!(two.receive().1, frame(2, 1, 500));
    assert!(three.try_receive().is_none());
    // To all.
    one.send(PLAIN, &frame(0xff, 1, 90));
    assert_eq!(two.receive().1, frame(0xff, 1, 90));
    assert_eq!(three.receive().1, frame(0xff, 1, 90));
    // To an address that nobody knows, until it was seen.
    one.send(PLAIN, &frame(77, 1, 90));
    assert_eq!(two.receive().1, frame(77, 1, 90));
    assert_eq!(three.receive().1, frame(77, 1, 90));
    three.send(PLAIN, &frame(1, 77, 90));
    assert_eq!(one.receive().1, frame(1, 77, 90));
    one.send(PLAIN, &frame(77, 1, 91));
    assert_eq!(three.receive().1, frame(77, 1, 91));
    assert!(two.try_receive().is_none());
    // Not from somebody else's address, nor to oneself.
    three.send(PLAIN, &frame(1, 2, 100));
    one.send(PLAIN, &frame(1, 1, 100));
    assert!(one.try_receive().is_none());
    // A port that is gone.
    drop(three);
    one.send(PLAIN, &frame(77, 1, 92));
    assert_eq!(two.receive().1, frame(77, 1, 92), "it is unknown again");
}

#[test]
fn a_switch_leaves_offloads_to_the_receiver() {
    let [mut one, mut two] = on_switch();
    // Segments of 1000 bytes, without a checksum.
    let header = [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
    one.send(header, &frame(2, 1, 60_000));
    let (received, bytes) = two.receive();
    assert_eq!(bytes, frame(2, 1, 60_000));
    assert_eq!(received[..10], header[..10]);
    assert_eq!(received[10], 30, "buffers of 2048 bytes");
    // Whoever cannot be left that does not get it.
    two.set_up(F_GUEST_TSO4);
    two.give(128, 2048);
    one.send(header, &frame(2, 1, 60_000));
    assert!(two.try_receive().is_none());
    one.send(PLAIN, &frame(2, 1, 100));
    assert_eq!(two.receive().1, frame(2, 1, 100));
}

#[test]
fn who_takes_nothing_keeps_nobody_waiting() {
    let switch = Switch::new();
    let sender = Net::switch(switch.port(mac(1)).unwrap(), 1500).unwrap();
    let counters = Arc::clone(sender.counters());
    let receiver = Net::switch(switch.port(mac(2)).unwrap(), 1500).unwrap();
    let lost = Arc::clone(receiver.counters());
    let mut one = Interface::new(sender, 0);
    let mut two = Interface::new(receiver, 0);
    two.give(1, 2048);
    for number in 0..3000 {
        one.send(PLAIN, &frame(2, 1, 1000 + number % 500));
    }
    let count =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(count(&counters.frames_out), 3000);
    assert!(count(&lost.lost_in) > 1000, "{lost:?}");
    // What waits comes in order when there are buffers.
    let mut lengths = Vec::new();
    lengths.push(two.receive().1.len());
    while count(&lost.frames_in) > lengths.len() as u64 {
        two.give(50, 2048);
        while let Some((_, frame)) = two.try_receive() {
            lengths.push(frame.len());
        }
    }
    let sent = |number: usize| 1000 + number % 500;
    assert!(
        lengths
            .iter()
            .enumerate()
            .all(|(number, &len)| len == sent(number))
    );
    assert!(lengths.len() > 600, "{}", lengths.len());
}

#[test]
fn without_merging_a_frame_has_one_buffer() {
    let switch = Switch::new();
    let mut one = Interface::new(Net::switch(switch.port(mac(1)).unwrap(), 1500).unwrap(), 0);
    let net = Net::switch(switch.port(mac(2)).unwrap(), 1500).unwrap();
    let mut two = Interface::new(net, F_MRG_RXBUF);
    two.give(4, 600);
    one.send(PLAIN, &frame(2, 1, 700));
    one.send(PLAIN, &frame(2, 1, 588));
    let (header, bytes) = two.receive();
    assert_eq!(bytes, frame(2, 1, 588));
    assert_eq!(header[10], 1);
}

#[test]
fn one_interrupt_is_for_many_frames() {
    let [mut one, mut two] = on_switch();
    two.want_interrupt(RX);
    let before = two.line.count();
    for _ in 0..50 {
        one.put(PLAIN, &frame(2, 1, 500), 0x1_0000);
    }
    one.notify(TX);
    assert_eq!(two.line.count(), before + 1);
    let mut count = 0;
    while two.try_receive().is_some() {
        count += 1;
    }
    assert_eq!(count, 50);
}

/// Frames that are none, and chains that make no sense.
#[test]
fn what_a_driver_may_not_send() {
    let [mut one, mut two] = on_switch();
    let end = BASE + MEMORY as u64;
    let lost = |one: &mut Interface| {
        one.notify(TX);
        one.want_interrupt(TX);
        while one.take_used(TX).is_none() {
            one.wait_interrupt();
        }
    };
    // Shorter than a header of ours or of a frame, empty, and longer than any frame.
    for len in [1, 11, 12, 25, 70_000] {
        one.describe(TX, 200, SENT, len, 0, 0);
        one.offer(TX, 200);
        lost(&mut one);
    }
    // Beyond the memory, and written to.
    for (address, len, flags) in [
        (end - 50, 100, 0),
        (SENT, 100, WRITE),
        (u64::MAX - 10, 100, 0),
    ] {
        one.describe(TX, 200, address, len, flags, 0);
        one.offer(TX, 200);
        lost(&mut one);
    }
    // Headers that say too much.
    for header in [
        [1, 0, 0, 0, 0, 0, 90, 0, 16, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0],
        [0, 1, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0],
        [1, 9, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0],
    ] {
        one.send(header, &frame(2, 1, 100));
    }
    assert!(two.try_receive().is_none());
    one.send(PLAIN, &frame(2, 1, 100));
    assert_eq!(two.receive().1, frame(2, 1, 100));
    // A chain without an end stops the interface until it is reset.
    one.describe(TX, 200, SENT, 10, NEXT, 200);
    one.offer(TX, 200);
    one.notify(TX);
    assert_ne!(one.status() & NEEDS_RESET, 0);
    one.set_up(0);
    one.send(PLAIN, &frame(2, 1, 100));
    assert_eq!(two.receive().1, frame(2, 1, 100));
}

/// A receiver that breaks its own queue does not disturb a sender.
#[test]
fn what_a_driver_may_not_give() {
    let [mut one, mut two] = on_switch();
    let end = BASE + MEMORY as u64;
    let bad: [&dyn Fn(&mut Interface); 4] = [
        &|two| {
            two.describe(RX, 0, end - 10, 100, WRITE, 0);
            two.offer(RX, 0);
        },
        &|two| {
            two.describe(RX, 0, RECEIVED, 100, WRITE | NEXT, 0);
            two.offer(RX, 0);
        },
        &|two| two.offer(RX, u16::MAX),
        &|two| two.set_available(RX, 9999),
    ];
    for spoil in bad {
        two.set_up(0);
        spoil(&mut two);
        one.send(PLAIN, &frame(2, 1, 100));
        assert_ne!(two.status() & NEEDS_RESET, 0);
        one.send(PLAIN, &frame(2, 1, 100));
        two.set_up(0);
        // Buffers without room for anything make a frame go nowhere.
        two.give(255, 1);
        one.send(PLAIN, &frame(2, 1, 300));
        two.set_up(0);
        two.give(4, 2048);
        one.send(PLAIN, &frame(2, 1, 100));
        assert_eq!(two.receive().1, frame(2, 1, 100));
    }
}

#[test]
fn one_queue_is_not_enough() {
    let (net, _other, _down) = stream();
    let interface = Interface::attach(net);
    interface.set(0x070, 3);
    interface.set(0x024, 1);
    interface.set(0x020, 1);
    interface.set(0x070, 11);
    interface.set(0x070, 15);
    assert_ne!(interface.status() & NEEDS_RESET, 0);
    interface.notify(RX);
    interface.notify(TX);
}

/// Two guests at once, each sender and receiver.
#[test]
fn both_ways_at_once() {
    const COUNT: usize = 3000;
    let [one, two] = on_switch();
    let run = |mut interface: Interface, own: u8, other: u8| {
        std::thread::spawn(move || {
            let mut received = 0;
            for _ in 0..COUNT {
                interface.send(PLAIN, &frame(other, own, 1200));
                while let Some((_, bytes)) = interface.try_receive() {
                    assert_eq!(bytes, frame(own, other, 1200));
                    received += 1;
                    interface.give(1, 2048);
                }
            }
            (interface, received)
        })
    };
    let threads = [run(one, 1, 2), run(two, 2, 1)];
    for thread in threads {
        let (mut interface, mut received) = thread.join().unwrap();
        interface.give(64, 2048);
        while interface.try_receive().is_some() {
            received += 1;
        }
        assert!(received > 0);
    }
}

/// Memory of which a part is not the device's.
#[test]
fn only_the_plain_part_is_accessed() {
    let switch = Switch::new();
    let end = BASE + MEMORY as u64;
    let memory = GuestMemory::anonymous(BASE, MEMORY)
        .unwrap()
        .with_plain_part(BASE..end - 0x1000)
        .unwrap();
    let net = Net::switch(switch.port(mac(1)).unwrap(), 1500).unwrap();
    let mut one = Interface::attach_in(net, memory);
    one.set_up(0);
    let mut two = Interface::new(Net::switch(switch.port(mac(2)).unwrap(), 1500).unwrap(), 0);
    two.give(16, 2048);
    one.memory.write(SENT, &PLAIN).unwrap();
    one.describe(TX, 0, SENT, HEADER as u32, NEXT, 1);
    one.describe(TX, 1, end - 0x800, 100, 0, 0);
    one.offer(TX, 0);
    one.notify(TX);
    assert!(one.take_used(TX).is_some());
    assert!(two.try_receive().is_none());
}

#[test]
fn a_tap_device_has_to_be_there() {
    for device in ["", "no-such-device", "../lo"] {
        let error = Tap::open(device).unwrap_err().to_string();
        assert!(error.contains("ip tuntap add"), "{error}");
    }
    let error = Tap::open("lo").unwrap_err().to_string();
    assert!(error.contains("`lo` is not a tap device"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// However a frame is cut, and into whatever buffers it goes, it is the same.
    #[test]
    fn cuts_do_not_matter(len in 14_usize..9000, cut in 40_usize..9100, room in 60_u32..4000) {
        let [mut one, mut two] = on_switch();
        two.set_up(0);
        two.give(255, room);
        one.put(PLAIN, &frame(2, 1, len), cut);
        one.notify(TX);
        let (header, bytes) = two.receive();
        prop_assert_eq!(bytes, frame(2, 1, len));
        let buffers = (len + HEADER).div_ceil(room as usize);
        prop_assert_eq!(usize::from(u16::from_le_bytes([header[10], header[11]])), buffers);
    }
}
