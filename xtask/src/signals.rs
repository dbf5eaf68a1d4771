//! Ctrl-C and its kin: the running child is told, waited for, and then we stop.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

static CHILD: AtomicI32 = AtomicI32::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Starts listening; to be called first, from the only thread (the mask is inherited by later
/// ones; `std` empties it again in every child it starts).
///
/// # Errors
/// The signal mask cannot be set.
pub fn listen() -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        while let Ok(signal) = set.wait() {
            STOPPED.store(true, Ordering::SeqCst);
            // A terminal's Ctrl-C has reached the child already: a second one could cut its
            // clean-up short.
            let told = signal == Signal::SIGINT && std::io::stdin().is_terminal();
            let child = CHILD.load(Ordering::SeqCst);
            if !told && child > 0 {
                // A child that is gone already is what we want.
                let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
            }
        }
    });
    Ok(())
}

/// Names the child that a signal has to be passed on to.
pub fn remember(pid: u32) {
    CHILD.store(i32::try_from(pid).unwrap_or(0), Ordering::SeqCst);
}

/// Asks a program that takes too long to end.
pub fn end(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // A program that is gone already is what we want.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// No child is running.
pub fn forget() {
    CHILD.store(0, Ordering::SeqCst);
}

/// Whether somebody asked us to stop.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// # Errors
/// Somebody asked us to stop.
pub fn check() -> Result<()> {
    if stopped() {
        bail!("interrupted");
    }
    Ok(())
}
