// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is to be run: cVMs and capfiles, written down as the monitor's file.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::environment::Environment;
use crate::error::HarnessError;
use crate::run::{CONTROL_SOCKET, Running};

/// Where the first cVM is mapped.
pub const BASE: u64 = 0x1000_0000_0000;
/// How far apart cVMs are.
pub const STRIDE: u64 = 0x100_0000_0000;
const MIB: u64 = 1 << 20;

/// One cVM.
#[derive(Clone, Debug)]
pub struct Cvm {
    name: String,
    args: String,
    disk: String,
    /// A disk that is there already.
    kept_disk: Option<PathBuf>,
    memory: u64,
    wait: Option<i64>,
    keys: String,
}

impl Cvm {
    /// A cVM with its label and its command line, 128 MiB of memory, and the disk image of the tests.
    pub fn new(name: &str, args: &str) -> Cvm {
        Cvm {
            name: name.to_owned(),
            args: args.to_owned(),
            disk: "tests.ext4".to_owned(),
            kept_disk: None,
            memory: 128,
            wait: None,
            keys: String::new(),
        }
    }

    /// With another disk image from the folder of images.
    #[must_use]
    pub fn disk(mut self, image: &str) -> Cvm {
        self.disk = image.to_owned();
        self
    }

    /// With this disk image as it is, instead of a copy of one from the folder of images.
    #[must_use]
    pub fn kept_disk(mut self, path: &Path) -> Cvm {
        self.kept_disk = Some(path.to_owned());
        self
    }

    /// With another size in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u64) -> Cvm {
        self.memory = mib;
        self
    }

    /// With more keys, each a line.
    #[must_use]
    pub fn keys(mut self, keys: &str) -> Cvm {
        self.keys = keys.to_owned();
        self
    }

    /// With the key `wait`: seconds before the next one is started, -1 to join this one first.
    #[must_use]
    pub fn wait(mut self, wait: i64) -> Cvm {
        self.wait = Some(wait);
        self
    }
}

/// A buffer that the monitor publishes.
#[derive(Clone, Debug)]
pub struct Capfile {
    /// Its key.
    pub key: String,
    /// How many bytes.
    pub size: u64,
    /// What is in it, as it is written between double quotes in YAML.
    pub data: String,
}

/// A run of the monitor, in a folder of its own.
#[derive(Clone, Debug)]
pub struct Deployment {
    name: String,
    cvms: Vec<Cvm>,
    capfiles: Vec<Capfile>,
    yaml: Option<String>,
    arguments: Vec<OsString>,
    input: Option<String>,
    file_limit: Option<u64>,
    path: Option<String>,
}

impl Deployment {
    /// An empty one; the name is that of its folder, so no two of one process may share it.
    pub fn new(name: &str) -> Deployment {
        Deployment {
            name: name.to_owned(),
            cvms: Vec::new(),
            capfiles: Vec::new(),
            yaml: None,
            arguments: Vec::new(),
            input: None,
            file_limit: None,
            path: None,
        }
    }

    /// With this text as the monitor's standard input, which is empty otherwise.
    #[must_use]
    pub fn input(mut self, text: String) -> Deployment {
        self.input = Some(text);
        self
    }

    /// With a host whose files can have only so many bytes, as on a full disk.
    #[must_use]
    pub fn file_limit(mut self, bytes: u64) -> Deployment {
        self.file_limit = Some(bytes);
        self
    }

    /// With these folders as those in which the monitor finds programs.
    #[must_use]
    pub fn path(mut self, folders: &str) -> Deployment {
        self.path = Some(folders.to_owned());
        self
    }

    /// With one more cVM.
    #[must_use]
    pub fn cvm(mut self, cvm: Cvm) -> Deployment {
        self.cvms.push(cvm);
        self
    }

    /// With one more capfile.
    #[must_use]
    pub fn capfile(mut self, key: &str, size: u64, data: &str) -> Deployment {
        self.capfiles.push(Capfile {
            key: key.to_owned(),
            size,
            data: data.to_owned(),
        });
        self
    }

