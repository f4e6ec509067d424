// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor: loads cVMs into ranges of its own address space, keeps them apart by capabilities, and answers their hostcalls.
//!
//! | module | what |
//! |---|---|
//! | [`command_line`], [`one_program`] | what a user calls |
//! | [`supervisor`], [`unit`], [`restart`] | starts, watches and ends the cVMs of a deployment |
//! | [`control`], [`events`], [`outlets`], [`journal`] | how operators reach it, and what they see |
//! | [`cvm`] | one cVM from its parts to its end |
//! | [`image`], [`boot`], [`overlay_disk`] | what is in its memory when it starts, and on its disks |
//! | [`hostcall`] | the answers to its kernel |
//! | [`grants`], [`send_quota`], [`output_limit`], [`rate`] | what a cVM may, and how much of it |
//! | [`exchange`], [`receiver`], [`lines`], [`watchdog`] | what cVMs have to do with each other |
//! | [`network`] | where its network interface leads |
//! | [`vcpu_record`], [`traffic`], [`statistics`] | what it did, in numbers |
//! | [`trace`] | what it did, in time |
//! | [`standard_streams`], [`terminal_guard`] | the monitor's streams and terminal as those of a program |
//! | [`console`], [`kernel_log`], [`log_file`], [`run_directory`], [`timings`] | what comes out of it |
//! | [`exit_code`] | how it ended |
//! | [`sealed_set`] | the capabilities that it is entered with |
//! | [`platform`] | the boundary to the processor; below it, everything that depends on one |
//!
//! Unsafe code is below [`platform`], apart from system calls of the host that the standard library does not have.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

pub mod boot;
pub mod command_line;
pub mod console;
pub mod control;
pub mod cvm;
pub mod events;
pub mod exchange;
pub mod exit_code;
pub mod grants;
pub mod hostcall;
pub mod image;
pub mod journal;
pub mod kernel_log;
pub mod lines;
pub mod log_file;
pub mod network;
pub mod one_program;
pub mod outlets;
pub mod output_limit;
pub mod overlay_disk;
pub mod platform;
pub mod rate;
pub mod receiver;
pub mod restart;
pub mod run_directory;
pub mod sealed_set;
pub mod send_quota;
pub mod signals;
pub mod standard_streams;
pub mod statistics;
pub mod supervisor;
pub mod terminal_guard;
pub mod timings;
pub mod trace;
pub mod traffic;
pub mod unit;
pub mod vcpu_record;
pub mod watchdog;
