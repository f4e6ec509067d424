// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A link over a stream socket, as QEMU's `-netdev stream` and `passt` have it: in front of each frame its length, four bytes, big-endian.
//!
//! # How much is sent at once
//!
//! `passt` 2023.03.09, Debian 12's, takes what has come, and then the rest of a frame that has come in part by one `recv`, which may get less than it asks
//! for. It takes what comes after that for the begin of a frame, and everything is lost until lengths and frames happen to fit again. Linux puts what one
//! `send` brings into the socket piece by piece, of a little more than [`PIECE`] bytes each, and the other side may look between two pieces. So a `send` is
//! for one long frame, which makes two pieces, or for short ones that are together no longer than one. The rest of a frame is in one piece then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::MAX_FRAME;
use super::frame::Frame;
use super::handshake::Handshakes;
use super::header::Header;
use super::unread::is_all_read;
use super::worker::Filled;
use crate::memory::OutsideMemory;

/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// How many bytes go out or come in by one system call at most. A frame fits several times.
const BUFFER: usize = 256 << 10;
const _: () = assert!(BUFFER >= 2 * (LENGTH + MAX_FRAME));
/// How many bytes of a `send` Linux puts into a UNIX stream socket at once, at least; in fact what fits the head of a buffer comes on top of it.
const PIECE: usize = 32 << 10;
/// The longest frame: `passt` leaves out what is longer.
const MOST: usize = u16::MAX as usize;
const _: () = assert!(MOST <= 2 * PIECE);

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It goes out, at [`StreamSink::flush`] at the latest.
    Taken,
    /// The host has to take something first.
    Full,
    /// It is lost.
    Lost,
}

/// Frames on their way out.
#[derive(Debug)]
pub(super) struct StreamSink {
    socket: Arc<OwnedFd>,
    buffer: Box<[u8]>,
    /// What is to be sent.
    begin: usize,
    end: usize,
    /// How many bytes at `begin` are the rest of a frame that was sent in part.
    rest: usize,
    handshakes: Handshakes,
}

impl StreamSink {
    pub(super) fn new(socket: Arc<OwnedFd>) -> StreamSink {
        StreamSink {
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            begin: 0,
            end: 0,
            rest: 0,
            handshakes: Handshakes::default(),
        }
    }

