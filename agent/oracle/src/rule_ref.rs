//! Names of rules.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a ClusterNetworkPolicy stands: before all NetworkPolicies or after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After NetworkPolicies, for pods that none isolates.
    Baseline,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a ClusterNetworkPolicy's rule does with traffic that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// It is allowed, whatever comes later.
    Accept,
    /// It is dropped, whatever comes later.
    Deny,
    /// The next tier decides.
    Pass,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A rule, or what isolates a pod, by its place in the objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleRef {
    /// The object's kind: `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// The object's namespace, where the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// Of a ClusterNetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What a ClusterNetworkPolicy's rule does; Deny if a refusal made it that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The field, counted from zero, for example `spec.ingress[0]`.
    pub path: String,
    /// The name that a ClusterNetworkPolicy gives its rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl RuleRef {
    pub(crate) fn network_policy(namespace: &str, name: &str, path: &str) -> Self {
        Self {
            kind: "NetworkPolicy".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            tier: None,
            action: None,
            path: path.to_owned(),
            rule: None,
        }
    }

    pub(crate) fn cluster_policy(
        name: &str,
        tier: Tier,
        action: Action,
        path: &str,
        rule: Option<&str>,
    ) -> Self {
        Self {
            kind: "ClusterNetworkPolicy".to_owned(),
            namespace: None,
            name: name.to_owned(),
            tier: Some(tier),
            action: Some(action),
            path: path.to_owned(),
            rule: rule.map(str::to_owned),
        }
    }
}

impl fmt::Display for RuleRef {
    /// `NetworkPolicy shop/db spec.ingress[0]`, or
    /// `Admin ClusterNetworkPolicy lock spec.ingress[0] "no-jobs"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tier) = self.tier {
            write!(f, "{tier} ")?;
        }
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} {}", self.name, self.path)?;
        match &self.rule {
            Some(rule) => write!(f, " {rule:?}"),
            None => Ok(()),
        }
    }
}
