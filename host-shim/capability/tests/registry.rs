// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keys, handles, revocation and limits.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use capstream_capability::{
    Class, Endpoint, Handles, Key, Kind, Limits, MAX_CVMS, Owner, Permissions, Registry,
    RegistryError, Table,
};

const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EBUSY: i32 = 16;
const EMFILE: i32 = 24;
const EADDRINUSE: i32 = 98;

/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
/// For waits that have to fail.
const SHORT: Duration = Duration::from_millis(20);

type Names = Registry<&'static str, &'static str>;

fn registry() -> Names {
    Registry::new(Limits::default())
}

fn key(name: &str) -> Key {
    Key::from_name(name).unwrap()
}

/// A receiver with a stream under `key1`, and a sender connected to it.
struct Pair {
    registry: Names,
    receiver: Arc<Table<&'static str, &'static str>>,
    sender: Arc<Table<&'static str, &'static str>>,
    id: u64,
    handle: u64,
}

fn pair() -> Pair {
    let registry = registry();
    let receiver = registry.register(0).unwrap();
    let sender = registry.register(1).unwrap();
    let id = registry
        .advertise_stream(&receiver, key("key1"), "stream")
        .unwrap()
        .id;
    let handle = registry
        .probe_stream(&sender, key("key1"), false)
        .unwrap()
        .handle;
    Pair {
        registry,
        receiver,
        sender,
        id,
        handle,
    }
}

#[test]
fn a_key_belongs_to_one_live_endpoint() {
    let registry = registry();
    let one = registry.register(0).unwrap();
    let two = registry.register(1).unwrap();
    let id = registry
        .advertise_stream(&one, key("key1"), "first")
        .unwrap()
        .id;
    for table in [&one, &two] {
        let error = registry
            .advertise_stream(table, key("key1"), "second")
            .unwrap_err();
        assert_eq!(error.errno(), EADDRINUSE);
        assert!(error.to_string().contains("`key1`"), "{error}");
        assert!(error.to_string().contains("cVM 0"), "{error}");
    }
    registry.revoke(&one, id, LONG).unwrap();
    registry
        .advertise_stream(&two, key("key1"), "second")
        .unwrap();
    let found = registry.probe_stream(&one, key("key1"), false).unwrap();
    assert_eq!(*found.endpoint.payload(), "second");
    assert_eq!(found.endpoint.owner(), two.owner());
}

#[test]
fn every_class_of_portals_has_keys_of_its_own() {
    let registry = registry();
    let (one, two) = (registry.register(0).unwrap(), registry.register(1).unwrap());
    let bell = (Class::BELL, key("key1"));
    let other = (Class::new(200).unwrap(), key("key1"));
    registry
        .advertise_stream(&one, key("key1"), "stream")
        .unwrap();
    let error = registry.probe_stream(&two, bell, true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nobody publishes a bell under the key `key1`"
    );
    // The new key of any class is told.
    let advertised = registry.advertise_stream(&one, bell, "bell").unwrap();
    assert_eq!(advertised.interested, [two.owner()]);
    registry.advertise_stream(&two, other, "other").unwrap();
    for (name, payload) in [
        (bell, "bell"),
        (other, "other"),
        ((Class::STREAM, key("key1")), "stream"),
    ] {
        let connected = registry.probe_stream(&two, name, false).unwrap();
        assert_eq!(*connected.endpoint.payload(), payload);
        assert_eq!(connected.endpoint.kind(), Kind::Portal(name.0));
    }
    let taken = registry.advertise_stream(&two, bell, "").unwrap_err();
    assert_eq!(
        taken.to_string(),
        "the key `key1` of a bell is taken by cVM 0; revoke that one or use another key"
    );
    let kinds: Vec<String> = registry
        .objects()
        .iter()
        .map(|object| object.kind.to_string())
        .collect();
    assert_eq!(kinds, ["stream", "bell", "portal of class 200"]);
    // Each is taken back alone.
    registry.revoke(&one, advertised.id, LONG).unwrap();
    registry.probe_stream(&two, bell, false).unwrap_err();
    registry.probe_stream(&two, key("key1"), false).unwrap();
    registry.advertise_stream(&two, bell, "again").unwrap();
}

