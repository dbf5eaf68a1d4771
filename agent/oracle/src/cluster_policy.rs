//! ClusterNetworkPolicies, as they are evaluated: what is valid of them, and what was refused.

use std::fmt;

use weir_crd::{ClusterNetworkPolicy, EgressRule, IngressRule, NamespacedPod, Other, Subject};

use crate::cluster_peer::{self, ClusterPeer, Ports};
use crate::refusal::{Message, Refusal};
use crate::rule_ref::{Action, Tier};
use crate::selector::{Labels, Selector};

/// Most rules of one direction, peers or protocols of a rule, and elements of a peer's list.
pub(crate) const MOST: usize = 25;
/// Most characters of a rule's name.
const LONGEST_NAME: usize = 100;
const HIGHEST_PRIORITY: u16 = 1000;

/// One ClusterNetworkPolicy.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPolicy {
    pub name: String,
    pub tier: Tier,
    pub priority: u16,
    /// Its pods.
    pub subject: PodSelection,
    pub ingress: Vec<ClusterRule>,
    pub egress: Vec<ClusterRule>,
    pub messages: Vec<Message>,
}

/// Pods by the labels of their namespace and their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodSelection {
    pub namespaces: Selector,
    /// None: `namespaces` was written, which means all their pods.
    pub pods: Option<Selector>,
}

impl PodSelection {
    pub fn selects(&self, of_namespace: &Labels, of_pod: &Labels) -> bool {
        let pod_matches = |selector: &Selector| selector.matches(of_pod);
        self.namespaces.matches(of_namespace) && self.pods.as_ref().is_none_or(pod_matches)
    }
}

impl fmt::Display for PodSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pods {
            None => write!(f, "namespaces {}", self.namespaces),
            Some(pods) => write!(f, "pods {pods} in namespaces {}", self.namespaces),
        }
    }
}

/// One element of `spec.ingress` or `spec.egress`.
#[derive(Clone, Debug)]
pub(crate) struct ClusterRule {
    pub path: String,
    pub name: Option<String>,
    /// What it does if it matches. Of a refused rule: Accept, which then matches nothing, or Deny,
    /// which then matches everything.
    pub action: Action,
    /// What was refused of it.
    pub body: Result<ClusterRuleBody, Refusal>,
}

/// What a rule matches.
#[derive(Clone, Debug)]
pub(crate) struct ClusterRuleBody {
    /// `from` or `to`; never empty.
    pub peers: Vec<ClusterPeer>,
    /// None: everything, also what has no ports.
    pub protocols: Option<Vec<Ports>>,
}

impl ClusterPolicy {
    pub fn parse(object: &ClusterNetworkPolicy) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let spec = &object.spec;
        let mut refusals: Vec<Refusal> = Vec::new();
        let tier = tier(spec.tier.as_deref(), &mut refusals);
        let priority = priority(spec.priority, &mut refusals);
        let subject = subject(spec.subject.as_ref(), &mut refusals);

        let rules = spec.ingress.iter().flatten().enumerate();
        let mut ingress: Vec<ClusterRule> = rules.map(|(i, r)| ingress_rule(i, r)).collect();
        let rules = spec.egress.iter().flatten().enumerate();
        let mut egress: Vec<ClusterRule> = rules.map(|(i, r)| egress_rule(i, r)).collect();

        let object_name = format!("ClusterNetworkPolicy {name}");
        let message = |path: &str, reason: &str, cost: &str| Message {
            object: object_name.clone(),
            path: path.to_owned(),
            reason: format!("{reason}; {cost}"),
        };
        let mut messages: Vec<Message> = Vec::new();
        for refusal in &refusals {
            let cost =
                "all its rules are refused: Accept matches nothing, the others deny everything";
            messages.push(message(&refusal.path, &refusal.reason, cost));
        }
        for rule in ingress.iter().chain(&egress) {
            if let Err(refusal) = &rule.body {
                let cost = match rule.action {
                    Action::Accept => "the rule matches nothing",
                    Action::Deny | Action::Pass => "the rule denies everything",
                };
                messages.push(message(&refusal.path, &refusal.reason, cost));
            }
            if rule
                .name
                .as_ref()
                .is_some_and(|n| n.chars().count() > LONGEST_NAME)
            {
                let reason = format!("has more than {LONGEST_NAME} characters");
                let path = format!("{}.name", rule.path);
                messages.push(message(&path, &reason, "the rule stands"));
            }
        }
        if let Some(refusal) = refusals.first() {
            for rule in ingress.iter_mut().chain(&mut egress) {
                rule.refuse(refusal);
            }
        }
        Self {
            name,
            tier,
            priority,
            subject,
            ingress,
            egress,
            messages,
        }
    }
}

