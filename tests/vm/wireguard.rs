//! What goes through WireGuard beside packets between pods, once the nodes know each other's keys: nothing of it
//! is ever to be seen with a pod's address.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_lab::control::Control;
use weir_lab::spawn::run_in;
use weir_lab::{Backend, Lab, Outcome, Pod, Probe, Proto, ServiceSpec};

use crate::lab::{
    LEARNING, PATIENCE_MS, PORT, PROTOS, WIREGUARD, Wire, World, answered, nothing_bare, talk,
    until_reached,
};

const VIPS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const NODE_PORT: u16 = 30_080;
/// Clients outside the cluster.
const CLIENTS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// A node's processes reach pods of another node, and clients outside reach them by a NodePort of a node that has
/// none of them.
pub fn served((lab, pods): &World) -> Result<String> {
    let wire = Wire::tap(lab)?;
    let there = &pods[1];
    let host = lab.add_host_server(0, &[])?;
    for to in &there.addresses {
        for proto in PROTOS {
            let probe = Probe::new(*to, PORT, proto).bytes(1300);
            let outcome = host.probe(probe.timeout_ms(PATIENCE_MS))?;
            answered(&outcome, there).with_context(|| format!("node to {to}, {proto:?}"))?;
        }
    }
    let service = PROTOS
        .iter()
        .fold(ServiceSpec::new("web", VIPS), |spec, &proto| {
            spec.port(proto, 80, PORT, NODE_PORT)
        });
    service.apply(lab)?;
    service.set_backends(lab, &[Backend::ready(there)])?;
    for (client, node) in CLIENTS.iter().zip(lab.nodes[0].addresses) {
        let client: IpAddr = client.parse()?;
        let client = lab.add_outside(client, &[])?;
        for proto in PROTOS {
            let probe = Probe::new(node, NODE_PORT, proto).bytes(1200);
            until(&client, probe, |outcome| answered(outcome, there).is_ok())
                .with_context(|| format!("NodePort at {node}, {proto:?}"))?;
        }
    }
    nothing_bare(&wire.seen(), pods)?;
    Ok("nodes' processes and a NodePort reach pods of another node, over IPv4 and IPv6".to_owned())
}

/// Policy at a pod sees who it is on another node that wants in.
pub fn judged((lab, pods): &World) -> Result<String> {
    let [here, there] = [&pods[0], &pods[1]];
    for (friend, is_let_in) in [("stranger", false), (&*here.name, true)] {
        lab.cluster.apply(&only_from(there, friend))?;
        for to in &there.addresses {
            let probe = Probe::new(*to, PORT, Proto::Tcp).timeout_ms(2000);
            let expected = |outcome: &Outcome| match outcome {
                Outcome::Timeout { .. } => !is_let_in,
                outcome => is_let_in && answered(outcome, there).is_ok(),
            };
            until(&here.control, probe, expected)
                .with_context(|| format!("{to}, with only {friend} let in"))?;
        }
    }
    Ok("a pod of another node is let in by its label and by nothing else".to_owned())
}

/// A policy that lets one pod into another, by its label `app`.
fn only_from(to: &Pod, friend: &str) -> Value {
    let pods = |name: &str| json!({"matchLabels": {"app": name}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "one-friend"},
        "spec": {
            "podSelector": pods(&to.name), "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": pods(friend)}]}],
        },
    })
}

/// The device is deleted under the agent, which makes it anew; in between nothing goes out in the clear.
pub fn made_anew((lab, pods): &World) -> Result<String> {
    let wire = Wire::tap(lab)?;
    run_in(&lab.nodes[0].place().net_only(), || {
        Ok(weir_net::Netlink::open()?.delete_link("weir-wireguard")?)
    })?;
    until_reached(&pods[0], &pods[1])?;
    talk(pods)?;
    nothing_bare(&wire.seen(), pods)?;
    Ok("a deleted device is made anew, and nothing goes in the clear meanwhile".to_owned())
}

/// Nodes that are known by IPv6 addresses alone send WireGuard's packets over IPv6.
pub fn over_ipv6(world: &World) -> Result<String> {
    let (lab, _) = world;
    let mut known_by = Vec::new();
    for node in &lab.nodes {
        let mut object = lab.cluster.get("Node", None, &node.name)?;
        known_by.push(object.clone());
        object["status"]["addresses"] =
            json!([{"type": "InternalIP", "address": node.addresses[1].to_string()}]);
        lab.cluster.apply(&object)?;
    }
    let done = until_over_ipv6(world);
    for object in &known_by {
        lab.cluster.apply(object)?;
    }
    done
}

fn until_over_ipv6((lab, pods): &World) -> Result<String> {
    let started = Instant::now();
    loop {
        let wire = Wire::tap(lab)?;
        let talked = talk(pods);
        let seen = wire.seen();
        nothing_bare(&seen, pods)?;
        if talked.is_ok() && both_ways_over_ipv6(lab, &seen) {
            return Ok("pods talk over IPv6 between the nodes".to_owned());
        }
        ensure!(started.elapsed() < LEARNING, "{talked:?}, {seen:?}");
    }
}

fn both_ways_over_ipv6(lab: &Lab, seen: &[(IpAddr, IpAddr, Option<u16>)]) -> bool {
    let [one, other] = [0, 1].map(|node: usize| lab.nodes[node].addresses[1]);
    let sent = |from, to| seen.contains(&(from, to, Some(WIREGUARD)));
    sent(one, other) && sent(other, one)
}

/// Probes until the outcome is as it must be.
fn until(from: &Control, probe: Probe, is: impl Fn(&Outcome) -> bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let outcome = from.probe(probe)?;
        if is(&outcome) {
            return Ok(());
        }
        ensure!(started.elapsed() < LEARNING, "{outcome:?}");
    }
}
