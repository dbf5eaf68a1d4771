//! A ClusterNetworkPolicy that does not decode is still one. A rule that does not decode gets an
//! empty peer, which is refused, and keeps its action where that is text: an Accept rule then matches
//! nothing, every other denies everything.

use weir_crd::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, EgressPeer, EgressRule, IngressPeer,
    IngressRule, NamespacedPod, Other, Port, Protocol, ProtocolPorts, Subject,
};

use super::{decode, each, meta, selector};
use crate::value::Value;

/// What is left of a policy.
pub(crate) fn salvage(value: &Value) -> ClusterNetworkPolicy {
    let spec = value.get("spec");
    ClusterNetworkPolicy {
        metadata: value.get("metadata").map(meta).unwrap_or_default(),
        spec: spec.map(salvage_spec).unwrap_or_default(),
        ..ClusterNetworkPolicy::default()
    }
}

fn salvage_spec(spec: &Value) -> ClusterNetworkPolicySpec {
    ClusterNetworkPolicySpec {
        tier: spec
            .get("tier")
            .map(|tier| text(tier).unwrap_or_else(|| "undecodable".to_owned())),
        priority: spec.get("priority").and_then(decode),
        subject: spec.get("subject").map(subject),
        ingress: spec.get("ingress").map(|rules| {
            each(rules, |rule| IngressRule {
                name: rule.get("name").and_then(text),
                action: rule.get("action").and_then(text),
                from: Some(vec![IngressPeer::default()]),
                ..IngressRule::default()
            })
        }),
        egress: spec.get("egress").map(|rules| {
            each(rules, |rule| EgressRule {
                name: rule.get("name").and_then(text),
                action: rule.get("action").and_then(text),
                to: Some(vec![EgressPeer::default()]),
                ..EgressRule::default()
            })
        }),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn subject(value: &Value) -> Subject {
    decode(value).unwrap_or_else(|| Subject {
        namespaces: value.get("namespaces").map(selector),
        pods: value.get("pods").map(|pods| NamespacedPod {
            namespace_selector: pods.get("namespaceSelector").map(selector),
            pod_selector: pods.get("podSelector").map(selector),
            other: others(pods, &["namespaceSelector", "podSelector"]),
        }),
        other: others(value, &["namespaces", "pods"]),
    })
}

fn others(value: &Value, known: &[&str]) -> Other {
    let entries = value.as_object().unwrap_or_default();
    entries
        .iter()
        .filter(|(key, _)| !known.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect()
}

/// Null is the same as not there, also for a field that is not known.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|(_, value)| !value.is_null());
            entries.iter_mut().for_each(|(_, value)| drop_nulls(value));
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Clears what decoding kept of fields that are not known.
pub(crate) fn forget_unknown(policy: &mut ClusterNetworkPolicy) {
    let spec = &mut policy.spec;
    if let Some(subject) = &mut spec.subject {
        subject.other.clear();
        forget_in_pods(&mut subject.pods);
    }
    for rule in spec.ingress.iter_mut().flatten() {
        rule.other.clear();
        for peer in rule.from.iter_mut().flatten() {
            peer.other.clear();
            forget_in_pods(&mut peer.pods);
        }
        forget_in_protocols(&mut rule.protocols);
    }
    for rule in spec.egress.iter_mut().flatten() {
        rule.other.clear();
        for peer in rule.to.iter_mut().flatten() {
            peer.other.clear();
            forget_in_pods(&mut peer.pods);
        }
        forget_in_protocols(&mut rule.protocols);
    }
}

fn forget_in_pods(pods: &mut Option<NamespacedPod>) {
    if let Some(pods) = pods {
        pods.other.clear();
    }
}

fn forget_in_protocols(protocols: &mut Option<Vec<Protocol>>) {
    for protocol in protocols.iter_mut().flatten() {
        protocol.other.clear();
        let ports = [&mut protocol.tcp, &mut protocol.udp, &mut protocol.sctp];
        for ports in ports.into_iter().flatten() {
            let ProtocolPorts {
                destination_port,
                other,
            } = ports;
            other.clear();
            if let Some(Port { range, other, .. }) = destination_port {
                other.clear();
                if let Some(range) = range {
                    range.other.clear();
                }
            }
        }
    }
}
