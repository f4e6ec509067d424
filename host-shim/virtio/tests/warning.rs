// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What of a disk's troubles reaches the log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod driver;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use capstream_virtio::BlockOptions;
use driver::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn troubles_of_the_host_are_named_once_and_those_of_the_guest_are_not() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let file = image(64);
    let mut driver = Driver::new(file.path(), &BlockOptions::default(), 0);
    // What the guest does wrong, and is told.
    for _ in 0..10 {
        assert_eq!(driver.read(64, 1).0, IOERR);
        assert_eq!(driver.request(77, 0, &[]).0, UNSUPP);
    }
    drop(driver);
    let read_only = BlockOptions {
        read_only: true,
        id: None,
    };
    let mut driver = Driver::new(file.path(), &read_only, 0);
    assert_eq!(driver.write(0, &[0; 512]), IOERR);
    assert!(log.0.lock().unwrap().is_empty());

    file.as_file().set_len(512).unwrap();
    for _ in 0..100 {
        assert_eq!(driver.read(8, 1).0, IOERR);
    }
    let lines = log.0.lock().unwrap().clone();
    let [(level, text)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(*level, Level::WARN);
    assert!(text.contains(file.path().to_str().unwrap()), "{text}");
    assert!(text.contains("read failed"), "{text}");
    assert!(text.contains("4096"), "{text}");
}
