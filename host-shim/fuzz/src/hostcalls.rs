// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hostcalls: two cVMs that make any of them with any arguments, to the monitor and, by streams and files, to each other.
//!
//! The processor and the two address spaces are this module's. Both check every access that the monitor makes on behalf of a cVM against a
//! model of what that cVM was granted; the model knows only what hostcalls returned. Device registers are real, with a real disk.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use capstream_abi::boot::{
    HEAD, MMIO_BASE, MMIO_STRIDE, PATCH_AREA, PORTAL_STACK_SIZE, PORTAL_STACKS,
};
use capstream_abi::{GuestEntries, Hostcall, KEY_LEN, Layout, passes_memory};
use capstream_capability::{Capability, Permissions};
use capstream_config::{Grants, Limits};
use capstream_monitor::console::{Console, ConsoleWriter};
use capstream_monitor::exchange::Exchange;
use capstream_monitor::grants::CvmGrants;
use capstream_monitor::hostcall::{CvmCalls, Parts};
use capstream_monitor::kernel_log::KernelLog;
use capstream_monitor::outlets::{Outlets, ProgramOutput};
use capstream_monitor::output_limit::OutputLimit;
use capstream_monitor::platform::{
    AddressSpace, Addressing, Fault, FaultReport, Hostcalls, Placement, Platform, PlatformError,
    PortalCall, PortalFailure, PortalRun, Processor, Protection, Vcpu, VcpuLine, VectorState,
};
use capstream_monitor::receiver::Receiver;
use capstream_monitor::sealed_set::SealedSet;
use capstream_monitor::send_quota::SendQuota;
use capstream_monitor::timings::Timings;
use capstream_monitor::vcpu_record::VcpuRecord;
use capstream_virtio::{Block, BlockOptions, MmioTransport};

use crate::arena::{Arena, PAGE};
use crate::number::near;

const IMAGE: u64 = 4 * PAGE;
const RAM: u64 = 16 * PAGE;
/// Bytes of one cVM's range.
const SIZE: u64 = IMAGE + HEAD + PORTAL_STACKS * PORTAL_STACK_SIZE + RAM + PATCH_AREA;
const MOST_CALLS: usize = 64;
const MAX_ERRNO: i64 = 4095;

/// Makes hostcalls by what `bytes` say.
pub fn run(bytes: &[u8]) {
    let _ = drive(&mut Unstructured::new(bytes));
}

/// A platform that has a machine and a clock, and nothing else.
#[derive(Debug, Default)]
pub struct TestPlatform {
    clock: AtomicU64,
}

impl Platform for TestPlatform {
    fn name(&self) -> &'static str {
        "test"
    }

    fn machine(&self) -> (u16, u32) {
        (object::elf::EM_X86_64, object::elf::R_X86_64_RELATIVE)
    }

    fn runtime_suffix(&self) -> &'static str {
        ""
    }

    fn system_call_len(&self) -> u64 {
        2
    }

    fn vector_state(&self) -> VectorState {
        VectorState { size: 576, mask: 3 }
    }

    fn reserve(
        &self,
        _placement: Placement,
        size: u64,
    ) -> std::result::Result<Arc<dyn AddressSpace>, PlatformError> {
        Err(PlatformError::NoRoom { size })
    }

    fn vcpu(
        &self,
        _space: &Arc<dyn AddressSpace>,
        _layout: &Layout,
        _set: &SealedSet,
        _entry: u64,
        _record: Arc<VcpuRecord>,
    ) -> std::result::Result<Box<dyn Vcpu>, PlatformError> {
        Err(PlatformError::TooManyVcpus { max: 0 })
    }

    fn prepare_in_background(&self) {}

    fn now_ns(&self) -> u64 {
        self.clock.fetch_add(1_000_003, Ordering::Relaxed)
    }
}

/// The line to a vCPU that does not run.
#[derive(Default)]
struct Line {
    killed: AtomicBool,
}