#[test]
fn a_handle_to_a_file_keeps_what_its_user_may() {
    let registry = registry();
    let (one, two) = (registry.register(0).unwrap(), registry.register(1).unwrap());
    registry.advertise_file(&one, key("file"), "file").unwrap();
    let read = Permissions::LOAD;
    let narrow = registry
        .probe_file_masked(&two, key("file"), false, read)
        .unwrap()
        .handle;
    let wide = registry
        .probe_file(&two, key("file"), false)
        .unwrap()
        .handle;
    let mut handles = two.handles();
    assert_eq!(handles.attachment(narrow).unwrap().1, read);
    assert_eq!(handles.attachment(wide).unwrap().1, Permissions::all());
    // The number is given out again, and what it allows is that of its new use.
    registry.disconnect(&two, narrow).unwrap();
    handles.attachment(narrow).unwrap_err();
    let again = registry
        .probe_file(&two, key("file"), false)
        .unwrap()
        .handle;
    assert_eq!(again, narrow);
    assert_eq!(handles.attachment(again).unwrap().1, Permissions::all());
}

#[test]
fn classes_are_small_numbers() {
    assert_eq!(Class::new(0), Some(Class::STREAM));
    assert_eq!(Class::new(1), Some(Class::BELL));
    assert_eq!(Class::new(255).unwrap().number(), 255);
    assert_eq!(Class::new(256), None);
    assert_eq!(Class::new(u64::MAX), None);
}

#[test]
fn a_cvm_can_have_limits_of_its_own() {
    let registry = registry();
    let limits = Limits {
        streams: 2,
        files: 0,
        handles: 1,
    };
    let small = registry.register_with(0, limits).unwrap();
    let other = registry.register(1).unwrap();
    // Portals count together, whatever their class.
    registry.advertise_stream(&small, key("a"), "").unwrap();
    registry
        .advertise_stream(&small, (Class::BELL, key("a")), "")
        .unwrap();
    let error = registry
        .advertise_stream(&small, (Class::BELL, key("b")), "")
        .unwrap_err();
    assert_eq!(error.errno(), EMFILE);
    assert_eq!(
        registry
            .advertise_file(&small, key("a"), "")
            .unwrap_err()
            .errno(),
        EMFILE
    );
    let first = registry.probe_stream(&small, key("a"), false).unwrap();
    assert_eq!(
        registry
            .probe_stream(&small, key("a"), false)
            .unwrap_err()
            .errno(),
        EMFILE
    );
    registry.disconnect(&small, first.handle).unwrap();
    registry.probe_stream(&small, key("a"), false).unwrap();
    for name in ["b", "c", "d"] {
        registry.advertise_stream(&other, key(name), "").unwrap();
        registry.advertise_file(&other, key(name), "").unwrap();
        registry.probe_file(&other, key(name), false).unwrap();
    }
}

#[test]
fn streams_and_files_do_not_share_keys() {
    let registry = registry();
    let cvm = registry.register(0).unwrap();
    registry
        .advertise_stream(&cvm, key("key1"), "stream")
        .unwrap();
    assert_eq!(
        registry.probe_file(&cvm, key("key1"), false).unwrap_err(),
        RegistryError::NoSuchKey {
            key: key("key1"),
            kind: Kind::File
        }
    );
    registry.advertise_file(&cvm, key("key1"), "file").unwrap();
    let file = registry.probe_file(&cvm, key("key1"), false).unwrap();
    assert_eq!(*file.endpoint.payload(), "file");
}

#[test]
fn the_monitor_publishes_too() {
    let registry = registry();
    registry
        .advertise_file(registry.monitor(), key("test1"), "Hello world\n")
        .unwrap();
    let cvm = registry.register(0).unwrap();
    let file = registry.probe_file(&cvm, key("test1"), false).unwrap();
    assert_eq!(file.endpoint.owner(), Owner::MONITOR);
    assert_eq!(file.endpoint.owner().to_string(), "the monitor");
}

