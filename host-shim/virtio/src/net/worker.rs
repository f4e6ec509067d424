// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who moves the frames of an interface.
//!
//! # Lock order
//!
//! 1. `Shared::thread`, while the thread is started
//! 2. `Shared::transmit`, while frames are sent
//! 3. `Port::receive`, of this interface or of another on the same switch, while frames are put there
//!
//! Interrupt lines are raised with the last two locked.
//!
//! # How a session ends
//!
//! [`Worker::stop`] sets `stopping`, which whoever moves frames looks at before each of them; then it locks both halves, one after the other, and takes
//! their queues away.
//!
//! # Why no notification is lost
//!
//! Who finds the queue of frames locked, or leaves something there, sets `transmit_left` before it wakes the thread, and the thread clears it before it looks. Who
//! sends ends only after it asked the driver for notifications and then found the queue empty, or has left it to the thread. A receiver without buffers is asked for a
//! notification of more, and is tried once more after that.
//!
//! # What the thread waits for
//!
//! For being woken; for frames from the host, as long as the driver has buffers for them; for room at the host, while frames wait for it. What
//! nobody can take is not waited for, so that nothing is looked at again and again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use super::backlog::Backlog;
use super::device::{LinkDown, NetCounters};
use super::error::NetError;
use super::frame::Frame;
use super::header::Header;
use super::receive::{Broken, Put, ReceiveQueue};
use super::stream::{Sent, StreamSink, StreamSource};
use super::switch::{Port, SwitchSink};
use super::tap::{TapSink, TapSource};
use super::transmit::{Next, TransmitQueue, queues};
use crate::device::Session;
use crate::warning::WarningLimit;

/// How many bytes the notifying thread sends before it leaves the rest to the interface's.
const INLINE_BYTES: usize = 64 << 10;
/// The same on a switch, where there is nothing to wait for: a queue of long frames.
const INLINE_SWITCH_BYTES: usize = 16 << 20;
/// How many bytes the thread sends before it looks at the other direction.
const WORKER_BYTES: usize = 4 << 20;
/// As how many bytes a frame counts at least.
const LEAST: usize = 256;
/// How often the thread takes something from the host before it looks at the other direction.
const ROUNDS: usize = 16;
const STACK: usize = 256 << 10;

/// Where frames come from that are not in the driver's buffers yet.
#[derive(Debug)]
pub(super) enum Source {
    Stream(StreamSource),
    Tap(TapSource),
    Backlog(Backlog),
}

impl Source {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Stream(source) => Some(source.fd()),
            Source::Tap(source) => Some(source.fd()),
            Source::Backlog(_) => None,
        }
    }

    fn fill(&mut self) -> io::Result<Filled> {
        match self {
            Source::Stream(source) => source.fill(),
            Source::Tap(source) => source.fill(),
            Source::Backlog(_) => Ok(Filled::Nothing),
        }
    }

    fn front(&self) -> io::Result<Option<(Header, &[u8])>> {
        match self {
            Source::Stream(source) => source.front(),
            Source::Tap(source) => Ok(source.front()),
            Source::Backlog(backlog) => Ok(backlog.front()),
        }
    }

    fn pop(&mut self) {
        match self {
            Source::Stream(source) => source.pop(),
            Source::Tap(source) => source.pop(),
            Source::Backlog(backlog) => backlog.pop(),
        }
    }
}

/// What was taken from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is nothing.
    Nothing,
    /// Something, and there was no more.
    All,
    /// Something, and there may be more.
    Some,
}

/// Where frames go to.
#[derive(Debug)]
pub(super) enum Sink {
    Stream(StreamSink),
    Tap(TapSink),
    Switch(SwitchSink),
    /// The link is down: nowhere.
    Nowhere,
}

impl Sink {
    fn send(&mut self, header: Header, frame: Frame<'_>) -> io::Result<Sent> {
        match self {
            Sink::Stream(sink) => sink.send(header, frame),
            Sink::Tap(sink) => sink.send(header, frame),
            Sink::Switch(sink) => Ok(sink.send(header, frame)),
            Sink::Nowhere => Ok(Sent::Lost),
        }
    }

