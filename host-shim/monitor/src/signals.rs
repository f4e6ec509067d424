// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals that ask the monitor to end, and the one that tells of the terminal's size: they are taken by a thread that waits for them.

use std::io;
use std::sync::mpsc::Sender;

/// The signals.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
/// The terminal has another size: not an end, but taken in the same way.
pub const RESIZED: libc::c_int = libc::SIGWINCH;

fn set_of(signals: impl IntoIterator<Item = libc::c_int>) -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid one, and it is emptied at once.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// All that the monitor takes.
fn set() -> libc::sigset_t {
    let ending = ENDING
        .into_iter()
        .filter(|&signal| signal != libc::SIGHUP || !is_ignored(signal));
    set_of(ending.chain([RESIZED]))
}

fn block_in_this_thread(set: &libc::sigset_t) {
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, std::ptr::null_mut()) };
}

/// The next of these that comes; `None` when it cannot be waited for.
fn wait_for(set: &libc::sigset_t) -> Option<libc::c_int> {
    let mut signal = 0;
    // SAFETY: both are valid.
    (unsafe { libc::sigwait(set, &mut signal) } == 0).then_some(signal)
}

/// Whether whoever started the monitor had the signal ignored, as `nohup` does.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero sigaction is a valid one, and asking changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Has a write beyond what a file may have be an error: a disk's guest is told of it.
pub fn ignore_file_limit() {
    // SAFETY: the default action is replaced by none.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Blocks the signals in the calling thread and all that it will start. Call it before there are others.
pub fn block() {
    block_in_this_thread(&set());
}

/// Calls `tell` whenever the terminal has got another size. Call it before there are other threads than the calling one.
///
/// # Errors
///
/// When there is no thread.
pub fn on_resize(mut tell: impl FnMut() + Send + 'static) -> io::Result<()> {
    let set = set_of([RESIZED]);
    block_in_this_thread(&set);
    std::thread::Builder::new()
        .name("terminal size".to_owned())
        .spawn(move || {
            while wait_for(&set).is_some() {
                tell();
            }
        })?;
    Ok(())
}

/// Starts the thread; it sends what `tell` makes of each signal that comes.
///
/// # Errors
///
/// When there is no thread.
pub fn listen<E: Send + 'static>(events: Sender<E>, tell: fn(i32) -> E) -> io::Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let set = set();
            while let Some(signal) = wait_for(&set) {
                if events.send(tell(signal)).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}
