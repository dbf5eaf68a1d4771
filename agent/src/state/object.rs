//! The kinds of objects that policy, services and routes need.

use std::fmt;

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use weir_crd::ClusterNetworkPolicy;

use super::Named;

/// A kind of object that Weir reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Namespace.
    Namespace,
    /// v1 Node.
    Node,
    /// v1 Pod.
    Pod,
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl Kind {
    /// As in the object's `kind` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => ClusterNetworkPolicy::KIND,
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace | Self::Node | Self::ClusterNetworkPolicy
        )
    }
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// What has this key.
    pub fn of(named: &impl Named) -> Self {
        let (kind, namespace, name) = named.parts();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            kind,
            namespace: text(namespace),
            name: text(name),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        if kind.is_namespaced() {
            write!(f, "{} {namespace}/{name}", kind.as_str())
        } else {
            write!(f, "{} {name}", kind.as_str())
        }
    }
}

/// An object that Weir reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// v1 Namespace.
    Namespace(Box<Namespace>),
    /// v1 Node.
    Node(Box<Node>),
    /// v1 Pod.
    Pod(Box<Pod>),
    /// v1 Service.
    Service(Box<Service>),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy(Box<NetworkPolicy>),
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy(Box<ClusterNetworkPolicy>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
            Self::ClusterNetworkPolicy(o) => &o.metadata,
        }
    }

    /// Its key; a namespaced object without a namespace is in `default`.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self)
    }

    /// The object as Kubernetes' JSON, with `apiVersion` and `kind`.
    pub fn to_json(&self) -> serde_json::Value {
        let value = match self {
            Self::Namespace(o) => serde_json::to_value(o),
            Self::Node(o) => serde_json::to_value(o),
            Self::Pod(o) => serde_json::to_value(o),
            Self::Service(o) => serde_json::to_value(o),
            Self::EndpointSlice(o) => serde_json::to_value(o),
            Self::NetworkPolicy(o) => serde_json::to_value(o),
            Self::ClusterNetworkPolicy(o) => serde_json::to_value(o),
        };
        // These types serialise to JSON objects with string keys, which cannot fail.
        value.unwrap_or_default()
    }
}

impl Named for Object {
    fn parts(&self) -> (Kind, &[u8], &[u8]) {
        parts_of(self.kind(), self.metadata())
    }
}

/// The key of an object by its metadata, in parts.
pub(super) fn parts_of(kind: Kind, meta: &ObjectMeta) -> (Kind, &[u8], &[u8]) {
    let namespace = match meta.namespace.as_deref() {
        _ if !kind.is_namespaced() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    let name = meta.name.as_deref().unwrap_or_default();
    (kind, namespace.as_bytes(), name.as_bytes())
}
