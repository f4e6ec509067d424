// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who carries out the requests of a disk.
//!
//! # Lock order
//!
//! 1. `Shared::thread`, while the worker thread is started
//! 2. `Shared::session`, while requests are carried out
//!
//! The interrupt line is raised with the session locked.
//!
//! # How a session ends
//!
//! [`Worker::stop`] sets `stopping`, which whoever carries out requests looks at before each of them and between
//! the parts of a large one; then it locks the session and takes it away.
//!
//! # Why no notification is lost
//!
//! A notification sets `doorbell` before it wakes the worker, and the worker clears it before it looks at the queue. Who finds the
//! session locked leaves the queue to the worker, by the doorbell. Who carries out requests ends only after it asked the driver for
//! notifications and then found the queue empty, or has rung the doorbell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::image::Image;
use super::request::{Disk, ID_BYTES, NoStatus, Outcome};
use crate::chain::Chain;
use crate::device::Session;
use crate::memory::{GuestMemory, Wait};
use crate::queue::{QueueError, Virtqueue};
use crate::signal::DriverSignal;

/// How long the worker looks out for more work before it sleeps, at most.
const SPIN_MAX: Duration = Duration::from_micros(20);
/// Where that begins when it proves worthwhile.
const SPIN_FIRST: Duration = Duration::from_micros(5);
/// How many bytes the notifying thread moves before it leaves the rest to the worker.
const INLINE_BYTES: u64 = 64 << 10;
/// As how many bytes a request without data counts there.
const INLINE_LEAST: u64 = 512;
/// How long a completed request may go without its interrupt because others are still being carried out.
const SIGNAL_DELAY: Duration = Duration::from_micros(100);
const STACK: usize = 256 << 10;

/// What is done with the requests of one driver, from when it is ready to its reset.
#[derive(Debug)]
struct Active {
    queue: Virtqueue,
    memory: GuestMemory,
    signal: Arc<DriverSignal>,
    features: u64,
    chain: Chain,
    /// Since when there are completed requests that the driver may not know of.
    unsignalled: Option<Instant>,
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Request(#[from] NoStatus),
}

/// Where carrying out requests has come to.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The queue is empty, and the driver notifies about the next request.
    Idle,
    /// The next request may have to wait for the disk, or there were enough.
    Left,
    /// The session is about to end.
    Stopping,
}

#[derive(Debug)]
struct Shared {
    image: Image,
    id: [u8; ID_BYTES],
    session: Mutex<Option<Active>>,
    stopping: AtomicBool,
    doorbell: AtomicBool,
    quit: AtomicBool,
}

