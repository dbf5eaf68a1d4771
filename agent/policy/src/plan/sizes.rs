//! Whether a plan fits into the maps.

use std::collections::HashSet;

use weir_abi::map;

use super::Plan;
use crate::actual::Actual;
use crate::limits::{CapacityError, Limits};
use crate::write::Write;

impl Plan {
    /// How many entries each map must be able to hold for this plan, with what is in it before the
    /// plan's last phase; of `INTERVALS` the elements up to the last that is written.
    pub fn needs(&self, actual: &Actual) -> [(&'static str, usize); 6] {
        let (mut peers, mut cidrs) = (HashSet::new(), HashSet::new());
        let (mut rows, mut rules, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut intervals = 0;
        // Nothing is removed before the last phase, so what it is then counts.
        for write in self.extend.iter().chain(&self.follow) {
            match write {
                Write::PutPeer { addr, .. } if !actual.peers.contains_key(addr) => {
                    peers.insert(addr);
                }
                Write::PutCidr { key, .. } if actual.cidrs.get(key).is_none() => {
                    cidrs.insert(key);
                }
                Write::PutDecision { key, .. } if !actual.decisions.contains_key(key) => {
                    rows.insert(key);
                }
                Write::PutRule { id, .. } if actual.rule(*id).is_none() => {
                    rules.insert(id);
                }
                Write::PutId { key, .. } => {
                    ids.insert(key);
                }
                Write::PutInterval { at, .. } => intervals = intervals.max(*at as usize + 1),
                _ => {}
            }
        }
        [
            (map::PEERS, actual.peers.len() + peers.len()),
            (map::CIDRS, actual.cidrs.len() + cidrs.len()),
            (map::DECISIONS, actual.decisions.len() + rows.len()),
            (map::RULES, actual.rules.len() + rules.len()),
            (map::IDS, actual.ids.len() + ids.len()),
            (map::INTERVALS, intervals),
        ]
    }
}

/// The error names the first map that is too small.
pub(super) fn check_sizes(
    actual: &Actual,
    limits: &Limits,
    plan: &Plan,
) -> Result<(), CapacityError> {
    plan.needs(actual)
        .into_iter()
        .try_for_each(|(map, needed)| CapacityError::check(map, needed, limits.of(map)))
}
