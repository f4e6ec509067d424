// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One cVM: put together, run on a thread of its own, and taken apart.
//!
//! A cVM is taken apart by its own thread, in this order, so that nobody touches memory that is gone:
//!
//! 1. its kernel has been left;
//! 2. its devices end, with their threads, and let go of its memory;
//! 3. what it published is revoked: nobody comes in any more, and whoever is in is waited for;
//! 4. its peers are told;
//! 5. its range is unmapped, and only then is its end reported.
//!
//! Others may still raise interrupts at any time: they do so through memory of the monitor's.

use std::cell::{Cell, RefCell};
use std::ops;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capstream_abi::boot::{HEAD, PAGE, PATCH_AREA, PORTAL_STACK_SIZE, PORTAL_STACKS, VIRTIO_MAX};
use capstream_abi::{Layout, irq};
use capstream_capability::{Capability, CapabilityError, Limits, RegistryError};
use capstream_config::{Grants, Overlay};
use capstream_virtio::{
    Block, BlockError, BlockOptions, Device, GuestMemory, MmioTransport, NetCounters,
};

use crate::boot::{Boot, BootError};
use crate::console::{Console, ConsoleWriter, given_up};
use crate::exchange::{CvmTable, Exchange};
use crate::exit_code::Outcome;
use crate::grants::CvmGrants;
use crate::hostcall::{CvmCalls, Parts};
use crate::image::{Image, ImageError};
use crate::kernel_log::KernelLog;
use crate::network::{self, Network, NetworkError, NetworkSpec};
use crate::outlets::{LineSplitter, Outlets, ProgramOutput, Source};
use crate::output_limit::OutputLimit;
use crate::overlay_disk::{self, InMemory, OverlayError};
use crate::platform::{AddressSpace, Ended, Placement, Platform, PlatformError, Protection, Vcpu};
use crate::receiver::{PortalFailed, PortalStacks, Receiver};
use crate::run_directory::RunDirectory;
use crate::sealed_set::{SealedSet, authority, object_type, sealed_set};
use crate::send_quota::SendQuota;
use crate::standard_streams::StandardStreams;
use crate::statistics::{self, CvmStatistics, Range};
use crate::timings::{Event, Timings};
use crate::trace::Tracer;
use crate::vcpu_record::VcpuRecord;

/// Memory of a cVM that does not say how much it wants.
const DEFAULT_RAM: u64 = 256 << 20;
/// Least memory that a kernel can start with.
const MIN_RAM: u64 = 4 << 20;
/// Ranges of cVMs that do not say where they want to be are multiples of this.
const GRANULE: u64 = 2 << 20;
/// The stack of a vCPU's thread, for the monitor's code.
const THREAD_STACK: usize = 1 << 20;
/// How many lines of its log are shown when a kernel panics.
const LAST_LINES: usize = 20;

/// What a cVM is to be.
#[derive(Clone, Debug)]
pub struct CvmSpec {
    /// Its name.
    pub name: String,
    /// Its disk image.
    pub disk: Option<PathBuf>,
    /// Where changes of the disk go.
    pub overlay: Overlay,
    /// How large an image for them is made, in bytes.
    pub overlay_size: u64,
    /// Its program and arguments.
    pub args: Vec<String>,
    /// Variables of the program's environment, each `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where the program starts.
    pub directory: Option<String>,
    /// As whom it runs.
    pub user: Option<String>,
    /// The name that programs see, if not that of the cVM.
    pub hostname: Option<String>,
    /// Where its range is.
    pub placement: Placement,
    /// Bytes of its range; by default what is needed for its memory.
    pub size: Option<u64>,
    /// First byte that it may touch, if not the first of its range.
    pub begin: Option<u64>,
    /// Byte after the last that it may touch, if not the end of its range.
    pub end: Option<u64>,
    /// How much processor time a portal of its may take.
    pub portal_deadline: Duration,
    /// Whether its capabilities lack the software-defined permissions.
    pub clean_room: bool,
    /// What it may publish and use.
    pub grants: Grants,
    /// How much of each it may take.
    pub limits: capstream_config::Limits,
    /// Its network, if it has one.
    pub network: Option<NetworkSpec>,
    /// What operators see of it.
    pub outlets: Arc<Outlets>,
    /// Whether it has run before: its log goes on then.
    pub again: bool,
}