impl ClusterRule {
    /// Refused as a whole: Accept matches nothing, everything else denies everything.
    fn refuse(&mut self, refusal: &Refusal) {
        if self.action == Action::Pass {
            self.action = Action::Deny;
        }
        self.body = Err(refusal.clone());
    }
}

/// Whatever is not Baseline counts as Admin.
fn tier(tier: Option<&str>, refusals: &mut Vec<Refusal>) -> Tier {
    match tier {
        Some("Admin") => return Tier::Admin,
        Some("Baseline") => return Tier::Baseline,
        Some(other) => refusals.push(Refusal::new(
            "spec.tier",
            format!("{other:?} is neither Admin nor Baseline"),
        )),
        None => refusals.push(Refusal::new("spec.tier", "is required")),
    }
    Tier::Admin
}

/// The nearest valid one, 0 if there is none.
fn priority(priority: Option<i64>, refusals: &mut Vec<Refusal>) -> u16 {
    let Some(number) = priority else {
        refusals.push(Refusal::new("spec.priority", "is required"));
        return 0;
    };
    let nearest = number.clamp(0, HIGHEST_PRIORITY.into());
    if nearest != number {
        let reason = format!("{number} is not within 0 to {HIGHEST_PRIORITY}");
        refusals.push(Refusal::new("spec.priority", reason));
    }
    // Within 0 to 1000.
    nearest as u16
}

/// What the valid part of the selectors selects; all pods if there is no such part, or no telling
/// which field is meant.
fn subject(subject: Option<&Subject>, refusals: &mut Vec<Refusal>) -> PodSelection {
    let path = "spec.subject";
    let Some(subject) = subject else {
        refusals.push(Refusal::new(path, "is required"));
        return PodSelection::default();
    };
    refusals.extend(unknown(path, &subject.other).err());
    let (selection, refused) = match (&subject.namespaces, &subject.pods) {
        (Some(selector), None) => {
            let (namespaces, refused) = Selector::parse(selector, "spec.subject.namespaces");
            let all_their_pods = PodSelection {
                namespaces,
                pods: None,
            };
            (all_their_pods, refused)
        }
        (None, Some(pods)) => pod_selection(pods, "spec.subject.pods"),
        _ => (
            PodSelection::default(),
            vec![one_of(path, "namespaces, pods")],
        ),
    };
    refusals.extend(refused);
    selection
}

/// What the valid part of the selectors selects, and what was refused.
pub(crate) fn pod_selection(pods: &NamespacedPod, path: &str) -> (PodSelection, Vec<Refusal>) {
    let mut refusals: Vec<Refusal> = unknown(path, &pods.other).err().into_iter().collect();
    let of_namespace = pods.namespace_selector.clone().unwrap_or_default();
    let (namespaces, refused) =
        Selector::parse(&of_namespace, &format!("{path}.namespaceSelector"));
    refusals.extend(refused);
    let field = format!("{path}.podSelector");
    if pods.pod_selector.is_none() {
        refusals.push(Refusal::new(&field, "is required"));
    }
    let of_pod = pods.pod_selector.clone().unwrap_or_default();
    let (selector, refused) = Selector::parse(&of_pod, &field);
    refusals.extend(refused);
    let selection = PodSelection {
        namespaces,
        pods: Some(selector),
    };
    (selection, refusals)
}