    /// Takes a copy of a frame, and gives it its checksum.
    pub(super) fn send(&mut self, header: Header, frame: Frame<'_>) -> io::Result<Sent> {
        if frame.len() > MOST {
            return Ok(Sent::Lost);
        }
        let len = LENGTH + frame.len();
        if self.buffer.len() - self.end < len {
            self.flush()?;
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        let Some(place) = self.buffer.get_mut(self.end..self.end + len) else {
            return Ok(Sent::Full);
        };
        let (length, body) = place.split_at_mut(LENGTH);
        length.copy_from_slice(&(frame.len() as u32).to_be_bytes());
        if let Err(OutsideMemory { .. }) = frame.reader().read(body) {
            return Ok(Sent::Lost);
        }
        if self.handshakes.is_repetition(body)
            && (self.begin != self.end || !is_all_read(self.socket.as_fd())?)
        {
            return Ok(Sent::Lost);
        }
        header.complete(body);
        self.end += len;
        Ok(Sent::Taken)
    }

    /// How many bytes the frame has whose length is so far behind `begin`, with that length; `None` when there is none.
    fn frame_at(&self, offset: usize) -> Option<usize> {
        let held = self.buffer.get(self.begin + offset..self.end)?;
        let length = held.first_chunk::<LENGTH>()?;
        Some(LENGTH + u32::from_be_bytes(*length) as usize)
    }

    /// How many bytes go out by the next `send`.
    fn next_send(&self) -> usize {
        let mut len = self.rest;
        while let Some(frame) = self.frame_at(len) {
            if len > 0 && len + frame > PIECE {
                break;
            }
            len += frame;
        }
        len
    }

    /// So many of the next bytes were sent.
    fn advance(&mut self, sent: usize) {
        let mut whole = self.rest;
        while whole < sent {
            match self.frame_at(whole) {
                Some(frame) => whole += frame,
                None => break,
            }
        }
        self.begin += sent;
        self.rest = whole.saturating_sub(sent);
    }

    /// Sends what there is; `false` when the host does not take all of it now.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.begin < self.end {
            let next = self.begin..self.begin + self.next_send();
            let bytes = self.buffer.get(next).unwrap_or_default();
            match send(
                &*self.socket,
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => self.advance(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.begin = 0;
        self.end = 0;
        Ok(true)
    }
}

/// Frames on their way in.
#[derive(Debug)]
pub(super) struct StreamSource {
    socket: Arc<OwnedFd>,
    buffer: Box<[u8]>,
    /// What was received and not taken.
    begin: usize,
    end: usize,
}

impl StreamSource {
    pub(super) fn new(socket: Arc<OwnedFd>) -> StreamSource {
        StreamSource {
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            begin: 0,
            end: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives what there is, as much as there is room for. All whole frames were taken before.
    ///
    /// # Errors
    ///
    /// The link is down; `UnexpectedEof` when the other side has closed it.
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let most = room.len();
        match recv(&*self.socket, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, received)) => {
                self.end += received;
                Ok(if received < most {
                    Filled::All
                } else {
                    Filled::Some
                })
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Filled::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// The first frame that is there as a whole.
    ///
    /// # Errors
    ///
    /// The other side sends something else than frames.
    pub(super) fn front(&self) -> io::Result<Option<(Header, &[u8])>> {
        let held = self.buffer.get(self.begin..self.end).unwrap_or_default();
        let Some((length, rest)) = held.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!(
                "it sent a frame of {length} bytes, and {MAX_FRAME} are the most"
            )));
        }
        // It comes from this host, whose own checks it has passed; a checksum of its was computed a moment ago.
        Ok(rest.get(..length).map(|frame| (Header::valid(), frame)))
    }

    /// Takes the first frame away.
    pub(super) fn pop(&mut self) {
        if let Ok(Some((_, frame))) = self.front() {
            self.begin += LENGTH + frame.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (StreamSource, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (StreamSource::new(Arc::new(ours.into())), theirs)
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20),
            cut in 1_usize..5000,
        ) {
            let (mut source, mut other) = pair();
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
            let mut expected = frames.iter();
            for piece in bytes.chunks(cut) {
                other.write_all(piece).unwrap();
                prop_assert_eq!(source.fill().unwrap(), Filled::All);
                while let Some((_, frame)) = source.front().unwrap() {
                    prop_assert_eq!(Some(frame), expected.next().map(Vec::as_slice));
                    source.pop();
                }
            }
            prop_assert_eq!(expected.next(), None);
            prop_assert_eq!(source.fill().unwrap(), Filled::Nothing);
            drop(other);
            prop_assert!(source.fill().is_err());
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_link() {
        let (mut source, mut other) = pair();
        other.write_all(&[0, 1, 0, 17]).unwrap();
        source.fill().unwrap();
        assert!(source.front().unwrap().is_none(), "65553 bytes, not whole");
        let (mut source, mut other) = pair();
        other.write_all(&[0, 2, 0, 0]).unwrap();
        source.fill().unwrap();
        assert!(
            source
                .front()
                .unwrap_err()
                .to_string()
                .contains("131072 bytes")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn a_send_is_for_one_long_frame_or_for_short_ones(
            lengths in prop::collection::vec(prop_oneof![14_usize..2000, 14..=MOST], 1..60),
            in_part in prop::collection::vec(any::<bool>(), 100),
        ) {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut sink = StreamSink::new(Arc::new(ours.into()));
            let frame = vec![0; MOST];
            let mut ends = vec![0];
            let mut end = 0;
            for length in lengths {
                if BUFFER - end < LENGTH + length {
                    break;
                }
                let sent = sink.send(Header::default(), Frame::Host(&frame[..length])).unwrap();
                prop_assert_eq!(sent, Sent::Taken);
                end += LENGTH + length;
                ends.push(end);
            }
            let mut at = 0;
            for in_part in in_part.into_iter().cycle() {
                if at == end {
                    break;
                }
                let len = sink.next_send();
                prop_assert!(ends.contains(&(at + len)), "a frame in part");
                let others = ends.iter().filter(|&&end| at < end && end < at + len).count();
                prop_assert!(others == 0 || len <= PIECE, "{} frames in {len} bytes", others + 1);
                // The host took the first piece only.
                let sent = if in_part { len.min(PIECE + 3776) } else { len };
                sink.advance(sent);
                at += sent;
            }
        }
    }

    /// Takes what there is, and the rest of the last frame by one look, as `passt` does. Returns how long the frames are.
    fn read_as_passt(mut from: &UnixStream, buffer: &mut [u8]) -> Vec<usize> {
        let read = from.read(buffer).unwrap();
        assert!(read > LENGTH, "{read} bytes tell no length");
        let mut frames = Vec::new();
        let mut at = 0;
        while at < read {
            let length: [u8; LENGTH] = buffer[at..at + LENGTH].try_into().unwrap();
            assert!(read - at > LENGTH, "a length alone");
            let length = u32::from_be_bytes(length) as usize;
            at += LENGTH;
            if length > read - at {
                let rest = &mut buffer[read..at + length];
                assert_eq!(from.read(rest).unwrap(), rest.len(), "a part of the rest");
            }
            assert!(
                buffer[at..at + length]
                    .iter()
                    .all(|&byte| byte == length as u8)
            );
            frames.push(length);
            at += length;
        }
        frames
    }

    #[test]
    fn the_rest_of_a_frame_comes_in_one_piece() {
        const COUNT: usize = 6000;
        let length = |number: usize| match number % 7 {
            0 | 1 => 60 + number % 1000,
            2 => 36_000 + number % 1000,
            3 => MOST - number % 10,
            _ => 14 + number * 37 % (MOST - 14),
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sink = StreamSink::new(Arc::new(ours.into()));
        let reader = std::thread::spawn(move || {
            // Room for all there is: a look that ends because it has no more room is another matter. Of this, what is not used is not there.
            let mut buffer = vec![0; COUNT * (LENGTH + MOST)];
            let mut seen = 0;
            while seen < COUNT {
                for frame in read_as_passt(&theirs, &mut buffer) {
                    assert_eq!(frame, length(seen));
                    seen += 1;
                }
            }
        });
        let mut frame = Vec::new();
        for number in 0..COUNT {
            frame.clear();
            frame.resize(length(number), length(number) as u8);
            while sink.send(Header::default(), Frame::Host(&frame)).unwrap() == Sent::Full {
                std::thread::yield_now();
            }
            if number % 3 == 0 {
                sink.flush().unwrap();
            }
        }
        while !sink.flush().unwrap() {
            std::thread::yield_now();
        }
        reader.join().unwrap();
        let longer = Frame::Host(&[0; MOST + 1]);
        assert_eq!(sink.send(Header::default(), longer).unwrap(), Sent::Lost);
    }

    #[test]
    fn openings_are_not_repeated_while_they_are_unread() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut sink = StreamSink::new(Arc::new(ours.into()));
        // A segment with SYN.
        let mut frame = [0_u8; 54];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[23] = 6;
        frame[47] = 2;
        let mut send = |frame: &[u8], flush: bool| {
            let sent = sink.send(Header::default(), Frame::Host(frame)).unwrap();
            assert!(!flush || sink.flush().unwrap());
            sent
        };
        assert_eq!(send(&frame, false), Sent::Taken);
        assert_eq!(send(&frame, true), Sent::Lost, "the first waits here");
        assert_eq!(send(&frame, true), Sent::Lost, "the first waits there");
        let mut read = [0; LENGTH + 54];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(send(&frame, true), Sent::Taken, "the first may be lost");
        theirs.read_exact(&mut read).unwrap();
        frame[47] = 16;
        assert_eq!(send(&frame, true), Sent::Taken);
        assert_eq!(send(&frame, true), Sent::Taken, "it opens nothing");
    }

    #[test]
    fn what_the_host_does_not_take_stays_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut sink = StreamSink::new(Arc::new(ours.into()));
        let mut sent = 0_u32;
        while sink
            .send(Header::default(), Frame::Host(&[sent as u8; 9000]))
            .unwrap()
            == Sent::Taken
        {
            sent += 1;
        }
        assert!(!sink.flush().unwrap());
        assert!(sent > 20, "{sent}");
        let mut seen = 0_u32;
        let mut length = [0; 4];
        let mut frame = [0; 9000];
        theirs.set_nonblocking(true).unwrap();
        while seen < sent {
            match theirs.read_exact(&mut length) {
                Ok(()) => {}
                // Nothing of the length was there: the frames go out as a whole once there is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sink.flush().unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(u32::from_be_bytes(length), 9000);
            let mut done = 0;
            while done < frame.len() {
                match theirs.read(&mut frame[done..]) {
                    Ok(n) => done += n,
                    Err(_) => drop(sink.flush().unwrap()),
                }
            }
            assert_eq!(frame, [seen as u8; 9000]);
            seen += 1;
        }
        drop(theirs);
        sink.send(Header::default(), Frame::Host(&[0; 60])).unwrap();
        assert!(sink.flush().is_err());
    }
}
