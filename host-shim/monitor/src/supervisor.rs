// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts the cVMs of a deployment in order, watches them, starts them again, and ends them when asked to: by signals, or by operators.
//!
//! # States of a run
//!
//! ```text
//! Running --first signal--> Leaving (power buttons pressed) --second signal--> Leaving (all killed)
//!    |                           |                                                |
//!    +------- all are over ------+------------------------------------------------+--> over
//! ```
//!
//! When leaving no cVM is started any more. The states of each cVM are at the top of `unit.rs`. Everything here happens on one
//! thread, which waits for [`Event`]s and for deadlines; there is no lock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver as Events, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_capability::{Capability, Key, Mode, Permissions, Publication};
use capstream_config::{CapfileConfig, Deployment, Wait};

use crate::control::{Answer, Controller, Refusal, Request};
use crate::cvm::{self, Cvm, EndOfCvm, Environment};
use crate::exit_code::Outcome;
use crate::image::{Image, ImageError};
use crate::kernel_log;
use crate::network::{NetworkSpec, Switches};
use crate::platform::{AddressSpace, Fault, Placement, Platform, PlatformError, Protection};
use crate::receiver::PortalFailed;
use crate::signals;
use crate::unit::{Due, Unit};

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
    /// The host gives no random bytes.
    #[error(
        "no address for a network interface can be made up, getrandom failed: {source}; say one with `mac`"
    )]
    Random {
        /// Why.
        source: std::io::Error,
    },
    /// There is no thread.
    #[error("the thread for signals could not be started: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// Something that the supervisor has to know of.
enum Event {
    Ended(EndOfCvm),
    Signal(i32),
    Request(Request, Sender<Answer>),
}

/// When the next cVM of the deployment may be started.
#[derive(Clone, Copy, Debug)]
enum Next {
    Now,
    At(Instant),
    /// When this one has ended.
    After(usize),
}

/// A run.
pub struct Supervisor {
    environment: Environment,
    timings: bool,
    units: Vec<Unit>,
    /// How many of them had their turn to start.
    begun: usize,
    next: Next,
    leaving: bool,
    events: Events<Event>,
    sender: Sender<Event>,
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
            }
            .into(),
        )
        .map_err(|error| failed(error.to_string()))?;
    Ok(space)
}