#[test]
fn numbers_mean_nothing_in_another_table_or_for_another_kind() {
    let pair = pair();
    let mut receiver = pair.receiver.handles();
    let mut sender = pair.sender.handles();
    assert_eq!(*sender.stream(pair.handle).unwrap().payload(), "stream");
    assert_eq!(*receiver.own_stream(pair.id).unwrap().payload(), "stream");

    // The receiver's number is its own stream, not a handle, and the other way round.
    assert_eq!(receiver.stream(pair.id).unwrap_err().errno(), EBADF);
    assert_eq!(sender.own_stream(pair.handle).unwrap_err().errno(), EBADF);
    assert_eq!(sender.file(pair.handle).unwrap_err().errno(), EBADF);
    for number in [1, 1535, 1536, u64::MAX, u64::MAX / 2, 1 << 32] {
        assert_eq!(sender.stream(number).unwrap_err().errno(), EBADF);
        assert_eq!(sender.own_stream(number).unwrap_err().errno(), EBADF);
        let error = pair.registry.disconnect(&pair.sender, number).unwrap_err();
        assert_eq!(error.errno(), EBADF);
        let error = pair
            .registry
            .revoke(&pair.sender, number, LONG)
            .unwrap_err();
        assert_eq!(error.errno(), EBADF);
    }
    let error = pair
        .registry
        .revoke(&pair.sender, pair.handle, LONG)
        .unwrap_err();
    assert_eq!(error, RegistryError::NotAnObject { id: pair.handle });
    let error = pair
        .registry
        .disconnect(&pair.receiver, pair.id)
        .unwrap_err();
    assert_eq!(error, RegistryError::NotConnected { handle: pair.id });
}

#[test]
fn what_one_vcpu_gives_back_is_gone_for_the_others() {
    let pair = pair();
    let mut views = [pair.sender.handles(), pair.sender.handles()];
    for view in &mut views {
        view.stream(pair.handle).unwrap();
    }
    pair.registry.disconnect(&pair.sender, pair.handle).unwrap();
    for view in &mut views {
        assert_eq!(view.stream(pair.handle).unwrap_err().errno(), EBADF);
    }
    assert_eq!(pair.registry.objects()[0].peers, []);

    // The lowest number is given out again, and every view sees what it stands for now.
    pair.registry
        .advertise_file(&pair.receiver, key("file"), "file")
        .unwrap();
    let again = pair
        .registry
        .probe_file(&pair.sender, key("file"), false)
        .unwrap()
        .handle;
    assert_eq!(again, pair.handle);
    for view in &mut views {
        assert_eq!(*view.file(again).unwrap().payload(), "file");
        assert_eq!(view.stream(again).unwrap_err().errno(), EBADF);
    }
}

#[test]
fn what_was_looked_up_is_known_without_a_lock() {
    let pair = pair();
    let (id, handle) = (pair.id, pair.handle);
    let (mut users, mut owners) = (pair.sender.handles(), pair.receiver.handles());
    assert!(!users.is_current(handle) && users.known_stream(handle).is_err());
    assert!(!owners.is_current(id) && owners.known_own_stream(id).is_err());
    users.refresh(handle);
    owners.refresh(id);
    assert!(users.is_current(handle) && owners.is_current(id));
    let known = Arc::clone(users.known_stream(handle).unwrap());
    assert!(Arc::ptr_eq(&known, owners.known_own_stream(id).unwrap()));
    assert!(users.known_own_stream(handle).is_err());
    // What is given back is still known, and known to be outdated.
    pair.registry.disconnect(&pair.sender, handle).unwrap();
    assert!(!users.is_current(handle) && users.known_stream(handle).is_ok());
    users.refresh(handle);
    assert!(users.is_current(handle));
    assert_eq!(users.known_stream(handle).unwrap_err().errno(), EBADF);
    // Beyond all numbers there is nothing to look up.
    users.refresh(u64::MAX);
    assert!(users.is_current(u64::MAX) && users.known_stream(u64::MAX).is_err());
}

#[test]
fn limits_are_per_owner_and_per_sort() {
    let registry: Names = Registry::new(Limits {
        streams: 2,
        files: 1,
        handles: 3,
    });
    let one = registry.register(0).unwrap();
    let two = registry.register(1).unwrap();
    for name in ["a", "b"] {
        registry.advertise_stream(&one, key(name), "").unwrap();
    }
    let error = registry.advertise_stream(&one, key("c"), "").unwrap_err();
    assert_eq!(error.errno(), EMFILE);
    assert_eq!(
        error.to_string(),
        "cVM 0 has 2 published streams already; give one back first"
    );
    registry.advertise_file(&one, key("a"), "").unwrap();
    let error = registry.advertise_file(&one, key("b"), "").unwrap_err();
    assert_eq!(error.errno(), EMFILE);

    let handles: Vec<u64> = (0..3)
        .map(|_| {
            let connected = registry.probe_stream(&one, key("a"), false).unwrap();
            connected.handle
        })
        .collect();
    let error = registry.probe_stream(&one, key("a"), false).unwrap_err();
    assert_eq!(error.errno(), EMFILE);
    registry.probe_stream(&two, key("a"), false).unwrap();
    registry.advertise_stream(&two, key("c"), "").unwrap();

    registry.disconnect(&one, handles[1]).unwrap();
    let connected = registry.probe_stream(&one, key("a"), false).unwrap();
    assert_eq!(connected.handle, handles[1]);
    registry.probe_stream(&one, key("a"), false).unwrap_err();
}