impl VcpuLine for Line {
    fn raise(&self, irq: u32) {
        assert!(irq < 64);
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    fn abandon_portal(&self, _owner: u64) {}

    fn in_portal_of(&self) -> Option<u64> {
        None
    }

    fn portal_run(&self) -> Option<PortalRun> {
        None
    }

    fn processor_time(&self) -> Option<Duration> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn within(inner: &Range<u64>, outer: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.start <= inner.end && inner.end <= outer.end
}

/// The memory of one cVM: a part of the arena. What the monitor does with it has to be inside the cVM's authority.
struct Space {
    arena: Arc<Arena>,
    range: Range<u64>,
    authority: Range<u64>,
    image: Range<u64>,
    addressing: Addressing,
}

impl Space {
    fn check(&self, address: u64, len: u64) -> Range<u64> {
        let end = address.checked_add(len).expect("no wrap-around");
        let range = address..end;
        assert!(
            within(&range, &self.authority),
            "{range:x?} is outside of {:x?}",
            self.authority
        );
        range
    }

    /// Whether a store there would fault, as one to the text of the image does.
    fn is_protected(&self, range: &Range<u64>) -> bool {
        range.start < range.end && range.start < self.image.end && self.image.start < range.end
    }
}

impl AddressSpace for Space {
    fn begin(&self) -> u64 {
        self.range.start
    }

    fn end(&self) -> u64 {
        self.range.end
    }

    fn addressing(&self) -> Addressing {
        self.addressing
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> std::result::Result<(), Fault> {
        let range = self.check(address, buffer.len() as u64);
        buffer.copy_from_slice(&self.arena.read(range));
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> std::result::Result<(), Fault> {
        let range = self.check(address, bytes.len() as u64);
        if self.is_protected(&range) {
            return Err(Fault);
        }
        self.arena.write(address, bytes);
        Ok(())
    }

    fn map_file(
        &self,
        address: u64,
        _file: &File,
        _offset: u64,
        _len: u64,
    ) -> std::result::Result<(), PlatformError> {
        panic!("a file was mapped at {address:#x}");
    }

    fn protect(
        &self,
        address: u64,
        len: u64,
        _protection: Protection,
    ) -> std::result::Result<(), PlatformError> {
        assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE));
        self.check(address, len);
        Ok(())
    }

    fn discard(&self, address: u64, len: u64) -> std::result::Result<(), PlatformError> {
        assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0);
        let range = self.check(address, len);
        assert!(!self.is_protected(&range), "{range:x?} was discarded");
        self.arena.write(address, &vec![0; len as usize]);
        Ok(())
    }

    fn host_pointer(&self, address: u64) -> *mut u8 {
        address as *mut u8
    }
}

/// A range that was published.
#[derive(Debug)]
struct Published {
    range: Range<u64>,
    writable: bool,
    live: Cell<bool>,
}

/// What hostcalls said about what a cVM has.
#[derive(Default)]
struct Granted {
    /// By id.
    files: HashMap<u64, std::rc::Rc<Published>>,
    streams: HashMap<u64, std::rc::Rc<Cell<bool>>>,
    /// By handle.
    attached: HashMap<u64, std::rc::Rc<Published>>,
    connected: HashMap<u64, ()>,
}

/// What may be copied while one hostcall is answered.
#[derive(Clone, Debug)]
struct Allowed {
    from: Range<u64>,
    to: Range<u64>,
}

struct Guest {
    calls: CvmCalls,
    authority: Range<u64>,
    layout: Layout,
    addressing: Addressing,
    receiver: Arc<Receiver>,
    line: Arc<Line>,
    granted: RefCell<Granted>,
}

struct World<'a> {
    arena: Arc<Arena>,
    guests: Vec<Guest>,
    /// Published under this key, by either.
    keys: RefCell<HashMap<Vec<u8>, std::rc::Rc<Published>>>,
    input: RefCell<&'a mut Unstructured<'a>>,
}

