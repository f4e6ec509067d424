// SPDX-License-Identifier: Apache-2.0 OR MIT
//! gdb's remote protocol: registers, memory, breakpoints, steps, continue and interrupt.
//!
//! Addresses are absolute, as the hart's memory has them. While the program runs, a thread waits for gdb to say something and
//! interrupts the board when it does.

use std::io;
use std::marker::PhantomData;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use capstream_hart::board::{Board, Interrupter, Power, Stop};
use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::exit_code::ExitCode;
use crate::target_description::{CheriRiscv, Register, Registers, from_bytes};

/// Why a session did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebuggerError {
    /// gdb's `kill`.
    #[error("the debugger ended the program")]
    Killed,
    /// The protocol was not kept.
    #[error("the session with gdb failed: {what}; connect with a gdb that knows RISC-V")]
    Session {
        /// What went wrong.
        what: String,
    },
    /// The host refuses what waiting needs.
    #[error("cannot wait for gdb and the program: {source}")]
    Wait {
        /// The host's reason.
        source: io::Error,
    },
}

/// Lets gdb control a board. Returns how the program ended, or none when gdb went away before that.
///
/// # Errors
///
/// If gdb killed the program or the session failed.
pub(crate) fn serve(board: &mut Board, stream: TcpStream) -> Result<Option<Stop>, DebuggerError> {
    let mut debugged = Debugged {
        board,
        step: false,
        breakpoints: Vec::new(),
        end: None,
    };
    let result = GdbStub::new(stream).run_blocking::<Loop<'_>>(&mut debugged);
    let Debugged {
        board,
        breakpoints,
        end,
        ..
    } = debugged;
    for (address, _) in breakpoints {
        board.remove_breakpoint(address);
    }
    match result {
        Ok(DisconnectReason::Kill) if end.is_none() => Err(DebuggerError::Killed),
        Ok(_) => Ok(end),
        // The connection ended without a word: as if it had been detached.
        Err(error) if error.is_connection_error() => Ok(end),
        Err(error) => match error.into_target_error() {
            Some(error) => Err(error),
            None => Err(DebuggerError::Session {
                what: "a packet makes no sense".into(),
            }),
        },
    }
}

/// How a breakpoint was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Software,
    Hardware,
}

/// A board that gdb controls.
struct Debugged<'a> {
    board: &'a mut Board,
    /// Whether one instruction is to be executed, or as many as it takes.
    step: bool,
    breakpoints: Vec<(u64, Kind)>,
    /// How the program ended.
    end: Option<Stop>,
}

impl Target for Debugged<'_> {
    type Arch = CheriRiscv;
    type Error = DebuggerError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Debugged<'_> {
    fn read_registers(&mut self, registers: &mut Registers) -> TargetResult<(), Self> {
        *registers = Registers::of(self.board);
        Ok(())
    }

    fn write_registers(&mut self, registers: &Registers) -> TargetResult<(), Self> {
        registers.write(self.board);
        Ok(())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, (), Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, address: u64, bytes: &mut [u8]) -> TargetResult<usize, Self> {
        match self.board.read_memory(address, bytes) {
            0 if !bytes.is_empty() => Err(TargetError::NonFatal),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, address: u64, bytes: &[u8]) -> TargetResult<(), Self> {
        if self.board.write_memory(address, bytes) == bytes.len() {
            Ok(())
        } else {
            Err(TargetError::NonFatal)
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<()> for Debugged<'_> {
    fn read_register(
        &mut self,
        (): (),
        register: Register,
        bytes: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let value = register
            .read(self.board.hart())
            .ok_or(TargetError::NonFatal)?
            .to_le_bytes();
        let size = bytes.len().min(value.len());
        bytes[..size].copy_from_slice(&value[..size]);
        Ok(size)
    }

    fn write_register(
        &mut self,
        (): (),
        register: Register,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        if register.write(self.board.hart_mut(), from_bytes(value)) {
            Ok(())
        } else {
            Err(TargetError::NonFatal)
        }
    }
}

impl SingleThreadResume for Debugged<'_> {
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), DebuggerError> {
        self.step = false;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugged<'_> {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), DebuggerError> {
        self.step = true;
        Ok(())
    }
}

impl Breakpoints for Debugged<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugged<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add(address, Kind::Software))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address, Kind::Software))
    }
}

impl HwBreakpoint for Debugged<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add(address, Kind::Hardware))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address, Kind::Hardware))
    }
}

