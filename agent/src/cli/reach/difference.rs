//! What makes one world another, as events.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_policy::{Event, ObjectName};

use crate::cli::world::World;

/// Events that lead from the objects of `before` (none: from nothing) to those of `after`.
pub(super) fn events(before: Option<&World>, after: &World) -> Vec<Event> {
    let empty = World::default();
    let before = &before.unwrap_or(&empty).cluster;
    let after = &after.cluster;
    let mut events = Vec::new();
    between(
        (&before.namespaces, &after.namespaces),
        |o| &o.metadata,
        |o| Event::ApplyNamespace(Box::new(o.clone())),
        |name| Event::DeleteNamespace(name.name),
        &mut events,
    );
    between(
        (&before.nodes, &after.nodes),
        |o| &o.metadata,
        |o| Event::ApplyNode(Box::new(o.clone())),
        |name| Event::DeleteNode(name.name),
        &mut events,
    );
    between(
        (&before.policies, &after.policies),
        |o| &o.metadata,
        |o| Event::ApplyPolicy(Box::new(o.clone())),
        Event::DeletePolicy,
        &mut events,
    );
    between(
        (&before.cluster_policies, &after.cluster_policies),
        |o| &o.metadata,
        |o| Event::ApplyClusterPolicy(Box::new(o.clone())),
        |name| Event::DeleteClusterPolicy(name.name),
        &mut events,
    );
    between(
        (&before.pods, &after.pods),
        |o| &o.metadata,
        |o| Event::ApplyPod(Box::new(o.clone())),
        Event::DeletePod,
        &mut events,
    );
    events
}

/// The events of one kind of objects.
fn between<T: PartialEq>(
    (before, after): (&[T], &[T]),
    metadata: impl Fn(&T) -> &ObjectMeta,
    apply: impl Fn(&T) -> Event,
    delete: impl Fn(ObjectName) -> Event,
    events: &mut Vec<Event>,
) {
    let name = |object: &T| {
        let metadata = metadata(object);
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        ObjectName::new(namespace, metadata.name.clone().unwrap_or_default())
    };
    let mut gone: BTreeMap<ObjectName, &T> = before.iter().map(|o| (name(o), o)).collect();
    for object in after {
        if gone.remove(&name(object)) != Some(object) {
            events.push(apply(object));
        }
    }
    events.extend(gone.into_keys().map(delete));
}

#[cfg(test)]
mod tests {
    use weir_manifests::Manifests;

    use super::super::{Census, Compiled, Tables};
    use super::*;

    const OBJECTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {team: red}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: []}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: b, labels: {app: job}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}
";

    fn world(text: &str) -> World {
        let mut manifests = Manifests::default();
        manifests.add_file("x.yaml".as_ref(), text.as_bytes());
        manifests.imply_namespaces();
        World::of_manifests(manifests)
    }

    #[test]
    fn an_edited_world_is_the_one_that_is_compiled_from_nothing() {
        let edits = [
            ("team: red}}\n", "team: blue}}\n"),
            ("labels: {app: web}", "labels: {app: db}"),
            (
                "podSelector: {}, ingress",
                "podSelector: {matchLabels: {app: db}}, ingress",
            ),
            (
                "namespaceSelector: {matchLabels: {team: red}}",
                "podSelector: {matchLabels: {app: web}}",
            ),
            ("{name: p, namespace: a}", "{name: p, namespace: b}"),
            ("ip: 10.0.0.3", "ip: 10.0.0.9"),
        ];
        let before = world(OBJECTS);
        for (old, new) in edits {
            let after = world(&OBJECTS.replace(old, new));
            let census = Census::of(&[&before, &after]);
            let base = Compiled::new(&before, 0, &census);
            let mut ways = [
                base.edited((&before, &after), 1, &census),
                Compiled::new(&after, 1, &census),
            ];
            let mut tables = Tables::new();
            for from in 0..census.parties.len() {
                for to in 0..census.parties.len() {
                    for family in [0, 1] {
                        let [edited, anew] = ways.each_mut().map(|way| {
                            let (from, to) = (way.views[from], way.views[to]);
                            way.tables(&from, &to, family, &mut tables)
                        });
                        assert_eq!(edited, anew, "{new}: {from} -> {to}");
                    }
                }
            }
        }
    }
}
