//! Counters, and the reasons a packet is dropped for.

/// Index in `COUNTERS` (per-CPU array of `u64`). Numbers are part of the contract with
/// dashboards: a retired one is never given to another meaning.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counter {
    /// Packets redirected into a local pod.
    Delivered = 0,
    /// Packets redirected to another node.
    Forwarded = 1,
    /// Packets left to the kernel's stack.
    ToStack = 2,
    /// Dropped: not parseable, truncated, or to a loopback address.
    DropMalformed = 8,
    /// Dropped: a source address (or ARP/ND sender) that is not the pod's.
    DropSpoofed = 9,
    /// Dropped: denied by policy on ingress.
    DropPolicyIngress = 10,
    /// Dropped: denied by policy on egress.
    DropPolicyEgress = 11,
    /// Dropped: the policy tables hold no row (fail closed).
    DropNoRow = 12,
    /// Dropped: a fragment that cannot be matched to its first.
    DropFragment = 13,
    /// Dropped: an IPv6 packet with an IPv4-mapped address.
    DropMappedV4 = 14,
    /// Dropped: conntrack could not hold the flow.
    DropConntrackFull = 15,
    /// Dropped: no free source port for a colliding reply tuple.
    DropPortsExhausted = 16,
    /// Refused: a Service without endpoints, or a port that a Service does not have.
    RefusedNoEndpoint = 17,
    /// Dropped: a tracked connection's state forbids the packet.
    DropInvalidState = 18,
    /// Dropped: router advertisements, redirects and the like from a pod.
    DropForbiddenIcmp = 19,
    /// Dropped: a packet from outside with one of this node's own addresses, or of its pods', as
    /// source.
    DropOwnSource = 20,
    /// Dropped: the program's own helper call failed.
    DropInternal = 21,
    /// Dropped: to a pod's interface, but not to an address of the pod.
    DropNotForPod = 22,
    /// Dropped: an interface that carries the program, but is no endpoint (yet).
    DropUnknownEndpoint = 23,
    /// Dropped: neither IPv4, IPv6 nor ARP.
    DropOtherProtocol = 24,
    /// Ignored: what pods send to routers by themselves (multicast listener reports, router
    /// solicitations, address detection): neither an attack nor an error.
    IgnoredNoise = 25,
    /// ARP and neighbour solicitations for the gateway, answered.
    AnsweredNeighbour = 26,
    /// Answered with "time exceeded" or "packet too big".
    AnsweredIcmp = 27,
    /// Dropped: from outside, to a Service of which no backend is on this node
    /// (`externalTrafficPolicy: Local`).
    DropNoLocalBackend = 28,
    /// Dropped: the client is in none of the Service's `loadBalancerSourceRanges`.
    DropSourceRange = 29,
    /// Dropped: no way to the chosen backend, or none back to the client.
    DropNoRoute = 30,
    /// Dropped: an answer to somebody outside, of which there were too many at once.
    DropRateLimited = 31,
    /// Dropped: it pretends to have come by the overlay, or would make the overlay believe so: a tunnel
    /// from another address than that of the node whose source the packet has, a bare packet of a pod
    /// that is behind the overlay, or a packet to the overlay's port of a node.
    DropForgedTunnel = 36,
    /// Dropped: sent to the overlay's device, but to no node's pods.
    DropNoTunnel = 37,
    /// Dropped: for pods of a node that has published no key, while `--encryption` is on.
    DropNoKey = 38,
}

/// Number of elements of `COUNTERS`.
pub const COUNTERS: u32 = 64;

impl Counter {
    /// Every counter, in the order of the numbers.
    pub const ALL: [Self; 30] = [
        Self::Delivered,
        Self::Forwarded,
        Self::ToStack,
        Self::DropMalformed,
        Self::DropSpoofed,
        Self::DropPolicyIngress,
        Self::DropPolicyEgress,
        Self::DropNoRow,
        Self::DropFragment,
        Self::DropMappedV4,
        Self::DropConntrackFull,
        Self::DropPortsExhausted,
        Self::RefusedNoEndpoint,
        Self::DropInvalidState,
        Self::DropForbiddenIcmp,
        Self::DropOwnSource,
        Self::DropInternal,
        Self::DropNotForPod,
        Self::DropUnknownEndpoint,
        Self::DropOtherProtocol,
        Self::IgnoredNoise,
        Self::AnsweredNeighbour,
        Self::AnsweredIcmp,
        Self::DropNoLocalBackend,
        Self::DropSourceRange,
        Self::DropNoRoute,
        Self::DropRateLimited,
        Self::DropForgedTunnel,
        Self::DropNoTunnel,
        Self::DropNoKey,
    ];

    /// The counter of a number; `None` for one that is not in use.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|counter| *counter as u32 == number)
    }
}
