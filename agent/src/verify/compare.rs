//! One flow at one endpoint: what the maps say, and what the objects say.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};
use weir_abi::policy::{RuleId, RuleVerdict};
use weir_oracle::{Decision, End, Evaluator, Family, Query, QueryError, Reason};
use weir_policy::Direction;

use super::probes::Probe;
use super::tables::Tables;
use crate::rule_words::rule_words;

/// Most ports that are named in one line.
const MOST_PORTS: usize = 3;

/// Flows of one endpoint with one address on which the kernel's maps and the objects disagree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disagreement {
    /// `shop/db`.
    pub endpoint: String,
    /// The endpoint's address.
    pub address: IpAddr,
    /// Its slot.
    pub slot: u32,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The other end.
    pub peer: IpAddr,
    /// Who that is: `pod shop/web`.
    pub peer_is: String,
    /// Those looked at that differ so: `80/TCP`, `ICMP`.
    pub ports: Vec<String>,
    /// What the objects say, and why.
    pub objects: String,
    /// What the maps say, and why.
    pub kernel: String,
    /// The endpoint's group and the peer's class in the maps.
    pub group: u32,
    /// See `group`.
    pub class: u32,
    /// How many endpoints and how many addresses there are that neither the maps nor the objects
    /// tell from these, these included.
    pub endpoints_alike: usize,
    /// See `endpoints_alike`.
    pub peers_alike: usize,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.direction == "ingress" {
            "from"
        } else {
            "to"
        };
        let shown = &self.ports[..self.ports.len().min(MOST_PORTS)];
        let more = match self.ports.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more ports"),
        };
        write!(
            f,
            "{} ({}), {} {way} {} ({}), {}{more}: objects say {}; the kernel says {}",
            self.endpoint,
            self.address,
            self.direction,
            self.peer,
            self.peer_is,
            shown.join(", "),
            self.objects,
            self.kernel
        )
    }
}

/// What an endpoint has to do with an address.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub slot: u32,
    /// The endpoint: its Pod, or its address where no Pod is behind it.
    pub end: End,
    pub direction: Direction,
    pub peer: IpAddr,
}

/// How a comparison came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Agree,
    /// (objects, kernel), in words.
    Disagree(String, String),
    /// The programs let it pass before they look at a table, or the objects do not tell.
    NotJudged,
}

/// Compares verdict, reason and the rule's name.
pub(super) fn compare(
    pair: &Pair,
    probe: Probe,
    tables: &Tables,
    evaluator: &Evaluator<'_>,
) -> Outcome {
    let peer = End::Address(pair.peer);
    let (from, to) = match pair.direction {
        Direction::Ingress => (peer, pair.end.clone()),
        Direction::Egress => (pair.end.clone(), peer),
    };
    let query = Query {
        from,
        to,
        family: Some(Family::of(pair.peer)),
        protocol: probe.protocol(),
        port: probe.number(),
        reply: false,
    };
    let decision = match evaluator.evaluate(&query) {
        Ok(answer) => match pair.direction {
            Direction::Ingress => answer.ingress.decision,
            Direction::Egress => answer.egress.decision,
        },
        Err(
            QueryError::UnknownPod { .. }
            | QueryError::EndedPod { .. }
            | QueryError::LostAddress { .. }
            | QueryError::UnknownNode(_)
            | QueryError::Port(_)
            | QueryError::Family(_)
            | QueryError::NeedsAddress { .. }
            | QueryError::NeedsNode { .. }
            | QueryError::Service { .. },
        ) => return Outcome::NotJudged,
    };
    let group = tables.group(pair.slot, pair.direction);
    let verdict = tables.verdict(group, tables.class(pair.peer), probe.key());
    judge(&decision, verdict, pair.direction, tables)
}

fn judge(
    decision: &Decision,
    verdict: RuleVerdict,
    direction: Direction,
    tables: &Tables,
) -> Outcome {
    let name = tables.rule(verdict.rule());
    let same = match decision.reason {
        // The programs answer these before they look at policy.
        Reason::Itself | Reason::OwnNode | Reason::Reply => return Outcome::NotJudged,
        Reason::NotSelected | Reason::NotSubject => verdict == RuleVerdict::NOT_SELECTED,
        Reason::Rule | Reason::Pass => name.as_ref().is_some_and(|name| {
            let wanted = json!(decision.rule);
            holds(name, &wanted) && name["direction"] == direction.name()
        }),
        Reason::Isolated => name.as_ref().is_some_and(|name| {
            is_isolation(name, &json!(decision.isolated_by))
                && name["direction"] == direction.name()
        }),
    };
    if same && verdict.allowed() == decision.verdict.allowed() {
        return Outcome::Agree;
    }
    Outcome::Disagree(wanted_words(decision), kernel_words(verdict, name.as_ref()))
}

/// Whether `name` has all that `wanted` has.
fn holds(name: &Value, wanted: &Value) -> bool {
    let mut fields = wanted.as_object().into_iter().flatten();
    fields.all(|(key, value)| name.get(key) == Some(value))
}

