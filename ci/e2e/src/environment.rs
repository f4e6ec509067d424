// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the things are that a run needs.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::HarnessError;

/// The monitor, the runtime image, the disk images, and a folder for what runs leave behind.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The monitor's executable.
    pub monitor: PathBuf,
    /// The runtime image.
    pub runtime: PathBuf,
    /// The folder of the disk images and of the programs in them.
    pub images: PathBuf,
    /// The folder in which each run gets one of its own.
    pub output: PathBuf,
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

impl Environment {
    /// Takes `CAPSTREAM_MONITOR`, `CAPSTREAM_RUNTIME`, `CAPSTREAM_IMAGES` and `CAPSTREAM_OUTPUT`, or the places where `make build` leaves them.
    ///
    /// # Errors
    ///
    /// [`HarnessError::Missing`] when one of the first three is not there.
    pub fn from_variables() -> Result<Environment, HarnessError> {
        let home = env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from);
        let cache = env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| home.join(".cache"), PathBuf::from)
            .join("capstream");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let monitor = cache.join("target/x86_64-unknown-linux-gnu/release/monitor");
        Ok(Environment {
            monitor: located("CAPSTREAM_MONITOR", monitor, true)?,
            runtime: located(
                "CAPSTREAM_RUNTIME",
                cache.join("kernel/capstream-runtime"),
                true,
            )?,
            images: located("CAPSTREAM_IMAGES", target.join("disk-image"), true)?,
            output: located("CAPSTREAM_OUTPUT", target.join("e2e"), false)?,
        })
    }
}
