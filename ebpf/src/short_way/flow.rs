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
    /// In units of [`CtEntry::queued`].
    moment: u16,
    last_seen: Ticks,
    queued: u16,
    packed: u16,
}

/// For so long after a packet that was left to the overlay's device all of its flow follow it there, in units of
/// [`CtEntry::queued`]. Its queue is worked off in the same turn as the interface's, or the next.
const QUEUE_LASTS: u16 = 1;

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
            let clock = conntrack::clock();
            let now = conntrack::ticks(clock);
            if last_seen != now && state::expired(was, head.proto, last_seen, now) {
                return None;
            }
            let queued = (&raw const (*entry).queued).read_volatile();
            let packed = (&raw const (*entry).packed).read_volatile();
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
                now,
                moment: (clock >> 24) as u16,
                last_seen,
                queued,
                packed,
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

    /// Notes that a packed packet is left to the overlay's device, which has a queue.
    #[inline(always)]
    pub fn note_queued(&self) {
        if self.queued != self.moment {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.entry).queued).write_volatile(self.moment) };
        }
    }

    /// Whether such a packet may still be in that queue.
    #[inline(always)]
    pub fn may_be_queued(&self) -> bool {
        self.queued != 0 && self.moment.wrapping_sub(self.queued) <= QUEUE_LASTS
    }

    /// Whether the device has to pack this packet: one in each tick, so that the kernel asks the next hop whether
    /// it is still there, which no look at its tables does.
    #[inline(always)]
    pub fn is_devices_turn(&self) -> bool {
        if self.packed == self.now as u16 {
            return false;
        }
        // SAFETY: as above.
        unsafe { (&raw mut (*self.entry).packed).write_volatile(self.now as u16) };
        true
    }
}
