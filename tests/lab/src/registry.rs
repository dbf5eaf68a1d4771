//! What must be taken down however this process ends: normally, by a panic, by Ctrl-C or SIGTERM.
//! (By SIGKILL the kernel kills the lab's processes; the empty cgroup is swept by the next start.)

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::cgroup;

static LABS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

/// Signals on which the lab is taken down first.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Remembers a lab's cgroup, and sees to it that it goes when this process ends.
pub fn add(cgroup: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function is `extern "C"` and takes nothing.
        unsafe { libc::atexit(at_exit) };
        if let Err(error) = catch_signals() {
            eprintln!("weir-lab: signals are not caught: {error}");
        }
    });
    LABS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(cgroup.to_owned());
}

/// Takes a lab down: kills all its processes and removes its cgroup.
///
/// # Errors
/// When a process or a cgroup stays.
pub fn take_down(cgroup: &Path) -> anyhow::Result<()> {
    LABS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|known| known != cgroup);
    kill_and_remove(cgroup)
}

/// Kills every process of a cgroup and removes it with what is below.
///
/// # Errors
/// When a process or a cgroup stays.
pub fn kill_and_remove(cgroup: &Path) -> anyhow::Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    // Linux 5.14; kills the whole subtree, forks in progress included.
    let _ = fs::write(cgroup.join("cgroup.kill"), b"1");
    cgroup::remove_tree(cgroup)
}

fn take_all_down() {
    let labs = std::mem::take(&mut *LABS.lock().unwrap_or_else(PoisonError::into_inner));
    for cgroup in labs {
        if let Err(error) = kill_and_remove(&cgroup) {
            eprintln!("weir-lab: {error:#}");
        }
    }
}

extern "C" fn at_exit() {
    take_all_down();
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write() is async-signal-safe and the pointer is to a live byte.
    unsafe {
        libc::write(
            SIGNAL_PIPE.load(Ordering::Relaxed),
            (&raw const byte).cast(),
            1,
        )
    };
}

fn catch_signals() -> anyhow::Result<()> {
    let (mut reader, writer) = UnixStream::pair()?;
    debug_assert!(writer.as_raw_fd() >= 0);
    SIGNAL_PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(
        SigHandler::Handler(on_signal),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in SIGNALS {
        // SAFETY: the handler makes one async-signal-safe call.
        unsafe { sigaction(signal, &action) }?;
    }
    std::thread::spawn(move || {
        let mut byte = [0];
        if reader.read_exact(&mut byte).is_err() {
            return;
        }
        eprintln!("\nweir-lab: taking the lab down");
        take_all_down();
        // Not every machine's first process reaps what this one would leave to it.
        while nix::sys::wait::wait().is_ok() {}
        let Ok(signal) = Signal::try_from(i32::from(byte[0])) else {
            return;
        };
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: installs the default action.
        let _ = unsafe { sigaction(signal, &default) };
        let _ = raise(signal);
    });
    Ok(())
}
