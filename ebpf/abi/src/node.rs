//! What the programs know of nodes.

/// Value of `NODE_ADDRS`, keyed by [`crate::Addr`]: the addresses of this node itself.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAddr {
    /// Reserved, zero.
    pub flags: u32,
}

/// Value of `NODE_CIDRS` (an LPM trie keyed by [`crate::policy::LpmKey`]): where the pods of a node are.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeCidr {
    /// Number of the node, 0 for this one.
    pub node: u32,
    /// Uplink towards it (native routing), by interface index; 0: let the stack route.
    pub ifindex: u32,
}

crate::pod!(NodeAddr, NodeCidr);