/// A disk's requests and the thread for them. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The running thread, for whoever wakes it.
    sleeper: OnceLock<Thread>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn new(image: Image, id: [u8; ID_BYTES]) -> Worker {
        Worker {
            shared: Arc::new(Shared {
                image,
                id,
                session: Mutex::new(None),
                stopping: AtomicBool::new(false),
                doorbell: AtomicBool::new(false),
                quit: AtomicBool::new(false),
            }),
            sleeper: OnceLock::new(),
            thread: Mutex::new(None),
        }
    }

    /// Begins a session on its first queue.
    pub(super) fn start(&self, session: Session) {
        let Session {
            features,
            memory,
            queues,
            signal,
        } = session;
        let Some(queue) = queues.into_iter().next().flatten() else {
            self.shared
                .image
                .warn_driver(&"it started the disk without a queue");
            signal.needs_reset();
            return;
        };
        *self.shared.lock() = Some(Active {
            queue,
            memory,
            signal,
            features,
            chain: Chain::new(),
            unsignalled: None,
        });
    }

    /// There may be requests.
    pub(super) fn notify(&self) {
        let progress = match self.shared.session.try_lock() {
            Ok(mut session) => self.shared.run(&mut session, Wait::Never),
            Err(TryLockError::Poisoned(poisoned)) => {
                self.shared.run(&mut poisoned.into_inner(), Wait::Never)
            }
            Err(TryLockError::WouldBlock) => Progress::Left,
        };
        if progress == Progress::Left {
            self.wake();
        }
    }

    /// Ends the session, if there is one. When this returns, nothing of it is in use.
    pub(super) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let mut session = self.shared.lock();
        *session = None;
        self.shared.stopping.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        self.shared.doorbell.store(true, Ordering::SeqCst);
        match self.sleeper.get() {
            Some(sleeper) => sleeper.unpark(),
            None => self.start_thread(),
        }
    }

    fn start_thread(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*thread {
            running.thread().unpark();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name("virtio-blk".into())
            .stack_size(STACK)
            .spawn(move || shared.serve());
        match started {
            Ok(handle) => {
                // Set under the lock of `thread`, by the only one who finds no thread there.
                let _ = self.sleeper.set(handle.thread().clone());
                *thread = Some(handle);
            }
            Err(error) => {
                drop(thread);
                if let Some(suppressed) = self.shared.image.admit_warning() {
                    tracing::warn!(
                        %error, suppressed,
                        "no thread for the disk '{}'; its guest waits for each request instead", self.shared.image.path().display(),
                    );
                }
                self.shared.run(&mut self.shared.lock(), Wait::Allowed);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        self.shared.quit.store(true, Ordering::SeqCst);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!(
                    "the thread of the disk '{}' panicked",
                    self.shared.image.path().display()
                );
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Active>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker thread.
    fn serve(&self) {
        let mut spin = Spin::new();
        while self.wait_for_doorbell(&mut spin) {
            self.run(&mut self.lock(), Wait::Allowed);
        }
    }

    /// Returns when the doorbell was rung, or with `false` when the thread has to end.
    fn wait_for_doorbell(&self, spin: &mut Spin) -> bool {
        let begin = Instant::now();
        loop {
            if self.quit.load(Ordering::SeqCst) {
                return false;
            }
            if self.doorbell.swap(false, Ordering::SeqCst) {
                spin.adapt(begin.elapsed());
                return true;
            }
            if begin.elapsed() < spin.limit {
                for _ in 0..8 {
                    std::hint::spin_loop();
                }
            } else {
                thread::park();
            }
        }
    }

    /// Carries out what is in the queue.
    fn run(&self, session: &mut Option<Active>, wait: Wait) -> Progress {
        let Some(active) = session else {
            return Progress::Idle;
        };
        match self.drain(active, wait) {
            Ok(progress) => progress,
            Err(broken) => {
                self.image.warn_driver(&broken);
                active.signal.needs_reset();
                *session = None;
                Progress::Idle
            }
        }
    }

    fn drain(&self, active: &mut Active, wait: Wait) -> Result<Progress, Broken> {
        let mut inline_bytes = 0;
        loop {
            active.queue.disable_notifications()?;
            loop {
                if self.stopping.load(Ordering::SeqCst) {
                    return Ok(Progress::Stopping);
                }
                if !active.queue.next(&mut active.chain)? {
                    break;
                }
                if wait == Wait::Never {
                    let bytes = active.chain.writable.bytes() + active.chain.readable.bytes();
                    inline_bytes += bytes.max(INLINE_LEAST);
                    if inline_bytes > INLINE_BYTES {
                        active.queue.put_back();
                        active.signal()?;
                        return Ok(Progress::Left);
                    }
                }
                let disk = Disk {
                    image: &self.image,
                    id: &self.id,
                    memory: &active.memory,
                    features: active.features,
                    cancel: &self.stopping,
                    others_wait: active.unsignalled.is_some(),
                };
                match disk.execute(&mut active.chain, wait)? {
                    Outcome::Done { written } => active.complete(written)?,
                    Outcome::WouldBlock => {
                        active.queue.put_back();
                        active.signal()?;
                        if wait == Wait::Never {
                            return Ok(Progress::Left);
                        }
                        // Nobody waits for an interrupt any more, so that the same request now may take its time.
                    }
                    Outcome::Cancelled => return Ok(Progress::Stopping),
                }
            }
            active.signal()?;
            if !active.queue.enable_notifications()? {
                return Ok(Progress::Idle);
            }
        }
    }
}

impl Active {
    fn complete(&mut self, written: u32) -> Result<(), QueueError> {
        self.queue.complete(&self.chain, written)?;
        let now = Instant::now();
        let since = *self.unsignalled.get_or_insert(now);
        if now.saturating_duration_since(since) > SIGNAL_DELAY {
            self.signal()?;
        }
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was completed.
    fn signal(&mut self) -> Result<(), QueueError> {
        if self.unsignalled.take().is_some() && self.queue.interrupt_wanted()? {
            self.signal.used_buffers();
        }
        Ok(())
    }
}

/// How long to look out for work before sleeping: longer while that spares a wake-up, down to nothing while it does not.
#[derive(Debug)]
struct Spin {
    limit: Duration,
    max: Duration,
}

impl Spin {
    fn new() -> Spin {
        // With one processor, the guest could not ring while the worker looks.
        let several = thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        Spin {
            limit: Duration::ZERO,
            max: if several { SPIN_MAX } else { Duration::ZERO },
        }
    }

    /// The last work came after the worker had been idle for this long.
    fn adapt(&mut self, idle: Duration) {
        self.limit = if idle <= self.limit {
            self.limit
        } else if idle <= self.max {
            (self.limit * 2).clamp(SPIN_FIRST, self.max)
        } else {
            self.limit / 2
        };
        if self.limit < Duration::from_micros(1) {
            self.limit = Duration::ZERO;
        }
    }
}
