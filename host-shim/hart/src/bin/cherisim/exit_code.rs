// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The status to exit with.

use capstream_hart::board::Power;

/// Exit statuses of the simulator itself. A program that ends by the test finisher has the status that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// The program passed.
    Success = 0,
    /// The program failed with a code whose low 8 bits, which are all that a status has, are 0.
    Failed = 1,
    /// The command line is wrong, or the file is nothing that can be run.
    Usage = 2,
    /// What the program or the trace printed could not be written.
    OutputLost = 121,
    /// The program waits for an interrupt that cannot come.
    Halted = 122,
    /// Every instruction traps, those of the trap handler too.
    Lost = 123,
    /// As many instructions as `--max-insns` allows were executed.
    Limit = 124,
    /// The simulator failed, or the host refused it something.
    SimulatorFailed = 125,
    /// The debugger ended the program.
    Killed = 126,
}

impl ExitCode {
    /// Every exit status with its meaning, for the help.
    pub(crate) const HELP: &'static str = "\
Exit status:
  0    the program wrote 0x5555 to the test finisher
  N    the program wrote 0x3333 | N << 16 to it (low 8 bits of N; 1 if they are 0)
  2    the command line is wrong, or FILE cannot be run
  121  output could not be written
  122  the program waits for an interrupt (wfi), and none can come
  123  every instruction traps, those of the trap handler too
  124  --max-insns instructions were executed
  125  the simulator failed, or the host refused it something
  126  the debugger ended the program";

    /// The status of a program that ended itself.
    pub(crate) fn of(power: Power) -> u8 {
        match power {
            Power::Pass | Power::Reset => ExitCode::Success as u8,
            // The low 8 bits are what the host keeps; a failure shall not look like success.
            Power::Fail(code) => match code as u8 {
                0 => ExitCode::Failed as u8,
                status => status,
            },
        }
    }
}
