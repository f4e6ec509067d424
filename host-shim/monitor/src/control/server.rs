// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's side of the control socket: a thread that accepts, and one for each connection.
//!
//! An operator that does not read or write is given up after [`PATIENCE`]; one that follows a log may be silent for as long as
//! it likes. There are at most [`MOST`] connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstream_capability::{Key, Kind};

use crate::control::socket::{Listener, is_operator};
use crate::control::{Answer, Controller, KindName, Listing, Refusal, Reply, Request, Statistics};
use crate::events::Events;
use crate::exchange::Exchange;
use crate::journal::{Batch, Journal, Record};
use crate::outlets::{LogLine, Outlets, Source, now_ms};

/// How many connections there can be at a time.
const MOST: usize = 64;
/// How long an operator may take to send a request, or to read a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request.
const LONGEST_REQUEST: u64 = 64 << 10;
/// How long the last answers may take when the monitor ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What operators are told about, and act on.
pub struct Subject {
    /// The supervisor.
    pub controller: Controller,
    /// What is published.
    pub exchange: Arc<Exchange>,
    /// What happened.
    pub events: Arc<Events>,
    /// The file that describes the deployment.
    pub deployment: PathBuf,
    /// What its cVMs run on.
    pub platform: String,
}

/// What all connections share.
struct Shared {
    subject: Subject,
    connections: Mutex<usize>,
    /// A connection ended.
    ended: Condvar,
}

/// The control socket of a monitor that runs.
pub struct Server {
    shared: Arc<Shared>,
    /// Its name goes with it.
    _listener: Listener,
}

impl Server {
    /// Starts to accept.
    ///
    /// # Errors
    ///
    /// When there is no thread.
    pub fn start(listener: Listener, subject: Subject) -> io::Result<Server> {
        let shared = Arc::new(Shared {
            subject,
            connections: Mutex::new(0),
            ended: Condvar::new(),
        });
        let incoming = listener.listener.try_clone()?;
        let accepting = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for stream in incoming.incoming() {
                    match stream {
                        Ok(stream) => accepting.accept(stream),
                        Err(error) => {
                            tracing::warn!(%error, "an operator could not be connected");
                            // Mostly that there are too many open files: the next one that ends makes room.
                            accepting.wait_for_fewer();
                        }
                    }
                }
            })?;
        Ok(Server {
            shared,
            _listener: listener,
        })
    }

    /// Tells those who follow that nothing will come any more, and gives the last answers a moment.
    pub fn finish(self) {
        self.shared.subject.events.close();
        let begin = Instant::now();
        let mut connections = self.shared.lock();
        while *connections > 0 {
            let Some(rest) = FAREWELL.checked_sub(begin.elapsed()) else {
                return;
            };
            connections = match self.shared.ended.wait_timeout(connections, rest) {
                Ok((connections, _)) => connections,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Counts a connection for as long as there is one.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.ended.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_fewer(&self) {
        let connections = self.lock();
        // Without connections there is nothing that could end; then a moment has to do.
        drop(self.ended.wait_timeout(connections, FAREWELL));
    }

    fn accept(self: &Arc<Self>, stream: UnixStream) {
        let mut connections = self.lock();
        if *connections >= MOST {
            drop(connections);
            refuse(
                &stream,
                format!("there are {MOST} connections to the monitor already; end one of them"),
            );
            return;
        }
        *connections += 1;
        drop(connections);
        let counted = Counted(Arc::clone(self));
        let started = std::thread::Builder::new()
            .name("operator".to_owned())
            .spawn(move || {
                // The operator is gone, which is no error of the monitor's.
                let _ = counted.0.serve(&stream);
            });
        if let Err(error) = started {
            tracing::warn!(%error, "an operator could not be answered");
        }
    }

    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if !is_operator(stream) {
            refuse(
                stream,
                "only the user who runs the monitor, and root, may use it".to_owned(),
            );
            return Ok(());
        }
        let mut line = Vec::new();
        BufReader::new(stream.take(LONGEST_REQUEST)).read_until(b'\n', &mut line)?;
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => {
                refuse(
                    stream,
                    format!(
                        "the request is not understood: {error}; is this the same version of the monitor?"
                    ),
                );
                return Ok(());
            }
        };
        let Subject {
            controller,
            exchange,
            events,
            deployment,
            platform,
        } = &self.subject;
        match &request {
            Request::Events { last, follow } => {
                let from = match last {
                    Some(count) => events.last(*count),
                    None => events.read(0),
                };
                return send_journal(stream, events, from, *follow, |event| {
                    Some(Reply::Event(event))
                });
            }
            Request::Revoke { key, kind } => {
                return match revoke(exchange, key, *kind) {
                    Ok(done) => send(stream, &Reply::Done(done)),
                    Err(why) => {
                        refuse(stream, why);
                        Ok(())
                    }
                };
            }
            _ => {}
        }
        let Ok(answer) = controller.ask(request.clone()).recv() else {
            refuse(stream, Refusal::Ended.to_string());
            return Ok(());
        };
        match (answer, request) {
            (Answer::Cvms(cvms), _) => send(
                stream,
                &Reply::Cvms(Listing {
                    process: std::process::id(),
                    deployment: deployment.clone(),
                    platform: platform.clone(),
                    cvms,
                }),
            ),
            (Answer::Statistics(cvms), _) => send(
                stream,
                &Reply::Statistics(Box::new(Statistics {
                    process: std::process::id(),
                    time_ms: now_ms(),
                    cvms,
                    channels: exchange.channels(),
                })),
            ),
            (Answer::Done(how), _) => send(stream, &Reply::Done(how)),
            (Answer::Refused(refusal), _) => {
                refuse(stream, refusal.to_string());
                Ok(())
            }
            (Answer::Outlets(outlets), Request::Console { cvm }) => attach(stream, &outlets, &cvm),
            (
                Answer::Outlets(outlets),
                Request::Logs {
                    source,
                    last,
                    follow,
                    ..
                },
            ) => send_log(stream, &outlets, source, last, follow),
            (Answer::Outlets(_), _) => {
                refuse(stream, Refusal::NotForTheSupervisor.to_string());
                Ok(())
            }
        }
    }
}

