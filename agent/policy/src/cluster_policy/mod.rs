//! ClusterNetworkPolicies, checked and ready to be compiled. `docs/policy.md` says what the API's
//! text is taken to mean, and what becomes of what is refused.

mod peer;
mod port;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weir_crd::{ClusterNetworkPolicy, EgressRule, IngressRule, NamespacedPod, Other, Subject};

use crate::actual::Direction;
use crate::policy::{Namespaces, Peer, PeerKind, Rule};
use crate::port::RulePorts;
use crate::problem::Problem;
use crate::rule::{ClusterRule, RuleName};
use crate::selector::{Labels, Refusal, Selector};
use crate::tier::{Action, Tier};

/// Most elements of each list in a policy (`MaxItems`).
const MOST: usize = 25;
/// Most characters of a rule's name (`MaxLength`).
const MOST_NAME: usize = 100;
/// The greatest priority (`Maximum`).
const MOST_PRIORITY: u16 = 1000;

/// What counts of a ClusterNetworkPolicy.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPolicy {
    pub name: String,
    /// Admin or Baseline.
    pub tier: Tier,
    /// Lower ones are asked first.
    pub priority: u16,
    /// Which pods it judges.
    namespaces: Selector,
    pods: Selector,
    /// By [`Direction::index`], in order.
    pub rules: [Vec<Rule>; 2],
    /// What was refused.
    pub problems: Vec<Problem>,
    /// Fields that are valid but match nothing yet.
    pub not_enforced: Vec<String>,
}

impl ClusterPolicy {
    /// Reads an object. Whatever of it is refused fails closed.
    pub fn parse(object: &ClusterNetworkPolicy) -> Self {
        let spec = &object.spec;
        let mut parser = Parser {
            name: object.metadata.name.clone().unwrap_or_default(),
            tier: Tier::Admin,
            usable: true,
            problems: Vec::new(),
            not_enforced: Vec::new(),
        };
        parser.tier = parser.tier(spec.tier.as_deref());
        let priority = parser.priority(spec.priority);
        let (namespaces, pods) = parser.subject(spec.subject.as_ref());
        let ingress = spec.ingress.iter().flatten().map(RawRule::from).collect();
        let egress = spec.egress.iter().flatten().map(RawRule::from).collect();
        let rules = [
            parser.rules(Direction::Ingress, ingress),
            parser.rules(Direction::Egress, egress),
        ];
        Self {
            name: parser.name,
            tier: parser.tier,
            priority,
            namespaces,
            pods,
            rules,
            problems: parser.problems,
            not_enforced: parser.not_enforced,
        }
    }

    /// Whether it judges a pod that is not on the host's network.
    pub fn selects(&self, of_namespace: &Labels, labels: &Labels) -> bool {
        self.namespaces.matches(of_namespace) && self.pods.matches(labels)
    }

    /// In which order it is asked.
    pub fn order(&self) -> (Tier, u16, &str) {
        (self.tier, self.priority, &self.name)
    }
}

/// A rule of either direction.
struct RawRule<'a> {
    name: Option<&'a str>,
    action: Option<&'a str>,
    peers: Option<Vec<peer::Raw<'a>>>,
    protocols: Option<&'a [weir_crd::Protocol]>,
    other: &'a Other,
}

impl<'a> From<&'a IngressRule> for RawRule<'a> {
    fn from(rule: &'a IngressRule) -> Self {
        let peers = rule.from.as_ref();
        Self {
            name: rule.name.as_deref(),
            action: rule.action.as_deref(),
            peers: peers.map(|list| list.iter().map(peer::Raw::from).collect()),
            protocols: rule.protocols.as_deref(),
            other: &rule.other,
        }
    }
}

impl<'a> From<&'a EgressRule> for RawRule<'a> {
    fn from(rule: &'a EgressRule) -> Self {
        let peers = rule.to.as_ref();
        Self {
            name: rule.name.as_deref(),
            action: rule.action.as_deref(),
            peers: peers.map(|list| list.iter().map(peer::Raw::from).collect()),
            protocols: rule.protocols.as_deref(),
            other: &rule.other,
        }
    }
}

struct Parser {
    name: String,
    tier: Tier,
    /// Nothing is wrong with the policy as such.
    usable: bool,
    problems: Vec<Problem>,
    not_enforced: Vec<String>,
}

