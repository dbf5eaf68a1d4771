//! A flow's entry, as the short way needs it, read in place. Kernel only.

use weir_abi::conntrack::{CtEntry, CtKey, Stamp, Way, flags, seen};

use super::head::Head;
use crate::state::{self, Ticks};
use crate::{conntrack, policy};

/// What the flow's entry says of one end.
pub struct End {
    /// The pod there, see [`CtEntry::initiator`]; 0 for none of this node.
    pub incarnation: u32,
    /// The verdict there.
    stamp: Stamp,
}

impl End {
    /// Whether the pod, whose policy is in that slot, lets the flow pass.
    #[inline(always)]
    pub fn allows(&self, flow: &Flow, slot: u32) -> bool {
        self.stamp.tag() == flow.tag & Stamp::TAG_BITS && policy::allows(self.stamp, slot)
    }
}

/// A flow in its usual state.
pub struct Flow {
    pub sender: End,
    pub receiver: End,
    pub way: Way,
    pub tag: u32,
    entry: *mut CtEntry,
    now: Ticks,
    last_seen: Ticks,
    train: Ticks,
}

/// For so long after a train of segments packets of its flow follow it through the overlay's device.
const TRAINS_LAST: Ticks = 1;

impl Flow {
    /// The packet's, if this packet changes nothing of it but its time.
    #[inline(always)]
    pub fn of(head: &Head) -> Option<Self> {
        let (key, from_high) = CtKey::sorted(&head.tuple, head.proto);
        let entry = conntrack::established(&key)?;
        // SAFETY: a map value, valid memory until the program ends; volatile keeps the order in which the
        // tag is read first and last.
        unsafe {
            let tag = (&raw const (*entry).tag).read_volatile();
            let was = (&raw const (*entry).seen).read_volatile();
            let bits = (&raw const (*entry).flags).read_volatile();
            let original = (bits & flags::INITIATOR_HIGH != 0) == from_high;
            let usual = bits & !flags::INITIATOR_HIGH == 0
                && was & seen::REPLY != 0
                && state::advance(was, head.proto, original, head.tcp_flags) == was
                && (&raw const (*entry).version).read_volatile() == CtEntry::VERSION;
            let last_seen = (&raw const (*entry).last_seen).read_volatile();
            let train = (&raw const (*entry).train).read_volatile();
            let initiator = End {
                incarnation: (&raw const (*entry).initiator).read_volatile(),
                stamp: (&raw const (*entry).egress).read_volatile(),
            };
            let responder = End {
                incarnation: (&raw const (*entry).responder).read_volatile(),
                stamp: (&raw const (*entry).ingress).read_volatile(),
            };
            let way = (&raw const (*entry).way).read_volatile();
            if !usual || (&raw const (*entry).tag).read_volatile() != tag {
                return None;
            }
            let (sender, receiver) = if original {
                (initiator, responder)
            } else {
                (responder, initiator)
            };
            Some(Self {
                sender,
                receiver,
                way,
                tag,
                entry,
                now: conntrack::now(),
                last_seen,
                train,
            })
        }
    }

    /// Whether the entry needs not be told that the flow is alive.
    #[inline(always)]
    pub fn is_up_to_date(&self) -> bool {
        self.last_seen == self.now
    }

    /// Tells it.
    #[inline(always)]
    pub fn bring_up_to_date(&self) {
        if !self.is_up_to_date() {
            // SAFETY: a map value, valid memory until the program ends; a time does no harm to another flow's.
            unsafe { (&raw mut (*self.entry).last_seen).write_volatile(self.now) };
        }
    }

    /// Notes that a train of segments has gone to the overlay's device.
    #[inline(always)]
    pub fn note_train(&self) {
        if self.train != self.now {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.entry).train).write_volatile(self.now) };
        }
    }

    /// Whether such a train may still be on its way there.
    #[inline(always)]
    pub fn is_in_trains(&self) -> bool {
        self.train != 0 && self.now.wrapping_sub(self.train) <= TRAINS_LAST
    }
}
