//! The own Node's condition NetworkUnavailable, which a cloud sets to True until there are routes, and
//! which keeps pods away: False once pods can be added.

use super::{
    Shared,
    duty::{Duty, news},
};
use crate::publish::Publisher;

/// Does the duty until it is dropped.
pub(super) async fn run(publisher: &Publisher, node: &str, shared: &Shared) {
    let (mut seen, mut ready) = (shared.seen(), shared.ready());
    let mut duty = Duty::new("node-condition");
    loop {
        let is_due = *ready.borrow_and_update() & seen.borrow_and_update().network_unavailable;
        let result = if is_due {
            Some(publisher.set_network_available(node).await)
        } else {
            None
        };
        let pause = duty.attempted(shared, result);
        if !news(pause, &mut seen, &mut ready).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