/// The processor of one guest, for one hostcall.
struct Cpu<'w, 'a> {
    world: &'w World<'a>,
    guest: usize,
    /// Whose portal runs.
    portal: Cell<Option<usize>>,
    allowed: RefCell<Option<Allowed>>,
    off: Cell<bool>,
    patience: Cell<u32>,
}

impl Cpu<'_, '_> {
    fn guest(&self) -> &Guest {
        &self.world.guests[self.guest]
    }
}

impl Processor for Cpu<'_, '_> {
    fn in_portal(&self) -> bool {
        self.portal.get().is_some()
    }

    fn is_killed(&self) -> bool {
        // Long ones are cut off, as if somebody waited for the end of the cVM.
        self.patience.set(self.patience.get().saturating_sub(1));
        self.patience.get() == 0 || self.guest().line.killed.load(Ordering::Relaxed)
    }

    fn call_portal(
        &self,
        call: &PortalCall,
        _owner: &dyn VcpuLine,
    ) -> std::result::Result<i64, PortalFailure> {
        let (owner, receiver) = self
            .world
            .guests
            .iter()
            .enumerate()
            .find(|(_, guest)| guest.receiver.number() == call.owner)
            .expect("the portal is some cVM's");
        let layout = &receiver.layout;
        assert!((layout.base..layout.boot).contains(&call.function));
        let stacks = layout.portal_stacks..layout.portal_stacks + PORTAL_STACKS * PORTAL_STACK_SIZE;
        assert!(stacks.start < call.stack && call.stack <= stacks.end);
        assert_eq!((call.stack - stacks.start) % PORTAL_STACK_SIZE, 0);
        let message = self.allowed.borrow().clone().map(|allowed| allowed.from);
        if passes_memory(call.operation) {
            let message = message.as_ref().expect("a message");
            assert_eq!(call.len, message.end - message.start);
        } else {
            assert_eq!(call.len, 0);
        }
        self.portal.set(Some(owner));
        let end = self.run_portal(message, owner);
        self.portal.set(None);
        end.unwrap_or(Ok(0))
    }

    fn take_portal_fault(&self) -> Option<FaultReport> {
        None
    }

    fn copy(&self, destination: u64, source: u64, len: u64) -> std::result::Result<(), Fault> {
        let from = source..source.checked_add(len).expect("no wrap-around");
        let to = destination..destination.checked_add(len).expect("no wrap-around");
        let allowed = self
            .allowed
            .borrow()
            .clone()
            .expect("nothing may be copied");
        assert!(
            len == 0 || within(&from, &allowed.from) && within(&to, &allowed.to),
            "{from:x?} to {to:x?} instead of {allowed:x?}"
        );
        for guest in &self.world.guests {
            let image = guest.layout.base..guest.layout.boot;
            if len > 0 && to.start < image.end && image.start < to.end {
                return Err(Fault);
            }
        }
        let bytes = self.world.arena.read(from);
        self.world.arena.write(destination, &bytes);
        Ok(())
    }

    fn set_entries(&self, entries: &GuestEntries) -> bool {
        let layout = &self.guest().layout;
        for entry in [entries.trap_user, entries.trap_kernel] {
            assert!((layout.base..layout.boot).contains(&entry), "{entry:#x}");
        }
        true
    }

    fn raise(&self, irq: u32) {
        assert!(irq < 64);
    }

    fn wait_for_interrupt(&self) {}

    fn timer_alloc(&self) -> Option<u64> {
        Some(0)
    }

    fn timer_set(&self, timer: u64, _ns: u64) -> bool {
        timer == 0
    }

    fn timer_free(&self, timer: u64) -> bool {
        timer == 0
    }

    fn relax(&self) {}

    fn power_off(&self) {
        self.off.set(true);
    }

    fn patch_syscall(&self, ip: u64) -> i64 {
        let guest = self.guest();
        assert!(within(&(ip - 2..ip), &guest.authority));
        assert!(ip <= guest.layout.ram_end);
        0
    }

