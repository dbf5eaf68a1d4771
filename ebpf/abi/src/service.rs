//! Service maps: frontend → set of backends → backend.

use crate::{Addr, PortBe, Proto};

/// An immutable set of backends. A changed Service gets a new set, then one write of `SERVICES`
/// flips to it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SetId(pub u32);

/// One (Service port, address, port, protocol, incarnation) that serves; 0 is no backend. A pod
/// behind two Services is two backends, for it may leave one of them and stay with the other.
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
    /// Who asks: 0 everyone (the only one so far; `Local` traffic policies will use others).
    pub scope: u8,
}

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Which backends. Read together with `count` in one 8-byte load.
    pub set: SetId,
    /// How many backends the set has; 0 means: refuse.
    pub count: u32,
    /// In the marker of an address: see [`marker`]. Else reserved, zero.
    pub flags: u32,
    /// Session affinity by client address, in seconds; 0 none.
    pub affinity_secs: u32,
}

impl Service {
    /// From the first 8 bytes of a map value, read by one load, and the two fields after them.
    #[inline(always)]
    pub const fn unpack(set_and_count: u64, flags: u32, affinity_secs: u32) -> Self {
        let word = set_and_count.to_ne_bytes();
        Self {
            set: SetId(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])),
            count: u32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
            flags,
            affinity_secs,
        }
    }
}

/// Flags of an address's marker in `SERVICES`.
pub mod marker {
    /// A port that has no entry of its own is refused (ClusterIPs). Without it, it is not a
    /// Service's (node addresses with NodePorts, external addresses).
    pub const REFUSE_UNSERVED: u32 = 1;
}

impl ServiceKey {
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

/// Key of `SLOTS`; the value is a [`BackendId`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotKey {
    /// The set.
    pub set: SetId,
    /// 0 up to the set's count.
    pub index: u32,
}

/// Value of `BACKENDS`, keyed by [`BackendId`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Backend {
    /// The pod's (or node's) address.
    pub addr: Addr,
    /// The port it listens on.
    pub port: PortBe,
    /// Its protocol.
    pub proto: Proto,
    /// A [`BackendState`].
    pub state: u8,
    /// Which pod held the address when the backend was written: a reused address is another
    /// backend, and flows to the former one are new flows.
    pub incarnation: u32,
}

/// What a backend takes.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendState {
    /// In its Service's current set: takes new and established flows.
    Active = 0,
    /// In no current set, but still serving (terminating): keeps its established flows.
    Draining = 1,
    /// Gone: takes no new flow, and UDP flows leave it with their next packet. The entry stays for
    /// a grace period.
    Removed = 2,
}

crate::pod!(SetId, BackendId, ServiceKey, Service, SlotKey, Backend);
