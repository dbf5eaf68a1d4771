//! Endpoints: pods' attachments on this node.

use crate::Addr;

/// Value of `ENDPOINTS` (keyed by the host interface's index, a `u32`), of `LOCAL_PODS` (keyed
/// by [`Addr`]) and of `INCARNATIONS`: what the programs must know of one pod's attachment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// The pod's IPv4 address, or [`Addr::NONE`].
    pub addr4: Addr,
    /// The pod's IPv6 address, or [`Addr::NONE`].
    pub addr6: Addr,
    /// Index of the host side of the veth pair, in the node's namespace.
    pub ifindex: u32,
    /// Index in `POLICY_SLOTS`.
    pub slot: u32,
    /// Rises with every endpoint of this node, never reused while conntrack may remember it: a
    /// reused address inherits no flow. Never 0 and, of endpoints that are there, never the same modulo
    /// [`crate::map::MAX_ENDPOINTS`] (but for those of an older release: one of the two has no short way then).
    pub incarnation: u32,
    /// Reserved, zero.
    pub flags: u32,
    /// MAC address of the pod's side.
    pub pod_mac: [u8; 6],
    /// MAC address of the host's side, the pod's gateway.
    pub host_mac: [u8; 6],
    /// IP MTU of the pod's interface.
    pub mtu: u32,
}

/// The gateway of every pod, IPv4 (link-local, RFC 3927): answered by the `from_pod` program and
/// by a permanent neighbour entry.
pub const GATEWAY_V4: Addr = Addr::from_v4([169, 254, 1, 1]);

/// The gateway of every pod, IPv6 (`fe80::1`).
pub const GATEWAY_V6: Addr = Addr::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

impl Endpoint {
    /// The element of `INCARNATIONS` that is an incarnation's.
    #[inline(always)]
    #[must_use]
    pub const fn place(incarnation: u32) -> u32 {
        incarnation % crate::map::MAX_ENDPOINTS
    }
}

crate::pod!(Endpoint);
