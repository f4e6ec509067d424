// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stock programs of Debian: the same files in a cVM, on the host and in gVisor.
//!
//! The host runs them from a copy of the image's files, with that as its root folder. What `programs.py` times is timed by a program inside; redis is
//! asked by `redis-benchmark` on the host, in a cVM through a published port. gVisor has the host's network, which is its quickest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use capstream_e2e::{Cvm, Deployment, Program, Running};

use crate::error::BenchError;
use crate::network::free_port;
use crate::report::{Aim, Group, Measurement, Samples, Unit};
use crate::session::{LIMIT, Session, result, well};
use crate::start::installed;

const SCRIPT: &str = include_str!("programs.py");
const HOST: &str = "on the host";
const GVISOR: &str = "in gVisor";
/// What the script prints, and how many times the host's number is the most that it should be.
const TIMES: [(&str, &str, Option<f64>); 4] = [
    ("python", "start and end of python3", Some(1.3)),
    ("busybox", "busybox true, by vfork and exec", Some(1.0)),
    ("fork", "fork of python3, exit, wait", None),
    ("sqlite", "sqlite3, a database on tmpfs", Some(1.05)),
];
const COMMANDS: [(&str, &str); 2] = [
    ("SET", "redis SET, 16 at a time"),
    ("GET", "redis GET, 16 at a time"),
];
const REQUESTS: &str = "300000";
/// In a cVM.
const PORT: u16 = 6379;

/// Where the programs are.
struct Places {
    image: PathBuf,
    /// The files of the image, on the host.
    files: PathBuf,
    gvisor: Option<PathBuf>,
}

/// Copies the files of the image, if that was not done before.
fn places(session: &Session) -> Result<Places, BenchError> {
    let image = session.environment.images.join("stock.img");
    // A link to a file whose name tells what is in it.
    let file = fs::read_link(&image).map_err(BenchError::host(format!(
        "{} (make stock-image makes it)",
        image.display()
    )))?;
    let name = file.file_stem().unwrap_or(file.as_os_str());
    let files = session.environment.output.join(name);
    if !files.exists() {
        let new = files.with_extension("new");
        // It may be left by a run that was interrupted.
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).map_err(BenchError::host(new.display().to_string()))?;
        // As a user it cannot make owners and devices, which it tells and nobody needs.
        let copied = Command::new("debugfs")
            .arg("-R")
            .arg(format!("rdump / {}", new.display()))
            .arg(&image)
            .stdin(Stdio::null())
            .output()
            .map_err(BenchError::host("debugfs"))?;
        if !new.join("usr/bin/python3").exists() {
            return Err(BenchError::Failed {
                what: format!("the copy of {}", image.display()),
                code: copied.status.code().unwrap_or(-1),
                printed: String::from_utf8_lossy(&copied.stderr).into_owned(),
            });
        }
        fs::rename(&new, &files).map_err(BenchError::host(files.display().to_string()))?;
    }
    Ok(Places {
        image,
        files,
        gvisor: installed("runsc"),
    })
}

fn started(session: &Session, mut command: Command) -> Result<Running, BenchError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(Running::from_command(command, &session.environment.output)?)
}

/// A program of the image on the host: nobody needs to be root for that.
fn on_host(files: &Path, words: &[OsString]) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        r#"mount --rbind /dev "$0/dev" && exec chroot "$0" "$@""#,
    ]);
    command.arg(files).args(words);
    command
}

fn in_gvisor(runsc: &Path, files: &Path, words: &[OsString]) -> Command {
    let mut command = Command::new(runsc);
    command
        .args(["--rootless", "--network=host", "do", "-root"])
        .arg(files)
        .args(words);
    command
}

fn words<const N: usize>(all: [&str; N]) -> Vec<OsString> {
    all.map(OsString::from).into()
}

/// Requests in a second, by command.
fn asked(port: u16) -> Result<[f64; 2], BenchError> {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-n", REQUESTS, "-P", "16"])
        .args(["-t", "set,get", "--csv"])
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::host("redis-benchmark"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rates = [0.0; 2];
    for ((command, _), rate) in COMMANDS.iter().zip(&mut rates) {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("\"{command}\",\"")));
        *rate = line
            .and_then(|rest| rest.split('"').next()?.parse().ok())
            .ok_or_else(|| BenchError::NoResult {
                what: "redis-benchmark".to_owned(),
                key: command,
                printed: text.clone(),
            })?;
    }
    Ok(rates)
}

