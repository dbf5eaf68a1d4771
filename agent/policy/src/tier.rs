//! In which order rules are asked, and what they do.

/// The tiers of rules, in the order in which they are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Tier {
    /// ClusterNetworkPolicies that nothing overrides.
    Admin,
    /// NetworkPolicies: whatever of an isolated pod's traffic gets here is decided here.
    NetworkPolicy,
    /// ClusterNetworkPolicies for what no NetworkPolicy isolates.
    Baseline,
}

impl Tier {
    /// In the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Admin, Self::NetworkPolicy, Self::Baseline];

    /// As `spec.tier` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Action {
    /// Allowed, for good.
    Accept,
    /// Denied, for good.
    Deny,
    /// No further rule of this tier is asked.
    Pass,
}

impl Action {
    /// As `action` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }

    /// From the text of `action`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Accept, Self::Deny, Self::Pass]
            .into_iter()
            .find(|action| action.name() == text)
    }
}
