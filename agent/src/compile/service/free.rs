//! Ranges of `SLOTS` that are free.

use std::collections::{BTreeMap, BTreeSet};

/// The free ranges below an end; all above it is free, too. Element 0 is never given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Free {
    /// First element → length. No two touch each other, and none touches the end.
    blocks: BTreeMap<u32, u32>,
    /// (length, first element) of the same.
    by_len: BTreeSet<(u32, u32)>,
    end: u32,
}

impl Default for Free {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            by_len: BTreeSet::new(),
            end: 1,
        }
    }
}

impl Free {
    /// One more than the last element that is in use.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Takes the smallest free range that has `len` elements, else what is behind the end; its first
    /// element.
    pub fn take(&mut self, len: u32) -> u32 {
        let fitting = self.by_len.range((len, 0)..).next();
        let start = fitting.map_or(self.end, |(_, start)| *start);
        self.reserve(start, len);
        start
    }

    /// Takes this range, as far as it is free.
    pub fn reserve(&mut self, start: u32, len: u32) {
        let end = start.saturating_add(len);
        if end > self.end {
            let former = std::mem::replace(&mut self.end, end);
            if former < start {
                self.put(former, start - former);
            }
        }
        let before = self.blocks.range(..start).next_back();
        let first = before.map_or(start, |(block, _)| *block);
        let blocks: Vec<_> = self
            .blocks
            .range(first..end)
            .map(|(s, l)| (*s, *l))
            .collect();
        for (block, block_len) in blocks {
            let block_end = block + block_len;
            if block_end <= start {
                continue;
            }
            self.drop_block(block, block_len);
            if block < start {
                self.put(block, start - block);
            }
            if end < block_end {
                self.put(end, block_end - end);
            }
        }
    }

    /// Gives a range back that was taken.
    pub fn give(&mut self, start: u32, len: u32) {
        let (mut first, mut end) = (start, start + len);
        if let Some((block, block_len)) = self.blocks.range(..start).next_back()
            && block + block_len == start
        {
            let (block, block_len) = (*block, *block_len);
            self.drop_block(block, block_len);
            first = block;
        }
        if let Some(next_len) = self.blocks.get(&end).copied() {
            self.drop_block(end, next_len);
            end += next_len;
        }
        if end == self.end {
            self.end = first;
        } else {
            self.put(first, end - first);
        }
    }

    fn put(&mut self, start: u32, len: u32) {
        self.blocks.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn drop_block(&mut self, start: u32, len: u32) {
        self.blocks.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_range_that_fits_is_given_and_neighbours_join_when_they_are_free() {
        let mut free = Free::default();
        let [a, b, c, d] = [4, 2, 3, 1].map(|len| free.take(len));
        assert_eq!([a, b, c, d, free.end()], [1, 5, 7, 10, 11]);
        free.give(a, 4);
        free.give(c, 3);
        assert_eq!(free.take(3), c);
        free.give(c, 3);
        free.give(b, 2);
        assert_eq!(free.take(9), a, "the three have become one");
        free.give(d, 1);
        free.give(a, 9);
        assert_eq!(free, Free::default());
    }

    proptest! {
        #[test]
        fn no_element_is_given_twice_and_all_come_back(
            steps in prop::collection::vec((1..9u32, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let mut free = Free::default();
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (len, which, give) in steps {
                if give && !taken.is_empty() {
                    let (start, len) = taken.swap_remove(which.index(taken.len()));
                    free.give(start, len);
                } else {
                    let start = free.take(len);
                    prop_assert!(start > 0);
                    for (other, other_len) in &taken {
                        prop_assert!(start + len <= *other || other + other_len <= start);
                    }
                    taken.push((start, len));
                }
                // A mirror that is told of the ranges one by one, in any order, comes to the same.
                let mut mirror = Free::default();
                taken.iter().rev().for_each(|(start, len)| mirror.reserve(*start, *len));
                prop_assert_eq!(&mirror, &free);
            }
            taken.drain(..).for_each(|(start, len)| free.give(start, len));
            prop_assert_eq!(free, Free::default());
        }
    }
}
