//! What the programs know of nodes.

use crate::Addr;

/// Value of `NODE_ADDRS`, keyed by [`crate::Addr`]: the addresses of this node itself.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAddr {
    /// Bits of [`node_addr`].
    pub flags: u32,
}

/// Bits of [`NodeAddr::flags`].
pub mod node_addr {
    /// The address serves NodePorts and the HostPorts that name no address.
    pub const NODE_PORTS: u32 = 1;
}

/// Value of `UPLINKS`, keyed by interface index (`u32`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UplinkInfo {
    /// The node's IPv4 address on it, the source of what the node translates; `::` for none.
    pub addr4: Addr,
    /// The node's IPv6 address on it, not a link-local one; `::` for none.
    pub addr6: Addr,
    /// The device's MAC address.
    pub mac: [u8; 6],
    /// Bits of [`uplink`].
    pub flags: u16,
}

/// Bits of [`UplinkInfo::flags`].
pub mod uplink {
    /// The overlay's device: what goes out of it is for nodes of the cluster alone.
    pub const OVERLAY: u16 = 1;
}

/// The address of the overlay's device on every node: the kernel finds no neighbours there, and sends
/// to the device's own.
pub const OVERLAY_MAC: [u8; 6] = [0x0a, 0x58, b'w', b'e', b'i', 0x02];

/// Source ports of VXLAN's outer packets, the last one excluded (RFC 7348 §5, RFC 6335 §6): the device's, and so
/// the programs', which must choose the same one for a flow.
pub const VXLAN_SOURCE_PORTS: (u16, u16) = (49152, 65535);

/// Value of `NETNS`, keyed by the network namespace's cookie (`u64`, `SO_NETNS_COOKIE`): whose
/// sockets are in it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetnsOwner {
    /// The pod's IPv4 address, or the node's; `::` for none.
    pub addr4: Addr,
    /// The IPv6 address.
    pub addr6: Addr,
    /// Bits of [`netns`].
    pub flags: u32,
    /// Always zero.
    pub zero: u32,
}

/// Bits of [`NetnsOwner::flags`].
pub mod netns {
    /// The node's own namespace.
    pub const NODE: u32 = 1;
}

/// Words of `CONFIG`, each changed by one aligned 8-byte store.
pub mod config {
    /// Bits of [`flags`].
    pub const FLAGS: u32 = 0;
    /// Source ports that the node's own translations use: the first in the low 16 bits, the last
    /// in the next 16, in host order; 0 none.
    pub const NAT_PORTS: u32 = 1;
    /// The overlay, or WireGuard in its place: the index of its device in the low 32 bits (all ones: there
    /// should be one), its UDP port in the next 16, in host order; 0 none.
    pub const OVERLAY: u32 = 2;
    /// In [`OVERLAY`]: the device packs what the packet's tunnel tells it (VXLAN, Geneve).
    pub const OVERLAY_IS_TOLD: u64 = 1 << 48;
    /// In [`OVERLAY`]: the device packs as VXLAN, and so may the programs in its place.
    pub const OVERLAY_IS_VXLAN: u64 = 1 << 49;
    /// In [`OVERLAY`]: the reverse path filter of an uplink is strict (`rp_filter` 1), which the programs must do in
    /// its place for what they unpack.
    pub const UPLINKS_ARE_STRICT: u64 = 1 << 50;
    /// How often `NODE_CIDRS`, `UPLINKS` or `NODE_ADDRS` have changed, after each change: what flows remember of
    /// them ([`crate::conntrack::Way`]) holds for one number.
    pub const GENERATION: u32 = 3;
    /// Not 0 once a router has said something of an outer packet of this node's: the ways of tunnels are looked at
    /// from then on. Written by the programs alone.
    pub const TUNNEL_ERROR: u32 = 4;
    /// Elements of the map.
    pub const WORDS: u32 = 16;

    /// Bits of [`FLAGS`].
    pub mod flags {
        /// Sockets of pods are left to the packet path (`--socket-lb=host-only`).
        pub const SOCKET_LB_HOST_ONLY: u64 = 1;
        /// TCP from outside goes to a backend on another node with the client's own address, and
        /// is answered from there (`--node-port-mode=dsr`).
        pub const DSR: u64 = 2;
        /// Pods reach those outside the cluster from the node's address (`--masquerade`).
        pub const MASQUERADE: u64 = 4;
    }
}

/// Value of `NODE_CIDRS` (an LPM trie keyed by [`crate::policy::LpmKey`]): where the pods of a node
/// are, and the own addresses of other nodes (without an uplink: the stack knows the way).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeCidr {
    /// Number of the node, 0 for this one and for what is no node's.
    pub node: u32,
    /// Uplink towards it (native routing), or the overlay's device, by interface index; 0: let the
    /// stack route.
    pub ifindex: u32,
    /// Bits of [`node_cidr`].
    pub flags: u32,
    /// Always zero.
    pub zero: u32,
    /// The node's address that tunnels end at, and come from, where its pods are reached by the
    /// overlay; else `::`.
    pub tunnel: Addr,
}

/// Bits of [`NodeCidr::flags`].
pub mod node_cidr {
    /// By the overlay: `ifindex` is its device.
    pub const OVERLAY: u32 = 1;
    /// Outside the cluster, and reached from pods' own addresses (`--non-masquerade-cidrs`).
    pub const EXTERNAL: u32 = 2;
    /// Its node has no key (`--encryption`): what would go there is dropped.
    pub const SEALED: u32 = 4;
}

crate::pod!(NodeAddr, NodeCidr, UplinkInfo, NetnsOwner);
