//! The order in which policies are asked: the Admin tier, NetworkPolicies, the Baseline tier.

use crate::cluster::Evaluator;
use crate::cluster_policy::{ClusterPolicy, ClusterRule};
use crate::decision::{Decision, Match, PolicyKind, PolicyStep, Reason, Report, RuleStep, Verdict};
use crate::matching::{Direction, Flow};
use crate::party::QueryError;
use crate::pod::PodInfo;
use crate::policy::{Policy, Rule};
use crate::rule_ref::{Action, RuleRef, Tier};
use crate::selector::Labels;

/// One end of a flow that policies judge.
struct Case<'a> {
    flow: &'a Flow,
    direction: Direction,
    pod: &'a PodInfo,
}

impl Case<'_> {
    fn needs_address(&self, rule: &RuleRef) -> QueryError {
        let peer = match self.direction {
            Direction::Egress => &self.flow.to,
            Direction::Ingress => &self.flow.from,
        };
        QueryError::NeedsAddress {
            party: peer.to_string(),
            rule: rule.to_string(),
        }
    }
}

/// The way to a decision.
#[derive(Default)]
struct Trail {
    steps: Vec<PolicyStep>,
    other_policies: usize,
    other_cluster_policies: usize,
}

impl Evaluator<'_> {
    pub(crate) fn judge_by_policies(
        &self,
        flow: &Flow,
        direction: Direction,
        pod: &PodInfo,
    ) -> Result<Report, QueryError> {
        let case = Case {
            flow,
            direction,
            pod,
        };
        let mut trail = Trail::default();
        let decision = self.ask_tier(&case, Tier::Admin, None, &mut trail)?;
        Ok(Report {
            decision,
            steps: trail.steps,
            other_policies: trail.other_policies,
            other_cluster_policies: trail.other_cluster_policies,
        })
    }

    /// The first rule of the tier that matches decides. `passed` is the last rule so far that passed
    /// the flow on.
    fn ask_tier(
        &self,
        case: &Case<'_>,
        tier: Tier,
        passed: Option<RuleRef>,
        trail: &mut Trail,
    ) -> Result<Decision, QueryError> {
        // Rules of which it is not known whether they match, before the one that does.
        let mut doubtful: Vec<(Action, RuleRef)> = Vec::new();
        let mut decided: Option<(Action, RuleRef)> = None;
        let of_tier = self.cluster_policies.iter().filter(|p| p.tier == tier);
        let with_rules = of_tier.map(|policy| (policy, self.rules_for(case, policy)));
        let (asked, others): (Vec<_>, Vec<_>) =
            with_rules.partition(|(_, rules)| !rules.is_empty());
        trail.other_cluster_policies += others.len();
        for (policy, rules) in asked {
            if decided.is_some() {
                break;
            }
            let mut step = cluster_step(policy);
            for rule in rules {
                let check = self.check_cluster_rule(case.flow, case.direction, rule);
                let name = rule.name.as_deref();
                let found =
                    RuleRef::cluster_policy(&policy.name, tier, rule.action, &rule.path, name);
                step.rules.push(RuleStep {
                    path: rule.path.clone(),
                    name: rule.name.clone(),
                    action: Some(rule.action),
                    outcome: check.outcome,
                    why: check.why,
                });
                match check.outcome {
                    Match::No => {}
                    Match::Unknown => doubtful.push((rule.action, found)),
                    Match::Yes => {
                        decided = Some((rule.action, found));
                        break;
                    }
                }
            }
            trail.steps.push(step);
        }
        let decision = match decided {
            Some((Action::Accept, rule)) => Decision::by_rule(Verdict::Allow, rule),
            Some((Action::Deny, rule)) => Decision::by_rule(Verdict::Deny, rule),
            Some((Action::Pass, rule)) => self.ask_after(case, tier, Some(rule), trail)?,
            None => self.ask_after(case, tier, passed, trail)?,
        };
        // What if a doubtful rule matched?
        for (action, rule) in doubtful {
            let verdict = match action {
                Action::Accept => Verdict::Allow,
                Action::Deny => Verdict::Deny,
                Action::Pass => {
                    let passed = Some(rule.clone());
                    let other = self.ask_after(case, tier, passed, &mut Trail::default())?;
                    other.verdict
                }
            };
            if verdict != decision.verdict {
                return Err(case.needs_address(&rule));
            }
        }
        Ok(decision)
    }

    /// What comes after a tier that does not decide.
    fn ask_after(
        &self,
        case: &Case<'_>,
        tier: Tier,
        passed: Option<RuleRef>,
        trail: &mut Trail,
    ) -> Result<Decision, QueryError> {
        match tier {
            Tier::Admin => self.ask_network_policies(case, passed, trail),
            Tier::Baseline => Ok(match passed {
                Some(rule) => Decision {
                    rule: Some(rule),
                    ..Decision::allow(Reason::Pass)
                },
                None => Decision::allow(Reason::NotSelected),
            }),
        }
    }

    /// The rules of a policy for this end; none where the pod is not its subject.
    fn rules_for<'a>(&self, case: &Case<'_>, policy: &'a ClusterPolicy) -> &'a [ClusterRule] {
        let empty = Labels::new();
        let of_namespace = self.namespace_labels(&case.pod.namespace);
        let of_namespace = of_namespace.unwrap_or(&empty);
        let is_subject = policy.subject.selects(of_namespace, &case.pod.labels);
        match (is_subject, case.direction) {
            (false, _) => &[],
            (true, Direction::Ingress) => &policy.ingress,
            (true, Direction::Egress) => &policy.egress,
        }
    }

    /// If any isolates the pod, they decide.
    fn ask_network_policies(
        &self,
        case: &Case<'_>,
        passed: Option<RuleRef>,
        trail: &mut Trail,
    ) -> Result<Decision, QueryError> {
        let in_namespace = self.policies.get(&case.pod.namespace);
        let in_namespace = in_namespace.map(Vec::as_slice).unwrap_or_default();
        let mut isolating: Vec<(&Policy, &[Rule])> = Vec::new();
        for policy in in_namespace {
            let rules = match case.direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            if let Some(rules) = rules
                && policy.selector.matches(&case.pod.labels)
            {
                isolating.push((policy, rules));
            }
        }
        trail.other_policies = in_namespace.len() - isolating.len();
        if isolating.is_empty() {
            return self.ask_tier(case, Tier::Baseline, passed, trail);
        }

        let mut hangs_on: Option<RuleRef> = None;
        for (policy, rules) in &isolating {
            let mut step = step(policy);
            for rule in *rules {
                let check = self.check_rule(case.flow, case.direction, policy, rule);
                let outcome = check.outcome;
                step.rules.push(RuleStep {
                    path: rule.path.clone(),
                    name: None,
                    action: None,
                    outcome,
                    why: check.why,
                });
                let name = RuleRef::network_policy(&policy.namespace, &policy.name, &rule.path);
                match outcome {
                    Match::No => {}
                    Match::Unknown => {
                        hangs_on.get_or_insert(name);
                    }
                    Match::Yes => {
                        trail.steps.push(step);
                        return Ok(Decision::by_rule(Verdict::Allow, name));
                    }
                }
            }
            trail.steps.push(step);
        }
        if let Some(rule) = hangs_on {
            return Err(case.needs_address(&rule));
        }
        let isolated_by = isolating
            .iter()
            .map(|(p, _)| RuleRef::network_policy(&p.namespace, &p.name, "spec.podSelector"));
        Ok(Decision {
            verdict: Verdict::Deny,
            reason: Reason::Isolated,
            rule: None,
            isolated_by: isolated_by.collect(),
        })
    }
}

fn step(policy: &Policy) -> PolicyStep {
    PolicyStep {
        kind: PolicyKind::NetworkPolicy {
            namespace: policy.namespace.clone(),
        },
        name: policy.name.clone(),
        selector: policy.selector.to_string(),
        rules: Vec::new(),
    }
}

fn cluster_step(policy: &ClusterPolicy) -> PolicyStep {
    PolicyStep {
        kind: PolicyKind::ClusterNetworkPolicy {
            tier: policy.tier,
            priority: policy.priority,
        },
        name: policy.name.clone(),
        selector: policy.subject.to_string(),
        rules: Vec::new(),
    }
}
