//! NetworkPolicies, as they are evaluated: what is valid of them, and what was refused.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};

use crate::cidr::Cidr;
use crate::ports::{self, PortMatch};
use crate::refusal::{Message, Refusal};
use crate::selector::Selector;

/// One NetworkPolicy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub namespace: String,
    pub name: String,
    /// The valid part of `spec.podSelector`.
    pub selector: Selector,
    /// Present if the policy isolates ingress.
    pub ingress: Option<Vec<Rule>>,
    /// Present if the policy isolates egress.
    pub egress: Option<Vec<Rule>>,
    pub messages: Vec<Message>,
}

/// One element of `spec.ingress` or `spec.egress`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub path: String,
    /// What was refused: the rule then matches nothing.
    pub body: Result<RuleBody, Refusal>,
}

/// What a rule allows.
#[derive(Clone, Debug)]
pub(crate) struct RuleBody {
    /// `from` or `to`; empty means everyone.
    pub peers: Vec<Peer>,
    /// Empty means everything, also what has no ports.
    pub ports: Vec<PortMatch>,
}

/// One element of `from` or `to`.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Pods of the selected namespaces (none: the policy's own) that the pod selector selects
    /// (none: all of them).
    Pods {
        namespaces: Option<Selector>,
        pods: Option<Selector>,
    },
    /// Addresses.
    Block { cidr: Cidr, except: Vec<Cidr> },
}

impl Policy {
    pub fn parse(object: &NetworkPolicy) -> Self {
        let namespace = object.metadata.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let name = object.metadata.name.clone().unwrap_or_default();
        let spec = object.spec.clone().unwrap_or_default();

        let selector = spec.pod_selector.unwrap_or_default();
        let (selector, selector_refusals) = Selector::parse(&selector, "spec.podSelector");
        let types = spec.policy_types.unwrap_or_default();
        let egress_rules = spec.egress.unwrap_or_default();
        let (isolates, type_refusals) = policy_types(&types, !egress_rules.is_empty());

        let mut ingress: Vec<Rule> = Vec::new();
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = format!("spec.ingress[{i}]");
            ingress.push(parse_rule(path, "from", &rule.from, &rule.ports));
        }
        let mut egress: Vec<Rule> = Vec::new();
        for (i, rule) in egress_rules.iter().enumerate() {
            let path = format!("spec.egress[{i}]");
            egress.push(parse_rule(path, "to", &rule.to, &rule.ports));
        }

        let object_name = format!("NetworkPolicy {namespace}/{name}");
        let message = |refusal: &Refusal, cost: &str| Message {
            object: object_name.clone(),
            path: refusal.path.clone(),
            reason: format!("{}; {cost}", refusal.reason),
        };
        let mut messages: Vec<Message> = Vec::new();
        for refusal in selector_refusals.iter().chain(&type_refusals) {
            messages.push(message(refusal, "the policy isolates and allows nothing"));
        }
        for rule in ingress.iter().chain(&egress) {
            if let Err(refusal) = &rule.body {
                messages.push(message(refusal, "the rule is ignored, its policy isolates"));
            }
        }
        // A policy that is refused as such allows nothing.
        if let Some(refusal) = selector_refusals.first().or(type_refusals.first()) {
            for rule in ingress.iter_mut().chain(&mut egress) {
                rule.body = Err(refusal.clone());
            }
        }
        Self {
            namespace,
            name,
            selector,
            ingress: isolates.ingress.then_some(ingress),
            egress: isolates.egress.then_some(egress),
            messages,
        }
    }
}

struct Isolates {
    ingress: bool,
    egress: bool,
}

/// Which directions a policy isolates. Left out: Ingress, and Egress if there is an egress rule
/// (`SetDefaults_NetworkPolicy`). Refused: both.
fn policy_types(types: &[String], has_egress_rules: bool) -> (Isolates, Vec<Refusal>) {
    let mut refusals = Vec::new();
    for (i, name) in types.iter().enumerate() {
        if name != "Ingress" && name != "Egress" {
            refusals.push(Refusal::new(
                format!("spec.policyTypes[{i}]"),
                format!("{name:?} is neither Ingress nor Egress"),
            ));
        }
    }
    if types.len() > 2 {
        refusals.push(Refusal::new(
            "spec.policyTypes",
            "more than two elements".to_owned(),
        ));
    }
    let has = |name: &str| types.iter().any(|t| t == name);
    let isolates = if !refusals.is_empty() {
        Isolates {
            ingress: true,
            egress: true,
        }
    } else if types.is_empty() {
        Isolates {
            ingress: true,
            egress: has_egress_rules,
        }
    } else {
        Isolates {
            ingress: has("Ingress"),
            egress: has("Egress"),
        }
    };
    (isolates, refusals)
}

fn parse_rule(
    path: String,
    peers_field: &str,
    peers: &Option<Vec<NetworkPolicyPeer>>,
    ports: &Option<Vec<NetworkPolicyPort>>,
) -> Rule {
    let parse = || {
        let mut body = RuleBody {
            peers: Vec::new(),
            ports: Vec::new(),
        };
        for (i, peer) in peers.iter().flatten().enumerate() {
            let path = format!("{path}.{peers_field}[{i}]");
            body.peers.push(parse_peer(peer, &path)?);
        }
        for (i, port) in ports.iter().flatten().enumerate() {
            body.ports
                .push(ports::parse(port, &format!("{path}.ports[{i}]"))?);
        }
        Ok(body)
    };
    let body = parse();
    Rule { path, body }
}

fn parse_peer(peer: &NetworkPolicyPeer, path: &str) -> Result<Peer, Refusal> {
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match (&peer.ip_block, selects) {
        (None, false) => Err(Refusal::new(
            path,
            "needs one of podSelector, namespaceSelector, ipBlock",
        )),
        (Some(_), true) => Err(Refusal::new(path, "ipBlock stands alone")),
        (Some(block), false) => parse_block(block, &format!("{path}.ipBlock")),
        (None, true) => {
            let parse = |selector: &Option<_>, field: &str| match selector {
                None => Ok(None),
                Some(selector) => {
                    let (selector, refusals) =
                        Selector::parse(selector, &format!("{path}.{field}"));
                    match refusals.into_iter().next() {
                        None => Ok(Some(selector)),
                        Some(refusal) => Err(refusal),
                    }
                }
            };
            Ok(Peer::Pods {
                namespaces: parse(&peer.namespace_selector, "namespaceSelector")?,
                pods: parse(&peer.pod_selector, "podSelector")?,
            })
        }
    }
}

fn parse_block(block: &IPBlock, path: &str) -> Result<Peer, Refusal> {
    let cidr = Cidr::parse(&block.cidr).map_err(|e| Refusal::new(format!("{path}.cidr"), e))?;
    let mut except = Vec::new();
    for (i, text) in block.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{i}]");
        let part = Cidr::parse(text).map_err(|e| Refusal::new(&path, e))?;
        if !part.is_strictly_within(&cidr) {
            let reason = format!("{part} is not a smaller block within {cidr}");
            return Err(Refusal::new(path, reason));
        }
        except.push(part);
    }
    Ok(Peer::Block { cidr, except })
}
