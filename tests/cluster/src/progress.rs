//! What `up` says while it works: one live line on a terminal, a line for each step elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

/// Says on standard error what is being done.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    terminal: bool,
}

impl Progress {
    /// Begins; times are counted from here.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// What is waited for now.
    pub fn waiting(&self, what: &str) {
        let seconds = self.seconds();
        if self.terminal {
            eprint!("\r\x1b[2K  {seconds:5.1} s  {what} …");
            // The line is for people only; a terminal that is gone takes nothing.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("  {seconds:5.1} s  {what} …");
        }
    }

    /// A line that stays.
    pub fn done(&self, what: &str) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}  {:5.1} s  {what}", self.seconds());
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
