// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the things are that a run needs, and what it may expect of the platform it runs on.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HarnessError;

/// The monitor, its platform, the runtime image, the disk images, and a folder for what runs leave behind.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The monitor's executable.
    pub monitor: PathBuf,
    /// What the monitor runs cVMs on, as its option `--platform` names it.
    pub platform: String,
    /// The runtime image.
    pub runtime: PathBuf,
    /// The folder of the disk images and of the programs in them.
    pub images: PathBuf,
    /// The folder in which each run gets one of its own.
    pub output: PathBuf,
    /// Counts that are there for their volume are divided by it.
    less: usize,
    /// Limits of time are multiplied by it.
    patience: u32,
}

/// What depends on the platform where no variable says otherwise.
struct Defaults {
    /// The folder of the kernel's build in the cache.
    kernel: &'static str,
    /// The folder of the disk images in `target`.
    images: &'static str,
    less: usize,
    patience: u32,
}

impl Defaults {
    fn of(platform: &str) -> Defaults {
        if platform.starts_with("cheri-riscv64") {
            // A simulated processor is some 30 times slower.
            Defaults {
                kernel: "kernel-riscv64",
                images: "disk-image-riscv64",
                less: 10,
                patience: 5,
            }
        } else {
            Defaults {
                kernel: "kernel",
                images: "disk-image",
                less: 1,
                patience: 1,
            }
        }
    }
}

/// The value of a variable, or where the build leaves things when it is not set.
fn located(
    variable: &'static str,
    default: PathBuf,
    must_exist: bool,
) -> Result<PathBuf, HarnessError> {
    let path = env::var_os(variable).map_or(default, PathBuf::from);
    if must_exist && !path.exists() {
        return Err(HarnessError::Missing { variable, path });
    }
    Ok(path)
}

/// The value of a variable that is a factor.
fn factor<T>(variable: &'static str, default: T) -> Result<T, HarnessError>
where
    T: std::str::FromStr + PartialOrd + From<u8>,
{
    let Some(text) = env::var_os(variable) else {
        return Ok(default);
    };
    text.to_str()
        .and_then(|text| text.parse().ok())
        .filter(|value| *value >= T::from(1))
        .ok_or(HarnessError::Factor {
            variable,
            value: text.to_string_lossy().into_owned(),
        })
}

/// The folder that builds keep things in.
pub fn cache() -> PathBuf {
    let home = env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from);
    env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| home.join(".cache"), PathBuf::from)
        .join("capstream")
}

/// The checkout that cargo runs this from. Not the one that it was compiled in: checkouts share what is built.
pub fn checkout() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(
        || PathBuf::from("."),
        |folder| Path::new(&folder).join("../.."),
    )
}

impl Environment {
    /// Takes `CAPSTREAM_MONITOR`, `CAPSTREAM_PLATFORM`, `CAPSTREAM_RUNTIME`, `CAPSTREAM_IMAGES` and `CAPSTREAM_OUTPUT`, or the platform
    /// `x86_64` and the places where `make build` leaves things for the platform; `CAPSTREAM_LESS` and `CAPSTREAM_PATIENCE`, or what suits it.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Missing`] when the monitor, the runtime or the images are not there, [`HarnessError::Factor`].
    pub fn from_variables() -> Result<Environment, HarnessError> {
        let cache = cache();
        let target = checkout().join("target");
        let monitor = cache.join("target/x86_64-unknown-linux-gnu/release/monitor");
        let platform = env::var("CAPSTREAM_PLATFORM").unwrap_or_else(|_| "x86_64".to_owned());
        let defaults = Defaults::of(&platform);
        Ok(Environment {
            monitor: located("CAPSTREAM_MONITOR", monitor, true)?,
            runtime: located(
                "CAPSTREAM_RUNTIME",
                cache.join(defaults.kernel).join("capstream-runtime"),
                true,
            )?,
            images: located("CAPSTREAM_IMAGES", target.join(defaults.images), true)?,
            output: located(
                "CAPSTREAM_OUTPUT",
                target.join("e2e").join(&platform),
                false,
            )?,
            less: factor("CAPSTREAM_LESS", defaults.less)?,
            patience: factor("CAPSTREAM_PATIENCE", defaults.patience)?,
            platform,
        })
    }

    /// How many of something there are to be where the platform of every day takes `count` of them for the volume alone.
    pub fn volume(&self, count: usize) -> usize {
        (count / self.less).max(1)
    }

    /// How long to wait for what takes less than `limit` on the platform of every day.
    pub fn limit(&self, limit: Duration) -> Duration {
        limit * self.patience
    }
}
