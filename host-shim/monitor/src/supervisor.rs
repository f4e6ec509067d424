// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts the cVMs of a deployment in order, watches them, and ends them when asked to.
//!
//! # States of a run
//!
//! ```text
//! Running --first signal--> Stopping (power button pressed) --second signal, or PATIENCE--> Killing --PATIENCE--> given up
//!    |                           |                                                            |
//!    +------- last cVM ended ----+------------------------------------------------------------+--> over
//! ```
//!
//! While stopping no cVM is started any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver as Events, RecvTimeoutError};
use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_capability::{Capability, Key, Mode, Permissions, Publication};
use capstream_config::{CapfileConfig, CvmConfig, Deployment, Wait};

use crate::cvm::{self, Cvm, CvmSpec, EndOfCvm, Environment};
use crate::exit_code::Outcome;
use crate::image::{Image, ImageError};
use crate::platform::{AddressSpace, Fault, Placement, Platform, PlatformError, Protection};
use crate::receiver::{PORTAL_DEADLINE, PortalFailed};
use crate::signals;

/// How long a cVM may take to power off, and how long a killed one to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a portal of another cVM may keep a killed one.
const PORTAL_PATIENCE: Duration = Duration::from_secs(1);
/// How often killed cVMs are looked at.
const STEP: Duration = Duration::from_millis(100);
const PAGE: u64 = capstream_abi::boot::PAGE;

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No runtime image was named, and there is none where one is looked for.
    #[error("there is no runtime image at {}; build it, or name one by `runtime:` in the file, --runtime or CAPSTREAM_RUNTIME", looked.display())]
    NoRuntime {
        /// Where one was looked for last.
        looked: PathBuf,
    },
    /// See the source.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// See the source.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A capfile cannot be published.
    #[error("capfile `{name}` cannot be published: {why}")]
    Capfile {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// There is no thread.
    #[error("the thread for signals could not be started: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

enum Event {
    Ended(EndOfCvm),
    Signal(i32),
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Since then.
    Stopping(Instant),
    /// Since then.
    Killing(Instant),
}

/// A run.
pub struct Supervisor {
    environment: Environment,
    timings: bool,
    /// By their number in the deployment.
    running: BTreeMap<usize, Cvm>,
    names: Vec<String>,
    images: Vec<Arc<Image>>,
    outcomes: BTreeMap<usize, Outcome>,
    phase: Phase,
    events: Events<Event>,
    sender: mpsc::Sender<Event>,
    /// The buffers of capfiles.
    _capfiles: Vec<Arc<dyn AddressSpace>>,
}

/// Where the runtime image is when nobody names one.
///
/// # Errors
///
/// [`RunError::NoRuntime`].
pub fn default_runtime(platform: &dyn Platform) -> Result<PathBuf, RunError> {
    const NAME: &str = "capstream-runtime";
    let suffix = platform.runtime_suffix();
    if let Some(path) = std::env::var_os("CAPSTREAM_RUNTIME") {
        return Ok(PathBuf::from(path));
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join(format!("{NAME}{suffix}"))));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join(format!("capstream/kernel{suffix}/{NAME}")));
    let mut looked = PathBuf::from(NAME);
    for path in beside.into_iter().chain(cache) {
        if path.is_file() {
            return Ok(path);
        }
        looked = path;
    }
    Err(RunError::NoRuntime { looked })
}

fn spec(config: &CvmConfig) -> CvmSpec {
    let isolation = &config.isolation;
    CvmSpec {
        name: config.name.clone(),
        disk: config.disk.clone(),
        args: config.args.clone(),
        placement: Placement::At(isolation.base),
        size: Some(isolation.size),
        begin: isolation.begin,
        end: isolation.end,
        portal_deadline: PORTAL_DEADLINE,
        clean_room: config.clean_room,
    }
}

