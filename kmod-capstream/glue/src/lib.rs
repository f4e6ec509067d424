// SPDX-License-Identifier: GPL-2.0-only
//! The driver of the capability devices: `/cap/chN`, messages between cVMs, and `/cap/cfN`, memory of another cVM as a file.
//!
//! The protocol is in the crate `capstream_core`; here it is connected to a kernel and to the monitor. Requests of programs are in
//! `kmod-capstream/include/capstream.h`, which begins with a complete example.
//!
//! # Adding a device kind
//! Write a file with one type that implements [`chrdev::Device`], and add a line to [`KINDS`].
//!
//! | file | what |
//! |---|---|
//! | [`stream`], [`file`] | the device kinds |
//! | [`chrdev`] | character devices, as a trait |
//! | [`argument`] | arguments of requests |
//! | [`nodes`] | the nodes of a device kind, made when they are first opened |
//! | [`surroundings`] | what the core needs from the kernel |
//! | [`monitor`] | what it needs from the monitor |
//! | [`interrupt`] | the capability interrupt |
//! | [`wait_queue`], [`user_pages`], [`exclusive`], [`processor`] | safe wrappers of kernel interfaces |
#![no_std]
#![feature(arbitrary_self_types, used_with_arg)]

mod argument;
mod chrdev;
mod exclusive;
mod file;
mod interrupt;
mod monitor;
mod nodes;
mod processor;
mod stream;
mod surroundings;
mod user_pages;
mod wait_queue;

use chrdev::Kind;
use kernel::prelude::*;

module! {
    type: Capstream,
    name: "capstream",
    author: "The capstream authors",
    description: "Streams and files between cVMs",
    license: "GPL",
}

/// The device kinds.
static KINDS: [Kind; 2] = [
    Kind::of::<file::FileNode>(),
    Kind::of::<stream::StreamNode>(),
];

/// The registered driver; built-in, so it stays.
struct Capstream;

impl kernel::Module for Capstream {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        interrupt::init()?;
        for kind in &KINDS {
            kind.register()?;
            pr_info!(
                "{} INIT {} {:x}\n",
                kind.title,
                kind.major,
                kind.first_request
            );
        }
        Ok(Capstream)
    }
}
