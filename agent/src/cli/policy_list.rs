//! `weir policy list`.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;
use weir_oracle::Evaluator;

use super::args::PolicyListArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::table::Table;
use super::world::World;

/// A policy, for the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: &'static str,
    namespace: String,
    name: String,
    /// As `kubectl get -l` writes it; `{}` selects every pod.
    pod_selector: String,
    policy_types: Vec<String>,
    ingress_rules: usize,
    egress_rules: usize,
    /// What the API server would refuse; such parts allow nothing.
    problems: Vec<String>,
}

pub(super) fn run(args: &PolicyListArgs, colors: Colors) -> anyhow::Result<Done> {
    let world = World::load(&args.manifests, &args.socket.socket)?;
    let messages = Evaluator::new(&world.cluster).messages();
    let mut rows: Vec<Row> = world.cluster.policies.iter().map(row).collect();
    rows.retain(|row| args.namespace.includes(&row.namespace));
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for row in &mut rows {
        let object = format!("NetworkPolicy {}/{}", row.namespace, row.name);
        let own = messages.iter().filter(|m| m.object == object);
        row.problems = own.map(|m| format!("{}: {}", m.path, m.reason)).collect();
    }
    let mut done = if args.output.is_json() {
        Done::ok(json(&rows)?)
    } else {
        Done::ok(text(&rows, colors))
    };
    world.complain(&args.manifests, true, &mut done);
    Ok(done)
}

fn text(rows: &[Row], colors: Colors) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "POD-SELECTOR",
        "TYPES",
        "INGRESS",
        "EGRESS",
        "PROBLEMS",
    ]);
    for row in rows {
        let problems = row.problems.join("; ");
        table.row([
            row.namespace.clone(),
            row.name.clone(),
            row.pod_selector.clone(),
            row.policy_types.join(","),
            row.ingress_rules.to_string(),
            row.egress_rules.to_string(),
            if problems.is_empty() {
                problems
            } else {
                colors.bad(&problems)
            },
        ]);
    }
    if table.is_empty() {
        return "no network policies\n".to_owned();
    }
    table.render()
}

fn row(policy: &NetworkPolicy) -> Row {
    let metadata = &policy.metadata;
    let spec = policy.spec.clone().unwrap_or_default();
    let count = |n: Option<usize>| n.unwrap_or(0);
    let (ingress, egress) = (spec.ingress.map(|r| r.len()), spec.egress.map(|r| r.len()));
    let given = spec.policy_types.filter(|types| !types.is_empty());
    // What the API server fills in.
    let policy_types = given.unwrap_or_else(|| {
        let mut types = vec!["Ingress".to_owned()];
        types.extend((count(egress) > 0).then(|| "Egress".to_owned()));
        types
    });
    Row {
        kind: "NetworkPolicy",
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        pod_selector: selector(&spec.pod_selector.unwrap_or_default()),
        policy_types,
        ingress_rules: count(ingress),
        egress_rules: count(egress),
        problems: Vec::new(),
    }
}

fn selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let mut parts: Vec<String> = labels.map(|(k, v)| format!("{k}={v}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default().join(",");
        let key = &expression.key;
        parts.push(match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other} ({values})"),
        });
    }
    if parts.is_empty() {
        "{}".to_owned()
    } else {
        parts.join(",")
    }
}