/// Takes back what has the key; returns what that was.
fn revoke(exchange: &Exchange, key: &str, kind: Option<KindName>) -> Result<String, String> {
    let name = Key::from_name(key).map_err(|error| error.to_string())?;
    let published = exchange.registry().objects();
    let kinds: Vec<Kind> = match kind {
        Some(kind) => vec![kind.into()],
        None => published
            .iter()
            .filter(|object| object.key == name)
            .map(|object| object.kind)
            .collect(),
    };
    if kinds.is_empty() {
        return Err(format!("nobody publishes anything under the key `{name}`"));
    }
    let mut done = Vec::new();
    for kind in kinds {
        exchange
            .revoke_key(kind, name)
            .map_err(|error| error.to_string())?;
        tracing::info!(key = %name, %kind, "taken back by an operator");
        done.push(format!("{kind} `{name}` was taken back"));
    }
    Ok(done.join("\n"))
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn refuse(stream: &UnixStream, why: String) {
    // The operator may be gone.
    let _ = send(stream, &Reply::Refused(why));
}

fn send_log(
    stream: &UnixStream,
    outlets: &Outlets,
    source: Option<Source>,
    last: Option<usize>,
    follow: bool,
) -> io::Result<()> {
    let is_asked_for = |line: &LogLine| source.is_none_or(|source| line.source == source);
    let mut from = outlets.lines.read(0);
    if let Some(count) = last {
        // Of the lines that are asked for.
        from.missed = 0;
        from.records.retain(is_asked_for);
        let excess = from.records.len().saturating_sub(count);
        from.records.drain(..excess);
    }
    send_journal(stream, &outlets.lines, from, follow, |line| {
        is_asked_for(&line).then_some(Reply::Line(line))
    })
}

/// Sends what was found, and then, to who follows, what comes.
fn send_journal<T: Record + Send>(
    stream: &UnixStream,
    journal: &Journal<T>,
    mut found: Batch<T>,
    follow: bool,
    to_reply: impl Fn(T) -> Option<Reply>,
) -> io::Result<()> {
    let send_batch = |batch: Batch<T>| {
        if batch.missed > 0 {
            send(stream, &Reply::Missed(batch.missed))?;
        }
        for reply in batch.records.into_iter().filter_map(&to_reply) {
            send(stream, &reply)?;
        }
        Ok(())
    };
    if !follow {
        return send_batch(found);
    }
    let gone = AtomicBool::new(false);
    stream.set_read_timeout(None)?;
    std::thread::scope(|scope| {
        // An operator who has gone is noticed although nothing is written.
        scope.spawn(|| {
            let mut nothing = [0; 64];
            let mut stream = stream;
            while stream.read(&mut nothing).is_ok_and(|len| len > 0) {}
            gone.store(true, Ordering::SeqCst);
            journal.wake();
        });
        let sent = loop {
            let (next, closed) = (found.next, found.closed);
            let sent = send_batch(found);
            if sent.is_err() || closed || gone.load(Ordering::SeqCst) {
                break sent;
            }
            found = journal.follow(next, &|| gone.load(Ordering::SeqCst));
        };
        // Ends the other thread.
        let _ = stream.shutdown(Shutdown::Both);
        sent
    })
}

/// Connects an operator to a console.
fn attach(stream: &UnixStream, outlets: &Outlets, cvm: &str) -> io::Result<()> {
    let _attached = outlets.attach();
    let begin = outlets.output.next();
    send(stream, &Reply::Attached(format!("console of cVM `{cvm}`")))?;
    stream.set_read_timeout(None)?;
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                let mut rest = buffer.get(..len).unwrap_or_default();
                while !rest.is_empty() && !gone.load(Ordering::SeqCst) {
                    let taken = outlets.input.push(rest);
                    rest = rest.get(taken..).unwrap_or_default();
                    if !rest.is_empty() {
                        outlets.input.wait_for_room(FAREWELL);
                    }
                }
            }
            gone.store(true, Ordering::SeqCst);
            outlets.output.wake();
        });
        let mut next = begin;
        let written = loop {
            let found = outlets.output.follow(next, &|| gone.load(Ordering::SeqCst));
            let mut writer = stream;
            let mut written = Ok(());
            if found.missed > 0 {
                written = writer.write_all(b"\r\n[some output was lost]\r\n");
            }
            for piece in &found.records {
                written = written.and_then(|()| writer.write_all(piece));
            }
            next = found.next;
            if written.is_err() || found.closed || gone.load(Ordering::SeqCst) {
                break written;
            }
        };
        gone.store(true, Ordering::SeqCst);
        // Ends the other thread.
        let _ = stream.shutdown(Shutdown::Both);
        written
    })
}