impl Parser {
    fn problem(&mut self, path: String, reason: &str, cost: &str) {
        self.problems.push(Problem {
            object: format!("{} {}", ClusterNetworkPolicy::KIND, self.name),
            path,
            reason: format!("{reason}; {cost}"),
        });
    }

    /// Something is wrong with the policy as such.
    fn refuse(&mut self, path: impl Into<String>, reason: &str) {
        self.usable = false;
        let cost = "its Accept rules match nothing, its other rules deny everything to its subject";
        self.problem(path.into(), reason, cost);
    }

    fn tier(&mut self, text: Option<&str>) -> Tier {
        match text {
            Some("Admin") => return Tier::Admin,
            Some("Baseline") => return Tier::Baseline,
            Some(other) => self.refuse(
                "spec.tier",
                &format!("{other:?} is neither Admin nor Baseline"),
            ),
            None => self.refuse("spec.tier", "is missing"),
        }
        Tier::Admin
    }

    fn priority(&mut self, number: Option<i64>) -> u16 {
        let Some(number) = number else {
            self.refuse("spec.priority", "is missing");
            return 0;
        };
        let valid = number.clamp(0, MOST_PRIORITY.into());
        if valid != number {
            self.refuse(
                "spec.priority",
                &format!("{number} is not in 0-{MOST_PRIORITY}"),
            );
        }
        valid as u16
    }

    /// Selectors of (namespaces, pods), made of what is valid.
    fn subject(&mut self, subject: Option<&Subject>) -> (Selector, Selector) {
        let path = "spec.subject";
        let Some(subject) = subject else {
            self.refuse(path, "is missing");
            return Default::default();
        };
        if let Some((field, reason)) = unknown(&subject.other) {
            self.refuse(format!("{path}.{field}"), reason);
        }
        let everywhere = LabelSelector::default();
        let parts = match (&subject.namespaces, &subject.pods) {
            (None, None) => {
                self.refuse(path, "names neither namespaces nor pods");
                return Default::default();
            }
            (Some(_), Some(_)) => {
                self.refuse(path, "names both namespaces and pods");
                return Default::default();
            }
            (Some(namespaces), None) => vec![("namespaces", Some(namespaces))],
            (None, Some(pods)) => {
                if let Some((field, reason)) = unknown(&pods.other) {
                    self.refuse(format!("{path}.pods.{field}"), reason);
                }
                let namespaces = pods.namespace_selector.as_ref();
                vec![
                    (
                        "pods.namespaceSelector",
                        Some(namespaces.unwrap_or(&everywhere)),
                    ),
                    ("pods.podSelector", pods.pod_selector.as_ref()),
                ]
            }
        };
        let mut selectors = parts.into_iter().map(|(field, selector)| {
            let Some(selector) = selector else {
                self.refuse(format!("{path}.{field}"), "is missing");
                return Selector::default();
            };
            let (selector, refused) = Selector::parse(selector);
            for (below, reason) in refused {
                self.refuse(format!("{path}.{field}.{below}"), &reason);
            }
            selector
        });
        let namespaces = selectors.next().unwrap_or_default();
        (namespaces, selectors.next().unwrap_or_default())
    }

    fn rules(&mut self, direction: Direction, raw: Vec<RawRule<'_>>) -> Vec<Rule> {
        let rules = raw.into_iter().enumerate();
        rules
            .filter_map(|(i, rule)| self.rule(direction, i, &rule))
            .collect()
    }