/// What all cVMs of a run have in common.
pub struct Environment {
    /// What they run on.
    pub platform: Arc<dyn Platform>,
    /// What they share.
    pub exchange: Arc<Exchange>,
    /// Where the monitor's own lines go.
    pub console: Arc<Console>,
    /// Where what programs write to their console goes.
    pub terminal: Arc<Console>,
    /// The standard streams, when they are those of the only cVM's program.
    pub streams: Option<Arc<StandardStreams>>,
    /// Where logs go, if anywhere.
    pub run_directory: Option<RunDirectory>,
    /// Whether to tell what happens.
    pub verbose: bool,
    /// Whether there is one cVM only: its output goes out as it is, and input goes to it.
    pub single: bool,
    /// When the monitor started.
    pub start: Instant,
    /// More for the kernels' command lines.
    pub kernel_args: String,
    /// Where what vCPUs do is written, if anywhere.
    pub trace: Option<Arc<Tracer>>,
}

impl Environment {
    /// Whether the console of a cVM reads standard input.
    pub fn reads_standard_input(&self) -> bool {
        let is_terminal = StandardStreams::input_is_terminal;
        self.single && self.streams.as_deref().is_none_or(is_terminal)
    }
}

/// Why a cVM was not started.
#[derive(Debug, thiserror::Error)]
pub enum CvmError {
    /// Its range is too small or not in whole pages.
    #[error(
        "its range has {size:#x} bytes; use whole pages of {PAGE:#x}, and {least:#x} bytes or more"
    )]
    Size {
        /// What it has.
        size: u64,
        /// What it needs.
        least: u64,
    },
    /// Its bounds are not in its range.
    #[error("its bounds [{begin:#x}, {end:#x}) are not a part of its range: {source}")]
    Bounds {
        /// First byte.
        begin: u64,
        /// Byte after them.
        end: u64,
        /// What the capability says.
        source: CapabilityError,
    },
    /// Its capabilities cannot be sealed.
    #[error("its capabilities cannot be sealed: {0}; end other cVMs")]
    SealedSet(#[source] CapabilityError),
    /// See the source.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// See the source.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// See the source.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// See the source.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its disk cannot be used.
    #[error(transparent)]
    Disk(#[from] BlockError),
    /// Its network cannot be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// There is no place for changes of its disk.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// Its memory cannot be given to a device.
    #[error("its memory cannot be used by devices: {0}")]
    DeviceMemory(#[from] capstream_virtio::memory::MemoryError),
    /// There is no thread for it.
    #[error("no thread could be started for it: {source}; end other programs")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// The end of a cVM, told by its thread when everything of it is gone.
#[derive(Debug)]
pub struct EndOfCvm {
    /// Its number in the deployment.
    pub index: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The last lines of its kernel's log.
    pub last_lines: Vec<String>,
}

/// A cVM that runs.
pub struct Cvm {
    /// How others see it.
    pub receiver: Arc<Receiver>,
    /// When what happened to it.
    pub timings: Arc<Timings>,
    name: String,
    record: Arc<VcpuRecord>,
    range: Range,
    network: Option<Arc<NetCounters>>,
    thread: JoinHandle<()>,
}

impl Cvm {
    /// What it did since its start.
    pub fn statistics(&self) -> CvmStatistics {
        statistics::of_cvm(
            &self.name,
            self.receiver.number(),
            &self.record,
            self.receiver.ledger().total(),
            self.range,
            self.network.as_deref(),
        )
    }

    /// Waits for the thread, which has told its end.
    pub fn join(self) {
        // A panic was reported as an end already.
        let _ = self.thread.join();
    }
}

/// How much a cVM with these limits may publish and use.
fn table_limits(limits: &capstream_config::Limits) -> Limits {
    let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        streams: count(limits.streams),
        files: count(limits.files),
        handles: count(limits.handles),
    }
}

/// What the range of an image needs beside memory for the kernel.
fn overhead(image: &Image) -> u64 {
    image.size() + HEAD + PORTAL_STACKS * PORTAL_STACK_SIZE + PATCH_AREA
}

/// Puts a cVM together and starts it. `tell` makes what is sent to `events` of its end.
///
/// # Errors
///
/// [`CvmError`]; nothing of it is left then.
pub fn start<E: Send + 'static>(
    index: usize,
    spec: &CvmSpec,
    image: &Image,
    environment: &Environment,
    events: Sender<E>,
    tell: fn(EndOfCvm) -> E,
) -> Result<Cvm, CvmError> {
    let Environment {
        platform, exchange, ..
    } = environment;
    let least = overhead(image) + MIN_RAM;
    let size = match spec.size {
        Some(size) => size,
        None => spec
            .limits
            .memory
            .unwrap_or(DEFAULT_RAM)
            .checked_add(overhead(image))
            .and_then(|size| size.checked_next_multiple_of(GRANULE))
            .unwrap_or(u64::MAX),
    };
    let too_small = CvmError::Size { size, least };
    if !size.is_multiple_of(PAGE) || size < least {
        return Err(too_small);
    }
    let space = platform.reserve(spec.placement, size)?;
    let Some(layout) = Layout::new(space.begin(), size, image.size(), MIN_RAM) else {
        return Err(too_small);
    };
    let layout = spec
        .limits
        .memory
        .map_or(layout, |memory| layout.limit_memory(memory));
    let bounds = (
        spec.begin.unwrap_or(layout.base),
        spec.end.unwrap_or(layout.end),
    );
    let authority = authority(layout.base, size)
        .and_then(|all| all.restrict(bounds.0, bounds.1.saturating_sub(bounds.0)))
        .map_err(|source| CvmError::Bounds {
            begin: bounds.0,
            end: bounds.1,
            source,
        })?;

    image.load(&*space)?;
    if layout.patch_end() < layout.end {
        // Memory beyond the limit cannot be taken by address either.
        let len = layout.end - layout.patch_end();
        space.protect(layout.patch_end(), len, Protection::NONE)?;
    }
    exchange
        .watchdog()
        .start()
        .map_err(|source| CvmError::Thread { source })?;
    let table = exchange.register(table_limits(&spec.limits))?;
    let place = Place {
        space,
        layout,
        authority,
        table: Arc::clone(&table),
    };
    assemble(index, spec, image, environment, place, (events, tell)).inspect_err(|_| {
        // Nothing was published, so nobody can be inside.
        if let Err(error) = exchange.unregister(&table) {
            tracing::error!(cvm = spec.name, %error, "its number stays taken");
        }
    })
}

/// Where a cVM is to be.
struct Place {
    space: Arc<dyn AddressSpace>,
    layout: Layout,
    authority: Capability,
    table: Arc<CvmTable>,
}

/// Fills the place of a cVM and starts its thread.
fn assemble<E: Send + 'static>(
    index: usize,
    spec: &CvmSpec,
    image: &Image,
    environment: &Environment,
    place: Place,
    (events, tell): (Sender<E>, fn(EndOfCvm) -> E),
) -> Result<Cvm, CvmError> {
    let Environment {
        platform,
        exchange,
        console,
        ..
    } = environment;
    let Place {
        space,
        layout,
        authority,
        table,
    } = place;
    let timings = Arc::new(Timings::new(environment.start));
    let set = sealed_set(&authority, object_type(table.owner()), spec.clean_room)
        .map_err(CvmError::SealedSet)?;
    PortalStacks::guard(&*space, &layout)?;
    let number = table.owner().generation();
    let ring = environment.trace.as_ref();
    let ring = ring.map(|trace| trace.cvm(&spec.name, number));
    let record = Arc::new(VcpuRecord::new(ring));
    let entry = layout.base + image.entry();
    let vcpu = platform.vcpu(&space, &layout, &set, entry, Arc::clone(&record))?;

    let receiver = Arc::new(Receiver::new(
        table.owner(),
        authority,
        vcpu.line(),
        &layout,
        space.addressing(),
        spec.portal_deadline,
    ));
    exchange.set_line(table.owner(), vcpu.line());
    exchange.set_name(table.owner(), &spec.name);
    if environment.verbose {
        describe(spec, &layout, &receiver, &set, environment);
    }

    let mut parts = Parts {
        name: spec.name.clone(),
        platform: Arc::clone(platform),
        space: Arc::clone(&space),
        layout,
        receiver: Arc::clone(&receiver),
        exchange: Arc::clone(exchange),
        table,
        console: Arc::clone(console),
        output: RefCell::new(ProgramOutput::new(
            ConsoleWriter::new(
                Arc::clone(&environment.terminal),
                (!environment.single).then(|| format!("{}: ", spec.name)),
            ),
            Arc::clone(&spec.outlets),
        )),
        outlets: Arc::clone(&spec.outlets),
        streams: environment.streams.clone(),
        log: RefCell::new(kernel_log(spec, environment)),
        grants: CvmGrants::new(&spec.name, &spec.grants),
        send_quota: SendQuota::new(&spec.limits),
        output_limit: OutputLimit::new(spec.limits.log_rate),
        output_gap: Cell::default(),
        log_gap: Cell::default(),
        devices: Vec::new(),
        network: None,
        timings: Arc::clone(&timings),
        record: Arc::clone(&record),
    };
    (parts.devices, parts.network) = devices(spec, &parts)?;
    let mut kernel_args = environment.platform.kernel_args().to_owned();
    if !kernel_args.is_empty() {
        kernel_args.push(' ');
    }
    if let Some(network) = &parts.network {
        kernel_args += &network.kernel_args;
        kernel_args.push(' ');
    }
    kernel_args += &environment.kernel_args;
    if let Some(buffers) = spec.limits.buffers {
        // The last one counts.
        kernel_args += &format!(" capstream.buffers={buffers}");
    }
    let boot = Boot {
        name: &spec.name,
        args: &spec.args,
        env: &spec.env,
        options: &start_options(spec, environment.streams.as_deref()),
        disk: spec.disk.is_some(),
        kernel_args: kernel_args.trim(),
        virtio_count: parts.devices.len(),
        vector: platform.vector_state(),
    };
    boot.write(&*space, &layout)?;
    timings.record(Event::Loaded);
    let range = Range {
        begin: space.host_pointer(layout.base) as u64,
        size: layout.end - layout.base,
    };
    drop(space);
    let network = parts.network.as_ref();
    let network = network.map(|network| Arc::clone(&network.counters));
    let thread = spawn(index, vcpu, parts, events, tell)?;
    Ok(Cvm {
        receiver,
        timings,
        name: spec.name.clone(),
        record,
        range,
        network,
        thread,
    })
}

