// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstream_config::{ConfigError, Deployment, Severity};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::console::Console;
use crate::control::client::{ClientError, Format, Target};
use crate::control::server::{Server, Subject};
use crate::control::socket::{Listener, SocketError};
use crate::control::{KindName, Request};
use crate::cvm::Environment;
use crate::events::{self, EventLayer, Events};
use crate::exchange::Exchange;
use crate::exit_code::ExitCode;
use crate::one_program::OneProgram;
use crate::outlets::Source;
use crate::platform::{self, Options, PlatformError};
use crate::run_directory::{RunDirectory, RunDirectoryError};
use crate::signals;
use crate::standard_streams::StandardStreams;
use crate::supervisor::{RunError, Supervisor};
use crate::terminal_guard::TerminalGuard;
use crate::trace::{TraceError, TraceLayer, Tracer};

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
    /// Run a deployment, or one program in a disk image
    #[command(
        override_usage = "monitor run [OPTIONS] FILE\n       monitor run [OPTIONS] --image IMAGE -- PROGRAM [ARGUMENT]..."
    )]
    Run {
        /// The YAML file that describes it
        #[arg(required_unless_present = "image", conflicts_with = "image")]
        file: Option<PathBuf>,
        #[command(flatten)]
        program: Box<OneProgram>,
        #[command(flatten)]
        options: RunOptions,
    },
    /// Look for mistakes in a file, without running anything
    Check {
        /// The YAML file
        file: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the JSON schema of the YAML file, for editors
    Schema,
    /// Print what makes a shell complete the words of this command
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    #[command(flatten)]
    Operate(Operation),
}

/// What is asked of a monitor that runs already.
#[derive(Debug, Subcommand)]
enum Operation {
    /// List cVMs
    Ps {
        #[command(flatten)]
        target: Target,
    },
    /// Print what cVMs and channels did, in numbers
    Stats {
        #[command(flatten)]
        target: Target,
    },
    /// Show what cVMs and channels do, again and again; q ends it
    Top {
        /// Seconds from one view to the next
        #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
        interval: f64,
        #[command(flatten)]
        target: Target,
    },
    /// Press the power button of a cVM, and wait for its end
    Stop {
        /// Its name
        cvm: String,
        #[command(flatten)]
        target: Target,
    },
    /// End a cVM at once
    Kill {
        /// Its name
        cvm: String,
        #[command(flatten)]
        target: Target,
    },
    /// Stop a cVM if it runs, and start it
    Restart {
        /// Its name
        cvm: String,
        #[command(flatten)]
        target: Target,
    },
    /// Take back what is published under a key: nobody can use it any more
    Revoke {
        /// The key
        key: String,
        /// Only this, if several things have the key
        #[arg(long, value_enum)]
        kind: Option<KindName>,
        #[command(flatten)]
        target: Target,
    },
    /// Print what the programs and the kernel of a cVM wrote
    Logs {
        /// Its name
        cvm: String,
        /// Only what its programs or what its kernel wrote
        #[arg(long, value_enum)]
        source: Option<Source>,
        /// Only so many of the latest lines
        #[arg(short = 'n', long, value_name = "LINES")]
        last: Option<usize>,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Be the console of a cVM; Ctrl-] leaves it
    Console {
        /// Its name
        cvm: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print what happened to cVMs
    Events {
        /// Only so many of the latest
        #[arg(short = 'n', long, value_name = "EVENTS")]
        last: Option<usize>,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        target: Target,
    },
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("use a number of seconds from 0.1 to 3600".to_owned()),
    }
}

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// An object of JSON on each line
    Json,
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
    /// Write what vCPUs do to a file that ui.perfetto.dev opens
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How log events are written on standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// The socket on which operators are answered [default: one for this process in $XDG_RUNTIME_DIR/capstream]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
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
    Control(#[from] SocketError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("standard output: {0}")]
    Output(#[source] std::io::Error),
    #[error("the standard streams cannot be lent to a program: {0}")]
    Streams(#[source] std::io::Error),
    #[error("the terminal cannot be lent to a program: {0}")]
    Terminal(#[source] std::io::Error),
    #[error("no deployment was named; use `monitor run FILE` or `monitor -y FILE`")]
    NoFile,
}

impl StartError {
    fn exit_code(&self) -> ExitCode {
        match self {
            StartError::Platform(PlatformError::Unknown { .. })
            | StartError::Config(_)
            | StartError::LogDirectory(_)
            | StartError::Control(_)
            | StartError::Trace(TraceError::File { .. })
            | StartError::NoFile
            | StartError::Run(
                RunError::NoRuntime { .. } | RunError::Image(_) | RunError::Capfile { .. },
            ) => ExitCode::Usage,
            StartError::Output(_)
            | StartError::Streams(_)
            | StartError::Terminal(_)
            | StartError::Platform(_)
            | StartError::Trace(TraceError::Thread { .. })
            | StartError::Run(
                RunError::Platform(_) | RunError::Random { .. } | RunError::Thread { .. },
            ) => ExitCode::MonitorFailed,
        }
    }
}

/// Does what the command line says; returns the status to exit with. To be called once, before there are threads.
pub fn main() -> u8 {
    let start = Instant::now();
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
    let result = match command_line.command {
        Some(Command::Run {
            file,
            program,
            options,
        }) => match (file, program.image.clone()) {
            (Some(file), _) => run(Subjects::File(file), options, start),
            (None, Some(image)) => run(Subjects::Program { program, image }, options, start),
            (None, None) => Err(StartError::NoFile),
        },
        Some(Command::Check { file, format }) => check(&file, format),
        Some(Command::Schema) => print(capstream_config::schema()),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "monitor", &mut text);
            print(text)
        }
        Some(Command::Man) => {
            let mut text = Vec::new();
            manual(&mut text)
                .map_err(StartError::Output)
                .and_then(|()| print(text))
        }
        None => match &command_line.yaml {
            Some(file) => run(Subjects::File(file.clone()), command_line.options, start),
            None => Err(StartError::NoFile),
        },
        Some(Command::Operate(operation)) => {
            return match operate(operation) {
                Ok(()) => ExitCode::Success as u8,
                Err(error) => {
                    eprintln!("monitor: {error}");
                    ExitCode::Refused as u8
                }
            };
        }
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("monitor: {error}");
            error.exit_code() as u8
        }
    }
}