#[test]
fn a_revoked_endpoint_lets_nobody_in() {
    let pair = pair();
    let mut sender = pair.sender.handles();
    let endpoint = Arc::clone(sender.stream(pair.handle).unwrap());
    drop(endpoint.enter().unwrap());
    let peers = pair.registry.revoke(&pair.receiver, pair.id, LONG).unwrap();
    assert_eq!(peers, [pair.sender.owner()]);
    assert!(endpoint.enter().is_none());
    assert!(sender.stream(pair.handle).unwrap().enter().is_none());
    let error = pair
        .registry
        .probe_stream(&pair.sender, key("key1"), false)
        .unwrap_err();
    assert_eq!(error.errno(), ENOENT);
    let error = pair
        .registry
        .revoke(&pair.receiver, pair.id, LONG)
        .unwrap_err();
    assert_eq!(error.errno(), EBADF);
    assert_eq!(pair.registry.objects(), []);
}

#[test]
fn a_revocation_ends_when_the_last_user_leaves() {
    let pair = pair();
    let mut sender = pair.sender.handles();
    let endpoint = Arc::clone(sender.stream(pair.handle).unwrap());
    let inside = endpoint.enter().unwrap();
    let (done, revoked) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            done.send(pair.registry.revoke(&pair.receiver, pair.id, LONG))
                .unwrap();
        });
        // It cannot end while somebody is inside, however long that is.
        assert!(revoked.recv_timeout(SHORT).is_err());
        drop(inside);
        assert_eq!(
            revoked.recv_timeout(LONG).unwrap().unwrap(),
            [pair.sender.owner()]
        );
    });
}

#[test]
fn whoever_waits_for_the_last_user_can_be_told_later() {
    let pair = pair();
    let (id, handle) = (pair.id, pair.handle);
    let mut handles = pair.sender.handles();
    let endpoint = Arc::clone(handles.stream(handle).unwrap());
    let inside = endpoint.enter_bare().unwrap();
    assert!(endpoint.enter_bare().unwrap().leave().is_none());
    thread::scope(|scope| {
        let revoked = scope.spawn(|| pair.registry.revoke(&pair.receiver, id, LONG));
        while !endpoint.is_revoked() {
            thread::yield_now();
        }
        // Somebody else is inside, who will be the last.
        assert!(endpoint.enter_bare().unwrap_err().is_none());
        inside.leave().unwrap().tell();
        revoked.join().unwrap().unwrap();
    });
    // A late one is the last again.
    endpoint.enter_bare().unwrap_err().unwrap().tell();
    assert!(endpoint.enter().is_none());
}

#[test]
fn what_is_taken_back_by_its_key_stays_its_owners_to_give_back() {
    let pair = pair();
    let revoked = pair
        .registry
        .revoke_key(Kind::Portal(Class::STREAM), key("key1"), LONG)
        .unwrap();
    assert_eq!(revoked.owner, pair.receiver.owner());
    assert_eq!(revoked.peers, [pair.sender.owner()]);
    let mut sender = pair.sender.handles();
    assert!(sender.stream(pair.handle).unwrap().enter().is_none());
    for kind in [Kind::Portal(Class::STREAM), Kind::File] {
        let error = pair
            .registry
            .revoke_key(kind, key("key1"), LONG)
            .unwrap_err();
        assert_eq!(error.errno(), ENOENT);
    }
    // The key is free, the id is not.
    let next = pair
        .registry
        .advertise_stream(&pair.sender, key("key1"), "next")
        .unwrap();
    let other = pair
        .registry
        .advertise_stream(&pair.receiver, key("key2"), "other")
        .unwrap();
    assert_ne!(other.id, pair.id);
    pair.registry.revoke(&pair.receiver, pair.id, LONG).unwrap();
    assert!(!next.endpoint.is_revoked());
    let error = pair
        .registry
        .revoke(&pair.receiver, pair.id, LONG)
        .unwrap_err();
    assert_eq!(error.errno(), EBADF);
}