fn describe(
    spec: &CvmSpec,
    layout: &Layout,
    receiver: &Receiver,
    set: &SealedSet,
    environment: &Environment,
) {
    let Layout { base, end, .. } = layout;
    let console = &environment.console;
    console.line(&format!(
        "BUILDING cvm: name={}, base={base:#x}, size={:#x}, begin={:#x}, end={:#x}, platform={}, args={}",
        spec.name,
        end - base,
        receiver.authority().base(),
        receiver.authority().top(),
        environment.platform.name(),
        spec.args.join(" "),
    ));
    for entry in set.entries() {
        console.line(&format!(
            "{}, {}",
            entry.capability.named(entry.name),
            entry.what
        ));
    }
}

fn kernel_log(spec: &CvmSpec, environment: &Environment) -> KernelLog {
    let file = environment.run_directory.as_ref().and_then(|directory| {
        directory
            .open_log(&spec.name, spec.again)
            .inspect_err(
                |error| tracing::warn!(cvm = spec.name, %error, "its kernel log is not kept"),
            )
            .ok()
    });
    let echo = environment.verbose.then(|| {
        let prefix = if environment.single {
            String::new()
        } else {
            format!("{}: ", spec.name)
        };
        ConsoleWriter::new(Arc::clone(&environment.console), Some(prefix))
    });
    let lines = LineSplitter::new(Arc::clone(&spec.outlets), Source::Kernel);
    KernelLog::new(file, echo, Some(lines))
}