/// Asks a server once it is ready, and ends it.
fn served(mut server: Running, port: u16) -> Result<[f64; 2], BenchError> {
    server.wait_for_line("Ready to accept connections", LIMIT)?;
    let rates = asked(port)?;
    // It ends without an answer.
    let _ = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "shutdown", "nosave"])
        .output();
    let ended = server.finish(LIMIT)?;
    well(ended, "redis-server")?;
    Ok(rates)
}

fn redis_in_cvm(session: &Session, image: &Path) -> Result<[f64; 2], BenchError> {
    let port = free_port()?;
    let server = Cvm::new(
        "redis",
        "/usr/bin/redis-server --bind 0.0.0.0 --protected-mode no --save ''",
    )
    .kept_disk(image)
    .memory(512)
    .keys(&format!(
        "overlay: memory\nnet: {{ kind: user, ports: \"127.0.0.1:{port}:{PORT}\" }}"
    ));
    let server = Deployment::new("redis")
        .cvm(server)
        .start(&session.environment)?;
    served(server, port)
}

fn redis_words(port: u16) -> Vec<OsString> {
    let port = port.to_string();
    words([
        "/usr/bin/redis-server",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        "/tmp",
        "--port",
        &port,
    ])
}

/// One number for each thing that is measured.
struct Numbers(Vec<Samples>);

impl Numbers {
    fn new() -> Numbers {
        let count = TIMES.len() + COMMANDS.len();
        Numbers((0..count).map(|_| Samples::new()).collect())
    }

    fn push(&mut self, timer: Running, rates: [f64; 2]) -> Result<(), BenchError> {
        let outcome = well(timer.finish(LIMIT)?, "programs.py")?;
        let mut all = Vec::new();
        for (key, _, _) in TIMES {
            all.push(result(&outcome, "programs.py", key, "median_ns")?);
        }
        all.extend(rates);
        for (samples, value) in self.0.iter_mut().zip(all) {
            samples.push(value);
        }
        Ok(())
    }
}

/// Measures what programs take.
pub fn measure(session: &Session) -> Result<Group, BenchError> {
    let places = places(session)?;
    let Places {
        image,
        files,
        gvisor,
    } = &places;
    let script = words(["/usr/bin/python3", "-c", SCRIPT]);
    let mut ours = Numbers::new();
    let mut host = Numbers::new();
    let mut others = gvisor.as_ref().map(|_| Numbers::new());
    for run in 0..session.runs {
        session.progress("stock programs", run);
        let rates = redis_in_cvm(session, image)?;
        let timed = Program::new(
            &session.environment,
            "programs",
            &["/usr/bin/python3", "-c", SCRIPT],
        )
        .image(image)
        .options(&["--memory", "1G"])
        .command(&session.environment)?;
        ours.push(started(session, timed)?, rates)?;

        let port = free_port()?;
        let server = started(session, on_host(files, &redis_words(port)))?;
        let rates = served(server, port)?;
        host.push(started(session, on_host(files, &script))?, rates)?;

        if let (Some(runsc), Some(others)) = (gvisor, &mut others) {
            let port = free_port()?;
            let server = started(session, in_gvisor(runsc, files, &redis_words(port)))?;
            let rates = served(server, port)?;
            let timed = started(session, in_gvisor(runsc, files, &script))?;
            others.push(timed, rates)?;
        }
    }
    session.progress_end();
    let mut host = host.0.into_iter();
    let mut others = others.map(|others| others.0.into_iter());
    let what = TIMES
        .iter()
        .map(|(_, name, most)| {
            let aims = most.map(|most| Aim::Fraction(HOST, most));
            (*name, Unit::Nanoseconds, aims.into_iter().collect())
        })
        .chain(COMMANDS.iter().map(|(_, name)| {
            let aims = vec![Aim::Multiple(GVISOR, 2.0), Aim::Multiple(HOST, 0.7)];
            (*name, Unit::RequestsPerSecond, aims)
        }));
    let measurements = what
        .zip(ours.0)
        .map(|((name, unit, aims), ours)| Measurement {
            name: name.to_owned(),
            unit,
            ours,
            rivals: vec![
                (HOST, host.next()),
                (GVISOR, others.as_mut().and_then(Iterator::next)),
            ],
            aims,
        })
        .collect();
    Ok(Group {
        title: "Stock programs of Debian 12",
        measurements,
    })
}