/// Publishes a buffer under the monitor's own name.
fn publish(
    capfile: &CapfileConfig,
    environment: &Environment,
) -> Result<Arc<dyn AddressSpace>, RunError> {
    let failed = |why: String| RunError::Capfile {
        name: capfile.name.clone(),
        why,
    };
    let key = Key::from_name(&capfile.name).map_err(|error| failed(error.to_string()))?;
    let size = capfile
        .size
        .max(1)
        .checked_next_multiple_of(PAGE)
        .ok_or_else(|| failed("it is too large".to_owned()))?;
    let space = environment.platform.reserve(Placement::Anywhere, size)?;
    let data = Protection {
        read: true,
        write: true,
        execute: false,
    };
    space.protect(space.begin(), size, data)?;
    space
        .write(space.begin(), &capfile.data)
        .map_err(|Fault| failed("its data does not fit".to_owned()))?;
    let range = Capability::root()
        .restrict(space.begin(), capfile.size)
        .and_then(|range| range.and_permissions(Permissions::LOAD_STORE | Permissions::GLOBAL))
        .map_err(|error| failed(error.to_string()))?;
    let registry = environment.exchange.registry();
    registry
        .advertise_file(
            registry.monitor(),
            key,
            Publication {
                range,
                mode: Mode::ReadWrite,
            },
        )
        .map_err(|error| failed(error.to_string()))?;
    Ok(space)
}

