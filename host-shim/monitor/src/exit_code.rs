// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a cVM ended, and the status with which the monitor exits.

use std::fmt;

use crate::platform::FaultReport;

/// By this signal a kernel ends a program for want of memory.
const SIGKILL: u8 = libc::SIGKILL as u8;

/// How a cVM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its program exited with this status.
    Exited(u8),
    /// Its program was ended by this signal.
    Signaled(u8),
    /// Its kernel ended its program for want of memory.
    OutOfMemory,
    /// Power-off was asked for inside.
    Halted,
    /// Reboot was asked for inside; the monitor does not start it again.
    Rebooted,
    /// Its program could not be started, for this errno.
    NoProgram(i32),
    /// Its kernel panicked.
    Panicked,
    /// Its kernel did something that was refused.
    Faulted(Box<FaultReport>),
    /// A portal of its kernel did something that was refused, on a sender's thread.
    PortalFaulted(Box<FaultReport>),
    /// A portal of its kernel did not return.
    PortalStuck,
    /// Its kernel broke the contract with the monitor.
    Refused(&'static str),
    /// It was ended from outside.
    Killed,
    /// It was not started.
    NotStarted(String),
    /// The monitor could not run it, or failed on its behalf.
    MonitorFailed(String),
}

impl Outcome {
    /// What the status of `wait(2)` says about a program.
    pub fn of_wait_status(status: u64) -> Outcome {
        let signal = (status & 0x7f) as u8;
        if signal == 0 {
            Outcome::Exited((status >> 8) as u8)
        } else {
            Outcome::Signaled(signal)
        }
    }

    /// The same, known that the kernel has ended programs for want of memory at last.
    #[must_use]
    pub fn when_out_of_memory(self) -> Outcome {
        match self {
            Outcome::Signaled(SIGKILL) => Outcome::OutOfMemory,
            other => other,
        }
    }

    /// Whether its program was ended by a signal for which others dump core: signal(7).
    pub fn dumps_core(&self) -> bool {
        const SIGNALS: [i32; 10] = [
            libc::SIGQUIT,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGXCPU,
            libc::SIGXFSZ,
            libc::SIGSYS,
        ];
        matches!(self, Outcome::Signaled(signal) if SIGNALS.contains(&i32::from(*signal)))
    }

    /// Whether everything went well.
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Outcome::Exited(0) | Outcome::Halted | Outcome::Rebooted
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(status) => write!(f, "its program exited with status {status}"),
            Outcome::Signaled(signal) => write!(f, "its program was ended by signal {signal}"),
            Outcome::OutOfMemory => f.write_str(
                "its program was ended by signal 9: the cVM is out of memory; give it more by `size`",
            ),
            Outcome::Halted => f.write_str("it was powered off"),
            Outcome::Rebooted => f.write_str("it asked for a reboot; start it again to have one"),
            Outcome::NoProgram(errno) => write!(
                f,
                "its program could not be started: {}; check `args` and the disk image",
                std::io::Error::from_raw_os_error(*errno)
            ),
            Outcome::Panicked => f.write_str("its kernel panicked"),
            Outcome::Faulted(report) => write!(f, "its kernel was stopped: {report}"),
            Outcome::PortalFaulted(report) => write!(
                f,
                "its portal was stopped on the thread of a sender: {report}"
            ),
            Outcome::PortalStuck => f.write_str("its portal did not return to a sender"),
            Outcome::Refused(why) => write!(f, "its kernel {why}"),
            Outcome::Killed => f.write_str("it was killed"),
            Outcome::NotStarted(why) => write!(f, "it was not started: {why}"),
            Outcome::MonitorFailed(why) => write!(f, "the monitor failed: {why}"),
        }
    }
}

/// The monitor's exit status. With a single cVM, the status of its program is passed through, or 128 + the signal that ended it; everything
/// else has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Every program exited with 0.
    Success = 0,
    /// Of several cVMs, the program of one exited with another status, or was ended by a signal.
    ProgramFailed = 1,
    /// The command line or the configuration is wrong: something was not started.
    Usage = 2,
    /// A monitor that runs did not do what it was asked, or none runs.
    Refused = 3,
    /// A cVM was killed because it did not power off when it was asked to.
    Killed = 121,
    /// The kernel of a cVM panicked.
    KernelPanicked = 122,
    /// The kernel of a cVM, or a portal of it, did something that was refused.
    CvmFaulted = 123,
    /// The monitor itself failed, or the host refused it something.
    MonitorFailed = 125,
    /// A program is there and cannot be started.
    NotExecutable = 126,
    /// A program is not there.
    NotFound = 127,
}

