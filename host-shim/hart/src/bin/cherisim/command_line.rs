// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `cherisim`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use capstream_hart::Isa;
use capstream_hart::board::{
    Board, BoardError, Image, ImageError, Input, Options, Power, RAM_BASE, RAM_DEFAULT, Stop,
};
use clap::{Parser, ValueEnum};

use crate::debugger::{self, DebuggerError};
use crate::exit_code::ExitCode;
use crate::trace::Tracer;

/// Runs a bare program on a simulated board with one CHERI-RISC-V hart, which is like the `virt` board of QEMU
#[derive(Debug, Parser)]
#[command(name = "cherisim", version, after_help = ExitCode::HELP)]
struct CommandLine {
    /// The program: a static ELF executable for 64-bit RISC-V
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Generation of CHERI-RISC-V
    #[arg(long, value_name = "ISA", default_value = "v8")]
    isa: Generation,
    /// RAM from 0x80000000 on, in bytes or with K, M or G [default: 128M]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    ram: Option<u64>,
    /// Write a line for each instruction, to FILE or to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    trace: Option<Option<PathBuf>>,
    /// Stop after N instructions
    #[arg(long, value_name = "N")]
    max_insns: Option<u64>,
    /// Wait for gdb and let it control the program
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["trace", "max_insns"])]
    gdb: Option<String>,
    /// Tell at the end how many instructions were executed, and how fast
    #[arg(long)]
    stats: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Generation {
    /// ISAv8: integer addresses are relative to DDC and PCC
    V8,
    /// ISAv9: integer addresses are absolute
    V9,
}

/// Why the program did not run to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no FILE was named; use `cherisim FILE`")]
    NoFile,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Board(#[from] BoardError),
    #[error("cannot create `{}` for the trace: {source}; check the path", path.display())]
    TraceFile { path: PathBuf, source: io::Error },
    #[error("cannot write the trace: {source}")]
    Trace { source: io::Error },
    #[error("cannot write what the program prints: {source}")]
    Output { source: io::Error },
    #[error("cannot start the thread for the console's input: {source}")]
    Thread { source: io::Error },
    #[error(
        "`{address}` is no address to listen at ({source}); give it as ADDRESS:PORT, such as localhost:1234"
    )]
    GdbAddress { address: String, source: io::Error },
    #[error("cannot listen for gdb at {address}: {source}; choose another port")]
    GdbListen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Debugger(#[from] DebuggerError),
    #[error(
        "the program waits for an interrupt at {pc:#x} (wfi), and none that it enabled can come; end it by writing 0x5555 to 0x100000"
    )]
    Halted { pc: u64 },
    #[error(
        "every instruction traps, and the trap handler at {pc:#x} too; set mtvec before something can trap (--trace shows the first trap)"
    )]
    Lost { pc: u64 },
    #[error(
        "{limit} instructions were executed, as --max-insns allows; the next one is at {pc:#x}"
    )]
    Limit { limit: u64, pc: u64 },
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::NoFile
            | Failure::Image(_)
            | Failure::Board(BoardError::Image(_) | BoardError::RamSize { .. })
            | Failure::GdbAddress { .. } => ExitCode::Usage,
            Failure::Trace { .. } | Failure::Output { .. } => ExitCode::OutputLost,
            Failure::Halted { .. } => ExitCode::Halted,
            Failure::Lost { .. } => ExitCode::Lost,
            Failure::Limit { .. } => ExitCode::Limit,
            Failure::Debugger(DebuggerError::Killed) => ExitCode::Killed,
            Failure::Board(_)
            | Failure::TraceFile { .. }
            | Failure::Thread { .. }
            | Failure::GdbListen { .. }
            | Failure::Debugger(_) => ExitCode::SimulatorFailed,
        }
    }
}

/// Does what the command line says; returns the status to exit with.
pub(crate) fn main() -> u8 {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Standard output or error may be closed.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::Usage as u8
            } else {
                ExitCode::Success as u8
            };
        }
    };
    match run(command_line) {
        Ok(power) => ExitCode::of(power),
        Err(failure) => {
            complain(&failure.to_string());
            failure.exit_code() as u8
        }
    }
}

/// A line on standard error, if somebody still reads it.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "cherisim: {message}");
}

