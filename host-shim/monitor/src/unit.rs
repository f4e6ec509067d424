// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One cVM of a deployment over all its lives.
//!
//! ```text
//!            start                    stop                kill, or stop_timeout
//! Waiting ----------> Running ---------------> Stopping ------------------------> Killing
//!            |           |                        |                                  |
//!            |           +------------------------+-------- its thread ended --------+
//!            |           |                                                           |
//!            |           v  the policy wants another life, and nobody stopped it     v
//!            |        BackingOff ------------------------------------------------> Ended
//!            |           |  delay                                                    |
//!            +-----------+------------------------ restart --------------------------+
//! ```
//!
//! A killed cVM that does not end keeps its state; it counts as over after [`PATIENCE`], and its memory is never given back.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use capstream_abi::irq;
use capstream_config::{CvmConfig, RestartPolicy, Wait};

use crate::control::{Answer, CvmState, Refusal};
use crate::cvm::{Cvm, CvmSpec};
use crate::exit_code::Outcome;
use crate::image::Image;
use crate::network::NetworkSpec;
use crate::outlets::{Outlets, now_ms};
use crate::platform::Placement;
use crate::restart::{self, BackOff};

/// How long a killed cVM may take to be gone.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a portal of another cVM may keep a killed one.
const PORTAL_PATIENCE: Duration = Duration::from_secs(1);
/// How often killed cVMs are looked at after that.
const STEP: Duration = Duration::from_millis(100);

/// Where a unit is in its life.
enum State {
    Waiting,
    Running(Life),
    BackingOff { until: Instant },
    Ended,
}

/// One life.
struct Life {
    cvm: Cvm,
    since: Instant,
    asked: Option<Instant>,
    killed: Option<Instant>,
}

/// What follows an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// What the policy says.
    Policy,
    /// Nothing: somebody wants it ended.
    Stay,
    /// Another life.
    Start,
}

/// What has to be done with a unit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Start it.
    Start,
    /// It was asked to power off, and has had its time.
    Kill,
    /// It was killed, and is in a portal of another cVM.
    FreeFromPortal,
}

/// One cVM of a deployment.
pub struct Unit {
    /// What to make.
    pub spec: CvmSpec,
    /// Its runtime image.
    pub image: Arc<Image>,
    /// What is waited for before the next unit.
    pub wait: Wait,
    policy: RestartPolicy,
    back_off: BackOff,
    stop_timeout: Duration,
    state: State,
    then: Then,
    lives: u64,
    started_ms: Option<u64>,
    outcome: Option<Outcome>,
    /// Who waits for its end.
    waiting_for_end: Vec<Sender<Answer>>,
    /// Who waits for its next life.
    waiting_for_start: Vec<Sender<Answer>>,
}

