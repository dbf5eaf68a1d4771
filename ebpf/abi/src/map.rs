//! Names and sizes of maps. The kernel keeps 15 bytes of a name. The tables of policies and Services
//! begin with these sizes, and the agent has them grow (`agent/src/dataplane/sizes.rs`).

/// Most endpoints of one node (elements of `POLICY_SLOTS`).
pub const MAX_ENDPOINTS: u32 = 4096;
/// Elements of `INTERVALS` (8 bytes each).
pub const MAX_INTERVALS: u32 = 1 << 16;
/// Entries of `PEERS`.
pub const MAX_PEERS: u32 = 1 << 16;
/// Entries of `CIDRS`.
pub const MAX_CIDRS: u32 = 1 << 16;
/// Entries of `DECISIONS`.
pub const MAX_DECISIONS: u32 = 1 << 16;
/// Entries of `RULES`.
pub const MAX_RULES: u32 = 1 << 15;
/// Entries of `IDS`.
pub const MAX_IDS: u32 = 1 << 16;
/// Entries of `SERVICES`.
pub const MAX_SERVICES: u32 = 1 << 16;
/// Elements of `SLOTS` (8 bytes each).
pub const MAX_SLOTS: u32 = 1 << 17;
/// Elements of `BACKENDS` (32 bytes each).
pub const MAX_BACKENDS: u32 = 1 << 16;
/// Entries of `SOCK_CONNS` (LRU): connected sockets with a translated destination.
pub const MAX_SOCK_CONNS: u32 = 1 << 15;
/// Entries of `UDP_FLOWS` and of `UDP_REVS` (LRU): (unconnected UDP socket, peer) pairs.
pub const MAX_UDP_FLOWS: u32 = 1 << 14;
/// Entries of `SOURCE_RANGES`.
pub const MAX_SOURCE_RANGES: u32 = 1 << 16;
/// Entries of `AFFINITY` (LRU).
pub const MAX_AFFINITY: u32 = 1 << 14;
/// Entries of `UPLINKS`.
pub const MAX_UPLINKS: u32 = 64;
/// Entries of `NETNS`: a pod each, and the node.
pub const MAX_NETNS: u32 = 2 * MAX_ENDPOINTS;
/// Entries of `NODE_ADDRS`.
pub const MAX_NODE_ADDRS: u32 = 1 << 10;
/// Entries of `NODE_CIDRS`.
pub const MAX_NODE_CIDRS: u32 = 1 << 15;
/// Entries of `CT_NEW`.
pub const MAX_CT_NEW: u32 = 1 << 15;
/// Entries of `CT_EST`.
pub const MAX_CT_EST: u32 = 1 << 17;
/// Entries of `FRAGMENTS` (LRU): datagrams that are on their way in pieces.
pub const MAX_FRAGMENTS: u32 = 1 << 13;

/// `u32` interface index → [`crate::endpoint::Endpoint`].
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Array of [`crate::endpoint::Endpoint`], `BPF_F_MMAPABLE`, indexed by the incarnation modulo
/// [`MAX_ENDPOINTS`]: the endpoints that packets of established flows may come from and go to.
pub const INCARNATIONS: &str = "INCARNATIONS";
/// [`crate::Addr`] → [`crate::endpoint::Endpoint`].
pub const LOCAL_PODS: &str = "LOCAL_PODS";
/// Array of [`crate::policy::PolicySlot`], `BPF_F_MMAPABLE`.
pub const POLICY_SLOTS: &str = "POLICY_SLOTS";
/// [`crate::Addr`] → [`crate::policy::ClassId`].
pub const PEERS: &str = "PEERS";
/// LPM [`crate::policy::LpmKey`] → [`crate::policy::ClassId`].
pub const CIDRS: &str = "CIDRS";
/// [`crate::policy::DecisionKey`] → [`crate::policy::Decision`].
pub const DECISIONS: &str = "DECISIONS";
/// Array of [`crate::policy::Interval`].
pub const INTERVALS: &str = "INTERVALS";
/// [`crate::policy::RuleId`] → [`crate::policy::RuleInfo`].
pub const RULES: &str = "RULES";
/// [`crate::policy::IdKey`] → `u32`.
pub const IDS: &str = "IDS";
/// [`crate::Addr`] → [`crate::node::NodeAddr`].
pub const NODE_ADDRS: &str = "NODE_ADDRS";
/// LPM [`crate::policy::LpmKey`] → [`crate::node::NodeCidr`].
pub const NODE_CIDRS: &str = "NODE_CIDRS";
/// [`crate::service::ServiceKey`] → [`crate::service::Service`].
pub const SERVICES: &str = "SERVICES";
/// Array of [`crate::service::Slot`], `BPF_F_MMAPABLE`.
pub const SLOTS: &str = "SLOTS";
/// Array of [`crate::service::Backend`], `BPF_F_MMAPABLE`.
pub const BACKENDS: &str = "BACKENDS";
/// LPM [`crate::service::RangeKey`] → `u32`, always 1.
pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
/// LRU [`crate::service::AffinityKey`] → [`crate::service::Affinity`].
pub const AFFINITY: &str = "AFFINITY";
/// `u32` interface index → [`crate::node::UplinkInfo`].
pub const UPLINKS: &str = "UPLINKS";
/// `u64` namespace cookie → [`crate::node::NetnsOwner`].
pub const NETNS: &str = "NETNS";
/// Array of `u64`, `BPF_F_MMAPABLE`, indexed by [`crate::node::config`].
pub const CONFIG: &str = "CONFIG";
/// Per-CPU array of `u64`, indexed by [`crate::counter::Counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Per-CPU array of one `u64`: a tick of 2^30 ns in the high half, and how many ICMP errors have
/// been sent to those outside in it.
pub const ANSWERS: &str = "ANSWERS";
/// LRU: `u64` socket cookie → [`crate::sock::SockConn`].
pub const SOCK_CONNS: &str = "SOCK_CONNS";
/// LRU: [`crate::sock::SockKey`] of a frontend → [`crate::sock::UdpFlow`].
pub const UDP_FLOWS: &str = "UDP_FLOWS";
/// LRU: [`crate::sock::SockKey`] of a backend → [`crate::sock::SockAddr`] of the frontend.
pub const UDP_REVS: &str = "UDP_REVS";
/// LRU [`crate::conntrack::CtKey`] → [`crate::conntrack::CtEntry`]: half-open TCP, other flows
/// without a reply, and what is closing.
pub const CT_NEW: &str = "CT_NEW";
/// The same: established flows.
pub const CT_EST: &str = "CT_EST";
/// LRU [`crate::fragment::FragmentKey`] → [`crate::fragment::FragmentEntry`].
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Per-CPU memory that a program works in, and that says nothing between two packets. A dry run has
/// its own, and so disturbs nobody's.
pub const WORKING_MEMORY: [&str; 2] = ["SCRATCH", "FENCE"];
