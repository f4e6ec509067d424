// SPDX-License-Identifier: GPL-2.0-only
//! What programs may rely on at nodes of CAP_File.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use capstream_core::file::Whence;
use capstream_core::{Errno, Kernel, Key, Result};
use std::sync::atomic::Ordering;
use std::thread;
use world::{Cvm, FileNode, World};

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn publish(node: &FileNode, memory: &mut [u8], mode: i32, text: &str) -> Result<()> {
    let file = node.file();
    file.set_address(memory.as_mut_ptr() as usize);
    file.set_size(memory.len() as i64)?;
    file.set_mode(mode)?;
    file.advertise(key(text))
}

fn read(node: &FileNode, offset: i64, len: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let done = node
        .file()
        .read(offset, buffer.as_mut_ptr() as usize, len)?;
    buffer.truncate(done);
    Ok(buffer)
}

fn write(node: &FileNode, offset: i64, bytes: &[u8]) -> Result<usize> {
    node.file()
        .write(offset, bytes.as_ptr() as usize, bytes.len())
}

#[test]
fn bytes_are_read_and_written_at_any_offset() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let (publisher, user) = (FileNode::new(&a), FileNode::new(&b));
    let mut memory = *b"Hello world\n";
    publish(&publisher, &mut memory, 0, "test1").unwrap();
    assert_eq!(read(&user, 0, 1), Err(Errno::NOTCONN));
    user.file().attach(&key("test1"), true).unwrap();
    assert_eq!(read(&user, 0, 32).unwrap(), b"Hello world\n");
    assert_eq!(read(&user, 5, 3).unwrap(), b" wo");
    assert_eq!(read(&user, 11, 9).unwrap(), b"\n");
    for end in [12, 13, i64::MAX] {
        assert_eq!(read(&user, end, 9).unwrap(), b"");
        assert_eq!(write(&user, end, b"x"), Err(Errno::NOSPC));
    }
    assert_eq!(read(&user, -1, 1), Err(Errno::INVAL));
    assert_eq!(write(&user, -1, b"x"), Err(Errno::INVAL));
    assert_eq!(write(&user, 6, b"W"), Ok(1));
    assert_eq!(write(&user, 10, b"D!!!"), Ok(2));
    assert_eq!(write(&user, 12, b""), Ok(0));
    assert_eq!(&memory, b"Hello WorlD!");
    let stats = user.file().stats();
    assert_eq!((stats.reads, stats.read_bytes), (3, 12 + 3 + 1));
    assert_eq!((stats.writes, stats.written_bytes), (2, 3));
    assert_eq!((stats.size, stats.read_only), (12, 0));
}

#[test]
fn seeks_stay_in_what_an_offset_can_be() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let node = FileNode::new(&cvm);
    assert_eq!(node.file().seek(0, 0, Whence::End), Err(Errno::NOTCONN));
    let mut memory = [0; 10];
    publish(&node, &mut memory, 0, "k").unwrap();
    node.file().attach(&key("k"), true).unwrap();
    let file = node.file();
    assert_eq!(file.seek(3, 4, Whence::Start), Ok(4));
    assert_eq!(file.seek(3, 4, Whence::Current), Ok(7));
    assert_eq!(file.seek(3, -4, Whence::End), Ok(6));
    assert_eq!(file.seek(3, 100, Whence::End), Ok(110));
    assert_eq!(file.seek(3, -4, Whence::Current), Err(Errno::INVAL));
    assert_eq!(
        file.seek(3, i64::MAX, Whence::Current),
        Err(Errno::OVERFLOW)
    );
    assert_eq!(Whence::from_number(3), Err(Errno::INVAL));
}

#[test]
fn a_read_only_range_is_not_written() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let (publisher, user) = (FileNode::new(&cvm), FileNode::new(&cvm));
    let mut memory = [1; 4];
    publish(&publisher, &mut memory, 1, "k").unwrap();
    user.file().attach(&key("k"), true).unwrap();
    assert_eq!(write(&user, 0, &[2]), Err(Errno::ACCES));
    assert_eq!(read(&user, 0, 4).unwrap(), [1; 4]);
    assert_eq!(user.file().stats().read_only, 1);
    assert_eq!(publisher.file().set_mode(2), Err(Errno::INVAL));
}

