// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where monitors listen, and who may connect.
//!
//! A monitor listens on `PROCESS.sock` in a folder of its user's, which nobody else may enter: `$XDG_RUNTIME_DIR/capstream`, or
//! `capstream-UID` in the folder for temporary files. `--control PATH` names another socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The folder cannot be made.
    #[error("{}: {source}; operators cannot reach the monitor; name another socket with --control", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is not safe.
    #[error("{} belongs to user {owner} and has mode {mode:o}, but has to belong to user {user} with mode 700; remove it, or name another socket with --control", path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who may enter it.
        mode: u32,
        /// Who runs the monitor.
        user: u32,
    },
    /// The socket cannot be made.
    #[error("{}: cannot be listened on: {source}; another monitor may have it", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The user of this process.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The folder of the user's monitors.
pub fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() => runtime.join("capstream"),
        _ => std::env::temp_dir().join(format!("capstream-{}", user())),
    }
}

/// Where the monitor with this process listens.
pub fn of_process(process: u32) -> PathBuf {
    folder().join(format!("{process}.sock"))
}

/// The sockets in the folder of the user's monitors, oldest process first. One that nobody listens on may be among them.
pub fn all() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder()) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let process = path.file_stem()?.to_str()?.parse().ok()?;
            (path.extension()? == "sock").then_some((process, path))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Makes the folder, or makes sure that it is the user's alone.
fn prepare_folder(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Folder {
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_dir() || metadata.uid() != user() || mode != 0o700 {
        return Err(SocketError::Unsafe {
            path: path.to_owned(),
            owner: metadata.uid(),
            mode,
            user: user(),
        });
    }
    Ok(())
}

/// A socket that is listened on; its name goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    /// What to accept from.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens on `path`, or on the one of this process.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn new(path: Option<&Path>) -> Result<Listener, SocketError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => {
                prepare_folder(&folder())?;
                of_process(std::process::id())
            }
        };
        let failed = |source| SocketError::Listen {
            path: path.clone(),
            source,
        };
        remove_stale(&path);
        let listener = bind(&path).map_err(failed)?;
        Ok(Listener { listener, path })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have been removed by somebody else.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket so that nobody else can connect, not even for a moment.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // Left over by a process with the same number.
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let made = fs::set_permissions(&beside, Permissions::from_mode(0o600))
        // Fails when there is one: two monitors never share a name.
        .and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    made.map(|()| listener)
}

/// Removes a socket that nobody listens on.
pub fn remove_stale(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        // Somebody else may be doing the same.
        let _ = fs::remove_file(path);
    }
}

/// Whether the other side runs under the user of this process, or is root.
pub fn is_operator(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid.as_raw() == user())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_users_alone_and_goes_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        let listener = Listener::new(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = Listener::new(Some(&path)).unwrap_err();
        assert!(matches!(error, SocketError::Listen { .. }), "{error}");
        let stream = UnixStream::connect(&path).unwrap();
        assert!(is_operator(&stream));
        drop(listener);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = Listener::new(Some(&path)).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        fs::write(&path, "precious").unwrap();
        Listener::new(Some(&path)).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let error = prepare_folder(&open).unwrap_err();
        assert!(matches!(error, SocketError::Unsafe { .. }), "{error}");
        let own = folder.path().join("own");
        prepare_folder(&own).unwrap();
        prepare_folder(&own).unwrap();
    }
}
