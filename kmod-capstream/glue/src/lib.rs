// SPDX-License-Identifier: GPL-2.0-only
//! The driver of the capability devices: `/cap/chN`, messages between cVMs, `/cap/cfN`, memory of another cVM as a file, and `/cap/cgN`,
//! doorbells with a counter.
//!
//! The protocol is in the crate `capstream_core`; here it is connected to a kernel and to the monitor. Requests of programs are in
//! `kmod-capstream/include/capstream.h`, which begins with a complete example.
//!
//! # Adding a device kind
//! Write a file with one type that implements [`chrdev::Device`], and add a line to the table of [`kinds`]; `docs/new-device.md` shows it.
//!
//! | file | what |
//! |---|---|
//! | [`stream`], [`file`], [`bell`] | the device kinds |
//! | [`chrdev`] | character devices, as a trait |
//! | [`nodes`] | the nodes of a device kind, made when they are first opened |
//! | [`node_list`] | which nodes process 1 makes |
//! | [`endpoint`] | what a node with a portal is made of |
//! | [`argument`] | arguments of requests |
//! | [`command_line`] | numbers on the kernel's command line |
//! | [`surroundings`] | what the core needs from the kernel |
//! | [`monitor`] | what it needs from the monitor |
//! | [`interrupt`] | the capability interrupt |
//! | [`wait_queue`], [`user_pages`], [`exclusive`], [`processor`] | safe wrappers of kernel interfaces |
#![no_std]
#![feature(arbitrary_self_types, used_with_arg)]

mod argument;
mod chrdev;
mod command_line;
mod endpoint;
mod exclusive;
mod interrupt;
mod monitor;
mod node_list;
mod nodes;
mod processor;
mod surroundings;
mod user_pages;
mod wait_queue;

use chrdev::Kind;
use kernel::prelude::*;

module! {
    type: Capstream,
    name: "capstream",
    author: "The capstream authors",
    description: "Streams, files and bells between cVMs",
    license: "GPL",
}

/// The device kinds: the module of each, and its type in there.
macro_rules! kinds {
    ($( $module:ident::$device:ident; )*) => {
        $( mod $module; )*
        static KINDS: &[Kind] = &[ $( Kind::of::<$module::$device>(), )* ];
    };
}

kinds! {
    file::FileNode;
    stream::StreamNode;
    bell::BellNode;
}

/// The registered driver; built-in, so it stays.
struct Capstream;

impl kernel::Module for Capstream {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        interrupt::init()?;
        user_pages::init()?;
        for kind in KINDS {
            kind.register()?;
            pr_info!(
                "{} INIT {} {:x}\n",
                kind.title,
                kind.major,
                kind.first_request
            );
        }
        node_list::init()?;
        Ok(Capstream)
    }
}
