//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, as sigs.k8s.io/network-policy-api
//! v0.2.0 has it (the experimental channel, whose fields are a superset of the standard one's).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Fields that this build does not know. Where there are any, whoever wrote them meant more than is
/// understood here: the reader must fail closed.
pub type Other = BTreeMap<String, serde_json::Value>;

/// A policy of the Admin or the Baseline tier. Cluster-scoped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// [`ClusterNetworkPolicy::API_VERSION`].
    #[serde(default = "api_version")]
    pub api_version: String,
    /// [`ClusterNetworkPolicy::KIND`].
    #[serde(default = "kind")]
    pub kind: String,
    /// Its name, above all.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub spec: ClusterNetworkPolicySpec,
}

impl ClusterNetworkPolicy {
    /// `kind` of these objects.
    pub const KIND: &'static str = "ClusterNetworkPolicy";
    /// `apiVersion` of these objects.
    pub const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
}

fn api_version() -> String {
    ClusterNetworkPolicy::API_VERSION.to_owned()
}

fn kind() -> String {
    ClusterNetworkPolicy::KIND.to_owned()
}

impl Default for ClusterNetworkPolicy {
    fn default() -> Self {
        Self {
            api_version: api_version(),
            kind: kind(),
            metadata: ObjectMeta::default(),
            spec: ClusterNetworkPolicySpec::default(),
        }
    }
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// 0 to 1000, required; lower ones are asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The pods whose traffic it judges; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// At most 25 rules, asked in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<IngressRule>>,
    /// At most 25 rules, asked in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// Exactly one field must be set. Pods on the host's network are never subjects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// All pods of the selected namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// The selected pods of the selected namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Pods by namespace and labels; an empty selector selects all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Absent: all namespaces (the CRD requires `podSelector` alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// A rule about traffic to the subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// At most 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// 1 to 25 sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<IngressPeer>>,
    /// 1 to 25 of them; absent: all traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// A rule about traffic from the subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// At most 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// 1 to 25 destinations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<EgressPeer>>,
    /// 1 to 25 of them; absent: all traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Exactly one field must be set. Pods on the host's network are not among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressPeer {
    /// All pods of the selected namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// The selected pods of the selected namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Exactly one field must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeer {
    /// All pods of the selected namespaces, but for those on the host's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// The selected pods of the selected namespaces, but for those on the host's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// The addresses in `status.addresses` of the selected nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// 1 to 25 CIDRs, which hold whatever address lies in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// 1 to 25 names, `*.` in front stands for one or more labels; for Accept rules only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Exactly one field must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ProtocolPorts>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<ProtocolPorts>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ProtocolPorts>,
    /// The destination pod's container ports of this name, whatever their protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// At least one field must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolPorts {
    /// The destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Exactly one field must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Several ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

/// Both are required, 1 to 65535, and `start` is below `end`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// The first port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// The last port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// Not known here.
    #[serde(flatten)]
    pub other: Other,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_decodes_and_encodes_as_it_came() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let pods = json!({"namespaceSelector": {}, "podSelector": selector});
        let object = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "x"},
            "spec": {
                "tier": "Admin", "priority": 7,
                "subject": {"pods": pods},
                "ingress": [{
                    "name": "one", "action": "Deny",
                    "from": [{"namespaces": selector}, {"pods": pods}],
                    "protocols": [
                        {"tcp": {"destinationPort": {"number": 80}}},
                        {"udp": {"destinationPort": {"range": {"start": 1, "end": 2}}}},
                        {"sctp": {"destinationPort": {"number": 1}}},
                        {"destinationNamedPort": "http"},
                    ],
                }],
                "egress": [{
                    "action": "Accept",
                    "to": [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}, {"domainNames": ["*.a.b"]}],
                }],
            },
        });
        let policy: ClusterNetworkPolicy = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(policy).unwrap(), object);
    }

    #[test]
    fn fields_of_later_versions_are_kept_where_they_stand() {
        let peer: EgressPeer = serde_json::from_value(json!({"services": {"x": 1}})).unwrap();
        assert_eq!(peer.other.keys().collect::<Vec<_>>(), ["services"]);
        assert_eq!(
            EgressPeer {
                other: Other::new(),
                ..peer
            },
            EgressPeer::default()
        );
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_empty() {
        let policy: ClusterNetworkPolicy = serde_json::from_value(json!({})).unwrap();
        assert_eq!(policy, ClusterNetworkPolicy::default());
        let rule: IngressRule = serde_json::from_value(json!({"from": []})).unwrap();
        assert_eq!((rule.from, rule.protocols), (Some(Vec::new()), None));
    }
}