impl Supervisor {
    /// Runs a deployment to its end. `runtime` is for cVMs that do not name a runtime image; `timings` prints when what happened.
    ///
    /// # Errors
    ///
    /// [`RunError`]; no cVM has been started then.
    pub fn run(
        deployment: &Deployment,
        environment: Environment,
        runtime: Option<&Path>,
        timings: bool,
    ) -> Result<Vec<Outcome>, RunError> {
        let mut images: BTreeMap<PathBuf, Arc<Image>> = BTreeMap::new();
        let mut plan = Vec::new();
        for config in &deployment.cvms {
            let path = match (&config.runtime, runtime) {
                (Some(path), _) => path.clone(),
                (None, Some(path)) => path.to_owned(),
                (None, None) => default_runtime(&*environment.platform)?,
            };
            let image = match images.get(&path) {
                Some(image) => Arc::clone(image),
                None => {
                    let image = Arc::new(Image::open(&path, &*environment.platform)?);
                    images.insert(path, Arc::clone(&image));
                    image
                }
            };
            plan.push((spec(config), config, image));
        }
        let capfiles = deployment
            .capfiles
            .iter()
            .map(|capfile| publish(capfile, &environment))
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, events) = mpsc::channel();
        signals::listen(sender.clone(), Event::Signal)
            .map_err(|source| RunError::Thread { source })?;
        let mut supervisor = Supervisor {
            environment,
            timings,
            running: BTreeMap::new(),
            names: plan.iter().map(|(spec, ..)| spec.name.clone()).collect(),
            images: plan.iter().map(|(.., image)| Arc::clone(image)).collect(),
            outcomes: BTreeMap::new(),
            phase: Phase::Running,
            events,
            sender,
            _capfiles: capfiles,
        };
        for (index, (spec, config, image)) in plan.iter().enumerate() {
            if supervisor.phase != Phase::Running {
                break;
            }
            supervisor.start(index, spec, config, image);
        }
        if supervisor.phase == Phase::Running && supervisor.environment.verbose {
            supervisor.environment.console.line("ALL cVMs loaded");
        }
        while !supervisor.running.is_empty() && !supervisor.given_up() {
            supervisor.next_event(None);
        }
        Ok(supervisor.finish())
    }

    fn start(&mut self, index: usize, spec: &CvmSpec, config: &CvmConfig, image: &Image) {
        if self.environment.verbose {
            self.environment.console.line(&format!(
                "***************** Deploy '{}' ***************",
                spec.name
            ));
        }
        for (key, set) in [
            ("net", config.net.is_some()),
            ("callback_in", config.callback_in.is_some()),
            ("callback_out", config.callback_out.is_some()),
        ] {
            if set {
                tracing::warn!(
                    cvm = spec.name,
                    key,
                    "this monitor does nothing with the key"
                );
            }
        }
        let started = cvm::start(
            index,
            spec,
            image,
            &self.environment,
            self.sender.clone(),
            Event::Ended,
        );
        match started {
            Ok(cvm) => {
                self.running.insert(index, cvm);
                self.environment.platform.prepare_in_background();
            }
            Err(error) => {
                self.ended(EndOfCvm {
                    index,
                    outcome: Outcome::NotStarted(error.to_string()),
                    last_lines: Vec::new(),
                });
                return;
            }
        }
        match config.wait {
            Wait::None => {}
            Wait::Seconds(seconds) => {
                let until = Instant::now() + Duration::from_secs(seconds.into());
                while self.phase == Phase::Running && Instant::now() < until {
                    self.next_event(Some(until));
                }
            }
            Wait::Join => {
                while self.running.contains_key(&index) && !self.given_up() {
                    self.next_event(None);
                }
            }
        }
    }

    fn given_up(&self) -> bool {
        matches!(self.phase, Phase::Killing(since) if since.elapsed() >= PATIENCE)
    }

    /// Handles what happens next; returns at `until` at the latest, and whenever something has to be looked at.
    fn next_event(&mut self, until: Option<Instant>) {
        let deadline = match self.phase {
            Phase::Running => until,
            Phase::Stopping(since) => Some(since + PATIENCE),
            Phase::Killing(_) => Some(Instant::now() + STEP),
        };
        let event = match deadline {
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                self.events.recv_timeout(rest)
            }
            None => self
                .events
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Ended(end)) => self.ended(end),
            Ok(Event::Signal(signal)) => self.signal(signal),
            // The supervisor keeps a sender, so nothing came in time.
            Err(_) => match self.phase {
                Phase::Running => {}
                Phase::Stopping(since) if since.elapsed() >= PATIENCE => self.kill_all(),
                Phase::Stopping(_) => {}
                Phase::Killing(since) if since.elapsed() >= PORTAL_PATIENCE => {
                    self.free_from_portals()
                }
                Phase::Killing(_) => {}
            },
        }
    }

    fn signal(&mut self, signal: i32) {
        match self.phase {
            Phase::Running => {
                tracing::info!(signal, "pressing the power button of every cVM");
                self.phase = Phase::Stopping(Instant::now());
                for cvm in self.running.values() {
                    cvm.receiver.line().raise(irq::POWER_BUTTON);
                }
            }
            Phase::Stopping(_) => self.kill_all(),
            Phase::Killing(_) => {}
        }
    }

    fn kill_all(&mut self) {
        self.phase = Phase::Killing(Instant::now());
        for (index, cvm) in &self.running {
            tracing::warn!(
                cvm = self.name(*index),
                "it did not power off; it is killed"
            );
            cvm.receiver.line().kill();
        }
    }

    /// Killed cVMs whose threads are in a portal of another that does not return are taken out of it.
    fn free_from_portals(&self) {
        for cvm in self.running.values() {
            let Some(owner) = cvm.receiver.line().in_portal_of() else {
                continue;
            };
            cvm.receiver.line().abandon_portal(owner);
            if let Some(other) = self
                .running
                .values()
                .find(|other| other.receiver.number() == owner)
            {
                other.receiver.fail(PortalFailed::Stuck);
            }
        }
    }

    fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    fn ended(&mut self, end: EndOfCvm) {
        let EndOfCvm {
            index,
            outcome,
            last_lines,
        } = end;
        let name = self.name(index).to_owned();
        if let Some(cvm) = self.running.remove(&index) {
            if self.timings {
                eprintln!("timings: {}", cvm.timings.to_json(&name));
            }
            cvm.join();
        }
        let plain = matches!(outcome, Outcome::Exited(_) | Outcome::Signaled(_));
        let quiet = outcome.is_success() || (plain && self.environment.single);
        if !quiet || self.environment.verbose {
            eprintln!("monitor: cVM `{name}`: {outcome}");
        }
        let broken = matches!(outcome, Outcome::Panicked | Outcome::Faulted(_));
        if broken
            && let Some(image) = self.images.get(index)
            && image.was_changed()
        {
            eprintln!(
                "monitor: {} was written to while the cVM ran, which may be why; replace it by renaming instead",
                image.path().display()
            );
        }
        if matches!(
            outcome,
            Outcome::Panicked | Outcome::Faulted(_) | Outcome::PortalFaulted(_)
        ) && !last_lines.is_empty()
        {
            eprintln!("monitor: the last lines of its kernel's log:");
            for line in last_lines {
                eprintln!("    {line}");
            }
        }
        self.outcomes.insert(index, outcome);
    }

    fn finish(mut self) -> Vec<Outcome> {
        let stuck: Vec<usize> = self.running.keys().copied().collect();
        for index in stuck {
            self.outcomes.insert(
                index,
                Outcome::MonitorFailed("it could not be killed".to_owned()),
            );
            eprintln!(
                "monitor: cVM `{}`: it could not be killed",
                self.name(index)
            );
        }
        std::mem::take(&mut self.outcomes).into_values().collect()
    }
}
