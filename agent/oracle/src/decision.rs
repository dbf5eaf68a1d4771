//! Answers: the verdict of each end, what decided it, and the way there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::party::{Family, Party};

/// Whether a flow passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It is dropped.
    Deny,
}

impl Verdict {
    /// Whether it is [`Verdict::Allow`].
    pub fn allowed(self) -> bool {
        self == Self::Allow
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Why an end says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A rule matches: allowed.
    Rule,
    /// Policies isolate the pod and none of their rules matches: denied.
    Isolated,
    /// No policy selects the pod in this direction: allowed.
    NotSelected,
    /// The end is a node, a hostNetwork pod or an address outside: allowed.
    NotSubject,
    /// It answers a connection that is allowed.
    Reply,
    /// A pod reaches its own address: allowed.
    #[serde(rename = "self")]
    Itself,
    /// A node reaches a pod that it runs: allowed.
    OwnNode,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule => "rule",
            Self::Isolated => "isolated",
            Self::NotSelected => "not-selected",
            Self::NotSubject => "not-subject",
            Self::Reply => "reply",
            Self::Itself => "self",
            Self::OwnNode => "own-node",
        })
    }
}

/// A rule, or what isolates a pod, by its place in the objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleRef {
    /// The object's kind, `NetworkPolicy`.
    pub kind: String,
    /// The object's namespace, where the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// The field, counted from zero, for example `spec.ingress[0]`.
    pub path: String,
}

impl RuleRef {
    pub(crate) fn network_policy(namespace: &str, name: &str, path: &str) -> Self {
        Self {
            kind: "NetworkPolicy".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            path: path.to_owned(),
        }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} {}", self.name, self.path)
    }
}

/// The verdict of one end: `D` of `weir policy test` (docs/cli.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whether this end lets the flow pass.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule, with [`Reason::Rule`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// The policies that isolate the pod, sorted, with [`Reason::Isolated`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<RuleRef>,
}

impl Decision {
    /// Allowed by something that is not a rule.
    pub(crate) fn allow(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Allow,
            reason,
            rule: None,
            isolated_by: Vec::new(),
        }
    }
}

/// Whether something matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It depends on an address that a pod or node does not have.
    Unknown,
}

/// One rule, as it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// Its place in the policy, for example `spec.ingress[0]`.
    pub path: String,
    /// Whether it matches.
    pub outcome: Match,
    /// What matched, or what did not, in words.
    pub why: String,
}

/// One policy that selects the pod, and its rules up to the first that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// The policy's namespace.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// `spec.podSelector`, as `kubectl get -l` writes it.
    pub selector: String,
    /// In the order of the list; empty if it has none.
    pub rules: Vec<RuleStep>,
}

/// One end: the decision, and how it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The result.
    pub decision: Decision,
    /// The policies that select the pod in this direction, up to the one that allows.
    pub steps: Vec<PolicyStep>,
    /// How many policies of the pod's namespace do not select it in this direction.
    pub other_policies: usize,
}

impl Report {
    pub(crate) fn allow(reason: Reason) -> Self {
        Self {
            decision: Decision::allow(reason),
            steps: Vec::new(),
            other_policies: 0,
        }
    }
}

/// The whole answer to a [`crate::Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Allowed if both ends allow.
    pub verdict: Verdict,
    /// At the source.
    pub egress: Report,
    /// At the destination.
    pub ingress: Report,
    /// The source, as it was resolved.
    pub from: Party,
    /// The destination, as it was resolved.
    pub to: Party,
    /// The family judged; none if neither end has an address.
    pub family: Option<Family>,
}
