// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A trace of what vCPUs do, as a file that <https://ui.perfetto.dev> opens: `monitor run --trace FILE`.
//!
//! | file | what |
//! |---|---|
//! | `ring` | what a vCPU's thread records |
//! | `file` | what becomes of it in the file |
//! | `perfetto` | the file's format |
//!
//! A thread empties the rings every [`PERIOD`], and is told of cVMs and log events by a channel.

pub mod file;
pub mod perfetto;
pub mod ring;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::events::EventRecord;
use crate::platform::Platform;
use file::TraceFile;
use ring::{CAPACITY, Ring};

/// How often the rings are emptied.
const PERIOD: Duration = Duration::from_millis(2);

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be made.
    #[error("the trace file {} cannot be written: {source}; name another one by --trace", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no thread.
    #[error("the thread that writes the trace could not be started: {source}; end other programs")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// What the thread is told.
enum Message {
    Cvm {
        name: String,
        number: u64,
        ring: Arc<Ring>,
    },
    Log {
        time: u64,
        entry: EventRecord,
    },
    Finish,
}

/// A trace that is being written.
pub struct Tracer {
    clock: Arc<dyn Platform>,
    sender: Sender<Message>,
    thread: Mutex<Option<JoinHandle<u64>>>,
}

impl Tracer {
    /// Begins a trace in the file at `path`, with the times of `clock`.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn start(path: &Path, clock: &Arc<dyn Platform>) -> Result<Arc<Tracer>, TraceError> {
        let file = File::create(path).map_err(|source| TraceError::File {
            path: path.to_owned(),
            source,
        })?;
        let (sender, messages) = mpsc::channel();
        let thread_clock = Arc::clone(clock);
        let run = move || {
            let mut file = TraceFile::new(file);
            let mut next = Instant::now();
            loop {
                let rest = next.saturating_duration_since(Instant::now());
                match messages.recv_timeout(rest) {
                    Ok(Message::Cvm { name, number, ring }) => file.add(&name, number, ring),
                    Ok(Message::Log { time, entry }) => {
                        file.log(time, &entry);
                    }
                    Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if next <= Instant::now() {
                    file.drain(thread_clock.now_ns());
                    next = Instant::now() + PERIOD;
                }
            }
            file.finish(thread_clock.now_ns())
        };
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(run)
            .map_err(|source| TraceError::Thread { source })?;
        Ok(Arc::new(Tracer {
            clock: Arc::clone(clock),
            sender,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Begins a life of a cVM: what its vCPU does is to be recorded there.
    pub fn cvm(&self, name: &str, number: u64) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(Arc::clone(&self.clock), CAPACITY));
        self.tell(Message::Cvm {
            name: name.to_owned(),
            number,
            ring: Arc::clone(&ring),
        });
        ring
    }

    fn tell(&self, message: Message) {
        // Nobody listens when the trace is finished.
        let _ = self.sender.send(message);
    }

    fn log(&self, entry: EventRecord) {
        let time = self.clock.now_ns();
        self.tell(Message::Log { time, entry });
    }

    /// Ends the file. What happens afterwards is not recorded.
    pub fn finish(&self) {
        self.tell(Message::Finish);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(dropped) = thread.and_then(|thread| thread.join().ok())
            && dropped > 0
        {
            tracing::warn!(
                dropped,
                "the trace lacks events: they came faster than they could be written"
            );
        }
    }
}

/// Puts log events into the trace, once there is one.
#[derive(Clone, Default)]
pub struct TraceLayer {
    tracer: Arc<OnceLock<Arc<Tracer>>>,
}

impl TraceLayer {
    /// From now on log events go into this trace.
    pub fn set(&self, tracer: Arc<Tracer>) {
        // There is one trace in a run.
        let _ = self.tracer.set(tracer);
    }
}

impl<S: tracing::Subscriber> Layer<S> for TraceLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if let Some(tracer) = self.tracer.get() {
            tracer.log(EventRecord::of(event));
        }
    }
}
