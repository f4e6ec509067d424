// SPDX-License-Identifier: Apache-2.0 OR MIT
//! cVMs in the test's own process, for what a command line does not reach.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use capstream_monitor::console::Console;
use capstream_monitor::cvm::{self, Cvm, CvmSpec, EndOfCvm, Environment};
use capstream_monitor::exchange::Exchange;
use capstream_monitor::image::Image;
use capstream_monitor::outlets::Outlets;
use capstream_monitor::platform::{self, Options, Placement};

/// How long an end is waited for.
const LIMIT: Duration = Duration::from_secs(100);

/// A monitor without a supervisor.
pub struct Monitor {
    pub environment: Environment,
    image: Image,
    events: Receiver<EndOfCvm>,
    sender: Sender<EndOfCvm>,
    output: tempfile::NamedTempFile,
    _console: File,
}

impl Monitor {
    /// No cVM yet.
    pub fn new() -> Monitor {
        let platform = platform::by_name(super::platform(), &Options::default()).unwrap();
        let image = Image::open(super::guest(), &*platform).unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        let file = output.reopen().unwrap();
        let console = Arc::new(Console::new(file.as_raw_fd()));
        let (sender, events) = channel();
        Monitor {
            environment: Environment {
                platform,
                exchange: Arc::new(Exchange::new()),
                console: Arc::clone(&console),
                terminal: console,
                streams: None,
                run_directory: None,
                verbose: false,
                single: false,
                start: Instant::now(),
                kernel_args: String::new(),
                trace: None,
            },
            image,
            events,
            sender,
            output,
            _console: file,
        }
    }

    /// Starts a cVM with a scenario of the guest and its arguments, and with a disk if one is named.
    pub fn start(&self, index: usize, args: &[&str], disk: Option<&Path>) -> Cvm {
        self.start_as(&format!("c{index}"), index, args, disk)
    }

    /// The same with a name.
    pub fn start_as(&self, name: &str, index: usize, args: &[&str], disk: Option<&Path>) -> Cvm {
        let spec = CvmSpec {
            name: name.to_owned(),
            disk: disk.map(Path::to_owned),
            overlay: capstream_config::Overlay::None,
            overlay_size: capstream_config::DEFAULT_OVERLAY_SIZE,
            env: Vec::new(),
            directory: None,
            user: None,
            hostname: None,
            args: [&["/guest"], args]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            placement: Placement::Anywhere,
            // Guests know an address that is outside of it.
            size: Some(128 << 20),
            begin: None,
            end: None,
            portal_deadline: Duration::from_secs(1),
            clean_room: false,
            grants: capstream_config::Grants::All,
            limits: capstream_config::Limits::default(),
            network: None,
            outlets: Arc::new(Outlets::new(false)),
            again: false,
        };
        let sender = self.sender.clone();
        cvm::start(
            index,
            &spec,
            &self.image,
            &self.environment,
            sender,
            |end| end,
        )
        .unwrap()
    }

    /// The next cVM to end.
    pub fn next_end(&self) -> EndOfCvm {
        self.events.recv_timeout(LIMIT).unwrap()
    }

    /// What cVMs printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }
}
