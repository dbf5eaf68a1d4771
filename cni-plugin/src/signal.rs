//! A signal during ADD undoes what was done, instead of leaving it to the runtime's DEL.

use std::thread;

use nix::sys::signal::{SigSet, Signal};
use weir_api::client::Canceller;

use crate::error::{CniError, Code, Result};

/// Tells whether a signal asked the call to end.
#[derive(Debug)]
pub struct Interrupt {
    canceller: Canceller,
}

impl Interrupt {
    /// From now on SIGTERM, SIGINT and SIGHUP do not end the process: they cancel what waits for
    /// the agent, and [`Interrupt::check`] tells of them.
    pub fn watch(canceller: Canceller) -> Result<Self> {
        let fail = |call: &str, error: &dyn std::fmt::Display| {
            CniError::new(Code::Internal, format!("{call}: {error}"))
        };
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals
            .thread_block()
            .map_err(|e| fail("pthread_sigmask", &e))?;
        let waiting = canceller.clone();
        let wait = move || {
            if signals.wait().is_ok() {
                waiting.cancel();
            }
        };
        let spawned = thread::Builder::new().name("signals".into()).spawn(wait);
        spawned.map_err(|e| fail("clone", &e))?;
        Ok(Self { canceller })
    }

    /// Fails if a signal has come.
    pub fn check(&self) -> Result<()> {
        if self.canceller.is_cancelled() {
            let msg = "ADD was ended by a signal, and undone";
            return Err(CniError::new(Code::Interrupted, msg));
        }
        Ok(())
    }
}