    /// Brings everything on its way; `false` when the host does not take all of it now.
    fn flush(&mut self) -> io::Result<bool> {
        match self {
            Sink::Stream(sink) => sink.flush(),
            Sink::Switch(sink) => {
                sink.flush();
                Ok(true)
            }
            Sink::Tap(_) | Sink::Nowhere => Ok(true),
        }
    }
}

/// The receiving half of an interface.
#[derive(Debug)]
pub(super) struct Receive {
    queue: Option<ReceiveQueue>,
    source: Source,
    /// Whether the driver has to give buffers before there is anything to do.
    waiting: bool,
    warnings: WarningLimit,
}

impl Receive {
    pub(super) fn new(source: Source) -> Receive {
        Receive {
            queue: None,
            source,
            waiting: false,
            warnings: WarningLimit::default(),
        }
    }

    /// Takes a frame of another port; `false` when it is lost.
    pub(super) fn accept(&mut self, header: Header, frame: Frame<'_>) -> bool {
        let (Some(queue), Source::Backlog(backlog)) = (&mut self.queue, &mut self.source) else {
            return false;
        };
        if backlog.is_empty() {
            match queue.put(header, frame) {
                Ok(Put::Done) => return true,
                Ok(Put::Refused) => return false,
                Ok(Put::NoRoom) => {}
                Err(broken) => {
                    self.fail(&broken);
                    return false;
                }
            }
        }
        // Its sender was looked at before; what is not readable there any more is lost.
        if !backlog.push(header, frame).unwrap_or(false) {
            return false;
        }
        if !self.waiting {
            // A backlog makes no errors of the host's.
            let _ = self.pump(None);
        }
        true
    }

    /// Puts what there is into the driver's buffers, as far as there are any.
    ///
    /// # Errors
    ///
    /// The other side of the link sends something else than frames.
    fn pump(&mut self, counters: Option<&NetCounters>) -> io::Result<()> {
        let mut asked = false;
        while let Some(queue) = &mut self.queue {
            let Some((header, frame)) = self.source.front()? else {
                break;
            };
            let put = match queue.put(header, Frame::Host(frame)) {
                Ok(Put::NoRoom) if !asked => {
                    asked = true;
                    match queue.want_buffers() {
                        Ok(()) => continue,
                        Err(broken) => Err(broken),
                    }
                }
                put => put,
            };
            match put {
                Ok(Put::Done) => {
                    if let Some(counters) = counters {
                        counters.taken_in(frame.len());
                    }
                }
                Ok(Put::Refused) => {
                    if let Some(counters) = counters {
                        counters.lost_in.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Put::NoRoom) => {
                    self.waiting = true;
                    break;
                }
                Err(broken) => {
                    self.fail(&broken);
                    break;
                }
            }
            self.source.pop();
        }
        Ok(())
    }

    /// The driver gave buffers; `false` when nobody has waited for them.
    fn resume(&mut self, counters: Option<&NetCounters>) -> io::Result<bool> {
        if !std::mem::take(&mut self.waiting) {
            return Ok(false);
        }
        if let Some(queue) = &mut self.queue
            && let Err(broken) = queue.has_buffers()
        {
            self.fail(&broken);
        }
        self.pump(counters)?;
        self.tell();
        Ok(!self.waiting)
    }

    /// Interrupts the driver if there is something that it wants to know of.
    pub(super) fn tell(&mut self) {
        if let Some(queue) = &mut self.queue
            && let Err(broken) = queue.tell()
        {
            self.fail(&broken);
        }
    }

    fn fail(&mut self, broken: &Broken) {
        if let Some(queue) = self.queue.take() {
            warn_driver(&self.warnings, broken);
            queue.signal().needs_reset();
        }
    }

    fn end_session(&mut self) {
        self.queue = None;
        self.waiting = false;
        if let Source::Backlog(backlog) = &mut self.source {
            backlog.clear();
        }
    }

    /// Whether something from the host could be put into the driver's buffers.
    fn wants_input(&self) -> bool {
        self.queue.is_some() && !self.waiting
    }
}

fn warn_driver(warnings: &WarningLimit, broken: &Broken) {
    if let Some(suppressed) = warnings.admit() {
        tracing::warn!(
            device = VIRTIO_ID_NET,
            suppressed,
            "a virtio driver has to reset its network interface: {broken}"
        );
    }
}

/// The sending half of an interface.
#[derive(Debug)]
struct Transmit {
    queue: Option<TransmitQueue>,
    sink: Sink,
    warnings: WarningLimit,
}

/// Where sending has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The queue is empty, and the driver notifies about the next frame.
    Idle,
    /// There were enough for now.
    Left,
    /// The host takes no more at present.
    Blocked,
}