    fn translate_ip(&self, ip: u64, _direction: u64) -> i64 {
        ip as i64
    }

    fn forget_code(&self, begin: u64, end: u64) {
        assert!(within(&(begin..end), &self.guest().authority));
    }

    fn add_patches(&self, _code: Range<u64>, _stubs_at: Range<u64>) -> bool {
        true
    }

    fn set_patches(&self, stubs: u64, stubs_len: u64, code: Range<u64>, _entry: u64) -> bool {
        let layout = &self.guest().layout;
        assert_eq!((stubs, stubs + stubs_len), (layout.ram_end, layout.end));
        assert_eq!(code, layout.ram_begin..layout.ram_end);
        true
    }

    fn with_monitor_state(&self, work: &mut dyn FnMut() -> i64) -> i64 {
        work()
    }

    fn with_thread_state(&self, work: &mut dyn FnMut() -> i64) -> i64 {
        work()
    }
}

impl Cpu<'_, '_> {
    /// What a portal does: some hostcalls, and some way to end.
    fn run_portal(
        &self,
        message: Option<Range<u64>>,
        owner: usize,
    ) -> Result<std::result::Result<i64, PortalFailure>> {
        let receiver = &self.world.guests[owner];
        let len = message
            .as_ref()
            .map_or(0, |message| message.end - message.start);
        *self.allowed.borrow_mut() = Some(Allowed {
            from: message.unwrap_or(0..0),
            to: receiver.authority.clone(),
        });
        let mut input = self.world.input.borrow_mut();
        for _ in 0..input.int_in_range(0..=3_u8)? {
            let call = *input.choose(&[
                Hostcall::CallFetch,
                Hostcall::CallFetch,
                Hostcall::CallFetch,
                Hostcall::Wake,
                Hostcall::Call,
                Hostcall::TimeNs,
                Hostcall::FileWrite,
                Hostcall::ConsoleWrite,
                Hostcall::Revoke,
                Hostcall::PowerOff,
            ])?;
            let mut arguments = receiver.arguments(&mut input)?;
            if call == Hostcall::CallFetch {
                arguments[1] = near(&mut input, &[0, len])?;
                arguments[2] = near(&mut input, &[0, 1, len])?;
            }
            let number = call as u64;
            let answer = self.guest().calls.light(self, number, &arguments);
            let answer = answer.expect("a portal's hostcalls are answered at once");
            let own = matches!(
                call,
                Hostcall::CallFetch | Hostcall::Wake | Hostcall::TimeNs
            );
            assert!(own || answer < 0, "a portal may not make {call:?}");
            if call == Hostcall::CallFetch && answer == 0 {
                let end = arguments[1].checked_add(arguments[2]);
                assert!(
                    end.is_some_and(|end| end <= len),
                    "{arguments:x?} of {len:#x}"
                );
            }
        }
        let end = input.arbitrary::<u8>()?;
        Ok(match end {
            0..=7 => Err(PortalFailure::Abandoned),
            8..=11 => Err(PortalFailure::Faulted),
            12..=31 => Ok(near(&mut input, &[0, 1 << 12, 1 << 63])? as i64),
            _ => Ok(0),
        })
    }
}

impl Guest {
    /// A number for an argument: near something that this guest or the other has.
    fn argument(&self, input: &mut Unstructured<'_>) -> Result<u64> {
        let layout = &self.layout;
        let places = [
            layout.base,
            layout.boot,
            layout.vcpu,
            layout.portal_stacks,
            layout.ram_begin,
            layout.ram_begin + PAGE,
            layout.ram_end,
            layout.end,
            self.authority.start,
            self.authority.end,
            // The other one's.
            layout.end + PAGE,
            layout.base - PAGE,
        ];
        let mut anchors = places.map(|place| self.addressing.to_code(place)).to_vec();
        anchors.extend([
            0,
            1,
            2,
            16,
            PAGE,
            RAM,
            MMIO_BASE,
            MMIO_BASE + 0x50,
            MMIO_BASE + MMIO_STRIDE,
        ]);
        near(input, &anchors)
    }