/// Whether `name` lists these policies, or as many of them as fitted and the number of the rest.
fn is_isolation(name: &Value, wanted: &Value) -> bool {
    let (Some(listed), Some(wanted)) = (name["isolatedBy"].as_array(), wanted.as_array()) else {
        return false;
    };
    let more = name.get("more").map_or(Some(0), Value::as_u64);
    more == Some(wanted.len().saturating_sub(listed.len()) as u64)
        && listed.len() <= wanted.len()
        && listed.iter().zip(wanted).all(|(a, b)| a == b)
}

fn wanted_words(decision: &Decision) -> String {
    let why = match decision.reason {
        Reason::Rule | Reason::Pass => rule_words(&json!(decision.rule)),
        Reason::Isolated => rule_words(&json!({"isolatedBy": decision.isolated_by})),
        _ => None,
    };
    let why = why.unwrap_or_else(|| match decision.reason {
        Reason::NotSelected | Reason::NotSubject => "no policy".to_owned(),
        reason => reason.to_string(),
    });
    format!("{} ({why})", decision.verdict)
}

fn kernel_words(verdict: RuleVerdict, name: Option<&Value>) -> String {
    let word = if verdict.allowed() { "allow" } else { "deny" };
    let why = name
        .and_then(rule_words)
        .unwrap_or_else(|| match verdict.rule() {
            RuleId::NO_ROW => "no row".to_owned(),
            RuleId::NOT_SELECTED => "no policy".to_owned(),
            RuleId(id) => format!("rule {id}, which has no name"),
        });
    format!("{word} ({why})")
}

#[cfg(test)]
mod tests {
    use weir_abi::policy::{RuleId, RuleVerdict};

    use super::super::tables::Entry;
    use super::*;

    fn decision(value: Value) -> Decision {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn verdict_reason_and_name_must_all_be_the_same() {
        let rule = |path: &str, direction: &str| json!({"kind": "NetworkPolicy", "namespace": "a", "name": "p", "direction": direction, "path": path});
        let policy = |name: &str| json!({"kind": "NetworkPolicy", "namespace": "a", "name": name, "path": "spec.podSelector"});
        let isolation = |names: &[&str], more: Option<u64>| {
            let list: Vec<Value> = names.iter().map(|n| policy(n)).collect();
            let mut value = json!({"isolatedBy": list, "direction": "ingress"});
            if let Some(more) = more {
                value["more"] = json!(more);
            }
            value
        };
        let entries = [
            (64, rule("spec.ingress[0]", "ingress")),
            (65, rule("spec.ingress[1]", "ingress")),
            (66, rule("spec.ingress[0]", "egress")),
            (67, isolation(&["x", "y"], None)),
            (68, isolation(&["x"], Some(1))),
            (69, isolation(&["x"], None)),
        ];
        let entries = entries.map(|(id, value)| Entry::Rule(RuleId(id), value.to_string()));
        let tables: Tables = entries.into_iter().collect();
        let by_rule = decision(json!({"verdict": "allow", "reason": "rule", "rule":
            {"kind": "NetworkPolicy", "namespace": "a", "name": "p", "path": "spec.ingress[0]"}}));
        let isolated = decision(json!({"verdict": "deny", "reason": "isolated",
            "isolatedBy": [policy("x"), policy("y")]}));
        let open = decision(json!({"verdict": "allow", "reason": "not-selected"}));
        let (allow, deny) = (
            |id| RuleVerdict::allow(RuleId(id)),
            |id| RuleVerdict::deny(RuleId(id)),
        );
        for (decision, verdict, agree) in [
            (&by_rule, allow(64), true),
            (&by_rule, allow(65), false),
            (&by_rule, allow(66), false),
            (&by_rule, allow(70), false),
            (&by_rule, deny(64), false),
            (&by_rule, RuleVerdict::NOT_SELECTED, false),
            (&isolated, deny(67), true),
            (&isolated, deny(68), true),
            (&isolated, deny(69), false),
            (&isolated, deny(64), false),
            (&isolated, RuleVerdict::default(), false),
            (&open, RuleVerdict::NOT_SELECTED, true),
            (&open, allow(64), false),
        ] {
            let outcome = judge(decision, verdict, Direction::Ingress, &tables);
            assert_eq!(
                outcome == Outcome::Agree,
                agree,
                "{decision:?} {verdict:?} {outcome:?}"
            );
        }
        let itself = decision(json!({"verdict": "allow", "reason": "self"}));
        let outcome = judge(&itself, deny(64), Direction::Ingress, &tables);
        assert_eq!(outcome, Outcome::NotJudged);
        assert_eq!(
            judge(
                &isolated,
                RuleVerdict::default(),
                Direction::Ingress,
                &tables
            ),
            Outcome::Disagree("deny (isolated by a/x, a/y)".into(), "deny (no row)".into())
        );
    }
}