#[test]
fn the_monitors_own_is_taken_back_by_its_key() {
    let registry = registry();
    let user = registry.register(0).unwrap();
    let published = registry
        .advertise_file(registry.monitor(), key("key1"), "buffer")
        .unwrap();
    let handle = registry
        .probe_file(&user, key("key1"), false)
        .unwrap()
        .handle;
    let mut handles = user.handles();
    let endpoint = Arc::clone(handles.file(handle).unwrap());
    let inside = endpoint.enter().unwrap();
    let error = registry
        .revoke_key(Kind::File, key("key1"), SHORT)
        .unwrap_err();
    assert_eq!(error.errno(), EBUSY);
    drop(inside);
    let revoked = registry.revoke_key(Kind::File, key("key1"), LONG).unwrap();
    assert_eq!(revoked.owner, Owner::MONITOR);
    assert_eq!(revoked.peers, [user.owner()]);
    // Nobody else gives the monitor's ids back.
    let again = registry
        .advertise_file(registry.monitor(), key("key1"), "buffer")
        .unwrap();
    assert_eq!(again.id, published.id);
}

#[test]
fn a_revocation_that_takes_too_long_says_so_and_can_be_repeated() {
    let pair = pair();
    let mut sender = pair.sender.handles();
    let endpoint = Arc::clone(sender.stream(pair.handle).unwrap());
    let inside = endpoint.enter().unwrap();
    let error = pair
        .registry
        .revoke(&pair.receiver, pair.id, SHORT)
        .unwrap_err();
    assert_eq!(error.errno(), EBUSY);
    assert_eq!(
        error,
        RegistryError::StillInUse {
            key: key("key1"),
            kind: Kind::Portal(Class::STREAM),
            owner: pair.receiver.owner(),
            in_flight: 1,
            waited: SHORT,
        }
    );
    // Revoked already, but the key is not free.
    assert!(endpoint.enter().is_none());
    let error = pair
        .registry
        .probe_stream(&pair.sender, key("key1"), false)
        .unwrap_err();
    assert_eq!(error.errno(), ENOENT);
    let error = pair
        .registry
        .advertise_stream(&pair.receiver, key("key1"), "next")
        .unwrap_err();
    assert_eq!(error.errno(), EADDRINUSE);
    let listed = pair.registry.objects();
    assert!(listed[0].revoked);
    assert_eq!(listed[0].in_flight, 1);

    drop(inside);
    // Drained: the key can be used even before the revocation is repeated, which then leaves the new one alone.
    let next = pair
        .registry
        .advertise_stream(&pair.receiver, key("key1"), "next")
        .unwrap();
    pair.registry.revoke(&pair.receiver, pair.id, LONG).unwrap();
    let found = pair
        .registry
        .probe_stream(&pair.sender, key("key1"), false)
        .unwrap();
    assert!(Arc::ptr_eq(&found.endpoint, &next.endpoint));
}

