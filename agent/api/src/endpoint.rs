//! `/v1/endpoints`: adoption and listing of pods' attachments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Every pod's IPv4 gateway (link-local, RFC 3927); the ABI crate has the same for the programs.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Every pod's IPv6 gateway.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Body of `POST /v1/endpoints`: the plugin asks the agent to adopt what it has made. The answer
/// (200, an [`Endpoint`]) comes once the endpoint's policy is in force; an error is an
/// [`crate::error::ApiError`] and leaves nothing adopted. Asking again for the same (container,
/// interface) and the same content is answered with 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptRequest {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface's name in the pod.
    pub ifname: String,
    /// The network's `name` in the CNI configuration.
    pub network: String,
    /// Path of the pod's network namespace, as the runtime named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Cookie of that namespace (`SO_NETNS_COOKIE`): by it the socket hooks know whose a socket is.
    /// A plugin older than this field does not send it; the pod's sockets are then nobody's, and
    /// Services choose among all their backends for each of its connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_cookie: Option<u64>,
    /// Name of the host side of the veth pair.
    pub host_ifname: String,
    /// Index of the host side, in the node's namespace.
    pub host_ifindex: u32,
    /// MAC address of the host side, `aa:bb:cc:dd:ee:ff`.
    pub host_mac: String,
    /// MAC address of the pod's side.
    pub pod_mac: String,
    /// IP MTU of the pod's interface, bytes.
    pub mtu: u32,
    /// The pod's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Which Pod this is; absent for runtimes without Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

/// A Pod as CNI arguments name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; a static pod's is its config hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// One endpoint of this node, in `GET /v1/endpoints` (sorted by namespace, name, container).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What the plugin asked for.
    #[serde(flatten)]
    pub attachment: AdoptRequest,
    /// Index in the policy slots.
    pub slot: u32,
    /// Names the policies that select the pod, per direction; both empty where there are none or
    /// where the endpoint is no Kubernetes pod.
    pub ingress: Direction,
    /// See `ingress`.
    pub egress: Direction,
    /// Whether the programs are attached to the host interface, in their place.
    pub attached: bool,
}

/// One direction of an endpoint's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Direction {
    /// The group's id in the kernel.
    pub group: u32,
    /// `namespace/name` of each NetworkPolicy that isolates the pod in this direction, sorted.
    #[serde(default)]
    pub isolated_by: Vec<String>,
}