impl Supervisor {
    /// Gets everything ready for a deployment. `runtime` is for cVMs that do not name a runtime image; `timings` prints when what happened.
    ///
    /// # Errors
    ///
    /// [`RunError`]; no cVM has been started then.
    pub fn new(
        deployment: &Deployment,
        environment: Environment,
        runtime: Option<&Path>,
        timings: bool,
    ) -> Result<Supervisor, RunError> {
        let mut images: BTreeMap<PathBuf, Arc<Image>> = BTreeMap::new();
        let mut units = Vec::new();
        let switches = Switches::of(deployment);
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
            let network = config
                .net
                .as_ref()
                .map(|net| NetworkSpec::new(net, &switches))
                .transpose()
                .map_err(|source| RunError::Random { source })?;
            units.push(Unit::new(
                config,
                image,
                network,
                environment.reads_standard_input(),
            ));
            for (key, set) in [
                ("callback_in", config.callback_in.is_some()),
                ("callback_out", config.callback_out.is_some()),
            ] {
                if set {
                    tracing::warn!(
                        cvm = config.name,
                        key,
                        "this monitor does nothing with the key"
                    );
                }
            }
        }
        let capfiles = deployment
            .capfiles
            .iter()
            .map(|capfile| publish(capfile, &environment))
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, events) = mpsc::channel();
        Ok(Supervisor {
            environment,
            timings,
            units,
            begun: 0,
            next: Next::Now,
            leaving: false,
            events,
            sender,
            _capfiles: capfiles,
        })
    }

    /// How operators reach it.
    pub fn controller(&self) -> Controller {
        let sender = self.sender.clone();
        Controller::new(move |request, reply| sender.send(Event::Request(request, reply)).is_ok())
    }

    /// Runs the deployment to its end; returns how each cVM ended.
    ///
    /// # Errors
    ///
    /// [`RunError::Thread`]; no cVM has been started then.
    pub fn run(mut self) -> Result<Vec<Outcome>, RunError> {
        signals::listen(self.sender.clone(), Event::Signal)
            .map_err(|source| RunError::Thread { source })?;
        loop {
            self.do_what_is_due();
            if self.units.iter().all(Unit::is_over) {
                break;
            }
            self.next_event();
        }
        Ok(self.finish())
    }

    fn do_what_is_due(&mut self) {
        for index in 0..self.units.len() {
            match self.units.get(index).and_then(Unit::due) {
                Some(Due::Start) => self.start(index),
                Some(Due::Kill) => self.end_now(index),
                Some(Due::FreeFromPortal) => self.free_from_portal(index),
                None => {}
            }
        }
        self.units.iter_mut().for_each(Unit::tell_if_stuck);
        while !self.leaving && self.begun < self.units.len() && self.may_begin() {
            let index = self.begun;
            self.begun += 1;
            self.next = Next::Now;
            if !self.units.get(index).is_some_and(Unit::is_waiting) {
                // An operator has started it before its turn, or stopped it.
                continue;
            }
            self.start(index);
            let Some(unit) = self.units.get(index) else {
                continue;
            };
            self.next = match unit.wait {
                Wait::Seconds(seconds) if unit.cvm().is_some() => {
                    Next::At(Instant::now() + Duration::from_secs(seconds.into()))
                }
                Wait::Join => Next::After(index),
                _ => Next::Now,
            };
            if self.begun == self.units.len() && self.environment.verbose {
                self.environment.console.line("ALL cVMs loaded");
            }
        }
    }

    fn may_begin(&self) -> bool {
        match self.next {
            Next::Now => true,
            Next::At(time) => time <= Instant::now(),
            Next::After(index) => self.units.get(index).is_none_or(Unit::is_over),
        }
    }

    fn start(&mut self, index: usize) {
        let environment = &self.environment;
        let Some(unit) = self.units.get_mut(index) else {
            return;
        };
        if environment.verbose {
            environment.console.line(&format!(
                "***************** Deploy '{}' ***************",
                unit.name()
            ));
        }
        let started = cvm::start(
            index,
            &unit.spec,
            &unit.image,
            environment,
            self.sender.clone(),
            Event::Ended,
        );
        match started {
            Ok(cvm) => {
                unit.started(cvm);
                environment.platform.prepare_in_background();
                tracing::info!(cvm = unit.name(), "started");
            }
            Err(error) => self.ended(EndOfCvm {
                index,
                outcome: Outcome::NotStarted(error.to_string()),
                last_lines: Vec::new(),
            }),
        }
    }

    /// Handles what happens next; returns when something may be due.
    fn next_event(&mut self) {
        let of_units = self.units.iter().filter_map(Unit::deadline);
        let of_start = match self.next {
            Next::At(time) if !self.leaving && self.begun < self.units.len() => Some(time),
            _ => None,
        };
        let event = match of_units.chain(of_start).min() {
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
            Ok(Event::Request(request, reply)) => self.answer(request, reply),
            // The supervisor keeps a sender, so nothing came in time.
            Err(_) => {}
        }
    }

    fn signal(&mut self, signal: i32) {
        if signal == signals::RESIZED {
            for cvm in self.units.iter().filter_map(Unit::cvm) {
                cvm.receiver.line().raise(irq::CONSOLE);
            }
            return;
        }
        if self.leaving {
            for index in 0..self.units.len() {
                self.end_now(index);
            }
            return;
        }
        tracing::info!(signal, "pressing the power button of every cVM");
        self.leaving = true;
        for unit in &mut self.units {
            unit.leave_out();
            unit.stop();
        }
    }

    fn end_now(&mut self, index: usize) {
        if let Some(unit) = self.units.get_mut(index)
            && unit.cvm().is_some()
        {
            if !unit.is_killed() {
                tracing::warn!(cvm = unit.name(), "it did not power off; it is killed");
            }
            unit.end_now();
        }
    }

    /// A killed cVM whose thread is in a portal of another that does not return is taken out of it.
    fn free_from_portal(&self, index: usize) {
        let running = || self.units.iter().filter_map(Unit::cvm);
        let Some(line) = self
            .units
            .get(index)
            .and_then(|unit| Some(unit.cvm()?.receiver.line()))
        else {
            return;
        };
        let Some(owner) = line.in_portal_of() else {
            return;
        };
        line.abandon_portal(owner);
        if let Some(other) = running().find(|other| other.receiver.number() == owner) {
            other.receiver.fail(PortalFailed::Stuck);
        }
    }

    fn ended(&mut self, end: EndOfCvm) {
        let EndOfCvm {
            index,
            outcome,
            last_lines,
        } = end;
        let Some(unit) = self.units.get_mut(index) else {
            return;
        };
        let name = unit.name().to_owned();
        let (cvm, again) = unit.ended(outcome.clone(), self.leaving);
        if let Some(cvm) = cvm {
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
        tracing::info!(cvm = name, %outcome, "ended");
        let broken = matches!(outcome, Outcome::Panicked | Outcome::Faulted(_));
        if broken && unit.image.was_changed() {
            eprintln!(
                "monitor: {} was written to while the cVM ran, which may be why; replace it by renaming instead",
                unit.image.path().display()
            );
        }
        if matches!(
            outcome,
            Outcome::Panicked | Outcome::Faulted(_) | Outcome::PortalFaulted(_)
        ) && !last_lines.is_empty()
        {
            eprintln!("monitor: the last lines of its kernel's log:");
            for line in &last_lines {
                eprintln!("    {line}");
            }
        }
        if outcome.dumps_core() && !quiet {
            for line in kernel_log::crash(&last_lines) {
                eprintln!("    {line}");
            }
        }
        if let Some(delay) = again {
            if !quiet || self.environment.verbose {
                eprintln!(
                    "monitor: cVM `{name}` is started again in {:.1} s",
                    delay.as_secs_f64()
                );
            }
            tracing::info!(
                cvm = name,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "to be started again"
            );
        }
    }

    fn answer(&mut self, request: Request, reply: Sender<Answer>) {
        let answer = match self.do_request(request, &reply) {
            Ok(Some(answer)) => answer,
            // It comes later.
            Ok(None) => return,
            Err(refusal) => Answer::Refused(refusal),
        };
        // Whoever asked may be gone.
        let _ = reply.send(answer);
    }

    fn unit(&mut self, name: &str) -> Result<&mut Unit, Refusal> {
        let known: Vec<String> = self
            .units
            .iter()
            .map(|unit| unit.name().to_owned())
            .collect();
        self.units
            .iter_mut()
            .find(|unit| unit.name() == name)
            .ok_or_else(|| Refusal::NoSuchCvm {
                name: name.to_owned(),
                known: known.join(", "),
            })
    }

    fn do_request(
        &mut self,
        request: Request,
        reply: &Sender<Answer>,
    ) -> Result<Option<Answer>, Refusal> {
        match request {
            Request::List {} => {
                let cvms = self.units.iter().map(Unit::report).collect();
                Ok(Some(Answer::Cvms(cvms)))
            }
            Request::Statistics {} => {
                let running = self.units.iter().filter_map(Unit::cvm);
                Ok(Some(Answer::Statistics(
                    running.map(Cvm::statistics).collect(),
                )))
            }
            Request::Stop { cvm } => {
                let unit = self.unit(&cvm)?;
                unit.leave_out();
                unit.stop();
                unit.tell_end(reply.clone());
                Ok(None)
            }
            Request::Kill { cvm } => {
                let unit = self.unit(&cvm)?;
                unit.leave_out();
                unit.kill();
                unit.tell_end(reply.clone());
                Ok(None)
            }
            Request::Restart { cvm } => {
                if self.leaving {
                    return Err(Refusal::Leaving);
                }
                self.unit(&cvm)?.restart(reply.clone());
                Ok(None)
            }
            Request::Logs { cvm, .. } | Request::Console { cvm } => {
                let outlets = Arc::clone(&self.unit(&cvm)?.spec.outlets);
                Ok(Some(Answer::Outlets(outlets)))
            }
            Request::Resize { cvm, rows, columns } => {
                let unit = self.unit(&cvm)?;
                unit.spec.outlets.resize(rows, columns);
                if let Some(cvm) = unit.cvm() {
                    cvm.receiver.line().raise(irq::CONSOLE);
                }
                Ok(Some(Answer::Done(format!(
                    "{rows} rows, {columns} columns"
                ))))
            }
            Request::Events { .. } | Request::Revoke { .. } => Err(Refusal::NotForTheSupervisor),
        }
    }

    fn finish(self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for unit in &self.units {
            if unit.cvm().is_some() {
                eprintln!("monitor: cVM `{}`: it could not be killed", unit.name());
            }
            outcomes.extend(unit.outcome());
        }
        outcomes
    }
}
