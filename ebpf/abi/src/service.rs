//! Service maps: frontend → set of backends → backend.

use crate::{Addr, PortBe, Proto};

/// An immutable set of backends: the index of its first slot in `SLOTS`, where its slots stand one
/// after the other; 0 is no set. A changed Service gets a new set, then one write of `SERVICES`
/// flips to it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SetId(pub u32);

/// One (Service port, address, port, protocol, incarnation) that serves, by its index in `BACKENDS`;
/// 0 is no backend. A pod behind two Services is two backends, for it may leave one of them and stay with the other.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendId(pub u32);

/// Key of `SERVICES`: a frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// The frontend's address.
    pub addr: Addr,
    /// The frontend's port; 0 together with `proto` 0 is the *marker* of the address: without it
    /// no frontend of the address is looked up, so that writing it opens, and deleting it closes,
    /// all of them at once. Its flags are in [`marker`], its set and count are 0.
    pub port: PortBe,
    /// TCP, UDP or SCTP; 0 see `port`.
    pub proto: Proto,
    /// Who asks: one of [`scope`].
    pub scope: u8,
}

/// Who asks for a frontend: [`ServiceKey::scope`].
pub mod scope {
    /// Pods and the node itself, and those outside, too, unless the frontend has
    /// [`super::frontend::OUTSIDE_OWN`].
    pub const EVERYONE: u8 = 0;
    /// What comes in by an uplink (`externalTrafficPolicy: Local`).
    pub const OUTSIDE: u8 = 1;
}

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Which backends. Read together with `count` in one 8-byte load.
    pub set: SetId,
    /// How many backends the set has; 0 means: refuse.
    pub count: u32,
    /// In the marker of an address: see [`marker`]; in a frontend: see [`frontend`].
    pub flags: u32,
    /// Session affinity by client address, in seconds; 0 none.
    pub affinity_secs: u32,
    /// Which clients may use the frontend (`loadBalancerSourceRanges`): [`RangeKey::ranges`]; 0
    /// everyone.
    pub ranges: u32,
}

impl Service {
    /// From the first 8 bytes of a map value, read by one load, and the two fields after them.
    #[inline(always)]
    pub const fn unpack(set_and_count: u64, flags: u32, affinity_secs: u32, ranges: u32) -> Self {
        let word = set_and_count.to_ne_bytes();
        Self {
            set: SetId(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])),
            count: u32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
            flags,
            affinity_secs,
            ranges,
        }
    }
}

/// Flags of a frontend in `SERVICES`.
pub mod frontend {
    /// Who comes from outside finds the frontend under [`super::scope::OUTSIDE`].
    pub const OUTSIDE_OWN: u32 = 1;
    /// Without backends: drop in silence instead of refusing (`externalTrafficPolicy: Local` on a node
    /// without a backend, where a load balancer must not take a refusal for the Service's answer).
    pub const SILENT: u32 = 2;
}

/// Flags of an address's marker in `SERVICES`.
pub mod marker {
    /// A port that has no entry of its own is refused (ClusterIPs). Without it, it is not a
    /// Service's (node addresses with NodePorts, external addresses).
    pub const REFUSE_UNSERVED: u32 = 1;
}

impl ServiceKey {
    /// The address under which a frontend stands that every address of the node has which serves
    /// NodePorts ([`crate::node::node_addr::NODE_PORTS`]): `0.0.0.0` or `::`. It has no marker.
    #[inline(always)]
    pub const fn node_wide(v4: bool) -> Addr {
        if v4 {
            Addr::from_v4([0; 4])
        } else {
            Addr([0; 4])
        }
    }

    /// The key of an address's marker.
    #[inline(always)]
    pub const fn marker(addr: Addr) -> Self {
        Self {
            addr,
            port: PortBe(0),
            proto: Proto(0),
            scope: 0,
        }
    }
}

/// Names a slot of a set: element [`SlotKey::at`] of `SLOTS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotKey {
    /// The set.
    pub set: SetId,
    /// 0 up to the set's count.
    pub index: u32,
}

impl SlotKey {
    /// Index in `SLOTS`.
    #[inline(always)]
    pub const fn at(self) -> u32 {
        self.set.0.wrapping_add(self.index)
    }
}

/// Element of `SLOTS`, written and read as one aligned 8-byte word; zero is no slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Slot {
    /// The backend.
    pub backend: BackendId,
    /// Its incarnation: if the backend has another, the slot is one that is being given up.
    pub incarnation: u32,
}

impl Slot {
    /// From the word of the map.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let [backend, incarnation] = halves(word);
        Self {
            backend: BackendId(backend),
            incarnation,
        }
    }

    /// The word of the map.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        join(self.backend.0, self.incarnation)
    }
}

