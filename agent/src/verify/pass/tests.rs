//! Maps as the compiler fills them, and as they are after damage.

use serde_json::{Value, json};
use weir_abi::policy::{Decision, DecisionKey, Interval, RuleVerdict};
use weir_policy::{Actual, Event, Index, LocalEndpoint, ObjectName, PodRef, Write, plan};

use super::super::ends::Whose;
use super::super::tables::Entry;
use super::*;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Two databases and a client here, one client and a stranger elsewhere.
fn cluster() -> Cluster {
    let pod = |name: &str, app: &str, node: &str, n: u8| {
        json!({"metadata": {"namespace": "shop", "name": name, "labels": {"app": app}},
               "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "pg", "containerPort": 5432}]}]},
               "status": {"podIPs": [{"ip": format!("10.0.0.{n}")}, {"ip": format!("fd00::{n}")}]}})
    };
    Cluster {
        namespaces: object(json!([{"metadata": {"name": "shop"}}])),
        pods: object(json!([
            pod("db-0", "db", "n1", 1),
            pod("db-1", "db", "n1", 2),
            pod("web", "web", "n1", 3),
            pod("far", "web", "n2", 4),
            pod("job", "job", "n2", 5),
        ])),
        nodes: object(json!([
            {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.0.0.0/25"]},
             "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}},
            {"metadata": {"name": "n2"},
             "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]}},
        ])),
        policies: object(json!([{
            "metadata": {"namespace": "shop", "name": "db"},
            "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
                     "ingress": [
                        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "pg"}]},
                        {"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}],
                         "ports": [{"port": 6000, "endPort": 6010}]}],
                     "egress": [{"ports": [{"protocol": "UDP", "port": 53}]}]},
        }])),
        cluster_policies: object(json!([
            {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
             "metadata": {"name": "admin"},
             "spec": {"tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
                      "ingress": [
                        {"action": "Accept", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "job"}}}}],
                         "protocols": [{"tcp": {"destinationPort": {"number": 9100}}}]},
                        {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"no": "one"}}}]}],
                      "egress": [{"action": "Pass", "to": [{"networks": ["198.51.100.0/24"]}]}]}},
            {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
             "metadata": {"name": "baseline"},
             "spec": {"tier": "Baseline", "priority": 1, "subject": {"namespaces": {}},
                      "egress": [{"action": "Deny", "to": [{"nodes": {}}]}]}},
        ])),
        ..Cluster::default()
    }
}

fn endpoints() -> Vec<Endpoint> {
    let endpoint = |slot: u32, name: &str| Endpoint {
        slot,
        addresses: [
            format!("10.0.0.{}", slot + 1),
            format!("fd00::{}", slot + 1),
        ]
        .map(|text| text.parse().unwrap())
        .into(),
        whose: Whose::Pod("shop".into(), name.into()),
    };
    vec![endpoint(0, "db-0"), endpoint(1, "db-1"), endpoint(2, "web")]
}

/// What the compiler writes, element by element.
fn writes(cluster: &Cluster) -> Vec<Write> {
    let mut index = Index::new("n1");
    for namespace in &cluster.namespaces {
        let _ = index.apply(Event::ApplyNamespace(Box::new(namespace.clone())));
    }
    for pod in &cluster.pods {
        let _ = index.apply(Event::ApplyPod(Box::new(pod.clone())));
    }
    for node in &cluster.nodes {
        let _ = index.apply(Event::ApplyNode(Box::new(node.clone())));
    }
    for policy in &cluster.policies {
        let _ = index.apply(Event::ApplyPolicy(Box::new(policy.clone())));
    }
    for policy in &cluster.cluster_policies {
        let _ = index.apply(Event::ApplyClusterPolicy(Box::new(policy.clone())));
    }
    for endpoint in endpoints() {
        let Whose::Pod(namespace, name) = &endpoint.whose else {
            panic!("a pod's");
        };
        let _ = index.apply(Event::ApplyEndpoint(LocalEndpoint {
            slot: endpoint.slot,
            pod: Some(PodRef {
                name: ObjectName::new(namespace, name),
                uid: None,
            }),
            addresses: endpoint.addresses.clone(),
        }));
    }
    let plan = plan(&Actual::default(), index.compile()).unwrap();
    plan.phases().into_iter().flatten().cloned().collect()
}

