// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operator's side of the control socket: the commands.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::termios::tcgetwinsize;

use crate::control::{Listing, Reply, Request, Statistics, live, socket, table, terminal};
use crate::signals;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No monitor runs.
    #[error("no monitor of yours runs; looked in {}; start one by `monitor run FILE`, or name its socket with --control", folder.display())]
    NoMonitor {
        /// Where monitors listen.
        folder: PathBuf,
    },
    /// Several monitors could be meant.
    #[error("{meant}; choose one with --control: {}", sockets.join(", "))]
    Ambiguous {
        /// What is not clear.
        meant: String,
        /// The sockets.
        sockets: Vec<String>,
    },
    /// The monitor does not accept.
    #[error("{}: {source}; does the monitor run?", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The monitor refuses.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the monitor does not answer: {0}")]
    Broken(#[source] io::Error),
    /// The monitor said something else than what was asked.
    #[error("the answer of the monitor is not understood: {0}; is it the same version?")]
    NotUnderstood(String),
    /// What was printed could not be.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The terminal cannot be used.
    #[error("the terminal: {0}")]
    Terminal(#[source] io::Error),
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: JSON, one object, or one a line.
    Json,
}

/// What all commands have.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// The control socket of the monitor; by default the one of yours that runs
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

struct Connection {
    reader: BufReader<UnixStream>,
}

/// Tells a cVM the size of our terminal, now and whenever it changes.
fn follow_size(path: PathBuf, cvm: String) -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let tell = move || {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            let request = Request::Resize {
                cvm: cvm.clone(),
                rows: size.ws_row,
                columns: size.ws_col,
            };
            // The console itself tells when the monitor is gone.
            let _ = Connection::open(&path, &request).and_then(|mut told| told.only());
        }
    };
    tell();
    signals::on_resize(tell)
}

