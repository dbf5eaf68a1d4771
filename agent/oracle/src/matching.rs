//! Whether one rule matches a flow, and in words what did or did not match.

use crate::cidr::Cidr;
use crate::cluster::Evaluator;
use crate::decision::Match;
use crate::party::{Family, Party, Protocol};
use crate::policy::{Peer, Policy, Rule, RuleBody};
use crate::ports::{PortMatch, Ports};
use crate::selector::{Labels, Selector};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// A flow with its ends resolved.
pub(crate) struct Flow {
    pub from: Party,
    pub to: Party,
    pub family: Option<Family>,
    pub protocol: Protocol,
    /// 0 for protocols without ports.
    pub port: u16,
}

impl Flow {
    /// What it carries, in words.
    pub fn asked(&self) -> String {
        if self.protocol.has_ports() {
            format!("{}/{}", self.port, self.protocol)
        } else {
            self.protocol.to_string()
        }
    }
}

/// Whether something matches, and what or why not.
pub(crate) struct Check {
    pub outcome: Match,
    pub why: String,
}

impl Check {
    pub fn new(yes: bool, why: impl Into<String>) -> Self {
        let outcome = if yes { Match::Yes } else { Match::No };
        Self {
            outcome,
            why: why.into(),
        }
    }

    /// The first that matches, else the first of which that is not known, else all that miss.
    pub fn any(checks: impl Iterator<Item = Self>) -> Self {
        let mut unknown = None;
        let mut misses = Vec::new();
        for check in checks {
            match check.outcome {
                Match::Yes => return check,
                Match::Unknown => unknown = unknown.or(Some(check)),
                Match::No => misses.push(check.why),
            }
        }
        unknown.unwrap_or_else(|| Self::new(false, misses.join("; ")))
    }

    /// A rule out of its two halves.
    pub fn both(peers: Self, ports: Self) -> Self {
        match (peers.outcome, ports.outcome) {
            (Match::No, Match::No) => {
                Self::new(false, format!("peer: {}; port: {}", peers.why, ports.why))
            }
            (Match::No, _) => Self::new(false, format!("peer: {}", peers.why)),
            (_, Match::No) => Self::new(false, format!("port: {}", ports.why)),
            (outcome, _) => Self {
                outcome,
                why: format!("{}, {}", peers.why, ports.why),
            },
        }
    }
}