fn entries(cluster: &Cluster) -> Vec<Entry> {
    let entry = |write| match write {
        Write::SetGroups { slot, groups } => Some(Entry::Slot(slot, groups)),
        Write::PutPeer { addr, class } => Some(Entry::Peer(addr.to_ip(), class)),
        Write::PutCidr { key, class } => Some(Entry::Cidr(key, class)),
        Write::PutDecision { key, decision } => Some(Entry::Decision(key, decision)),
        Write::PutInterval { at, interval } => Some(Entry::Interval(at, interval)),
        Write::PutRule { id, text } => Some(Entry::Rule(id, text)),
        _ => None,
    };
    writes(cluster).into_iter().filter_map(entry).collect()
}

fn run(entries: Vec<Entry>, endpoints: &[Endpoint]) -> (Vec<Disagreement>, u64, Vec<String>) {
    let cluster = cluster();
    let evaluator = Evaluator::new(&cluster);
    let tables = entries.into_iter().collect();
    let mut pass = Pass::new(&cluster, &evaluator, tables, endpoints, 0);
    assert_eq!(pass.step(|_| false), Progress::Done);
    let found = pass.found().cloned().collect();
    (found, pass.checked(), pass.unjudged.clone())
}

/// Damages each element that `change` makes something else of, one at a time, and gives what a pass
/// finds then.
fn damaged(change: impl Fn(&Entry) -> Option<Entry>) -> Vec<Vec<Disagreement>> {
    let whole = entries(&cluster());
    let numbers = (0..whole.len()).filter(|n| change(&whole[*n]).is_some());
    let all: Vec<_> = numbers
        .map(|number| {
            let mut entries = whole.clone();
            entries[number] = change(&entries[number]).unwrap();
            run(entries, &endpoints()).0
        })
        .collect();
    assert!(!all.is_empty(), "nothing was damaged");
    all
}

#[test]
fn maps_as_the_compiler_fills_them_agree() {
    let (found, checked, unjudged) = run(entries(&cluster()), &endpoints());
    assert_eq!(found, []);
    assert!(unjudged.is_empty());
    assert!(checked > 500, "{checked}");
}

#[test]
fn every_flipped_interval_is_found() {
    let flip = |verdict: RuleVerdict| RuleVerdict(verdict.0 ^ 1 << 31);
    let all = damaged(|entry| match entry {
        Entry::Interval(at, Interval { start, verdict }) => Some(Entry::Interval(
            *at,
            Interval {
                start: *start,
                verdict: flip(*verdict),
            },
        )),
        Entry::Decision(key, Decision { at, len: 0 }) => Some(Entry::Decision(
            *key,
            Decision {
                at: flip(RuleVerdict(*at)).0,
                len: 0,
            },
        )),
        _ => None,
    });
    assert!(all.iter().all(|found| !found.is_empty()), "{all:?}");
}

#[test]
fn every_moved_boundary_is_found() {
    for by in [1_u32, u32::MAX] {
        let all = damaged(|entry| match entry {
            Entry::Interval(at, Interval { start, verdict }) if *start > 0 => {
                Some(Entry::Interval(
                    *at,
                    Interval {
                        start: start.wrapping_add(by),
                        verdict: *verdict,
                    },
                ))
            }
            _ => None,
        });
        assert!(all.iter().all(|found| !found.is_empty()), "{by}: {all:?}");
    }
}