#[test]
fn publishing_refuses_what_it_must() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let (node, other) = (FileNode::new(&cvm), FileNode::new(&cvm));
    let mut memory = [1; 4];
    assert_eq!(node.file().advertise(key("k")), Err(Errno::INVAL));
    assert_eq!(node.file().set_size(0), Err(Errno::INVAL));
    assert_eq!(node.file().set_size(-4), Err(Errno::INVAL));
    assert_eq!(node.file().revoke(), Err(Errno::NOENT));
    node.file().set_address(usize::MAX);
    node.file().set_size(2).unwrap();
    assert_eq!(node.file().advertise(key("k")), Err(Errno::FAULT));
    publish(&node, &mut memory, 0, "k").unwrap();
    assert_eq!(publish(&other, &mut memory, 0, "k"), Err(Errno::ADDRINUSE));
    cvm.unmap(memory.as_ptr() as usize, 1);
    assert_eq!(publish(&other, &mut memory, 0, "l"), Err(Errno::FAULT));
    // What failed left no pin behind.
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 1);
}

#[test]
fn a_range_that_was_taken_back_is_stale() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let (publisher, user) = (FileNode::new(&cvm), FileNode::new(&cvm));
    let mut memory = [1; 4];
    publish(&publisher, &mut memory, 0, "k").unwrap();
    user.file().attach(&key("k"), true).unwrap();
    publisher.file().revoke().unwrap();
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 0);
    assert_eq!(read(&user, 0, 1), Err(Errno::STALE));
    assert_eq!(read(&user, 4, 1), Err(Errno::STALE));
    assert_eq!(write(&user, 0, &[2]), Err(Errno::STALE));
    assert_eq!(publisher.file().revoke(), Err(Errno::NOENT));
    publish(&publisher, &mut memory, 0, "k").unwrap();
    assert_eq!(read(&user, 0, 1), Err(Errno::STALE));
    user.file().attach(&key("k"), true).unwrap();
    assert_eq!(read(&user, 0, 1).unwrap(), [1]);
}

#[test]
fn a_range_ends_with_its_program() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let (publisher, user) = (FileNode::new(&a), FileNode::new(&b));
    let mut memory = [1; 4];
    publish(&publisher, &mut memory, 0, "k").unwrap();
    assert!(!user.file().is_stale());
    user.file().attach(&key("k"), true).unwrap();
    assert!(!user.file().is_stale());
    publisher.file().left(publisher.cvm.space() + 1);
    assert_eq!(read(&user, 0, 1).unwrap(), [1]);
    publisher.file().left(publisher.cvm.space());
    assert_eq!(read(&user, 0, 1), Err(Errno::STALE));
    assert!(user.file().is_stale());
    assert_eq!(a.pins.load(Ordering::SeqCst), 0);
    assert_eq!(publisher.file().stats().published, 0);
}

#[test]
fn publishing_again_replaces_what_was_published() {
    let world = World::new();
    let cvm = Cvm::new(&world);
    let (publisher, user) = (FileNode::new(&cvm), FileNode::new(&cvm));
    let (mut first, mut second) = ([1; 4], [2; 8]);
    publish(&publisher, &mut first, 0, "k").unwrap();
    user.file().attach(&key("k"), true).unwrap();
    // The same again changes nothing.
    publish(&publisher, &mut first, 0, "k").unwrap();
    assert_eq!(read(&user, 0, 9).unwrap(), [1; 4]);
    publish(&publisher, &mut second, 0, "k").unwrap();
    assert_eq!(read(&user, 0, 9), Err(Errno::STALE));
    user.file().attach(&key("k"), true).unwrap();
    assert_eq!(read(&user, 0, 9).unwrap(), [2; 8]);
    publish(&publisher, &mut second, 1, "l").unwrap();
    assert_eq!(read(&user, 0, 9), Err(Errno::STALE));
    assert_eq!(user.file().attach(&key("k"), true), Err(Errno::AGAIN));
    assert_eq!(cvm.pins.load(Ordering::SeqCst), 1);
}

#[test]
fn attaching_waits_for_the_key() {
    let world = World::new();
    let (a, b) = (Cvm::new(&world), Cvm::new(&world));
    let (publisher, user) = (FileNode::new(&a), FileNode::new(&b));
    let mut memory = [9; 4];
    assert_eq!(user.file().attach(&key("late"), true), Err(Errno::AGAIN));
    thread::scope(|scope| {
        let attached = scope.spawn(|| user.file().attach(&key("late"), false));
        b.await_sleepers(1);
        publish(&publisher, &mut memory, 0, "late").unwrap();
        assert_eq!(attached.join().unwrap(), Ok(()));
    });
    assert_eq!(read(&user, 0, 9).unwrap(), [9; 4]);
}
