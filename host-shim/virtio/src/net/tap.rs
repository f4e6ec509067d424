// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A link over a tap device of the host: each read or write is one frame, behind a header of the same form as in the queues.
//!
//! # Why unsafe
//!
//! A tap device is set up by `ioctl`s that no crate here has as safe functions. Each is given what the kernel's `include/uapi/linux/if_tun.h` says.
#![allow(unsafe_code, reason = "three ioctls; see the module's documentation")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use virtio_bindings::virtio_net::*;

use super::MAX_FRAME;
use super::error::NetError;
use super::frame::Frame;
use super::header::{HEADER, Header};
use super::stream::Sent;
use super::worker::Filled;

const TUN: &str = "/dev/net/tun";

/// A tap device of the host, open.
#[derive(Debug)]
pub struct Tap {
    file: Arc<File>,
    mtu: u16,
}

impl Tap {
    /// Opens a tap device that is there already.
    ///
    /// # Errors
    ///
    /// [`NetError::NoTap`], [`NetError::NotTap`], [`NetError::OpenTap`].
    pub fn open(device: &str) -> Result<Tap, NetError> {
        let failed = |source| NetError::OpenTap {
            device: device.to_owned(),
            source,
        };
        let known = Path::new("/sys/class/net").join(device);
        // The ioctl would make one, if we may.
        if device.is_empty() || device.contains('/') || !known.exists() {
            return Err(NetError::NoTap {
                device: device.to_owned(),
            });
        }
        let flags = fs::read_to_string(known.join("tun_flags")).unwrap_or_default();
        let flags = flags.trim().trim_start_matches("0x");
        let is_tap =
            u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & libc::IFF_TAP as u32 != 0);
        if !is_tap {
            return Err(NetError::NotTap {
                device: device.to_owned(),
            });
        }
        let mtu = fs::read_to_string(known.join("mtu")).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN)
            .map_err(failed)?;
        attach(&file, device).map_err(failed)?;
        Ok(Tap {
            file: Arc::new(file),
            mtu: mtu.trim().parse().unwrap_or(1500),
        })
    }

    /// The longest packet that the host sends.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(super) fn ends(self) -> (TapSink, TapSource) {
        (
            TapSink {
                file: Arc::clone(&self.file),
                buffer: vec![0; HEADER + MAX_FRAME].into_boxed_slice(),
            },
            TapSource {
                file: self.file,
                buffer: vec![0; HEADER + MAX_FRAME].into_boxed_slice(),
                held: 0,
            },
        )
    }
}

fn attach(file: &File, device: &str) -> io::Result<()> {
    // SAFETY: an all-zero request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let most = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(most).zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let size = HEADER as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Frames on their way out.
#[derive(Debug)]
pub(super) struct TapSink {
    file: Arc<File>,
    buffer: Box<[u8]>,
}

impl TapSink {
    pub(super) fn send(&mut self, header: Header, frame: Frame<'_>) -> io::Result<Sent> {
        let len = HEADER + frame.len();
        let Some(place) = self.buffer.get_mut(..len) else {
            return Ok(Sent::Lost);
        };
        let (head, body) = place.split_at_mut(HEADER);
        head.copy_from_slice(&header.to_bytes(0));
        if frame.reader().read(body).is_err() {
            return Ok(Sent::Lost);
        }
        match (&*self.file).write(place) {
            Ok(_) => Ok(Sent::Taken),
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(error),
            // The host refuses this one, or has no room for it, or the device is not up.
            Err(_) => Ok(Sent::Lost),
        }
    }
}

/// Frames on their way in, one at a time.
#[derive(Debug)]
pub(super) struct TapSource {
    file: Arc<File>,
    buffer: Box<[u8]>,
    /// Bytes of the frame that was read and not taken, with its header.
    held: usize,
}

impl TapSource {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Tells the host what it may leave to a driver with these features.
    pub(super) fn agree(&self, features: u64) -> io::Result<()> {
        let mut offloads = 0;
        for (feature, offload) in [
            (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
            (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
            (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
        ] {
            if features >> feature & 1 == 1 {
                offloads |= offload;
            }
        }
        // Segments cannot be left to whoever computes no checksums.
        if offloads & libc::TUN_F_CSUM == 0 {
            offloads = 0;
        }
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(offloads),
            )
        })
    }

    /// Reads one frame. The one before was taken.
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        match (&*self.file).read(&mut self.buffer) {
            Ok(read) => {
                self.held = read;
                Ok(if read > 0 {
                    Filled::Some
                } else {
                    Filled::Nothing
                })
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Filled::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// The frame that was read.
    pub(super) fn front(&self) -> Option<(Header, &[u8])> {
        let (head, frame) = self
            .buffer
            .get(..self.held)?
            .split_first_chunk::<HEADER>()?;
        Some((Header::from_bytes(head), frame))
    }

    /// Takes it away.
    pub(super) fn pop(&mut self) {
        self.held = 0;
    }
}