fn run(command_line: CommandLine) -> Result<Power, Failure> {
    let (file, trace) = match (command_line.file, command_line.trace) {
        // `--trace FILE` without another file: the file is the program.
        (None, Some(Some(file))) => (file, Some(None)),
        (None, _) => return Err(Failure::NoFile),
        (Some(file), trace) => (file, trace),
    };
    let image = Image::open(&file)?;
    if image.start() != image.entry() {
        complain(&format!(
            "`{}` has its entry at {:#x}, but the board begins at {RAM_BASE:#x}, where something of it is too; put the entry there",
            file.display(),
            image.entry()
        ));
    }
    let options = Options {
        isa: match command_line.isa {
            Generation::V8 => Isa::V8,
            Generation::V9 => Isa::V9,
        },
        ram: command_line.ram.unwrap_or(RAM_DEFAULT),
    };
    let mut board = Board::new(image, options, Box::new(io::stdout()))?;
    let input = board.input();
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || feed(&input))
        .map_err(|source| Failure::Thread { source })?;

    let begin = Instant::now();
    let result = match (command_line.gdb, trace) {
        (Some(address), _) => debug(&mut board, address),
        (None, None) => run_on(&mut board, command_line.max_insns),
        (None, Some(file)) => run_traced(&mut board, file.as_deref(), command_line.max_insns),
    };
    if command_line.stats {
        tell(board.instructions_retired(), begin.elapsed());
    }
    result
}

fn run_on(board: &mut Board, max_instructions: Option<u64>) -> Result<Power, Failure> {
    let stop = board.run(max_instructions.unwrap_or(u64::MAX));
    end(board, stop, max_instructions)
}

fn run_traced(
    board: &mut Board,
    file: Option<&Path>,
    max_instructions: Option<u64>,
) -> Result<Power, Failure> {
    let output: Box<dyn Write> = match file {
        None => Box::new(BufWriter::new(io::stderr())),
        Some(path) => {
            let file = File::create(path).map_err(|source| Failure::TraceFile {
                path: path.into(),
                source,
            })?;
            Box::new(BufWriter::new(file))
        }
    };
    let stop = Tracer::new(output)
        .run(board, max_instructions.unwrap_or(u64::MAX))
        .map_err(|source| Failure::Trace { source })?;
    end(board, stop, max_instructions)
}

fn debug(board: &mut Board, address: String) -> Result<Power, Failure> {
    // `:1234` is understood as gdb's `target remote` does.
    let full = if address.starts_with(':') {
        format!("localhost{address}")
    } else {
        address.clone()
    };
    let wrong = |source| Failure::GdbAddress {
        address: address.clone(),
        source,
    };
    let at = full
        .to_socket_addrs()
        .map_err(wrong)?
        .next()
        .ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
    let refused = |source| Failure::GdbListen {
        address: at,
        source,
    };
    let listener = TcpListener::bind(at).map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    complain(&format!(
        "waiting for gdb; connect with `target remote {at}`"
    ));
    let (stream, _) = listener.accept().map_err(refused)?;
    drop(listener);
    match debugger::serve(board, stream)? {
        Some(stop) => end(board, stop, None),
        // Detached: it runs on alone.
        None => run_on(board, None),
    }
}

/// What the end of a run means.
fn end(board: &Board, stop: Stop, limit: Option<u64>) -> Result<Power, Failure> {
    let pc = board.hart().pcc().address();
    match stop {
        Stop::Finished(power) => Ok(power),
        Stop::Halted => Err(Failure::Halted { pc }),
        Stop::Lost => Err(Failure::Lost { pc }),
        Stop::Output(source) => Err(Failure::Output { source }),
        // Nobody interrupts, and there are no breakpoints without a debugger.
        Stop::Limit | Stop::Interrupted | Stop::Breakpoint { .. } => Err(Failure::Limit {
            limit: limit.unwrap_or(u64::MAX),
            pc,
        }),
    }
}

/// Gives the console what standard input has, once the program looks for it.
fn feed(input: &Input) {
    if !input.wait_until_wanted() {
        return;
    }
    let mut stdin = io::stdin().lock();
    let mut bytes = [0; 256];
    loop {
        match stdin.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if !bytes[..count].iter().all(|&byte| input.push(byte)) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // As if it had ended: a program cannot be told.
            Err(_) => return,
        }
    }
}

fn tell(instructions: u64, time: Duration) {
    let seconds = time.as_secs_f64();
    let speed = instructions as f64 / seconds.max(1e-9) / 1e6;
    complain(&format!(
        "{instructions} instructions in {seconds:.3} s, {speed:.1} MIPS"
    ));
}

/// A number of bytes: `4096`, `0x1000`, `512K`, `128M`, `1G`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "give bytes, or a number with K, M or G, such as 128M".to_owned();
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    number
        .ok()
        .and_then(|number: u64| number.checked_mul(1 << shift))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("0x1000", Some(4096)),
            ("512K", Some(512 << 10)),
            ("128M", Some(128 << 20)),
            ("2g", Some(2 << 30)),
            ("", None),
            ("M", None),
            ("-1M", None),
            ("1T", None),
            ("99999999999G", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