impl Debugged<'_> {
    /// Both kinds are the board's own: nothing is written into the program.
    fn add(&mut self, address: u64, kind: Kind) -> bool {
        if !self.breakpoints.contains(&(address, kind)) {
            self.breakpoints.push((address, kind));
            self.board.add_breakpoint(address);
        }
        true
    }

    fn remove(&mut self, address: u64, kind: Kind) -> bool {
        let found = self
            .breakpoints
            .iter()
            .position(|&breakpoint| breakpoint == (address, kind));
        if let Some(index) = found {
            self.breakpoints.swap_remove(index);
            self.board.remove_breakpoint(address);
        }
        found.is_some()
    }

    /// What gdb is told when the board stops; none when it was only interrupted because gdb said something.
    fn report(&mut self, stop: Stop) -> Option<SingleThreadStopReason<u64>> {
        Some(match stop {
            Stop::Limit => SingleThreadStopReason::DoneStep,
            Stop::Interrupted => return None,
            Stop::Breakpoint { address } => {
                if self.breakpoints.contains(&(address, Kind::Software)) {
                    SingleThreadStopReason::SwBreak(())
                } else {
                    SingleThreadStopReason::HwBreak(())
                }
            }
            Stop::Halted => SingleThreadStopReason::Signal(Signal::SIGSTOP),
            Stop::Lost => SingleThreadStopReason::Signal(Signal::SIGSEGV),
            Stop::Finished(power) => self.ended(Stop::Finished(power), ExitCode::of(power)),
            Stop::Output(error) => self.ended(Stop::Output(error), ExitCode::OutputLost as u8),
        })
    }

    fn ended(&mut self, stop: Stop, status: u8) -> SingleThreadStopReason<u64> {
        debug_assert!(!matches!(stop, Stop::Finished(Power::Reset)));
        self.end = Some(stop);
        SingleThreadStopReason::Exited(status)
    }

    /// Runs the board until it stops or gdb says something.
    fn run(&mut self, connection: &TcpStream) -> io::Result<Stop> {
        if self.step {
            return Ok(self.board.run(1));
        }
        let watch = Watch::new(self.board.interrupter())?;
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch.wait(connection));
            let stop = self.board.run(u64::MAX);
            watch.cancel()?;
            match watcher.join() {
                Ok(result) => result.map(|()| stop),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Interrupts a board when gdb says something.
struct Watch {
    interrupter: Interrupter,
    cancelled: OwnedFd,
}

impl Watch {
    fn new(interrupter: Interrupter) -> io::Result<Watch> {
        Ok(Watch {
            interrupter,
            cancelled: eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    /// Returns when there is something to read, after interrupting the board, or when it is cancelled.
    fn wait(&self, connection: &TcpStream) -> io::Result<()> {
        let mut descriptors = [
            PollFd::new(connection, PollFlags::IN),
            PollFd::from_borrowed_fd(self.cancelled.as_fd(), PollFlags::IN),
        ];
        let result = loop {
            match poll(&mut descriptors, None) {
                Ok(_) => break Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // The board shall not run on when nobody can interrupt it.
                Err(error) => break Err(error.into()),
            }
        };
        if result.is_err() || !descriptors[0].revents().is_empty() {
            self.interrupter.interrupt();
        }
        result
    }

    fn cancel(&self) -> io::Result<()> {
        rustix::io::write(&self.cancelled, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// Runs the board whenever gdb lets it.
struct Loop<'a>(PhantomData<&'a ()>);

impl<'a> BlockingEventLoop for Loop<'a> {
    type Target = Debugged<'a>;
    type Connection = TcpStream;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Debugged<'a>,
        connection: &mut TcpStream,
    ) -> Result<Event<SingleThreadStopReason<u64>>, WaitForStopReasonError<DebuggerError, io::Error>>
    {
        loop {
            let stop = target
                .run(connection)
                .map_err(|source| WaitForStopReasonError::Target(DebuggerError::Wait { source }))?;
            if let Some(reason) = target.report(stop) {
                return Ok(Event::TargetStopped(reason));
            }
            let byte =
                ConnectionExt::peek(connection).map_err(WaitForStopReasonError::Connection)?;
            if byte.is_some() {
                return ConnectionExt::read(connection)
                    .map(Event::IncomingData)
                    .map_err(WaitForStopReasonError::Connection);
            }
        }
    }

    fn on_interrupt(
        _target: &mut Debugged<'a>,
    ) -> Result<Option<SingleThreadStopReason<u64>>, DebuggerError> {
        Ok(Some(SingleThreadStopReason::Signal(Signal::SIGINT)))
    }
}
