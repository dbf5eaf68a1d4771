//! Whether a ClusterNetworkPolicy's rule matches a flow, and in words what did or did not match.

use crate::cidr::Cidr;
use crate::cluster::Evaluator;
use crate::cluster_peer::{ClusterPeer, Ports};
use crate::cluster_policy::{ClusterRule, PodSelection};
use crate::decision::Match;
use crate::matching::{Check, Direction, Flow, check_cidr};
use crate::party::Party;
use crate::rule_ref::Action;
use crate::selector::{Labels, Selector};

impl Evaluator<'_> {
    /// A rule matches if one of its peers and one of its protocols match. One that was refused
    /// matches nothing (Accept) or everything.
    pub(crate) fn check_cluster_rule(
        &self,
        flow: &Flow,
        direction: Direction,
        rule: &ClusterRule,
    ) -> Check {
        let body = match &rule.body {
            Ok(body) => body,
            Err(refusal) => {
                let denies = rule.action != Action::Accept;
                let cost = if denies {
                    ", so it denies everything"
                } else {
                    ""
                };
                let why = format!("refused: {}: {}{cost}", refusal.path, refusal.reason);
                return Check::new(denies, why);
            }
        };
        let (field, peer) = match direction {
            Direction::Ingress => ("from", &flow.from),
            Direction::Egress => ("to", &flow.to),
        };
        let peers = Check::any(body.peers.iter().enumerate().map(|(i, wanted)| {
            let mut check = self.check_cluster_peer(flow, peer, wanted, rule.action);
            check.why = format!("{field}[{i}] {}", check.why);
            check
        }));
        let ports = match &body.protocols {
            None => Check::new(true, "any protocol"),
            Some(protocols) => self.check_protocols(flow, direction, rule.action, protocols),
        };
        Check::both(peers, ports)
    }

    fn check_cluster_peer(
        &self,
        flow: &Flow,
        peer: &Party,
        wanted: &ClusterPeer,
        action: Action,
    ) -> Check {
        match wanted {
            ClusterPeer::Pods(selection) => self.check_selection(peer, selection, action),
            ClusterPeer::Nodes(selector) => self.check_nodes(peer, selector),
            ClusterPeer::Networks(cidrs) => check_networks(flow, peer, cidrs),
            ClusterPeer::DomainNames(names) => {
                let names = names.join(", ");
                Check::new(false, format!("domainNames {names} are not enforced yet"))
            }
        }
    }

    fn check_selection(&self, peer: &Party, selection: &PodSelection, action: Action) -> Check {
        let Some(pod) = self.pod_of(peer) else {
            if action == Action::Deny && self.is_unknown_pod(peer) {
                // Which pod it is cannot be told, so it may be one of those.
                return Check::new(true, format!("{selection}: {peer} may be one"));
            }
            return Check::new(false, format!("selects pods, the peer is {peer}"));
        };
        let empty = Labels::new();
        let of_namespace = self.namespace_labels(&pod.namespace).unwrap_or(&empty);
        if let Err(miss) = selection.namespaces.check(of_namespace) {
            let why = format!("namespace {} is not {miss}", pod.namespace);
            return Check::new(false, why);
        }
        if let Some(selector) = &selection.pods
            && let Err(miss) = selector.check(&pod.labels)
        {
            return Check::new(false, format!("pod is not {miss}"));
        }
        Check::new(true, selection.to_string())
    }

    /// By address: a node is what has one of the selected Nodes' addresses.
    fn check_nodes(&self, peer: &Party, selector: &Selector) -> Check {
        let mut selected = self.node_objects.iter();
        let why = format!("nodes {selector}");
        let Some(addr) = peer.address else {
            let is_selected = selected.any(|(name, node)| {
                peer.node.as_ref() == Some(name) && selector.matches(&node.labels)
            });
            if self.pod_of(peer).is_none() && is_selected {
                return Check {
                    outcome: Match::Unknown,
                    why: format!("{why}: {peer} has no address"),
                };
            }
            return Check::new(false, format!("selects nodes, the peer is {peer}"));
        };
        let mut owners = selected.filter(|(_, node)| node.addresses.contains(&addr));
        if owners.any(|(_, node)| selector.matches(&node.labels)) {
            return Check::new(true, why);
        }
        Check::new(false, format!("no node {selector} has address {addr}"))
    }

    /// Ports are those of the destination, in both directions.
    fn check_protocols(
        &self,
        flow: &Flow,
        direction: Direction,
        action: Action,
        protocols: &[Ports],
    ) -> Check {
        // What is not known to be a pod may be one with that port (see `check_selection`).
        let may_have_any = direction == Direction::Egress
            && action == Action::Deny
            && self.is_unknown_pod(&flow.to);
        let matches = |ports: &Ports| match ports {
            Ports::Range(protocol, first, last) => {
                flow.protocol == *protocol && (*first..=*last).contains(&flow.port)
            }
            Ports::Named(name) => {
                flow.protocol.has_ports()
                    && (may_have_any || self.lookup(flow, name, flow.protocol) == Some(flow.port))
            }
        };
        if let Some(ports) = protocols.iter().find(|ports| matches(ports)) {
            return Check::new(true, format!("port {ports}"));
        }
        let listed: Vec<String> = protocols
            .iter()
            .map(|ports| match ports {
                Ports::Named(name) if flow.protocol.has_ports() => {
                    match self.lookup(flow, name, flow.protocol) {
                        Some(number) => format!("{ports} ({number} on {})", flow.to),
                        None => format!("{ports} (not on {})", flow.to),
                    }
                }
                _ => ports.to_string(),
            })
            .collect();
        let why = format!("{} is not in {}", flow.asked(), listed.join(", "));
        Check::new(false, why)
    }
}

fn check_networks(flow: &Flow, peer: &Party, cidrs: &[Cidr]) -> Check {
    let one = |cidr| check_cidr(flow.family, peer, "networks", cidr, &[]);
    let check = Check::any(cidrs.iter().map(one));
    match (check.outcome, peer.address) {
        (Match::No, Some(addr)) if cidrs.len() > 1 => {
            let listed: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
            let why = format!("networks {} do not hold {addr}", listed.join(", "));
            Check::new(false, why)
        }
        _ => check,
    }
}
