//! Which pod CIDR each Node gets from the cluster's, where kube-controller-manager gives none.
//!
//! Given is: what is recorded, which Nodes there are, and which Nodes are known to be gone. The
//! result is a new record and the Nodes to patch; the record must be stored before a Node is
//! patched. Why two agents that do so at once, each with an old picture of the cluster, still never
//! give out overlapping CIDRs:
//!
//! * A Node is patched only if it has the UID that its entry in the stored record has.
//! * An entry goes only when its UID is known to be gone, and a UID never returns.
//! * So what a Node has, or may still be given by an agent that was held up, is in the record, and
//!   whoever changes the record has read all of it (compare and swap).
//!
//! The next CIDR is taken after the one that was given out last, and around. One that a Node has
//! left is so used again only when all others have been: routes to it have long been forgotten.

mod pool;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use weir_net::IpNetwork;

use super::route::pod_cidrs_of;

pub use pool::{Pool, Pools};
pub use record::{Entry, LAST, Record};

use pool::Taken;

/// A Node, as far as it counts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCidrs {
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.podCIDRs`, or `spec.podCIDR`.
    pub cidrs: Vec<IpNetwork>,
    /// It has something there that is no CIDR: nothing can be said about it.
    pub is_unreadable: bool,
}

impl NodeCidrs {
    /// Of a Node object.
    pub fn of(node: &Node) -> Self {
        let parsed = pod_cidrs_of(node);
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            is_unreadable: parsed.iter().any(Result::is_err),
            cidrs: parsed.into_iter().flatten().collect(),
        }
    }
}

/// Nodes by name.
pub type Nodes = BTreeMap<String, NodeCidrs>;

/// A Node to patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub name: String,
    /// Only the Node of this UID may be given them.
    pub uid: String,
    /// In the order of the configuration.
    pub cidrs: Vec<IpNetwork>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be stored, if it differs from what was read, before any Node is patched.
    pub record: Record,
    /// Nodes to patch then.
    pub assign: Vec<Assignment>,
    /// What is wrong, by Node.
    pub problems: Vec<String>,
}

/// Names and UIDs of entries whose Node may be gone: to be asked for, as the picture of the Nodes may
/// be older than the record.
pub fn maybe_gone(record: &Record, nodes: &Nodes) -> Vec<(String, String)> {
    let entries = record.nodes.iter();
    entries
        .filter(|(name, entry)| nodes.get(*name).is_none_or(|node| node.uid != entry.uid))
        .map(|(name, entry)| (name.clone(), entry.uid.clone()))
        .collect()
}

/// Computes what to do. `gone` are UIDs of which the API server has said that no Node has them.
pub fn step(pools: &Pools, record: &Record, nodes: &Nodes, gone: &BTreeSet<String>) -> Step {
    let mut step = Step {
        record: record.clone(),
        ..Step::default()
    };
    step.record
        .nodes
        .retain(|_, entry| !gone.contains(&entry.uid));
    for (name, node) in nodes {
        take_over(pools, name, node, &mut step);
    }
    let mut taken = Taken::default();
    let recorded = step.record.nodes.values().flat_map(|entry| &entry.cidrs);
    let had = nodes.values().flat_map(|node| &node.cidrs);
    recorded.chain(had).for_each(|cidr| taken.insert(*cidr));
    step.problems.extend(overlaps(nodes));
    let mut used = Taken::default();
    let had = nodes.values().flat_map(|node| &node.cidrs);
    had.for_each(|cidr| used.insert(*cidr));
    for (name, node) in nodes {
        if node.cidrs.is_empty() && !node.is_unreadable {
            give(pools, name, &node.uid, &used, &mut taken, &mut step);
        }
    }
    step
}

/// Records what a Node has already.
fn take_over(pools: &Pools, name: &str, node: &NodeCidrs, step: &mut Step) {
    if node.cidrs.is_empty() {
        return;
    }
    let missing: Vec<&Pool> = pools.missing(&node.cidrs).collect();
    if !missing.is_empty() && missing.len() < pools.iter().count() {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        step.problems.push(format!(
            "Node {name}: has a pod CIDR of one family only, and none of --cluster-cidr {}: that cannot be changed; delete the Node and register it anew",
            missing.join(",")
        ));
    }
    let is_ours = node.cidrs.iter().any(|cidr| pools.overlap(cidr));
    let entry = Entry {
        uid: node.uid.clone(),
        cidrs: node.cidrs.clone(),
    };
    match step.record.nodes.get(name) {
        // Of another Node of that name, which is not known to be gone.
        Some(other) if other.uid != node.uid => {}
        None if !is_ours => {}
        _ => drop(step.record.nodes.insert(name.to_owned(), entry)),
    }
}

/// Gives a Node its CIDRs: what is recorded for it, and one of each family that is missing.
fn give(pools: &Pools, name: &str, uid: &str, used: &Taken, taken: &mut Taken, step: &mut Step) {
    let promised = match step.record.nodes.get(name) {
        Some(other) if other.uid != uid => return,
        Some(entry) => entry.cidrs.clone(),
        None => Vec::new(),
    };
    // Somebody else has given it to another Node since.
    let mut cidrs: Vec<IpNetwork> = promised
        .into_iter()
        .filter(|cidr| used.overlap(cidr).is_none())
        .collect();
    let mut last = step.record.last.clone();
    let missing: Vec<Pool> = pools.missing(&cidrs).copied().collect();
    for pool in missing {
        let after = last.iter().find(|cidr| pool.is_family_of(cidr)).copied();
        let Some(cidr) = pool.free(taken, after.as_ref()) else {
            step.problems.push(format!(
                "Node {name}: no pod CIDR: every /{} of --cluster-cidr {pool} is taken: remove Nodes that are gone, or configure a larger one or longer --{}",
                pool.bits(),
                pool.mask_flag()
            ));
            // Both or none.
            return;
        };
        last.retain(|cidr| !pool.is_family_of(cidr));
        last.push(cidr);
        cidrs.push(cidr);
    }
    if cidrs.is_empty() {
        return;
    }
    pools.sort(&mut cidrs);
    last.sort();
    step.record.last = last;
    cidrs.iter().for_each(|cidr| taken.insert(*cidr));
    let entry = Entry {
        uid: uid.to_owned(),
        cidrs: cidrs.clone(),
    };
    step.record.nodes.insert(name.to_owned(), entry);
    step.assign.push(Assignment {
        name: name.to_owned(),
        uid: uid.to_owned(),
        cidrs,
    });
}

/// Nodes that have overlapping CIDRs, which nobody who keeps to the record gives out.
fn overlaps(nodes: &Nodes) -> Vec<String> {
    let mut all: Vec<(IpNetwork, &str)> = nodes
        .iter()
        .flat_map(|(name, node)| node.cidrs.iter().map(move |cidr| (*cidr, name.as_str())))
        .collect();
    // By family and address, the larger first: what overlaps stands after what it is in.
    all.sort_by_key(|(cidr, name)| (cidr.network(), cidr.prefix(), *name));
    let mut problems = Vec::new();
    let mut around: Option<(IpNetwork, &str)> = None;
    for (cidr, name) in all {
        match around {
            Some((outer, other)) if pool::overlapping(&outer, &cidr) => problems.push(format!(
                "Nodes {other} and {name}: their pod CIDRs {outer} and {cidr} overlap: delete one of the two and register it anew"
            )),
            _ => around = Some((cidr, name)),
        }
    }
    problems
}
