//! Fragments: what became of a datagram's first one, for the others, which carry no ports.
//!
//! A first fragment is judged, translated and sent like a whole packet; then an entry says so, and
//! the later ones that are met at the same place follow it.

use crate::Addr;

/// Key of `FRAGMENTS`: a datagram, as a receiver would put it together (RFC 791 §3.2,
/// RFC 8200 §4.5), and the place where its fragments are met. So nobody who is heard elsewhere can
/// add to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey {
    /// Source on the wire.
    pub src: Addr,
    /// Destination on the wire.
    pub dst: Addr,
    /// The identification: 16 bits in IPv4, 32 in IPv6, host order.
    pub id: u32,
    /// The protocol's number in IPv4. 0 in IPv6, where a receiver looks at the first fragment's
    /// alone.
    pub proto: u32,
    /// Index of the interface whose program meets them.
    pub ifindex: u32,
    /// Which of its programs: a number that means nothing outside of them.
    pub hook: u32,
}

impl FragmentKey {
    /// A digest of the key. It stands in the value: an LRU map may give an element to another key
    /// while a program reads it.
    #[inline(always)]
    pub fn check(&self) -> u32 {
        let (src, dst) = (&self.src.0, &self.dst.0);
        let mut digest = 0u32;
        for word in [
            src[0],
            src[1],
            src[2],
            src[3],
            dst[0],
            dst[1],
            dst[2],
            dst[3],
            self.id,
            self.proto,
            self.ifindex,
            self.hook,
        ] {
            digest = (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1);
        }
        digest
    }
}

/// Value of `FRAGMENTS`: what was found right for the first fragment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentEntry {
    /// Source after translation.
    pub src: Addr,
    /// Destination after translation.
    pub dst: Addr,
    /// When the first fragment passed, in ticks of 2^30 ns of the monotonic clock.
    pub written: u32,
    /// What is done with it: a number that means nothing outside of the programs.
    pub target: u32,
    /// Index of the interface that it goes to; 0 where the stack decides.
    pub target_ifindex: u32,
    /// Bytes of the datagram that the first fragment holds.
    pub length: u32,
    /// [`crate::endpoint::Endpoint::incarnation`] of the sender if it is a pod that is met at its
    /// own interface, else 0.
    pub sender: u32,
    /// The same of the receiver, if it is a pod of this node.
    pub receiver: u32,
    /// The epoch (low 32 bits) under which the sender's policy let it pass.
    pub sender_epoch: u32,
    /// The same of the receiver's.
    pub receiver_epoch: u32,
    /// [`flags`].
    pub flags: u32,
    /// [`FragmentKey::check`] of the key.
    pub check: u32,
}

/// Bits of [`FragmentEntry::flags`].
pub mod flags {
    /// No policy was asked here: the epochs mean nothing.
    pub const UNJUDGED: u32 = 1;
}

/// How long an entry is good for, in ticks: 30 s, as long as Linux waits for the rest of a datagram
/// (RFC 791 §3.2 and RFC 8200 §4.5 have 15 and 60 s).
pub const LIFE_TICKS: u32 = 28;

crate::pod!(FragmentKey, FragmentEntry);
