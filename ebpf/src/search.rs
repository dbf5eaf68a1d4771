//! The search for a port's verdict in a decision table. Pure.

use weir_abi::policy::{Decision, Interval, RuleVerdict};

/// The verdict of the last interval that starts at or before `key`, or nothing if the table cannot
/// be read: the caller then denies.
#[inline(always)]
pub fn verdict(
    decision: &Decision,
    key: u32,
    interval: impl Fn(u32) -> Option<Interval>,
) -> Option<RuleVerdict> {
    // The answer lies in low..high: `low` starts at or before the key, as the first interval
    // starts at 0.
    let (mut low, mut high) = (0u32, decision.len);
    for _ in 0..Decision::SEARCH_STEPS {
        if high - low <= 1 {
            break;
        }
        let middle = low + (high - low) / 2;
        if interval(decision.at + middle)?.start <= key {
            low = middle;
        } else {
            high = middle;
        }
    }
    interval(decision.at + low).map(|found| found.verdict)
}

#[cfg(test)]
mod tests;
