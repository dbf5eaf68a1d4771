//! What a long command shows while it works: one live line on a terminal, a plain line every
//! twenty seconds elsewhere. Both go to stderr, so that stdout keeps what a script reads.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a log that is no terminal says that the command is still alive.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How much of a line a terminal shows.
const WIDTH: usize = 150;

/// The live line. It may be used from several threads.
#[derive(Debug)]
pub struct Live {
    terminal: bool,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is shown, on a terminal.
    shown: bool,
    said: Instant,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            started: Instant::now(),
            state: Mutex::new(State {
                shown: false,
                said: Instant::now(),
            }),
        }
    }
}

impl Live {
    /// How long this has been going on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What goes on now. Elsewhere than on a terminal most of these are left out.
    pub fn show(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{:>6}  {text}", minutes(self.elapsed()));
        if self.terminal {
            let cut: String = text.chars().take(WIDTH).collect();
            // A terminal that went away is no reason to stop the tests.
            let _ = write!(stderr(), "\r\x1b[K{cut}");
            let _ = stderr().flush();
            state.shown = true;
        } else if state.said.elapsed() >= HEARTBEAT {
            let _ = writeln!(stderr(), "{text}");
            state.said = Instant::now();
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if state.shown { "\r\x1b[K" } else { "" };
        let _ = writeln!(stderr(), "{clear}{text}");
        state.shown = false;
    }

    /// Takes the live line away.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.shown {
            let _ = write!(stderr(), "\r\x1b[K");
            let _ = stderr().flush();
            state.shown = false;
        }
    }
}

/// `3m07`.
pub fn minutes(time: Duration) -> String {
    format!("{}m{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
