//! Policy maps: address → class, (group, class) → decision, decision → verdict by port.
//!
//! One new flow costs one peer lookup (`PEERS`, else `CIDRS`, else class 0) and one decision
//! lookup (at most three, where the row is the default one), however many policies there are.

use crate::{Addr, Proto};

/// A set of local endpoints with the same compiled rules in one direction.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct GroupId(pub u32);

impl GroupId {
    /// A group that never has rows: every flow is denied with [`RuleId::NO_ROW`]. It is what memory
    /// never written says, so that a forgotten slot fails closed.
    pub const CLOSED: Self = Self(0);
    /// Subject to no policy in this direction: allowed by [`RuleVerdict::NOT_SELECTED`] without a
    /// lookup.
    pub const OPEN: Self = Self(1);
    /// The first id that the compiler may give to a group; those below are fixed.
    pub const FIRST_DYNAMIC: Self = Self(16);
}

/// A number for one signature of a peer: which selectors and CIDRs match it. The high
/// [`ClassId::BASE_BITS`] bits number its *base*: what it has in common with many other classes.
///
/// A row of `DECISIONS` that is missing is that of the class's base, and where that is missing as
/// well, that of [`ClassId::WORLD`]: most classes differ from others in the eyes of few groups.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClassId(pub u32);

impl ClassId {
    /// An address outside the cluster that matches nothing. It is the base with the number 0.
    pub const WORLD: Self = Self(0);
    /// Bits of a base's number.
    pub const BASE_BITS: u32 = 8;
    /// Bits of a class's own number, which no other class of any base has; 0 is the base itself,
    /// and no address's class but for [`ClassId::WORLD`].
    pub const OWN_BITS: u32 = 32 - Self::BASE_BITS;

    /// The class with this number of its own on a base.
    #[inline(always)]
    pub const fn on_base(base: Self, own: u32) -> Self {
        Self(base.base().0 | own & !(u32::MAX << Self::OWN_BITS))
    }

    /// Its base.
    #[inline(always)]
    pub const fn base(self) -> Self {
        Self(self.0 & u32::MAX << Self::OWN_BITS)
    }

    /// Its own number.
    #[inline(always)]
    pub const fn own(self) -> u32 {
        self.0 & !(u32::MAX << Self::OWN_BITS)
    }
}

/// What decided, and how: bit 31 set means allow, the low 31 bits are the rule id. The all-zero
/// value is a denial by no rule, so that memory never written fails closed.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RuleVerdict(pub u32);

impl RuleVerdict {
    const ALLOW_BIT: u32 = 1 << 31;

    /// Allowed: no policy selects the endpoint in this direction.
    pub const NOT_SELECTED: Self = Self::allow(RuleId::NOT_SELECTED);

    /// An allowing verdict.
    #[inline(always)]
    pub const fn allow(rule: RuleId) -> Self {
        Self(rule.0 | Self::ALLOW_BIT)
    }

    /// A denying verdict.
    #[inline(always)]
    pub const fn deny(rule: RuleId) -> Self {
        Self(rule.0 & !Self::ALLOW_BIT)
    }

    /// Whether the flow may pass.
    #[inline(always)]
    pub const fn allowed(self) -> bool {
        self.0 & Self::ALLOW_BIT != 0
    }

    /// The rule that decided.
    #[inline(always)]
    pub const fn rule(self) -> RuleId {
        RuleId(self.0 & !Self::ALLOW_BIT)
    }
}

/// Names a rule, a default, or a fixed reason; at most 2^31 - 1.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule: the tables hold no row for this (group, class). Denied, and counted.
    pub const NO_ROW: Self = Self(0);
    /// No policy selects the endpoint in this direction.
    pub const NOT_SELECTED: Self = Self(1);
    /// A pod reaching its own address.
    pub const SELF: Self = Self(2);
    /// The node's own traffic to its pods.
    pub const OWN_NODE: Self = Self(3);
    /// A reply, or an ICMP error, of a tracked flow.
    pub const REPLY: Self = Self(4);
    /// The first id that the compiler may give to a rule; those below are fixed.
    pub const FIRST_DYNAMIC: Self = Self(64);
}

/// Element of `POLICY_SLOTS` (an array of [`crate::map::MAX_ENDPOINTS`], mapped into the agent's
/// memory): the compiled policy of one endpoint. Each word is changed by one aligned 8-byte store, so that no half of it is seen.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicySlot {
    /// Ingress group in the low, egress group in the high 32 bits: see [`PolicySlot::pack`].
    /// 0 (both [`GroupId::CLOSED`]) stands in slots that are not in use.
    pub groups: u64,
    /// Raised after the last write of any change that can alter one of the endpoint's verdicts.
    /// The low 32 bits are what conntrack entries are stamped with.
    pub epoch: u64,
}