/// Refuses fields that are not known here.
pub(crate) fn unknown(path: &str, other: &Other) -> Result<(), Refusal> {
    match other.keys().next() {
        None => Ok(()),
        Some(key) => Err(Refusal::new(
            format!("{path}.{key}"),
            "is no field that is known here",
        )),
    }
}

/// Where not exactly one of these fields is set.
pub(crate) fn one_of(path: &str, fields: &str) -> Refusal {
    Refusal::new(path, format!("needs exactly one of {fields}"))
}

fn ingress_rule(index: usize, rule: &IngressRule) -> ClusterRule {
    let path = format!("spec.ingress[{index}]");
    let parse = |action| {
        unknown(&path, &rule.other)?;
        let field = format!("{path}.from");
        let written = rule.from.as_deref().unwrap_or_default();
        let mut peers = Vec::new();
        for (i, peer) in cluster_peer::within_limits(written, &field)?
            .iter()
            .enumerate()
        {
            peers.push(cluster_peer::ingress(peer, &format!("{field}[{i}]"))?);
        }
        Ok((
            action,
            ClusterRuleBody {
                peers,
                protocols: cluster_peer::protocols(&rule.protocols, &path)?,
            },
        ))
    };
    let action = action(rule.action.as_deref(), &path);
    assemble(
        index,
        &path,
        &rule.name,
        rule.action.as_deref(),
        action.and_then(parse),
    )
}

fn egress_rule(index: usize, rule: &EgressRule) -> ClusterRule {
    let path = format!("spec.egress[{index}]");
    let parse = |action| {
        unknown(&path, &rule.other)?;
        let field = format!("{path}.to");
        let written = rule.to.as_deref().unwrap_or_default();
        let mut peers = Vec::new();
        for (i, peer) in cluster_peer::within_limits(written, &field)?
            .iter()
            .enumerate()
        {
            peers.push(cluster_peer::egress(
                peer,
                action,
                &format!("{field}[{i}]"),
            )?);
        }
        let protocols = cluster_peer::protocols(&rule.protocols, &path)?;
        let named = |ports: &Ports| matches!(ports, Ports::Named(_));
        let any_named = protocols.iter().flatten().any(named);
        let is_pods = |peer: &ClusterPeer| matches!(peer, ClusterPeer::Pods(_));
        if any_named && !peers.iter().all(is_pods) {
            return Err(Refusal::new(
                format!("{path}.protocols"),
                "destinationNamedPort cannot stand beside networks, nodes or domainNames",
            ));
        }
        Ok((action, ClusterRuleBody { peers, protocols }))
    };
    let action = action(rule.action.as_deref(), &path);
    assemble(
        index,
        &path,
        &rule.name,
        rule.action.as_deref(),
        action.and_then(parse),
    )
}

fn action(action: Option<&str>, path: &str) -> Result<Action, Refusal> {
    match action {
        Some("Accept") => Ok(Action::Accept),
        Some("Deny") => Ok(Action::Deny),
        Some("Pass") => Ok(Action::Pass),
        other => {
            let reason = match other {
                Some(text) => format!("{text:?} is none of Accept, Deny, Pass"),
                None => "is required".to_owned(),
            };
            Err(Refusal::new(format!("{path}.action"), reason))
        }
    }
}

/// A rule out of its parts, refused where it has to be.
fn assemble(
    index: usize,
    path: &str,
    name: &Option<String>,
    written: Option<&str>,
    parsed: Result<(Action, ClusterRuleBody), Refusal>,
) -> ClusterRule {
    let (action, body) = match parsed {
        Ok((action, body)) => (action, Ok(body)),
        Err(refusal) if written == Some("Accept") => (Action::Accept, Err(refusal)),
        Err(refusal) => (Action::Deny, Err(refusal)),
    };
    let mut rule = ClusterRule {
        path: path.to_owned(),
        name: name.clone().filter(|name| !name.is_empty()),
        action,
        body,
    };
    if index >= MOST {
        rule.refuse(&Refusal::new(
            path,
            format!("stands after the {MOST}th rule"),
        ));
    }
    rule
}