/// What of a cVM's range its devices may touch on its behalf.
#[derive(Debug, PartialEq, Eq)]
struct DeviceReach {
    whole: ops::Range<u64>,
    /// In it, and not for devices.
    hole: Option<ops::Range<u64>>,
    /// What the devices touch by themselves.
    plain: ops::Range<u64>,
}

/// What the cVM itself may touch, without what the monitor has put between its image and its memory.
fn device_reach(layout: &Layout, authority: &Capability) -> DeviceReach {
    let top = u64::try_from(authority.top()).unwrap_or(u64::MAX);
    let own = layout.boot..layout.ram_begin;
    let begin = if authority.base() < own.start {
        authority.base()
    } else {
        authority.base().max(own.end)
    };
    let end = top.max(begin);
    let plain = layout.ram_begin.max(begin)..layout.ram_end.min(end);
    DeviceReach {
        whole: begin..end,
        hole: (begin < own.start && own.end < end).then_some(own),
        plain,
    }
}

/// The disks of a cVM: its own, and the one with changes of it.
fn disks(spec: &CvmSpec) -> Result<Vec<Block>, CvmError> {
    let Some(path) = &spec.disk else {
        return Ok(Vec::new());
    };
    let own = BlockOptions {
        read_only: spec.overlay != Overlay::None,
        ..BlockOptions::default()
    };
    let mut disks = vec![Block::open(path, &own)?];
    let options = BlockOptions {
        id: Some("overlay".to_owned()),
        ..BlockOptions::default()
    };
    match &spec.overlay {
        Overlay::None => {}
        Overlay::Memory => {
            // The disk keeps it open.
            let image = InMemory::new(spec.overlay_size)?;
            disks.push(Block::open(image.path(), &options)?);
        }
        Overlay::Disk(path) => {
            overlay_disk::ensure(path, spec.overlay_size)?;
            disks.push(Block::open(path, &options)?);
        }
    }
    Ok(disks)
}