#[test]
fn nobody_is_inside_after_a_revocation_under_load() {
    struct Memory {
        mapped: AtomicBool,
        uses: AtomicU64,
    }
    let registry: Registry<Memory, ()> = Registry::new(Limits::default());
    let receiver = registry.register(0).unwrap();
    let stop = AtomicBool::new(false);
    let begin = Barrier::new(4);
    thread::scope(|scope| {
        for index in 1..=3 {
            let (registry, stop, begin) = (&registry, &stop, &begin);
            scope.spawn(move || {
                let sender = registry.register(index).unwrap();
                let mut handles = sender.handles();
                begin.wait();
                while !stop.load(Ordering::Relaxed) {
                    let Ok(connected) = registry.probe_stream(&sender, key("key1"), false) else {
                        thread::yield_now();
                        continue;
                    };
                    loop {
                        let endpoint = handles.stream(connected.handle).unwrap();
                        let Some(_inside) = endpoint.enter() else {
                            break;
                        };
                        let memory = endpoint.payload();
                        assert!(memory.mapped.load(Ordering::Relaxed));
                        memory.uses.fetch_add(1, Ordering::Relaxed);
                        assert!(memory.mapped.load(Ordering::Relaxed));
                    }
                    registry.disconnect(&sender, connected.handle).unwrap();
                }
                registry.revoke_owner(&sender, LONG).unwrap();
            });
        }
        begin.wait();
        for _ in 0..200 {
            let advertised = registry
                .advertise_stream(
                    &receiver,
                    key("key1"),
                    Memory {
                        mapped: AtomicBool::new(true),
                        uses: AtomicU64::new(0),
                    },
                )
                .unwrap();
            let memory = advertised.endpoint.payload();
            while memory.uses.load(Ordering::Relaxed) < 10 {
                thread::yield_now();
            }
            registry.revoke(&receiver, advertised.id, LONG).unwrap();
            memory.mapped.store(false, Ordering::Relaxed);
            let uses = memory.uses.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(memory.uses.load(Ordering::Relaxed), uses);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(registry.objects().is_empty());
}

#[test]
fn the_end_of_a_cvm_takes_all_back() {
    let pair = pair();
    let registry = &pair.registry;
    registry
        .advertise_file(&pair.receiver, key("file"), "file")
        .unwrap();
    let third = registry.register(2).unwrap();
    let file = registry.probe_file(&third, key("file"), false).unwrap();
    // It uses one of its own too, and waits for a key.
    registry
        .probe_file(&pair.receiver, key("file"), false)
        .unwrap();
    registry
        .probe_file(&pair.receiver, key("none"), true)
        .unwrap_err();
    let mut old = pair.receiver.handles();
    old.own_stream(pair.id).unwrap();

    let peers = registry.revoke_owner(&pair.receiver, LONG).unwrap();
    assert_eq!(peers, [pair.sender.owner(), third.owner()]);
    assert!(file.endpoint.enter().is_none());
    assert!(file.endpoint.is_revoked());
    assert_eq!(registry.objects(), []);

    // Nothing works in the name of the dead one.
    assert_eq!(old.own_stream(pair.id).unwrap_err().errno(), EBADF);
    let ended = RegistryError::Ended {
        owner: pair.receiver.owner(),
    };
    assert_eq!(ended.errno(), EBADF);
    assert_eq!(
        registry
            .advertise_stream(&pair.receiver, key("key1"), "")
            .unwrap_err(),
        ended
    );
    assert_eq!(
        registry
            .probe_file(&pair.receiver, key("none"), true)
            .unwrap_err(),
        ended
    );

    // The next life of the index is another owner, whom nobody interrupts for what the dead one waited for.
    let next = registry.register(0).unwrap();
    assert_ne!(next.owner(), pair.receiver.owner());
    assert_eq!(next.owner().index(), 0);
    let advertised = registry.advertise_file(&next, key("none"), "").unwrap();
    assert_eq!(advertised.interested, []);
    assert_eq!(
        registry.register(0).unwrap_err(),
        RegistryError::IndexTaken { index: 0 }
    );
    // A second end of the old life does not end the new one.
    registry.revoke_owner(&pair.receiver, LONG).unwrap();
    assert_eq!(
        registry.register(0).unwrap_err(),
        RegistryError::IndexTaken { index: 0 }
    );
}

#[test]
fn the_end_of_a_cvm_waits_for_users_of_all_it_published() {
    let pair = pair();
    let registry = &pair.registry;
    registry
        .advertise_file(&pair.receiver, key("file"), "file")
        .unwrap();
    let file = registry
        .probe_file(&pair.sender, key("file"), false)
        .unwrap()
        .endpoint;
    let inside = file.enter().unwrap();
    let mut sender = pair.sender.handles();
    let error = registry.revoke_owner(&pair.receiver, SHORT).unwrap_err();
    assert!(matches!(
        error,
        RegistryError::StillInUse {
            kind: Kind::File,
            in_flight: 1,
            ..
        }
    ));
    // The stream, which nobody used, is revoked as well, and the index is not free.
    assert!(sender.stream(pair.handle).unwrap().enter().is_none());
    assert_eq!(
        registry.register(0).unwrap_err(),
        RegistryError::IndexTaken { index: 0 }
    );
    drop(inside);
    let peers = registry.revoke_owner(&pair.receiver, LONG).unwrap();
    assert_eq!(peers, [pair.sender.owner()]);
    registry.register(0).unwrap();
}

#[test]
fn indices_are_bounded() {
    let registry = registry();
    registry.register(MAX_CVMS - 1).unwrap();
    for index in [MAX_CVMS, u16::MAX] {
        assert_eq!(
            registry.register(index).unwrap_err(),
            RegistryError::IndexTooLarge { index }
        );
    }
}

#[test]
fn a_new_key_names_those_who_looked_for_any() {
    let registry = registry();
    let waiting = registry.register(0).unwrap();
    let other = registry.register(1).unwrap();
    let error = registry
        .probe_stream(&waiting, key("key1"), true)
        .unwrap_err();
    assert_eq!(error.errno(), ENOENT);
    registry
        .probe_stream(&waiting, key("key2"), true)
        .unwrap_err();
    registry
        .probe_stream(&other, key("key1"), false)
        .unwrap_err();
    let first = registry.advertise_file(&other, key("any"), "").unwrap();
    assert_eq!(first.interested, [waiting.owner()]);
    // Once only: it has to look again.
    let second = registry.advertise_stream(&other, key("key1"), "").unwrap();
    assert_eq!(second.interested, []);
    registry.probe_stream(&waiting, key("key1"), true).unwrap();
    let third = registry.advertise_stream(&other, key("key2"), "").unwrap();
    assert_eq!(third.interested, []);
}

#[test]
fn a_wake_up_names_those_who_armed_since_the_last() {
    let registry = registry();
    let receiver = registry.register(0).unwrap();
    let advertised = registry
        .advertise_stream(&receiver, key("key1"), "")
        .unwrap();
    let endpoint = advertised.endpoint;
    let armed = |endpoint: &Endpoint<_>| -> Option<Vec<u16>> {
        endpoint.take_armed().map(Iterator::collect)
    };
    assert_eq!(armed(&endpoint), None);

    let mut senders = Vec::new();
    for index in [1, 63, 64, 500, 1023] {
        let table = registry.register(index).unwrap();
        let handle = registry
            .probe_stream(&table, key("key1"), false)
            .unwrap()
            .handle;
        let mut handles = table.handles();
        let owner = handles.owner();
        handles.stream(handle).unwrap().arm(owner);
        handles.stream(handle).unwrap().arm(owner);
        senders.push((table, handle));
    }
    assert_eq!(armed(&endpoint), Some(vec![1, 63, 64, 500, 1023]));
    assert_eq!(armed(&endpoint), None);

    // Who gives its last handle back, or ends, is not woken.
    for (table, _) in &senders {
        endpoint.arm(table.owner());
    }
    endpoint.arm(Owner::MONITOR);
    registry.disconnect(&senders[0].0, senders[0].1).unwrap();
    registry.revoke_owner(&senders[3].0, LONG).unwrap();
    assert_eq!(armed(&endpoint), Some(vec![63, 64, 1023]));
}

#[test]
fn the_second_handle_keeps_its_owner_armed_and_connected() {
    let pair = pair();
    let second = pair
        .registry
        .probe_stream(&pair.sender, key("key1"), false)
        .unwrap();
    assert_ne!(second.handle, pair.handle);
    second.endpoint.arm(pair.sender.owner());
    assert_eq!(second.endpoint.peers(), [pair.sender.owner()]);
    pair.registry.disconnect(&pair.sender, pair.handle).unwrap();
    assert_eq!(second.endpoint.peers(), [pair.sender.owner()]);
    assert_eq!(second.endpoint.take_armed().unwrap().count(), 1);
    pair.registry
        .disconnect(&pair.sender, second.handle)
        .unwrap();
    assert_eq!(second.endpoint.peers(), []);
}

#[test]
fn a_payload_lives_as_long_as_somebody_can_name_it() {
    let registry: Registry<Arc<()>, ()> = Registry::new(Limits::default());
    let receiver = registry.register(0).unwrap();
    let sender = registry.register(1).unwrap();
    let payload = Arc::new(());
    let weak: Weak<()> = Arc::downgrade(&payload);
    let id = registry
        .advertise_stream(&receiver, key("key1"), payload)
        .unwrap()
        .id;
    let handle = registry
        .probe_stream(&sender, key("key1"), false)
        .unwrap()
        .handle;
    registry.revoke(&receiver, id, LONG).unwrap();
    assert!(weak.upgrade().is_some());
    registry.disconnect(&sender, handle).unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_timeout_beyond_all_clocks_is_a_long_one() {
    let pair = pair();
    let before = Instant::now();
    pair.registry
        .revoke(&pair.receiver, pair.id, Duration::MAX)
        .unwrap();
    assert!(before.elapsed() < LONG);
}

#[test]
fn all_of_it_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync>() {}
    fn movable<T: Send>() {}
    shareable::<Names>();
    shareable::<Table<&str, &str>>();
    movable::<Handles<&str, &str>>();
}
