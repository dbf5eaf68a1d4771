//! Maps that take no more memory than they need.

use std::collections::{BTreeMap, BTreeSet};

/// A map whose nodes can be full: inserting one by one leaves a third to a half of each empty.
pub trait Refill {
    /// Builds it anew from its entries.
    fn refill(&mut self);
}

impl<K: Ord, V> Refill for BTreeMap<K, V> {
    fn refill(&mut self) {
        *self = std::mem::take(self).into_iter().collect();
    }
}

impl<T: Ord> Refill for BTreeSet<T> {
    fn refill(&mut self) {
        *self = std::mem::take(self).into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refilled_holds_what_it_held() {
        let mut map: BTreeMap<u32, u32> = (0..100).map(|n| (n * 7 % 100, n)).collect();
        let before = map.clone();
        map.refill();
        assert_eq!(map, before);
        let mut set: BTreeSet<u32> = before.into_keys().collect();
        set.refill();
        assert!(set.into_iter().eq(0..100));
    }
}