    fn arguments(&self, input: &mut Unstructured<'_>) -> Result<[u64; 6]> {
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = self.argument(input)?;
        }
        Ok(arguments)
    }

    /// The range that the monitor should take `[ptr, ptr + len)` for, if it is this guest's.
    fn own(&self, ptr: u64, len: u64) -> Option<Range<u64>> {
        let begin = self.addressing.to_monitor(ptr);
        let range = begin..begin.checked_add(len)?;
        within(&range, &self.authority).then_some(range)
    }

    fn key(&self, arena: &Arena, ptr: u64) -> Option<Vec<u8>> {
        let raw = arena.read(self.own(ptr, KEY_LEN as u64)?);
        Some(raw.into_iter().take_while(|&byte| byte != 0).collect())
    }
}

fn drive<'a>(input: &'a mut Unstructured<'a>) -> Result<()> {
    let pages = SIZE / PAGE;
    let mut arena = Arena::new(3 + 2 * pages);
    let begin = arena.begin();
    let ranges = [
        begin + PAGE..begin + PAGE + SIZE,
        begin + 2 * PAGE + SIZE..begin + 2 * PAGE + 2 * SIZE,
    ];
    arena.mark(begin..ranges[0].start);
    arena.mark(ranges[0].end..ranges[1].start);
    arena.mark(ranges[1].end..arena.end());
    let arena = Arc::new(arena);
    let exchange = Arc::new(Exchange::new());
    let relative: bool = input.arbitrary()?;
    let narrow: bool = input.ratio(1, 4)?;
    let guests = ranges
        .iter()
        .map(|range| guest(&arena, range, &exchange, relative, narrow))
        .collect();
    let world = World {
        arena: Arc::clone(&arena),
        guests,
        keys: RefCell::default(),
        input: RefCell::new(input),
    };
    let result = calls(&world);
    let World { guests, .. } = world;
    for guest in guests {
        let (_, parts) = guest.calls.finish();
        exchange.revoke_all(&parts.table, &guest.receiver).unwrap();
        exchange.unregister(&parts.table).unwrap();
        drop(parts);
    }
    arena.check_marks();
    result
}

/// Where output goes: nowhere.
fn nowhere() -> &'static File {
    static NOWHERE: OnceLock<File> = OnceLock::new();
    NOWHERE.get_or_init(|| File::options().write(true).open("/dev/null").unwrap())
}

/// An image of a disk, for all guests to read.
fn disk() -> Block {
    static IMAGE: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 10).unwrap();
        file
    });
    let options = BlockOptions {
        read_only: true,
        ..BlockOptions::default()
    };
    Block::open(image.path(), &options).unwrap()
}

