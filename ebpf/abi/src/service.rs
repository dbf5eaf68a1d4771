//! Service maps: frontend → set of backends → backend.

use crate::{Addr, PortBe, Proto};

/// An immutable set of backends. A changed Service gets a new set, then one write of `SERVICES`
/// flips to it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SetId(pub u32);

/// One (address, port, protocol) that serves. 0 is no backend.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendId(pub u32);

/// Key of `SERVICES`: a frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// The frontend's address.
    pub addr: Addr,
    /// The frontend's port; 0 together with `proto` 0 says that the address belongs to a
    /// Service, whatever the port: a port that has no entry of its own is refused.
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
    /// Reserved, zero.
    pub flags: u32,
    /// Session affinity by client address, in seconds; 0 none.
    pub affinity_secs: u32,
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
    /// Takes new and established flows.
    Active = 0,
    /// Takes established flows only (terminating).
    Draining = 1,
    /// Takes none; the entry stays for a grace period.
    Removed = 2,
}

crate::pod!(SetId, BackendId, ServiceKey, Service, SlotKey, Backend);
