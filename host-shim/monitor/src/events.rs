// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What happens to cVMs, for operators: every structured log event of level `INFO` or above, whether it is shown on standard error or
//! not, is kept in a journal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::journal::{Journal, Record};
use crate::outlets::now_ms;

/// How many bytes of events are remembered.
const REMEMBERED: usize = 256 << 10;
/// The longest text of an event or of a field; guests have a part in some.
const LONGEST: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// The cVM that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cvm: Option<String>,
    /// What happened.
    pub message: String,
    /// More about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub fields: BTreeMap<String, String>,
}

impl Record for EventRecord {
    fn weight(&self) -> usize {
        let fields = self.fields.iter();
        size_of::<EventRecord>()
            + self.message.len()
            + self.cvm.as_ref().map_or(0, String::len)
            + fields
                .map(|(name, value)| 2 * size_of::<String>() + name.len() + value.len())
                .sum::<usize>()
    }
}

impl EventRecord {
    /// What a log event says, now.
    pub fn of(event: &tracing::Event<'_>) -> EventRecord {
        let mut visitor = Visitor(EventRecord {
            time_ms: now_ms(),
            level: event.metadata().level().to_string(),
            cvm: None,
            message: String::new(),
            fields: BTreeMap::new(),
        });
        event.record(&mut visitor);
        visitor.0
    }
}

/// The journal of events.
pub type Events = Journal<EventRecord>;

/// An empty journal.
pub fn journal() -> Arc<Events> {
    Arc::new(Journal::new(REMEMBERED))
}

/// Puts log events into the journal.
pub struct EventLayer {
    events: Arc<Events>,
}

impl EventLayer {
    /// For this journal.
    pub fn new(events: Arc<Events>) -> EventLayer {
        EventLayer { events }
    }
}

impl<S: tracing::Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            self.events.push(EventRecord::of(event));
        }
    }
}

struct Visitor(EventRecord);

impl Visitor {
    fn set(&mut self, field: &Field, value: String) {
        let value = match value.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
            None => value,
        };
        match field.name() {
            "message" => self.0.message = value,
            "cvm" => self.0.cvm = Some(value),
            name => {
                self.0.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Visitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn events_are_kept_with_their_fields() {
        let events = journal();
        let subscriber = tracing_subscriber::registry().with(EventLayer::new(Arc::clone(&events)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(cvm = "a", key = "k", count = 7, "refused");
            tracing::debug!("not of interest");
            tracing::info!("{}", "x".repeat(2 * LONGEST));
        });
        let records = events.read(0).records;
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].cvm.as_deref(), Some("a"));
        assert_eq!(records[0].message, "refused");
        assert_eq!(records[0].fields["key"], "k");
        assert_eq!(records[0].fields["count"], "7");
        assert_eq!(records[0].level, "WARN");
        assert_eq!(records[1].message.chars().count(), LONGEST + 1);
    }
}
