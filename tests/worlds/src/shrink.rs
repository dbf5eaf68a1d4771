//! The least part of a world of which something still holds.

use serde_json::Value;

use crate::world::World;

/// What nothing stands without, or what would become another thing if it went.
const KEPT: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "uid",
    "spec",
    "subject",
    "key",
    "operator",
    "cidr",
    "tier",
    "priority",
    "action",
    "ip",
    "nodeName",
];

/// Takes away, greedily, objects and then parts of objects (rules, peers, ports, labels, …) while
/// `fails` still holds of what is left. Of the result no single part can be taken away any more.
pub fn shrink(world: &World, fails: impl Fn(&World) -> bool) -> World {
    let mut least = world.clone();
    loop {
        let objects = without_objects(&mut least, &fails);
        let parts = without_parts(&mut least, &fails);
        if !objects && !parts {
            return least;
        }
    }
}

/// Takes away what can be; whether there was anything.
fn without_objects(world: &mut World, fails: &impl Fn(&World) -> bool) -> bool {
    let mut shrunk = false;
    let mut attempt = |world: &mut World, remove: &dyn Fn(&mut World)| {
        let mut next = world.clone();
        remove(&mut next);
        if next != *world && fails(&next) {
            *world = next;
            shrunk = true;
        }
    };
    for key in keys(&world.policies) {
        attempt(world, &|world| drop(world.policies.remove(&key)));
    }
    for key in keys(&world.cluster_policies) {
        attempt(world, &|world| drop(world.cluster_policies.remove(&key)));
    }
    for slot in keys(&world.endpoints) {
        // With its pod, else alone.
        attempt(world, &|world| {
            let endpoint = world.endpoints.remove(&slot);
            if let Some(pod) = endpoint.and_then(|endpoint| endpoint.pod) {
                world.pods.remove(&(pod.name.namespace, pod.name.name));
            }
        });
        attempt(world, &|world| drop(world.endpoints.remove(&slot)));
    }
    for key in keys(&world.pods) {
        attempt(world, &|world| drop(world.pods.remove(&key)));
    }
    for key in keys(&world.namespaces) {
        attempt(world, &|world| drop(world.namespaces.remove(&key)));
    }
    for key in keys(&world.nodes) {
        attempt(world, &|world| drop(world.nodes.remove(&key)));
    }
    shrunk
}

fn keys<K: Clone, V>(map: &std::collections::BTreeMap<K, V>) -> Vec<K> {
    map.keys().cloned().collect()
}

/// The objects of a world, in an order that does not change.
fn objects(world: &mut World) -> Vec<&mut Value> {
    let policies = world.policies.values_mut();
    let of_cluster = world.cluster_policies.values_mut();
    let pods = world.pods.values_mut();
    let namespaces = world.namespaces.values_mut();
    let nodes = world.nodes.values_mut();
    policies
        .chain(of_cluster)
        .chain(pods)
        .chain(namespaces)
        .chain(nodes)
        .collect()
}

fn without_parts(world: &mut World, fails: &impl Fn(&World) -> bool) -> bool {
    let mut shrunk = false;
    for object in 0..objects(world).len() {
        let mut part = 0;
        loop {
            let mut next = world.clone();
            let removed = {
                let mut all = objects(&mut next);
                remove_nth(all[object], &mut part.clone())
            };
            if !removed {
                break;
            }
            if fails(&next) {
                // What followed has its place now.
                *world = next;
                shrunk = true;
            } else {
                part += 1;
            }
        }
    }
    shrunk
}

/// Removes the `n`th part of a value, whole ones before what is in them; false if it has not so
/// many. An element of a list is a part, and a field that is not [`KEPT`].
fn remove_nth(value: &mut Value, n: &mut usize) -> bool {
    match value {
        Value::Array(list) => {
            for i in 0..list.len() {
                if *n == 0 {
                    list.remove(i);
                    return true;
                }
                *n -= 1;
                if remove_nth(&mut list[i], n) {
                    return true;
                }
            }
        }
        Value::Object(map) => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                if !KEPT.contains(&name.as_str()) {
                    if *n == 0 {
                        map.remove(&name);
                        return true;
                    }
                    *n -= 1;
                }
                if map.get_mut(&name).is_some_and(|inner| remove_nth(inner, n)) {
                    return true;
                }
            }
        }
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Coverage;
    use crate::rng::Rng;

    fn contains(value: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
        test(value)
            || match value {
                Value::Array(list) => list.iter().any(|inner| contains(inner, test)),
                Value::Object(map) => map.values().any(|inner| contains(inner, test)),
                _ => false,
            }
    }

    /// An except in some policy, and a web pod in some namespace that has an object.
    fn fails(world: &World) -> bool {
        let has_except = |value: &Value| {
            let except = value.get("except").and_then(Value::as_array);
            except.is_some_and(|list| !list.is_empty())
        };
        let mut policies = world.policies.values();
        let excepts = policies.any(|p| contains(p, &has_except));
        let is_web = |pod: &Value| {
            let namespace = pod["metadata"]["namespace"].as_str();
            pod["metadata"]["labels"]["app"] == "web"
                && namespace.is_some_and(|name| world.namespaces.contains_key(name))
        };
        excepts && world.pods.values().any(is_web)
    }

    /// How many lists' elements and fields a value has, whatever they are.
    fn parts(value: &Value) -> usize {
        (0..)
            .take_while(|n| remove_nth(&mut value.clone(), &mut n.clone()))
            .count()
    }

    #[test]
    fn what_is_left_is_only_what_the_failure_needs() {
        let mut shrunk = 0;
        for seed in 0..120 {
            let world = World::random(&mut Rng::new(seed), &mut Coverage::default());
            if !fails(&world) {
                continue;
            }
            shrunk += 1;
            let least = shrink(&world, fails);
            assert!(fails(&least));
            let counts = [
                least.policies.len(),
                least.cluster_policies.len(),
                least.pods.len(),
                least.namespaces.len(),
                least.nodes.len(),
                least.endpoints.len(),
            ];
            assert_eq!(counts, [1, 0, 1, 1, 0, 0], "{least:?}");
            // One list of rules with one rule, one list of peers with one peer, its block, the list
            // of excepts and one of them.
            let policy = least.policies.values().next().unwrap();
            assert_eq!(parts(&policy["spec"]), 7, "{policy}");
            // The labels and one of them.
            let pod = least.pods.values().next().unwrap();
            assert_eq!(parts(pod), 2, "{pod}");
        }
        assert!(shrunk > 5, "{shrunk}");
    }

    #[test]
    fn nothing_is_taken_from_what_needs_all_of_it() {
        let world = World::random(&mut Rng::new(1), &mut Coverage::default());
        let whole = world.clone();
        assert_eq!(shrink(&world, |world| *world == whole), whole);
    }
}
