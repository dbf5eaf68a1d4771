//! Pairs that are alike, put together so that a person can read them: each of some sources with each
//! of some targets.

use std::collections::{BTreeMap, BTreeSet};

/// Every pair of a source and a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Block {
    pub from: Vec<usize>,
    pub to: Vec<usize>,
}

/// Blocks that together are these pairs. An end that is `lone` has no pair with itself, so that a
/// block may hold one.
pub(super) fn blocks(pairs: &[(usize, usize)], lone: impl Fn(usize) -> bool) -> Vec<Block> {
    let by_target = grouped(pairs.iter().copied(), &lone);
    let turned = pairs.iter().map(|(from, to)| (*to, *from));
    let by_source = grouped(turned, &lone);
    if by_source.len() < by_target.len() {
        let turn = |Block { from, to }| Block { from: to, to: from };
        return by_source.into_iter().map(turn).collect();
    }
    by_target
}

/// Targets with the same sources together.
fn grouped(
    pairs: impl Iterator<Item = (usize, usize)>,
    lone: impl Fn(usize) -> bool,
) -> Vec<Block> {
    let mut sources: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (from, to) in pairs {
        sources.entry(to).or_default().insert(from);
    }
    let mut same: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
    for (to, from) in sources {
        same.entry(from).or_default().push(to);
    }
    // Where all reach all, each target lacks only itself among its sources.
    let mut with_itself: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
    let mut blocks = Vec::new();
    for (from, to) in same {
        match to.as_slice() {
            [only] if lone(*only) => {
                let mut all = from;
                all.insert(*only);
                with_itself.entry(all).or_default().push(*only);
            }
            _ => blocks.push(Block {
                from: from.into_iter().collect(),
                to,
            }),
        }
    }
    for (mut from, mut to) in with_itself {
        to.sort_unstable();
        if let [only] = to.as_slice() {
            from.remove(only);
        }
        blocks.push(Block {
            from: from.into_iter().collect(),
            to,
        });
    }
    blocks.sort();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(usize, usize)], expect: &[(&[usize], &[usize])]) {
        let found = blocks(pairs, |end| end < 10);
        let found: Vec<_> = found
            .iter()
            .map(|b| (b.from.as_slice(), b.to.as_slice()))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn targets_with_the_same_sources_are_one_block() {
        check(
            &[(1, 5), (2, 5), (1, 6), (2, 6), (3, 7)],
            &[(&[1, 2], &[5, 6]), (&[3], &[7])],
        );
    }

    #[test]
    fn sources_with_the_same_targets_are_one_block_where_that_makes_fewer() {
        check(
            &[(1, 5), (1, 6), (2, 6), (2, 7), (3, 5), (3, 6)],
            &[(&[1, 3], &[5, 6]), (&[2], &[6, 7])],
        );
    }

    #[test]
    fn all_to_all_is_one_block_although_nobody_has_itself() {
        let all: Vec<(usize, usize)> = (1..4)
            .flat_map(|f| (1..4).map(move |t| (f, t)))
            .filter(|(f, t)| f != t)
            .collect();
        check(&all, &[(&[1, 2, 3], &[1, 2, 3])]);
        // Of those that are several pods the pair with themselves is missing.
        check(&[(10, 11), (11, 10)], &[(&[10], &[11]), (&[11], &[10])]);
        check(&[(1, 2)], &[(&[1], &[2])]);
    }

    #[test]
    fn blocks_are_exactly_the_pairs() {
        let mut state = 7_u32;
        for _ in 0..200 {
            let mut pairs = BTreeSet::new();
            for _ in 0..20 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (from, to) = ((state >> 8) as usize % 6, (state >> 20) as usize % 6);
                if from != to {
                    pairs.insert((from, to));
                }
            }
            let list: Vec<_> = pairs.iter().copied().collect();
            let mut back = Vec::new();
            for Block { from, to } in blocks(&list, |_| true) {
                back.extend(from.iter().flat_map(|f| to.iter().map(move |t| (*f, *t))));
            }
            back.retain(|(from, to)| from != to);
            let count = back.len();
            assert_eq!(back.into_iter().collect::<BTreeSet<_>>(), pairs);
            assert_eq!(count, pairs.len());
        }
    }
}
