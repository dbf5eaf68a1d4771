//! Waiting for what must become so.

use std::time::{Duration, Instant};

/// Waits until it holds; fails with `what` after 20 s.
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