#[test]
fn every_lost_row_and_every_wrong_class_is_found() {
    let all = damaged(|entry| match entry {
        Entry::Decision(key, decision) => Some(Entry::Decision(
            DecisionKey {
                group: weir_abi::policy::GroupId(9999),
                ..*key
            },
            *decision,
        )),
        _ => None,
    });
    assert!(all.iter().all(|found| !found.is_empty()), "{all:?}");
    let web = entries(&cluster())
        .into_iter()
        .find_map(|entry| match entry {
            Entry::Peer(addr, class) if addr.to_string() == "10.0.0.4" => Some(class),
            _ => None,
        });
    let web = web.unwrap();
    // The stranger has no entry: it gets the client's class.
    let mut wrong = entries(&cluster());
    wrong.push(Entry::Peer("10.0.0.5".parse().unwrap(), web));
    let (found, ..) = run(wrong, &endpoints());
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expect = "shop/db-0 (10.0.0.1), ingress from 10.0.0.5 (pod shop/job), 5432/TCP: objects say deny \
         (isolated by shop/db); the kernel says allow (shop/db spec.ingress[0])";
    assert!(texts.iter().any(|text| text == expect), "{texts:#?}");
    // Both databases are alike.
    let of_db = found.iter().filter(|d| d.group == 16);
    assert!(of_db.clone().count() > 0);
    assert!(
        of_db
            .into_iter()
            .all(|d| d.endpoint == "shop/db-0" && d.endpoints_alike == 2)
    );
}

#[test]
fn a_lost_prefix_and_another_name_for_a_rule_are_found() {
    let all = damaged(|entry| match entry {
        Entry::Rule(id, text) => Some(Entry::Rule(
            *id,
            text.replace("\"name\":\"", "\"name\":\"x"),
        )),
        _ => None,
    });
    assert!(all.iter().all(|found| !found.is_empty()), "{all:?}");
    let mut without = entries(&cluster());
    without.retain(|entry| !matches!(entry, Entry::Cidr(key, _) if key.prefix_len == 32 + 24));
    let (found, ..) = run(without, &endpoints());
    assert!(
        found.iter().any(|d| d.peer.to_string() == "203.0.113.1"),
        "{found:?}"
    );
}

#[test]
fn an_endpoint_without_a_pod_is_open_and_one_whose_pod_is_gone_is_not_judged() {
    let mut all = endpoints();
    all.push(Endpoint {
        slot: 7,
        addresses: vec!["10.0.0.77".parse().unwrap()],
        whose: Whose::Nobody,
    });
    for whose in [
        Whose::Gone("shop".into(), "old".into()),
        Whose::ByAddress,
        Whose::Pod("shop".into(), "x".into()),
    ] {
        all.push(Endpoint {
            slot: 8,
            addresses: vec!["10.0.0.78".parse().unwrap()],
            whose,
        });
    }
    let open = weir_abi::policy::PolicySlot::pack(
        weir_abi::policy::GroupId::OPEN,
        weir_abi::policy::GroupId::OPEN,
    );
    let mut entries = entries(&cluster());
    entries.push(Entry::Slot(7, open));
    let (found, _, unjudged) = run(entries.clone(), &all);
    assert_eq!(found, []);
    assert_eq!(unjudged.len(), 3, "{unjudged:?}");
    entries.push(Entry::Slot(7, 0));
    let (found, ..) = run(entries, &all);
    assert!(
        found[0]
            .to_string()
            .contains("the kernel says deny (no row)")
    );
}

#[test]
fn a_pass_in_slices_finds_the_same_wherever_it_begins() {
    let cluster = cluster();
    let evaluator = Evaluator::new(&cluster);
    let mut wrong = entries(&cluster);
    wrong.retain(|entry| !matches!(entry, Entry::Peer(..)));
    let tables: Tables = wrong.into_iter().collect();
    let mut counts = Vec::new();
    for first in [0, 17, usize::MAX] {
        let mut pass = Pass::new(&cluster, &evaluator, tables.clone(), &endpoints(), first);
        let mut slices = 1;
        while pass.step(|_| true) == Progress::More {
            slices += 1;
        }
        assert_eq!(slices, pass.pairs());
        counts.push((pass.found_count(), pass.checked()));
        // Checked again by whole maps nothing is left.
        let whole = entries(&cluster).into_iter().collect();
        pass.check_again(1, &whole);
        assert_eq!(pass.found_count(), 1);
        pass.check_again(0, &tables);
        assert_eq!(pass.found_count(), 1);
        pass.check_again(0, &whole);
        assert_eq!(pass.found_count(), 0);
    }
    assert!(counts[0].0 > 1);
    assert!(counts.iter().all(|count| *count == counts[0]));
}