    /// With this text as the monitor's file, in which nothing is replaced but `RUNTIME` and `DISK` by paths that exist.
    #[must_use]
    pub fn yaml(mut self, text: &str) -> Deployment {
        self.yaml = Some(text.to_owned());
        self
    }

    /// With one more argument for the monitor.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Deployment {
        self.arguments.push(argument.into());
        self
    }

    /// With a control socket of its own: [`Running::operate`].
    #[must_use]
    pub fn controlled(self) -> Deployment {
        self.argument("--control").argument(CONTROL_SOCKET)
    }

    /// Makes the folder with the monitor's file and a disk for each cVM, and starts the monitor.
    ///
    /// # Errors
    ///
    /// [`HarnessError::File`] and [`HarnessError::Process`].
    pub fn start(&self, environment: &Environment) -> Result<Running, HarnessError> {
        let folder = environment.output.join(&self.name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_error(&folder)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).map_err(file_error(&folder))?;
        let text = match &self.yaml {
            Some(text) => {
                let disk = folder.join("disk.ext4");
                copy(&environment.images.join("tests.ext4"), &disk)?;
                text.replace("RUNTIME", &environment.runtime.display().to_string())
                    .replace("DISK", &disk.display().to_string())
            }
            None => self.write_out(environment, &folder)?,
        };
        let file = folder.join("deployment.yaml");
        fs::write(&file, text).map_err(file_error(&file))?;
        let mut arguments: Vec<OsString> = vec!["-y".into(), file.into()];
        arguments.extend(["--platform".into(), environment.platform.clone().into()]);
        arguments.extend(["--log-dir".into(), folder.clone().into()]);
        arguments.extend(self.arguments.iter().cloned());
        let input = match &self.input {
            None => Stdio::null(),
            Some(text) => {
                let path = folder.join("input");
                fs::write(&path, text).map_err(file_error(&path))?;
                fs::File::open(&path).map_err(file_error(&path))?.into()
            }
        };
        if let Some(path) = &self.path {
            let mut elsewhere: Vec<OsString> = vec![format!("PATH={path}").into()];
            elsewhere.push(environment.monitor.clone().into());
            elsewhere.extend(arguments);
            return Running::start(Path::new("env"), &elsewhere, &folder, input);
        }
        let Some(limit) = self.file_limit else {
            return Running::start(&environment.monitor, &arguments, &folder, input);
        };
        // It becomes the monitor, with the same process id.
        let mut limited: Vec<OsString> = vec![format!("--fsize={limit}").into()];
        limited.push(environment.monitor.clone().into());
        limited.extend(arguments);
        Running::start(Path::new("prlimit"), &limited, &folder, input)
    }

    fn write_out(&self, environment: &Environment, folder: &Path) -> Result<String, HarnessError> {
        let mut text = String::from("cVMs:\n");
        for (index, cvm) in self.cvms.iter().enumerate() {
            let disk = match &cvm.kept_disk {
                Some(disk) => disk.clone(),
                None => {
                    let disk = folder.join(format!("{}.ext4", cvm.name));
                    copy(&environment.images.join(&cvm.disk), &disk)?;
                    disk
                }
            };
            let base = BASE + STRIDE * index as u64;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "  - name: {}\n    disk: {}\n    runtime: {}\n    args: {}\n    isolation:\n      base: {base:#x}\n      size: {:#x}\n",
                cvm.name,
                disk.display(),
                environment.runtime.display(),
                cvm.args,
                cvm.memory * MIB,
            );
            if let Some(wait) = cvm.wait {
                let _ = writeln!(text, "    wait: {wait}");
            }
            for line in cvm.keys.lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
        if !self.capfiles.is_empty() {
            text.push_str("capfiles:\n");
        }
        for capfile in &self.capfiles {
            let _ = write!(
                text,
                "  - name: {}\n    size: {:#x}\n    data: \"{}\"\n",
                capfile.key, capfile.size, capfile.data
            );
        }
        Ok(text)
    }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> HarnessError + '_ {
    |source| HarnessError::File {
        path: path.to_owned(),
        source,
    }
}

/// A copy that may be written to, whatever the original.
fn copy(from: &Path, to: &PathBuf) -> Result<(), HarnessError> {
    fs::copy(from, to).map(|_| ()).map_err(file_error(from))
}
