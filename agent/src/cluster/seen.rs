//! What the duties need to know of the objects, taken off the batches on their way to the engine.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use weir_crd::ClusterNetworkPolicy;
use weir_policy::{ClusterPolicyStatus, Condition};

use crate::{
    cluster::node_key::NodeKey,
    compile::node_cidr::{NodeCidrs, Nodes},
    publish::NETWORK_UNAVAILABLE,
    source::{Batch, Stage},
    state::{Change, Kept, Kind, Object},
};

/// What is known of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenPolicy {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// What its status should say.
    pub conditions: [Condition; 2],
}

impl SeenPolicy {
    fn of(policy: &ClusterNetworkPolicy) -> Self {
        Self {
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            conditions: ClusterPolicyStatus::of(policy).conditions(),
        }
    }
}

/// What has been seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Whether the source has given its first, complete picture.
    pub synced: bool,
    /// Every Node.
    pub nodes: Nodes,
    /// Every ClusterNetworkPolicy.
    pub policies: BTreeMap<String, SeenPolicy>,
    /// Whether this node's Node has the condition NetworkUnavailable.
    pub network_unavailable: bool,
    /// By which WireGuard key this node's Node says that it is known.
    pub own_key: NodeKey,
}

impl Seen {
    /// Takes a batch in; false when nothing of it matters here. `own` is the name of this node.
    pub fn take(&mut self, own: &str, batch: &Batch) -> bool {
        let is_complete = batch.stage == Stage::Complete;
        let mut changed = is_complete && !self.synced;
        self.synced |= is_complete;
        for change in &batch.changes {
            changed |= match change {
                Change::Apply(Kept::Plain(object)) => self.take_object(own, object),
                Change::Apply(_) => false,
                Change::Delete(key) => match key.kind {
                    Kind::Node => {
                        self.network_unavailable &= key.name != own;
                        if key.name == own {
                            self.own_key = NodeKey::default();
                        }
                        self.nodes.remove(&key.name).is_some()
                    }
                    Kind::ClusterNetworkPolicy => self.policies.remove(&key.name).is_some(),
                    _ => false,
                },
            };
        }
        changed
    }

    fn take_object(&mut self, own: &str, object: &Object) -> bool {
        match object {
            Object::Node(node) => self.take_node(own, node),
            Object::ClusterNetworkPolicy(policy) => {
                let name = policy.metadata.name.clone().unwrap_or_default();
                put(&mut self.policies, name, SeenPolicy::of(policy))
            }
            _ => false,
        }
    }

    fn take_node(&mut self, own: &str, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut changed = false;
        if name == own {
            let before = (self.network_unavailable, self.own_key.clone());
            self.network_unavailable = is_unavailable(node);
            self.own_key = NodeKey::in_annotation(node);
            changed = before != (self.network_unavailable, self.own_key.clone());
        }
        put(&mut self.nodes, name, NodeCidrs::of(node)) | changed
    }
}

/// Whether it was something else.
fn put<T: PartialEq>(map: &mut BTreeMap<String, T>, name: String, value: T) -> bool {
    let changed = map.get(&name) != Some(&value);
    map.insert(name, value);
    changed
}

fn is_unavailable(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == NETWORK_UNAVAILABLE && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::ObjectKey;

    fn batch(objects: &[serde_json::Value]) -> Batch {
        let changes = objects.iter().map(|value| {
            let value = value.clone();
            let object = match value["kind"].as_str() {
                Some("Node") => Object::Node(serde_json::from_value(value).unwrap()),
                Some("Pod") => Object::Pod(serde_json::from_value(value).unwrap()),
                _ => Object::ClusterNetworkPolicy(serde_json::from_value(value).unwrap()),
            };
            Change::Apply(Kept::from(object))
        });
        Batch {
            changes: changes.collect(),
            ..Batch::default()
        }
    }

    fn gone(kind: Kind, name: &str) -> Batch {
        let key = ObjectKey {
            kind,
            namespace: String::new(),
            name: name.to_owned(),
        };
        Batch {
            changes: vec![Change::Delete(key)],
            ..Batch::default()
        }
    }

    #[test]
    fn only_what_the_duties_need_counts_as_a_change() {
        let mut seen = Seen::default();
        let node = json!({"kind": "Node", "metadata": {"name": "a", "uid": "1"},
            "spec": {"podCIDR": "10.244.0.0/24"}});
        let waiting = Batch {
            stage: Stage::Waiting,
            ..Batch::default()
        };
        assert!(!seen.take("n", &waiting) && !seen.synced);
        assert!(seen.take("n", &batch(&[])) && seen.synced);
        assert!(seen.take("n", &batch(std::slice::from_ref(&node))));
        assert_eq!(seen.nodes["a"].uid, "1");
        assert_eq!(seen.nodes["a"].cidrs.len(), 1);
        let mut labelled = node;
        labelled["metadata"]["labels"] = json!({"x": "y"});
        let pod = json!({"kind": "Pod", "metadata": {"name": "a"}});
        assert!(!seen.take("n", &batch(&[labelled, pod])));
        assert!(seen.take("n", &gone(Kind::Node, "a")));
        assert!(!seen.take("n", &gone(Kind::Node, "a")));
        assert!(seen.nodes.is_empty());
    }

    #[test]
    fn network_unavailable_is_that_of_the_own_node() {
        let node = |name, status| {
            json!({"kind": "Node", "metadata": {"name": name}, "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": status},
            ]}})
        };
        let mut seen = Seen::default();
        seen.take("n", &batch(&[node("a", "True"), node("n", "False")]));
        assert!(!seen.network_unavailable);
        assert!(seen.take("n", &batch(&[node("n", "True")])));
        assert!(seen.network_unavailable);
        assert!(seen.take("n", &gone(Kind::Node, "n")));
        assert!(!seen.network_unavailable);
    }

    #[test]
    fn a_policy_is_kept_as_what_its_status_should_say() {
        let policy = |generation| {
            json!({"kind": "ClusterNetworkPolicy",
                "metadata": {"name": "p", "uid": "u", "generation": generation},
                "spec": {"tier": "Admin", "priority": 5000}})
        };
        let mut seen = Seen::default();
        seen.take("n", &batch(&[policy(1)]));
        let [accepted, _] = &seen.policies["p"].conditions;
        assert!(!accepted.holds && accepted.message.contains("spec.priority"));
        assert!(!seen.take("n", &batch(&[policy(1)])));
        assert!(seen.take("n", &batch(&[policy(2)])));
        assert!(seen.take("n", &gone(Kind::ClusterNetworkPolicy, "p")));
    }
}