/// Why sending cannot go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Link(#[from] io::Error),
}

impl Transmit {
    fn run(&mut self, shared: &Shared, budget: usize) -> io::Result<Progress> {
        match self.drain(&shared.port.counters, &shared.stopping, budget) {
            Ok(progress) => {
                shared
                    .blocked
                    .store(progress == Progress::Blocked, Ordering::SeqCst);
                Ok(progress)
            }
            Err(Trouble::Link(error)) => Err(error),
            Err(Trouble::Broken(broken)) => {
                if let Some(queue) = self.queue.take() {
                    warn_driver(&self.warnings, &broken);
                    queue.signal().needs_reset();
                }
                Ok(Progress::Idle)
            }
        }
    }

    fn drain(
        &mut self,
        counters: &NetCounters,
        stopping: &AtomicBool,
        budget: usize,
    ) -> Result<Progress, Trouble> {
        let Some(queue) = &mut self.queue else {
            // What was sent before the end of a session still goes out.
            return Ok(if self.sink.flush()? {
                Progress::Idle
            } else {
                Progress::Blocked
            });
        };
        let mut spent = 0;
        loop {
            queue.begin()?;
            let mut enough = false;
            while !enough && !stopping.load(Ordering::SeqCst) {
                let sent = match queue.next()? {
                    Next::Empty => break,
                    Next::Nonsense => {
                        spent += LEAST;
                        Sent::Lost
                    }
                    Next::Frame(header) => {
                        let frame = queue.frame();
                        let len = frame.len();
                        spent += len.max(LEAST);
                        if spent > budget {
                            queue.put_back();
                            enough = true;
                            break;
                        }
                        let sent = self.sink.send(header, frame)?;
                        if sent == Sent::Taken {
                            counters.taken_out(len);
                        }
                        sent
                    }
                };
                match sent {
                    Sent::Taken => queue.complete()?,
                    Sent::Lost => {
                        counters.lost_out.fetch_add(1, Ordering::Relaxed);
                        queue.complete()?;
                    }
                    Sent::Full => {
                        queue.put_back();
                        enough = true;
                    }
                }
                enough |= spent > budget;
            }
            let gone = self.sink.flush()?;
            queue.tell()?;
            if enough || stopping.load(Ordering::SeqCst) || !queue.end()? {
                return Ok(match (gone, enough) {
                    (false, _) => Progress::Blocked,
                    (true, true) => Progress::Left,
                    (true, false) => Progress::Idle,
                });
            }
        }
    }
}

struct Shared {
    transmit: Mutex<Transmit>,
    /// Whether the host has to take something before there is anything to send. Written under the lock of `transmit`. The thread looks at it without,
    /// as that is held while much is sent; whoever else sets it wakes the thread.
    blocked: AtomicBool,
    port: Arc<Port>,
    /// Where frames of the host's come from, for the thread to wait for.
    fd: Option<OwnedFd>,
    inline_bytes: usize,
    stopping: AtomicBool,
    quit: AtomicBool,
    transmit_left: AtomicBool,
    /// Wakes the thread.
    doorbell: OwnedFd,
    /// Whether there is somebody at the other end.
    up: Arc<AtomicBool>,
    on_down: Option<LinkDown>,
    /// Why the link is down, from whoever found out to the thread.
    trouble: Mutex<Option<io::Error>>,
}