impl Unit {
    /// A cVM that has not been started, and whether its console reads standard input.
    pub fn new(
        config: &CvmConfig,
        image: Arc<Image>,
        network: Option<NetworkSpec>,
        standard_input: bool,
    ) -> Unit {
        let isolation = config.isolation.as_ref();
        let spec = CvmSpec {
            name: config.name.clone(),
            disk: config.disk.clone(),
            overlay: config.overlay.clone(),
            overlay_size: config.overlay_size,
            args: config.args.clone(),
            env: config.env.clone(),
            directory: config.directory.clone(),
            user: config.user.clone(),
            hostname: config.hostname.clone(),
            placement: isolation.map_or(Placement::Anywhere, |isolation| {
                Placement::At(isolation.base)
            }),
            size: isolation.map(|isolation| isolation.size),
            begin: isolation.and_then(|isolation| isolation.begin),
            end: isolation.and_then(|isolation| isolation.end),
            portal_deadline: config.portal_deadline,
            clean_room: config.clean_room,
            grants: config.grants.clone(),
            limits: config.limits,
            network,
            outlets: Arc::new(Outlets::new(standard_input)),
            again: false,
        };
        Unit {
            spec,
            image,
            wait: config.wait,
            policy: config.restart,
            back_off: BackOff::new(config.restart_delay),
            stop_timeout: config.stop_timeout,
            state: State::Waiting,
            then: Then::Policy,
            lives: 0,
            started_ms: None,
            outcome: None,
            waiting_for_end: Vec::new(),
            waiting_for_start: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The cVM, while there is one.
    pub fn cvm(&self) -> Option<&Cvm> {
        match &self.state {
            State::Running(life) => Some(&life.cvm),
            _ => None,
        }
    }

    /// Whether it was never started.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Whether nothing is to be expected of it any more, unless an operator wants it.
    pub fn is_over(&self) -> bool {
        match &self.state {
            State::Ended => true,
            State::Running(life) => life.killed.is_some_and(|since| since.elapsed() >= PATIENCE),
            State::Waiting | State::BackingOff { .. } => false,
        }
    }

    /// A life began.
    pub fn started(&mut self, cvm: Cvm) {
        self.lives += 1;
        self.spec.again = true;
        self.started_ms = Some(now_ms());
        self.then = Then::Policy;
        self.state = State::Running(Life {
            cvm,
            since: Instant::now(),
            asked: None,
            killed: None,
        });
        for reply in self.waiting_for_start.drain(..) {
            // Whoever asked may be gone.
            let _ = reply.send(Answer::Done(format!(
                "cVM `{}` was started",
                self.spec.name
            )));
        }
    }

    /// A life ended, or could not begin. Returns the cVM that is to be joined, and after what time there is another life.
    pub fn ended(&mut self, outcome: Outcome, leaving: bool) -> (Option<Cvm>, Option<Duration>) {
        let (cvm, lived) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Running(life) => (Some(life.cvm), life.since.elapsed()),
            _ => (None, Duration::ZERO),
        };
        let said = format!("cVM `{}`: {outcome}", self.spec.name);
        let again = match self.then {
            _ if leaving => None,
            Then::Stay => None,
            Then::Start if cvm.is_some() => Some(Duration::ZERO),
            Then::Policy | Then::Start => {
                restart::is_wanted(self.policy, &outcome).then(|| self.back_off.delay(lived))
            }
        };
        for reply in self.waiting_for_end.drain(..) {
            let _ = reply.send(Answer::Done(said.clone()));
        }
        if again.is_none() || cvm.is_none() {
            for reply in self.waiting_for_start.drain(..) {
                let _ = reply.send(Answer::Refused(Refusal::NotStarted(said.clone())));
            }
        }
        self.outcome = Some(outcome);
        match again {
            Some(delay) => {
                self.state = State::BackingOff {
                    until: Instant::now() + delay,
                }
            }
            None => self.spec.outlets.close(),
        }
        (cvm, again)
    }

    /// Presses its power button: its programs get SIGTERM. A unit that is to be started again is not.
    pub fn stop(&mut self) {
        match &self.state {
            State::Running(_) => {
                self.then = Then::Stay;
                self.press_power_button();
            }
            State::BackingOff { .. } => self.give_up(),
            State::Waiting | State::Ended => {}
        }
    }

    /// Ends it at once. A unit that is to be started again is not.
    pub fn kill(&mut self) {
        match &self.state {
            State::Running(_) => {
                self.then = Then::Stay;
                self.end_now();
            }
            State::BackingOff { .. } => self.give_up(),
            State::Waiting | State::Ended => {}
        }
    }

    fn press_power_button(&mut self) {
        if let State::Running(life) = &mut self.state
            && life.asked.is_none()
            && life.killed.is_none()
        {
            life.asked = Some(Instant::now());
            life.cvm.receiver.line().raise(irq::POWER_BUTTON);
        }
    }

    /// Ends the present life, if there is one; what follows was decided before.
    pub fn end_now(&mut self) {
        if let State::Running(life) = &mut self.state
            && life.killed.is_none()
        {
            life.killed = Some(Instant::now());
            life.cvm.receiver.line().kill();
        }
    }

    /// Tells those who wait for the end or for another life of one that cannot be ended.
    pub fn tell_if_stuck(&mut self) {
        if self.cvm().is_some() && self.is_over() {
            let waiting = self.waiting_for_end.drain(..);
            for reply in waiting.chain(self.waiting_for_start.drain(..)) {
                // Whoever asked may be gone.
                let _ = reply.send(Answer::Refused(Refusal::Stuck {
                    name: self.spec.name.clone(),
                }));
            }
        }
    }

    /// Whether it was killed and has not ended.
    pub fn is_killed(&self) -> bool {
        matches!(&self.state, State::Running(life) if life.killed.is_some())
    }

    /// There is no other life after all.
    fn give_up(&mut self) {
        self.state = State::Ended;
        self.spec.outlets.close();
        for reply in self.waiting_for_start.drain(..) {
            let _ = reply.send(Answer::Refused(Refusal::NotStarted(format!(
                "cVM `{}` was stopped",
                self.spec.name
            ))));
        }
    }

    /// The unit will not be started any more.
    pub fn leave_out(&mut self) {
        if matches!(self.state, State::Waiting) {
            self.give_up();
        }
    }

    /// Tells `reply` when the present life is over; at once when there is none.
    pub fn tell_end(&mut self, reply: Sender<Answer>) {
        if self.cvm().is_some() {
            self.waiting_for_end.push(reply);
        } else {
            let said = match &self.outcome {
                Some(outcome) => format!("cVM `{}`: {outcome}", self.spec.name),
                None => format!("cVM `{}` was not started", self.spec.name),
            };
            // Whoever asked may be gone.
            let _ = reply.send(Answer::Done(said));
        }
    }

    /// Stops it if it runs, and starts it; `reply` is told when it runs.
    pub fn restart(&mut self, reply: Sender<Answer>) {
        self.waiting_for_start.push(reply);
        self.back_off.reset();
        if self.cvm().is_some() {
            self.then = Then::Start;
            self.press_power_button();
        } else {
            self.spec.outlets.reopen();
            self.state = State::BackingOff {
                until: Instant::now(),
            };
        }
    }

    /// What is to be done now.
    pub fn due(&self) -> Option<Due> {
        match &self.state {
            State::BackingOff { until } if *until <= Instant::now() => Some(Due::Start),
            State::Running(Life {
                killed: Some(since),
                cvm,
                ..
            }) => (since.elapsed() >= PORTAL_PATIENCE
                && since.elapsed() < PATIENCE
                && cvm.receiver.line().in_portal_of().is_some())
            .then_some(Due::FreeFromPortal),
            State::Running(Life {
                asked: Some(since), ..
            }) => (since.elapsed() >= self.stop_timeout).then_some(Due::Kill),
            _ => None,
        }
    }

    /// When to look at it next, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::BackingOff { until } => Some(*until),
            State::Running(Life {
                killed: Some(since),
                ..
            }) => {
                let looked = (*since + PORTAL_PATIENCE).max(Instant::now() + STEP);
                (since.elapsed() < PATIENCE).then(|| looked.min(*since + PATIENCE))
            }
            State::Running(Life {
                asked: Some(since), ..
            }) => Some(*since + self.stop_timeout),
            _ => None,
        }
    }

    /// How the last life ended; for one that could not be ended, that.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Running(_) => Some(Outcome::MonitorFailed("it could not be killed".to_owned())),
            _ => self.outcome.clone(),
        }
    }

    /// For operators.
    pub fn report(&self) -> CvmState {
        let state = match &self.state {
            State::Waiting => "waiting",
            State::Running(Life {
                killed: Some(_), ..
            }) => "killing",
            State::Running(Life { asked: Some(_), .. }) => "stopping",
            State::Running(_) => "running",
            State::BackingOff { .. } => "restarting",
            State::Ended => "ended",
        };
        CvmState {
            name: self.spec.name.clone(),
            state: state.to_owned(),
            lives: self.lives,
            started_ms: self.started_ms,
            seconds: match &self.state {
                State::Running(life) => Some(life.since.elapsed().as_secs_f64()),
                _ => None,
            },
            outcome: self.outcome.as_ref().map(Outcome::to_string),
            memory: self.spec.size,
            disk: self.spec.disk.clone(),
            args: self.spec.args.clone(),
        }
    }
}