fn guest(
    arena: &Arc<Arena>,
    range: &Range<u64>,
    exchange: &Arc<Exchange>,
    relative: bool,
    narrow: bool,
) -> Guest {
    let layout = Layout::new(range.start, SIZE, IMAGE, RAM).unwrap();
    assert_eq!(layout.ram_end - layout.ram_begin, RAM);
    // Bounds may be narrower than the range.
    let authority = if narrow {
        layout.base + PAGE..layout.end - PAGE
    } else {
        range.clone()
    };
    let addressing = if relative {
        Addressing::new(range.start, 0)
    } else {
        Addressing::same(range.start)
    };
    let table = exchange
        .register(capstream_capability::Limits::default())
        .unwrap();
    let line = Arc::new(Line::default());
    let vcpu: Arc<dyn VcpuLine> = line.clone();
    exchange.set_line(table.owner(), Arc::clone(&vcpu));
    let rights = Permissions::all();
    let capability = Capability::root()
        .restrict(authority.start, authority.end - authority.start)
        .and_then(|all| all.and_permissions(rights))
        .unwrap();
    let receiver = Arc::new(Receiver::new(
        table.owner(),
        capability,
        vcpu,
        &layout,
        addressing,
        Duration::from_secs(1),
    ));
    let space = Space {
        arena: Arc::clone(arena),
        range: range.clone(),
        authority: authority.clone(),
        image: layout.base..layout.boot,
        addressing,
    };
    let memory = arena
        .guest_memory(range.clone())
        .with_plain_part(layout.ram_begin..layout.ram_end)
        .unwrap();
    let transport = MmioTransport::new(Box::new(disk()), memory, Arc::new(|| {}));
    let console = Arc::new(Console::new(nowhere().as_raw_fd()));
    let outlets = Arc::new(Outlets::new(false));
    let writer = ConsoleWriter::new(Arc::clone(&console), Some("guest: ".to_owned()));
    let calls = CvmCalls::new(Parts {
        name: "guest".to_owned(),
        platform: Arc::new(TestPlatform::default()),
        space: Arc::new(space),
        layout,
        receiver: Arc::clone(&receiver),
        exchange: Arc::clone(exchange),
        table,
        console,
        output: RefCell::new(ProgramOutput::new(writer, Arc::clone(&outlets))),
        outlets,
        log: RefCell::new(KernelLog::default()),
        grants: CvmGrants::new("guest", &Grants::default()),
        send_quota: SendQuota::new(&Limits::default()),
        output_limit: OutputLimit::new(Limits::default().log_rate),
        output_gap: Cell::default(),
        log_gap: Cell::default(),
        streams: None,
        devices: vec![transport],
        network: None,
        timings: Arc::new(Timings::new(Instant::now())),
        record: Arc::default(),
    });
    // Keys, entries and the like, so that calls get somewhere.
    for (slot, key) in [b"one", b"two", b"six"].iter().enumerate() {
        arena.write(layout.ram_begin + 16 * slot as u64, *key);
    }
    let entry = addressing.to_code(layout.base + 0x10);
    let entries: Vec<u8> = std::iter::repeat_n(entry.to_le_bytes(), 6)
        .flatten()
        .collect();
    arena.write(layout.ram_begin + 128, &entries);
    Guest {
        calls,
        authority,
        layout,
        addressing,
        receiver,
        line,
        granted: RefCell::default(),
    }
}

fn calls(world: &World<'_>) -> Result<()> {
    for _ in 0..MOST_CALLS {
        let mut input = world.input.borrow_mut();
        if input.is_empty() {
            break;
        }
        let me = usize::from(input.arbitrary::<bool>()?);
        let guest = &world.guests[me];
        let (number, arguments) = choose(&mut input, guest)?;
        let poke: bool = input.ratio(1, 8)?;
        if poke {
            // What a guest writes by its own instructions.
            let place = near(&mut input, &[guest.layout.ram_begin, guest.layout.ram_end])?
                .clamp(guest.layout.ram_begin, guest.layout.ram_end - 64);
            let len = input.int_in_range(0..=64_usize)?.min(input.len());
            world.arena.write(place, input.bytes(len)?);
        }
        drop(input);
        if !call(world, me, number, &arguments) {
            break;
        }
    }
    Ok(())
}

