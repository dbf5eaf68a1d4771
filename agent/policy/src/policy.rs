//! NetworkPolicies, checked and ready to be compiled.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::actual::Direction;
use crate::cidr::Block;
use crate::event::ObjectName;
use crate::hash::{ContentHasher, Key};
use crate::port::RulePorts;
use crate::problem::Problem;
use crate::rule::RuleName;
use crate::selector::{Labels, Refusal, Selector};
use crate::tier::Action;

/// What counts of a NetworkPolicy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub name: ObjectName,
    /// Which pods of its namespace it selects.
    pub selector: Selector,
    /// By [`Direction::index`]: the usable rules, where it isolates that direction.
    pub rules: [Option<Vec<Rule>>; 2],
    pub problems: Vec<Problem>,
}

/// A rule that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub name: Arc<RuleName>,
    pub action: Action,
    /// None: everyone.
    pub peers: Option<Vec<Arc<Peer>>>,
    pub ports: RulePorts,
}

/// One element of `from` or `to`.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub key: Key,
    pub kind: PeerKind,
}

impl Peer {
    pub fn new(kind: PeerKind) -> Self {
        Self {
            key: kind.key(),
            kind,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PeerKind {
    Pods {
        namespaces: Namespaces,
        pods: Selector,
    },
    Block(Block),
    /// The addresses of the selected nodes.
    Nodes(Selector),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Namespaces {
    /// The one of that name.
    Named(String),
    /// Those whose labels are selected.
    Selected(Selector),
}

impl Namespaces {
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Self::Named(this) => this == name,
            Self::Selected(selector) => selector.matches(labels),
        }
    }
}

/// The object's namespace, `default` if it says none.
pub(crate) fn object_name(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> ObjectName {
    let namespace = metadata.namespace.as_deref().filter(|n| !n.is_empty());
    ObjectName {
        namespace: namespace.unwrap_or("default").to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

impl Policy {
    /// Reads an object. A rule with a field that the API server would refuse is left out; a policy
    /// whose `podSelector` or `policyTypes` it would refuse isolates (by the valid part of the
    /// selector, in both directions if its types are refused) and allows nothing.
    pub fn parse(object: &NetworkPolicy) -> Self {
        let default = NetworkPolicySpec::default();
        let spec = object.spec.as_ref().unwrap_or(&default);
        let mut parser = Parser {
            name: object_name(&object.metadata),
            problems: Vec::new(),
        };
        let (selector, refused) = match &spec.pod_selector {
            None => (Selector::default(), Vec::new()),
            Some(selector) => Selector::parse(selector),
        };
        let allows_nothing = "the policy isolates and allows nothing";
        let mut usable = refused.is_empty();
        for (field, reason) in refused {
            parser.problem(format!("spec.podSelector.{field}"), &reason, allows_nothing);
        }
        let types = match policy_types(spec) {
            Ok(types) => types,
            Err((field, reason)) => {
                usable = false;
                parser.problem(field, &reason, allows_nothing);
                [true, true]
            }
        };
        let mut rules = [const { None }; 2];
        for direction in Direction::ALL {
            let found = parser.rules(spec, direction);
            let found = if usable { found } else { Vec::new() };
            rules[direction.index()] = types[direction.index()].then_some(found);
        }
        Self {
            name: parser.name,
            selector,
            rules,
            problems: parser.problems,
        }
    }
}

/// Which directions are isolated. Left out: Ingress, and Egress if there is an egress rule (the API
/// server's `SetDefaults_NetworkPolicy`). The error is (field, reason).
fn policy_types(spec: &NetworkPolicySpec) -> Result<[bool; 2], Refusal> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return Ok([
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ]);
    }
    if types.len() > 2 {
        return Err((
            "spec.policyTypes".to_owned(),
            "has more than two elements".to_owned(),
        ));
    }
    let mut found = [false; 2];
    for (i, name) in types.iter().enumerate() {
        match name.as_str() {
            "Ingress" => found[Direction::Ingress.index()] = true,
            "Egress" => found[Direction::Egress.index()] = true,
            other => {
                let reason = format!("{other:?} is neither Ingress nor Egress");
                return Err((format!("spec.policyTypes[{i}]"), reason));
            }
        }
    }
    Ok(found)
}

struct Parser {
    name: ObjectName,
    problems: Vec<Problem>,
}

impl Parser {
    fn problem(&mut self, path: String, reason: &str, cost: &str) {
        self.problems.push(Problem {
            object: format!("NetworkPolicy {}", self.name),
            path,
            reason: format!("{reason}; {cost}"),
        });
    }

    fn rules(&mut self, spec: &NetworkPolicySpec, direction: Direction) -> Vec<Rule> {
        let mut usable = Vec::new();
        let mut add =
            |i: usize, peers_field: &str, peers: &Option<Vec<_>>, ports: &Option<Vec<_>>| {
                let path = format!("spec.{}[{i}]", direction.name());
                match self.rule(direction, &path, peers_field, peers, ports) {
                    Ok(rule) => usable.push(rule),
                    Err((field, reason)) => {
                        let cost = "rule ignored, all other rules stand";
                        self.problem(format!("{path}.{field}"), &reason, cost);
                    }
                }
            };
        match direction {
            Direction::Ingress => {
                for (i, rule) in spec.ingress.iter().flatten().enumerate() {
                    add(i, "from", &rule.from, &rule.ports);
                }
            }
            Direction::Egress => {
                for (i, rule) in spec.egress.iter().flatten().enumerate() {
                    add(i, "to", &rule.to, &rule.ports);
                }
            }
        }
        usable
    }

    /// The error is (field below the rule, reason).
    fn rule(
        &self,
        direction: Direction,
        path: &str,
        peers_field: &str,
        peers: &Option<Vec<NetworkPolicyPeer>>,
        ports: &Option<Vec<NetworkPolicyPort>>,
    ) -> Result<Rule, Refusal> {
        let mut found = Vec::new();
        for (i, peer) in peers.iter().flatten().enumerate() {
            let peer = self.peer(peer).map_err(|(field, reason)| {
                let dot = if field.is_empty() { "" } else { "." };
                (format!("{peers_field}[{i}]{dot}{field}"), reason)
            })?;
            found.push(Arc::new(peer));
        }
        Ok(Rule {
            name: Arc::new(RuleName::rule(&self.name, direction, path)),
            action: Action::Accept,
            peers: Some(found).filter(|found| !found.is_empty()),
            ports: RulePorts::parse(ports.as_deref().unwrap_or_default())?,
        })
    }

    fn peer(&self, peer: &NetworkPolicyPeer) -> Result<Peer, Refusal> {
        let refuse = |reason: &str| Err((String::new(), reason.to_owned()));
        let pods = (&peer.namespace_selector, &peer.pod_selector);
        let kind = match (&peer.ip_block, pods) {
            (None, (None, None)) => {
                return refuse("names none of podSelector, namespaceSelector and ipBlock");
            }
            (Some(block), (None, None)) => PeerKind::Block(
                Block::parse(block).map_err(|(field, why)| (format!("ipBlock.{field}"), why))?,
            ),
            (Some(_), _) => return refuse("has a selector besides ipBlock"),
            (None, (namespaces, pods)) => PeerKind::Pods {
                namespaces: match namespaces {
                    None => Namespaces::Named(self.name.namespace.clone()),
                    Some(_) => Namespaces::Selected(whole(namespaces, "namespaceSelector")?),
                },
                pods: whole(pods, "podSelector")?,
            },
        };
        Ok(Peer::new(kind))
    }
}

/// A selector of which every part is valid; none selects everything.
fn whole(selector: &Option<LabelSelector>, name: &str) -> Result<Selector, Refusal> {
    let Some(selector) = selector else {
        return Ok(Selector::default());
    };
    let (selector, refused) = Selector::parse(selector);
    match refused.into_iter().next() {
        None => Ok(selector),
        Some((field, reason)) => Err((format!("{name}.{field}"), reason)),
    }
}

impl PeerKind {
    fn key(&self) -> Key {
        let mut hasher = ContentHasher::new("peer");
        match self {
            Self::Pods { namespaces, pods } => {
                match namespaces {
                    Namespaces::Named(name) => hasher.number(0).text(name),
                    Namespaces::Selected(selector) => {
                        selector.hash(hasher.number(1));
                        &mut hasher
                    }
                };
                pods.hash(&mut hasher);
            }
            Self::Block(block) => block.hash(hasher.number(2)),
            Self::Nodes(selector) => selector.hash(hasher.number(3)),
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
