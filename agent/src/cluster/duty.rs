//! What the duties have in common that write one thing to the own Node whenever it is due.

use std::{fmt::Display, time::Duration};

use tokio::{sync::watch::Receiver, time::timeout};

use super::{Backoff, Shared};

/// A duty between its attempts.
pub(super) struct Duty {
    name: &'static str,
    backoff: Backoff,
}

impl Duty {
    /// By its name in the log, among writes and among problems.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            backoff: Backoff::default(),
        }
    }

    /// Notes how an attempt ended, `None` if none was due; how long to wait at most before the next.
    pub fn attempted<E: Display>(
        &mut self,
        shared: &Shared,
        result: Option<Result<(), E>>,
    ) -> Option<Duration> {
        let (pause, problems) = match result? {
            Ok(()) => {
                shared.wrote(self.name);
                self.backoff = Backoff::default();
                (None, Vec::new())
            }
            Err(error) => (Some(self.backoff.next()), vec![error.to_string()]),
        };
        shared.set_problems(self.name, problems);
        pause
    }
}

/// Waits for news of either, for at most the pause; whether there will be more.
pub(super) async fn news<A, B>(
    pause: Option<Duration>,
    a: &mut Receiver<A>,
    b: &mut Receiver<B>,
) -> bool {
    let news = async {
        tokio::select! {
            changed = a.changed() => changed,
            changed = b.changed() => changed,
        }
    };
    let changed = match pause {
        Some(pause) => timeout(pause, news).await.unwrap_or(Ok(())),
        None => news.await,
    };
    changed.is_ok()
}