/// What process 1 is told about how to start the program, see `arch/lkl/init/start.h`.
fn start_options(spec: &CvmSpec, streams: Option<&StandardStreams>) -> Vec<String> {
    // The second of its disks.
    let overlay = (spec.overlay != Overlay::None).then(|| "/dev/vdb".to_owned());
    let hostname = spec.hostname.clone().or_else(|| {
        let fits = capstream_config::is_hostname(&spec.name);
        fits.then(|| spec.name.clone())
    });
    [
        ("directory", spec.directory.clone()),
        ("user", spec.user.clone()),
        ("hostname", hostname),
        ("overlay", overlay),
        ("streams", streams.map(StandardStreams::kinds)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
    .collect()
}

/// Its devices, in the order in which its kernel finds them, and what its network interface leads to.
fn devices(
    spec: &CvmSpec,
    parts: &Parts,
) -> Result<(Vec<MmioTransport>, Option<Network>), CvmError> {
    let mut list: Vec<Box<dyn Device>> = Vec::new();
    let mut network = None;
    for disk in disks(spec)? {
        list.push(Box::new(disk));
    }
    if let Some(wanted) = &spec.network {
        let (interface, leads_to) = network::connect(&spec.name, wanted)?;
        list.push(Box::new(interface));
        network = Some(leads_to);
    }
    const { assert!(VIRTIO_MAX >= 3) };
    if list.is_empty() {
        return Ok((Vec::new(), network));
    }
    let memory = device_memory(parts)?;
    let transports = (irq::VIRTIO_FIRST..).zip(list).map(|(number, device)| {
        let line = Arc::clone(parts.receiver.line());
        let interrupt = Arc::new(move || line.raise(number));
        MmioTransport::new(device, memory.clone(), interrupt)
    });
    Ok((transports.collect(), network))
}

/// What of its memory its devices reach.
fn device_memory(parts: &Parts) -> Result<GuestMemory, CvmError> {
    let addressing = parts.space.addressing();
    let DeviceReach { whole, hole, plain } =
        device_reach(&parts.layout, parts.receiver.authority());
    let len = usize::try_from(whole.end - whole.start).unwrap_or(usize::MAX);
    let to_code =
        |range: ops::Range<u64>| addressing.to_code(range.start)..addressing.to_code(range.end);
    // SAFETY: the range stays mapped until the devices have been dropped, see `take_apart`; what is in it belongs to the cVM, and the part
    // that the devices touch themselves always stays readable and writable.
    let mut memory = unsafe {
        GuestMemory::from_raw_parts(
            addressing.to_code(whole.start),
            parts.space.host_pointer(whole.start),
            len,
        )?
    };
    if let Some(hole) = hole {
        memory = memory.without(to_code(hole))?;
    }
    Ok(memory.with_plain_part(to_code(plain))?)
}

fn spawn<E: Send + 'static>(
    index: usize,
    vcpu: Box<dyn Vcpu>,
    parts: Parts,
    events: Sender<E>,
    tell: fn(EndOfCvm) -> E,
) -> Result<JoinHandle<()>, CvmError> {
    std::thread::Builder::new()
        .name(format!("cvm {}", parts.name))
        .stack_size(THREAD_STACK)
        .spawn(move || {
            let end = run(index, vcpu, parts);
            // Nobody listens when the monitor is ending.
            let _ = events.send(tell(end));
        })
        .map_err(|source| CvmError::Thread { source })
}

/// A cVM's thread.
fn run(index: usize, vcpu: Box<dyn Vcpu>, parts: Parts) -> EndOfCvm {
    let boot = parts.layout.boot;
    let receiver = Arc::clone(&parts.receiver);
    let timings = Arc::clone(&parts.timings);
    let record = Arc::clone(&parts.record);
    let calls = CvmCalls::new(parts);
    timings.record(Event::Entered);
    record.thread_begins();
    let ended = vcpu.run(boot, &calls);
    record.thread_ends();
    timings.record(Event::Ended);
    let (said, parts) = calls.finish();
    let outcome = match ended {
        Ok(Ended::PoweredOff) => said.unwrap_or(Outcome::Refused("powered off without a reason")),
        Ok(Ended::Killed) => match receiver.failure() {
            Some(PortalFailed::Faulted(report)) => Outcome::PortalFaulted(Box::new(*report)),
            Some(PortalFailed::Stuck) => Outcome::PortalStuck,
            None => Outcome::Killed,
        },
        Ok(Ended::Faulted(report)) => Outcome::Faulted(Box::new(report)),
        Ok(Ended::MonitorPanicked) => Outcome::MonitorFailed(
            "a hostcall panicked; this is a bug of the monitor, please report it".to_owned(),
        ),
        Err(error) => Outcome::MonitorFailed(error.to_string()),
    };
    let out_of_memory = parts.log.borrow().was_out_of_memory();
    let last_lines = take_apart(parts);
    let outcome = if out_of_memory {
        outcome.when_out_of_memory()
    } else {
        outcome
    };
    EndOfCvm {
        index,
        outcome,
        last_lines,
    }
}

/// Gives everything back. Returns the last lines of the kernel's log.
fn take_apart(mut parts: Parts) -> Vec<String> {
    parts.devices.clear();
    parts.network = None;
    parts.outlets.input.forget_line();
    if let Some(streams) = &parts.streams {
        streams.forget_line();
    }
    // Others may be writing at the moment, and what comes last is not lost for that.
    let output = parts.output.get_mut();
    parts
        .output_limit
        .tell(&parts.output_gap, |bytes| output.write(bytes, &given_up()));
    output.finish();
    let log = parts.log.get_mut();
    parts
        .output_limit
        .tell(&parts.log_gap, |bytes| log.write(bytes, &given_up()));
    log.finish();
    let last_lines = log.last_lines(LAST_LINES);
    if let Err(error) = parts.exchange.revoke_all(&parts.table, &parts.receiver) {
        tracing::error!(cvm = parts.name, %error, "its memory is kept until the monitor ends");
        // Leaked on purpose: somebody still uses it.
        std::mem::forget(Arc::clone(&parts.space));
    }
    last_lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_reach_no_further_than_the_cvm() {
        let layout = Layout::new(0x1000_0000, 64 << 20, 0x20_0000, MIN_RAM).unwrap();
        let own = layout.boot..layout.ram_begin;
        let reach = |begin, end| {
            let authority = Capability::root().restrict(begin, end - begin).unwrap();
            device_reach(&layout, &authority)
        };
        let all = reach(layout.base, layout.end);
        assert_eq!(all.whole, layout.base..layout.end);
        assert_eq!(all.hole, Some(own.clone()));
        assert_eq!(all.plain, layout.ram_begin..layout.ram_end);
        // Without the image, and without the end of the memory.
        let inner = (layout.ram_begin + PAGE, layout.ram_end - PAGE);
        let narrow = reach(inner.0, inner.1);
        assert_eq!(narrow.whole, inner.0..inner.1);
        assert_eq!(narrow.hole, None);
        assert_eq!(narrow.plain, inner.0..inner.1);
        // From the monitor's own pages on.
        let between = reach(layout.boot + PAGE, layout.end);
        assert_eq!(between.whole, layout.ram_begin..layout.end);
        assert_eq!(between.hole, None);
        // Nothing of the memory: then there is nothing for a device.
        let image = reach(layout.base, layout.boot);
        assert!(image.plain.is_empty());
    }
}
