// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a file describes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{ConfigError, Place};
use crate::{Grants, Limits, NetConfig, document, reader};

/// The most bytes that a file may have.
const MAX_FILE: u64 = 1 << 20;

/// Everything that a file describes, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The cVMs in the order in which they are started; at least one.
    pub cvms: Vec<CvmConfig>,
    /// The buffers that the monitor publishes before any cVM starts.
    pub capfiles: Vec<CapfileConfig>,
}

/// One cVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CvmConfig {
    /// Its label; no two cVMs have the same.
    pub name: String,
    /// The disk image.
    pub disk: Option<PathBuf>,
    /// Where changes of the disk go.
    pub overlay: Overlay,
    /// How many bytes a disk for changes gets when it is made.
    pub overlay_size: u64,
    /// The runtime image to load; the monitor's default when absent.
    pub runtime: Option<PathBuf>,
    /// The program and its arguments; at least the program.
    pub args: Vec<String>,
    /// Variables of the program's environment, each `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where in its file system the program starts; `/` when absent.
    pub directory: Option<String>,
    /// As whom the program runs, a name or a number, and `:` with a group; root when absent.
    pub user: Option<String>,
    /// The name that programs see; that of the cVM when absent.
    pub hostname: Option<String>,
    /// The network; none when absent.
    pub net: Option<NetConfig>,
    /// What to wait for before the next cVM is started.
    pub wait: Wait,
    /// Whether its capabilities lack the software-defined permissions.
    pub clean_room: bool,
    /// The name of the inner cVM of a nested pair.
    pub callback_in: Option<String>,
    /// The name of the outer cVM of a nested pair; the monitor when absent.
    pub callback_out: Option<String>,
    /// Where it is mapped; where there is room when absent.
    pub isolation: Option<Isolation>,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How long after its end it is started again the first time; each further time in a row it is twice as long, [`MAX_RESTART_DELAY`] at most.
    pub restart_delay: Duration,
    /// How long it may take to power off once it is asked to.
    pub stop_timeout: Duration,
    /// How long a portal of this cVM may keep a sender.
    pub portal_deadline: Duration,
    /// What it may publish and use.
    pub grants: Grants,
    /// How much of each it may take.
    pub limits: Limits,
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
}

/// How large an image for changes is made when nobody says so, in bytes.
pub const DEFAULT_OVERLAY_SIZE: u64 = 1 << 30;

/// Where changes of a disk go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// To the disk itself: it is the cVM's alone.
    #[default]
    None,
    /// Into memory of the monitor's, and away with the cVM.
    Memory,
    /// To another disk image, which is made if it is not there.
    Disk(PathBuf),
}

/// The longest wait before a cVM is started again.
pub const MAX_RESTART_DELAY: Duration = Duration::from_secs(60);

/// When a cVM that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// When its program failed, its kernel panicked, or it was stopped for what it did.
    OnFailure,
    /// Whenever it ends, unless an operator ended it.
    Always,
}

/// What to wait for before the next cVM is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Nothing.
    #[default]
    None,
    /// So many seconds.
    Seconds(u32),
    /// The end of this cVM.
    Join,
}

/// Where a cVM is mapped, and its bounds. All are whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The first byte.
    pub base: u64,
    /// How many bytes; `base + size` does not exceed 2^64 - 1.
    pub size: u64,
    /// The first byte that its capabilities allow, if that is not `base`.
    pub begin: Option<u64>,
    /// The byte after the last that its capabilities allow, if that is not `base + size`.
    pub end: Option<u64>,
}

impl Isolation {
    /// The byte after the range.
    pub const fn top(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// The range that its capabilities allow, as first byte and the byte after the last.
    pub fn bounds(&self) -> (u64, u64) {
        (
            self.begin.unwrap_or(self.base),
            self.end.unwrap_or(self.top()),
        )
    }
}

/// A buffer that the monitor publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapfileConfig {
    /// The key; 1 to 10 bytes, no NUL among them, no two the same.
    pub name: String,
    /// How many bytes.
    pub size: u64,
    /// What is in it at first, `size` bytes at most; the rest is zero.
    pub data: Vec<u8>,
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
}

impl CvmConfig {
    /// A cVM with this name, this program, and nothing else that is not the default.
    pub fn new(name: String, args: Vec<String>) -> CvmConfig {
        CvmConfig {
            name,
            disk: None,
            overlay: Overlay::None,
            overlay_size: DEFAULT_OVERLAY_SIZE,
            runtime: None,
            args,
            env: Vec::new(),
            directory: None,
            user: None,
            hostname: None,
            net: None,
            wait: Wait::None,
            clean_room: false,
            callback_in: None,
            callback_out: None,
            isolation: None,
            restart: RestartPolicy::Never,
            restart_delay: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(5),
            portal_deadline: Duration::from_secs(1),
            grants: Grants::All,
            limits: Limits::default(),
            line: 0,
        }
    }
}

impl Deployment {
    /// Reads a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`], [`ConfigError::TooLarge`], and as [`Deployment::from_str`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Deployment, ConfigError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let unreadable = |source| ConfigError::Read {
            file: file.clone(),
            source,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .map_err(unreadable)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(ConfigError::TooLarge {
                file,
                limit: MAX_FILE,
            });
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let line = 1 + error
                    .as_bytes()
                    .iter()
                    .take(good)
                    .filter(|&&byte| byte == b'\n')
                    .count();
                return Err(ConfigError::Syntax {
                    place: Place { file, line },
                    message: "it is not UTF-8".to_owned(),
                });
            }
        };
        Deployment::read(&text, &file, path)
    }

    /// Reads a text as if it were the contents of the file `name`, which is what errors call it and in whose folder paths are.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`] when it is not YAML; the others say which key is wrong.
    #[allow(
        clippy::should_implement_trait,
        reason = "the trait's method has no place for the name"
    )]
    pub fn from_str(text: &str, name: &str) -> Result<Deployment, ConfigError> {
        Deployment::read(text, name, Path::new(name))
    }

    fn read(text: &str, file: &str, path: &Path) -> Result<Deployment, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let root = document::parse(text, file)?;
        reader::Reader { file, folder }.deployment(&root)
    }
}