impl Evaluator<'_> {
    /// A rule matches if one of its peers and one of its ports match.
    pub(crate) fn check_rule(
        &self,
        flow: &Flow,
        direction: Direction,
        policy: &Policy,
        rule: &Rule,
    ) -> Check {
        let body = match &rule.body {
            Ok(body) => body,
            Err(refusal) => {
                let why = format!("refused: {}: {}", refusal.path, refusal.reason);
                return Check::new(false, why);
            }
        };
        let (field, peer) = match direction {
            Direction::Ingress => ("from", &flow.from),
            Direction::Egress => ("to", &flow.to),
        };
        let peers = self.check_peers(flow, field, peer, policy, body);
        Check::both(peers, self.check_ports(flow, body))
    }

    fn check_peers(
        &self,
        flow: &Flow,
        field: &str,
        peer: &Party,
        policy: &Policy,
        body: &RuleBody,
    ) -> Check {
        if body.peers.is_empty() {
            return Check::new(true, "any peer");
        }
        Check::any(body.peers.iter().enumerate().map(|(i, wanted)| {
            let mut check = match wanted {
                Peer::Pods { namespaces, pods } => {
                    self.check_pods(peer, policy, namespaces.as_ref(), pods.as_ref())
                }
                Peer::Block { cidr, except } => {
                    check_cidr(flow.family, peer, "ipBlock", cidr, except)
                }
            };
            check.why = format!("{field}[{i}] {}", check.why);
            check
        }))
    }

    fn check_pods(
        &self,
        peer: &Party,
        policy: &Policy,
        namespaces: Option<&Selector>,
        pods: Option<&Selector>,
    ) -> Check {
        let Some(pod) = self.pod_of(peer) else {
            return Check::new(false, format!("selects pods, the peer is {peer}"));
        };
        match namespaces {
            None if pod.namespace != policy.namespace => {
                let why = format!("selects in namespace {} only", policy.namespace);
                return Check::new(false, why);
            }
            None => {}
            Some(selector) => {
                let empty = Labels::new();
                let labels = self.namespace_labels(&pod.namespace).unwrap_or(&empty);
                if let Err(miss) = selector.check(labels) {
                    let why = format!("namespace {} is not {miss}", pod.namespace);
                    return Check::new(false, why);
                }
            }
        }
        if let Some(selector) = pods
            && let Err(miss) = selector.check(&pod.labels)
        {
            return Check::new(false, format!("pod is not {miss}"));
        }
        let mut parts = Vec::new();
        parts.extend(namespaces.map(|s| format!("namespaceSelector {s}")));
        parts.extend(pods.map(|s| format!("podSelector {s}")));
        Check::new(true, parts.join(" "))
    }

    /// Ports are those of the destination, in both directions.
    fn check_ports(&self, flow: &Flow, body: &RuleBody) -> Check {
        if body.ports.is_empty() {
            return Check::new(true, "any port");
        }
        for port in &body.ports {
            if self.port_matches(flow, port) {
                return Check::new(true, format!("port {port}"));
            }
        }
        let listed: Vec<String> = body
            .ports
            .iter()
            .map(|p| self.explain_port(flow, p))
            .collect();
        Check::new(
            false,
            format!("{} is not in {}", flow.asked(), listed.join(", ")),
        )
    }

    fn port_matches(&self, flow: &Flow, wanted: &PortMatch) -> bool {
        flow.protocol == wanted.protocol
            && match &wanted.ports {
                Ports::All => true,
                Ports::Range(first, last) => (*first..=*last).contains(&flow.port),
                Ports::Named(name) => self.lookup(flow, name, wanted.protocol) == Some(flow.port),
            }
    }

    /// What a named port is on the destination.
    pub(crate) fn lookup(&self, flow: &Flow, name: &str, protocol: Protocol) -> Option<u16> {
        self.pod_of(&flow.to)?.named_port(name, protocol)
    }

    fn explain_port(&self, flow: &Flow, wanted: &PortMatch) -> String {
        let Ports::Named(name) = &wanted.ports else {
            return wanted.to_string();
        };
        match self.lookup(flow, name, wanted.protocol) {
            Some(number) => format!("{wanted} ({number} on {})", flow.to),
            None => format!("{wanted} (not on {})", flow.to),
        }
    }
}

/// Whether the peer's address lies in a block that `field` names.
pub(crate) fn check_cidr(
    family: Option<Family>,
    peer: &Party,
    field: &str,
    cidr: &Cidr,
    except: &[Cidr],
) -> Check {
    let Some(addr) = peer.address else {
        let of_family = family.map(|f| (f == Family::V4) == cidr.is_v4());
        return match of_family {
            Some(false) => Check::new(false, format!("{field} {cidr} is of the other family")),
            Some(true) if cidr.is_everything() && except.is_empty() => {
                Check::new(true, format!("{field} {cidr}"))
            }
            Some(true) | None => Check {
                outcome: Match::Unknown,
                why: format!("{field} {cidr}: {peer} has no address"),
            },
        };
    };
    if !cidr.contains(addr) {
        return Check::new(false, format!("{field} {cidr} does not hold {addr}"));
    }
    match except.iter().find(|part| part.contains(addr)) {
        Some(part) => Check::new(
            false,
            format!("{field} {cidr} excepts {part}, {addr} is in it"),
        ),
        None => Check::new(true, format!("{field} {cidr}")),
    }
}
