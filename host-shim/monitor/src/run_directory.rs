// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folder that a run leaves its kernel logs in.
//!
//! By default `$XDG_STATE_HOME/capstream/<seconds since 1970>-<process>`; the newest 20 of them stay.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many folders of earlier runs are kept.
const KEPT: usize = 20;

/// Why a folder or a log in it could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be made for kernel logs: {source}; choose another folder with --log-dir")]
pub struct RunDirectoryError {
    path: PathBuf,
    source: std::io::Error,
}

/// A folder for this run.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// The folder with those of all runs, of which old ones go when this run is over.
    among: Option<PathBuf>,
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Some(runs) = &self.among {
            remove_old(runs);
        }
    }
}

impl RunDirectory {
    /// Uses the folder `path`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`].
    pub fn at(path: &Path) -> Result<RunDirectory, RunDirectoryError> {
        fs::create_dir_all(path).map_err(|source| RunDirectoryError {
            path: path.to_owned(),
            source,
        })?;
        Ok(RunDirectory {
            path: path.to_owned(),
            among: None,
        })
    }

    /// Makes a folder of its own for this run. Old ones are removed at its end.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`].
    pub fn for_this_run() -> Result<RunDirectory, RunDirectoryError> {
        let state = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))
            .unwrap_or_else(std::env::temp_dir);
        RunDirectory::in_state(&state.join("capstream"))
    }

    fn in_state(runs: &Path) -> Result<RunDirectory, RunDirectoryError> {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let path = runs.join(format!("{seconds:010}-{}", std::process::id()));
        let mut directory = RunDirectory::at(&path)?;
        directory.among = Some(runs.to_owned());
        Ok(directory)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log of a cVM goes.
    pub fn log_path(&self, cvm: &str) -> PathBuf {
        let name: String = cvm
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() || "-_.".contains(letter) {
                    letter
                } else {
                    '_'
                }
            })
            .collect();
        self.path.join(format!("{name}.log"))
    }

    /// Opens the log of a cVM: empty, or, when it has run before, to go on.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`].
    pub fn open_log(&self, cvm: &str, again: bool) -> Result<File, RunDirectoryError> {
        let path = self.log_path(cvm);
        let mut options = File::options();
        if again {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        options
            .create(true)
            .open(&path)
            .map_err(|source| RunDirectoryError { path, source })
    }
}

/// Whether a folder's name is one that [`RunDirectory::for_this_run`] makes.
fn is_run(name: &str) -> bool {
    name.split_once('-').is_some_and(|(seconds, process)| {
        seconds.len() >= 10
            && !process.is_empty()
            && seconds
                .bytes()
                .chain(process.bytes())
                .all(|byte| byte.is_ascii_digit())
    })
}

/// Removes all but the newest runs. What cannot be removed stays.
fn remove_old(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_run(name))
        .collect();
    names.sort_unstable();
    let excess = names.len().saturating_sub(KEPT + 1);
    for name in names.iter().take(excess) {
        let run = runs.join(name);
        let Ok(logs) = fs::read_dir(&run) else {
            continue;
        };
        for log in logs.filter_map(Result::ok) {
            if log
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                // Another monitor may be removing it as well.
                let _ = fs::remove_file(log.path());
            }
        }
        let _ = fs::remove_dir(&run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_runs_are_removed_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        for number in 0..30 {
            let run = state.path().join(format!("{number:010}-7"));
            fs::create_dir(&run).unwrap();
            fs::write(run.join("a.log"), "x").unwrap();
        }
        let mine = state.path().join("0000000000-keep");
        fs::create_dir(&mine).unwrap();
        let precious = state.path().join("0000000001-7/precious.txt");
        fs::write(&precious, "x").unwrap();
        let run = RunDirectory::in_state(state.path()).unwrap();
        assert!(run.path().is_dir());
        assert!(state.path().join("0000000000-7").exists());
        drop(run);
        assert!(mine.is_dir());
        assert!(precious.is_file());
        assert!(!state.path().join("0000000000-7").exists());
        assert!(!state.path().join("0000000009-7").exists());
        assert!(state.path().join("0000000010-7/a.log").is_file());
    }

    #[test]
    fn logs_stay_in_the_folder_whatever_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::at(folder.path()).unwrap();
        assert_eq!(run.log_path("../a b/c"), folder.path().join(".._a_b_c.log"));
        run.open_log("../a b/c", false).unwrap();
    }
}