/// Prints all of it. That nobody reads any more is no error.
fn print(text: impl AsRef<[u8]>) -> Result<u8, StartError> {
    match std::io::stdout().write_all(text.as_ref()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(StartError::Output(error))
        }
        _ => Ok(ExitCode::Success as u8),
    }
}

/// The manual page: that of the command, and then those of its subcommands.
fn manual(text: &mut Vec<u8>) -> std::io::Result<()> {
    let command = CommandLine::command();
    clap_mangen::Man::new(command.clone()).render(text)?;
    for subcommand in command.get_subcommands() {
        writeln!(
            text,
            ".SH \"MONITOR {}\"",
            subcommand.get_name().to_uppercase()
        )?;
        let man = clap_mangen::Man::new(subcommand.clone());
        man.render_synopsis_section(text)?;
        man.render_description_section(text)?;
        man.render_options_section(text)?;
    }
    Ok(())
}

/// Says what is wrong with a file.
fn check(file: &Path, format: Format) -> Result<u8, StartError> {
    let findings = Deployment::from_file(file)?.check();
    let mut text = String::new();
    for finding in &findings {
        let line = match format {
            Format::Table => format!(
                "{}:{}: {}: {}",
                file.display(),
                finding.line,
                finding.severity,
                finding.message
            ),
            Format::Json => serde_json::json!({
                "file": file,
                "line": finding.line,
                "severity": finding.severity.to_string(),
                "message": finding.message,
            })
            .to_string(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    if findings.is_empty() && format == Format::Table {
        text = format!("{}: nothing is wrong with it\n", file.display());
    }
    let printed = print(text)?;
    let worst = findings.iter().map(|finding| finding.severity).max();
    Ok(if worst == Some(Severity::Error) {
        ExitCode::Usage as u8
    } else {
        printed
    })
}

fn operate(operation: Operation) -> Result<(), ClientError> {
    match operation {
        Operation::Stats { target } => target.stats(),
        Operation::Top { interval, target } => target.top(Duration::from_secs_f64(interval)),
        Operation::Ps { target } => target.ps(),
        Operation::Stop { cvm, target } => target.act(&cvm, &Request::Stop { cvm: cvm.clone() }),
        Operation::Kill { cvm, target } => target.act(&cvm, &Request::Kill { cvm: cvm.clone() }),
        Operation::Restart { cvm, target } => {
            target.act(&cvm, &Request::Restart { cvm: cvm.clone() })
        }
        Operation::Revoke { key, kind, target } => {
            target.act_on_monitor(&Request::Revoke { key, kind })
        }
        Operation::Logs {
            cvm,
            source,
            last,
            follow,
            target,
        } => {
            let request = Request::Logs {
                cvm: cvm.clone(),
                source,
                last,
                follow,
            };
            target.read(Some(&cvm), &request)
        }
        Operation::Console { cvm, target } => target.console(&cvm),
        Operation::Events {
            last,
            follow,
            target,
        } => target.read(None, &Request::Events { last, follow }),
    }
}

/// Shows log events on standard error, and keeps them for operators and for a trace.
fn start_logging(verbose: bool, format: LogFormat, trace: TraceLayer) -> Arc<Events> {
    let level = if verbose {
        LevelFilter::INFO
    } else {
        LevelFilter::WARN
    };
    let events = events::journal();
    let shown = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let shown = match format {
        LogFormat::Text => shown.without_time().boxed(),
        LogFormat::Json => shown.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(shown.with_filter(level))
        .with(trace.with_filter(LevelFilter::INFO))
        .with(EventLayer::new(Arc::clone(&events)).with_filter(LevelFilter::INFO))
        .init();
    events
}

/// What is run.
enum Subjects {
    /// A deployment.
    File(PathBuf),
    /// One program, which stands in for the monitor.
    Program {
        program: Box<OneProgram>,
        /// Where it is.
        image: PathBuf,
    },
}

fn run(subjects: Subjects, options: RunOptions, start: Instant) -> Result<u8, StartError> {
    signals::block();
    signals::ignore_file_limit();
    let streams = match &subjects {
        Subjects::File(_) => None,
        Subjects::Program { .. } => Some(Arc::new(
            StandardStreams::new().map_err(StartError::Streams)?,
        )),
    };
    let mut guard = match &streams {
        Some(streams) if streams.input_is_terminal() => {
            Some(TerminalGuard::new().map_err(StartError::Terminal)?)
        }
        _ => None,
    };
    // Threads allocate little: memory of their own for each of them would cost more than it gains.
    // SAFETY: there are no other threads yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let trace_layer = TraceLayer::default();
    let events = start_logging(options.verbose, options.log_format, trace_layer.clone());
    // Standard output belongs to the program that stands in for the monitor.
    let console = Arc::new(match &streams {
        Some(_) => Console::new(libc::STDERR_FILENO),
        None => Console::default(),
    });
    let terminal = match &streams {
        Some(streams) => Arc::new(Console::new(streams.console())),
        None => Arc::clone(&console),
    };
    let (deployment, path) = match subjects {
        Subjects::File(file) => {
            if options.verbose {
                console.line(&format!("Using yaml.cfg = {}", file.display()));
            }
            (Deployment::from_file(&file)?, file)
        }
        Subjects::Program { program, image } => {
            let term = streams
                .as_deref()
                .filter(|streams| streams.has_terminal())
                .and_then(|_| std::env::var("TERM").ok());
            let deployment = program.deployment(term).ok_or(StartError::NoFile)?;
            (deployment, image)
        }
    };
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
    let trace = match &options.trace {
        Some(path) => Some(Tracer::start(path, &platform)?),
        None => None,
    };
    if let Some(trace) = &trace {
        trace_layer.set(Arc::clone(trace));
    }
    let environment = Environment {
        platform,
        exchange: Arc::new(Exchange::new()),
        console,
        terminal,
        streams,
        run_directory,
        verbose: options.verbose,
        single: deployment.cvms.len() == 1,
        start,
        kernel_args: options.kernel_args,
        trace: trace.clone(),
    };
    let exchange = Arc::clone(&environment.exchange);
    let supervisor = Supervisor::new(
        &deployment,
        environment,
        options.runtime.as_deref(),
        options.timings,
    )?;
    let server = match Listener::new(options.control.as_deref()) {
        Ok(listener) => Some(
            Server::start(
                listener,
                Subject {
                    controller: supervisor.controller(),
                    exchange,
                    events,
                    deployment: path,
                    platform: options.platform,
                },
            )
            .map_err(|source| RunError::Thread { source })?,
        ),
        // Whoever asked for a certain socket needs it.
        Err(error) if options.control.is_some() => return Err(error.into()),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    };
    if let Some(guard) = &mut guard {
        guard.enter_raw_mode().map_err(StartError::Terminal)?;
    }
    let outcomes = supervisor.run()?;
    drop(guard);
    if let Some(trace) = trace {
        trace.finish();
    }
    if let Some(server) = server {
        server.finish();
    }
    Ok(ExitCode::status(&outcomes))
}
