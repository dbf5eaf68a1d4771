//! Live progress on standard error, where that is a terminal.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// One line that is written over.
#[derive(Debug)]
pub struct Progress {
    live: bool,
    last: Cell<Instant>,
    width: Cell<usize>,
}

impl Progress {
    /// Writes to standard error if that is a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        Self::new(std::io::stderr().is_terminal())
    }

    /// Writes nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(false)
    }

    fn new(live: bool) -> Self {
        Self {
            live,
            last: Cell::new(Instant::now()),
            width: Cell::new(0),
        }
    }

    /// Says how far something is; at most ten times a second.
    pub fn step(&self, what: &str, done: usize, all: usize) {
        if !self.live || self.last.get().elapsed() < Duration::from_millis(100) {
            return;
        }
        self.last.set(Instant::now());
        let line = format!("  {what} {done}/{all}");
        eprint!("\r{line:<width$}", width = self.width.get());
        self.width.set(line.len());
        let _ = std::io::stderr().flush();
    }

    /// Clears the line.
    pub fn done(&self) {
        if self.width.get() > 0 {
            eprint!("\r{:width$}\r", "", width = self.width.get());
            self.width.set(0);
        }
    }
}
