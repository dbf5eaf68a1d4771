//! `weir policy list`.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;
use weir_api::policy::PolicyCondition;
use weir_crd::{ClusterNetworkPolicy, Subject};
use weir_oracle::Evaluator;
use weir_policy::ConditionType;

use super::args::PolicyListArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::table::Table;
use super::world::World;
use crate::compile;

/// A NetworkPolicy, for the list.
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

/// A ClusterNetworkPolicy, for the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterRow {
    kind: &'static str,
    name: String,
    tier: String,
    priority: u16,
    subject: String,
    ingress_rules: usize,
    egress_rules: usize,
    conditions: Vec<PolicyCondition>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyRow<'a> {
    Network(&'a Row),
    Cluster(&'a ClusterRow),
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
    let mut cluster: Vec<ClusterRow> = Vec::new();
    // They are in no namespace.
    if args.namespace.namespace.is_none() {
        cluster.extend(world.cluster.cluster_policies.iter().map(cluster_row));
    }
    // As they are asked: `Admin` comes before `Baseline`.
    cluster.sort_by(|a, b| (&a.tier, a.priority, &a.name).cmp(&(&b.tier, b.priority, &b.name)));
    let mut done = if args.output.is_json() {
        let networks = rows.iter().map(AnyRow::Network);
        let all: Vec<AnyRow<'_>> = networks
            .chain(cluster.iter().map(AnyRow::Cluster))
            .collect();
        Done::ok(json(&all)?)
    } else {
        Done::ok(text(&rows, &cluster, colors))
    };
    world.complain(&args.manifests, true, &mut done);
    Ok(done)
}

fn text(rows: &[Row], cluster: &[ClusterRow], colors: Colors) -> String {
    let tables = [network_table(rows, colors), cluster_table(cluster, colors)];
    let tables: Vec<String> = tables
        .iter()
        .filter(|table| !table.is_empty())
        .map(Table::render)
        .collect();
    if tables.is_empty() {
        return "no network policies\n".to_owned();
    }
    tables.join("\n")
}

fn network_table(rows: &[Row], colors: Colors) -> Table {
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
    table
}

fn cluster_table(rows: &[ClusterRow], colors: Colors) -> Table {
    let mut table = Table::new(&[
        "TIER",
        "PRIORITY",
        "NAME",
        "SUBJECT",
        "INGRESS",
        "EGRESS",
        "ACCEPTED",
        "PARTIALLY-SUPPORTED",
        "PROBLEMS",
    ]);
    for row in rows {
        let status = |kind: ConditionType, good: &str| {
            let found = row.conditions.iter().find(|c| c.kind == kind.name());
            let status = found.map(|c| c.status.as_str()).unwrap_or_default();
            colors.by(status == good, status)
        };
        let messages = row.conditions.iter().map(|c| c.message.replace('\n', "; "));
        let messages: Vec<String> = messages.filter(|message| !message.is_empty()).collect();
        let problems = messages.join("; ");
        table.row([
            row.tier.clone(),
            row.priority.to_string(),
            row.name.clone(),
            row.subject.clone(),
            row.ingress_rules.to_string(),
            row.egress_rules.to_string(),
            status(ConditionType::Accepted, "True"),
            status(ConditionType::PartiallySupported, "False"),
            if problems.is_empty() {
                problems
            } else {
                colors.bad(&problems)
            },
        ]);
    }
    table
}

fn cluster_row(policy: &ClusterNetworkPolicy) -> ClusterRow {
    let info = compile::policy::info(policy, std::iter::empty());
    let count = |n: Option<usize>| n.unwrap_or(0);
    ClusterRow {
        kind: ClusterNetworkPolicy::KIND,
        name: info.name,
        tier: info.tier.unwrap_or_default(),
        priority: info.priority.unwrap_or_default(),
        subject: subject(policy.spec.subject.as_ref()),
        ingress_rules: count(policy.spec.ingress.as_ref().map(Vec::len)),
        egress_rules: count(policy.spec.egress.as_ref().map(Vec::len)),
        conditions: info.conditions,
    }
}

/// As it is written; what is missing is not shown.
fn subject(subject: Option<&Subject>) -> String {
    let subject = subject.cloned().unwrap_or_default();
    let mut parts = Vec::new();
    parts.extend(
        subject
            .namespaces
            .map(|s| format!("namespaces {}", selector(&s))),
    );
    parts.extend(subject.pods.map(|pods| {
        let of_namespace = pods.namespace_selector.unwrap_or_default();
        let of_pod = pods.pod_selector.unwrap_or_default();
        format!(
            "pods {} in namespaces {}",
            selector(&of_pod),
            selector(&of_namespace)
        )
    }));
    parts.join(", ")
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
