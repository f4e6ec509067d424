// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use capstream_config::{ConfigError, Deployment};
use clap::{Args, Parser, Subcommand};

use crate::console::Console;
use crate::cvm::Environment;
use crate::exchange::Exchange;
use crate::exit_code::ExitCode;
use crate::platform::{self, Options, PlatformError};
use crate::run_directory::{RunDirectory, RunDirectoryError};
use crate::signals;
use crate::supervisor::{RunError, Supervisor};

/// Runs cVMs: Linux kernels with their programs, each in one range of this process's memory.
#[derive(Debug, Parser)]
#[command(name = "monitor", version, after_help = ExitCode::HELP, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run the deployment that this YAML file describes
    #[arg(short = 'y', value_name = "FILE")]
    yaml: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a deployment
    Run {
        /// The YAML file that describes it
        file: PathBuf,
        #[command(flatten)]
        options: RunOptions,
    },
}

#[derive(Debug, Args)]
struct RunOptions {
    /// Tell what happens, and show the kernels' logs
    #[arg(short, long)]
    verbose: bool,
    /// Folder for the kernels' logs [default: one for this run below $XDG_STATE_HOME/capstream]
    #[arg(long, value_name = "FOLDER")]
    log_dir: Option<PathBuf>,
    /// Print when what happened to each cVM, in microseconds since the start, as JSON on standard error
    #[arg(long)]
    timings: bool,
    /// What cVMs run on
    #[arg(long, value_name = "NAME", default_value = platform::NAMES[0])]
    platform: String,
    /// Runtime image of cVMs whose entry in the file names none
    #[arg(long, value_name = "IMAGE")]
    runtime: Option<PathBuf>,
    /// More for the command line of the kernels
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    kernel_args: String,
    /// Let idle vCPUs sleep at once, for less load and more latency
    #[arg(long)]
    no_poll: bool,
}

/// What ends the monitor before a cVM was started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    LogDirectory(#[from] RunDirectoryError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("no deployment was named; use `monitor run FILE` or `monitor -y FILE`")]
    NoFile,
}

impl StartError {
    fn exit_code(&self) -> ExitCode {
        match self {
            StartError::Platform(PlatformError::Unknown { .. })
            | StartError::Config(_)
            | StartError::LogDirectory(_)
            | StartError::NoFile
            | StartError::Run(
                RunError::NoRuntime { .. } | RunError::Image(_) | RunError::Capfile { .. },
            ) => ExitCode::Usage,
            StartError::Platform(_)
            | StartError::Run(RunError::Platform(_) | RunError::Thread { .. }) => {
                ExitCode::MonitorFailed
            }
        }
    }
}

/// Does what the command line says; returns the status to exit with. To be called once, before there are threads.
pub fn main() -> u8 {
    let start = Instant::now();
    signals::block();
    // Threads allocate little: memory of their own for each of them would cost more than it gains.
    // SAFETY: there are no other threads yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
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
    let (file, options) = match command_line {
        CommandLine {
            command: Some(Command::Run { file, options }),
            ..
        } => (Some(file), options),
        CommandLine { yaml, options, .. } => (yaml, options),
    };
    let level = if options.verbose {
        tracing::Level::INFO
    } else {
        tracing::Level::WARN
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .without_time()
        .init();
    match run(file, options, start) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("monitor: {error}");
            error.exit_code() as u8
        }
    }
}

fn run(file: Option<PathBuf>, options: RunOptions, start: Instant) -> Result<u8, StartError> {
    let file = file.ok_or(StartError::NoFile)?;
    let console = Arc::new(Console::default());
    if options.verbose {
        console.line(&format!("Using yaml.cfg = {}", file.display()));
    }
    let deployment = Deployment::from_file(&file)?;
    let platform = platform::by_name(
        &options.platform,
        &Options {
            poll: !options.no_poll,
        },
    )?;
    let run_directory = match &options.log_dir {
        Some(path) => Some(RunDirectory::at(path)?),
        None => RunDirectory::for_this_run()
            .inspect_err(|error| tracing::warn!("kernel logs are not kept: {error}"))
            .ok(),
    };
    let environment = Environment {
        platform,
        exchange: Arc::new(Exchange::new()),
        console,
        run_directory,
        verbose: options.verbose,
        single: deployment.cvms.len() == 1,
        start,
        kernel_args: options.kernel_args,
    };
    let outcomes = Supervisor::run(
        &deployment,
        environment,
        options.runtime.as_deref(),
        options.timings,
    )?;
    Ok(ExitCode::status(&outcomes))
}
