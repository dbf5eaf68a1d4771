//! The own Node's condition NetworkUnavailable, which a cloud sets to True until there are routes, and
//! which keeps pods away: False once pods can be added.

use tokio::time::timeout;

use super::{Backoff, Shared};
use crate::publish::Publisher;

/// Name of this duty in the log and among problems.
const DUTY: &str = "node-condition";

/// Does the duty until it is dropped.
pub(super) async fn run(publisher: &Publisher, node: &str, shared: &Shared) {
    let (mut seen, mut ready) = (shared.seen(), shared.ready());
    let mut backoff = Backoff::default();
    loop {
        let is_due = *ready.borrow_and_update() & seen.borrow_and_update().network_unavailable;
        let mut pause = None;
        if is_due {
            let problems = match publisher.set_network_available(node).await {
                Ok(()) => {
                    shared.wrote("node-condition");
                    backoff = Backoff::default();
                    Vec::new()
                }
                Err(error) => {
                    pause = Some(backoff.next());
                    vec![error.to_string()]
                }
            };
            shared.set_problems(DUTY, problems);
        }
        let news = async {
            tokio::select! {
                changed = seen.changed() => changed,
                changed = ready.changed() => changed,
            }
        };
        let changed = match pause {
            Some(pause) => timeout(pause, news).await.unwrap_or(Ok(())),
            None => news.await,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
