//! Named checks, one line each.

use std::future::Future;
use std::time::Instant;

use anyhow::Result;

use crate::count::Count;
use crate::e2e::Stop;
use crate::live::Live;

/// How a check ended, if it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It held; what was seen, if that is worth a line.
    Yes(String),
    /// The cluster cannot show it, and why.
    Skipped(String),
}

impl From<()> for Held {
    fn from((): ()) -> Self {
        Self::Yes(String::new())
    }
}

impl From<String> for Held {
    fn from(seen: String) -> Self {
        Self::Yes(seen)
    }
}

/// The checks so far.
#[derive(Debug)]
pub struct Checks {
    live: Live,
    count: Count,
    stop: Stop,
}

impl Checks {
    /// None yet; `stop` leaves out those that have not begun, and ends the one that has.
    pub fn new(stop: Stop) -> Self {
        Self {
            live: Live::default(),
            count: Count::default(),
            stop,
        }
    }

    /// Runs one and prints how it ended. A check that does not hold stops none after it.
    pub async fn check<T: Into<Held>>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) {
        if *self.stop.borrow() {
            return;
        }
        self.live.show(name);
        let started = Instant::now();
        let ended = tokio::select! {
            ended = work => ended.map(Into::into),
            _ = self.stop.wait_for(|stop| *stop) => Err(anyhow::anyhow!("interrupted")),
        };
        let (word, more) = match ended {
            Ok(Held::Yes(seen)) => {
                self.count.passed += 1;
                ("ok     ", seen)
            }
            Ok(Held::Skipped(why)) => {
                self.count.skipped += 1;
                ("skipped", why)
            }
            Err(error) => {
                self.count.failed += 1;
                ("FAILED ", format!("{error:#}"))
            }
        };
        self.live.clear();
        let more = if more.is_empty() {
            more
        } else {
            format!("\n            {more}")
        };
        println!(
            "{word} {:>6.1}s {name}{more}",
            started.elapsed().as_secs_f64()
        );
    }

    /// How many ended how.
    pub fn count(&self) -> Count {
        self.count
    }
}
