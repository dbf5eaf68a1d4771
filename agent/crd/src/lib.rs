//! Types of the custom resources that Weir reads, for the crates that k8s-openapi's types serve.
//!
//! Data only: what a field means is for its readers to say, each for itself. Decoding is lenient where
//! the API server is strict, so that a reader can name what it refuses instead of losing the object.
#![forbid(unsafe_code)]

mod cluster_network_policy;

pub use cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, EgressPeer, EgressRule, IngressPeer,
    IngressRule, NamespacedPod, Other, Port, PortRange, Protocol, ProtocolPorts, Subject,
};