impl ExitCode {
    /// Every exit status with its meaning, for the help.
    pub const HELP: &'static str = "\
Exit status:
  0    every program exited with 0
  N    the program of the only cVM exited with N, or was ended by signal N - 128
  1    with several cVMs: the program of one failed
  2    the command line or the configuration is wrong
  3    of stop, logs and the like: there is no such monitor or cVM, or it did not do what it was asked
  121  a cVM was killed because it did not power off when asked to
  122  the kernel of a cVM panicked
  123  the kernel of a cVM, or a portal of it, was stopped for a fault
  125  the monitor itself failed
  126  a program cannot be executed
  127  a program was not found";

    fn of(outcome: &Outcome) -> ExitCode {
        match outcome {
            Outcome::Exited(0) | Outcome::Halted | Outcome::Rebooted => ExitCode::Success,
            Outcome::Exited(_) | Outcome::Signaled(_) | Outcome::OutOfMemory => {
                ExitCode::ProgramFailed
            }
            Outcome::NoProgram(libc::ENOENT) => ExitCode::NotFound,
            Outcome::NoProgram(_) => ExitCode::NotExecutable,
            Outcome::Panicked => ExitCode::KernelPanicked,
            Outcome::Faulted(_)
            | Outcome::PortalFaulted(_)
            | Outcome::PortalStuck
            | Outcome::Refused(_) => ExitCode::CvmFaulted,
            Outcome::Killed => ExitCode::Killed,
            Outcome::NotStarted(_) => ExitCode::Usage,
            Outcome::MonitorFailed(_) => ExitCode::MonitorFailed,
        }
    }

    /// How bad it is, for the choice among several.
    fn rank(self) -> u8 {
        match self {
            ExitCode::Success => 0,
            ExitCode::ProgramFailed => 1,
            ExitCode::NotFound | ExitCode::NotExecutable => 2,
            ExitCode::Killed => 3,
            ExitCode::KernelPanicked => 4,
            ExitCode::CvmFaulted => 5,
            ExitCode::Usage | ExitCode::Refused | ExitCode::MonitorFailed => 6,
        }
    }

    /// The status for these ends of cVMs: the only one's, or the worst.
    pub fn status(outcomes: &[Outcome]) -> u8 {
        match outcomes {
            [Outcome::Exited(status)] => *status,
            [Outcome::Signaled(signal)] => 128u8.saturating_add(*signal),
            [Outcome::OutOfMemory] => 128 + SIGKILL,
            _ => outcomes
                .iter()
                .map(ExitCode::of)
                .max_by_key(|code| code.rank())
                .unwrap_or(ExitCode::Success) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_program_passes_its_status_through() {
        assert_eq!(ExitCode::status(&[Outcome::of_wait_status(0)]), 0);
        assert_eq!(ExitCode::status(&[Outcome::of_wait_status(7 << 8)]), 7);
        assert_eq!(ExitCode::status(&[Outcome::of_wait_status(11)]), 139);
        assert_eq!(ExitCode::status(&[Outcome::of_wait_status(11 | 0x80)]), 139);
        assert_eq!(ExitCode::status(&[Outcome::OutOfMemory]), 137);
    }

    #[test]
    fn of_several_the_worst_counts() {
        let fine = Outcome::Exited(0);
        let failed = Outcome::Exited(7);
        assert_eq!(ExitCode::status(&[fine.clone(), fine.clone()]), 0);
        assert_eq!(ExitCode::status(&[fine.clone(), failed.clone()]), 1);
        assert_eq!(
            ExitCode::status(&[failed, Outcome::Panicked, fine]),
            ExitCode::KernelPanicked as u8
        );
    }

    #[test]
    fn help_names_every_code() {
        for code in [
            ExitCode::Success,
            ExitCode::ProgramFailed,
            ExitCode::Usage,
            ExitCode::Refused,
            ExitCode::Killed,
            ExitCode::KernelPanicked,
            ExitCode::CvmFaulted,
            ExitCode::MonitorFailed,
            ExitCode::NotExecutable,
            ExitCode::NotFound,
        ] {
            let number = format!("  {:<4} ", code as u8);
            assert!(ExitCode::HELP.contains(&number), "{number:?}");
        }
    }
}
