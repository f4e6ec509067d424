// SPDX-License-Identifier: GPL-2.0-only
//! A monitor and kernels made of threads: endpoints behave as in cVMs, portals run on the threads of senders, and messages are copied
//! for real.
//!
//! Lock order: 1. an endpoint's state; 2. the monitor's tables; 3. a kernel's queue.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses a part, and one that cannot go on has failed"
)]

use capstream_abi::FileInfo;
use capstream_core::bell::Counter;
use capstream_core::errno::from_return;
use capstream_core::inbox::Inbox;
use capstream_core::kernel::{Access, Depth, Event, Range};
use capstream_core::monitor::{Notify, Operation};
use capstream_core::stream::{Buffers, Stream};
use capstream_core::{
    Bell, Errno, File, Kernel, Key, Lock, Monitor, Portal, PortalCalls, Result, Shared, bell, file,
    stream,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// A lock of the host.
pub struct HostLock<T>(Mutex<T>);

impl<T> HostLock<T> {
    fn new(value: T) -> HostLock<T> {
        HostLock(Mutex::new(value))
    }
}

impl<T> Lock for HostLock<T> {
    type State = T;

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

/// Pinned memory; counts itself.
pub struct HostPin {
    program: Arc<AtomicBool>,
    pins: Arc<AtomicUsize>,
    address: usize,
}

impl capstream_core::Pin for HostPin {
    fn alive(&self) -> bool {
        self.program.load(Ordering::SeqCst)
    }

    fn address(&self) -> usize {
        self.address
    }
}

impl Drop for HostPin {
    fn drop(&mut self) {
        self.pins.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A queued buffer; counts itself.
pub struct HostPlace(Arc<AtomicUsize>);

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A node with a portal.
trait Node: Send + Sync {
    fn portal(&self, operation: u64, len: u64, sender: u64, calls: &InPortal<'_>) -> i64;
    fn interrupt(&self);
    fn left(&self, space: usize);
    fn cvm(&self) -> &Cvm;
}

/// One kernel: its interrupt, its one queue of sleepers, and the program that runs now.
pub struct Cvm {
    world: Arc<World>,
    events: AtomicU64,
    queue: Mutex<()>,
    wakes: Condvar,
    /// A signal is pending for whoever sleeps or spins.
    pub signal: AtomicBool,
    /// Added to the time by tests.
    pub clock_skew_ns: AtomicU64,
    space: AtomicUsize,
    program: Mutex<Arc<AtomicBool>>,
    /// Ranges that are not the program's memory.
    unmapped: Mutex<Vec<Range>>,
    pub pins: Arc<AtomicUsize>,
    /// Buffers that are queued, and how many may be.
    pub places: Arc<AtomicUsize>,
    pub most_places: AtomicUsize,
    nodes: Mutex<Vec<Weak<dyn Node>>>,
    /// How many tasks sleep at the moment.
    pub sleeping: AtomicU32,
    pub interrupts: AtomicU64,
    start: Instant,
}

impl Cvm {
    pub fn new(world: &Arc<World>) -> Arc<Cvm> {
        Arc::new(Cvm {
            world: world.clone(),
            events: AtomicU64::new(0),
            queue: Mutex::new(()),
            wakes: Condvar::new(),
            signal: AtomicBool::new(false),
            clock_skew_ns: AtomicU64::new(0),
            space: AtomicUsize::new(1),
            program: Mutex::new(Arc::new(AtomicBool::new(true))),
            unmapped: Mutex::new(Vec::new()),
            pins: Arc::new(AtomicUsize::new(0)),
            places: Arc::new(AtomicUsize::new(0)),
            most_places: AtomicUsize::new(usize::MAX),
            nodes: Mutex::new(Vec::new()),
            sleeping: AtomicU32::new(0),
            interrupts: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// The program ends and another is started.
    pub fn exec(&self) {
        self.program.lock().unwrap().store(false, Ordering::SeqCst);
        let space = self.space();
        for node in self.nodes() {
            node.left(space);
        }
        *self.program.lock().unwrap() = Arc::new(AtomicBool::new(true));
        self.space.fetch_add(1, Ordering::SeqCst);
    }

    fn nodes(&self) -> Vec<Arc<dyn Node>> {
        let nodes = self.nodes.lock().unwrap();
        nodes.iter().filter_map(Weak::upgrade).collect()
    }

    pub fn unmap(&self, address: usize, len: usize) {
        self.unmapped
            .lock()
            .unwrap()
            .push(Range::new(address, len).unwrap());
    }

    pub fn kill(&self) {
        self.signal.store(true, Ordering::SeqCst);
        self.wake_sleepers();
    }

    /// Waits until so many tasks sleep.
    pub fn await_sleepers(&self, n: u32) {
        while self.sleeping.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
    }

    fn wake_sleepers(&self) {
        drop(self.queue.lock().unwrap());
        self.wakes.notify_all();
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::SeqCst);
        self.events.fetch_add(1, Ordering::SeqCst);
        for node in self.nodes() {
            node.interrupt();
        }
        self.wake_sleepers();
    }
}

impl Cvm {
    fn is_mapped(&self, range: Range) -> bool {
        let unmapped = self.unmapped.lock().unwrap();
        !unmapped.iter().any(|other| other.overlaps(range))
    }
}

impl Kernel for Cvm {
    type Pin = HostPin;
    type Place = HostPlace;

    fn wake(&self) {
        self.wake_sleepers();
    }

    fn wake_callers(&self) {
        self.wake_sleepers();
    }

    fn place(&self) -> Result<HostPlace> {
        let most = self.most_places.load(Ordering::SeqCst);
        if self.places.fetch_add(1, Ordering::SeqCst) < most {
            Ok(HostPlace(self.places.clone()))
        } else {
            self.places.fetch_sub(1, Ordering::SeqCst);
            Err(Errno::NOBUFS)
        }
    }

    fn sleep(
        &self,
        _event: Event,
        depth: Depth,
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let mut guard = self.queue.lock().unwrap();
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            if ready() {
                break Ok(());
            }
            if depth == Depth::Interruptible && self.signal.load(Ordering::SeqCst) {
                break Err(Errno::INTR);
            }
            guard = match deadline {
                None => self.wakes.wait(guard).unwrap(),
                Some(deadline) => {
                    let left = deadline.saturating_sub(self.now_ns());
                    if left == 0 {
                        break Err(Errno::TIMEDOUT);
                    }
                    let left = Duration::from_nanos(left);
                    self.wakes.wait_timeout(guard, left).unwrap().0
                }
            };
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn spin(&self) -> Result<()> {
        std::thread::yield_now();
        if self.signal.load(Ordering::SeqCst) {
            Err(Errno::INTR)
        } else {
            Ok(())
        }
    }

    fn now_ns(&self) -> u64 {
        let skew = self.clock_skew_ns.load(Ordering::SeqCst);
        u64::try_from(self.start.elapsed().as_nanos()).unwrap() + skew
    }

    fn peer_events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }

    fn space(&self) -> usize {
        self.space.load(Ordering::SeqCst)
    }

    fn holds(&self, range: Range, _access: Access, _pin: &HostPin) -> bool {
        self.is_mapped(range)
    }

    fn pin(&self, range: Range, _access: Access) -> Result<HostPin> {
        if !self.is_mapped(range) {
            return Err(Errno::FAULT);
        }
        self.pins.fetch_add(1, Ordering::SeqCst);
        Ok(HostPin {
            program: self.program.lock().unwrap().clone(),
            pins: self.pins.clone(),
            address: range.address,
        })
    }

    fn copy_out(&self, from: &HostPin, to: usize, len: usize) -> Result<()> {
        if len > 0 && !self.is_mapped(Range::new(to, len).unwrap()) {
            return Err(Errno::FAULT);
        }
        // SAFETY: tests pass buffers that live as long as the endpoint has them.
        unsafe { std::ptr::copy_nonoverlapping(from.address as *const u8, to as *mut u8, len) };
        Ok(())
    }
}

/// An endpoint that a key leads to.
struct Published {
    class: u64,
    key: Key,
    owner: Weak<dyn Node>,
    /// Senders in the portal, and whether more may enter.
    calls: Mutex<(u32, bool)>,
    left: Condvar,
    /// Who asked to be interrupted at the next wake.
    waiting: Mutex<Vec<Weak<Cvm>>>,
}

struct PublishedFile {
    id: u64,
    key: Key,
    address: usize,
    len: usize,
    read_only: bool,
}

#[derive(Default)]
struct Tables {
    next: u64,
    endpoints: HashMap<u64, Arc<Published>>,
    handles: HashMap<u64, Arc<Published>>,
    files: Vec<PublishedFile>,
    file_handles: HashMap<u64, (u64, usize)>,
    notify: Vec<Weak<Cvm>>,
}

impl Tables {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The monitor.
#[derive(Default)]
pub struct World {
    tables: Mutex<Tables>,
    /// A range of memory that a fetch cannot read, by its first byte; 0 for none.
    pub unreadable: AtomicUsize,
    /// How many calls more find no free portal.
    pub busy: AtomicU32,
    /// How many deliveries more are beyond what may be sent.
    pub over_quota: AtomicU32,
    /// Keys that nobody may use begin with this byte; 0 for none.
    pub refused: AtomicU32,
    /// Whether portals do not return in time.
    pub stuck: AtomicBool,
    /// Fetches that were tried.
    pub fetches: AtomicU64,
    /// While set, fetches wait.
    pub hold: Mutex<bool>,
    pub released: Condvar,
    pub held: AtomicU32,
}

impl World {
    pub fn new() -> Arc<World> {
        Arc::default()
    }

    pub fn hold_fetches(&self, hold: bool) {
        *self.hold.lock().unwrap() = hold;
        self.released.notify_all();
    }

    pub fn await_held(&self, n: u32) {
        while self.held.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
    }

    fn interrupt_all(waiting: Vec<Weak<Cvm>>) {
        for cvm in waiting.iter().filter_map(Weak::upgrade) {
            cvm.interrupt();
        }
    }

    fn notify_keys(&self) {
        let waiting = std::mem::take(&mut self.tables.lock().unwrap().notify);
        World::interrupt_all(waiting);
    }
}

/// The monitor, as one cVM sees it.
pub struct Host {
    world: Arc<World>,
    cvm: Arc<Cvm>,
    endpoint: Weak<dyn Node>,
}

struct InPortal<'a> {
    world: &'a World,
    owner: &'a dyn Node,
    message: Range,
}

impl PortalCalls for InPortal<'_> {
    fn fetch(&self, to: usize, offset: usize, len: usize) -> Result<()> {
        let from = self.message.address + offset;
        assert!(offset + len <= self.message.len);
        self.world.fetches.fetch_add(1, Ordering::SeqCst);
        let mut hold = self.world.hold.lock().unwrap();
        if *hold {
            self.world.held.fetch_add(1, Ordering::SeqCst);
            while *hold {
                hold = self.world.released.wait(hold).unwrap();
            }
            self.world.held.fetch_sub(1, Ordering::SeqCst);
        }
        drop(hold);
        if self.world.unreadable.load(Ordering::SeqCst) == from {
            return Err(Errno::FAULT);
        }
        // SAFETY: tests pass buffers that live as long as the endpoint has them, and messages that live as long as the call.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, len) };
        Ok(())
    }

    fn wake(&self, _id: u64) {
        self.owner.cvm().interrupt();
    }
}

impl Monitor for Host {
    fn advertise<P: Portal>(&self, _endpoint: &Shared<P>, key: &Key) -> Result<u64> {
        self.permit(key)?;
        let mut tables = self.world.tables.lock().unwrap();
        if tables
            .endpoints
            .values()
            .any(|other| other.class == P::CLASS && other.key == *key)
        {
            return Err(Errno::ADDRINUSE);
        }
        let id = tables.number();
        let published = Published {
            class: P::CLASS,
            key: key.clone(),
            owner: self.endpoint.clone(),
            calls: Mutex::new((0, true)),
            left: Condvar::new(),
            waiting: Mutex::default(),
        };
        tables.endpoints.insert(id, Arc::new(published));
        drop(tables);
        self.world.notify_keys();
        Ok(id)
    }

    fn probe(&self, class: u64, key: &Key, notify: Notify) -> Result<u64> {
        self.permit(key)?;
        let mut tables = self.world.tables.lock().unwrap();
        let found = tables
            .endpoints
            .values()
            .find(|other| other.class == class && other.key == *key)
            .cloned();
        match found {
            Some(published) => {
                let handle = tables.number();
                tables.handles.insert(handle, published);
                Ok(handle)
            }
            None => {
                if notify == Notify::Yes {
                    tables.notify.push(Arc::downgrade(&self.cvm));
                }
                Err(Errno::NOENT)
            }
        }
    }

    fn wait(&self, handle: u64) -> Result<()> {
        let published = self.published(handle)?;
        let calls = published.calls.lock().unwrap();
        if !calls.1 {
            return Err(Errno::PIPE);
        }
        published
            .waiting
            .lock()
            .unwrap()
            .push(Arc::downgrade(&self.cvm));
        Ok(())
    }

    fn wake(&self, id: u64) {
        let published = self
            .world
            .tables
            .lock()
            .unwrap()
            .endpoints
            .get(&id)
            .cloned();
        if let Some(published) = published {
            let waiting = std::mem::take(&mut *published.waiting.lock().unwrap());
            World::interrupt_all(waiting);
        }
    }

    fn call(&self, handle: u64, address: usize, len: usize, operation: Operation) -> Result<u64> {
        let published = self.published(handle)?;
        let one_more = |count: &AtomicU32| {
            count
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
        };
        if one_more(&self.world.busy) {
            return Err(Errno::BUSY);
        }
        if operation == Operation::Deliver && one_more(&self.world.over_quota) {
            return Err(Errno::DQUOT);
        }
        {
            let mut calls = published.calls.lock().unwrap();
            if !calls.1 {
                return Err(Errno::PIPE);
            }
            calls.0 += 1;
        }
        let owner = published.owner.upgrade();
        let result = match &owner {
            None => Errno::PIPE.negated(),
            Some(owner) => {
                let calls = InPortal {
                    world: &self.world,
                    owner: &**owner,
                    message: Range { address, len },
                };
                owner.portal(operation.number(), len as u64, handle, &calls)
            }
        };
        published.calls.lock().unwrap().0 -= 1;
        published.left.notify_all();
        if self.world.stuck.load(Ordering::SeqCst) {
            published.calls.lock().unwrap().1 = false;
            return Err(Errno::TIMEDOUT);
        }
        from_return(result)
    }

    fn revoke(&self, id: u64) -> Result<()> {
        let mut tables = self.world.tables.lock().unwrap();
        let Some(published) = tables.endpoints.remove(&id) else {
            let before = tables.files.len();
            tables.files.retain(|other| other.id != id);
            return if tables.files.len() < before {
                Ok(())
            } else {
                Err(Errno::NOENT)
            };
        };
        drop(tables);
        let mut calls = published.calls.lock().unwrap();
        calls.1 = false;
        while calls.0 > 0 {
            calls = published.left.wait(calls).unwrap();
        }
        drop(calls);
        let waiting = std::mem::take(&mut *published.waiting.lock().unwrap());
        World::interrupt_all(waiting);
        Ok(())
    }

    fn disconnect(&self, handle: u64) {
        let mut tables = self.world.tables.lock().unwrap();
        tables.handles.remove(&handle);
        tables.file_handles.remove(&handle);
    }

    fn file_advertise(
        &self,
        address: usize,
        len: usize,
        key: &Key,
        read_only: bool,
    ) -> Result<u64> {
        let mut tables = self.world.tables.lock().unwrap();
        if tables.files.iter().any(|other| other.key == *key) {
            return Err(Errno::ADDRINUSE);
        }
        let id = tables.number();
        tables.files.push(PublishedFile {
            id,
            key: key.clone(),
            address,
            len,
            read_only,
        });
        drop(tables);
        self.world.notify_keys();
        Ok(id)
    }

    fn file_probe(&self, key: &Key, notify: Notify) -> Result<(u64, FileInfo)> {
        let mut tables = self.world.tables.lock().unwrap();
        let Some(file) = tables.files.iter().find(|other| other.key == *key) else {
            if notify == Notify::Yes {
                tables.notify.push(Arc::downgrade(&self.cvm));
            }
            return Err(Errno::NOENT);
        };
        let info = FileInfo {
            size: file.len as u64,
            read_only: u64::from(file.read_only),
        };
        let id = file.id;
        let handle = tables.number();
        tables.file_handles.insert(handle, (id, 0));
        Ok((handle, info))
    }

    fn file_read(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize> {
        self.copy(handle, offset, len, |file| {
            // SAFETY: tests publish and pass buffers that live long enough; `copy` checked the range.
            unsafe { std::ptr::copy_nonoverlapping(file as *const u8, address as *mut u8, len) };
        })
    }

    fn file_write(&self, handle: u64, offset: u64, address: usize, len: usize) -> Result<usize> {
        self.copy(handle, offset, len, |file| {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(address as *const u8, file as *mut u8, len) };
        })
    }
}

impl Host {
    fn permit(&self, key: &Key) -> Result<()> {
        let refused = self.world.refused.load(Ordering::SeqCst);
        if key
            .as_bytes()
            .first()
            .is_some_and(|byte| u32::from(*byte) == refused)
        {
            Err(Errno::ACCES)
        } else {
            Ok(())
        }
    }

    fn published(&self, handle: u64) -> Result<Arc<Published>> {
        let tables = self.world.tables.lock().unwrap();
        tables.handles.get(&handle).cloned().ok_or(Errno::BADF)
    }

    fn copy(
        &self,
        handle: u64,
        offset: u64,
        len: usize,
        copy: impl FnOnce(usize),
    ) -> Result<usize> {
        let tables = self.world.tables.lock().unwrap();
        let (id, _) = *tables.file_handles.get(&handle).ok_or(Errno::BADF)?;
        let file = tables.files.iter().find(|other| other.id == id);
        let file = file.ok_or(Errno::STALE)?;
        let offset = usize::try_from(offset).unwrap();
        assert!(
            offset + len <= file.len,
            "the driver asks for what is not there"
        );
        copy(file.address + offset);
        Ok(len)
    }
}

/// A stream's node.
pub struct Endpoint {
    pub cvm: Arc<Cvm>,
    pub shared: stream::Shared,
    state: HostLock<stream::State<Cvm>>,
    host: Host,
}

impl Node for Endpoint {
    fn portal(&self, operation: u64, len: u64, sender: u64, calls: &InPortal<'_>) -> i64 {
        self.shared.portal(operation, len, sender, calls)
    }
    fn interrupt(&self) {
        self.stream().interrupt();
    }
    fn left(&self, space: usize) {
        self.stream().left(space);
    }
    fn cvm(&self) -> &Cvm {
        &self.cvm
    }
}

impl Endpoint {
    pub fn new(cvm: &Arc<Cvm>) -> Arc<Endpoint> {
        let endpoint = Arc::new_cyclic(|endpoint: &Weak<Endpoint>| Endpoint {
            cvm: cvm.clone(),
            shared: Shared::new(Inbox::new()),
            state: HostLock::new(stream::State::new(Buffers::new())),
            host: Host {
                world: cvm.world.clone(),
                cvm: cvm.clone(),
                endpoint: endpoint.clone(),
            },
        });
        let node: Weak<Endpoint> = Arc::downgrade(&endpoint);
        cvm.nodes.lock().unwrap().push(node);
        endpoint
    }

    /// A receiver with one buffer size, published.
    pub fn receiver(cvm: &Arc<Cvm>, key: &str, size: usize) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(cvm);
        let stream = endpoint.stream();
        stream.set_size(size as i64).unwrap();
        stream.advertise(Key::new(key.as_bytes()).unwrap()).unwrap();
        endpoint
    }

    /// A sender, connected.
    pub fn sender(cvm: &Arc<Cvm>, key: &str) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(cvm);
        let key = Key::new(key.as_bytes()).unwrap();
        endpoint.stream().connect(&key, true).unwrap();
        endpoint
    }

    pub fn stream(&self) -> Stream<'_, Cvm, Host, HostLock<stream::State<Cvm>>> {
        Stream {
            shared: &self.shared,
            state: &self.state,
            kernel: &self.cvm,
            monitor: &self.host,
        }
    }

    pub fn write(&self, message: &[u8], nonblock: bool) -> Result<usize> {
        self.stream()
            .write(message.as_ptr() as usize, message.len(), nonblock)
    }

    pub fn read(&self, buffer: &mut [u8], nonblock: bool) -> Result<usize> {
        self.stream()
            .read(buffer.as_mut_ptr() as usize, buffer.len(), nonblock)
    }

    pub fn register(&self, buffer: &mut [u8]) -> Result<()> {
        self.stream().register(buffer.as_mut_ptr() as usize)
    }
}

/// A bell's node.
pub struct BellNode {
    pub cvm: Arc<Cvm>,
    pub shared: bell::Shared,
    state: HostLock<bell::State>,
    host: Host,
}

impl Node for BellNode {
    fn portal(&self, operation: u64, len: u64, sender: u64, calls: &InPortal<'_>) -> i64 {
        self.shared.portal(operation, len, sender, calls)
    }
    fn interrupt(&self) {
        self.bell().interrupt();
    }
    fn left(&self, _space: usize) {}
    fn cvm(&self) -> &Cvm {
        &self.cvm
    }
}

impl BellNode {
    pub fn new(cvm: &Arc<Cvm>) -> Arc<BellNode> {
        let node = Arc::new_cyclic(|node: &Weak<BellNode>| BellNode {
            cvm: cvm.clone(),
            shared: Shared::new(Counter::new()),
            state: HostLock::new(bell::State::new(bell::Taken::new())),
            host: Host {
                world: cvm.world.clone(),
                cvm: cvm.clone(),
                endpoint: node.clone(),
            },
        });
        let weak: Weak<BellNode> = Arc::downgrade(&node);
        cvm.nodes.lock().unwrap().push(weak);
        node
    }

    /// Published under a key.
    pub fn owner(cvm: &Arc<Cvm>, key: &str) -> Arc<BellNode> {
        let node = BellNode::new(cvm);
        let key = Key::new(key.as_bytes()).unwrap();
        node.bell().advertise(key).unwrap();
        node
    }

    /// Connected to a key.
    pub fn ringer(cvm: &Arc<Cvm>, key: &str) -> Arc<BellNode> {
        let node = BellNode::new(cvm);
        let key = Key::new(key.as_bytes()).unwrap();
        node.bell().connect(&key, true).unwrap();
        node
    }

    pub fn bell(&self) -> Bell<'_, Cvm, Host, HostLock<bell::State>> {
        Bell {
            shared: &self.shared,
            state: &self.state,
            kernel: &self.cvm,
            monitor: &self.host,
        }
    }

    pub fn ring(&self, units: u64, nonblock: bool) -> Result<()> {
        self.bell().ring(units, nonblock)
    }

    pub fn take(&self, nonblock: bool) -> Result<u64> {
        let mut taken = 0;
        self.bell().take(nonblock, |units| {
            taken = units;
            Ok(())
        })?;
        Ok(taken)
    }
}

/// A file's node.
pub struct FileNode {
    pub cvm: Arc<Cvm>,
    state: HostLock<file::State<HostPin>>,
    host: Host,
}

impl FileNode {
    pub fn new(cvm: &Arc<Cvm>) -> FileNode {
        FileNode {
            cvm: cvm.clone(),
            state: HostLock::new(file::State::new()),
            host: Host {
                world: cvm.world.clone(),
                cvm: cvm.clone(),
                endpoint: Weak::<Endpoint>::new(),
            },
        }
    }

    pub fn file(&self) -> File<'_, Cvm, Host, HostLock<file::State<HostPin>>> {
        File {
            state: &self.state,
            kernel: &self.cvm,
            monitor: &self.host,
        }
    }
}
