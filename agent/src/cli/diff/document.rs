//! A diff for programs (docs/cli.md).

use serde_json::{Value, json};

use super::Diff;
use super::change::{Change, Effect, Stretch, Turn};
use crate::cli::reach::{Cause, Causes};

pub(super) fn document(diff: &Diff<'_>) -> Value {
    let changes = &diff.changes;
    let turned = |turn| -> usize {
        let of_turn = changes.all.iter().filter(|c| c.turn == turn);
        of_turn.map(|c| c.pairs).sum()
    };
    json!({
        "changes": changes.all.iter().map(|c| change(diff, c)).collect::<Vec<_>>(),
        "summary": {
            "pairs": changes.compared,
            "changed": changes.changed,
            "denied": turned(Turn::Denied),
            "allowed": turned(Turn::Allowed),
            "policiesBefore": diff.policies[0],
            "policiesAfter": diff.policies[1],
            "podsGone": diff.census.only_in.first(),
            "podsNew": diff.census.only_in.get(1),
            "podsWithoutAddress": diff.census.without_address,
        },
    })
}

fn change(diff: &Diff<'_>, change: &Change) -> Value {
    let units = |units: &[usize]| -> Vec<Value> {
        let of = |unit: &usize| {
            let unit = &diff.units[*unit];
            let members = unit.members.iter().map(|m| diff.census.parties[*m].label());
            json!({"label": unit.label, "members": members.collect::<Vec<_>>()})
        };
        units.iter().map(of).collect()
    };
    json!({
        "change": match change.turn {
            Turn::Denied => "denied",
            Turn::Allowed => "allowed",
        },
        "from": units(&change.from),
        "to": units(&change.to),
        "pairs": change.pairs,
        "flows": change.effects.iter().flat_map(|e| flows(diff, e)).collect::<Vec<_>>(),
    })
}

fn flows<'a>(
    diff: &'a Diff<'_>,
    (family, stretches): &'a Effect,
) -> impl Iterator<Item = Value> + 'a {
    stretches.iter().map(move |stretch| {
        let Stretch {
            ports,
            after,
            before,
        } = stretch;
        let mut flow = json!({
            "ports": ports.ranges(),
            "before": before.as_ref().map(|causes| ends(diff, causes)),
            "after": ends(diff, after),
        });
        if let Some(family) = family {
            flow["family"] = json!(["IPv4", "IPv6"][*family]);
        }
        flow
    })
}

fn ends(diff: &Diff<'_>, causes: &Causes) -> Value {
    let end = |cause: &Cause| {
        json!({
            "verdict": if cause.allow { "allow" } else { "deny" },
            "rule": cause.rule.map(|rule| diff.tables.rule(rule)),
        })
    };
    json!({"egress": end(&causes.egress), "ingress": end(&causes.ingress)})
}