/// A number of a hostcall, and arguments: some that fit the call, the rest near what is there.
fn choose(input: &mut Unstructured<'_>, guest: &Guest) -> Result<(u64, [u64; 6])> {
    let mut arguments = guest.arguments(input)?;
    if input.ratio(1, 32)? {
        return Ok((near(input, &[0, 100, 412, 1000, 1024])?, arguments));
    }
    let call = *input.choose(Hostcall::ALL)?;
    let granted = guest.granted.borrow();
    let key = guest
        .addressing
        .to_code(guest.layout.ram_begin + 16 * u64::from(input.arbitrary::<u8>()? % 3));
    let usual = input.ratio(3, 4)?;
    let pick = |input: &mut Unstructured<'_>, mut known: Vec<u64>| -> Result<u64> {
        known.sort_unstable();
        match known.is_empty() {
            true => input.arbitrary(),
            false => Ok(*input.choose(&known)?),
        }
    };
    match call {
        _ if !usual => {}
        Hostcall::FileAdvertise => {
            arguments[2] = key;
            arguments[3] = u64::from(input.arbitrary::<u8>()? % 3);
        }
        Hostcall::StreamAdvertise => {
            arguments[0] = guest.addressing.to_code(guest.layout.base + 0x20);
            arguments[2] = key;
            arguments[4] = 0;
        }
        Hostcall::FileProbe | Hostcall::StreamProbe => {
            arguments[0] = key;
            arguments[1] = u64::from(input.arbitrary::<u8>()? % 3);
            if call == Hostcall::StreamProbe {
                arguments[2] = 0;
            }
        }
        Hostcall::FileRead | Hostcall::FileWrite => {
            arguments[0] = pick(input, granted.attached.keys().copied().collect())?;
        }
        Hostcall::Call => {
            arguments[0] = pick(input, granted.connected.keys().copied().collect())?;
            arguments[3] = u64::from(input.arbitrary::<u8>()? % 4);
        }
        Hostcall::Wait => {
            arguments[0] = pick(input, granted.connected.keys().copied().collect())?;
        }
        Hostcall::Disconnect => {
            let mut known: Vec<_> = granted.connected.keys().copied().collect();
            known.extend(granted.attached.keys());
            arguments[0] = pick(input, known)?;
        }
        Hostcall::Revoke | Hostcall::Wake => {
            let mut known: Vec<_> = granted.streams.keys().copied().collect();
            known.extend(granted.files.keys());
            arguments[0] = pick(input, known)?;
        }
        Hostcall::VcpuReady => {
            arguments[0] = guest.addressing.to_code(guest.layout.ram_begin + 128);
        }
        Hostcall::MmioRead | Hostcall::MmioWrite => {
            arguments[0] = MMIO_BASE + 4 * u64::from(input.arbitrary::<u8>()?);
            arguments[1] = 4;
        }
        _ => {}
    }
    Ok((call as u64, arguments))
}