/// Element of `BACKENDS`, indexed by [`BackendId`]: four words of 8 bytes. Its last word says
/// whether there is a backend, is zero while the others are written, and is read before and
/// after them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Backend {
    /// The pod's (or node's) address.
    pub addr: Addr,
    /// The port it listens on.
    pub port: PortBe,
    /// Its protocol.
    pub proto: Proto,
    /// Always zero.
    pub zero: u8,
    /// Second word of the hash of what the backend is: the agent finds it again by its content.
    pub check: u32,
    /// First word of that hash, never 0, and the same on every node. It tells which pod of which
    /// Service port held the address when the backend was written: a reused address is another
    /// backend, and flows to the former one are new flows.
    pub incarnation: u32,
    /// A [`BackendState`].
    pub state: u32,
}

impl Backend {
    /// Words of an element.
    pub const WORDS: usize = 4;

    /// From the words of the map; `None` if there is no backend.
    #[inline(always)]
    pub const fn unpack(words: [u64; Self::WORDS]) -> Option<Self> {
        if words[3] == 0 {
            return None;
        }
        let [a, b] = halves(words[0]);
        let [c, d] = halves(words[1]);
        let [port_and_proto, check] = halves(words[2]);
        let [incarnation, state] = halves(words[3]);
        let [p, q, proto, zero] = port_and_proto.to_ne_bytes();
        Some(Self {
            addr: Addr([a, b, c, d]),
            port: PortBe(u16::from_ne_bytes([p, q])),
            proto: Proto(proto),
            zero,
            check,
            incarnation,
            state,
        })
    }

    /// The words of the map.
    #[inline(always)]
    pub const fn pack(self) -> [u64; Self::WORDS] {
        let [a, b, c, d] = self.addr.0;
        let [p, q] = self.port.0.to_ne_bytes();
        let port_and_proto = u32::from_ne_bytes([p, q, self.proto.0, self.zero]);
        [
            join(a, b),
            join(c, d),
            join(port_and_proto, self.check),
            join(self.incarnation, self.state),
        ]
    }
}

/// The two `u32` of an 8-byte word, in the order of memory.
const fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

const fn join(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// What a backend takes.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BackendState {
    /// Gone: takes no new flow, and UDP flows leave it with their next packet. The entry stays for
    /// a grace period.
    Removed = 0,
    /// In a set that its Service uses: takes new and established flows.
    Active = 1,
    /// In no such set, but still serving (terminating, or not for this node): keeps its established
    /// flows.
    Draining = 2,
}

/// Key of `SOURCE_RANGES`, an LPM trie: which clients may use a frontend. The longest prefix that
/// holds a client allows it; without any it is dropped.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RangeKey {
    /// Bits that count, of all that follows: 64 and those of the address (whose IPv4 form has 96 more).
    pub prefix_len: u32,
    /// [`Service::ranges`].
    pub ranges: u32,
    /// 4 or 6: a prefix of IPv6 must not hold IPv4.
    pub family: u32,
    /// The address as it stands in packets, IPv4 in the first word and zero behind it.
    pub addr: [u32; 4],
}

impl RangeKey {
    /// The key of a prefix; `len` in bits of the address's own family.
    #[inline(always)]
    pub const fn prefix(ranges: u32, addr: Addr, len: u32) -> Self {
        let v4 = addr.is_v4();
        Self {
            prefix_len: 64 + len,
            ranges,
            family: if v4 { 4 } else { 6 },
            addr: if v4 {
                [addr.v4_word(), 0, 0, 0]
            } else {
                addr.0
            },
        }
    }

    /// The key to look one client up by.
    #[inline(always)]
    pub const fn host(ranges: u32, addr: Addr) -> Self {
        let len = if addr.is_v4() { 32 } else { 128 };
        Self::prefix(ranges, addr, len)
    }
}

/// Key of `AFFINITY`: a client of a frontend with session affinity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AffinityKey {
    /// The client: a pod's or node's address also where a socket asks.
    pub client: Addr,
    /// The frontend, with the scope that was asked.
    pub frontend: ServiceKey,
    /// Always zero.
    pub zero: u32,
}

/// Value of `AFFINITY`: where the client went last.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity {
    /// The backend.
    pub backend: BackendId,
    /// Its incarnation then.
    pub incarnation: u32,
    /// When a new flow was last given to it, in ticks of 2^30 ns of the monotonic clock.
    pub last_used: u32,
    /// The set that it was chosen from: while it is the frontend's, the backend is a member.
    pub set: SetId,
}

crate::pod!(
    SetId,
    BackendId,
    ServiceKey,
    Service,
    SlotKey,
    Slot,
    Backend,
    RangeKey,
    AffinityKey,
    Affinity
);