impl PolicySlot {
    /// The `groups` word.
    #[inline(always)]
    pub const fn pack(ingress: GroupId, egress: GroupId) -> u64 {
        ingress.0 as u64 | (egress.0 as u64) << 32
    }

    /// The (ingress, egress) groups in a `groups` word.
    #[inline(always)]
    pub const fn unpack(groups: u64) -> (GroupId, GroupId) {
        (GroupId(groups as u32), GroupId((groups >> 32) as u32))
    }
}

/// Key of `CIDRS` and `NODE_CIDRS`, both LPM tries. The family byte stands first, so that an IPv6 `::/0` is no
/// ancestor of IPv4: `prefix_len` counts [`LpmKey::FAMILY_BITS`] plus the bits of the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LpmKey {
    /// Significant bits, those of `family` and `zero` included.
    pub prefix_len: u32,
    /// 4 or 6.
    pub family: u8,
    /// Always zero.
    pub zero: [u8; 3],
    /// Network order. IPv4 stands in the first word, the rest is zero.
    pub addr: [u32; 4],
}

impl LpmKey {
    /// Bits of a key before the address.
    pub const FAMILY_BITS: u32 = 32;

    /// The key that looks an address up.
    #[inline(always)]
    pub const fn host(addr: Addr) -> Self {
        if addr.is_v4() {
            Self::prefix(addr, 32)
        } else {
            Self::prefix(addr, 128)
        }
    }

    /// The key of a prefix; `len` counts the bits of the address in its own family, and bits of
    /// `addr` beyond it must be zero.
    #[inline(always)]
    pub const fn prefix(addr: Addr, len: u8) -> Self {
        let (family, words) = if addr.is_v4() {
            (4, [addr.v4_word(), 0, 0, 0])
        } else {
            (6, addr.0)
        };
        Self {
            prefix_len: Self::FAMILY_BITS + len as u32,
            family,
            zero: [0; 3],
            addr: words,
        }
    }
}

/// Key of `DECISIONS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DecisionKey {
    /// Of the endpoint that is judged, in the direction judged.
    pub group: GroupId,
    /// Of the other end.
    pub class: ClassId,
}

/// Value of `DECISIONS`: where the verdicts of one (group, class) stand.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Decision {
    /// With `len` 0: the [`RuleVerdict`] for every protocol and port. Else the index in
    /// `INTERVALS` of the first of `len` intervals.
    pub at: u32,
    /// Number of intervals, at most [`Decision::MAX_LEN`].
    pub len: u32,
}

impl Decision {
    /// The program's binary search takes at most this many steps.
    pub const SEARCH_STEPS: u32 = 16;
    /// Most intervals of one table.
    pub const MAX_LEN: u32 = 1 << Self::SEARCH_STEPS;
}

/// Element of `INTERVALS` (an array): from `start` up to the next interval's start, the verdict is `verdict`. The first
/// interval of a table starts at 0, starts rise strictly, and the last one reaches to the end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Interval {
    /// `protocol << 16 | port`, host order; see [`Interval::key`].
    pub start: u32,
    /// What holds from there on.
    pub verdict: RuleVerdict,
}

impl Interval {
    /// Where a protocol and a port (host order; 0 for protocols without ports) stand.
    #[inline(always)]
    pub const fn key(proto: Proto, port: u16) -> u32 {
        (proto.0 as u32) << 16 | port as u32
    }
}

/// What an id of the `IDS` map numbers.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IdKind {
    /// A [`GroupId`].
    Group = 1,
    /// A [`ClassId`].
    Class = 2,
    /// A [`RuleId`].
    Rule = 3,
    /// Reserved: sets of backends are found by their content, not by `IDS`.
    Set = 4,
    /// Reserved, as above: backends.
    Backend = 5,
    /// A base of classes (a [`ClassId`] whose own number is 0).
    Base = 6,
}

/// Key of `IDS` (user space only): the content an id stands for. The value is the id, a `u32`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdKey {
    /// An [`IdKind`].
    pub kind: u32,
    /// First 128 bits of the BLAKE3 hash of the content.
    pub hash: [u8; 16],
}

/// Value of `RULES` (user space only), keyed by [`RuleId`]: the rule's name as JSON, so that the
/// CLI can name a rule while the agent is down. The JSON is `D`'s `rule` or `isolatedBy` of
/// `weir policy test` (docs/cli.md) with `kind`, `namespace`, `name`, `direction`, `path`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleInfo {
    /// Bytes of `text` in use.
    pub len: u32,
    /// UTF-8.
    pub text: [u8; RuleInfo::TEXT],
}

impl RuleInfo {
    /// Most bytes of a rule's JSON.
    pub const TEXT: usize = 1020;
}

crate::pod!(
    GroupId,
    ClassId,
    RuleVerdict,
    RuleId,
    PolicySlot,
    LpmKey,
    DecisionKey,
    Decision,
    Interval,
    IdKey,
    RuleInfo,
);