/// An interface's frames and the thread for them. Dropping it ends both.
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn new(
        sink: Sink,
        port: Arc<Port>,
        up: Arc<AtomicBool>,
        on_down: Option<LinkDown>,
    ) -> Result<Worker, NetError> {
        let doorbell =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|source| {
                NetError::Host {
                    what: "eventfd",
                    source: source.into(),
                }
            })?;
        let fd = lock(&port.receive)
            .source
            .fd()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()
            .map_err(|source| NetError::Host {
                what: "duplicating a descriptor",
                source,
            })?;
        let inline_bytes = if fd.is_some() {
            INLINE_BYTES
        } else {
            INLINE_SWITCH_BYTES
        };
        Ok(Worker {
            shared: Arc::new(Shared {
                blocked: AtomicBool::new(false),
                transmit: Mutex::new(Transmit {
                    queue: None,
                    sink,
                    warnings: WarningLimit::default(),
                }),
                port,
                fd,
                inline_bytes,
                stopping: AtomicBool::new(false),
                quit: AtomicBool::new(false),
                transmit_left: AtomicBool::new(false),
                doorbell,
                up,
                on_down,
                trouble: Mutex::new(None),
            }),
            thread: Mutex::new(None),
        })
    }

    /// Begins a session.
    pub(super) fn start(&self, session: Session) {
        let signal = Arc::clone(&session.signal);
        let features = session.features;
        let Some((receive, transmit)) = queues(session) else {
            tracing::warn!("a virtio driver started its network interface without both queues");
            signal.needs_reset();
            return;
        };
        let mut half = lock(&self.shared.port.receive);
        if let Source::Tap(tap) = &half.source
            && let Err(error) = tap.agree(features)
        {
            drop(half);
            self.shared.note(error);
            self.wake();
            return;
        }
        half.queue = Some(receive);
        drop(half);
        lock(&self.shared.transmit).queue = Some(transmit);
        if self.shared.fd.is_some() {
            self.wake();
        }
    }

    /// The driver has given buffers.
    pub(super) fn notify_receive(&self) {
        let counters = self.shared.fd.as_ref().map(|_| &*self.shared.port.counters);
        let resumed = lock(&self.shared.port.receive).resume(counters);
        match resumed {
            Ok(resumed) => {
                // The thread did not look at the host meanwhile.
                if resumed && self.shared.fd.is_some() {
                    self.wake();
                }
            }
            Err(error) => {
                self.shared.note(error);
                self.wake();
            }
        }
    }

    /// The driver has sent frames.
    pub(super) fn notify_transmit(&self) {
        let mut transmit = match self.shared.transmit.try_lock() {
            Ok(transmit) => transmit,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.leave();
                return;
            }
        };
        if self.shared.blocked.load(Ordering::SeqCst) {
            // The thread waits for the host, and looks at the queue then.
            return;
        }
        let result = transmit.run(&self.shared, self.shared.inline_bytes);
        drop(transmit);
        match result {
            Ok(Progress::Idle) => {}
            Ok(Progress::Left | Progress::Blocked) => self.leave(),
            Err(error) => {
                self.shared.note(error);
                self.wake();
            }
        }
    }

    /// Ends the session, if there is one. When this returns, nothing of it is in use.
    pub(super) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        lock(&self.shared.transmit).queue = None;
        lock(&self.shared.port.receive).end_session();
        self.shared.stopping.store(false, Ordering::SeqCst);
    }

    /// Leaves frames to the thread.
    fn leave(&self) {
        if !self.shared.transmit_left.swap(true, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        self.shared.ring();
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name("virtio-net".into())
            .stack_size(STACK)
            .spawn(move || shared.serve());
        match started {
            Ok(handle) => *thread = Some(handle),
            Err(error) => {
                drop(thread);
                tracing::error!(%error, "no thread for a network interface, which is down therefore");
                self.shared.down(&error);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.ring();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of a network interface panicked");
        }
    }
}

/// What the thread waits for.
#[derive(Clone, Copy)]
struct Wanted {
    input: bool,
    room: bool,
}

impl Shared {
    fn ring(&self) {
        // It fails only when it was rung 2^64 times and nobody looked.
        let _ = rustix::io::write(&self.doorbell, &1_u64.to_ne_bytes());
    }

    fn note(&self, error: io::Error) {
        lock(&self.trouble).get_or_insert(error);
    }

    /// The thread.
    fn serve(&self) {
        let mut left = false;
        while !self.quit.load(Ordering::SeqCst) {
            let up = self.up.load(Ordering::SeqCst);
            let wanted = Wanted {
                input: up && lock(&self.port.receive).wants_input(),
                room: up && self.blocked.load(Ordering::SeqCst),
            };
            let ready = match self.wait(wanted, left) {
                Ok(ready) => ready,
                Err(error) => {
                    self.down(&error);
                    if up {
                        continue;
                    }
                    // The host does not let it wait even for being woken.
                    return;
                }
            };
            left = false;
            if let Some(error) = lock(&self.trouble).take() {
                self.down(&error);
            }
            let result = self.work(ready, &mut left);
            if let Err(error) = result {
                self.down(&error);
            }
        }
    }

    fn work(&self, ready: Wanted, left: &mut bool) -> io::Result<()> {
        if self.transmit_left.swap(false, Ordering::SeqCst) || ready.room {
            let progress = lock(&self.transmit).run(self, WORKER_BYTES)?;
            if progress == Progress::Left {
                self.transmit_left.store(true, Ordering::SeqCst);
                *left = true;
            }
        }
        if ready.input {
            *left |= self.receive()?;
        }
        Ok(())
    }

    /// Takes from the host what there is; `true` when there may be more.
    fn receive(&self) -> io::Result<bool> {
        let mut receive = lock(&self.port.receive);
        for _ in 0..ROUNDS {
            if self.stopping.load(Ordering::SeqCst) || !receive.wants_input() {
                return Ok(false);
            }
            receive.pump(Some(&self.port.counters))?;
            let filled = if receive.wants_input() {
                receive.source.fill()?
            } else {
                Filled::Nothing
            };
            let result = match filled {
                Filled::Nothing => Ok(()),
                Filled::All | Filled::Some => receive.pump(Some(&self.port.counters)),
            };
            receive.tell();
            result?;
            if filled != Filled::Some {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for what is wanted, or to be woken; only looks when there is something left to do.
    fn wait(&self, wanted: Wanted, left: bool) -> io::Result<Wanted> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, wanted.input);
        events.set(PollFlags::OUT, wanted.room);
        let fd = self.fd.as_ref().filter(|_| self.up.load(Ordering::SeqCst));
        let mut watched = [
            PollFd::new(&self.doorbell, PollFlags::IN),
            PollFd::new(&self.doorbell, PollFlags::empty()),
        ];
        let count = match fd {
            Some(fd) => {
                if let Some(last) = watched.last_mut() {
                    *last = PollFd::new(fd, events);
                }
                2
            }
            None => 1,
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let watched = watched.get_mut(..count).unwrap_or_default();
        match poll(watched, left.then_some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = Wanted {
            input: false,
            room: false,
        };
        for (index, seen) in watched.iter().map(PollFd::revents).enumerate() {
            if index == 0 {
                if seen.contains(PollFlags::IN) {
                    let mut count = [0; 8];
                    // Nothing else takes from it; what it counts does not matter.
                    let _ = rustix::io::read(&self.doorbell, &mut count);
                }
                continue;
            }
            let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            ready.input = wanted.input && seen.intersects(PollFlags::IN | ended);
            ready.room = wanted.room && seen.intersects(PollFlags::OUT | ended);
            if seen.intersects(ended) && !ready.input {
                // Nobody is there any more, and what it left cannot be taken.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(ready)
    }

    /// The link is down from now on.
    fn down(&self, error: &io::Error) {
        if !self.up.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut transmit = lock(&self.transmit);
        transmit.sink = Sink::Nowhere;
        self.blocked.store(false, Ordering::SeqCst);
        // What the driver sent meanwhile is lost, and its buffers are its own again.
        let drained = transmit.run(self, WORKER_BYTES);
        if let Some(queue) = &transmit.queue {
            queue.signal().configuration_changed();
        }
        drop(transmit);
        if matches!(drained, Ok(Progress::Left)) {
            self.transmit_left.store(true, Ordering::SeqCst);
            self.ring();
        }
        if let Some(tell) = &self.on_down {
            let why = if error.kind() == io::ErrorKind::UnexpectedEof {
                "the other side has closed the connection".to_owned()
            } else {
                error.to_string()
            };
            tell(&why);
        }
    }
}

/// What a panic left is complete: each half changes by whole frames.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
