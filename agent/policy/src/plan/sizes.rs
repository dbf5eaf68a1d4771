//! Whether a plan fits into the maps.

use std::collections::HashSet;

use weir_abi::map;

use super::Plan;
use crate::actual::Actual;
use crate::limits::{CapacityError, Limits};
use crate::write::Write;

/// Nothing is removed before the last phase, so what it is then counts.
pub(super) fn check_sizes(
    actual: &Actual,
    limits: &Limits,
    plan: &Plan,
) -> Result<(), CapacityError> {
    let (mut peers, mut cidrs) = (HashSet::new(), HashSet::new());
    let (mut rows, mut rules, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
    for write in plan.extend.iter().chain(&plan.follow) {
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
            _ => {}
        }
    }
    for (name, now, more, size) in [
        (map::PEERS, actual.peers.len(), peers.len(), limits.peers),
        (map::CIDRS, actual.cidrs.len(), cidrs.len(), limits.cidrs),
        (
            map::DECISIONS,
            actual.decisions.len(),
            rows.len(),
            limits.decisions,
        ),
        (map::RULES, actual.rules.len(), rules.len(), limits.rules),
        (map::IDS, actual.ids.len(), ids.len(), limits.ids),
    ] {
        CapacityError::check(name, now + more, size)?;
    }
    Ok(())
}
