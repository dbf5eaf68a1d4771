//! Hand-written policy cases: real traffic, the oracle and the compiler's tables are compared with
//! each other on every pair, and with what a person wrote down.

mod compiler;
mod script;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_lab::demo::cells::{self, Cell, Party, name_of};
use weir_lab::demo::matrix;
use weir_lab::demo::plan::{OutsideHost, Plan, PlannedPod};
use weir_lab::demo::probing::{self, Fleet};
use weir_lab::demo::progress::Progress;
use weir_lab::{Lab, Listen, PodSpec, Proto};

use script::{Case, Claim};

const OUTSIDE: [(&str, &str); 5] = [
    ("bank", "203.0.113.10"),
    ("broker", "203.0.113.138"),
    ("other", "198.51.100.10"),
    ("bank6", "2001:db8:1::a"),
    ("other6", "2001:db8:2::a"),
];

const fn tcp(port: u16) -> Listen {
    Listen {
        proto: Proto::Tcp,
        port,
    }
}

const fn udp(port: u16) -> Listen {
    Listen {
        proto: Proto::Udp,
        port,
    }
}

/// The pods of `cases.txt`, in the order of its head.
fn pods() -> Vec<PlannedPod> {
    let listen = [tcp(80), tcp(81), tcp(8080), tcp(8082), udp(53), udp(80)];
    [
        ("red", "a", "web", 0),
        ("red", "b", "db", 1),
        ("blue", "a", "web", 1),
        ("blue", "b", "", 0),
        ("green", "a", "", 0),
    ]
    .into_iter()
    .map(|(namespace, name, tier, node)| {
        let mut spec = PodSpec::new(namespace, name, node).label("app", name);
        if !tier.is_empty() {
            spec = spec.label("tier", tier);
        }
        for port in listen {
            let http = if name == "a" { tcp(80) } else { tcp(8080) };
            let port_name = match port {
                port if port == http => "http",
                port if port == tcp(81) => "alt",
                port if port == udp(53) => "dns",
                _ => "",
            };
            spec = spec.port(port, port_name);
        }
        PlannedPod {
            object: spec.object,
            workload: format!("{namespace}/{name}"),
            node,
            declared: listen.to_vec(),
        }
    })
    .collect()
}

fn plan() -> Plan {
    let outside = OUTSIDE.map(|(_, address)| OutsideHost {
        address: address.parse().unwrap(),
        declared: vec![tcp(443)],
    });
    Plan {
        pods: pods(),
        host_pods: Vec::new(),
        namespaces: Vec::new(),
        policies: Vec::new(),
        services: Vec::new(),
        slices: Vec::new(),
        outside: outside.into(),
        undeclared: tcp(7001),
        warnings: Vec::new(),
    }
}

fn deploy(lab: &Lab, plan: &Plan) -> Fleet {
    lab.add_namespace("red", &[("team", "red"), ("env", "prod")])
        .unwrap();
    lab.add_namespace("blue", &[("team", "blue")]).unwrap();
    lab.add_namespace("green", &[("env", "prod")]).unwrap();
    let pods = plan
        .pods
        .iter()
        .map(|pod| {
            let mut listen = pod.declared.clone();
            listen.push(plan.undeclared);
            let object = pod.object.clone();
            lab.add_pod(&PodSpec {
                object,
                node: pod.node,
                listen,
                covered: true,
            })
            .unwrap()
        })
        .collect();
    let outside = plan
        .outside
        .iter()
        .map(|host| {
            lab.add_outside(host.address, &[tcp(443), plan.undeclared])
                .unwrap()
        })
        .collect();
    Fleet { pods, outside }
}

/// Waits until every agent lists exactly these policies.
fn await_listed(lab: &Lab, names: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for node in &lab.nodes {
        loop {
            let listed: Vec<Value> = node.client().get("/v1/policies").unwrap();
            let listed: BTreeSet<String> = listed
                .iter()
                .map(|policy| {
                    let part = |key: &str| policy[key].as_str().unwrap_or_default().to_owned();
                    format!("{}/{}", part("namespace"), part("name"))
                })
                .collect();
            if listed == *names {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{} lists {listed:?}, not {names:?}",
                node.name
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn kernel_oracle_compiler_and_people_agree_on_hand_written_cases() {
    let cases = script::read(include_str!("cases.txt"));
    assert!(cases.len() >= 40, "{} cases", cases.len());
    // What arrives outside is told by the pod's own address.
    let builder = Lab::builder().nodes(2).agent_arg("--masquerade=false");
    let lab = builder.start().unwrap();
    let plan = plan();
    let fleet = deploy(&lab, &plan);
    let mut failures = Vec::new();
    let mut retried = 0;
    for case in &cases {
        let (bad, tries) = run(&lab, &plan, &fleet, case);
        retried += tries;
        failures.extend(bad.into_iter().map(|line| format!("{}: {line}", case.name)));
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Second tries are for a busy machine; if they were the rule, something else would be wrong.
    assert!(
        retried < cases.len() * 10,
        "{retried} probes needed a second try"
    );
}

fn run(lab: &Lab, plan: &Plan, fleet: &Fleet, case: &Case) -> (Vec<String>, usize) {
    let mut names = BTreeSet::new();
    for policy in &case.policies {
        lab.cluster.apply(policy).unwrap();
        names.insert(weir_lab::demo::plan::key(policy));
    }
    await_listed(lab, &names);
    let cluster = cells::cluster_of(&lab.cluster.objects().unwrap()).unwrap();
    let cells = cells::all(plan, &fleet.addresses(), &cluster).unwrap();

    let limits = [Duration::from_millis(600), Duration::from_secs(3)];
    let probed = probing::probe(plan, fleet, &cells, limits, &Progress::silent()).unwrap();
    let mut failures: Vec<String> = matrix::mismatches(plan, &cells, &probed.observed)
        .into_iter()
        .map(|line| format!("traffic and oracle: {line}"))
        .collect();
    failures.extend(compiler::disagreements(&cluster, plan, fleet, &cells));
    for claim in &case.claims {
        failures.extend(check(plan, &cells, claim));
    }
    for policy in &case.policies {
        let metadata = &policy["metadata"];
        let namespace = metadata["namespace"].as_str();
        lab.cluster
            .delete(
                "NetworkPolicy",
                namespace,
                metadata["name"].as_str().unwrap(),
            )
            .unwrap();
    }
    await_listed(lab, &BTreeSet::new());
    (failures, probed.second_tries)
}

/// Compares what a person claims with what the oracle says of the same cells.
fn check(plan: &Plan, cells: &[Cell], claim: &Claim) -> Vec<String> {
    let alias = |party: Party| match party {
        Party::Outside(index) => OUTSIDE[index].0.to_owned(),
        other => name_of(plan, other),
    };
    let about: Vec<&Cell> = cells
        .iter()
        .filter(|cell| {
            alias(cell.from) == claim.from && alias(cell.to) == claim.to && cell.listen == claim.at
        })
        .collect();
    if about.is_empty() {
        return vec![format!("the claim {claim:?} is about no cell")];
    }
    about
        .into_iter()
        .filter(|cell| cell.some_allowed() != claim.passes)
        .map(|cell| {
            format!(
                "the oracle contradicts {claim:?}: {}",
                matrix::describe(plan, cell)
            )
        })
        .collect()
}

/// An address of the same family as another.
fn of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|address| address.is_ipv4() == like.is_ipv4())
}