    /// A rule as it is used: none for an Accept that is refused.
    fn rule(&mut self, direction: Direction, i: usize, raw: &RawRule<'_>) -> Option<Rule> {
        let path = format!("spec.{}[{i}]", direction.name());
        if raw
            .name
            .is_some_and(|name| name.chars().count() > MOST_NAME)
        {
            let reason = format!("has more than {MOST_NAME} characters");
            self.problem(format!("{path}.name"), &reason, "the rule stands");
        }
        let action = raw.action.and_then(Action::parse);
        let everything = (Action::Deny, None, RulePorts::everything());
        let (action, peers, ports) = match self.body(direction, &path, i, action, raw) {
            Ok((action, peers, ports)) if self.usable => (action, Some(peers), ports),
            Ok((Action::Accept, ..)) => return None,
            Ok(_) => everything,
            Err((field, reason)) => {
                let accepts = action == Some(Action::Accept);
                let cost = match accepts {
                    true => "the rule matches nothing, all other rules stand",
                    false => "the rule denies everything to its subject, all other rules stand",
                };
                self.problem(join(&path, &field), &reason, cost);
                if accepts {
                    return None;
                }
                everything
            }
        };
        let name = RuleName::cluster_rule(&ClusterRule {
            policy: &self.name,
            tier: self.tier,
            direction,
            path: &path,
            action,
            name: raw.name,
        });
        Some(Rule {
            name: Arc::new(name),
            action,
            peers,
            ports,
        })
    }

    /// What a rule says, if all of it is valid. The error is (field below the rule, reason).
    fn body(
        &mut self,
        direction: Direction,
        path: &str,
        i: usize,
        action: Option<Action>,
        raw: &RawRule<'_>,
    ) -> Result<(Action, Vec<Arc<Peer>>, RulePorts), Refusal> {
        if i >= MOST {
            return Err((String::new(), format!("stands after the {MOST}th rule")));
        }
        let Some(action) = action else {
            let text = raw.action.unwrap_or_default();
            let reason = format!("{text:?} is none of Accept, Deny and Pass");
            return Err(("action".to_owned(), reason));
        };
        if let Some((field, reason)) = unknown(raw.other) {
            return Err((field, reason.to_owned()));
        }
        let field = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let listed = raw.peers.as_deref().unwrap_or_default();
        check_count(field, listed.len())?;
        let mut peers = Vec::new();
        let mut only_pods = true;
        for (i, raw) in listed.iter().enumerate() {
            let below = |(inner, reason): Refusal| (join(&format!("{field}[{i}]"), &inner), reason);
            let found = peer::parse(raw, action).map_err(below)?;
            only_pods &= found.are_pods;
            if found.domain_names {
                self.not_enforced
                    .push(format!("{path}.{field}[{i}].domainNames"));
            }
            peers.extend(
                found
                    .kinds
                    .into_iter()
                    .map(|kind| Arc::new(Peer::new(kind))),
            );
        }
        let ports = match raw.protocols {
            None => RulePorts::everything(),
            Some(protocols) => port::parse(protocols, only_pods)?,
        };
        Ok((action, peers, ports))
    }
}

/// A path and a field below it, which may be empty.
fn join(path: &str, field: &str) -> String {
    match field {
        "" => path.to_owned(),
        field => format!("{path}.{field}"),
    }
}

/// The first field that this build does not know.
fn unknown(other: &Other) -> Option<(String, &'static str)> {
    let field = other.keys().next()?;
    Some((field.clone(), "is a field that this build does not know"))
}

fn check_count(field: &str, count: usize) -> Result<(), Refusal> {
    match count {
        0 => Err((field.to_owned(), "has no element".to_owned())),
        1..=MOST => Ok(()),
        _ => Err((field.to_owned(), format!("has more than {MOST} elements"))),
    }
}

/// What a `pods` peer selects. The error is (field below the peer, reason).
fn namespaced_pods(pods: &NamespacedPod) -> Result<PeerKind, Refusal> {
    if let Some((field, reason)) = unknown(&pods.other) {
        return Err((format!("pods.{field}"), reason.to_owned()));
    }
    let everywhere = LabelSelector::default();
    let namespaces = pods.namespace_selector.as_ref().unwrap_or(&everywhere);
    Ok(PeerKind::Pods {
        namespaces: Namespaces::Selected(required(Some(namespaces), "pods.namespaceSelector")?),
        pods: required(pods.pod_selector.as_ref(), "pods.podSelector")?,
    })
}

/// A selector that has to be there, and of which every part is valid.
fn required(selector: Option<&LabelSelector>, field: &str) -> Result<Selector, Refusal> {
    let Some(selector) = selector else {
        return Err((field.to_owned(), "is missing".to_owned()));
    };
    let (selector, refused) = Selector::parse(selector);
    match refused.into_iter().next() {
        None => Ok(selector),
        Some((below, reason)) => Err((format!("{field}.{below}"), reason)),
    }
}
