//! Answers: the verdict of each end, what decided it, and the way there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::party::{Family, Party};
use crate::rule_ref::{Action, RuleRef, Tier};

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
    /// A rule matches: allowed, or denied by a ClusterNetworkPolicy's Deny.
    Rule,
    /// Policies isolate the pod and none of their rules matches: denied.
    Isolated,
    /// A ClusterNetworkPolicy's Pass rule matches and nothing after it decides: allowed.
    Pass,
    /// No policy decides: allowed.
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
            Self::Pass => "pass",
            Self::NotSelected => "not-selected",
            Self::NotSubject => "not-subject",
            Self::Reply => "reply",
            Self::Itself => "self",
            Self::OwnNode => "own-node",
        })
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
    /// The rule, with [`Reason::Rule`]; the last that passed the flow on, with [`Reason::Pass`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// The policies that isolate the pod, sorted, with [`Reason::Isolated`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<RuleRef>,
}

impl Decision {
    /// A rule says so.
    pub(crate) fn by_rule(verdict: Verdict, rule: RuleRef) -> Self {
        Self {
            verdict,
            reason: Reason::Rule,
            rule: Some(rule),
            isolated_by: Vec::new(),
        }
    }

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
    /// The name that a ClusterNetworkPolicy gives it.
    pub name: Option<String>,
    /// What a ClusterNetworkPolicy's rule does if it matches; a NetworkPolicy's allows.
    pub action: Option<Action>,
    /// Whether it matches.
    pub outcome: Match,
    /// What matched, or what did not, in words.
    pub why: String,
}

/// What kind of policy a step is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// It isolates the pod.
    NetworkPolicy {
        /// Its namespace.
        namespace: String,
    },
    /// The pod is its subject.
    ClusterNetworkPolicy {
        /// Where it stands.
        tier: Tier,
        /// Lower ones are asked first.
        priority: u16,
    },
}

/// One policy that judges the pod in this direction, and its rules up to the first that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// Its kind.
    pub kind: PolicyKind,
    /// The policy's name.
    pub name: String,
    /// `spec.podSelector` or `spec.subject`; selectors as `kubectl get -l` writes them.
    pub selector: String,
    /// In the order of the list; empty if it has none.
    pub rules: Vec<RuleStep>,
}

/// One end: the decision, and how it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The result.
    pub decision: Decision,
    /// The policies that judge the pod in this direction, in the order in which they are asked, up
    /// to the one that decides.
    pub steps: Vec<PolicyStep>,
    /// How many NetworkPolicies of the pod's namespace do not select it in this direction; 0 if
    /// none was asked.
    pub other_policies: usize,
    /// How many ClusterNetworkPolicies of the tiers that were asked do not have it as their
    /// subject, or have no rule for this direction.
    pub other_cluster_policies: usize,
}

impl Report {
    pub(crate) fn allow(reason: Reason) -> Self {
        Self {
            decision: Decision::allow(reason),
            steps: Vec::new(),
            other_policies: 0,
            other_cluster_policies: 0,
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
