//! What the index is told.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use weir_crd::ClusterNetworkPolicy;

/// Namespace and name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The pod that a local endpoint belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRef {
    /// Its namespace and name.
    pub name: ObjectName,
    /// The API's UID, where it is known. A Pod object with another UID is another pod: the endpoint
    /// then keeps the policy of the one it knew.
    pub uid: Option<String>,
}

/// A pod's attachment on this node, as the CNI recorded it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoint {
    /// Index in `POLICY_SLOTS`, below [`weir_abi::map::MAX_ENDPOINTS`].
    pub slot: u32,
    /// None for an endpoint that no Kubernetes pod stands behind: nothing selects it.
    pub pod: Option<PodRef>,
    /// The addresses this endpoint has. They are its own whatever a Pod object says.
    pub addresses: Vec<IpAddr>,
}

/// One change of the world. Events may come in any order: only the state they lead to counts.
#[derive(Clone, Debug)]
pub enum Event {
    /// A Namespace was created or changed.
    ApplyNamespace(Box<Namespace>),
    /// The Namespace of that name is gone.
    DeleteNamespace(String),
    /// A Pod was created or changed.
    ApplyPod(Box<Pod>),
    /// A Pod is gone.
    DeletePod(ObjectName),
    /// A NetworkPolicy was created or changed.
    ApplyPolicy(Box<NetworkPolicy>),
    /// A NetworkPolicy is gone.
    DeletePolicy(ObjectName),
    /// A ClusterNetworkPolicy was created or changed.
    ApplyClusterPolicy(Box<ClusterNetworkPolicy>),
    /// The ClusterNetworkPolicy of that name is gone.
    DeleteClusterPolicy(String),
    /// A Node was created or changed.
    ApplyNode(Box<Node>),
    /// The Node of that name is gone.
    DeleteNode(String),
    /// An endpoint of this node was adopted or changed.
    ApplyEndpoint(LocalEndpoint),
    /// The endpoint in that slot is gone.
    DeleteEndpoint(u32),
}

/// Whether an event changed anything that policy depends on.
#[must_use = "a dirty index must be compiled"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dirty(pub bool);