impl Connection {
    fn open(path: &Path, request: &Request) -> Result<Connection, ClientError> {
        let mut stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut line = serde_json::to_vec(request)
            .map_err(|error| ClientError::NotUnderstood(error.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(ClientError::Broken)?;
        Ok(Connection {
            reader: BufReader::new(stream),
        })
    }

    /// The next reply; `None` at the end.
    fn next(&mut self) -> Result<Option<Reply>, ClientError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => match serde_json::from_str(&line) {
                Ok(Reply::Refused(why)) => Err(ClientError::Refused(why)),
                Ok(reply) => Ok(Some(reply)),
                Err(error) => Err(ClientError::NotUnderstood(error.to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(ClientError::Broken(error)),
        }
    }

    /// The only reply.
    fn only(&mut self) -> Result<Reply, ClientError> {
        self.next()?
            .ok_or_else(|| ClientError::Broken(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T, ClientError> {
    Err(ClientError::NotUnderstood(format!("{reply:?}")))
}

/// Prints a line; false when nobody reads any more.
fn print(text: &str) -> Result<bool, ClientError> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.write_all(b"\n"))
        .and_then(|()| output.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(ClientError::Output(error)),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, ClientError> {
    serde_json::to_string(value).map_err(|error| ClientError::NotUnderstood(error.to_string()))
}

fn list(path: &Path) -> Result<Listing, ClientError> {
    match Connection::open(path, &Request::List {})?.only()? {
        Reply::Cvms(listing) => Ok(listing),
        other => unexpected(&other),
    }
}

fn statistics(path: &Path) -> Result<Statistics, ClientError> {
    match Connection::open(path, &Request::Statistics {})?.only()? {
        Reply::Statistics(statistics) => Ok(*statistics),
        other => unexpected(&other),
    }
}

impl Target {
    /// The monitors that are meant when no cVM is named, with their cVMs.
    fn all(&self) -> Result<Vec<(PathBuf, Listing)>, ClientError> {
        if let Some(path) = &self.control {
            return Ok(vec![(path.clone(), list(path)?)]);
        }
        let mut found = Vec::new();
        for path in socket::all() {
            match list(&path) {
                Ok(listing) => found.push((path, listing)),
                // A monitor that was killed leaves its socket behind; one that is ending may be gone by now.
                Err(ClientError::Connect { .. } | ClientError::Broken(_)) => {
                    socket::remove_stale(&path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn choose(
        &self,
        meant: &str,
        is_meant: impl Fn(&Listing) -> bool,
    ) -> Result<PathBuf, ClientError> {
        if let Some(path) = &self.control {
            return Ok(path.clone());
        }
        let all = self.all()?;
        if let [(path, _)] = all.as_slice() {
            return Ok(path.clone());
        }
        if all.is_empty() {
            return Err(ClientError::NoMonitor {
                folder: socket::folder(),
            });
        }
        let chosen: Vec<&PathBuf> = all
            .iter()
            .filter(|(_, listing)| is_meant(listing))
            .map(|(path, _)| path)
            .collect();
        if let [path] = chosen.as_slice() {
            return Ok((*path).clone());
        }
        let meant = match chosen.len() {
            0 => format!("none of {} monitors has {meant}", all.len()),
            several => format!("{several} monitors have {meant}"),
        };
        Err(ClientError::Ambiguous {
            meant,
            sockets: all
                .iter()
                .map(|(path, listing)| {
                    format!("{} ({})", path.display(), listing.deployment.display())
                })
                .collect(),
        })
    }

    /// The monitor that has the cVM.
    fn of_cvm(&self, cvm: &str) -> Result<PathBuf, ClientError> {
        self.choose(&format!("a cVM `{cvm}`"), |listing| {
            listing.cvms.iter().any(|known| known.name == cvm)
        })
    }

    /// The only monitor.
    fn only(&self) -> Result<PathBuf, ClientError> {
        self.choose("what is asked for", |_| true)
    }

    /// `ps`: lists the cVMs of all monitors.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all commands.
    pub fn ps(&self) -> Result<(), ClientError> {
        let listings: Vec<Listing> = self
            .all()?
            .into_iter()
            .map(|(_, listing)| listing)
            .collect();
        match self.format {
            Format::Table => print(table::cvms(&listings).trim_end())?,
            Format::Json => print(&json(&listings)?)?,
        };
        Ok(())
    }

    /// `stats`: what the cVMs that run and the channels of a monitor did.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn stats(&self) -> Result<(), ClientError> {
        let statistics = statistics(&self.only()?)?;
        match self.format {
            Format::Table => print(table::statistics(&statistics, None).trim_end())?,
            Format::Json => print(&json(&statistics)?)?,
        };
        Ok(())
    }

    /// `top`: the same again and again, with rates, until the operator or the monitor ends it. As JSON, an object a line.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn top(&self, interval: Duration) -> Result<(), ClientError> {
        let path = self.only()?;
        let mut view = live::View::new().map_err(ClientError::Terminal)?;
        let mut before: Option<Statistics> = None;
        loop {
            let now = match statistics(&path) {
                // The monitor has ended.
                Err(ClientError::Connect { .. } | ClientError::Broken(_)) if before.is_some() => {
                    return Ok(());
                }
                now => now?,
            };
            let shown = match self.format {
                Format::Table => {
                    let text = table::statistics(&now, before.as_ref());
                    view.show(&text).map_err(ClientError::Output)?;
                    true
                }
                Format::Json => print(&json(&now)?)?,
            };
            before = Some(now);
            if !shown || view.wait(interval).map_err(ClientError::Terminal)? {
                return Ok(());
            }
        }
    }

    /// A command for one cVM that is answered when it is done.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn act(&self, cvm: &str, request: &Request) -> Result<(), ClientError> {
        self.do_at(&self.of_cvm(cvm)?, request)
    }

    /// A command for the only monitor.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn act_on_monitor(&self, request: &Request) -> Result<(), ClientError> {
        self.do_at(&self.only()?, request)
    }

    fn do_at(&self, path: &Path, request: &Request) -> Result<(), ClientError> {
        let reply = Connection::open(path, request)?.only()?;
        match (self.format, &reply) {
            (Format::Table, Reply::Done(how)) => {
                for line in how.lines() {
                    print(&table::plain(line))?;
                }
            }
            (Format::Json, Reply::Done(_)) => {
                print(&json(&reply)?)?;
            }
            (_, other) => return unexpected(other),
        }
        Ok(())
    }

    /// A command that is answered by lines.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn read(&self, cvm: Option<&str>, request: &Request) -> Result<(), ClientError> {
        let path = match cvm {
            Some(cvm) => self.of_cvm(cvm)?,
            None => self.only()?,
        };
        let mut connection = Connection::open(&path, request)?;
        while let Some(reply) = connection.next()? {
            let text = match (&reply, self.format) {
                (Reply::Line(line), Format::Table) => table::log_line(line),
                (Reply::Line(line), Format::Json) => json(line)?,
                (Reply::Event(event), Format::Table) => table::event(event),
                (Reply::Event(event), Format::Json) => json(event)?,
                (Reply::Missed(count), Format::Table) => {
                    eprintln!("monitor: {count} earlier lines are not kept any more");
                    continue;
                }
                (Reply::Missed(_), Format::Json) => json(&reply)?,
                (other, _) => return unexpected(other),
            };
            if !print(&text)? {
                break;
            }
        }
        Ok(())
    }

    /// `console`: becomes the console of a cVM.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn console(&self, cvm: &str) -> Result<(), ClientError> {
        let request = Request::Console {
            cvm: cvm.to_owned(),
        };
        let path = self.of_cvm(cvm)?;
        let mut connection = Connection::open(&path, &request)?;
        let what = match connection.only()? {
            Reply::Attached(what) => what,
            other => return unexpected(&other),
        };
        follow_size(path, cvm.to_owned()).map_err(ClientError::Terminal)?;
        // Output may have followed at once.
        let early = connection.reader.buffer().to_vec();
        io::stdout()
            .write_all(&early)
            .map_err(ClientError::Output)?;
        let stream = connection.reader.into_inner();
        terminal::run(&stream, &what).map_err(ClientError::Terminal)
    }
}