/// Makes one hostcall and compares with the model. Returns whether the cVM goes on.
fn call(world: &World<'_>, me: usize, number: u64, arguments: &[u64; 6]) -> bool {
    let guest = &world.guests[me];
    let [a, b, c, d, ..] = *arguments;
    let known = Hostcall::from_number(number);
    let cpu = Cpu {
        world,
        guest: me,
        portal: Cell::new(None),
        allowed: RefCell::new(None),
        off: Cell::new(false),
        patience: Cell::new(400),
    };
    let attached = |handle| guest.granted.borrow().attached.get(&handle).cloned();
    let (key_a, key_c) = (guest.key(&world.arena, a), guest.key(&world.arena, c));
    *cpu.allowed.borrow_mut() = match known {
        Some(Hostcall::FileRead) => attached(a)
            .filter(|file| file.live.get())
            .zip(guest.own(c, 0))
            .map(|(file, own)| Allowed {
                from: file.range.clone(),
                to: own.start..guest.authority.end.min(own.start.saturating_add(d)),
            }),
        Some(Hostcall::FileWrite) => attached(a)
            .filter(|file| file.live.get() && file.writable)
            .zip(guest.own(c, 0))
            .map(|(file, own)| Allowed {
                from: own.start..guest.authority.end.min(own.start.saturating_add(d)),
                to: file.range.clone(),
            }),
        Some(Hostcall::Call) => {
            let message = if passes_memory(d) {
                guest.own(b, c)
            } else {
                None
            };
            message.map(|from| Allowed { from, to: 0..0 })
        }
        _ => None,
    };
    let answer = guest
        .calls
        .light(&cpu, number, arguments)
        .unwrap_or_else(|| guest.calls.full(&cpu, number, arguments));

    let Some(known) = known else {
        assert_eq!(answer, -i64::from(libc::ENOSYS), "hostcall {number}");
        return true;
    };
    // These return numbers of the guest's or of the processor's.
    let any = matches!(
        known,
        Hostcall::TimeNs | Hostcall::MmioRead | Hostcall::TranslateIp | Hostcall::Call
    );
    assert!(any || answer >= -MAX_ERRNO, "{known:?} returned {answer}");
    let mut granted = guest.granted.borrow_mut();
    let error = |errno: i32| assert_eq!(answer, -i64::from(errno), "{known:?} {arguments:x?}");
    match known {
        Hostcall::BlockRequest | Hostcall::BlockCapacity | Hostcall::CallFinish => {
            error(libc::ENOSYS);
        }
        Hostcall::CallFetch => error(libc::EPERM),
        Hostcall::ConsoleWrite | Hostcall::LogWrite | Hostcall::Random | Hostcall::ConsoleRead
            if guest.own(a, b).is_none() =>
        {
            error(libc::EFAULT);
        }
        Hostcall::FileAdvertise if answer >= 0 => {
            let range = guest.own(a, b).expect("only its own can be published");
            let published = std::rc::Rc::new(Published {
                range,
                writable: d == 0,
                live: Cell::new(true),
            });
            granted.files.insert(answer as u64, published.clone());
            world
                .keys
                .borrow_mut()
                .insert(key_c.expect("a key"), published);
        }
        Hostcall::StreamAdvertise if answer >= 0 => {
            assert!(key_c.is_some_and(|key| !key.is_empty()));
            let entry = guest.addressing.to_monitor(a);
            assert!((guest.layout.base..guest.layout.boot).contains(&entry));
            granted
                .streams
                .insert(answer as u64, std::rc::Rc::default());
        }
        Hostcall::FileProbe if answer >= 0 => {
            let keys = world.keys.borrow();
            let published = key_a.and_then(|key| keys.get(&key).cloned());
            let published = published.filter(|published| published.live.get());
            granted
                .attached
                .insert(answer as u64, published.expect("somebody publishes it"));
        }
        Hostcall::StreamProbe if answer >= 0 => {
            granted.connected.insert(answer as u64, ());
        }
        Hostcall::FileRead | Hostcall::FileWrite => match granted.attached.get(&a) {
            None => error(libc::EBADF),
            Some(file) if !file.live.get() => error(libc::ESTALE),
            Some(file) if known == Hostcall::FileWrite && !file.writable => error(libc::EACCES),
            Some(file) => {
                let there = (file.range.end - file.range.start).saturating_sub(b).min(d);
                assert!(answer <= there as i64, "{answer} of {there}");
            }
        },
        Hostcall::Wait if !granted.connected.contains_key(&a) => error(libc::EBADF),
        Hostcall::Call if !granted.connected.contains_key(&a) => {
            let expected = [libc::EBADF, libc::EFAULT, libc::EINVAL];
            assert!(
                expected.iter().any(|&errno| answer == -i64::from(errno)),
                "{answer}"
            );
        }
        Hostcall::Wake if !granted.streams.contains_key(&a) => error(libc::EBADF),
        Hostcall::Revoke => {
            let file = granted.files.get(&a);
            let known = file.is_some() || granted.streams.contains_key(&a);
            if !known {
                error(libc::EBADF);
            }
            if answer >= 0 {
                if let Some(file) = granted.files.remove(&a) {
                    file.live.set(false);
                }
                granted.streams.remove(&a);
            }
        }
        Hostcall::Disconnect => {
            let known =
                granted.attached.remove(&a).is_some() | granted.connected.remove(&a).is_some();
            if known {
                assert_eq!(answer, 0);
            } else {
                error(libc::EBADF);
            }
        }
        Hostcall::MemoryDiscard if answer >= 0 => {
            let range = guest.own(a, b).expect("only its own can be discarded");
            assert!(within(
                &range,
                &(guest.layout.ram_begin..guest.layout.ram_end)
            ));
        }
        _ => {}
    }
    !cpu.off.get()
}
