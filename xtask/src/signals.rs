//! Ctrl-C and its kin: the running child is told, waited for, and then we stop.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

static CHILD: AtomicI32 = AtomicI32::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);
/// A terminal's Ctrl-C reaches the child by itself: a second one could cut its clean-up short.
static TERMINAL: AtomicBool = AtomicBool::new(false);

/// Starts listening. By handlers and not by a mask: children inherit a mask, and would then be
/// deaf to the signals that tests send them, but never a handler.
///
/// # Errors
/// A handler cannot be set.
pub fn listen() -> Result<()> {
    TERMINAL.store(std::io::stdin().is_terminal(), Ordering::SeqCst);
    let action = SigAction::new(
        SigHandler::Handler(stop),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only uses atomics and kill(2), which signal-safety(7) allows.
        unsafe { sigaction(signal, &action) }
            .with_context(|| format!("cannot listen to {signal}"))?;
    }
    Ok(())
}

extern "C" fn stop(signal: libc::c_int) {
    STOPPED.store(true, Ordering::SeqCst);
    let told = signal == libc::SIGINT && TERMINAL.load(Ordering::SeqCst);
    let child = CHILD.load(Ordering::SeqCst);
    if !told && child > 0 {
        // A child that is gone already is what we want.
        let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
    }
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
